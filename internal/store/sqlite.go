package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
)

const (
	sqliteFile    = "falaj.db"
	sqliteReaders = 4
	// busyMillis is how long a statement waits for another process's lock.
	busyMillis = 5000
	// keptStatements bounds the prepared statements of one connection.
	keptStatements = 256
	// walBytes is what the write-ahead log is cut back to after a burst.
	walBytes = 64 << 20
)

// lite is SQLite: one writing connection and a few that read, in WAL mode, so
// that readers and the writer never wait for each other.
type lite struct {
	path            string
	writer, readers *pool
}

func openSQLite(ctx context.Context, cfg Config, rooms []Migrations) (*lite, error) {
	path := cfg.DSN
	if path == "" {
		path = sqliteFile
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := create(path); err != nil {
		return nil, err
	}
	n := cfg.MaxOpen
	if n <= 0 {
		n = sqliteReaders
	}
	e := &lite{path: path}
	w, err := openFile(path, "_journal_mode=WAL")
	if err != nil {
		return nil, err
	}
	w.SetMaxOpenConns(1)
	if err := migrate(ctx, w, SQLite, rooms); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	// SQLite syncs the folder when it first syncs the write-ahead log in it, and
	// passes over an error there: without its entry, the log would be lost.
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	e.writer = newPool(w, 1)
	r, err := openFile(path, "_query_only=1")
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	e.readers = newPool(r, n)
	return e, nil
}

// create makes the file, readable by its owner alone: SQLite gives the same
// mode to the files beside it.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func openFile(path string, more ...string) (*sql.DB, error) {
	set := append([]string{
		fmt.Sprintf("_busy_timeout=%d", busyMillis),
		"_foreign_keys=1",
		"_synchronous=FULL",
		"_dqs=0",
		"_defensive=1",
		"_pragma=trusted_schema(0)",
		"_pragma=secure_delete(1)", // what is removed is to be gone
		fmt.Sprintf("_pragma=journal_size_limit(%d)", walBytes),
	}, more...)
	c, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(set, "&")}).String())
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

func (e *lite) write(ctx context.Context, _ bool, fn func(*Tx) error) error {
	return retry(ctx, func() error {
		c, err := e.writer.take(ctx)
		if err != nil {
			return broken(err, "waiting for the writer")
		}
		defer e.writer.give(c)
		return c.run(ctx, "BEGIN IMMEDIATE", fn)
	})
}

func (e *lite) read(ctx context.Context, fn func(*Tx) error) error {
	return retry(ctx, func() error {
		c, err := e.readers.take(ctx)
		if err != nil {
			return broken(err, "waiting for a reader")
		}
		defer e.readers.give(c)
		return c.run(ctx, "BEGIN", fn)
	})
}

func (e *lite) exec(ctx context.Context, query string, args []any) (r sql.Result, err error) {
	err = retry(ctx, func() error {
		c, err := e.writer.take(ctx)
		if err != nil {
			return err
		}
		defer e.writer.give(c)
		r, err = c.exec(ctx, query, args)
		return err
	})
	return r, broken(err, "writing")
}

func (e *lite) query(ctx context.Context, query string, args []any) (*Rows, error) {
	c, err := e.readers.take(ctx)
	if err != nil {
		return nil, broken(err, "waiting for a reader")
	}
	rows, err := c.query(ctx, query, args)
	if err != nil {
		e.readers.give(c)
		return nil, broken(err, "reading")
	}
	return &Rows{Rows: rows, release: func() { e.readers.give(c) }}, nil
}

func (e *lite) queryRow(ctx context.Context, query string, args []any) *Row {
	rows, err := e.query(ctx, query, args)
	return &Row{rows: rows, err: err}
}

func (e *lite) number() uint64 { return 0 }

func (e *lite) close() error {
	return errors.Join(e.readers.close(), e.writer.close())
}

// pool hands out connections that keep their prepared statements, which
// database/sql's own pool does not do for those inside transactions.
type pool struct {
	db    *sql.DB
	slots chan *conn // an unopened connection is a nil
	n     int
}

func newPool(db *sql.DB, n int) *pool {
	db.SetMaxIdleConns(n)
	p := &pool{db: db, slots: make(chan *conn, n), n: n}
	for range n {
		p.slots <- nil
	}
	return p
}

func (p *pool) take(ctx context.Context) (*conn, error) {
	var c *conn
	select {
	case c = <-p.slots:
	default:
		select {
		case c = <-p.slots:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c != nil {
		return c, nil
	}
	sc, err := p.db.Conn(ctx)
	if err != nil {
		p.slots <- nil
		return nil, err
	}
	return &conn{c: sc, stmts: map[string]*sql.Stmt{}}, nil
}

func (p *pool) give(c *conn) {
	if c.spoilt {
		// Whatever state it is in, the next transaction must not inherit it.
		_ = c.c.Raw(func(any) error { return driver.ErrBadConn })
		_ = c.c.Close()
		c = nil
	}
	p.slots <- c
}

// close waits until every connection has been given back.
func (p *pool) close() error {
	var errs []error
	for range p.n {
		if c := <-p.slots; c != nil {
			for _, s := range c.stmts {
				errs = append(errs, s.Close())
			}
			errs = append(errs, c.c.Close())
		}
	}
	return errors.Join(append(errs, p.db.Close())...)
}

// conn is one connection with its prepared statements; one user at a time.
type conn struct {
	c      *sql.Conn
	stmts  map[string]*sql.Stmt
	spoilt bool
}

// run runs fn between begin and COMMIT.
func (c *conn) run(ctx context.Context, begin string, fn func(*Tx) error) (err error) {
	if _, err := c.exec(ctx, begin, nil); err != nil {
		return broken(err, "beginning a transaction")
	}
	open := true
	defer func() {
		if !open {
			return
		}
		// Also the way out of a panic in fn. SQLite may have rolled back by
		// itself, and says so by an error here; either way nothing is open.
		if _, e := c.exec(context.WithoutCancel(ctx), "ROLLBACK", nil); e != nil {
			c.spoilt = true
		}
	}()
	t := &Tx{s: c}
	if err := fn(t); err != nil {
		return engineFault(err, "in a transaction")
	}
	if t.failed != nil {
		return broken(t.failed, "in a transaction")
	}
	if _, err := c.exec(ctx, "COMMIT", nil); err != nil {
		return broken(err, "committing")
	}
	open = false
	return nil
}

// stmt finds a statement prepared or prepares it; nil says that enough are
// kept already and this one runs unprepared.
func (c *conn) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := c.stmts[query]; ok || len(c.stmts) >= keptStatements {
		return s, nil
	}
	s, err := c.c.PrepareContext(ctx, unlocked(query))
	if err != nil {
		return nil, err
	}
	c.stmts[query] = s
	return s, nil
}

func unlocked(query string) string { return strings.ReplaceAll(query, " FOR UPDATE", "") }

// exec runs a statement. A cancelled context is noticed before, not during:
// watching it costs the driver a goroutine a statement, and an interrupted
// one would roll the transaction back under its user's feet.
func (c *conn) exec(ctx context.Context, query string, args []any) (sql.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	s, err := c.stmt(ctx, query)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return c.c.ExecContext(ctx, unlocked(query), args...)
	}
	return s.ExecContext(ctx, args...)
}

func (c *conn) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	s, err := c.stmt(ctx, query)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return c.c.QueryContext(ctx, unlocked(query), args...)
	}
	return s.QueryContext(ctx, args...)
}
