package casework

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
)

// What an event is of.
const (
	KindForm     = "form"     // somebody of this state acted
	KindProposal = "proposal" // somebody asked for what a second person is to confirm
	KindMessage  = "message"  // the other half was heard
	KindCall     = "call"     // a register of this state answered, or did not in time
	KindDeadline = "deadline" // time ran out
	KindReturned = "returned" // the other half refused a message of this one
	KindAmend    = "amend"    // this half told its facts anew
)

// Actor is who acted, as the subsystem asserts it.
type Actor struct {
	Role      string            `json:"role"`
	Subsystem union.SubsystemID `json:"subsystem"`
	User      string            `json:"user,omitempty"` // X-Road-UserId
}

// Event is one thing that happened to this half, and all that followed from
// it: with the definition it is enough to take the step again. Its JSON is the
// body of the journal's record.
type Event struct {
	Case    string    `json:"case"`
	Number  int64     `json:"number"` // from 1 on, in this half
	Kind    string    `json:"kind"`
	Trigger string    `json:"trigger,omitempty"`
	At      time.Time `json:"at"`                // case time
	Clock   int64     `json:"clock_s,omitzero"`  // by how much case time was ahead, seconds
	Opening *Opening  `json:"opening,omitempty"` // of the first event

	Act     *Claim           `json:"act,omitempty"` // by which it may be asked for again
	Actor   *Actor           `json:"actor,omitempty"`
	Second  *Actor           `json:"second,omitempty"`  // who confirmed it
	Message int64            `json:"message,omitzero"`  // number of the message heard or returned
	SentAt  time.Time        `json:"sent_at,omitzero"`  // case time at the sender of a message heard
	Amended []string         `json:"amended,omitempty"` // facts of the other half that it told anew, and are others now
	Fields  jsontext.Value   `json:"fields,omitempty"`
	Status  int              `json:"status,omitzero"` // of a call
	Asked   int64            `json:"asked,omitzero"`  // event that made the call
	Let     map[string]given `json:"let,omitempty"`   // what hooks gave

	Result
}

// Opening is what a case is.
type Opening struct {
	Service string      `json:"service"`
	Version int         `json:"version"`
	Party   string      `json:"party"`
	Peer    union.State `json:"peer"`
	Opened  time.Time   `json:"opened"`
}

// Claim is what keeps an act from being done twice: keyed hashes of who asked
// under which identifier, and of what.
type Claim struct {
	ID     []byte `json:"id"`
	Digest []byte `json:"digest"`
}

// Result is what an event did.
type Result struct {
	From     string              `json:"from"`
	To       string              `json:"to"`
	Branch   int                 `json:"branch"`
	Sent     []Sent              `json:"sent,omitempty"`
	Calls    []definition.Asked  `json:"calls,omitempty"`
	Notices  []Notice            `json:"notices,omitempty"`
	Decision *definition.Decided `json:"decision,omitempty"`
	Effects  []definition.Effect `json:"effects,omitempty"`
	Held     string              `json:"held,omitempty"`
	Refusal  *Refusal            `json:"refusal,omitempty"` // it did nothing, for this reason
}

// Sent is a message that an event sent.
type Sent struct {
	Number  int64          `json:"number"`
	Message string         `json:"message"`
	Fields  jsontext.Value `json:"fields"`
}

// Notice is what a role was told, in both languages.
type Notice struct {
	Name  string     `json:"name"`
	Role  string     `json:"role"`
	At    time.Time  `json:"at"`
	Title union.Text `json:"title"`
	Text  union.Text `json:"text"`
}

// Refusal is why something did nothing.
type Refusal struct {
	Why    string     `json:"why"`
	Reason string     `json:"reason,omitempty"`
	Text   union.Text `json:"text"`
	Detail string     `json:"detail,omitempty"`
}

func asRefusal(err error) *Refusal {
	var r *definition.Refusal
	if !errors.As(err, &r) {
		return nil
	}
	return &Refusal{string(r.Why), r.Reason, r.Text, r.Detail}
}

// given is what a hook gave, with what JSON does not say.
type given struct {
	Instant time.Time      `json:"instant,omitzero"`
	Value   jsontext.Value `json:"value,omitempty"`
}

func writeLet(let definition.Values) (map[string]given, error) {
	if let == nil {
		return nil, nil
	}
	out := make(map[string]given, len(let))
	for name, v := range let {
		if at, ok := v.(time.Time); ok {
			out[name] = given{Instant: at}
			continue
		}
		b, err := json.Marshal(v, json.Deterministic(true))
		if err != nil {
			return nil, err
		}
		out[name] = given{Value: b}
	}
	return out, nil
}

func readLet(let map[string]given) (definition.Values, error) {
	out := definition.Values{}
	for name, g := range let {
		if g.Value == nil {
			out[name] = g.Instant.UTC()
			continue
		}
		v, err := definition.ReadValue(g.Value)
		if err != nil {
			return nil, err
		}
		out[name] = v
	}
	return out, nil
}

// happening is what happens to a case, before it is known what follows.
type happening struct {
	kind    string
	trigger string
	at      time.Time
	act     *Claim
	actor   *Actor
	second  *Actor
	fields  definition.Values
	message int64
	sent    time.Time // at the other half
	status  int
	asked   int64
	let     definition.Values // of a step that is taken again
	refusal *Refusal          // of a message that came back, or that cannot be read
}

