package fault

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/falaj/falaj/internal/union"
)

// The media types of the two renderings.
const (
	ProblemType = "application/problem+json"
	XRoadType   = "application/json"
)

// maxDetail is the most bytes of a detail that are shown: it may quote hostile
// input.
const maxDetail = 512

// Message says what happened and what to do, in both languages, followed by
// the technical detail. In Arabic a detail that has no Arabic stands in a
// left-to-right isolate (UAX #9), so that its Latin text does not reorder the
// sentence.
func (e *Error) Message() union.Text {
	entry := e.Entry()
	m := union.Text{En: entry.What.En + " " + entry.Do.En, Ar: entry.What.Ar + " " + entry.Do.Ar}
	if d := shown(e.Detail); d != "" {
		m.En += " (" + d + ")"
		if ar := shown(e.DetailAr); ar != "" {
			m.Ar += " (" + ar + ")"
		} else {
			m.Ar += " (\u2066" + d + "\u2069)"
		}
	}
	return m
}

// Problem renders the fault as problem details (RFC 9457 §3), with the code
// and the Arabic texts as extension members. The cause is not in it.
func (e *Error) Problem() []byte {
	entry := e.Entry()
	return marshal(struct {
		Type     string `json:"type"`
		Title    string `json:"title"`
		TitleAr  string `json:"title_ar"`
		Status   int    `json:"status"`
		Detail   string `json:"detail,omitempty"`
		DetailAr string `json:"detail_ar,omitempty"`
		Instance string `json:"instance"`
		Code     Code   `json:"code"`
		Action   string `json:"action"`
		ActionAr string `json:"action_ar"`
	}{
		"urn:falaj:fault:" + string(entry.Code), entry.What.En, entry.What.Ar, entry.Status, shown(e.Detail), shown(e.DetailAr),
		"urn:uuid:" + e.ID, entry.Code, entry.Do.En, entry.Do.Ar,
	})
}

// XRoad renders the fault as an X-Road client knows it: type, message and
// detail (the support number) are X-Road's, code and message_ar are ours. The
// same type belongs into the X-Road-Error header.
func (e *Error) XRoad() []byte {
	entry, m := e.Entry(), e.Message()
	return marshal(struct {
		Type      string `json:"type"`
		Message   string `json:"message"`
		Detail    string `json:"detail"`
		Code      Code   `json:"code"`
		MessageAr string `json:"message_ar"`
	}{entry.Type, m.En, e.ID, entry.Code, m.Ar})
}

// shown makes a detail fit to be read by a stranger: one line, bounded, and
// free of characters that control a terminal or turn the direction of text.
func shown(detail string) string {
	if len(detail) > maxDetail {
		cut := maxDetail
		for cut > maxDetail-utf8.UTFMax && !utf8.RuneStart(detail[cut]) {
			cut--
		}
		detail = detail[:cut] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, detail)
}

// marshal cannot fail: it is given strings and numbers only.
func marshal(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}
