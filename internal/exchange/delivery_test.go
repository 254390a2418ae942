package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

const respond = "Prefer: respond-async"

// quick makes a union whose outbox loses no time.
func quick(cfg *Config, _ *Deps) { cfg.Retry, cfg.RetryCap = 10*time.Millisecond, 40*time.Millisecond }

// clock is a node's clock that a test moves.
type clock struct{ ahead atomic.Int64 }

func (k *clock) now() time.Time          { return time.Now().Add(time.Duration(k.ahead.Load())) }
func (k *clock) advance(d time.Duration) { k.ahead.Add(int64(d)) }
func (k *clock) of(s union.State) kitOption {
	return func(cfg *Config, deps *Deps) {
		if cfg.State == s {
			deps.Now = k.now
		}
	}
}

// cut is a link that can be cut, and says what went over it.
type cut struct {
	Caller
	mu   sync.Mutex
	err  func() error // what a call ends with; nil: it goes through
	sent [][]byte
}

func (u *testUnion) cut(s union.State) *cut {
	c := &cut{Caller: u.nodes[s].link}
	u.nodes[s].SetLink(c)
	return c
}

func (c *cut) fail(err func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *cut) Exchange(ctx context.Context, to link.Target, m *link.Message) (*link.Message, error) {
	c.mu.Lock()
	c.sent = append(c.sent, m.Envelope)
	fail := c.err
	c.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return nil, err
		}
	}
	return c.Caller.Exchange(ctx, to, m)
}

func (c *cut) tries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent)
}

func unreachable() error { return fault.Wrap(fault.PeerUnreachable, link.ErrNotSent, "cut") }

// at asks a state's node for an address of its door, as its desk.
func (u *testUnion) at(s union.State, path string) answer {
	u.t.Helper()
	req, err := http.NewRequest("GET", u.nodes[s].edge.URL+path, nil)
	check(u.t, err)
	req.Header.Set("X-Road-Client", desk(s).String())
	return do(u.t, req)
}

func (u *testUnion) status(s union.State, id string) Delivery {
	u.t.Helper()
	a := u.at(s, "/async/"+url.PathEscape(id))
	var d Delivery
	if err := json.Unmarshal(a.body, &d); err != nil || a.status != 200 {
		u.t.Fatalf("status of %q: %d %s", id, a.status, a.body)
	}
	if (d.Code == "") != (d.Message == "") || (d.Code == "") != (d.MessageAr == "") {
		u.t.Errorf("code %q with the texts %q and %q", d.Code, d.Message, d.MessageAr)
	}
	return d
}

// becomes waits until a delivery has a status.
func (u *testUnion) becomes(s union.State, id string, want Status) Delivery {
	u.t.Helper()
	var d Delivery
	u.soon(fmt.Sprintf("%s is %s", id, want), func() bool { d = u.status(s, id); return d.Status == want })
	return d
}

func (u *testUnion) soon(what string, cond func() bool) {
	u.t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			for s, n := range u.nodes {
				list, err := n.Deliveries(u.t.Context(), DeliveryFilter{}, 20)
				u.t.Logf("%s: %+v, %v", s, list, err)
			}
			u.t.Fatal("never happened: " + what)
		}
	}
}

// onEngines runs a test on both engines.
func onEngines(t *testing.T, test func(t *testing.T, on engine)) {
	t.Run("sqlite", func(t *testing.T) { test(t, onSQLite) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.Postgres) })
}

