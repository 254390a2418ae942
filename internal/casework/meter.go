package casework

import (
	"context"
	"fmt"
	"time"
)

// Meters are what an operator watches of cases.
type Meters struct {
	Open     map[string]int64 // cases that have not ended, by service
	Events   int64            // that this process took since it started
	Waiting  int64            // messages not handed to the exchange yet
	Overdue  time.Duration    // of the deadline that should have acted longest ago
	Differed int64            // cases whose halves the latest comparisons found to differ
}

// Meters counts, over indexes alone.
func (e *Engine) Meters(ctx context.Context) (Meters, error) {
	m := Meters{Open: map[string]int64{}, Events: e.events.Load()}
	for _, c := range e.Differing() {
		m.Differed += int64(len(c.Differences))
	}
	rows, err := e.deps.DB.Query(ctx, `SELECT service, COUNT(*) FROM casework_case WHERE ended = 0 GROUP BY service`)
	if err != nil {
		return m, fmt.Errorf("counting cases: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var service string
		var n int64
		if err := rows.Scan(&service, &n); err != nil {
			return m, err
		}
		m.Open[service] = n
	}
	if err := rows.Err(); err != nil {
		return m, err
	}
	if err := e.deps.DB.QueryRow(ctx, `SELECT COUNT(*) FROM casework_message WHERE work = 1`).Scan(&m.Waiting); err != nil {
		return m, fmt.Errorf("counting messages: %w", err)
	}
	var due *int64
	if err := e.deps.DB.QueryRow(ctx, `SELECT MIN(due_at) FROM casework_clock WHERE next_at <= ?`, e.now().Add(maxPause).UnixMilli()).Scan(&due); err != nil {
		return m, fmt.Errorf("looking for deadlines: %w", err)
	}
	if due != nil {
		m.Overdue = max(0, e.now().Sub(time.UnixMilli(*due)))
	}
	return m, nil
}
