package exchange

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// TestSameID sends an id again: the same request gets the recorded answer and
// does not reach the service; any other is a conflict.
func TestSameID(t *testing.T) {
	t.Parallel()
	onEngines(t, sameID)
}

func sameID(t *testing.T, on engine) {
	u := newUnionOn(t, on, []union.State{"BH", "SA"})
	var calls atomic.Int32
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Call", fmt.Sprint(calls.Add(1)))
		_, _ = w.Write(b)
	})
	things := offered("BH", "things")
	for _, size := range []int{0, 10, 200 << 10} {
		id, body := fmt.Sprintf("X-Road-Id: same-%d", size), strings.Repeat("b", size)
		calls.Store(0)
		first := u.call("SA", "POST", things, "/a?b", strings.NewReader(body), id, "X-A: 1")
		again := u.call("SA", "POST", things, "/a?b", strings.NewReader(body), id, "X-A: 1")
		for _, a := range []answer{first, again} {
			if a.status != 200 || string(a.body) != body || a.header.Get("X-Call") != "1" || a.header.Get("X-Road-Error") != "" {
				t.Errorf("%d bytes: %d %.200s %v", size, a.status, a.body, a.header)
			}
		}
		for _, h := range []string{"X-Road-Request-Id", "X-Road-Request-Hash", "X-Road-Id"} {
			if first.header.Get(h) != again.header.Get(h) || first.header.Get(h) == "" {
				t.Errorf("%s: %q, then %q", h, first.header.Get(h), again.header.Get(h))
			}
		}
		for name, other := range map[string]func() answer{
			"method": func() answer { return u.call("SA", "PUT", things, "/a?b", strings.NewReader(body), id, "X-A: 1") },
			"path":   func() answer { return u.call("SA", "POST", things, "/c?b", strings.NewReader(body), id, "X-A: 1") },
			"query":  func() answer { return u.call("SA", "POST", things, "/a?c", strings.NewReader(body), id, "X-A: 1") },
			"header": func() answer { return u.call("SA", "POST", things, "/a?b", strings.NewReader(body), id, "X-A: 2") },
			"body":   func() answer { return u.call("SA", "POST", things, "/a?b", strings.NewReader(body+"x"), id, "X-A: 1") },
			"service": func() answer {
				return u.call("SA", "POST", offered("BH", "idem"), "/a?b", strings.NewReader(body), id, "X-A: 1")
			},
			"purpose": func() answer {
				return u.call("SA", "POST", things, "/a?b", strings.NewReader(body), id, "X-A: 1", "Falaj-Purpose: other")
			},
			"conversation": func() answer {
				return u.call("SA", "POST", things, "/a?b", strings.NewReader(body), id, "X-A: 1", "Falaj-Conversation: c")
			},
			"subject": func() answer {
				return u.call("SA", "POST", things, "/a?b", strings.NewReader(body), id, "X-A: 1", "Falaj-Subject: p")
			},
		} {
			if a := other(); a.status != 400 || a.fault(t).Code != string(fault.IDConflict) {
				t.Errorf("another %s: %d %.200s", name, a.status, a.body)
			}
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the service was called %d times", n)
	}
	u.sound(t)
}

// TestSameIDOfAnotherClient: ids belong to their client.
func TestSameIDOfAnotherClient(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA", "AE"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "for "+r.Header.Get("X-Road-Client"))
	})
	for _, s := range []union.State{"SA", "AE", "SA"} {
		if a := u.call(s, "POST", offered("BH", "things"), "/", nil, "X-Road-Id: 1"); string(a.body) != "for "+desk(s).String() {
			t.Errorf("%s got %d %s", s, a.status, a.body)
		}
	}
}

// TestPolicyIsAskedAgain: a recorded answer is given only while the rules
// allow it, at the caller's node and, of a sealed request sent again, at the
// provider's.
func TestPolicyIsAskedAgain(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "secret") })
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	envelope := k.message(t).Envelope
	for range 2 {
		if a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: again"); string(a.body) != "secret" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if _, b, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil)); string(b) != "secret" {
			t.Fatalf("%s %v", b, err)
		}
	}
	u.withdraw("BH", "SA-things")
	if a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: again"); a.fault(t).Code != string(fault.PolicyDenied) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a, b, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil)); err != nil || a.Fault != string(fault.PolicyDenied) || bytes.Contains(b, []byte("secret")) {
		t.Errorf("%+v %s %v", a, b, err)
	}
	u.sound(t)
}

