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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
