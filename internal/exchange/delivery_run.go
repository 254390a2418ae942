package exchange

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
)

// senders is what this process does of the outbox's work. Work goes in lanes,
// by whom it goes to: one that cannot be reached holds up no other, and is
// tried with one call at a time until it can.
type senders struct {
	wake chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	lanes map[string]*lane
	busy  map[string]bool // by the delivery's id
	turn  int             // which lane comes first
}

type lane struct {
	busy  int
	fails int // in a row: whoever the lane leads to was not reached
	until time.Time
	code  fault.Code
}

// open tells how many more may work in a lane, and when to look again if none.
func (l *lane) open(now time.Time, most int) (int, time.Duration) {
	switch {
	case now.Before(l.until):
		return 0, l.until.Sub(now)
	case l.fails > 0:
		return 1 - l.busy, pollEvery
	}
	return most - l.busy, pollEvery
}

// pollEvery is how often the outbox is looked through for what another process
// has put there; what this one puts there wakes it.
const pollEvery = time.Second

// paceOf is how long a look through the outbox may be the last one: many that
// come and end meanwhile cost one look.
const paceOf = 3 * time.Millisecond

func (s *senders) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// deliver hands out the outbox's work until ctx ends, and then waits for what
// is being tried: it ends soon, since its context ended too.
func (x *Exchange) deliver(ctx context.Context) {
	defer x.senders.wg.Wait()
	for {
		began := time.Now()
		wait, err := x.dispatch(ctx)
		if err != nil && ctx.Err() == nil {
			x.deps.Log.Error("looking through the outbox", "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-x.senders.wake:
			timer.Stop()
			time.Sleep(paceOf - time.Since(began))
		case <-timer.C:
		}
	}
}

// dispatch starts what is due, and leases it first where other processes could
// start it too. It tells when to look again.
func (x *Exchange) dispatch(ctx context.Context) (time.Duration, error) {
	due, wait, err := x.due(ctx)
	if err != nil || len(due) == 0 {
		return wait, err
	}
	if !x.cfg.Alone {
		due, err = x.lease(ctx, due)
	}
	s := &x.senders
	for _, d := range due {
		s.mu.Lock()
		l := s.lane(d.lane)
		l.busy++
		s.busy[string(d.id)] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			away := x.work(ctx, d)
			s.mu.Lock()
			l.busy--
			delete(s.busy, string(d.id))
			x.mark(l, away)
			s.mu.Unlock()
			s.stir()
		})
	}
	return wait, err
}

// lane finds a lane's state. Under mu.
func (s *senders) lane(name string) *lane {
	l := s.lanes[name]
	if l == nil {
		l = &lane{}
		if s.lanes == nil {
			s.lanes, s.busy = map[string]*lane{}, map[string]bool{}
		}
		s.lanes[name] = l
	}
	return l
}

// mark notes whether whoever a lane leads to was reached. Under mu.
func (x *Exchange) mark(l *lane, away error) {
	now := x.deps.Now()
	switch {
	case away == nil:
		l.fails, l.until, l.code = 0, time.Time{}, ""
	case !now.Before(l.until): // else others that set out before have told
		l.until = now.Add(x.pause(l.fails, x.cfg.RetryCap))
		l.fails++
		l.code = fault.CodeOf(away)
	}
}

// pause is how long to wait after the fails-th failure following a first one:
// twice as long each time, up to most, and a random part of it less, so that
// those who failed together do not come back together.
func (x *Exchange) pause(fails int, most time.Duration) time.Duration {
	d := x.cfg.Retry
	for ; fails > 0 && d < most; fails-- {
		d *= 2
	}
	d = min(d, most)
	return d/2 + rand.N(d/2+1)
}

// mayLease is the condition that no living process is at a delivery, this one
// aside: its own it knows by itself.
const mayLease = `(d.lease = ? OR d.lease NOT IN (SELECT id FROM exchange_process))`

