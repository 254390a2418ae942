package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

func call(h http.Handler, client, from string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/r1/BH/GOV/x/y/z", nil)
	r.RemoteAddr = from + ":4711"
	if client != "" {
		r.Header.Set("X-Road-Client", client)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestGateRate(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var shed []fault.Code
	g := NewGate(Limits{Rate: 2, Burst: 3, Clients: 2}, func() time.Time { return now }, func(c fault.Code) { shed = append(shed, c) })
	h := g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	const a, b = "SA/GOV/a/a", "SA/GOV/b/b"
	for range 3 {
		if w := call(h, a, "10.0.0.1"); w.Code != 200 {
			t.Fatalf("within the burst: %d", w.Code)
		}
	}
	w := call(h, a, "10.0.0.1")
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" || w.Header().Get("X-Road-Error") == "" {
		t.Fatalf("beyond the burst: %d %v", w.Code, w.Header())
	}
	var said struct {
		Code      fault.Code `json:"code"`
		MessageAr string     `json:"message_ar"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.Code != fault.Overloaded || said.MessageAr == "" {
		t.Errorf("said %s", w.Body)
	}
	if w := call(h, a, "10.0.0.2"); w.Code != 200 {
		t.Errorf("the same name from elsewhere shares the allowance: %d", w.Code)
	}
	now = now.Add(500 * time.Millisecond)
	if w := call(h, a, "10.0.0.1"); w.Code != 200 {
		t.Errorf("after half a second: %d", w.Code)
	}
	// Two callers are known; the others share one allowance.
	for i := range 3 {
		if w := call(h, b, fmt.Sprintf("10.0.1.%d", i)); w.Code != 200 {
			t.Errorf("the rest, call %d: %d", i, w.Code)
		}
	}
	if w := call(h, b, "10.0.1.9"); w.Code != 503 {
		t.Errorf("the rest beyond their burst: %d", w.Code)
	}
	if len(g.clients) != 2 {
		t.Errorf("%d callers are remembered", len(g.clients))
	}
	now = now.Add(time.Hour)
	if w := call(h, b, "10.0.1.9"); w.Code != 200 || len(g.clients) != 1 {
		t.Errorf("silent callers are not forgotten: %d, %d", w.Code, len(g.clients))
	}
	if len(shed) != 2 {
		t.Errorf("%v were told", shed)
	}
}

func TestGateInFlightAndDrain(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	g := NewGate(Limits{Requests: 1}, time.Now, func(fault.Code) {})
	h := g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { enter <- struct{}{}; <-leave }))
	done := make(chan int)
	go func() { done <- call(h, "", "10.0.0.1").Code }()
	<-enter
	if w := call(h, "", "10.0.0.1"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a second call at once: %d", w.Code)
	}
	g.Drain()
	w := call(h, "", "10.0.0.1")
	var said struct{ Code fault.Code }
	if json.Unmarshal(w.Body.Bytes(), &said); w.Code != 503 || said.Code != fault.Draining {
		t.Errorf("a call while draining: %d %s", w.Code, w.Body)
	}
	close(leave)
	if code := <-done; code != 200 {
		t.Errorf("the call inside: %d", code)
	}
	if g.InFlight() != 0 {
		t.Errorf("%d in flight", g.InFlight())
	}
}

// TestSlow: who sends his head or his body byte after byte loses his place.
func TestSlow(t *testing.T) {
	g := NewGate(Limits{Time: 200 * time.Millisecond}, time.Now, func(fault.Code) {})
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = Server(g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})), 8<<10, 200*time.Millisecond, time.Minute, 0)
	srv.Start()
	defer srv.Close()
	for name, begun := range map[string]string{
		"head": "GET / HTTP/1.1\r\nHost: x\r\nX-A: ",
		"body": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
	} {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, begun); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { io.Copy(io.Discard, c); close(ended) }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		late := time.After(20 * time.Second)
		for over := false; !over; {
			select {
			case <-tick.C:
				c.Write([]byte("x"))
			case <-ended:
				over = true
			case <-late:
				t.Errorf("%s: still connected", name)
				over = true
			}
		}
	}
	req := httptest.NewRequest("GET", srv.URL, nil)
	req.RequestURI = ""
	req.Header.Set("X-Large", strings.Repeat("x", 20<<10))
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a large head: %s", resp.Status)
		}
	}
}

func TestBound(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := Bound(l, 1)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := b.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Error("two are inside")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // gives one place back, not two
	if second, ok := <-accepted; !ok {
		t.Error("the freed place stays empty")
	} else {
		defer second.Close()
	}
	b.Close()
	if _, ok := <-accepted; ok {
		t.Error("accepts after its close")
	}
}

func TestReady(t *testing.T) {
	var broken, nagging error
	h := NewHealth(
		Check{Name: "store", Text: union.Text{En: "store", Ar: "مخزن"}, Run: func(context.Context) error { return broken }},
		Check{Name: "clock", Text: union.Text{En: "clock", Ar: "ساعة"}, Run: func(context.Context) error { return nagging }, Hint: true})
	srv := h.Handler(prometheus.NewRegistry())
	probe := func(path string) (int, string) {
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	want := func(what string, code int) {
		t.Helper()
		if got, body := probe("/readyz"); got != code {
			t.Errorf("%s: %d %s", what, got, body)
		}
		if got, _ := probe("/healthz"); got != 200 {
			t.Errorf("%s: not alive: %d", what, got)
		}
	}
	want("before the start", 503)
	h.Started()
	want("started", 200)
	nagging = errors.New("it is late")
	want("a hint", 200)
	broken = fault.New(fault.DiskFull, "no room")
	want("broken", 503)
	if _, body := probe("/readyz"); !json.Valid([]byte(body)) {
		t.Errorf("not JSON: %s", body)
	}
	broken = nil
	want("mended", 200)
	h.Drain()
	want("draining", 503)
	if code, _ := probe("/metrics"); code != 200 {
		t.Errorf("metrics: %d", code)
	}
	if w := httptest.NewRecorder(); true {
		srv.ServeHTTP(w, httptest.NewRequest("POST", "/readyz", nil))
		if w.Code != 405 {
			t.Errorf("POST /readyz: %d", w.Code)
		}
	}
}
