package definition

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// Broken is the name under which Outcome.Let holds why a hook gave nothing.
const Broken = ""

// errHeld makes a step go to the half's hold state.
type errHeld struct{ why string }

func (e errHeld) Error() string { return e.why }

func failed(where string, err error) error { return errHeld{where + ": " + err.Error()} }

// Open gives the half of a party in a case that begins, or begins here: in its
// start state, with nothing known. The first form or message is a trigger of
// that state. Opened is when the case was, now is the case time here.
func (p *Program) Open(party string, opened, now time.Time) (Half, error) {
	m := p.halves[party]
	if m == nil {
		return Half{}, fmt.Errorf("the service %s has no party %q", p.d.Name, party)
	}
	h := Half{Party: party, State: m.start, Facts: Values{}, Opened: instant(opened)}
	s := &scope{vars: m.vars, facts: h.Facts, now: instant(now), opened: h.Opened}
	var err error
	h.Clocks, h.Fired, err = m.clocks(s, &h, m.states[m.start], true, "")
	return h, err
}

// Step takes one step of a half. It is a function of the definition, the half,
// the input and the results of hooks: with in.Let of an earlier outcome it
// gives that outcome again. Neither the half nor the input is changed.
//
// In this order: the actor's role, the state's triggers and the fields are
// checked; the fields become facts, and one that a trigger has and this one
// leaves out is forgotten; the hooks are asked; the first branch whose guard
// holds is taken. Its `set` all see the facts before any of them is set; what
// it sends, asks and effects sees the facts after. Deadlines with `at` follow
// the facts that they name.
//
// Its error is a *Refusal where the input was not taken, and another one where
// the engine is at fault or the context ended. What goes wrong in an
// expression, a hook or a call's answer is no error: the half goes to its hold
// state, with the trigger's fields kept and Held saying why without a value.
func (p *Program) Step(ctx context.Context, h Half, in Input) (Outcome, error) {
	return p.step(ctx, h, in, p.ask)
}

// asker gives the result of a hook.
type asker func(ctx context.Context, run string, now time.Time, args Values) (any, error)

func (p *Program) ask(ctx context.Context, run string, now time.Time, args Values) (any, error) {
	return p.hooks[run].Call(ctx, now, args)
}

func (p *Program) step(ctx context.Context, h Half, in Input, ask asker) (Outcome, error) {
	m := p.halves[h.Party]
	if m == nil || m.states[h.State] == nil {
		return Outcome{}, fmt.Errorf("the service %s has no half %q that could be in %q", p.d.Name, h.Party, h.State)
	}
	from := m.states[h.State]
	s := &scope{vars: m.vars, was: h.Facts, now: instant(in.At), opened: h.Opened, actor: in.Actor.Role, status: in.Status}
	o, err := p.admit(m, from, h, in, s)
	if err != nil {
		return Outcome{}, err
	}
	fields, refusal := p.fields(in.Trigger, in.Fields)
	_, called := p.d.Calls[in.Trigger]
	if refusal != nil && !called {
		return Outcome{}, refusal
	}
	merged := p.merge(h.Facts, in.Trigger, fields)
	s.facts = merged
	out := Outcome{Half: Half{Party: h.Party, State: h.State, Facts: s.facts, Opened: h.Opened}, Branch: -1}
	if refusal != nil { // nobody would hear that a register's answer is refused
		err = errHeld{o.where + ": the answer cannot be used: " + refusal.Detail}
	} else {
		err = p.act(ctx, m, h, in, o, s, ask, &out)
	}
	var why errHeld
	if !errors.As(err, &why) {
		return out, err
	}
	s.facts = merged // without what a branch set
	return m.heldWith(h, in, s, out.Let, why.why)
}

