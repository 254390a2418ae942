package definition

import (
	"fmt"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/union"
)

// model says what the exploration has found.
func (x *explorer) model() *Model {
	m := &Model{Configurations: len(x.all), Underway: x.underway, Complete: true, Crossings: []Crossing{}, Closed: []Meeting{}}
	for half, party := range x.parties {
		for s := range x.states[half] {
			at := uint8(s + 1)
			if x.states[half][s] != x.machines[half].Start && !slices.ContainsFunc(x.all, func(c configuration) bool { return c.at[half] == at }) {
				m.unreached = append(m.unreached, Meeting{Party: party, State: x.states[half][s]})
			}
		}
		for at := range len(x.states[half]) + 1 {
			for t := range x.messages {
				n, held := x.earliest(half, at, t)
				if n == 0 || x.handles(half, uint8(at), uint16(t)) {
					continue
				}
				meeting := Meeting{Party: party, State: x.name(half, uint8(at)), Message: x.triggers[t], held: held, run: x.path(n - 1)}
				if x.final[half][at] {
					m.Closed = append(m.Closed, meeting)
				} else {
					m.unexpected = append(m.unexpected, meeting)
				}
			}
		}
	}
	x.d.places(func(p place, _ On) {
		half := slices.Index(x.parties, p.party)
		t := slices.Index(x.triggers, p.trigger)
		for at := range len(x.states[half]) + 1 {
			name := x.name(half, uint8(at))
			_, by, _ := x.machines[half].handled(p.party, name, p.trigger)
			if n, _ := x.earliest(half, at, t); by == p && n != 0 {
				return
			}
		}
		m.never = append(m.never, p)
	})
	x.found(m)
	slices.SortFunc(m.Crossings, func(a, b Crossing) int { return slices.Compare(a.Pair[:], b.Pair[:]) })
	return m
}

// found lists crossings, and where no end can be reached from.
func (x *explorer) found(m *Model) {
	for pair, ends := range x.crossings {
		c := Crossing{Ends: map[string][]string{}}
		for half, party := range x.parties {
			c.Pair[half] = x.triggers[pair[half]-1]
			for at := range ends[half] {
				c.Ends[party] = append(c.Ends[party], x.name(half, at))
			}
			slices.Sort(c.Ends[party])
		}
		for _, said := range x.d.Crossings {
			if said.Pair == c.Pair || said.Pair == [2]string{c.Pair[1], c.Pair[0]} {
				c.Why = said.Why
			}
		}
		m.Crossings = append(m.Crossings, c)
	}
	if way := x.circle(arrival); way != nil {
		m.storm = x.around(way)
	} else if way := x.circle(arrival, passing); way != nil {
		m.circle = x.around(way)
	}
	for _, c := range x.all {
		for _, line := range c.line {
			for _, message := range line {
				if message != 0 && !slices.Contains(m.order, x.triggers[message-1]) {
					m.order = append(m.order, x.triggers[message-1])
				}
			}
		}
	}
	seen := map[[2]uint8]bool{}
	for n, ok := range x.ending() {
		if c := x.all[n]; !ok && !seen[c.at] {
			seen[c.at] = true
			m.stuck = append(m.stuck, dead{[2]string{x.name(0, c.at[0]), x.name(1, c.at[1])}, x.path(int32(n))})
		}
	}
}

// earliest is the first configuration, from 1, in which a trigger met a state;
// held where it met it only after a half was held.
func (x *explorer) earliest(half, at, trigger int) (n int32, held bool) {
	i := at*len(x.triggers) + trigger
	if n := x.met[0][half][i]; n != 0 {
		return n, false
	}
	return x.met[1][half][i], true
}

// name is a state's name; a half that has not begun stands in its start.
func (x *explorer) name(half int, at uint8) string {
	if at == 0 {
		return x.machines[half].Start
	}
	return x.states[half][at-1]
}

