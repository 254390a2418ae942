package definition

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// guard is fee.yaml with another guard in place of one.
func guard(t testing.TB, expression string) []byte {
	return changed(t, "fee.yaml", "{if: fact.count > 50, to", "{if: '"+strings.ReplaceAll(expression, "'", "''")+"', to")
}

func TestCompileTakes(t *testing.T) {
	for _, expression := range []string{
		"true",
		"fact.fee.minor * 3 / 100 > 5 && fact.fee.currency == 'BHD'",
		"was.fee == fact.fee || !known.fee",
		"result.half.minor > 1 && result.half.currency == fact.fee.currency",
		"fact.due > now + days(3) && opened < now - duration('1h')",
		"now.getFullYear() > 2025 && now.getDayOfWeek() == 5",
		"timestamp('2026-11-22T00:00:00Z') < now",
		"actor == 'payer'",
		"fact.kind in ['small', 'big']",
		"fact.car.make == 'x' && has(fact.car.wheels) && fact.car.wheels == 4",
		"fact.photos.exists(p, p.name.startsWith('a'))",
		"size(fact.photos.filter(p, p.size > 3)) > 1",
		"fact.photos.all(p, fact.photos.exists(q, q.size >= p.size))", // 20 by 20
		"fact.name.contains('x') || size(fact.name) > 3 || fact.told == ''",
		"(fact.sure ? fact.name : 'x') == 'y'",
		"string(fact.count) + 'x' == '4x'",
		"fact.born < '2000-01-01'",
		"{'a': 1}['a'] == 1 && [1, 2][0] == 1",
	} {
		if _, err := Compile(read(t, guard(t, expression)), feeHooks()); err != nil {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	nested := "fact.photos.exists(a, fact.photos.exists(b, fact.photos.exists(c, fact.photos.exists(d, a.size + b.size + c.size + d.size > 3))))"
	long := strings.Repeat("true || ", 300) + "true"
	for expression, want := range map[string]string{
		"fact.count":                       "it gives int, and bool is wanted",
		"fact.nome == 'x'":                 `there is no fact "nome"`,
		"known.nome":                       `there is no fact "nome"`,
		"fact.secret == 'x'":               "here does not know secret: no message brings it there",
		"result.third.minor":               "there is no result.third here: name its hook under `let`",
		"fact.count == 'x'":                "no matching overload",
		"fact.count > ":                    "at column",
		"fact.count > 1.5":                 "there are no fractions",
		"fact.count * 0.5 < 3":             "there are no fractions",
		"1.5 < 2.5":                        "there are no fractions",
		"dyn(1.5) == fact.car.wheels":      "there are no fractions",
		"double(fact.count) > double(1)":   "there are no fractions",
		"fact.name.matches('^(a+)+$')":     "undeclared reference to 'matches'",
		"now.getHours('Asia/Bahrain') > 3": "no matching overload",
		"call.status == 200":               "call.status is there where",
		"undefined":                        "undeclared reference to 'undefined'",
		"system('reboot')":                 "undeclared reference to 'system'",
		nested:                             "it could cost more than",
		long:                               "at column",
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): "at column",
		"[1,2,3,4,5,6,7,8,9].map(a, [1,2,3,4,5,6,7,8,9].map(b, [1,2,3,4,5,6,7,8,9].map(c, [1,2,3,4,5,6,7,8,9].map(d, [1,2,3,4,5,6,7,8,9].map(e, a*b*c*d*e))))).size() > 3": "it could cost more than",
		"fact.fee == 3":      "no matching overload",
		"fact.fee.cents > 3": "no",
	} {
		begun := time.Now()
		_, err := Compile(read(t, guard(t, expression)), feeHooks())
		if expression == "fact.fee.cents > 3" { // an amount is a map: known when it is looked at
			if err != nil {
				t.Errorf("%s: %v", expression, err)
			}
			continue
		}
		var p *Problems
		if !errors.As(err, &p) || !strings.Contains(err.Error(), want) || len(p.List) != 1 || p.List[0].Line == 0 {
			t.Errorf("%.80s: got\n%v\nwanted %q", expression, err, want)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%.80s took %v", expression, took)
		}
	}
}

func TestCompileRefusesElsewhere(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"share: result.half,", "share: result.half.minor,", "set.share: it gives int, and map(string, dyn) is wanted"},
		{`count: "was.count + 1"`, "count: now", "it gives timestamp, and int is wanted"},
		{"with: {of: fact.fee, at: now}}}\n            branches:\n", "with: {of: fact.fee}}}\n            branches:\n", "halve@1 needs at (instant)"},
		{"with: {of: fact.fee, at: now}}}\n            branches:\n", "with: {of: fact.fee, at: now, by: now}}}\n            branches:\n", "halve@1 takes no by"},
		{"with: {of: fact.fee, at: now}}}\n            branches:\n", "with: {of: fact.count, at: now}}}\n            branches:\n", "it gives int, and map(string, dyn) is wanted"},
		{"with: {of: fact.fee, at: now}}}\n            branches:\n", "with: {of: result.half, at: now}}}\n            branches:\n", "there is no result.half here"},
		{"run: halve@1", "run: halve@2", `there is no function "halve@2": there are book@1, halve@1`},
		{"run: halve@1", "run: book@1", "book@1 gives nothing: name it under `effect`"},
		{"run: book@1", "run: halve@1", "halve@1 gives a value and writes nothing: name it under `let`"},
		{"due: {at: fact.due}", "due: {at: fact.count}", "it gives int, and timestamp is wanted"},
		{"due: {at: fact.due}", "due: {at: now + days(3)}", "`now` would move it with each step"},
		{"due: {at: fact.due}", "due: {at: result.half}", "there is no result.half here"},
		{"{if: call.status != 200", "{if: actor == \"x\"", "actor is there where a form"},
	} {
		_, err := Compile(read(t, changed(t, "fee.yaml", c.old, c.new)), feeHooks())
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q for %q: got\n%v\nwanted %q", c.new, c.old, err, c.want)
		}
	}
}

