package definition

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/falaj/falaj/internal/union"
)

// fieldset is the facts that a trigger says.
type fieldset struct {
	all   []string // in the order of display
	needs []string // those that must be there
}

// says lists the facts that each trigger says. A call's answer need not hold
// any of them.
func (d *Definition) says() map[string]fieldset {
	out := map[string]fieldset{}
	for name, f := range d.Forms {
		s := fieldset{all: f.Fields}
		for _, field := range f.Fields {
			if !slices.Contains(f.Optional, field) {
				s.needs = append(s.needs, field)
			}
		}
		out[name] = s
	}
	for name, m := range d.Messages {
		out[name] = fieldset{m.Fields, m.Needs}
	}
	for name, call := range d.Calls {
		out[name] = fieldset{all: slices.Sorted(maps.Keys(call.Keep))}
	}
	return out
}

// fields holds a trigger's fields against the facts' types and schemas. A
// refusal names the field and never its value.
func (p *Program) fields(trigger string, in Values) (Values, *Refusal) {
	says := p.says[trigger]
	for _, name := range slices.Sorted(maps.Keys(in)) { // the first one is named: always the same
		if !slices.Contains(says.all, name) {
			return nil, p.invalid(name, "unknown")
		}
	}
	out := make(Values, len(in))
	for _, name := range says.all {
		v, ok := in[name]
		if !ok {
			if slices.Contains(says.needs, name) {
				return nil, p.invalid(name, "required")
			}
			continue
		}
		left := maxValues
		plain, err := tidy(v, maxDepth, &left)
		if err == nil {
			plain, err = p.d.Facts[name].Type.Take(plain)
		}
		if err != nil {
			return nil, p.invalid(name, "type")
		}
		if fault := p.fits(name, plain); fault != "" {
			return nil, p.invalid(name, fault)
		}
		out[name] = plain
	}
	return out, nil
}

// fits holds a value of the fact's type against its schema: "" or the keyword
// that it breaks.
func (p *Program) fits(name string, v any) string {
	switch p.d.Facts[name].Type {
	case Instant, Date, Truth:
		return ""
	}
	if !printable(v) {
		return "characters"
	}
	err := p.schemas[name].Validate(v)
	if err == nil {
		return ""
	}
	var bad *jsonschema.ValidationError
	if !errors.As(err, &bad) {
		return "type"
	}
	for len(bad.Causes) > 0 {
		bad = bad.Causes[0]
	}
	if path := bad.ErrorKind.KeywordPath(); len(path) > 0 {
		return path[0]
	}
	return "type"
}

// printable refuses, in each text of a value, what no text holds that a person
// typed: control characters, marks that make others read another order, and
// more than any schema lets in, before patterns are tried on it.
func printable(v any) bool {
	switch v := v.(type) {
	case string:
		if len(v) > maxLength*utf8.UTFMax {
			return false
		}
		for _, r := range v {
			switch {
			case r == utf8.RuneError, unicode.IsControl(r) && r != '\n' && r != '\t',
				r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
				return false
			}
		}
	case map[string]any:
		for name, e := range v {
			if !printable(name) || !printable(e) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !printable(e) })
	}
	return true
}

// invalid is the refusal of a field, for the keyword that it breaks.
func (p *Program) invalid(name, keyword string) *Refusal {
	why := union.Text{En: "it is not as it should be", Ar: "القيمة غير صالحة"}
	switch keyword {
	case "unknown":
		return &Refusal{Why: Invalid, Text: union.Text{En: "There is no such field here.", Ar: "لا يوجد حقل بهذا الاسم هنا."}, Detail: clip(name, maxName)}
	case "required":
		why = union.Text{En: "it is missing", Ar: "القيمة مطلوبة"}
	case "maxLength", "maxItems", "maxProperties":
		why = union.Text{En: "it is too long", Ar: "القيمة أطول من المسموح"}
	case "minLength", "minItems", "minProperties":
		why = union.Text{En: "it is too short", Ar: "القيمة أقصر من المطلوب"}
	case "minimum":
		why = union.Text{En: "it is too small", Ar: "القيمة أصغر من المسموح"}
	case "maximum":
		why = union.Text{En: "it is too large", Ar: "القيمة أكبر من المسموح"}
	case "enum", "const":
		why = union.Text{En: "it is not one of the choices", Ar: "القيمة ليست من الخيارات المتاحة"}
	case "characters":
		why = union.Text{En: "it holds characters that a text cannot hold", Ar: "تحتوي القيمة على رموز غير مسموح بها"}
	}
	title := p.d.Facts[name].Title
	return &Refusal{Why: Invalid, Text: union.Text{En: title.En + ": " + why.En + ".", Ar: title.Ar + ": " + why.Ar + "."}, Detail: name + ": " + keyword}
}

