package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/falaj/falaj/internal/union"
)

// print writes JSON for machines: indented, one value, Arabic as it is.
func (s *session) print(w io.Writer, v any) {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	e.Encode(v) // a broken pipe is the reader's affair
}

// show prints v for machines, or what people writes for people.
func (s *session) show(v any, people func()) error {
	if s.JSON {
		s.print(s.Out, v)
		return nil
	}
	people()
	return nil
}

func (s *session) printf(format string, args ...any) { fmt.Fprintf(s.Out, format, args...) }

// line prints a text in the person's language.
func (s *session) line(t union.Text) { s.printf("%s\n", s.say(t)) }

// table prints columns. Widths are counted in the characters that a terminal
// shows, so that Arabic columns stand too.
func (s *session) table(head []string, rows [][]string) {
	all := append([][]string{head}, rows...)
	width := make([]int, len(head))
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], shown(cell))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(pad(cell, width[i]))
		}
		s.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
}

// indent prints each line of a technical text further in.
func (s *session) indent(by, text string) {
	for line := range strings.Lines(text) {
		s.printf("%s%s\n", by, strings.TrimRight(line, "\n"))
	}
}

// pad fills a text up to a width.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-shown(text)))
}

// shown counts the cells that a text takes: marks over letters take none.
func shown(text string) int {
	n := 0
	for _, r := range text {
		if !unicode.In(r, unicode.Mn, unicode.Cf) {
			n++
		}
	}
	return n
}
