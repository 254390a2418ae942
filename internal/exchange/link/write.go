package link

import (
	"context"
	"runtime"
)

// put appends frames to what the writer takes next. Under mu. It never waits:
// callers whose frames are not bounded otherwise call wait first.
func (c *conn) put(frames func([]byte) []byte) {
	if c.err != nil || c.closing {
		return
	}
	n := len(c.pending)
	c.pending = frames(c.pending)
	c.queued.Add(uint64(len(c.pending) - n))
	c.kick()
}

func (c *conn) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// wait returns, under mu, once pending has room, or ctx or the connection
// ended. It is called and returns with mu held.
func (c *conn) wait(ctx context.Context) error {
	for len(c.pending) > maxPending && c.err == nil {
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return c.err
}

// write is the connection's one writer. Before it takes what is queued it
// yields until the queue stops growing: runnable callers put their frames into
// the same write, which costs no wait when there are none. Of large bodies it
// takes one chunk a write, after all small frames: so none of these ever waits
// for more than one chunk.
func (c *conn) write() {
	var out []byte
	for {
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return
		}
		for {
			for n, i := c.queued.Load(), 0; i < 8; i++ {
				runtime.Gosched()
				m := c.queued.Load()
				if m == n {
					break
				}
				n = m
			}
			c.mu.Lock()
			if c.err != nil {
				c.mu.Unlock()
				return
			}
			out = c.gather(out)
			if len(out) == 0 {
				last := c.closing
				c.mu.Unlock()
				if last {
					close(c.flushed)
					return
				}
				break
			}
			c.mu.Unlock()
			if _, err := c.nc.Write(out); err != nil {
				c.fail(err)
				return
			}
			if cap(out) > 8*maxChunk {
				out = nil // a rare large envelope does not keep its buffer
			}
		}
	}
}

// gather swaps pending with the writer's former buffer and adds what else is
// due. Under mu.
func (c *conn) gather(former []byte) []byte {
	out := c.pending
	c.pending = former[:0]
	c.taken += uint64(len(out))
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	if c.pong != nil {
		out = appendPing(out, typePong, *c.pong)
		c.pong = nil
	}
	for len(c.bulk) > 0 {
		s := c.bulk[0]
		c.bulk[0] = nil
		c.bulk = c.bulk[1:]
		if s.chunk == nil {
			continue // its stream ended meanwhile
		}
		out = appendHeader(out, header{length: uint32(len(s.chunk)), typ: typeBody, stream: s.id})
		out = append(out, s.chunk...)
		s.chunk = nil
		s.cond.Broadcast()
		break
	}
	return out
}
