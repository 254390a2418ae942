package definition

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/falaj/falaj/internal/union"
)

// half looks at one half by itself: whether each state ends.
func (l *linter) half(party string, m Machine) {
	at, known := "halves."+party, l.d.certain(party, m)
	for _, name := range order(m.States) {
		where := at + ".states." + name
		if m.States[name].Final || name == m.Start && l.d.passed(party, m) {
			continue
		}
		if !m.exit(party, name) {
			l.fails("state.exit", where, say("Nothing leads out of the state, and it is not final.", "لا مخرج من الحالة وليست نهائية."))
		} else if !l.times(m, party, name, known) {
			l.fails("state.timeout", where, l.untimed(m, name))
		}
	}
}

// untimed says what a state lacks.
func (l *linter) untimed(m Machine, state string) union.Text {
	if state == m.Hold {
		return say("Nothing is sure to time the hold state out: it needs a deadline whose last branch leaves it and which cannot fail: it reads and sends no fact that may be unknown there, and has no hook and no effect.",
			"لا مهلة مؤكدة تُنهي حالة التعليق: تحتاج إلى موعد يخرج منها في فرعه الأخير ولا يمكن أن يخفق: لا يقرأ معلومة قد تكون مجهولة فيها ولا يرسلها، وبلا خطاف ولا أثر.")
	}
	return say("Nothing is sure to time the state out: it needs a deadline that reads no fact which may be unknown there, whose last branch leaves the state, and whose others leave it or start it anew; one of always, that it ends the half in every state.",
		"لا مهلة مؤكدة تُنهي الحالة: تحتاج إلى موعد لا يقرأ معلومة قد تكون مجهولة فيها، يخرج منها في فرعه الأخير، وتخرج منها فروعه الأخرى أو تبدؤها من جديد؛ أما موعد always فعليه أن يُنهي الشق في كل حالة.")
}

// passed tells whether the start is only gone through: a case does not exist
// in it before the form or message with which the half begins, and no branch
// of that stays there, and none comes back.
func (d *Definition) passed(party string, m Machine) bool {
	for state := range m.States {
		for trigger := range m.triggers(state) {
			on, _, _ := m.handled(party, state, trigger)
			begins := state == m.Start && d.begins(party, trigger)
			if slices.ContainsFunc(on.Branches, func(b Branch) bool { return b.To == m.Start || begins && b.To == "" && b.Refuse == "" }) {
				return false
			}
		}
	}
	return true
}

// begins tells whether a half can begin with a trigger: where the case opens,
// with a form; in the other state, with a message.
func (d *Definition) begins(party, trigger string) bool {
	return party == d.Opens && d.kind(trigger) == "form" || party != d.Opens && d.kind(trigger) == "message"
}

// triggers lists what a state handles.
func (m Machine) triggers(state string) map[string]bool {
	out := map[string]bool{}
	for name := range m.States[state].On {
		out[name] = true
	}
	if !m.States[state].Final {
		for name := range m.Always.On {
			out[name] = true
		}
	}
	return out
}

func (m Machine) exit(party, state string) bool {
	for trigger := range m.triggers(state) {
		on, _, _ := m.handled(party, state, trigger)
		for _, b := range on.Branches {
			if b.leaves(state) {
				return true
			}
		}
	}
	return false
}

// times tells whether a deadline ends the stay in a state: it is certain to
// run, its last branch leaves the state, and each before it does or, as long
// as its guard holds, starts the stay and the deadline anew: a loop that is as
// bounded as its guard. A deadline of the case as a whole passes once, and must
// end the half wherever it does.
func (l *linter) times(m Machine, party, state string, certain map[string]map[string]bool) bool {
	for name := range m.running(party, state) {
		d, own := m.States[state].Deadlines[name]
		if !own {
			if l.d.concludes(party, m, name, certain) {
				return true
			}
			continue
		}
		on, _, _ := m.handled(party, state, name)
		n := len(on.Branches)
		stays := slices.ContainsFunc(on.Branches, func(b Branch) bool { return b.To == "" || b.To == state && d.At != "" })
		if d.runs(certain[state]) && n > 0 && !stays && on.Branches[n-1].leaves(state) && (state != m.Hold || l.d.sure(name, on, certain[state])) {
			return true
		}
	}
	return false
}

// every looks at each trigger where it is handled.
func (l *linter) every() {
	l.d.places(func(p place, on On) {
		l.branches(p, on)
		if l.d.kind(p.trigger) == "call" {
			l.answer(p, on)
		}
	})
}

// branches looks at where a step can go.
func (l *linter) branches(p place, on On) {
	d := l.d
	for i, b := range on.Branches {
		where, last := p.branch(i), i == len(on.Branches)-1
		switch {
		case last && b.If != "":
			l.fails("branch.open", where, say("The last branch has a guard: nothing is said of what happens when it does not hold.", "للفرع الأخير شرط، ولم يُذكر ما يحدث إن لم يتحقق."))
		case !last && b.If == "":
			l.fails("branch.shadow", where, say("The branch has no guard: those after it are never taken.", "لا شرط لهذا الفرع، فلا تُسلك الفروع التي بعده."))
		}
		if b.Decision != nil {
			l.decision(p, where+".decision", *b.Decision)
		}
		for _, call := range b.Call {
			if to := cmp.Or(b.To, p.state); to != "" {
				if _, _, ok := d.Halves[p.party].handled(p.party, to, call); !ok {
					l.fails("call.unheard", where+".call", say("It asks %s and goes on to %s, where nothing is said of the answer.", "يسأل %s وينتقل إلى %s حيث لم يُذكر شيء عن الجواب.", call, to))
				}
			}
		}
	}
}

// decision wants what a person needs to hold it against the state, and two
// persons where it takes something back.
func (l *linter) decision(p place, where string, x Decision) {
	if !x.Final && x.Appeal == "" {
		l.fails("decision.appeal", where, say("It says neither until when it can be appealed (appeal: P30D) nor that no appeal lies (final: true).", "لم يُذكر موعد التظلم منه (appeal: P30D) ولا أنه لا تظلم منه (final: true)."))
	}
	d := l.d
	f, form := d.Forms[p.trigger]
	switch x.Outcome {
	case "cancelled", "reduced", "refunded", "written-off", "manual":
		if r := d.Roles[f.Role]; form && r.Kind != Citizen && (!f.Two || r.Kind != Officer) {
			l.fails("two.missing", "forms."+p.trigger, say("One alone could decide %q: the form takes two named persons (role of kind officer, two: true).", "يستطيع واحد بمفرده أن يقرر %q: تتطلب الاستمارة شخصين معيّنين (دور من نوع officer مع two: true).", x.Outcome))
		}
	}
}

// answer wants the failure of a call handled where its answer is.
func (l *linter) answer(p place, on On) {
	for _, b := range on.Branches {
		if slices.Contains(reads(b.If), "call.status") {
			return
		}
	}
	l.fails("call.failure", p.where, say("No guard looks at call.status: an answer that never came (0) would pass for one.", "لا شرط ينظر في call.status، فيُعدّ الجواب الذي لم يرد (0) جواباً."))
}

// crossingAt is where a crossing stands.
func crossingAt(i int) string { return fmt.Sprintf("crossings[%d]", i) }
