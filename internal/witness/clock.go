package witness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// KindTime asks another node for its clock. No body; answered by the time in
// Unix milliseconds, in eight bytes.
const KindTime = "time"

// ClockConfig sets how a clock is watched; its zero value is usable.
type ClockConfig struct {
	Accuracy time.Duration // what is declared (1 s)
	Every    time.Duration // between two comparisons (30 s; a sixth of it while the clock is in doubt)
	Answer   time.Duration // how long a node may take (3 s)
}

// ClockDeps are what a clock is held against.
type ClockDeps struct {
	State union.State
	Union func() Union
	Ask   Ask
	// Kernel tells whether the operating system keeps the clock, and how far it
	// may be off; false where it does not, or cannot tell.
	Kernel func() (time.Duration, bool)
	Now    func() time.Time
	Log    *slog.Logger
}

// Clock watches whether this node's clock can be vouched for: it is compared
// with the other states' nodes, and the operating system is asked whether it
// is kept. Who stamps with a wrong clock makes false evidence.
type Clock struct {
	cfg  ClockConfig
	deps ClockDeps

	mu   sync.Mutex
	seen comparison
}

// comparison is what the other nodes' clocks said of this one.
type comparison struct {
	at         time.Time
	since      time.Time // the same by the monotonic clock, which nobody sets
	agree, off int
	by         time.Duration // what the last one that is off says, at least
}

// NewClock makes the watch. Run makes it work.
func NewClock(cfg ClockConfig, deps ClockDeps) *Clock {
	if cfg.Accuracy <= 0 {
		cfg.Accuracy = time.Second
	}
	if cfg.Every <= 0 {
		cfg.Every = 30 * time.Second
	}
	if cfg.Answer <= 0 {
		cfg.Answer = 3 * time.Second
	}
	return &Clock{cfg: cfg, deps: deps}
}

// Accuracy is what is declared: how far the clock is off at most.
func (c *Clock) Accuracy() time.Duration { return c.cfg.Accuracy }

// Run compares until ctx ends, more often while the clock is in doubt.
func (c *Clock) Run(ctx context.Context) error {
	said := ""
	for {
		c.compare(ctx)
		if ctx.Err() != nil {
			return nil
		}
		again := c.cfg.Every
		switch err := c.Err(); {
		case err == nil:
			said = ""
		default:
			again /= 6
			if text := fault.From(err).Detail; text != said {
				said = text
				c.deps.Log.Warn("this node gives no time-stamps", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
}

// compare asks all other nodes at once.
func (c *Clock) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Answer)
	defer cancel()
	var now comparison
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, p := range c.deps.Union().Parties {
		if p.State == c.deps.State || p.State == Secretariat {
			continue
		}
		asking.Go(func() {
			low, high, err := c.offset(ctx, p.State)
			if err != nil {
				return // who does not answer says nothing of this clock
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case high < -c.cfg.Accuracy:
				now.off, now.by = now.off+1, high
			case low > c.cfg.Accuracy:
				now.off, now.by = now.off+1, low
			default:
				now.agree++
			}
		})
	}
	asking.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	now.at, now.since = c.deps.Now().Round(0), time.Now()
	c.seen = now
}

// offset is how far another node's clock is from this one: somewhere between
// what it were if the answer had come at once, or had been given at once.
func (c *Clock) offset(ctx context.Context, of union.State) (low, high time.Duration, err error) {
	before := c.deps.Now()
	b, err := c.deps.Ask(ctx, of, KindTime, nil)
	after := c.deps.Now()
	if err != nil {
		return 0, 0, err
	}
	if len(b) != 8 {
		return 0, 0, errors.New("not a time")
	}
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(b)))
	// Wall clocks alone: what the other one shows cannot be held against a
	// monotonic one.
	low, high = at.Sub(after.Round(0)), at.Add(time.Millisecond).Sub(before.Round(0))
	if width := high - low; width < 0 || width > c.cfg.Accuracy {
		return 0, 0, fmt.Errorf("an answer that took %v tells nothing", width)
	}
	return low, high, nil
}

// Answer is this node's clock, for others.
func (c *Clock) Answer() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(c.deps.Now().UnixMilli()))
}

// Err says why the clock may be off by more than is declared, or nil: at least
// half of those who answered say that it is; or it was set since they were
// asked; or nobody answered of late, and the operating system does not vouch
// for it either.
func (c *Clock) Err() error {
	c.mu.Lock()
	seen := c.seen
	c.mu.Unlock()
	age := c.deps.Now().Round(0).Sub(seen.at)
	if step := age - time.Since(seen.since); !seen.at.IsZero() && step.Abs() > c.cfg.Accuracy {
		return fault.New(fault.ClockDoubtful, "it was set by %v since other nodes were asked for theirs", step.Round(time.Millisecond))
	}
	if age < 0 || age > 3*c.cfg.Every {
		seen.agree, seen.off = 0, 0
	}
	switch {
	case seen.off > 0 && seen.off >= seen.agree:
		return fault.New(fault.ClockDoubtful, "%d of %d other nodes have another time: the difference is %v or more, and %v is declared", seen.off, seen.off+seen.agree, seen.by.Round(time.Millisecond).Abs(), c.cfg.Accuracy)
	case seen.agree > 0:
		return nil
	}
	if bound, kept := c.deps.Kernel(); !kept || bound > c.cfg.Accuracy {
		return fault.New(fault.ClockDoubtful, "no other node has confirmed this clock of late, and the operating system does not vouch for %v", c.cfg.Accuracy)
	}
	return nil
}
