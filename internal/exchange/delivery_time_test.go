package exchange

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

func TestVerdict(t *testing.T) {
	refused := func(code fault.Code) error { return fault.Wrap(code, link.ErrRefused, "") }
	for _, c := range []struct {
		stage string
		err   error
		want  int
	}{
		// This node's own word.
		{"resolve", fault.New(fault.UnknownService, ""), deliveryRefused},
		{"resolve", fault.New(fault.DirectoryExpired, ""), deliveryOpen},
		{"reopen", fault.New(fault.DeliveryExpired, ""), deliveryExpired},
		{"reopen", fault.New(fault.StoreFailed, ""), deliveryOpen},
		{"decide", fault.New(fault.PolicyDenied, ""), deliveryRefused},
		{"decide", fault.New(fault.DirectoryInvalid, ""), deliveryOpen},
		{"vouch", fault.New(fault.CertRevoked, ""), deliveryRefused},
		{"vouch", fault.New(fault.CertExpired, ""), deliveryRefused},
		{"vouch", fault.New(fault.CertUnknown, ""), deliveryRefused},
		{"vouch", fault.New(fault.SealNotYetValid, ""), deliveryOpen}, // a clock that was set back
		// The link's.
		{"send", fault.Wrap(fault.PeerUnreachable, link.ErrNotSent, ""), deliveryOpen},
		{"send", fault.Wrap(fault.CertRevoked, link.ErrNotSent, ""), deliveryOpen}, // the other node's
		{"send", fault.Wrap(fault.TooLarge, link.ErrNotSent, ""), deliveryRefused},
		{"send", fault.Wrap(fault.PeerUnreachable, link.ErrBroken, ""), deliveryOpen},
		{"send", fault.Wrap(fault.Timeout, link.ErrBroken, ""), deliveryOpen},
		{"send", errors.New("anything"), deliveryOpen},
		// The other node's, without a seal.
		{"send", refused(fault.MessageMalformed), deliveryRefused},
		{"send", refused(fault.SealExpired), deliveryExpired},
		{"send", refused(fault.CertUnknown), deliveryOpen}, // its directory may be behind
		{"send", refused(fault.CertRevoked), deliveryOpen}, // as ours may be; or it is this node's, which can be renewed
		{"send", refused(fault.Overloaded), deliveryOpen},
		{"send", refused("from.a.newer.node"), deliveryOpen},
		// What is wrong with an answer says nothing about the request.
		{"verify", fault.New(fault.MessageMismatch, ""), deliveryOpen},
		{"verify", fault.New(fault.CertRevoked, ""), deliveryOpen},
		// Sealed refusals.
		{"keep", fault.New(fault.PolicyDenied, ""), deliveryRefused},
		{"keep", fault.New(fault.UnknownService, ""), deliveryRefused},
		{"keep", fault.New(fault.IDConflict, ""), deliveryRefused},
		{"keep", fault.New(fault.OutcomeUnknown, ""), deliveryRefused},
		{"keep", fault.New(fault.AnswerGone, ""), deliveryRefused},
		{"keep", fault.New(fault.Conflict, ""), deliveryRefused},
		{"keep", fault.New(fault.InFlight, ""), deliveryOpen},
		{"keep", fault.New(fault.BackendFailed, ""), deliveryOpen},
		{"keep", fault.New(fault.BackendTimeout, ""), deliveryOpen},
		{"keep", fault.New(fault.ServiceDisabled, ""), deliveryOpen},
		{"keep", fault.New(fault.Draining, ""), deliveryOpen},
		{"keep", fault.New(fault.DiskFull, ""), deliveryOpen},
	} {
		if got := verdict(c.stage, fault.CodeOf(c.err), c.err); got != c.want {
			t.Errorf("%s, %v: %d, wanted %d", c.stage, c.err, got, c.want)
		}
	}
}

func TestPause(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &Exchange{cfg: Config{Retry: time.Second}}
		n, most := rapid.IntRange(0, 1<<30).Draw(t, "fails"), time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "most"))
		want := most
		if n < 12 {
			want = min(most, time.Second<<n)
		}
		if got := x.pause(n, most); got < want/2 || got > want {
			t.Errorf("after %d failures a pause of %s, wanted %s or up to half of it less", n, got, want)
		}
	})
}

