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
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// Config says how to measure. The zero value measures 64 connections with
// 1 KiB each way in five rounds of one second.
type Config struct {
	Duration    time.Duration // of one round of one variant, without its warm-up; at most a minute
	Warmup      time.Duration // before each round; default 300 ms
	Rounds      int           // at most 100
	Concurrency int           // connections; at most 1024
	Size        int           // bytes of a request's body and of its answer's; at most 1 MiB
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
}

// The variants by name.
const (
	stockName  = "stock"
	pooledName = "stock-pooled"
	falajName  = "falaj"
)

// Exchange measures two nodes with all their duties against two hops of
// httputil.ReverseProxy without and with a buffer pool.
// First all variants at the configured concurrency, then the first and the
// last at one connection, where waiting for the disk shows.
//
// Exchanges that fail are counted in the report: whoever reads it looks there
// first. A Config beyond its limits is fault.Usage.
func Exchange(ctx context.Context, cfg Config) (*Report, error) {
	return measure(ctx, cfg, twoNodes)
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

	backend, err := serveEcho()
	if err != nil {
		return nil, fmt.Errorf("bench: start the backend: %w", err)
	}
	defer func() { err = errors.Join(err, backend.Close()) }()

	variants := []Variant{
		{stockName, stock(false)},
		{pooledName, stock(true)},
		{falajName, falaj},
	}
	targets := map[string]Target{}
	for _, v := range variants {
		w := World{Backend: backend.URL, Dir: filepath.Join(dir, v.Name), Concurrency: cfg.Concurrency}
		if err := os.Mkdir(w.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("bench: make a folder: %w", err)
		}
		target, err := v.Open(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("bench: start %s: %w", v.Name, err)
		}
		defer func() { err = errors.Join(err, target.Close()) }()
		targets[v.Name] = target
	}

	m := &measurement{cfg: cfg, dir: dir, targets: targets}
	many, err := m.rounds(ctx, cfg.Concurrency, stockName, pooledName, falajName)
	if err != nil {
		return nil, err
	}
	one, err := m.rounds(ctx, 1, stockName, falajName)
	if err != nil {
		return nil, err
	}
	return summarise(cfg, machine(m.syncs), many, one), nil
}

// measurement is one run of Exchange.
type measurement struct {
	cfg     Config
	dir     string
	targets map[string]Target
	syncs   []time.Duration
}

// rounds measures the named variants in turn, round by round. Each round
// begins with another variant, so that none always follows the same one.
func (m *measurement) rounds(ctx context.Context, concurrency int, names ...string) (map[string][]round, error) {
	all := map[string][]round{}
	for i := range m.cfg.Rounds {
		syncs, err := measureSync(m.dir)
		if err != nil {
			return nil, fmt.Errorf("bench: measure the disk: %w", err)
		}
		m.syncs = append(m.syncs, syncs...)
		k := i % len(names)
		for _, name := range slices.Concat(names[k:], names[:k]) {
			runtime.GC() // nobody pays for the one before
			r, err := run(ctx, load{
				target: m.targets[name], concurrency: concurrency, size: m.cfg.Size,
				warmup: m.cfg.Warmup, duration: m.cfg.Duration,
			})
			if err != nil {
				return nil, fmt.Errorf("bench: %s: %w", name, err)
			}
			all[name] = append(all[name], r)
		}
	}
	return all, nil
}
