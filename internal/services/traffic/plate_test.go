package traffic_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/union"
)

func TestReadPlate(t *testing.T) {
	for _, c := range []struct {
		state union.State
		seen  string
		want  string
		why   traffic.Doubt
	}{
		{"BH", "456789", "456789", ""},
		{"BH", " ٤٥٦٧٨٩ ", "456789", ""},
		{"BH", "۴۵۶۷۸۹", "456789", ""},
		{"BH", "４５６７８９", "456789", ""},
		{"BH", "45\u00a06789", "", traffic.Form},
		{"SA", "ＡＢＤ 1234", "ABD-1234", ""},
		{"SA", "ح ن ط ٧٣٥٦", "TNJ-7356", ""},
		{"AE", "DU A 12345", "DU-A-12345", ""},
		{"SA", "АВD 1234", "", traffic.Script}, // Cyrillic А and В
		{"SA", "ΑΒD 1234", "", traffic.Script}, // Greek Α and Β
		{"AE", "DU Å 12345", "", traffic.Script},
		{"BH", "𝟒𝟓𝟔", "", traffic.Script}, // digits of mathematics
		{"BH", "४५६", "", traffic.Script},
		{"EG", "ﻗ ﺻ ﺮ 123", "", traffic.Script}, // presentation forms
		{"EG", "قصر 123", "قصر-123", ""},
		{"EG", "ق\u0650صر 123", "", traffic.Hidden}, // a vowel sign
		{"BH", "456\u200b789", "", traffic.Hidden},
		{"BH", "\u202e987654", "", traffic.Hidden},
		{"BH", "\u2067456789\u2069", "", traffic.Hidden},
		{"BH", "456789\u200f", "", traffic.Hidden},
		{"BH", "456\ufeff789", "", traffic.Hidden},
		{"BH", "456\u00ad789", "", traffic.Hidden},
		{"BH", "456\n789", "", traffic.Hidden},
		{"BH", "456\x00", "", traffic.Hidden},
		{"BH", "\xff456", "", traffic.Hidden},
		{"BH", "4\u20e36", "", traffic.Hidden}, // a keycap
		{"BH", strings.Repeat("1", 65), "", traffic.TooLong},
		{"BH", "456 diplomatic", "", traffic.Excluded},
		{"BH", "456 MILITARY", "", traffic.Excluded},
		{"BH", "456 emergency", "", traffic.Excluded},
		{"BH", "456 taxi", "456-taxi", ""},
		{"BH", "../456", "", traffic.Form},
		{"BH", "456/owner", "", traffic.Form},
		{"BH", "456' OR 1", "", traffic.Form},
		{"XX", "456", "", traffic.Form},
		{"", "", "", traffic.Form},
	} {
		if got, why := traffic.ReadPlate(c.state, c.seen); got != c.want || why != c.why {
			t.Errorf("%s %q: %q, %q", c.state, c.seen, got, why)
		}
	}
}

