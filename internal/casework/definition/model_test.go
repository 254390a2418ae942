package definition

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

type ons = map[string]On

// ways makes what a trigger does of "STATE+message+message": each word is a
// branch, the last without a guard; "" stays, "!" refuses.
func ways(words ...string) On {
	var on On
	for i, w := range words {
		var b Branch
		if i < len(words)-1 {
			b.If = "true"
		}
		sent := strings.Split(w, "+")
		if b.To, b.Send = sent[0], sent[1:]; b.To == "!" {
			b.To, b.Refuse = "", "no"
		}
		on.Branches = append(on.Branches, b)
	}
	return on
}

// pair makes a definition of two halves, a and b, of which a opens. What is no
// form or message is a deadline; a state named END… is final.
func pair(a, b map[string]ons, messages map[string]string) *Definition {
	d := &Definition{Opens: "a", Halves: map[string]Machine{}, Messages: map[string]Message{}, Forms: map[string]Form{"form": {}}}
	for name, from := range messages {
		d.Messages[name] = Message{From: from}
	}
	for party, states := range map[string]map[string]ons{"a": a, "b": b} {
		m := Machine{Start: "START", Hold: "HELD", States: map[string]State{}}
		for name, on := range states {
			s := State{On: on, Final: strings.HasPrefix(name, "END"), Deadlines: map[string]Deadline{}}
			for trigger := range on {
				if d.kind(trigger) == "" {
					s.Deadlines[trigger] = Deadline{After: "P1D"}
				}
			}
			m.States[name] = s
		}
		d.Halves[party] = m
	}
	return d
}

// TestModel finds what no half has by itself, and tells the shortest run.
func TestModel(t *testing.T) {
	held := ons{"time": ways("END")}
	for _, c := range []struct {
		name string
		d    *Definition
		want string
	}{
		{"each waits for the other", pair(
			map[string]ons{"START": {"form": ways("WAIT+ask")}, "WAIT": {"answer": ways("END")}, "HELD": held, "END": {}},
			map[string]ons{"START": {"ask": ways("THINK")}, "THINK": {"time": ways("END+answer"), "form": ways("WAIT")}, "WAIT": {"ask": ways("END")}, "HELD": held, "END": {}},
			map[string]string{"ask": "a", "answer": "b"}), `
on.never: It never happens here: ask never meets the state.
model.stuck: No end can be reached once one half is in WAIT and the other in HELD.
  a: form form: START → WAIT, sends ask
  b: message ask arrives: it fails, and is held: START → HELD
model.stuck: No end can be reached once one half is in WAIT and the other in END.
  a: form form: START → WAIT, sends ask
  b: message ask arrives: it fails, and is held: START → HELD
  b: deadline time passes: HELD → END
model.stuck: No end can be reached once one half is in WAIT and the other in WAIT.
  a: form form: START → WAIT, sends ask
  b: message ask arrives: START → THINK
  b: form form: THINK → WAIT`},
		{"a message is not expected, and another crosses it", pair(
			map[string]ons{"START": {"form": ways("WAIT+ask")}, "WAIT": {"answer": ways("END"), "time": ways("LATE+ask")}, "LATE": {"answer": ways("", "!"), "time": ways("END")}, "HELD": {"answer": ways("END"), "time": ways("END")}, "END": {}},
			map[string]ons{"START": {"ask": ways("THINK")}, "THINK": {"form": ways("DONE+answer"), "time": ways("END+answer")}, "DONE": {"time": ways("END"), "ask": ways("END", "DONE")}, "HELD": {"ask": ways(""), "time": ways("END")}, "END": {}},
			map[string]string{"ask": "a", "answer": "b"}), `
message.unexpected: The message ask can meet THINK, and nothing is said of it there.
  a: form form: START → WAIT, sends ask
  a: deadline time passes: WAIT → LATE, sends ask
  b: message ask arrives: START → THINK
crossing.missing: ask and answer can cross, and nothing is said of it. It ends in {a: [END, LATE], b: [DONE, END]}`},
		{"messages call each other forth", pair(
			map[string]ons{"START": {"form": ways("WAIT+ask")}, "WAIT": {"answer": ways("END", "+ask"), "time": ways("END")}, "HELD": {"answer": ways("END"), "time": ways("END")}, "END": {}},
			map[string]ons{"START": {"ask": ways("THINK+answer")}, "THINK": {"ask": ways("+answer"), "time": ways("END")}, "HELD": {"ask": ways("END"), "time": ways("END")}, "END": {}},
			map[string]string{"ask": "a", "answer": "b"}), `
model.storm: Messages or answers call forth each other without end, and no guard stops them.
  a: form form: START → WAIT, sends ask
  b: message ask arrives: START → THINK, sends answer
  and from here on again and again:
  a: message answer arrives: stays in WAIT, sends ask
  b: message ask arrives: stays in THINK, sends answer`},
		{"a message that a guard stops", pair(
			map[string]ons{"START": {"form": ways("WAIT+ask")}, "WAIT": {"answer": ways("+ask", "END"), "time": ways("END")}, "HELD": {"answer": ways("END"), "time": ways("END")}, "END": {}},
			map[string]ons{"START": {"ask": ways("THINK+answer")}, "THINK": {"ask": ways("+answer"), "time": ways("END")}, "HELD": {"ask": ways("END"), "time": ways("END")}, "END": {}},
			map[string]string{"ask": "a", "answer": "b"}), ``},
		{"a circle of both halves, by time and messages", pair(
			map[string]ons{"START": {"form": ways("WAIT")}, "WAIT": {"answer": ways("WAIT"), "time": ways("ASKED+ask")}, "ASKED": {"answer": ways("WAIT"), "over": ways("END")}, "HELD": {"answer": ways("END"), "time": ways("END")}, "END": {}},
			map[string]ons{"START": {"ask": ways("THINK+answer")}, "THINK": {"ask": ways("+answer"), "time": ways("END")}, "HELD": {"ask": ways("END"), "time": ways("END")}, "END": {}},
			map[string]string{"ask": "a", "answer": "b"}), `
on.never: It never happens here: answer never meets the state.
model.circle: When nobody acts, the case goes around in a circle and comes to no end.
  a: form form: START → WAIT
  a: deadline time passes: WAIT → ASKED, sends ask
  b: message ask arrives: START → THINK, sends answer
  and from here on again and again:
  a: message answer arrives: ASKED → WAIT
  a: deadline time passes: WAIT → ASKED, sends ask
  b: message ask arrives: stays in THINK, sends answer`},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &linter{d: c.d}
			l.model(Explore(c.d))
			var got strings.Builder
			for _, f := range l.found {
				fmt.Fprintf(&got, "\n%s: %s", f.Rule, f.Text.En)
				for _, r := range f.Run {
					fmt.Fprintf(&got, "\n  %s", r.En)
				}
			}
			if got.String() != c.want {
				t.Errorf("found%s", got.String())
			}
		})
	}
}

