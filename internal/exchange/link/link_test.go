package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// noise gives n bytes that no one may change; another seed gives others.
func noise(n int, seed uint64) []byte {
	at := int(seed % 4099)
	return static()[at : at+n]
}

var static = sync.OnceValue(func() []byte {
	b := make([]byte, 17<<20)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
})

func TestExchangeAndQuery(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	ctx := soon(t)
	for _, size := range []int{0, 1, 1000, maxInline - 1, maxInline, maxInline + 1, 3*maxChunk + 7, 5 << 20} {
		body := noise(size, uint64(size))
		m, err := p.bh.Exchange(ctx, p.to, NewMessage([]byte("envelope"), body))
		ok(t, err)
		if string(m.Envelope) != "envelope" || m.Size != int64(size) {
			t.Fatalf("size %d: envelope %q, size %d", size, m.Envelope, m.Size)
		}
		if _, inMemory := m.Bytes(); inMemory != (size <= maxInline) {
			t.Errorf("size %d: in memory: %v", size, inMemory)
		}
		if size > 0 {
			got, err := io.ReadAll(m.Body)
			ok(t, err)
			if !bytes.Equal(got, body) {
				t.Errorf("size %d: other bytes came back", size)
			}
			ok(t, m.Body.Close())
		}
		got, err := p.bh.Query(ctx, p.to, "directory.get", body)
		ok(t, err)
		if want := append([]byte("directory.get BH "), body...); !bytes.Equal(got, want) {
			t.Errorf("query of size %d: %d bytes", size, len(got))
		}
	}
	big := noise(maxEnvelope, 1)
	m, err := p.bh.Exchange(ctx, p.to, NewMessage(big, nil))
	ok(t, err)
	if !bytes.Equal(m.Envelope, big) {
		t.Error("the largest envelope changed")
	}
	_, err = p.bh.Exchange(ctx, p.to, NewMessage(noise(maxEnvelope+1, 1), nil))
	wantFault(t, err, fault.TooLarge, ErrNotSent)
	list := p.bh.Peers()
	if len(list) != 1 || !list[0].Dialled || list[0].Peer.State != "SA" || list[0].Peer.Node != "sa-1" || list[0].Streams != 0 || list[0].Version != 1 {
		t.Errorf("peers: %+v", list)
	}
	eventually(t, "a ping is answered", func() bool { return p.bh.Peers()[0].RTT > 0 && p.sa.Peers()[0].RTT > 0 })
}

// TestHandshake: what both sides negotiate.
func TestHandshake(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	_, err := p.bh.Query(soon(t), p.to, "x", nil)
	ok(t, err)
	for _, l := range []*Link{p.bh, p.sa} {
		l.mu.Lock()
		for c := range l.conns {
			switch {
			case c.tls.Version != tls.VersionTLS13:
				t.Errorf("TLS %x", c.tls.Version)
			case c.tls.CurveID != tls.X25519MLKEM768:
				t.Errorf("key exchange %v", c.tls.CurveID)
			case c.tls.NegotiatedProtocol != "falaj/1":
				t.Errorf("ALPN %q", c.tls.NegotiatedProtocol)
			case c.tls.DidResume:
				t.Error("resumed")
			}
		}
		l.mu.Unlock()
	}
}

