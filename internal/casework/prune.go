package casework

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

const (
	pruneEvery = time.Hour
	// keepActs is how long an act's identifier is remembered, and a message of a
	// case of which nothing else ever came: as long as the exchange keeps ids.
	keepActs = 32 * 24 * time.Hour
	// keepBuried is how long it is known that a case was erased: longer than
	// anybody sends again what he sent to it.
	keepBuried = 2 * keepActs
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
	old := func(d time.Duration) int64 { return e.deps.Now().Add(-d).UnixMilli() }
	for query, before := range map[string]int64{
		`DELETE FROM casework_act WHERE id IN (SELECT id FROM casework_act WHERE at < ? ORDER BY at LIMIT ?)`: old(keepActs),
		`DELETE FROM casework_message WHERE (case_id, mine, number) IN (SELECT case_id, mine, number FROM casework_message WHERE work = 2 AND next_at < ?
			AND NOT EXISTS (SELECT 1 FROM casework_case c WHERE c.id = casework_message.case_id) LIMIT ?)`: old(keepActs),
		`DELETE FROM casework_buried WHERE id IN (SELECT id FROM casework_buried WHERE at < ? ORDER BY at LIMIT ?)`: old(keepBuried),
	} {
		for n := int64(pruneAtOnce); n == pruneAtOnce; {
			res, err := e.deps.DB.Exec(ctx, query, before, pruneAtOnce)
			if err == nil {
				n, err = res.RowsAffected()
			}
			if err != nil {
				return fmt.Errorf("forgetting acts and messages: %w", err)
			}
		}
	}
	return e.endRetention(ctx)
}

// endRetention erases cases that ended as long ago as their definition keeps
// them: their events in the journal, and all that is known beside these.
func (e *Engine) endRetention(ctx context.Context) error {
	b, err := e.deps.Book()
	if err != nil {
		return err
	}
	service, version := "", 0
	for {
		err := e.deps.DB.QueryRow(ctx, `SELECT service, version FROM casework_case WHERE ended = 1 AND (service, version) > (?, ?)
			ORDER BY service, version LIMIT 1`, service, version).Scan(&service, &version)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		} else if err != nil {
			return fmt.Errorf("listing what ended: %w", err)
		}
		if p, err := b.Program(service, version); err == nil { // otherwise nobody knows how long
			if err := e.endOf(ctx, p.Definition()); err != nil {
				return err
			}
		}
	}
}

// over is a case whose retention has ended.
type over struct {
	id     string
	events int64
	at     int64 // when it ended
}

// endOf erases the cases of a definition. One that cannot be erased, or that is
// held, stops none of the others.
func (e *Engine) endOf(ctx context.Context, d *definition.Definition) error {
	before := e.now().AddDate(0, 0, -d.Retention.Days).UnixMilli()
	last := over{}
	for {
		rows, err := e.deps.DB.Query(ctx, `SELECT id, events, ended_at FROM casework_case WHERE ended = 1 AND service = ? AND version = ?
			AND ended_at < ? AND (ended_at, id) > (?, ?) ORDER BY ended_at, id LIMIT ?`, d.Name, d.Version, before, last.at, last.id, pruneAtOnce)
		if err != nil {
			return fmt.Errorf("listing cases whose retention has ended: %w", err)
		}
		var all []over
		for rows.Next() {
			if err := rows.Scan(&last.id, &last.events, &last.at); err != nil {
				return errors.Join(err, rows.Close())
			}
			all = append(all, last)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, c := range all {
			err := e.erase(ctx, c)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && fault.CodeOf(err) != fault.Held && !errors.Is(err, errStale) {
				e.deps.Log.Error("a case whose retention has ended is not erased", "case", c.id, "error", err)
			}
		}
		if len(all) < pruneAtOnce {
			return nil
		}
	}
}

// erase removes a case, if nothing has happened in it since it was found. One
// with many events takes several decisions; the case itself goes with the last.
// That it was read, and by whom, stays until the retention of these records
// ends.
func (e *Engine) erase(ctx context.Context, c over) error {
	defer e.lock(c.id)()
	for {
		leaves, err := e.leaves(ctx, c.id)
		if err != nil {
			return err
		}
		last := len(leaves) <= journal.MaxFound
		leaves = leaves[:min(len(leaves), journal.MaxFound)]
		err = e.deps.Erase(ctx, leaves, func(ctx context.Context, tx *store.Tx) error {
			if !last {
				_, err := tx.Exec(ctx, `DELETE FROM casework_event WHERE case_id = ? AND leaf <= ?`, c.id, leaves[len(leaves)-1])
				return err
			}
			return e.bury(ctx, tx, c)
		})
		if last || err != nil {
			return err
		}
	}
}

// bury removes what stands in tables, and remembers that it did.
func (e *Engine) bury(ctx context.Context, tx *store.Tx, c over) error {
	res, err := tx.Exec(ctx, `DELETE FROM casework_case WHERE id = ? AND events = ?`, c.id, c.events)
	if err != nil {
		return fmt.Errorf("erasing a case: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(errStale, err)
	}
	for _, table := range []string{"event", "clock", "message", "call", "act"} {
		if _, err := tx.Exec(ctx, `DELETE FROM casework_`+table+` WHERE case_id = ?`, c.id); err != nil {
			return fmt.Errorf("erasing a case: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, `INSERT INTO casework_buried (id, at) VALUES (?, ?)`, e.grave(c.id), e.deps.Now().UnixMilli()); err != nil {
		return fmt.Errorf("remembering that a case was erased: %w", err)
	}
	return nil
}

// grave stands for a case that was erased.
func (e *Engine) grave(id string) []byte {
	h := e.deps.Names.Sum([]byte("falaj case buried v1\x00" + id))
	return h[:]
}

var goneBy = union.Text{En: "The case has ended, and is no longer kept.", Ar: "انتهت المعاملة ولم تعد محفوظة."}

// buried is why a message of a case that was erased is not taken; nil: it was
// not.
func (e *Engine) buried(ctx context.Context, id string) (*Refusal, error) {
	var at int64
	err := e.deps.DB.QueryRow(ctx, `SELECT at FROM casework_buried WHERE id = ?`, e.grave(id)).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("looking whether a case was erased: %w", err)
	}
	return &Refusal{Why: string(definition.Closed), Text: goneBy}, nil
}
