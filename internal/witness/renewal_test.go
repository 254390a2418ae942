package witness_test

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// almost is how long after its beginning an authority's certificate, which is
// for five years, ends soon.
const almost = 1700 * 24 * time.Hour

func (w *times) revoked(of union.State) func([]byte) bool {
	return func(signer []byte) bool {
		c, ok := w.dir.Dirs[of].View().Certificate([32]byte(signer))
		return ok && c.Revoked != nil
	}
}

// later moves all clocks, and has the states renew what ran out meanwhile.
func (w *times) later(d time.Duration) {
	w.t.Helper()
	w.ahead += d
	w.dir.Later(d)
}

// renewed waits until no time-stamp is to be renewed, and gives how many were
// at each level.
func (w *times) renewed(n *node) (levels []int) {
	w.t.Helper()
	s := w.stamps(n.state)
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for more := true; more; {
		var err error
		if more, err = witness.Renew(ctx, s); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.levels(n)
}

func (w *times) levels(n *node) (levels []int) {
	w.t.Helper()
	rows, err := n.db.Query(w.t.Context(), "SELECT COUNT(*) FROM witness_stamp GROUP BY level ORDER BY level")
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		levels = append(levels, 0)
		if err := rows.Scan(&levels[len(levels)-1]); err != nil {
			w.t.Fatal(err)
		}
	}
	return levels
}

// chain gives a record's evidence record, verified as far as it goes by itself.
func (w *times) chain(n *node, index int64) stamp.Record {
	w.t.Helper()
	s := w.stamps(n.state)
	st, err := s.Of(w.t.Context(), index)
	if err != nil || st == nil {
		w.t.Fatalf("the record %d: %v", index, err)
	}
	r, _, err := s.Record(w.t.Context(), st, index)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := r.Bytes()
	if err == nil {
		r, err = stamp.ParseRecord(b)
	}
	if err != nil || len(r) != 1+len(st.Renewals) {
		w.t.Fatalf("%d of %d: %v", len(r), len(st.Renewals), err)
	}
	for i, x := range append([]*witness.Stamp{st}, st.Renewals...) {
		if x.State == n.state || x.Edition == 0 || i > 0 && i%2 == 0 && x.State == st.Renewals[i-2].State {
			w.t.Errorf("link %d is by %s, judged by version %d", i, x.State, x.Edition)
		}
		if err := r[i].Token.Verify(r[i].Token.Signer()); err != nil {
			w.t.Error(err)
		}
		if i > 0 && r[i].Token.At.After(r[i-1].Token.Signer().NotAfter) {
			w.t.Errorf("link %d came after the end of the one before", i)
		}
	}
	return r
}

// TestRenewals: before the certificates end by which records are stamped, a
// few time-stamps of others renew all of these, and later these in turn; each
// record's evidence record leads through all of them. Nothing is renewed
// twice, and fsck knows every bit of it.
func TestRenewals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newTimes(t, "BH", "SA", "AE")
		bh := w.nodes["BH"]
		w.open(bh, cfg)
		w.unlocked("SA", "AE")
		w.run("BH")
		s := w.stamps("BH")
		stop := running(t, s.Run)
		var last int64
		for _, n := range []int{1, 250, 3} {
			e := bh.fill(t, n)
			w.stamped(s, "BH", e.Index, e.Leaf)
			last = e.Index
		}
		stop()
		base := w.levels(bh)
		if got := w.renewed(bh); !slices.Equal(got, base) || len(base) != 1 || base[0] < 4 {
			t.Fatalf("renewed although nothing is due: %v, then %v", base, got)
		}
		for _, want := range []int{3, 5} {
			w.later(almost)
			for range 2 { // the second time nothing is left to do
				got := w.renewed(bh)
				if len(got) != want || slices.ContainsFunc(got[1:], func(n int) bool { return n != 1 }) {
					t.Fatalf("%v of %v", got, base)
				}
			}
			for _, i := range []int64{0, 1, 99, 200, last} {
				if r := w.chain(bh, i); len(r) != want {
					t.Errorf("the record %d: %d time-stamps", i, len(r))
				}
			}
		}

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
			return slices.DeleteFunc(wrong, func(w witness.Wrong) bool { return w.Place != witness.PlaceStamp || w.Unsure })
		}
		if wrong := look(); len(wrong) != 0 {
			t.Fatalf("%+v", wrong)
		}
		for _, c := range storetest.Columns(t, bh.db) {
			if c.Table != "witness_stamp" {
				continue
			}
			for range 8 {
				what, undo := storetest.Flip(t, bh.db, c.Table, c.Name, "level", "first")
				if wrong := look(); len(wrong) == 0 {
					t.Errorf("%s: not named", what)
				}
				undo()
			}
		}
	})
}

// TestRevokedIsRenewed: what an authority stamped is renewed as soon as its
// certificate is revoked, by another.
func TestRevokedIsRenewed(t *testing.T) {
	w := newTimes(t, "BH", "SA", "AE")
	bh := w.nodes["BH"]
	w.unlocked("SA", "AE")
	w.run("BH")
	s := w.stamps("BH")
	stop := running(t, s.Run)
	by := map[union.State]int64{}
	for len(by) < 2 {
		e := bh.fill(t, 1)
		by[w.stamped(s, "BH", e.Index, e.Leaf).State] = e.Index
	}
	stop()
	_, cert := w.dir.Stamp("SA")
	if err := w.dir.Dirs["SA"].Revoke(t.Context(), sha256.Sum256(cert.Raw), "keyCompromise"); err != nil {
		t.Fatal(err)
	}
	w.dir.Refresh()
	if got := w.renewed(bh); len(got) != 2 { // no second authority is left
		t.Errorf("%v", got)
	}
	st, err := w.stamps("BH").Of(t.Context(), by["SA"])
	if err != nil || len(st.Renewals) == 0 || st.Renewals[0].State != "AE" {
		t.Errorf("%+v %v", st, err)
	}
}

// TestNotRenewed: where no authority's certificate lasts long enough, or none
// can be reached, the node says so, and takes no renewal that would have to be
// renewed at once; a union of two renews all the same.
func TestNotRenewed(t *testing.T) {
	w := newTimes(t, "BH", "SA")
	bh := w.nodes["BH"]
	w.unlocked("SA")
	w.run("BH")
	s := w.stamps("BH")
	stop := running(t, s.Run)
	e := bh.fill(t, 3)
	w.stamped(s, "BH", e.Index, e.Leaf)
	stop()
	w.ahead = almost // and the states' authorities have renewed nothing
	aging := func(want string) {
		t.Helper()
		s := w.stamps("BH")
		defer running(t, s.Run)()
		for end := time.Now().Add(10 * time.Second); s.AgingErr() == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing was said")
			}
		}
		if err := s.AgingErr(); fault.CodeOf(err) != fault.StampAging || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; wanted %q", err, want)
		}
		if _, cert := w.dir.Stamp("SA"); !s.Ends().Equal(cert.NotAfter) {
			t.Errorf("ends %s, the certificate %s", s.Ends(), cert.NotAfter)
		}
	}
	aging("too soon to renew with")
	w.leave("SA")
	aging("SA")
	w.back("SA")
	if got := w.levels(bh); len(got) != 1 {
		t.Errorf("%v", got)
	}
	w.ahead = 0
	w.later(almost)
	if got := w.renewed(bh); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if r := w.chain(bh, e.Index); len(r) != 2 {
		t.Errorf("%d time-stamps", len(r))
	}
}
