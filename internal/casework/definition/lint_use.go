package definition

import (
	"regexp"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/union"
)

// readsIn finds what expressions read. What stands in a string of one counts
// too: then a fact is taken for used that is not.
var readsIn = regexp.MustCompile(`\b(fact|was|known|result|call)\s*\.\s*([a-zA-Z_]\w*)`)

// reads lists what an expression reads: fact.x, known.y, call.status.
func reads(expression string) []string {
	var out []string
	for _, m := range readsIn.FindAllStringSubmatch(expression, -1) {
		out = append(out, m[1]+"."+m[2])
	}
	return out
}

// facts lists the facts that an expression reads.
func facts(expression string) []string {
	var out []string
	for _, name := range reads(expression) {
		if space, fact, _ := strings.Cut(name, "."); space != "result" && space != "call" {
			out = append(out, fact)
		}
	}
	return out
}

// expressions visits what a trigger evaluates.
func (on On) expressions(visit func(string)) {
	hook := func(h Hook) {
		for _, arg := range order(h.With) {
			visit(h.With[arg])
		}
	}
	for _, name := range order(on.Let) {
		hook(on.Let[name])
	}
	for _, b := range on.Branches {
		visit(b.If)
		for _, fact := range order(b.Set) {
			visit(b.Set[fact])
		}
		for _, h := range b.Effect {
			hook(h)
		}
	}
}

// used finds what is declared and serves nothing, and what is read and never
// written.
func (l *linter) used() {
	d, use := l.d, func(kind, name string) { l.seen[kind+" "+name] = true }
	read := func(names []string) {
		for _, fact := range names {
			use("read", fact)
		}
	}
	d.places(func(p place, on On) {
		use("handled", p.trigger)
		on.expressions(func(x string) { read(facts(x)) })
		for _, name := range order(on.Let) {
			used := false
			on.expressions(func(x string) { used = used || slices.Contains(reads(x), "result."+name) })
			if !used {
				l.warns("unused.hook", p.where+".let."+name, say("Nothing uses what the hook gives.", "لا شيء يستعمل ما يحسبه الخطاف."))
			}
		}
		for _, b := range on.Branches {
			use("reason", b.Refuse)
			if b.Decision != nil {
				use("reason", b.Decision.Reason)
			}
			for _, m := range b.Send {
				use("send", m)
			}
			for _, c := range b.Call {
				use("call", c)
			}
			for _, n := range b.Notice {
				use("notice", n)
			}
			for fact := range b.Set {
				use("write", fact)
			}
		}
	})
	for _, m := range d.Halves {
		for _, x := range m.Always.Deadlines {
			read(facts(x.At))
		}
		for _, state := range m.States {
			for _, x := range state.Deadlines {
				read(facts(x.At))
			}
		}
	}
	for _, c := range d.Calls {
		read(slices.Concat(c.Send, placeholders(c.Path)))
		for fact := range c.Keep {
			use("write", fact)
		}
	}
	for _, n := range d.Notices {
		use("role", n.Role)
		read(slices.Concat(placeholders(n.Title.En), placeholders(n.Text.En)))
	}
	for _, r := range d.Roles {
		read([]string{r.Person})
	}
	for _, f := range d.Forms {
		use("role", f.Role)
		for _, fact := range f.Fields {
			use("write", fact)
		}
	}
	l.unused()
}

func (l *linter) unused() {
	d := l.d
	unused(l, d.Basis, "basis", "unused.basis", "basis", say("Nothing is based on it.", "لا شيء يستند إليه."))
	unused(l, d.Roles, "role", "unused.role", "roles", say("The role fills in no form and gets no notice.", "لا يملأ الدور استمارة ولا يتلقى إشعاراً."))
	for _, name := range order(d.Facts) {
		if l.seen["write "+name] {
			continue
		}
		if text := say("Nothing writes the fact: no form, call or branch.", "لا شيء يكتب المعلومة: لا استمارة ولا استعلام ولا فرع."); l.seen["read "+name] {
			l.fails("fact.unwritten", "facts."+name, text)
		} else {
			l.warns("unused.fact", "facts."+name, text)
		}
	}
	unused(l, d.Forms, "handled", "unused.form", "forms", say("No state accepts the form.", "لا حالة تقبل الاستمارة."))
	unused(l, d.Messages, "send", "unused.message", "messages", say("Nothing sends the message.", "لا شيء يرسل الرسالة."))
	unused(l, d.Calls, "call", "unused.call", "calls", say("Nothing makes the call.", "لا شيء يُجري الاستعلام."))
	unused(l, d.Reasons, "reason", "unused.reason", "reasons", say("Nothing is decided or refused for it.", "لا قرار ولا رفض لأجله."))
	unused(l, d.Notices, "notice", "unused.notice", "notices", say("Nothing gives the notice.", "لا شيء يُرسل الإشعار."))
}

// unused warns of each name of a map that nothing has used.
func unused[V any](l *linter, all map[string]V, kind, rule, at string, text union.Text) {
	for _, name := range order(all) {
		if !l.seen[kind+" "+name] {
			l.warns(rule, at+"."+name, text)
		}
	}
}
