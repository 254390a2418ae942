package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// TestSmallFirst: a small call waits for at most the one chunk of a large body
// that is being written, however much is queued. The pipe has no buffers, so
// the order of frames is the writer's.
func TestSmallFirst(t *testing.T) {
	l, w := bare(t, Config{Ping: time.Hour}, hands{}, true)
	w.want(typePing)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 5 {
		wg.Go(func() { l.Exchange(ctx, onPipe, NewMessage([]byte("large"), make([]byte, 10<<20))) })
	}
	var c *conn
	for c = range l.conns {
	}
	count := func() (opened uint64, queued int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last, len(c.bulk)
	}
	// All five have sent their REQUEST and credit for more; chunks are queued
	// and one is in the writer's hands.
	for range 5 {
		h, _ := w.want(typeRequest)
		w.send(appendWindow(nil, h.stream, 10<<20))
	}
	for i := range uint64(10) {
		h, _ := w.next()
		if h.typ != typeBody {
			t.Fatalf("type %d among the chunks", h.typ)
		}
		eventually(t, "the other bodies wait their turn", func() bool { _, queued := count(); return queued >= 4 })
		wg.Go(func() { l.Query(ctx, onPipe, "small", nil) })
		eventually(t, "the small call is queued", func() bool { opened, _ := count(); return opened == 6+i })
		chunks := 0
		for {
			h, _ := w.next()
			if h.typ == typeQuery {
				break
			}
			chunks++
		}
		if chunks > 1 {
			t.Fatalf("a small call waited for %d chunks", chunks)
		}
	}
	// And the large ones take turns.
	last := uint64(0)
	for range 10 {
		h, _ := w.want(typeBody)
		if h.stream == last {
			t.Fatalf("stream %d had two turns", last)
		}
		last = h.stream
	}
}

// TestOneWrite: calls that are made while the writer is busy leave in one write.
func TestOneWrite(t *testing.T) {
	l, w := bare(t, Config{Ping: time.Hour}, hands{}, true)
	w.want(typePing)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var c *conn
	for c = range l.conns {
	}
	wg.Go(func() { l.Query(ctx, onPipe, "first", nil) })
	eventually(t, "the first is being written", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last == 1 && len(c.pending) == 0
	})
	for range 50 {
		wg.Go(func() { l.Query(ctx, onPipe, "more", nil) })
	}
	eventually(t, "all are queued", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last == 51
	})
	b := make([]byte, 1<<20)
	n, err := w.Conn.Read(b)
	ok(t, err)
	if want := headerSize + requestHead + len("first"); n != want {
		t.Errorf("the first write has %d bytes, want %d", n, want)
	}
	n, err = w.Conn.Read(b)
	ok(t, err)
	if want := 50 * (headerSize + requestHead + len("more")); n != want {
		t.Errorf("the second write has %d bytes, want those of all fifty, %d", n, want)
	}
}

// TestBroken: the error of a call whose connection breaks tells whether the
// peer can have seen it.
func TestBroken(t *testing.T) {
	l, w := bare(t, Config{Ping: time.Hour}, hands{}, true)
	w.want(typePing)
	var c *conn
	for c = range l.conns {
	}
	seen, unseen := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := l.Exchange(t.Context(), onPipe, NewMessage([]byte("seen"), nil))
		seen <- err
	}()
	eventually(t, "the first is being written", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last == 1 && len(c.pending) == 0
	})
	go func() {
		_, err := l.Exchange(t.Context(), onPipe, NewMessage([]byte("unseen"), nil))
		unseen <- err
	}()
	eventually(t, "the second waits", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last == 2
	})
	w.Close()
	wantFault(t, <-seen, fault.PeerUnreachable, ErrBroken)
	wantFault(t, <-unseen, fault.PeerUnreachable, ErrNotSent)
	_, err := l.Exchange(t.Context(), onPipe, NewMessage(nil, nil))
	wantFault(t, err, fault.PeerUnreachable, ErrNotSent)
}

