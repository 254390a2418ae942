package definition

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// clean is the service of which lint has nothing to say.
func clean(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/loan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func made(t testing.TB, text []byte) *Definition {
	t.Helper()
	d, err := Read(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNothingIsWrong(t *testing.T) {
	found, m := Lint(made(t, clean(t)))
	for _, f := range found {
		t.Errorf("%s %s %s (line %d): %s\n%v", f.Severity, f.Rule, f.Where, f.Line, f.Text.En, f.Run)
	}
	if !m.Complete || m.Underway != maxUnderway {
		t.Errorf("not all was explored: %+v", m)
	}
	var closed []string
	for _, c := range m.Closed {
		closed = append(closed, c.Party+" "+c.State+" "+c.Message)
	}
	if want := []string{"home WITHDRAWN answer", "host DONE withdrawal"}; !slices.Equal(closed, want) {
		t.Errorf("closed to %q, wanted %q", closed, want)
	}
}

// TestEachRule breaks one thing at a time, and wants that found and nothing
// else, but for what follows from it. What Read refuses, Lint need not find.
func TestEachRule(t *testing.T) {
	text := string(clean(t))
	const limbo = "      LIMBO: {title: {en: Limbo, ar: عالق}, on: {answer: {branches: [{notice: [answered]}]}}}\n"
	for _, c := range []struct {
		rules string
		where string   // of the first
		edit  []string // of the file: old, new, …
	}{
		{"text.missing", "roles.reader.title", []string{"{en: Reader, ar: القارئ}", "{en: Reader, ar: ''}"}},
		{"text.missing", "roles.reader.title", []string{"{en: Reader, ar: القارئ}", "{en: '  ', ar: القارئ}"}},
		{"text.missing", "halves.home.states.ANSWERED.title", []string{"title: {en: Answered, ar: أُجيب}, ", ""}},
		{"text.same", "roles.reader.title", []string{"{en: Reader, ar: القارئ}", "{en: Reader القارئ, ar: Reader القارئ}"}},
		{"text.arabic", "roles.reader.title", []string{"{en: Reader, ar: القارئ}", "{en: Reader, ar: Leser}"}},
		{"text.english", "roles.reader.title", []string{"{en: Reader, ar: القارئ}", "{en: قارئ, ar: القارئ}"}},
		{"text.placeholder", "notices.answered.text", []string{"وصل الرد بشأن {book}.", "وصل الرد."}},
		{"text.placeholder", "notices.answered.text", []string{"وصل الرد بشأن {book}.", "وصل الرد بشأن {name}."}},
		{"read", "retention", []string{"days: 365", "days: 0"}},
		{"read", "retention.basis", []string{"{days: 365, basis: libraries}", "{days: 365, basis: none}"}},
		{"read", "facts.name.personal", []string{"type: text, personal: libraries, title: {en: Name", "type: text, personal: none, title: {en: Name"}},
		{"read", "calls.shelf.basis", []string{"    basis: libraries\n    method", "    method"}},
		{"law.personal", "facts.name", []string{"type: text, personal: libraries, title: {en: Name", "type: text, title: {en: Name"}},
		{"law.person", "roles.patron", []string{"facts:\n", "  patron: {party: host, kind: citizen, title: {en: Patron, ar: الزبون}}\nfacts:\n", "{role: librarian, title: {en: Recall, ar: الاسترداد}, two: true}", "{role: patron, title: {en: Recall, ar: الاسترداد}}"}},
		{"law.person", "roles.reader", []string{"ask: {role: reader,", "ask: {role: helper,"}},
		{"law.two", "forms.withdraw.two", []string{"{role: reader, title: {en: Withdraw,", "{role: reader, two: true, title: {en: Withdraw,"}},
		{"message.everything", "messages.answer.fields", []string{"fields: [lent, until], needs", "fields: [lent, until, there], needs"}},
		{"read", "halves.host.hold", []string{"        deadlines: {mend:", "        final: true\n        deadlines: {mend:"}},
		{"state.exit model.stuck", "halves.home.states.LIMBO", []string{"      ANSWERED: {title", limbo + "      ANSWERED: {title", "resume: {branches: [{to: SENT}]}", "resume: {branches: [{if: known.remark, to: LIMBO}, {to: SENT}]}"}},
		{"state.timeout", "halves.home.states.SENT", []string{"        deadlines: {patience: {after: P60D}}\n", "", "          patience: {branches: [{to: WITHDRAWN, send: [withdrawal]}]}\n", ""}},
		{"state.timeout model.circle", "halves.host.states.HELD", []string{"mend: {branches: [{to: DECIDING}]}", "mend: {branches: [{if: fact.there, to: DECIDING}, {to: HELD}]}"}},
		{"state.timeout", "halves.host.states.HELD", []string{"mend: {branches: [{to: DECIDING}]}", "mend: {branches: [{if: fact.there, set: {lent: 'true'}}, {to: DECIDING}]}"}},
		{"state.timeout", "halves.host.states.HELD", []string{"mend: {branches: [{to: DECIDING}]}", "mend: {branches: [{to: DECIDING, set: {lent: fact.there}}]}"}},
		{"state.timeout", "halves.home.states.SENT", []string{"        deadlines: {patience: {after: P60D}}\n", "", "          patience: {branches: [{to: WITHDRAWN, send: [withdrawal]}]}\n", "",
			"    states:\n      DRAFT:", "    always: {deadlines: {all: {after: P90D}}, on: {all: {branches: [{to: HELD}]}}}\n    states:\n      DRAFT:"}},
		{"", "", []string{"        deadlines: {patience: {after: P60D}}\n", "", "          patience: {branches: [{to: WITHDRAWN, send: [withdrawal]}]}\n", "",
			"    states:\n      DRAFT:", "    always: {deadlines: {all: {after: P90D}}, on: {all: {branches: [{to: WITHDRAWN, send: [withdrawal]}]}}}\n    states:\n      DRAFT:"}},
		{"state.timeout", "halves.host.states.DECIDING", []string{"at: 'opened + duration(\"720h\")'", "at: fact.until"}},
		{"model.circle", "halves", []string{"looking: {branches: [{to: DECIDING}]}", "looking: {branches: [{to: HELD}]}", "mend: {branches: [{to: DECIDING}]}", "mend: {branches: [{to: LOOKING}]}"}},
		{"model.storm unused.reason", "halves", []string{"          shelf:\n            branches:\n              - {if: call.status != 200, to: DECIDING}\n", "          shelf:\n            branches:\n              - {if: call.status == 200, to: DECIDING}\n              - {call: [shelf]}\n#", "              - {if: \"!fact.there\"", "#", "              - {to: DECIDING}\n", ""}},
		{"state.unreachable", "halves.home.states.LOST", []string{"      ANSWERED: {title", "      LOST: {title: {en: Lost, ar: ضائع}, final: true}\n      ANSWERED: {title"}},
		{"read", "halves.home.states.SENT.deadlines.worry", []string{"deadlines: {patience: {after: P60D}}", "deadlines: {patience: {after: P60D}, worry: {after: P1D}}"}},
		{"branch.open", "halves.host.states.LOOKING.on.looking.branches[0]", []string{"looking: {branches: [{to: DECIDING}]}", "looking: {branches: [{if: fact.there, to: DECIDING}]}"}},
		{"branch.shadow", "halves.host.states.LOOKING.on.looking.branches[0]", []string{"looking: {branches: [{to: DECIDING}]}", "looking: {branches: [{to: DECIDING}, {to: HELD}]}"}},
		{"read", "halves.host.states.HELD.on.mend.branches[0].refuse", []string{"mend: {branches: [{to: DECIDING}]}", "mend: {branches: [{refuse: late}]}"}},
		{"read", "halves.home.states.SENT.on.withdraw", []string{"{role: reader, title: {en: Withdraw,", "{role: librarian, title: {en: Withdraw,"}},
		{"read", "forms.withdraw.role", []string{"{role: reader, title: {en: Withdraw,", "{role: nobody, title: {en: Withdraw,"}},
		{"read", "halves.host.states.HELD.on.answer", []string{"mend: {branches: [{to: DECIDING}]}", "mend: {branches: [{to: DECIDING}]}\n          answer: {branches: [{to: DONE}]}"}},
		{"read", "halves.home.states.SENT.on.shelf", []string{"patience: {branches:", "shelf: {branches: [{if: call.status == 0, to: SENT}, {to: SENT}]}\n          patience: {branches:"}},
		{"read", "halves.home.states.SENT.on.repair", []string{"patience: {branches:", "repair: {branches: [{to: WITHDRAWN}]}\n          patience: {branches:"}},
		{"read", "halves.host.states.DECIDING.on.lend.branches[0].decision", []string{"rule: library-2", "rule: ''"}},
		{"read", "halves.host.states.DECIDING.on.deciding.branches[0].decision", []string{"reason: late, rule", "reason: lazy, rule", "  late: {en: Nobody decided in time., ar: لم يبت أحد في الموعد.}\n", ""}},
		{"decision.appeal", "halves.host.states.DECIDING.on.deciding.branches[0].decision", []string{"rule: library-4, appeal: P30D", "rule: library-4"}},
		{"read", "halves.host.states.DECIDING.on.deciding.branches[0].decision", []string{"rule: library-4, appeal: P30D", "rule: library-4, appeal: P30D, final: true"}},
		{"read", "halves.host.states.DECIDING.on.deciding.branches[0].decision.by", []string{"rule: library-4, appeal: P30D", "rule: library-4, appeal: P30D, by: none"}},
		{"two.missing", "forms.recall", []string{"ar: الاسترداد}, two: true", "ar: الاسترداد}"}},
		{"two.missing law.two", "forms.recall", []string{"librarian: {party: host, kind: officer", "librarian: {party: host, kind: system"}},
		{"call.failure", "halves.host.states.LOOKING.on.shelf", []string{"if: call.status != 200", "if: known.there"}},
		{"call.unheard", "halves.home.states.DRAFT.on.ask.branches[0].call", []string{"ask: {branches: [{to: SENT, send: [request]}]}", "ask: {branches: [{to: SENT, send: [request], call: [card]}]}",
			"calls:\n", "calls:\n  card: {party: home, service: cards, basis: libraries, method: GET, path: /, keep: {remark: /remark}, timeout: PT1S}\n"}},
		{"read", "notices.answered", []string{"The answer about {book}", "The answer about {there}", "وصل الرد بشأن {book}.", "وصل الرد بشأن {there}."}},
		{"fact.unwritten", "facts.there", []string{"keep: {there: /there}", "keep: {}"}},
		{"unused.fact", "facts.remark", []string{"fields: [remark]}", "fields: []}"}},
		{"unused.basis", "basis.more", []string{"retention:", "  more: {en: More, ar: أكثر}\nretention:"}},
		{"unused.role", "roles.guard", []string{"facts:\n", "  guard: {party: home, kind: officer, title: {en: Guard, ar: الحارس}}\nfacts:\n"}},
		{"unused.form", "forms.more", []string{"messages:\n", "  more: {role: reader, title: {en: More, ar: أكثر}}\nmessages:\n"}},
		{"unused.message", "messages.more", []string{"calls:\n", "  more: {from: home, title: {en: More, ar: أكثر}}\ncalls:\n"}},
		{"unused.call", "calls.card", []string{"calls:\n", "calls:\n  card: {party: home, service: cards, basis: libraries, method: GET, path: /, keep: {remark: /remark}, timeout: PT1S}\n"}},
		{"unused.reason", "reasons.more", []string{"notices:\n", "  more: {en: More, ar: أكثر}\nnotices:\n"}},
		{"unused.notice", "notices.more", []string{"halves:\n", "  more: {role: reader, title: {en: More, ar: أكثر}, text: {en: More, ar: أكثر}}\nhalves:\n"}},
		{"unused.hook", "halves.host.states.DECIDING.on.lend.let.until", []string{"set: {until: result.until}", "set: {until: now}"}},
		{"on.never", "halves.home.states.DRAFT.on.answer", []string{"          ask: {branches", "          answer: {branches: [{to: ANSWERED}]}\n          ask: {branches"}},
		{"message.unexpected", "halves.host.states.LOOKING", []string{"    always:\n      on:\n        withdrawal: {branches: [{to: STOPPED}]}\n", "    always:\n      on:\n",
			"lend:\n", "withdrawal: {branches: [{to: STOPPED}]}\n          lend:\n", "mend: {branches", "withdrawal: {branches: [{to: STOPPED}]}\n          mend: {branches",
			"          request: {branches", "          withdrawal: {branches: [{to: STOPPED}]}\n          request: {branches"}},
		{"crossing.missing", "crossings", []string{"  - pair: [withdrawal, answer]\n    ends: {home: [WITHDRAWN], host: [DONE]}\n", "#", "    why: {en: \"The reader", "# why: {en: \"The reader"}},
		{"crossing.ends", "crossings[0].ends.host", []string{"host: [DONE]}", "host: [DONE, STOPPED]}"}},
		{"crossing.ends", "crossings[0].ends.home", []string{"home: [WITHDRAWN],", ""}},
		{"crossing.impossible", "crossings[1]", []string{"crossings:\n", "crossings:\n  - {pair: [withdrawal, answer], ends: {home: [WITHDRAWN], host: [DONE]}, why: {en: a, ar: ا}}\n", "pair: [withdrawal, answer]\n", "pair: [answer, request]\n"}},
		{"crossing.twice", "crossings[1]", []string{"crossings:\n", "crossings:\n  - {pair: [answer, withdrawal], ends: {home: [WITHDRAWN], host: [DONE]}, why: {en: a, ar: ا}}\n"}},
	} {
		t.Run(c.rules+" "+c.where, func(t *testing.T) {
			broken := text
			for i := 0; i < len(c.edit); i += 2 {
				if n := strings.Count(broken, c.edit[i]); n != 1 {
					t.Fatalf("%q stands there %d times", c.edit[i], n)
				}
				broken = strings.Replace(broken, c.edit[i], c.edit[i+1], 1)
			}
			if c.rules == "read" {
				_, err := Read([]byte(broken))
				var p *Problems
				if !errors.As(err, &p) || !slices.ContainsFunc(p.List, func(p Problem) bool { return strings.HasPrefix(p.Where, c.where) && p.Line > 0 }) {
					t.Errorf("Read says %v", err)
				}
				return
			}
			d, err := Read([]byte(broken))
			if err != nil {
				t.Fatal(err)
			}
			found, _ := Lint(d)
			var rules []string
			var first *Finding
			for i, f := range found {
				if !slices.Contains(rules, f.Rule) {
					rules = append(rules, f.Rule)
				}
				if strings.HasPrefix(c.rules+" ", f.Rule+" ") && first == nil {
					first = &found[i]
				}
				if f.Text.En == "" || !strings.ContainsFunc(f.Text.Ar, func(r rune) bool { return r >= 'ء' && r <= 'ي' }) || strings.Contains(f.Text.En+f.Text.Ar, "%!") {
					t.Errorf("%s says %q", f.Rule, f.Text)
				}
			}
			want := strings.Fields(c.rules)
			slices.Sort(rules)
			slices.Sort(want)
			if !slices.Equal(rules, want) {
				t.Errorf("found %q", rules)
				for _, f := range found {
					t.Log(f.Rule, f.Where, f.Text.En)
				}
			}
			if c.rules == "" {
				return
			}
			if first == nil || first.Where != c.where {
				t.Errorf("found at %v", first)
			} else if first.Line == 0 {
				t.Error("without a line")
			}
		})
	}
}
