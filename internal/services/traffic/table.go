package traffic

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
	_ "time/tzdata" // the days of an offence are not the machine's

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Bounds of a table.
const (
	maxTable     = 1 << 20 // bytes
	maxRows      = 5000
	maxDiscounts = 200
	maxText      = 1000 // bytes of a text in one language, of a law, of a source
)

// Date is a day of the state, YYYY-MM-DD; "" where there is none. Dates
// compare as texts.
type Date string

// UnmarshalText reads a day, or nothing.
func (d *Date) UnmarshalText(b []byte) error {
	if t, err := time.Parse(time.DateOnly, string(b)); len(b) > 0 && (err != nil || t.Format(time.DateOnly) != string(b)) {
		return errors.New("a day is written 2026-12-01")
	}
	*d = Date(b)
	return nil
}

// within tells whether a day lies from one on and before another, where they
// are given.
func (d Date) within(from, until Date) bool { return d >= from && (until == "" || d < until) }

// Course is what the law of its state does with a violation.
type Course string

// The courses. Only a settleable one travels as a fine; the others take mutual
// legal assistance.
const (
	Settleable Course = "settleable"
	Court      Course = "court"
	Criminal   Course = "criminal"
	Unknown    Course = "unknown" // not in the table on that day
)

// Violation is one row: a violation of a state, and what it costs.
type Violation struct {
	Code       string     `json:"code"` // of the state
	Union      string     `json:"union_code"`
	Category   string     `json:"category"`
	Text       union.Text `json:"text"`
	Min        *int64     `json:"fine_min,omitempty"` // minor units; none: no least, or left to the court
	Max        *int64     `json:"fine_max,omitempty"`
	Points     *int64     `json:"points,omitempty"`
	Impound    int64      `json:"impound_days,omitempty"`
	Course     Course     `json:"course"`
	Law        string     `json:"law"`
	From       Date       `json:"from,omitempty"`  // offences from this day on
	Until      Date       `json:"until,omitempty"` // and before this one
	Superseded bool       `json:"superseded,omitempty"`
	AsOf       string     `json:"as_of,omitempty"` // of the source: a day, a month or a year
	Source     string     `json:"source"`
	Confidence string     `json:"confidence"` // official, press, secondary
}

// Discount is what a state gives up of a fine that is paid early, or in a
// campaign.
type Discount struct {
	ID      string     `json:"id"`
	Name    union.Text `json:"name"`
	Percent int64      `json:"percent"`
	Anchor  string     `json:"anchor,omitempty"` // served or offence: what the days run from
	Days    int        `json:"days,omitempty"`
	From    Date       `json:"from,omitempty"` // of the payment: a campaign
	Until   Date       `json:"until,omitempty"`
	// Of the offence.
	OffencesFrom  Date     `json:"offences_from,omitempty"`
	OffencesUntil Date     `json:"offences_until,omitempty"`
	NotCodes      []string `json:"not_codes,omitempty"`
	NotCategories []string `json:"not_categories,omitempty"`
}

// Table is what a state signs of its violations.
type Table struct {
	State      union.State `json:"state"`
	Zone       string      `json:"zone"`             // IANA
	Sample     bool        `json:"sample,omitempty"` // not the state's own: for the sandbox alone
	Violations []Violation `json:"violations"`
	Discounts  []Discount  `json:"discounts,omitempty"`

	zone *time.Location
}

// ErrTable is wrapped by every error about a table.
var ErrTable = errors.New("not a table of violations")

// DecodeTable reads a table strictly.
func DecodeTable(b []byte) (*Table, error) {
	if len(b) > maxTable {
		return nil, fmt.Errorf("%w: %d bytes; at most %d", ErrTable, len(b), maxTable)
	}
	t := new(Table)
	if err := json.Unmarshal(b, t, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTable, err)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTable, err)
	}
	return t, nil
}

// Encode writes it: the same table gives the same bytes.
func (t *Table) Encode() ([]byte, error) {
	return json.Marshal(t, json.Deterministic(true), jsontext.WithIndent("  "))
}

