package definition

import (
	"fmt"
	"maps"
	"slices"
)

// half checks one party's machine.
func (c *checker) half(party string, m Machine) {
	at := "halves." + party
	if known(c, at+".start", m.Start, m.States, "state") && m.States[m.Start].Final {
		c.add(at+".start", "%s is final, so nothing would ever happen", m.Start)
	}
	if known(c, at+".hold", m.Hold, m.States, "state") && m.States[m.Hold].Final {
		c.add(at+".hold", "%s is final: what could not be decided has not ended", m.Hold)
	}
	c.deadlines(at+".always.deadlines", m.Always.Deadlines)
	c.on(at+".always.on", party, m, "", m.Always.On)
	for name, s := range m.States {
		here := at + ".states." + name
		c.text(here, s.Title)
		c.deadlines(here+".deadlines", s.Deadlines)
		if s.Final && len(s.Deadlines) > 0 {
			c.add(here+".deadlines", "%s is final: no time runs in it", name)
		}
		c.on(here+".on", party, m, name, s.On)
		for _, deadline := range slices.Sorted(maps.Keys(s.Deadlines)) {
			c.answered(here+".deadlines."+deadline, m, s, deadline)
		}
		if !s.Final {
			for _, deadline := range slices.Sorted(maps.Keys(m.Always.Deadlines)) {
				c.answered(at+".always.deadlines."+deadline, m, s, deadline)
			}
		}
	}
}

// answered checks that something is done when a deadline passes.
func (c *checker) answered(where string, m Machine, s State, deadline string) {
	if _, ok := s.On[deadline]; ok {
		return
	}
	if _, ok := m.Always.On[deadline]; !ok {
		c.add(where, "nothing is done when it passes: say it under `on`")
	}
}

func (c *checker) deadlines(where string, all map[string]Deadline) {
	for name, d := range all {
		at := where + "." + name
		switch {
		case (d.At == "") == (d.After == ""):
			c.add(at, "a deadline has one of both: at, an expression that gives an instant; after, a duration")
		case d.After != "":
			c.duration(at+".after", d.After)
		}
	}
}

// on checks what is under one `on`: of a state, or of always where state is "".
func (c *checker) on(where, party string, m Machine, state string, all map[string]On) {
	if len(all) > maxOns {
		c.add(where, "%d triggers are too many; at most %d", len(all), maxOns)
		return
	}
	for name, on := range all {
		at := where + "." + name
		kind := c.trigger(at, party, m, state, name)
		if len(on.Let) > maxActs || len(on.Branches) > maxBranches {
			c.add(at, "at most %d hooks and %d branches", maxActs, maxBranches)
			continue
		}
		names(c, at+".let", on.Let, factName)
		for let, h := range on.Let {
			c.hook(at+".let."+let, h)
		}
		if len(on.Branches) == 0 {
			c.add(at, "there is no branch: at least one says what is done")
		}
		for i, b := range on.Branches {
			c.branch(fmt.Sprintf("%s.branches[%d]", at, i), party, m, kind, b)
		}
	}
}

// trigger checks that a name is one that can come to this half in this state,
// and gives its kind.
func (c *checker) trigger(at, party string, m Machine, state, name string) string {
	if f, ok := c.d.Forms[name]; ok {
		if of := c.d.Roles[f.Role].Party; of != party {
			c.add(at, "the form %s is of a role of %s, and this half is %s's", name, of, party)
		}
		return "form"
	}
	if msg, ok := c.d.Messages[name]; ok {
		if msg.From == party {
			c.add(at, "the message %s is from %s itself: it arrives in the other half", name, party)
		}
		return "message"
	}
	if call, ok := c.d.Calls[name]; ok {
		if call.Party != party {
			c.add(at, "the call %s is one of %s", name, call.Party)
		}
		return "call"
	}
	_, always := m.Always.Deadlines[name]
	_, here := m.States[state].Deadlines[name]
	for _, s := range m.States {
		_, some := s.Deadlines[name]
		here = here || some && state == ""
	}
	if !here && !always {
		c.add(at, "%q is no form, message or call, and no deadline that runs here", clip(name, 80))
	}
	return "deadline"
}

