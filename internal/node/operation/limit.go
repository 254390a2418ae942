package operation

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Limits of Gate. The zero value of each means its default.
type Limits struct {
	Requests int           // calls in flight (1024)
	Rate     float64       // calls a second from one client (20000)
	Burst    int           // calls that one client may make at once (Rate)
	Clients  int           // clients told apart; those beyond share one allowance (10000)
	Time     time.Duration // the longest that a request may take to arrive, and its answer to be taken (5 min)
	Stall    time.Duration // the longest pause in a body (15 s)
	Pace     int           // bytes a second that a body brings at least, Stall aside (1 KiB)
}

// Gate lets in as many calls as the node can take, and sheds the rest at
// once: 503 with Retry-After, before anything is read or written for them.
type Gate struct {
	limits   Limits
	now      func() time.Time
	slots    chan struct{}
	draining chan struct{}
	once     sync.Once
	shed     func(fault.Code)

	mu      sync.Mutex
	clients map[string]*allowance
	rest    *rate.Limiter
}

type allowance struct {
	*rate.Limiter
	seen time.Time
}

// NewGate makes a gate. shed is told of every call that is turned away.
func NewGate(limits Limits, now func() time.Time, shed func(fault.Code)) *Gate {
	if limits.Requests == 0 {
		limits.Requests = 1024
	}
	if limits.Rate == 0 {
		limits.Rate = 20_000
	}
	if limits.Burst == 0 {
		limits.Burst = max(1, int(limits.Rate))
	}
	if limits.Clients == 0 {
		limits.Clients = 10_000
	}
	if limits.Time == 0 {
		limits.Time = 5 * time.Minute
	}
	if limits.Stall == 0 {
		limits.Stall = 15 * time.Second
	}
	if limits.Pace == 0 {
		limits.Pace = 1 << 10
	}
	return &Gate{
		limits: limits, now: now, shed: shed,
		slots: make(chan struct{}, limits.Requests), draining: make(chan struct{}),
		clients: map[string]*allowance{}, rest: rate.NewLimiter(rate.Limit(limits.Rate), limits.Burst),
	}
}

// Drain lets nobody in any more. Calls inside go on.
func (g *Gate) Drain() { g.once.Do(func() { close(g.draining) }) }

// InFlight is the number of calls inside.
func (g *Gate) InFlight() int { return len(g.slots) }

// Wrap puts the gate before a handler.
func (g *Gate) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer g.arrive(w, r)()
		select {
		case <-g.draining:
			g.refuse(w, r, fault.New(fault.Draining, ""), time.Second)
			return
		default:
		}
		if wait := g.take(r); wait > 0 {
			g.refuse(w, r, fault.New(fault.Overloaded, "more than %g calls a second from one client", g.limits.Rate), wait)
			return
		}
		select {
		case g.slots <- struct{}{}:
			defer func() { <-g.slots }()
			g.hurry(w)
			next.ServeHTTP(w, r)
		default:
			g.refuse(w, r, fault.New(fault.Overloaded, "%d calls are in flight", g.limits.Requests), time.Second)
		}
	})
}

// hurry bounds how long a client may hold its place by sending or taking byte
// after byte. Writers that know no deadlines are tests'.
func (g *Gate) hurry(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(g.limits.Time))
	_ = c.SetWriteDeadline(time.Now().Add(3 * g.limits.Time)) // arrive, be answered, be taken
}

// take spends one call of the caller's allowance, or says how long to wait.
func (g *Gate) take(r *http.Request) time.Duration {
	now := g.now()
	l := g.allowance(caller(r), now)
	res := l.ReserveN(now, 1)
	if wait := res.DelayFrom(now); wait > 0 {
		res.CancelAt(now)
		return wait
	}
	return 0
}

func (g *Gate) allowance(name string, now time.Time) *rate.Limiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a, ok := g.clients[name]; ok {
		a.seen = now
		return a.Limiter
	}
	if len(g.clients) >= g.limits.Clients {
		for k, a := range g.clients { // whoever was silent long enough has his whole allowance back
			if now.Sub(a.seen).Seconds()*g.limits.Rate >= float64(g.limits.Burst) {
				delete(g.clients, k)
			}
		}
	}
	if len(g.clients) >= g.limits.Clients {
		return g.rest
	}
	a := &allowance{rate.NewLimiter(rate.Limit(g.limits.Rate), g.limits.Burst), now}
	g.clients[name] = a
	return a.Limiter
}

// caller is whom an allowance belongs to: address and the client that it says
// it is. The name alone would let anyone spend another's allowance.
func caller(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if named := r.Header["X-Road-Client"]; len(named) > 0 {
		if id, err := union.ParseClient(named[len(named)-1]); err == nil {
			return host + " " + id.String()
		}
	}
	return host
}

func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, f *fault.Error, wait time.Duration) {
	g.shed(f.Code)
	w.Header().Set("Retry-After", strconv.Itoa(int(max(1, wait.Round(time.Second).Seconds()))))
	Refuse(w, r, f)
}

// Refuse answers with a fault: as X-Road's client knows it under /r1, as
// problem details (RFC 9457) elsewhere.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.From(err)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	body := f.Problem()
	if strings.HasPrefix(r.URL.Path, "/r1/") {
		h.Set("Content-Type", fault.XRoadType)
		h.Set("X-Road-Error", f.Entry().Type)
		body = f.XRoad()
	} else {
		h.Set("Content-Type", fault.ProblemType)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.Entry().Status)
	w.Write(body) // the client may be gone; nothing is left to do for it
}

// Bound gives a listener that holds at most n connections open; more wait
// before the door.
func Bound(l net.Listener, n int) net.Listener {
	return &bounded{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

type bounded struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &held{Conn: c, release: func() { <-b.slots }}, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

type held struct {
	net.Conn
	once    sync.Once
	release func()
}

func (h *held) Close() error {
	defer h.once.Do(h.release)
	return h.Conn.Close()
}

// Unwrap gives the connection beneath, for those who ask the socket who is
// there.
func (h *held) Unwrap() net.Conn { return h.Conn }