func TestPeerFault(t *testing.T) {
	theirs := fault.Wrap(fault.PolicyDenied, errors.New("a private cause"), "rule 7")
	p := newPair(t, Config{}, Config{}, hands{
		exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
			switch string(m.Envelope) {
			case "fault":
				return nil, fmt.Errorf("decide: %w", theirs)
			case "shed":
				return nil, fault.Wrap(fault.Overloaded, ErrNotSent, "")
			case "panic":
				panic("a citizen's name")
			case "short":
				return &Message{Body: io.NopCloser(bytes.NewReader(nil)), Size: 10}, nil
			case "shortbig":
				return &Message{Body: io.NopCloser(bytes.NewReader(noise(maxInline, 1))), Size: maxInline + 1}, nil
			case "nothing":
				return nil, nil
			case "no body":
				return &Message{Size: maxInline + 1}, nil
			case "bad body":
				return &Message{Body: io.NopCloser(nil), Size: 1}, nil // panics when read
			}
			return nil, errors.New("an inner matter")
		},
	})
	ctx := soon(t)
	call := func(what string) error {
		m, err := p.bh.Exchange(ctx, p.to, NewMessage([]byte(what), nil))
		if err == nil && m.Body != nil {
			_, err = io.ReadAll(m.Body)
		}
		return err
	}
	err := call("fault")
	wantFault(t, err, fault.PolicyDenied, ErrRefused)
	if f := fault.From(err); f.Detail != "rule 7" || f.ID != theirs.ID || bytes.Contains([]byte(err.Error()), []byte("private")) {
		t.Errorf("fault %+v", f)
	}
	err = call("inner")
	wantFault(t, err, fault.Internal, ErrRefused)
	if bytes.Contains([]byte(err.Error()), []byte("inner matter")) {
		t.Error("the cause left the node")
	}
	wantFault(t, call("shed"), fault.Overloaded, ErrNotSent)
	wantFault(t, call("panic"), fault.Internal, ErrRefused)
	wantFault(t, call("short"), fault.Internal, ErrRefused)
	wantFault(t, call("nothing"), fault.Internal, ErrRefused)
	wantFault(t, call("no body"), fault.BodyTruncated, ErrRefused)
	wantFault(t, call("bad body"), fault.Internal, ErrRefused)
	wantFault(t, call("shortbig"), fault.BodyTruncated, ErrRefused)
	if n := len(p.bh.Peers()); n != 1 {
		t.Errorf("%d connections after faults, want the same one", n)
	}
}

// TestCancel: who no longer waits says so, and the handler's context ends.
func TestCancel(t *testing.T) {
	began, ended := make(chan time.Duration, 1), make(chan struct{}, 1)
	p := newPair(t, Config{}, Config{}, hands{exchange: func(ctx context.Context, _ Peer, m *Message) (*Message, error) {
		at, _ := ctx.Deadline()
		began <- time.Until(at)
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := p.bh.Exchange(ctx, p.to, NewMessage([]byte("x"), nil))
		result <- err
	}()
	if d := <-began; d <= 0 || d > 15*time.Minute {
		t.Errorf("the handler has %v, more than its node allows", d)
	}
	cancel()
	wantFault(t, <-result, fault.Timeout, ErrBroken)
	eventually(t, "the handler has ended", func() bool { return len(ended) == 1 })
	eventually(t, "no stream is left", func() bool { return p.bh.Peers()[0].Streams+p.sa.Peers()[0].Streams == 0 })
	_, err := p.bh.Exchange(ctx, p.to, NewMessage([]byte("x"), nil))
	wantFault(t, err, fault.Timeout, ErrNotSent)
}

// TestEarlyAnswer: an answer ends the request's body, whoever still sends it.
func TestEarlyAnswer(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
		return NewMessage([]byte("enough"), nil), nil
	}})
	for range 20 {
		m, err := p.bh.Exchange(soon(t), p.to, NewMessage(nil, noise(4<<20, 1)))
		ok(t, err)
		if string(m.Envelope) != "enough" {
			t.Fatal(m.Envelope)
		}
	}
	if n := len(p.bh.Peers()); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestSlowReader: a body that nobody reads stalls its own stream only, and
