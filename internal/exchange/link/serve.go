package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// Serve accepts connections until ctx ends, Drain or Close is called (nil), or
// the listener fails. Accepted connections live on: Drain and Close end them.
func (l *Link) Serve(ctx context.Context, ln net.Listener) error {
	l.mu.Lock()
	if l.draining {
		l.mu.Unlock()
		ln.Close()
		return nil
	}
	l.listeners[ln] = struct{}{}
	l.wg.Add(1)
	l.mu.Unlock()
	defer l.wg.Done()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer func() {
		ln.Close()
		l.mu.Lock()
		delete(l.listeners, ln)
		l.mu.Unlock()
	}()
	for pause := time.Duration(0); ; {
		raw, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
		case ctx.Err() != nil || l.stopping():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept link connections: %w", err)
		default:
			// Out of file descriptors, say: it passes.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.deps.Log.Warn("link: accept failed", "err", err)
			select {
			case <-ctx.Done():
			case <-l.ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		ip, ok := l.admit(raw)
		if !ok {
			raw.Close()
			continue
		}
		l.wg.Go(func() { l.accept(raw, ip) })
	}
}

func (l *Link) stopping() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.draining
}

// admit is the cheapest check: a handshake costs a signature and 10 seconds at
// most, so few may be under way, and fewer from one address.
func (l *Link) admit(raw net.Conn) (ip string, ok bool) {
	ip, _, err := net.SplitHostPort(raw.RemoteAddr().String())
	if err != nil {
		ip = raw.RemoteAddr().String()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining || l.handshake >= l.cfg.MaxHandshakes || l.shaking[ip] >= max(1, l.cfg.MaxHandshakes/4) {
		return ip, false
	}
	l.handshake++
	l.shaking[ip]++
	return ip, true
}

func (l *Link) admitted(ip string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handshake--
	if l.shaking[ip]--; l.shaking[ip] == 0 {
		delete(l.shaking, ip)
	}
}

// accept carries one accepted connection from its handshake to its end.
func (l *Link) accept(raw net.Conn, ip string) {
	c, err := l.welcome(raw)
	l.admitted(ip)
	if err != nil {
		raw.Close()
		n := l.turned.Add(1)
		l.warn.Do(func() {
			l.deps.Log.Warn("link: connection refused", "addr", raw.RemoteAddr().String(), "err", err, "refused", n)
		})
		return
	}
	c.run()
}

func (l *Link) welcome(raw net.Conn) (*conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	var id identity
	return l.establish(ctx, raw, tls.Server(raw, l.config("", &id)), &id, raw.RemoteAddr().String(), false)
}

// establish makes a connection of a socket, all within ctx: TLS, registering,
// HELLO. In this order, because after HELLO the other side may call.
func (l *Link) establish(ctx context.Context, raw net.Conn, nc *tls.Conn, id *identity, addr string, dialled bool) (*conn, error) {
	tune(raw)
	if err := nc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	id.peer.Addr = addr
	c := newConn(l, raw, nc, id.peer, dialled)
	c.tls, c.cert = nc.ConnectionState(), id.cert
	err := l.register(c)
	if err == nil {
		err = c.greet()
	} else if !dialled {
		c.turnAway(err)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.fail(err)
		l.forget(c)
		return nil, err
	}
	return c, nil
}

// turnAway says GOAWAY in the place of HELLO.
func (c *conn) turnAway(err error) {
	if c.nc.SetDeadline(time.Now().Add(farewellTime)) != nil {
		return
	}
	if _, err := c.nc.Write(appendGoaway(nil, 0, fault.From(err))); err == nil {
		_, _ = c.hear() // what is unread when a socket closes can destroy what was written
	}
}

// register enters a connection among the live ones, and only then asks again
// who it is: a revocation between handshake and registering would find it in
// neither place.
func (l *Link) register(c *conn) error {
	if err := l.enter(c); err != nil {
		return err
	}
	p, err := l.deps.Authenticate(c.tls)
	if err != nil {
		return err
	}
	if p.State != c.peer.State {
		return fault.New(fault.PeerRefused, "a node of %s, before of %s", p.State, c.peer.State)
	}
	return nil
}

func (l *Link) enter(c *conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining {
		return fault.New(fault.Draining, "")
	}
	if !c.dialled {
		load := l.loads[c.peer.State]
		if load == nil {
			load = &loadOf{}
			l.loads[c.peer.State] = load
		}
		if load.conns >= l.cfg.MaxConns {
			return fault.New(fault.Overloaded, "%d connections from %s", load.conns, c.peer.State)
		}
		load.conns++
		c.load = load
	}
	l.conns[c] = struct{}{}
	return nil
}

// forget takes an ended connection out.
func (l *Link) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[c]; !ok {
		return
	}
	delete(l.conns, c)
	if c.load != nil {
		c.load.conns--
	}
	if l.draining && len(l.conns) == 0 {
		close(l.empty)
	}
}