func TestAcceptedThenAnswered(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, quick)
	var calls atomic.Int32
	prefer := make(chan []string, 9)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		prefer <- r.Header["Prefer"]
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Backend", "yes")
		w.WriteHeader(201)
		fmt.Fprintf(w, "%s took %s", r.RequestURI, b)
	})
	const id = "a/b?100%/answer" // an id that no path holds as it is
	send := func(headers ...string) answer {
		return u.call("SA", "POST", offered("BH", "things"), "/x?y=1", strings.NewReader("سيارة"), append(headers, "X-Road-Id: "+id)...)
	}
	const preferred = "Prefer: return=minimal; respond-async=\"\", wait=5,, respond-ASYNC , foo=\"a, respond-async\""
	a := send(preferred)
	var told Delivery
	check(t, json.Unmarshal(a.body, &told))
	if a.status != 202 || told.ID != id || told.Status != StatusWaiting || a.header.Get("Preference-Applied") != "respond-async" ||
		a.header.Get("Location") != "/async/"+url.PathEscape(id) || a.header.Get("X-Road-Id") != id || a.header.Get("X-Road-Request-Id") == "" ||
		a.header["X-Road-Request-Hash"] != nil || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	if left := told.Expires.Sub(told.Accepted); left < 7*24*time.Hour-time.Minute || left > 7*24*time.Hour {
		t.Errorf("it is tried for %s", left)
	}
	d := u.becomes("SA", id, StatusAnswered)
	if d.Attempts != 1 || d.Code != "" || d.Ended.IsZero() || d.Answer != a.header.Get("Location")+"/answer" || !d.Next.IsZero() {
		t.Errorf("%+v", d)
	}
	if got, want := <-prefer, []string{`return=minimal; respond-async="", foo="a, respond-async"`}; !slices.Equal(got, want) {
		t.Errorf("the service was asked with Prefer %q", got)
	}
	// The answer, now and as often as wanted, is what a waiting call would
	// have got; also for a client that sends the id again.
	for name, got := range map[string]answer{"fetched": u.at("SA", d.Answer), "once more": u.at("SA", d.Answer), "repeated": send(preferred)} {
		if got.status != 201 || string(got.body) != "/x?y=1 took سيارة" || got.header.Get("X-Backend") != "yes" || got.header.Get("X-Road-Id") != id ||
			got.header.Get("X-Road-Request-Hash") == "" || got.header.Get("X-Road-Request-Id") != a.header.Get("X-Road-Request-Id") || got.header.Get("X-Road-Error") != "" {
			t.Errorf("%s: %d %v %s", name, got.status, got.header, got.body)
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the service was called %d times", n)
	}
	for s, want := range map[union.State]string{"SA": "request sent, answer received", "BH": "request received, answer sent"} {
		if got := u.nodes[s].held(t, id); got != want {
			t.Errorf("%s holds %v", s, got)
		}
	}
	// Others know nothing of it.
	req, _ := http.NewRequest("GET", u.nodes["SA"].edge.URL+"/async/"+url.PathEscape(id), nil)
	check(t, u.nodes["SA"].Local().PutClient(t.Context(), Client{ID: union.SubsystemID{MemberID: desk("SA").MemberID, Subsystem: "other"}}))
	req.Header.Set("X-Road-Client", "SA/GOV/office/other")
	if got := do(t, req); got.status != 404 {
		t.Errorf("another client is told %d %s", got.status, got.body)
	}
	req.Header.Del("X-Road-Client")
	if got := do(t, req); got.status != 400 {
		t.Errorf("nobody is told %d %s", got.status, got.body)
	}
}

