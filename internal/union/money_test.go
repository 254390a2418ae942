package union_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
	"pgregory.net/rapid"
)

func TestMoney(t *testing.T) {
	for _, c := range []struct {
		in     string
		minor  int64
		en, ar string
	}{
		{"12.345 BHD", 12345, "BHD 12.345", "12.345 د.ب"},
		{"12 BHD", 12000, "BHD 12.000", "12.000 د.ب"},
		{"0.5 OMR", 500, "OMR 0.500", "0.500 ر.ع"},
		{"0.005 KWD", 5, "KWD 0.005", "0.005 د.ك"},
		{"3000.00 SAR", 300000, "SAR 3,000.00", "3,000.00 ر.س"},
		{"1234567.89 AED", 123456789, "AED 1,234,567.89", "1,234,567.89 د.إ"},
		{"-999.99 QAR", -99999, "QAR -999.99", "\u200e-999.99 ر.ق"},
		{"-0.01 EGP", -1, "EGP -0.01", "\u200e-0.01 ج.م"},
		{"١٢٫٣٤٥ BHD", 12345, "BHD 12.345", "12.345 د.ب"},
		{"0 USD", 0, "USD 0.00", "0.00 دولار أمريكي"},
		{"92233720368547758.07 SAR", math.MaxInt64, "SAR 92,233,720,368,547,758.07", "92,233,720,368,547,758.07 ر.س"},
		{"-92233720368547758.08 SAR", math.MinInt64, "SAR -92,233,720,368,547,758.08", "\u200e-92,233,720,368,547,758.08 ر.س"},
	} {
		m, err := union.ParseMoney(c.in)
		if err != nil || m.Minor != c.minor || m.Text() != (union.Text{En: c.en, Ar: c.ar}) {
			t.Errorf("%q: %d %+v, %v", c.in, m.Minor, m.Text(), err)
		}
	}
	for _, in := range []string{
		"", " ", "BHD", "12.345", "12.345 bhd", "12.345 XXX", "12.3456 BHD", "12.345 SAR", "12. BHD", ".5 BHD", "+1 BHD",
		"--1 BHD", "- BHD", "1e3 BHD", "0x10 BHD", "1_0 BHD", "1,000 BHD", "12.345  BHD", "12.345 BHD ", " 12 BHD", "12\u00a0BHD",
		"1.2.3 BHD", "-\u200e1 BHD", "NaN BHD", "Inf BHD", "92233720368547758.08 SAR", "92233720368547758070 BHD", strings.Repeat("1", 60) + " BHD",
		strings.Repeat("0", 80) + " BHD", "1\x00 BHD", "\xff BHD",
	} {
		if m, err := union.ParseMoney(in); !errors.Is(err, union.ErrMoney) {
			t.Errorf("%q: %v, %v", in, m, err)
		}
	}
}

func TestMoneyJSON(t *testing.T) {
	out, err := json.Marshal(union.Money{Minor: -12345, Currency: "BHD"})
	if err != nil || string(out) != `{"minor":-12345,"currency":"BHD"}` {
		t.Errorf("%s, %v", out, err)
	}
	for in, ok := range map[string]bool{
		`{"minor":12345,"currency":"BHD"}`:                true,
		`{"minor":12345,"currency":"XYZ"}`:                false,
		`{"minor":12345,"currency":""}`:                   false,
		`{"minor":1.5,"currency":"BHD"}`:                  false,
		`{"minor":"1","currency":"BHD"}`:                  false,
		`{"minor":1e3,"currency":"BHD"}`:                  false,
		`{"minor":9223372036854775808,"currency":"BHD"}`:  false,
		`{"minor":-9223372036854775808,"currency":"BHD"}`: true,
	} {
		var m union.Money
		if err := json.Unmarshal([]byte(in), &m); (err == nil) != ok {
			t.Errorf("%s: %v, %v", in, m, err)
		}
	}
	if (union.Money{}).Check() == nil {
		t.Error("an amount of nothing passes")
	}
}

