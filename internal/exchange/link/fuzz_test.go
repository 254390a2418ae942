package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// seeds are streams of frames: right ones, and some a little wrong.
func seeds() [][]byte {
	e := fault.New(fault.PolicyDenied, "rule 7 · قاعدة")
	chunk := append(appendHeader(nil, header{length: 5, typ: typeBody, stream: 1}), "chunk"...)
	full := append(appendHeader(nil, header{length: maxChunk, typ: typeBody, stream: 1}), make([]byte, maxChunk)...)
	return [][]byte{
		{},
		request(1, []byte("envelope"), []byte("body"), 4),
		appendOpening(nil, typeQuery, 1, opening{head: []byte("directory.get"), inline: []byte("x"), size: 1, deadline: 10}),
		append(request(1, nil, nil, maxInline+5), append(append([]byte{}, full...), chunk...)...),
		append(request(1, nil, nil, maxInline+1), append(append([]byte{}, full...), chunk...)...),
		append(appendOpening(nil, typeAnswer, 1, opening{head: []byte("a"), size: maxInline + 5}), append(append([]byte{}, full...), chunk...)...),
		appendOpening(nil, typeAnswer, 1, opening{inline: []byte("x"), size: 1}),
		append(request(1, nil, nil, 1<<40), appendReset(nil, 1, e, 0)...),
		appendReset(nil, 1, e, flagNotBegun),
		append(appendPing(nil, typePing, 1), appendPing(nil, typePong, 1)...),
		appendGoaway(nil, 0, fault.New(fault.Draining, "")),
		append(request(3, nil, nil, 0), request(2, nil, nil, 0)...),
		append(request(1, []byte("large"), nil, 0), appendWindow(nil, 1, 1<<20)...),
		appendHello(nil, hello{min: 1, max: 9, software: "x"}),
		append(appendHeader(nil, header{length: 4, typ: 99, flags: 9, stream: 9}), "what"...),
	}
}

// FuzzFrame: no payload breaks a decoder, and what one accepts is what its
// encoder writes.
func FuzzFrame(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h := parseHeader(b)
		if !bytes.Equal(appendHeader(nil, h), b[:headerSize]) {
			t.Fatal("header changed")
		}
		if h.check() != nil || uint64(h.length) > uint64(len(b)-headerSize) {
			return
		}
		b = b[:headerSize+int(h.length)]
		p := b[headerSize:]
		switch h.typ {
		case typeRequest, typeQuery, typeAnswer, typeReply:
			o, err := parseOpening(h.typ, h.flags, p)
			if err == nil && !bytes.Equal(appendOpening(nil, h.typ, h.stream, o), b) {
				t.Fatal("opening changed")
			}
		case typeHello:
			v, err := parseHello(p)
			if err == nil && (v.min > v.max || len(v.software) > maxSoftware) {
				t.Fatalf("HELLO %+v", v)
			}
		case typeReset:
			e, err := parseNotice(p)
			if err != nil {
				return
			}
			if again, err := parseNotice(appendNotice(nil, e)); err != nil || again.Code != e.Code || again.Detail != e.Detail || again.ID != e.ID {
				t.Fatalf("notice %+v became %+v, %v", e, again, err)
			}
		}
	})
}

// both plays arbitrary bytes to a connection after HELLO and reads what it
// says, until it ends.
func both(t *testing.T, l *Link, w *wire, c *conn, frames []byte) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.greet() == nil {
			c.run()
		} else {
			c.fail(nil)
			l.forget(c)
		}
	}()
	go io.Copy(io.Discard, w)
	w.Write(appendHello(nil, hello{min: 1, max: 1}))
	w.Write(frames)
	w.Close()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the connection does not end")
	}
	l.Close() // waits for handlers, too
	if n := l.memory.Load(); n != 0 {
		t.Fatalf("%d bytes of window memory are lost", n)
	}
	for _, load := range l.loads {
		if load.conns != 0 || load.streams.Load() != 0 || load.held.Load() != 0 {
			t.Fatalf("left: %d connections, %d streams", load.conns, load.streams.Load())
		}
	}
}

// FuzzServe: whatever a caller sends, the connection ends, handlers end, and
// nothing stays counted.
func FuzzServe(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, w, c := join(t, Config{MaxStreams: 4}, hands{exchange: func(ctx context.Context, p Peer, m *Message) (*Message, error) {
			switch {
			case bytes.HasPrefix(m.Envelope, []byte("large")):
				return NewMessage(nil, make([]byte, 200<<10)), nil
			case m.Size > 1<<20:
				return nil, errors.New("no")
			}
			return echo(ctx, p, m)
		}}, false)
		both(t, l, w, c, b)
	})
}

// FuzzCall: whatever the other side answers, calls end with an answer or with
// an error that says what became of them.
func FuzzCall(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, w, c := join(t, Config{}, hands{}, true)
		results := make(chan error, 2)
		for i := range 2 {
			go func() {
				m, err := l.Exchange(context.Background(), onPipe, NewMessage([]byte("x"), make([]byte, i*100<<10)))
				if err == nil && m.Body != nil {
					_, err = io.Copy(io.Discard, m.Body)
					m.Body.Close()
				}
				results <- err
			}()
		}
		eventually(t, "both calls are queued", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.last == 2
		})
		both(t, l, w, c, b)
		for range 2 {
			if err := <-results; err != nil && !errors.Is(err, ErrNotSent) && !errors.Is(err, ErrBroken) && !errors.Is(err, ErrRefused) {
				t.Fatalf("an error that tells nothing: %v", err)
			}
		}
	})
}