// due finds work that may begin now.
func (x *Exchange) due(ctx context.Context) (list []delivery, wait time.Duration, err error) {
	s := &x.senders
	err = x.deps.DB.Read(ctx, func(tx *store.Tx) error {
		now := x.deps.Now()
		list, wait = nil, pollEvery
		s.mu.Lock()
		defer s.mu.Unlock()
		room := x.cfg.Senders - len(s.busy)
		if room <= 0 {
			return nil
		}
		// What has waited too long waits for nobody.
		late, _, err := x.pick(ctx, tx, room, `d.work <> 0 AND d.expires_at <= ?`, `d.expires_at`, now.UnixMilli())
		if err != nil {
			return err
		}
		list, room = late, room-len(late)
		names, err := laneNames(ctx, tx)
		if err != nil {
			return err
		}
		s.turn++
		for i := range names {
			name := names[(i+s.turn)%len(names)]
			most, again := s.lane(name).open(now, max(1, x.cfg.Senders/2))
			wait = min(wait, again)
			if most = min(most, room); most <= 0 {
				continue
			}
			found, next, err := x.pick(ctx, tx, most, `d.work <> 0 AND d.lane = ? AND d.expires_at > ?`, `d.next_at`, name, now.UnixMilli())
			if err != nil {
				return err
			}
			if !next.IsZero() {
				wait = min(wait, max(next.Sub(now), time.Millisecond))
			}
			list, room = append(list, found...), room-len(found)
		}
		for name, l := range maps.All(s.lanes) {
			if l.busy == 0 && !contains(names, name) {
				delete(s.lanes, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, pollEvery, fmt.Errorf("reading the outbox: %w", err)
	}
	return list, wait, nil
}

// pick reads up to most deliveries that are due by the column, and when the
// next one is if there are fewer.
func (x *Exchange) pick(ctx context.Context, tx *store.Tx, most int, where, by string, args ...any) (list []delivery, next time.Time, err error) {
	now := x.deps.Now()
	// Those that this process is at stand in the way of as many others.
	args = append(args, x.process, most+len(x.senders.busy)+1)
	rows, err := tx.Query(ctx, `SELECT `+deliveryColumns+` FROM exchange_delivery d WHERE `+where+` AND `+mayLease+` ORDER BY `+by+` LIMIT ?`, args...)
	if err != nil {
		return nil, next, err
	}
	defer rows.Close()
	for rows.Next() {
		var d delivery
		if err := d.scan(rows); err != nil {
			return nil, next, err
		}
		if x.senders.busy[string(d.id)] {
			continue
		}
		if d.next.After(now) && d.expires.After(now) {
			return list, d.next, nil
		}
		if len(list) == most {
			return list, next, nil // who ends wakes us
		}
		list = append(list, d)
	}
	return list, next, rows.Err()
}

// laneNames lists the lanes with work, stepping over the index from each to
// the next.
func laneNames(ctx context.Context, tx *store.Tx) ([]string, error) {
	rows, err := tx.Query(ctx, `WITH RECURSIVE l (lane) AS (
			SELECT MIN(lane) FROM exchange_delivery WHERE work <> 0
			UNION ALL
			SELECT (SELECT MIN(lane) FROM exchange_delivery WHERE work <> 0 AND lane > l.lane) FROM l WHERE l.lane IS NOT NULL
		) SELECT lane FROM l WHERE lane IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, rows.Err()
}

// lease takes deliveries for this process and gives those that it got: of two
// processes that want one, one gets it. Each is a transaction of its own: one
// that held several rows while it waited for another could meet a group of the
// journal that waits for one of its.
func (x *Exchange) lease(ctx context.Context, due []delivery) (mine []delivery, err error) {
	for _, d := range due {
		res, err := x.deps.DB.Exec(ctx, `UPDATE exchange_delivery AS d SET lease = ? WHERE d.id = ? AND d.asked = ? AND d.work = ? AND d.next_at = ? AND `+mayLease,
			x.process, d.id, d.asked, d.work, d.next.UnixMilli(), x.process)
		if err != nil {
			return mine, fmt.Errorf("leasing a delivery: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return mine, fmt.Errorf("leasing a delivery: %w", err)
		} else if n == 1 {
			mine = append(mine, d)
		}
	}
	return mine, nil
}

// work does what is left to do about one delivery. The error says that whoever
// it goes to could not be reached.
func (x *Exchange) work(ctx context.Context, d delivery) (away error) {
	switch d.work {
	case workDeliver:
		return x.attempt(ctx, d)
	case workPush:
		return x.push(ctx, d)
	}
	x.release(ctx, d, false)
	return nil
}
