package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// room makes migrations from statements that both engines understand once
// BYTES and INT are put right.
func room(name string, statements ...string) store.Migrations {
	files := fstest.MapFS{}
	for n, s := range statements {
		for dialect, types := range map[string][]string{
			"sqlite":   {"BYTES", "BLOB", "INT", "INTEGER"},
			"postgres": {"BYTES", "BYTEA", "INT", "BIGINT"},
		} {
			files[fmt.Sprintf("%s/%04d_step.sql", dialect, n+1)] = &fstest.MapFile{
				Data: []byte("-- +goose Up\n" + strings.NewReplacer(types...).Replace(s) + ";\n"),
			}
		}
	}
	return store.Migrations{Room: name, FS: files}
}

func shop() store.Migrations {
	return room("shop", "CREATE TABLE shop_item (id INT NOT NULL PRIMARY KEY, n INT NOT NULL, raw BYTES)")
}

func put(t *testing.T, db *store.DB, id, n int) {
	t.Helper()
	if _, err := db.Exec(t.Context(), "INSERT INTO shop_item (id, n) VALUES (?, ?)", id, n); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, q interface {
	QueryRow(context.Context, string, ...any) *store.Row
}, id int) int {
	t.Helper()
	var n int
	if err := q.QueryRow(t.Context(), "SELECT n FROM shop_item WHERE id = ?", id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func count(t *testing.T, db *store.DB) int {
	t.Helper()
	var n int
	if err := db.QueryRow(t.Context(), "SELECT COUNT(*) FROM shop_item").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWrite(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db, ctx := storetest.Open(t, cfg, shop()), t.Context()
		insert := func(tx *store.Tx, id int) error {
			_, err := tx.Exec(ctx, "INSERT INTO shop_item (id, n, raw) VALUES (?, ?, ?)", id, 1, []byte{0, '?', 255})
			return err
		}
		if err := db.Write(ctx, func(tx *store.Tx) error { return errors.Join(insert(tx, 1), insert(tx, 2)) }); err != nil {
			t.Fatal(err)
		}
		var raw []byte
		if err := db.QueryRow(ctx, "SELECT raw FROM shop_item WHERE id = ? AND '?' = '?'", 2).Scan(&raw); err != nil || string(raw) != "\x00?\xff" {
			t.Errorf("read %q, %v", raw, err)
		}

		own := errors.New("own")
		err := db.Write(ctx, func(tx *store.Tx) error { return errors.Join(insert(tx, 3), own) })
		if !errors.Is(err, own) || fault.CodeOf(err) != fault.Internal {
			t.Errorf("fn's own error came back as %v", err)
		}
		refusal := fault.New(fault.IDConflict, "")
		if err := db.Write(ctx, func(*store.Tx) error { return refusal }); err != error(refusal) {
			t.Errorf("fn's fault came back as %v", err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = db.Write(ctx, func(tx *store.Tx) error { _ = insert(tx, 4); panic("in fn") })
		}()
		// A statement that failed dooms the transaction, even if fn hides it.
		err = db.Write(ctx, func(tx *store.Tx) error {
			if err := insert(tx, 5); err != nil || tx.Failed() {
				t.Errorf("insert: %v", err)
			}
			if err := insert(tx, 1); err == nil || !tx.Failed() {
				t.Errorf("a second row of the same key: %v", err)
			}
			if err := insert(tx, 6); err == nil {
				t.Error("a statement ran after one had failed")
			}
			return nil
		})
		if fault.CodeOf(err) != fault.StoreFailed {
			t.Errorf("a doomed transaction ended with %v", err)
		}
		if err := db.QueryRow(ctx, "SELECT n FROM shop_item WHERE id = ?", 99).Scan(new(int)); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("no row: %v", err)
		}
		if _, err := db.Exec(ctx, "no statement"); fault.CodeOf(err) != fault.StoreFailed {
			t.Errorf("no statement: %v", err)
		}
		if n := count(t, db); n != 2 {
			t.Errorf("%d rows, not the 2 that were committed", n)
		}
	})
}

func TestChanged(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db, ctx := storetest.Open(t, cfg, shop()), t.Context()
		put(t, db, 1, 1)
		for _, c := range []struct {
			statement string
			changes   bool
		}{
			{"SELECT n FROM shop_item", false},
			{"UPDATE shop_item SET n = 2 WHERE id = 9", false},
			{"INSERT INTO shop_item (id, n) VALUES (1, 1) ON CONFLICT DO NOTHING", false},
			{"UPDATE shop_item SET n = 2 WHERE id = 1", true},
			{"INSERT INTO shop_item (id, n) VALUES (2, 1) ON CONFLICT DO NOTHING", true},
		} {
			err := db.Write(ctx, func(tx *store.Tx) error {
				if tx.Changed() {
					t.Error("Changed from the start")
				}
				if _, err := tx.Exec(ctx, c.statement); err != nil {
					return err
				}
				if tx.Changed() != c.changes {
					t.Errorf("%s: Changed is %v", c.statement, tx.Changed())
				}
				tx.ResetChanged()
				if tx.Changed() {
					t.Error("Changed after ResetChanged")
				}
				err := tx.QueryRow(ctx, "UPDATE shop_item SET n = n RETURNING n").Scan(new(int))
				if !tx.Changed() {
					t.Error("a change that returns rows went unseen")
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestSerial lets writers read, then write what they read: were one not as if
// alone, an increment would be lost.
func TestSerial(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db, ctx := storetest.Open(t, cfg, shop()), t.Context()
		put(t, db, 1, 0)
		put(t, db, 2, 0)
		add := func(tx *store.Tx, id int, query string) error {
			var n int
			if err := tx.QueryRow(ctx, query, id).Scan(&n); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "UPDATE shop_item SET n = ? WHERE id = ?", n+1, id)
			return err
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 10 {
					if err := db.Write(ctx, func(tx *store.Tx) error {
						return add(tx, 1, "SELECT n FROM shop_item WHERE id = ?")
					}); err != nil {
						t.Error(err)
					}
					if err := db.WriteLocked(ctx, func(tx *store.Tx) error {
						return add(tx, 2, "SELECT n FROM shop_item WHERE id = ? FOR UPDATE")
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if a, b := get(t, db, 1), get(t, db, 2); a != 40 || b != 40 {
			t.Errorf("40 increments each gave %d and, under the lock, %d", a, b)
		}
	})
}

func TestRead(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db, ctx := storetest.Open(t, cfg, shop()), t.Context()
		put(t, db, 1, 7)
		err := db.Read(ctx, func(tx *store.Tx) error {
			before := get(t, tx, 1)
			if _, err := db.Exec(ctx, "UPDATE shop_item SET n = 8"); err != nil {
				return err
			}
			if after := get(t, tx, 1); before != 7 || after != 7 {
				t.Errorf("the snapshot showed %d, then %d", before, after)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := db.Read(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE shop_item SET n = 9")
			return err
		}); err == nil {
			t.Error("a Read wrote")
		}
		if n := get(t, db, 1); n != 8 {
			t.Errorf("n is %d, not 8", n)
		}
		rows, err := db.Query(ctx, "SELECT id FROM shop_item")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := rows.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestCancelled(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		cfg.MaxOpen = 2
		db := storetest.Open(t, cfg, shop())
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Write(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO shop_item (id, n) VALUES (1, 1)"); err != nil {
				return err
			}
			cancel()
			return nil
		})
		if fault.CodeOf(err) != fault.Timeout {
			t.Errorf("a cancelled Write: %v", err)
		}
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.Exec(t.Context(), "UPDATE shop_item SET n = 1"); err != nil {
				return err
			}
			// All connections but this one are free or the writer's own: here
			// SQLite has no second writer, PostgreSQL would wait for no lock.
			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if db.Dialect() == store.SQLite {
				if _, err := db.Exec(short, "UPDATE shop_item SET n = 2"); fault.CodeOf(err) != fault.Timeout {
					t.Errorf("waiting for the writer: %v", err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if n := count(t, db); n != 0 {
			t.Errorf("%d rows after a cancelled Write", n)
		}
	})
}

// TestManyStatements runs more statements than a connection keeps prepared.
func TestManyStatements(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db, ctx := storetest.Open(t, cfg, shop()), t.Context()
		put(t, db, 1, 1)
		put(t, db, 2, 2)
		err := db.Write(ctx, func(tx *store.Tx) error {
			for i := range 400 {
				rows, err := tx.Query(ctx, fmt.Sprintf("SELECT id, %d FROM shop_item ORDER BY id", i))
				if err != nil {
					return err
				}
				for want := 1; rows.Next(); want++ {
					var id, n int
					if err := rows.Scan(&id, &n); err != nil || id != want || n != i {
						t.Fatalf("statement %d gave %d, %d, %v", i, id, n, err)
					}
				}
				if err := rows.Err(); err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, fmt.Sprintf("UPDATE shop_item SET n = %d WHERE id = ?", i), 1); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestMigrations(t *testing.T) {
	first := "CREATE TABLE yard_item (id INT NOT NULL PRIMARY KEY)"
	second := "ALTER TABLE yard_item ADD COLUMN n INT NOT NULL DEFAULT 5"
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		ctx := t.Context()
		old := storetest.Open(t, cfg, shop(), room("yard", first))
		if _, err := old.Exec(ctx, "INSERT INTO yard_item (id) VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		// The new program comes while the old one still runs, and goes again.
		next := storetest.Open(t, cfg, shop(), room("yard", first, second))
		var n int
		if err := next.QueryRow(ctx, "SELECT n FROM yard_item").Scan(&n); err != nil || n != 5 {
			t.Errorf("the new column holds %d, %v", n, err)
		}
		if _, err := old.Exec(ctx, "INSERT INTO yard_item (id) VALUES (2)"); err != nil {
			t.Errorf("the old program on the new tables: %v", err)
		}
		storetest.Open(t, cfg, shop(), room("yard", first))

		_, err := store.Open(ctx, cfg, room("yard", first, second, "CREATE TABL wrong"))
		if fault.CodeOf(err) != fault.StoreFailed || !strings.Contains(err.Error(), "yard") {
			t.Errorf("a migration that fails: %v", err)
		}
	})
}

// TestStartTogether opens one database from several programs at once.
func TestStartTogether(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				db, err := store.Open(t.Context(), cfg, shop(), room("yard", "CREATE TABLE yard_item (id INT)", "CREATE TABLE yard_more (id INT)"))
				if err != nil {
					t.Error(err)
					return
				}
				_ = db.Close()
			})
		}
		wg.Wait()
	})
}

func TestSameTables(t *testing.T) {
	storetest.SameTables(t, shop(), room("yard",
		"CREATE TABLE yard_item (a INT NOT NULL, b TEXT NOT NULL, c BYTES, PRIMARY KEY (b, a), UNIQUE (c))",
		"CREATE INDEX yard_by_c ON yard_item (c, a)"))
}

func TestConfig(t *testing.T) {
	for _, dsn := range []string{"mysql://x/y", "postgres://:::", "postgres://u:secret@127.0.0.1:1/x?connect_timeout=1"} {
		_, err := store.Open(t.Context(), store.Config{DSN: dsn})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
	t.Chdir(t.TempDir())
	db, err := store.Open(t.Context(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("falaj.db"); err != nil {
		t.Error(err)
	}
}

func TestNotDurable(t *testing.T) {
	cfg := storetest.Postgres(t)
	cfg.DSN += "&synchronous_commit=off"
	if _, err := store.Open(t.Context(), cfg); fault.CodeOf(err) != fault.ConfigInvalid {
		t.Errorf("synchronous_commit = off: %v", err)
	}
}

func TestConnectionLost(t *testing.T) {
	cfg := storetest.Postgres(t)
	db, ctx := storetest.Open(t, cfg, shop()), t.Context()
	put(t, db, 1, 1)
	err := db.Write(ctx, func(tx *store.Tx) error {
		var pid int
		if err := tx.QueryRow(ctx, "SELECT pg_backend_pid() FROM shop_item").Scan(&pid); err != nil {
			return err
		}
		storetest.Admin(t, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
		_, err := tx.Exec(ctx, "UPDATE shop_item SET n = 2")
		return err
	})
	if fault.CodeOf(err) != fault.StoreFailed {
		t.Errorf("a lost connection: %v", err)
	}
	if n := get(t, db, 1); n != 1 {
		t.Errorf("n is %d", n)
	}
	put(t, db, 2, 2)
}

// BenchmarkOpen makes a fresh database with three rooms' tables: what the
// demonstration pays eight times as it starts.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for i := range b.N {
		db, err := store.Open(b.Context(), store.Config{DSN: fmt.Sprintf("%s/%d.db", dir, i)},
			shop(), room("yard", "CREATE TABLE yard_item (id INT)", "CREATE TABLE yard_more (id INT)"), room("barn", "CREATE TABLE barn_item (id INT)"))
		if err != nil {
			b.Fatal(err)
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