func TestMoneyCurrencies(t *testing.T) {
	for _, c := range union.Currencies() {
		if _, err := union.ParseCurrency(string(c)); err != nil {
			t.Error(err)
		}
	}
	for _, st := range states() {
		if c := union.CurrencyOf(st); (union.Money{Currency: c}).Check() != nil {
			t.Errorf("%s pays in %q", st, c)
		}
	}
	if c := union.CurrencyOf("XX"); c != "" {
		t.Errorf("XX pays in %s", c)
	}
}

func TestMoneyAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := union.Money{Minor: rapid.Int64().Draw(t, "a"), Currency: "BHD"}
		b := union.Money{Minor: rapid.Int64().Draw(t, "b"), Currency: "BHD"}
		exact := func(got union.Money, err error, want *big.Int) {
			if want.IsInt64() != (err == nil) || err == nil && got != (union.Money{Minor: want.Int64(), Currency: "BHD"}) {
				t.Fatalf("%v and %v: %v, %v, not %v", a, b, got, err, want)
			}
		}
		sum, err := a.Add(b)
		exact(sum, err, new(big.Int).Add(big.NewInt(a.Minor), big.NewInt(b.Minor)))
		difference, err := a.Sub(b)
		exact(difference, err, new(big.Int).Sub(big.NewInt(a.Minor), big.NewInt(b.Minor)))
	})
	if m, err := (union.Money{Minor: 1, Currency: "BHD"}).Add(union.Money{Minor: 1, Currency: "KWD"}); err == nil {
		t.Errorf("fils of two states are %v", m)
	}
}

func TestRate(t *testing.T) {
	peg := union.Rate{From: "SAR", To: "BHD", Num: 376, Den: 3750} // both pegs over the dollar
	for _, c := range []struct {
		rate union.Rate
		in   string
		want string
		rest int64
	}{
		{peg, "100.00 SAR", "10.027 BHD", -333_333},
		{peg, "3000.00 SAR", "300.800 BHD", 0},
		{peg, "-100.00 SAR", "-10.027 BHD", 333_333},
		{peg, "0 SAR", "0 BHD", 0},
		{union.Rate{From: "BHD", To: "SAR", Num: 3750, Den: 376}, "10.027 BHD", "100.00 SAR", 332_447},
		{union.Rate{From: "SAR", To: "AED", Num: 1, Den: 2}, "0.01 SAR", "0 AED", 500_000},
		{union.Rate{From: "SAR", To: "AED", Num: 1, Den: 2}, "0.03 SAR", "0.02 AED", -500_000},
		{union.Rate{From: "SAR", To: "AED", Num: 1, Den: 2}, "-0.01 SAR", "0 AED", -500_000},
		{union.Rate{From: "SAR", To: "AED", Num: 1, Den: 2}, "-0.03 SAR", "-0.02 AED", 500_000},
		{union.Rate{From: "SAR", To: "SAR", Num: 1, Den: 1}, "92233720368547758.07 SAR", "92233720368547758.07 SAR", 0},
	} {
		in, err := union.ParseMoney(c.in)
		if err != nil {
			t.Fatal(err)
		}
		want, err := union.ParseMoney(c.want)
		if err != nil {
			t.Fatal(err)
		}
		if got, rest, err := c.rate.Convert(in); err != nil || got != want || rest != c.rest {
			t.Errorf("%s at %d/%d: %v %d, %v", c.in, c.rate.Num, c.rate.Den, got, rest, err)
		}
	}
	for _, r := range []union.Rate{
		{From: "SAR", To: "BHD", Num: 0, Den: 1}, {From: "SAR", To: "BHD", Num: 1, Den: 0}, {From: "SAR", To: "BHD", Num: -1, Den: -1},
		{From: "SAR", To: "XXX", Num: 1, Den: 1}, {From: "", To: "BHD", Num: 1, Den: 1}, {From: "SAR", To: "BHD", Num: math.MaxInt64, Den: 1},
		{From: "KWD", To: "BHD", Num: 1, Den: 1},
	} {
		if m, _, err := r.Convert(union.Money{Minor: math.MaxInt64, Currency: "SAR"}); !errors.Is(err, union.ErrMoney) {
			t.Errorf("%+v: %v, %v", r, m, err)
		}
		if m, err := r.Buys(union.Money{Minor: -1, Currency: "BHD"}); !errors.Is(err, union.ErrMoney) {
			t.Errorf("%+v: %v, %v", r, m, err)
		}
	}
}

