// Package traffic is the joint service "traffic violation": its definition,
// and the mathematics that it names: plates, tables of violations, discounts,
// travel between two cameras, quotes, deadlines, photographs, and what is
// booked.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/casework/calendar"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/union"
)

// Deps are the signed files that the functions compute from.
type Deps struct {
	// Violations is a state's table as it stood on the day of an offence.
	Violations func(ctx context.Context, state union.State, at time.Time) (*Table, error)
	// Rates is this state's table of rates as it stands at a time.
	Rates func(ctx context.Context, at time.Time) (*Rates, error)
	// Calendar is this state's.
	Calendar func(ctx context.Context) (calendar.Calendar, error)
	// Sandbox lets sample tables count.
	Sandbox bool
}

// Hooks are the functions that the definition names. Those without a result
// are effects: see Effects.
func Hooks(d Deps) definition.Hooks {
	hooks := definition.Hooks{
		"plate.read@1": {
			Args:  args("state", definition.Text, "seen", definition.Text),
			Gives: definition.Object,
			Call: func(_ context.Context, _ time.Time, v definition.Values) (any, error) {
				plate, why := ReadPlate(union.State(text(v, "state")), text(v, "seen"))
				return map[string]any{"status": why.status(), "reason": string(why), "plate": plate}, nil
			},
		},
		"plate.match@1": {
			Args: args("state", definition.Text, "seen", definition.Text, "make", definition.Text, "colour", definition.Text,
				"registered", definition.Text, "registered_make", definition.Text, "registered_colour", definition.Text),
			Gives: definition.Text,
			Call: func(_ context.Context, _ time.Time, v definition.Values) (any, error) {
				return string(Match(union.State(text(v, "state")),
					Sight{text(v, "seen"), text(v, "make"), text(v, "colour")},
					Sight{text(v, "registered"), text(v, "registered_make"), text(v, "registered_colour")})), nil
			},
		},
		"travel.possible@1": {
			Args: args("lat", definition.Whole, "lon", definition.Whole, "at", definition.Instant,
				"other_lat", definition.Whole, "other_lon", definition.Whole, "other_at", definition.Instant, "speed", definition.Whole),
			Gives: definition.Truth,
			Call: func(_ context.Context, _ time.Time, v definition.Values) (any, error) {
				return Possible(Sighting{whole(v, "lat"), whole(v, "lon"), instant(v, "at")},
					Sighting{whole(v, "other_lat"), whole(v, "other_lon"), instant(v, "other_at")}, whole(v, "speed"))
			},
		},
		"violation.settleable@1": {
			Args:  args("state", definition.Text, "code", definition.Text, "at", definition.Instant),
			Gives: definition.Text,
			Call: func(ctx context.Context, _ time.Time, v definition.Values) (any, error) {
				t, err := d.violations(ctx, union.State(text(v, "state")), instant(v, "at"))
				if err != nil {
					return nil, err
				}
				return string(t.Course(text(v, "code"), instant(v, "at"))), nil
			},
		},
		"fine.check@1": {
			Args:  args("state", definition.Text, "code", definition.Text, "at", definition.Instant, "fine", definition.Money),
			Gives: definition.Text,
			Call: func(ctx context.Context, _ time.Time, v definition.Values) (any, error) {
				t, err := d.violations(ctx, union.State(text(v, "state")), instant(v, "at"))
				if err != nil {
					return nil, err
				}
				return string(t.CheckFine(text(v, "code"), instant(v, "at"), amount(v, "fine"))), nil
			},
		},
		"discount@1": {
			Args: args("state", definition.Text, "code", definition.Text, "at", definition.Instant,
				"served", definition.Instant, "paid", definition.Instant, "fine", definition.Money),
			Gives: definition.Object,
			Call: func(ctx context.Context, _ time.Time, v definition.Values) (any, error) {
				t, err := d.violations(ctx, union.State(text(v, "state")), instant(v, "at"))
				if err != nil {
					return nil, err
				}
				o, err := t.Discount(text(v, "code"), instant(v, "at"), instant(v, "served"), instant(v, "paid"), amount(v, "fine"))
				if err != nil {
					return nil, err
				}
				return map[string]any{"rule": o.Rule, "off": value(o.Off), "pay": value(o.Pay), "until": o.Until}, nil
			},
		},
		"quote@1": {
			Args:  args("amount", definition.Money, "currency", definition.Text),
			Gives: definition.Object,
			Call: func(ctx context.Context, now time.Time, v definition.Values) (any, error) {
				r, err := d.rates(ctx, now)
				if err != nil {
					return nil, err
				}
				return r.quote(amount(v, "amount"), union.Currency(text(v, "currency")), now)
			},
		},
		"payment.take@1": {
			Args: args("state", definition.Text, "code", definition.Text, "at", definition.Instant, "served", definition.Instant, "amount", definition.Money,
				"discharged", definition.Money, "open", definition.Money, "paid", definition.Money, "quote", definition.Object),
			Gives: definition.Object,
			Call:  d.take,
		},
		"payment.back@1": {
			Args:  args("spent", definition.Money, "discharged", definition.Money, "relief", definition.Money),
			Gives: definition.Object,
			Call: func(_ context.Context, _ time.Time, v definition.Values) (any, error) {
				return giveBack(amount(v, "spent"), amount(v, "discharged"), amount(v, "relief"))
			},
		},
		"deadline.working@1": {
			Args: args("from", definition.Instant, "days", definition.Whole), Gives: definition.Instant,
			Call: func(ctx context.Context, _ time.Time, v definition.Values) (any, error) {
				return d.deadline(ctx, v, time.Time{})
			},
		},
		"deadline.again@1": {
			Args: args("from", definition.Instant, "days", definition.Whole, "was", definition.Instant), Gives: definition.Instant,
			Call: func(ctx context.Context, _ time.Time, v definition.Values) (any, error) {
				return d.deadline(ctx, v, instant(v, "was"))
			},
		},
	}
	for name, e := range effects() {
		hooks[name] = definition.Func{Args: e.args}
	}
	return hooks
}

