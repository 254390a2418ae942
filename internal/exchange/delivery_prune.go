package exchange

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/store"
)

const (
	pruneEvery = time.Minute
	pruneStep  = 1000 // rows looked at in one transaction
)

// prune forgets, until ctx ends, ids and deliveries that ended long ago, and
// bodies that another process left. What is open or unknown stays for as long
// as it is.
func (x *Exchange) prune(ctx context.Context) {
	var at cursor
	for wait := pruneEvery; ; {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		busy, err := x.pruneSome(ctx, &at, pruneStep)
		if err == nil && !busy {
			err = x.sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			x.deps.Log.Error("forgetting what ended long ago", "error", err)
		}
		// Where much is old it goes on at once, else tables would grow faster
		// than they are looked through.
		if wait = pruneEvery; busy && err == nil {
			wait = pruneEvery / 600
		}
	}
}

// cursor is how far the claims have been looked through. They have no index by
// age: every call would pay for it, twice at each node.
type cursor struct {
	side int
	id   []byte
}

// pruneSome looks at as many rows of each table and tells whether many went.
func (x *Exchange) pruneSome(ctx context.Context, at *cursor, rows int64) (busy bool, err error) {
	before := x.deps.Now().Add(-x.cfg.Keep).UnixMilli()
	var next cursor
	err = x.deps.DB.Write(ctx, func(tx *store.Tx) error {
		next, busy = cursor{id: []byte{}}, false
		res, err := tx.Exec(ctx, `DELETE FROM exchange_delivery WHERE id IN
			(SELECT id FROM exchange_delivery WHERE work = 0 AND changed_at < ? ORDER BY changed_at LIMIT ?)`, before, rows)
		if err != nil {
			return err
		}
		gone, err := res.RowsAffected()
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `SELECT side, id FROM exchange_claim WHERE (side, id) > (?, ?)
			ORDER BY side, id LIMIT 1 OFFSET ?`, at.side, at.id, rows).Scan(&next.side, &next.id)
		last := errors.Is(err, sql.ErrNoRows)
		if err != nil && !last {
			return err
		}
		// What stays open at the caller's side got no answer in its time; the
		// provider knows what became of it.
		query := `DELETE FROM exchange_claim WHERE (side, id) > (?, ?) AND changed_at < ?
			AND (state = ? OR state = ? OR side = ? AND process <> ?)`
		args := []any{at.side, at.id, before, claimAnswered, claimSettled, sideCaller, outbox}
		if !last {
			query += ` AND (side, id) <= (?, ?)`
			args = append(args, next.side, next.id)
		}
		res, err = tx.Exec(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		busy = gone == rows || n >= rows/4
		return err
	})
	if err != nil {
		return false, fmt.Errorf("pruning: %w", err)
	}
	*at = next
	return busy, nil
}
