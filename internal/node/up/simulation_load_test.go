package up

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/registry"
	"github.com/falaj/falaj/internal/union"
)

// load is the clients of all states and the systems that they call.
type load struct {
	s       *simulation
	stop    atomic.Bool
	clients sync.WaitGroup
	servers []*http.Server
	serving sync.WaitGroup
	vias    []*http.Transport

	mu      sync.Mutex
	calls   []*call
	effects map[string]int // by X-Road-Id
	spoilt  []string       // ids of requests that did not arrive as they were sent
}

// call is one id as its client knows it.
type call struct {
	id       string
	from, to union.State
	method   string // GET may be repeated by whoever does not know what became of it
	purpose  string
	async    bool
	ends     []string // how it ended, once for each that was sent at once: "200" or a code
	requests []string // X-Road-Request-Id of each answer of the service
	wrong    []string
}

const clientsEach = 2

func newLoad(s *simulation) *load {
	l := &load{s: s, effects: map[string]int{}}
	for _, x := range s.sites {
		in, err := s.net.host(string(x.state)).listen(context.Background(), "tcp", s.plan.at(x.state, string(registry.Persons)))
		s.must(err)
		srv := &http.Server{Handler: http.HandlerFunc(l.serve), ReadHeaderTimeout: time.Minute}
		l.servers = append(l.servers, srv)
		l.serving.Go(func() { _ = srv.Serve(in) })
	}
	return l
}

// draw gives chances that depend on the seed and what they are for.
func (l *load) draw(what ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, what...)
	return rand.New(rand.NewPCG(l.s.seed, h.Sum64()))
}

// content is the body of a call that is posted: of some, too large to stand in
// the journal or in one frame.
func (l *load) content(id string) string {
	if rng := l.draw("content", id); rng.IntN(8) == 0 {
		return strings.Repeat(id, rng.IntN(30_000))
	}
	return id
}

// serve is what stands behind every service: it acts, and then answers, late or
// not at all.
func (l *load) serve(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Road-Id")
	l.mu.Lock()
	l.effects[id]++
	n := l.effects[id]
	l.mu.Unlock()
	rng := l.draw("serve", id, n)
	if b, err := io.ReadAll(r.Body); err == nil && r.Method == http.MethodPost && string(b) != l.content(id) {
		l.mu.Lock()
		l.spoilt = append(l.spoilt, id)
		l.mu.Unlock()
	}
	time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
	if !l.stop.Load() {
		switch rng.IntN(20) {
		case 0:
			time.Sleep(time.Duration(rng.IntN(15_000)) * time.Millisecond) // its time is 10 s
		case 1:
			panic(http.ErrAbortHandler)
		}
	}
	_, _ = io.WriteString(w, id)
}

// begin lets the clients call until the storm is over.
func (l *load) begin() {
	for _, x := range l.s.sites {
		for k := range clientsEach {
			via := &http.Transport{DialContext: l.s.net.host(string(x.state)).dial, DisableCompression: true, IdleConnTimeout: 30 * time.Second}
			l.vias = append(l.vias, via)
			rng := l.draw("client", x.state, k)
			l.clients.Go(func() {
				var last *call
				for n := 0; !l.stop.Load(); n++ {
					time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
					last = l.visit(via, x.state, fmt.Sprintf("%s-%d-%d", x.state, k, n), rng, last)
				}
			})
		}
	}
}

// finish lets the clients see their last calls through.
func (l *load) finish() {
	l.stop.Store(true)
	l.clients.Wait()
}

func (l *load) close() {
	for _, via := range l.vias {
		via.CloseIdleConnections()
	}
	for _, srv := range l.servers {
		_ = srv.Close()
	}
	l.serving.Wait()
	time.Sleep(time.Minute) // what is still at work behind them
}

func (l *load) ended(how string) (n int) {
	for _, c := range l.calls {
		if len(c.ends) > 0 && c.ends[0] == how {
			n++
		}
	}
	return n
}

