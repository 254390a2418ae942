package traffic_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/casework/calendar"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/union"
)

const pegs = `{"source":"a fixture","sample":true,"minutes":15,"common":"USD","rates":[
 {"from":"BHD","to":"USD","num":1000,"den":376},
 {"from":"KWD","to":"USD","num":1000,"den":303},
 {"from":"SAR","to":"USD","num":100,"den":375},
 {"from":"AED","to":"USD","num":10000,"den":36725}]}`

func rates(t testing.TB) *traffic.Rates {
	t.Helper()
	r, err := traffic.DecodeRates([]byte(pegs))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestQuote(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 999, time.UTC)
	for _, c := range []struct {
		from, to union.Currency
		num, den int64
	}{
		{"SAR", "BHD", 188, 1875}, {"BHD", "SAR", 1875, 188}, {"AED", "BHD", 752, 7345}, {"SAR", "USD", 4, 15}, {"USD", "SAR", 15, 4}, {"SAR", "SAR", 1, 1},
	} {
		q, err := rates(t).Quote(c.from, c.to, now)
		if err != nil || q.Rate != (union.Rate{From: c.from, To: c.to, Num: c.num, Den: c.den}) {
			t.Errorf("%s to %s: %+v, %v", c.from, c.to, q, err)
		}
		if q.Source != "a fixture" || !q.Until.Equal(now.Truncate(time.Second).Add(15*time.Minute)) || q.ID == "" {
			t.Errorf("%+v", q)
		}
	}
	if _, err := rates(t).Quote("OMR", "BHD", now); !errors.Is(err, traffic.ErrRates) {
		t.Error("a rate that nobody gave")
	}
	for name, change := range map[string][2]string{
		"a float":        {`"num":1000`, `"num":2.66`},
		"no rate":        {`"num":1000`, `"num":0`},
		"another target": {`"from":"BHD","to":"USD"`, `"from":"BHD","to":"SAR"`},
		"twice":          {`"from":"SAR"`, `"from":"BHD"`},
		"the common one": {`"from":"SAR"`, `"from":"USD"`},
		"no source":      {`"a fixture"`, `""`},
		"for ever":       {`"minutes":15`, `"minutes":100000`},
		"unknown member": {`"minutes":15`, `"minutes":15,"x":1`},
	} {
		if _, err := traffic.DecodeRates([]byte(strings.Replace(pegs, change[0], change[1], 1))); !errors.Is(err, traffic.ErrRates) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeRates(f *testing.F) {
	f.Add([]byte(pegs))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := traffic.DecodeRates(b)
		if err != nil {
			return
		}
		for _, one := range r.Rates {
			if q, err := r.Quote(one.From, r.Common, time.Unix(0, 0)); err == nil && q.Rate.Check() != nil {
				t.Errorf("%+v", q)
			}
		}
	})
}

// deps are of a node of Bahrain in the sandbox.
func deps(t testing.TB) traffic.Deps {
	return traffic.Deps{
		Violations: func(_ context.Context, st union.State, _ time.Time) (*traffic.Table, error) {
			if st != "KW" {
				return nil, errors.New("there is none")
			}
			return kuwait(t), nil
		},
		Rates: func(context.Context, time.Time) (*traffic.Rates, error) { return rates(t), nil },
		Calendar: func(context.Context) (calendar.Calendar, error) {
			z, err := time.LoadLocation("Asia/Bahrain")
			return calendar.Calendar{Zone: z, Weekend: []time.Weekday{time.Friday, time.Saturday}}, err
		},
		Sandbox: true,
	}
}