// Sealed refusals leave records at both nodes; a week of them must not bury
// the end of a call, nor the pauses make it wait much longer than it has.
func TestPatience(t *testing.T) {
	now := time.Unix(1e9, 0)
	x := &Exchange{deps: Deps{Now: func() time.Time { return now }}}
	x.cfg.defaults()
	d := &delivery{accepted: now}
	for ; now.Before(d.accepted.Add(7 * 24 * time.Hour)); d.attempts++ {
		pause := x.patience(d)
		if pause > max(time.Minute, now.Sub(d.accepted)/8) {
			t.Fatalf("a pause of %s after %s", pause, now.Sub(d.accepted))
		}
		now = now.Add(pause)
	}
	if 2*d.attempts > journal.MaxFound-20 {
		t.Errorf("%d attempts in a week", d.attempts)
	}
}

// lonely is a node's exchange within a bubble of its own time: its own store,
// and whatever link the test gives it.
func lonely(t *testing.T, n *testNode, l Caller) *Exchange {
	t.Helper()
	ahead := time.Until(n.tls.NotBefore.Add(time.Hour)) // a bubble begins in the year 2000
	db := storetest.Open(t, store.Config{DSN: filepath.Join(t.TempDir(), "node.db")}, journal.Migrations(), Migrations())
	j, err := journal.New(journal.Config{}, journal.Deps{DB: db, Records: n.keys.Records()})
	check(t, err)
	t.Cleanup(func() { _ = j.Close(context.Background()) })
	deps := n.deps
	deps.DB, deps.Journal, deps.Link, deps.Now = db, j, l, func() time.Time { return time.Now().Add(ahead) }
	deps.Spool, err = seal.OpenSpool(filepath.Join(t.TempDir(), "spool"), n.keys.Records())
	check(t, err)
	t.Cleanup(func() { _ = deps.Spool.Close() })
	local, err := OpenLocal(t.Context(), db, deps.Now)
	check(t, err)
	cfg := n.cfg
	cfg.Retry, cfg.RetryCap, cfg.Answer = 0, 0, 30*time.Minute
	x, err := New(cfg, deps, local)
	check(t, err)
	check(t, x.Start(t.Context()))
	check(t, local.PutClient(t.Context(), Client{ID: desk(n.state)}))
	return x
}

type calls func() error

func (f calls) Exchange(context.Context, link.Target, *link.Message) (*link.Message, error) {
	return nil, f()
}
func (f calls) Query(context.Context, link.Target, string, []byte) ([]byte, error) {
	return nil, errors.New("not asked")
}

// However many calls wait for a node that cannot be reached, it is tried with
// one of them, ever more seldom; and those for others do not wait with them.
func TestBackOff(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Time
		x := lonely(t, u.nodes["SA"], calls(func() error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			return unreachable()
		}))
		for range 40 {
			_, err := x.Ask(t.Context(), Ask{Client: desk("SA"), Service: offered("BH", "things"), Method: "GET", Purpose: "test", Async: true, In: x.deps.Now()})
			check(t, err)
		}
		ctx, stop := context.WithCancel(t.Context())
		start, done := time.Now(), make(chan struct{})
		go func() { x.deliver(ctx); close(done) }()
		time.Sleep(29 * time.Minute)
		mu.Lock()
		tries := slices.Clone(at)
		mu.Unlock()
		first := x.cfg.Senders / 2 // they set out before any had failed
		if len(tries) < first+29 || len(tries) > first+2*29+12 {
			t.Errorf("%d tries in 29 minutes", len(tries))
		}
		for i := first; i < len(tries); i++ {
			want := min(time.Minute, time.Second<<min(i-first, 10))
			// A look through the outbox may come a poll late.
			if gap := tries[i].Sub(tries[i-1]); gap < want/2 || gap > want+pollEvery {
				t.Errorf("try %d after %s, wanted about %s", i, gap, want)
			}
		}
		list, err := x.Deliveries(t.Context(), DeliveryFilter{Status: StatusWaiting}, 100)
		check(t, err)
		if len(list) != 40 || list[39].Code != fault.PeerUnreachable || !list[39].Next.After(x.deps.Now()) {
			t.Errorf("%d wait; the last: %+v", len(list), list[len(list)-1])
		}
		// All end when their time is over, not only those that had a turn.
		time.Sleep(time.Until(start.Add(30*time.Minute + 10*time.Second)))
		if list, err = x.Deliveries(t.Context(), DeliveryFilter{Status: StatusExpired}, 100); err != nil || len(list) != 40 {
			t.Errorf("%d have expired, %v", len(list), err)
		}
		stop()
		<-done
	})
}

