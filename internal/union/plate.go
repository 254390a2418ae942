package union

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"
)

// ErrPlate is wrapped by every error about a plate. The errors never quote the
// plate: it leads to a person.
var ErrPlate = errors.New("malformed plate")

// Plate is a vehicle's registration mark in parts. It is never one opaque
// string: the same code and digits exist in several emirates, and the same
// digits under several types.
type Plate struct {
	State    State  `json:"state"`
	Emirate  string `json:"emirate,omitempty"`  // AE: the second half of the ISO 3166-2 code
	Category string `json:"category,omitempty"` // AE, KW: the code before the number
	Letters  string `json:"letters,omitempty"`  // SA, OM: Latin, as on the plate from left to right; EG: Arabic, in reading order
	Digits   string `json:"digits"`             // without leading zeros
	Type     string `json:"type"`               // one of PlateTypes
}

// PlateTypes lists the types of plate, the usual one first.
func PlateTypes() []string {
	return []string{"private", "taxi", "transport", "government", "diplomatic", "motorcycle", "temporary", "military", "emergency"}
}

// Emirates lists the seven by the second half of their ISO 3166-2 codes.
func Emirates() []string { return []string{"AZ", "DU", "SH", "AJ", "UQ", "RK", "FU"} }

// The seventeen letters of Saudi plates, each Arabic one above its Latin one.
const (
	saudiLatin  = "ABDEGHJKLNRSTUVXZ"
	saudiArabic = "ابدعقهحكلنرسطوىصم"
	// egyptian holds the letters that Egypt's plates use.
	egyptian = "ابجدرسصطعفقلمنهوى"
)

// plateRule says how many characters each part of a state's plates may have.
type plateRule struct {
	emirate  bool
	category int    // most characters; 0 = the plate has none
	letters  [2]int // least and most
	alphabet string // what letters may be; "" = any Latin capital
	digits   int    // most
}

func plateRuleOf(st State) (plateRule, bool) {
	switch st {
	case "SA":
		return plateRule{letters: [2]int{1, 3}, alphabet: saudiLatin, digits: 4}, true
	case "AE":
		return plateRule{emirate: true, category: 2, digits: 5}, true
	case "BH", "QA":
		return plateRule{digits: 6}, true
	case "KW":
		return plateRule{category: 2, digits: 6}, true
	case "OM":
		return plateRule{letters: [2]int{1, 2}, digits: 5}, true
	case "EG":
		return plateRule{letters: [2]int{2, 3}, alphabet: egyptian, digits: 4}, true
	}
	return plateRule{}, false
}

// ParsePlate reads a plate of a state as a person or a camera writes it: parts
// in the plate's order, separated by spaces or hyphens, Arabic or Latin digits,
// for SA Arabic or Latin letters; letters may stand before or after the digits.
// A type other than private follows as a word: "12345 taxi".
func ParsePlate(st State, s string) (Plate, error) {
	rule, ok := plateRuleOf(st)
	if !ok {
		return Plate{}, fmt.Errorf("%w: no rule is known for state %q", ErrPlate, clip(string(st)))
	}
	if len(s) > 64 {
		return Plate{}, fmt.Errorf("%w: %d bytes are too many", ErrPlate, len(s))
	}
	p := Plate{State: st, Type: PlateTypes()[0]}
	parts := plateParts(s)
	if n := len(parts); n > 1 && slices.Contains(PlateTypes(), strings.ToLower(parts[n-1])) {
		p.Type = strings.ToLower(parts[n-1])
		parts = parts[:n-1]
	}
	take := func() (part string) {
		if len(parts) > 0 {
			part, parts = parts[0], parts[1:]
		}
		return part
	}
	if rule.emirate {
		p.Emirate = take()
	}
	if rule.category > 0 {
		p.Category = take()
		if digits(p.Category) {
			p.Category = strings.TrimLeft(p.Category, "0")
		}
	}
	for len(parts) > 0 {
		switch part := take(); {
		case !digits(part):
			p.Letters += part
		case p.Digits != "":
			return Plate{}, fmt.Errorf("%w: two numbers where %s has one", ErrPlate, st)
		default:
			if p.Digits = strings.TrimLeft(part, "0"); p.Digits == "" {
				return Plate{}, fmt.Errorf("%w: the number is zero", ErrPlate)
			}
		}
	}
	if st == "SA" {
		p.Letters = saudiLetters(p.Letters)
	}
	if err := p.Check(); err != nil {
		return Plate{}, err
	}
	return p, nil
}

