package link

import (
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
	hold  *hold     // the reserve of the message that we received

	// Under conn.mu: what keeps small frames from costing more than they carry.
	bodies, windows int64 // frames that came
	came, went      int64 // bytes of body

	query  bool        // wants REPLY, not ANSWER
	answer chan answer // the caller's side; room for one
	cancel func()      // the handler's side
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
	if s.hold != nil {
		if why == nil && !s.hold.ended() {
			why = fault.New(fault.MessageMalformed, "the call ended with a message that was not released")
		}
		s.hold.end(nil, why)
	}
	if s.cancel != nil {
		s.cancel()
	}
	if s.answer != nil {
		select {
		case s.answer <- answer{err: why}:
		default: // it has its answer; the body tells the error
		}
	}
}

// drop takes a stream out of the map and tells whether it was the last one of
// a retired connection, which is then finished. Under mu.
func (c *conn) drop(s *stream) (last bool) {
	if c.streams[s.id] != s {
		return false
	}
	delete(c.streams, s.id)
	return c.away && len(c.streams) == 0 && c.err == nil
}

// remove ends a stream of which nothing more may come or go.
func (c *conn) remove(s *stream, why error) {
	c.mu.Lock()
	last := c.drop(s)
	c.end(s, why)
	c.mu.Unlock()
	if last {
		c.finished()
	}
}

// end says that a message is released, or why it never will be. Under mu.
func (h *hold) end(word []byte, why error) {
	if !h.ended() {
		h.word, h.err = word, why
		close(h.over)
	}
}

func (h *hold) ended() bool {
	select {
	case <-h.over:
		return true
	default:
		return false
	}
}

// released hears RELEASE.
func (c *conn) released(h header, word []byte) error {
	c.mu.Lock()
	s, err := c.find(h.stream)
	if err != nil || s == nil {
		c.mu.Unlock()
		return err
	}
	if s.hold == nil {
		c.mu.Unlock()
		return violate("RELEASE of stream %d, which is not held", h.stream)
	}
	if s.hold.ended() {
		c.mu.Unlock()
		return violate("a second RELEASE of stream %d", h.stream)
	}
	s.hold.end(word, nil)
	whole := c.dialled && (s.in == nil || s.in.whole())
	if s.hold.forget != nil {
		s.hold.forget()
	}
	c.mu.Unlock()
	if whole {
		c.remove(s, nil)
	}
	return nil
}

// release tells the other side that a held message counts. Under mu.
func (c *conn) release(s *stream, word []byte) {
	if !s.ended {
		c.put(func(b []byte) []byte {
			return append(appendHeader(b, header{length: uint32(len(word)), typ: typeRelease, stream: s.id}), word...)
		})
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
	if s.windows++; s.windows > maxSmall+s.went/minFrame {
		return violate("%d WINDOW frames for %d bytes", s.windows, s.went)
	}
	s.sends = min(s.sends+int64(n), 1<<40)
	s.cond.Broadcast()
	return nil
}

// find gives a live stream, or nil for one that has ended: frames about it may
// still be on their way. One that was never opened is a violation. Under mu.
func (c *conn) find(id uint64) (*stream, error) {
	if s := c.streams[id]; s != nil {
		c.useful()
		return s, nil
	}
	if id > c.last {
		return nil, violate("stream %d was never opened", id)
	}
	c.noise.Add(1)
	return nil, nil
}

// chunk hears BODY.
func (c *conn) chunk(h header) error {
	c.mu.Lock()
	s, err := c.find(h.stream)
	var in *inflow
	if s != nil {
		in = s.in
		s.bodies, s.came = s.bodies+1, s.came+int64(h.length)
		if s.bodies > maxSmall+s.came/minFrame {
			err = violate("%d BODY frames with %d bytes", s.bodies, s.came)
		}
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	left := int(h.length)
	if s != nil && (in == nil || !in.expect(left)) {
		e := fault.New(fault.MessageMalformed, "a body beyond its declared size or its credit")
		if c.dialled {
			e.Cause = ErrBroken
		}
		c.reset(s, e, 0)
		in = nil
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
	if in.whole() && c.dialled && (s.hold == nil || s.hold.ended()) {
		c.remove(s, nil)
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
		if e.Code == fault.Draining { // they are; this node is not
			e.Code = fault.PeerUnreachable
		}
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
	for size > 0 {
		c.mu.Lock()
		for s.sends == 0 && !s.muted {
			s.cond.Wait()
		}
		n := min(size, s.sends, maxChunk)
		s.sends -= n
		s.went += n
		muted := s.muted
		c.mu.Unlock()
		if muted {
			return
		}
		size -= n
		if !c.pass(s, body, n, size == 0) {
			return
		}
	}
}

// pass sends one chunk of n bytes and tells whether the next is wanted. A
// buffer is taken only now: a stream that waits for credit holds none.
func (c *conn) pass(s *stream, body io.Reader, n int64, last bool) bool {
	buf := c.l.chunks.Get().(*[maxChunk]byte)
	defer c.l.chunks.Put(buf)
	if err := readExactly(body, buf[:n], last); err != nil {
		// Our own fault; the peer may have begun.
		e := fault.Wrap(fault.BodyTruncated, err, "the body ended early or late")
		if c.dialled {
			e.Cause = errors.Join(ErrBroken, err)
		}
		c.reset(s, e, 0)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.muted {
		s.chunk = buf[:n]
		c.bulk = append(c.bulk, s)
		c.kick()
	}
	for s.chunk != nil && !s.muted {
		s.cond.Wait()
	}
	s.chunk = nil
	return !s.muted
}
