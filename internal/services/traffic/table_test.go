package traffic_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/union"
)

const header = "state,local_code,text_en,text_ar,category,eu_2015_413,fine_min,fine_max,currency,points,vehicle_impound_days,law,as_of,source,confidence\n"

// list is made up: three rows of one state, in two regimes, and one of another.
const list = header +
	`KW,RED-LIGHT,Passing a red signal,تجاوز الإشارة الحمراء,red_light,red_light,150,150,KWD,4,,"Made-up law (in force 2025-04-22), settlement",2025-04-01,a fixture,secondary
KW,OLD-RED-LIGHT,Passing a red signal,تجاوز الإشارة الحمراء,red_light,red_light,50.5,50.500,KWD,,60,Made-up law (superseded 2025-04-22),2025,a fixture,press
KW,OLD-PARK,Parking,الوقوف,parking,none,5,15,KWD,,,Made-up older law,,a fixture,press
KW,DUI,Driving drunk,القيادة تحت تأثير الكحول,drink_drug,drink_driving,1000,3000,KWD,,,Made-up law,2025-01,a fixture,press
KW,NOISE-COURT,"Noise, if referred to court",إزعاج,other,none,150,300,KWD,,,Made-up law,,a fixture,press
KW,HURT,Causing an injury,التسبب في إصابة,dangerous_driving,none,,8000,KWD,,,Made-up law,,a fixture,press
KW,ANY,Left to the court,متروك للمحكمة,other,none,,,KWD,,,Made-up law,,a fixture,official
AE,SPEED,Speeding,تجاوز السرعة,speed,speeding,300,3000,AED,,,Made-up law,,a fixture,press
`

