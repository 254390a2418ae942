// Package definition is what a joint service is: one declarative, versioned
// file that says which two states' halves a case has, what each holds, may do
// and sends, and when. It reads the file, proves what can be proved of it,
// and takes one step of a half: no input or output, no clock, no chance.
package definition

import (
	"time"

	"github.com/falaj/falaj/internal/union"
)

// Format is the version of the format, the first field of each file.
const Format = "service/1"

// Definition is a joint service. A case has two halves, one in each party's
// state; each half runs by itself, and only messages cross. Names are lower
// case, states upper case. Forms, messages, calls and deadlines share one
// space of names: each is a trigger.
type Definition struct {
	Format  string     `yaml:"falaj"`   // "service/1"
	Name    string     `yaml:"name"`    // residence-certificate
	Version int        `yaml:"version"` // from 1 on
	Title   union.Text `yaml:"title"`
	Purpose string     `yaml:"purpose"` // code of the charter's purpose under which its messages cross

	Basis     map[string]union.Text `yaml:"basis"`     // legal bases that personal facts, calls and the retention name
	Retention Retention             `yaml:"retention"` // of the case, from its end
	Parties   map[string]union.Text `yaml:"parties"`   // exactly two
	Opens     string                `yaml:"opens"`     // the party in whose state a case begins
	Roles     map[string]Role       `yaml:"roles"`
	Facts     map[string]Fact       `yaml:"facts"`
	Forms     map[string]Form       `yaml:"forms"`
	Messages  map[string]Message    `yaml:"messages"`
	Calls     map[string]Call       `yaml:"calls,omitempty"`
	Reasons   map[string]union.Text `yaml:"reasons,omitempty"` // of decisions and refusals
	Notices   map[string]Notice     `yaml:"notices,omitempty"`
	Halves    map[string]Machine    `yaml:"halves"`              // by party
	Crossings []Crossing            `yaml:"crossings,omitempty"` // what becomes of messages that pass each other
	Scenarios []Scenario            `yaml:"-"`                   // of the file beside it, for `falaj service test`

	lines map[string]int // of the file, by path
}

// Retention is how long a case is kept after it ended, and why.
type Retention struct {
	Days  int    `yaml:"days"`
	Basis string `yaml:"basis"`
}

// Kind is who may stand behind a role.
type Kind string

// The kinds of roles.
const (
	Citizen Kind = "citizen" // acts in his own case
	Officer Kind = "officer" // a named person of an authority
	System  Kind = "system"  // an authority's system, without a person
)

// Role is who acts in a half. Which subsystems speak for it, each state says
// in its adoption.
type Role struct {
	Party string     `yaml:"party"`
	Kind  Kind       `yaml:"kind"`
	Title union.Text `yaml:"title"`
	// Person is the fact (text) that names a citizen as X-Road-UserId does: no
	// other acts in this role. "": the citizen who opened the case.
	Person string `yaml:"person,omitempty"`
}

// Type is what a fact's value is. There are no fractions: amounts are whole
// minor units, rates are two whole numbers.
type Type string

// The types, and their CEL types.
const (
	Text    Type = "text"    // string
	Whole   Type = "whole"   // int
	Truth   Type = "truth"   // bool
	Instant Type = "instant" // timestamp; in JSON RFC 3339, UTC
	Date    Type = "date"    // string, YYYY-MM-DD
	Money   Type = "money"   // fact.x.minor int, fact.x.currency string; in JSON {"minor":…,"currency":"BHD"}
	Object  Type = "object"  // map(string, dyn)
	List    Type = "list"    // list(dyn)
)

// Fact is one thing that a case holds. It has one writer: its owner's half.
// The other half knows it as it last stood in a message.
type Fact struct {
	Owner    string         `yaml:"owner"` // a party
	Type     Type           `yaml:"type"`
	Title    union.Text     `yaml:"title"`
	Help     union.Text     `yaml:"help,omitempty"`
	Schema   map[string]any `yaml:"schema,omitempty"`   // JSON Schema 2020-12, beside what the type says; text, list and object need their bounds
	Personal string         `yaml:"personal,omitempty"` // legal basis on which it is held; "": it is not about a person
}

// Form is what a role can do: its fields become facts of the role's half.
type Form struct {
	Role     string     `yaml:"role"`
	Title    union.Text `yaml:"title"`
	Fields   []string   `yaml:"fields,omitempty"`   // facts that the role's party owns, in the order of display
	Optional []string   `yaml:"optional,omitempty"` // those of them that may be left out
	Two      bool       `yaml:"two,omitempty"`      // takes effect when a second person of the role confirms it
}

// Message is what crosses: its fields are all that leaves the state.
type Message struct {
	From   string     `yaml:"from"` // a party
	Title  union.Text `yaml:"title"`
	Fields []string   `yaml:"fields,omitempty"` // facts that From owns; those that are not known are left out
	Needs  []string   `yaml:"needs,omitempty"`  // those of them without which it is refused
}

// Call asks a register of the half's own state. Its answer, or that there was
// none, is the trigger of the same name; call.status is its HTTP status, 0
// where none came.
type Call struct {
	Party   string            `yaml:"party"`
	Service string            `yaml:"service"` // bound to a service of the state by its adoption
	Basis   string            `yaml:"basis"`
	Method  string            `yaml:"method"`         // GET or POST
	Path    string            `yaml:"path"`           // {fact} is replaced, percent-encoded
	Send    []string          `yaml:"send,omitempty"` // facts in a POST's JSON object
	Keep    map[string]string `yaml:"keep"`           // the mask: fact -> JSON pointer (RFC 6901) into the answer; nothing else is kept
	Timeout string            `yaml:"timeout"`        // ISO 8601, at most PT60S
}