// opened hears REQUEST or QUERY and starts its handler.
func (c *conn) opened(h header) error {
	if c.dialled {
		return violate("a call from the side that accepted")
	}
	p, err := c.payload(h)
	if err != nil {
		return err
	}
	o, err := parseOpening(h.typ, h.flags, p)
	if err != nil {
		return err
	}
	c.useful()
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.stream <= c.last {
		return violate("stream %d opened after stream %d", h.stream, c.last)
	}
	c.last = h.stream
	if c.err != nil {
		return c.err
	}
	held := weigh(h, o)
	if e := c.refusal(h.typ, o, held); e != nil {
		// This answer waits for room: who calls without reading, waits too.
		if err := c.wait(c.ctx); err != nil {
			return err
		}
		c.put(func(b []byte) []byte { return appendReset(b, h.stream, e, flagNotBegun) })
		return nil
	}
	c.begun = h.stream
	d := c.l.cfg.MaxDeadline
	if o.deadline > 0 {
		d = min(d, time.Duration(o.deadline)*time.Millisecond)
	}
	s := &stream{c: c, id: h.stream, query: h.typ == typeQuery, sends: firstCredit}
	s.cond.L = &c.mu
	m := NewMessage(o.head, o.inline)
	if o.held {
		s.hold = &hold{s: s, over: make(chan struct{})}
		m.hold = s.hold
	}
	if o.size > maxInline {
		s.in = newInflow(c, s, int64(o.size))
		m.Body, m.Size = s.in, int64(o.size)
	}
	ctx, cancel := context.WithTimeout(c.ctx, d)
	s.cancel = cancel
	c.streams[s.id] = s
	c.l.wg.Go(func() {
		defer c.load.free(held)
		defer cancel()
		c.handle(ctx, s, m)
	})
	return nil
}

// weigh gives the memory that a call may take until it ends: its opening
// frame unless small, the first credit of its body, the whole body of a query.
func weigh(h header, o opening) (held int64) {
	if h.length > freeOpening {
		held = int64(h.length)
	}
	switch {
	case o.size <= maxInline:
	case h.typ == typeQuery:
		held += int64(min(o.size, math.MaxInt32))
	default:
		held += firstCredit
	}
	return held
}

func (l *loadOf) free(held int64) {
	l.streams.Add(-1)
	l.held.Add(-held)
}

// refusal says why a call is not begun, and counts it if it is. Under mu.
func (c *conn) refusal(typ byte, o opening, held int64) *fault.Error {
	most := uint64(c.l.cfg.MaxBody)
	if typ == typeQuery {
		most = uint64(c.l.cfg.MaxQuery)
	}
	switch {
	case c.away:
		return fault.New(fault.Draining, "")
	case o.size > most:
		return fault.New(fault.TooLarge, "a body of %d bytes; at most %d", o.size, most)
	case len(o.head) > c.l.cfg.MaxEnvelope:
		return fault.New(fault.TooLarge, "an envelope of %d bytes; at most %d", len(o.head), c.l.cfg.MaxEnvelope)
	}
	streams, bytes := c.load.streams.Add(1), c.load.held.Add(held)
	if streams > int64(c.l.cfg.MaxStreams) || bytes > c.l.cfg.MaxHeld && held > 0 {
		c.load.free(held)
		return fault.New(fault.Overloaded, "%d calls of %s at work, holding %d bytes", streams-1, c.peer.State, bytes-held)
	}
	return nil
}

