package exchange

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// TestCallerGone: whoever hangs up in the middle of a call, or dies, stops
// nothing at the provider's: what the service did is recorded, and a
// repetition of the id gets its answer.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(u *testUnion, stop func()){
		"hangs up":            func(_ *testUnion, stop func()) { stop() },
		"its connection dies": func(u *testUnion, _ func()) { u.nodes["BH"].link.Drop(func(link.Peer) bool { return true }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUnion(t, []union.State{"BH", "SA"})
			bh := u.nodes["BH"]
			var calls atomic.Int32
			busy, release, cut := make(chan bool, 1), make(chan bool), make(chan bool, 1)
			u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 1 {
					busy <- true
					select {
					case <-release:
					case <-r.Context().Done():
						cut <- true
					}
				}
				_, _ = io.WriteString(w, "done once")
			})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			gone := make(chan error, 1)
			go func() {
				_, err := u.nodes["SA"].Ask(ctx, Ask{
					Client: desk("SA"), Door: "http", Service: offered("BH", "things"), Method: "POST", Path: "/", ID: "gone", Purpose: "test", In: time.Now(),
				})
				gone <- err
			}()
			<-busy
			leave(u, stop)
			if err := <-gone; err == nil {
				t.Fatal("the caller has its answer")
			}
			select {
			case <-cut:
				t.Error("the service was cut off")
			case <-time.After(100 * time.Millisecond):
			}
			close(release)
			a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: gone")
			if a.status != 200 || string(a.body) != "done once" || calls.Load() != 1 {
				t.Errorf("%d %s after %d calls", a.status, a.body, calls.Load())
			}
			if list, err := bh.Outcomes(t.Context(), 9); err != nil || len(list) != 0 {
				t.Errorf("%v %v", list, err)
			}
			u.sound(t)
		})
	}
}

// TestPanicIsUnknown: what a call that panicked has done nobody knows, which
// is recorded and said.
func TestPanicIsUnknown(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, d *Deps) {
		if c.State == "BH" {
			d.Persons = panics{d.Persons}
		}
	})
	var calls atomic.Int32
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Falaj-Subject", "boom")
	})
	for method, listed := range map[string]int{"GET": 0, "POST": 1} {
		a := u.call("SA", method, offered("BH", "things"), "/", nil, "X-Road-Id: "+method)
		if e := a.fault(t); e.Code != string(fault.Internal) || strings.Contains(string(a.body), "boom") {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
		if list, err := u.nodes["BH"].Outcomes(t.Context(), 9); err != nil || len(list) != listed {
			t.Errorf("%s: %v %v", method, list, err)
		}
		if got := u.nodes["BH"].held(t, method); got != "request received, answer sent" {
			t.Errorf("%s: recorded %s", method, got)
		}
	}
	if a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: POST"); a.fault(t).Code != string(fault.OutcomeUnknown) || calls.Load() != 2 {
		t.Errorf("%d %s after %d calls", a.status, a.body, calls.Load())
	}
	u.sound(t)
}

// panics is a hash that fails on one name.
type panics struct{ Persons }

func (p panics) Sum(b []byte) [32]byte {
	if strings.HasSuffix(string(b), "boom") {
		panic("boom")
	}
	return p.Persons.Sum(b)
}

// dying is a connection that takes nothing any more once it has served.
type dying struct {
	net.Conn
	served *atomic.Bool
	takes  int // bytes that it takes all the same
}

func (d *dying) Write(b []byte) (int, error) {
	if !d.served.Load() {
		return d.Conn.Write(b)
	}
	n := min(d.takes, len(b))
	if n > 0 {
		n, _ = d.Conn.Write(b[:n])
	}
	_ = d.Conn.Close()
	return n, syscall.EPIPE
}

// TestClosedIdle: a request of which no byte was sent, since the connection
// kept open from an earlier call is no good any more, is sent on another one;
// one of which a byte was sent is not.
func TestClosedIdle(t *testing.T) {
	t.Parallel()
	for takes, want := range map[int]int{0: 200, 1: 500} {
		for name, body := range map[string][]byte{"none": nil, "small": []byte("small"), "large": bytes.Repeat([]byte("x"), 200<<10)} {
			for _, secure := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d bytes, TLS %v", name, takes, secure), func(t *testing.T) {
					t.Parallel()
					u := newUnion(t, []union.State{"BH", "SA"})
					bh := u.nodes["BH"]
					var calls atomic.Int32
					srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						b, err := io.ReadAll(r.Body)
						if err == nil && calls.Add(1) > 1 && !bytes.Equal(b, body) {
							t.Errorf("%d bytes came", len(b))
						}
					}))
					srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
					b := Backend{Service: offered("BH", "things")}
					if secure {
						srv.StartTLS()
						b.RootsPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
					} else {
						srv.Start()
					}
					t.Cleanup(srv.Close)
					b.Address = srv.URL
					check(t, bh.Local().PutBackend(t.Context(), b))
					tr, err := bh.backends.transport(bh.Exchange, b)
					check(t, err)
					var served atomic.Bool
					first := true
					dies := func(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
						return func(ctx context.Context, network, address string) (net.Conn, error) {
							c, err := dial(ctx, network, address)
							if w, ok := c.(*counted); ok && first {
								first, w.Conn = false, &dying{Conn: w.Conn, served: &served, takes: takes}
							}
							return c, err
						}
					}
					tr.DialContext, tr.DialTLSContext = dies(tr.DialContext), dies(tr.DialTLSContext)
					if a := u.call("SA", "POST", b.Service, "/", nil); a.status != 200 {
						t.Fatalf("%d %s", a.status, a.body)
					}
					served.Store(true)
					a := u.call("SA", "POST", b.Service, "/", bytes.NewReader(body), "X-Road-Id: second")
					list, err := bh.Outcomes(t.Context(), 9)
					if a.status != want || err != nil || len(list) != takes || int(calls.Load()) != 2-takes {
						t.Errorf("%d %.200s after %d calls; %v %v", a.status, a.body, calls.Load(), list, err)
					}
				})
			}
		}
	}
}