func TestAServiceThatAnswersLater(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, quick)
	u.backend("BH", "later", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	a := u.call("SA", "DELETE", offered("BH", "later"), "/x", nil)
	if a.status != 202 || a.header["Preference-Applied"] != nil {
		t.Fatalf("%d %v", a.status, a.header)
	}
	d := u.becomes("SA", a.header.Get("X-Road-Id"), StatusAnswered)
	if got := u.at("SA", d.Answer); got.status != 204 || len(got.body) != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestRefusedBeforeItIsAccepted(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, quick)
	if a := u.call("SA", "GET", offered("BH", "nothing"), "", nil, respond, "X-Road-Id: 1"); a.status != 500 || a.fault(t).Code != "directory.service.unknown" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := u.at("SA", "/async/1"); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A sealed request goes out again and again, the same to the last byte, until
// it is answered.
func TestUnreachablePeer(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, quick)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "done") })
	c := u.cut("SA")
	c.fail(unreachable)
	a := u.call("SA", "POST", offered("BH", "things"), "", strings.NewReader("x"), respond, "X-Road-Id: 1")
	u.soon("five tries", func() bool { return c.tries() >= 5 })
	d := u.status("SA", "1")
	if d.Attempts < 4 || d.Status != StatusWaiting && d.Status != StatusSending || d.Code != fault.PeerUnreachable {
		t.Errorf("%+v", d)
	}
	pending := u.at("SA", "/async/1/answer")
	if pending.status != 409 || !strings.Contains(string(pending.body), `"delivery.pending"`) || pending.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", pending.status, pending.header, pending.body)
	}
	// Sent again, with or without the preference, it is the same call; with
	// another content it is not.
	for _, h := range []string{respond, "X-Nothing: "} {
		if again := u.call("SA", "POST", offered("BH", "things"), "", strings.NewReader("x"), h, "X-Road-Id: 1"); again.status != 202 ||
			again.header.Get("X-Road-Request-Id") != a.header.Get("X-Road-Request-Id") {
			t.Errorf("%d %v %s", again.status, again.header, again.body)
		}
	}
	if other := u.call("SA", "POST", offered("BH", "things"), "", strings.NewReader("y"), respond, "X-Road-Id: 1"); other.fault(t).Code != "request.id.conflict" {
		t.Errorf("%d %s", other.status, other.body)
	}
	c.fail(nil)
	u.becomes("SA", "1", StatusAnswered)
	for _, e := range c.sent[1:] {
		if !bytes.Equal(e, c.sent[0]) {
			t.Fatal("another request was sent")
		}
	}
}

// What the link loses after the service has acted is answered from the
// provider's record.
func TestLostAnswer(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, quick)
	var calls atomic.Int32
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "call %d", calls.Add(1))
	})
	lost := &losing{cut: u.cut("SA"), times: 3}
	u.nodes["SA"].SetLink(lost)
	a := u.call("SA", "POST", offered("BH", "things"), "", nil, respond)
	d := u.becomes("SA", a.header.Get("X-Road-Id"), StatusAnswered)
	if got := u.at("SA", d.Answer); string(got.body) != "call 1" || calls.Load() != 1 || d.Attempts != 4 {
		t.Errorf("%s after %d calls and %d attempts", got.body, calls.Load(), d.Attempts)
	}
	u.sound(t)
}

// losing is a link that breaks before the first answers arrive.
type losing struct {
	*cut
	times int
}

func (l *losing) Exchange(ctx context.Context, to link.Target, m *link.Message) (*link.Message, error) {
	reply, err := l.cut.Exchange(ctx, to, m)
	if l.times--; l.times >= 0 && err == nil {
		return nil, fault.Wrap(fault.PeerUnreachable, link.ErrBroken, "lost")
	}
	return reply, err
}

