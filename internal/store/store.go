// Package store is the one engine: SQLite in the binary, or PostgreSQL when a
// node outgrows one machine. It opens, brings the tables up to date from the
// migrations handed in, and runs transactions. The tables and the queries
// belong to the rooms that use them.
package store

import (
	"context"
	"database/sql"
	"io/fs"
	"strings"

	"github.com/falaj/falaj/internal/fault"
)

// Dialect names the engine behind a DB.
type Dialect string

// The engines.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// Migrations are one room's tables. FS holds sqlite/NNNN_name.sql and
// postgres/NNNN_name.sql under the same numbers, in goose's format; what has
// been applied stands in the table <Room>_migration.
type Migrations struct {
	Room string
	FS   fs.FS
}

// Config says where the data is. Its zero value is the file falaj.db in the
// working directory.
type Config struct {
	// DSN is a path (SQLite; missing folders are made) or a URL that begins
	// with postgres:// or postgresql://.
	DSN string
	// MaxOpen bounds the connections: SQLite's readers beside the one writer
	// (4), or all of PostgreSQL's (16).
	MaxOpen int
}

// engine is what differs between the two.
type engine interface {
	write(ctx context.Context, locked bool, fn func(*Tx) error) error
	read(ctx context.Context, fn func(*Tx) error) error
	exec(ctx context.Context, query string, args []any) (sql.Result, error)
	query(ctx context.Context, query string, args []any) (*Rows, error)
	queryRow(ctx context.Context, query string, args []any) *Row
	backup(ctx context.Context, path string) error
	settle(ctx context.Context, compact bool) error
	number() uint64
	close() error
}

// DB is an open database; safe for concurrent use.
type DB struct {
	dialect Dialect
	engine  engine
}

// Open opens or creates the database and applies what is missing of each
// room's migrations, in the order given. It refuses a PostgreSQL server that
// would acknowledge commits before they are durable.
func Open(ctx context.Context, cfg Config, rooms ...Migrations) (*DB, error) {
	if strings.HasPrefix(cfg.DSN, "postgres://") || strings.HasPrefix(cfg.DSN, "postgresql://") {
		e, err := openPostgres(ctx, cfg, rooms)
		if err != nil {
			return nil, broken(err, "opening PostgreSQL")
		}
		return &DB{dialect: Postgres, engine: e}, nil
	}
	if strings.Contains(cfg.DSN, "://") {
		// A mistyped scheme would otherwise become a file of that name.
		return nil, fault.New(fault.ConfigInvalid, "the database is neither a path nor a postgres:// URL")
	}
	e, err := openSQLite(ctx, cfg, rooms)
	if err != nil {
		return nil, broken(err, "opening SQLite")
	}
	return &DB{dialect: SQLite, engine: e}, nil
}

// Dialect says which engine it is.
func (d *DB) Dialect() Dialect { return d.dialect }

// Write runs fn in one write transaction, as if no other ran at the same
// time; on serialisation failure or deadlock it runs fn again, so fn must be
// repeatable. SQLite has one writer: a Write inside fn waits for ever.
//
// Where the connection to PostgreSQL breaks during the commit, the error
// leaves open whether the transaction happened.
func (d *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	return d.engine.write(ctx, false, fn)
}

// WriteLocked is Write for a transaction whose first statement takes the row
// lock (SELECT … FOR UPDATE) that all writers of the same rows take. On
// PostgreSQL it runs at READ COMMITTED, so that waiting for the lock is not
// itself a serialisation failure; what fn does beyond the locked rows must be
// safe there (INSERT … ON CONFLICT, UPDATE … WHERE).
func (d *DB) WriteLocked(ctx context.Context, fn func(*Tx) error) error {
	return d.engine.write(ctx, true, fn)
}

// Read runs fn over one unchanging snapshot; statements that write fail.
func (d *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	return d.engine.read(ctx, fn)
}

// Exec runs one statement as a transaction of its own.
func (d *DB) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return d.engine.exec(ctx, query, args)
}

// Query reads rows; close them.
func (d *DB) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	return d.engine.query(ctx, query, args)
}

// QueryRow reads one row; its error comes with Scan.
func (d *DB) QueryRow(ctx context.Context, query string, args ...any) *Row {
	return d.engine.queryRow(ctx, query, args)
}

// Backup writes a consistent copy of a SQLite database to path, which must
// not exist, while writers go on. The copy is durable when Backup returns.
func (d *DB) Backup(ctx context.Context, path string) error {
	if err := d.engine.backup(ctx, path); err != nil {
		return broken(err, "backing up")
	}
	return nil
}

// Settle leaves of removed rows nothing beside the rows that are there, as far
// as the engine does that while others work. SQLite overwrites what is removed
// and here empties its write-ahead log; compact also gives the free space back
// to the file system, and writers wait meanwhile. PostgreSQL keeps old versions
// in its table files and logs until it writes over them: compact rewrites its
// tables (VACUUM FULL), its logs are its own affair.
func (d *DB) Settle(ctx context.Context, compact bool) error {
	return broken(d.engine.settle(ctx, compact), "settling the database")
}

// Server grows each time the connections begin to lead to another server: one
// that was started anew, a standby that was promoted, an older copy. As long as
// it stays the same, so does what is there. SQLite's file is not exchanged
// under a process.
func (d *DB) Server() uint64 { return d.engine.number() }

// Close waits for running transactions and open rows, then closes every
// connection.
func (d *DB) Close() error { return d.engine.close() }