var (
	rowCode  = regexp.MustCompile(`^[A-Z0-9][A-Z0-9._-]{0,62}$`)
	rowClass = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	rowAsOf  = regexp.MustCompile(`^([0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?)?$`)
)

func (t *Table) check() (err error) {
	if union.CurrencyOf(t.State) == "" {
		return errors.New("its state has no currency that is known")
	}
	if len(t.Violations) > maxRows || len(t.Discounts) > maxDiscounts {
		return errors.New("too many rows")
	}
	if t.Zone == "" || t.Zone == "Local" {
		return errors.New("it names no zone")
	}
	if t.zone, err = time.LoadLocation(t.Zone); err != nil {
		return errors.New("its zone is unknown")
	}
	last := map[string][]Violation{}
	for i, v := range t.Violations {
		if err := v.check(); err != nil {
			return fmt.Errorf("row %d: %w", i+1, err)
		}
		for _, o := range last[v.Code] {
			if !v.Superseded && !o.Superseded && (o.Until == "" || v.From < o.Until) && (v.Until == "" || o.From < v.Until) {
				return fmt.Errorf("row %d: %s stands twice for one day", i+1, v.Code)
			}
		}
		last[v.Code] = append(last[v.Code], v)
	}
	for i, d := range t.Discounts {
		if err := d.check(); err != nil {
			return fmt.Errorf("discount %d: %w", i+1, err)
		}
	}
	return nil
}

func (v Violation) check() error {
	short := func(ss ...string) bool {
		return !slices.ContainsFunc(ss, func(s string) bool { return len(s) > maxText })
	}
	bounded := func(n *int64, most int64) bool { return n == nil || *n >= 0 && *n <= most }
	switch {
	case !rowCode.MatchString(v.Code):
		return errors.New("its code")
	case !rowClass.MatchString(v.Union) || !rowClass.MatchString(v.Category):
		return errors.New("its union code or category")
	case !v.Text.Complete() || !short(v.Text.En, v.Text.Ar, v.Law, v.Source) || v.Law == "" || v.Source == "":
		return errors.New("its text in both languages, its law or its source")
	case !bounded(v.Min, 1e12) || !bounded(v.Max, 1e12) || v.Min != nil && v.Max != nil && *v.Min > *v.Max:
		return errors.New("its fine")
	case !bounded(v.Points, 100) || v.Impound < 0 || v.Impound > 3660:
		return errors.New("its points or days of impounding")
	case v.Course != Settleable && v.Course != Court && v.Course != Criminal:
		return errors.New("its course")
	case v.Course == Settleable && v.Min == nil && v.Max == nil:
		return errors.New("it is settleable, and has no fine")
	case v.Until != "" && v.Until <= v.From:
		return errors.New("its days")
	case !rowAsOf.MatchString(v.AsOf) || !slices.Contains([]string{"official", "press", "secondary"}, v.Confidence):
		return errors.New("the date or the confidence of its source")
	}
	return nil
}

func (d Discount) check() error {
	switch {
	case !rowClass.MatchString(d.ID) || !d.Name.Complete() || len(d.Name.En) > maxText || len(d.Name.Ar) > maxText:
		return errors.New("its id, or its name in both languages")
	case d.Percent < 1 || d.Percent > 100:
		return errors.New("its percentage")
	case d.Days < 0 || d.Days > 3660 || (d.Days > 0) != (d.Anchor != "") || d.Anchor != "" && d.Anchor != "served" && d.Anchor != "offence":
		return errors.New("its days, or what they run from")
	case d.Days == 0 && d.Until == "":
		return errors.New("it never ends")
	case d.Until != "" && d.Until <= d.From || d.OffencesUntil != "" && d.OffencesUntil <= d.OffencesFrom:
		return errors.New("its dates")
	case len(d.NotCodes) > maxRows || len(d.NotCategories) > maxRows:
		return errors.New("too many exclusions")
	}
	return nil
}

// Use refuses a sample table outside the sandbox.
func (t *Table) Use(sandbox bool) error { return useSample(t.Sample, sandbox) }

