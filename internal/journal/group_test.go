package journal_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// TestHook puts records whose hooks fail, each in its own way, among others
// of one group.
func TestHook(t *testing.T) {
	claims := store.Migrations{Room: "claim", FS: claimTables()}
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db := storetest.Open(t, cfg, journal.Migrations(), claims)
		j := start(t, journal.Config{}, deps(t, db, filepath.Join(t.TempDir(), "keys")))
		own := errors.New("own")
		claim := func(ctx context.Context, tx *store.Tx, id int, index int64) (bool, error) {
			res, err := tx.Exec(ctx, "INSERT INTO claim_id (id, idx) VALUES (?, ?) ON CONFLICT DO NOTHING", id, index)
			if err != nil {
				return false, err
			}
			n, err := res.RowsAffected()
			return n == 1, err
		}
		type hook = func(context.Context, *store.Tx, int64) error
		plain := func(id int) hook {
			return func(ctx context.Context, tx *store.Tx, index int64) error {
				if ok, err := claim(ctx, tx, id, index); err != nil || !ok {
					return errors.Join(own, err)
				}
				return nil
			}
		}
		hooks := []struct {
			name string
			in   hook
			code fault.Code
		}{
			{"none", nil, ""},
			{"claims", plain(1), ""},
			{"finds it claimed", plain(1), fault.Internal},
			{"claims another", plain(2), ""},
			{"changes, then fails", func(ctx context.Context, tx *store.Tx, index int64) error {
				_, err := claim(ctx, tx, 3, index)
				return errors.Join(own, err)
			}, fault.Internal},
			{"claims what that one left", plain(3), ""},
			{"leaves a failed statement", func(ctx context.Context, tx *store.Tx, index int64) error {
				_, err := tx.Exec(ctx, "INSERT INTO claim_id (id, idx) VALUES (1, 1)")
				return errors.Join(own, err)
			}, fault.Internal},
			{"hides a failed statement", func(ctx context.Context, tx *store.Tx, index int64) error {
				_, _ = tx.Exec(ctx, "INSERT INTO claim_id (id, idx) VALUES (1, 1)")
				return nil
			}, fault.Internal},
			{"refuses", func(context.Context, *store.Tx, int64) error { return fault.New(fault.IDConflict, "") }, fault.IDConflict},
			{"panics", func(ctx context.Context, tx *store.Tx, index int64) error {
				_, _ = claim(ctx, tx, 4, index)
				panic("in a hook")
			}, fault.Internal},
			{"none again", nil, ""},
		}
		var records []journal.Record
		for n, h := range hooks {
			r := record(n)
			r.In = h.in
			records = append(records, r)
		}
		entries, errs := together(t, j, db, records)
		next := int64(1)
		for n, h := range hooks {
			if fault.CodeOf(errs[n]) != h.code {
				t.Errorf("%s: %v", h.name, errs[n])
			}
			if h.code != "" {
				if entries[n] != (journal.Entry{}) {
					t.Errorf("%s: has a place", h.name)
				}
				continue
			}
			if entries[n].Index != next {
				t.Errorf("%s: index %d, not %d", h.name, entries[n].Index, next)
			}
			if s, err := j.Get(t.Context(), next); err != nil || !same(s.Record, records[n]) {
				t.Errorf("%s: %v", h.name, err)
			}
			next++
		}
		rows, err := db.Query(t.Context(), "SELECT id, idx FROM claim_id ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for rows.Next() {
			var id, index int64
			if err := rows.Scan(&id, &index); err != nil {
				t.Fatal(err)
			}
			got += fmt.Sprint(id, "@", index, " ")
		}
		if got != "1@2 2@3 3@4 " {
			t.Errorf("the claims are %s", got)
		}
		if r := verify(t, j); !r.OK() || r.Size != next {
			t.Errorf("%+v", r)
		}
		var commits int
		if err := db.QueryRow(t.Context(), "SELECT COUNT(*) FROM journal_commit").Scan(&commits); err != nil || commits != 2 {
			t.Errorf("%d commits, %v", commits, err)
		}
	})
}

func TestCancel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, db := open(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var first, second error
		hold(t, db, func() {
			wg.Go(func() { _, first = j.Append(ctx, record(1)) })
			waitFor(t, func() bool { return writing(j) > 0 })
			wg.Go(func() { _, second = j.Append(ctx, record(2)) })
			waitFor(t, func() bool { return waiting(j) == 1 })
			cancel()
			wg.Wait()
		})
		for n, err := range []error{first, second} {
			if fault.CodeOf(err) != fault.Timeout || !errors.Is(err, context.Canceled) {
				t.Errorf("record %d: %v", n+1, err)
			}
		}
		if !strings.Contains(first.Error(), "may be recorded") || !strings.Contains(second.Error(), "not recorded") {
			t.Errorf("%v; %v", first, second)
		}
		// The first was on its way, the second was not.
		if e, err := j.Append(t.Context(), record(3)); err != nil || e.Index != 1 {
			t.Errorf("%+v, %v", e, err)
		}
		if found, err := j.Find(t.Context(), record(2).Key); err != nil || len(found) != 0 {
			t.Errorf("a withdrawn record was kept: %v", err)
		}
	})
}

