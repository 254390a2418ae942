package witness_test

import (
	"context"
	"testing"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/witness"
)

// public serves a node's log with a head of so many entries.
func (n *node) public(t *testing.T, size int64) witness.Get {
	return func(ctx context.Context, path string) ([]byte, error) {
		if path == "checkpoint" {
			return n.submission(t, 0, size).Note, nil
		}
		level, i, width, ok := merkle.ParsePath(path)
		if !ok {
			return nil, fault.New(fault.NotFound, "%s", path)
		}
		if level == merkle.Entries {
			return n.journal.Bundle(ctx, i, width)
		}
		return n.journal.Tile(ctx, level, i, width)
	}
}

// TestLook: who watches a log finds a history that was rewritten, cut off, or
// shown otherwise to a witness, and has both heads in hand; what merely grows,
// or cannot be reached, is no finding.
func TestLook(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA", "AE")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	fork := &node{state: "BH", keys: bh.keys, signers: bh.signers}
	w.open(fork, storetest.SQLite(t))
	w.unlocked("SA")
	bh.fill(t, 300)
	fork.fill(t, 310)
	if a := sa.add(t, bh.submission(t, 0, 280)); a.Status != witness.Done {
		t.Fatal(a)
	}
	heads, err := sa.witness.Heads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	trust, _ := w.union().Trust("BH")
	seen := witness.Known("SA", heads, trust.Log)
	if len(seen) != 1 || witness.Known("SA", heads, sa.signers[merkle.LogSignature].Key) != nil || witness.Known("SA", []byte("x"), trust.Log) != nil {
		t.Fatalf("%+v", seen)
	}
	before := func(n *node, size int64) witness.Head {
		return witness.Head{Note: string(n.submission(t, 0, size).Note)}
	}
	for name, x := range map[string]struct {
		get   witness.Get
		known []witness.Head
		what  string
		by    string // whose head the division is from
		kept  int64
	}{
		"first sight":                        {bh.public(t, 300), nil, witness.SightFew, "", 300},
		"grown":                              {bh.public(t, 300), []witness.Head{seen[0], before(bh, 5)}, witness.SightFew, "", 300},
		"a head behind the one before":       {bh.public(t, 290), []witness.Head{before(bh, 300)}, witness.SightFew, "", 300},
		"a head behind the witness's":        {bh.public(t, 100), seen, witness.SightFew, "", 100},
		"the history rewritten":              {fork.public(t, 310), []witness.Head{before(bh, 20)}, witness.SightDivided, "", 20},
		"of one size":                        {fork.public(t, 20), []witness.Head{before(bh, 20)}, witness.SightDivided, "", 20},
		"rewritten and shorter":              {fork.public(t, 10), []witness.Head{before(bh, 20)}, witness.SightDivided, "", 20},
		"shown to the witness otherwise":     {fork.public(t, 310), seen, witness.SightDivided, "SA", 0},
		"cut off":                            {bh.public(t, 300), []witness.Head{before(fork, 310)}, witness.SightDivided, "", 310},
		"signed by another":                  {func(context.Context, string) ([]byte, error) { return sa.submission(t, 0, 0).Note, nil }, []witness.Head{before(bh, 20)}, witness.SightUnsigned, "", 20},
		"away":                               {func(context.Context, string) ([]byte, error) { return nil, fault.New(fault.PeerUnreachable, "") }, []witness.Head{before(bh, 20)}, witness.SightSilent, "", 20},
		"what is remembered of the old name": {bh.public(t, 300), []witness.Head{before(sa, 0)}, witness.SightFew, "", 300},
		"away in between": {func(ctx context.Context, path string) ([]byte, error) {
			if path != "checkpoint" {
				return nil, fault.New(fault.PeerUnreachable, "")
			}
			return bh.public(t, 300)(ctx, path)
		}, []witness.Head{before(bh, 20)}, witness.SightSilent, "", 20},
	} {
		s, keep := witness.Look(t.Context(), "BH", x.get, trust, x.known)
		if s.What != x.what || s.State != "BH" || s.Log != bh.origin() {
			t.Errorf("%s: %+v", name, s)
		}
		if kept, err := merkle.OpenCheckpoint([]byte(keep), trust.Log); x.kept > 0 && (err != nil || kept.Size != x.kept) || x.kept == 0 && keep != "" {
			t.Errorf("%s: remembers %q", name, keep)
		}
		if s.What != witness.SightDivided {
			continue
		}
		if len(s.Heads) != 2 || s.Heads[0].By != x.by || s.Heads[1].By != "BH" || s.Detail == "" {
			t.Errorf("%s: %+v", name, s)
		}
		for _, h := range s.Heads {
			if _, err := merkle.OpenCheckpoint([]byte(h.Note), trust.Log); err != nil {
				t.Errorf("%s: a head that proves nothing: %v", name, err)
			}
		}
	}
}

