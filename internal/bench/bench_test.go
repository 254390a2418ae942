package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/falaj/falaj/internal/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// direct stands in for the two nodes: straight to the backend. It counts how
// many of it are open.
func direct(open *atomic.Int64) func(context.Context, World) (Target, error) {
	return func(_ context.Context, w World) (Target, error) {
		open.Add(1)
		return Target{URL: w.Backend, Close: func() error { open.Add(-1); return nil }}, nil
	}
}

func brief() Config {
	return Config{Duration: 40 * time.Millisecond, Warmup: 5 * time.Millisecond, Rounds: 2, Concurrency: 3}
}

func TestAllVariantsAreMeasured(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var open atomic.Int64
	cfg := brief()
	cfg.Dir = t.TempDir()
	report, err := measure(t.Context(), cfg, direct(&open))
	if err != nil {
		t.Fatal(err)
	}
	if n := open.Load(); n != 0 {
		t.Errorf("%d were left running", n)
	}
	if left, _ := os.ReadDir(cfg.Dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if len(report.Variants) != 3 || report.Variants[0].Name != "stock" || report.Variants[2].Name != "falaj" {
		t.Fatalf("variants: %+v", report.Variants)
	}
	for _, v := range report.Variants {
		if v.Requests == 0 || v.PerSecond <= 0 || v.CPUMicros <= 0 || v.P50Micros <= 0 || v.P99Micros < v.P50Micros || v.Errors != 0 {
			t.Errorf("%+v", v)
		}
	}
	if report.Errors != 0 || report.Ratio <= 0 || report.RatioPooled <= 0 || report.Machine.SyncMicros <= 0 || report.Machine.PeakMiB < 1 || report.Machine.PeakMiB > 1<<14 || report.Single.StockP50Micros <= 0 {
		t.Errorf("%+v", report)
	}
}

// The nodes that are measured are real ones: what they carry is in evidence.
func TestExchangeThroughNodes(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // what stays would be charged to the next
	for _, batch := range []bool{false, true} {
		throughNodes(t, batch)
	}
}

func throughNodes(t *testing.T, batch bool) {
	cfg := brief()
	cfg.Dir, cfg.Batch = t.TempDir(), batch
	report, err := Exchange(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	falaj := report.Variants[2]
	if falaj.Requests == 0 || falaj.Errors != 0 || report.Ratio <= 0 || report.Single.FalajP50Micros <= report.Single.StockP50Micros {
		t.Errorf("%+v", report)
	}
	if left, _ := os.ReadDir(cfg.Dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStockCarriesBodies(t *testing.T) {
	backend, err := serveEcho()
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	for _, pooled := range []bool{false, true} {
		target, err := stock(pooled)(t.Context(), World{Backend: backend.URL, Concurrency: 4})
		if err != nil {
			t.Fatal(err)
		}
		r, err := run(t.Context(), load{target: target, concurrency: 4, size: 100_000, warmup: 1, duration: 50 * time.Millisecond})
		if err != nil || r.errors != 0 || r.requests == 0 {
			t.Errorf("pooled %v: %d requests, %d errors, %v, %v", pooled, r.requests, r.errors, r.first, err)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is compared with must carry the same protection: TLS 1.3, and a
// certificate asked of both.
func TestStockHopsAuthenticateEachOther(t *testing.T) {
	backend, err := serveEcho()
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	first, second, err := hops(World{Backend: backend.URL, Concurrency: 1}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	defer second.Close()
	stranger := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer stranger.CloseIdleConnections()
	if _, err := (&http.Client{Transport: stranger}).Get(second.URL); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
	if _, err := tls.Dial("tcp", strings.TrimPrefix(second.URL, "https://"), old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("over TLS 1.2: %v", err)
	}
}

func TestFailuresAreTold(t *testing.T) {
	fails := func(_ context.Context, w World) (Target, error) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no purpose", http.StatusForbidden)
		}))
		return Target{URL: s.URL, Close: func() error { s.Close(); return nil }}, nil
	}
	report, err := measure(t.Context(), brief(), fails)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(report.FirstError, "falaj: status 403") || !strings.Contains(report.FirstError, "no purpose") {
		t.Errorf("first error %q", report.FirstError)
	}
	if report.Errors == 0 || report.Variants[2].Errors == 0 || report.Variants[0].Errors != 0 {
		t.Errorf("report %+v", report)
	}
	_, err = measure(t.Context(), brief(), func(context.Context, World) (Target, error) { return Target{}, errors.New("no disk") })
	if err == nil || !strings.Contains(err.Error(), "falaj: start: no disk") {
		t.Errorf("error %v", err)
	}
}

func TestConfigLimits(t *testing.T) {
	for _, cfg := range []Config{
		{Duration: -1}, {Duration: time.Hour}, {Warmup: time.Hour}, {Rounds: -1}, {Rounds: 1000},
		{Concurrency: -1}, {Concurrency: 100_000}, {Size: 10}, {Size: 1 << 30},
	} {
		if report, err := measure(t.Context(), cfg, nil); fault.CodeOf(err) != fault.Usage || report != nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// loaded is a server under load that counts what it answered.
func loaded(t *testing.T, answer http.HandlerFunc) (Target, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r)
		n.Add(1)
	}))
	t.Cleanup(s.Close)
	return Target{URL: s.URL, Header: http.Header{"X-Road-Client": {"SA/GOV/a/b"}}}, &n
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = w.Write(body)
}

func TestLoadCounts(t *testing.T) {
	bodies := struct {
		sync.Mutex
		seen map[string]bool
	}{seen: map[string]bool{}}
	var twice, headless atomic.Int64
	target, served := loaded(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies.Lock()
		if bodies.seen[string(body)] {
			twice.Add(1)
		}
		bodies.seen[string(body)] = true
		bodies.Unlock()
		if r.Header.Get("X-Road-Client") != "SA/GOV/a/b" || r.Method != "POST" || len(body) != 200 {
			headless.Add(1)
		}
		_, _ = w.Write(body)
	})
	l := load{target: target, concurrency: 4, size: 200, warmup: 20 * time.Millisecond, duration: 60 * time.Millisecond}
	r, err := run(t.Context(), l)
	if err != nil || r.errors != 0 {
		t.Fatal(err, r.first)
	}
	// What the warm-up took and what each connection had under way at the end
	// is served and not counted.
	if int64(r.requests) >= served.Load() || r.requests == 0 {
		t.Errorf("counted %d of %d served", r.requests, served.Load())
	}
	if headless.Load() != 0 {
		t.Errorf("%d requests were not as told", headless.Load())
	}
	if r.p50 <= 0 || r.p99 < r.p50 || r.elapsed < l.duration {
		t.Errorf("%+v", r)
	}
	if twice.Load() != 0 || int64(len(bodies.seen)) != served.Load() {
		t.Errorf("%d of %d requests came before", twice.Load(), served.Load())
	}
}

// Of the requests of one connection those count whose answer comes within the
// window: all but the one under way as it ends, and none of the warm-up.
func TestWindowIsExact(t *testing.T) {
	var phase atomic.Int32
	var n int
	target, _ := loaded(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 20 {
			phase.Store(measuring)
		} else if n == 50 {
			phase.Store(done)
		}
		echo(w, r)
	})
	request, addr, err := prepare(target, 100)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{addr: addr, request: request, size: 100, phase: &phase, failed: &failures{stop: func() {}}}
	w.work(t.Context(), 10)
	if w.requests != 30 || len(w.samples) != 10 || w.failed.count != 0 {
		t.Errorf("%d requests, %d samples, %d errors (%v)", w.requests, len(w.samples), w.failed.count, w.failed.first)
	}
}

