package witness_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/witness"
)

// TestInspect: every bit of what the room stores that is changed is found, and
// named; nothing is named that is as it was.
func TestInspect(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, 2, "BH", "SA", "AE")
		sa, bh := w.nodes["SA"], w.nodes["BH"]
		w.open(sa, cfg)
		w.unlocked("SA", "BH", "AE")
		for _, n := range []*node{bh, sa} {
			stop := w.run(n.state)
			e := n.fill(t, 300)
			w.receipt(n.state, e.Index, e.Leaf)
			stop()
		}
		look := func() []witness.Wrong {
			t.Helper()
			size, _, err := sa.journal.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			seen, wrong, err := witness.Inspect(t.Context(), sa.db, "SA", w.union(), size, sa.journal)
			if err != nil || seen != 3 {
				t.Fatalf("%d seen, %v", seen, err)
			}
			return wrong
		}
		note, err := witness.Alarm{From: "BH", Of: "SA", Kind: witness.AlarmLate, At: time.Unix(1, 0)}.Sign(bh.signers[merkle.LogSignature])
		if err != nil {
			t.Fatal(err)
		}
		id := sha256.Sum256(note)
		if _, err := sa.db.Exec(t.Context(), "INSERT INTO witness_alarm (id, raiser, heard_at, note) VALUES (?, 'BH', 1, ?)", id[:], note); err != nil {
			t.Fatal(err)
		}
		if wrong := look(); len(wrong) != 0 {
			t.Fatalf("%+v", wrong)
		}
		for _, s := range []struct {
			table, place string
			keys, all    []string
		}{
			{"witness_checkpoint", witness.PlaceCheckpoint, []string{"origin", "stage"}, []string{"origin", "stage", "size", "note"}},
			{"witness_alarm", witness.PlaceAlarm, []string{"id"}, []string{"id", "raiser", "note"}}, // when it was heard no note tells
			{"witness_head", witness.PlaceHead, []string{"origin"}, []string{"origin", "size", "root", "note"}},
		} {
			for _, column := range s.all {
				for range 5 {
					what, undo := storetest.Flip(t, sa.db, s.table, column, s.keys...)
					if undo == nil {
						t.Fatalf("%s is empty", s.table)
					}
					if wrong := look(); !slices.ContainsFunc(wrong, func(w witness.Wrong) bool { return w.Place == s.place && !w.Unsure }) || len(wrong) != 1 {
						t.Errorf("%s: %+v", what, wrong)
					}
					undo()
				}
			}
		}
		if wrong := look(); len(wrong) != 0 {
			t.Errorf("repaired: %+v", wrong)
		}
	})
}

// TestInspectStamps: the same of the time-stamps, and none is this state's own.
func TestInspectStamps(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newTimes(t, "BH", "SA")
		bh := w.nodes["BH"]
		w.open(bh, cfg)
		w.unlocked("SA")
		w.run("BH")
		s := w.stamps("BH")
		stop := running(t, s.Run)
		for _, n := range []int{2, 300} {
			e := bh.fill(t, n)
			w.stamped(s, "BH", e.Index, e.Leaf)
		}
		stop()
		look := func() (stamps []witness.Wrong) {
			t.Helper()
			size, _, err := bh.journal.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, wrong, err := witness.Inspect(t.Context(), bh.db, "BH", w.union(), size, bh.journal)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range wrong {
				if w.Place == witness.PlaceStamp && !w.Unsure {
					stamps = append(stamps, w)
				}
			}
			return stamps
		}
		if wrong := look(); len(wrong) != 0 {
			t.Fatalf("%+v", wrong)
		}
		for _, column := range []string{"first", "size", "note", "token", "signer", "serial", "authority", "name", "edition", "level", "digest"} {
			for range 5 {
				what, undo := storetest.Flip(t, bh.db, "witness_stamp", column, "first")
				if undo == nil {
					t.Fatal("no time-stamps")
				}
				if wrong := look(); len(wrong) == 0 {
					t.Errorf("%s: not named", what)
				}
				undo()
			}
		}
		if _, err := bh.db.Exec(t.Context(), "UPDATE witness_stamp SET authority = 'BH', name = 'BH'"); err != nil {
			t.Fatal(err)
		}
		if wrong := look(); len(wrong) < 2 {
			t.Errorf("its own: %+v", wrong)
		}
	})
}