// TestHostileAnswers: what a caller takes from the side that accepted.
func TestHostileAnswers(t *testing.T) {
	answer := func(typ byte, size int, inline []byte) []byte {
		return appendOpening(nil, typ, 1, opening{size: uint64(size), inline: inline})
	}
	chunk := func(n int) []byte {
		return append(appendHeader(nil, header{length: uint32(n), typ: typeBody, stream: 1}), make([]byte, n)...)
	}
	for name, c := range map[string]struct {
		frames   []byte
		code     fault.Code
		sentinel error
		lives    bool
	}{
		"a call":                  {request(1, nil, nil, 0), fault.PeerUnreachable, ErrBroken, false},
		"REPLY to a REQUEST":      {answer(typeReply, 0, nil), fault.PeerUnreachable, ErrBroken, false},
		"two answers":             {append(answer(typeAnswer, 1<<20, nil), answer(typeAnswer, 1<<20, nil)...), fault.PeerUnreachable, ErrBroken, false},
		"answer to nothing":       {appendOpening(nil, typeAnswer, 7, opening{}), fault.PeerUnreachable, ErrBroken, false},
		"body before the answer":  {chunk(1), fault.MessageMalformed, ErrBroken, true},
		"body beyond the answer":  {append(answer(typeAnswer, maxInline+1, nil), append(chunk(maxInline), chunk(2)...)...), fault.MessageMalformed, ErrBroken, true},
		"body beyond its credit":  {append(answer(typeAnswer, 1<<20, nil), append(chunk(maxInline), chunk(2)...)...), fault.MessageMalformed, ErrBroken, true},
		"too large":               {answer(typeAnswer, 2<<20, nil), fault.TooLarge, ErrBroken, true},
		"RESET":                   {appendReset(nil, 1, fault.New(fault.PolicyDenied, "no"), 0), fault.PolicyDenied, ErrRefused, true},
		"RESET before it began":   {appendReset(nil, 1, fault.New(fault.Overloaded, "no"), flagNotBegun), fault.Overloaded, ErrNotSent, true},
		"RESET with a bad code":   {appendReset(nil, 1, &fault.Error{Code: "x"}, 0), "x", ErrRefused, true},
		"GOAWAY that spares none": {appendGoaway(nil, 0, fault.New(fault.Draining, "")), fault.PeerUnreachable, ErrNotSent, false},
		"GOAWAY for a violation":  {appendGoaway(nil, 1, fault.New(fault.MessageMalformed, "you")), fault.PeerUnreachable, ErrBroken, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, w := bare(t, Config{MaxBody: 1 << 20, Ping: time.Hour}, hands{}, true)
			result := make(chan error, 1)
			go func() {
				m, err := l.Exchange(soon(t), onPipe, NewMessage([]byte("x"), nil))
				if err == nil && m.Body != nil {
					time.Sleep(10 * time.Millisecond) // so that what is too much arrives
					_, err = io.ReadAll(m.Body)
					m.Body.Close()
				}
				result <- err
			}()
			w.want(typeRequest)
			go io.Copy(io.Discard, w.br)
			go w.Write(c.frames)
			wantFault(t, <-result, c.code, c.sentinel)
			if lives := len(l.Peers()) == 1; lives && !c.lives {
				eventually(t, "the connection ends", func() bool { return len(l.Peers()) == 0 })
			} else if !lives && c.lives {
				t.Error("the connection did not survive")
			}
		})
	}
}

