package link

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// address is where a state's node listens.
type address struct {
	state union.State
	addr  string
}

// node is what is known of one address that we call. Under Link.mu.
type node struct {
	conn    *conn    // live, takes calls; or nil
	dialing *attempt // under way; or nil
	fails   int      // in a row
	retry   time.Time
	err     error // of the last dial
}

// attempt is one dial, which any number of calls wait for.
type attempt struct {
	done chan struct{}
	conn *conn
	err  error
}

const firstBackoff = 50 * time.Millisecond

var errAway = errors.New("the connection takes no new calls")

// call sends a message and waits for the answer to it.
func (l *Link) call(ctx context.Context, to Target, typ byte, m *Message) (*Message, error) {
	o := opening{size: uint64(m.Size), head: m.Envelope}
	o.held = m.Hold != nil
	held := func() ([]byte, error) { return nil, nil }
	if o.held {
		held = sync.OnceValues(m.Hold)
	}
	if m.Size > maxInline {
		if _, err := held(); err != nil {
			m.close()
			return nil, err
		}
	}
	if m.Size <= maxInline {
		inline, err := m.inline()
		m.close()
		if err != nil {
			return nil, fault.Wrap(fault.BodyTruncated, errors.Join(ErrNotSent, err), "")
		}
		o.inline, m = inline, nil
	}
	for repeated := 0; ; {
		c, err := l.connect(ctx, to)
		if err != nil {
			if m != nil {
				m.close()
			}
			return nil, err
		}
		if err := c.stillPeer(); err != nil {
			// Perhaps it has a new certificate: a new connection will tell.
			c.fail(err)
			continue
		}
		s, err := c.open(ctx, typ, o, m)
		switch {
		case err == errAway: // between our finding it and our using it
			l.unpool(c)
			runtime.Gosched()
			continue
		case err != nil:
			if m != nil {
				m.close()
			}
			return nil, err
		}
		if o.held {
			word, err := held()
			if err != nil {
				c.reset(s, fault.New(fault.CodeOf(err), ""), 0)
				return nil, err
			}
			c.mu.Lock()
			c.release(s, word)
			c.mu.Unlock()
		}
		answer, err := c.await(ctx, s)
		// Surely not begun, and not for a reason of the call's own: a node
		// that drains has a neighbour, or will be back.
		if m == nil && repeated < 2 && errors.Is(err, ErrNotSent) && fault.CodeOf(err) == fault.PeerUnreachable {
			repeated++
			continue
		}
		return answer, err
	}
}

// open starts a stream, and a goroutine for its body if m is not nil.
func (c *conn) open(ctx context.Context, typ byte, o opening, m *Message) (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.wait(ctx); err != nil && c.err == nil {
		return nil, fault.Wrap(fault.Timeout, errors.Join(ErrNotSent, err), "%s takes no more bytes", c.peer.State)
	}
	if c.away || c.err != nil {
		return nil, errAway
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Timeout, errors.Join(ErrNotSent, err), "")
	}
	if at, ok := ctx.Deadline(); ok {
		left := (time.Until(at) + time.Millisecond - 1) / time.Millisecond
		o.deadline = uint32(min(max(left, 1), math.MaxUint32))
	}
	c.last++
	s := &stream{c: c, id: c.last, at: c.queued.Load(), query: typ == typeQuery, sends: firstCredit, answer: make(chan answer, 1)}
	s.cond.L = &c.mu
	c.streams[s.id] = s
	c.used = c.l.deps.Now()
	c.put(func(b []byte) []byte { return appendOpening(b, typ, s.id, o) })
	if m != nil {
		c.l.wg.Go(func() {
			defer m.close()
			c.pump(s, m.Body, m.Size)
		})
	}
	return s, nil
}

// await waits for the answer, or tells the peer that nobody does any more.
func (c *conn) await(ctx context.Context, s *stream) (*Message, error) {
	select {
	case a := <-s.answer:
		if a.err != nil {
			return nil, a.err
		}
		if in, ok := a.msg.Body.(*inflow); ok {
			in.watch(ctx)
		}
		if h := a.msg.hold; h != nil {
			c.mu.Lock()
			if !s.ended {
				h.forget = context.AfterFunc(ctx, func() { c.reset(s, fault.New(fault.Timeout, "the answer was not released in time"), 0) })
			}
			c.mu.Unlock()
		}
		return a.msg, nil
	case <-ctx.Done():
		// Even if it still waits for the socket, it goes out before this RESET.
		e := fault.Wrap(fault.Timeout, errors.Join(ErrBroken, ctx.Err()), "no answer from %s in time", c.peer.State)
		c.reset(s, e, 0)
		return nil, e
	}
}

