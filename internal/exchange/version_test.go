package exchange

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/verify"
)

// ahead publishes a change that its own state's node alone knows of.
func (u *testUnion) ahead(s union.State, change func(*directory.Edition)) int64 {
	u.t.Helper()
	d := u.nodes[s].dir
	check(u.t, d.Publish(u.t.Context(), func(e *directory.Edition) error { change(e); return nil }))
	return d.View().Version()
}

// changed is a change that takes nothing from anybody.
func changed(e *directory.Edition) { e.Members[0].Name.En += "." }

// proven holds a call's containers, of both sides, against the root alone.
func (u *testUnion) proven(t testing.TB, id string, sides ...union.State) {
	t.Helper()
	v, err := verify.New(u.nodes["SA"].dir.View().Root())
	check(t, err)
	for _, s := range sides {
		_, a := u.container(t, desk(s), id, "?client="+desk("SA").String())
		if r := v.Container(bytes.NewReader(a.body), int64(len(a.body))); r.Verdict != verify.Holds {
			t.Errorf("%s, by %s: %+v", id, s, r)
		}
	}
}

// says gives the version that the last record of a kind of message names.
func (n *testNode) says(t testing.TB, id string) (q, a int64) {
	t.Helper()
	found, err := n.journal.Find(t.Context(), id)
	check(t, err)
	for _, s := range found {
		head, _, err := message.Open(s.Envelope)
		check(t, err)
		if r, err := message.ParseRequest(head); err == nil {
			q = r.Directory
		} else if r, err := message.ParseAnswer(head); err == nil {
			a = r.Directory
		}
	}
	return q, a
}

// twoSeals gives a state's office a second seal beside its first, known to all.
func (u *testUnion) twoSeals(s union.State) Credential {
	u.t.Helper()
	key := otherKey(u.t)
	cert, err := u.nodes[s].issuer.Seal(desk(s).MemberID, "Office", key.Public())
	check(u.t, err)
	u.publish(s, func(e *directory.Edition) {
		e.Members[0].Seals = append(e.Members[0].Seals, directory.Cert{Certificate: cert})
	})
	return Credential{key, cert}
}

// TestVersionsBeside: the directory changes while calls are made. Whoever of
// the two knows the change first, no call suffers, and each is proven.
func TestVersionsBeside(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"AE", "BH", "SA"}, quick) // AE signs what the others publish
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	bh, sa := u.nodes["BH"].dir, u.nodes["SA"].dir
	for name, c := range map[string]struct {
		first union.State
		n     int
	}{"the-callers": {"SA", 1}, "the-providers": {"BH", 1}, "the-callers-twice": {"SA", 2}, "the-providers-by-three": {"BH", 3}} {
		old := sa.View().Version()
		var newest int64
		for range c.n {
			newest = u.ahead(c.first, changed)
		}
		if a := u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("?"), "X-Road-Id: "+name); a.status != 200 {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		q, a := u.nodes["SA"].says(t, name)
		want := map[union.State]int64{"SA": newest, "BH": old}[c.first]
		if q != want || a != newest || bh.View().Version() != newest || sa.View().Version() != newest {
			t.Errorf("%s: by %d and %d, of %d and %d; now BH has %d, SA %d", name, q, a, old, newest, bh.View().Version(), sa.View().Version())
		}
		u.proven(t, name, "SA", "BH")
	}
	// A call that is delivered late was sealed under a directory of long ago.
	u.backend("BH", "later", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	k := u.cut("SA")
	k.fail(unreachable)
	if a := u.call("SA", "POST", offered("BH", "later"), "/x", strings.NewReader("?"), "X-Road-Id: late"); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for range 3 {
		u.publish("SA", changed)
	}
	k.fail(nil)
	u.becomes("SA", "late", StatusAnswered)
	if q, a := u.nodes["SA"].says(t, "late"); a != q+3 {
		t.Errorf("by %d and %d", q, a)
	}
	u.proven(t, "late", "SA", "BH")
	u.sound(t)
}