// TestSharedOutbox runs several processes of one node on one PostgreSQL: each
// message goes out once, and one that a dead process held goes out again.
func TestSharedOutbox(t *testing.T) {
	var k clock
	var configs []store.Config
	u := newUnionOn(t, func(t testing.TB) store.Config {
		configs = append(configs, storetest.Postgres(t))
		return configs[len(configs)-1]
	}, []union.State{"BH", "SA"}, quick, k.of("SA"), func(cfg *Config, _ *Deps) { cfg.Alone = false })
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("X-Road-Id")) })
	a := u.nodes["SA"]
	second := func(l Caller) *Exchange {
		db := storetest.Open(t, configs[1], journal.Migrations(), Migrations())
		hidden, err := a.keys.HMAC("journal-1")
		check(t, err)
		j, err := journal.New(journal.Config{}, journal.Deps{DB: db, Records: a.keys.Records(), Keys: hidden})
		check(t, err)
		t.Cleanup(func() { _ = j.Close(context.Background()) })
		deps := a.deps
		deps.DB, deps.Journal, deps.Link = db, j, l
		local, err := OpenLocal(t.Context(), db, deps.Now)
		check(t, err)
		x, err := New(a.cfg, deps, local)
		check(t, err)
		check(t, x.Start(t.Context()))
		return x
	}
	b := second(a.link)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = b.Run(ctx); close(done) }()
	edges := []string{a.edge.URL, ""}
	srv := httptest.NewServer(b.Edge())
	t.Cleanup(srv.Close)
	edges[1] = srv.URL
	var ids []string
	for i := range 60 {
		req, err := http.NewRequest("POST", edges[i%2]+"/r1/"+offered("BH", "things").String(), strings.NewReader("x"))
		check(t, err)
		req.Header = http.Header{"X-Road-Client": {desk("SA").String()}, "Falaj-Purpose": {"test"}, "Prefer": {"respond-async"}, "Falaj-Conversation": {[]string{"", "c"}[i/2%2]}}
		if i/2%2 == 0 {
			req.Header.Del("Falaj-Conversation")
		}
		res := do(t, req)
		if res.status != 202 {
			t.Fatalf("%d %s", res.status, res.body)
		}
		ids = append(ids, res.header.Get("X-Road-Id"))
	}
	for _, id := range ids {
		if d := u.becomes("SA", id, StatusAnswered); d.Attempts != 1 {
			t.Errorf("%+v", d)
		}
		if got := u.at("SA", "/async/"+id+"/answer"); string(got.body) != id {
			t.Errorf("%d %s", got.status, got.body)
		}
		if kinds := u.nodes["BH"].held(t, id); kinds != "request received, answer sent" {
			t.Errorf("%s: the other node holds %v", id, kinds)
		}
	}
	stop()
	<-done

	// A process takes a message and is not heard of again.
	u.nodes["SA"].SetLink(calls(unreachable))
	left := u.call("SA", "POST", offered("BH", "things"), "", nil, respond, "X-Road-Id: held")
	if left.status != 202 {
		t.Fatalf("%d %s", left.status, left.body)
	}
	gone, back := make(chan struct{}), make(chan struct{})
	c := second(&stuck{a.link, gone, back})
	u.soon("the message is taken", func() bool {
		_, err := c.dispatch(t.Context())
		check(t, err)
		select {
		case <-gone:
			return true
		default:
			return false
		}
	})
	a.SetLink(a.link)
	time.Sleep(50 * time.Millisecond)
	if d := u.status("SA", "held"); d.Status != StatusSending {
		t.Errorf("%+v", d)
	}
	k.advance(deadAfter + time.Second)
	u.becomes("SA", "held", StatusAnswered)
	close(back) // it was only slow: its answer comes too late to count
	c.senders.wg.Wait()
	if kinds := a.held(t, "held"); kinds != "request sent, answer received" {
		t.Errorf("%v", kinds)
	}
}

// stuck is the link of a process that hangs.
type stuck struct {
	Caller
	gone, back chan struct{}
}

func (s *stuck) Exchange(ctx context.Context, to link.Target, m *link.Message) (*link.Message, error) {
	close(s.gone)
	<-s.back
	return s.Caller.Exchange(ctx, to, m)
}

func TestSameTables(t *testing.T) { storetest.SameTables(t, Migrations()) }

