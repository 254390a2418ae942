package definition

import (
	"fmt"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/union"
)

// Diagram draws a definition as Markdown with Mermaid in it: a diagram of the
// states of each half, and one of the messages, in the order in which they can
// first be sent. lang is "en" or "ar".
func Diagram(d *Definition, lang string) string {
	w := &drawing{d: d, lang: lang}
	w.line("# %s (%s@%d)", d.Title.In(lang), d.Name, d.Version)
	for _, party := range d.parties() {
		w.half(party, d.Halves[party])
	}
	w.line("\n## %s\n\n```mermaid\nsequenceDiagram", say("Messages", "الرسائل").In(lang))
	for _, party := range d.parties() {
		w.line("    participant %s as %s", participant(party), plainLabel(d.Parties[party].In(lang)))
	}
	for _, name := range Explore(d).order {
		m := d.Messages[name]
		titles := make([]string, len(m.Fields))
		for i, f := range m.Fields {
			titles[i] = d.Facts[f].Title.In(lang)
		}
		label := plainLabel(m.Title.In(lang))
		if len(titles) > 0 {
			label += "<br/>" + plainLabel(strings.Join(titles, w.comma()))
		}
		w.line("    %s->>%s: %s", participant(m.From), participant(d.other(m.From)), label)
	}
	w.line("```")
	return w.b.String()
}

// drawing is a diagram being made.
type drawing struct {
	d    *Definition
	lang string
	b    strings.Builder
}

func (w *drawing) line(format string, args ...any) { fmt.Fprintf(&w.b, format+"\n", args...) }

func (w *drawing) comma() string { return say(", ", "، ").In(w.lang) }

func (w *drawing) half(party string, m Machine) {
	w.line("\n## %s (%s)\n\n```mermaid\nstateDiagram-v2", w.d.Parties[party].In(w.lang), party)
	for _, state := range order(m.States) {
		w.line("    state \"%s\" as %s", plainLabel(m.States[state].Title.In(w.lang)), state)
	}
	w.line("    [*] --> %s", m.Start)
	for _, state := range order(m.States) {
		for _, arrow := range w.arrows(state, m.States[state].On, m.States[state].Deadlines) {
			w.line("    %s", arrow)
		}
		if m.States[state].Final {
			w.line("    %s --> [*]", state)
		}
	}
	w.line("```")
	if len(m.Always.On) > 0 {
		w.line("\n%s\n", say("In every state that is not final, unless it says otherwise itself:", "في كل حالة غير نهائية ما لم تنصّ هي على غير ذلك:").In(w.lang))
		for _, trigger := range order(m.Always.On) {
			for _, b := range m.Always.On[trigger].Branches {
				to := b.To
				if to != "" {
					to = " → " + m.States[to].Title.In(w.lang)
				}
				w.line("- %s%s", w.label(trigger, b, m.Always.Deadlines), to)
			}
		}
	}
	w.line("\n%s %s", say("A step that fails is held in:", "الخطوة التي تخفق تُعلّق في:").In(w.lang), m.States[m.Hold].Title.In(w.lang))
}

// arrows draws what a state's own triggers do, refusals apart.
func (w *drawing) arrows(state string, all map[string]On, deadlines map[string]Deadline) []string {
	var out []string
	for _, trigger := range order(all) {
		for _, b := range all[trigger].Branches {
			if b.Refuse != "" {
				continue
			}
			to := b.To
			if to == "" {
				to = state
			}
			if arrow := fmt.Sprintf("%s --> %s : %s", state, to, w.label(trigger, b, deadlines)); !slices.Contains(out, arrow) {
				out = append(out, arrow)
			}
		}
	}
	return out
}

// label says what triggers a branch, on what condition, and what it sends.
func (w *drawing) label(trigger string, b Branch, deadlines map[string]Deadline) string {
	in := func(t union.Text) string { return t.In(w.lang) }
	var out string
	switch w.d.kind(trigger) {
	case "form":
		f := w.d.Forms[trigger]
		out = in(f.Title) + " (" + in(w.d.Roles[f.Role].Title) + ")"
	case "message":
		out = "✉ " + in(w.d.Messages[trigger].Title)
	case "call":
		out = "☎ " + trigger
	default:
		out = "⏱ " + trigger
		if after := deadlines[trigger].After; after != "" {
			out += " " + after
		}
	}
	if b.If != "" {
		out += " [" + clip(b.If, 60) + "]"
	}
	for _, m := range b.Send {
		out += " / ✉ " + in(w.d.Messages[m].Title)
	}
	return plainLabel(out)
}

// participant is a party's name as Mermaid takes it: no word of its own, and
// without hyphens.
func participant(party string) string { return "p_" + strings.ReplaceAll(party, "-", "_") }

// plainLabel leaves out what Mermaid would read as its own.
func plainLabel(s string) string {
	return strings.NewReplacer("\"", "'", ";", ",", "#", "", "\n", " ", ":", " -", "<", "‹", ">", "›", "{", "(", "}", ")").Replace(s)
}