// admit finds what a trigger does here, or why it is not taken.
func (p *Program) admit(m *machine, from *state, h Half, in Input, s *scope) (*on, error) {
	if f, ok := p.d.Forms[in.Trigger]; ok && (f.Role != in.Actor.Role || p.d.Roles[f.Role].Party != h.Party) {
		return nil, &Refusal{Why: Actors, Text: union.Text{En: "This is for another role to do.", Ar: "هذا الإجراء من اختصاص دور آخر."}, Detail: in.Trigger}
	}
	o := from.on[in.Trigger]
	if o != nil && p.kind(in.Trigger) == "deadline" {
		if at, running := h.Clocks[in.Trigger]; !running || s.now.Before(at) {
			o = nil
		}
	}
	switch {
	case o != nil:
		return o, nil
	case from.final:
		return nil, &Refusal{Why: Closed, Text: union.Text{En: "The case is closed.", Ar: "المعاملة مغلقة."}, Detail: in.Trigger + " in " + h.State}
	}
	return nil, &Refusal{Why: Unexpected, Text: union.Text{En: "This cannot be done where the case stands now.", Ar: "لا يمكن تنفيذ هذا الإجراء في الحالة الراهنة للمعاملة."}, Detail: in.Trigger + " in " + h.State}
}

// kind says what a trigger is.
func (p *Program) kind(trigger string) string {
	if _, ok := p.d.Forms[trigger]; ok {
		return "form"
	}
	if _, ok := p.d.Messages[trigger]; ok {
		return "message"
	}
	if _, ok := p.d.Calls[trigger]; ok {
		return "call"
	}
	return "deadline"
}

// merge makes a trigger's fields facts. A trigger speaks for all of its
// fields: both halves know the same after a message, and nothing of an earlier
// answer or form stays behind.
func (p *Program) merge(facts Values, trigger string, fields Values) Values {
	out := make(Values, len(facts)+len(fields))
	maps.Copy(out, facts)
	for _, name := range p.says[trigger].all {
		if v, ok := fields[name]; ok {
			out[name] = v
		} else {
			delete(out, name)
		}
	}
	return out
}

// act asks the hooks and goes the branch.
func (p *Program) act(ctx context.Context, m *machine, h Half, in Input, o *on, s *scope, ask asker, out *Outcome) error {
	var err error
	if out.Let, err = p.let(ctx, o, in.Let, s, ask); err != nil {
		return err
	}
	s.let = out.Let
	b, err := p.choose(o, s, out)
	if err != nil {
		return err
	}
	if b.Refuse != "" {
		*out = Outcome{}
		return &Refusal{Why: Refused, Reason: b.Refuse, Text: p.d.Reasons[b.Refuse]}
	}
	if out.Facts, err = p.set(b, s); err != nil {
		return err
	}
	s.facts = out.Facts
	to := m.states[h.State]
	if b.To != "" {
		to = m.states[b.To]
	}
	if err := p.emit(b, s, out); err != nil {
		return err
	}
	out.State = to.name
	out.Clocks, out.Fired, err = m.clocks(s, &h, to, b.To != "", in.Trigger)
	return err
}

// let gives the results of a trigger's hooks: those recorded, or new ones.
func (p *Program) let(ctx context.Context, o *on, recorded Values, s *scope, ask asker) (Values, error) {
	if len(o.let) == 0 {
		return nil, nil
	}
	if recorded != nil {
		out := maps.Clone(recorded)
		if why, broken := recorded[Broken].(string); broken {
			return out, errHeld{why}
		}
		return out, nil
	}
	out := make(Values, len(o.let))
	for i := range o.let {
		c := &o.let[i]
		err := func() error {
			args, err := c.arguments(s)
			if err != nil {
				return err
			}
			v, err := calmly(ctx, ask, c.run, s.now, args)
			if err != nil {
				return err
			}
			left := maxValues
			if v, err = tidy(v, maxDepth, &left); err == nil {
				out[c.name], err = c.gives.Take(v)
			}
			return err
		}()
		if ctx.Err() != nil { // the node stops: that says nothing about the case
			return nil, ctx.Err()
		}
		if err != nil {
			delete(out, c.name)
			why := c.where + ": " + clip(err.Error(), 300)
			out[Broken] = why
			return out, errHeld{why}
		}
	}
	return out, nil
}

