package exchange

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
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
			d.Subject = panics{d.Subject}
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
type panics struct {
	next interface{ Sum([]byte) [32]byte }
}

func (p panics) Sum(b []byte) [32]byte {
	if strings.HasSuffix(string(b), "boom") {
		panic("boom")
	}
	return p.next.Sum(b)
}