// TestRateExact holds conversion against fractions.
func TestRateExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := union.Rate{
			From: rapid.SampledFrom(union.Currencies()).Draw(t, "from"), To: rapid.SampledFrom(union.Currencies()).Draw(t, "to"),
			Num: rapid.Int64Range(1, math.MaxInt64).Draw(t, "num"), Den: rapid.Int64Range(1, math.MaxInt64).Draw(t, "den"),
		}
		m := union.Money{Minor: rapid.Int64().Draw(t, "minor"), Currency: r.From}
		exact := new(big.Rat).SetFrac64(r.Num, r.Den)
		exact.Mul(exact, new(big.Rat).SetInt64(m.Minor))
		for range r.To.Exponent() {
			exact.Mul(exact, big.NewRat(10, 1))
		}
		for range r.From.Exponent() {
			exact.Quo(exact, big.NewRat(10, 1))
		}
		got, rest, err := r.Convert(m)
		if err != nil {
			if new(big.Rat).Abs(exact).Cmp(new(big.Rat).SetInt64(math.MaxInt64)) < 0 {
				t.Fatal(err)
			}
			return
		}
		off := new(big.Rat).Sub(exact, new(big.Rat).SetInt64(got.Minor))
		if c := new(big.Rat).Abs(off).Cmp(big.NewRat(1, 2)); c > 0 || c == 0 && got.Minor%2 != 0 {
			t.Fatalf("%v is off by %v", got, off)
		}
		off.Sub(off, big.NewRat(rest, union.Parts))
		if new(big.Rat).Abs(off).Cmp(big.NewRat(1, 2*union.Parts)) > 0 {
			t.Fatalf("%v, rest %d: off by %v", got, rest, off)
		}
		if m.Minor < 0 {
			return
		}
		bought, err := r.Buys(got)
		if err != nil {
			return // more than an amount can hold
		}
		spent, left, err := r.Convert(bought)
		if err != nil || spent.Minor > got.Minor || spent.Minor == got.Minor && left > 0 {
			t.Fatalf("%v buys %v, which is worth %v and %d, %v", got, bought, spent, left, err)
		}
		next, err := bought.Add(union.Money{Minor: 1, Currency: r.From})
		if err != nil {
			return
		}
		if more, left, err := r.Convert(next); err == nil && (more.Minor < got.Minor || more.Minor == got.Minor && left < 0) {
			t.Fatalf("%v buys more than %v", got, bought)
		}
	})
}

func TestMoneyShare(t *testing.T) {
	fine := union.Money{Minor: 40001, Currency: "AED"}
	for _, c := range []struct{ num, den, minor, rest int64 }{
		{35, 100, 14000, 350_000}, {1, 2, 20000, 500_000}, {0, 100, 0, 0}, {100, 100, 40001, 0},
	} {
		if got, rest, err := fine.Share(c.num, c.den); err != nil || got != (union.Money{Minor: c.minor, Currency: "AED"}) || rest != c.rest {
			t.Errorf("%d/%d: %v %d, %v", c.num, c.den, got, rest, err)
		}
	}
	for _, c := range [][2]int64{{1, 0}, {0, 0}, {-1, 2}, {1, -2}} {
		if got, _, err := fine.Share(c[0], c[1]); err == nil {
			t.Errorf("%d/%d: %v", c[0], c[1], got)
		}
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, s := range []string{"12.345 BHD", "-0.01 SAR", "١٢٫٣ KWD", "92233720368547758.07 SAR", "1e9 BHD", "", ". ", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := union.ParseMoney(s)
		if err != nil {
			return
		}
		if again, err := union.ParseMoney(m.String()); err != nil || again != m {
			t.Errorf("%q: %v, then %v, %v", s, m, again, err)
		}
		if !m.Text().Complete() {
			t.Errorf("%q: %+v", s, m.Text())
		}
	})
}
