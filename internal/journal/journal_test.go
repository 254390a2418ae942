package journal_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
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
	// The committer tells its callers before it says that it writes nothing any more.
	waitFor(t, func() bool { return writing(j) == 0 })
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