func TestRefusedByTheProvider(t *testing.T) {
	forbid := policy.Source{Name: "local", State: "BH", Text: `@id("shut") @en("closed for the day") @ar("مغلق اليوم") forbid (principal, action, resource);`}
	u := newUnion(t, []union.State{"BH", "SA"}, quick, func(cfg *Config, deps *Deps) {
		if cfg.State == "BH" {
			deps.Rules = func() []policy.Source { return []policy.Source{forbid} }
		}
	})
	a := u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: 1")
	d := u.becomes("SA", "1", StatusRefused)
	if d.Code != fault.PolicyDenied || d.Attempts != 1 || d.Answer == "" {
		t.Errorf("%+v", d)
	}
	got := u.at("SA", d.Answer)
	if got.status != 500 || got.fault(t).Code != "policy.denied" || got.header.Get("X-Road-Error") != "Server.ServerProxy.AccessDenied" ||
		got.header.Get("X-Road-Request-Id") != a.header.Get("X-Road-Request-Id") {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	if kinds := u.nodes["SA"].held(t, "1"); kinds != "request sent, answer received" {
		t.Errorf("%v", kinds)
	}
	// The id is free again, also for something else.
	if a := u.call("SA", "POST", offered("BH", "things"), "/else", nil, respond, "X-Road-Id: 1"); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	u.becomes("SA", "1", StatusRefused)
}

// What was allowed when it was accepted may be forbidden when it is sent.
func TestForbiddenMeanwhile(t *testing.T) {
	var shut atomic.Bool
	u := newUnion(t, []union.State{"BH", "SA"}, quick, func(cfg *Config, deps *Deps) {
		if cfg.State == "SA" {
			deps.Rules = func() []policy.Source {
				if !shut.Load() {
					return nil
				}
				return []policy.Source{{Name: "local", State: "SA", Text: `@id("shut") @en("closed for the day") @ar("مغلق اليوم") forbid (principal, action, resource);`}}
			}
		}
	})
	c := u.cut("SA")
	c.fail(unreachable)
	u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: 1")
	u.soon("a try", func() bool { return c.tries() > 0 })
	shut.Store(true)
	u.nodes["SA"].Reload()
	d := u.becomes("SA", "1", StatusRefused)
	tries := c.tries()
	if got := u.at("SA", d.Answer); got.fault(t).Code != "policy.denied" || d.Code != fault.PolicyDenied {
		t.Errorf("%+v: %s", d, got.body)
	}
	if kinds := u.nodes["SA"].held(t, "1"); kinds != "request sent, unanswered" {
		t.Errorf("%v", kinds)
	}
	if c.tries() != tries {
		t.Error("it went on trying")
	}
	// The client may ask again, the same under the same id; forbidden is forbidden.
	if a := u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: 1"); a.fault(t).Code != "policy.denied" {
		t.Errorf("%d %s", a.status, a.body)
	}
	shut.Store(false)
	u.nodes["SA"].Reload()
	c.fail(nil)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {})
	if a := u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: 1"); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	d = u.becomes("SA", "1", StatusAnswered)
	if a := u.at("SA", d.Answer); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Nor is an answer given any more to whom it is forbidden by then.
	shut.Store(true)
	u.nodes["SA"].Reload()
	if a := u.at("SA", d.Answer); a.status != 500 || !strings.Contains(string(a.body), `"policy.denied"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	shut.Store(false)
	u.nodes["SA"].Reload()
	u.withdraw("BH", "SA-things")
	if a := u.at("SA", d.Answer); !strings.Contains(string(a.body), `"policy.denied"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A seal that was revoked while its message waited is not sent. What is
// recorded of that is sealed by the node's operator: nobody would believe the
// member any more.
func TestRevokedMeanwhile(t *testing.T) {
	keeper := union.MemberID{State: "SA", Class: "GOV", Code: "keeper"}
	u := newUnion(t, []union.State{"BH", "SA"}, quick, func(cfg *Config, _ *Deps) {
		if cfg.State == "SA" {
			cfg.Operator = keeper
		}
	})
	sa := u.nodes["SA"]
	sa.seals[keeper] = u.enlist("SA", "keeper", *sa.issuer)
	c := u.cut("SA")
	c.fail(unreachable)
	u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: 1")
	u.soon("a try", func() bool { return c.tries() > 0 })
	check(t, sa.dir.Revoke(t.Context(), directory.Cert{Certificate: sa.seals[desk("SA").MemberID].Cert}.SHA256(), "keyCompromise"))
	d := u.becomes("SA", "1", StatusRefused)
	c.fail(nil)
	if d.Code != fault.CertRevoked {
		t.Errorf("%+v", d)
	}
	last := sa.last(t, "1")
	_, raw, err := message.Open(last.Envelope)
	check(t, err)
	s, err := seal.ParseSeal(raw)
	check(t, err)
	if want := (directory.Cert{Certificate: sa.seals[keeper].Cert}).SHA256(); s.Cert != want || last.Kind != journal.Unanswered {
		t.Errorf("%s, not sealed by the operator", last.Kind)
	}
	if got := u.nodes["BH"].held(t, "1"); got != "" {
		t.Errorf("the provider holds %s", got)
	}
}

// A failing backend that surely did nothing is asked again; one that may have
// acted is not, unless that does no harm.
func TestFailingBackend(t *testing.T) {
	onEngines(t, func(t *testing.T, on engine) {
		u := newUnionOn(t, on, []union.State{"BH", "SA"}, quick)
		var calls, idem atomic.Int32
		breakOff := func(n *atomic.Int32) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) < 3 {
					panic(http.ErrAbortHandler)
				}
				_, _ = io.WriteString(w, "at last")
			}
		}
		u.backend("BH", "things", breakOff(&calls))
		u.backend("BH", "idem", breakOff(&idem))
		u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: unclear")
		u.call("SA", "POST", offered("BH", "idem"), "", nil, respond, "X-Road-Id: clear")
		u.call("SA", "POST", offered("BH", "brief"), "", nil, respond, "X-Road-Id: absent") // no backend yet
		if d := u.becomes("SA", "clear", StatusAnswered); d.Attempts != 3 || idem.Load() != 3 {
			t.Errorf("%+v after %d calls", d, idem.Load())
		}
		if d := u.becomes("SA", "unclear", StatusRefused); d.Code != fault.OutcomeUnknown || d.Attempts != 2 || calls.Load() != 1 {
			t.Errorf("%+v after %d calls", d, calls.Load())
		}
		u.soon("three tries", func() bool { return u.status("SA", "absent").Attempts >= 3 })
		u.backend("BH", "brief", func(w http.ResponseWriter, r *http.Request) {})
		u.becomes("SA", "absent", StatusAnswered)

		// The provider's people decide.
		bh := u.nodes["BH"]
		list, err := bh.Outcomes(t.Context(), 10)
		check(t, err)
		if len(list) != 1 || list[0].ID != "unclear" || list[0].Client != desk("SA").String() {
			t.Fatalf("%+v", list)
		}
		if err := bh.ResolveOutcome(t.Context(), desk("SA"), "unclear", false, "", "looked it up"); fault.CodeOf(err) != fault.BadRequest {
			t.Errorf("nobody decided: %v", err)
		}
		check(t, bh.ResolveOutcome(t.Context(), desk("SA"), "unclear", false, "ali", "the register shows nothing"))
		if err := bh.ResolveOutcome(t.Context(), desk("SA"), "unclear", true, "ali", "again"); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("decided twice: %v", err)
		}
		if kinds := bh.held(t, "unclear"); !strings.Contains(kinds, "decision") {
			t.Errorf("%v", kinds)
		}
		calls.Store(5)
		u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: unclear")
		if d := u.becomes("SA", "unclear", StatusAnswered); calls.Load() != 6 {
			t.Errorf("%+v after %d calls", d, calls.Load())
		}
		// And the other way round.
		calls.Store(0)
		u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: unclear-too")
		u.becomes("SA", "unclear-too", StatusRefused)
		check(t, bh.ResolveOutcome(t.Context(), desk("SA"), "unclear-too", true, "ali", "it is in the register"))
		u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: unclear-too")
		if d := u.becomes("SA", "unclear-too", StatusRefused); d.Code != fault.OutcomeDone || calls.Load() != 1 {
			t.Errorf("%+v after %d calls", d, calls.Load())
		}
		u.sound(t)
	})
}

