package casework

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
)

// staleTries is how often a step is taken anew because another came first: of
// this process none does, see Engine.lock.
const staleTries = 8

// What stands in casework_message.work.
const (
	workNone  = 0
	workPost  = 1 // this half's, not handed to the exchange yet
	workEarly = 2 // the other half's, and one before it is missing
)

// commit makes an event durable with all that follows from it: the record and
// its leaf, the case, its deadlines, what is to be sent and asked. extra, if
// there is one, writes beside them.
func (e *Engine) commit(ctx context.Context, old, c *Case, ev *Event, extra func(tx *store.Tx) error) (journal.Entry, error) {
	now := e.deps.Now()
	c.mark(ev)
	body, err := e.sealCase(c)
	if err != nil {
		return journal.Entry{}, fmt.Errorf("sealing a case: %w", err)
	}
	rec, err := ev.record(now)
	if err != nil {
		return journal.Entry{}, err
	}
	rec.In = func(ctx context.Context, tx *store.Tx, leaf int64) error {
		if err := e.put(ctx, tx, c, body); err != nil {
			return err
		}
		if extra != nil {
			if err := extra(tx); err != nil {
				return err
			}
		}
		return e.follow(ctx, tx, old, c, ev, leaf, now)
	}
	entry, err := e.deps.Journal.Append(ctx, rec)
	if err != nil {
		return entry, err
	}
	e.events.Add(1)
	if len(ev.Sent)+len(ev.Calls) > 0 || soon(old, c, e.now().Add(e.cfg.Poll)) {
		e.stir()
	}
	return entry, nil
}

// soon tells whether a deadline was set that comes before anybody looks.
func soon(old, c *Case, look time.Time) bool {
	for name, at := range c.Clocks {
		if was, ok := old.Clocks[name]; at.Before(look) && !(ok && was.Equal(at)) {
			return true
		}
	}
	return false
}

// follow writes what an event leads to.
func (e *Engine) follow(ctx context.Context, tx *store.Tx, old, c *Case, ev *Event, leaf int64, now time.Time) error {
	exec := func(query string, args ...any) error {
		if _, err := tx.Exec(ctx, query, args...); err != nil {
			return fmt.Errorf("writing event %d of case %s: %w", ev.Number, c.ID, err)
		}
		return nil
	}
	if err := exec(`INSERT INTO casework_event (case_id, number, leaf) VALUES (?, ?, ?)`, c.ID, ev.Number, leaf); err != nil {
		return err
	}
	was := old.Clocks
	if old.Events == 0 {
		was = nil // nothing is written of a case in which nothing has happened
	}
	for name, at := range was {
		if next, ok := c.Clocks[name]; ok && next.Equal(at) {
			continue
		}
		if err := exec(`DELETE FROM casework_clock WHERE case_id = ? AND name = ?`, c.ID, name); err != nil {
			return err
		}
	}
	for name, at := range c.Clocks {
		if before, ok := was[name]; ok && before.Equal(at) {
			continue
		}
		if err := exec(`INSERT INTO casework_clock (case_id, name, due_at, next_at) VALUES (?, ?, ?, ?)`, c.ID, name, at.UnixMilli(), at.UnixMilli()); err != nil {
			return err
		}
	}
	for _, s := range ev.Sent {
		if err := exec(`INSERT INTO casework_message (case_id, mine, number, event, work, tries, next_at, peer, body) VALUES (?, 1, ?, ?, ?, 0, ?, ?, ?)`,
			c.ID, s.Number, ev.Number, workPost, now.UnixMilli(), string(c.Peer), []byte{}); err != nil {
			return err
		}
	}
	if ev.Kind == KindMessage {
		if err := exec(`INSERT INTO casework_message (case_id, mine, number, event, work, tries, next_at, peer, body) VALUES (?, 0, ?, ?, ?, 0, 0, ?, ?)
			ON CONFLICT (case_id, mine, number) DO UPDATE SET event = excluded.event, work = excluded.work, body = excluded.body`,
			c.ID, ev.Message, ev.Number, workNone, string(c.Peer), []byte{}); err != nil {
			return err
		}
	}
	for _, a := range ev.Calls {
		timeout, err := definition.ParseDuration(c.program.Definition().Calls[a.Call].Timeout)
		if err != nil {
			return err // reading the definition has seen to it
		}
		until := now.Add(timeout)
		if err := exec(`INSERT INTO casework_call (case_id, event, name, until_at, tries, next_at) VALUES (?, ?, ?, ?, 0, ?)`,
			c.ID, ev.Number, a.Call, until.UnixMilli(), now.UnixMilli()); err != nil {
			return err
		}
	}
	if c.Ended { // nobody is asked about somebody whose case is over
		if err := exec(`DELETE FROM casework_call WHERE case_id = ?`, c.ID); err != nil {
			return err
		}
	} else if ev.Kind == KindCall {
		if err := exec(`DELETE FROM casework_call WHERE case_id = ? AND event = ? AND name = ?`, c.ID, ev.Asked, ev.Trigger); err != nil {
			return err
		}
	}
	for _, f := range ev.Effects {
		do, ok := e.deps.Effects[f.Run]
		if !ok {
			return fmt.Errorf("no effect is called %s", f.Run)
		}
		if err := do(ctx, tx, Effect{Case: c.ID, Event: ev.Number, Peer: c.Peer, At: ev.At, With: f.With}); err != nil {
			return fmt.Errorf("%s: %w", f.Run, err)
		}
	}
	return nil
}

// mark writes on a case when it last changed, since when it has ended, and why
// a person should look at it.
func (c *Case) mark(ev *Event) {
	c.Changed = ev.At
	if !c.Ended {
		c.Final = time.Time{}
	} else if c.Final.IsZero() {
		c.Final = ev.At
	}
	switch {
	case ev.Held != "":
		c.Trouble = "held"
	case len(ev.Amended) > 0:
		c.Trouble = "amended"
	case ev.Kind == KindCall && ev.Refusal != nil: // an answer that nobody waits for any more
	case ev.Refusal != nil:
		c.Trouble = ev.Kind + " " + ev.Refusal.Why
	case ev.Kind == KindForm && c.program.Definition().Roles[ev.Actor.Role].Kind != definition.Citizen:
		c.Trouble = "" // somebody of the authority has seen to it
	}
}

// happen takes a step of a case that exists. what says what happens to it, as
// it is; nil: nothing, any more.
func (e *Engine) happen(ctx context.Context, id string, what func(*Case) (*happening, error), extra func(tx *store.Tx) error) (*Event, error) {
	defer e.lock(id)()
	for try := 1; ; try++ {
		c, err := e.load(ctx, id)
		if err != nil {
			return nil, err
		}
		h, err := what(c)
		if h == nil || err != nil {
			return nil, err
		}
		ev, next, err := e.take(ctx, c, *h)
		if err != nil {
			return nil, err
		}
		if _, err = e.commit(ctx, c, next, ev, extra); errors.Is(err, errStale) && try < staleTries {
			continue
		}
		return ev, err
	}
}
