package definition

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/union"
)

func money(minor int64) map[string]any { return map[string]any{"minor": minor, "currency": "BHD"} }

var payer = Actor{Role: "payer", User: "u"}

// opened is a fee's half here in OPEN.
func opened(t testing.TB, p *Program, fields Values) Half {
	t.Helper()
	h, err := p.Open("here", noon, noon)
	if err != nil {
		t.Fatal(err)
	}
	if fields["name"] == nil {
		fields["name"] = "Ali"
	}
	out, err := p.Step(t.Context(), h, Input{Trigger: "open", At: noon, Actor: payer, Fields: fields})
	if err != nil || out.State != "OPEN" {
		t.Fatal(out, err)
	}
	return out.Half
}

func step(t testing.TB, p *Program, h Half, in Input) Outcome {
	t.Helper()
	out, err := p.Step(t.Context(), h, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStep(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	due := noon.Add(5 * 24 * time.Hour)
	h := opened(t, p, Values{"fee": money(51), "sure": true, "due": due, "count": int64(41), "kind": "small"})
	if want := map[string]time.Time{"soon": noon.Add(48 * time.Hour), "last": noon.Add(2400 * time.Hour), "due": due}; !reflect.DeepEqual(h.Clocks, want) {
		t.Errorf("clocks %v", h.Clocks)
	}
	before := Values{}
	for k, v := range h.Facts {
		before[k] = v
	}
	at := noon.Add(time.Hour + 999)
	out := step(t, p, h, Input{Trigger: "try", At: at, Actor: payer, Fields: Values{"kind": "small", "count": int64(101)}})
	at = at.Truncate(time.Millisecond)
	want := Outcome{
		Half: Half{Party: "here", State: "DONE", Opened: noon, Facts: Values{
			"name": "n25", "fee": money(51), "due": due, "kind": "small",
			"count": int64(42), // was.count is what stood there before the trigger
			"share": money(25),
		}},
		Branch: 1, Let: Values{"half": money(25)},
		Send:     []Sent{{"ask", Values{"name": "n25", "fee": money(51)}}},
		Ask:      []Asked{{Call: "find", Path: "/cars/n25/42"}},
		Notices:  []string{"hello"},
		Decision: &Decided{Outcome: "paid", Reason: "yes", Text: union.Text{En: "Yes.", Ar: "نعم."}, Rule: "R1", Appeal: at.Add(30 * 24 * time.Hour), By: "open"},
		Effects:  []Effect{{"book@1", Values{"amount": money(25)}}}, // the effect sees what was set
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("got\n%+v\nwanted\n%+v", out, want)
	}
	if !reflect.DeepEqual(h.Facts, before) {
		t.Error("the half itself was changed")
	}
	// What a trigger has and this one leaves out is forgotten.
	out = step(t, p, h, Input{Trigger: "find", At: at, Status: 200, Fields: Values{"kind": "big"}})
	if _, known := out.Facts["sure"]; known || out.Facts["kind"] != "big" || out.State != "OPEN" || out.Facts["count"] != int64(41) {
		t.Errorf("got %+v", out)
	}
	if out = step(t, p, h, Input{Trigger: "find", At: at}); out.State != "DONE" {
		t.Errorf("got %+v", out)
	}
}

func TestStepRefuses(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	h := opened(t, p, Values{"fee": money(50), "due": noon.Add(time.Hour)})
	done := h
	done.State, done.Clocks = "DONE", nil
	for _, c := range []struct {
		name   string
		half   Half
		in     Input
		why    Why
		detail string
	}{
		{"another role", h, Input{Trigger: "try", Actor: Actor{Role: "officer"}, Fields: Values{"kind": "small"}}, Actors, "try"},
		{"no role", h, Input{Trigger: "try", Fields: Values{"kind": "small"}}, Actors, "try"},
		{"another state", h, Input{Trigger: "open", Actor: payer, Fields: Values{"name": "x"}}, Unexpected, "open in OPEN"},
		{"no such trigger", h, Input{Trigger: "nothing"}, Unexpected, "nothing in OPEN"},
		{"a message of its own", h, Input{Trigger: "ask", Fields: Values{"name": "x"}}, Unexpected, "ask in OPEN"},
		{"a deadline before its time", h, Input{Trigger: "soon"}, Unexpected, "soon in OPEN"},
		{"a deadline that does not run", h, Input{Trigger: "mend", At: noon.Add(9999 * time.Hour)}, Unexpected, "mend in OPEN"},
		{"after the end", done, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": "small"}}, Closed, "try in DONE"},
		{"a deadline after the end", done, Input{Trigger: "last", At: noon.Add(9999 * time.Hour)}, Closed, "last in DONE"},
		{"by the definition", h, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": "big"}}, Refused, ""},
		{"a message, by the definition", done, Input{Trigger: "tell", Fields: Values{"told": "x"}}, Refused, ""},
		{"a field too many", h, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": "small", "name": "x"}}, Invalid, "name"},
		{"a field too few", h, Input{Trigger: "try", Actor: payer, Fields: Values{"count": int64(1)}}, Invalid, "kind: required"},
		{"another type", h, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": "small", "count": "7"}}, Invalid, "count: type"},
		{"a fraction", h, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": "small", "count": 7.0}}, Invalid, "count: type"},
		{"nothing", h, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": nil}}, Invalid, "kind: type"},
		{"another choice", h, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": "Tiny"}}, Invalid, "kind: enum"},
		{"too much", h, Input{Trigger: "try", Actor: payer, Fields: Values{"kind": "small", "count": int64(1001)}}, Invalid, "count: maximum"},
		{"a message's field", h, Input{Trigger: "tell", Fields: Values{"told": strings.Repeat("Tiny", 6)}}, Invalid, "told: maxLength"},
		{"a mark that turns text around", h, Input{Trigger: "tell", Fields: Values{"told": "Tiny\u202e"}}, Invalid, "told: characters"},
		{"no text", h, Input{Trigger: "tell", Fields: Values{"told": "Tiny\xff"}}, Invalid, "told: characters"},
		{"more than any text", h, Input{Trigger: "tell", Fields: Values{"told": strings.Repeat("Tiny", 20_001)}}, Invalid, "told: characters"},
		{"a control character", h, Input{Trigger: "tell", Fields: Values{"told": "Tiny\x00"}}, Invalid, "told: characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.in.At.IsZero() {
				c.in.At = noon
			}
			out, err := p.Step(t.Context(), c.half, c.in)
			var r *Refusal
			if !errors.As(err, &r) || r.Why != c.why || r.Detail != c.detail || !r.Text.Complete() || !reflect.DeepEqual(out, Outcome{}) {
				t.Fatalf("got %+v, %v", out, err)
			}
			if strings.Contains(err.Error(), "Tiny") {
				t.Errorf("it quotes the value: %v", err)
			}
			if c.why == Refused && r.Reason != "no" {
				t.Errorf("reason %q", r.Reason)
			}
		})
	}
	if _, err := p.Step(t.Context(), Half{Party: "nobody"}, Input{}); err == nil {
		t.Error("nobody has a half")
	}
}

// TestFields looks at values that are taken apart: objects, lists, amounts.
func TestFields(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	h, err := p.Open("here", noon, noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		field, detail string
		value         any
	}{
		{"car", "", map[string]any{"make": "x", "wheels": int64(4)}},
		{"car", "car: required", map[string]any{"wheels": int64(4)}},
		{"car", "car: additionalProperties", map[string]any{"make": "x", "colour": "red"}},
		{"car", "car: properties", map[string]any{"make": strings.Repeat("x", 21)}},
		{"car", "car: type", map[string]any{"make": "x", "wheels": 4.5}},
		{"car", "car: characters", map[string]any{"make": "\u2066x"}},
		{"photos", "", []any{map[string]any{"name": "a", "size": int64(3)}}},
		{"photos", "photos: maxItems", make([]any, 21)},
		{"photos", "photos: type", map[string]any{}},
		{"fee", "", money(0)},
		{"fee", "fee: properties", money(-1)},
		{"fee", "fee: properties", map[string]any{"minor": int64(1), "currency": "XXX"}},
		{"fee", "fee: type", map[string]any{"minor": int64(1), "currency": "BHD", "x": int64(1)}},
		{"fee", "fee: type", int64(5)},
		{"due", "", "2026-11-22T15:00:00+03:00"},
		{"due", "due: type", "2026-11-22"},
		{"born", "", "1990-02-28"},
		{"born", "born: type", "1990-02-30"},
		{"sure", "sure: type", "true"},
	} {
		if l, ok := c.value.([]any); ok && len(l) > 20 {
			for i := range l {
				l[i] = map[string]any{}
			}
		}
		out, err := p.Step(t.Context(), h, Input{Trigger: "open", At: noon, Actor: payer, Fields: Values{"name": "x", c.field: c.value}})
		var r *Refusal
		switch {
		case c.detail == "" && err != nil:
			t.Errorf("%s %v: %v", c.field, c.value, err)
		case c.detail == "":
			if c.field == "due" && out.Facts["due"] != noon {
				t.Errorf("due is %v", out.Facts["due"])
			}
		case !errors.As(err, &r) || strings.Split(r.Detail, ":")[0] != c.field || r.Why != Invalid:
			t.Errorf("%s %v: %v", c.field, c.value, err)
		case r.Detail != c.detail && !strings.HasSuffix(c.detail, "properties"):
			t.Errorf("%s %v: %s, wanted %s", c.field, c.value, r.Detail, c.detail)
		}
	}
}

func TestHeld(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	const try = "halves.here.states.OPEN.on.try"
	for _, c := range []struct {
		name   string
		facts  Values
		in     Input
		why    string
		broken bool
	}{
		{"a fact that is not known", Values{}, Input{Trigger: "try", Fields: Values{"kind": "small"}}, try + ".let.half: of: fact.fee is not known", true},
		{"a hook that fails", Values{"fee": money(13)}, Input{Trigger: "try", Fields: Values{"kind": "small"}}, try + ".let.half: there is no table of that day", true},
		{"a guard", Values{"fee": money(50)}, Input{Trigger: "try", Fields: Values{"kind": "small"}}, try + ".branches[1].if: fact.count is not known", false},
		{"what was not known", Values{"fee": money(50)}, Input{Trigger: "try", Fields: Values{"kind": "small", "count": int64(200)}}, try + ".branches[1].set.count: was.count is not known", false},
		{"a value beyond its schema", Values{"fee": money(50)}, Input{Trigger: "try", Fields: Values{"kind": "small", "count": int64(60)}}, try + ".branches[2].set.count: not as the fact's schema says: maximum", false},
		{"a register's answer", Values{}, Input{Trigger: "find", Status: 200, Fields: Values{"kind": "secret"}}, "halves.here.states.OPEN.on.find: the answer cannot be used: kind: enum", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := opened(t, p, c.facts)
			c.in.At, c.in.Actor = noon.Add(time.Hour), payer
			out := step(t, p, h, c.in)
			if out.State != "HELD" || out.Held != c.why || out.Branch != -1 || out.Send != nil || out.Decision != nil {
				t.Errorf("got %+v", out)
			}
			if c.in.Trigger == "try" && out.Facts["kind"] != "small" {
				t.Error("the trigger's fields are not kept")
			}
			if _, clock := out.Clocks["mend"]; !clock || out.Clocks["soon"] != (time.Time{}) {
				t.Errorf("clocks %v", out.Clocks)
			}
			if _, broken := out.Let[Broken]; broken != c.broken {
				t.Errorf("let %v", out.Let)
			}
			// Held once more, it stays, and its deadline runs on.
			again := step(t, p, out.Half, Input{Trigger: "try", At: noon.Add(2 * time.Hour), Actor: payer, Fields: Values{"kind": "small"}, Let: Values{Broken: "no"}})
			if again.State != "HELD" || again.Clocks["mend"] != out.Clocks["mend"] {
				t.Errorf("then %+v", again)
			}
		})
	}
}

// TestStops sees that a node which stops in a hook says nothing of the case.
func TestStops(t *testing.T) {
	hooks := feeHooks()
	ctx, cancel := context.WithCancel(t.Context())
	f := hooks["halve@1"]
	f.Call = func(ctx context.Context, _ time.Time, _ Values) (any, error) {
		cancel()
		return nil, ctx.Err()
	}
	hooks["halve@1"] = f
	p := compiled(t, changed(t, "fee.yaml"), hooks)
	h := opened(t, p, Values{"fee": money(50)})
	if out, err := p.Step(ctx, h, Input{Trigger: "try", At: noon, Actor: payer, Fields: Values{"kind": "small"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v", out, err)
	}
}

// TestDeadlines follows those with at, after and in always.
func TestDeadlines(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	h := opened(t, p, Values{})
	if _, runs := h.Clocks["due"]; runs {
		t.Error("due runs before it is known")
	}
	day := func(n int) time.Time { return noon.Add(time.Duration(n) * 24 * time.Hour) }
	officer := Actor{Role: "officer"}
	out := step(t, p, h, Input{Trigger: "move", At: day(1), Actor: officer, Fields: Values{"due": day(3)}})
	if out.Clocks["due"] != day(3) || out.Clocks["soon"] != day(2) {
		t.Fatalf("clocks %v", out.Clocks)
	}
	out = step(t, p, out.Half, Input{Trigger: "soon", At: day(2)})
	if _, runs := out.Clocks["soon"]; runs || out.Facts["count"] != int64(7) {
		t.Fatalf("soon goes on: %+v", out)
	}
	out = step(t, p, out.Half, Input{Trigger: "due", At: day(3)})
	if _, runs := out.Clocks["due"]; runs || out.Notices == nil || !reflect.DeepEqual(out.Fired, map[string]time.Time{"due": day(3)}) {
		t.Fatalf("due goes on: %+v", out)
	}
	// Another step, and one into the same state anew: due stays done.
	out = step(t, p, out.Half, Input{Trigger: "tell", At: day(4)})
	out = step(t, p, out.Half, Input{Trigger: "find", At: day(5), Status: 200})
	if _, runs := out.Clocks["due"]; runs || out.Clocks["soon"] != day(7) {
		t.Fatalf("clocks %v, fired %v", out.Clocks, out.Fired)
	}
	// Moved, it runs again.
	out = step(t, p, out.Half, Input{Trigger: "move", At: day(6), Actor: officer, Fields: Values{"due": day(9)}})
	if out.Clocks["due"] != day(9) {
		t.Fatalf("clocks %v, fired %v", out.Clocks, out.Fired)
	}
	// What has passed already fires at once.
	out = step(t, p, out.Half, Input{Trigger: "move", At: day(6), Actor: officer, Fields: Values{"due": day(4)}})
	if out.Clocks["due"] != day(4) {
		t.Fatalf("clocks %v", out.Clocks)
	}
	out = step(t, p, out.Half, Input{Trigger: "last", At: day(100)})
	if out.State != "DONE" || out.Clocks != nil || out.Fired != nil {
		t.Fatalf("after the end: %+v", out)
	}
}

func TestPath(t *testing.T) {
	got, err := path("/cars/{name}/x{count}?of={name}", Values{"name": "../a b/ب%?#&\n", "count": int64(-3)})
	if want := "/cars/..%2Fa%20b%2F%D8%A8%25%3F%23%26%0A/x-3?of=..%2Fa%20b%2F%D8%A8%25%3F%23%26%0A"; err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{"..", ".", ""} {
		if got, err := path("/cars/{name}", Values{"name": bad}); err == nil {
			t.Errorf("%q: %s", bad, got)
		}
	}
}

// TestReplay takes random steps, and each again from what an engine keeps: the
// same comes out, whatever the hooks would say now.
func TestReplay(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	later := compiled(t, changed(t, "fee.yaml"), Hooks{"book@1": feeHooks()["book@1"], "halve@1": {Args: feeHooks()["halve@1"].Args, Gives: Money, Call: func(context.Context, time.Time, Values) (any, error) {
		return nil, errors.New("the tables have changed")
	}}})
	rapid.Check(t, func(t *rapid.T) {
		h, err := p.Open("here", noon, noon)
		if err != nil {
			t.Fatal(err)
		}
		now := noon
		fields := Values{"name": "Ali", "fee": money(rapid.Int64Range(12, 14).Draw(t, "fee"))}
		in := Input{Trigger: "open", Actor: payer, Fields: fields}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "hours")) * time.Hour)
			in.At = now
			out, err := p.Step(context.Background(), h, in)
			if err == nil {
				if out.Let != nil {
					in.Let = out.Let
				}
				again, err := later.Step(context.Background(), kept(t, p, h), in)
				if err != nil || !reflect.DeepEqual(out, again) {
					t.Fatalf("%+v in %s gave\n%+v\nand again\n%+v (%v)", in, h.State, out, again, err)
				}
				for name, v := range out.Facts {
					noFraction(t, name, v)
				}
				h = kept(t, p, out.Half)
			} else if r := (*Refusal)(nil); !errors.As(err, &r) {
				t.Fatal(err)
			}
			in = drawnInput(t, h)
			if at, runs := h.Clocks[in.Trigger]; runs && at.After(now) {
				now = at
			}
		}
	})
}

// kept is a half as an engine reads it back.
func kept(t *rapid.T, p *Program, h Half) Half {
	b, err := h.Facts.AppendJSON(nil)
	if err == nil {
		h.Facts, err = p.d.ReadValues(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func noFraction(t *rapid.T, name string, v any) {
	switch v := v.(type) {
	case string, bool, int64, time.Time:
	case map[string]any:
		for _, e := range v {
			noFraction(t, name, e)
		}
	case []any:
		for _, e := range v {
			noFraction(t, name, e)
		}
	default:
		t.Fatalf("%s holds a %T", name, v)
	}
}

func drawnInput(t *rapid.T, h Half) Input {
	triggers := []string{"try", "try", "try", "move", "find", "tell", "soon", "due", "last", "mend"}
	in := Input{Trigger: rapid.SampledFrom(triggers).Draw(t, "trigger"), Actor: payer}
	number := rapid.SampledFrom([]any{int64(0), int64(7), int64(60), int64(101), int64(1000), 0.5, 1e300, "7"}).Draw(t, "number")
	switch in.Trigger {
	case "try":
		in.Fields = Values{"kind": rapid.SampledFrom([]string{"small", "big"}).Draw(t, "kind")}
		if rapid.Bool().Draw(t, "counted") {
			in.Fields["count"] = number
		}
	case "move":
		in.Actor.Role = "officer"
		in.Fields = Values{"due": noon.Add(time.Duration(rapid.IntRange(0, 500).Draw(t, "due")) * time.Hour)}
	case "find":
		in.Status = rapid.SampledFrom([]int{0, 200, 200, 404}).Draw(t, "status")
		in.Fields = Values{"sure": rapid.SampledFrom([]any{true, false, number}).Draw(t, "sure")}
	case "tell":
		in.Fields = Values{"told": rapid.StringN(0, 25, -1).Draw(t, "told")}
	}
	return in
}

// TestNeeds sees that a message goes with what it needs, or not at all.
func TestNeeds(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml", `, name: "'n' + string(result.half.minor)"`, "", "clear: [sure]", "clear: [sure, name]"), feeHooks())
	h := opened(t, p, Values{"fee": money(50), "count": int64(1)})
	out := step(t, p, h, Input{Trigger: "try", At: noon, Actor: payer, Fields: Values{"kind": "small", "count": int64(200)}})
	if out.State != "HELD" || out.Send != nil || out.Held != "halves.here.states.OPEN.on.try.branches[1].send[0]: fact.name is not known" {
		t.Errorf("got %+v", out)
	}
	if out.Facts["name"] != "Ali" || out.Facts["share"] != nil || out.Facts["count"] != int64(200) {
		t.Errorf("what the branch set is kept: %v", out.Facts)
	}
}

// TestOwnDeadline follows one with at that belongs to a state: once it has
// fired it stays so until the state is left.
func TestOwnDeadline(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml", "soon: {after: P2D}", "soon: {at: fact.due}", "due: {at: fact.due}", "due: {at: fact.due + days(50)}"), feeHooks())
	h := opened(t, p, Values{"due": noon.Add(time.Hour), "fee": money(50)})
	out := step(t, p, h, Input{Trigger: "soon", At: noon.Add(time.Hour)})
	out = step(t, p, out.Half, Input{Trigger: "tell", At: noon.Add(2 * time.Hour)})
	if _, runs := out.Clocks["soon"]; runs || len(out.Fired) != 1 {
		t.Errorf("it runs again: %v, %v", out.Clocks, out.Fired)
	}
	out = step(t, p, out.Half, Input{Trigger: "try", At: noon.Add(3 * time.Hour), Actor: payer, Fields: Values{"kind": "small", "count": int64(8)}, Let: Values{Broken: "no"}})
	out = step(t, p, out.Half, Input{Trigger: "mend", At: noon.Add(30 * time.Hour)})
	if at, runs := out.Clocks["soon"]; !runs || at != noon.Add(time.Hour) || out.Fired != nil {
		t.Errorf("in the state anew it does not run: %v, %v", out.Clocks, out.Fired)
	}
}