// handle runs the handler and sends what it answers.
func (c *conn) handle(ctx context.Context, s *stream, m *Message) {
	if s.in != nil {
		s.in.watch(ctx)
		defer s.in.Close()
	}
	if err := c.attempt(ctx, s, m); err != nil {
		var flags byte
		if errors.Is(err, ErrNotSent) {
			flags = flagNotBegun
		}
		c.reset(s, fault.From(err), flags)
	}
}

// attempt answers a call; a panic on the way costs that call, not the node.
func (c *conn) attempt(ctx context.Context, s *stream, m *Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			f := fault.New(fault.Internal, "")
			what := fmt.Sprintf("%T", r) // a value could hold personal data
			if re, ok := r.(runtime.Error); ok {
				what = re.Error()
			}
			c.l.deps.Log.Error("link: handler panicked", "peer", c.peer.State, "panic", what, "support", f.ID, "stack", string(debug.Stack()))
			err = f
		}
	}()
	out, err := c.invoke(ctx, s, m)
	if s.in != nil {
		s.in.Close()
	}
	if err != nil {
		return err
	}
	return c.reply(ctx, s, out)
}

func (c *conn) invoke(ctx context.Context, s *stream, m *Message) (*Message, error) {
	if !s.query {
		return c.l.h.Exchange(ctx, c.peer, m)
	}
	body, err := m.all(c.l.cfg.MaxQuery)
	if err != nil {
		return nil, err
	}
	body, err = c.l.h.Query(ctx, c.peer, string(m.Envelope), body)
	return NewMessage(nil, body), err
}

// reply sends an answer, its large body included, and ends the stream. An
// error means that nothing was sent, or nothing that counts.
func (c *conn) reply(ctx context.Context, s *stream, m *Message) error {
	if m == nil {
		return fault.New(fault.Internal, "")
	}
	defer m.close()
	held := func() ([]byte, error) { return nil, nil }
	if m.Hold != nil {
		held = sync.OnceValues(m.Hold)
		defer func() { _, _ = held() }() // what came of the call is true also where nobody hears it
	}
	if e := m.check(c.l.cfg); e != nil {
		return e
	}
	o := opening{held: m.Hold != nil, size: uint64(m.Size), head: m.Envelope}
	if m.Size > maxInline {
		if _, err := held(); err != nil {
			return err
		}
	}
	if m.Size <= maxInline {
		var err error
		if o.inline, err = m.inline(); err != nil {
			return fault.Wrap(fault.Internal, err, "")
		}
	}
	typ := byte(typeAnswer)
	if s.query {
		typ = typeReply
	}
	c.mu.Lock()
	if len(c.pending) > maxPending {
		// What came of the call does not wait until its caller reads.
		c.mu.Unlock()
		if _, err := held(); err != nil {
			return err
		}
		c.mu.Lock()
	}
	if err := c.wait(ctx); err != nil {
		c.mu.Unlock()
		return err
	}
	if s.ended {
		c.mu.Unlock()
		return nil
	}
	c.put(func(b []byte) []byte { return appendOpening(b, typ, s.id, o) })
	c.mu.Unlock()
	if o.held {
		word, err := held()
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.release(s, word)
		c.mu.Unlock()
	}
	if m.Size > maxInline {
		stop := context.AfterFunc(ctx, func() { c.reset(s, fault.New(fault.Timeout, "the answer's body was not taken in time"), 0) })
		c.pump(s, m.Body, m.Size)
		stop()
	}
	c.remove(s, nil)
	return nil
}
