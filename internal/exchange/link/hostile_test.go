package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// TestDoor: who does not get in, and what he learns.
func TestDoor(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	stranger := newAuthority(t).issue("BH", "bh-1")
	revoked := p.ca.issue("BH", "bh-2")
	p.ca.revoke(revoked)
	with := func(c *tls.Certificate) func(*tls.Config) {
		return func(cfg *tls.Config) { cfg.Certificates = []tls.Certificate{*c} }
	}
	for name, c := range map[string]struct {
		change func(*tls.Config)
		alert  string
	}{
		"TLS 1.2": {func(cfg *tls.Config) {
			with(p.bhCert)(cfg)
			cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		}, "protocol version"},
		"no certificate":      {func(*tls.Config) {}, "certificate required"},
		"unknown certificate": {with(stranger), "bad certificate"},
		"revoked certificate": {with(revoked), "bad certificate"},
		"no ALPN": {func(cfg *tls.Config) {
			with(p.bhCert)(cfg)
			cfg.NextProtos = nil
		}, "bad certificate"},
		"another ALPN": {func(cfg *tls.Config) {
			with(p.bhCert)(cfg)
			cfg.NextProtos = []string{"h2"}
		}, "no application protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := p.tryWire(t, c.change)
			if err == nil { // TLS 1.3: the client hears of it with its first read
				_, _, err = w.frame()
			}
			if err == nil || !strings.Contains(err.Error(), c.alert) {
				t.Errorf("error %v, want an alert %q", err, c.alert)
			}
		})
	}
	if n := len(p.sa.Peers()); n != 0 {
		t.Errorf("%d strangers got in", n)
	}
}

// TestCallerRefuses: a caller holds the other side to being who was called.
func TestCallerRefuses(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	_, err := p.bh.Exchange(soon(t), Target{State: "AE", Addrs: p.to.Addrs}, NewMessage(nil, nil))
	wantFault(t, err, fault.PeerRefused, ErrNotSent)
	p.ca.revoke(p.saCert)
	_, err = p.bh.Exchange(soon(t), p.to, NewMessage(nil, nil))
	wantFault(t, err, fault.CertRevoked, ErrNotSent)
	// The other side refuses us: its alert comes after our handshake is done.
	q := newPair(t, Config{}, Config{}, hands{})
	q.ca.revoke(q.bhCert)
	_, err = q.bh.Exchange(soon(t), q.to, NewMessage(nil, nil))
	wantFault(t, err, fault.PeerUnreachable, ErrNotSent)
	if !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("error %v does not say why", err)
	}
}

// TestVersions: older and newer nodes meet at the highest version of both, or
// both learn why they cannot.
func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		caller, server Config
		want           uint16
	}{
		"newer server":   {Config{minVersion: 1, maxVersion: 2}, Config{minVersion: 1, maxVersion: 4}, 2},
		"newer caller":   {Config{minVersion: 2, maxVersion: 5}, Config{minVersion: 1, maxVersion: 3}, 3},
		"nothing common": {Config{minVersion: 2, maxVersion: 3, Software: "falaj N+1"}, Config{minVersion: 1, maxVersion: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, c.caller, c.server, hands{})
			log := &record{}
			p.sa.deps.Log = slog.New(slog.NewTextHandler(log, nil))
			_, err := p.bh.Query(soon(t), p.to, "x", nil)
			if c.want != 0 {
				ok(t, err)
				if p.sa.Peers()[0].Version != c.want || p.bh.Peers()[0].Version != c.want {
					t.Errorf("versions %d and %d, want %d", p.sa.Peers()[0].Version, p.bh.Peers()[0].Version, c.want)
				}
				return
			}
			wantFault(t, err, fault.PeerRefused, ErrNotSent)
			if !strings.Contains(err.Error(), "speaks 2 to 3, the other (falaj) 1 to 1") {
				t.Errorf("the caller's error: %v", err)
			}
			eventually(t, "the server's log says the same", func() bool {
				return strings.Contains(log.String(), "speaks 1 to 1, the other (falaj N+1) 2 to 3")
			})
		})
	}
}

func request(id uint64, envelope, body []byte, size int) []byte {
	return appendOpening(nil, typeRequest, id, opening{head: envelope, inline: body, size: uint64(size)})
}

