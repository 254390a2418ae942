package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/falaj/falaj/internal/fault"
)

// broken turns an engine's error into a fault: DiskFull or StoreFailed. A
// fault, a cancelled context and an empty result pass as they are.
func broken(err error, doing string) error {
	var f *fault.Error
	switch {
	case err == nil, errors.As(err, &f), errors.Is(err, sql.ErrNoRows),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case full(err):
		return fault.Wrap(fault.DiskFull, err, "%s", doing)
	}
	return fault.Wrap(fault.StoreFailed, err, "%s", doing)
}

// engineFault does so for an error that may be the caller's own.
func engineFault(err error, doing string) error {
	if fromEngine(err) {
		return broken(err, doing)
	}
	return err
}

func fromEngine(err error) bool {
	var (
		lite *sqlite.Error
		pg   *pgconn.PgError
		conn *pgconn.ConnectError
		nerr net.Error
	)
	return errors.As(err, &lite) || errors.As(err, &pg) || errors.As(err, &conn) || errors.As(err, &nerr) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errDoomed)
}

func full(err error) bool {
	var lite *sqlite.Error
	if errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_FULL {
		return true
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "53100" {
		return true
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// again says that the transaction did not happen and may be run again.
func again(err error) bool {
	if errors.Is(err, errBusy) {
		return true
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		c := lite.Code() & 0xff
		return c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "40001" || pg.Code == "40P01"
	}
	return false
}

// own says that a statement failed by its own doing, a broken constraint or a
// mistake in it, and not because the engine could not serve it.
func own(err error) bool {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		switch lite.Code() & 0xff {
		case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
			return true
		}
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && len(pg.Code) == 5 {
		switch pg.Code[:2] {
		case "0A", "21", "22", "23", "42", "44", "P0":
			return true
		}
		return false
	}
	// Not from the engine at all: an argument or a column of the wrong type.
	return !fromEngine(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}
