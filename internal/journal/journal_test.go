package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

func deps(t testing.TB, db *store.DB, keys string) journal.Deps {
	t.Helper()
	k, err := seal.OpenKeys(keys, seal.KeyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := k.HMAC("journal")
	if err != nil {
		t.Fatal(err)
	}
	return journal.Deps{DB: db, Records: k.Records(), Keys: h}
}

func start(t testing.TB, cfg journal.Config, d journal.Deps) *journal.Journal {
	t.Helper()
	j, err := journal.New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return j
}

func open(t testing.TB, cfg store.Config) (*journal.Journal, *store.DB) {
	t.Helper()
	db := storetest.Open(t, cfg, journal.Migrations())
	return start(t, journal.Config{}, deps(t, db, filepath.Join(t.TempDir(), "keys"))), db
}

func record(n int) journal.Record {
	return journal.Record{
		Kind: journal.RequestSent, Key: fmt.Sprintf("BH/GOV/interior/traffic|%d", n),
		At:    time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond),
		Class: "exchange", Envelope: fmt.Appendf(nil, "envelope %d", n), Body: []byte("body"), Local: []byte(`{"n":1}`),
	}
}

// fill appends records in groups and gives what they were.
func fill(t testing.TB, j *journal.Journal, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < n; i += 64 {
				if _, err := j.Append(t.Context(), record(i)); err != nil {
					t.Errorf("record %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// together appends records as one group: the lock on the head is held until
// all of them wait.
func together(t *testing.T, j *journal.Journal, db *store.DB, records []journal.Record) ([]journal.Entry, []error) {
	t.Helper()
	entries, errs := make([]journal.Entry, len(records)), make([]error, len(records))
	var wg sync.WaitGroup
	hold(t, db, func() {
		// The first is a group of its own, which waits for the lock.
		wg.Go(func() {
			if _, err := j.Append(t.Context(), record(1_000_000)); err != nil {
				t.Error(err)
			}
		})
		waitFor(t, func() bool { return writing(j) > 0 })
		for i, r := range records {
			wg.Go(func() { entries[i], errs[i] = j.Append(t.Context(), r) })
			waitFor(t, func() bool { return waiting(j) == i+1 })
		}
	})
	wg.Wait()
	return entries, errs
}

// hold keeps every commit from happening while fn runs.
func hold(t *testing.T, db *store.DB, fn func()) {
	t.Helper()
	err := db.WriteLocked(t.Context(), func(tx *store.Tx) error {
		var size int64
		if err := tx.QueryRow(t.Context(), "SELECT size FROM journal_head WHERE id = 1 FOR UPDATE").Scan(&size); err != nil {
			return err
		}
		fn()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 20_000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("waited in vain")
}

func waiting(j *journal.Journal) int { n, _ := j.Load(); return n }
func writing(j *journal.Journal) int { _, n := j.Load(); return n }

func verify(t testing.TB, j *journal.Journal) *journal.Report {
	t.Helper()
	r, err := j.Verify(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAppend(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, _ := open(t, cfg)
		ctx := t.Context()
		if r := verify(t, j); !r.OK() || r.Size != 0 {
			t.Errorf("an empty journal: %+v", r)
		}
		var want []journal.Record
		var entries []journal.Entry
		for n := range 40 {
			r := record(n)
			switch n % 4 {
			case 1:
				r.Kind, r.Body, r.Key = journal.Decision, nil, ""
			case 2:
				r.Kind, r.Envelope, r.Local = journal.AnswerSent, nil, nil
			case 3:
				r.Key, r.Body = record(0).Key, bytes.Repeat([]byte{byte(n)}, 100_000)
			}
			e, err := j.Append(ctx, r)
			if err != nil || e.Index != int64(n) || e.Leaf != journal.Leaf(e.Salt, r.Digest()) {
				t.Fatalf("record %d: %+v, %v", n, e, err)
			}
			want, entries = append(want, r), append(entries, e)
		}
		for n, w := range want {
			s, err := j.Get(ctx, int64(n))
			if err != nil || s.Entry != entries[n] || !same(s.Record, w) {
				t.Errorf("record %d came back as %+v, %v", n, s, err)
			}
		}
		found, err := j.Find(ctx, record(0).Key)
		if err != nil || len(found) != 11 {
			t.Fatalf("found %d, %v", len(found), err)
		}
		for i, index := range []int64{0, 3, 7, 11} {
			if found[i].Index != index {
				t.Errorf("found %d is record %d", i, found[i].Index)
			}
		}
		for _, key := range []string{"", "BH/GOV/interior/traffic|1", "nobody"} {
			if found, err := j.Find(ctx, key); err != nil || len(found) != 0 {
				t.Errorf("key %q found %d, %v", key, len(found), err)
			}
		}
		for _, index := range []int64{-1, 40, 1 << 40} {
			if _, err := j.Get(ctx, index); fault.CodeOf(err) != fault.NotFound {
				t.Errorf("record %d: %v", index, err)
			}
		}
		if r := verify(t, j); !r.OK() || r.Size != 40 || r.Read != 40 {
			t.Errorf("%+v", r)
		}
	})
}

func same(a, b journal.Record) bool {
	return a.Kind == b.Kind && a.Key == b.Key && a.At.Equal(b.At) && a.Class == b.Class &&
		bytes.Equal(a.Envelope, b.Envelope) && bytes.Equal(a.Body, b.Body) && bytes.Equal(a.Local, b.Local)
}

func TestLimits(t *testing.T) {
	j, _ := open(t, storetest.SQLite(t))
	for name, c := range map[string]struct {
		change func(*journal.Record)
		code   fault.Code
	}{
		"no kind":  {func(r *journal.Record) { r.Kind = 0 }, fault.Internal},
		"no class": {func(r *journal.Record) { r.Class = "" }, fault.Internal},
		"class":    {func(r *journal.Record) { r.Class = strings.Repeat("c", 33) }, fault.Internal},
		"no time":  {func(r *journal.Record) { r.At = time.Time{} }, fault.Internal},
		"late":     {func(r *journal.Record) { r.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, fault.Internal},
		"key":      {func(r *journal.Record) { r.Key = strings.Repeat("k", journal.MaxKey+1) }, fault.TooLarge},
		"envelope": {func(r *journal.Record) { r.Envelope = make([]byte, journal.MaxEnvelope+1) }, fault.TooLarge},
		"body":     {func(r *journal.Record) { r.Body = make([]byte, journal.MaxBody+1) }, fault.TooLarge},
		"local":    {func(r *journal.Record) { r.Local = make([]byte, journal.MaxLocal+1) }, fault.TooLarge},
		"all as allowed": {func(r *journal.Record) {
			r.Key, r.Local = strings.Repeat("k", journal.MaxKey), make([]byte, journal.MaxLocal)
			r.Envelope, r.Body = make([]byte, journal.MaxEnvelope), make([]byte, journal.MaxBody)
		}, ""},
	} {
		r := record(1)
		c.change(&r)
		if _, err := j.Append(t.Context(), r); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err := j.Get(t.Context(), 0); err != nil || len(s.Body) != journal.MaxBody {
		t.Errorf("the largest record: %v", err)
	}
}

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

// TestTwoProcesses appends from two journals on one database.
func TestTwoProcesses(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		keys := filepath.Join(t.TempDir(), "keys")
		var all [2]*journal.Journal
		for i := range all {
			all[i] = start(t, journal.Config{}, deps(t, storetest.Open(t, cfg, journal.Migrations()), keys))
		}
		const each = 160
		var mu sync.Mutex
		seen := map[int64]journal.Entry{}
		var wg sync.WaitGroup
		for i, j := range all {
			for w := range 4 {
				wg.Go(func() {
					for n := range each / 4 {
						e, err := j.Append(t.Context(), record(i*each+w*each/4+n))
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						seen[e.Index] = e
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		if len(seen) != 2*each {
			t.Fatalf("%d places for %d records", len(seen), 2*each)
		}
		for i := range all {
			if r := verify(t, all[i]); !r.OK() || r.Size != 2*each {
				t.Errorf("%+v", r)
			}
		}
		for n := range int64(2 * each) {
			if s, err := all[n%2].Get(t.Context(), n); err != nil || s.Entry != seen[n] {
				t.Fatalf("record %d: %v", n, err)
			}
		}
	})
}

// TestTiles reads the log as a stranger would who knows tlog-tiles alone.
func TestTiles(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, _ := open(t, cfg)
		ctx := t.Context()
		for _, size := range []int64{1, 256, 300, 513} {
			now, _, err := j.Head(ctx)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, j, int(size-now))
			now, root, err := j.Head(ctx)
			if err != nil || now != size {
				t.Fatal(now, err)
			}
			stranger := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tileReader{j, t})
			for range 20 {
				index := rand.Int64N(size)
				s, err := j.Get(ctx, index)
				if err != nil {
					t.Fatal(err)
				}
				theirs, err := tlog.ProveRecord(size, index, stranger)
				if err != nil {
					t.Fatalf("size %d: the tiles do not prove record %d: %v", size, index, err)
				}
				ours, err := j.Proof(ctx, index, size)
				if err != nil || fmt.Sprint(ours) != fmt.Sprint([]merkle.Hash(theirs)) {
					t.Fatalf("size %d: another proof of record %d, %v", size, index, err)
				}
				if err := merkle.Check(ours, size, root, index, merkle.Leaf(s.Leaf[:])); err != nil {
					t.Fatal(err)
				}
				n := index / 256
				bundle, err := j.Bundle(ctx, n, merkle.Width(size, 0, n))
				if err != nil || len(bundle) != 34*merkle.Width(size, 0, n) {
					t.Fatal(len(bundle), err)
				}
				if entry := bundle[index%256*34:]; string(entry[:2]) != "\x00\x20" || string(entry[2:34]) != string(s.Leaf[:]) {
					t.Fatalf("entry %d is another one in its bundle", index)
				}
			}
			if size > 256 {
				// An older tree's proofs and partial tiles remain.
				proof, err := j.Proof(ctx, 3, 200)
				if err != nil || len(proof) != 8 {
					t.Errorf("a proof in the first 200: %d, %v", len(proof), err)
				}
				if b, err := j.Tile(ctx, 0, 0, 200); err != nil || len(b) != 200*32 {
					t.Errorf("a partial tile of the first 200: %d, %v", len(b), err)
				}
			}
		}
		for _, c := range [][3]int64{{0, 0, 257}, {0, 0, 0}, {0, 3, 1}, {0, 2, 2}, {1, 0, 3}, {2, 0, 1}, {-1, 0, 1}, {0, -1, 1}, {64, 0, 1}} {
			if _, err := j.Tile(ctx, int(c[0]), c[1], int(c[2])); fault.CodeOf(err) != fault.NotFound {
				t.Errorf("tile %v: %v", c, err)
			}
		}
		if _, err := j.Bundle(ctx, 2, 2); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("a bundle beyond the log: %v", err)
		}
		for _, c := range [][2]int64{{-1, 5}, {5, 5}, {0, 514}, {0, 0}} {
			if _, err := j.Proof(ctx, c[0], c[1]); fault.CodeOf(err) != fault.NotFound {
				t.Errorf("a proof of %d in %d: %v", c[0], c[1], err)
			}
		}
	})
}

type tileReader struct {
	j *journal.Journal
	t *testing.T
}

func (tileReader) Height() int                     { return 8 }
func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (r tileReader) ReadTiles(tiles []tlog.Tile) (out [][]byte, err error) {
	for _, tile := range tiles {
		b, err := r.j.Tile(r.t.Context(), tile.L, tile.N, tile.W)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// TestEras finds keys in a finished era and in the one that grows, and misses
// what changes in an era's index.
func TestEras(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, db := open(t, cfg)
		ctx := t.Context()
		again := make([]journal.Record, 2)
		for i := range again {
			again[i] = record(0)
			again[i].Key = "again"
		}
		want, errs := together(t, j, db, again)
		if errors.Join(errs...) != nil {
			t.Fatal(errors.Join(errs...))
		}
		fill(t, j, 4096)
		more, errs := together(t, j, db, again)
		if errors.Join(errs...) != nil {
			t.Fatal(errors.Join(errs...))
		}
		found, err := j.Find(ctx, "again")
		if err != nil || len(found) != 4 {
			t.Fatalf("found %d, %v", len(found), err)
		}
		for i, e := range append(want, more...) {
			if found[i].Entry != e {
				t.Errorf("found %+v, not %+v", found[i].Entry, e)
			}
		}
		for range 10 {
			n := rand.IntN(4096)
			if found, err := j.Find(ctx, record(n).Key); err != nil || len(found) != 1 {
				t.Errorf("key %d found %d times, %v", n, len(found), err)
			}
		}
		if db.Dialect() == store.SQLite {
			for _, s := range spots() {
				if s.table == "journal_key" {
					damaged(t, j, db, s)
				}
			}
		}
		if r := verify(t, j); !r.OK() {
			t.Errorf("%+v", r.Wrong)
		}
		for _, stray := range []string{"journal_key (part, era, keys) VALUES (3, 99, ?)", "journal_tile (level, n, hashes) VALUES (1, 99, ?)"} {
			if _, err := db.Exec(ctx, "INSERT INTO "+stray, []byte("astray")); err != nil {
				t.Fatal(err)
			}
		}
		if r := verify(t, j); len(r.Wrong) != 2 {
			t.Errorf("what belongs to no record: %+v", r.Wrong)
		}
	})
}

func TestManyOfAKey(t *testing.T) {
	j, db := open(t, storetest.SQLite(t))
	many := make([]journal.Record, journal.MaxFound+5)
	for i := range many {
		many[i] = record(1)
	}
	if _, errs := together(t, j, db, many); errors.Join(errs...) != nil {
		t.Fatal(errors.Join(errs...))
	}
	if found, err := j.Find(t.Context(), record(1).Key); err != nil || len(found) != journal.MaxFound || found[0].Index != 1 {
		t.Errorf("found %d, %v", len(found), err)
	}
}

// TestErased destroys a period's key: its records are gone, the log stands.
func TestErased(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		folder := filepath.Join(t.TempDir(), "keys")
		db := storetest.Open(t, cfg, journal.Migrations())
		j := start(t, journal.Config{}, deps(t, db, folder))
		ctx := t.Context()
		other := record(2)
		other.Class = "audit"
		for _, r := range []journal.Record{record(0), other, record(1)} {
			if _, err := j.Append(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
		k, err := seal.OpenKeys(folder, seal.KeyConfig{})
		if err != nil {
			t.Fatal(err)
		}
		before, err := j.Get(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Records().Destroy("exchange", seal.PeriodOf(record(0).At)); err != nil {
			t.Fatal(err)
		}
		after, err := j.Get(ctx, 0)
		if err != nil || !after.Erased || after.Leaf != before.Leaf || after.Envelope != nil || after.Salt != [32]byte{} {
			t.Errorf("an erased record: %+v, %v", after, err)
		}
		if found, err := j.Find(ctx, record(0).Key); err != nil || len(found) != 1 || !found[0].Erased {
			t.Errorf("an erased record by its key: %+v, %v", found, err)
		}
		if r := verify(t, j); !r.OK() || r.Erased != 2 || r.Read != 1 {
			t.Errorf("%+v", r)
		}
		if _, err := j.Append(ctx, record(3)); fault.CodeOf(err) != fault.StoreFailed {
			t.Errorf("a record under a destroyed key: %v", err)
		}
	})
}

func TestSameTables(t *testing.T) { storetest.SameTables(t, journal.Migrations()) }

func claimTables() fs.FS {
	table := "-- +goose Up\nCREATE TABLE claim_id (id BIGINT NOT NULL PRIMARY KEY, idx BIGINT NOT NULL);\n"
	return fstest.MapFS{"sqlite/0001_claim.sql": {Data: []byte(table)}, "postgres/0001_claim.sql": {Data: []byte(table)}}
}