func (c *checker) hook(at string, h Hook) {
	if !hookName.MatchString(h.Run) || len(h.Run) > maxName {
		c.add(at+".run", "%q does not name a function and its version, as in plate.match@1", clip(h.Run, 80))
	}
	if len(h.With) > maxActs {
		c.add(at+".with", "more than %d arguments", maxActs)
	}
}

func (c *checker) branch(at, party string, m Machine, kind string, b Branch) {
	acts := len(b.Set) + len(b.Clear) + len(b.Send) + len(b.Call) + len(b.Notice) + len(b.Effect)
	if max(len(b.Set), len(b.Clear), len(b.Send), len(b.Call), len(b.Notice), len(b.Effect)) > maxActs {
		c.add(at, "at most %d of each kind of act", maxActs)
		return
	}
	if b.Refuse != "" {
		known(c, at+".refuse", b.Refuse, c.d.Reasons, "reason")
		if acts > 0 || b.To != "" || b.Decision != nil {
			c.add(at, "what is refused changes nothing: leave out all but if and refuse")
		}
		if kind == "deadline" || kind == "call" {
			c.add(at+".refuse", "a %s cannot be refused: nobody would hear of it", kind)
		}
	}
	if b.To != "" {
		known(c, at+".to", b.To, m.States, "state")
	}
	for _, name := range slices.Sorted(maps.Keys(b.Set)) {
		c.own(at+".set."+name, name, party)
		if slices.Contains(b.Clear, name) {
			c.add(at+".clear", "%s is both set and cleared", name)
		}
	}
	for i, name := range b.Clear {
		c.own(fmt.Sprintf("%s.clear[%d]", at, i), name, party)
	}
	for i, name := range b.Send {
		if where := fmt.Sprintf("%s.send[%d]", at, i); known(c, where, name, c.d.Messages, "message") && c.d.Messages[name].From != party {
			c.add(where, "the message %s is from %s, and this half is %s's", name, c.d.Messages[name].From, party)
		}
	}
	for i, name := range b.Call {
		if where := fmt.Sprintf("%s.call[%d]", at, i); known(c, where, name, c.d.Calls, "call") && c.d.Calls[name].Party != party {
			c.add(where, "the call %s is one of %s: a half asks its own state's registers", name, c.d.Calls[name].Party)
		}
	}
	for i, name := range b.Notice {
		if where := fmt.Sprintf("%s.notice[%d]", at, i); known(c, where, name, c.d.Notices, "notice") && c.d.Roles[c.d.Notices[name].Role].Party != party {
			c.add(where, "the notice %s is for a role of the other state: send a message", name)
		}
	}
	for i, h := range b.Effect {
		c.hook(fmt.Sprintf("%s.effect[%d]", at, i), h)
	}
	if b.Decision != nil {
		c.decision(at+".decision", party, *b.Decision)
	}
}

func (c *checker) own(where, fact, party string) {
	if known(c, where, fact, c.d.Facts, "fact") && c.d.Facts[fact].Owner != party {
		c.add(where, "%s is not %s's to write: its owner is %s", fact, party, c.d.Facts[fact].Owner)
	}
}

func (c *checker) decision(at, party string, d Decision) {
	if !plainName.MatchString(d.Outcome) || len(d.Outcome) > maxName {
		c.add(at+".outcome", "name the outcome, as in granted: %s", nameRule(plainName))
	}
	known(c, at+".reason", d.Reason, c.d.Reasons, "reason")
	if !ruleName.MatchString(d.Rule) || len(d.Rule) > maxName {
		c.add(at+".rule", "name the rule by which it is decided: letters, digits, '.', '_' and '-'")
	}
	if d.Appeal != "" {
		c.duration(at+".appeal", d.Appeal)
		if d.Final {
			c.add(at+".final", "it can be appealed and cannot: leave one of both out")
		}
	}
	if d.By != "" {
		known(c, at+".by", d.By, c.d.Forms, "form")
	}
}
