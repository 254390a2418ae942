package link

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/falaj/falaj/internal/fault"
)

// stream is one call on a connection, at either side.
type stream struct {
	c  *conn
	id uint64
	at uint64 // bytes queued before its opening frame: what was not taken was not sent

	// Under conn.mu.
	ended bool
	muted bool      // our body is not wanted any more
	sends int64     // credit for our body
	chunk []byte    // what the writer is to take
	cond  sync.Cond // on conn.mu: credit came, the chunk was taken, the stream is muted
	in    *inflow   // the large body that we receive

	query  bool        // wants REPLY, not ANSWER
	answer chan answer // the caller's side; room for one
	cancel func(error) // the handler's side
}

type answer struct {
	msg *Message
	err error
}

// end marks a stream as over and tells whoever waits on it. Under mu; the
// caller takes it out of the map.
func (c *conn) end(s *stream, why error) {
	if s.ended {
		return
	}
	s.ended, s.muted = true, true
	s.cond.Broadcast()
	if s.in != nil {
		s.in.abort(why)
	}
	if s.cancel != nil {
		s.cancel(why)
	}
	if s.answer != nil {
		select {
		case s.answer <- answer{err: why}:
		default: // it has its answer; the body tells the error
		}
	}
}

// remove takes a stream out of the map once nothing more of it may come or go,
// and closes a retired connection after its last one.
func (c *conn) remove(s *stream, why error) {
	c.mu.Lock()
	if c.streams[s.id] != s {
		c.mu.Unlock()
		return
	}
	delete(c.streams, s.id)
	c.end(s, why)
	last := c.away && len(c.streams) == 0 && c.err == nil
	c.mu.Unlock()
	if last {
		c.finished()
	}
}

// reset ends a stream and tells the other side why.
func (c *conn) reset(s *stream, e *fault.Error, flags byte) {
	c.mu.Lock()
	if !s.ended && c.err == nil {
		c.put(func(b []byte) []byte { return appendReset(b, s.id, e, flags) })
	}
	c.mu.Unlock()
	c.remove(s, e)
}

// credit hears WINDOW.
func (c *conn) credit(id uint64, n uint32) error {
	if n == 0 {
		return violate("a WINDOW of nothing")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.find(id)
	if err != nil || s == nil {
		return err
	}
	s.sends = min(s.sends+int64(n), 1<<40)
	s.cond.Broadcast()
	return nil
}

// find gives a live stream, or nil for one that has ended: frames about it may
// still be on their way. One that was never opened is a violation. Under mu.
func (c *conn) find(id uint64) (*stream, error) {
	if s := c.streams[id]; s != nil {
		c.noise = max(0, c.noise-1)
		return s, nil
	}
	if id > c.last {
		return nil, violate("stream %d was never opened", id)
	}
	c.noise++
	return nil, nil
}

// chunk hears BODY.
func (c *conn) chunk(h header) error {
	c.mu.Lock()
	s, err := c.find(h.stream)
	var in *inflow
	if s != nil {
		in = s.in
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	left := int(h.length)
	if s != nil {
		e := fault.New(fault.MessageMalformed, "a body beyond its declared size")
		if in != nil {
			e = in.expect(left)
		}
		if e != nil {
			e.Cause = c.blame()
			c.reset(s, e, 0)
			in = nil
		}
	}
	if in == nil {
		_, err := c.br.Discard(left)
		return err
	}
	for left > 0 {
		if _, err := c.br.Peek(1); err != nil {
			return err
		}
		b, err := c.br.Peek(min(left, c.br.Buffered()))
		if err != nil {
			return err
		}
		in.add(b)
		left -= len(b)
		if _, err := c.br.Discard(len(b)); err != nil {
			return err
		}
	}
	if in.whole() && c.dialled {
		c.remove(s, nil)
	}
	return nil
}

// blame is what a caller must think of a call that the peer's fault ended.
func (c *conn) blame() error {
	if c.dialled {
		return ErrBroken
	}
	return nil
}

// wasReset hears RESET.
func (c *conn) wasReset(h header, p []byte) error {
	e, err := parseNotice(p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	s, err := c.find(h.stream)
	c.mu.Unlock()
	if err != nil || s == nil {
		return err
	}
	switch {
	case !c.dialled:
	case h.flags == flagNotBegun:
		e.Cause = ErrNotSent
	default:
		e.Cause = ErrRefused
	}
	c.remove(s, e)
	return nil
}

// pump sends a large body: chunk after chunk as credit allows, each when the
// writer comes to it. It returns when all is handed over, the stream has
// ended, or the body failed, and then resets the stream.
func (c *conn) pump(s *stream, body io.Reader, size int64) {
	buf := chunks.Get().(*[maxChunk]byte)
	defer chunks.Put(buf)
	for size > 0 {
		c.mu.Lock()
		for s.sends == 0 && !s.muted {
			s.cond.Wait()
		}
		n := min(size, s.sends, maxChunk)
		s.sends -= n
		muted := s.muted
		c.mu.Unlock()
		if muted {
			return
		}
		size -= n
		if err := readExactly(body, buf[:n], size == 0); err != nil {
			// Our own fault; the peer may have begun.
			e := fault.Wrap(fault.BodyTruncated, err, "the body ended early or late")
			if c.dialled {
				e.Cause = errors.Join(ErrBroken, err)
			}
			c.reset(s, e, 0)
			return
		}
		c.mu.Lock()
		if !s.muted {
			s.chunk = buf[:n]
			c.bulk = append(c.bulk, s)
			c.kick()
		}
		for s.chunk != nil && !s.muted {
			s.cond.Wait()
		}
		s.chunk = nil
		muted = s.muted
		c.mu.Unlock()
		if muted {
			return
		}
	}
}

var chunks = sync.Pool{New: func() any { return new([maxChunk]byte) }}

// inflow is a large body as it arrives: at most its window is held; credit
// goes back as its reader takes.
type inflow struct {
	c    *conn
	s    *stream
	stop func() bool // of the context's watch, or nil

	mu     sync.Mutex
	cond   sync.Cond
	buf    []byte
	r      int   // read up to here
	left   int64 // not yet arrived
	credit int64 // what the peer may still send
	window int64 // most that is held or under way
	taken  int64 // of Link.memory
	err    error
	closed bool
}

func newInflow(c *conn, s *stream, size int64) *inflow {
	in := &inflow{c: c, s: s, left: size, credit: firstCredit, window: firstCredit}
	in.cond.L = &in.mu
	return in
}

// expect accounts for an arriving chunk.
func (in *inflow) expect(n int) *fault.Error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case int64(n) > in.left:
		return fault.New(fault.MessageMalformed, "a body beyond its declared size")
	case int64(n) > in.credit:
		return fault.New(fault.MessageMalformed, "a body beyond its credit")
	}
	in.left -= int64(n)
	in.credit -= int64(n)
	return nil
}

// add takes a piece of an expected chunk.
func (in *inflow) add(b []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed || in.err != nil {
		return
	}
	if in.r > 0 && len(in.buf)+len(b) > cap(in.buf) {
		in.buf = in.buf[:copy(in.buf, in.buf[in.r:])]
		in.r = 0
	}
	in.buf = append(in.buf, b...)
	in.cond.Broadcast()
}

func (in *inflow) whole() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.left == 0
}

