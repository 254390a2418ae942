package casework

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/store"
)

// Wrong is a case that is not what its events make of it.
type Wrong struct {
	Case   string
	Detail string
}

// inspectPage is how many cases are listed at a time.
const inspectPage = 256

// maxWrong bounds what one inspection names.
const maxWrong = 1000

// Inspect takes all steps of all cases again, and holds what is stored beside
// the events against what they make of it. It may run beside others. Cases
// whose events are no longer kept are counted and not looked at.
func (e *Engine) Inspect(ctx context.Context, seen func(done int64)) (n int64, wrong []Wrong, err error) {
	for after := ""; ; {
		rows, err := e.deps.DB.Query(ctx, `SELECT id FROM casework_case WHERE id > ? ORDER BY id LIMIT ?`, after, inspectPage)
		if err != nil {
			return n, wrong, fmt.Errorf("listing cases: %w", err)
		}
		var ids []string
		for rows.Next() {
			if err := rows.Scan(&after); err != nil {
				return n, wrong, errors.Join(err, rows.Close())
			}
			ids = append(ids, after)
		}
		if err := rows.Err(); err != nil {
			return n, wrong, err
		}
		for _, id := range ids {
			err := e.inspect(ctx, id)
			if ctx.Err() != nil {
				return n, wrong, ctx.Err()
			}
			if err != nil && !errors.Is(err, errDark) && len(wrong) < maxWrong {
				wrong = append(wrong, Wrong{id, err.Error()})
			}
			n++
			seen(n)
		}
		if len(ids) < inspectPage {
			return n, wrong, nil
		}
	}
}

func (e *Engine) inspect(ctx context.Context, id string) error {
	var c *Case
	var body []byte
	var leaves []int64
	var mine, theirs, calls []int64
	clocks := map[string]time.Time{}
	err := e.deps.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if c, body, err = scanCase(tx.QueryRow(ctx, `SELECT `+caseColumns+` FROM casework_case WHERE id = ?`, id)); err != nil {
			return err
		}
		for _, q := range []struct {
			query string
			into  *[]int64
		}{
			{`SELECT leaf FROM casework_event WHERE case_id = ? ORDER BY number`, &leaves},
			{`SELECT number FROM casework_message WHERE case_id = ? AND mine = 1 ORDER BY number`, &mine},
			{`SELECT number FROM casework_message WHERE case_id = ? AND mine = 0 AND work = 0 ORDER BY number`, &theirs},
			{`SELECT event FROM casework_call WHERE case_id = ? ORDER BY event`, &calls},
		} {
			if *q.into, err = numbers(ctx, tx, q.query, id); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, `SELECT name, due_at FROM casework_clock WHERE case_id = ?`, id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			var at int64
			if err := rows.Scan(&name, &at); err != nil {
				return err
			}
			clocks[name] = time.UnixMilli(at)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	if err := e.unfold(c, body); err != nil {
		return err
	}
	switch {
	case !upTo(mine, c.Sent) || !upTo(theirs, c.Heard):
		return fmt.Errorf("its messages are not numbered 1 to %d and 1 to %d", c.Sent, c.Heard)
	case len(clocks) != len(c.Clocks):
		return fmt.Errorf("%d deadlines run, not %d", len(clocks), len(c.Clocks))
	case int64(len(leaves)) != c.Events:
		return fmt.Errorf("%d events, not %d", len(leaves), c.Events)
	}
	for name, at := range c.Clocks {
		if !clocks[name].Equal(at) {
			return fmt.Errorf("the deadline %s is another one", name)
		}
	}
	var events []*Event
	for i, leaf := range leaves {
		ev, err := e.event(ctx, leaf)
		if err != nil {
			return err
		}
		if ev.Case != id || ev.Number != int64(i+1) {
			return fmt.Errorf("event %d is that of another place", i+1)
		}
		events = append(events, ev)
	}
	for _, n := range calls {
		if n < 1 || n > c.Events || len(events[n-1].Calls) == 0 {
			return fmt.Errorf("a question to a register that event %d did not ask", n)
		}
	}
	return e.retrace(ctx, c, events)
}

// upTo tells whether a list is 1 to n.
func upTo(list []int64, n int64) bool {
	return int64(len(list)) == n && (n == 0 || list[0] == 1 && list[n-1] == n && slices.IsSorted(list))
}

func numbers(ctx context.Context, tx *store.Tx, query, id string) (out []int64, err error) {
	rows, err := tx.Query(ctx, query, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, rows.Err()
}
