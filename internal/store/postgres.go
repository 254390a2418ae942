package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/falaj/falaj/internal/fault"
)

const (
	postgresConns = 16
	// keptQueries bounds the queries whose placeholders are remembered.
	keptQueries = 1024
)

type pg struct {
	db      *sql.DB
	server  *server
	mu      sync.RWMutex
	rebound map[string]string
}

func openPostgres(ctx context.Context, cfg Config, rooms []Migrations) (*pg, error) {
	c, err := pgx.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, fault.Wrap(fault.ConfigInvalid, err, "the database's URL")
	}
	n := cfg.MaxOpen
	if n <= 0 {
		n = postgresConns
	}
	server := &server{}
	db := sql.OpenDB(server.connector(c))
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(5 * time.Minute)
	if err = db.PingContext(ctx); errors.Is(err, context.DeadlineExceeded) {
		err = fault.Wrap(fault.StoreFailed, err, "the server does not answer, or confirms no commit: then its synchronous standby is away")
	}
	if err == nil {
		err = migrate(ctx, db, Postgres, rooms)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &pg{db: db, server: server, rebound: map[string]string{}}, nil
}

func (e *pg) write(ctx context.Context, locked bool, fn func(*Tx) error) error {
	level := sql.LevelSerializable
	if locked {
		level = sql.LevelReadCommitted
	}
	return retry(ctx, func() error { return e.run(ctx, &sql.TxOptions{Isolation: level}, fn) })
}

func (e *pg) read(ctx context.Context, fn func(*Tx) error) error {
	opts := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	return retry(ctx, func() error { return e.run(ctx, opts, fn) })
}

func (e *pg) run(ctx context.Context, opts *sql.TxOptions, fn func(*Tx) error) (err error) {
	defer func() {
		// A transaction whose context ends is rolled back behind our back.
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	tx, err := e.db.BeginTx(ctx, opts)
	if err != nil {
		return broken(err, "beginning a transaction")
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	t := &Tx{s: pgSession{e, tx}}
	if err := fn(t); err != nil {
		return engineFault(err, "in a transaction")
	}
	if t.failed != nil {
		return broken(t.failed, "in a transaction")
	}
	if err := tx.Commit(); err != nil {
		return broken(err, "committing")
	}
	return nil
}

type pgSession struct {
	e  *pg
	tx *sql.Tx
}

func (s pgSession) exec(ctx context.Context, query string, args []any) (sql.Result, error) {
	return s.tx.ExecContext(ctx, s.e.rebind(query), args...)
}

func (s pgSession) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	return s.tx.QueryContext(ctx, s.e.rebind(query), args...)
}

func (e *pg) exec(ctx context.Context, query string, args []any) (r sql.Result, err error) {
	err = retry(ctx, func() error {
		r, err = e.db.ExecContext(ctx, e.rebind(query), args...)
		return err
	})
	return r, broken(err, "writing")
}

func (e *pg) query(ctx context.Context, query string, args []any) (*Rows, error) {
	rows, err := e.db.QueryContext(ctx, e.rebind(query), args...)
	if err != nil {
		return nil, broken(err, "reading")
	}
	return &Rows{Rows: rows}, nil
}

func (e *pg) queryRow(ctx context.Context, query string, args []any) *Row {
	rows, err := e.query(ctx, query, args)
	return &Row{rows: rows, err: err}
}

func (e *pg) backup(context.Context, string) error {
	return fault.New(fault.BadRequest, "back PostgreSQL up with its own tools: pg_basebackup or pg_dump")
}

func (e *pg) settle(ctx context.Context, compact bool) error {
	if !compact {
		return nil
	}
	rows, err := e.db.QueryContext(ctx, "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema()")
	if err != nil {
		return err
	}
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return errors.Join(err, rows.Close())
		}
		names = append(names, name)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if _, err := e.db.ExecContext(ctx, "VACUUM FULL "+name); err != nil {
			return err
		}
	}
	return nil
}

func (e *pg) number() uint64 { return e.server.now() }

func (e *pg) close() error { return e.db.Close() }

// rebind turns each ? outside quotes into $1, $2, …
func (e *pg) rebind(query string) string {
	e.mu.RLock()
	s, ok := e.rebound[query]
	e.mu.RUnlock()
	if ok {
		return s
	}
	s = number(query)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.rebound) < keptQueries {
		e.rebound[query] = s
	}
	return s
}

func number(query string) string {
	var b strings.Builder
	var quote byte
	n := 0
	for i := range len(query) {
		c := query[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '?':
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
