package union_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
	"pgregory.net/rapid"
)

func TestParsePlate(t *testing.T) {
	for _, c := range []struct {
		state    union.State
		in, want string // "" = refused
	}{
		{"SA", "ABD 1234", "ABD-1234"},
		{"SA", "abd1234", "ABD-1234"},
		{"SA", "1234 A B D", "ABD-1234"},
		{"SA", "A B D 0012", "ABD-12"},
		// The plate shows T N J from left to right under ط ن ح.
		{"SA", "TNJ 7356", "TNJ-7356"},
		{"SA", "ح ن ط ٧٣٥٦", "TNJ-7356"},
		{"SA", "٧٣٥٦ حنط", "TNJ-7356"},
		{"SA", "أ هـ ي 1", "VHA-1"},
		{"SA", "إ ه ى 1", "VHA-1"},
		{"SA", "ABDE 1234", ""},
		{"SA", "ABC 1234", ""}, // C stands on no Saudi plate
		{"SA", "A ب 1234", ""}, // one script or the other
		{"SA", "ABD 12345", ""},
		{"SA", "ABD", ""},
		{"SA", "1234", ""},
		{"SA", "ABD 12 34", ""},
		{"SA", "ABD 0000", ""},
		{"AE", "DU A 12345", "DU-A-12345"},
		{"AE", "du a12345", "DU-A-12345"},
		{"AE", "AZ 5 12345", "AZ-5-12345"},
		{"AE", "AZ 05 ١٢٣", "AZ-5-123"},
		{"AE", "DU AA 1", "DU-AA-1"},
		{"AE", "DU 12345", ""},
		{"AE", "A 12345", ""},
		{"AE", "XX A 12345", ""},
		{"AE", "DU A 123456", ""},
		{"AE", "DU A 123 B", ""},
		{"BH", "٤٥٦٧٨٩", "456789"},
		{"BH", "456789 taxi", "456789-taxi"},
		{"BH", "456789-TAXI", "456789-taxi"},
		{"BH", "456789 tank", ""},
		{"BH", "4567890", ""},
		{"BH", "A 45", ""},
		{"QA", "000123", "123"},
		{"KW", "12 34567", "12-34567"},
		{"KW", "1234567", ""},
		{"KW", "A 34567", ""},
		{"OM", "1234 AB", "1234-AB"},
		{"OM", "AB1234", "1234-AB"},
		{"OM", "1234 ABC", ""},
		{"EG", "ق ص ر ١٢٣", "قصر-123"},
		{"EG", "قصر 123", "قصر-123"},
		{"EG", "ABC 123", ""},
		{"XX", "1", ""},
		{"BH", "", ""},
		{"BH", "taxi", ""},
		{"BH", "12/34", ""},
		{"BH", "../12", ""},
		{"BH", "12\x0034", ""},
		{"BH", "\xff12", ""},
		{"BH", strings.Repeat("1 ", 1000), ""},
	} {
		p, err := union.ParsePlate(c.state, c.in)
		if c.want == "" {
			if !errors.Is(err, union.ErrPlate) {
				t.Errorf("%s %q: %+v, %v", c.state, c.in, p, err)
			}
			continue
		}
		if err != nil || p.String() != c.want || p.State != c.state {
			t.Errorf("%s %q: %q %+v, %v", c.state, c.in, p, p, err)
		}
	}
}

func TestPlateParts(t *testing.T) {
	p, err := union.ParsePlate("AE", "DU A 12345 taxi")
	if want := (union.Plate{State: "AE", Emirate: "DU", Category: "A", Digits: "12345", Type: "taxi"}); err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	for _, p := range []union.Plate{
		{},
		{State: "BH", Digits: "1"},
		{State: "BH", Digits: "01", Type: "private"},
		{State: "BH", Digits: "1", Type: "private", Emirate: "DU"},
		{State: "BH", Digits: "1", Type: "private", Category: "1"},
		{State: "BH", Digits: "1", Type: "private", Letters: "A"},
		{State: "KW", Category: "01", Digits: "1", Type: "private"},
		{State: "SA", Letters: "طنح", Digits: "1", Type: "private"},
	} {
		if p.Check() == nil {
			t.Errorf("%+v passes", p)
		}
	}
}

func TestNewPlateRoundTrip(t *testing.T) {
	for _, st := range states() {
		rapid.Check(t, func(t *rapid.T) {
			p, err := union.NewPlate(st, rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
			if err != nil {
				t.Fatal(err)
			}
			p.Type = rapid.SampledFrom(union.PlateTypes()).Draw(t, "type")
			if err := p.Check(); err != nil {
				t.Fatalf("%+v: %v", p, err)
			}
			if got, err := union.ParsePlate(st, p.String()); err != nil || got != p {
				t.Fatalf("%q: %+v, %v", p, got, err)
			}
		})
	}
}

func FuzzParsePlate(f *testing.F) {
	for _, s := range []string{"ABD 1234", "DU A 12345", "ح ن ط ٧٣٥٦", "12-34567", "1234-AB", "456789 taxi", "", "- -", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, st := range states() {
			if p, err := union.ParsePlate(st, s); err == nil {
				if again, err := union.ParsePlate(st, p.String()); err != nil || again != p {
					t.Errorf("%s %q: %q %+v, %v", st, s, p, again, err)
				}
			}
		}
	})
}
