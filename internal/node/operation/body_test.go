package operation

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// behind serves a handler behind a gate, as the r1 door does.
func behind(t *testing.T, g *Gate, h http.HandlerFunc) net.Addr {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = Server(g.Wrap(h), 8<<10, 10*time.Second, time.Minute, 0)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr()
}

// begin sends the head of a request that announces a body, and the body's
// first byte.
func begin(t *testing.T, at net.Addr, size int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "POST /r1/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nx", size); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRefusedUnread: who is refused before his body was read is told so at
// once, and holds no connection by what he has not sent.
func TestRefusedUnread(t *testing.T) {
	drained := NewGate(Limits{}, time.Now, func(fault.Code) {})
	drained.Drain()
	full := NewGate(Limits{Requests: 1}, time.Now, func(fault.Code) {})
	full.slots <- struct{}{}
	for name, g := range map[string]*Gate{
		"by the door": NewGate(Limits{}, time.Now, func(fault.Code) {}),
		"draining":    drained,
		"overloaded":  full,
	} {
		at := behind(t, g, func(w http.ResponseWriter, r *http.Request) {
			Refuse(w, r, fault.New(fault.UnknownClient, "nobody"))
		})
		for _, size := range []int{100_000, 1 << 20} {
			c := begin(t, at, size)
			began := time.Now()
			c.SetReadDeadline(began.Add(5 * time.Second))
			in := bufio.NewReader(c)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", name, size, err)
			}
			if took := time.Since(began); took > linger/2 {
				t.Errorf("%s, %d bytes: told after %v", name, size, took)
			}
			if resp.StatusCode < 400 || !resp.Close {
				t.Errorf("%s, %d bytes: %s, close %t", name, size, resp.Status, resp.Close)
			}
			io.Copy(io.Discard, resp.Body)
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("%s, %d bytes: the connection goes on: %v", name, size, err)
			}
		}
	}
}

// TestReadKeepsConnection: a body that was read costs no connection.
func TestReadKeepsConnection(t *testing.T) {
	at := behind(t, NewGate(Limits{}, time.Now, func(fault.Code) {}), func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	})
	c := begin(t, at, 1)
	in := bufio.NewReader(c)
	for range 2 {
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.Close || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPace: a body that stands still, or trickles, gives its place back; one
// that comes slowly but at the pace asked for arrives.
func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		size, piece int
		every       time.Duration
		arrives     bool
	}{
		"stands still": {100_000, 1, time.Hour, false},
		"trickles":     {100_000, 1, 10 * time.Millisecond, false},
		"pauses":       {5000, 4000, 700 * time.Millisecond, false},
		"in time":      {4000, 100, 10 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewGate(Limits{Stall: 300 * time.Millisecond, Pace: 5000}, time.Now, func(fault.Code) {})
			came := make(chan error, 1)
			at := behind(t, g, func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				came <- err
				if err != nil {
					Refuse(w, r, err)
				}
			})
			conn := begin(t, at, c.size)
			go func() {
				for sent := 1; sent < c.size; sent += c.piece {
					if sent > 1 {
						time.Sleep(c.every)
					}
					if _, err := conn.Write(make([]byte, min(c.piece, c.size-sent))); err != nil {
						return
					}
				}
			}()
			select {
			case err := <-came:
				if c.arrives != (err == nil) || err != nil && fault.CodeOf(err) != fault.BodyTruncated {
					t.Errorf("got %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("still inside")
			}
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.Close == c.arrives {
				t.Errorf("answered %v, %v", resp, err)
			}
		})
	}
}

// TestPatienceAfterTheBody: what is asked of a body ends with it. A call that
// takes longer than a body may pause goes on, and its client is still there.
func TestPatienceAfterTheBody(t *testing.T) {
	t.Parallel()
	g := NewGate(Limits{Stall: 50 * time.Millisecond, Pace: 1}, time.Now, func(fault.Code) {})
	srv := httptest.NewServer(g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			t.Error("the client is taken to have gone")
		case <-time.After(300 * time.Millisecond):
		}
	})))
	defer srv.Close()
	res, err := http.Post(srv.URL, "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}
