package definition

import (
	"maps"
	"slices"
	"strings"
)

// runs tells whether a deadline runs where these facts are known: one that
// reads another does not run before that is known too.
func (x Deadline) runs(known map[string]bool) bool {
	return x.After != "" || !slices.ContainsFunc(facts(x.At), func(f string) bool { return !known[f] })
}

// certain gives the facts that a half knows in each state whatever way it came
// there. A state that it cannot come to is not in it.
func (d *Definition) certain(party string, m Machine) map[string]map[string]bool {
	out := map[string]map[string]bool{m.Start: {}}
	comes := func(state string, known map[string]bool) (changed bool) {
		before, ok := out[state]
		if !ok {
			out[state] = known
			return true
		}
		n := len(before)
		maps.DeleteFunc(before, func(f string, _ bool) bool { return !known[f] })
		return len(before) != n
	}
	for changed := true; changed; {
		changed = false
		for _, state := range order(m.States) {
			if _, ok := out[state]; !ok {
				continue
			}
			for _, trigger := range order(m.triggers(state)) {
				on, _, _ := m.handled(party, state, trigger)
				told := d.told(trigger, out[state])
				if !m.States[state].Final {
					changed = comes(m.Hold, maps.Clone(told)) || changed
				}
				for _, b := range on.Branches {
					if b.Refuse != "" {
						continue
					}
					to := b.To
					if to == "" {
						to = state
					}
					changed = comes(to, b.leavesKnown(told)) || changed
				}
			}
		}
	}
	return out
}

// told gives what is known once a trigger's fields are: those that may be left
// out are forgotten where they are.
func (d *Definition) told(trigger string, known map[string]bool) map[string]bool {
	out := map[string]bool{}
	maps.Copy(out, known)
	forget := func(names []string) {
		for _, f := range names {
			delete(out, f)
		}
	}
	know := func(names []string) {
		for _, f := range names {
			out[f] = true
		}
	}
	f, m := d.Forms[trigger], d.Messages[trigger]
	know(f.Fields)
	forget(f.Optional)
	forget(m.Fields)
	know(m.Needs)
	forget(order(d.Calls[trigger].Keep))
	return out
}

// leavesKnown gives what is known after a branch was taken.
func (b Branch) leavesKnown(known map[string]bool) map[string]bool {
	out := maps.Clone(known)
	if !strings.Contains(b.If, "||") {
		for term := range strings.SplitSeq(b.If, "&&") {
			if f, ok := strings.CutPrefix(strings.TrimSpace(term), "known."); ok {
				out[f] = true
			}
		}
	}
	for f := range b.Set {
		out[f] = true
	}
	for _, f := range b.Clear {
		delete(out, f)
	}
	return out
}

// sure tells whether a step cannot fail where these facts are known: it has no
// hook and no effect, and reads, sends and asks with nothing else, but for what
// it has made sure of itself (known.x). That a number grows too large is left
// out of account.
func (d *Definition) sure(trigger string, on On, known map[string]bool) bool {
	if len(on.Let) > 0 {
		return false
	}
	told := d.told(trigger, known)
	for _, b := range on.Branches {
		if len(b.Effect) > 0 {
			return false
		}
		after, asked := b.leavesKnown(told), reads(b.If)
		safe := func(expression string) bool {
			all := reads(expression)
			return !slices.ContainsFunc(all, func(name string) bool {
				space, f, _ := strings.Cut(name, ".")
				return (space == "fact" || space == "was") && !told[f] && !slices.Contains(all, "known."+f) && !slices.Contains(asked, "known."+f)
			})
		}
		var needs []string
		for _, m := range b.Send {
			needs = append(needs, d.Messages[m].Needs...)
		}
		for _, c := range b.Call {
			needs = append(needs, placeholders(d.Calls[c].Path)...)
		}
		for _, x := range b.Set {
			if !safe(x) {
				return false
			}
		}
		if !safe(b.If) || slices.ContainsFunc(needs, func(f string) bool { return !after[f] }) {
			return false
		}
	}
	return true
}

// concludes tells whether a deadline of the case as a whole is sure to end a
// half, in whatever state it passes: it passes once, and must not be used up
// on the way.
func (d *Definition) concludes(party string, m Machine, deadline string, certain map[string]map[string]bool) bool {
	if !m.Always.Deadlines[deadline].runs(nil) {
		return false
	}
	for state, s := range m.States {
		on, _, _ := m.handled(party, state, deadline)
		open := slices.ContainsFunc(on.Branches, func(b Branch) bool { return !m.States[b.To].Final })
		if !s.Final && (open || !d.sure(deadline, on, certain[state])) {
			return false
		}
	}
	return true
}