// TestViolations: frames that end the connection. The peer is told, nobody
// else suffers.
func TestViolations(t *testing.T) {
	hdr := func(h header, payload ...byte) []byte { return append(appendHeader(nil, h), payload...) }
	big := opening{head: []byte("e"), size: maxInline + 1}
	for name, c := range map[string]struct {
		frames []byte
		why    string
	}{
		"oversize RELEASE":   {hdr(header{length: maxWord + 1, typ: typeRelease, stream: 1}), "bytes in a frame of type 12"},
		"RELEASE of nothing": {hdr(header{typ: typeRelease, stream: 1}), "never opened"},
		"RELEASE not held":   {append(request(1, []byte("stay"), nil, 0), hdr(header{typ: typeRelease, stream: 1})...), "which is not held"},
		"RELEASE twice": {append(append(appendOpening(nil, typeRequest, 1, opening{held: true, head: []byte("stay")}),
			hdr(header{typ: typeRelease, stream: 1})...), hdr(header{typ: typeRelease, stream: 1})...), "second RELEASE"},
		"held QUERY":             {appendOpening(nil, typeQuery, 1, opening{held: true, head: []byte("k")}), "flags 0x2"},
		"second HELLO":           {appendHello(nil, hello{min: 1, max: 1}), "second HELLO"},
		"oversize REQUEST":       {hdr(header{length: requestHead + maxEnvelope + maxInline + 1, typ: typeRequest, stream: 1}), "bytes in a frame of type 2"},
		"oversize BODY":          {append(request(1, nil, nil, maxInline+1), hdr(header{length: maxChunk + 1, typ: typeBody, stream: 1})...), "bytes in a frame of type 4"},
		"empty BODY":             {append(request(1, nil, nil, maxInline+1), hdr(header{typ: typeBody, stream: 1})...), "0 bytes in a frame of type 4"},
		"giant unknown":          {hdr(header{length: maxUnknown + 1, typ: 200}), "unknown type 200"},
		"flags":                  {hdr(header{length: 8, typ: typePing, flags: 1}, make([]byte, 8)...), "flags 0x1"},
		"PING on a stream":       {hdr(header{length: 8, typ: typePing, stream: 3}, make([]byte, 8)...), "stream 3"},
		"REQUEST on no stream":   {request(0, nil, nil, 0), "stream 0"},
		"stream twice":           {append(request(5, nil, nil, 0), request(5, nil, nil, 0)...), "stream 5 opened after stream 5"},
		"stream backwards":       {append(request(5, nil, nil, 0), request(4, nil, nil, 0)...), "stream 4 opened after stream 5"},
		"replayed frames":        {bytes.Repeat(request(1, []byte("pay"), nil, 0), 2), "stream 1 opened after stream 1"},
		"BODY of no stream":      {hdr(header{length: 1, typ: typeBody, stream: 9}, 0), "stream 9 was never opened"},
		"WINDOW of no stream":    {appendWindow(nil, 9, 1), "stream 9 was never opened"},
		"WINDOW of nothing":      {append(request(1, nil, nil, 0), appendWindow(nil, 1, 0)...), "WINDOW of nothing"},
		"RESET of no stream":     {appendReset(nil, 9, fault.New(fault.Timeout, ""), 0), "stream 9 was never opened"},
		"malformed RESET":        {append(request(1, nil, nil, 0), hdr(header{length: 2, typ: typeReset, stream: 1}, 9, 9)...), "malformed notice"},
		"inline body missing":    {hdr(header{length: 16, typ: typeRequest, stream: 1}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), "for a head of 0 and a body of 1"},
		"head beyond the frame":  {hdr(header{length: 16, typ: typeRequest, stream: 1}, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0), "for a head of 4294967295"},
		"trailing bytes":         {hdr(header{length: 17, typ: typeRequest, stream: 1}, make([]byte, 17)...), "with 1 bytes for a head of 0"},
		"inline though large":    {append(append(appendHeader(nil, header{length: requestHead + 1 + 1, typ: typeRequest, stream: 1}), appendOpening(nil, typeRequest, 1, big)[headerSize:]...), 'x'), "for a head of 1 and a body of 65537"},
		"query without a kind":   {appendOpening(nil, typeQuery, 1, opening{}), "malformed query kind"},
		"query with a bad kind":  {appendOpening(nil, typeQuery, 1, opening{head: []byte("A\n")}), "malformed query kind"},
		"answer from the caller": {appendOpening(nil, typeAnswer, 1, opening{}), "an answer from the side that dialled"},
		"draining caller":        {appendGoaway(nil, 0, fault.New(fault.Draining, "")), "from the side that dialled"},
		"endless unknown frames": {bytes.Repeat(hdr(header{typ: 77}), maxNoise+2), "frames that serve no call"},
		"endless pings":          {bytes.Repeat(appendPing(nil, typePing, 1), maxNoise+2), "frames that serve no call"},
		"a body byte by byte":    {append(request(1, nil, nil, maxInline+1), bytes.Repeat(hdr(header{length: 1, typ: typeBody, stream: 1}, 'x'), maxSmall+9)...), "BODY frames with"},
		"endless WINDOWs":        {append(request(1, nil, nil, maxInline+1), bytes.Repeat(appendWindow(nil, 1, 1), maxSmall+9)...), "WINDOW frames for"},
		"endless RESETs":         {append(request(1, nil, nil, 0), bytes.Repeat(appendReset(nil, 1, fault.New(fault.Timeout, ""), 0), maxNoise+9)...), "frames that serve no call"},
	} {
		t.Run(name, func(t *testing.T) {
			_, w := bare(t, Config{}, hands{exchange: func(ctx context.Context, p Peer, m *Message) (*Message, error) {
				if string(m.Envelope) == "stay" {
					<-ctx.Done()
				}
				return echo(ctx, p, m)
			}}, false)
			go w.Write(c.frames) // the pipe breaks under it
			_, e := w.notice(typeGoaway)
			if e.Code != fault.MessageMalformed || !strings.Contains(e.Detail, c.why) {
				t.Errorf("GOAWAY says %s: %q, want %q", e.Code, e.Detail, c.why)
			}
			for {
				if _, _, err := w.frame(); err != nil {
					break // closed
				}
			}
		})
	}
}

