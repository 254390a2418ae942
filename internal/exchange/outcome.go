package exchange

import (
	"context"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Outcome is a call whose effect nobody knows. Where the retention of its
// records has ended, so has what is told of it; the same where they are in a
// file that is not there, or damaged.
type Outcome struct {
	Client  string    `json:"client"`
	ID      string    `json:"id"`
	Service string    `json:"service"`
	Since   time.Time `json:"since"`
	Request int64     `json:"request"` // leaf of the request's record
}

// Outcomes lists the calls to this node's services whose effect is unknown,
// the oldest first, at most most of them.
func (x *Exchange) Outcomes(ctx context.Context, most int) ([]Outcome, error) {
	var out []Outcome
	err := x.deps.DB.Read(ctx, func(tx *store.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, `SELECT changed_at, asked FROM exchange_claim
			WHERE state = ? AND state <> 2 AND side = ? ORDER BY changed_at, id LIMIT ?`, claimUnknown, sideProvider, most)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var o Outcome
			var ms int64
			if err := rows.Scan(&ms, &o.Request); err != nil {
				return err
			}
			o.Since = time.UnixMilli(ms).UTC()
			out = append(out, o)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("listing unknown outcomes: %w", err)
	}
	for i := range out {
		r, err := x.requestAt(ctx, out[i].Request)
		if err != nil && !away(err) {
			return nil, err
		}
		if err == nil && r != nil {
			out[i].Client, out[i].ID, out[i].Service = r.Client.String(), r.ID, r.Service.String()
		}
	}
	return out, nil
}

// away tells whether one record cannot be read, and others can.
func away(err error) bool {
	c := fault.CodeOf(err)
	return c == fault.Archived || c == fault.Corrupt
}

// requestAt reads the head of a recorded request; nil where its retention has
// ended.
func (x *Exchange) requestAt(ctx context.Context, leaf int64) (*message.Request, error) {
	s, err := x.deps.Journal.Get(ctx, leaf)
	if err != nil || s.Erased {
		return nil, storeFault(err, "reading a recorded request")
	}
	head, _, err := message.Open(s.Envelope)
	if err != nil {
		return nil, storeFault(err, "reading a recorded request")
	}
	r, err := message.ParseRequest(head)
	if err != nil {
		return nil, storeFault(err, "reading a recorded request")
	}
	return r, nil
}

// ResolveOutcome is a person's decision about a call whose effect nobody
// knows: it happened, so that it is never invoked again; or it did not, so
// that the id is free and a client that repeats it is served.
func (x *Exchange) ResolveOutcome(ctx context.Context, client union.SubsystemID, id string, happened bool, by, reason string) error {
	d := decided{Action: "outcome.resolve", Client: client, ID: id, Happened: &happened, By: by, Reason: reason}
	return x.decision(ctx, d, func(ctx context.Context, tx *store.Tx, leaf int64) error {
		query, args := `DELETE FROM exchange_claim WHERE side = ? AND id = ? AND state = ?`, []any{sideProvider, x.claimKey(client, id), claimUnknown}
		if happened {
			query = `UPDATE exchange_claim SET state = ?, answered = ?, changed_at = ? WHERE side = ? AND id = ? AND state = ?`
			args = append([]any{claimSettled, leaf, x.deps.Now().UnixMilli()}, args...)
		}
		res, err := tx.Exec(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("resolving an outcome: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return fmt.Errorf("resolving an outcome: %w", err)
		} else if n == 0 {
			return fault.New(fault.NotFound, "no call of %s with this id has an unknown outcome", client)
		}
		return nil
	})
}

// unknown refuses to repeat what may have happened. A claim that this process
// could not end, since its store failed, is listed from then on.
func (x *Exchange) unknown(ctx context.Context, c *serving, was claim) error {
	if was.state == claimOpen {
		_, err := x.deps.DB.Exec(ctx, `UPDATE exchange_claim SET state = ?, changed_at = ? WHERE side = ? AND id = ? AND state = ? AND process = ?`,
			claimUnknown, x.deps.Now().UnixMilli(), sideProvider, x.claimKey(c.request.Client, c.request.ID), claimOpen, was.process)
		if err != nil {
			return storeFault(err, "listing an unknown outcome")
		}
	}
	return fault.New(fault.OutcomeUnknown, "an earlier call with this id may have taken effect")
}
