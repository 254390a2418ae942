package journal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

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
	many := make([]journal.Record, 4096+16*20) // more than one era
	for i := range many {
		many[i] = record(1 + i%16)
	}
	for some := range slices.Chunk(many, 256) {
		if _, errs := together(t, j, db, some); errors.Join(errs...) != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	if found, err := j.Find(t.Context(), record(1).Key); err != nil || len(found) != journal.MaxFound || found[0].Index != 1 {
		t.Errorf("found %d, %v", len(found), err)
	}
	all, last := 0, int64(0)
	for {
		found, err := j.FindFrom(t.Context(), record(1).Key, last+1)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			break
		}
		if found[0].Index <= last {
			t.Fatalf("%d follows %d", found[0].Index, last)
		}
		all, last = all+len(found), found[len(found)-1].Index
	}
	if all != len(many)/16 || last <= 4096 {
		t.Errorf("found %d of %d, up to %d", all, len(many)/16, last)
	}
}