// FuzzExpression compiles and, where that is allowed, runs what comes: it ends
// soon, and gives no fraction.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{"true", "fact.photos.all(p, p.size > 1)", "1/0 == 1", "[1].map(a, a) == [1]", "fact.fee.minor > 9223372036854775807", "fact.name + fact.name == 'a'", "{1: 2}.all(k, k == 1)", "has(fact.car.x)", "type(1) == int", "dyn(1) == dyn('a')", "b'a' == bytes('a')", "1u == uint(1)"} {
		f.Add(s)
	}
	base, err := standard()
	if err != nil {
		f.Fatal(err)
	}
	p := compiled(f, changed(f, "fee.yaml"), feeHooks())
	facts := Values{"name": "n", "count": int64(3), "sure": true, "due": noon, "fee": map[string]any{"minor": int64(5), "currency": "BHD"}, "car": map[string]any{"make": "x"}, "photos": []any{map[string]any{"name": "a", "size": int64(2)}}}
	f.Fuzz(func(t *testing.T, source string) {
		c := &checker{d: p.d, p: &Problems{}}
		k := c.machine("here", Machine{}, base, nil, nil)
		env, _ := base.Extend(declare(k.vars, inFacts, "fact", "photos", List)...)
		env, _ = env.Extend(declare(k.vars, inFacts, "fact", "name", Text)...)
		env, _ = env.Extend(declare(k.vars, inFacts, "fact", "car", Object)...)
		env, _ = env.Extend(declare(k.vars, inFacts, "fact", "fee", Money)...)
		x := &expressions{c: c, env: env, vars: k.vars}
		e := x.compile("here", source, "here", Truth.celType())
		if e == nil {
			if len(c.p.List) != 1 {
				t.Fatalf("%q: no problem was noted", source)
			}
			return
		}
		begun := time.Now()
		if v, err := e.take(&scope{vars: k.vars, facts: facts, was: facts, now: noon, opened: noon}, Truth); err == nil && v != true && v != false {
			t.Fatalf("%q gave %v", source, v)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Fatalf("%q took %v", source, took)
		}
	})
}
