package definition

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/union"
)

// drawn makes a small definition: mostly one that leads somewhere.
func drawn(r *rapid.T) *Definition {
	text := union.Text{En: "text", Ar: "نص"}
	d := &Definition{
		Format: Format, Name: "drawn", Version: 1, Purpose: "p", Opens: "a",
		Basis: map[string]union.Text{"law": text}, Retention: Retention{Days: 1, Basis: "law"},
		Parties:  map[string]union.Text{"a": text, "b": text},
		Roles:    map[string]Role{"pa": {Party: "a", Kind: Officer}, "pb": {Party: "b", Kind: Officer}},
		Facts:    map[string]Fact{"na": {Owner: "a", Type: Whole}, "nb": {Owner: "b", Type: Whole}},
		Forms:    map[string]Form{"fa": {Role: "pa", Fields: []string{"na"}, Optional: []string{"na"}}, "ga": {Role: "pa"}, "fb": {Role: "pb", Fields: []string{"nb"}}},
		Messages: map[string]Message{"ma": {From: "a"}, "oa": {From: "a"}, "mb": {From: "b"}, "ob": {From: "b"}},
		Calls:    map[string]Call{"ca": {Party: "a", Service: "s", Basis: "law", Method: "GET", Path: "/", Timeout: "PT1S"}},
		Reasons:  map[string]union.Text{"no": text},
		Halves:   map[string]Machine{},
	}
	rare := func(name string) bool { return rapid.IntRange(0, 30).Draw(r, name) == 13 } // small numbers are drawn more often
	for _, party := range []string{"a", "b"} {
		other := map[string]string{"a": "b", "b": "a"}[party]
		names := []string{"START", "S1", "S2", "S3", "HELD", "ENDED"}
		branches := func(state int, trigger string, timed bool) On {
			var on On
			for i, n := 0, rapid.IntRange(1, 2).Draw(r, "branches"); i < n; i++ {
				var b Branch
				if i < n-1 {
					b.If = rapid.SampledFrom([]string{"now.getMinutes() % 2 == 0", "fact.n" + party + " < 0"}).Draw(r, "guard")
				}
				switch {
				case rare("back"):
					b.To = names[rapid.IntRange(1, 5).Draw(r, "to")]
				case timed || state == 0 || rapid.Bool().Draw(r, "goes"):
					b.To = names[rapid.IntRange(min(state+1, 5), 5).Draw(r, "to")]
				case d.kind(trigger) != "call" && rare("refuses"):
					b.Refuse = "no"
				}
				if b.Refuse == "" && (d.kind(trigger) == "form" || rapid.IntRange(0, 3).Draw(r, "sends") == 0) {
					b.Send = []string{rapid.SampledFrom([]string{"m" + party, "o" + party}).Draw(r, "message")}
				}
				if b.Refuse == "" && party == "a" && b.To == "S2" && rapid.IntRange(0, 5).Draw(r, "asks") == 5 {
					b.Call = []string{"ca"}
				}
				on.Branches = append(on.Branches, b)
			}
			return on
		}
		m := Machine{Start: "START", Hold: "HELD", States: map[string]State{}, Always: Always{On: map[string]On{}}}
		for _, message := range []string{"m" + other, "o" + other} {
			m.Always.On[message] = branches(3, message, false)
		}
		if rare("always") {
			m.Always.Deadlines = map[string]Deadline{"all" + party: {After: "P90D"}}
			m.Always.On["all"+party] = branches(3, "all"+party, true)
		}
		for i, name := range names {
			s := State{Final: name == "ENDED", On: map[string]On{}}
			if !s.Final && (i > 0 || rare("waits")) && !rare("timeless") {
				s.Deadlines = map[string]Deadline{"t" + party: {After: "P1D"}}
				s.On["t"+party] = branches(i, "t"+party, true)
				if name == "HELD" {
					s.On["t"+party] = On{Branches: []Branch{{To: rapid.SampledFrom([]string{"S1", "S3", "ENDED"}).Draw(r, "to")}}}
				}
			}
			triggers := []string{"f" + party, "m" + other, "o" + other}
			if party == "a" {
				triggers = append(triggers, "ga", "ca")
			}
			for _, trigger := range triggers {
				if i == 0 || rapid.IntRange(0, 2).Draw(r, "handles") == 0 {
					s.On[trigger] = branches(i, trigger, false)
				}
			}
			m.States[name] = s
		}
		d.Halves[party] = m
	}
	d.Crossings = Explore(d).Crossings
	return d
}