func TestExpiry(t *testing.T) {
	onEngines(t, func(t *testing.T, on engine) {
		var k clock
		u := newUnionOn(t, on, []union.State{"BH", "SA"}, quick, k.of("SA"))
		c := u.cut("SA")
		c.fail(unreachable)
		for i := range 3 {
			u.call("SA", "POST", offered("BH", "things"), "", nil, respond, fmt.Sprintf("X-Road-Id: %d", i), "Falaj-Conversation: c")
		}
		u.soon("a try", func() bool { return c.tries() > 0 })
		k.advance(7*24*time.Hour - time.Minute)
		tries := c.tries()
		u.soon("another try", func() bool { return c.tries() > tries })
		k.advance(2 * time.Minute)
		for i := range 3 {
			d := u.becomes("SA", fmt.Sprint(i), StatusExpired)
			if d.Code != fault.DeliveryExpired || i > 0 && d.Attempts != 0 {
				t.Errorf("%+v", d)
			}
			if got := u.at("SA", d.Answer); got.fault(t).Code != "delivery.expired" {
				t.Errorf("%d %s", got.status, got.body)
			}
			if kinds := u.nodes["SA"].held(t, fmt.Sprint(i)); kinds != "request sent, unanswered" {
				t.Errorf("%v", kinds)
			}
		}
	})
}

