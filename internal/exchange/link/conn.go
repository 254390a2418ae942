package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

const (
	// maxNoise is how many more frames than useful ones may, between two pings
	// of ours, serve no call: pings, frames for ended calls, unknown types.
	// Cancelling every call at once makes some honestly.
	maxNoise = 8192
	// maxSmall is how many BODY or WINDOW frames of a call may be of any size;
	// more have to carry, or follow, minFrame bytes of body each on average.
	maxSmall = 1024
	minFrame = 256
	// maxPending is how many bytes may wait for the socket before callers do.
	maxPending = 1 << 20
	// farewellTime is how long a last frame may take to leave.
	farewellTime = time.Second
)

// conn is one connection. Calls run from the side that dialled to the side
// that accepted, never the other way: a node that wants to call dials. So
// stream ids need no parity, two nodes that dial each other at once cannot
// cross, and a state's firewall rule says who may call.
type conn struct {
	l       *Link
	raw     net.Conn // under TLS; closing it never waits
	nc      net.Conn
	br      *bufio.Reader
	tls     tls.ConnectionState
	cert    []byte // our own leaf at the handshake, DER
	peer    Peer
	load    *loadOf // accepted connections
	dialled bool
	since   time.Time

	ctx    context.Context // ends with the connection; parent of the handlers'
	cancel context.CancelCauseFunc

	timed bool // the reader's own: a read deadline is set

	noise   atomic.Int64  // frames since the last beat that served no call
	rtt     atomic.Int64  // nanoseconds
	ponged  atomic.Uint64 // nonce of the last PONG
	pinged  atomic.Int64  // when the last PING was sent, Unix nanoseconds
	queued  atomic.Uint64 // bytes ever put into pending
	wake    chan struct{} // tells the writer that there is something
	flushed chan struct{} // closed by the writer once closing is set and all is written

	mu      sync.Mutex
	streams map[uint64]*stream
	last    uint64        // highest stream opened
	begun   uint64        // highest stream whose handler began
	pending []byte        // whole frames to write
	taken   uint64        // bytes that went from pending to the socket
	bulk    []*stream     // streams with a chunk to write, in turn
	room    chan struct{} // closed when pending has been taken; nil if nobody waits
	pong    *uint64       // nonce to answer
	away    bool          // takes no new streams
	closing bool
	hello   hello // theirs
	version uint16
	err     error // why the connection ended
	used    time.Time
}

func newConn(l *Link, raw, nc net.Conn, peer Peer, dialled bool) *conn {
	c := &conn{
		l: l, raw: raw, nc: nc, peer: peer, dialled: dialled,
		br:      bufio.NewReaderSize(nc, 16<<10), // a TLS record
		since:   l.deps.Now(),
		wake:    make(chan struct{}, 1),
		flushed: make(chan struct{}),
		streams: map[uint64]*stream{},
	}
	c.used = c.since
	c.ctx, c.cancel = context.WithCancelCause(l.ctx)
	return c
}

// greet exchanges HELLO. The caller has set a deadline.
func (c *conn) greet() error {
	ours := hello{min: c.l.cfg.minVersion, max: c.l.cfg.maxVersion, software: c.l.cfg.Software}
	sent := make(chan error, 1)
	go func() { // both sides speak first: on a connection without buffers, too
		_, err := c.nc.Write(appendHello(nil, ours))
		sent <- err
	}()
	theirs, err := c.hear()
	if werr := <-sent; err == nil && werr != nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("exchange HELLO: %w", err)
	}
	v, ok := agree(ours, theirs)
	if !ok {
		return fault.Wrap(fault.PeerRefused, ErrNotSent, "no common version of the link protocol: this node speaks %d to %d, the other (%s) %d to %d",
			ours.min, ours.max, theirs.software, theirs.min, theirs.max)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hello, c.version = theirs, v
	return nil
}

func (c *conn) hear() (hello, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(c.br, b[:]); err != nil {
		return hello{}, err
	}
	h := parseHeader(b[:])
	if h.typ != typeHello && h.typ != typeGoaway {
		return hello{}, violate("type %d before HELLO", h.typ)
	}
	if err := h.check(); err != nil {
		return hello{}, err
	}
	p := make([]byte, h.length)
	if _, err := io.ReadFull(c.br, p); err != nil {
		return hello{}, err
	}
	if h.typ == typeHello {
		return parseHello(p)
	}
	e, err := parseNotice(p[8:])
	if err != nil {
		return hello{}, err
	}
	return hello{}, fmt.Errorf("turned away by the other side: %w", e)
}

