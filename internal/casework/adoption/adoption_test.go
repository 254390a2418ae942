package adoption

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/union"
)

const example = `{
  "system": "BH/GOV/egov/cases",
  "zone": "Asia/Bahrain",
  "weekend": ["Fri", "Sat"],
  "holidays": [{"from": "2026-03-20", "until": "2026-03-22", "name": {"en": "Eid al-Fitr", "ar": "عيد الفطر"}, "announced": "2026-03-19"}],
  "adopts": [
    {"service": "residence-certificate", "version": 1, "from": "2026-12-01", "until": "2027-05-31",
     "roles": {"officer": ["BH/GOV/interior/residence"], "citizen": ["BH/GOV/egov/portal", "BH/GOV/egov/app"]},
     "calls": {"residents": "BH/GOV/interior/civil/registry"}},
    {"service": "residence-certificate", "version": 2, "from": "2027-01-01"}
  ],
  "tables": [
    {"name": "fines", "from": "2026-01-01", "file": "casework/fines-2026.json"},
    {"name": "fines", "from": "2027-01-01", "file": "casework/fines-2027.json"}
  ]
}`

func read(t testing.TB, state union.State, b string) *Adoption {
	t.Helper()
	a, err := Decode(state, []byte(b))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDecode(t *testing.T) {
	a := read(t, "BH", example)
	again, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := read(t, "BH", string(again)).Encode(); err != nil || string(b) != string(again) {
		t.Errorf("%s\nis not\n%s", b, again)
	}
	portal, _ := union.ParseSubsystem("BH/GOV/egov/portal")
	if !a.Speaks(portal, "residence-certificate", 1, "citizen") || a.Speaks(portal, "residence-certificate", 1, "officer") || a.Speaks(portal, "residence-certificate", 2, "citizen") {
		t.Error("who speaks for whom")
	}
	if id, ok := a.Register("residence-certificate", 1, "residents"); !ok || id.String() != "BH/GOV/interior/civil/registry" {
		t.Errorf("%s %v", id, ok)
	}
	if _, ok := a.Register("residence-certificate", 2, "residents"); ok {
		t.Error("version 2 binds nothing")
	}
	for day, want := range map[Date]string{"2025-12-31": "", "2026-01-01": "casework/fines-2026.json", "2026-12-31": "casework/fines-2026.json", "2030-01-01": "casework/fines-2027.json"} {
		if f, ok := a.Table("fines", day); f != want || ok != (want != "") {
			t.Errorf("%s: %q", day, f)
		}
	}
}

// TestStrict: each line is one change that makes the example wrong.
func TestStrict(t *testing.T) {
	for _, c := range [][2]string{
		{`"system"`, `"System"`},
		{`"zone": "Asia/Bahrain",`, `"zone": "Asia/Bahrain", "zone": "Asia/Bahrain",`},
		{`"zone": "Asia/Bahrain",`, `"zone": "Asia/Bahrain", "x": 1,`},
		{`"BH/GOV/egov/cases"`, `"SA/GOV/egov/cases"`},
		{`"BH/GOV/egov/cases"`, `"BH/GOV/egov"`},
		{`"Asia/Bahrain"`, `"Asia/Nowhere"`},
		{`"Asia/Bahrain"`, `"Local"`},
		{`"Asia/Bahrain"`, `""`},
		{`"Asia/Bahrain"`, `"../../etc/passwd"`},
		{`["Fri", "Sat"]`, `["Fri", "Fri"]`},
		{`["Fri", "Sat"]`, `["fri"]`},
		{`["Fri", "Sat"]`, `["Fri", "Sat", "Sun", "Mon", "Tue"]`},
		{`"until": "2026-03-22"`, `"until": "2026-03-19"`},
		{`"until": "2026-03-22"`, `"until": "2026-04-20"`},
		{`"until": "2026-03-22"`, `"until": "2026-3-22"`},
		{`"until": "2026-03-22"`, `"until": "2026-02-30"`},
		{`"until": "2026-03-22", `, ``},
		{`"عيد الفطر"`, `""`},
		{`"version": 1`, `"version": 0`},
		{`"version": 2`, `"version": 1`},
		{`"version": 2`, `"version": 1000000000`},
		{`"from": "2026-12-01"`, `"from": ""`},
		{`, "from": "2027-01-01"}`, `}`},
		{`"until": "2027-05-31"`, `"until": "2026-05-31"`},
		{`"service": "residence-certificate", "version": 1`, `"service": "Residence", "version": 1`},
		{`"officer"`, `"Officer"`},
		{`"BH/GOV/egov/app"`, `"BH/GOV/egov/portal"`},
		{`"BH/GOV/egov/app"`, `"KW/GOV/egov/app"`},
		{`"BH/GOV/interior/civil/registry"`, `"KW/GOV/interior/civil/registry"`},
		{`"BH/GOV/interior/civil/registry"`, `"BH/GOV/interior/civil"`},
		{`"fines"`, `"../fines"`},
		{`"casework/fines-2026.json"`, `"state.json"`},
		{`"casework/fines-2026.json"`, `"casework/../state.json"`},
		{`"from": "2027-01-01", "file"`, `"from": "2026-01-01", "file"`},
		{`"tables"`, `"table"`},
		{`]
}`, `]
}{}`},
	} {
		wrong := strings.Replace(example, c[0], c[1], 1)
		if wrong == example {
			t.Fatalf("%s is not in the example", c[0])
		}
		if _, err := Decode("BH", []byte(wrong)); err == nil {
			t.Errorf("taken: %s for %s", c[1], c[0])
		}
	}
	many := func(n int, entry string) string {
		return strings.Replace(example, `"adopts": [`, `"adopts": [`+strings.Repeat(entry+",", n), 1)
	}
	if _, err := Decode("BH", []byte(many(2000, `{"service":"x","version":1,"from":"2026-01-01"}`))); err == nil {
		t.Error("2000 versions were taken")
	}
	if _, err := Decode("BH", []byte(strings.Repeat(" ", maxFile)+example)); err == nil {
		t.Error("too large")
	}
	if _, err := Decode("SA", []byte(example)); err == nil {
		t.Error("another state's was taken")
	}
}

// adopting is a state's adoption of versions of the service x, from each day on.
func adopting(t testing.TB, state, zone string, versions map[int][2]Date) *Adoption {
	t.Helper()
	a := &Adoption{System: union.SubsystemID{MemberID: union.MemberID{State: union.State(state), Class: "GOV", Code: "a"}, Subsystem: "b"}, Calendar: Calendar{Zone: zone}}
	for v, days := range versions {
		a.Adopt(Adopted{Service: "x", Version: v, From: days[0], Until: days[1]})
	}
	b, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return read(t, union.State(state), string(b))
}

func TestHighest(t *testing.T) {
	bh := adopting(t, "BH", "Asia/Bahrain", map[int][2]Date{1: {"2026-01-01", "2026-12-31"}, 2: {"2026-06-01", ""}, 4: {"2026-06-01", ""}})
	ae := adopting(t, "AE", "Asia/Dubai", map[int][2]Date{1: {"2025-01-01", ""}, 2: {"2026-09-01", ""}, 3: {"2026-01-01", ""}})
	for at, want := range map[string]int{
		"2025-12-31T20:59:59Z": 0,
		"2025-12-31T21:00:00Z": 1, // midnight in Bahrain
		"2026-06-15T00:00:00Z": 1,
		"2026-08-31T19:59:59Z": 1,
		"2026-08-31T20:00:00Z": 2, // midnight in Dubai, where the later one is
		"2026-12-31T21:00:00Z": 2, // the end of version 1
		"2400-01-01T00:00:00Z": 2,
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]*Adoption{{bh, ae}, {ae, bh}} {
			if v, ok := Highest("x", pair[0], pair[1], when); v != want || ok != (want > 0) {
				t.Errorf("%s: version %d, not %d", at, v, want)
			}
		}
	}
	for _, pair := range [][2]*Adoption{{nil, ae}, {bh, nil}, {nil, nil}} {
		if _, ok := Highest("x", pair[0], pair[1], time.Now()); ok {
			t.Error("a state that adopts nothing adopts something")
		}
	}
	if _, ok := Highest("y", bh, ae, time.Now()); ok {
		t.Error("nobody adopts y")
	}
}

