package definition

import (
	"errors"
	"strings"
	"testing"
)

const fee = `
scenarios:
  - name: one
    start: 2026-11-22T12:00:00Z
    steps:
`

func TestPlay(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	for _, c := range []struct{ steps, want string }{
		{`
      - {at: here, do: open, with: {name: Ali, count: 5, fee: {minor: 50, currency: BHD}}, want: {here: OPEN, here.fee: {minor: 50, currency: BHD}}}
      - {wait: P1D, want: {here.count: 5}}
      - {wait: P1D, want: {here.count: 7}}
      - {at: here, do: try, with: {kind: big}, refused: no}
      - {delay: [tell], answer: {find: {status: 200, body: {sure: true, kind: small}}}}
      - {at: here, do: try, with: {kind: small, count: 200}, want: {here: DONE, here.share: {minor: 25, currency: BHD}, there: DONE, here.told: null}}
      - {deliver: [tell], want: {here.told: ok}}
`, ""},
		{"      - {at: here, do: open, with: {name: Ali}}\n      - {wait: P100D, want: {here: DONE}}", ""},
		{"      - {at: here, do: open, with: {name: Ali}, want: {here: DONE}}", "step 1 (line 6): here should be in DONE, and is in OPEN"},
		{"      - {at: here, do: open, with: {name: Ali}, want: {there: DONE}}", `nothing has happened at "there"`},
		{"      - {at: here, do: open, with: {name: Ali}, want: {here.nome: x}}", `there is no fact "nome"`},
		{"      - {at: here, do: open, with: {name: Ali}, want: {here.name: x}}", "here.name should be x, and is Ali"},
		{"      - {at: here, do: open, with: {name: Ali}, want: {here.name: null}}", "here.name should not be known"},
		{"      - {at: here, do: open, with: {name: Ali}, want: {here.due: \"2026-11-22T12:00:00Z\"}}", "here.due should be known"},
		{"      - {at: here, do: open, with: {name: 5}}", "it was refused: invalid: Name"},
		{"      - {at: here, do: open, with: {name: 5.5}}", "with.name: a value of type float64"},
		{"      - {at: here, do: open, with: {name: Ali}, refused: invalid}", "it should have been refused (invalid), and was taken"},
		{"      - {at: here, do: open, refused: no}", "it should have been refused for no, and was for invalid"},
		{"      - {at: there, do: open, with: {name: Ali}}", "a case begins at here"},
		{"      - {at: here, do: close}", `there is no form "close"`},
		{"      - {delay: [open]}", `there is no message "open"`},
		{"      - {deliver: [tell]}", "no message tell is held back"},
		{"      - {delay: [ask]}\n      - {at: here, do: open, with: {name: Ali, fee: {minor: 50, currency: BHD}, count: 3}}\n      - {at: here, do: try, with: {kind: small, count: 101}}\n      - {deliver: [ask], want: {here.told: ok}}", ""},
		{"      - {answer: {x: null}}", `there is no call "x"`},
		{"      - {hook: {x: 1}}", `there is no function "x"`},
		{"      - {at: here, do: open, with: {name: Ali, fee: {minor: 50, currency: BHD}}}\n      - {at: here, do: try, with: {kind: small}, want: {here: DONE}}", "should be in DONE, and is in HELD (held: halves.here.states.OPEN.on.try.branches[1].if: fact.count is not known)"},
		{"      - {at: here, do: open, with: {name: Ali, fee: {minor: 50, currency: BHD}}}\n      - {hook: {halve@1: null}, at: here, do: try, with: {kind: small, count: 3}, want: {here: OPEN}}", "the scenario lets it fail"},
		{"      - {at: here, do: open, with: {name: Ali, fee: {minor: 50, currency: BHD}, count: 3}}\n      - {hook: {halve@1: {minor: 7, currency: AED}}, at: here, do: try, with: {kind: small, count: 101}, want: {here.share: {minor: 7, currency: AED}}}", ""},
	} {
		all, err := ReadScenarios([]byte(fee + c.steps))
		if err != nil {
			t.Fatal(err)
		}
		trace, err := p.Play(t.Context(), all[0])
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s\n%v\n%s", c.steps, err, trace)
		case c.want != "" && (err == nil || !errors.Is(err, ErrDefinition) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s\ngot %v, wanted %q", c.steps, err, c.want)
		}
	}
}

// TestPlayEnds plays a service that goes round in a circle by itself.
func TestPlayEnds(t *testing.T) {
	text := changed(t, "fee.yaml", "deadlines: {soon: {after: P2D}}", "deadlines: {soon: {at: opened}}", `soon: {branches: [{set: {count: "7"}}]}`, "soon: {branches: [{to: ROUND}]}",
		"      DONE: {title: {en: Done, ar: منتهٍ}, final: true, on", "      ROUND: {title: {en: Round, ar: دائرة}, deadlines: {soon: {at: opened}}, on: {soon: {branches: [{to: OPEN}]}}}\n      DONE: {title: {en: Done, ar: منتهٍ}, final: true, on")
	p := compiled(t, text, feeHooks())
	all, err := ReadScenarios([]byte(fee + "      - {at: here, do: open, with: {name: Ali}}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Play(t.Context(), all[0]); err == nil || !strings.Contains(err.Error(), "go round in a circle") {
		t.Error(err)
	}
}

func TestReadScenariosRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "does not hold one YAML document",
		"scenarios: [{name: a}]":   "say when it begins",
		"scenarios: [{nome: a}]":   `unknown field "nome"`,
		fee + "      - {do: open}": "line 6: scenarios[0].steps[0]: say where it is done",
		fee + "      - {at: here}": "say what is done",
		fee + "      - {at: here, do: open, wait: P1D}": "an act and the passing of time are two steps",
		fee + "      - {wait: 1 day}":                   `"1 day" is not a duration`,
		fee + "      - {refused: x}":                    "say which",
		fee + "      []":                                "a scenario has 1 to 500 steps",
		fee + "      - {wait: P1D}\n  - {name: one, start: 2026-11-22T12:00:00Z, steps: [{wait: P1D}]}": `there is a scenario "one" already`,
		"scenarios: [" + strings.Repeat("{name: a}, ", 501) + "]":                                       "501 scenarios are too many",
		"scenarios: &a [*a]": "not taken",
	} {
		if _, err := ReadScenarios([]byte(text)); !errors.Is(err, ErrDefinition) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200s: got %v, wanted %q", text, err, want)
		}
	}
}

func FuzzReadScenarios(f *testing.F) {
	p := compiled(f, changed(f, "fee.yaml"), feeHooks())
	f.Add([]byte(fee + "      - {at: here, do: open, with: {name: Ali, count: 5, fee: {minor: 50, currency: BHD}}, want: {here: OPEN}}\n      - {wait: P200D}"))
	f.Add([]byte(fee + "      - {delay: [tell], answer: {find: {status: 200, body: {sure: true}}}, hook: {halve@1: 1}}\n      - {deliver: [tell]}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := ReadScenarios(b)
		if err != nil {
			if !errors.Is(err, ErrDefinition) {
				t.Fatal(err)
			}
			return
		}
		for _, s := range all {
			_, _ = p.Play(t.Context(), s)
		}
	})
}
