package casework

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
)

// Reader is who reads cases: a subsystem that speaks for roles, and the person
// whom it names.
type Reader struct {
	System union.SubsystemID
	User   string
}

// Story is a case as it is told to a reader of this state.
type Story struct {
	Summary
	Facts     definition.Values     `json:"facts"`
	Shown     map[string]union.Text `json:"shown"` // the facts as people read them
	Titles    Titles                `json:"titles"`
	Deadlines map[string]time.Time  `json:"deadlines,omitempty"`
	Proposals map[string]Proposer   `json:"proposals,omitempty"` // by form: what waits for a second person
	Can       []string              `json:"can"`                 // forms that the reader's system may send in this state
	Events    []StoryEvent          `json:"events"`
	Notices   []Notice              `json:"notices,omitempty"`
}

// Titles are what the service, and whatever a story names, is called.
type Titles struct {
	Service  union.Text            `json:"service"`
	Parties  map[string]union.Text `json:"parties"`
	States   map[string]union.Text `json:"states"`
	Roles    map[string]union.Text `json:"roles"`
	Facts    map[string]union.Text `json:"facts"`
	Forms    map[string]union.Text `json:"forms"`
	Messages map[string]union.Text `json:"messages"`
}

// Summary is a case in a list: nothing of what it holds.
type Summary struct {
	Case    string      `json:"case"`
	Service string      `json:"service"`
	Version int         `json:"version"`
	Party   string      `json:"party"`
	Peer    union.State `json:"peer"`
	State   string      `json:"state"`
	Title   union.Text  `json:"title"` // of the state
	Ended   bool        `json:"ended"`
	Trouble string      `json:"trouble,omitempty"`
	Opened  time.Time   `json:"opened"`
	Changed time.Time   `json:"changed"`
}

// Proposer is who asked for what waits for a second person.
type Proposer struct {
	Event  int64                 `json:"event"` // who confirms it names that
	User   string                `json:"user"`
	At     time.Time             `json:"at"`
	Fields definition.Values     `json:"fields"`
	Shown  map[string]union.Text `json:"shown"`
}

// StoryEvent is an event with the place of its record in this state's log.
type StoryEvent struct {
	*Event
	Leaf     int64    `json:"leaf"`
	Messages []string `json:"messages,omitempty"` // X-Road-Id of what it sent: names the evidence
}

// Read tells a case. That it was read, and by whom, is recorded first.
func (e *Engine) Read(ctx context.Context, id string, r Reader) (*Story, error) {
	c, err := e.load(ctx, id)
	if err != nil {
		return nil, err
	}
	roles, err := e.rolesOf(c, r)
	if err != nil {
		return nil, err
	}
	if err := e.recordReading(ctx, c, r); err != nil {
		return nil, err
	}
	b, err := e.deps.Book()
	if err != nil {
		return nil, err
	}
	s := &Story{Summary: c.summary(), Facts: c.Facts, Shown: c.shown(c.Facts, b.Zone()), Titles: c.titles(), Deadlines: c.Clocks, Proposals: map[string]Proposer{}, Can: c.can(roles)}
	for form, p := range c.Proposals {
		s.Proposals[form] = Proposer{p.Event, p.Actor.User, p.At, p.Fields, c.shown(p.Fields, b.Zone())}
	}
	events, leaves, err := e.history(ctx, id)
	if err != nil {
		return nil, err
	}
	for i, ev := range events {
		t := StoryEvent{Event: ev, Leaf: leaves[i]}
		for _, m := range ev.Sent {
			t.Messages = append(t.Messages, messageID(id, m.Number, 0))
		}
		s.Events = append(s.Events, t)
		s.Notices = append(s.Notices, ev.Notices...)
	}
	if c.citizens(roles) {
		s.forCitizen(c, roles, r.User)
	}
	return s, nil
}

// recordReading writes down who reads a case, before he sees it.
func (e *Engine) recordReading(ctx context.Context, c *Case, r Reader) error {
	local, err := json.Marshal(struct {
		Event  string            `json:"event"`
		Case   string            `json:"case"`
		System union.SubsystemID `json:"system"`
		User   string            `json:"user,omitempty"`
	}{"case.read", c.ID, r.System, r.User}, json.Deterministic(true))
	if err != nil {
		return err
	}
	if _, err := e.deps.Journal.Append(ctx, journal.Record{Kind: journal.Decision, Key: key(c.ID), At: e.deps.Now(), Class: Class, Local: local}); err != nil {
		return fmt.Errorf("recording that a case is read: %w", err)
	}
	return nil
}

func (c *Case) summary() Summary {
	s := Summary{
		Case: c.ID, Service: c.Service, Version: c.Version, Party: c.Party, Peer: c.Peer, State: c.State,
		Ended: c.Ended, Trouble: c.Trouble, Opened: c.Opened, Changed: c.Changed,
	}
	s.Title = c.program.Definition().Halves[c.Party].States[c.State].Title
	return s
}

func (c *Case) shown(values definition.Values, zone *time.Location) map[string]union.Text {
	out := make(map[string]union.Text, len(values))
	for name, v := range values {
		out[name] = union.Text{En: c.program.Show(name, v, "en", zone), Ar: c.program.Show(name, v, "ar", zone)}
	}
	return out
}

// titles are those of this half, and of all that can be done or said in either.
func (c *Case) titles() Titles {
	d := c.program.Definition()
	t := Titles{Service: d.Title, Parties: d.Parties, States: map[string]union.Text{}, Roles: map[string]union.Text{}, Facts: map[string]union.Text{}, Forms: map[string]union.Text{}, Messages: map[string]union.Text{}}
	for name, s := range d.Halves[c.Party].States {
		t.States[name] = s.Title
	}
	for name, r := range d.Roles {
		t.Roles[name] = r.Title
	}
	for name, f := range d.Forms {
		t.Forms[name] = f.Title
	}
	for name, f := range d.Facts {
		t.Facts[name] = f.Title
	}
	for name, m := range d.Messages {
		t.Messages[name] = m.Title
	}
	return t
}

// can lists the forms that the case takes now from roles.
func (c *Case) can(roles []string) []string {
	d := c.program.Definition()
	out := []string{}
	for name, form := range d.Forms {
		if slices.Contains(roles, form.Role) && c.takes(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// takes tells whether the half takes a trigger where it stands.
func (c *Case) takes(trigger string) bool {
	half := c.program.Definition().Halves[c.Party]
	state := half.States[c.State]
	_, own := state.On[trigger]
	_, always := half.Always.On[trigger]
	return own || always && !state.Final
}
