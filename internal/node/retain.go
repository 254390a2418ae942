package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/seal"
)

// retain ends what is over: it destroys the keys of the months whose records
// have been kept as long as their class says. With a key go the records, in
// the database and in every copy of it. What it ends, it writes down first; what a
// hold keeps, it leaves.
func (n *Node) retain(ctx context.Context) error {
	for _, c := range n.classes() {
		periods, err := n.keys.Records().Periods(c.Name)
		if err != nil {
			return fmt.Errorf("retention of %s: %w", c.Name, err)
		}
		for _, p := range periods {
			if n.now().Before(p.End().Add(time.Duration(c.KeepDays) * 24 * time.Hour)) {
				break // oldest first
			}
			if held, err := n.keys.Records().Held(c.Name, p); err != nil {
				return fmt.Errorf("retention of %s: %w", c.Name, err)
			} else if held {
				continue
			}
			entry, err := json.Marshal(struct {
				Event  string `json:"event"`
				Class  string `json:"class"`
				Period string `json:"period"`
			}{admin.EventRetained, c.Name, p.String()})
			if err != nil {
				return err
			}
			if err := n.record(ctx, entry); err != nil {
				return fmt.Errorf("retention of %s: %w", c.Name, err)
			}
			if err := n.keys.Records().Destroy(c.Name, p); errors.Is(err, seal.ErrHeld) {
				continue // since just now
			} else if err != nil {
				return fmt.Errorf("retention of %s: %w", c.Name, err)
			}
			n.log.Info("records have reached the end of their retention", "event", admin.EventRetained, "class", c.Name, "period", p.String())
		}
	}
	return nil
}

// retire ends, until ctx ends, what is over: the keys of records, then the
// bodies that lay under them. How many keys are gone tells it whether there is
// something to bury, also where another process destroyed them, or this one
// broke off; at the start it does not know, and looks.
func (n *Node) retire(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for buried := -1; ; {
		var err error
		if buried, err = n.endWhatIsOver(ctx, buried); err != nil && ctx.Err() == nil {
			n.log.Warn("ending the retention of records failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// finishEvery is how long an erasure that broke off waits for the next try.
const finishEvery = time.Minute

// finish goes on, until ctx ends, with erasures that are decided and broke off,
// here or in another process.
func (n *Node) finish(ctx context.Context) error {
	tick := time.NewTicker(finishEvery)
	defer tick.Stop()
	for {
		err := errors.Join(n.journal.FinishErasures(ctx, n.signArchive, n.vouch), n.exchange.Forgotten(ctx))
		if err != nil && ctx.Err() == nil {
			n.log.Warn("finishing what is to be erased failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// endWhatIsOver goes through it once. buried is with how many destroyed keys
// their bodies were last removed; what it is now, is given back.
func (n *Node) endWhatIsOver(ctx context.Context, buried int) (int, error) {
	if err := n.retain(ctx); err != nil {
		return buried, err
	}
	gone, err := n.keys.Records().Destroyed()
	if err != nil || gone == buried {
		return buried, err
	}
	if err := n.exchange.Bury(ctx); err != nil {
		return buried, err
	}
	return gone, nil
}

// classes are the configured ones, and those by which other states' services
// name their records, which lie here too: they are kept like exchange.
func (n *Node) classes() []config.Class {
	out := slices.Clone(n.cfg.Retention)
	known := map[string]bool{}
	keep := 0
	for _, c := range out {
		known[c.Name] = true
		if c.Name == "exchange" {
			keep = c.KeepDays
		}
	}
	if n.directory == nil {
		return out
	}
	for _, s := range n.directory.View().States() {
		for _, m := range s.Members {
			for _, sub := range m.Subsystems {
				for _, svc := range sub.Services {
					if !known[svc.Retention] {
						known[svc.Retention] = true
						out = append(out, config.Class{Name: svc.Retention, KeepDays: keep})
					}
				}
			}
		}
	}
	return out
}
