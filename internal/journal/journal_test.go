package journal_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

func open(t testing.TB, cfg store.Config) (*journal.Journal, *store.DB) {
	t.Helper()
	db := storetest.Open(t, cfg, journal.Migrations())
	return start(t, db), db
}

func start(t testing.TB, db *store.DB) *journal.Journal {
	t.Helper()
	keys, err := seal.OpenKeys(t.TempDir()+"/keys", seal.KeyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.New(journal.Config{}, journal.Deps{DB: db, Records: keys.Records()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close(context.Background()) })
	return j
}

func record(n int) journal.Record {
	return journal.Record{
		Kind: journal.RequestSent, Key: fmt.Sprintf("BH/GOV/interior/traffic|%d", n),
		At:    time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond),
		Class: "exchange", Envelope: []byte(fmt.Sprintf("envelope %d", n)), Body: []byte("body"), Local: []byte(`{"n":1}`),
	}
}

func TestFirst(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, _ := open(t, cfg)
		ctx := context.Background()
		for n := range 600 {
			e, err := j.Append(ctx, record(n))
			if err != nil {
				t.Fatal(err)
			}
			if e.Index != int64(n) {
				t.Fatal(e)
			}
		}
		r, err := j.Verify(ctx)
		if err != nil || !r.OK() || r.Read != 600 {
			t.Fatal(err, r)
		}
		s, err := j.Find(ctx, record(333).Key)
		if err != nil || len(s) != 1 || s[0].Index != 333 {
			t.Fatal(err, s)
		}
		if _, err := j.Proof(ctx, 300, 512); err != nil {
			t.Fatal(err)
		}
	})
}
