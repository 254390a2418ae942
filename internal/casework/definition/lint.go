package definition

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/union"
)

// Severity is how bad a finding is.
type Severity string

// The severities. A definition with errors must not be put into force.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that is wrong with a definition, or looks so.
type Finding struct {
	Rule     string       `json:"rule"`
	Severity Severity     `json:"severity"`
	Where    string       `json:"where"`          // path in the file: halves.home.states.OPEN.on.apply.branches[0]
	Line     int          `json:"line,omitempty"` // of it
	Text     union.Text   `json:"text"`
	Run      []union.Text `json:"run,omitempty"` // the shortest run of both halves that shows it
}

// Lint finds what is wrong with a definition that could be read and compiled:
// what it lacks by itself, and what its two halves do to each other (Model).
// The same definition has the same findings, in the same order.
func Lint(d *Definition) ([]Finding, *Model) {
	l := &linter{d: d, found: []Finding{}, seen: map[string]bool{}}
	l.texts()
	l.law()
	l.every()
	l.used()
	m := &Model{}
	if d.ways() <= maxWays {
		for _, party := range d.parties() {
			l.half(party, d.Halves[party])
		}
		m = Explore(d)
	}
	l.model(m)
	slices.SortStableFunc(l.found, func(a, b Finding) int { return strings.Compare(string(a.Severity), string(b.Severity)) })
	return l.found, m
}

// maxWays is how many branches, those of always counted in each state, are
// looked at together: a large service has two thousand.
const maxWays = 20_000

// ways counts the branches of both halves, those of always in each state.
func (d *Definition) ways() int {
	n := 0
	for party, m := range d.Halves {
		for state := range m.States {
			for trigger := range m.triggers(state) {
				on, _, _ := m.handled(party, state, trigger)
				n += len(on.Branches)
			}
		}
	}
	return n
}

// linter gathers findings.
type linter struct {
	d     *Definition
	found []Finding
	seen  map[string]bool // names that something uses, for used: "form apply"
}

func (l *linter) add(s Severity, rule, where string, text union.Text, run ...union.Text) {
	l.found = append(l.found, Finding{Rule: rule, Severity: s, Where: where, Line: l.d.Line(where), Text: text, Run: run})
}

func (l *linter) fails(rule, where string, text union.Text) { l.add(Error, rule, where, text) }
func (l *linter) warns(rule, where string, text union.Text) { l.add(Warning, rule, where, text) }

// say makes a text of both languages about the same things. The Arabic names
// them by number where its order is another: %[2]s.
func say(en, ar string, about ...any) union.Text {
	return union.Text{En: fmt.Sprintf(en, about...), Ar: fmt.Sprintf(ar, about...)}
}

// order lists a map's names, so that findings come in one order.
func order[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// parties lists both parties, the one that opens a case first.
func (d *Definition) parties() []string {
	all := order(d.Halves)
	slices.SortStableFunc(all, func(a, b string) int {
		switch d.Opens {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	return all
}

// place is where a trigger is handled.
type place struct {
	party   string
	state   string // "" in always
	trigger string
	where   string
}

func (p place) branch(i int) string { return fmt.Sprintf("%s.branches[%d]", p.where, i) }

// places visits everything that is written under an `on`.
func (d *Definition) places(visit func(place, On)) {
	for _, party := range d.parties() {
		m, at := d.Halves[party], "halves."+party
		for _, name := range order(m.Always.On) {
			visit(place{party, "", name, at + ".always.on." + name}, m.Always.On[name])
		}
		for _, state := range order(m.States) {
			for _, name := range order(m.States[state].On) {
				visit(place{party, state, name, at + ".states." + state + ".on." + name}, m.States[state].On[name])
			}
		}
	}
}

// handled gives what a trigger does in a state, and where that is written.
func (m Machine) handled(party, state, trigger string) (On, place, bool) {
	s := m.States[state]
	if on, ok := s.On[trigger]; ok {
		return on, place{party, state, trigger, "halves." + party + ".states." + state + ".on." + trigger}, true
	}
	if on, ok := m.Always.On[trigger]; ok && !s.Final {
		return on, place{party, "", trigger, "halves." + party + ".always.on." + trigger}, true
	}
	return On{}, place{}, false
}

// running gives the deadlines that run in a state, and where each is written.
func (m Machine) running(party, state string) map[string]string {
	out := map[string]string{}
	if s := m.States[state]; !s.Final {
		for name := range m.Always.Deadlines {
			out[name] = "halves." + party + ".always.deadlines." + name
		}
	}
	for name := range m.States[state].Deadlines {
		out[name] = "halves." + party + ".states." + state + ".deadlines." + name
	}
	return out
}

// leaves tells whether a branch ends the stay in a state.
func (b Branch) leaves(state string) bool { return b.Refuse == "" && b.To != "" && b.To != state }

// kind says what a trigger is: form, message, call, or "" for a deadline.
func (d *Definition) kind(trigger string) string {
	if _, ok := d.Forms[trigger]; ok {
		return "form"
	}
	if _, ok := d.Messages[trigger]; ok {
		return "message"
	}
	if _, ok := d.Calls[trigger]; ok {
		return "call"
	}
	return ""
}

// other gives the party that is not this one.
func (d *Definition) other(party string) string {
	for _, p := range d.parties() {
		if p != party {
			return p
		}
	}
	return ""
}