func TestOverload(t *testing.T) {
	for name, cfg := range map[string]journal.Config{"records": {Queue: 3}, "bytes": {QueueBytes: 600}} {
		t.Run(name, func(t *testing.T) {
			db := storetest.Open(t, storetest.SQLite(t), journal.Migrations())
			j := start(t, cfg, deps(t, db, filepath.Join(t.TempDir(), "keys")))
			const callers = 10
			errs := make(chan error, callers)
			hold(t, db, func() {
				go func() { _, err := j.Append(t.Context(), record(0)); errs <- err }()
				waitFor(t, func() bool { return writing(j) > 0 })
				for n := 1; n < callers; n++ {
					go func() { _, err := j.Append(t.Context(), record(n)); errs <- err }()
				}
				// Those who are refused know at once.
				for refused := callers - 1 - 3; refused > 0; refused-- {
					if err := <-errs; fault.CodeOf(err) != fault.Overloaded {
						t.Errorf("one too many: %v", err)
					}
				}
				if n := waiting(j); n != 3 {
					t.Errorf("%d wait", n)
				}
			})
			for range 4 {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestClose(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		db := storetest.Open(t, cfg, journal.Migrations())
		d := deps(t, db, filepath.Join(t.TempDir(), "keys"))
		before := goleak.IgnoreCurrent()
		j, err := journal.New(journal.Config{}, d)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		closed := make(chan error, 1)
		hold(t, db, func() {
			for n := range 3 {
				wg.Go(func() {
					if _, err := j.Append(t.Context(), record(n)); err != nil {
						t.Error(err)
					}
				})
				waitFor(t, func() bool { return writing(j) == 1 && waiting(j) == n })
			}
			go func() { closed <- j.Close(context.Background()) }()
			waitFor(t, func() bool { return fault.CodeOf(j.Err()) == fault.Draining })
			if _, err := j.Append(t.Context(), record(9)); fault.CodeOf(err) != fault.Draining {
				t.Errorf("after Close: %v", err)
			}
		})
		wg.Wait()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := j.Close(context.Background()); err != nil {
			t.Errorf("closing again: %v", err)
		}
		if db.Dialect() == store.SQLite {
			goleak.VerifyNone(t, before)
		}
		if size, _, err := j.Head(t.Context()); err != nil || size != 3 {
			t.Errorf("%d records, %v", size, err)
		}

		// A Close that cannot wait gives up on what waits.
		j = start(t, journal.Config{}, d)
		hold(t, db, func() {
			failed := make(chan error, 1)
			go func() { _, err := j.Append(context.Background(), record(4)); failed <- err }()
			waitFor(t, func() bool { return writing(j) > 0 })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if err := j.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a Close that cannot wait: %v", err)
			}
			if err := <-failed; fault.CodeOf(err) != fault.StoreFailed {
				t.Errorf("what waited: %v", err)
			}
		})
	})
}

func claimTables() fs.FS {
	table := "-- +goose Up\nCREATE TABLE claim_id (id BIGINT NOT NULL PRIMARY KEY, idx BIGINT NOT NULL);\n"
	return fstest.MapFS{"sqlite/0001_claim.sql": {Data: []byte(table)}, "postgres/0001_claim.sql": {Data: []byte(table)}}
}

// TestCompany holds, in simulated time, where a commit costs none, whose
// records wait for others': nobody's who appends one after another, everybody's
// in a crowd.
func TestCompany(t *testing.T) {
	const each, pause = 10, 6400 * time.Microsecond
	for callers, commits := range map[int]int{
		1:  each,          // each at once
		4:  4 * each,      // too few to wait for
		64: 64 * each / 8, // groups are large
	} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, db := open(t, storetest.SQLite(t))
				began := time.Now()
				var wg sync.WaitGroup
				for caller := range callers {
					wg.Go(func() {
						time.Sleep(time.Duration(caller) * pause / time.Duration(callers))
						for n := range each {
							if _, err := j.Append(t.Context(), record(caller*each+n)); err != nil {
								t.Error(err)
							}
							time.Sleep(pause)
						}
					})
				}
				wg.Wait()
				took := time.Since(began)
				var got int
				if err := db.QueryRow(t.Context(), "SELECT count(*) FROM journal_commit").Scan(&got); err != nil {
					t.Fatal(err)
				}
				if callers < 8 && got != commits || got > commits {
					t.Errorf("%d commits, want %d", got, commits)
				}
				if own := each*pause + pause*time.Duration(callers-1)/time.Duration(callers); callers < 8 && took != own {
					t.Errorf("took %v, %v of it waiting for company", took, took-own)
				}
			})
		})
	}
}