func call(t testing.TB, h definition.Hooks, name string, now time.Time, v definition.Values) any {
	t.Helper()
	f, ok := h[name]
	if !ok || f.Gives == "" {
		t.Fatalf("there is no %s", name)
	}
	for arg, typ := range f.Args {
		if _, err := typ.Take(v[arg]); err != nil {
			t.Fatalf("%s: %s: %v", name, arg, err)
		}
	}
	if len(v) != len(f.Args) {
		t.Fatalf("%s takes %v", name, f.Args)
	}
	got, err := f.Call(t.Context(), now, v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if got, err = f.Gives.Take(got); err != nil {
		t.Fatalf("%s gives %v", name, err)
	}
	return got
}

func amount(minor int64, c string) map[string]any {
	return map[string]any{"minor": minor, "currency": c}
}

// TestHooks goes through the functions as a definition calls them.
func TestHooks(t *testing.T) {
	h, now := traffic.Hooks(deps(t)), in("2026-03-01T12:00:00Z")
	at := in("2026-02-01T12:00:00Z")
	if got := call(t, h, "plate.read@1", now, definition.Values{"state": "BH", "seen": "٤٥٦"}).(map[string]any); got["plate"] != "456" || got["status"] != "read" || got["reason"] != "" {
		t.Errorf("%v", got)
	}
	if got := call(t, h, "plate.read@1", now, definition.Values{"state": "BH", "seen": "\u200f456"}).(map[string]any); got["plate"] != "" || got["status"] != "unreadable" || got["reason"] != "hidden" {
		t.Errorf("%v", got)
	}
	if got := call(t, h, "plate.match@1", now, definition.Values{"state": "BH", "seen": "456", "make": "Kia", "colour": "red",
		"registered": "456", "registered_make": "Kia Rio", "registered_colour": "blue"}); got != "mismatch" {
		t.Errorf("%v", got)
	}
	if got := call(t, h, "travel.possible@1", now, definition.Values{"lat": int64(26_000_000), "lon": int64(50_000_000), "at": now,
		"other_lat": int64(24_000_000), "other_lon": int64(54_000_000), "other_at": now, "speed": int64(250)}); got != false {
		t.Errorf("%v", got)
	}
	if got := call(t, h, "violation.settleable@1", now, definition.Values{"state": "KW", "code": "DUI", "at": at}); got != "criminal" {
		t.Errorf("%v", got)
	}
	if got := call(t, h, "fine.check@1", now, definition.Values{"state": "KW", "code": "RED-LIGHT", "at": at, "fine": amount(150_001, "KWD")}); got != "above" {
		t.Errorf("%v", got)
	}
	if got := call(t, h, "discount@1", now, definition.Values{"state": "KW", "code": "RED-LIGHT", "at": at, "served": at, "paid": now, "fine": amount(150_000, "KWD")}).(map[string]any); got["rule"] != "" || got["until"] != "" {
		t.Errorf("%v", got)
	}
	if got := call(t, h, "deadline.working@1", now, definition.Values{"from": now, "days": int64(5)}); got != in("2026-03-08T21:00:00Z") { // from a Sunday
		t.Errorf("%v", got)
	}
	if got := call(t, h, "deadline.again@1", now, definition.Values{"from": now, "days": int64(5), "was": in("2026-04-01T00:00:00Z")}); got != in("2026-04-01T00:00:00Z") {
		t.Errorf("%v", got)
	}
	quote := call(t, h, "quote@1", now, definition.Values{"amount": amount(10_000, "SAR"), "currency": "BHD"}).(map[string]any)
	if price := quote["price"].(map[string]any); price["minor"] != int64(10_027) || price["currency"] != "BHD" || quote["until"] != "2026-03-01T12:15:00Z" {
		t.Errorf("%v", quote)
	}
	minor := func(m map[string]any, name string) int64 { return m[name].(map[string]any)["minor"].(int64) }
	for _, c := range []struct {
		at                             time.Time
		done, open, paid               int64
		discharged, total, price, left int64
		whole                          bool
	}{
		// 150 dinars of Kuwait cost 186.139 of Bahrain.
		{now, 0, 0, 186_139, 150_000, 150_000, 186_139, 0, true},
		{now, 0, 0, 200_000, 150_000, 150_000, 186_139, 13_861, true},
		{now, 0, 86_139, 100_000, 150_000, 150_000, 186_139, 0, true},
		{now, 0, 0, 100_000, 80_585, 80_585, 100_000, 0, false},
		{now, 150_000, 0, 186_139, 0, 150_000, 0, 186_139, true},
		// Nothing is taken of no money.
		{now, 0, 5, 0, 0, 0, 0, 5, false},
		// The quote has ended: the rate of the moment counts, here the same.
		{now.Add(15 * time.Minute), 0, 0, 186_139, 150_000, 150_000, 186_139, 0, true},
	} {
		quote := call(t, h, "quote@1", now, definition.Values{"amount": amount(150_000, "KWD"), "currency": "BHD"}).(map[string]any)
		got := call(t, h, "payment.take@1", c.at, definition.Values{"state": "KW", "code": "RED-LIGHT", "at": at, "served": at, "amount": amount(150_000, "KWD"),
			"discharged": amount(c.done, "KWD"), "open": amount(c.open, "BHD"), "paid": amount(c.paid, "BHD"), "quote": quote}).(map[string]any)
		if minor(got, "discharged") != c.discharged || minor(got, "total") != c.total || minor(got, "price") != c.price || minor(got, "open") != c.left || got["whole"] != c.whole {
			t.Errorf("%+v: %v", c, got)
		}
		if fresh := got["quote"].(map[string]any)["id"] != quote["id"]; c.paid > 0 && fresh != c.at.After(now) {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if got := call(t, h, "payment.back@1", now, definition.Values{"spent": amount(10_027, "BHD"), "discharged": amount(10_000, "SAR"), "relief": amount(3_333, "SAR")}).(map[string]any); minor(got, "back") != 3_342 || minor(got, "spent") != 6_685 || minor(got, "discharged") != 6_667 {
		t.Errorf("%v", got)
	}
}

// TestTakeWithoutTables: money that cannot be reckoned with is told as such.
func TestTakeWithoutTables(t *testing.T) {
	now := in("2026-03-01T12:00:00Z")
	noRates := deps(t)
	noRates.Rates = nil
	for name, d := range map[string]traffic.Deps{"no tables": {}, "no rates": noRates} {
		got := call(t, traffic.Hooks(d), "payment.take@1", now, definition.Values{"state": "KW", "code": "RED-LIGHT", "at": now, "served": now, "amount": amount(150_000, "KWD"),
			"discharged": amount(5, "KWD"), "open": amount(7, "BHD"), "paid": amount(1_000, "BHD"), "quote": map[string]any{}}).(map[string]any)
		if got["priced"] != false || got["whole"] != false || got["total"].(map[string]any)["minor"] != int64(5) || got["open"].(map[string]any)["minor"] != int64(7) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestTakeDiscount: the discount of the day is for who pays the whole.
func TestTakeDiscount(t *testing.T) {
	d := deps(t)
	d.Violations = func(context.Context, union.State, time.Time) (*traffic.Table, error) {
		table := kuwait(t)
		table.Discounts = []traffic.Discount{{ID: "early", Name: union.Text{En: "x", Ar: "س"}, Percent: 50, Anchor: "served", Days: 7}}
		return table, nil
	}
	now := in("2026-03-01T12:00:00Z")
	for _, c := range []struct {
		days                 int
		paid, off, price, at int64
		whole                bool
	}{
		{0, 93_082, 75_000, 93_069, 75_000, true},
		{0, 50_000, 0, 49_999, 40_292, false}, // a part of the full amount
		{8, 93_082, 0, 93_082, 75_010, false},
		{8, 186_139, 0, 186_139, 150_000, true},
	} {
		got := call(t, traffic.Hooks(d), "payment.take@1", now.AddDate(0, 0, c.days), definition.Values{"state": "KW", "code": "RED-LIGHT",
			"at": in("2026-02-01T12:00:00Z"), "served": now, "amount": amount(150_000, "KWD"), "discharged": amount(0, "KWD"),
			"open": amount(0, "BHD"), "paid": amount(c.paid, "BHD"), "quote": map[string]any{}}).(map[string]any)
		minor := func(name string) int64 { return got[name].(map[string]any)["minor"].(int64) }
		if minor("off") != c.off || minor("price") != c.price || minor("discharged") != c.at || got["whole"] != c.whole {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestHooksRefuse: what cannot be computed is an error, which holds the case;
// it quotes nothing.
func TestHooksRefuse(t *testing.T) {
	now := in("2026-03-01T12:00:00Z")
	public := deps(t)
	public.Sandbox = false
	for name, c := range map[string]struct {
		deps traffic.Deps
		run  string
		v    definition.Values
	}{
		"no table":            {deps(t), "violation.settleable@1", definition.Values{"state": "SECRET", "code": "X", "at": now}},
		"a sample in earnest": {public, "violation.settleable@1", definition.Values{"state": "KW", "code": "DUI", "at": now}},
		"sample rates":        {public, "quote@1", definition.Values{"amount": amount(1, "SAR"), "currency": "BHD"}},
		"no tables":           {traffic.Deps{}, "fine.check@1", definition.Values{"state": "KW", "code": "SECRET", "at": now, "fine": amount(1, "KWD")}},
		"no calendar":         {traffic.Deps{}, "deadline.working@1", definition.Values{"from": now, "days": int64(1)}},
		"no rates":            {traffic.Deps{}, "quote@1", definition.Values{"amount": amount(1, "SAR"), "currency": "BHD"}},
		"no days":             {deps(t), "deadline.working@1", definition.Values{"from": now, "days": int64(-1)}},
		"endless days":        {deps(t), "deadline.working@1", definition.Values{"from": now, "days": int64(1) << 62}},
		"a currency":          {deps(t), "quote@1", definition.Values{"amount": amount(1, "SAR"), "currency": "SECRET"}},
		"more than there was": {deps(t), "payment.back@1", definition.Values{"spent": amount(1, "BHD"), "discharged": amount(1, "SAR"), "relief": amount(2, "SAR")}},
	} {
		got, err := traffic.Hooks(c.deps)[c.run].Call(t.Context(), now, c.v)
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
