package operation

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Check asks one thing that the node needs to serve.
type Check struct {
	Name string
	Text union.Text // what is asked
	Run  func(context.Context) error
	Hint bool // worth telling a person who asks, yet the node serves without it

	// What and Do are said of a failure where the fault's own words, which are
	// those for a call, would mislead.
	What, Do union.Text
}

// Finding is what came of a check.
type Finding struct {
	Name   string     `json:"name"`
	Text   union.Text `json:"text"`
	OK     bool       `json:"ok"`
	Hint   bool       `json:"hint,omitzero"`
	Code   fault.Code `json:"code,omitempty"`
	What   union.Text `json:"what,omitzero"`
	Do     union.Text `json:"do,omitzero"`
	Detail string     `json:"detail,omitempty"`
}

// checkTime bounds one check: a probe that hangs is a probe that fails.
const checkTime = 2 * time.Second

// Health answers probes.
type Health struct {
	checks   []Check
	ready    atomic.Bool
	draining atomic.Bool
}

// NewHealth makes the probes of a node that has not started yet.
func NewHealth(checks ...Check) *Health { return &Health{checks: checks} }

// Started says that the doors are open.
func (h *Health) Started() { h.ready.Store(true) }

// Drain says that the node is leaving: no longer ready, still alive.
func (h *Health) Drain() { h.draining.Store(true) }

// Examine runs every check at once and tells whether the node takes calls.
func (h *Health) Examine(ctx context.Context) (bool, []Finding) { return h.run(ctx, h.checks) }

// Ready is Examine without the hints: for probes, who come every second.
func (h *Health) Ready(ctx context.Context) (bool, []Finding) {
	return h.run(ctx, slices.DeleteFunc(slices.Clone(h.checks), func(c Check) bool { return c.Hint }))
}

func (h *Health) run(ctx context.Context, checks []Check) (bool, []Finding) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	out := make([]Finding, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			out[i] = Finding{Name: c.Name, Text: c.Text, OK: true, Hint: c.Hint}
			if err := c.Run(ctx); err != nil {
				f := fault.From(err)
				out[i].OK, out[i].Code, out[i].Detail = false, f.Code, f.Detail
				out[i].What, out[i].Do = f.Entry().What, f.Entry().Do
				if c.What.Complete() {
					out[i].What, out[i].Do = c.What, c.Do
				}
			}
		})
	}
	wg.Wait()
	ok := h.ready.Load() && !h.draining.Load()
	for _, f := range out {
		ok = ok && (f.OK || f.Hint)
	}
	return ok, out
}

// Handler serves /healthz (the process lives), /readyz (it takes calls) and
// /metrics.
func (h *Health) Handler(meters prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ok, found := h.Ready(r.Context())
		status := http.StatusOK
		if !ok {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", "1")
		}
		body, _ := json.Marshal(struct {
			Ready    bool      `json:"ready"`
			Draining bool      `json:"draining"`
			Checks   []Finding `json:"checks"`
		}{ok, h.draining.Load(), found})
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		w.Write(append(body, '\n'))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(meters, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return mux
}

// Server is an http.Server with the time-outs that keep slow senders from
// holding it. write is 0 where answers may be long.
func Server(h http.Handler, headers int, headerTime, idle, write time.Duration) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: idle, WriteTimeout: write, MaxHeaderBytes: headers,
		// What net/http would print is about strangers' mistakes.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
}
