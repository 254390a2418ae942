// Package operation is the watch at the node's doors: what it says of itself
// (logs, health, meters) and how much it lets anyone ask of it.
package operation

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxLogValue is the most bytes of one value in a log: a longer one is data,
// not a message.
const maxLogValue = 512

// Logger writes to w, in text or JSON, from the level on, what is fit for a
// log. Logs are read by more people than records are, and are not evidence:
// bodies, headers, addresses with their queries, and keys are withheld
// whatever a caller hands in, and long runs of digits, as national numbers
// are, are blotted out.
func Logger(w io.Writer, format, level string) *slog.Logger {
	var l slog.Level
	if l.UnmarshalText([]byte(level)) != nil {
		l = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: l, ReplaceAttr: fit}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if format == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	return slog.New(message{h})
}

// message blots out the message too; ReplaceAttr is not asked about it where
// a group is open.
type message struct{ slog.Handler }

func (m message) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, blot(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool { clean.AddAttrs(a); return true })
	return m.Handler.Handle(ctx, clean)
}

func (m message) WithAttrs(as []slog.Attr) slog.Handler { return message{m.Handler.WithAttrs(as)} }
func (m message) WithGroup(name string) slog.Handler    { return message{m.Handler.WithGroup(name)} }

const withheld = "[withheld]"

// secret are parts of attribute names whose values no log shows.
var secret = regexp.MustCompile(`(?i)password|passwd|secret|token|cookie|authorization|private|subject|body|payload|plaintext|query|dsn|pin$|^key$`)

func fit(_ []string, a slog.Attr) slog.Attr {
	if secret.MatchString(a.Key) {
		a.Value = slog.StringValue(withheld)
		return a
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(blot(a.Value.String()))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case []byte, *http.Request, *http.Response, http.Header, url.Values, io.Reader:
			a.Value = slog.StringValue(withheld)
		case *url.URL:
			a.Value = slog.StringValue(v.Scheme + "://" + v.Host)
		case error:
			a.Value = slog.StringValue(blot(v.Error()))
		case interface{ String() string }:
			a.Value = slog.StringValue(blot(v.String()))
		case *slog.Source:
		default:
			if r := reflect.ValueOf(v); r.Kind() == reflect.String { // a code, a state
				a.Value = slog.StringValue(blot(r.String()))
			} else {
				a.Value = slog.StringValue(withheld) // a struct may hold anything
			}
		}
	}
	return a
}

// digits finds what may be a person's number: nine or more digits, in whatever
// script, whatever stands beside them. Words that hold them stay where they are
// UUIDs, or digests in hexadecimal, as a whole.
var (
	digits = regexp.MustCompile(`\p{Nd}{9,}`)
	words  = regexp.MustCompile(`[\p{L}\p{Nd}-]*\p{Nd}{9,}[\p{L}\p{Nd}-]*`)
	ours   = regexp.MustCompile(`^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{64})$`)
)

func blot(s string) string {
	if len(s) > maxLogValue {
		cut := maxLogValue
		for cut > maxLogValue-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	s = strings.ToValidUTF8(s, "\ufffd")
	return words.ReplaceAllStringFunc(s, func(w string) string {
		if ours.MatchString(w) {
			return w
		}
		return digits.ReplaceAllString(w, "#########")
	})
}
