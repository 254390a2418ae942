// Package adoption is what one state alone says of joint services: which
// versions it takes part in from which day, who speaks for their roles, which
// of its registers their calls mean, its calendar and its dated tables. It is
// read from the file casework.json of the state's part of the directory. What
// the services' own roles and calls are called is not this room's to know.
package adoption

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the zones of a deadline are not the machine's

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/falaj/falaj/internal/union"
)

// File is where a state's adoption stands in its part of the directory, and
// Service the code of the service by which its system takes messages of cases.
const (
	File    = "casework.json"
	Service = "casework"
)

// Limits of the document: whoever holds a state's key must not fill others'
// memory.
const (
	maxFile     = 1 << 20
	maxText     = 1 << 10 // bytes of one language of one text
	maxHolidays = 1024
	maxAdopts   = 1024
	maxTables   = 1024
	maxNames    = 64  // roles or calls of a service
	maxSystems  = 256 // subsystems that speak for a role
	maxWeekend  = 4
	maxFeast    = 31 // days of one holiday
)

// Adoption is casework.json.
type Adoption struct {
	System union.SubsystemID `json:"system"` // sends and receives the messages of cases
	Calendar
	Adopts []Adopted `json:"adopts"`
	Tables []Table   `json:"tables,omitempty"`

	zone *time.Location
}

// Calendar is by what days the state's deadlines go.
type Calendar struct {
	Zone     string    `json:"zone"` // IANA: Asia/Bahrain
	Weekend  []Weekday `json:"weekend"`
	Holidays []Holiday `json:"holidays,omitempty"`
}

// Holiday is one or more days on which nobody works, the last among them.
type Holiday struct {
	From      Date       `json:"from"`
	Until     Date       `json:"until"`
	Name      union.Text `json:"name"`
	Announced Date       `json:"announced,omitzero"`
}

// Adopted is a version of a joint service in which the state takes part.
type Adopted struct {
	Service string                         `json:"service"`
	Version int                            `json:"version"`
	From    Date                           `json:"from"`           // new cases from this day on
	Until   Date                           `json:"until,omitzero"` // the last day of new cases; those that run go on
	Roles   map[string][]union.SubsystemID `json:"roles,omitempty"`
	Calls   map[string]union.ServiceID     `json:"calls,omitempty"`
}

// Table is data of a service that the state alone dates and signs.
type Table struct {
	Name string `json:"name"`
	From Date   `json:"from"` // from this day on, until one of the name that is later
	File string `json:"file"` // beside casework.json: casework/….json
}

// Date is a day, YYYY-MM-DD, in the state's own zone. Dates compare as text.
type Date string

// UnmarshalText reads a day of the years 1900 to 2999.
func (d *Date) UnmarshalText(b []byte) error {
	t, err := time.Parse(time.DateOnly, string(b))
	if err != nil || t.Format(time.DateOnly) != string(b) || t.Year() < 1900 || t.Year() > 2999 {
		return fmt.Errorf("%q is no day of the form 2026-12-01", clip(string(b)))
	}
	*d = Date(b)
	return nil
}

// day is when the day begins, as if it were UTC's.
func (d Date) day() time.Time {
	t, _ := time.Parse(time.DateOnly, string(d)) // it was read as one
	return t
}

// Weekday is a day of the week, in JSON Sun to Sat.
type Weekday time.Weekday

// MarshalText writes three letters.
func (w Weekday) MarshalText() ([]byte, error) { return []byte(time.Weekday(w).String()[:3]), nil }

// UnmarshalText reads them.
func (w *Weekday) UnmarshalText(b []byte) error {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if d.String()[:3] == string(b) {
			*w = Weekday(d)
			return nil
		}
	}
	return fmt.Errorf("%q is none of Sun, Mon, Tue, Wed, Thu, Fri, Sat", clip(string(b)))
}

// Decode reads a state's adoption strictly: unknown and repeated fields,
// missing languages, systems of other states and counts over the limits are
// errors.
func Decode(state union.State, b []byte) (*Adoption, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: %d bytes; at most %d", File, len(b), maxFile)
	}
	a := new(Adoption)
	err := json.Unmarshal(b, a, json.RejectUnknownMembers(true))
	if err == nil {
		err = a.check(state)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", File, err)
	}
	return a, nil
}

// Encode writes it: the same adoption gives the same bytes.
func (a *Adoption) Encode() ([]byte, error) {
	return json.Marshal(a, json.Deterministic(true), jsontext.WithIndent("  "))
}