// take is one step of a half: what happens to a case, and the case after it.
// An error is a refusal of an act, which changes nothing; a message, a call or
// a deadline that the definition does not take becomes an event that says so.
func (e *Engine) take(ctx context.Context, c *Case, h happening) (*Event, *Case, error) {
	if c.Events == 0 {
		half, err := c.program.Open(c.Party, c.Opened, h.at)
		if err != nil {
			return nil, nil, err
		}
		c = c.clone()
		c.State, c.Clocks, c.Fired = half.State, half.Clocks, half.Fired
	}
	n := c.clone()
	n.Events++
	ev := &Event{
		Case: c.ID, Number: n.Events, Kind: h.kind, Trigger: h.trigger, At: h.at, Clock: int64(e.cfg.Clock / time.Second),
		Act: h.act, Actor: h.actor, Second: h.second, Message: h.message, SentAt: h.sent, Status: h.status, Asked: h.asked,
	}
	ev.From, ev.To = c.State, c.State
	if c.Events == 0 {
		ev.Opening = &Opening{c.Service, c.Version, c.Party, c.Peer, c.Opened}
	}
	var err error
	if h.fields != nil {
		if ev.Fields, err = h.fields.AppendJSON(nil); err != nil {
			return nil, nil, err
		}
	}
	switch h.kind {
	case KindReturned:
		ev.Refusal = h.refusal
		return ev, n, nil
	case KindAmend:
		return ev, n, ev.send(n, Amendment, n.Told)
	case KindProposal:
		n.Proposals[h.trigger] = Proposal{n.Events, h.fields, *h.actor, h.at}
		return ev, n, nil
	case KindMessage:
		n.Heard++
		if h.refusal != nil {
			ev.Refusal = h.refusal
			return ev, n, nil
		}
		if h.trigger == Amendment {
			return ev, n, ev.amend(n, h.fields, h.at)
		}
	case KindDeadline:
		n.Clocks = maps.Clone(c.Clocks)
		delete(n.Clocks, h.trigger) // also where nothing is made of it
	case KindForm:
		n.bind(h.actor)
	}
	in := definition.Input{Trigger: h.trigger, At: h.at, Fields: h.fields, Status: h.status, Let: h.let}
	if h.actor != nil {
		in.Actor = definition.Actor{Role: h.actor.Role, User: h.actor.User}
	}
	out, err := c.program.Step(ctx, c.half(), in)
	if r := asRefusal(err); r != nil && h.kind != KindForm {
		ev.Refusal = r
		return ev, n, nil
	} else if err != nil {
		return nil, nil, err
	}
	if ev.Let, err = writeLet(out.Let); err != nil {
		return nil, nil, err
	}
	clear(n.Proposals) // of the case as it was: who confirms one is to see what he confirms
	n.State, n.Facts, n.Clocks, n.Fired = out.State, out.Facts, out.Clocks, out.Fired
	n.Ended = c.program.Definition().Halves[c.Party].States[out.State].Final
	ev.To, ev.Branch, ev.Calls = out.State, out.Branch, out.Ask
	ev.Decision, ev.Effects, ev.Held = out.Decision, out.Effects, out.Held
	for _, name := range out.Notices {
		notice, err := e.notice(n, name, h.at)
		if err != nil {
			return nil, nil, err
		}
		ev.Notices = append(ev.Notices, notice)
	}
	for _, s := range out.Send {
		if err := ev.send(n, s.Message, s.Fields); err != nil {
			return nil, nil, err
		}
	}
	return ev, n, nil
}

// notice writes what a role is told: as it was then, whatever the facts become.
func (e *Engine) notice(c *Case, name string, at time.Time) (Notice, error) {
	b, err := e.deps.Book()
	if err != nil {
		return Notice{}, err
	}
	n := Notice{Name: name, Role: c.program.Definition().Notices[name].Role, At: at}
	if n.Title.En, n.Text.En, err = c.program.Render(name, c.Facts, "en", b.Zone()); err == nil {
		n.Title.Ar, n.Text.Ar, err = c.program.Render(name, c.Facts, "ar", b.Zone())
	}
	return n, err
}

// send gives a message its number, and keeps what the other half is told.
func (ev *Event) send(n *Case, message string, fields definition.Values) error {
	raw, err := fields.AppendJSON(nil)
	if err != nil {
		return err
	}
	n.Sent++
	ev.Sent = append(ev.Sent, Sent{n.Sent, message, raw})
	for _, name := range n.program.Definition().Messages[message].Fields {
		delete(n.Told, name) // a message speaks for all of its fields
	}
	for name, v := range fields {
		n.Told[name] = v
	}
	return nil
}

// amend takes over what the other half says of its own facts.
func (ev *Event) amend(n *Case, fields definition.Values, at time.Time) error {
	half, changed, err := n.program.Amend(n.half(), fields, at)
	if ev.Refusal = asRefusal(err); err != nil {
		if ev.Refusal == nil {
			return err
		}
		return nil
	}
	n.Facts, n.Clocks, n.Fired, ev.Amended = half.Facts, half.Clocks, half.Fired, changed
	if len(changed) > 0 {
		clear(n.Proposals)
	}
	return nil
}

// record is an event as the journal keeps it.
func (ev *Event) record(now time.Time) (journal.Record, error) {
	body, err := json.Marshal(ev, json.Deterministic(true))
	if err != nil {
		return journal.Record{}, err
	}
	if len(body) > journal.MaxBody {
		return journal.Record{}, fmt.Errorf("an event of %d bytes; at most %d", len(body), journal.MaxBody)
	}
	return journal.Record{Kind: journal.CaseEvent, Key: key(ev.Case), At: now, Class: Class, Body: body}, nil
}

// key finds a case's records in the journal.
func key(id string) string { return "case|" + id }

// readEvent reads what record wrote.
func readEvent(b []byte) (*Event, error) {
	ev := new(Event)
	if err := json.Unmarshal(b, ev, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("reading an event: %w", err)
	}
	return ev, nil
}
