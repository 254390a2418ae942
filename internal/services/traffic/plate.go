package traffic

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/falaj/falaj/internal/union"
)

// Doubt is why what a camera read is not looked up, "" where it is.
type Doubt string

// The doubts.
const (
	TooLong  Doubt = "length"   // no plate has so much on it
	Hidden   Doubt = "hidden"   // characters that are not seen: marks of direction, of no width, control
	Script   Doubt = "script"   // letters that are neither Latin nor Arabic, such as look-alikes
	Form     Doubt = "form"     // not a plate of the state
	Excluded Doubt = "excluded" // diplomatic, military or emergency
)

func (d Doubt) status() string {
	switch d {
	case "":
		return "read"
	case Excluded:
		return "excluded"
	}
	return "unreadable"
}

// ReadPlate brings what a camera read into the normal form within its state,
// or says why not. Digits and letters that are written in several ways are
// folded; what only looks like a letter is refused, not guessed: the plate
// leads to a person.
func ReadPlate(state union.State, seen string) (string, Doubt) {
	if len(seen) > 64 {
		return "", TooLong
	}
	if !utf8.ValidString(seen) {
		return "", Hidden
	}
	folded := strings.Map(func(r rune) rune {
		if r >= '！' && r <= '～' { // full width
			return r - '！' + '!'
		}
		return r
	}, seen)
	for _, r := range folded {
		switch {
		case r == ' ' || r == '\u00a0':
		case !unicode.IsPrint(r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r):
			return "", Hidden
		case r < utf8.RuneSelf, r >= '٠' && r <= '٩', r >= '۰' && r <= '۹':
		case !unicode.Is(unicode.Arabic, r) && r != 'ـ', r >= 'ﭐ':
			return "", Script // presentation forms hide which letter they are of
		}
	}
	p, err := union.ParsePlate(state, folded)
	if err != nil {
		return "", Form
	}
	if slices.Contains([]string{"diplomatic", "military", "emergency"}, p.Type) {
		return "", Excluded
	}
	return p.String(), ""
}

// Sight is what is known of a vehicle: by a camera, or by a register. A make
// or a colour that is not known is "".
type Sight struct{ Plate, Make, Colour string }

// Verdict is what comparing the two gives.
type Verdict string

// The verdicts.
const (
	Same       Verdict = "match"
	Other      Verdict = "mismatch" // perhaps a cloned plate
	Unreadable Verdict = "unreadable"
	NotOurs    Verdict = "excluded"
)

// Match holds what a camera saw against the register. The make matches if the
// register's has all the camera's words ("Toyota" of "Toyota Camry"), in
// whichever language; colours that night and dust turn into one another do.
func Match(state union.State, seen, registered Sight) Verdict {
	plate, doubt := ReadPlate(state, seen.Plate)
	if doubt == Excluded {
		return NotOurs
	}
	if doubt != "" {
		return Unreadable
	}
	switch known, doubt := ReadPlate(state, registered.Plate); {
	case doubt == Excluded:
		return NotOurs
	case doubt != "" || known != plate:
		return Other
	}
	has := words(registered.Make)
	for _, w := range words(seen.Make) {
		if len(has) > 0 && !slices.Contains(has, w) {
			return Other
		}
	}
	if a, b := shades(seen.Colour), shades(registered.Colour); a != 0 && b != 0 && a&b == 0 {
		return Other
	}
	return Same
}

// words splits a name into its words, in one writing.
func words(s string) []string {
	if len(s) > 200 {
		s = s[:200]
	}
	folded := strings.Map(func(r rune) rune {
		switch r {
		case 'أ', 'إ', 'آ':
			return 'ا'
		case 'ة':
			return 'ه'
		case 'ى':
			return 'ي'
		}
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return ' '
	}, union.FoldDigits(s))
	return strings.Fields(folded)
}

// shades gives the groups of colours that a name may mean, 0 for none that is
// known. One colour can stand in two groups.
func shades(colour string) (groups int) {
	for i, group := range [...][]string{
		{"white", "silver", "beige", "ابيض", "فضي", "بيج"},
		{"silver", "grey", "gray", "فضي", "رمادي", "رصاصي"},
		{"black", "اسود", "grey", "gray", "رمادي", "رصاصي"},
		{"gold", "brown", "beige", "bronze", "ذهبي", "بني", "بيج", "برونزي"},
		{"red", "maroon", "احمر", "خمري", "عنابي"},
		{"blue", "ازرق", "كحلي", "navy"},
		{"green", "اخضر"},
		{"yellow", "gold", "اصفر", "ذهبي"},
		{"orange", "برتقالي"},
	} {
		if slices.ContainsFunc(words(colour), func(w string) bool { return slices.Contains(group, w) }) {
			groups |= 1 << i
		}
	}
	return groups
}