// TestPrune forgets what ended long ago and nothing else, in steps.
func TestPrune(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		now := time.Unix(2e9, 0)
		x := &Exchange{deps: Deps{DB: storetest.Open(t, cfg, Migrations()), Now: func() time.Time { return now }}}
		x.cfg.defaults()
		if x.cfg.Keep < 31*24*time.Hour {
			t.Errorf("ids are forgotten after %s; a sealed request may be valid for 31 days", x.cfg.Keep)
		}
		old, young := now.Add(-x.cfg.Keep-time.Hour).UnixMilli(), now.Add(-x.cfg.Keep+time.Hour).UnixMilli()
		goes := 0
		check(t, x.deps.DB.Write(t.Context(), func(tx *store.Tx) error {
			goes = 0
			n := byte(0)
			id := func() []byte { n++; return bytes.Repeat([]byte{n}, 32) }
			for _, at := range []int64{old, young} {
				for side := sideCaller; side <= sideProvider; side++ {
					for state := claimOpen; state <= claimSettled; state++ {
						for _, process := range []string{"p", outbox} {
							_, err := tx.Exec(t.Context(), `INSERT INTO exchange_claim (side, id, content, state, process, asked, answered, changed_at)
								VALUES (?, ?, ?, ?, ?, 1, NULL, ?)`, side, id(), []byte{1}, state, process, at)
							if err != nil {
								return err
							}
							if at == old && (state == claimAnswered || state == claimSettled || side == sideCaller && process != outbox) {
								goes++
							}
						}
					}
				}
				for work := workNone; work <= workKeep; work++ {
					_, err := tx.Exec(t.Context(), `INSERT INTO exchange_delivery (id, client, request, service, conversation, asked, answered, state, work,
						lane, attempts, pushes, next_at, expires_at, pushed_at, lease, code, spool, accepted_at, changed_at)
						VALUES (?, 'BH/A/B/C', '', 'BH/A/B/C/D', '', ?, NULL, 1, ?, '', 0, 0, 0, 0, NULL, '', '', '', 0, ?)`, id(), int(n), work, at)
					if err != nil {
						return err
					}
					if at == old && work == workNone {
						goes++
					}
				}
			}
			return nil
		}))
		count := func() (n int) {
			var m int
			check(t, x.deps.DB.QueryRow(t.Context(), `SELECT COUNT(*) FROM exchange_claim`).Scan(&n))
			check(t, x.deps.DB.QueryRow(t.Context(), `SELECT COUNT(*) FROM exchange_delivery`).Scan(&m))
			return n + m
		}
		all := count()
		var at cursor
		for range 2 * all {
			_, err := x.pruneSome(t.Context(), &at, 7)
			check(t, err)
		}
		if got := count(); got != all-goes {
			t.Errorf("of %d rows %d are left, wanted %d", all, got, all-goes)
		}
		for _, kept := range []string{`SELECT COUNT(*) FROM exchange_claim WHERE side = 2 AND (state = 1 OR state = 3)`, `SELECT COUNT(*) FROM exchange_delivery WHERE work <> 0`} {
			var n int
			if check(t, x.deps.DB.QueryRow(t.Context(), kept).Scan(&n)); n != 8 && n != 6 {
				t.Errorf("%s: %d", kept, n)
			}
		}
	})
}

func TestPrefer(t *testing.T) {
	for _, c := range []struct {
		lines []string
		asked bool
		rest  []string
	}{
		{nil, false, nil},
		{[]string{"respond-async"}, true, nil},
		{[]string{"Respond-Async, wait=10"}, true, nil},
		{[]string{"wait=10", "return=minimal,respond-async"}, true, []string{"return=minimal"}},
		{[]string{`respond-async; x="a,b"`}, true, nil},
		{[]string{"wait=10, return=minimal"}, false, []string{"wait=10, return=minimal"}},
		{[]string{"respond-async=no"}, false, []string{"respond-async=no"}},
		{[]string{`foo="x\", respond-async"`}, false, []string{`foo="x\", respond-async"`}},
		{[]string{`foo="x, respond-async`, " "}, false, []string{`foo="x, respond-async`, " "}},
		{[]string{`foo="x, respond-async`, "respond-async"}, true, []string{`foo="x, respond-async`}},
	} {
		if asked, rest := respondAsync(c.lines); asked != c.asked || !slices.Equal(rest, c.rest) {
			t.Errorf("%q: %v, %q", c.lines, asked, rest)
		}
	}
}

func FuzzPrefer(f *testing.F) {
	for _, s := range []string{"respond-async", `a="b,c";d, respond-async, wait=3`, `"`, `\`, ",,,", `x="\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		asked, rest := respondAsync([]string{line})
		if !asked {
			if !slices.Equal(rest, []string{line}) {
				t.Errorf("%q became %q", line, rest)
			}
			return
		}
		// Asked once and taken out, it is not asked again.
		if again, left := respondAsync(rest); again || !slices.Equal(left, rest) {
			t.Errorf("%q left %q, which left %q", line, rest, left)
		}
	})
}
