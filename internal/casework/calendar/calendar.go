// Package calendar reckons deadlines by a state's own days: its zone, its
// weekend, its holidays. A deadline is an instant, at which its last day has
// just ended. No input or output, and no clock.
package calendar

import (
	"errors"
	"fmt"
	"slices"
	"time"
	_ "time/tzdata" // the zones of a deadline are not the machine's
)

// Span is a holiday of one or more days, YYYY-MM-DD, the last among them.
type Span struct{ From, Until string }

// Calendar is a state's. Days are those of its zone.
type Calendar struct {
	Zone     *time.Location
	Weekend  []time.Weekday
	Holidays []Span
}

// Bounds of a deadline.
const (
	maxDays  = 3660
	maxYears = 30 // how far a calendar without working days is followed
)

// ErrDeadline is wrapped by every error here.
var ErrDeadline = errors.New("no deadline can be reckoned")

// day is a date, as the midnight of UTC that has its name.
func (c Calendar) day(at time.Time) time.Time {
	y, m, d := at.In(c.Zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// start is the first instant of a day in the zone. Where clocks are put
// forward at midnight, as in Cairo, the day begins at one; where they are put
// back then, an hour of the day before comes twice.
func (c Calendar) start(day time.Time) time.Time {
	var first time.Time
	for _, near := range []time.Duration{-36 * time.Hour, 36 * time.Hour} {
		_, east := day.Add(near).In(c.Zone).Zone()
		at := day.Add(-time.Duration(east) * time.Second)
		if c.day(at).Equal(day) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// working tells whether a day is one on which people work.
func (c Calendar) working(day time.Time) bool {
	if slices.Contains(c.Weekend, day.Weekday()) {
		return false
	}
	name := day.Format(time.DateOnly)
	return !slices.ContainsFunc(c.Holidays, func(h Span) bool { return h.From <= name && name <= h.Until })
}

// Working is the end of the nth working day after the day of an instant, which
// itself does not count.
func (c Calendar) Working(from time.Time, n int) (time.Time, error) {
	return c.reckon(from, n, func(day time.Time) bool { return c.working(day) }, false)
}

// Days is the end of the nth day after the day of an instant; if nobody works
// on that day, of the next one on which people do.
func (c Calendar) Days(from time.Time, n int) (time.Time, error) {
	return c.reckon(from, n, func(time.Time) bool { return true }, true)
}

func (c Calendar) reckon(from time.Time, n int, counts func(day time.Time) bool, roll bool) (time.Time, error) {
	if c.Zone == nil || n < 1 || n > maxDays {
		return time.Time{}, fmt.Errorf("%w: wanted a zone, and 1 to %d days", ErrDeadline, maxDays)
	}
	day := c.day(from)
	last := day.AddDate(maxYears, 0, 0)
	for left := n; left > 0 || roll && !c.working(day); {
		if day = day.AddDate(0, 0, 1); day.After(last) {
			return time.Time{}, fmt.Errorf("%w: the calendar has too few working days", ErrDeadline)
		}
		if left > 0 && counts(day) {
			left--
		}
	}
	end := c.start(day.AddDate(0, 0, 1))
	if end.IsZero() {
		return time.Time{}, fmt.Errorf("%w: the zone has no such day", ErrDeadline)
	}
	return end.UTC(), nil
}

// Later is a deadline that was reckoned anew, because a feast was announced:
// it moves in the citizen's favour alone.
func Later(was, anew time.Time) time.Time {
	if anew.After(was) {
		return anew
	}
	return was
}
