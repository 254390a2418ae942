package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/casework/calendar"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/union"
)

// The dated tables that states sign beside their adoptions.
const (
	tableViolations = "violations"
	tableRates      = "rates"
)

// tables gives the joint services' mathematics what states have signed.
type tables struct {
	library *casework.Library
	state   union.State

	mu   sync.Mutex
	read map[[32]byte]any // by the SHA-256 of the file
}

// maxTables is how many files are kept as they were read: more than a union
// has in force.
const maxTables = 256

// deps are what the mathematics of a traffic violation computes from.
func (t *tables) deps(sandbox bool) traffic.Deps {
	return traffic.Deps{
		Sandbox: sandbox,
		Violations: func(_ context.Context, st union.State, at time.Time) (*traffic.Table, error) {
			return table(t, st, tableViolations, at, traffic.DecodeTable)
		},
		Rates: func(_ context.Context, at time.Time) (*traffic.Rates, error) {
			return table(t, t.state, tableRates, at, traffic.DecodeRates)
		},
		Calendar: t.calendar,
	}
}

// calendar is this state's.
func (t *tables) calendar(context.Context) (calendar.Calendar, error) {
	a, _, err := t.library.Adoption(t.state)
	if err != nil {
		return calendar.Calendar{}, err
	}
	c := calendar.Calendar{Zone: a.Location()}
	for _, w := range a.Weekend {
		c.Weekend = append(c.Weekend, time.Weekday(w))
	}
	for _, h := range a.Holidays {
		c.Holidays = append(c.Holidays, calendar.Span{From: string(h.From), Until: string(h.Until)})
	}
	return c, nil
}

// table is a state's table of a name as it stood on a day.
func table[T any](t *tables, st union.State, name string, at time.Time, decode func([]byte) (*T, error)) (*T, error) {
	a, file, err := t.library.Adoption(st)
	if err != nil {
		return nil, err
	}
	path, ok := a.Table(name, a.Day(at))
	if !ok {
		return nil, fmt.Errorf("%s has signed no table %s for that day", st, name)
	}
	raw, ok := file(path)
	if !ok {
		return nil, fmt.Errorf("%s names its table %s and does not have it", st, name)
	}
	key := sha256.Sum256(raw)
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.read[key].(*T); ok {
		return v, nil
	}
	v, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%s's table %s: %w", st, name, err)
	}
	if t.read == nil || len(t.read) >= maxTables {
		t.read = map[[32]byte]any{}
	}
	t.read[key] = v
	return v, nil
}