// TestConcurrentDuplicates: of many requests with one id the service sees one,
// and all get its answer.
func TestConcurrentDuplicates(t *testing.T) {
	t.Parallel()
	onEngines(t, concurrentDuplicates)
}

func concurrentDuplicates(t *testing.T, on engine) {
	u := newUnionOn(t, on, []union.State{"BH", "SA"})
	var calls atomic.Int32
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond)
		fmt.Fprint(w, calls.Add(1))
	})
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	envelope := k.message(t).Envelope
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: one"); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
		wg.Go(func() {
			if _, b, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil)); err != nil || string(b) != "1" && string(b) != "2" {
				t.Errorf("%s %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n != 2 { // one each
		t.Errorf("the service was called %d times", n)
	}
	u.sound(t)
}

// TestMayBeRepeated: where an outcome is unknown, a second invocation needs
// leave: a safe method, a service that says so, a backend that takes our id.
func TestMayBeRepeated(t *testing.T) {
	t.Parallel()
	onEngines(t, mayBeRepeated)
}

func mayBeRepeated(t *testing.T, on engine) {
	u := newUnionOn(t, on, []union.State{"BH", "SA"})
	for name, c := range map[string]struct {
		code, method, key string
		again             bool
	}{
		"a POST":                  {"things", "POST", "", false},
		"a PUT":                   {"things", "PUT", "", false},
		"a DELETE":                {"things", "DELETE", "", false},
		"a GET":                   {"things", "GET", "", true},
		"a HEAD":                  {"things", "HEAD", "", true},
		"an idempotent service":   {"idem", "POST", "", true},
		"a backend with our keys": {"things", "POST", "X-Key", true},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			keys := make(chan string, 9)
			srv := u.backend("BH", c.code, func(w http.ResponseWriter, r *http.Request) {
				keys <- r.Header.Get("X-Key")
				if calls.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
			})
			check(t, u.nodes["BH"].Local().PutBackend(t.Context(), Backend{Service: offered("BH", c.code), Address: srv.URL, KeyHeader: c.key}))
			id := strings.ReplaceAll(name, " ", "-")
			send := func() answer {
				return u.call("SA", c.method, offered("BH", c.code), "/", nil, "X-Road-Id: "+id)
			}
			if a := send(); a.status != 500 || a.header.Get("X-Road-Error") != "Server.ServerProxy.ServiceFailed" {
				t.Errorf("%d %s", a.status, a.body)
			}
			a := send()
			if c.again && (a.status != 200 || calls.Load() != 2) || !c.again && (a.fault(t).Code != string(fault.OutcomeUnknown) || calls.Load() != 1) {
				t.Errorf("%d %s after %d calls", a.status, a.body, calls.Load())
			}
			for range calls.Load() {
				if k := <-keys; c.key != "" && k != id {
					t.Errorf("the backend was given the key %q", k)
				}
			}
		})
	}
	u.sound(t)
}

// TestDigestOnlyAnswers are gone once they were given, at both nodes.
func TestDigestOnlyAnswers(t *testing.T) {
	t.Parallel()
	onEngines(t, digestOnlyAnswers)
}

func digestOnlyAnswers(t *testing.T, on engine) {
	u := newUnionOn(t, on, []union.State{"BH", "SA"})
	size := 0
	u.backend("BH", "fleeting", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, size)) })
	for _, size = range []int{0, 10, 200 << 10} {
		id := fmt.Sprintf("X-Road-Id: f-%d", size)
		for i := range 2 {
			a := u.call("SA", "POST", offered("BH", "fleeting"), "/", bytes.NewReader(make([]byte, size)), id)
			if i == 0 || size == 0 {
				if a.status != 200 || len(a.body) != size {
					t.Errorf("%d bytes: %d, %d bytes", size, a.status, len(a.body))
				}
			} else if a.fault(t).Code != string(fault.AnswerGone) {
				t.Errorf("%d bytes again: %d %.200s", size, a.status, a.body)
			}
		}
		k := &attack{r: u.request("SA", offered("BH", "fleeting")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
		envelope := k.message(t).Envelope
		for i := range 2 {
			a, b, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil))
			if gone := i == 1 && size > 0; err != nil || gone && a.Fault != string(fault.AnswerGone) || !gone && (a.Fault != "" || len(b) != size) {
				t.Errorf("%d bytes, time %d at the provider: %+v %v", size, i+1, a, err)
			}
		}
	}
	u.sound(t)
	for s, n := range u.nodes {
		if there, _ := n.spooled(t); len(there) != 0 {
			t.Errorf("%s kept %v", s, there)
		}
	}
}