// TestDrain: what runs is finished, nothing new is begun, and callers learn
// that before they could lose a call.
func TestDrain(t *testing.T) {
	began, release := make(chan struct{}, 100), make(chan struct{})
	p := newPair(t, Config{}, Config{}, hands{exchange: func(ctx context.Context, peer Peer, m *Message) (*Message, error) {
		began <- struct{}{}
		<-release
		return echo(ctx, peer, m)
	}})
	body := noise(1<<20, 1)
	results := make(chan error, 10)
	for i := range 10 {
		go func() {
			m, err := p.bh.Exchange(soon(t), p.to, NewMessage(nil, body[:1+i*100<<10]))
			if err == nil {
				var got []byte
				if got, err = io.ReadAll(m.Body); err == nil && !bytes.Equal(got, body[:1+i*100<<10]) {
					err = errors.New("other bytes")
				}
				m.Body.Close()
			}
			results <- err
		}()
	}
	for range 10 {
		<-began
	}
	drained := make(chan struct{})
	go func() {
		p.sa.Drain(soon(t))
		close(drained)
	}()
	eventually(t, "the caller has heard", func() bool {
		_, err := p.bh.Exchange(soon(t), p.to, NewMessage(nil, nil))
		wantFault(t, err, fault.CodeOf(err), ErrNotSent)
		return fault.CodeOf(err) == fault.PeerUnreachable
	})
	select {
	case <-drained:
		t.Fatal("drained before the calls were done")
	default:
	}
	close(release)
	for range 10 {
		ok(t, <-results)
	}
	<-drained
	eventually(t, "no connection is left", func() bool { return len(p.bh.Peers()) == 0 })
	_, err := p.sa.Exchange(soon(t), p.to, NewMessage(nil, nil))
	wantFault(t, err, fault.Draining, ErrNotSent)
}

// TestDrainUnderLoad: across many drains of one of a state's nodes, while
// calls pour in, every call is answered once: what the drained node did not
// begin, the other one does.
func TestDrainUnderLoad(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	var begun, answered, refused atomic.Int64
	count := hands{exchange: func(ctx context.Context, peer Peer, m *Message) (*Message, error) {
		begun.Add(1)
		return echo(ctx, peer, m)
	}}
	stop := make(chan struct{})
	var target atomic.Pointer[Target]
	target.Store(&p.to)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				m, err := p.bh.Exchange(soon(t), *target.Load(), NewMessage([]byte("x"), nil))
				switch {
				case err == nil && string(m.Envelope) == "x":
					answered.Add(1)
				case errors.Is(err, ErrNotSent):
					refused.Add(1)
					time.Sleep(time.Millisecond)
				default:
					t.Errorf("a call was lost: %v", err)
					return
				}
			}
		})
	}
	p.sa.h = count
	for range 10 {
		l := New(Config{}, p.ca.deps(p.ca.issue("SA", "sa-n")), count)
		ln := listen(t)
		serve(t, l, ln)
		target.Store(&Target{State: "SA", Addrs: []string{ln.Addr().String(), p.to.Addrs[0]}})
		eventually(t, "the new node is called", func() bool { return len(l.Peers()) == 1 })
		time.Sleep(5 * time.Millisecond)
		l.Drain(soon(t))
	}
	close(stop)
	wg.Wait()
	if answered.Load() == 0 || begun.Load() != answered.Load() || refused.Load() != 0 {
		t.Errorf("%d begun, %d answered, %d refused", begun.Load(), answered.Load(), refused.Load())
	}
}

// TestDrop: a revocation cuts live connections on both sides, with what runs
// on them, and a new one is refused.
func TestDrop(t *testing.T) {
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	p := newPair(t, Config{}, Config{}, hands{exchange: func(ctx context.Context, _ Peer, _ *Message) (*Message, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	}})
	result := make(chan error, 1)
	go func() {
		_, err := p.bh.Exchange(soon(t), p.to, NewMessage(nil, nil))
		result <- err
	}()
	<-began
	p.sa.Drop(func(peer Peer) bool { return peer.State == "KW" })
	if len(p.sa.Peers()) != 1 {
		t.Fatal("another state's connection was dropped")
	}
	p.ca.revoke(p.bhCert)
	p.sa.Drop(func(peer Peer) bool { return peer.State == "BH" && peer.Node == "bh-1" })
	wantFault(t, <-result, fault.PeerUnreachable, ErrBroken)
	<-ended
	_, err := p.bh.Exchange(soon(t), p.to, NewMessage(nil, nil))
	wantFault(t, err, fault.PeerUnreachable, ErrNotSent)
}

