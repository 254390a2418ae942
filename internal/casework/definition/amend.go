package definition

import (
	"maps"
	"slices"
	"time"
)

// Amend takes over what the other half says of its own facts, where what it
// said before and what is known here differ: no step, and no state changes.
// Taken are the facts that some message of the other party carries, each as its
// type and schema say; a fact that it leaves out is no longer known. Deadlines
// that name facts follow them. changed lists the facts that are others now.
//
// Its error is a *Refusal, and the half then stays as it was.
func (p *Program) Amend(h Half, fields Values, now time.Time) (out Half, changed []string, err error) {
	carried := map[string]bool{}
	for _, m := range p.d.Messages {
		for _, name := range m.Fields {
			if m.From != h.Party {
				carried[name] = true
			}
		}
	}
	facts := maps.Clone(h.Facts)
	for name := range facts {
		if p.d.Facts[name].Owner != h.Party {
			delete(facts, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !carried[name] {
			return h, nil, p.invalid(name, "unknown")
		}
		v, err := p.d.Facts[name].Type.Take(fields[name])
		if err != nil {
			return h, nil, p.invalid(name, "type")
		}
		if fault := p.fits(name, v); fault != "" {
			return h, nil, p.invalid(name, fault)
		}
		facts[name] = v
	}
	for _, name := range slices.Sorted(maps.Keys(carried)) {
		a, err := Values{name: facts[name]}.AppendJSON(nil)
		if err != nil {
			return h, nil, err
		}
		b, err := Values{name: h.Facts[name]}.AppendJSON(nil)
		if err != nil {
			return h, nil, err
		}
		if string(a) != string(b) {
			changed = append(changed, name)
		}
	}
	m := p.halves[h.Party]
	out = Half{Party: h.Party, State: h.State, Facts: facts, Opened: h.Opened}
	s := &scope{vars: m.vars, facts: facts, was: h.Facts, now: instant(now), opened: h.Opened}
	if m.states[h.State].final {
		return out, changed, nil
	}
	out.Clocks, out.Fired, err = m.clocks(s, &h, m.states[h.State], false, "")
	if err != nil { // a deadline that cannot be reckoned from it: what is said makes no sense here
		return h, nil, p.invalid("", "deadline")
	}
	return out, changed, nil
}