// Within a conversation one goes after the other, whatever holds one up, until
// somebody decides; beside it everything goes on.
func TestConversation(t *testing.T) {
	onEngines(t, func(t *testing.T, on engine) {
		u := newUnionOn(t, on, []union.State{"BH", "SA"}, quick)
		var mu sync.Mutex
		var order []string
		var at atomic.Int32
		u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
			if at.Add(1) > 1 && r.Header.Get("Falaj-Conversation") != "" {
				t.Error("two at a time")
			}
			defer at.Add(-1)
			time.Sleep(time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			order = append(order, r.Header.Get("X-Road-Id"))
		})
		ask := func(service, id, conversation string) {
			if a := u.call("SA", "POST", offered("BH", service), "", nil, respond, "X-Road-Id: "+id, "Falaj-Conversation: "+conversation); a.status != 202 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprintf("m%02d", i))
			ask("things", want[i], "one")
		}
		u.becomes("SA", want[19], StatusAnswered)
		if !slices.Equal(order, want) {
			t.Errorf("they came as %v", order)
		}

		// "brief" has no backend: the head keeps failing.
		ask("brief", "head", "two")
		ask("brief", "next", "two")
		ask("brief", "last", "two")
		ask("things", "beside", "two") // another service: another conversation
		u.becomes("SA", "beside", StatusAnswered)
		d := u.becomes("SA", "next", StatusBlocked)
		if d.Behind != "head" || d.Code != fault.ServiceDisabled || d.Attempts != 0 {
			t.Errorf("%+v", d)
		}
		sa := u.nodes["SA"]
		list, err := sa.Deliveries(t.Context(), DeliveryFilter{Client: desk("SA"), Status: StatusBlocked}, 10)
		check(t, err)
		if len(list) != 2 || list[0].ID != "next" || list[1].ID != "last" {
			t.Errorf("blocked: %+v", list)
		}
		for f, want := range map[DeliveryFilter]string{
			{}:                       "m00 m01 m02",
			{Conversation: "two"}:    "head next last",
			{Status: StatusAnswered}: "m00 m01 m02",
			{Status: StatusAnswered, Conversation: "two"}: "beside",
			{Status: StatusSkipped}:                       "",
			{Client: desk("BH")}:                          "",
		} {
			list, err := sa.Deliveries(t.Context(), f, 3)
			check(t, err)
			var ids []string
			for _, d := range list {
				ids = append(ids, d.ID)
			}
			if got := strings.Join(ids, " "); got != want {
				t.Errorf("%+v: %s", f, got)
			}
		}
		for id, want := range map[string]fault.Code{"nothing": fault.NotFound, "m00": fault.Conflict} {
			if err := sa.SkipDelivery(t.Context(), desk("SA"), id, "ali", "waits too long"); fault.CodeOf(err) != want {
				t.Errorf("skipping %s: %v", id, err)
			}
		}
		if err := sa.SkipDelivery(t.Context(), desk("SA"), "head", "ali", " "); fault.CodeOf(err) != fault.BadRequest {
			t.Errorf("for no reason: %v", err)
		}
		check(t, sa.SkipDelivery(t.Context(), desk("SA"), "next", "ali", "out of order"))
		if d := u.status("SA", "last"); d.Status != StatusBlocked || d.Behind != "head" {
			t.Errorf("%+v", d)
		}
		check(t, sa.SkipDelivery(t.Context(), desk("SA"), "head", "ali", "waits too long"))
		d = u.becomes("SA", "head", StatusSkipped)
		if got := u.at("SA", d.Answer); got.fault(t).Code != "delivery.skipped" || d.Code != fault.DeliverySkipped {
			t.Errorf("%+v: %d %s", d, got.status, got.body)
		}
		if kinds := sa.held(t, "head"); !strings.Contains(kinds, "decision") {
			t.Errorf("%v", kinds)
		}
		u.soon("the last one's turn", func() bool { return u.status("SA", "last").Attempts > 0 })
		u.backend("BH", "brief", func(w http.ResponseWriter, r *http.Request) {})
		u.becomes("SA", "last", StatusAnswered)
		u.sound(t)
	})
}