// TestVersionsOfRequests: what could not be proven by the version that it names
// is not carried out, and leaves no record.
func TestVersionsOfRequests(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	var calls atomic.Int64
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { calls.Add(1) })
	first, second := u.nodes["SA"].seals[desk("SA").MemberID], u.twoSeals("SA")
	for range 2 {
		u.publish("SA", changed)
	}
	const newest = 4
	bh := u.nodes["BH"]
	for name, c := range map[string]struct {
		version int64
		by      Credential
		code    fault.Code
	}{
		"of the newest":                   {newest, second, ""},
		"of the one before":               {newest - 1, second, ""},
		"of the first with its seal":      {2, second, ""},
		"of one before its seal":          {1, second, fault.SealInvalid},
		"of the first, with another seal": {1, first, ""},
		"of one that never was":           {newest + 1, first, fault.DirectoryUnknown},
		"of one that never will be":       {1 << 53, first, fault.DirectoryUnknown},
	} {
		k := &attack{r: u.request("SA", offered("BH", "things")), body: []byte("body"), by: c.by, at: time.Now()}
		k.r.Directory = c.version
		before := bh.size(t)
		a, b, err := u.deliver("SA", "BH", k.message(t))
		if c.code == "" {
			if err != nil || a.Fault != "" || calls.Swap(0) != 1 {
				t.Errorf("%s: %+v %s %v", name, a, b, err)
			}
			continue
		}
		if fault.CodeOf(err) != c.code || !errors.Is(err, link.ErrRefused) || calls.Load() != 0 {
			t.Errorf("%s: %+v %s %v, wanted %s", name, a, b, err, c.code)
		}
		if bh.size(t) != before {
			t.Errorf("%s: it left %s", name, bh.held(t, k.r.ID))
		}
	}
}

// TestExpiredMeanwhile: nothing is sealed by a directory that has expired while
// the request's body was waited for.
func TestExpiredMeanwhile(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	sa := u.nodes["SA"]
	_, err := sa.Ask(t.Context(), Ask{
		Client: desk("SA"), Service: offered("BH", "things"), Method: "POST", Path: "/x", ID: "slow", Purpose: "test", In: sa.now(),
		Receive: func(string) (*body, error) {
			sa.shift.Store(int64(8 * 24 * time.Hour))
			return &body{}, nil
		},
	})
	if fault.CodeOf(err) != fault.DirectoryExpired || sa.held(t, "slow") != "refused" {
		t.Errorf("%v; %s", err, sa.held(t, "slow"))
	}
}

// TestVersionsOfAnswers: an answer that could not be proven is believed no more
// than a forged one; the call stays in evidence as unanswered, and asked again
// it is answered from the record.
func TestVersionsOfAnswers(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	var calls atomic.Int64
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(w, "secret")
	})
	first, second := u.nodes["BH"].seals[desk("BH").MemberID], u.twoSeals("BH")
	sa := u.nodes["SA"]
	for name, c := range map[string]struct {
		version int64
		by      Credential
		code    fault.Code
	}{
		"of-the-newest":        {2, second, ""},
		"of-the-one-before":    {1, first, ""},
		"of-one-before-seal":   {1, second, fault.SealInvalid},
		"of-one-that-is-not":   {3, first, fault.DirectoryUnknown},
		"of-one-never-to-come": {1 << 53, first, fault.DirectoryUnknown},
	} {
		sa.through(t, func(m *link.Message, err error) (*link.Message, error) {
			check(t, err)
			return forge(t, m, c.by, func(k *forgery) { k.a.Directory = c.version }), nil
		})
		a := u.call("SA", "POST", offered("BH", "things"), "/x", nil, "X-Road-Id: "+name)
		if c.code == "" {
			if a.status != 200 {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
			continue
		}
		if e := a.fault(t); e.Code != string(c.code) || bytes.Contains(a.body, []byte("secret")) {
			t.Errorf("%s: %d %s, wanted %s", name, a.status, a.body, c.code)
		}
		if got := sa.held(t, name); got != "request sent, unanswered" {
			t.Errorf("%s: records: %s", name, got)
		}
		sa.SetLink(sa.link)
		before := calls.Load()
		if a := u.call("SA", "POST", offered("BH", "things"), "/x", nil, "X-Road-Id: "+name); a.status != 200 || calls.Load() != before {
			t.Errorf("%s, again: %d %s, %d calls", name, a.status, a.body, calls.Load()-before)
		}
	}
	u.sound(t)
}

// TestSealOfNow: the provider's member gets another seal while a call is at its
// service. The answer names the directory that lists the seal, not the one
// that the call came under.
func TestSealOfNow(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	bh := u.nodes["BH"]
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		bh.seals[desk("BH").MemberID] = u.twoSeals("BH")
		_, _ = io.WriteString(w, "ok")
	})
	if a := u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("?"), "X-Road-Id: now"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if q, a := u.nodes["SA"].says(t, "now"); a != q+1 {
		t.Errorf("by %d and %d", q, a)
	}
	u.proven(t, "now", "SA", "BH")
}