// holds no more than a window.
func TestSlowReader(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(release) })
	p := newPair(t, Config{}, Config{}, hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
		if string(m.Envelope) == "slow" {
			<-release
		}
		return echo(context.Background(), Peer{}, m)
	}})
	ctx := soon(t)
	body := noise(1<<20, 1)
	slow := make(chan error, 1)
	go func() {
		m, err := p.bh.Exchange(ctx, p.to, NewMessage([]byte("slow"), body))
		if err == nil {
			var got []byte
			if got, err = io.ReadAll(m.Body); err == nil && !bytes.Equal(got, body) {
				err = errors.New("other bytes")
			}
		}
		slow <- err
	}()
	eventually(t, "the slow call runs", func() bool { l := p.sa.Peers(); return len(l) == 1 && l[0].Streams == 1 })
	for range 3 {
		m, err := p.bh.Exchange(ctx, p.to, NewMessage([]byte("fast"), body))
		ok(t, err)
		_, err = io.ReadAll(m.Body)
		ok(t, err)
	}
	p.sa.mu.Lock()
	for c := range p.sa.conns {
		c.mu.Lock()
		for _, s := range c.streams {
			if n := s.in.n; n > firstCredit {
				t.Errorf("%d bytes are held for a body that nobody reads", n)
			}
		}
		c.mu.Unlock()
	}
	p.sa.mu.Unlock()
	once.Do(func() { close(release) })
	ok(t, <-slow)
}

// TestMemory: windows grow only as far as the link's memory goes, and give
// everything back.
func TestMemory(t *testing.T) {
	p := newPair(t, Config{Memory: 1 << 20}, Config{Memory: 1 << 20}, hands{})
	body := noise(1<<20, 3)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m, err := p.bh.Exchange(soon(t), p.to, NewMessage(nil, body))
			if err != nil {
				t.Error(err)
				return
			}
			if p.sa.memory.Load() > 1<<20 || p.bh.memory.Load() > 1<<20 {
				t.Error("more memory than allowed")
			}
			got, err := io.ReadAll(m.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Error("other bytes", err)
			}
			m.Body.Close()
		})
	}
	wg.Wait()
	eventually(t, "all memory is back", func() bool { return p.sa.memory.Load() == 0 && p.bh.memory.Load() == 0 })
}

// TestUnreadAnswer: closing an answer's body early ends the call at the other side.
func TestUnreadAnswer(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	m, err := p.bh.Exchange(soon(t), p.to, NewMessage(nil, noise(4<<20, 3)))
	ok(t, err)
	_, err = io.ReadFull(m.Body, make([]byte, 100))
	ok(t, err)
	ok(t, m.Body.Close())
	if _, err := m.Body.Read(make([]byte, 1)); err == nil {
		t.Error("read after Close")
	}
	eventually(t, "no stream is left", func() bool { return p.bh.Peers()[0].Streams+p.sa.Peers()[0].Streams == 0 })
	// And so does the end of the context.
	ctx, cancel := context.WithCancel(soon(t))
	m, err = p.bh.Exchange(ctx, p.to, NewMessage(nil, noise(4<<20, 3)))
	ok(t, err)
	cancel()
	_, err = io.ReadAll(m.Body)
	wantFault(t, err, fault.Timeout, ErrBroken)
	m.Body.Close()
	eventually(t, "no stream is left", func() bool { return p.bh.Peers()[0].Streams+p.sa.Peers()[0].Streams == 0 })
}

// TestBodySize: a caller's body that is not what it declared ends its own call.
func TestBodySize(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	for name, c := range map[string]struct {
		size, really int
		sentinel     error
	}{
		"small, short":  {1000, 999, ErrNotSent},
		"small, long":   {1000, 1001, ErrNotSent},
		"small, absent": {1000, 0, ErrNotSent},
		"large, short":  {200 << 10, 200<<10 - 1, ErrBroken},
		"large, long":   {200 << 10, 200<<10 + 1, ErrBroken},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Message{Size: int64(c.size), Body: io.NopCloser(bytes.NewReader(noise(c.really, 1)))}
			_, err := p.bh.Exchange(soon(t), p.to, m)
			wantFault(t, err, fault.BodyTruncated, c.sentinel)
		})
	}
	for _, size := range []int64{-1, 1, maxInline + 1} {
		_, err := p.bh.Exchange(soon(t), p.to, &Message{Size: size})
		wantFault(t, err, fault.BodyTruncated, ErrNotSent)
	}
}