// TestBadHello: before HELLO nothing is said but HELLO.
func TestBadHello(t *testing.T) {
	for name, frames := range map[string][]byte{
		"bad magic":         append(appendHeader(nil, header{length: 10, typ: typeHello}), "nobodyhere"...),
		"request first":     request(1, nil, nil, 0),
		"no bytes":          appendHeader(nil, header{typ: typeHello}),
		"range upside down": appendHello(nil, hello{min: 2, max: 1}),
		"oversize":          appendHeader(nil, header{length: maxHello + 1, typ: typeHello}),
		"HTTP":              []byte("GET / HTTP/1.1\r\nHost: sa\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			l, w, c := join(t, Config{}, hands{}, false)
			defer l.Close()
			go func() { w.Write(frames) }()
			go io.Copy(io.Discard, w)
			var v violation
			if err := c.greet(); !errors.As(err, &v) {
				t.Errorf("greet: %v", err)
			}
			w.Close()
			c.fail(nil)
			l.forget(c)
		})
	}
}

// TestStreamFaults: what ends one call and leaves the connection.
func TestStreamFaults(t *testing.T) {
	overfull := append(request(1, nil, nil, 10<<20), bytes.Repeat(append(appendHeader(nil, header{length: maxChunk, typ: typeBody, stream: 1}), make([]byte, maxChunk)...), 2)...)
	for name, c := range map[string]struct {
		frames []byte
		code   fault.Code
		flags  byte
	}{
		"body beyond its declared size": {append(append(request(1, nil, nil, maxInline+1), append(appendHeader(nil, header{length: maxChunk, typ: typeBody, stream: 1}), make([]byte, maxChunk)...)...),
			append(appendHeader(nil, header{length: 2, typ: typeBody, stream: 1}), 1, 2)...), fault.MessageMalformed, 0},
		"body of a call that has none": {append(request(1, []byte("wait"), nil, 0), append(appendHeader(nil, header{length: 2, typ: typeBody, stream: 1}), 1, 2)...), fault.MessageMalformed, 0},
		"window overflow":              {overfull, fault.MessageMalformed, 0},
		"body too large":               {request(1, nil, nil, 10<<20+1), fault.TooLarge, flagNotBegun},
		"envelope too large":           {request(1, make([]byte, 1001), nil, 0), fault.TooLarge, flagNotBegun},
		"query too large":              {appendOpening(nil, typeQuery, 1, opening{head: []byte("x"), size: 9 << 20}), fault.TooLarge, flagNotBegun},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			defer close(done)
			_, w := bare(t, Config{MaxBody: 10 << 20, MaxEnvelope: 1000}, hands{exchange: func(ctx context.Context, p Peer, m *Message) (*Message, error) {
				if string(m.Envelope) == "after" {
					return echo(ctx, p, m)
				}
				select { // reads nothing
				case <-ctx.Done():
				case <-done:
				}
				return nil, ctx.Err()
			}}, false)
			go w.send(append(c.frames, request(2, []byte("after"), nil, 0)...))
			h, e := w.notice(typeReset)
			if h.stream != 1 || e.Code != c.code || h.flags != c.flags {
				t.Errorf("RESET of stream %d: %v, flags %d; want %s, %d", h.stream, e, h.flags, c.code, c.flags)
			}
			if h, _ := w.want(typeAnswer); h.stream != 2 {
				t.Errorf("answer to stream %d", h.stream)
			}
		})
	}
}

