package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// part is a part of the binary that speaks for its state's desk.
type part struct {
	state union.State
	serve func(context.Context, Call) (Answer, error) // nil: it says what it was sent
	hear  func(End) error                             // nil: it is content

	mu   sync.Mutex
	got  []Call
	ends []End
}

func (p *part) Owns(id union.SubsystemID) bool { return id == desk(p.state) }

func (p *part) Serve(ctx context.Context, c Call) (Answer, error) {
	p.mu.Lock()
	p.got = append(p.got, c)
	p.mu.Unlock()
	if p.serve != nil {
		return p.serve(ctx, c)
	}
	return Answer{Status: 200, ContentType: "text/plain", Body: append([]byte("heard "), c.Body...)}, nil
}

func (p *part) Ended(_ context.Context, e End) error {
	p.mu.Lock()
	p.ends = append(p.ends, e)
	p.mu.Unlock()
	if p.hear != nil {
		return p.hear(e)
	}
	return nil
}

func (p *part) ended() []End {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]End(nil), p.ends...)
}

func (p *part) calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Call(nil), p.got...)
}

// newInside starts a union whose desks are parts of their nodes.
func newInside(t testing.TB, states []union.State, options ...kitOption) (*testUnion, map[union.State]*part) {
	t.Helper()
	u, listeners := foundUnion(t, states)
	parts := map[union.State]*part{}
	for _, s := range states {
		parts[s] = &part{state: s}
		u.nodes[s].inside = parts[s]
		u.nodes[s].start(t, onSQLite, listeners[s], append([]kitOption{quick}, options...))
	}
	return u, parts
}

func letter(from union.State, service union.ServiceID, id, body string) Call {
	return Call{
		Client: desk(from), Service: service, Method: "POST", Path: "/case/7?n=1", Header: http.Header{"Content-Type": {"application/json"}},
		Body: []byte(body), ID: id, Purpose: "test", Conversation: "case 7", Subject: "1098765432",
	}
}

// TestPosted: what a part of one state's node posts, a part of the other's
// serves, and the first hears how it ended; no backend, no client, no address.
func TestPosted(t *testing.T) {
	t.Parallel()
	u, parts := newInside(t, []union.State{"BH", "SA"})
	sa, bh := u.nodes["SA"], parts["BH"]
	parts["SA"].hear = func(e End) error { // it must be told again
		if len(parts["SA"].ended()) < 3 {
			return errors.New("not now")
		}
		return nil
	}
	l := letter("SA", offered("BH", "things"), "m-1", `{"n":1}`)
	for range 3 {
		check(t, sa.Post(t.Context(), l))
	}
	u.soon("the sender hears of it, thrice", func() bool { return len(parts["SA"].ended()) == 3 })
	check(t, sa.Post(t.Context(), l)) // answered long ago
	got := bh.calls()
	if len(got) != 1 {
		t.Fatalf("served %d times", len(got))
	}
	c := got[0]
	if c.Client != l.Client || c.Service != l.Service || c.Method != l.Method || c.Path != l.Path || c.ID != l.ID || c.RequestID == "" ||
		c.Purpose != l.Purpose || c.Conversation != l.Conversation || c.Subject != "" || string(c.Body) != string(l.Body) || c.Header.Get("Content-Type") != "application/json" {
		t.Errorf("served %+v", c)
	}
	e := parts["SA"].ended()[2]
	if e.Client != l.Client || e.Service != l.Service || e.ID != l.ID || e.Conversation != l.Conversation || e.Status != StatusAnswered ||
		e.Answer.Status != 200 || e.Answer.ContentType != "text/plain" || string(e.Answer.Body) != `heard {"n":1}` || e.Answer.Fault != "" {
		t.Errorf("ended %+v", e)
	}
	if err := sa.Post(t.Context(), letter("SA", offered("BH", "things"), "m-1", `{"n":2}`)); fault.CodeOf(err) != fault.IDConflict {
		t.Errorf("another content under the id: %v", err)
	}
	ev, err := sa.Evidence(t.Context(), "m-1", Reader{Name: "test", May: func(c, s union.SubsystemID) bool { return true }}, Page{})
	check(t, err)
	if len(ev.Halves) != 2 || len(ev.Halves[0].Records) < 2 || len(ev.Halves[1].Records) < 2 {
		t.Errorf("evidence %+v", ev)
	}
	time.Sleep(100 * time.Millisecond)
	if n := len(parts["SA"].ended()); n != 3 {
		t.Errorf("told %d times", n)
	}
}