// calmly asks a hook. One that panics has failed; what it said could be about a
// person.
func calmly(ctx context.Context, ask asker, run string, now time.Time, args Values) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s panicked", run)
		}
	}()
	return ask(ctx, run, now, args)
}

func (c *call) arguments(s *scope) (Values, error) {
	args := make(Values, len(c.args))
	for i := range c.args {
		a := &c.args[i]
		v, err := a.value.take(s, a.kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		args[a.name] = v
	}
	return args, nil
}

// choose finds the first branch whose guard holds.
func (p *Program) choose(o *on, s *scope, out *Outcome) (*branch, error) {
	for i := range o.branches {
		b := &o.branches[i]
		if b.guard != nil {
			ok, err := b.guard.truth(s)
			if err != nil {
				return nil, failed(b.guard.where, err)
			}
			if !ok {
				continue
			}
		}
		out.Branch = i
		return b, nil
	}
	return nil, errHeld{o.where + ": no branch is for this"}
}

// set gives the facts as a branch leaves them.
func (p *Program) set(b *branch, s *scope) (Values, error) {
	if len(b.set) == 0 && len(b.Clear) == 0 {
		return s.facts, nil
	}
	facts := maps.Clone(s.facts)
	for i := range b.set {
		a := &b.set[i]
		v, err := a.value.take(s, a.kind)
		if err != nil {
			return nil, failed(a.value.where, err)
		}
		if fault := p.fits(a.name, v); fault != "" {
			return nil, errHeld{a.value.where + ": not as the fact's schema says: " + fault}
		}
		facts[a.name] = v
	}
	for _, name := range b.Clear {
		delete(facts, name)
	}
	return facts, nil
}

// emit makes what leaves the half with this step.
func (p *Program) emit(b *branch, s *scope, out *Outcome) error {
	for i, name := range b.Send {
		m := p.d.Messages[name]
		fields := make(Values, len(m.Fields))
		for _, f := range m.Fields {
			if v, ok := s.facts[f]; ok {
				fields[f] = v
			} else if slices.Contains(m.Needs, f) {
				return failed(fmt.Sprintf("%s.send[%d]", b.where, i), errUnknown("fact."+f))
			}
		}
		out.Send = append(out.Send, Sent{name, fields})
	}
	for i, name := range b.Call {
		c := p.d.Calls[name]
		asked := Asked{Call: name}
		var err error
		if asked.Path, err = path(c.Path, s.facts); err != nil {
			return failed(fmt.Sprintf("%s.call[%d]", b.where, i), err)
		}
		if c.Method == "POST" {
			asked.Body = Values{}
			for _, f := range c.Send {
				if v, ok := s.facts[f]; ok {
					asked.Body[f] = v
				}
			}
		}
		out.Ask = append(out.Ask, asked)
	}
	for i := range b.effect {
		e := &b.effect[i]
		args, err := e.arguments(s)
		if err != nil {
			return failed(e.where, err)
		}
		out.Effects = append(out.Effects, Effect{e.run, args})
	}
	out.Notices = b.Notice
	if d := b.Decision; d != nil {
		out.Decision = &Decided{Outcome: d.Outcome, Reason: d.Reason, Text: p.d.Reasons[d.Reason], Rule: d.Rule, By: d.By}
		if d.Appeal != "" {
			out.Decision.Appeal = s.now.Add(b.appeal)
		}
	}
	return nil
}

// heldWith is where a step goes that could not be taken. A half that is held
// already stays as it is, its deadlines running: they lead out of it.
func (m *machine) heldWith(h Half, in Input, s *scope, let Values, why string) (Outcome, error) {
	out := Outcome{Half: Half{Party: h.Party, State: m.hold, Facts: s.facts, Opened: h.Opened}, Branch: -1, Let: let, Held: why}
	if m.states[h.State].final { // it has ended, and what came late changes that no more
		out.State = h.State
		return out, nil
	}
	var err error
	out.Clocks, out.Fired, err = m.clocks(s, &h, m.states[m.hold], h.State != m.hold, in.Trigger)
	var again errHeld
	if errors.As(err, &again) {
		err = nil // its other deadlines run
	}
	return out, err
}

// clocks gives the deadlines that run in a state after a step. Those that have
// fired stay so until the state is left, or their instant is another.
func (m *machine) clocks(s *scope, h *Half, to *state, enter bool, trigger string) (running, fired map[string]time.Time, err error) {
	for i := range to.deadlines {
		d := &to.deadlines[i]
		was, ran := h.Clocks[d.name]
		if ran && d.name == trigger {
			ran = false
			if fired == nil {
				fired = map[string]time.Time{}
			}
			fired[d.name] = was
		} else if at, ok := h.Fired[d.name]; ok && (d.always || to.name == h.State) {
			if fired == nil {
				fired = map[string]time.Time{}
			}
			fired[d.name] = at
		}
		at, runs := was, ran
		switch {
		case d.at != nil:
			v, e := d.at.take(s, Instant)
			var unknown errUnknown
			if runs = e == nil; runs {
				at = v.(time.Time)
			} else if !errors.As(e, &unknown) && err == nil {
				err = failed(d.at.where, e)
			}
		case d.always:
			at, runs = h.Opened.Add(d.after), true
		case enter:
			at, runs = s.now.Add(d.after), true
		}
		if before, did := fired[d.name]; did {
			switch {
			case d.at == nil && !d.always || to.name != h.State && !d.always:
				delete(fired, d.name) // it begins anew with the state
			case runs && before.Equal(at):
				runs = false
			case runs:
				delete(fired, d.name)
			}
		}
		if runs {
			if running == nil {
				running = make(map[string]time.Time, len(to.deadlines))
			}
			running[d.name] = at
		}
	}
	if len(fired) == 0 {
		fired = nil
	}
	return running, fired, err
}

// instant is a time as facts hold it.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// path puts facts into a call's path, percent-encoded.
func path(pattern string, facts Values) (string, error) {
	var b strings.Builder
	last := 0
	for _, at := range placeholder.FindAllStringSubmatchIndex(pattern, -1) {
		name := pattern[at[2]:at[3]]
		v, ok := facts[name]
		if !ok {
			return "", errUnknown("fact." + name)
		}
		text := ""
		switch v := v.(type) {
		case time.Time:
			text = v.Format(time.RFC3339Nano)
		default:
			text = fmt.Sprint(v)
		}
		if text == "" || text == "." || text == ".." {
			return "", errors.New("fact." + name + " cannot stand in a path")
		}
		b.WriteString(pattern[last:at[0]])
		encode(&b, text)
		last = at[1]
	}
	b.WriteString(pattern[last:])
	return b.String(), nil
}

// encode leaves RFC 3986's unreserved characters alone.
func encode(b *strings.Builder, s string) {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}

// tidy brings what Go code gives into the types of Values.
func tidy(v any, depth int, left *int) (any, error) {
	if *left--; *left < 0 || depth == 0 {
		return nil, errors.New("too many values, or too deep")
	}
	switch v := v.(type) {
	case string, bool, int64, time.Time:
		return v, nil
	case int:
		return int64(v), nil
	case uint64:
		return whole(v), nil
	case union.Money:
		return map[string]any{"minor": v.Minor, "currency": string(v.Currency)}, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			e, err := tidy(e, depth-1, left)
			if err != nil {
				return nil, err
			}
			out[name] = e
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			e, err := tidy(e, depth-1, left)
			if err != nil {
				return nil, err
			}
			out[i] = e
		}
		return out, nil
	}
	return nil, fmt.Errorf("a value of type %T, which no fact has", v)
}