// run carries the connection until it ends.
func (c *conn) run() {
	var wg sync.WaitGroup
	wg.Go(c.write)
	wg.Go(c.beat)
	err := c.read()
	if v := violation(""); errors.As(err, &v) {
		c.l.deps.Log.Warn("link: peer breaks the protocol", "peer", c.peer.State, "addr", c.peer.Addr, "why", string(v))
		c.farewell(fault.New(fault.MessageMalformed, "%s", string(v)))
	}
	c.fail(err)
	wg.Wait()
	c.l.forget(c)
	c.l.deps.Log.Debug("link: connection ended", "peer", c.peer.State, "addr", c.peer.Addr, "dialled", c.dialled, "why", c.err)
}

// farewell sends GOAWAY as the last frame and waits a little for it to leave.
func (c *conn) farewell(e *fault.Error) {
	c.mu.Lock()
	c.away = true
	c.put(func(b []byte) []byte { return appendGoaway(b, c.begun, e) })
	c.closing = true
	c.mu.Unlock()
	t := time.NewTimer(farewellTime)
	defer t.Stop()
	select {
	case <-c.flushed:
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// fail ends the connection and every call on it. Only the first reason stands.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if err == nil || err == io.EOF {
		err = errors.New("the other side closed the connection")
	}
	c.err, c.away = err, true
	for id, s := range c.streams {
		c.end(s, c.lost(s, err))
		delete(c.streams, id)
	}
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	c.mu.Unlock()
	c.l.unpool(c)
	c.cancel(err)
	c.raw.Close()
}

// lost is the error of a call whose connection ended. Under mu.
func (c *conn) lost(s *stream, err error) error {
	if !c.dialled {
		return fault.Wrap(fault.BodyTruncated, err, "the connection to the other node broke")
	}
	sentinel := ErrBroken
	if s.at >= c.taken {
		sentinel = ErrNotSent
	}
	return fault.Wrap(fault.PeerUnreachable, errors.Join(sentinel, err), "the connection to %s broke", c.peer.State)
}

// retire takes no new calls on the connection; the side that dialled closes it
// after its last call. So nothing that was sent is lost in a reset socket.
func (c *conn) retire(why string) {
	c.mu.Lock()
	if c.away {
		c.mu.Unlock()
		return
	}
	c.away = true
	idle := len(c.streams) == 0
	if !c.dialled {
		c.put(func(b []byte) []byte { return appendGoaway(b, c.begun, fault.New(fault.Draining, "%s", why)) })
	}
	c.mu.Unlock()
	c.l.unpool(c)
	if idle {
		c.finished()
	}
}

// finished is called when a retired connection has no more streams.
func (c *conn) finished() {
	if c.dialled {
		c.fail(errors.New("retired"))
		return
	}
	time.AfterFunc(c.l.cfg.FrameTimeout, func() { c.fail(errors.New("retired, and not closed by the other side")) })
}

// read takes frames until the connection ends.
func (c *conn) read() error {
	for {
		h, err := c.next()
		if err != nil {
			return err
		}
		if c.noise.Load() > maxNoise {
			return violate("more than %d frames that serve no call", maxNoise)
		}
		if err := c.take(h); err != nil {
			return err
		}
	}
}

// next waits for a frame, as long as pings are answered, and reads its header.
func (c *conn) next() (header, error) {
	if c.timed {
		c.timed = false
		if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
			return header{}, err
		}
	}
	if _, err := c.br.Peek(1); err != nil {
		return header{}, err
	}
	c.hurry(headerSize)
	b, err := c.br.Peek(headerSize)
	if err != nil {
		return header{}, err
	}
	h := parseHeader(b)
	if _, err := c.br.Discard(headerSize); err != nil {
		return header{}, err
	}
	if err := h.check(); err != nil {
		return header{}, err
	}
	c.hurry(int(h.length))
	return h, nil
}

// hurry gives a frame that has begun its time to end, unless it is here.
func (c *conn) hurry(n int) {
	if !c.timed && c.br.Buffered() < n {
		c.timed = true
		// An error here is one of the next read, too.
		_ = c.nc.SetReadDeadline(time.Now().Add(c.l.cfg.FrameTimeout))
	}
}

// useful makes up for one frame of noise.
func (c *conn) useful() {
	if c.noise.Load() > 0 {
		c.noise.Add(-1)
	}
}

func (c *conn) payload(h header) ([]byte, error) {
	p := make([]byte, h.length)
	_, err := io.ReadFull(c.br, p)
	return p, err
}