// TestPostedInVain: every end that is no answer is told, with its reason.
func TestPostedInVain(t *testing.T) {
	t.Parallel()
	u, parts := newInside(t, []union.State{"BH", "SA"}, func(cfg *Config, _ *Deps) { cfg.Answer = 2 * time.Second })
	sa := u.nodes["SA"]
	parts["BH"].serve = func(ctx context.Context, c Call) (Answer, error) {
		switch c.ID {
		case "refused":
			return Answer{}, fault.New(fault.NotAllowed, "not this case")
		case "broken":
			return Answer{}, errors.New("a secret")
		case "odd":
			return Answer{Status: 42}, nil
		case "panics":
			panic("a secret")
		case "large":
			return Answer{Status: 200, Body: make([]byte, MaxInside)}, nil
		case "slow":
			<-ctx.Done()
			return Answer{}, ctx.Err()
		}
		return Answer{Status: 422, Body: []byte("no")}, nil
	}
	parts["SA"].hear = func(e End) error {
		if e.ID == "large" && len(parts["SA"].ended()) < 30 {
			panic("a secret")
		}
		return nil
	}
	for _, id := range []string{"refused", "broken", "odd", "panics", "large", "answered"} {
		l := letter("SA", offered("BH", "things"), id, "x")
		l.Conversation = ""
		check(t, sa.Post(t.Context(), l))
	}
	closed := letter("SA", offered("BH", "closed"), "closed", "x")
	check(t, sa.Post(t.Context(), closed)) // without agreement
	slow := letter("SA", offered("BH", "brief"), "slow", "x")
	slow.Conversation = ""
	check(t, sa.Post(t.Context(), slow))
	expired := "expired " + string(fault.DeliveryExpired)
	want := map[string]string{
		"refused": "refused " + string(fault.NotAllowed), "closed": "refused " + string(fault.PolicyDenied), "broken": expired, "odd": expired, "panics": expired,
		"slow": expired, "large": "answered ", "answered": "answered ",
	}
	is := map[string]string{}
	u.soon("all have ended", func() bool {
		clear(is)
		for _, e := range parts["SA"].ended() {
			is[e.ID] = string(e.Status) + " " + string(e.Answer.Fault)
			if e.ID == "large" && len(e.Answer.Body) != MaxInside || e.ID == "answered" && e.Answer.Status != 422 {
				t.Errorf("%s: %d, %d bytes", e.ID, e.Answer.Status, len(e.Answer.Body))
			}
			if strings.Contains(string(e.Answer.Body), "secret") {
				t.Errorf("%s tells %s", e.ID, e.Answer.Body)
			}
		}
		return len(is) == len(want)
	})
	for id, w := range want {
		if is[id] != w {
			t.Errorf("%s ended %q, not %q", id, is[id], w)
		}
	}
	for name, l := range map[string]Call{
		"no id":      letter("SA", offered("BH", "things"), "", "x"),
		"a bad path": {Client: desk("SA"), Service: offered("BH", "things"), ID: "a", Method: "GET", Path: "x/y", Purpose: "test"},
		"dots":       {Client: desk("SA"), Service: offered("BH", "things"), ID: "a", Method: "GET", Path: "/../y", Purpose: "test"},
		"a large":    letter("SA", offered("BH", "things"), "a", strings.Repeat("x", MaxInside+1)),
		"a stranger": letter("BH", offered("SA", "things"), "a", "x"),
		"no method":  {Client: desk("SA"), Service: offered("BH", "things"), ID: "a", Purpose: "test"},
	} {
		if err := sa.Post(t.Context(), l); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestNobodyPoses: no caller at the doors is taken for a part of the node,
// though he be registered as one, and no other state's node is.
func TestNobodyPoses(t *testing.T) {
	t.Parallel()
	u, parts := newInside(t, []union.State{"BH", "SA"})
	sa := u.nodes["SA"]
	check(t, sa.Local().PutClient(t.Context(), Client{ID: desk("SA")}))
	sa.Mount("cases", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _, leave, err := sa.Admit(r)
		defer leave()
		if err != nil {
			sa.Problem(w, err)
			return
		}
		_, _ = io.WriteString(w, id.String()+" "+r.URL.Path)
	}))
	check(t, sa.Post(t.Context(), letter("SA", offered("BH", "things"), "m-1", "x")))
	u.soon("it is answered", func() bool { return len(parts["SA"].ended()) == 1 })
	pose := func(path, as string) answer {
		req, err := http.NewRequest("GET", sa.edge.URL+path, nil)
		check(t, err)
		req.Header.Set("X-Road-Client", as)
		req.Header.Set("Falaj-Purpose", "test")
		return do(t, req)
	}
	for _, path := range []string{"/r1/" + offered("BH", "things").String(), "/async/m-1", "/async/m-1/answer", "/evidence/m-1", "/evidence/m-1/container", "/evidence/m-1/receipt", "/cases/7"} {
		if a := pose(path, desk("SA").String()); a.status < 400 || !strings.Contains(string(a.body), "calls through no door") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := pose("/cases/7", "SA/GOV/office/other"); a.status < 400 {
		t.Errorf("a stranger at a mounted door: %d", a.status)
	}
	other := union.SubsystemID{MemberID: desk("SA").MemberID, Subsystem: "other"}
	check(t, sa.Local().PutClient(t.Context(), Client{ID: other}))
	if a := pose("/cases/7", other.String()); a.status != 200 || string(a.body) != other.String()+" /cases/7" {
		t.Errorf("a client at a mounted door: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/cases", "/case/7", "/", "/casesx/7"} {
		if a := pose(path, other.String()); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	if n := len(parts["BH"].calls()); n != 1 {
		t.Errorf("%d calls were served", n)
	}
	// A backend registered for the part's service is never asked.
	u.backend("BH", "things", func(http.ResponseWriter, *http.Request) { t.Error("the backend was asked") })
	a, err := sa.Fetch(t.Context(), letter("SA", offered("BH", "things"), "", "y"))
	if err != nil || string(a.Body) != "heard y" {
		t.Errorf("%+v %v", a, err)
	}
}

// TestFetched: a part asks services, also one of its own state, under the rules
// and with evidence.
func TestFetched(t *testing.T) {
	t.Parallel()
	u, parts := newInside(t, []union.State{"BH", "SA"})
	sa := u.nodes["SA"]
	parts["BH"].serve = func(_ context.Context, c Call) (Answer, error) {
		if c.Path == "/refuse" {
			return Answer{}, fault.New(fault.NotFound, "no such case")
		}
		return Answer{Status: 200, Body: bytes.Repeat([]byte("x"), len(c.Body))}, nil
	}
	a, err := sa.Fetch(t.Context(), letter("SA", offered("BH", "things"), "", strings.Repeat("y", MaxInside)))
	if err != nil || a.Status != 200 || len(a.Body) != MaxInside {
		t.Errorf("%d, %d bytes, %v", a.Status, len(a.Body), err)
	}
	l := letter("SA", offered("BH", "things"), "", "")
	l.Path = "/refuse"
	if a, err = sa.Fetch(t.Context(), l); err != nil || a.Fault != fault.NotFound || !strings.Contains(string(a.Body), "no such case") {
		t.Errorf("%+v %v", a, err)
	}

	// Its own state's register is a system like any other.
	register := union.ServiceID{SubsystemID: union.SubsystemID{MemberID: desk("SA").MemberID, Subsystem: "register"}, Service: "persons"}
	own := letter("SA", register, "", "who")
	own.Conversation = ""
	if _, err := sa.Fetch(t.Context(), own); fault.CodeOf(err) != fault.UnknownService {
		t.Errorf("a service that the directory does not name: %v", err)
	}
	text := union.Text{En: "a text", Ar: "نص"}
	u.publish("SA", func(e *directory.Edition) {
		e.Part.Members[0].Subsystems = append(e.Part.Members[0].Subsystems, directory.Subsystem{Code: "register", Name: text, Services: []directory.Service{
			{Code: "persons", Name: text, Retention: "exchange", DataClass: "public", TimeoutMS: 10_000},
		}})
	})
	if a, err := sa.Fetch(t.Context(), own); err != nil || a.Fault != fault.PolicyDenied {
		t.Errorf("without agreement: %+v %v", a, err)
	}
	own.ID = "own-1"
	u.publish("SA", func(e *directory.Edition) {
		e.Agreements = append(e.Agreements, directory.Agreement{Agreement: policy.Agreement{
			ID: "own", Client: desk("SA"), Service: register, Purposes: []string{"test"}, Basis: text,
		}})
	})
	var served atomic.Int32
	srv := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Header.Get("X-Road-Client"), r.URL.Path, b)
	})
	u.backend("SA", "things", srv) // its address
	b, _ := sa.Local().Backend(offered("SA", "things"))
	check(t, sa.Local().PutBackend(t.Context(), Backend{Service: register, Address: b.Address}))
	for range 2 { // the second from the record
		a, err := sa.Fetch(t.Context(), own)
		if err != nil || a.Status != 200 || string(a.Body) != desk("SA").String()+" /case/7 who" {
			t.Fatalf("%+v %v", a, err)
		}
	}
	if served.Load() != 1 {
		t.Errorf("served %d times", served.Load())
	}
	later := own
	later.ID = "own-2"
	check(t, sa.Post(t.Context(), later))
	u.soon("the posted one is answered", func() bool { return len(parts["SA"].ended()) == 1 })
	ev, err := sa.Evidence(t.Context(), "own-1", Reader{Name: "test", May: func(c, s union.SubsystemID) bool { return true }}, Page{})
	check(t, err)
	kinds := map[string]bool{}
	for _, h := range ev.Halves {
		for _, r := range h.Records {
			kinds[fmt.Sprint(r.Parts.Kind)] = true
		}
	}
	if len(kinds) != 4 {
		t.Errorf("kinds of records: %v", kinds)
	}
}

// BenchmarkPost is how fast parts of a node can post, and how fast what they
// posted is delivered, served and told of.
func BenchmarkPost(b *testing.B) {
	u, parts := newInside(b, []union.State{"BH", "SA"})
	sa := u.nodes["SA"]
	var n atomic.Int64
	var told atomic.Int64
	parts["SA"].hear = func(End) error { told.Add(1); return nil }
	b.SetParallelism(32)
	before := cpu(b)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			l := letter("SA", offered("BH", "things"), fmt.Sprint(n.Add(1)), strings.Repeat("x", 1024))
			l.Conversation = "" // each a case of its own
			check(b, sa.Post(b.Context(), l))
		}
	})
	posted := b.Elapsed()
	for told.Load() < n.Load() {
		time.Sleep(time.Millisecond)
	}
	all := b.Elapsed()
	b.ReportMetric(float64(n.Load())/posted.Seconds(), "posted/s")
	b.ReportMetric(float64(n.Load())/all.Seconds(), "ended/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(n.Load()), "cpu-µs/op")
}