func useSample(sample, sandbox bool) error {
	if sample && !sandbox {
		return fault.New(fault.DemoRefused, "a sample table counts in the sandbox alone").
			Arabic("لا يُعتدّ بالجدول النموذجي إلا في البيئة التجريبية")
	}
	return nil
}

func (t *Table) day(at time.Time) Date { return Date(at.In(t.zone).Format(time.DateOnly)) }

// Find gives the row of a violation at a time, which may be superseded by now.
func (t *Table) Find(code string, at time.Time) (Violation, bool) {
	day := t.day(at)
	for _, v := range t.Violations {
		if v.Code == code && !v.Superseded && day.within(v.From, v.Until) {
			return v, true
		}
	}
	return Violation{}, false
}

// Course tells whether a violation may travel.
func (t *Table) Course(code string, at time.Time) Course {
	v, ok := t.Find(code, at)
	if !ok {
		return Unknown
	}
	return v.Course
}

// Finding is what a fine is, held against its state's table.
type Finding string

// The findings.
const (
	Fits          Finding = "ok"
	NotThere      Finding = "unknown"
	NotSettleable Finding = "not_settleable"
	WrongCurrency Finding = "currency"
	TooLow        Finding = "below"
	TooHigh       Finding = "above"
)

// CheckFine holds the exact amount of a notice against the range that its
// state signed for the day of the offence.
func (t *Table) CheckFine(code string, at time.Time, fine union.Money) Finding {
	v, ok := t.Find(code, at)
	switch {
	case !ok:
		return NotThere
	case v.Course != Settleable:
		return NotSettleable
	case fine.Currency != union.CurrencyOf(t.State):
		return WrongCurrency
	case fine.Minor <= 0 || v.Min != nil && fine.Minor < *v.Min:
		return TooLow
	case v.Max != nil && fine.Minor > *v.Max:
		return TooHigh
	}
	return Fits
}

// Offer is what is to be paid at a time.
type Offer struct {
	Rule  string // of the discount, "" for none
	Off   union.Money
	Pay   union.Money
	Until string // RFC 3339, when the discount ends; "" for none
}

// Discount gives the best discount that holds for a payment. The days of a
// notice that was not served have not begun: they have not ended either.
func (t *Table) Discount(code string, at, served, paid time.Time, fine union.Money) (Offer, error) {
	best := Offer{Off: union.Money{Currency: fine.Currency}, Pay: fine}
	v, ok := t.Find(code, at)
	if !ok || t.CheckFine(code, at, fine) != Fits {
		return best, nil
	}
	for _, d := range t.Discounts {
		until, holds := d.holds(t, v, at, served, paid)
		if !holds {
			continue
		}
		off, _, err := fine.Share(d.Percent, 100)
		if err != nil {
			return Offer{}, err
		}
		if off.Minor <= best.Off.Minor {
			continue
		}
		pay, err := fine.Sub(off)
		if err != nil {
			return Offer{}, err
		}
		best = Offer{d.ID, off, pay, until.UTC().Format(time.RFC3339)}
	}
	return best, nil
}

// holds tells whether a discount holds for a payment, and when it ends.
func (d Discount) holds(t *Table, v Violation, at, served, paid time.Time) (until time.Time, ok bool) {
	if slices.Contains(d.NotCodes, v.Code) || slices.Contains(d.NotCategories, v.Category) ||
		!t.day(at).within(d.OffencesFrom, d.OffencesUntil) || !t.day(paid).within(d.From, d.Until) {
		return time.Time{}, false
	}
	if d.Until != "" {
		until = t.midnight(string(d.Until), 0)
	}
	if d.Days > 0 {
		from := served
		if d.Anchor == "offence" {
			from = at
		}
		if end := t.midnight(string(t.day(from)), d.Days+1); until.IsZero() || end.Before(until) {
			until = end // the day of service itself does not count
		}
	}
	return until, paid.Before(until)
}

// midnight is when a day begins that comes so many days after a date.
func (t *Table) midnight(date string, days int) time.Time {
	d, _ := time.Parse(time.DateOnly, date) // it was read as one
	return time.Date(d.Year(), d.Month(), d.Day()+days, 0, 0, 0, 0, t.zone)
}