// path tells the shortest run to a configuration.
func (x *explorer) path(n int32) []union.Text {
	var out []union.Text
	for ; x.how[n].from >= 0; n = x.how[n].from {
		out = append(out, x.tell(x.all[x.how[n].from], x.all[n], x.how[n]))
	}
	slices.Reverse(out)
	return out
}

// around tells the run to a circle, and once around it.
func (x *explorer) around(way []int32) []union.Text {
	out := append(x.path(way[0]), say("and from here on again and again:", "ثم يتكرر من هنا بلا نهاية:"))
	for i, n := range way {
		to, told := x.all[way[(i+1)%len(way)]], false
		x.steps(n, func(next configuration, by taken, need need) {
			if next == to && need != chance && !told {
				out, told = append(out, x.tell(x.all[n], to, by)), true
			}
		})
	}
	return out
}

// tell says one step.
func (x *explorer) tell(before, after configuration, s taken) union.Text {
	half, trigger := int(s.half), x.triggers[s.trigger]
	from, to := x.name(half, before.at[half]), x.name(half, after.at[half])
	what := map[string]union.Text{
		"form":    say("form %s", "استمارة %s", trigger),
		"message": say("message %s arrives", "تصل الرسالة %s", trigger),
		"call":    say("answer to call %s", "جواب الاستعلام %s", trigger),
		"":        say("deadline %s passes", "يحل الموعد %s", trigger),
	}[x.d.kind(trigger)]
	how := say("%s → %s", "%s ← %s", from, to)
	if from == to {
		how = say("stays in %s", "يبقى في %s", from)
	}
	switch s.branch {
	case wasHeld:
		how = say("it fails, and is held: %s → %s", "يخفق ويُعلّق: %s ← %s", from, to)
	case wasClosed:
		how = say("the case is closed: %s", "المعاملة مغلقة: %s", from)
	case wasUnexpected:
		how = say("nothing is said of it in %s", "لم يُذكر عنه شيء في %s", from)
	default:
		on, _, _ := x.machines[half].handled(x.parties[half], from, trigger)
		b := on.Branches[s.branch]
		if b.Refuse != "" {
			how = say("refused for %s in %s", "يُرفض بسبب %s في %s", b.Refuse, from)
		}
		if len(b.Send) > 0 {
			how.En += ", sends " + strings.Join(b.Send, ", ")
			how.Ar += "، ويُرسل " + strings.Join(b.Send, "، ")
		}
	}
	party := x.parties[half]
	return union.Text{En: party + ": " + what.En + ": " + how.En, Ar: party + ": " + what.Ar + ": " + how.Ar}
}

// model makes findings of what was explored.
func (l *linter) model(m *Model) {
	if !m.Complete {
		l.fails("model.size", "halves", say("The two halves have too many states, branches or messages to be explored together: nothing is proven of what they do to each other.", "للشقين حالات أو فروع أو رسائل أكثر مما يمكن استكشافه معاً، فلا يثبت شيء عما يفعله أحدهما بالآخر."))
		return
	}
	for _, x := range m.unreached {
		l.fails("state.unreachable", stateAt(x), say("No run of both halves reaches the state.", "لا يبلغ الشقان هذه الحالة في أي مسار."))
	}
	for _, p := range m.never {
		gone := slices.ContainsFunc(m.unreached, func(x Meeting) bool { return x.Party == p.party && x.State == p.state })
		if _, running := l.d.Halves[p.party].running(p.party, p.state)[p.trigger]; !gone && (running || l.d.kind(p.trigger) != "") {
			l.warns("on.never", p.where, say("It never happens here: %s never meets the state.", "لا يحدث هنا أبداً: لا يلتقي %s بهذه الحالة.", p.trigger))
		}
	}
	for _, x := range m.unexpected {
		s, text := Error, say("The message %[1]s can meet %[2]s, and nothing is said of it there.", "يمكن أن تلتقي الرسالة %[1]s بالحالة %[2]s ولم يُذكر عنها شيء فيها.", x.Message, x.State)
		if x.held {
			text = say("After a half was held, the message %[1]s can meet %[2]s, and nothing is said of it there.", "بعد تعليق أحد الشقين يمكن أن تلتقي الرسالة %[1]s بالحالة %[2]s ولم يُذكر عنها شيء فيها.", x.Message, x.State)
			if x.State != l.d.Halves[x.Party].Hold {
				s = Warning
			}
		}
		l.add(s, "message.unexpected", stateAt(x), text, x.run...)
	}
	for i, x := range m.stuck {
		if i == 5 {
			break // the others follow from the same
		}
		l.add(Error, "model.stuck", "halves", say("No end can be reached once one half is in %s and the other in %s.", "لا نهاية ممكنة متى كان أحد الشقين في %s والآخر في %s.", x.states[0], x.states[1]), x.run...)
	}
	if m.storm != nil {
		l.add(Error, "model.storm", "halves", say("Messages or answers call forth each other without end, and no guard stops them.", "رسائل أو أجوبة يستدعي بعضها بعضاً بلا نهاية ولا شرط يوقفها."), m.storm...)
	}
	if m.circle != nil {
		l.add(Error, "model.circle", "halves", say("When nobody acts, the case goes around in a circle and comes to no end.", "إن لم يفعل أحد شيئاً دارت المعاملة في حلقة ولم تبلغ نهاية."), m.circle...)
	}
	l.crossings(m)
}