// TestLookAtNewLog: a log that goes on under a new name is told from one that
// merely grows, and where the new one does not hold what was signed under the
// old name, that history ended.
func TestLookAtNewLog(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh := w.nodes["BH"]
	bh.fill(t, 300)
	fork := &node{state: "BH", keys: bh.keys, signers: bh.signers}
	w.open(fork, storetest.SQLite(t))
	fork.fill(t, 310)

	old := bh.signers[merkle.LogSignature]
	before := func(n *node, size int64) string { return string(n.submission(t, 0, size).Note) }
	renewed, err := old.As("host.example/BH/log10")
	if err == nil {
		old, err = old.As("host.example/BH/log9")
	}
	if err != nil {
		t.Fatal(err)
	}
	bh.signers[merkle.LogSignature] = old
	first, second, forked := before(bh, 280), before(bh, 290), before(fork, 280)
	bh.signers[merkle.LogSignature] = renewed
	trust := merkle.Trust{Log: renewed.Key}
	later := before(bh, 295)
	for name, x := range map[string]struct {
		get   witness.Get
		known []string
		what  string
		ended int64 // entries of the old log that are known
	}{
		"nothing is known":          {bh.public(t, 300), nil, witness.SightNew, 0},
		"it holds the old one":      {bh.public(t, 300), []string{first, second}, witness.SightRenewed, 290},
		"and was seen":              {bh.public(t, 300), []string{first, later}, witness.SightRenewed, 280},
		"it begins with a copy":     {bh.public(t, 270), []string{first, second}, witness.SightEnded, 290},
		"and has grown since":       {bh.public(t, 300), []string{forked}, witness.SightEnded, 280},
		"and was seen since":        {bh.public(t, 300), []string{forked, later}, witness.SightEnded, 280},
		"its own history rewritten": {fork.public(t, 300), []string{first, later}, witness.SightDivided, 0},
	} {
		var known []witness.Head
		for _, note := range x.known {
			known = append(known, witness.Known("SA", []byte(note), trust.Log)...)
		}
		if len(known) != len(x.known) {
			t.Fatalf("%s: %d heads of %d are known", name, len(known), len(x.known))
		}
		s, _ := witness.Look(t.Context(), "BH", x.get, trust, known)
		if s.What != x.what {
			t.Errorf("%s: %+v", name, s)
		}
		if x.ended == 0 {
			continue
		}
		if len(s.Former) != 1 || s.Former[0].Size != x.ended || s.Former[0].Log != old.Name() || s.Former[0].Contained != (x.what == witness.SightRenewed) || s.Former[0].Head.By != "SA" {
			t.Errorf("%s: %+v", name, s.Former)
		}
	}

	// A log of another key is only known by that key, and a later one is none
	// of before.
	for what, h := range map[string]witness.Head{witness.SightEnded: {Note: forked, Key: old.Key}, witness.SightNew: {Note: forked, Key: w.nodes["SA"].signers[merkle.LogSignature].Key}} {
		if s, _ := witness.Look(t.Context(), "BH", bh.public(t, 300), trust, []witness.Head{h}); s.What != what {
			t.Errorf("%+v", s)
		}
	}
	bh.signers[merkle.LogSignature] = old
	if s, _ := witness.Look(t.Context(), "BH", bh.public(t, 300), merkle.Trust{Log: old.Key}, []witness.Head{{Note: later}}); s.What != witness.SightNew {
		t.Errorf("%+v", s)
	}
}