func TestMatch(t *testing.T) {
	camry := traffic.Sight{Plate: "456789", Make: "Toyota Camry تويوتا كامري", Colour: "white أبيض"}
	for _, c := range []struct {
		name string
		seen traffic.Sight
		reg  traffic.Sight
		want traffic.Verdict
	}{
		{"all", traffic.Sight{Plate: "٤٥٦٧٨٩", Make: "Toyota", Colour: "white"}, camry, traffic.Same},
		{"in Arabic", traffic.Sight{Plate: "456789", Make: "تويوتا كامرى", Colour: "ابيض"}, camry, traffic.Same},
		{"the plate alone", traffic.Sight{Plate: "456789"}, camry, traffic.Same},
		{"silver at night", traffic.Sight{Plate: "456789", Colour: "Silver"}, camry, traffic.Same},
		{"an unheard-of colour", traffic.Sight{Plate: "456789", Colour: "teal"}, camry, traffic.Same},
		{"another make", traffic.Sight{Plate: "456789", Make: "Nissan", Colour: "white"}, camry, traffic.Other},
		{"another model", traffic.Sight{Plate: "456789", Make: "Toyota Hilux"}, camry, traffic.Other},
		{"another colour", traffic.Sight{Plate: "456789", Make: "Toyota", Colour: "red"}, camry, traffic.Other},
		{"another plate", traffic.Sight{Plate: "456788"}, camry, traffic.Other},
		{"another type of plate", traffic.Sight{Plate: "456789 taxi"}, camry, traffic.Other},
		{"nothing registered", traffic.Sight{Plate: "456789"}, traffic.Sight{}, traffic.Other},
		{"hidden marks", traffic.Sight{Plate: "456789\u200f"}, camry, traffic.Unreadable},
		{"a diplomat seen", traffic.Sight{Plate: "456789 diplomatic"}, camry, traffic.NotOurs},
		{"a diplomat registered", traffic.Sight{Plate: "456789"}, traffic.Sight{Plate: "456789 diplomatic"}, traffic.NotOurs},
	} {
		if got := traffic.Match("BH", c.seen, c.reg); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// TestMatchesItself: whatever a register holds matches what a camera reads of it.
func TestMatchesItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := rapid.SampledFrom([]union.State{"AE", "BH", "EG", "KW", "OM", "QA", "SA"}).Draw(t, "state")
		p, err := union.NewPlate(st, rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		if err != nil {
			t.Fatal(err)
		}
		s := traffic.Sight{Plate: p.String(), Make: "Kia Sportage", Colour: "blue"}
		arabic := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r - '0' + '٠'
			}
			return r
		}, s.Plate)
		if got := traffic.Match(st, traffic.Sight{Plate: arabic, Make: "KIA", Colour: "Blue"}, s); got != traffic.Same {
			t.Fatalf("%s: %s", p, got)
		}
		q, err := union.NewPlate(st, rand.NewPCG(rapid.Uint64().Draw(t, "other"), 4))
		if err != nil {
			t.Fatal(err)
		}
		if got := traffic.Match(st, traffic.Sight{Plate: q.String()}, s); (got == traffic.Same) != (p == q) {
			t.Fatalf("%s and %s: %s", q, p, got)
		}
	})
}

func FuzzReadPlate(f *testing.F) {
	for _, s := range []string{"456789", "ABD 1234", "ح ن ط ٧٣٥٦", "DU A 1 taxi", "\u202e1", "\xff", "АВD 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, st := range []union.State{"AE", "BH", "EG", "KW", "OM", "QA", "SA", "XX"} {
			plate, why := traffic.ReadPlate(st, s)
			if (plate == "") == (why == "") {
				t.Errorf("%s %q: %q, %q", st, s, plate, why)
			}
			if again, _ := traffic.ReadPlate(st, plate); why == "" && again != plate {
				t.Errorf("%s %q: %q, then %q", st, s, plate, again)
			}
		}
	})
}

func TestPossible(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(lat, lon float64, after time.Duration) traffic.Sighting {
		return traffic.Sighting{Lat: int64(lat * 1e6), Lon: int64(lon * 1e6), At: noon.Add(after)}
	}
	manama, dhahran, abuDhabi := at(26.2235, 50.5876, 0), at(26.2361, 50.0393, 0), at(24.4539, 54.3773, 0)
	for _, c := range []struct {
		name  string
		a, b  traffic.Sighting
		after time.Duration
		want  bool
	}{
		{"the same place and time", manama, manama, 0, true},
		{"two cameras side by side", manama, at(26.2240, 50.5880, 0), 0, true},
		{"over the causeway in half an hour", manama, dhahran, 30 * time.Minute, true}, // 54.7 km: 109 km/h
		{"over the causeway in ten minutes", manama, dhahran, 10 * time.Minute, false},
		{"the same, seen in the other order", dhahran, manama, -10 * time.Minute, false},
		{"two states in one minute", manama, abuDhabi, time.Minute, false},
		{"two states in a day", manama, abuDhabi, 24 * time.Hour, true},
		{"around the date line", at(0, 179.99, 0), at(0, -179.99, 0), time.Minute, true},
		{"the other side of the earth", at(10, 20, 0), at(-10, -160, 0), time.Hour, false},
	} {
		c.b.At = noon.Add(c.after)
		for _, pair := range [][2]traffic.Sighting{{c.a, c.b}, {c.b, c.a}} {
			if got, err := traffic.Possible(pair[0], pair[1], 250); err != nil || got != c.want {
				t.Errorf("%s: %t, %v", c.name, got, err)
			}
		}
	}
	for _, bad := range []traffic.Sighting{at(91, 0, 0), at(-91, 0, 0), at(0, 181, 0), at(0, -181, 0)} {
		if _, err := traffic.Possible(bad, manama, 250); err == nil {
			t.Errorf("%+v is on earth", bad)
		}
	}
	for _, speed := range []int64{0, -1, 1001} {
		if _, err := traffic.Possible(manama, dhahran, speed); err == nil {
			t.Errorf("%d km/h", speed)
		}
	}
}