// An answer that was under way when the delivery was given up is the answer.
func TestAnswerAfterSkip(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, quick)
	arrived, leave := make(chan struct{}), make(chan struct{})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-leave
		_, _ = io.WriteString(w, "late")
	})
	u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: 1")
	<-arrived
	if d := u.status("SA", "1"); d.Status != StatusSending {
		t.Errorf("%+v", d)
	}
	check(t, u.nodes["SA"].SkipDelivery(t.Context(), desk("SA"), "1", "ali", "in the way"))
	u.becomes("SA", "1", StatusSkipped)
	close(leave)
	d := u.becomes("SA", "1", StatusAnswered)
	if got := u.at("SA", d.Answer); string(got.body) != "late" {
		t.Errorf("%s", got.body)
	}
}

// Bodies of a service that keeps digests alone wait encrypted in the spool,
// and are gone after that.
func TestDigestOnlyDelivery(t *testing.T) {
	onEngines(t, func(t *testing.T, on engine) {
		var k clock
		u := newUnionOn(t, on, []union.State{"BH", "SA"}, quick, k.of("SA"))
		u.backend("BH", "fleeting", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		c := u.cut("SA")
		c.fail(unreachable)
		held := func() (n int) {
			check(t, u.nodes["SA"].db.QueryRow(t.Context(), `SELECT COUNT(*) FROM exchange_spool`).Scan(&n))
			return n
		}
		bodies := map[string][]byte{"none": nil, "small": []byte("a secret"), "large": make([]byte, 300<<10)}
		_, _ = rand.Read(bodies["large"])
		for id, b := range bodies {
			if a := u.call("SA", "POST", offered("BH", "fleeting"), "", bytes.NewReader(b), respond, "X-Road-Id: "+id); a.status != 202 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		if held() != 2 {
			t.Errorf("%d bodies are held", held())
		}
		c.fail(nil)
		for id, b := range bodies {
			d := u.becomes("SA", id, StatusAnswered)
			for range 2 {
				if got := u.at("SA", d.Answer); got.status != 200 || !bytes.Equal(got.body, b) {
					t.Errorf("%s: %d, %d bytes", id, got.status, len(got.body))
				}
			}
		}
		k.advance(8 * 24 * time.Hour)
		u.soon("the bodies are gone", func() bool { return held() == 0 })
		if got := u.at("SA", "/async/small/answer"); !strings.Contains(string(got.body), "answer-gone") {
			t.Errorf("%d %s", got.status, got.body)
		}
		if d := u.status("SA", "small"); d.Status != StatusAnswered {
			t.Errorf("%+v", d)
		}
		u.sound(t)
		if there, _ := u.nodes["SA"].spooled(t); len(there) != 0 {
			t.Errorf("%d files are left", len(there))
		}
	})
}

func TestPush(t *testing.T) {
	onEngines(t, func(t *testing.T, on engine) {
		u := newUnionOn(t, on, []union.State{"BH", "SA"}, quick)
		u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/x-thing")
			w.Header().Set("Set-Cookie", "a=b")
			w.WriteHeader(203)
			_, _ = io.WriteString(w, "answer to "+r.Header.Get("X-Road-Id"))
		})
		type pushed struct {
			header http.Header
			body   string
		}
		got := make(chan pushed, 16)
		var down atomic.Int32
		down.Store(3)
		inbox := u.backend("SA", "things", func(w http.ResponseWriter, r *http.Request) {
			if down.Add(-1) >= 0 {
				w.WriteHeader(500)
				return
			}
			b, _ := io.ReadAll(r.Body)
			got <- pushed{r.Header, r.Method + " " + r.RequestURI + " " + string(b)}
		})
		sa := u.nodes["SA"]
		check(t, sa.Local().PutClient(t.Context(), Client{ID: desk("SA"), Push: inbox.URL + "/inbox"}))
		u.call("SA", "GET", offered("BH", "things"), "", nil, respond, "X-Road-Id: 1")
		p := <-got
		for name, want := range map[string]string{
			"X-Road-Id": "1", "Falaj-Status": "203", "Content-Type": "text/x-thing", "X-Road-Client": desk("SA").String(),
			"X-Road-Service": offered("BH", "things").String(), "X-Road-Error": "", "Set-Cookie": "", "User-Agent": "",
		} {
			if p.header.Get(name) != want {
				t.Errorf("%s: %q", name, p.header.Get(name))
			}
		}
		if p.body != "POST /inbox answer to 1" || p.header.Get("X-Road-Request-Hash") == "" {
			t.Errorf("%q %v", p.body, p.header)
		}
		u.soon("it is written", func() bool { d := u.status("SA", "1"); return !d.Pushed.IsZero() && d.Pushes == 3 })
		// Refusals are outcomes too.
		u.cut("SA").fail(func() error { return fault.Wrap(fault.PolicyDenied, link.ErrRefused, "no") })
		u.call("SA", "GET", offered("BH", "things"), "", nil, respond, "X-Road-Id: 2")
		if p := <-got; p.header.Get("X-Road-Error") != "Server.ServerProxy.AccessDenied" || p.header.Get("Falaj-Status") != "500" || !strings.Contains(p.body, "policy.denied") {
			t.Errorf("%v %s", p.header, p.body)
		}
		// An address that no backend may have is none for a client either.
		sa.cfg.Allow = nil
		sa.backends.transport(sa.Exchange, Backend{})
		check(t, sa.Local().PutClient(t.Context(), Client{ID: desk("SA"), Push: strings.Replace(inbox.URL, "127.0.0.1", "localhost", 1)}))
		u.call("SA", "GET", offered("BH", "things"), "", nil, respond, "X-Road-Id: 3")
		u.soon("three tries", func() bool { return u.status("SA", "3").Pushes >= 3 })
		if len(got) != 0 {
			t.Error("it was pushed to an address of the machine itself")
		}
		if waiting, err := sa.Unpushed(t.Context()); err != nil || len(waiting) != 1 || waiting[desk("SA").String()] != 1 {
			t.Errorf("to push: %v, %v", waiting, err)
		}
		// Who no longer wants to be told is not.
		check(t, sa.Local().PutClient(t.Context(), Client{ID: desk("SA")}))
		u.soon("the push is given up", func() bool {
			var n int
			check(t, sa.db.QueryRow(t.Context(), `SELECT COUNT(*) FROM exchange_delivery WHERE work <> 0`).Scan(&n))
			return n == 0
		})
	})
}
