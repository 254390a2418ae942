package union

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"time"
)

// ErrNational is wrapped by every error about a national number. The errors
// never quote the number: it is personal data.
var ErrNational = errors.New("malformed national number")

// NationalID is a person's number in his own state's register: ASCII digits
// without separators.
type NationalID struct {
	State  State  `json:"state"`
	Number string `json:"number"`
}

// nationalRule is what is publicly known of a state's numbers.
type nationalRule struct {
	least, most int
	check       func(n string) error
	// fits is a check digit that real numbers are known to deviate from: it
	// warns and never refuses.
	fits func(n string) bool
	// make writes a citizen's number, "" if chance chose none that is valid.
	make func(born time.Time, src rand.Source) string
}

func ruleOf(st State) (nationalRule, bool) {
	switch st {
	case "SA":
		return nationalRule{10, 10, checkSA, nil, func(_ time.Time, src rand.Source) string {
			return withLuhn("1" + randomDigits(src, 8))
		}}, true
	case "AE":
		return nationalRule{15, 15, checkAE, luhn, func(born time.Time, src rand.Source) string {
			return withLuhn("784" + born.Format("2006") + randomDigits(src, 7))
		}}, true
	case "BH": // The check digit's rule is unpublished and old numbers deviate: the registry decides.
		return nationalRule{9, 9, nil, nil, func(born time.Time, src rand.Source) string {
			return born.Format("0601") + randomDigits(src, 5)
		}}, true
	case "KW":
		return nationalRule{12, 12, checkKW, nil, makeKW}, true
	case "OM":
		return nationalRule{7, 9, nil, nil, func(_ time.Time, src rand.Source) string {
			return nonZeroDigit(src) + randomDigits(src, 7)
		}}, true
	case "QA":
		return nationalRule{11, 11, checkQA, nil, func(born time.Time, src rand.Source) string {
			return century(born) + born.Format("06") + "634" + randomDigits(src, 5)
		}}, true
	case "EG": // The common check recipe fails on real numbers: the form alone is checked.
		return nationalRule{14, 14, checkCenturyDate, nil, func(born time.Time, src rand.Source) string {
			return century(born) + born.Format("060102") + fmt.Sprintf("%02d", 1+draw(src, 27)) + randomDigits(src, 5)
		}}, true
	}
	return nationalRule{}, false
}

// ParseNational reads a national number as a person writes it: Arabic-Indic
// digits are folded, spaces and hyphens between the digits dropped.
func ParseNational(st State, s string) (NationalID, error) {
	if len(s) > 64 {
		return NationalID{}, fmt.Errorf("%w: %d bytes are too many", ErrNational, len(s))
	}
	n := strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' {
			return -1
		}
		return r
	}, FoldDigits(s))
	id := NationalID{State: st, Number: n}
	if err := id.Check(); err != nil {
		return NationalID{}, err
	}
	return id, nil
}

// Check holds the number against its state's rule.
func (n NationalID) Check() error {
	rule, ok := ruleOf(n.State)
	if !ok {
		return fmt.Errorf("%w: no rule is known for state %q", ErrNational, clip(string(n.State)))
	}
	if !digits(n.Number) || len(n.Number) < rule.least || len(n.Number) > rule.most {
		if rule.least == rule.most {
			return fmt.Errorf("%w: %s takes %d digits", ErrNational, n.State, rule.least)
		}
		return fmt.Errorf("%w: %s takes %d to %d digits", ErrNational, n.State, rule.least, rule.most)
	}
	if rule.check == nil {
		return nil
	}
	return rule.check(n.Number)
}

// Doubtful tells whether a valid number's check digit is not the expected one,
// in a state whose real numbers are known to deviate: ask again, refuse not.
func (n NationalID) Doubtful() bool {
	rule, ok := ruleOf(n.State)
	return ok && rule.fits != nil && !rule.fits(n.Number)
}

