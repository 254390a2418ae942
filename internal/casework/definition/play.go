package definition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// maxTaken bounds the steps that both halves take in one scenario.
const maxTaken = 10_000

// Trace is what a scenario did, step by step.
type Trace struct {
	Scenario string
	Taken    []Taken
}

// Taken is one step of a half in a scenario.
type Taken struct {
	Step     int       `json:"step"` // of the scenario, from 1 on
	At       time.Time `json:"at"`
	Party    string    `json:"party"`
	Trigger  string    `json:"trigger"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	Sent     []string  `json:"sent,omitempty"`
	Asked    []string  `json:"asked,omitempty"`
	Notices  []string  `json:"notices,omitempty"`
	Decision *Decided  `json:"decision,omitempty"`
	Effects  []string  `json:"effects,omitempty"`
	Held     string    `json:"held,omitempty"`
	Refused  string    `json:"refused,omitempty"` // why it was not taken
}

func (t Taken) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%2d  %s  %-8s %-20s ", t.Step, t.At.Format("2006-01-02 15:04"), t.Party, t.Trigger)
	if t.Refused != "" {
		fmt.Fprintf(&b, "refused in %s: %s", t.From, t.Refused)
		return b.String()
	}
	b.WriteString(t.From)
	if t.To != t.From {
		b.WriteString(" → " + t.To)
	}
	for _, p := range []struct {
		what string
		list []string
	}{{"sends", t.Sent}, {"asks", t.Asked}, {"tells", t.Notices}, {"does", t.Effects}} {
		if len(p.list) > 0 {
			fmt.Fprintf(&b, "; %s %s", p.what, strings.Join(p.list, ", "))
		}
	}
	if t.Decision != nil {
		fmt.Fprintf(&b, "; decides %s (%s)", t.Decision.Outcome, t.Decision.Reason)
	}
	if t.Held != "" {
		b.WriteString("; HELD: " + t.Held)
	}
	return b.String()
}

func (t *Trace) String() string {
	lines := make([]string, len(t.Taken))
	for i, taken := range t.Taken {
		lines[i] = taken.String()
	}
	return strings.Join(lines, "\n")
}

// coming is something on its way to a half.
type coming struct {
	party string
	in    Input
}

// player is a scenario under way.
type player struct {
	p       *Program
	now     time.Time
	opened  time.Time
	halves  map[string]Half
	queue   []coming
	lines   map[string][]coming // messages held back, and those behind them, by the party that they go to
	delay   map[string]bool
	answers map[string]any
	hooks   map[string]any
	step    int
	refused *Refusal // of the act, or of a message by a reason of the definition
	late    *Refusal // of a message that came after the end: its sender is told
	trace   *Trace
	taken   int
}

// Play plays a scenario with both halves in memory. The trace comes back with
// an error, too, as far as it went. The error says which step went otherwise
// than it says, and how.
func (p *Program) Play(ctx context.Context, s Scenario) (*Trace, error) {
	g := &player{
		p: p, now: instant(s.Start), halves: map[string]Half{}, lines: map[string][]coming{}, delay: map[string]bool{},
		answers: map[string]any{}, hooks: map[string]any{}, trace: &Trace{Scenario: s.Name},
	}
	for i := range s.Steps {
		g.step = i + 1
		if err := g.play(ctx, &s.Steps[i]); err != nil {
			return g.trace, fmt.Errorf("%w: scenario %q, step %d (line %d): %w", ErrDefinition, s.Name, g.step, s.Steps[i].line, err)
		}
	}
	return g.trace, nil
}

func (g *player) play(ctx context.Context, s *ScenarioStep) error {
	if err := g.prepare(s); err != nil {
		return err
	}
	g.refused, g.late = nil, nil
	if s.Do != "" {
		if err := g.act(ctx, s); err != nil {
			return err
		}
	}
	if err := g.deliver(s.Deliver); err != nil {
		return err
	}
	until := g.now
	if s.Wait != "" {
		d, err := ParseDuration(s.Wait)
		if err != nil {
			return err
		}
		until = g.now.Add(d)
	}
	if err := g.run(ctx, until); err != nil {
		return err
	}
	if err := g.checkRefused(s); err != nil {
		return err
	}
	return g.want(s.Want)
}

// prepare takes over what holds from this step on.
func (g *player) prepare(s *ScenarioStep) error {
	for name, a := range s.Answer {
		if _, ok := g.p.d.Calls[name]; !ok {
			return fmt.Errorf("answer: there is no call %q", name)
		}
		g.answers[name] = a
	}
	for run, v := range s.Hook {
		if _, ok := g.p.hooks[run]; !ok {
			return fmt.Errorf("hook: there is no function %q", run)
		}
		g.hooks[run] = v
	}
	for _, name := range s.Delay {
		if _, ok := g.p.d.Messages[name]; !ok {
			return fmt.Errorf("delay: there is no message %q", name)
		}
		g.delay[name] = true
	}
	return nil
}

// deliver lets messages arrive that were held back.
func (g *player) deliver(names []string) error {
	for _, name := range names {
		delete(g.delay, name)
		line := g.lines[g.p.other(g.p.d.Messages[name].From)]
		if !slices.ContainsFunc(line, func(c coming) bool { return c.in.Trigger == name }) {
			return fmt.Errorf("no message %s is held back", name)
		}
	}
	g.flush()
	for _, name := range names {
		for _, c := range g.lines[g.p.other(g.p.d.Messages[name].From)] {
			if c.in.Trigger == name {
				return fmt.Errorf("%s cannot arrive yet: what was sent before it is held back", name)
			}
		}
	}
	return nil
}

// flush lets go what nothing holds back: messages of a case arrive in the
// order in which they were sent.
func (g *player) flush() {
	for _, party := range g.p.sides() {
		line := g.lines[party]
		for len(line) > 0 && !g.delay[line[0].in.Trigger] {
			g.queue = append(g.queue, line[0])
			line = line[1:]
		}
		g.lines[party] = line
	}
}

// act does a form.
func (g *player) act(ctx context.Context, s *ScenarioStep) error {
	f, ok := g.p.d.Forms[s.Do]
	if !ok {
		return fmt.Errorf("do: there is no form %q", s.Do)
	}
	fields := Values{}
	for name, v := range s.With {
		left := maxValues
		v, err := tidy(v, maxDepth, &left)
		if err != nil {
			return fmt.Errorf("with.%s: %w", name, err)
		}
		fields[name] = v
	}
	if g.opened.IsZero() {
		if s.At != g.p.d.Opens {
			return fmt.Errorf("a case begins at %s", g.p.d.Opens)
		}
		g.opened = g.now
	}
	return g.take(ctx, coming{s.At, Input{Trigger: s.Do, At: g.now, Actor: Actor{Role: f.Role}, Fields: fields}})
}

// run lets everything happen that is on its way or falls due until then.
func (g *player) run(ctx context.Context, until time.Time) error {
	for {
		for len(g.queue) > 0 {
			next := g.queue[0]
			g.queue = g.queue[1:]
			next.in.At = g.now
			if err := g.take(ctx, next); err != nil {
				return err
			}
		}
		party, name, at := g.due()
		if name == "" || at.After(until) {
			g.now = until
			return nil
		}
		if at.After(g.now) {
			g.now = at
		}
		g.queue = append(g.queue, coming{party, Input{Trigger: name, At: g.now}})
	}
}

// due is the deadline that passes first.
func (g *player) due() (party, name string, at time.Time) {
	for _, half := range g.p.sides() {
		clocks := g.halves[half].Clocks
		for _, d := range slices.Sorted(maps.Keys(clocks)) {
			if name == "" || clocks[d].Before(at) {
				party, name, at = half, d, clocks[d]
			}
		}
	}
	return party, name, at
}

// sides are both parties, the one first that opens a case.
func (p *Program) sides() [2]string { return [2]string{p.d.Opens, p.other(p.d.Opens)} }

func (p *Program) other(party string) string {
	for other := range p.d.Parties {
		if other != party {
			return other
		}
	}
	return ""
}

// take has a half take a step.
func (g *player) take(ctx context.Context, c coming) error {
	if g.taken++; g.taken > maxTaken {
		return fmt.Errorf("more than %d steps were taken: the halves go round in a circle", maxTaken)
	}
	h, ok := g.halves[c.party]
	if !ok {
		var err error
		if h, err = g.p.Open(c.party, g.opened, g.now); err != nil {
			return err
		}
	}
	t := Taken{Step: g.step, At: g.now, Party: c.party, Trigger: c.in.Trigger, From: h.State, To: h.State}
	out, err := g.p.step(ctx, h, c.in, g.ask)
	var refusal *Refusal
	if errors.As(err, &refusal) {
		t.Refused = refusal.Error()
		if refusal.Reason != "" {
			t.Refused = refusal.Reason
		}
		g.trace.Taken = append(g.trace.Taken, t)
		switch kind := g.p.kind(c.in.Trigger); {
		case kind == "form" || refusal.Why == Refused:
			g.refused = refusal
			return nil
		case refusal.Why == Closed:
			g.late = refusal
			return nil
		}
		return fmt.Errorf("%s cannot take %s in %s: %w", c.party, c.in.Trigger, h.State, refusal)
	}
	if err != nil {
		return err
	}
	g.halves[c.party] = out.Half
	t.To, t.Notices, t.Decision, t.Held = out.State, out.Notices, out.Decision, out.Held
	for _, s := range out.Send {
		t.Sent = append(t.Sent, s.Message)
		sent := coming{g.p.other(c.party), Input{Trigger: s.Message, Fields: s.Fields}}
		g.lines[sent.party] = append(g.lines[sent.party], sent)
	}
	g.flush()
	for _, a := range out.Ask {
		t.Asked = append(t.Asked, a.Call+" "+g.p.d.Calls[a.Call].Method+" "+a.Path)
		answer, err := g.answer(a.Call)
		if err != nil {
			return err
		}
		g.queue = append(g.queue, coming{c.party, answer})
	}
	for _, e := range out.Effects {
		t.Effects = append(t.Effects, e.Run)
	}
	g.trace.Taken = append(g.trace.Taken, t)
	return nil
}

// ask gives what the scenario says of a hook, or asks the real one.
func (g *player) ask(ctx context.Context, run string, now time.Time, args Values) (any, error) {
	if v, ok := g.hooks[run]; ok {
		if v == nil {
			return nil, errors.New("the scenario lets it fail")
		}
		return v, nil
	}
	if g.p.hooks[run].Call == nil {
		return nil, fmt.Errorf("%s is not at hand here: say what it gives under `hook`", run)
	}
	return g.p.ask(ctx, run, now, args)
}

// answer is what a call gets in the scenario, under the call's mask.
func (g *player) answer(name string) (Input, error) {
	in := Input{Trigger: name, Fields: Values{}}
	said, _ := g.answers[name].(map[string]any)
	if said == nil {
		return in, nil
	}
	status, ok := whole(said["status"]).(int64)
	if !ok || status < 100 || status > 599 {
		return in, fmt.Errorf("answer.%s: say its status, as in 200", name)
	}
	in.Status = int(status)
	if status < 200 || status > 299 {
		return in, nil
	}
	body, err := json.Marshal(said["body"])
	if err != nil {
		return in, fmt.Errorf("answer.%s: %w", name, err)
	}
	for fact, pointer := range g.p.d.Calls[name].Keep {
		raw, ok := Find(body, pointer)
		if !ok {
			continue
		}
		v, err := ReadValue(raw)
		if err != nil {
			return in, fmt.Errorf("answer.%s: %s: %w", name, pointer, err)
		}
		in.Fields[fact] = v
	}
	return in, nil
}

// checkRefused holds what was refused against what should have been. That a
// message came too late need not be said.
func (g *player) checkRefused(s *ScenarioStep) error {
	was := g.refused
	if was == nil && s.Refused != "" {
		was = g.late
	}
	got := ""
	if was != nil {
		if got = was.Reason; got == "" {
			got = string(was.Why)
		}
	}
	switch {
	case got == s.Refused:
		return nil
	case s.Refused == "":
		return fmt.Errorf("it was refused: %w", was)
	case got == "":
		return fmt.Errorf("it should have been refused (%s), and was taken", s.Refused)
	}
	return fmt.Errorf("it should have been refused for %s, and was for %s", s.Refused, got)
}

// want compares both halves with what the scenario says of them.
func (g *player) want(want map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		party, fact, isFact := strings.Cut(key, ".")
		h, ok := g.halves[party]
		if !ok {
			return fmt.Errorf("want.%s: nothing has happened at %q", key, party)
		}
		if !isFact {
			if want[key] == h.State {
				continue
			}
			return fmt.Errorf("%s should be in %v, and is in %s%s", party, want[key], h.State, g.lastHeld(party))
		}
		f, ok := g.p.d.Facts[fact]
		if !ok {
			return fmt.Errorf("want.%s: there is no fact %q", key, fact)
		}
		got, known := h.Facts[fact]
		if want[key] == nil {
			if known {
				return fmt.Errorf("%s should not be known, and is", key)
			}
			continue
		}
		left := maxValues
		wanted, err := tidy(want[key], maxDepth, &left)
		if err == nil {
			wanted, err = f.Type.Take(wanted)
		}
		switch {
		case err != nil:
			return fmt.Errorf("want.%s: %w", key, err)
		case !known:
			return fmt.Errorf("%s should be known, and is not", key)
		case !same(wanted, got):
			return fmt.Errorf("%s should be %v, and is %v", key, wanted, got)
		}
	}
	return nil
}

// lastHeld says why a half is held, where it is.
func (g *player) lastHeld(party string) string {
	for _, t := range slices.Backward(g.trace.Taken) {
		if t.Party == party {
			if t.Held != "" {
				return " (held: " + t.Held + ")"
			}
			return ""
		}
	}
	return ""
}

func same(a, b any) bool {
	x, err := Values{"v": a}.AppendJSON(nil)
	y, err2 := Values{"v": b}.AppendJSON(nil)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}
