package casework

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// Compared is what a comparison with another state's halves found.
type Compared struct {
	Peer        union.State  `json:"peer"`
	At          time.Time    `json:"at"`
	Differences []Difference `json:"differences"`
	Err         error        `json:"-"` // why it did not come to its end
}

// maxTold bounds how many differences of one comparison are logged.
const maxTold = 10

// daily compares this state's halves with all others', until ctx ends: some
// minutes after the start, not all states at once, and once a day from then on.
func (e *Engine) daily(ctx context.Context) {
	part := e.cfg.Daily / 200 // 7 minutes
	for wait := part + rand.N(2*part); ; wait = e.cfg.Daily {
		if !sleep(ctx, wait) {
			return
		}
		suspect := e.CompareAll(ctx, nil)
		if len(suspect) == 0 {
			continue
		}
		// What was on its way arrives, and what could be mended is.
		if !sleep(ctx, 2*part) {
			return
		}
		for _, c := range e.CompareAll(ctx, slices.Collect(maps.Keys(suspect))) {
			c.Differences = slices.DeleteFunc(c.Differences, func(d Difference) bool {
				return !slices.ContainsFunc(suspect[c.Peer].Differences, d.still)
			})
			e.note(c)
		}
	}
}

// sleep waits, and tells whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// still tells whether a difference is the one that was found before, and no
// message has arrived since.
func (d Difference) still(was Difference) bool {
	heard := func(s *Standing) int64 {
		if s == nil {
			return 0
		}
		return s.Heard
	}
	return d.Case == was.Case && d.What == was.What &&
		(d.What != DiffersBehind || heard(d.Here) == heard(was.Here) && heard(d.There) == heard(was.There))
}

// CompareAll reconciles with some states, or with all with which cases can
// run, and gives those with which it found differences or could not.
func (e *Engine) CompareAll(ctx context.Context, peers []union.State) map[union.State]Compared {
	out := map[union.State]Compared{}
	if peers == nil {
		b, err := e.deps.Book()
		if err != nil {
			e.deps.Log.Warn("cases are not compared with the other states' halves", "error", err)
			return out
		}
		peers = slices.Sorted(maps.Keys(b.Peers()))
	}
	for _, peer := range peers {
		c := Compared{Peer: peer, At: e.deps.Now()}
		c.Differences, c.Err = e.Reconcile(ctx, peer)
		if ctx.Err() != nil {
			break
		}
		if c.Err != nil {
			e.deps.Log.Warn("cases are not compared with the other state's halves", "peer", peer, "error", c.Err)
		}
		if c.Err != nil || len(c.Differences) > 0 {
			out[peer] = c
		} else {
			e.note(c)
		}
	}
	return out
}

// note keeps what is certain of a comparison, and tells of it.
func (e *Engine) note(c Compared) {
	if c.Err != nil && len(c.Differences) == 0 {
		return // what is known from before stands
	}
	e.mu.Lock()
	e.compared[c.Peer] = c
	e.mu.Unlock()
	for _, d := range c.Differences[:min(len(c.Differences), maxTold)] {
		e.deps.Log.Error("the halves of a case differ", "peer", c.Peer, "case", d.Case, "what", d.What)
	}
	if more := len(c.Differences) - maxTold; more > 0 {
		e.deps.Log.Error("the halves of more cases differ", "peer", c.Peer, "more", more)
	}
}

// Differing are the latest comparisons that found what a second one found
// still.
func (e *Engine) Differing() []Compared {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []Compared
	for _, c := range e.compared {
		if len(c.Differences) > 0 {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Compared) int { return strings.Compare(string(a.Peer), string(b.Peer)) })
	return out
}
