package up

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/falaj/falaj/internal/node"
)

// memory is a network in memory, whose faults a seed decides: what of each
// connection is drawn from the seed, its two ends and its number among those,
// so that neither the others nor the scheduler have a say in it. Time is that
// of the testing/synctest bubble it lives in; nothing in it blocks but on
// channels.
type memory struct {
	seed uint64

	mu    sync.Mutex
	storm bool           // connections break by themselves, and are slow
	isles map[string]int // sites of different isles do not reach each other
	doors map[string]*door
	conns map[*end]struct{}
	many  map[string]uint64 // connections so far, by their ends
	port  uint16            // of who dialled last
	cuts  int
	turns chan struct{} // closed when the isles change
}

func newMemory(seed uint64) *memory {
	return &memory{seed: seed, isles: map[string]int{}, doors: map[string]*door{}, conns: map[*end]struct{}{}, many: map[string]uint64{}, turns: make(chan struct{})}
}

// host is a machine at a site: a node, from its start to its crash.
type host struct {
	net  *memory
	site string
	dead bool // under net.mu
}

func (m *memory) host(site string) *host { return &host{net: m, site: site} }

func (h *host) network() node.Network { return node.Network{Listen: h.listen, Dial: h.dial} }

// part puts the sites on isles; without any, all are together.
func (m *memory) part(isles map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.isles = isles
	close(m.turns)
	m.turns = make(chan struct{})
}

// set says whether the network is in a storm.
func (m *memory) set(storm bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.storm = storm
}

// apart is how a connection's ends are held off each other. Under mu.
func (m *memory) apart(a, b *host) bool { return m.isles[a.site] != m.isles[b.site] }

// cut breaks what is open at a site.
func (m *memory) cut(site string) {
	for _, c := range m.open(func(h *host) bool { return h.site == site }) {
		c.wreck(syscall.ECONNRESET, true)
	}
}

// open lists ends at hosts.
func (m *memory) open(which func(*host) bool) (out []*end) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		if which(c.at) {
			out = append(out, c)
		}
	}
	return out
}

// die takes the host off the network in one moment. What it has sent is under
// way; silent says that its peers hear nothing more, not even that it is gone,
// until wake.
func (h *host) die(silent bool) (wake func()) {
	h.net.mu.Lock()
	h.dead = true
	for at, d := range h.net.doors {
		if d.at == h {
			delete(h.net.doors, at)
			d.shut()
		}
	}
	h.net.mu.Unlock()
	var others []*end
	for _, c := range h.net.open(func(x *host) bool { return x == h }) {
		c.wreck(net.ErrClosed, false)
		others = append(others, c.peer)
	}
	wake = func() {
		for _, c := range others {
			c.wreck(syscall.ECONNRESET, false)
		}
	}
	if !silent {
		wake()
	}
	return wake
}

// door is a listener.
type door struct {
	at   *host
	addr net.Addr
	come chan net.Conn
	gone chan struct{}
	once sync.Once
}

func (h *host) listen(_ context.Context, network, address string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	switch {
	case h.dead:
		return nil, syscall.ENETDOWN
	case h.net.doors[address] != nil:
		return nil, fmt.Errorf("%s: %w", address, syscall.EADDRINUSE)
	}
	d := &door{at: h, come: make(chan net.Conn, 256), gone: make(chan struct{})}
	if d.addr = (&net.UnixAddr{Name: address, Net: network}); network == "tcp" {
		d.addr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
	}
	h.net.doors[address] = d
	return d, nil
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.come:
		return c, nil
	case <-d.gone:
		return nil, net.ErrClosed
	}
}

func (d *door) shut() { d.once.Do(func() { close(d.gone) }) }

func (d *door) Close() error {
	d.at.net.mu.Lock()
	if d.at.net.doors[d.addr.String()] == d {
		delete(d.at.net.doors, d.addr.String())
	}
	d.at.net.mu.Unlock()
	d.shut()
	for {
		select {
		case c := <-d.come: // nobody takes it any more
			c.(*end).wreck(syscall.ECONNRESET, true)
		default:
			return nil
		}
	}
}

func (d *door) Addr() net.Addr { return d.addr }

func (h *host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	m := h.net
	m.mu.Lock()
	between := h.site + " " + address
	m.many[between]++
	f := fnv.New64a()
	fmt.Fprint(f, between, m.many[between])
	rng := rand.New(rand.NewPCG(m.seed, f.Sum64()))
	wait := time.Duration(1+rng.IntN(5)) * time.Millisecond
	if m.storm && rng.IntN(8) == 0 {
		wait = time.Duration(rng.IntN(3000)) * time.Millisecond
	}
	refused := m.storm && rng.IntN(12) == 0
	m.mu.Unlock()
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	for {
		select {
		case <-ctx.Done():
			return fail(ctx.Err())
		case <-time.After(wait):
		}
		m.mu.Lock()
		d := m.doors[address]
		switch {
		case h.dead:
			m.mu.Unlock()
			return fail(syscall.ENETDOWN)
		case refused, d == nil:
			m.mu.Unlock()
			return fail(syscall.ECONNREFUSED)
		case m.apart(h, d.at): // nothing comes back, until it does
			turns := m.turns
			m.mu.Unlock()
			select {
			case <-ctx.Done():
				return fail(ctx.Err())
			case <-time.After(30 * time.Second):
				return fail(syscall.ETIMEDOUT)
			case <-turns:
			}
			continue
		}
		m.port++
		near := &end{at: h, local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40_000 + int(m.port)%20_000}, remote: d.addr, wake: make(chan struct{})}
		far := &end{at: d.at, local: d.addr, remote: near.local, wake: make(chan struct{}), rng: rand.New(rand.NewPCG(m.seed, rng.Uint64()))}
		near.rng, near.peer, far.peer = rng, far, near
		near.fuse, far.fuse = -1, -1
		if m.storm && rng.IntN(3) == 0 { // it breaks after so many bytes of one side: 1 to 64 Ki, small numbers as often as large ones
			c := []*end{near, far}[rng.IntN(2)]
			c.fuse = rng.IntN(1 << (1 + rng.IntN(16)))
		}
		m.conns[near], m.conns[far] = struct{}{}, struct{}{}
		m.mu.Unlock()
		select {
		case d.come <- far:
			return near, nil
		default:
			near.wreck(syscall.ECONNREFUSED, true)
			return fail(syscall.ECONNREFUSED)
		}
	}
}

