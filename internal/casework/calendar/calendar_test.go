package calendar_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/casework/calendar"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDeadline(t *testing.T) {
	friday, sunday := []time.Weekday{time.Friday, time.Saturday}, []time.Weekday{time.Saturday, time.Sunday}
	eid := []calendar.Span{{From: "2026-03-20", Until: "2026-03-22"}}
	for _, c := range []struct {
		name, zone string
		weekend    []time.Weekday
		holidays   []calendar.Span
		from       string
		n          int
		working    string // ends of both kinds
		days       string
	}{
		// 2026-03-16 is a Monday.
		{"Bahrain", "Asia/Bahrain", friday, nil, "2026-03-16T09:00:00+03:00", 5, "2026-03-24T00:00:00+03:00", "2026-03-23T00:00:00+03:00"},
		{"Bahrain in Eid", "Asia/Bahrain", friday, eid, "2026-03-16T09:00:00+03:00", 5, "2026-03-25T00:00:00+03:00", "2026-03-24T00:00:00+03:00"},
		{"the Emirates' weekend", "Asia/Dubai", sunday, nil, "2026-03-16T09:00:00+04:00", 5, "2026-03-24T00:00:00+04:00", "2026-03-24T00:00:00+04:00"},
		{"the same instant is another day", "Asia/Dubai", sunday, nil, "2026-03-16T23:30:00+03:00", 1, "2026-03-19T00:00:00+04:00", "2026-03-19T00:00:00+04:00"},
		{"and not yet in Bahrain", "Asia/Bahrain", friday, nil, "2026-03-16T23:30:00+03:00", 1, "2026-03-18T00:00:00+03:00", "2026-03-18T00:00:00+03:00"},
		{"from a weekend", "Asia/Kuwait", friday, nil, "2026-03-20T12:00:00+03:00", 1, "2026-03-23T00:00:00+03:00", "2026-03-23T00:00:00+03:00"},
		// Summer time begins in Cairo at 00:00 of Friday 2026-04-24, a time that
		// there is not, and ends on Thursday 2026-10-29 at 24:00, which is 23:00.
		{"Cairo puts clocks forward", "Africa/Cairo", friday, nil, "2026-04-22T10:00:00+02:00", 1, "2026-04-23T22:00:00Z", "2026-04-23T22:00:00Z"},
		{"Cairo in summer", "Africa/Cairo", friday, nil, "2026-04-22T10:00:00+02:00", 2, "2026-04-26T21:00:00Z", "2026-04-26T21:00:00Z"},
		{"Cairo puts clocks back", "Africa/Cairo", friday, nil, "2026-10-28T10:00:00+03:00", 1, "2026-10-29T22:00:00Z", "2026-10-29T22:00:00Z"},
		{"west of Greenwich too", "America/Havana", nil, nil, "2026-03-06T12:00:00-05:00", 1, "2026-03-08T05:00:00Z", "2026-03-08T05:00:00Z"},
		{"no weekend", "UTC", nil, nil, "2026-12-31T23:59:59Z", 1, "2027-01-02T00:00:00Z", "2027-01-02T00:00:00Z"},
	} {
		cal := calendar.Calendar{Zone: zone(t, c.zone), Weekend: c.weekend, Holidays: c.holidays}
		if got, err := cal.Working(at(t, c.from), c.n); err != nil || !got.Equal(at(t, c.working)) {
			t.Errorf("%s: working days end at %s, %v", c.name, got.In(cal.Zone), err)
		}
		if got, err := cal.Days(at(t, c.from), c.n); err != nil || !got.Equal(at(t, c.days)) {
			t.Errorf("%s: days end at %s, %v", c.name, got.In(cal.Zone), err)
		}
	}
}

func TestNoDeadline(t *testing.T) {
	all := []time.Weekday{0, 1, 2, 3, 4, 5, 6}
	utc := calendar.Calendar{Zone: time.UTC}
	for name, f := range map[string]func() (time.Time, error){
		"no zone":       func() (time.Time, error) { return calendar.Calendar{}.Working(time.Unix(0, 0), 1) },
		"no days":       func() (time.Time, error) { return utc.Working(time.Unix(0, 0), 0) },
		"days before":   func() (time.Time, error) { return utc.Days(time.Unix(0, 0), -1) },
		"too many days": func() (time.Time, error) { return utc.Days(time.Unix(0, 0), 3661) },
		"nobody works": func() (time.Time, error) {
			return calendar.Calendar{Zone: time.UTC, Weekend: all}.Working(time.Unix(0, 0), 1)
		},
		"nobody works, 2": func() (time.Time, error) {
			return calendar.Calendar{Zone: time.UTC, Weekend: all}.Days(time.Unix(0, 0), 1)
		},
	} {
		if got, err := f(); !errors.Is(err, calendar.ErrDeadline) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestNaive holds deadlines against counting hour by hour, and a feast that is
// announced late against the citizen's favour.
func TestNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"Asia/Bahrain", "Asia/Dubai", "Africa/Cairo", "Asia/Riyadh"}).Draw(t, "zone")
		z, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		weekend := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) time.Weekday {
			return time.Weekday(rapid.IntRange(0, 6).Draw(t, "day"))
		}), 0, 3, rapid.ID).Draw(t, "weekend")
		from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 700*24*60).Draw(t, "from")) * time.Minute)
		n := rapid.IntRange(1, 40).Draw(t, "n")
		feast := from.AddDate(0, 0, rapid.IntRange(-3, 60).Draw(t, "feast"))
		span := calendar.Span{From: feast.Format(time.DateOnly), Until: feast.AddDate(0, 0, rapid.IntRange(0, 4).Draw(t, "long")).Format(time.DateOnly)}
		cal := calendar.Calendar{Zone: z, Weekend: weekend}
		before, err := cal.Working(from, n)
		if err != nil {
			t.Fatal(err)
		}
		cal.Holidays = []calendar.Span{span}
		after, err := cal.Working(from, n)
		if err != nil {
			t.Fatal(err)
		}
		if after.Before(before) || !calendar.Later(before, after).Equal(after) || !calendar.Later(after, before).Equal(after) {
			t.Fatalf("a feast moved %s to %s", before, after)
		}

		// Walk by quarters of an hour until n working days have gone by.
		left, day := n, from.In(z).Format(time.DateOnly)
		walk := from.UTC().Truncate(15 * time.Minute)
		free := func(at time.Time) bool {
			d := at.In(z).Format(time.DateOnly)
			for _, w := range weekend {
				if at.In(z).Weekday() == w {
					return true
				}
			}
			return d >= span.From && d <= span.Until
		}
		started := false
		for {
			walk = walk.Add(15 * time.Minute)
			if d := walk.In(z).Format(time.DateOnly); d != day {
				if started && !free(walk.Add(-15*time.Minute)) {
					left--
				}
				if started && left == 0 {
					break
				}
				started, day = true, d
			}
		}
		if !walk.Equal(after) {
			t.Fatalf("%s and not %s", after.In(z), walk.In(z))
		}
	})
}
