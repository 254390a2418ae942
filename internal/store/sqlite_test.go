package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "a folder", "odd ?#%&=ف.db")
	db := storetest.Open(t, store.Config{DSN: path}, shop())
	put(t, db, 1, 1)
	files, err := filepath.Glob(filepath.Dir(path) + "/*")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %q, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f, info.Mode(), err)
		}
	}
	var mode string
	var sync, keys int
	err = db.Write(t.Context(), func(tx *store.Tx) error {
		return errors.Join(
			tx.QueryRow(t.Context(), "PRAGMA journal_mode").Scan(&mode),
			tx.QueryRow(t.Context(), "PRAGMA synchronous").Scan(&sync),
			tx.QueryRow(t.Context(), "PRAGMA foreign_keys").Scan(&keys))
	})
	if err != nil || mode != "wal" || sync != 2 || keys != 1 {
		t.Errorf("journal_mode %s, synchronous %d, foreign_keys %d, %v", mode, sync, keys, err)
	}
}

func TestDiskFull(t *testing.T) {
	db, ctx := storetest.Open(t, storetest.SQLite(t), shop()), t.Context()
	if _, err := db.Exec(ctx, "PRAGMA max_page_count = 20"); err != nil {
		t.Fatal(err)
	}
	err := db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO shop_item (id, n, raw) VALUES (1, 1, ?)", make([]byte, 1<<20))
		return err
	})
	if fault.CodeOf(err) != fault.DiskFull {
		t.Errorf("a full disk: %v", err)
	}
	put(t, db, 2, 2)
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	db, ctx := storetest.Open(t, storetest.SQLite(t), shop()), t.Context()
	put(t, db, 0, 0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Both or neither are in a copy.
			if err := db.Write(ctx, func(tx *store.Tx) error {
				_, err1 := tx.Exec(ctx, "INSERT INTO shop_item (id, n, raw) VALUES (?, 1, ?)", 2*i, make([]byte, 9000))
				_, err2 := tx.Exec(ctx, "INSERT INTO shop_item (id, n) VALUES (?, 1)", 2*i+1)
				return errors.Join(err1, err2)
			}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range 3 {
		path := filepath.Join(dir, fmt.Sprintf("copy %d.db", i))
		if err := db.Backup(ctx, path); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if err := db.Backup(ctx, path); fault.CodeOf(err) != fault.Conflict {
			t.Errorf("a backup over a backup: %v", err)
		}
		if n := count(t, storetest.Open(t, store.Config{DSN: path}, shop())); n%2 != 1 {
			t.Errorf("the copy holds half a transaction: %d rows", n)
		}
	}
	close(stop)
	<-stopped
	if left, _ := filepath.Glob(dir + "/*.partial"); left != nil {
		t.Errorf("left behind: %q", left)
	}
	if err := db.Backup(ctx, filepath.Join(dir, "none", "x.db")); err == nil {
		t.Error("a backup into no folder")
	}
	pg := storetest.Open(t, storetest.Postgres(t))
	if err := pg.Backup(ctx, filepath.Join(dir, "pg")); fault.CodeOf(err) != fault.BadRequest || !strings.Contains(err.Error(), "pg_dump") {
		t.Errorf("a backup of PostgreSQL: %v", err)
	}
}