// TestPropertyHighest: both states find the same version, and both begin cases
// by it.
func TestPropertyHighest(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		date := rapid.Custom(func(rt *rapid.T) Date {
			return Date(fmt.Sprintf("2026-%02d-%02d", rapid.IntRange(1, 12).Draw(rt, "month"), rapid.IntRange(1, 28).Draw(rt, "day")))
		})
		side := func(state, zone string) *Adoption {
			vs := map[int][2]Date{}
			for _, v := range rapid.SliceOfN(rapid.IntRange(1, 6), 0, 6).Draw(rt, "versions") {
				d := [2]Date{date.Draw(rt, "from"), ""}
				if until := date.Draw(rt, "until"); until >= d[0] {
					d[1] = until
				}
				vs[v] = d
			}
			return adopting(t, state, zone, vs)
		}
		a, b := side("BH", "Asia/Bahrain"), side("EG", "Africa/Cairo")
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 365*86400).Draw(rt, "at")) * time.Second)
		v, ok := Highest("x", a, b, at)
		if w, also := Highest("x", b, a, at); w != v || also != ok {
			rt.Fatalf("one says %d, the other %d", v, w)
		}
		if ok && (!a.Opens("x", v, at) || !b.Opens("x", v, at)) {
			rt.Fatalf("version %d is open in one alone", v)
		}
		for higher := v + 1; higher <= 6; higher++ {
			if a.Opens("x", higher, at) && b.Opens("x", higher, at) {
				rt.Fatalf("%d is higher than %d", higher, v)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(`{"system":"BH/GOV/a/b","zone":"UTC","weekend":null,"adopts":[{"service":"x","version":1,"from":"2026-01-01","roles":{"a":[]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Decode("BH", b)
		if err != nil {
			return
		}
		out, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode("BH", out)
		if err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		if twice, err := again.Encode(); err != nil || string(twice) != string(out) {
			t.Fatal("not the same again")
		}
		for _, d := range a.Adopts[:min(len(a.Adopts), 4)] {
			at := d.From.day()
			if v, ok := Highest(d.Service, a, again, at.AddDate(0, 0, 1)); ok && !a.Opens(d.Service, v, at.AddDate(0, 0, 1)) {
				t.Fatal("a version that is not open")
			}
		}
	})
}