// end is one end of a connection. What is written at it is held at the other
// until it may be read there. A write never waits: who holds a lock while he
// writes would hold up the bubble's time.
type end struct {
	at            *host
	peer          *end
	local, remote net.Addr

	// Under at.net.mu, which is held for moments.
	rng         *rand.Rand // of what is written here
	fuse        int        // bytes until the connection breaks; -1: it holds
	last        time.Time  // when the newest of it arrives
	in          []chunk
	over        bool  // the peer has closed: io.EOF behind what is in
	err         error // broken
	closed      bool
	read, write time.Time // deadlines
	wake        chan struct{}
}

type chunk struct {
	at time.Time
	b  []byte
}

// stir has readers look again. Under mu.
func (c *end) stir() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// wreck breaks this end, or both; what has not been read is lost.
func (c *end) wreck(err error, both bool) {
	c.at.net.mu.Lock()
	defer c.at.net.mu.Unlock()
	c.broken(err)
	if both {
		c.peer.broken(err)
	}
}

// broken, under mu.
func (c *end) broken(err error) {
	if c.err == nil && !c.closed {
		c.at.net.cuts++
		c.err, c.in = err, nil
		c.stir()
	}
	delete(c.at.net.conns, c)
}

func (c *end) Write(b []byte) (int, error) {
	m := c.at.net
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closed:
		return 0, net.ErrClosed
	case !c.write.IsZero() && !time.Now().Before(c.write):
		return 0, os.ErrDeadlineExceeded
	case c.peer.closed:
		return 0, syscall.EPIPE
	}
	n := len(b)
	if c.fuse >= 0 && m.storm {
		n = min(n, c.fuse)
		c.fuse -= n
	}
	delay := time.Duration(1+c.rng.IntN(5)) * time.Millisecond
	if m.storm && c.rng.IntN(20) == 0 {
		delay = time.Duration(c.rng.IntN(2000)) * time.Millisecond
	}
	if at := time.Now().Add(delay); at.After(c.last) {
		c.last = at
	}
	if c.peer.err == nil {
		c.peer.in = append(c.peer.in, chunk{c.last, append([]byte(nil), b[:n]...)})
		c.peer.stir()
	}
	if n < len(b) {
		c.broken(syscall.ECONNRESET)
		if c.rng.IntN(2) == 0 { // the last of it may arrive, or be lost too
			c.peer.broken(syscall.ECONNRESET)
		} else {
			c.peer.over = true
		}
		return n, syscall.ECONNRESET
	}
	return n, nil
}

func (c *end) Read(b []byte) (int, error) {
	m := c.at.net
	for {
		m.mu.Lock()
		now := time.Now()
		var next time.Time
		wake, turns := c.wake, m.turns
		switch {
		case c.closed:
			m.mu.Unlock()
			return 0, net.ErrClosed
		case c.err != nil:
			defer m.mu.Unlock()
			return 0, c.err
		case !c.read.IsZero() && !now.Before(c.read):
			m.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case m.apart(c.at, c.peer.at): // it is sent again and again, until it gets through
		case len(c.in) > 0 && !now.Before(c.in[0].at):
			n := copy(b, c.in[0].b)
			if c.in[0].b = c.in[0].b[n:]; len(c.in[0].b) == 0 {
				c.in = c.in[1:]
			}
			m.mu.Unlock()
			return n, nil
		case len(c.in) > 0:
			next = c.in[0].at
		case c.over:
			m.mu.Unlock()
			return 0, io.EOF
		}
		if !c.read.IsZero() && (next.IsZero() || c.read.Before(next)) {
			next = c.read
		}
		m.mu.Unlock()
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(next.Sub(now))
		}
		select {
		case <-wake:
		case <-turns:
		case <-timer:
		}
	}
}

func (c *end) Close() error {
	m := c.at.net
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.stir()
	c.peer.over = true
	c.peer.stir()
	delete(m.conns, c)
	return nil
}

func (c *end) LocalAddr() net.Addr  { return c.local }
func (c *end) RemoteAddr() net.Addr { return c.remote }

func (c *end) SetDeadline(t time.Time) error { return c.limit(&c.read, &c.write, t) }

func (c *end) SetReadDeadline(t time.Time) error  { return c.limit(&c.read, nil, t) }
func (c *end) SetWriteDeadline(t time.Time) error { return c.limit(nil, &c.write, t) }

func (c *end) limit(read, write *time.Time, t time.Time) error {
	c.at.net.mu.Lock()
	defer c.at.net.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	for _, d := range []*time.Time{read, write} {
		if d != nil {
			*d = t
		}
	}
	c.stir()
	return nil
}