// TestNothingGetsStuck walks at random through definitions in which lint finds
// no error: no message is unexpected, and from wherever the walk has come to,
// time alone brings the case to an end.
func TestNothingGetsStuck(t *testing.T) {
	clean, steps, crossed := 0, 0, 0
	rapid.Check(t, func(r *rapid.T) {
		d := drawn(r)
		if err := d.check(); err != nil {
			r.Fatal(err)
		}
		found, _ := Lint(d)
		if slices.ContainsFunc(found, func(f Finding) bool {
			return (f.Severity == Error || f.Rule == "message.unexpected") && !slices.Contains([]string{"text.missing", "call.failure", "fact.unwritten", "state.unreachable"}, f.Rule)
		}) {
			return
		}
		clean++
		p, err := Compile(d, nil)
		if err != nil {
			r.Fatal(err)
		}
		seed := rapid.Uint64().Draw(r, "seed")
		for i := range uint64(20) {
			w := &walk{
				t: r, p: p, rand: rand.New(rand.NewPCG(seed, i)), now: time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC),
				line: map[string][]Sent{}, halves: map[string]*Half{}, crossed: &crossed,
			}
			steps += w.wander()
		}
	})
	if t.Logf("%d definitions were clean, %d steps were taken, %d times messages crossed", clean, steps, crossed); clean == 0 || steps == 0 {
		t.Error("nothing was tried")
	}
}

// walk is one case.
type walk struct {
	t      *rapid.T
	p      *Program
	rand   *rand.Rand
	now    time.Time
	halves map[string]*Half
	line   map[string][]Sent // from a party
	asked  int
	told   []string

	held    bool // a step has failed
	crossed *int
}

// wander walks, then lets happen what happens by itself until the case is over.
// It gives the number of steps of the walk.
func (w *walk) wander() (steps int) {
	for range 1 + w.rand.IntN(20) {
		w.now = w.now.Add(time.Duration(w.rand.IntN(2)) * time.Minute)
		if !w.step(w.rand.IntN(12)) {
			return steps // more is under way than was explored
		}
		steps++
	}
	w.now = w.now.Truncate(2 * time.Minute).Add(time.Minute) // no guard holds
	for range 300 {
		if w.over() || !w.rest() {
			return steps
		}
	}
	w.t.Fatalf("it does not end:\n%s", strings.Join(w.told, "\n"))
	return steps
}

// step does one thing, if it can be done now; false: the walk is over.
func (w *walk) step(what int) bool {
	switch what {
	case 0, 1:
		return w.deliver([]string{"a", "b"}[what])
	case 2:
		return w.take("a", Input{Trigger: "fa", Actor: Actor{Role: "pa"}, Fields: w.fields("na")})
	case 3:
		return w.halves["a"] == nil || w.take("a", Input{Trigger: "ga", Actor: Actor{Role: "pa"}})
	case 4:
		return w.halves["b"] == nil || w.take("b", Input{Trigger: "fb", Actor: Actor{Role: "pb"}, Fields: w.fields("nb")})
	case 5:
		return w.time()
	case 6:
		return w.answer()
	}
	return w.cross()
}

