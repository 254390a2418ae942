package casework

import (
	"context"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
)

const (
	pruneEvery = time.Hour
	// keepActs is how long an act's identifier is remembered, and a message of a
	// case of which nothing else ever came: as long as the exchange keeps ids.
	keepActs = 32 * 24 * time.Hour
	// pruneAtOnce bounds one transaction.
	pruneAtOnce = 1000
)

// prune forgets, until ctx ends, what need not be known any more.
func (e *Engine) prune(ctx context.Context) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if err := e.forget(ctx); err != nil && ctx.Err() == nil {
			e.deps.Log.Error("forgetting old cases", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (e *Engine) forget(ctx context.Context) error {
	old := e.deps.Now().Add(-keepActs).UnixMilli()
	for _, query := range []string{
		`DELETE FROM casework_act WHERE id IN (SELECT id FROM casework_act WHERE at < ? ORDER BY at LIMIT ?)`,
		`DELETE FROM casework_message WHERE work = 2 AND next_at < ? AND NOT EXISTS (SELECT 1 FROM casework_case c WHERE c.id = casework_message.case_id)
			AND case_id IN (SELECT case_id FROM casework_message WHERE work = 2 ORDER BY next_at LIMIT ?)`,
	} {
		if _, err := e.deps.DB.Exec(ctx, query, old, pruneAtOnce); err != nil {
			return fmt.Errorf("forgetting acts and messages: %w", err)
		}
	}
	return e.endRetention(ctx)
}

// endRetention erases cases that ended as long ago as their definition keeps
// them: their events in the journal, and all that is known beside these.
func (e *Engine) endRetention(ctx context.Context) error {
	rows, err := e.deps.DB.Query(ctx, `SELECT DISTINCT service, version FROM casework_case WHERE ended = 1`)
	if err != nil {
		return fmt.Errorf("listing what ended: %w", err)
	}
	defer rows.Close()
	type kind struct {
		service string
		version int
	}
	var kinds []kind
	for rows.Next() {
		var k kind
		if err := rows.Scan(&k.service, &k.version); err != nil {
			return err
		}
		kinds = append(kinds, k)
	}
	if err := rows.Err(); err != nil || len(kinds) == 0 {
		return err
	}
	b, err := e.deps.Book()
	if err != nil {
		return err
	}
	for _, k := range kinds {
		p, ok := b.Program(k.service, k.version)
		if !ok {
			continue
		}
		over := e.now().AddDate(0, 0, -p.Definition().Retention.Days)
		ids, err := e.over(ctx, k.service, k.version, over)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := e.erase(ctx, id); fault.CodeOf(err) == fault.Held {
				continue
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) over(ctx context.Context, service string, version int, before time.Time) ([]string, error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT id FROM casework_case WHERE ended = 1 AND service = ? AND version = ? AND changed_at < ? ORDER BY changed_at LIMIT ?`,
		service, version, before.UnixMilli(), pruneAtOnce)
	if err != nil {
		return nil, fmt.Errorf("listing cases whose retention has ended: %w", err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// erase removes a case. One with many events takes several decisions; the case
// itself goes with the last. That it was read, and by whom, stays until the
// retention of these records ends.
func (e *Engine) erase(ctx context.Context, id string) error {
	defer e.lock(id)()
	leaves, err := e.leaves(ctx, id)
	if err != nil {
		return err
	}
	last := len(leaves) <= journal.MaxFound
	leaves = leaves[:min(len(leaves), journal.MaxFound)]
	return e.deps.Erase(ctx, leaves, func(ctx context.Context, tx *store.Tx) error {
		if !last {
			_, err := tx.Exec(ctx, `DELETE FROM casework_event WHERE case_id = ? AND leaf <= ?`, id, leaves[len(leaves)-1])
			return err
		}
		for _, table := range []string{"event", "clock", "message", "call", "act"} {
			if _, err := tx.Exec(ctx, `DELETE FROM casework_`+table+` WHERE case_id = ?`, id); err != nil {
				return fmt.Errorf("erasing a case: %w", err)
			}
		}
		_, err := tx.Exec(ctx, `DELETE FROM casework_case WHERE id = ?`, id)
		return err
	})
}
