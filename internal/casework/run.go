package casework

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// batch is how much of one sort of work is taken up at a time.
const batch = 512

// Run does, until ctx ends, what nobody waits for: deadlines that come, messages
// that are to leave, registers that are to be asked.
func (e *Engine) Run(ctx context.Context) error {
	var rest sync.WaitGroup
	defer rest.Wait()
	rest.Go(func() { e.prune(ctx) })
	rest.Go(func() { e.daily(ctx) })
	for ctx.Err() == nil {
		busy := false
		for _, work := range []func(context.Context) (int, error){e.post, e.expire, e.ask} {
			n, err := work(ctx)
			if err != nil && ctx.Err() == nil {
				e.deps.Log.Error("casework", "error", err)
			}
			busy = busy || n == batch
		}
		if busy {
			continue
		}
		wait := e.cfg.Poll
		if next, err := e.next(ctx); err == nil {
			wait = min(wait, max(next.Sub(e.now()), 0))
		}
		select {
		case <-ctx.Done():
		case <-e.wake:
		case <-time.After(wait):
		}
	}
	return nil
}

// next is when the next deadline comes, or far away.
func (e *Engine) next(ctx context.Context) (time.Time, error) {
	var due *int64
	if err := e.deps.DB.QueryRow(ctx, `SELECT MIN(due_at) FROM casework_clock`).Scan(&due); err != nil || due == nil {
		return e.now().Add(time.Hour), err
	}
	return time.UnixMilli(*due), nil
}

// all does one sort of work side by side; one failure stops none of the others.
func (e *Engine) all(n int, do func(i int) error) error {
	var group errgroup.Group
	group.SetLimit(e.cfg.Workers)
	errs := make([]error, n)
	for i := range n {
		group.Go(func() error {
			errs[i] = do(i)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// leaving is a message to be posted.
type leaving struct {
	id     string
	number int64
	event  int64
	leaf   int64
	tries  int
	posted bool
}

// post hands messages over to the exchange, which delivers them.
func (e *Engine) post(ctx context.Context) (int, error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT m.case_id, m.number, m.event, v.leaf, m.tries FROM casework_message m
		JOIN casework_event v ON v.case_id = m.case_id AND v.number = m.event
		WHERE m.work = 1 AND m.next_at <= ? ORDER BY m.next_at LIMIT ?`, e.deps.Now().UnixMilli(), batch)
	if err != nil {
		return 0, fmt.Errorf("looking for messages to post: %w", err)
	}
	defer rows.Close()
	var all []leaving
	for rows.Next() {
		var l leaving
		if err := rows.Scan(&l.id, &l.number, &l.event, &l.leaf, &l.tries); err != nil {
			return 0, err
		}
		all = append(all, l)
	}
	if err := rows.Err(); err != nil || len(all) == 0 {
		return 0, err
	}
	failed := e.all(len(all), func(i int) error {
		err := e.postOne(ctx, all[i])
		all[i].posted = err == nil
		return err
	})
	// Where this is lost, they are posted again under the same identifiers.
	err = e.deps.DB.Write(ctx, func(tx *store.Tx) error {
		later := e.deps.Now().Add(e.cfg.Poll).UnixMilli()
		for _, l := range all {
			work, at := workNone, int64(0)
			if !l.posted {
				work, at = workPost, later
			}
			if _, err := tx.Exec(ctx, `UPDATE casework_message SET work = ?, next_at = ? WHERE case_id = ? AND mine = 1 AND number = ? AND tries = ?`,
				work, at, l.id, l.number, l.tries); err != nil {
				return err
			}
		}
		return nil
	})
	return len(all), errors.Join(failed, err)
}

func (e *Engine) postOne(ctx context.Context, l leaving) error {
	ev, err := e.event(ctx, l.leaf)
	if err != nil {
		return err
	}
	c, err := e.load(ctx, l.id)
	if err != nil {
		return err
	}
	for _, s := range ev.Sent {
		if s.Number != l.number {
			continue
		}
		body, err := c.encode(ev, s)
		if err != nil {
			return err
		}
		r, err := e.request(c.Peer)
		if err != nil {
			return err
		}
		r.Purpose = c.program.Definition().Purpose
		r.ID, r.Path, r.Body = messageID(l.id, l.number, l.tries), "/messages", body
		return e.deps.Exchange.Post(ctx, r)
	}
	return fmt.Errorf("event %d of case %s did not send message %d", l.event, l.id, l.number)
}

// request is a call from this state's case system to another's.
func (e *Engine) request(peer union.State) (exchange.Call, error) {
	b, err := e.deps.Book()
	if err != nil {
		return exchange.Call{}, err
	}
	own, ok := b.System(e.cfg.State)
	system, ok2 := b.System(peer)
	if !ok || !ok2 {
		return exchange.Call{}, fault.New(fault.CaseVersion, "%s, %s", e.cfg.State, peer)
	}
	return exchange.Call{
		Client: own, Service: union.ServiceID{SubsystemID: system, Service: Service}, Method: http.MethodPost,
		Header: http.Header{"Content-Type": {"application/json"}},
	}, nil
}

// expire lets deadlines act.
func (e *Engine) expire(ctx context.Context) (int, error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT case_id, name FROM casework_clock WHERE due_at <= ? ORDER BY due_at LIMIT ?`, e.now().UnixMilli(), batch)
	if err != nil {
		return 0, fmt.Errorf("looking for deadlines: %w", err)
	}
	defer rows.Close()
	var all [][2]string
	for rows.Next() {
		var d [2]string
		if err := rows.Scan(&d[0], &d[1]); err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	return len(all), e.all(len(all), func(i int) error {
		_, err := e.happen(ctx, all[i][0], func(c *Case) (*happening, error) {
			now := e.now()
			if due, runs := c.Clocks[all[i][1]]; !runs || due.After(now) {
				return nil, nil
			}
			return &happening{kind: KindDeadline, trigger: all[i][1], at: now}, nil
		}, nil)
		return err
	})
}