// Notice is what a role is told. {fact} in its text stands for a fact that
// the half knows.
type Notice struct {
	Role  string     `yaml:"role"`
	Title union.Text `yaml:"title"`
	Text  union.Text `yaml:"text"`
}

// Machine is one party's half.
type Machine struct {
	Start  string           `yaml:"start"`
	Hold   string           `yaml:"hold"` // where a step goes whose expression or hook failed
	Always Always           `yaml:"always,omitempty"`
	States map[string]State `yaml:"states"`
}

// Always holds in each state of the half that is not final, unless the state
// itself says otherwise.
type Always struct {
	Deadlines map[string]Deadline `yaml:"deadlines,omitempty"`
	On        map[string]On       `yaml:"on,omitempty"`
}

// State is where a half stands. A final state's On is what it still accepts;
// anything else is told that the case is closed.
type State struct {
	Title     union.Text          `yaml:"title"`
	Final     bool                `yaml:"final,omitempty"`
	Deadlines map[string]Deadline `yaml:"deadlines,omitempty"` // run from entering the state until leaving it
	On        map[string]On       `yaml:"on,omitempty"`        // by trigger
}

// Deadline is when time itself acts: one of both.
type Deadline struct {
	At    string `yaml:"at,omitempty"`    // CEL, timestamp; one that has passed fires at once
	After string `yaml:"after,omitempty"` // ISO 8601 duration from entering the state: days and less
}

// On is what a trigger does: what is computed first, then the first branch
// whose guard holds.
type On struct {
	Let      map[string]Hook `yaml:"let,omitempty"` // result.<name> (CEL keeps the word let for itself)
	Branches []Branch        `yaml:"branches"`
}

// Hook is tested Go, called by its versioned name; its result is kept with the
// event, so that the step can be taken again.
type Hook struct {
	Run  string            `yaml:"run"`  // plate.match@1
	With map[string]string `yaml:"with"` // argument -> CEL
}

// Branch is one way that a step can go. Guards and values are CEL over
// fact.<name> (with the trigger's fields in it), was.<name> (before them),
// known.<name> (bool), result.<name> (of let), now, opened (when the case was), actor
// (role), call.status.
type Branch struct {
	If       string            `yaml:"if,omitempty"` // bool; "": always
	Refuse   string            `yaml:"refuse,omitempty"`
	To       string            `yaml:"to,omitempty"`  // "": stays, deadlines run on
	Set      map[string]string `yaml:"set,omitempty"` // fact of this party -> CEL
	Clear    []string          `yaml:"clear,omitempty"`
	Send     []string          `yaml:"send,omitempty"` // messages, in order
	Call     []string          `yaml:"call,omitempty"`
	Notice   []string          `yaml:"notice,omitempty"`
	Decision *Decision         `yaml:"decision,omitempty"`
	Effect   []Hook            `yaml:"effect,omitempty"` // Go that writes beside the event, in its transaction: ledger.pay@1
}

// Decision is an outcome that a person can hold against the state.
type Decision struct {
	Outcome string `yaml:"outcome"`          // granted, refused, reduced, …
	Reason  string `yaml:"reason"`           // of Reasons
	Rule    string `yaml:"rule"`             // identifier of the rule that gave it
	Appeal  string `yaml:"appeal,omitempty"` // ISO 8601: how long it can be appealed
	By      string `yaml:"by,omitempty"`     // form by which it is appealed
	Final   bool   `yaml:"final,omitempty"`  // said in place of an appeal: none lies against it
}

// Crossing says where both halves are once two messages that passed each
// other have both arrived.
type Crossing struct {
	Pair [2]string           `yaml:"pair" json:"pair"` // one message of each party
	Ends map[string][]string `yaml:"ends" json:"ends"` // party -> states, one of which it is
	Why  union.Text          `yaml:"why" json:"why"`
}

// Scenario is a test of the definition: acts in both halves, and where they
// lead.
type Scenario struct {
	Name  string         `yaml:"name"`
	Start time.Time      `yaml:"start"`
	Steps []ScenarioStep `yaml:"steps"`
	line  int
}

// ScenarioStep is one act, or the passing of time. Messages arrive at once
// unless held back; a call that has no answer gets none, status 0. What is said
// of answers, hooks and delays holds before the act, what is wanted after it.
type ScenarioStep struct {
	At      string         `yaml:"at,omitempty"`      // party
	Do      string         `yaml:"do,omitempty"`      // a form
	With    map[string]any `yaml:"with,omitempty"`    // its fields
	Wait    string         `yaml:"wait,omitempty"`    // ISO 8601: time passes, deadlines fire
	Answer  map[string]any `yaml:"answer,omitempty"`  // what each call will be answered from now on: name -> {status, body}; null: not at all
	Hook    map[string]any `yaml:"hook,omitempty"`    // what each hook will give from now on in place of the real one: plate.match@1 -> value
	Delay   []string       `yaml:"delay,omitempty"`   // messages held back from now on, and those behind them
	Deliver []string       `yaml:"deliver,omitempty"` // those that now arrive, and are held back no longer
	Refused string         `yaml:"refused,omitempty"` // the reason for which the act must be refused, or: invalid, actor, unexpected, closed
	Want    map[string]any `yaml:"want,omitempty"`    // party -> state, or party.fact -> value, null for one that is not known
	line    int
}
