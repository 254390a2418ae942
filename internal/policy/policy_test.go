package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"

	"pgregory.net/rapid"
)

func client(t testing.TB, s string) union.SubsystemID {
	t.Helper()
	id, err := union.ParseClient(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func service(t testing.TB, s string) union.ServiceID {
	t.Helper()
	id, err := union.ParseService(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// question is one that the base rules and agreement allow in both roles.
func question(t testing.TB, role policy.Role) policy.Question {
	return policy.Question{
		Role: role, Client: client(t, "SA/GOV/moi/traffic"), Service: service(t, "BH/GOV/interior/traffic/vehicles"),
		Method: "GET", Path: "/vehicles/123456", Purpose: "traffic-violation", Basis: "Article 5", At: noon(),
	}
}

func agreement(t testing.TB) policy.Agreement {
	q := question(t, policy.Provider)
	return policy.Agreement{
		ID: "BH-SA-1", Client: q.Client, Service: q.Service, Purposes: []string{"traffic-violation"},
		Endpoints: []policy.Endpoint{{Method: "GET", Path: "/vehicles/{plate}"}, {Method: "*", Path: "/notices/**"}},
		From:      noon().AddDate(0, -1, 0), Until: noon().AddDate(0, 1, 0),
		Basis: union.Text{En: "Traffic agreement of 2024, article 5", Ar: "اتفاقية المرور لعام 2024، المادة 5"},
	}
}

func base() []policy.Source {
	return []policy.Source{
		{Name: "policy.cedar", State: "BH", Text: policy.Base("BH")},
		{Name: "policy.cedar", State: "SA", Text: policy.Base("SA")},
	}
}

func compile(t testing.TB, sources []policy.Source, agreements ...policy.Agreement) *policy.Set {
	t.Helper()
	s, err := policy.Compile(sources, agreements)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ids(d policy.Decision) string {
	var s []string
	for _, r := range d.Rules {
		s = append(s, r.ID)
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

func rule(effect, id, when string) policy.Source {
	return policy.Source{Name: "local.cedar", State: "BH", Text: fmt.Sprintf(`@id(%q) @en("Rule %s") @ar("القاعدة %s") %s (principal, action, resource) when { %s };`, id, id, id, effect, when)}
}

func TestBase(t *testing.T) {
	set := compile(t, base(), agreement(t))
	for _, c := range []struct {
		name  string
		role  policy.Role
		edit  func(*policy.Question)
		allow bool
		rules string
	}{
		{"consumer", policy.Consumer, nil, true, "own-subsystems"},
		{"provider", policy.Provider, nil, true, "BH-SA-1"},
		{"consumer without a purpose", policy.Consumer, func(q *policy.Question) { q.Purpose, q.Basis = "", "" }, false, "no-rule"},
		{"provider without a purpose", policy.Provider, func(q *policy.Question) { q.Purpose, q.Basis = "", "" }, false, "no-known-purpose"},
		{"an unknown purpose is forbidden though agreed", policy.Provider, func(q *policy.Question) { q.Basis = "" }, false, "no-known-purpose"},
		{"another purpose", policy.Provider, func(q *policy.Question) { q.Purpose = "pension" }, false, "no-rule"},
		{"another client", policy.Provider, func(q *policy.Question) { q.Client = client(t, "SA/GOV/moi/other") }, false, "no-rule"},
		{"the client's member", policy.Provider, func(q *policy.Question) { q.Client = client(t, "SA/GOV/moi") }, false, "no-rule"},
		{"a client of another state", policy.Provider, func(q *policy.Question) { q.Client = client(t, "OM/GOV/moi/traffic") }, false, "no-rule"},
		{"another service", policy.Provider, func(q *policy.Question) { q.Service = service(t, "BH/GOV/interior/traffic/persons") }, false, "no-rule"},
		{"another method", policy.Provider, func(q *policy.Question) { q.Method = "DELETE" }, false, "no-rule"},
		{"a method in small letters", policy.Provider, func(q *policy.Question) { q.Method = "get" }, false, "no-rule"},
		{"any method of the second endpoint", policy.Provider, func(q *policy.Question) { q.Method, q.Path = "POST", "/notices/1/2" }, true, "BH-SA-1"},
		{"another path", policy.Provider, func(q *policy.Question) { q.Path = "/vehicles" }, false, "no-rule"},
		{"a deeper path", policy.Provider, func(q *policy.Question) { q.Path = "/vehicles/1/holder" }, false, "no-rule"},
		{"a traversal", policy.Provider, func(q *policy.Question) { q.Path = "/notices/../vehicles" }, false, "path"},
		{"at the first moment", policy.Provider, func(q *policy.Question) { q.At = noon().AddDate(0, -1, 0) }, true, "BH-SA-1"},
		{"before it", policy.Provider, func(q *policy.Question) { q.At = noon().AddDate(0, -1, 0).Add(-time.Millisecond) }, false, "no-rule"},
		{"at the last moment", policy.Provider, func(q *policy.Question) { q.At = noon().AddDate(0, 1, 0).Add(-time.Millisecond) }, true, "BH-SA-1"},
		{"after it", policy.Provider, func(q *policy.Question) { q.At = noon().AddDate(0, 1, 0) }, false, "no-rule"},
		{"another time zone", policy.Provider, func(q *policy.Question) { q.At = noon().In(time.FixedZone("", 3*3600)) }, true, "BH-SA-1"},
		{"no role", "", nil, false, "question"},
		{"no time", policy.Provider, func(q *policy.Question) { q.At = time.Time{} }, false, "question"},
		{"a consumer state without rules", policy.Consumer, func(q *policy.Question) { q.Client = client(t, "OM/GOV/a/b") }, false, "no-rule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := question(t, c.role)
			if c.edit != nil {
				c.edit(&q)
			}
			d := set.Decide(q)
			if d.Allow != c.allow || ids(d) != c.rules {
				t.Errorf("allow %v by %q; want %v by %q (%v)", d.Allow, ids(d), c.allow, c.rules, d.Errors)
			}
			for _, r := range d.Rules {
				if r.En == "" || r.Ar == "" || r.Source == "" || (r.Effect == policy.Permit) != c.allow {
					t.Errorf("rule %+v", r)
				}
			}
			if x := set.Explain(q); x.Allow != d.Allow || ids(x.Decision) != ids(d) {
				t.Errorf("Explain differs: %+v", x.Decision)
			}
		})
	}
}

func TestHostilePathIsDenied(t *testing.T) {
	a := agreement(t)
	a.Endpoints = []policy.Endpoint{{Method: "*", Path: "/public/**"}}
	all := a
	all.ID, all.Endpoints = "all", nil
	set := compile(t, append(base(), rule("permit", "all-paths", "true")), a, all)
	for _, p := range hostilePaths() {
		q := question(t, policy.Provider)
		q.Path = p
		d := set.Decide(q)
		if d.Allow || ids(d) != "path" {
			t.Errorf("%.60q: %+v", p, d)
		}
		if s := fmt.Sprint(d); strings.Contains(s, "secret") {
			t.Errorf("the decision quotes the path: %s", s)
		}
	}
}

// A Cedar forbid that cannot be evaluated is skipped; here it denies.
func TestErrorDenies(t *testing.T) {
	for _, effect := range []string{"permit", "forbid"} {
		// The validator lets no rule through that could fail on a text; what is
		// left is arithmetic: noon in milliseconds overflows, midnight is zero.
		broken := rule(effect, "broken", `context.at.toTime().toMilliseconds() * 9223372036854775807 > 0`)
		set := compile(t, append(base(), broken), agreement(t))
		q := question(t, policy.Provider)
		d := set.Decide(q)
		if d.Allow || ids(d) != "broken rule-error" || len(d.Errors) != 1 || !strings.Contains(d.Errors[0], `"broken"`) {
			t.Errorf("%s: %+v", effect, d)
		}
		if strings.Contains(fmt.Sprint(d), "overflow") {
			t.Errorf("the decision quotes the evaluator, which may quote values: %+v", d)
		}
		q.At = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
		if d := set.Decide(q); !d.Allow {
			t.Errorf("%s that does not match: %+v", effect, d)
		}
	}
}

func TestForbidOverridesPermit(t *testing.T) {
	set := compile(t, append(base(), rule("forbid", "not-sensitive", `context.dataClass == "sensitive" && context.purpose != "health"`)), agreement(t))
	q := question(t, policy.Provider)
	q.DataClass = "sensitive"
	if d := set.Decide(q); d.Allow || ids(d) != "not-sensitive" {
		t.Errorf("%+v", d)
	}
	q.DataClass = "public"
	if d := set.Decide(q); !d.Allow || ids(d) != "BH-SA-1" {
		t.Errorf("%+v", d)
	}
}

// What a rule may ask is there, and is what it is said to be.
func TestContext(t *testing.T) {
	q := question(t, policy.Provider)
	q.DataClass, q.Path = "d", "/vehicles/%D8%A8"
	for _, when := range []string{
		`principal in State::"SA"`, `principal in Member::"SA/GOV/moi"`, `principal == Subsystem::"SA/GOV/moi/traffic"`,
		`resource in State::"BH"`, `resource in Member::"BH/GOV/interior"`, `resource in Subsystem::"BH/GOV/interior/traffic"`,
		`!(principal in State::"BH")`, `!(resource in State::"SA")`,
		`principal.state == "SA" && principal.class == "GOV" && principal.member == "moi" && principal.code == "traffic"`,
		`resource.state == "BH" && resource.class == "GOV" && resource.member == "interior" && resource.subsystem == "traffic" && resource.code == "vehicles"`,
		`context.role == "provider" && context.method == "GET" && context.path == "/vehicles/ب"`,
		`context.purpose == "traffic-violation" && context.basis == "Article 5" && context.dataClass == "d"`,
		`context.clientState == "SA" && context.serviceState == "BH"`,
		`context.at == datetime("2026-03-01T12:00:00Z")`,
		`context.endpoints == ["GET /vehicles/{plate}"]`,
	} {
		set := compile(t, []policy.Source{rule("permit", "asked", when)}, agreement(t))
		if d := set.Decide(q); !strings.Contains(ids(d), "asked") {
			t.Errorf("%s: %+v", when, d)
		}
	}
}

func TestFaultySource(t *testing.T) {
	good := `@id("a") @en("x") @ar("س") permit (principal, action, resource);`
	for name, text := range map[string]string{
		"not Cedar":             `permit all`,
		"no id":                 `@en("x") @ar("س") permit (principal, action, resource);`,
		"no English":            `@id("a") @ar("س") permit (principal, action, resource);`,
		"no Arabic":             `@id("a") @en("x") permit (principal, action, resource);`,
		"empty Arabic":          `@id("a") @en("x") @ar("") permit (principal, action, resource);`,
		"Arabic in Latin":       `@id("a") @en("x") @ar("x") permit (principal, action, resource);`,
		"control in text":       `@id("a") @en("x\u{1b}[0m") @ar("س") permit (principal, action, resource);`,
		"turned text":           `@id("a") @en("x\u{202e}") @ar("س") permit (principal, action, resource);`,
		"id taken":              good + good,
		"an attribute mistyped": `@id("a") @en("x") @ar("س") forbid (principal, action, resource) when { context.purpos == "p" };`,
		"what no call tells":    `@id("a") @en("x") @ar("س") forbid (principal, action, resource) when { context.consent == "" };`,
		"a type mistyped":       `@id("a") @en("x") @ar("س") forbid (principal in Stat::"BH", action, resource);`,
		"an action mistyped":    `@id("a") @en("x") @ar("س") forbid (principal, action == Action::"cal", resource);`,
		"text against number":   `@id("a") @en("x") @ar("س") forbid (principal, action, resource) when { context.purpose < 3 };`,
		"too deep":              `@id("a") @en("x") @ar("س") permit (principal, action, resource) when { ` + strings.Repeat("(", 40) + "true" + strings.Repeat(")", 40) + ` };`,
		"a text made a number":  `@id("a") @en("x") @ar("س") forbid (principal, action, resource) when { decimal(context.purpose) == decimal("1.0") };`,
		"far too deep":          strings.Repeat("(", 200_000),
		"too many nots":         `@id("a") @en("x") @ar("س") permit (principal, action, resource) when { ` + strings.Repeat("!", 200_000) + `true };`,
		"too long a rule":       `@id("a") @en("x") @ar("س") permit (principal, action, resource) when { context.purpose == "` + strings.Repeat("a", 20_000) + `" };`,
		"too long":              "// " + strings.Repeat(good, 10_000),
		"too many":              manyRules(1001),
		"an open text":          `@id("a`,
		"NUL":                   "\x00",
		"not UTF-8":             good + "// \xff",
	} {
		t.Run(name, func(t *testing.T) {
			sources := append(base(), policy.Source{Name: "faulty", State: "BH", Text: text})
			set, err := policy.Compile(sources, []policy.Agreement{agreement(t)})
			if name == "not UTF-8" && err == nil {
				return // inside a comment it does no harm
			}
			if err == nil || set == nil || len(err.Error()) > 1000 {
				t.Fatalf("%v, %.2000v", set, err)
			}
			if d := set.Decide(question(t, policy.Provider)); d.Allow || ids(d) != "source-error" {
				t.Errorf("the faulty state: %+v", d)
			}
			if d := set.Decide(question(t, policy.Consumer)); !d.Allow {
				t.Errorf("the other state suffers: %+v", d)
			}
		})
	}
	compile(t, append(base(), policy.Source{Name: "good", State: "BH", Text: manyRules(990) + " // ({[; \"\n"}))
	if _, err := policy.Compile([]policy.Source{{Name: "x", State: "bh", Text: ""}}, nil); err == nil {
		t.Error("a state in small letters")
	}
	for _, name := range []string{"", "agreement", "falaj", "a\nb"} {
		if _, err := policy.Compile([]policy.Source{{Name: name, State: "BH", Text: ""}}, nil); err == nil {
			t.Errorf("a source named %q", name)
		}
	}
	// Evidence names source and id: another source may use the id again.
	set := compile(t, append(base(), rule("forbid", "no-known-purpose", "true")), agreement(t))
	if d := set.Decide(question(t, policy.Provider)); d.Allow || d.Rules[0].Source != "local.cedar" {
		t.Errorf("%+v", d)
	}
}

func manyRules(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "@id(\"r%d\") @en(\"x;\") @ar(\"س\") permit (principal, action, resource) when { context.purpose == \"p%d\" };\n", i, i)
	}
	return b.String()
}

func TestFaultyAgreement(t *testing.T) {
	for name, edit := range map[string]func(*policy.Agreement){
		"no id":            func(a *policy.Agreement) { a.ID = "" },
		"an id of lines":   func(a *policy.Agreement) { a.ID = "a\nb" },
		"no purpose":       func(a *policy.Agreement) { a.Purposes = nil },
		"an empty purpose": func(a *policy.Agreement) { a.Purposes = []string{""} },
		"no Arabic":        func(a *policy.Agreement) { a.Basis.Ar = "" },
		"no client":        func(a *policy.Agreement) { a.Client = union.SubsystemID{} },
		"no service":       func(a *policy.Agreement) { a.Service = union.ServiceID{} },
		"a bad client":     func(a *policy.Agreement) { a.Client.Code = ".." },
		"a bad pattern":    func(a *policy.Agreement) { a.Endpoints[0].Path = "/a/../b" },
		"a bad method":     func(a *policy.Agreement) { a.Endpoints[0].Method = "get" },
		"no method":        func(a *policy.Agreement) { a.Endpoints[0].Method = "" },
		"ends before":      func(a *policy.Agreement) { a.Until = a.From },
		"many endpoints":   func(a *policy.Agreement) { a.Endpoints = make([]policy.Endpoint, 201) },
		"many purposes":    func(a *policy.Agreement) { a.Purposes = make([]string, 101) },
		"a long basis":     func(a *policy.Agreement) { a.Basis.En = strings.Repeat("a", 3000) },
	} {
		t.Run(name, func(t *testing.T) {
			bad, good := agreement(t), agreement(t)
			edit(&bad)
			good.ID, good.Endpoints = "good", []policy.Endpoint{{Method: "PUT", Path: "/x"}}
			set, err := policy.Compile(base(), []policy.Agreement{bad, good})
			if err == nil {
				t.Fatal("it is accepted")
			}
			if d := set.Decide(question(t, policy.Provider)); d.Allow {
				t.Errorf("it allows: %+v", d)
			}
			q := question(t, policy.Provider)
			q.Method, q.Path = "PUT", "/x"
			if d := set.Decide(q); !d.Allow || ids(d) != "good" {
				t.Errorf("the good one suffers: %+v", d)
			}
		})
	}
	twice := agreement(t)
	twice.Endpoints = nil
	set, err := policy.Compile(base(), []policy.Agreement{agreement(t), twice})
	q := question(t, policy.Provider)
	q.Path = "/anything"
	if d := set.Decide(q); err == nil || d.Allow {
		t.Errorf("a second agreement under a taken id: %v, %+v", err, d)
	}
}

func TestManyAgreements(t *testing.T) {
	var many []policy.Agreement
	for i := range 10_001 {
		a := agreement(t)
		a.ID = fmt.Sprint("n", i)
		a.Client.Code = fmt.Sprint("m", i)
		many = append(many, a)
	}
	set, err := policy.Compile(base(), many)
	if err == nil || !strings.Contains(err.Error(), "more than 10000") {
		t.Errorf("%v", err)
	}
	q := question(t, policy.Provider)
	q.Client.Code = "m9999"
	if d := set.Decide(q); !d.Allow || ids(d) != "n9999" {
		t.Errorf("%+v", d)
	}
	q.Client.Code = "m10000"
	if d := set.Decide(q); d.Allow {
		t.Errorf("%+v", d)
	}
	var pair []policy.Agreement
	for i := range 101 {
		a := agreement(t)
		a.ID = fmt.Sprint("n", i)
		pair = append(pair, a)
	}
	if _, err := policy.Compile(base(), pair); err == nil {
		t.Error("101 agreements of a pair")
	}
}

// An agreement's permit is Cedar that stands on its own.
func TestAgreementCedar(t *testing.T) {
	a := agreement(t)
	set := compile(t, append(base(), policy.Source{Name: "by hand", State: "BH", Text: a.Cedar()}))
	if d := set.Decide(question(t, policy.Provider)); d.Allow {
		t.Errorf("without the agreement nothing fits its endpoints: %+v", d)
	}
	a.Endpoints = nil
	set = compile(t, append(base(), policy.Source{Name: "by hand", State: "BH", Text: a.Cedar()}))
	if d := set.Decide(question(t, policy.Provider)); !d.Allow || ids(d) != "BH-SA-1" {
		t.Errorf("%+v\n%s", d, a.Cedar())
	}
	hostile := agreement(t)
	hostile.ID = `x") permit (principal, action, resource); @id("y`
	if text := hostile.Cedar(); strings.Count(text, "permit") != 2 || !strings.Contains(text, `\"`) {
		t.Errorf("an id breaks out of its annotation: %s", text)
	}
}

func TestExplain(t *testing.T) {
	late := agreement(t)
	late.ID, late.From, late.Until, late.Purposes = "late", noon().AddDate(1, 0, 0), time.Time{}, []string{"pension"}
	late.Endpoints = []policy.Endpoint{{Method: "PUT", Path: "/"}}
	past := agreement(t)
	past.ID, past.From, past.Until = "past", time.Time{}, noon()
	set := compile(t, append(base(), rule("permit", "fails", `context.at.toTime().toMilliseconds() * 9223372036854775807 > 0`)), agreement(t), late, past)
	x := set.Explain(question(t, policy.Provider))
	got := map[string]string{}
	for _, c := range x.Considered {
		got[c.ID] = string(c.Outcome)
		for _, w := range c.Why {
			got[c.ID] += "; " + w.En
			if !w.Complete() {
				t.Errorf("%+v", w)
			}
		}
		if !strings.Contains(c.Cedar, "principal") {
			t.Errorf("%s: Cedar text %q", c.ID, c.Cedar)
		}
	}
	for id, want := range map[string]string{
		"BH-SA-1": "matched", "fails": "failed", "own-subsystems": "not-matched", "no-known-purpose": "not-matched",
		"late": "not-matched; It is not for this purpose.; It is not in force yet.; It does not open this method and path.",
		"past": "not-matched; It has ended.",
	} {
		if got[id] != want {
			t.Errorf("%s: %q, want %q", id, got[id], want)
		}
	}
	if x.Allow || len(x.Considered) != 6 {
		t.Errorf("%+v", x)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(policy.Base("BH"))
	f.Add(agreement(f).Cedar())
	f.Add(rule("forbid", "a", `context.path like "/a/*" || decimal(context.purpose) == decimal("1.0")`).Text)
	f.Add(rule("permit", "a", `ip(context.purpose).isInRange(ip("10.0.0.0/8")) && [1, 2].containsAny([3])`).Text)
	f.Add(`@id("a") @en("x") @ar("س") permit (principal is Subsystem in State::"SA", action in [Action::"call"], resource) unless { if true then context.at.toTime() > duration("1h") else {"a": 9223372036854775807 + 1}.a > 0 };`)
	f.Fuzz(func(t *testing.T, text string) {
		set, err := policy.Compile([]policy.Source{{Name: "fuzz", State: "BH", Text: text}}, nil)
		q := question(t, policy.Provider)
		d := set.Decide(q)
		if len(d.Rules) == 0 || err != nil && ids(d) != "source-error" || d.Allow && len(d.Errors) > 0 {
			t.Errorf("%v: %+v", err, d)
		}
		for _, r := range d.Rules {
			if r.ID == "" || r.En == "" || r.Ar == "" {
				t.Errorf("%+v", r)
			}
		}
		if x := set.Explain(q); x.Allow != d.Allow {
			t.Errorf("Explain differs")
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	var agreements []policy.Agreement
	for i := range 200 {
		a := agreement(b)
		a.ID = fmt.Sprint("n", i)
		if i > 0 {
			a.Client.Code = fmt.Sprint("m", i)
		}
		agreements = append(agreements, a)
	}
	set := compile(b, base(), agreements...)
	for _, role := range []policy.Role{policy.Consumer, policy.Provider} {
		b.Run(string(role), func(b *testing.B) {
			q := question(b, role)
			b.ReportAllocs()
			for b.Loop() {
				if !set.Decide(q).Allow {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	var agreements []policy.Agreement
	for i := range 200 {
		a := agreement(b)
		a.ID = fmt.Sprint("n", i)
		agreements = append(agreements, a)
		agreements[i].Client.Code = fmt.Sprint("m", i)
	}
	for b.Loop() {
		if _, err := policy.Compile(base(), agreements); err != nil {
			b.Fatal(err)
		}
	}
}

// A decision from memory is the one that the rules would give: a set that was
// asked many questions answers each as one that was never asked before.
func TestMemory(t *testing.T) {
	for name, local := range map[string]policy.Source{
		"no path":       rule("forbid", "no", `context.method == "DELETE"`),
		"path":          rule("forbid", "no", `context.path like "*/2*"`),
		"hidden path":   rule("forbid", "no", `context["p\u{61}th"] == "/vehicles/2"`),
		"time":          rule("forbid", "no", `context.at >= datetime("2026-03-01T12:00:01Z")`),
		"whole context": rule("forbid", "no", `context.role == "provider" && context has at && context.purpose == "tax"`),
	} {
		t.Run(name, func(t *testing.T) {
			fresh := func() *policy.Set { return compile(t, append(base(), local), agreement(t)) }
			asked := fresh()
			rapid.Check(t, func(rt *rapid.T) {
				q := question(t, rapid.SampledFrom([]policy.Role{policy.Consumer, policy.Provider}).Draw(rt, "role"))
				q.Method = rapid.SampledFrom([]string{"GET", "DELETE"}).Draw(rt, "method")
				q.Path = rapid.SampledFrom([]string{"/vehicles/1", "/vehicles/2", "/vehicles/%32", "/notices/2/a", "/other"}).Draw(rt, "path")
				q.Purpose = rapid.SampledFrom([]string{"traffic-violation", "tax"}).Draw(rt, "purpose")
				q.DataClass = rapid.SampledFrom([]string{"", "d"}).Draw(rt, "class")
				q.At = q.At.Add(time.Duration(rapid.IntRange(0, 4).Draw(rt, "half seconds")) * time.Second / 2)
				want, got := fresh().Decide(q), asked.Decide(q)
				if got.Allow != want.Allow || ids(got) != ids(want) {
					rt.Fatalf("%+v: remembered %v %q, fresh %v %q", q, got.Allow, ids(got), want.Allow, ids(want))
				}
			})
		})
	}
}