// skip passes over a frame that serves no call.
func (c *conn) skip(h header) error {
	c.noise.Add(1)
	_, err := c.br.Discard(int(h.length))
	return err
}

func (c *conn) take(h header) error {
	switch h.typ {
	case typeRequest, typeQuery:
		return c.opened(h)
	case typeAnswer, typeReply:
		return c.answered(h)
	case typeBody:
		return c.chunk(h)
	case typeWindow, typeReset:
		p, err := c.payload(h)
		if err != nil {
			return err
		}
		if h.typ == typeWindow {
			return c.credit(h.stream, binary.BigEndian.Uint32(p))
		}
		return c.wasReset(h, p)
	case typeRelease:
		p, err := c.payload(h)
		if err != nil {
			return err
		}
		return c.released(h, p)
	case typePing, typePong:
		p, err := c.payload(h)
		if err != nil {
			return err
		}
		c.noise.Add(1)
		if n := binary.BigEndian.Uint64(p); h.typ == typePing {
			c.mu.Lock()
			c.pong = &n // one waiting answer is enough
			c.kick()
			c.mu.Unlock()
		} else if n > c.ponged.Load() {
			c.ponged.Store(n)
			c.rtt.Store(c.l.deps.Now().UnixNano() - c.pinged.Load())
		}
		return nil
	case typeGoaway:
		p, err := c.payload(h)
		if err != nil {
			return err
		}
		return c.sentAway(p)
	case typeHello:
		return violate("a second HELLO")
	}
	return c.skip(h)
}

// sentAway hears that the other side takes nothing new: streams it did not
// begin are surely without effect.
func (c *conn) sentAway(p []byte) error {
	last := binary.BigEndian.Uint64(p)
	e, err := parseNotice(p[8:])
	if err != nil {
		return err
	}
	if e.Code != fault.Draining {
		return fmt.Errorf("sent away by the other side: %w", e)
	}
	if !c.dialled {
		return violate("a GOAWAY for draining from the side that dialled")
	}
	c.mu.Lock()
	c.away = true
	for id, s := range c.streams {
		if id > last {
			c.end(s, fault.Wrap(fault.PeerUnreachable, ErrNotSent, "%s is draining: %s", c.peer.State, e.Detail))
			delete(c.streams, id)
		}
	}
	idle := len(c.streams) == 0
	c.mu.Unlock()
	c.l.unpool(c)
	if idle {
		c.finished()
	}
	return nil
}

// beat pings, and asks again whether this connection may live.
func (c *conn) beat() {
	t := time.NewTicker(c.l.cfg.Ping)
	defer t.Stop()
	for n := uint64(1); ; n++ {
		c.pinged.Store(c.l.deps.Now().UnixNano())
		c.mu.Lock()
		c.put(func(b []byte) []byte { return appendPing(b, typePing, n) })
		c.mu.Unlock()
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
		}
		c.noise.Store(0)
		if c.ponged.Load() != n {
			c.fail(fmt.Errorf("no answer to a ping in %v", c.l.cfg.Ping))
			return
		}
		if err := c.review(); err != nil {
			c.l.deps.Log.Warn("link: peer is no longer accepted", "peer", c.peer.State, "addr", c.peer.Addr, "err", err)
			c.fail(err)
			return
		}
	}
}

// stillPeer holds the peer's certificate against the directory of today.
func (c *conn) stillPeer() error {
	p, err := c.l.deps.Authenticate(c.tls)
	if err != nil {
		return fmt.Errorf("the peer's certificate is no longer accepted: %w", err)
	}
	if p.State != c.peer.State {
		return fmt.Errorf("the peer's certificate is now one of %s, not of %s", p.State, c.peer.State)
	}
	return nil
}

// review holds a live connection against the directory and our certificate of
// today, and closes it where nobody calls any more.
func (c *conn) review() error {
	if err := c.stillPeer(); err != nil {
		return err
	}
	if own, err := c.l.deps.Certificate(); err == nil && len(own.Certificate) > 0 && !bytes.Equal(own.Certificate[0], c.cert) {
		c.retire("the node's certificate is renewed")
	}
	c.mu.Lock()
	idle := c.dialled && len(c.streams) == 0 && c.l.deps.Now().Sub(c.used) > c.l.cfg.Idle
	c.mu.Unlock()
	if idle {
		c.retire("idle")
	}
	return nil
}

func (c *conn) describe() Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Connection{
		Peer: c.peer, Dialled: c.dialled, Since: c.since, RTT: time.Duration(c.rtt.Load()),
		Streams: len(c.streams), Version: c.version, Software: c.hello.software,
	}
}
