package exchange

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// TestLateAnswer: a call that a person decided about while it was still going
// on does not end the call that has taken its id since.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	onEngines(t, lateAnswer)
}

func lateAnswer(t *testing.T, on engine) {
	u := newUnionOn(t, on, []union.State{"BH", "SA"})
	bh := u.nodes["BH"]
	var calls atomic.Int32
	busy, release := make(chan bool, 2), []chan bool{make(chan bool), make(chan bool)}
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		busy <- true
		<-release[n-1]
		fmt.Fprint(w, n)
	})
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	envelope := k.message(t).Envelope
	send := func(x *Exchange) chan string {
		done := make(chan string, 1)
		go func() {
			m, err := served(t.Context(), x, u.asPeer("SA"), link.NewMessage(envelope, nil))
			if err != nil {
				done <- err.Error()
				return
			}
			b, _ := m.Bytes()
			done <- string(b)
		}()
		return done
	}
	first := send(bh.Exchange)
	<-busy
	// Another run takes the first for dead, and a person decides that nothing
	// happened.
	second, err := New(bh.Exchange.cfg, bh.Exchange.deps, bh.Local())
	check(t, err)
	check(t, second.Start(t.Context()))
	check(t, second.ResolveOutcome(t.Context(), desk("SA"), k.r.ID, false, "auditor", "it is dead"))
	next := send(second)
	<-busy
	close(release[0])
	if got := <-first; got != "1" {
		t.Errorf("the first got %s", got)
	}
	if n := bh.claims(t, sideProvider, claimOpen); n != 1 {
		t.Errorf("%d open claims while the second is at work", n)
	}
	close(release[1])
	if got := <-next; got != "2" {
		t.Errorf("the second got %s", got)
	}
	if got := <-send(second); got != "2" || calls.Load() != 2 {
		t.Errorf("the recorded answer is %s after %d calls", got, calls.Load())
	}
}

// TestClaimedAfterAll: where the store fails while an id is claimed, the claim
// may stand all the same. Nothing was invoked, so the id can be used again.
func TestClaimedAfterAll(t *testing.T) {
	t.Parallel()
	for name, stands := range map[string]bool{"it stands": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUnion(t, []union.State{"BH", "SA"})
			bh := u.nodes["BH"]
			var calls atomic.Int32
			u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { calls.Add(1) })
			k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
			envelope := k.message(t).Envelope
			for _, rename := range []string{"exchange_claim RENAME TO away", "away RENAME TO exchange_claim"} {
				_, err := bh.db.Exec(t.Context(), "ALTER TABLE "+rename)
				check(t, err)
				if rename[0] == 'e' {
					if a, _, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil)); err != nil || a.Fault != string(fault.StoreFailed) {
						t.Fatalf("%+v %v", a, err)
					}
				}
			}
			if stands {
				check(t, bh.db.Write(t.Context(), func(tx *store.Tx) error {
					return bh.claimID(t.Context(), tx, sideProvider, k.r, 0)
				}))
			}
			u.soon("the journal writes again", func() bool { return bh.journal.Err() == nil })
			a, _, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil))
			if err != nil || a.Fault != "" || calls.Load() != 1 {
				t.Errorf("%+v %v, %d calls", a, err, calls.Load())
			}
			u.sound(t)
		})
	}
}

// TestSealGoesMeanwhile: an answer that nobody can seal any more is recorded
// as an unknown outcome, and the caller told so.
func TestSealGoesMeanwhile(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, d *Deps) { c.Operator.Code = "operator" })
	bh := u.nodes["BH"]
	operator := u.enlist("BH", "operator", *bh.issuer)
	seals := map[union.MemberID]Credential{desk("BH").MemberID: bh.seals[desk("BH").MemberID], {State: "BH", Class: "GOV", Code: "operator"}: operator}
	var gone atomic.Bool
	bh.Exchange.deps.Seal = func(m union.MemberID) (Credential, error) {
		c, ok := seals[m]
		if !ok || gone.Load() && m == desk("BH").MemberID {
			return c, fault.New(fault.CertUnknown, "no seal of %s", m)
		}
		return c, nil
	}
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		gone.Store(true)
		_, _ = w.Write(bytes.Repeat([]byte("secret"), 40_000))
	})
	for method, listed := range map[string]int{"POST": 1, "GET": 0} {
		gone.Store(false)
		a := u.call("SA", method, offered("BH", "things"), "/", nil, "X-Road-Id: "+method)
		if e := a.fault(t); e.Code != string(fault.OutcomeUnknown) || bytes.Contains(a.body, []byte("secret")) {
			t.Errorf("%s: %d %.200s", method, a.status, a.body)
		}
		if got := bh.held(t, method); got != "request received, answer sent" {
			t.Errorf("%s: recorded %s", method, got)
		}
		list, err := bh.Outcomes(t.Context(), 9)
		if n := len(list); err != nil || n > 0 && list[0].ID == method && n != listed || n == 0 && listed == 1 {
			t.Errorf("%s: %v %v", method, list, err)
		}
	}
	u.sound(t)
	if there, _ := bh.spooled(t); len(there) != 0 {
		t.Errorf("%v stays", there)
	}
}

// TestDigestsFromNowOn: a body that was kept when a service's bodies were kept
// stays when only their digests are.
func TestDigestsFromNowOn(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	big := bytes.Repeat([]byte("x"), 200<<10)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(big) })
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	envelope := k.message(t).Envelope
	for i := range 3 {
		if _, b, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil)); err != nil || !bytes.Equal(b, big) {
			t.Fatalf("%d: %d bytes, %v", i, len(b), err)
		}
		u.publish("BH", func(e *directory.Edition) { e.Members[0].Subsystems[0].Services[0].DigestOnly = true })
	}
}

// asPeer is a state's node as the link of another names it.
func (u *testUnion) asPeer(s union.State) link.Peer {
	return link.Peer{State: s, Node: "n1", Cert: sha256.Sum256(u.nodes[s].tls.Raw)}
}
