package definition

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// changed is a file of testdata with texts replaced: old, new, …
func changed(t testing.TB, file string, changes ...string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(s, changes[i]) {
			t.Fatalf("testdata/%s has no %q", file, changes[i])
		}
		s = strings.Replace(s, changes[i], changes[i+1], 1)
	}
	return []byte(s)
}

// feeHooks are those that testdata/fee.yaml names; halve fails for 13.
func feeHooks() Hooks {
	return Hooks{
		"halve@1": {
			Args: map[string]Type{"of": Money, "at": Instant}, Gives: Money,
			Call: func(_ context.Context, _ time.Time, args Values) (any, error) {
				m := args["of"].(map[string]any)
				if m["minor"] == int64(13) {
					return nil, errors.New("there is no table of that day")
				}
				return union.Money{Minor: m["minor"].(int64) / 2, Currency: union.Currency(m["currency"].(string))}, nil
			},
		},
		"book@1": {Args: map[string]Type{"amount": Money}},
	}
}

func read(t testing.TB, text []byte) *Definition {
	t.Helper()
	d, err := Read(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func compiled(t testing.TB, text []byte, hooks Hooks) *Program {
	t.Helper()
	p, err := Compile(read(t, text), hooks)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLine(t *testing.T) {
	d := read(t, changed(t, "fee.yaml"))
	line := d.Line("halves.here.states.OPEN.on.try.branches[1]")
	send, none := d.Line("halves.here.states.OPEN.on.try.branches[1].send"), d.Line("halves.here.states.OPEN.on.try.branches[1].send[7].x")
	if line == 0 || line+4 != send || none != send {
		t.Errorf("lines %d, %d, %d", line, send, none)
	}
	if d.Line("nowhere") != 0 {
		t.Error("nowhere has a line")
	}
}

// TestReadRefuses changes one thing at a time, and wants that problem with its
// line, once.
func TestReadRefuses(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"falaj: service/1", "falaj: service/2", `line 2: falaj: "service/2" is not a format`},
		{"name: fee", "name: Fee", "line 3: name: a service is named in small letters"},
		{"version: 1", "version: 0", "versions count from 1"},
		{"version: 1", "version: 1\nowner: me", `line 5: unknown field "owner"`},
		{"version: 1", "version: 1\nversion: 2", "already defined"},
		{"version: 1", "version: one", "line 4: "},
		{"days: 30", "days: 0", "line 8: retention.days: "},
		{"days: 30, basis: law", "days: 30, basis: laws", `there is no basis "laws": there are law`},
		{"  there: {en: There, ar: هناك}\n", "", "a case has two parties; here are 1"},
		{"opens: here", "opens: nowhere", `line 12: opens: there is no party "nowhere": there are here, there`},
		{"payer: {party: here", "payer: {party: moon", `roles.payer.party: there is no party "moon"`},
		{"kind: citizen", "kind: person", `roles.payer.kind: "person" is no kind of role`},
		{"kind: citizen", "kind: citizen, person: due", "roles.payer.person: due is not a text that here owns"},
		{"roles:\n", "roles:\n  second: {party: here, kind: citizen, title: {en: Second, ar: ثان}}\n", "roles.second: here has a citizen's role already, payer"},
		{"  name: {owner: here", "  Name: {owner: here", `facts.Name: "Name" is no name here`},
		{"  name: {owner: here", "  in: {owner: here", `"in" is a word that expressions keep`},
		{"count: {owner: here, type: whole", "count: {owner: here, type: number", `facts.count.type: "number" is no type`},
		{"schema: {maxLength: 20}}\n  count", "}\n  count", "facts.name.schema: a text needs its bound"},
		{"schema: {maxLength: 20}}\n  count", "schema: {maxLength: 20001}}\n  count", "facts.name.schema: a text needs its bound"},
		{"schema: {maxLength: 20}}\n  count", "schema: {maxLength: 20, $ref: other}}\n  count", `"$ref" says nothing here`},
		{"schema: {maxLength: 20}}\n  count", "schema: {maxLength: 20, pattern: '('}}\n  count", "wanted a regular expression"},
		{"schema: {maxLength: 20}}\n  count", "schema: {maxLength: 20, pattern: '^((a?b?c?){99}){5}$'}}\n  count", "the regular expression is too large"},
		{"minimum: 0, maximum: 1000", "minimum: 0.5", "facts.count.schema.minimum: wanted a whole number"},
		{"maxItems: 20, ", "", "facts.photos.schema: a list needs its bound"},
		{"{name: {type: string, maxLength: 40}", "{name: {type: string}", "facts.photos.schema.items.properties.name: a text needs its bound"},
		{"size: {type: integer}", "size: {type: number}", "facts.photos.schema.items.properties.size: say its type"},
		{"type: instant, title: {en: Due", "type: instant, schema: {const: x}, title: {en: Due", "facts.due.schema: a fact of type instant has no schema"},
		{"{minor: {minimum: 0}}", "{minor: {minimum: 0}, rate: {}}", "an amount has minor and currency alone"},
		{"{minor: {minimum: 0}}", "{currency: {enum: [BHD, BTC]}}", "the currencies are [AED BHD"},
		{"{minor: {minimum: 0}}", "{currency: {maxLength: 3}}", "list the currencies"},
		{"small: {en: small one, ar: صغير}", "tiny: {en: small one, ar: صغير}", "tiny is no value of enum"},
		{"small: {en: small one, ar: صغير}", "small: {en: small one}", "a label is a text in both languages"},
		{"fields: [name, count, sure", "fields: [name, nome, sure", `line 38: forms.open.fields[1]: there is no fact "nome"`},
		{"fields: [name, count, sure", "fields: [name, name, sure", "name stands here twice"},
		{"fields: [name, count, sure", "fields: [told, count, sure", "told is not here's to say: its owner is there"},
		{"optional: [count]", "optional: [sure]", "sure is not one of the fields"},
		{"{role: officer", "{role: clerk", `there is no role "clerk": there are officer, payer`},
		{"ask: {from: here, title: {en: Ask, ar: سؤال}, fields: [name, fee]", "ask: {from: here, title: {en: Ask, ar: سؤال}, fields: [told]", "told is not here's to say"},
		{"needs: [name]", "needs: [due]", "messages.ask.needs[0]: due is not one of the fields"},
		{"  tell: {from: there", "  open: {from: there", "open is a"},
		{"method: GET", "method: PUT", `"PUT" is not GET or POST`},
		{"method: GET", "method: GET, send: [name]", "a GET has no body"},
		{"timeout: PT5S", "timeout: PT61S", "at most PT60S"},
		{"timeout: PT5S", "timeout: 5s", `"5s" is not a duration`},
		{"/cars/{name}", "/cars/{secret}", "here does not know secret: no message brings it there"},
		{"/cars/{name}", "/cars/{photos}", "{photos} is of type list, which a path cannot hold"},
		{"{sure: /sure, kind: /kind}", "{told: /sure}", "told is not here's to say"},
		{"{sure: /sure, kind: /kind}", "{sure: sure}", `"sure" is not a JSON pointer`},
		{`{en: "{fee} by`, `{en: "{tax} by`, `there is no fact "tax"`},
		{`{en: "{fee} by`, `{en: "{secret} by`, "here does not know secret"},
		{`{en: "{fee} by`, `{en: "{car} by`, "{car} is of type object, which a text cannot show"},
		{"    start: NEW\n    hold: HELD\n    always", "    start: NEU\n    hold: HELD\n    always", `halves.here.start: there is no state "NEU"`},
		{"    start: NEW\n    hold: HELD\n    always", "    start: DONE\n    hold: HELD\n    always", "DONE is final, so nothing would ever happen"},
		{"    start: NEW\n    hold: HELD\n    always", "    start: NEW\n    hold: DONE\n    always", "what could not be decided has not ended"},
		{"last: {after: P100D}", "last: {after: P1Y}", "line 59: halves.here.always.deadlines.last.after: "},
		{"last: {after: P100D}", "last: {after: P100D, at: now}", "a deadline has one of both"},
		{"        last: {branches: [{to: DONE}]}\n", "", "nothing is done when it passes"},
		{"soon: {after: P2D}", "soon: {after: P2D}, later: {after: P3D}", "halves.here.states.OPEN.deadlines.later: nothing is done"},
		{"          soon: {branches", "          soonest: {branches", `"soonest" is no form, message or call`},
		{"        move: {branches", "        ask: {branches", "the message ask is from here itself"},
		{"on: {ask: {branches", "on: {try: {branches", "the form try is of a role of here, and this half is there's"},
		{"run: halve@1, with: {of: fact.fee, at: now}}}\n            branches:", "run: halve, with: {of: fact.fee, at: now}}}\n            branches:", `"halve" does not name a function and its version`},
		{"refuse: no}\n", "refuse: never}\n", `there is no reason "never": there are no, yes`},
		{"refuse: no}\n", "refuse: no, to: DONE}\n", "what is refused changes nothing"},
		{"soon: {branches: [{set: {count: \"7\"}}]}", "soon: {branches: [{refuse: no}]}", "a deadline cannot be refused"},
		{"soon: {branches: [{set: {count: \"7\"}}]}", "soon: {branches: []}", "there is no branch"},
		{"soon: {branches: [{set: {count: \"7\"}}]}", "soon: {branches: [{set: {told: \"7\"}}]}", "told is not here's to write"},
		{"soon: {branches: [{set: {count: \"7\"}}]}", "soon: {branches: [{clear: [told]}]}", "told is not here's to write"},
		{"soon: {branches: [{set: {count: \"7\"}}]}", "soon: {branches: [{to: NOWHERE}]}", `there is no state "NOWHERE"`},
		{"send: [ask]", "send: [tell]", "the message tell is from there"},
		{"call: [find]", "call: [fund]", `there is no call "fund": there are find`},
		{"notice: [hello]\n                effect", "notice: [bye]\n                effect", `there is no notice "bye"`},
		{"send: [tell]", "send: [tell], call: [find]", "the call find is one of here"},
		{"send: [tell]", "send: [tell], notice: [hello]", "is for a role of the other state"},
		{"reason: yes", "reason: perhaps", `there is no reason "perhaps"`},
		{"appeal: P30D, by: open", "appeal: P30D, final: true", "it can be appealed and cannot"},
		{"appeal: P30D, by: open", "appeal: soon", `"soon" is not a duration`},
		{"clear: [sure]", "clear: [count]", "count is both set and cleared"},
	} {
		text := changed(t, "fee.yaml", c.old, c.new)
		_, err := Read(text)
		var p *Problems
		if !errors.As(err, &p) || !errors.Is(err, ErrDefinition) {
			t.Errorf("%q for %q: %v", c.new, c.old, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: got\n%v\nwanted %q", c.new, c.old, err, c.want)
		}
		for _, one := range p.List {
			if one.Line == 0 && one.Where != "halves" {
				t.Errorf("%q for %q: no line: %s", c.new, c.old, one)
			}
		}
	}
}

// TestReadHostile gives files that keep a parser busy, or try to. Each is
// refused at once.
func TestReadHostile(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'z'; i++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	var stairs strings.Builder
	for i := range 1000 {
		stairs.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	var wide strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&wide, "a%d: b\n", i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":      {"", "does not hold one YAML document"},
		"large":      {strings.Repeat("#", maxFile+1), "larger than"},
		"laughs":     {bomb, "an anchor (&) is not taken"},
		"alias":      {"a: *a", "an alias (*) is not taken"},
		"merge":      {"a: {<<: {b: c}}", "not taken"},
		"tag":        {"a: !!binary x", "a tag (!) is not taken"},
		"complex":    {"? a\n: b", "a complex key (?) is not taken"},
		"directive":  {"%YAML 1.2\n---\na: b", "not taken"},
		"documents":  {"a: b\n---\na: b", "a second document"},
		"brackets":   {strings.Repeat("[", 100_000), "more than 12 brackets"},
		"braces":     {strings.Repeat("{a: ", 20_000), "more than 12 brackets"},
		"dashes":     {strings.Repeat("- ", 50_000), "more than 12 lists"},
		"stairs":     {stairs.String(), "indented by more than"},
		"words":      {wide.String(), "words and signs"},
		"colons":     {strings.Repeat("a: ", 30_000), ""},
		"questions":  {strings.Repeat("? ", 50_000), "not taken"},
		"comments":   {strings.Repeat("#\n", 200_000), ""},
		"binary":     {"a: \x00\xff\xfe", ""},
		"scalar":     {"hello", ""},
		"list":       {"- a", ""},
		"many texts": {"falaj: " + strings.Repeat("x", 900_000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			_, err := Read([]byte(c.text))
			if !errors.Is(err, ErrDefinition) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if len(err.Error()) > 20_000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestManyProblems(t *testing.T) {
	text := "falaj: service/1\nname: x\nversion: 1\npurpose: p\nretention: {days: 1}\nopens: a\nparties: {a: {en: a}, b: {en: b}}\nhalves: {a: {}, b: {}}\nfacts:\n"
	for i := range 200 {
		text += fmt.Sprintf("  f%d: {owner: c, type: text}\n", i)
	}
	_, err := Read([]byte(text))
	var p *Problems
	if !errors.As(err, &p) || len(p.List) != maxProblems || p.More < 300 {
		t.Errorf("got %v", err)
	}
}

func TestDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"P1D": 24 * time.Hour, "P2W": 14 * 24 * time.Hour, "PT12H": 12 * time.Hour, "P1DT6H": 30 * time.Hour, "PT1M30S": 90 * time.Second, "P0D": 0, "P1W2DT3H4M5S": (9*24+3)*time.Hour + 4*time.Minute + 5*time.Second,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "P", "PT", "P1", "1D", "P1Y", "P1M", "P1.5D", "P-1D", "-P1D", "PT1D", "P1H", "P1DT", "P1D1D", "PT1S1M", "P99999999999999999999D", "P36526D", "PT9999999999H", "p1d", "P1D ", "P١D", strings.Repeat("P1D", 20)} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, file := range []string{"loan.yaml", "fee.yaml"} {
		f.Add(changed(f, file))
	}
	f.Add([]byte("falaj: service/1\nname: x\nhalves: {a: {states: {A: {on: {x: {branches: [{set: {a: b}}]}}}}}}"))
	f.Add([]byte("facts: {a: {schema: {properties: {a: {type: object, properties: {}}}}}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Read(b)
		if err != nil {
			if !errors.Is(err, ErrDefinition) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		_, _ = Compile(d, feeHooks())
	})
}