// visit makes a call and sees it through.
func (l *load) visit(via *http.Transport, from union.State, id string, rng *rand.Rand, last *call) *call {
	c := &call{id: id, from: from, method: []string{http.MethodPost, http.MethodPost, http.MethodGet}[rng.IntN(3)], purpose: []string{allowed, allowed, allowed, allowed, refused, denied}[rng.IntN(6)], async: rng.IntN(4) == 0}
	for c.to = from; c.to == from; {
		c.to = l.s.plan.States[rng.IntN(len(l.s.plan.States))]
	}
	l.mu.Lock()
	l.calls = append(l.calls, c)
	l.mu.Unlock()
	if last != nil && rng.IntN(6) == 0 && last.ends[0] == "200" { // its id again, for another thing
		if end := l.settle(via, last, "other"); end != string(fault.IDConflict) {
			l.wrong(last, "its id was used again for something else: %s", end)
		}
	}
	copies := 1
	if rng.IntN(5) == 0 {
		copies = 2 // on two connections at once
	}
	var all sync.WaitGroup
	for range copies {
		all.Go(func() {
			end := l.settle(via, c, "")
			l.mu.Lock()
			defer l.mu.Unlock()
			c.ends = append(c.ends, end)
		})
	}
	all.Wait()
	if rng.IntN(6) == 0 { // and once more, later
		end := l.settle(via, c, "")
		if end != c.ends[0] {
			l.wrong(c, "it ended as %s, and then as %s", c.ends[0], end)
		}
	}
	return c
}

func (l *load) wrong(c *call, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// settle repeats a call under its id until it has ended: with the service's
// answer, or with a code that is the end of it.
func (l *load) settle(via *http.Transport, c *call, other string) string {
	end := ""
	for begun, pause := time.Now(), 200*time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		status, head, body, err := l.ask(via, c, c.method, "/r1/"+called(c.to)+"/"+c.id+other)
		end = l.outcome(via, c, status, head, body, err)
		switch fault.Code(end) {
		case "200", fault.PolicyDenied, fault.OutcomeUnknown, fault.OutcomeDone, fault.IDConflict:
			return end
		}
		if time.Since(begun) > 30*time.Minute {
			l.wrong(c, "it does not end: %s", end)
			return end
		}
		time.Sleep(pause)
	}
}

// outcome is how a call stands after an answer: of one that was accepted for
// delivery, after that.
func (l *load) outcome(via *http.Transport, c *call, status int, head http.Header, body string, err error) string {
	if err != nil {
		return err.Error()
	}
	if status == http.StatusAccepted {
		return l.follow(via, c)
	}
	if head.Get("X-Road-Error") == "" && status == http.StatusOK {
		if body != c.id {
			l.wrong(c, "it was answered with %q", body)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		c.requests = append(c.requests, head.Get("X-Road-Request-Id"))
		return "200"
	}
	if end := code(body); end != "" {
		return string(end)
	}
	return fmt.Sprint(status, " ", body)
}

// follow waits for the end of a delivery.
func (l *load) follow(via *http.Transport, c *call) string {
	for begun := time.Now(); ; {
		time.Sleep(time.Second)
		status, _, body, err := l.ask(via, c, http.MethodGet, "/async/"+c.id)
		var d exchange.Delivery
		switch {
		case err != nil || status >= 500:
			continue
		case status != http.StatusOK || json.Unmarshal([]byte(body), &d) != nil:
			l.wrong(c, "it was accepted and is lost: %d %s", status, body)
			return "lost"
		case time.Since(begun) > 30*time.Minute:
			l.wrong(c, "it was accepted and does not end: %s", body)
			return "stuck"
		case d.Ended.IsZero():
			continue
		case d.Status != exchange.StatusAnswered && d.Status != exchange.StatusRefused:
			l.wrong(c, "its delivery ended: %s", body)
			return string(d.Status)
		case d.Status == exchange.StatusRefused:
			return string(d.Code)
		}
		status, head, body, err := l.ask(via, c, http.MethodGet, "/async/"+c.id+"/answer")
		if err != nil || status >= 500 {
			continue
		}
		return l.outcome(via, c, status, head, body, err)
	}
}

func (l *load) ask(via *http.Transport, c *call, method, path string) (int, http.Header, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	var body io.Reader = http.NoBody
	if method == http.MethodPost {
		body = strings.NewReader(l.content(c.id))
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+l.s.plan.at(c.from, doorR1)+path, body)
	if err != nil {
		return 0, nil, "", err
	}
	req.Header = http.Header{"X-Road-Client": {portal(c.from).String()}, "Falaj-Purpose": {c.purpose}, "X-Road-Id": {c.id}}
	if c.async {
		req.Header.Set("Prefer", "respond-async")
	}
	resp, err := via.RoundTrip(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}