// TestDropDuringHandshake: a certificate that is revoked between its check in
// the handshake and the connection's registration does not slip through.
func TestDropDuringHandshake(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	var calls atomic.Int32
	p.sa.deps.Authenticate = func(cs tls.ConnectionState) (Peer, error) {
		peer, err := p.ca.authenticate(cs)
		if calls.Add(1) == 1 {
			p.ca.revoke(p.bhCert)
			p.sa.Drop(func(Peer) bool { return true })
		}
		return peer, err
	}
	_, err := p.bh.Query(soon(t), p.to, "x", nil)
	wantFault(t, err, fault.CertRevoked, ErrNotSent)
	if len(p.sa.Peers()) != 0 || calls.Load() != 2 {
		t.Errorf("the revoked peer is in, after %d checks", calls.Load())
	}
}

// TestReview: the ping asks the directory again, so that an expired
// certificate ends its connection even if nobody calls Drop; a renewed one of
// our own retires it gently.
func TestReview(t *testing.T) {
	cfg := Config{Ping: 250 * time.Millisecond}
	p := newPair(t, cfg, cfg, hands{})
	var cert atomic.Pointer[tls.Certificate]
	cert.Store(p.bhCert)
	p.bh.deps.Certificate = func() (*tls.Certificate, error) { return cert.Load(), nil }
	_, err := p.bh.Query(soon(t), p.to, "x", nil)
	ok(t, err)
	first := p.sa.Peers()[0].Peer.Cert
	cert.Store(p.ca.issue("BH", "bh-1"))
	eventually(t, "a new connection under the new certificate", func() bool {
		_, err := p.bh.Query(soon(t), p.to, "x", nil)
		ok(t, err) // no call is lost to the renewal
		l := p.sa.Peers()
		return len(l) == 1 && l[0].Peer.Cert != first
	})
	p.ca.revoke(cert.Load())
	eventually(t, "the connection ends", func() bool { return len(p.sa.Peers()) == 0 })
}

// TestPool: one connection for all calls to an address; addresses in order; a
// dead one is neither waited for nor forgotten. The clock stands unless the
// test moves it, and so does the back-off.
func TestPool(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	var dials, clock atomic.Int64
	p.bh.deps.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	p.bh.deps.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	wantDials := func(n int64, what string) {
		t.Helper()
		if got := dials.Swap(0); got != n {
			t.Errorf("%d dials for %s, want %d", got, what, n)
		}
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := p.bh.Query(soon(t), p.to, "x", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantDials(1, "50 calls at once")
	// A dead first address.
	dead := listen(t)
	addr := dead.Addr().String()
	dead.Close()
	p.bh.Drop(func(Peer) bool { return true })
	to := Target{State: "SA", Addrs: []string{addr, p.to.Addrs[0]}}
	for range 10 {
		_, err := p.bh.Query(soon(t), to, "x", nil)
		ok(t, err)
	}
	wantDials(2, "a dead address and a live one")
	// It comes back, and is preferred again.
	sa2 := New(Config{}, p.ca.deps(p.ca.issue("SA", "sa-2")), hands{})
	ln, err := net.Listen("tcp", addr)
	ok(t, err)
	serve(t, sa2, ln)
	clock.Add(firstBackoff.Milliseconds())
	eventually(t, "the first address is used again", func() bool {
		_, err := p.bh.Query(soon(t), to, "x", nil)
		ok(t, err)
		return len(sa2.Peers()) == 1
	})
	wantDials(1, "the address that came back")
	// Nobody at all: told at once, and the pauses between dials grow to their limit.
	nobody := Target{State: "SA", Addrs: []string{"127.0.0.1:1"}}
	for _, pause := range []int64{50, 100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		for range 10 {
			_, err := p.bh.Query(soon(t), nobody, "x", nil)
			wantFault(t, err, fault.PeerUnreachable, ErrNotSent)
		}
		wantDials(1, "ten calls to nobody")
		clock.Add(pause - 1)
		_, err := p.bh.Query(soon(t), nobody, "x", nil)
		wantFault(t, err, fault.PeerUnreachable, ErrNotSent)
		wantDials(0, "a call before the pause is over")
		clock.Add(1)
	}
	_, err = p.bh.Query(soon(t), Target{State: "SA"}, "x", nil)
	wantFault(t, err, fault.PeerUnreachable, ErrNotSent)
}

// TestRedial: a connection that broke is replaced by the next call.
func TestRedial(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	for range 5 {
		_, err := p.bh.Query(soon(t), p.to, "x", nil)
		ok(t, err)
		p.sa.Drop(func(Peer) bool { return true })
		eventually(t, "the caller has noticed", func() bool { return len(p.bh.Peers()) == 0 })
	}
}

// TestHalfOpen: a peer that is gone without a word is noticed by its silence.
func TestHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, w := bare(t, Config{}, hands{}, true)
		go io.Copy(io.Discard, w.br) // takes all, says nothing
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		_, err := l.Exchange(ctx, onPipe, NewMessage(nil, nil))
		wantFault(t, err, fault.PeerUnreachable, ErrBroken)
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("noticed after %v", d)
		}
	})
}

