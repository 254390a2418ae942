package union

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// ErrMoney is wrapped by every error about an amount, a currency or a rate.
var ErrMoney = errors.New("malformed amount")

// Currency is one of Currencies by its ISO 4217 code.
type Currency string

// tender is what is known of a currency.
type tender struct {
	exponent int // decimals of its minor unit, ISO 4217
	arabic   string
}

func tenderOf(c Currency) (tender, bool) {
	switch c {
	case "BHD":
		return tender{3, "د.ب"}, true
	case "KWD":
		return tender{3, "د.ك"}, true
	case "OMR":
		return tender{3, "ر.ع"}, true
	case "SAR":
		return tender{2, "ر.س"}, true
	case "AED":
		return tender{2, "د.إ"}, true
	case "QAR":
		return tender{2, "ر.ق"}, true
	case "EGP":
		return tender{2, "ج.م"}, true
	case "USD":
		return tender{2, "دولار أمريكي"}, true
	}
	return tender{}, false
}

// Currencies lists those that are known: each state's, and the one to which
// rates are often fixed.
func Currencies() []Currency {
	return []Currency{"AED", "BHD", "EGP", "KWD", "OMR", "QAR", "SAR", "USD"}
}

// CurrencyOf is a state's own currency, "" where it is not known.
func CurrencyOf(st State) Currency {
	switch st {
	case "AE":
		return "AED"
	case "BH":
		return "BHD"
	case "EG":
		return "EGP"
	case "KW":
		return "KWD"
	case "OM":
		return "OMR"
	case "QA":
		return "QAR"
	case "SA":
		return "SAR"
	}
	return ""
}

// ParseCurrency accepts the code of a currency that is known.
func ParseCurrency(s string) (Currency, error) {
	if _, ok := tenderOf(Currency(s)); !ok {
		return "", fmt.Errorf("%w: currency %q is none of %v", ErrMoney, clip(s), Currencies())
	}
	return Currency(s), nil
}

// Exponent is how many decimals the minor unit is of the major one; 0 for a
// currency that is not known.
func (c Currency) Exponent() int {
	t, _ := tenderOf(c)
	return t.exponent
}

// UnmarshalText reads the code of a currency that is known.
func (c *Currency) UnmarshalText(b []byte) (err error) {
	*c, err = ParseCurrency(string(b))
	return err
}

// Money is an amount in whole minor units: fils, halalas, baisa.
type Money struct {
	Minor    int64    `json:"minor"`
	Currency Currency `json:"currency"`
}

// Check refuses a currency that is not known.
func (m Money) Check() error {
	_, err := ParseCurrency(string(m.Currency))
	return err
}

// Add adds an amount of the same currency; an overflow is an error.
func (m Money) Add(o Money) (Money, error) {
	if err := m.same(o); err != nil {
		return Money{}, err
	}
	sum := m.Minor + o.Minor
	if (sum > m.Minor) != (o.Minor > 0) {
		return Money{}, fmt.Errorf("%w: the sum is too large", ErrMoney)
	}
	return Money{sum, m.Currency}, nil
}

// Sub takes an amount of the same currency away; an overflow is an error.
func (m Money) Sub(o Money) (Money, error) {
	if err := m.same(o); err != nil {
		return Money{}, err
	}
	difference := m.Minor - o.Minor
	if (difference < m.Minor) != (o.Minor > 0) {
		return Money{}, fmt.Errorf("%w: the difference is too large", ErrMoney)
	}
	return Money{difference, m.Currency}, nil
}

func (m Money) same(o Money) error {
	if m.Currency != o.Currency {
		return fmt.Errorf("%w: %s and %s are two currencies", ErrMoney, clip(string(m.Currency)), clip(string(o.Currency)))
	}
	return nil
}

// decimal writes the amount in major units with all of its decimals, in groups
// of three where sep is not "".
func (m Money) decimal(sep string) string {
	sign, abs := "", uint64(m.Minor)
	if m.Minor < 0 {
		sign, abs = "-", -abs
	}
	e := m.Currency.Exponent()
	s := strconv.FormatUint(abs, 10)
	if len(s) <= e {
		s = strings.Repeat("0", e+1-len(s)) + s
	}
	whole, part := s[:len(s)-e], s[len(s)-e:]
	for i := len(whole) - 3; i > 0 && sep != ""; i -= 3 {
		whole = whole[:i] + sep + whole[i:]
	}
	if e == 0 {
		return sign + whole
	}
	return sign + whole + "." + part
}

// String is what ParseMoney reads: 12.345 BHD.
func (m Money) String() string { return m.decimal("") + " " + string(m.Currency) }

// Text is the amount for people: BHD 1,012.345 and 1,012.345 د.ب. Digits are
// Latin in both, as on the states' own notices. In Arabic a mark keeps the
// minus sign before its number.
func (m Money) Text() Text {
	t, _ := tenderOf(m.Currency)
	number := m.decimal(",")
	ar := number
	if m.Minor < 0 {
		ar = "\u200e" + ar
	}
	return Text{En: string(m.Currency) + " " + number, Ar: ar + " " + t.arabic}
}

