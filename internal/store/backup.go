package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/falaj/falaj/internal/fault"
)

// backup copies into a file beside path and renames it when it is whole and
// on disk, so that a backup that exists is a good one.
func (e *lite) backup(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Conflict, "the backup's path exists already")
	}
	part := path + ".partial"
	// VACUUM INTO takes an empty file as it is, so the mode is ours.
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	defer func() { _ = os.Remove(part) }() // gone by then if all went well
	db, err := openFile(e.path)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", part); err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// Link, unlike rename, does not replace what came there meanwhile.
	if err := os.Link(part, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// settle empties the write-ahead log. A reader that is at work keeps some of it
// in use for a moment.
func (e *lite) settle(ctx context.Context, compact bool) error {
	if compact {
		if _, err := e.exec(ctx, "VACUUM", nil); err != nil {
			return err
		}
	}
	return retry(ctx, func() error {
		c, err := e.writer.take(ctx)
		if err != nil {
			return err
		}
		defer e.writer.give(c)
		rows, err := c.query(ctx, "PRAGMA wal_checkpoint(TRUNCATE)", nil)
		if err != nil {
			return err
		}
		row := Row{rows: &Rows{Rows: rows}}
		var busy, pages, written int
		if err := row.Scan(&busy, &pages, &written); err != nil {
			return err
		}
		if busy != 0 {
			return errBusy
		}
		return nil
	})
}

// errBusy says that a reader keeps the write-ahead log from being emptied.
var errBusy = errors.New("store: a reader holds the write-ahead log")

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