// TestSlowFrame: a frame that has begun must end; an idle connection that
// answers pings may stay.
func TestSlowFrame(t *testing.T) {
	for name, frame := range map[string][]byte{
		"in the header":  request(1, nil, nil, 0)[:5],
		"in the payload": request(1, make([]byte, 100), nil, 0)[:50],
		"in a chunk":     append(request(1, nil, nil, maxInline+1), append(appendHeader(nil, header{length: 100, typ: typeBody, stream: 1}), 1, 2, 3)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, w := bare(t, Config{Ping: 5 * time.Minute}, hands{}, false)
				go func() {
					for {
						h, p, err := w.frame()
						if err != nil {
							return
						}
						if h.typ == typePing {
							w.Write(append(appendHeader(nil, header{length: 8, typ: typePong}), p...))
						}
					}
				}()
				time.Sleep(2 * time.Hour)
				if len(l.Peers()) != 1 {
					t.Fatal("an idle connection that answers pings was closed")
				}
				w.send(frame)
				start := time.Now()
				time.Sleep(29 * time.Second)
				synctest.Wait()
				if len(l.Peers()) != 1 {
					t.Errorf("closed after %v", time.Since(start))
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if len(l.Peers()) != 0 {
					t.Error("a frame may take for ever")
				}
			})
		})
	}
}

// TestDeadlines: the handler's time ends with the caller's, or with the most
// that this node allows; so does a body that does not come or is not taken.
func TestDeadlines(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		after time.Duration
	}{
		"the caller's":        {appendOpening(nil, typeRequest, 1, opening{deadline: 1500, head: []byte("wait")}), 1500 * time.Millisecond},
		"none":                {request(1, []byte("wait"), nil, 0), 15 * time.Minute},
		"too long":            {appendOpening(nil, typeRequest, 1, opening{deadline: 1 << 31, head: []byte("wait")}), 15 * time.Minute},
		"body does not come":  {appendOpening(nil, typeRequest, 1, opening{deadline: 1500, head: []byte("read"), size: 1 << 20}), 1500 * time.Millisecond},
		"answer is not taken": {appendOpening(nil, typeRequest, 1, opening{deadline: 1500, head: []byte("large")}), 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, w := bare(t, Config{Ping: time.Hour}, hands{exchange: func(ctx context.Context, p Peer, m *Message) (*Message, error) {
					switch string(m.Envelope) {
					case "read":
						return echo(ctx, p, m)
					case "large":
						return NewMessage(nil, make([]byte, 1<<20)), nil
					}
					<-ctx.Done()
					return nil, ctx.Err()
				}}, false)
				start := time.Now()
				w.send(c.frame)
				_, e := w.notice(typeReset)
				if d := time.Since(start); d != c.after || e.Code != fault.Timeout {
					t.Errorf("%v after %v, want %v", e, d, c.after)
				}
			})
		})
	}
}

