// Package bench measures what an exchange through two nodes costs beside two
// hops of a stock reverse proxy: the same client, the same backend, the same
// TLS, in one process, in short rounds that alternate, so that a busy machine
// is busy for all.
package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/up"
)

// Config says how to measure. The zero value measures 64 connections with
// 1 KiB each way in five rounds of one second.
type Config struct {
	Duration    time.Duration // of one round of one variant, without its warm-up; at most a minute
	Warmup      time.Duration // before each round; default 300 ms
	Rounds      int           // at most 100
	Concurrency int           // connections; at most 1024
	Size        int           // bytes of a request's body and of its answer's; at most 1 MiB
	Batch       bool          // one seal over many messages, between nodes that both allow it
	Verify      string        // how nodes verify seals: "standard" or "table"; default standard
	Dir         string        // where variants keep data and the disk is measured; default a temporary folder, removed after
}

const (
	maxDuration    = time.Minute
	maxRounds      = 100
	maxConcurrency = 1024
	maxSize        = 1 << 20
)

func (c Config) withDefaults() Config {
	if c.Duration == 0 {
		c.Duration = time.Second
	}
	if c.Warmup == 0 {
		c.Warmup = 300 * time.Millisecond
	}
	if c.Rounds == 0 {
		c.Rounds = 5
	}
	if c.Concurrency == 0 {
		c.Concurrency = 64
	}
	if c.Size == 0 {
		c.Size = 1024
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.Duration < 0 || c.Duration > maxDuration:
		return fault.New(fault.Usage, "duration %v of a round; at most %v", c.Duration, maxDuration)
	case c.Warmup < 0 || c.Warmup > maxDuration:
		return fault.New(fault.Usage, "warm-up of %v; at most %v", c.Warmup, maxDuration)
	case c.Rounds < 1 || c.Rounds > maxRounds:
		return fault.New(fault.Usage, "%d rounds; 1 to %d", c.Rounds, maxRounds)
	case c.Concurrency < 1 || c.Concurrency > maxConcurrency:
		return fault.New(fault.Usage, "%d connections; 1 to %d", c.Concurrency, maxConcurrency)
	case c.Size < minSize || c.Size > maxSize:
		return fault.New(fault.Usage, "bodies of %d bytes; %d to %d", c.Size, minSize, maxSize)
	}
	return nil
}

// A Variant is one way for a request to reach the backend.
type Variant struct {
	Name string
	Open func(ctx context.Context, w World) (Target, error)
}

// World is what a variant is given: the backend that it leads to, a folder of
// its own, the connections that will come at once.
type World struct {
	Backend     string // "http://127.0.0.1:port"
	Dir         string
	Concurrency int
}

// Target is a variant that runs. Requests are POSTs to URL with Header; the
// answer is the request's body, status 200.
type Target struct {
	URL    string
	Header http.Header
	Close  func() error

	caller up.Place // of two nodes: the one that is called
}

// The variants by name.
const (
	stockName  = "stock"
	pooledName = "stock-pooled"
	falajName  = "falaj"
)

// Exchange measures two nodes with all their duties against two hops of
// httputil.ReverseProxy without and with a buffer pool: at the configured
// concurrency, and at one connection, where waiting for the disk shows.
//
// Exchanges that fail are counted in the report: whoever reads it looks there
// first. A Config beyond its limits is fault.Usage.
func Exchange(ctx context.Context, cfg Config) (*Report, error) {
	var set []string
	if cfg.Verify != "" {
		set = []string{"seal.verify=" + cfg.Verify}
	}
	return measure(ctx, cfg, func(ctx context.Context, w World) (Target, error) { return nodes(ctx, w, cfg.Batch, set) })
}

func measure(ctx context.Context, cfg Config, falaj func(context.Context, World) (Target, error)) (_ *Report, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cfg.Dir, "falaj-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	variants := []Variant{
		{stockName, stock(false)},
		{pooledName, stock(true)},
		{falajName, falaj},
	}
	m := &measurement{cfg: cfg, dir: dir, many: map[string][]round{}, one: map[string][]round{}}
	for i := range cfg.Rounds {
		if err := m.disk(); err != nil {
			return nil, fmt.Errorf("bench: measure the disk: %w", err)
		}
		// Each round begins with another one, so that none always follows the same.
		k := i % len(variants)
		for _, v := range slices.Concat(variants[k:], variants[:k]) {
			if err := m.round(ctx, v); err != nil {
				return nil, fmt.Errorf("bench: %s: %w", v.Name, err)
			}
		}
	}
	return summarise(cfg, machine(m.syncs), m.many, m.one), nil
}

// measurement is one run of Exchange.
type measurement struct {
	cfg       Config
	dir       string
	syncs     []time.Duration
	many, one map[string][]round // by variant
}

func (m *measurement) disk() error {
	syncs, err := measureSync(m.dir)
	m.syncs = append(m.syncs, syncs...)
	return err
}

// round starts a variant, measures it, and ends it. While one is measured
// nothing of the others is there: their heap would spare it collections, and
// what they do beside their calls would be charged to it.
func (m *measurement) round(ctx context.Context, v Variant) (err error) {
	dir, err := os.MkdirTemp(m.dir, "")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	backend, err := serveEcho()
	if err != nil {
		return fmt.Errorf("start the backend: %w", err)
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	target, err := v.Open(ctx, World{Backend: backend.URL, Dir: dir, Concurrency: m.cfg.Concurrency})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()

	for _, x := range []struct {
		into        map[string][]round
		connections int
	}{{m.many, m.cfg.Concurrency}, {m.one, 1}} {
		runtime.GC() // nobody pays for the one before
		r, err := run(ctx, load{
			target: target, concurrency: x.connections, size: m.cfg.Size,
			warmup: m.cfg.Warmup, duration: m.cfg.Duration,
		})
		if err != nil {
			return err
		}
		x.into[v.Name] = append(x.into[v.Name], r)
	}
	return nil
}