// TestLateFrames: what is still on its way for an ended call is passed over,
// as are unknown frames.
func TestLateFrames(t *testing.T) {
	_, w := bare(t, Config{}, hands{}, false)
	go w.send(request(1, nil, nil, 0))
	w.want(typeAnswer)
	frames := appendWindow(nil, 1, 77)
	frames = append(appendHeader(frames, header{length: 3, typ: typeBody, stream: 1}), 1, 2, 3)
	frames = appendReset(frames, 1, fault.New(fault.Timeout, ""), 0)
	frames = append(appendHeader(frames, header{length: 3, typ: 99, flags: 7, stream: 12345}), 1, 2, 3)
	frames = append(frames, request(2, nil, nil, 0)...)
	go w.send(frames)
	if h, _ := w.next(); h.typ != typeAnswer || h.stream != 2 {
		t.Errorf("got %+v", h)
	}
}

// TestOverload: calls beyond the limit are refused without effect, by all
// connections of the peer together, and also when it resets what it opened:
// a handler counts until it has returned.
func TestOverload(t *testing.T) {
	release := make(chan struct{})
	p := newPair(t, Config{}, Config{MaxStreams: 2}, hands{exchange: func(ctx context.Context, peer Peer, m *Message) (*Message, error) {
		<-release
		return NewMessage(nil, nil), nil
	}})
	one, two := p.dialWire(t, p.bhCert), p.dialWire(t, p.bhCert)
	one.greet()
	two.greet()
	one.send(request(1, nil, nil, 0))
	one.send(appendReset(nil, 1, fault.New(fault.Timeout, ""), 0))
	one.send(request(2, nil, nil, 0))
	eventually(t, "both run", func() bool { return p.sa.loads["BH"].streams.Load() == 2 })
	two.send(request(1, nil, nil, 0))
	if h, e := two.notice(typeReset); e.Code != fault.Overloaded || h.flags != flagNotBegun {
		t.Errorf("RESET %v, flags %d", e, h.flags)
	}
	close(release)
	if h, _ := one.want(typeAnswer); h.stream != 2 {
		t.Errorf("answer to %d", h.stream)
	}
	eventually(t, "the slots are free", func() bool { return p.sa.loads["BH"].streams.Load() == 0 })
	two.send(request(2, nil, nil, 0))
	two.want(typeAnswer)
}

// TestHeld: calls of one state hold so much memory together and no more, and
// give it back.
func TestHeld(t *testing.T) {
	release := make(chan struct{})
	l, w := bare(t, Config{MaxHeld: 200 << 10, Ping: time.Hour}, hands{exchange: func(context.Context, Peer, *Message) (*Message, error) {
		<-release
		return NewMessage(nil, nil), nil
	}}, false)
	w.send(request(1, nil, make([]byte, maxInline), maxInline)) // 64 KiB and a little
	w.send(request(2, nil, nil, 1<<30))                         // 64 KiB, the first credit
	for id := uint64(3); id < 5; id++ {
		frame := request(id, make([]byte, 100<<10), nil, 0)
		if id == 4 {
			frame = appendOpening(nil, typeQuery, id, opening{head: []byte("x"), size: 100 << 10})
		}
		w.send(frame)
		if h, e := w.notice(typeReset); h.stream != id || e.Code != fault.Overloaded || h.flags != flagNotBegun {
			t.Errorf("stream %d: %v, flags %d", h.stream, e, h.flags)
		}
	}
	w.send(request(5, make([]byte, 1000), nil, 0)) // small calls pass
	close(release)
	for range 3 {
		w.want(typeAnswer)
	}
	eventually(t, "all is given back", func() bool { return l.loads["SA"].held.Load() == 0 })
}

// TestConnections: one peer has so many connections and no more.
func TestConnections(t *testing.T) {
	p := newPair(t, Config{}, Config{MaxConns: 2}, hands{})
	p.dialWire(t, p.bhCert).greet()
	two := p.dialWire(t, p.bhCert)
	two.greet()
	three := p.dialWire(t, p.bhCert)
	three.send(appendHello(nil, hello{min: 1, max: 1}))
	if h, p, err := three.frame(); err != nil || h.typ != typeGoaway || !bytes.Contains(p, []byte(fault.Overloaded)) {
		t.Errorf("the third heard %+v %q, %v", h, p, err)
	}
	_, err := p.bh.Query(soon(t), p.to, "x", nil)
	wantFault(t, err, fault.Overloaded, ErrNotSent)
	two.Close()
	eventually(t, "its place is free", func() bool { return len(p.sa.Peers()) == 1 })
	p.dialWire(t, p.bhCert).greet()
}