// TestIdle: a connection that nobody uses is closed, by the side that dialled.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, w := bare(t, Config{Idle: time.Minute, Ping: 10 * time.Second}, hands{}, true)
		start := time.Now()
		for {
			h, p, err := w.frame()
			if err != nil {
				break
			}
			if h.typ == typePing {
				w.send(append(appendHeader(nil, header{length: 8, typ: typePong}), p...))
			}
		}
		if d := time.Since(start); d < time.Minute || d > 80*time.Second {
			t.Errorf("closed after %v", d)
		}
		synctest.Wait()
		if len(l.Peers()) != 0 {
			t.Error("still listed")
		}
	})
}

// TestRetireTimeout: a peer that does not close what was sent away is closed.
func TestRetireTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, w := bare(t, Config{Ping: time.Hour}, hands{}, false)
		go io.Copy(io.Discard, w.br)
		start := time.Now()
		l.Drain(context.Background())
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("drained after %v", d)
		}
	})
}

// TestOutlive: what outlives its caller is waited for by Drain for as long as
// that may take, and ended by Close.
func TestOutlive(t *testing.T) {
	for name, patient := range map[string]bool{"in time": true, "too long": false} {
		t.Run(name, func(t *testing.T) {
			begun, ended, release := make(chan bool), make(chan error, 1), make(chan bool)
			p := newPair(t, Config{}, Config{}, hands{exchange: func(ctx context.Context, _ Peer, m *Message) (*Message, error) {
				begun <- true
				life := Outlive(ctx)
				<-ctx.Done()
				select {
				case <-life.Done():
				case <-release:
				}
				ended <- life.Err()
				return m, nil
			}})
			ctx, hangUp := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = p.bh.Exchange(ctx, p.to, NewMessage([]byte("e"), nil)) })
			<-begun
			hangUp()
			wg.Wait()
			limit, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if patient {
				limit = t.Context()
				time.AfterFunc(100*time.Millisecond, func() { close(release) })
				p.bh.Close() // so that the last connection is gone
			}
			p.sa.Drain(limit)
			select {
			case err := <-ended:
				if patient != (err == nil) {
					t.Errorf("it ended with %v", err)
				}
			default:
				t.Error("the link is closed, and it still runs")
			}
		})
	}
}

// TestAskedBeforeEachCall: nothing is sent to a peer whose certificate has been
// revoked since the handshake, though nobody has closed the connection yet;
// one that has a new certificate is called under that.
func TestAskedBeforeEachCall(t *testing.T) {
	var calls atomic.Int64
	p := newPair(t, Config{Ping: time.Hour, MaxBackoff: time.Millisecond}, Config{Ping: time.Hour}, hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
		calls.Add(1)
		return m, nil
	}})
	old, renewed := p.saCert, p.ca.issue("SA", "sa-1")
	var present atomic.Pointer[tls.Certificate]
	present.Store(old)
	p.sa.deps.Certificate = func() (*tls.Certificate, error) { return present.Load(), nil }
	call := func() error {
		_, err := p.bh.Exchange(soon(t), p.to, NewMessage([]byte("e"), nil))
		return err
	}
	ok(t, call())
	p.ca.revoke(old)
	wantFault(t, call(), fault.CertRevoked, ErrNotSent)
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls arrived", n)
	}
	present.Store(renewed)
	eventually(t, "it is called under its new certificate", func() bool { return call() == nil })
}