var (
	zoneName  = regexp.MustCompile(`^(UTC|[A-Z][A-Za-z]{1,31}(/[A-Z][A-Za-z_]{1,31}){1,2})$`)
	plainName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	tableName = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,63}$`)
	tableFile = regexp.MustCompile(`^casework/[A-Za-z0-9][A-Za-z0-9._-]{0,122}\.json$`)
)

func (a *Adoption) check(state union.State) error {
	if a.System.State != state || a.System.Subsystem == "" {
		return fmt.Errorf("the system %q is no subsystem of %s", a.System, state)
	}
	if err := a.Calendar.check(); err != nil {
		return err
	}
	var err error
	if a.zone, err = time.LoadLocation(a.Zone); err != nil {
		return fmt.Errorf("the zone %q is unknown", clip(a.Zone))
	}
	if len(a.Adopts) > maxAdopts || len(a.Tables) > maxTables {
		return errors.New("too many entries")
	}
	seen := map[string]bool{}
	once := func(what string) error {
		if seen[what] {
			return fmt.Errorf("%s stands twice", what)
		}
		seen[what] = true
		return nil
	}
	for _, d := range a.Adopts {
		name := fmt.Sprintf("%s@%d", clip(d.Service), d.Version)
		if err := errors.Join(once(name), d.check(state)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, t := range a.Tables {
		switch {
		case !tableName.MatchString(t.Name):
			return fmt.Errorf("the table %q: small letters, digits, . _ - (at most 64)", clip(t.Name))
		case !tableFile.MatchString(t.File):
			return fmt.Errorf("the table %s: its file %q is not casework/….json", t.Name, clip(t.File))
		case t.From == "":
			return fmt.Errorf("the table %s: from which day on?", t.Name)
		}
		if err := once("the table " + t.Name + " from " + string(t.From)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Calendar) check() error {
	if !zoneName.MatchString(c.Zone) {
		return fmt.Errorf("the zone %q is none of the form Asia/Bahrain", clip(c.Zone))
	}
	if len(c.Weekend) > maxWeekend || len(c.Holidays) > maxHolidays {
		return errors.New("too many days")
	}
	for i, w := range c.Weekend {
		if slices.Contains(c.Weekend[:i], w) {
			return fmt.Errorf("%s stands twice", time.Weekday(w))
		}
	}
	for _, h := range c.Holidays {
		switch days := h.Until.day().Sub(h.From.day()).Hours() / 24; {
		case h.From == "" || h.Until < h.From || days >= maxFeast:
			return fmt.Errorf("a holiday from %q until %q: wanted 1 to %d days", h.From, h.Until, maxFeast)
		case !h.Name.Complete() || len(h.Name.En) > maxText || len(h.Name.Ar) > maxText:
			return fmt.Errorf("the holiday from %s: its name in both languages, at most %d bytes each", h.From, maxText)
		}
	}
	return nil
}

func (d *Adopted) check(state union.State) error {
	switch {
	case !plainName.MatchString(d.Service):
		return fmt.Errorf("the service %q: a small letter, then small letters, digits, _ - (at most 64)", clip(d.Service))
	case d.Version < 1 || d.Version > 999_999_999:
		return fmt.Errorf("version %d", d.Version)
	case d.From == "" || d.Until != "" && d.Until < d.From:
		return fmt.Errorf("from %q until %q", d.From, d.Until)
	case len(d.Roles) > maxNames || len(d.Calls) > maxNames:
		return errors.New("too many roles or calls")
	}
	for role, systems := range d.Roles {
		if !plainName.MatchString(role) || len(systems) > maxSystems {
			return fmt.Errorf("the role %q: its name, or how many speak for it", clip(role))
		}
		for i, s := range systems {
			if s.State != state || s.Subsystem == "" || slices.Contains(systems[:i], s) {
				return fmt.Errorf("the role %s: %q is no subsystem of %s, or stands twice", role, s, state)
			}
		}
	}
	for call, service := range d.Calls {
		if !plainName.MatchString(call) || service.State != state {
			return fmt.Errorf("the call %q: %q is no service of %s", clip(call), service, state)
		}
	}
	return nil
}

// Adopted finds a version of a service, whatever its days.
func (a *Adoption) Adopted(service string, version int) (Adopted, bool) {
	if a == nil {
		return Adopted{}, false
	}
	i := slices.IndexFunc(a.Adopts, func(d Adopted) bool { return d.Service == service && d.Version == version })
	if i < 0 {
		return Adopted{}, false
	}
	return a.Adopts[i], true
}

// Day is which day it is for the state.
func (a *Adoption) Day(at time.Time) Date { return Date(at.In(a.zone).Format(time.DateOnly)) }

// Location is the state's zone.
func (a *Adoption) Location() *time.Location { return a.zone }

// Opens tells whether the state begins new cases by a version at a time.
func (a *Adoption) Opens(service string, version int, at time.Time) bool {
	d, ok := a.Adopted(service, version)
	return ok && d.on(a.Day(at))
}

func (d Adopted) on(day Date) bool { return day >= d.From && (d.Until == "" || day <= d.Until) }

// Highest is the highest version of a service by which two states begin new
// cases at a time, each by its own calendar.
func Highest(service string, a, b *Adoption, at time.Time) (version int, ok bool) {
	if a == nil || b == nil {
		return 0, false
	}
	day := a.Day(at)
	for _, d := range a.Adopts {
		if d.Service == service && d.Version > version && d.on(day) && b.Opens(service, d.Version, at) {
			version, ok = d.Version, true
		}
	}
	return version, ok
}

// Speaks tells whether a subsystem speaks for a role.
func (a *Adoption) Speaks(s union.SubsystemID, service string, version int, role string) bool {
	d, _ := a.Adopted(service, version)
	return slices.Contains(d.Roles[role], s)
}

// Register is the service that a call's name means.
func (a *Adoption) Register(service string, version int, name string) (union.ServiceID, bool) {
	d, _ := a.Adopted(service, version)
	id, ok := d.Calls[name]
	return id, ok
}

// Table is the file of a table as it stands on a day.
func (a *Adoption) Table(name string, day Date) (file string, ok bool) {
	var best Date
	for _, t := range a.Tables {
		if t.Name == name && t.From <= day && t.From >= best {
			best, file, ok = t.From, t.File, true
		}
	}
	return file, ok
}

// Adopt puts a version in, in the place of what was said of it before.
func (a *Adoption) Adopt(d Adopted) {
	a.Adopts = slices.DeleteFunc(a.Adopts, func(o Adopted) bool { return o.Service == d.Service && o.Version == d.Version })
	a.Adopts = append(a.Adopts, d)
	slices.SortFunc(a.Adopts, func(x, y Adopted) int {
		return cmp.Or(strings.Compare(x.Service, y.Service), cmp.Compare(x.Version, y.Version))
	})
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