func TestLoadAcceptsWhatServersDo(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"chunked": func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(body[len(body)/2:])
		},
		"closing": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			echo(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			target, served := loaded(t, answer)
			r, err := run(t.Context(), load{target: target, concurrency: 2, size: 1000, duration: 30 * time.Millisecond})
			if err != nil || r.errors != 0 || served.Load() < 3 {
				t.Errorf("%d served, %d errors, %v, %v", served.Load(), r.errors, r.first, err)
			}
		})
	}
}

func TestLoadReportsErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a refusal":      {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) }, "status 503"},
		"no content":     {func(w http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body); w.WriteHeader(200) }, "not what was sent"},
		"another's body": {func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(body(500)) }, "not what was sent"},
		"a broken pipe": {func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		}, "receive"},
		"nonsense": {func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = conn.Write([]byte("SMTP ready\r\n\r\n"))
				_ = conn.Close()
			}
		}, "not an HTTP/1.1 answer"},
		"an endless header": {func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", maxHeader/2)))
				_ = conn.Close()
			}
		}, "does not end"},
		"an endless body": {func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"))
				_ = conn.Close()
			}
		}, "excessive length"},
	} {
		t.Run(name, func(t *testing.T) {
			target, _ := loaded(t, tt.answer)
			start := time.Now()
			r, err := run(t.Context(), load{target: target, concurrency: 2, size: 500, duration: 20 * time.Second})
			if err != nil || r.errors < maxErrors || r.requests != 0 || r.first == nil || !strings.Contains(r.first.Error(), tt.want) {
				t.Errorf("%d requests, %d errors, %v, %v", r.requests, r.errors, r.first, err)
			}
			if time.Since(start) > 15*time.Second {
				t.Error("went on after the last bearable error")
			}
		})
	}
}

