package casework

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
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
	rest.Go(func() { e.prune(ctx) })
	rest.Go(func() { e.daily(ctx) })
	// Each by itself: a register that is slow holds up no deadline.
	rest.Go(func() { e.loop(ctx, e.wakes[0], e.post, nil) })
	rest.Go(func() { e.loop(ctx, e.wakes[1], e.expire, e.next) })
	rest.Go(func() { e.loop(ctx, e.wakes[2], e.ask, nil) })
	<-ctx.Done()
	rest.Wait() // then nobody asks any more
	e.answers.Wait()
	return nil
}

// loop does one sort of work until ctx ends: at once while there is a batch of
// it, when it is woken, when next says, and every now and then. Where it failed
// it rests first.
func (e *Engine) loop(ctx context.Context, wake chan struct{}, work func(context.Context) (int, error), next func(context.Context) time.Duration) {
	for ctx.Err() == nil {
		n, err := work(ctx)
		if err != nil && ctx.Err() == nil {
			e.deps.Log.Error("casework", "error", err)
		}
		wait, woken := e.cfg.Poll, wake
		switch {
		case err != nil:
			woken = nil
		case n == batch:
			continue
		case next != nil:
			wait = min(wait, next(ctx))
		}
		select {
		case <-ctx.Done():
		case <-woken:
		case <-time.After(wait):
		}
	}
}

// next is how long it is until a deadline comes.
func (e *Engine) next(ctx context.Context) time.Duration {
	var due *int64
	if err := e.deps.DB.QueryRow(ctx, `SELECT MIN(next_at) FROM casework_clock`).Scan(&due); err != nil || due == nil {
		return time.Hour
	}
	return max(time.UnixMilli(*due).Sub(e.now()), 0)
}

// all does one sort of work side by side; one failure stops none of the
// others, and the first one is told of.
func (e *Engine) all(n int, do func(i int) error) error {
	var group errgroup.Group
	group.SetLimit(e.cfg.Workers)
	errs := make([]error, n)
	for i := range n {
		group.Go(func() error {
			errs[i] = safely(func() error { return do(i) })
			return nil
		})
	}
	_ = group.Wait()
	failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d: %w", len(failed), n, failed[0])
}

// safely makes an error of a panic: what nobody waits for must not end the node.
func safely(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %T\n%s", r, debug.Stack()) // a value could hold personal data
		}
	}()
	return do()
}

// later is when something that was due at a time and failed is tried again: the
// longer it has been due, the later.
func (e *Engine) later(now, due time.Time) time.Time {
	return now.Add(min(max(now.Sub(due), e.cfg.Poll), maxPause))
}

// maxPause is the longest pause before something that fails is tried again.
const maxPause = 10 * time.Minute

// leaving is a message to be posted.
type leaving struct {
	id     string
	number int64
	event  int64
	leaf   int64
	tries  int
	of     Case // as much as is known without opening it
	posted bool
}

// post hands messages over to the exchange, which delivers them.
func (e *Engine) post(ctx context.Context) (int, error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT m.case_id, m.number, m.event, v.leaf, m.tries, c.service, c.version, c.peer FROM casework_message m
		JOIN casework_event v ON v.case_id = m.case_id AND v.number = m.event
		JOIN casework_case c ON c.id = m.case_id
		WHERE m.work = 1 AND m.next_at <= ? ORDER BY m.next_at LIMIT ?`, e.deps.Now().UnixMilli(), batch)
	if err != nil {
		return 0, fmt.Errorf("looking for messages to post: %w", err)
	}
	defer rows.Close()
	var all []leaving
	for rows.Next() {
		var l leaving
		if err := rows.Scan(&l.id, &l.number, &l.event, &l.leaf, &l.tries, &l.of.Service, &l.of.Version, &l.of.Peer); err != nil {
			return 0, err
		}
		l.of.ID = l.id
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
		later := e.deps.Now().Add(5 * e.cfg.Poll).UnixMilli()
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
	b, err := e.deps.Book()
	if err != nil {
		return err
	}
	p, err := b.Program(l.of.Service, l.of.Version)
	if err != nil {
		return err
	}
	for _, s := range ev.Sent {
		if s.Number != l.number {
			continue
		}
		body, err := l.of.encode(ev, s)
		if err != nil {
			return err
		}
		r, err := e.request(l.of.Peer)
		if err != nil {
			return err
		}
		r.Purpose = p.Definition().Purpose
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
	rows, err := e.deps.DB.Query(ctx, `SELECT case_id, name, due_at FROM casework_clock WHERE next_at <= ? ORDER BY next_at LIMIT ?`, e.now().UnixMilli(), batch)
	if err != nil {
		return 0, fmt.Errorf("looking for deadlines: %w", err)
	}
	defer rows.Close()
	type deadline struct {
		id, name string
		due      int64
	}
	var all []deadline
	for rows.Next() {
		var d deadline
		if err := rows.Scan(&d.id, &d.name, &d.due); err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	return len(all), e.all(len(all), func(i int) error {
		d := all[i]
		err := safely(func() error {
			_, err := e.happen(ctx, d.id, func(c *Case) (*happening, error) {
				now := e.now()
				if due, runs := c.Clocks[d.name]; !runs || due.After(now) {
					return nil, nil
				}
				return &happening{kind: KindDeadline, trigger: d.name, at: now}, nil
			}, nil)
			return err
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
		_, put := e.deps.DB.Exec(ctx, `UPDATE casework_clock SET next_at = ? WHERE case_id = ? AND name = ? AND due_at = ?`,
			e.later(e.now(), time.UnixMilli(d.due)).UnixMilli(), d.id, d.name, d.due)
		return errors.Join(fmt.Errorf("the deadline %s of case %s: %w", d.name, d.id, err), put)
	})
}
