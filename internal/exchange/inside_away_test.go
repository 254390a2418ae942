package exchange

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// moved is a part that for a while speaks for no system, or takes nothing.
type moved struct {
	*part
	away atomic.Bool
}

func (m *moved) Owns(id union.SubsystemID) bool { return !m.away.Load() && m.part.Owns(id) }

// An outcome waits for the part that posted its call: also where it speaks for
// another system by then, and longer than a client's would.
func TestOutcomeWaitsForItsPart(t *testing.T) {
	t.Parallel()
	u, parts := newInside(t, []union.State{"BH", "SA"}, func(cfg *Config, _ *Deps) { cfg.Answer = 300 * time.Millisecond })
	sa := u.nodes["SA"]
	check(t, sa.Local().DropClient(t.Context(), desk("SA"))) // as a part's systems are
	var refuse atomic.Bool
	parts["SA"].hear = func(End) error {
		if refuse.Load() {
			return errors.New("test")
		}
		return nil
	}
	m := &moved{part: parts["SA"]}
	sa.SetInside(m)
	check(t, sa.Post(t.Context(), letter("SA", offered("BH", "things"), "m-1", "x")))
	m.away.Store(true)
	told := func(id string) bool {
		return slices.ContainsFunc(parts["SA"].ended(), func(e End) bool { return e.ID == id && e.Answer.Status == 200 })
	}
	for end := time.Now().Add(10 * time.Second); !told("m-1") && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	if !told("m-1") {
		t.Errorf("told of what the part posted under another name: %+v", parts["SA"].ended())
	}

	m.away.Store(false)
	refuse.Store(true)
	check(t, sa.Post(t.Context(), letter("SA", offered("BH", "things"), "m-2", "x")))
	time.Sleep(time.Second)
	before := len(parts["SA"].ended())
	refuse.Store(false)
	for end := time.Now().Add(10 * time.Second); len(parts["SA"].ended()) == before && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	if len(parts["SA"].ended()) == before {
		t.Error("after a second of refusing the outcome was dropped")
	}
}
