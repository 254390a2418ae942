package link

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/falaj/falaj/internal/fault"
)

// inflow is a large body as it arrives. It holds at most its window; credit
// goes back to the sender as the reader takes, so that a slow reader stalls
// its own body and nothing else.
type inflow struct {
	c *conn
	s *stream

	mu     sync.Mutex
	cond   sync.Cond
	ring   *[]byte // from Link.rings; nil until bytes come and after the end
	r, n   int     // the ring's n bytes from r wait for the reader
	left   int64   // declared, not yet here
	credit int64   // what the peer may still send
	window int64   // most that waits or is under way
	more   int64   // of Link.memory
	err    error
	closed bool
	stop   func() bool // ends the watch over the context
}

func newInflow(c *conn, s *stream, size int64) *inflow {
	in := &inflow{c: c, s: s, left: size, credit: firstCredit, window: firstCredit}
	in.cond.L = &in.mu
	return in
}

// expect tells whether an arriving chunk is within its credit, which is never
// more than what is left of the declared size.
func (in *inflow) expect(n int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return int64(n) <= in.credit
}

// add takes a piece of an expected chunk.
func (in *inflow) add(b []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.left -= int64(len(b))
	in.credit -= int64(len(b))
	if in.closed || in.err != nil {
		return
	}
	in.grow(in.n + len(b))
	ring := *in.ring
	at := (in.r + in.n) % len(ring)
	copy(ring, b[copy(ring[at:], b):])
	in.n += len(b)
	in.cond.Broadcast()
}

// grow makes room for n bytes, at most the window. Under mu.
func (in *inflow) grow(n int) {
	if in.ring == nil {
		in.ring = in.c.l.rings.Get().(*[]byte)
	}
	old := *in.ring
	if n <= len(old) {
		return
	}
	size := max(n, firstCredit)
	if n > firstCredit {
		size = int(in.window)
	}
	*in.ring = make([]byte, size)
	if in.n > 0 {
		k := copy(*in.ring, old[in.r:min(len(old), in.r+in.n)])
		copy((*in.ring)[k:], old[:in.n-k])
	}
	in.r = 0
}

// release gives back what the body held. Under mu.
func (in *inflow) release() {
	if in.ring != nil {
		in.c.l.rings.Put(in.ring)
		in.ring, in.r, in.n = nil, 0, 0
	}
	in.c.l.memory.Add(-in.more)
	in.more = 0
}

func (in *inflow) whole() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.left == 0
}

// abort makes the body unreadable, unless all of it is here.
func (in *inflow) abort(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.left == 0 || in.err != nil || in.closed {
		return
	}
	if in.err = err; err == nil {
		in.err = io.ErrUnexpectedEOF
	}
	in.release()
	in.cond.Broadcast()
}

// Read waits for bytes of the body.
func (in *inflow) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	in.mu.Lock()
	for in.n == 0 && in.left > 0 && in.err == nil && !in.closed {
		in.cond.Wait()
	}
	switch {
	case in.closed:
		in.mu.Unlock()
		return 0, errors.New("read of a closed body")
	case in.err != nil:
		in.mu.Unlock()
		return 0, in.err
	case in.n == 0:
		in.release()
		in.mu.Unlock()
		return 0, io.EOF
	}
	ring := *in.ring
	n := copy(p, ring[in.r:min(len(ring), in.r+in.n)])
	if n < len(p) {
		n += copy(p[n:], ring[:max(0, in.r+in.n-len(ring))])
	}
	in.r, in.n = (in.r+n)%len(ring), in.n-n
	grant := in.grant()
	in.mu.Unlock()
	if grant > 0 {
		in.c.mu.Lock()
		if !in.s.ended {
			in.c.put(func(b []byte) []byte { return appendWindow(b, in.s.id, uint32(grant)) })
		}
		in.c.mu.Unlock()
	}
	return n, nil
}

// grant decides how much more the peer may send. A body that is being read
// gets a larger window where the link's memory allows. Under mu.
func (in *inflow) grant() int64 {
	if in.credit >= in.left || in.credit+int64(in.n) > in.window/2 {
		return 0
	}
	if more := int64(in.c.l.cfg.Window) - in.window; more > 0 && in.left > in.window {
		if in.c.l.memory.Add(more) <= in.c.l.cfg.Memory {
			in.more += more
			in.window += more
		} else {
			in.c.l.memory.Add(-more)
		}
	}
	n := min(in.window-int64(in.n), in.left) - in.credit
	in.credit += n
	return n
}

// Close ends the reading. At the caller's side an unfinished call is reset; at
// the handler's the answer does that.
func (in *inflow) Close() error {
	in.mu.Lock()
	unfinished := !in.closed && in.left > 0
	in.closed = true
	in.release()
	stop := in.stop
	in.cond.Broadcast()
	in.mu.Unlock()
	if stop != nil {
		stop()
	}
	if unfinished && in.c.dialled {
		in.c.reset(in.s, fault.New(fault.Timeout, "the body is no longer wanted"), 0)
	}
	return nil
}

// watch makes the body unreadable when ctx ends before all of it is here. At
// the caller's side that ends the call too.
func (in *inflow) watch(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		e := fault.Wrap(fault.Timeout, ctx.Err(), "the body did not arrive in time")
		if in.c.dialled {
			e.Cause = errors.Join(ErrBroken, ctx.Err())
			in.c.reset(in.s, e, 0)
			return
		}
		in.abort(e)
	})
	in.mu.Lock()
	in.stop = stop
	in.mu.Unlock()
}
