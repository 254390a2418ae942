package journal_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// several appends records at once and gives their codes.
func several(t *testing.T, j *journal.Journal, n int, change func(*journal.Record)) map[fault.Code]int {
	t.Helper()
	codes := map[fault.Code]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := record(i)
			change(&r)
			_, err := j.Append(t.Context(), r)
			mu.Lock()
			codes[fault.CodeOf(err)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	return codes
}

func asItIs(*journal.Record) {}

// TestStoreFails takes a table away: every caller of the group is told, all
// who come are refused, until a write has succeeded.
func TestStoreFails(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db := storetest.Open(t, cfg, journal.Migrations())
		j := start(t, journal.Config{ProbeEvery: 20 * time.Millisecond}, deps(t, db, filepath.Join(t.TempDir(), "keys")))
		fill(t, j, 10)
		if _, err := db.Exec(t.Context(), "ALTER TABLE journal_head RENAME TO gone"); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Append(t.Context(), record(1)); fault.CodeOf(err) != fault.StoreFailed || !errors.Is(err, journal.ErrUnclear) {
			t.Errorf("tried without its table: %v", err)
		}
		if codes := several(t, j, 20, asItIs); codes[fault.StoreFailed] != 20 {
			t.Errorf("without its table: %v", codes)
		}
		if _, err := j.Append(t.Context(), record(1)); fault.CodeOf(err) != fault.StoreFailed || errors.Is(err, journal.ErrUnclear) {
			t.Errorf("refused without being tried: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		if fault.CodeOf(j.Err()) != fault.StoreFailed {
			t.Errorf("several probes later: %v", j.Err())
		}
		if codes := several(t, j, 3, asItIs); codes[fault.StoreFailed] != 3 {
			t.Errorf("while it probes: %v", codes)
		}
		if _, err := db.Exec(t.Context(), "ALTER TABLE gone RENAME TO journal_head"); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return j.Err() == nil })
		if codes := several(t, j, 5, asItIs); codes[""] != 5 {
			t.Errorf("after the repair: %v", codes)
		}
		if r := verify(t, j); !r.OK() || r.Size != 15 {
			t.Errorf("%+v", r)
		}
	})
}

func TestDiskFull(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t), journal.Migrations())
	j := start(t, journal.Config{ProbeEvery: 20 * time.Millisecond}, deps(t, db, filepath.Join(t.TempDir(), "keys")))
	fill(t, j, 10)
	large := func(r *journal.Record) { r.Body = make([]byte, 100_000) }
	for range 3 {
		waitFor(t, func() bool { return j.Err() == nil }) // the probe needs no room
		// SQLite takes this as the size that the file has, until the
		// connection, which has failed, is replaced.
		if _, err := db.Exec(t.Context(), "PRAGMA max_page_count = 1"); err != nil {
			t.Fatal(err)
		}
		if codes := several(t, j, 1, large); codes[fault.DiskFull] != 1 {
			t.Errorf("a full disk: %v", codes)
		}
	}
	waitFor(t, func() bool { return j.Err() == nil })
	if codes := several(t, j, 4, large); codes[""] != 4 {
		t.Errorf("with room again: %v", codes)
	}
	if r := verify(t, j); !r.OK() || r.Size != 14 {
		t.Errorf("%+v", r)
	}
}

// TestConnectionLost breaks the connection between a hook and the commit, and
// under a hook's own statement.
func TestConnectionLost(t *testing.T) {
	j, db := open(t, storetest.Postgres(t))
	for round := range 2 {
		records := make([]journal.Record, 5)
		for i := range records {
			records[i] = record(i)
		}
		once := true
		records[2].In = func(ctx context.Context, tx *store.Tx, _ int64) error {
			if !once {
				return nil
			}
			once = false
			var pid int
			if err := tx.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				return err
			}
			storetest.Admin(t, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
			if round == 0 {
				return nil
			}
			return tx.QueryRow(ctx, "SELECT 1").Scan(&pid)
		}
		_, errs := together(t, j, db, records)
		for i, err := range errs {
			if fault.CodeOf(err) != fault.StoreFailed {
				t.Errorf("record %d: %v", i, err)
			}
		}
		waitFor(t, func() bool { return j.Err() == nil })
		if codes := several(t, j, 5, asItIs); codes[""] != 5 {
			t.Errorf("after it: %v", codes)
		}
	}
	if r := verify(t, j); !r.OK() || r.Size != 12 {
		t.Errorf("%+v", r)
	}
}