// large has halves of as many states, each with a message of its own.
func large(states, messages int) *Definition {
	sides, from := map[string]map[string]ons{}, map[string]string{}
	for party, other := range map[string]string{"a": "b", "b": "a"} {
		sides[party] = map[string]ons{"HELD": {"time": ways("END")}, "END": {}}
		for i := range messages {
			from[fmt.Sprintf("%s%d", party, i)] = party
		}
		for i := range states {
			name, next := fmt.Sprintf("S%d", i), fmt.Sprintf("S%d", i+1)
			if i == 0 {
				name = "START"
			}
			if i == states-1 {
				next = "END"
			}
			on := ons{"time": ways(next), "form": ways(fmt.Sprintf("%s+%s%d", next, party, i%messages))}
			for j := range messages {
				on[fmt.Sprintf("%s%d", other, j)] = ways(next, "")
			}
			sides[party][name] = on
		}
	}
	return pair(sides["a"], sides["b"], from)
}

// TestModelIsBounded explores with fewer messages under way what is too large
// with more, and says so of what is too large with any.
func TestModelIsBounded(t *testing.T) {
	d := large(6, 3)
	all := explore(d, 1<<20)
	fewer := explore(d, all.Configurations-1)
	none := explore(d, 100)
	if !all.Complete || all.Underway != 3 || !fewer.Complete || fewer.Underway >= 3 || none.Complete {
		t.Errorf("%+v\n%+v\n%+v", all, fewer, none)
	}
	l := &linter{d: d}
	if l.model(none); len(l.found) != 1 || l.found[0].Rule != "model.size" {
		t.Errorf("found %v", l.found)
	}
}

// TestLintIsBounded: a definition as large as a file can make it is not
// explored, and that is said.
func TestLintIsBounded(t *testing.T) {
	d := large(250, 90)
	start := time.Now()
	found, m := Lint(d)
	if m.Complete || !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == "model.size" }) {
		t.Errorf("%+v", m)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %s", took)
	}
}

// BenchmarkExplore explores more than a service should be.
func BenchmarkExplore(b *testing.B) {
	d := large(20, 10)
	for b.Loop() {
		Explore(d)
	}
}
