package definition

import (
	"slices"
	"strings"
	"unicode"

	"github.com/falaj/falaj/internal/union"
)

// texts holds every text to both languages.
func (l *linter) texts() {
	d := l.d
	l.text("title", d.Title)
	for _, at := range []struct {
		where string
		texts map[string]union.Text
	}{{"basis", d.Basis}, {"parties", d.Parties}, {"reasons", d.Reasons}} {
		for _, name := range order(at.texts) {
			l.text(at.where+"."+name, at.texts[name])
		}
	}
	for _, name := range order(d.Roles) {
		l.text("roles."+name+".title", d.Roles[name].Title)
	}
	for _, name := range order(d.Facts) {
		l.text("facts."+name+".title", d.Facts[name].Title)
		if help := d.Facts[name].Help; help != (union.Text{}) {
			l.text("facts."+name+".help", help)
		}
	}
	for _, name := range order(d.Forms) {
		l.text("forms."+name+".title", d.Forms[name].Title)
	}
	for _, name := range order(d.Messages) {
		l.text("messages."+name+".title", d.Messages[name].Title)
	}
	for _, name := range order(d.Notices) {
		l.text("notices."+name+".title", d.Notices[name].Title)
		l.text("notices."+name+".text", d.Notices[name].Text)
	}
	for _, party := range d.parties() {
		for _, state := range order(d.Halves[party].States) {
			l.text("halves."+party+".states."+state+".title", d.Halves[party].States[state].Title)
		}
	}
	for i, c := range d.Crossings {
		l.text(crossingAt(i)+".why", c.Why)
	}
}

func (l *linter) text(where string, t union.Text) {
	en, ar := strings.TrimSpace(t.En), strings.TrimSpace(t.Ar)
	switch {
	case en == "" && ar == "":
		l.fails("text.missing", where, say("It has no text.", "لا نص له."))
	case en == "":
		l.fails("text.missing", where, say("It has no English text.", "لا نص له بالإنجليزية."))
	case ar == "":
		l.fails("text.missing", where, say("It has no Arabic text.", "لا نص له بالعربية."))
	case en == ar && strings.ContainsFunc(en, unicode.IsLetter):
		l.fails("text.same", where, say("Both languages say the same: %q.", "النص واحد في اللغتين: %q.", en))
	case !in(ar, unicode.Arabic) && strings.ContainsFunc(en+ar, unicode.IsLetter):
		l.fails("text.arabic", where, say("The Arabic text has no Arabic letters: %q.", "النص العربي خالٍ من الحروف العربية: %q.", ar))
	case !in(en, unicode.Latin) && strings.ContainsFunc(en+ar, unicode.IsLetter):
		l.fails("text.english", where, say("The English text has no Latin letters: %q.", "النص الإنجليزي خالٍ من الحروف اللاتينية: %q.", en))
	default:
		if a, b := placeholders(en), placeholders(ar); !slices.Equal(a, b) {
			l.fails("text.placeholder", where, say("The English text has {%s}, the Arabic has {%s}.", "في النص الإنجليزي {%s} وفي العربي {%s}.",
				strings.Join(a, "} {"), strings.Join(b, "} {")))
		}
	}
}

func in(text string, letters *unicode.RangeTable) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return unicode.IsLetter(r) && unicode.Is(letters, r) })
}

// placeholders lists the facts that a text or a path has places for, each
// once, by name.
func placeholders(text string) []string {
	var out []string
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}
