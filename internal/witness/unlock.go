package witness

import (
	"context"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

const (
	askTime   = 10 * time.Second
	firstWait = 250 * time.Millisecond
	lastWait  = 30 * time.Second
)

// Guard keeps this witness fit to cosign until ctx ends: whenever another
// database server answers, its memory may be an old one.
func (w *Witness) Guard(ctx context.Context) error {
	tick := time.NewTicker(firstWait)
	defer tick.Stop()
	for {
		server := w.deps.DB.Server()
		if err := w.Unlock(ctx); err != nil {
			return err
		}
		for w.deps.DB.Server() == server {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}

// Unlock makes this witness fit to cosign: more than half of the other
// witnesses say which heads they have seen, and where one has seen more of a
// log than this one remembers, this one catches up, or keeps from cosigning
// that log. A witness whose database is an old copy would otherwise cosign a
// second history of what it has forgotten. It returns when nothing is left to
// be caught up with, or ctx ends.
func (w *Witness) Unlock(ctx context.Context) error {
	server := w.deps.DB.Server()
	heard := map[union.State]bool{}
	newest := map[string]merkle.Signed{}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		w.hear(ctx, heard, newest)
		others := 0
		for _, p := range w.deps.Union().Parties {
			if p.State != w.deps.State && p.Witness != (merkle.Key{}) {
				others++
			}
		}
		left := false
		if others == 0 || len(heard) > others/2 {
			left = w.settle(ctx, newest)
			w.mu.Lock()
			w.heard, w.server = true, server
			w.mu.Unlock()
			if !left {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// hear asks the witnesses that have not answered yet, all at once.
func (w *Witness) hear(ctx context.Context, heard map[union.State]bool, newest map[string]merkle.Signed) {
	within, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	type said struct {
		state union.State
		heads [][]byte
	}
	answers := make(chan said)
	asked := 0
	for _, p := range w.deps.Union().Parties {
		if p.State == w.deps.State || p.Witness == (merkle.Key{}) || heard[p.State] {
			continue
		}
		asked++
		go func() {
			b, err := w.deps.Ask(within, p.State, KindHeads, nil)
			heads, bad := splitHeads(b)
			if err != nil || bad != nil {
				answers <- said{}
				return
			}
			answers <- said{p.State, heads}
		}()
	}
	for range asked {
		a := <-answers
		if a.state == "" {
			continue
		}
		heard[a.state] = true
		for _, b := range a.heads {
			log, ok := w.log(merkle.Origin(b))
			if !ok {
				continue
			}
			if s, err := merkle.OpenCheckpoint(b, log); err == nil && s.Size > newest[s.Origin].Size {
				newest[s.Origin] = s
			}
		}
	}
}

// settle brings this witness's records up to what the others have seen, and
// tells whether some log is left.
func (w *Witness) settle(ctx context.Context, newest map[string]merkle.Signed) (left bool) {
	for origin, head := range newest {
		why, again := "", false
		if err := w.catchUp(ctx, head); err != nil {
			again = fault.CodeOf(err) != fault.LogDivided
			why = err.Error()
			if !again {
				w.deps.Log.Error("the log is divided", "origin", origin, "error", err)
			}
		}
		left = left || again
		w.mu.Lock()
		if why == "" {
			delete(w.blocked, origin)
		} else {
			w.blocked[origin] = why
		}
		w.mu.Unlock()
	}
	return left
}

// catchUp takes over a head that another witness has seen, if it grew out of
// the one remembered here: the log's own tiles say so.
func (w *Witness) catchUp(ctx context.Context, head merkle.Signed) error {
	var last merkle.Checkpoint
	err := w.deps.DB.WriteLocked(ctx, func(tx *store.Tx) (err error) {
		last, err = readLast(ctx, tx, head.Origin)
		return err
	})
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the witness's record of %s", head.Origin)
	}
	if last.Size > head.Size {
		return nil
	}
	before, now := last.Root, head.Root
	if last.Size < head.Size {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		if _, before, now, err = merkle.ProveGrowth(last.Size, head.Size, w.tiles(ctx, head.Origin)); err != nil {
			return fault.Wrap(fault.PeerUnreachable, err, "catching up with the log %s", head.Origin)
		}
	}
	if before != last.Root || now != head.Root {
		return fault.New(fault.LogDivided, "%s: of %d and %d entries, the heads that two witnesses have seen do not belong together", head.Origin, last.Size, head.Size)
	}
	if last.Size == head.Size {
		return nil
	}
	err = w.deps.DB.WriteLocked(ctx, func(tx *store.Tx) error { return move(ctx, tx, last, head) })
	if err != nil {
		return fmt.Errorf("catching up with the log %s: %w", head.Origin, err)
	}
	return nil
}

// tiles reads another state's log over the link.
func (w *Witness) tiles(ctx context.Context, origin string) merkle.Tiles {
	return func(level int, n int64, width int) ([]byte, error) {
		for _, p := range w.deps.Union().Parties {
			if p.Log != (merkle.Key{}) && p.Log.Name() == origin {
				return w.deps.Ask(ctx, p.State, KindLog, []byte(merkle.Path(level, n, width)))
			}
		}
		return nil, fault.New(fault.NotFound, "the directory names no log %s", origin)
	}
}