// TestAfterARestart starts a second run over the store of one that vanished in
// the middle of two calls.
func TestAfterARestart(t *testing.T) {
	t.Parallel()
	onEngines(t, afterARestart)
}

func afterARestart(t *testing.T, on engine) {
	u := newUnionOn(t, on, []union.State{"BH", "SA"})
	bh := u.nodes["BH"]
	busy, release := make(chan bool, 2), make(chan bool)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { busy <- true; <-release })
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	envelope := k.message(t).Envelope
	done := make(chan error, 2)
	go func() { _, _, err := u.deliver("SA", "BH", link.NewMessage(envelope, nil)); done <- err }()
	<-busy

	peer := link.Peer{State: "SA", Node: "n1", Cert: sha256.Sum256(u.nodes["SA"].tls.Raw)}
	ask := func(x *Exchange) fault.Code {
		t.Helper()
		m, err := served(t.Context(), x, peer, link.NewMessage(envelope, nil))
		check(t, err)
		head, _, err := message.Open(m.Envelope)
		check(t, err)
		a, err := message.ParseAnswer(head)
		check(t, err)
		return fault.Code(a.Fault)
	}
	run := func(alone bool) *Exchange {
		t.Helper()
		cfg := bh.Exchange.cfg
		cfg.Alone = alone
		x, err := New(cfg, bh.Exchange.deps, bh.Local())
		check(t, err)
		check(t, x.Start(t.Context()))
		return x
	}
	// Beside the first, a second process knows that the first still lives.
	if code := ask(run(false)); code != fault.InFlight {
		t.Errorf("a process beside it says %q", code)
	}
	if list, err := bh.Outcomes(t.Context(), 9); err != nil || len(list) != 0 {
		t.Errorf("listed while it is at work: %v %v", list, err)
	}
	// One that is alone knows that nobody is at it any more.
	next := run(true)
	if list, err := next.Outcomes(t.Context(), 9); err != nil || len(list) != 1 || list[0].ID != k.r.ID {
		t.Errorf("after a restart: %v %v", list, err)
	}
	if code := ask(next); code != fault.OutcomeUnknown {
		t.Errorf("after a restart the id is %q", code)
	}
	// The first was not dead after all: what it did is what counts.
	close(release)
	check(t, <-done)
	if code := ask(next); code != "" {
		t.Errorf("after the answer the id is %q", code)
	}
	if list, err := next.Outcomes(t.Context(), 9); err != nil || len(list) != 0 {
		t.Errorf("still listed: %v %v", list, err)
	}
	u.sound(t)
}