// ParseMoney reads an amount in major units and its currency's code, a space
// between: 12.345 BHD. Arabic digits and the Arabic decimal sign are folded;
// more decimals than the currency has, and groups, are refused.
func ParseMoney(s string) (Money, error) {
	if len(s) > 64 {
		return Money{}, fmt.Errorf("%w: %d bytes are too many", ErrMoney, len(s))
	}
	number, code, _ := strings.Cut(strings.ReplaceAll(FoldDigits(s), "٫", "."), " ")
	c, err := ParseCurrency(code)
	if err != nil {
		return Money{}, err
	}
	unsigned, negative := strings.CutPrefix(number, "-")
	whole, part, point := strings.Cut(unsigned, ".")
	e := c.Exponent()
	if !digits(whole) || point && !digits(part) || len(part) > e {
		return Money{}, fmt.Errorf("%w: %s takes digits, and at most %d decimals", ErrMoney, c, e)
	}
	all := whole + part + strings.Repeat("0", e-len(part))
	if negative {
		all = "-" + all
	}
	minor, err := strconv.ParseInt(all, 10, 64)
	if err != nil {
		return Money{}, fmt.Errorf("%w: the amount is too large", ErrMoney)
	}
	return Money{minor, c}, nil
}

// Rate says that one major unit of From is worth Num/Den major units of To.
type Rate struct {
	From Currency `json:"from"`
	To   Currency `json:"to"`
	Num  int64    `json:"num"`
	Den  int64    `json:"den"`
}

// Check refuses a currency that is not known, and a fraction that is not
// above zero.
func (r Rate) Check() error {
	if err := (Money{Currency: r.From}).Check(); err != nil {
		return err
	}
	if r.Num <= 0 || r.Den <= 0 {
		return fmt.Errorf("%w: a rate is a fraction of two numbers above zero", ErrMoney)
	}
	return Money{Currency: r.To}.Check()
}

// fraction is how many minor units of To one of From is worth.
func (r Rate) fraction() (num, den *big.Int) {
	num = new(big.Int).Mul(big.NewInt(r.Num), pow10(r.To.Exponent()))
	den = new(big.Int).Mul(big.NewInt(r.Den), pow10(r.From.Exponent()))
	return num, den
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// Parts is how many parts of a minor unit a remainder is counted in.
const Parts = 1_000_000

// Convert gives what an amount of From is worth, rounded half to even to To's
// minor unit, and what rounding took off it: the exact value is the result
// plus rest millionths (Parts) of a minor unit.
func (r Rate) Convert(m Money) (_ Money, rest int64, err error) {
	if err := r.Check(); err != nil {
		return Money{}, 0, err
	}
	if m.Currency != r.From {
		return Money{}, 0, fmt.Errorf("%w: a rate for %s does not convert %s", ErrMoney, r.From, clip(string(m.Currency)))
	}
	num, den := r.fraction()
	num.Mul(num, big.NewInt(m.Minor))
	whole := halfEven(num, den)
	if !whole.IsInt64() {
		return Money{}, 0, fmt.Errorf("%w: what it is worth is too large", ErrMoney)
	}
	num.Sub(num, new(big.Int).Mul(whole, den))
	num.Mul(num, big.NewInt(Parts))
	return Money{whole.Int64(), r.To}, halfEven(num, den).Int64(), nil
}

// Buys gives the greatest amount of From that is worth no more than an amount
// of To that is not below zero.
func (r Rate) Buys(m Money) (Money, error) {
	if err := r.Check(); err != nil {
		return Money{}, err
	}
	if m.Currency != r.To || m.Minor < 0 {
		return Money{}, fmt.Errorf("%w: %s is bought with an amount of %s", ErrMoney, r.From, r.To)
	}
	num, den := r.fraction()
	n := den.Mul(den, big.NewInt(m.Minor))
	if n.Quo(n, num); !n.IsInt64() {
		return Money{}, fmt.Errorf("%w: what it buys is too large", ErrMoney)
	}
	return Money{n.Int64(), r.From}, nil
}

// Share gives num/den of an amount, rounded half to even, and the rest in
// millionths as Convert does. Den is above zero.
func (m Money) Share(num, den int64) (_ Money, rest int64, err error) {
	if num == 0 && den > 0 {
		return Money{0, m.Currency}, 0, m.Check()
	}
	return Rate{m.Currency, m.Currency, num, den}.Convert(m)
}

// halfEven divides by den > 0 and rounds to the nearest whole number, halves
// to the even one.
func halfEven(num, den *big.Int) *big.Int {
	q, m := new(big.Int).DivMod(num, den, new(big.Int)) // m >= 0: q is the floor
	if c := m.Lsh(m, 1).Cmp(den); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	return q
}