func kuwait(t testing.TB) *traffic.Table {
	t.Helper()
	table, err := traffic.ReadCSV(strings.NewReader(list), "KW", "Asia/Kuwait")
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func in(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestCourse(t *testing.T) {
	table := kuwait(t)
	if len(table.Violations) != 7 || !table.Sample {
		t.Fatalf("%+v", table)
	}
	before, after := in("2025-04-21T23:59:59+03:00"), in("2025-04-22T00:00:00+03:00")
	for _, c := range []struct {
		code string
		at   time.Time
		want traffic.Course
	}{
		{"RED-LIGHT", after, traffic.Settleable},
		{"RED-LIGHT", before, traffic.Unknown}, // not yet in force
		{"OLD-RED-LIGHT", before, traffic.Settleable},
		{"OLD-RED-LIGHT", after, traffic.Unknown},
		{"OLD-PARK", before, traffic.Unknown}, // nobody says until when
		{"DUI", after, traffic.Criminal},
		{"HURT", after, traffic.Criminal},
		{"NOISE-COURT", after, traffic.Court},
		{"ANY", after, traffic.Court},
		{"SPEED", after, traffic.Unknown}, // another state's
		{"red-light", after, traffic.Unknown},
	} {
		if got := table.Course(c.code, c.at); got != c.want {
			t.Errorf("%s at %s: %s", c.code, c.at, got)
		}
	}
}

func TestCheckFine(t *testing.T) {
	table := kuwait(t)
	before, after := in("2025-04-21T23:59:59+03:00"), in("2025-04-22T00:00:00+03:00")
	for _, c := range []struct {
		code string
		at   time.Time
		fine string
		want traffic.Finding
	}{
		{"RED-LIGHT", after, "150 KWD", traffic.Fits},
		{"RED-LIGHT", after, "149.999 KWD", traffic.TooLow},
		{"RED-LIGHT", after, "150.001 KWD", traffic.TooHigh},
		{"RED-LIGHT", after, "150 BHD", traffic.WrongCurrency},
		{"RED-LIGHT", before, "150 KWD", traffic.NotThere},
		{"OLD-RED-LIGHT", before, "50.5 KWD", traffic.Fits},
		{"DUI", after, "1000 KWD", traffic.NotSettleable},
	} {
		fine, err := union.ParseMoney(c.fine)
		if err != nil {
			t.Fatal(err)
		}
		if got := table.CheckFine(c.code, c.at, fine); got != c.want {
			t.Errorf("%s %s at %s: %s", c.code, c.fine, c.at, got)
		}
	}
}

func TestSample(t *testing.T) {
	table := kuwait(t)
	if err := table.Use(true); err != nil {
		t.Error(err)
	}
	if err := table.Use(false); fault.CodeOf(err) != fault.DemoRefused {
		t.Errorf("a sample table counts: %v", err)
	}
	table.Sample = false
	if err := table.Use(false); err != nil {
		t.Error(err)
	}
}

func TestReadCSVRefuses(t *testing.T) {
	row := strings.Split(list, "\n")[1]
	for name, c := range map[string]string{
		"nothing":             "",
		"no header":           row,
		"another header":      strings.Replace(list, "text_ar", "text_fr", 1),
		"a column too many":   header + row + ",x\n",
		"a column too few":    header + strings.TrimSuffix(row, ",secondary") + "\n",
		"no text in Arabic":   header + strings.Replace(row, "تجاوز الإشارة الحمراء", "", 1),
		"another currency":    header + strings.Replace(row, "KWD", "BHD", 1),
		"a fraction too fine": header + strings.Replace(row, "150,150", "150.0001,150.0001", 1),
		"a float":             header + strings.Replace(row, "150,150", "1e2,1e2", 1),
		"less than nothing":   header + strings.Replace(row, "150,150", "-1,150", 1),
		"upside down":         header + strings.Replace(row, "150,150", "150,100", 1),
		"points":              header + strings.Replace(row, "KWD,4", "KWD,many", 1),
		"more points":         header + strings.Replace(row, "KWD,4", "KWD,101", 1),
		"confidence":          header + strings.Replace(row, "secondary", "certain", 1),
		"a date":              header + strings.Replace(row, "2025-04-01", "April", 1),
		"no such day":         header + strings.Replace(row, "2025-04-22", "2025-04-31", 1),
		"a code":              header + strings.Replace(row, "RED-LIGHT", "red light", 1),
		"twice":               header + row + "\n" + row,
		"a quote left open":   header + `KW,"RED`,
		"an endless row":      header + "KW," + strings.Repeat("A", 2<<20),
		"an endless text":     header + strings.Replace(row, "Passing", strings.Repeat("x", 1001), 1),
		"endless rows":        header + strings.Repeat("XX,,,,,,,,,,,,,,\n", 5002),
	} {
		if table, err := traffic.ReadCSV(strings.NewReader(c), "KW", "Asia/Kuwait"); !errors.Is(err, traffic.ErrTable) {
			t.Errorf("%s: %+v, %v", name, table, err)
		}
	}
	for _, zone := range []string{"", "Local", "Asia/Nowhere", "../etc/passwd"} {
		if _, err := traffic.ReadCSV(strings.NewReader(list), "KW", zone); !errors.Is(err, traffic.ErrTable) {
			t.Errorf("zone %q: %v", zone, err)
		}
	}
	if _, err := traffic.ReadCSV(strings.NewReader(list), "FR", "Europe/Paris"); !errors.Is(err, traffic.ErrTable) {
		t.Error("a state without a currency that is known passes")
	}
}

func TestCourseColumn(t *testing.T) {
	with := strings.ReplaceAll(strings.TrimSuffix(list, "\n"), "\n", ",settleable\n") + ",settleable\n"
	with = strings.Replace(with, "confidence,settleable", "confidence,course", 1)
	with = strings.Replace(with, ",a fixture,official,settleable", ",a fixture,official,court", 1)
	table, err := traffic.ReadCSV(strings.NewReader(with), "KW", "Asia/Kuwait")
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Course("DUI", in("2026-01-01T00:00:00Z")); got != traffic.Settleable {
		t.Errorf("the list's own word does not count: %s", got)
	}
	if _, err := traffic.ReadCSV(strings.NewReader(strings.Replace(with, ",court\n", ",whatever\n", 1)), "KW", "Asia/Kuwait"); err == nil {
		t.Error("an unknown course passes")
	}
}

func TestTableJSON(t *testing.T) {
	table := kuwait(t)
	table.Discounts = []traffic.Discount{{ID: "early", Name: union.Text{En: "Early", Ar: "مبكر"}, Percent: 50, Anchor: "served", Days: 7}}
	b, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := traffic.DecodeTable(b)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := again.Encode(); err != nil || string(c) != string(b) {
		t.Errorf("%v", err)
	}
	for name, change := range map[string][2]string{
		"an unknown member":   {`"state": "KW"`, `"state": "KW", "more": 1`},
		"twice":               {`"state": "KW"`, `"state": "KW", "state": "KW"`},
		"a percentage":        {`"percent": 50`, `"percent": 101`},
		"a half":              {`"percent": 50`, `"percent": 0.5`},
		"no anchor":           {`"anchor": "served"`, `"anchor": "paid"`},
		"no end":              {`"days": 7`, `"days": 0`},
		"a fine of a float":   {`"fine_min": 150000`, `"fine_min": 150000.0`},
		"a state":             {`"state": "KW"`, `"state": "FR"`},
		"a day":               {`"from": "2025-04-22"`, `"from": "22.4.2025"`},
		"a discount's text":   {`"en": "Early"`, `"en": ""`},
		"nothing it could be": {string(b), `[]`},
	} {
		if !strings.Contains(string(b), change[0]) {
			t.Fatalf("%s: %s", name, b)
		}
		if _, err := traffic.DecodeTable([]byte(strings.Replace(string(b), change[0], change[1], 1))); !errors.Is(err, traffic.ErrTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := traffic.DecodeTable(make([]byte, 1<<20+1)); !errors.Is(err, traffic.ErrTable) {
		t.Error("a table without end")
	}
}

func TestDiscount(t *testing.T) {
	table := kuwait(t)
	name := union.Text{En: "x", Ar: "س"}
	table.Discounts = []traffic.Discount{
		{ID: "early", Name: name, Percent: 35, Anchor: "served", Days: 7, NotCategories: []string{"phone"}},
		{ID: "soon", Name: name, Percent: 25, Anchor: "offence", Days: 60},
		{ID: "campaign", Name: name, Percent: 50, From: "2026-06-01", Until: "2026-09-01", OffencesUntil: "2026-05-01", NotCodes: []string{"PARK"}},
	}
	b, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if table, err = traffic.DecodeTable(b); err != nil {
		t.Fatal(err)
	}
	fine, offence := union.Money{Minor: 150_000, Currency: "KWD"}, in("2026-04-10T22:30:00+03:00")
	served := in("2026-04-20T10:00:00+03:00")
	for _, c := range []struct {
		paid, rule string
		pay        int64
		until      string
	}{
		{"2026-04-20T11:00:00+03:00", "early", 97_500, "2026-04-27T21:00:00Z"},
		{"2026-04-27T23:59:59+03:00", "early", 97_500, "2026-04-27T21:00:00Z"}, // the seventh day after the day of service
		{"2026-04-28T00:00:00+03:00", "soon", 112_500, "2026-06-09T21:00:00Z"},
		{"2026-06-01T00:00:00+03:00", "campaign", 75_000, "2026-08-31T21:00:00Z"},
		{"2026-08-31T23:59:59+03:00", "campaign", 75_000, "2026-08-31T21:00:00Z"},
		{"2026-09-01T00:00:00+03:00", "", 150_000, ""},
	} {
		o, err := table.Discount("RED-LIGHT", offence, served, in(c.paid), fine)
		if err != nil || o.Rule != c.rule || o.Pay.Minor != c.pay || o.Off.Minor != 150_000-c.pay || o.Until != c.until {
			t.Errorf("paid %s: %+v, %v", c.paid, o, err)
		}
	}
	if o, err := table.Discount("DUI", offence, served, served, fine); err != nil || o.Rule != "" || o.Pay != fine {
		t.Errorf("what does not travel has a discount: %+v, %v", o, err)
	}
	// A campaign for offences before it does not reach those after.
	if o, err := table.Discount("RED-LIGHT", in("2026-05-01T00:00:00+03:00"), in("2026-05-02T00:00:00+03:00"), in("2026-08-01T00:00:00+03:00"), fine); err != nil || o.Rule != "" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestShared reads the whole list of the six states.
func TestShared(t *testing.T) {
	path := filepath.Join("..", "..", "..", "..", "shared", "data", "traffic", "violations.csv")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		t.Skip("../shared/data is absent; the made-up lists are read all the same")
	}
	sum := 0
	for st, zone := range map[union.State]string{"SA": "Asia/Riyadh", "AE": "Asia/Dubai", "BH": "Asia/Bahrain", "KW": "Asia/Kuwait", "OM": "Asia/Muscat", "QA": "Asia/Qatar"} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		table, err := traffic.ReadCSV(f, st, zone)
		_ = f.Close()
		if err != nil {
			t.Fatalf("%s: %v", st, err)
		}
		sum += len(table.Violations)
		if table.Use(false) == nil {
			t.Errorf("%s: what no state has signed counts", st)
		}
		if !slices.ContainsFunc(table.Violations, func(v traffic.Violation) bool { return v.Course == traffic.Settleable }) {
			t.Errorf("%s: nothing may travel", st)
		}
		b, err := table.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := traffic.DecodeTable(b); err != nil || len(again.Violations) != len(table.Violations) {
			t.Errorf("%s: %v", st, err)
		}
	}
	if sum != 359 {
		t.Errorf("%d rows of 359", sum)
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add(list)
	f.Add(header)
	f.Add("\ufeff" + header + "KW,A,b,ج,d,e,1,2,KWD,,,l,,s,press\n")
	f.Fuzz(func(t *testing.T, s string) {
		table, err := traffic.ReadCSV(strings.NewReader(s), "KW", "Asia/Kuwait")
		if err != nil {
			return
		}
		b, err := table.Encode()
		if err != nil {
			return // not UTF-8
		}
		if _, err := traffic.DecodeTable(b); err != nil && len(b) <= 1<<20 {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	b, err := kuwait(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"state":"BH","zone":"Asia/Bahrain","violations":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := traffic.DecodeTable(b)
		if err != nil {
			return
		}
		at := time.Unix(1_800_000_000, 0)
		for _, v := range table.Violations {
			fine := union.Money{Minor: 1000, Currency: union.CurrencyOf(table.State)}
			if o, err := table.Discount(v.Code, at, at, at, fine); err != nil || o.Pay.Minor < 0 || o.Pay.Minor+o.Off.Minor != fine.Minor {
				t.Errorf("%+v, %v", o, err)
			}
		}
	})
}