// TestDeadlock lets a hook and a neighbour wait for each other's rows: the
// group runs again and nobody notices.
func TestDeadlock(t *testing.T) {
	db := storetest.Open(t, storetest.Postgres(t), journal.Migrations(), store.Migrations{Room: "claim", FS: claimTables()})
	j := start(t, journal.Config{}, deps(t, db, filepath.Join(t.TempDir(), "keys")))
	ctx := t.Context()
	if _, err := db.Exec(ctx, "INSERT INTO claim_id (id, idx) VALUES (1, 0), (2, 0)"); err != nil {
		t.Fatal(err)
	}
	touch := func(ctx context.Context, tx *store.Tx, id int) error {
		_, err := tx.Exec(ctx, "UPDATE claim_id SET idx = idx + 1 WHERE id = ?", id)
		return err
	}
	var met sync.Once
	ours, theirs := make(chan struct{}), make(chan error, 1)
	go func() {
		theirs <- db.WriteLocked(ctx, func(tx *store.Tx) error {
			if err := touch(ctx, tx, 2); err != nil {
				return err
			}
			met.Do(func() { <-ours })
			return touch(ctx, tx, 1)
		})
	}()
	r := record(1)
	var tries int
	r.In = func(ctx context.Context, tx *store.Tx, _ int64) error {
		if err := touch(ctx, tx, 1); err != nil {
			return err
		}
		if tries++; tries == 1 {
			close(ours)
		}
		return touch(ctx, tx, 2)
	}
	if _, err := j.Append(ctx, r); err != nil {
		t.Errorf("the record: %v", err)
	}
	if err := <-theirs; err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	var sum int
	if err := db.QueryRow(ctx, "SELECT idx * 10 + (SELECT idx FROM claim_id WHERE id = 2) FROM claim_id WHERE id = 1").Scan(&sum); err != nil || sum != 22 {
		t.Errorf("the rows stand at %d, %v", sum, err)
	}
}

// TestOpenRefuses opens logs that are torn, cut or partly restored.
func TestOpenRefuses(t *testing.T) {
	empty := sha256.Sum256(nil)
	for name, damage := range map[string]string{
		"last commit gone":     "DELETE FROM journal_commit WHERE first = (SELECT MAX(first) FROM journal_commit)",
		"tile gone":            "DELETE FROM journal_tile",
		"older head":           "UPDATE journal_head SET size = 0, edge = substr(edge, 1, 0), root = ?",
		"older root":           "UPDATE journal_head SET root = ?",
		"edge of another tree": "UPDATE journal_head SET edge = (SELECT substr(leaves, 1, length(edge)) FROM journal_commit ORDER BY length(leaves) DESC LIMIT 1)",
		"head gone":            "DELETE FROM journal_head",
		"head too large":       "UPDATE journal_head SET size = 4000000000000000000",
		"tile of another tree": "UPDATE journal_tile SET hashes = (SELECT leaves FROM journal_commit WHERE first = 0)",
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Each(t, func(t *testing.T, cfg store.Config) {
				db := storetest.Open(t, cfg, journal.Migrations())
				d := deps(t, db, filepath.Join(t.TempDir(), "keys"))
				j := start(t, journal.Config{}, d)
				fill(t, j, 300)
				if err := j.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				start(t, journal.Config{}, d) // as it is, it opens
				var args []any
				if strings.Contains(damage, "?") {
					args = append(args, empty[:])
				}
				if _, err := db.Exec(t.Context(), damage, args...); err != nil {
					t.Fatal(err)
				}
				if _, err := journal.New(journal.Config{}, d); fault.CodeOf(err) != fault.Corrupt {
					t.Errorf("it opened: %v", err)
				}
			})
		})
	}
	if _, err := journal.New(journal.Config{}, journal.Deps{}); err == nil {
		t.Error("a journal on nothing")
	}
}