// cross lets two messages that pass each other arrive, and holds where that
// leads against what lint has made of it.
func (w *walk) cross() bool {
	for _, what := range []int{2, 4, 3, 4, 2, 4} { // until both have sent something
		if w.halves["a"] == nil || w.halves["b"] == nil || w.held {
			return true
		}
		if len(w.line["a"]) > 0 && len(w.line["b"]) > 0 {
			break
		}
		if !w.step(what) {
			return false
		}
	}
	if len(w.line["a"]) == 0 || len(w.line["b"]) == 0 || w.held {
		return true
	}
	pair := [2]string{w.line["a"][0].Message, w.line["b"][0].Message}
	if !w.deliver("a") || !w.deliver("b") {
		return false
	}
	i := slices.IndexFunc(w.p.d.Crossings, func(c Crossing) bool { return c.Pair == pair })
	if w.held {
		return true
	}
	for party, h := range w.halves {
		if i < 0 || !slices.Contains(w.p.d.Crossings[i].Ends[party], h.State) {
			w.t.Fatalf("after %v %s is in %s:\n%s", pair, party, h.State, strings.Join(w.told, "\n"))
		}
	}
	*w.crossed++
	return true
}

func (w *walk) fields(name string) Values {
	if name == "na" && w.rand.IntN(2) == 0 {
		return nil
	}
	return Values{name: w.rand.Int64N(2)}
}

// rest lets happen what happens by itself.
func (w *walk) rest() bool {
	switch {
	case len(w.line["a"]) > 0:
		return w.deliver("a")
	case len(w.line["b"]) > 0:
		return w.deliver("b")
	case w.asked > 0:
		return w.answer()
	}
	return w.time()
}

func (w *walk) over() bool {
	for _, h := range w.halves {
		if !w.p.d.Halves[h.Party].States[h.State].Final {
			return false
		}
	}
	return len(w.line["a"])+len(w.line["b"]) == 0
}

func (w *walk) deliver(from string) bool {
	if len(w.line[from]) == 0 {
		return true
	}
	m := w.line[from][0]
	w.line[from] = w.line[from][1:]
	return w.take(w.p.d.other(from), Input{Trigger: m.Message, Fields: m.Fields})
}

func (w *walk) answer() bool {
	if w.asked == 0 {
		return true
	}
	w.asked--
	return w.take("a", Input{Trigger: "ca"})
}

// time lets the next deadline of both halves pass.
func (w *walk) time() bool {
	var party, deadline string
	var at time.Time
	for _, p := range []string{"a", "b"} {
		if w.halves[p] == nil {
			continue
		}
		for _, name := range order(w.halves[p].Clocks) {
			if c := w.halves[p].Clocks[name]; deadline == "" || c.Before(at) {
				party, deadline, at = p, name, c
			}
		}
	}
	if deadline == "" {
		return true
	}
	for w.now.Before(at) {
		w.now = w.now.Add(2 * time.Minute * time.Duration(1+at.Sub(w.now)/(2*time.Minute)))
	}
	return w.take(party, Input{Trigger: deadline})
}

func (w *walk) take(party string, in Input) bool {
	h := w.halves[party]
	if h == nil {
		begun, err := w.p.Open(party, w.now, w.now)
		if err != nil {
			w.t.Fatal(err)
		}
		h = &begun
	}
	in.At = w.now
	out, err := w.p.Step(w.t.Context(), *h, in)
	w.told = append(w.told, fmt.Sprintf("%s %s in %s: %s %v %v", party, in.Trigger, h.State, out.State, out.Send, err))
	var refusal *Refusal
	switch message := w.p.d.kind(in.Trigger) == "message"; {
	case errors.As(err, &refusal):
		if message && refusal.Why == Unexpected {
			w.t.Fatalf("unexpected:\n%s", strings.Join(w.told, "\n"))
		}
		return true
	case err != nil:
		w.t.Fatal(err)
	}
	w.halves[party], w.held = &out.Half, w.held || out.Held != ""
	w.line[party] = append(w.line[party], out.Send...)
	w.asked = min(1, w.asked+len(out.Ask))
	most := maxUnderway
	if w.held {
		most = 1
	}
	return len(w.line[party]) <= most
}
