package casework

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/falaj/falaj/internal/casework/definition"
)

// errDark tells that an event's retention has ended, or that it was erased.
var errDark = errors.New("its record is no longer kept")

// event reads the event whose record has a leaf.
func (e *Engine) event(ctx context.Context, leaf int64) (*Event, error) {
	s, err := e.deps.Journal.Get(ctx, leaf)
	if err != nil {
		return nil, fmt.Errorf("reading the event at leaf %d: %w", leaf, err)
	}
	if s.Erased {
		return nil, fmt.Errorf("the event at leaf %d: %w", leaf, errDark)
	}
	return readEvent(s.Body)
}

// leaves are those of a case's events, in their order.
func (e *Engine) leaves(ctx context.Context, id string) ([]int64, error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT leaf FROM casework_event WHERE case_id = ? ORDER BY number`, id)
	if err != nil {
		return nil, fmt.Errorf("reading the events of a case: %w", err)
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var leaf int64
		if err := rows.Scan(&leaf); err != nil {
			return nil, err
		}
		out = append(out, leaf)
	}
	return out, rows.Err()
}

// history reads a case's events in their order, and the leaves of their records.
func (e *Engine) history(ctx context.Context, id string) ([]*Event, []int64, error) {
	leaves, err := e.leaves(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	out := make([]*Event, 0, len(leaves))
	for _, leaf := range leaves {
		ev, err := e.event(ctx, leaf)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, ev)
	}
	return out, leaves, nil
}

// Replay takes every step of a case again, and says where that leads elsewhere
// than it did: from the definition, the inputs and what hooks gave, the same
// events and the same case must come.
func (e *Engine) Replay(ctx context.Context, id string) error {
	now, err := e.load(ctx, id)
	if err != nil {
		return err
	}
	events, _, err := e.history(ctx, id)
	if err != nil {
		return err
	}
	return e.retrace(ctx, now, events)
}

func (e *Engine) retrace(ctx context.Context, now *Case, events []*Event) error {
	if int64(len(events)) < now.Events {
		return fmt.Errorf("%d events of %d", len(events), now.Events)
	}
	events = events[:now.Events] // what came since is not in the case yet
	id := now.ID
	c := fresh(id, now.Service, now.Version, now.Party, now.Peer, now.Opened, now.program)
	for _, was := range events {
		h, err := was.happening(c.program.Definition())
		if err != nil {
			return fmt.Errorf("event %d: %w", was.Number, err)
		}
		ev, next, err := e.take(ctx, c, h)
		if err != nil {
			return fmt.Errorf("event %d: %w", was.Number, err)
		}
		ev.Clock = was.Clock
		next.mark(ev)
		for i := range min(len(ev.Notices), len(was.Notices)) { // how a text is set may have changed since
			ev.Notices[i].Title, ev.Notices[i].Text = was.Notices[i].Title, was.Notices[i].Text
		}
		a, err := json.Marshal(was, json.Deterministic(true))
		if err != nil {
			return err
		}
		b, err := json.Marshal(ev, json.Deterministic(true))
		if err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("event %d of case %s leads elsewhere when it is taken again", was.Number, id)
		}
		c = next
	}
	same, err := c.same(now)
	if err == nil && (!same || !bytes.Equal(now.key, e.personKey(c))) {
		err = fmt.Errorf("case %s is not what its events make of it", id)
	}
	return err
}

// happening is what an event was, before it was known what followed.
func (ev *Event) happening(d *definition.Definition) (happening, error) {
	h := happening{
		kind: ev.Kind, trigger: ev.Trigger, at: ev.At, act: ev.Act, actor: ev.Actor, second: ev.Second,
		message: ev.Message, sent: ev.SentAt, status: ev.Status, asked: ev.Asked,
	}
	var err error
	if ev.Fields != nil {
		if h.fields, err = d.ReadValues(ev.Fields); err != nil {
			return h, err
		}
	}
	if h.let, err = readLet(ev.Let); err != nil {
		return h, err
	}
	if ev.Kind == KindReturned || ev.Kind == KindMessage && ev.Fields == nil {
		h.refusal = ev.Refusal
	}
	return h, nil
}

// same tells whether two halves are equal.
func (c *Case) same(o *Case) (bool, error) {
	if c.State != o.State || c.Ended != o.Ended || !c.Final.Equal(o.Final) || c.Trouble != o.Trouble || c.Events != o.Events || c.Sent != o.Sent || c.Heard != o.Heard || !c.Changed.Equal(o.Changed) {
		return false, nil
	}
	a, err := c.keep()
	if err != nil {
		return false, err
	}
	b, err := o.keep()
	return bytes.Equal(a, b), err
}
