package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
)

// Tx is a transaction. As in PostgreSQL, so with both engines: a statement
// that fails dooms the transaction, and every later one fails at once. Close
// the rows of one query before the next statement.
//
// Queries carry ? placeholders. FOR UPDATE is left out on SQLite, whose write
// transaction is alone anyway.
type Tx struct {
	s       session
	failed  error
	changed bool
}

// session is a connection with an open transaction.
type session interface {
	exec(ctx context.Context, query string, args []any) (sql.Result, error)
	query(ctx context.Context, query string, args []any) (*sql.Rows, error)
}

var errDoomed = errors.New("store: an earlier statement of this transaction failed")

// Exec runs a statement.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if t.failed != nil {
		return nil, errDoomed
	}
	r, err := t.s.exec(ctx, query, args)
	if err != nil {
		return nil, t.fail(err)
	}
	if !t.changed && !reads(query) {
		n, err := r.RowsAffected()
		t.changed = err != nil || n != 0
	}
	return r, nil
}

// Query reads rows; close them.
func (t *Tx) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	if t.failed != nil {
		return nil, errDoomed
	}
	r, err := t.s.query(ctx, query, args)
	if err != nil {
		return nil, t.fail(err)
	}
	t.changed = t.changed || !reads(query)
	return &Rows{Rows: r, tx: t}, nil
}

// QueryRow reads one row; its error comes with Scan.
func (t *Tx) QueryRow(ctx context.Context, query string, args ...any) *Row {
	rows, err := t.Query(ctx, query, args...)
	return &Row{rows: rows, err: err}
}

// Failed reports whether a statement failed: the transaction cannot commit.
func (t *Tx) Failed() bool { return t.failed != nil }

// Broken is the error of a statement that failed because the engine could not
// serve it (a lost connection, a full disk, a deadlock), not by its own doing;
// nil where there is none. Returned from the transaction's function, it has
// the transaction run again or fail as it should.
func (t *Tx) Broken() error {
	if t.failed == nil || own(t.failed) {
		return nil
	}
	return t.failed
}

// Changed reports whether a statement changed rows, or may have, since the
// transaction began or ResetChanged was called.
func (t *Tx) Changed() bool { return t.changed }

// ResetChanged makes Changed speak of what comes after.
func (t *Tx) ResetChanged() { t.changed = false }

func (t *Tx) fail(err error) error {
	if t.failed == nil {
		t.failed = err
	}
	return err
}

// reads says that a statement cannot change rows.
func reads(query string) bool {
	return len(query) >= 6 && strings.EqualFold(query[:6], "select")
}

// Rows are sql.Rows that give their connection back.
type Rows struct {
	*sql.Rows
	tx      *Tx    // nil outside a transaction
	release func() // nil inside one
}

// Next steps to the next row; after the last one the rows are closed.
func (r *Rows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	_ = r.Close() // the error that matters is Err
	return false
}

// Err is the error that ended the rows, if one did.
func (r *Rows) Err() error {
	err := r.Rows.Err()
	if err != nil && r.tx != nil {
		return r.tx.fail(err)
	}
	return err
}

// Close ends the rows early; closing twice does nothing.
func (r *Rows) Close() error {
	err := r.Rows.Close()
	if r.tx != nil {
		if e := r.Rows.Err(); e != nil {
			_ = r.tx.fail(e)
		}
	}
	if r.release != nil {
		r.release()
		r.release = nil
	}
	return err
}

// Row is the one row of QueryRow.
type Row struct {
	rows *Rows
	err  error
}

// Scan reads the row into dest; sql.ErrNoRows where there is none.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer func() { _ = r.rows.Close() }()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	return r.rows.Close()
}