// TestHold: what is held travels and is not acted on before its sender stands
// by it; where he does not, nothing came of it.
func TestHold(t *testing.T) {
	unable := fault.New(fault.DiskFull, "no room")
	arrived, acted := make(chan bool, 1), make(chan error, 1)
	var answer func() ([]byte, error)
	p := newPair(t, Config{}, Config{}, hands{exchange: func(ctx context.Context, p Peer, m *Message) (*Message, error) {
		arrived <- true
		word, err := m.Released(ctx)
		if size := m.Size; err == nil && string(word) != fmt.Sprint("request ", size) {
			t.Errorf("%d bytes with the word %q", size, word)
		}
		acted <- err
		if err != nil {
			return nil, err
		}
		m, err = echo(ctx, p, m)
		m.Hold = answer
		return m, err
	}})
	call := func(size int, hold func() ([]byte, error)) (*Message, error) {
		m := NewMessage([]byte("e"), bytes.Repeat([]byte("b"), size))
		m.Hold = hold
		return p.bh.Exchange(soon(t), p.to, m)
	}
	for _, size := range []int{0, 10, maxInline} {
		var order []string
		answer = func() ([]byte, error) { order = append(order, "answer holds"); return []byte("answer"), nil }
		m, err := call(size, func() ([]byte, error) {
			<-arrived // it is there, long before
			select {
			case err := <-acted:
				t.Errorf("acted on while it was held: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
			order = append(order, "request holds")
			return fmt.Append(nil, "request ", size), nil
		})
		ok(t, err)
		word, err := m.Released(soon(t))
		ok(t, err)
		if string(word) != "answer" {
			t.Errorf("an answer of %d bytes with the word %q", m.Size, word)
		}
		ok(t, <-acted)
		if got := strings.Join(order, ", "); got != "request holds, answer holds" {
			t.Errorf("%d bytes: %s", size, got)
		}
	}
	t.Run("large", func(t *testing.T) {
		answer = func() ([]byte, error) { return []byte("answer"), nil }
		m, err := call(maxInline+1, func() ([]byte, error) {
			select {
			case <-arrived:
				t.Error("a large message left before it counted")
			case <-time.After(20 * time.Millisecond):
			}
			return fmt.Append(nil, "request ", maxInline+1), nil
		})
		ok(t, err)
		word, err := m.Released(soon(t))
		ok(t, err)
		if string(word) != "answer" {
			t.Errorf("an answer of %d bytes with the word %q", m.Size, word)
		}
		_, err = io.ReadAll(m.Body)
		ok(t, err)
		m.Body.Close()
		<-arrived
		ok(t, <-acted)
	})
	t.Run("request given up", func(t *testing.T) {
		if _, err := call(10, func() ([]byte, error) { <-arrived; return nil, unable }); err != unable {
			t.Errorf("the caller's own error became %v", err)
		}
		if err := <-acted; err == nil {
			t.Error("acted on, though its sender gave it up")
		}
		if _, err := call(maxInline+1, func() ([]byte, error) { return nil, unable }); err != unable {
			t.Errorf("large: %v", err)
		}
	})
	t.Run("answer given up", func(t *testing.T) {
		for _, size := range []int{10, maxInline + 1} {
			answer = func() ([]byte, error) { return nil, unable }
			m, err := call(size, func() ([]byte, error) { return fmt.Append(nil, "request ", size), nil })
			if err == nil {
				_, err = m.Released(soon(t))
			}
			<-arrived
			ok(t, <-acted)
			wantFault(t, err, fault.DiskFull, ErrRefused)
		}
	})
	t.Run("nobody waits", func(t *testing.T) {
		held := make(chan bool, 1)
		ctx, hangUp := context.WithCancel(t.Context())
		answer = func() ([]byte, error) { hangUp(); time.Sleep(20 * time.Millisecond); held <- true; return nil, nil }
		first := NewMessage([]byte("e"), nil)
		first.Hold = func() ([]byte, error) { return []byte("request 0"), nil }
		m, err := p.bh.Exchange(ctx, p.to, first)
		if err == nil {
			_, err = m.Released(ctx)
		}
		if err == nil {
			t.Error("released before it held")
		}
		<-arrived
		<-acted
		if !<-held {
			t.Error("an answer that nobody waits for was not made to hold")
		}
	})
	t.Run("broken", func(t *testing.T) {
		answer = func() ([]byte, error) { return []byte("answer"), nil }
		_, err := call(10, func() ([]byte, error) {
			<-arrived
			p.sa.Drop(func(Peer) bool { return true })
			return nil, nil
		})
		if err == nil {
			t.Error("an answer over a connection that is gone")
		}
		if err := <-acted; err == nil {
			t.Error("acted on without RELEASE")
		}
	})
	eventually(t, "nothing is left at work", func() bool {
		for _, l := range []*Link{p.bh, p.sa} {
			for _, c := range l.Peers() {
				if c.Streams != 0 {
					return false
				}
			}
		}
		return true
	})
}