// NewNational makes up a citizen's number for simulators and tests. Its digits
// depend on the source's bits alone.
func NewNational(st State, born time.Time, src rand.Source) (NationalID, error) {
	rule, ok := ruleOf(st)
	if !ok {
		return NationalID{}, fmt.Errorf("%w: no rule is known for state %q", ErrNational, clip(string(st)))
	}
	if y := born.Year(); y < 1900 || y > 2099 {
		return NationalID{}, fmt.Errorf("%w: no number is made for the year %d", ErrNational, y)
	}
	for {
		if n := rule.make(born, src); n != "" {
			return NationalID{State: st, Number: n}, nil
		}
	}
}

func checkSA(n string) error {
	switch {
	case n[0] != '1' && n[0] != '2':
		return fmt.Errorf("%w: SA starts with 1 (citizen) or 2 (resident)", ErrNational)
	case !luhn(n):
		return fmt.Errorf("%w: the check digit does not fit", ErrNational)
	}
	return nil
}

func checkAE(n string) error {
	if !strings.HasPrefix(n, "784") || n[3:5] != "19" && n[3:5] != "20" {
		return fmt.Errorf("%w: AE starts with 784 and a year of birth", ErrNational)
	}
	return nil
}

func checkKW(n string) error {
	if err := checkCenturyDate(n); err != nil {
		return err
	}
	if sum := sumKW(n); sum == 10 || int(n[11]-'0') != sum {
		return fmt.Errorf("%w: the check digit does not fit", ErrNational)
	}
	return nil
}

func makeKW(born time.Time, src rand.Source) string {
	n := century(born) + born.Format("060102") + randomDigits(src, 4)
	sum := sumKW(n)
	if sum == 10 {
		return ""
	}
	return n + string(rune('0'+sum))
}

// sumKW is the check value of the first eleven digits; 10 means that no check
// digit exists for them.
func sumKW(n string) int {
	sum := 0
	for i, weight := range [...]int{2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2} {
		sum += weight * int(n[i]-'0')
	}
	return (11 - sum%11) % 11
}

func checkQA(n string) error {
	switch {
	case n[0] != '2' && n[0] != '3':
		return fmt.Errorf("%w: QA starts with 2 (born 19xx) or 3 (born 20xx)", ErrNational)
	case n[3:6] == "000":
		return fmt.Errorf("%w: QA holds a country (ISO 3166-1 numeric) at digits 4 to 6", ErrNational)
	}
	return nil
}

// checkCenturyDate wants 2 (19xx) or 3 (20xx) and a real date YYMMDD first.
func checkCenturyDate(n string) error {
	century := map[byte]string{'2': "19", '3': "20"}[n[0]]
	if _, err := time.Parse("20060102", century+n[1:7]); err != nil {
		return fmt.Errorf("%w: it does not start with 2 or 3 and a date of birth", ErrNational)
	}
	return nil
}

func century(born time.Time) string {
	if born.Year() < 2000 {
		return "2"
	}
	return "3"
}

// luhn checks a number whose last digit is its check digit (ISO/IEC 7812-1
// Annex B).
func luhn(n string) bool {
	sum := 0
	for i := range len(n) {
		d := int(n[len(n)-1-i] - '0')
		if i%2 == 1 {
			d = d*2/10 + d*2%10
		}
		sum += d
	}
	return sum%10 == 0
}

func withLuhn(n string) string {
	for c := '0'; c < '9'; c++ {
		if luhn(n + string(c)) {
			return n + string(c)
		}
	}
	return n + "9"
}

// FoldDigits turns Arabic-Indic (U+0660) and extended Arabic-Indic (U+06F0)
// digits into ASCII and leaves all else alone.
func FoldDigits(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '٠' && r <= '٩':
			return r - '٠' + '0'
		case r >= '۰' && r <= '۹':
			return r - '۰' + '0'
		}
		return r
	}, s)
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func randomDigits(src rand.Source, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('0' + draw(src, 10))
	}
	return string(b)
}

func nonZeroDigit(src rand.Source) string { return string(rune('1' + draw(src, 9))) }

// draw gives a number below n by multiplication. rand.Rand's own methods may
// change with Go; the simulators' data must not. The bias, below n/2^64, does
// no harm there.
func draw(src rand.Source, n uint64) int {
	hi, _ := bits.Mul64(src.Uint64(), n)
	return int(hi)
}