// FormSchema is the JSON Schema (2020-12) of a form's fields, with what a
// portal needs to show them: titles and helps in both languages (x-title,
// x-help), their order (x-order, from 1 on), labels of choices (x-labels), and
// the law by which what is about a person is asked for (x-basis).
func (p *Program) FormSchema(form string) (map[string]any, bool) {
	f, ok := p.d.Forms[form]
	if !ok {
		return nil, false
	}
	return p.document(form, f.Title), true
}

// MessageSchema is the JSON Schema of a message's fields, likewise.
func (p *Program) MessageSchema(message string) (map[string]any, bool) {
	m, ok := p.d.Messages[message]
	if !ok {
		return nil, false
	}
	return p.document(message, m.Title), true
}

func (p *Program) document(trigger string, title union.Text) map[string]any {
	properties := map[string]any{}
	for i, name := range p.says[trigger].all {
		f := p.d.Facts[name]
		s := maps.Clone(factSchema(f))
		s["title"], s["x-title"], s["x-order"] = f.Title.En, f.Title, i+1
		if f.Help != (union.Text{}) {
			s["description"], s["x-help"] = f.Help.En, f.Help
		}
		if f.Personal != "" {
			s["x-basis"] = p.d.Basis[f.Personal]
		}
		properties[name] = s
	}
	out := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"$id":     fmt.Sprintf("urn:falaj:service:%s:%d:%s", p.d.Name, p.d.Version, trigger),
		"title":   title.En, "x-title": title,
		"type": "object", "properties": properties, "additionalProperties": false,
	}
	if need := p.says[trigger].needs; len(need) > 0 {
		out["required"] = need
	}
	return out
}

// Show is how a person reads a fact's value.
func (p *Program) Show(fact string, v any, lang string, zone *time.Location) string {
	return p.d.show(fact, v, lang, zone)
}

// show writes a scalar for people.
func (d *Definition) show(name string, v any, lang string, zone *time.Location) string {
	switch f := d.Facts[name]; f.Type {
	case Truth:
		if v == true {
			return union.Text{En: "yes", Ar: "نعم"}.In(lang)
		}
		return union.Text{En: "no", Ar: "لا"}.In(lang)
	case Instant:
		if at, ok := v.(time.Time); ok {
			at = at.In(zone)
			return day(at, lang) + union.Text{En: ", ", Ar: "، "}.In(lang) + at.Format("15:04")
		}
	case Date:
		s, _ := v.(string)
		if at, err := time.Parse(time.DateOnly, s); err == nil {
			return day(at, lang)
		}
	case Money:
		if m, ok := v.(map[string]any); ok {
			minor, _ := m["minor"].(int64)
			currency, _ := m["currency"].(string)
			return union.Money{Minor: minor, Currency: union.Currency(currency)}.Text().In(lang)
		}
	default:
		labels, _ := f.Schema["x-labels"].(map[string]any)
		if label, ok := labels[fmt.Sprint(v)].(map[string]any); ok {
			key := "en"
			if lang == "ar" {
				key = "ar"
			}
			s, _ := label[key].(string)
			return s
		}
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return -1
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, fmt.Sprint(v))
}

// months are the Gregorian ones as the states of the Gulf and Egypt say them.
var months = [...]string{"يناير", "فبراير", "مارس", "أبريل", "مايو", "يونيو", "يوليو", "أغسطس", "سبتمبر", "أكتوبر", "نوفمبر", "ديسمبر"}

// day writes a date: 22 November 2026, 22 نوفمبر 2026.
func day(at time.Time, lang string) string {
	if lang == "ar" {
		return fmt.Sprintf("%d %s %d", at.Day(), months[at.Month()-1], at.Year())
	}
	return at.Format("2 January 2006")
}

// Render gives a notice's title and text in a language ("ar", or English) for
// the facts of a half. Instants are shown in the zone. A value stands between
// bidirectional isolates (U+2068, U+2069), so that a name or an amount in one
// script does not tear up a sentence in the other; a fact that is not known is
// a dash. Digits are Latin in both languages, as on the states' own notices.
func (p *Program) Render(notice string, facts Values, lang string, zone *time.Location) (title, text string, err error) {
	n, ok := p.d.Notices[notice]
	if !ok {
		return "", "", fmt.Errorf("the service %s has no notice %q", p.d.Name, notice)
	}
	fill := func(s string) string {
		return placeholder.ReplaceAllStringFunc(s, func(m string) string {
			name := m[1 : len(m)-1]
			v, ok := facts[name]
			if !ok {
				return "—"
			}
			return "\u2068" + p.d.show(name, v, lang, zone) + "\u2069"
		})
	}
	return fill(n.Title.In(lang)), fill(n.Text.In(lang)), nil
}