// TestTwoProcesses lets two processes of one state's node, on one PostgreSQL
// and one spool, take the same sealed request at the same time: one of them
// invokes the service, and either gives the recorded answer, also one that is
// too large for the journal. The log that both write is whole.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	u, dsn := newShared(t, "SA", "BH")
	bh := u.nodes["BH"]
	var calls atomic.Int32
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		n := calls.Add(1)
		if r.Method == "PUT" {
			_, _ = w.Write(bytes.Repeat([]byte{byte(n)}, 200<<10))
			return
		}
		fmt.Fprint(w, n)
	})
	second := bh.beside(t, dsn, bh.spool)
	check(t, second.Start(t.Context()))

	peer := link.Peer{State: "SA", Node: "n1", Cert: sha256.Sum256(u.nodes["SA"].tls.Raw)}
	for round := range 8 {
		r, size := u.request("SA", offered("BH", "things")), int64(len("1"))
		if round%2 == 1 {
			r.Method, size = "PUT", 200<<10
		}
		k := &attack{r: r, by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
		envelope := k.message(t).Envelope
		ask := func(x *Exchange, again bool) (answered bool) {
			m, err := served(t.Context(), x, peer, link.NewMessage(envelope, nil))
			if err != nil {
				t.Error(err)
				return false
			}
			if m.Body != nil {
				defer m.Body.Close()
			}
			head, _, err := message.Open(m.Envelope)
			check(t, err)
			a, err := message.ParseAnswer(head)
			check(t, err)
			if a.Fault != "" {
				if again || a.Fault != string(fault.InFlight) {
					t.Errorf("%s", a.Fault)
				}
				return false
			}
			b, err := io.ReadAll(m.Body)
			if err != nil || int64(len(b)) != size || sha256.Sum256(b) != a.Body.SHA256 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			return true
		}
		var wg sync.WaitGroup
		var answered atomic.Int32
		for _, x := range []*Exchange{bh.Exchange, second, bh.Exchange, second} {
			wg.Go(func() {
				if ask(x, false) {
					answered.Add(1)
				}
			})
		}
		wg.Wait()
		if answered.Load() == 0 {
			t.Error("nobody got an answer")
		}
		ask(bh.Exchange, true)
		ask(second, true)
		if n := calls.Load(); int(n) != round+1 {
			t.Errorf("the service was called %d times for %d requests", n, round+1)
		}
	}
	u.sound(t)
}

// TestTheJournalFailsBeforeTheAnswer: the service has acted, and its answer
// can no longer be recorded. Nothing is sent; the outcome is listed as soon as
// the store can be written again, without anybody asking.
func TestTheJournalFailsBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	for method, listed := range map[string]int{"POST": 1, "GET": 0} {
		t.Run(method, func(t *testing.T) {
			u := newUnion(t, []union.State{"BH", "SA"})
			bh := u.nodes["BH"]
			u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
				check(t, bh.journal.Close(t.Context()))
				_, _ = w.Write(bytes.Repeat([]byte("secret"), 40_000))
			})
			a := u.call("SA", method, offered("BH", "things"), "/", nil, "X-Road-Id: lost")
			if e := a.fault(t); e.Code != string(fault.Draining) || a.status != 503 || bytes.Contains(a.body, []byte("secret")) {
				t.Errorf("%d %.200s", a.status, a.body)
			}
			if got := u.nodes["SA"].held(t, "lost"); got != "request sent, unanswered" {
				t.Errorf("the caller's node holds %s", got)
			}
			check(t, bh.beat(t.Context(), true)) // as it does every other second
			if list, err := bh.Outcomes(t.Context(), 9); err != nil || len(list) != listed {
				t.Errorf("%v %v", list, err)
			}
			u.sound(t)
		})
	}
}

// TestBodiesEndWithTheirRecords: a large body lies under the retention of its
// service, so that destroying that key takes it too, at both nodes.
func TestBodiesEndWithTheirRecords(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	u.publish("BH", func(e *directory.Edition) { e.Members[0].Subsystems[0].Services[0].Retention = "short" })
	big := bytes.Repeat([]byte("x"), 200<<10)
	if a := u.call("SA", "POST", offered("BH", "things"), "/", bytes.NewReader(big), "X-Road-Id: big"); !bytes.Equal(a.body, big) {
		t.Fatalf("%d %.200s", a.status, a.body)
	}
	for s, n := range u.nodes {
		there, _ := n.spooled(t)
		if len(there) != 2 {
			t.Errorf("%s keeps the bodies %v", s, there)
		}
		check(t, n.keys.Records().Destroy("short", seal.PeriodOf(time.Now())))
		for _, id := range there {
			if r, err := n.Exchange.deps.Spool.Open(id); err == nil {
				_ = r.Close()
				t.Errorf("%s can still read %s", s, id)
			}
		}
		check(t, n.Bury(t.Context()))
		if there, named := n.spooled(t); len(there) != 0 || len(named) != 0 {
			t.Errorf("%s still has the bodies %v, and names %v", s, there, named)
		}
		for i := range n.size(t) {
			if r, err := n.journal.Get(t.Context(), i); err != nil || !r.Erased {
				t.Errorf("%s can still read record %d: %v", s, i, err)
			}
		}
	}
}