// plateParts splits at separators and between letters and digits, and folds
// what is written in several ways.
func plateParts(s string) []string {
	var b strings.Builder
	last := ' '
	for _, r := range FoldDigits(s) {
		switch r = unicode.ToUpper(r); r {
		case 'ـ': // tatweel: "هـ" is how a lone heh is often typed
			continue
		case 'أ', 'إ', 'آ':
			r = 'ا'
		case 'ي', 'ی':
			r = 'ى'
		case 'ک':
			r = 'ك'
		}
		if unicode.IsLetter(r) && unicode.IsDigit(last) || unicode.IsDigit(r) && unicode.IsLetter(last) {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
		last = r
	}
	return strings.FieldsFunc(b.String(), func(r rune) bool { return r == ' ' || r == '-' || r == '\u00a0' })
}

// saudiLetters gives the Latin letters. On a Saudi plate every Latin letter
// stands under its Arabic one, and the two lines are read in opposite
// directions: so Arabic letters in reading order are the Latin ones reversed.
func saudiLetters(s string) string {
	letters := []rune(s)
	arabic := 0
	for i, r := range letters {
		if at := slices.Index([]rune(saudiArabic), r); at >= 0 {
			letters[i] = rune(saudiLatin[at])
			arabic++
		}
	}
	if arabic != len(letters) {
		return s // Latin, or a mixture that Check refuses
	}
	slices.Reverse(letters)
	return string(letters)
}

// Check holds the parts, in their normal form, against the state's rule.
func (p Plate) Check() error {
	rule, ok := plateRuleOf(p.State)
	if !ok {
		return fmt.Errorf("%w: no rule is known for state %q", ErrPlate, clip(string(p.State)))
	}
	letters := []rune(p.Letters)
	switch {
	case !slices.Contains(PlateTypes(), p.Type):
		return fmt.Errorf("%w: type is none of %s", ErrPlate, strings.Join(PlateTypes(), ", "))
	case rule.emirate != (p.Emirate != ""), rule.emirate && !slices.Contains(Emirates(), p.Emirate):
		return fmt.Errorf("%w: emirate is one of %s, in AE alone", ErrPlate, strings.Join(Emirates(), ", "))
	case rule.category == 0 && p.Category != "", rule.category > 0 && !categoryOf(p.State, p.Category, rule.category):
		return fmt.Errorf("%w: %s takes a code of at most %d characters", ErrPlate, p.State, rule.category)
	case len(letters) < rule.letters[0] || len(letters) > rule.letters[1]:
		return fmt.Errorf("%w: %s takes %d to %d letters", ErrPlate, p.State, rule.letters[0], rule.letters[1])
	case !digits(p.Digits) || p.Digits[0] == '0' || len(p.Digits) > rule.digits:
		return fmt.Errorf("%w: %s takes 1 to %d digits without leading zeros", ErrPlate, p.State, rule.digits)
	}
	for _, r := range letters {
		if rule.alphabet == "" && (r < 'A' || r > 'Z') || rule.alphabet != "" && !strings.ContainsRune(rule.alphabet, r) {
			return fmt.Errorf("%w: a letter that plates of %s do not use", ErrPlate, p.State)
		}
	}
	return nil
}

// categoryOf accepts a number without leading zeros; in AE also letters.
func categoryOf(st State, s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	if digits(s) {
		return s[0] != '0'
	}
	return st == "AE" && strings.IndexFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) < 0
}

// String is the normal form within the state, which ParsePlate reads back:
// SA ABD-1234, AE DU-A-12345, BH and QA 12345, KW 12-34567, OM 1234-AB, EG
// letters-1234; a type other than private follows.
func (p Plate) String() string {
	parts := []string{p.Emirate, p.Category, p.Letters, p.Digits}
	if p.State == "OM" {
		parts[2], parts[3] = p.Digits, p.Letters
	}
	if p.Type != PlateTypes()[0] {
		parts = append(parts, p.Type)
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "-")
}

// NewPlate makes up a private plate for simulators and tests. Its characters
// depend on the source's bits alone.
func NewPlate(st State, src rand.Source) (Plate, error) {
	rule, ok := plateRuleOf(st)
	if !ok {
		return Plate{}, fmt.Errorf("%w: no rule is known for state %q", ErrPlate, clip(string(st)))
	}
	p := Plate{State: st, Type: PlateTypes()[0]}
	if rule.emirate {
		p.Emirate = Emirates()[draw(src, uint64(len(Emirates())))]
	}
	if rule.category > 0 {
		p.Category = fmt.Sprint(1 + draw(src, 20))
		if st == "AE" && p.Emirate == "DU" {
			p.Category = string(rune('A' + draw(src, 26)))
		}
	}
	alphabet := []rune(rule.alphabet)
	if len(alphabet) == 0 {
		alphabet = []rune("ABDHKLMRSTWY")
	}
	for range rule.letters[1] {
		p.Letters += string(alphabet[draw(src, uint64(len(alphabet)))])
	}
	p.Digits = nonZeroDigit(src) + randomDigits(src, rule.digits-1)
	return p, nil
}