// TestHandshakes: connections that do not get on with their handshake neither
// pile up nor keep others out.
func TestHandshakes(t *testing.T) {
	p := newPair(t, Config{}, Config{MaxHandshakes: 8, HandshakeTimeout: time.Second}, hands{})
	var conns []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", p.to.Addrs[0])
		ok(t, err)
		defer c.Close()
		conns = append(conns, c)
	}
	eventually(t, "two are in handshake, the most for one address", func() bool {
		p.sa.mu.Lock()
		defer p.sa.mu.Unlock()
		return p.sa.handshake == 2
	})
	for _, c := range conns { // all are closed: at once, or when their time is over
		ok(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("still open")
		}
	}
	_, err := p.bh.Query(soon(t), p.to, "x", nil)
	ok(t, err)
	p.sa.mu.Lock()
	defer p.sa.mu.Unlock()
	if p.sa.handshake != 0 || len(p.sa.shaking) != 0 {
		t.Errorf("%d handshakes are still counted", p.sa.handshake)
	}
}

// TestSilent: who says nothing, before TLS or after it, has his time and no more.
func TestSilent(t *testing.T) {
	for name, says := range map[string]func(*testing.T, net.Conn, *authority) io.Reader{
		"before TLS": func(_ *testing.T, c net.Conn, _ *authority) io.Reader { return c },
		"before HELLO": func(t *testing.T, c net.Conn, ca *authority) io.Reader {
			s := tls.Client(c, &tls.Config{
				Certificates: []tls.Certificate{*ca.issue("BH", "bh-1")}, NextProtos: []string{protocol}, InsecureSkipVerify: true,
			})
			ok(t, s.Handshake())
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newAuthority(t)
				l := New(Config{}, ca.deps(ca.issue("SA", "sa-1")), hands{})
				defer l.Close()
				here, there := net.Pipe()
				defer there.Close()
				ip, fits := l.admit(here)
				if !fits {
					t.Fatal("no room for one")
				}
				start := time.Now()
				go l.accept(here, ip)
				r := says(t, there, ca)
				_, _ = io.Copy(io.Discard, r)
				if d := time.Since(start); d != 10*time.Second {
					t.Errorf("closed after %v", d)
				}
			})
		})
	}
}

// TestPanic: a panic costs its call, is logged without the value, and the
// connection lives.
func TestPanic(t *testing.T) {
	log := &record{}
	l, w := bare(t, Config{}, hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
		if len(m.Envelope) > 0 {
			panic(errors.New("name of a citizen"))
		}
		return m, nil
	}}, false)
	l.deps.Log = slog.New(slog.NewTextHandler(log, nil))
	go w.send(request(1, []byte("x"), nil, 0))
	_, e := w.notice(typeReset)
	go w.send(request(2, nil, nil, 0))
	w.want(typeAnswer)
	if s := log.String(); e.Code != fault.Internal || e.ID == "" || !strings.Contains(s, e.ID) || !strings.Contains(s, "TestPanic") || strings.Contains(s, "citizen") {
		t.Errorf("fault %+v, log %s", e, s)
	}
}

// TestUnreading: a peer that calls without reading answers waits itself; what
// it makes us hold is bounded, and what came of its calls is recorded.
func TestUnreading(t *testing.T) {
	var begun, recorded atomic.Int64
	l, w := bare(t, Config{MaxStreams: 4, Ping: time.Hour}, hands{exchange: func(context.Context, Peer, *Message) (*Message, error) {
		begun.Add(1)
		m := NewMessage(make([]byte, 600<<10), nil)
		m.Hold = func() ([]byte, error) { recorded.Add(1); return nil, nil }
		return m, nil
	}}, false)
	done := make(chan int)
	go func() {
		n := 0
		for id := uint64(1); ; id++ {
			w.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			if _, err := w.Write(request(id, nil, nil, 0)); err != nil {
				done <- n
				return
			}
			n++
		}
	}()
	n := <-done
	eventually(t, "every answer is recorded", func() bool { return begun.Load() > 3 && recorded.Load() == begun.Load() })
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.mu.Lock()
		if held := len(c.pending); held > maxPending+5*(700<<10) {
			t.Errorf("%d bytes wait for a peer that took %d calls and reads nothing", held, n)
		}
		c.mu.Unlock()
	}
}
