package exchange

import (
	"context"
	"fmt"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
)

// forgotten stands, in the row that keeps a body, for the leaf of a record that
// was erased: the body goes as soon as the erasure is durable. It is negative,
// and its own inverse.
func forgotten(leaf int64) int64 { return -2 - leaf }

// Erase removes records of calls for good, as journal.Erase says, and what
// stands about them beside the journal. A call that has not ended is not erased.
// What keeps its id from being used again stays for its time, and says nothing.
// held is asked in the transaction, for the last time, whether it may be.
func (x *Exchange) Erase(ctx context.Context, e journal.Erasure, sign journal.Sign, vouch journal.Vouch, held func() error) (journal.Entry, error) {
	type call struct {
		leaf int64
		side int
		key  []byte
	}
	var calls []call
	for _, leaf := range e.Leaves {
		s, err := x.deps.Journal.Get(ctx, leaf)
		if err != nil {
			return journal.Entry{}, storeFault(err, "reading what is to be erased")
		}
		head, _, err := message.Open(s.Envelope)
		if err != nil || message.Kind(head) != message.TypeRequest {
			continue
		}
		r, err := message.ParseRequest(head)
		if err != nil {
			continue
		}
		c := call{leaf, sideCaller, x.claimKey(r.Client, r.ID)}
		if s.Kind == journal.RequestReceived {
			c.side = sideProvider
		}
		calls = append(calls, c)
	}
	decision, err := x.deps.Journal.Erase(ctx, e, sign, vouch, func(ctx context.Context, tx *store.Tx) error {
		if err := held(); err != nil {
			return err
		}
		for _, c := range calls {
			var open int
			// At the caller's side a claim without an answer is left over: the
			// provider knows what became of it.
			err := tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM exchange_claim WHERE side = ? AND id = ? AND asked = ? AND side = ? AND state <> ? AND state <> ?)
				+ (SELECT COUNT(*) FROM exchange_delivery WHERE id = ? AND asked = ? AND state = ?)`,
				c.side, c.key, c.leaf, sideProvider, claimAnswered, claimSettled, c.key, c.leaf, deliveryOpen).Scan(&open)
			if err != nil {
				return fmt.Errorf("erasing a call: %w", err)
			}
			if open > 0 {
				return fault.New(fault.Conflict, "the call of record %d has not ended, or its outcome is unknown: end it with falaj delivery skip, or falaj outcome resolve", c.leaf)
			}
			if _, err := tx.Exec(ctx, `DELETE FROM exchange_delivery WHERE id = ? AND asked = ?`, c.key, c.leaf); err != nil {
				return fmt.Errorf("erasing a call: %w", err)
			}
		}
		for _, leaf := range e.Leaves {
			if _, err := tx.Exec(ctx, `UPDATE exchange_spool SET leaf = ? WHERE leaf = ?`, forgotten(leaf), leaf); err != nil {
				return fmt.Errorf("erasing a call: %w", err)
			}
			if err := x.untrace(ctx, tx, leaf); err != nil {
				return fmt.Errorf("erasing a call: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return decision, storeFault(err, "erasing")
	}
	return decision, x.Forgotten(ctx)
}

// Forgotten removes the bodies of erased records. It may be broken off and
// asked again. What a row says of a record is held against the journal: a body
// whose record is not erased stays.
func (x *Exchange) Forgotten(ctx context.Context) error {
	type gone struct {
		id   string
		leaf int64
	}
	for after := ""; ; {
		var step []gone
		err := x.deps.DB.Read(ctx, func(tx *store.Tx) error {
			step = step[:0]
			rows, err := tx.Query(ctx, `SELECT id, leaf FROM exchange_spool WHERE leaf < 0 AND id > ? ORDER BY id LIMIT ?`, after, pruneStep)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var g gone
				if err := rows.Scan(&g.id, &g.leaf); err != nil {
					return err
				}
				step = append(step, g)
			}
			return rows.Err()
		})
		if err != nil || len(step) == 0 {
			return storeFault(err, "removing the bodies of erased records")
		}
		for _, g := range step {
			after = g.id
			s, err := x.deps.Journal.Get(ctx, forgotten(g.leaf))
			if err != nil || !s.Erased {
				x.deps.Log.Error("a body is marked as that of an erased record, and its record is not erased: falaj fsck tells more", "record", forgotten(g.leaf), "error", err)
				continue
			}
			if err = x.deps.Spool.Destroy(g.id); err == nil {
				_, err = x.deps.DB.Exec(ctx, `DELETE FROM exchange_spool WHERE id = ? AND leaf = ?`, g.id, g.leaf)
			}
			if err != nil {
				return storeFault(err, "removing the bodies of erased records")
			}
		}
	}
}
