package exchange

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// TestEveryByte sends bodies of every awkward size there and back.
func TestEveryByte(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Query().Get("chunked") != "" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(b)
	})
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 3 << 20} {
		want := make([]byte, size)
		_, _ = rand.Read(want)
		for _, query := range []string{"", "?chunked=1"} {
			body := io.Reader(bytes.NewReader(want))
			if query != "" {
				body = io.MultiReader(body) // of unknown length: sent in chunks
			}
			a := u.call("SA", "PUT", offered("BH", "things"), "/x"+query, body, "Content-Type: application/octet-stream")
			if a.status != 200 || !bytes.Equal(a.body, want) {
				t.Errorf("%d bytes%s: status %d, %d bytes back: %.600s", size, query, a.status, len(a.body), a.body)
			}
		}
	}
}

func TestMethodsPathsAndAnswers(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, strings.Repeat("المرور ", 100))
	_ = z.Close()
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		h := w.Header()
		h["X-Two"] = []string{"a, b", "c"}
		h["Set-Cookie"] = []string{"a=1", "b=2"}
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(204)
		case "/same":
			h.Set("Etag", `"1"`)
			w.WriteHeader(304)
		case "/moved":
			h.Set("Location", "http://elsewhere.example/%D8%A7?x")
			w.WriteHeader(307)
		case "/packed":
			h.Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes())
		default:
			h.Set("X-Seen", fmt.Sprintf("%s %s %q ua=%q", r.Method, r.RequestURI, b, r.Header.Get("User-Agent")))
			w.WriteHeader(299)
		}
	})
	svc := offered("BH", "things")
	for _, method := range []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"} {
		body := io.Reader(nil)
		sent := ""
		if method != "TRACE" && method != "HEAD" {
			sent = "body"
			body = strings.NewReader(sent)
		}
		const path = "/a%20b/%D9%85%D8%B1%D9%83%D8%A8%D8%A9/%7Ec;v=1/?q=%D8%A7&q=+&&=x"
		a := u.call("SA", method, svc, path, body)
		want := fmt.Sprintf("%s %s %q ua=%q", method, path, sent, "")
		if a.status != 299 || a.header.Get("X-Seen") != want || len(a.header["X-Two"]) != 2 || len(a.header["Set-Cookie"]) != 2 {
			t.Errorf("%s: %d %v\nwanted %s", method, a.status, a.header, want)
		}
	}
	for path, want := range map[string]int{"/none": 204, "/same": 304, "/moved": 307, "/packed": 200} {
		a := u.call("SA", "GET", svc, path, nil)
		if a.status != want {
			t.Errorf("%s: status %d", path, a.status)
		}
		switch path {
		case "/same":
			if a.header.Get("Etag") != `"1"` || len(a.body) != 0 {
				t.Errorf("304: %v %q", a.header, a.body)
			}
		case "/moved":
			if a.header.Get("Location") != "http://elsewhere.example/%D8%A7?x" {
				t.Errorf("307: %v", a.header)
			}
		case "/packed":
			if !bytes.Equal(a.body, packed.Bytes()) || a.header.Get("Content-Encoding") != "gzip" {
				t.Errorf("packed body: %d bytes of %d, %v", len(a.body), packed.Len(), a.header)
			}
		}
	}
	if a := u.call("SA", "GET", svc, "", nil); a.header.Get("X-Seen") != `GET / "" ua=""` {
		t.Errorf("no path: %v", a.header)
	}
	if a := u.call("SA", "GET", svc, "?q", nil); a.header.Get("X-Seen") != `GET /?q "" ua=""` {
		t.Errorf("no path but a query: %v", a.header)
	}
}

func TestABaseWithAPath(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	srv := u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) })
	check(t, u.nodes["BH"].Local().PutBackend(t.Context(), Backend{Service: offered("BH", "things"), Address: srv.URL + "/base/v1/"}))
	for path, want := range map[string]string{"": "/base/v1", "/": "/base/v1/", "/x?y": "/base/v1/x?y", "?y": "/base/v1?y"} {
		if a := u.call("SA", "GET", offered("BH", "things"), path, nil); string(a.body) != want {
			t.Errorf("%q became %s, wanted %s", path, a.body, want)
		}
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestEndlessStreamIsRefused(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.MaxBody = 1 << 20 })
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, zeros{}) })
	a := u.call("SA", "POST", offered("BH", "things"), "/", io.LimitReader(zeros{}, 4<<20))
	if e := a.fault(t); e.Code != "request.too-large" {
		t.Errorf("sent too much: %d %+v", a.status, e)
	}
	a = u.call("SA", "GET", offered("BH", "things"), "/", nil)
	if e := a.fault(t); !strings.HasPrefix(e.Type, "Server.ServerProxy.") {
		t.Errorf("answered too much: %d %+v", a.status, e)
	}
}

// TestLargeBody streams a body both ways and watches the memory. In a soak run
// it is 1 GiB.
func TestLargeBody(t *testing.T) {
	size := int64(96 << 20)
	if os.Getenv("FALAJ_SOAK") != "" {
		size = 1 << 30
	}
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, _ := io.Copy(h, r.Body)
		w.Header().Set("X-Sum", hex.EncodeToString(h.Sum(nil)))
		w.Header().Set("Content-Length", fmt.Sprint(n))
		_, _ = io.Copy(w, io.LimitReader(zeros{}, n))
	})
	u.backend("BH", "idem", func(w http.ResponseWriter, r *http.Request) {})
	var peak atomic.Uint64
	stop := make(chan struct{})
	small := make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				small <- n
				return
			case <-time.After(5 * time.Millisecond):
				if a := u.call("SA", "GET", offered("BH", "idem"), "/", nil); a.status == 200 {
					n++
				}
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				if now := m.HeapInuse + m.StackInuse; now > peak.Load() {
					peak.Store(now)
				}
			}
		}
	}()
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	want := sha256.New()
	req, err := http.NewRequest("PUT", u.nodes["SA"].edge.URL+"/r1/"+offered("BH", "things").String()+"/x", io.TeeReader(io.LimitReader(zeros{}, size), want))
	check(t, err)
	req.Header.Set("X-Road-Client", desk("SA").String())
	req.Header.Set("Falaj-Purpose", "test")
	res, err := http.DefaultTransport.RoundTrip(req)
	check(t, err)
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	check(t, err)
	close(stop)
	if res.StatusCode != 200 || n != size || res.Header.Get("X-Sum") != hex.EncodeToString(want.Sum(nil)) {
		t.Errorf("status %d, %d of %d bytes, %v", res.StatusCode, n, size, res.Header)
	}
	if extra := int64(peak.Load()) - int64(before.HeapInuse+before.StackInuse); extra > 64<<20 {
		t.Errorf("both nodes took %d MiB more for a body of %d MiB", extra>>20, size>>20)
	}
	if n := <-small; n == 0 {
		t.Error("no small call was answered beside the large one")
	}
}