// A target that never answers does not hold a round that was called off.
func TestLoadEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	target, _ := loaded(t, func(http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) }) // before the server's own close
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	r, err := run(ctx, load{target: target, concurrency: 2, size: 500, duration: time.Minute})
	if took := time.Since(start); took > callTimeout*8/10 {
		t.Errorf("waited %v for answers that nobody wants", took)
	}
	if !errors.Is(err, context.Canceled) || r.errors != 0 {
		t.Errorf("%v, %d errors", err, r.errors)
	}
}

func TestLoadKeepsToLoopback(t *testing.T) {
	for _, url := range []string{
		"http://192.0.2.1:80/", "http://example.net/", "http://localhost:80/", "https://127.0.0.1:443/",
		"http://127.0.0.1/", "http://0.0.0.0:80/", "http://[2001:db8::1]:80/", "http://127.0.0.1.example.net:80/", "ftp://127.0.0.1:21/", "::",
	} {
		if _, err := run(t.Context(), load{target: Target{URL: url}, concurrency: 1, size: 100}); err == nil || !strings.Contains(err.Error(), "target") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"http://127.0.0.1:80/", "http://127.3.2.1:80/r1/SA", "http://[::1]:80/?a=b"} {
		if _, _, err := prepare(Target{URL: url}, 100); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestPrepareIsOneRequest(t *testing.T) {
	b, addr, err := prepare(Target{URL: "http://127.0.0.1:8080/r1/a?b=c", Header: http.Header{"Falaj-Purpose": {"x\r\ny"}}}, 100)
	if err != nil || addr != "127.0.0.1:8080" {
		t.Fatal(addr, err)
	}
	want := "POST /r1/a?b=c HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 100\r\nContent-Type: application/json\r\nFalaj-Purpose: x  y\r\n\r\n{\"number\":"
	if !bytes.HasPrefix(b, []byte(want)) {
		t.Errorf("got %q", b)
	}
	if n := len(b) - bytes.Index(b, []byte("{")); n != 100 {
		t.Errorf("body of %d bytes", n)
	}
}

func TestSummaries(t *testing.T) {
	second := func(n int, p50 time.Duration) round {
		return round{requests: n, elapsed: time.Second, cpu: time.Duration(n) * 100 * time.Microsecond,
			objects: uint64(n) * 7, bytes: uint64(n) * 2048, p50: p50, p99: 2 * p50}
	}
	ms := time.Millisecond
	many := map[string][]round{
		"stock":        {second(1000, ms), second(4000, 2*ms), second(2000, 3*ms)},
		"stock-pooled": {second(2000, ms), second(8000, ms), second(4000, ms)},
		"falaj":        {second(500, 4*ms), second(1600, 5*ms), second(1000, 9*ms)}, // of stock: 0.5, 0.4, 0.5
	}
	one := map[string][]round{
		"stock": {second(9, ms), second(9, 2*ms), second(9, 3*ms)},
		"falaj": {second(9, 2*ms), second(9, 5*ms), second(9, 5*ms)}, // more: 1, 3, 2
	}
	many["stock"][1].errors = 1
	one["falaj"][2].errors, one["falaj"][2].first = 2, errors.New("status 503")
	m := Machine{Go: "go1.26", System: "linux/amd64", CPUs: 2, GOMAXPROCS: 2, FIPS: true, SyncMicros: 300, PeakMiB: 80.5}
	r := summarise(Config{Rounds: 3, Duration: time.Second, Concurrency: 64, Size: 1024}, m, many, one)

	got, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/report.json"
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("%s\nwanted\n%s", got, want)
	}
	if r.Ratio != 0.5 || r.RatioPooled != 0.25 || r.Errors != 3 || r.Single.AddedMicros != 2000 || r.Single.BudgetMicros != 2200 || !r.Single.Within {
		t.Errorf("%+v", r)
	}
	r = summarise(Config{}, Machine{SyncMicros: 200}, many, one)
	if r.Single.Within {
		t.Errorf("2 ms added are within %+v", r.Single)
	}
}

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		of   []int
		q    float64
		want int
	}{{nil, 0.5, 0}, {[]int{7}, 0.99, 7}, {[]int{1, 2, 3}, 0.5, 2}, {[]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.99, 10}} {
		if got := quantile(tt.of, tt.q); got != tt.want {
			t.Errorf("quantile(%v, %v) = %d, wanted %d", tt.of, tt.q, got, tt.want)
		}
	}
}
