package casework

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
)

// asked is a question to a register that is not answered yet.
type asked struct {
	id    string
	event int64
	name  string
	until time.Time
	tries int
	leaf  int64
}

// askedKey names a question while it is being asked.
type askedKey struct {
	id    string
	event int64
	name  string
}

// ask puts open questions to this state's registers. It does not wait for the
// answers: a slow register holds up no other.
func (e *Engine) ask(ctx context.Context) (int, error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT c.case_id, c.event, c.name, c.until_at, c.tries, v.leaf FROM casework_call c
		JOIN casework_event v ON v.case_id = c.case_id AND v.number = c.event
		WHERE c.next_at <= ? ORDER BY c.next_at LIMIT ?`, e.deps.Now().UnixMilli(), batch)
	if err != nil {
		return 0, fmt.Errorf("looking for questions to registers: %w", err)
	}
	defer rows.Close()
	var all []asked
	for rows.Next() {
		var a asked
		var until int64
		if err := rows.Scan(&a.id, &a.event, &a.name, &until, &a.tries, &a.leaf); err != nil {
			return 0, err
		}
		a.until = time.UnixMilli(until)
		all = append(all, a)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, a := range all {
		key := askedKey{a.id, a.event, a.name}
		if _, asking := e.asking.LoadOrStore(key, true); asking {
			continue
		}
		select {
		case e.asks <- struct{}{}:
		default:
			e.asking.Delete(key) // enough are being asked: the next look takes it up
			return 0, nil
		}
		e.answers.Go(func() {
			defer e.asking.Delete(key)
			defer func() { <-e.asks }()
			err := safely(func() error { return e.askOne(ctx, a) })
			if err != nil && ctx.Err() == nil {
				e.deps.Log.Error("asking a register", "case", a.id, "call", a.name, "error", err)
				if err := e.putOff(ctx, a); err != nil {
					e.deps.Log.Error("asking a register", "case", a.id, "call", a.name, "error", err)
				}
			}
		})
	}
	return 0, nil
}

// putOff has a question asked later: under another identifier, since a failure
// is an answer too and would be given again.
func (e *Engine) putOff(ctx context.Context, a asked) error {
	now := e.deps.Now()
	at := e.later(now, a.until)
	if now.Before(a.until) && at.After(a.until) {
		at = a.until
	}
	_, err := e.deps.DB.Exec(ctx, `UPDATE casework_call SET tries = tries + 1, next_at = ? WHERE case_id = ? AND event = ? AND name = ?`,
		at.UnixMilli(), a.id, a.event, a.name)
	return err
}

// askOne asks once. Without an answer it is asked again until its time is
// over; then that there was none is what the half goes on with.
func (e *Engine) askOne(ctx context.Context, a asked) error {
	c, err := e.load(ctx, a.id)
	if err != nil {
		return err
	}
	status, fields, err := e.question(ctx, c, a)
	if err != nil && e.deps.Now().Before(a.until) {
		return e.putOff(ctx, a)
	}
	if err != nil {
		e.deps.Log.Warn("a register did not answer", "case", a.id, "call", a.name, "code", string(fault.CodeOf(err)))
	}
	_, err = e.happen(ctx, a.id, func(*Case) (*happening, error) {
		var open int
		if err := e.deps.DB.QueryRow(ctx, `SELECT COUNT(*) FROM casework_call WHERE case_id = ? AND event = ? AND name = ?`, a.id, a.event, a.name).Scan(&open); err != nil || open == 0 {
			return nil, err
		}
		return &happening{kind: KindCall, trigger: a.name, at: e.now(), fields: fields, status: status, asked: a.event}, nil
	}, nil)
	return err
}

func (e *Engine) question(ctx context.Context, c *Case, a asked) (int, definition.Values, error) {
	ev, err := e.event(ctx, a.leaf)
	if err != nil {
		return 0, nil, err
	}
	b, err := e.deps.Book()
	if err != nil {
		return 0, nil, err
	}
	d := c.program.Definition()
	call := d.Calls[a.name]
	register, ok := b.Register(c.Service, c.Version, call.Service)
	own, ok2 := b.System(e.cfg.State)
	if !ok || !ok2 {
		return 0, nil, fault.New(fault.UnknownService, "%s: %s", a.name, call.Service)
	}
	for _, q := range ev.Calls {
		if q.Call != a.name {
			continue
		}
		r := exchange.Call{
			Client: own, Service: register, Purpose: d.Purpose, Method: call.Method, Path: q.Path,
			ID: fmt.Sprintf("%s.ask.%d.%s.%d", a.id, a.event, a.name, a.tries),
		}
		if call.Method == http.MethodPost {
			r.Header = http.Header{"Content-Type": {"application/json"}}
			if r.Body, err = q.Body.AppendJSON(nil); err != nil {
				return 0, nil, err
			}
		}
		ctx, cancel := context.WithDeadline(ctx, a.until)
		defer cancel()
		answer, err := e.deps.Exchange.Fetch(ctx, r)
		switch {
		case err != nil:
			return 0, nil, err
		case answer.Fault != "":
			return 0, nil, fault.New(answer.Fault, "%s", a.name)
		case answer.Status >= http.StatusInternalServerError || answer.Status == http.StatusTooManyRequests || answer.Status == http.StatusRequestTimeout:
			return 0, nil, fault.New(fault.BackendFailed, "status %d", answer.Status)
		}
		return answer.Status, mask(d, call.Keep, answer.Body, answer.Status), nil
	}
	return 0, nil, fmt.Errorf("event %d of case %s did not ask %s", a.event, a.id, a.name)
}
