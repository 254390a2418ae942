package casework

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
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
// kept are the events that an inspection of the journal has seen.
func (e *Engine) Inspect(ctx context.Context, kept *Kept, seen func(done int64)) (n int64, wrong []Wrong, err error) {
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
			break
		}
	}
	lost, err := e.lost(ctx)
	if err == nil {
		var alone []Wrong
		alone, err = e.alone(ctx, kept)
		lost = append(lost, alone...)
	}
	return n, append(wrong, lost[:min(len(lost), maxWrong-len(wrong))]...), err
}

// Kept collects, while the journal is inspected, which of its records are
// events of cases. Its zero value is ready.
type Kept struct{ leaves []int64 }

// See is shown each record, in the order of the log.
func (k *Kept) See(s journal.Stored) {
	if s.Kind == journal.CaseEvent && !s.Erased {
		k.leaves = append(k.leaves, s.Index)
	}
}

// alone finds events that stand in the journal, and in no case.
func (e *Engine) alone(ctx context.Context, kept *Kept) (wrong []Wrong, err error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT leaf FROM casework_event ORDER BY leaf`)
	if err != nil {
		return nil, fmt.Errorf("listing events: %w", err)
	}
	defer rows.Close()
	var missing []int64
	left := kept.leaves
	for rows.Next() {
		var leaf int64
		if err := rows.Scan(&leaf); err != nil {
			return nil, err
		}
		for len(left) > 0 && left[0] < leaf {
			missing, left = append(missing, left[0]), left[1:]
		}
		if len(left) > 0 && left[0] == leaf {
			left = left[1:]
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, leaf := range append(missing, left...) {
		if len(wrong) == maxWrong {
			break
		}
		ev, err := e.event(ctx, leaf)
		if errors.Is(err, errDark) {
			continue // it was erased since
		} else if err != nil {
			return wrong, err
		}
		wrong = append(wrong, Wrong{ev.Case, fmt.Sprintf("event %d stands in the journal at leaf %d, and the case does not know it", ev.Number, leaf)})
	}
	return wrong, nil
}

// lost finds what is stored of cases that are not there. That messages came
// before the one that opens their case is nothing wrong.
func (e *Engine) lost(ctx context.Context) (wrong []Wrong, err error) {
	for _, table := range []string{"casework_event", "casework_clock", "casework_message", "casework_call", "casework_act"} {
		rows, err := e.deps.DB.Query(ctx, `SELECT DISTINCT case_id FROM `+table+` WHERE NOT EXISTS (SELECT 1 FROM casework_case c WHERE c.id = case_id)`+
			map[bool]string{true: ` AND work <> 2`}[table == "casework_message"]+` ORDER BY case_id LIMIT ?`, maxWrong)
		if err != nil {
			return wrong, fmt.Errorf("looking for what belongs to no case: %w", err)
		}
		for rows.Next() {
			w := Wrong{Detail: "the case is not there; something of it stands in " + table}
			if err := rows.Scan(&w.Case); err != nil {
				return wrong, errors.Join(err, rows.Close())
			}
			wrong = append(wrong, w)
		}
		if err := rows.Err(); err != nil {
			return wrong, err
		}
	}
	rows, err := e.deps.DB.Query(ctx, `SELECT case_id, mine, event, number, peer, body FROM casework_message WHERE work = 2 AND NOT EXISTS (SELECT 1 FROM casework_case c WHERE c.id = case_id)`)
	if err != nil {
		return wrong, fmt.Errorf("looking for early messages: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var m storedMessage
		if err := rows.Scan(&id, &m.mine, &m.event, &m.number, &m.peer, &m.body); err != nil {
			return wrong, err
		}
		if _, err := e.deps.Records.Open(m.body, earlyName(id, m.peer, m.number)); err != nil && !errors.Is(err, seal.ErrDestroyed) || m.mine != 0 || m.event != 0 {
			wrong = append(wrong, Wrong{id, fmt.Sprintf("message %d, which waits for others, is not what came", m.number)})
		}
	}
	return wrong, rows.Err()
}

// storedCase is what stands in the tables of a case.
type storedCase struct {
	*Case
	body     []byte
	events   []storedEvent
	messages []storedMessage
	clocks   map[string]time.Time
	calls    map[openCall]bool
	acts     []storedAct
}

type storedEvent struct{ number, leaf int64 }

type storedMessage struct {
	mine, number, event, work int64
	peer                      union.State
	body                      []byte
}

type openCall struct {
	event int64
	name  string
}

type storedAct struct {
	Claim
	event int64
}

// stored reads it as it stood at one moment.
func (e *Engine) stored(ctx context.Context, id string) (*storedCase, error) {
	s := &storedCase{clocks: map[string]time.Time{}, calls: map[openCall]bool{}}
	err := e.deps.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if s.Case, s.body, err = scanCase(tx.QueryRow(ctx, `SELECT `+caseColumns+` FROM casework_case WHERE id = ?`, id)); err != nil {
			return err
		}
		for _, q := range []struct {
			query string
			take  func(scan func(...any) error) error
		}{
			{`SELECT number, leaf FROM casework_event WHERE case_id = ? ORDER BY number`, func(scan func(...any) error) error {
				var v storedEvent
				err := scan(&v.number, &v.leaf)
				s.events = append(s.events, v)
				return err
			}},
			{`SELECT mine, number, event, work, peer, body FROM casework_message WHERE case_id = ? ORDER BY mine, number`, func(scan func(...any) error) error {
				var m storedMessage
				err := scan(&m.mine, &m.number, &m.event, &m.work, &m.peer, &m.body)
				s.messages = append(s.messages, m)
				return err
			}},
			{`SELECT name, due_at FROM casework_clock WHERE case_id = ?`, func(scan func(...any) error) error {
				var name string
				var at int64
				err := scan(&name, &at)
				s.clocks[name] = time.UnixMilli(at)
				return err
			}},
			{`SELECT event, name FROM casework_call WHERE case_id = ?`, func(scan func(...any) error) error {
				var c openCall
				err := scan(&c.event, &c.name)
				s.calls[c] = true
				return err
			}},
			{`SELECT id, digest, event FROM casework_act WHERE case_id = ?`, func(scan func(...any) error) error {
				var a storedAct
				err := scan(&a.ID, &a.Digest, &a.event)
				s.acts = append(s.acts, a)
				return err
			}},
		} {
			rows, err := tx.Query(ctx, q.query, id)
			if err != nil {
				return err
			}
			for rows.Next() {
				if err := q.take(rows.Scan); err != nil {
					return errors.Join(err, rows.Close())
				}
			}
			if err := rows.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	return s, err
}

func (e *Engine) inspect(ctx context.Context, id string) error {
	s, err := e.stored(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // it was erased meanwhile
	} else if err != nil {
		return err
	}
	if err := e.unfold(s.Case, s.body); err != nil {
		return err
	}
	if len(s.clocks) != len(s.Clocks) {
		return fmt.Errorf("%d deadlines run, not %d", len(s.clocks), len(s.Clocks))
	}
	for name, at := range s.Clocks {
		if !s.clocks[name].Equal(at) {
			return fmt.Errorf("the deadline %s is another one", name)
		}
	}
	if int64(len(s.events)) != s.Events {
		return fmt.Errorf("%d events, not %d", len(s.events), s.Events)
	}
	var events []*Event
	for i, v := range s.events {
		ev, err := e.event(ctx, v.leaf)
		if err != nil {
			return err
		}
		if n := int64(i + 1); v.number != n || ev.Case != id || ev.Number != n {
			return fmt.Errorf("event %d is that of another place", n)
		}
		events = append(events, ev)
	}
	if err := e.follows(s, events); err != nil {
		return err
	}
	return e.retrace(ctx, s.Case, events)
}

// follows holds what waits, and what was done, against the events.
func (e *Engine) follows(s *storedCase, events []*Event) error {
	event := func(n int64) *Event {
		if n < 1 || n > int64(len(events)) {
			return &Event{}
		}
		return events[n-1]
	}
	var sent, heard int64
	for _, m := range s.messages {
		ev, fits := event(m.event), false
		switch {
		case m.mine == 1:
			sent++
			fits = m.number == sent && (m.work == workNone || m.work == workPost) && len(m.body) == 0 &&
				slices.ContainsFunc(ev.Sent, func(x Sent) bool { return x.Number == m.number })
		case m.mine == 0 && m.work == workEarly:
			_, err := e.deps.Records.Open(m.body, earlyName(s.ID, m.peer, m.number))
			fits = err == nil && m.event == 0 && m.number > s.Heard+1
		case m.mine == 0:
			heard++
			fits = m.number == heard && m.work == workNone && len(m.body) == 0 && ev.Kind == KindMessage && ev.Message == m.number
		}
		if !fits || m.peer != s.Peer {
			return fmt.Errorf("message %d is not what an event sent or heard", m.number)
		}
	}
	if sent != s.Sent || heard != s.Heard {
		return fmt.Errorf("%d messages sent and %d heard, not %d and %d", sent, heard, s.Sent, s.Heard)
	}
	acts := map[int64]bool{}
	for _, a := range s.acts {
		if c := event(a.event).Act; c == nil || !bytes.Equal(c.ID, a.ID) || !bytes.Equal(c.Digest, a.Digest) {
			return fmt.Errorf("what keeps event %d from being done twice is another one", a.event)
		}
		acts[a.event] = true
	}
	open := map[openCall]bool{}
	for _, ev := range events {
		for _, c := range ev.Calls {
			open[openCall{ev.Number, c.Call}] = true
		}
		if ev.Kind == KindCall {
			delete(open, openCall{ev.Asked, ev.Trigger})
		}
		// They are forgotten in the end.
		age := e.deps.Now().Sub(ev.At.Add(-time.Duration(ev.Clock) * time.Second))
		if ev.Act != nil && !acts[ev.Number] && age < keepActs-24*time.Hour {
			return fmt.Errorf("nothing keeps event %d from being done twice", ev.Number)
		}
	}
	if s.Ended {
		clear(open) // nobody waits for the answers any more
	}
	if !maps.Equal(open, s.calls) {
		return fmt.Errorf("%d questions to registers are open, not %d", len(s.calls), len(open))
	}
	return nil
}