// answered hears ANSWER or REPLY.
func (c *conn) answered(h header) error {
	if !c.dialled {
		return violate("an answer from the side that dialled")
	}
	c.mu.Lock()
	s, err := c.find(h.stream)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if s == nil {
		_, err := c.br.Discard(int(h.length))
		return err
	}
	p, err := c.payload(h)
	if err != nil {
		return err
	}
	o, err := parseOpening(h.typ, h.flags, p)
	if err != nil {
		return err
	}
	most := uint64(c.l.cfg.MaxBody)
	if s.query {
		most = uint64(c.l.cfg.MaxQuery)
	}
	switch {
	case s.query != (h.typ == typeReply):
		return violate("type %d answers stream %d", h.typ, h.stream)
	case o.size > most || len(o.head) > c.l.cfg.MaxEnvelope:
		c.reset(s, fault.Wrap(fault.TooLarge, ErrBroken, "an answer of %d bytes with a body of %d", len(o.head), o.size), 0)
		return nil
	}
	m := NewMessage(o.head, o.inline)
	c.mu.Lock()
	if s.ended {
		c.mu.Unlock()
		return nil
	}
	if s.in != nil || s.hold != nil {
		c.mu.Unlock()
		return violate("a second answer to stream %d", h.stream)
	}
	last := false
	if o.held {
		s.hold = &hold{s: s, over: make(chan struct{})}
		m.hold = s.hold
	}
	if o.size > maxInline {
		s.in = newInflow(c, s, int64(o.size))
		m.Body, m.Size = s.in, int64(o.size)
	}
	if s.in == nil && s.hold == nil {
		last = c.drop(s)
		s.ended = true
	}
	s.muted = true
	s.cond.Broadcast()
	s.answer <- answer{msg: m}
	c.mu.Unlock()
	if last {
		c.finished()
	}
	return nil
}

// connect finds a connection to the target: a live one, or a new one to the
// first of its addresses that answers.
func (l *Link) connect(ctx context.Context, to Target) (*conn, error) {
	l.mu.Lock()
	if l.draining {
		l.mu.Unlock()
		return nil, fault.Wrap(fault.Draining, ErrNotSent, "")
	}
	now := l.deps.Now()
	for i, addr := range to.Addrs {
		if c := l.node(to.State, addr).conn; c != nil {
			// A preferred address that failed before is tried again beside
			// the call, which need not wait for it.
			for _, before := range to.Addrs[:i] {
				l.dial(address{to.State, before}, now)
			}
			l.mu.Unlock()
			return c, nil
		}
	}
	err := errors.New("it has no address")
	for _, addr := range to.Addrs {
		a := l.dial(address{to.State, addr}, now)
		if a == nil {
			err = l.node(to.State, addr).err
			continue
		}
		l.mu.Unlock()
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.PeerUnreachable, errors.Join(ErrNotSent, ctx.Err()), "%s did not answer in time", to.State)
		}
		if a.err == nil {
			return a.conn, nil
		}
		err = a.err
		l.mu.Lock()
	}
	l.mu.Unlock()
	code := fault.PeerUnreachable
	if f := (*fault.Error)(nil); errors.As(err, &f) && f.Code != fault.Draining {
		code = f.Code // it answered, and one of us refused: a certificate, a version
	}
	return nil, fault.Wrap(code, errors.Join(ErrNotSent, err), "no connection to %s", to.State)
}

func (l *Link) node(state union.State, addr string) *node {
	n := l.nodes[address{state, addr}]
	if n == nil {
		n = &node{}
		l.nodes[address{state, addr}] = n
	}
	return n
}

// dial joins the attempt under way or starts one; nil while it is too soon
// after the last failure. Under mu.
func (l *Link) dial(a address, now time.Time) *attempt {
	n := l.node(a.state, a.addr)
	if n.dialing != nil || n.conn != nil {
		if n.conn != nil {
			done := make(chan struct{})
			close(done)
			return &attempt{done: done, conn: n.conn}
		}
		return n.dialing
	}
	if l.draining || now.Before(n.retry) {
		return nil
	}
	t := &attempt{done: make(chan struct{})}
	n.dialing = t
	l.wg.Go(func() {
		c, err := l.reach(a)
		l.mu.Lock()
		n.dialing, n.err = nil, err
		if err == nil {
			n.fails, n.retry = 0, time.Time{}
			n.conn = c
		} else {
			n.retry = l.deps.Now().Add(min(firstBackoff<<min(n.fails, 20), l.cfg.MaxBackoff))
			n.fails++
		}
		t.conn, t.err = c, err
		l.mu.Unlock()
		close(t.done)
		if err == nil {
			c.run()
		}
	})
	return t
}

// reach makes one new connection.
func (l *Link) reach(a address) (*conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.DialTimeout)
	defer cancel()
	raw, err := l.deps.Dial(ctx, "tcp", a.addr)
	if err != nil {
		return nil, err
	}
	var id identity
	c, err := l.establish(ctx, raw, tls.Client(raw, l.config(a.state, &id)), &id, a.addr, true)
	if err != nil {
		raw.Close()
	}
	return c, err
}

// unpool keeps new calls off a connection.
func (l *Link) unpool(c *conn) {
	if !c.dialled {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.nodes[address{c.peer.State, c.peer.Addr}]; n != nil && n.conn == c {
		n.conn = nil
	}
}