// deadline is in working days of this state; one that was reckoned before
// moves in the citizen's favour alone.
func (d Deps) deadline(ctx context.Context, v definition.Values, was time.Time) (any, error) {
	if d.Calendar == nil {
		return nil, errors.New("this state has no calendar")
	}
	c, err := d.Calendar(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the calendar: %w", err)
	}
	end, err := c.Working(instant(v, "from"), int(min(max(whole(v, "days"), 0), 1<<20)))
	if err != nil {
		return nil, err
	}
	return calendar.Later(was, end), nil
}

func (d Deps) violations(ctx context.Context, state union.State, at time.Time) (*Table, error) {
	if d.Violations == nil {
		return nil, errors.New("there are no tables of violations")
	}
	t, err := d.Violations(ctx, state, at)
	if err != nil {
		return nil, fmt.Errorf("reading a table of violations: %w", err)
	}
	if t.State != state {
		return nil, errors.New("the table of violations is another state's")
	}
	return t, t.Use(d.Sandbox)
}

func (d Deps) rates(ctx context.Context, now time.Time) (*Rates, error) {
	if d.Rates == nil {
		return nil, errors.New("this state has no table of rates")
	}
	r, err := d.Rates(ctx, now)
	if err != nil {
		return nil, fmt.Errorf("reading the table of rates: %w", err)
	}
	return r, r.Use(d.Sandbox)
}

// args pairs names with types.
func args(pairs ...any) map[string]definition.Type {
	m := make(map[string]definition.Type, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1].(definition.Type)
	}
	return m
}

// Arguments have been brought into their types by the caller.

func text(v definition.Values, name string) string { s, _ := v[name].(string); return s }
func whole(v definition.Values, name string) int64 { n, _ := v[name].(int64); return n }
func instant(v definition.Values, name string) time.Time {
	t, _ := v[name].(time.Time)
	return t
}

func amount(v definition.Values, name string) union.Money {
	m, _ := v[name].(map[string]any)
	minor, _ := m["minor"].(int64)
	currency, _ := m["currency"].(string)
	return union.Money{Minor: minor, Currency: union.Currency(currency)}
}

func value(m union.Money) map[string]any {
	return map[string]any{"minor": m.Minor, "currency": string(m.Currency)}
}