func stateAt(x Meeting) string { return "halves." + x.Party + ".states." + x.State }

// crossings holds the declared crossings against those that can happen.
func (l *linter) crossings(m *Model) {
	declared := map[[2]string]int{}
	for i, c := range l.d.Crossings {
		pair := l.pair(c.Pair)
		if first, ok := declared[pair]; ok {
			l.fails("crossing.twice", crossingAt(i), say("The pair stands already in %s.", "ورد الزوج من قبل في %s.", crossingAt(first)))
			continue
		}
		declared[pair] = i
		if !slices.ContainsFunc(m.Crossings, func(x Crossing) bool { return x.Pair == pair }) {
			l.fails("crossing.impossible", crossingAt(i), say("%s and %s cannot cross.", "لا يمكن أن تتقاطع %s و%s.", c.Pair[0], c.Pair[1]))
		}
	}
	for _, x := range m.Crossings {
		i, ok := declared[x.Pair]
		if !ok {
			l.fails("crossing.missing", "crossings", say("%s and %s can cross, and nothing is said of it. It ends in %s", "يمكن أن تتقاطع %s و%s ولم يُذكر ذلك. وتنتهيان إلى %s", x.Pair[0], x.Pair[1], x.ends()))
			continue
		}
		for _, party := range l.d.parties() {
			if got := slices.Compact(slices.Sorted(slices.Values(l.d.Crossings[i].Ends[party]))); !slices.Equal(got, x.Ends[party]) {
				l.fails("crossing.ends", crossingAt(i)+".ends."+party, say("After it %s is in [%s], and not in [%s].", "بعده يكون %s في [%s] لا في [%s].", party, strings.Join(x.Ends[party], ", "), strings.Join(got, ", ")))
			}
		}
	}
}

// pair puts the message of the half that opens the case first.
func (l *linter) pair(p [2]string) [2]string {
	if l.d.Messages[p[0]].From != l.d.Opens {
		p[0], p[1] = p[1], p[0]
	}
	return p
}

// YAML is the crossing as it is written in a file.
func (c Crossing) YAML(indent string) string {
	return fmt.Sprintf("%[1]s- pair: [%[2]s]\n%[1]s  ends: %[3]s\n%[1]s  why: {en: %[4]q, ar: %[5]q}\n", indent, strings.Join(c.Pair[:], ", "), c.ends(), c.Why.En, c.Why.Ar)
}

func (c Crossing) ends() string {
	var ends []string
	for _, party := range order(c.Ends) {
		ends = append(ends, fmt.Sprintf("%s: [%s]", party, strings.Join(c.Ends[party], ", ")))
	}
	return "{" + strings.Join(ends, ", ") + "}"
}
