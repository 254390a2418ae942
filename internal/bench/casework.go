package bench

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/union"
)

// counter is the joint service whose cases are counted.
//
//go:embed counter.yaml
var counter []byte

// CaseworkConfig says how to load casework. The zero value plays seven states
// for five seconds a phase, 64 acts at a time.
type CaseworkConfig struct {
	Duration    time.Duration // of each phase; at most a minute
	Concurrency int           // acts under way over all states, each in a case of its own; at most 1024
	States      int           // at least 2
	Dir         string        // where the union's folder is made; default a temporary one, removed after
}

// CaseworkReport is what a run measured. Its JSON names are a contract.
type CaseworkReport struct {
	Machine     Machine    `json:"machine"`
	Seconds     float64    `json:"seconds"`
	States      int        `json:"states"`
	Concurrency int        `json:"concurrency"`
	Kept        Transition `json:"kept"` // transitions within a state
	// Told are transitions whose message crosses, counted when the other half has
	// heard it: two transitions of cases, one sealed exchange.
	Told Transition `json:"told"`
	// What the disk gives: waits for it, one after the other.
	SyncsPerSecond float64 `json:"fdatasync_per_second"`
}

// Transition is how fast one kind of transition went over all states.
type Transition struct {
	Acts      int     `json:"acts"`
	Seconds   float64 `json:"seconds"` // until the last was durable, and heard where it crosses
	PerSecond float64 `json:"per_second"`
	CPUMicros float64 `json:"cpu_us"` // of one: of the whole process, the load's own included
	P50Millis float64 `json:"p50_ms"` // of the act: until its own state's receipt
	P99Millis float64 `json:"p99_ms"`
}

// Casework measures how many steps a second the cases of a whole demonstration
// union take, through the doors that its systems use, with every duty on: each
// a record in its state's log, each message sealed, journalled at both nodes
// and heard once.
func Casework(ctx context.Context, cfg CaseworkConfig) (_ *CaseworkReport, err error) {
	set(&cfg.Duration, 5*time.Second)
	set(&cfg.Concurrency, 64)
	all := up.States()
	set(&cfg.States, len(all))
	switch {
	case cfg.Duration < 0 || cfg.Duration > maxDuration:
		return nil, fault.New(fault.Usage, "duration %v; at most %v", cfg.Duration, maxDuration)
	case cfg.Concurrency < 1 || cfg.Concurrency > 1024:
		return nil, fault.New(fault.Usage, "%d acts at a time; 1 to 1024", cfg.Concurrency)
	case cfg.States < 2 || cfg.States > len(all):
		return nil, fault.New(fault.Usage, "%d states; 2 to %d", cfg.States, len(all))
	}
	dir, err := os.MkdirTemp(cfg.Dir, "falaj-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	r := &CaseworkReport{Seconds: cfg.Duration.Seconds(), States: cfg.States, Concurrency: cfg.Concurrency}
	syncs, err := measureSync(dir)
	if err != nil {
		return nil, fmt.Errorf("bench: the disk: %w", err)
	}
	places, end, err := play(ctx, filepath.Join(dir, "union"), all[:cfg.States])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	b := &casebench{places: places, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Concurrency}}}
	if err := b.open(ctx, cfg.Concurrency); err != nil {
		return nil, err
	}
	if r.Kept, err = b.phase(ctx, "keep", cfg.Duration); err != nil {
		return nil, err
	}
	if r.Told, err = b.phase(ctx, "tell", cfg.Duration); err != nil {
		return nil, err
	}
	r.Machine = machine(syncs)
	r.SyncsPerSecond = 1e6 / r.Machine.SyncMicros
	return r, nil
}

// play runs a demonstration union in which every state takes part in counter.
func play(ctx context.Context, dir string, states []union.State) ([]up.Place, func() error, error) {
	anyPort := 0
	u, err := up.Open(ctx, up.Config{Data: dir, States: states, Base: &anyPort, Definitions: [][]byte{counter}}, up.Deps{})
	if err != nil {
		return nil, nil, fmt.Errorf("found a union: %w", err)
	}
	undo := operation.Memory() // as the commands do
	ctx, stop := context.WithCancel(ctx)
	running, ready := make(chan error, 1), make(chan up.Ready, 1)
	go func() { running <- u.Run(ctx, func(r up.Ready) error { ready <- r; return nil }) }()
	select {
	case r := <-ready:
		return r.Nodes, func() error { stop(); defer undo(); return <-running }, nil
	case err := <-running:
		stop()
		undo()
		return nil, nil, fmt.Errorf("the union ended: %w", err)
	}
}