// abort makes the rest unreadable, unless all is here.
func (in *inflow) abort(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.left > 0 && in.err == nil {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		in.err = err
	}
	in.release()
	in.cond.Broadcast()
}

// release gives the window's memory back. Under mu.
func (in *inflow) release() {
	in.c.l.memory.Add(-in.taken)
	in.taken = 0
}

// Read waits for bytes of the body.
func (in *inflow) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	in.mu.Lock()
	for in.r == len(in.buf) && in.left > 0 && in.err == nil && !in.closed {
		in.cond.Wait()
	}
	switch {
	case in.closed:
		in.mu.Unlock()
		return 0, errors.New("read of a closed body")
	case in.err != nil:
		in.mu.Unlock()
		return 0, in.err
	case in.r == len(in.buf):
		in.mu.Unlock()
		return 0, io.EOF
	}
	n := copy(p, in.buf[in.r:])
	in.r += n
	if in.r == len(in.buf) {
		in.buf, in.r = in.buf[:0], 0
	}
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
// gets a larger window, where the link's memory allows. Under mu.
func (in *inflow) grant() int64 {
	held := int64(len(in.buf) - in.r)
	if in.credit >= in.left || in.credit+held > in.window/2 {
		return 0
	}
	if more := int64(in.c.l.cfg.Window) - in.window; more > 0 && in.left > in.window {
		if in.c.l.memory.Add(more) <= in.c.l.cfg.Memory {
			in.taken += more
			in.window += more
		} else {
			in.c.l.memory.Add(-more)
		}
	}
	n := min(in.window-in.credit-held, in.left-in.credit)
	in.credit += n
	return n
}

// Close ends the reading. At the caller's side an unfinished call is reset; at
// the handler's the answer does that.
func (in *inflow) Close() error {
	in.mu.Lock()
	was := in.closed
	in.closed = true
	in.buf, in.r = nil, 0
	in.release()
	left := in.left
	stop := in.stop
	in.cond.Broadcast()
	in.mu.Unlock()
	if stop != nil {
		stop()
	}
	if !was && left > 0 && in.c.dialled {
		in.c.reset(in.s, fault.New(fault.Timeout, "the body is no longer wanted"), 0)
	}
	return nil
}

// watch aborts the call when ctx ends before the body does.
func (in *inflow) watch(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		e := fault.Wrap(fault.Timeout, errors.Join(ErrBroken, ctx.Err()), "the answer's body did not arrive in time")
		in.c.reset(in.s, e, 0)
	})
	in.mu.Lock()
	in.stop = stop
	in.mu.Unlock()
}