// casebench is cases in all states, each with its own next one.
type casebench struct {
	places []up.Place
	client *http.Client
	cases  []*counted
}

type counted struct {
	home, host *up.Place
	id         string
	told       int64 // as its own half counts
}

// clerk is the subsystem that speaks for officers in the demonstration.
func clerk(p *up.Place) string { return string(p.State) + "/GOV/interior/residence" }

func (b *casebench) ask(ctx context.Context, at *up.Place, method, path string, body, out any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, at.R1+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header = http.Header{"X-Road-Client": {clerk(at)}, "X-Road-Userid": {"bench"}, "X-Road-Id": {uuid.NewString()}, "Content-Type": {"application/json"}}
	res, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s", method, path, res.Status, answer)
	}
	return json.Unmarshal(answer, out)
}

type fields struct {
	Fields map[string]string `json:"fields"`
}

// open opens n cases, spread over the states, and waits until they are heard.
func (b *casebench) open(ctx context.Context, n int) error {
	for i := range n {
		c := &counted{home: &b.places[i%len(b.places)], host: &b.places[(i+1)%len(b.places)]}
		var r struct {
			Case string `json:"case"`
		}
		if err := b.ask(ctx, c.home, http.MethodPost, "/cases/", map[string]any{
			"service": "counter", "peer": c.host.State, "form": "start", "fields": map[string]string{"note": "first"},
		}, &r); err != nil {
			return fmt.Errorf("open a case: %w", err)
		}
		c.id = r.Case
		b.cases = append(b.cases, c)
	}
	for _, c := range b.cases {
		if err := b.heard(ctx, c, 0); err != nil {
			return err
		}
	}
	return nil
}

// patience is how long a message may take to be heard.
const patience = 30 * time.Second

// heard waits until the other half counts as much as this one.
func (b *casebench) heard(ctx context.Context, c *counted, want int64) error {
	var s struct {
		Facts struct {
			Count *int64 `json:"count"`
		} `json:"facts"`
	}
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		err = b.ask(ctx, c.host, http.MethodGet, "/cases/"+c.id, nil, &s)
		if err == nil && s.Facts.Count != nil && *s.Facts.Count == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond): // reading a case costs as much as a step
		}
	}
	return fmt.Errorf("case %s: the other half did not hear all within %v: %w", c.id, patience, err)
}

// phase has every case act for a while, and waits until what crosses is heard.
func (b *casebench) phase(ctx context.Context, form string, d time.Duration) (Transition, error) {
	var t Transition
	var acts atomic.Int64
	took := make([][]time.Duration, len(b.cases))
	errs := make([]error, len(b.cases))
	before, begin := usage(), time.Now()
	var group sync.WaitGroup
	for i, c := range b.cases {
		group.Go(func() {
			var r struct {
				State string `json:"state"`
			}
			for n := 0; time.Since(begin) < d; n++ {
				at := time.Now()
				if errs[i] = b.ask(ctx, c.home, http.MethodPost, "/cases/"+c.id+"/"+form, fields{map[string]string{"note": fmt.Sprintf("entry %d", n)}}, &r); errs[i] != nil {
					return
				}
				took[i] = append(took[i], time.Since(at))
				acts.Add(1)
				c.told++
			}
			if form == "tell" {
				errs[i] = b.heard(ctx, c, c.told)
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return t, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	t.Acts, t.Seconds = int(acts.Load()), time.Since(begin).Seconds()
	t.PerSecond = float64(t.Acts) / t.Seconds
	t.CPUMicros = micros(usage().cpu-before.cpu) / float64(t.Acts)
	t.P50Millis, t.P99Millis = micros(quantile(all, 0.5))/1000, micros(quantile(all, 0.99))/1000
	return t, nil
}
