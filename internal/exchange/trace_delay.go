package exchange

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// DelayFile stands in a state's part of the directory and says which of its
// calls the persons concerned hear of later, as the state's law has it.
const DelayFile = "trace.json"

// Delays are the purposes of which a person's trace tells so many days later.
type Delays struct {
	Delays []Delay `json:"delays"`
}

// Delay is one purpose's.
type Delay struct {
	Purpose string `json:"purpose"`
	Days    int    `json:"days"`
}

const (
	maxDelays    = 1024
	maxDelayDays = 36_500
)

// ParseDelays reads the file strictly. No file: no delays.
func ParseDelays(b []byte) (d Delays, err error) {
	if len(b) == 0 {
		return Delays{}, nil
	}
	if err := json.Unmarshal(b, &d, json.RejectUnknownMembers(true)); err != nil {
		return d, fmt.Errorf("%s: %w", DelayFile, err)
	}
	return d, d.check()
}

func (d Delays) check() error {
	if len(d.Delays) > maxDelays {
		return fmt.Errorf("%s: more than %d delays", DelayFile, maxDelays)
	}
	seen := map[string]bool{}
	for _, x := range d.Delays {
		if x.Purpose == "" || seen[x.Purpose] || x.Days < 1 || x.Days > maxDelayDays {
			return fmt.Errorf("%s: a purpose has one delay, of 1 to %d days", DelayFile, maxDelayDays)
		}
		seen[x.Purpose] = true
	}
	return nil
}

// Set gives the delays with one purpose's changed; no days: taken away.
func (d Delays) Set(purpose string, days int) (Delays, error) {
	out := Delays{Delays: slices.DeleteFunc(slices.Clone(d.Delays), func(x Delay) bool { return x.Purpose == purpose })}
	if days != 0 {
		out.Delays = append(out.Delays, Delay{purpose, days})
	}
	slices.SortFunc(out.Delays, func(a, b Delay) int { return strings.Compare(a.Purpose, b.Purpose) })
	return out, out.check()
}

// Encode writes the file: the same delays give the same bytes.
func (d Delays) Encode() ([]byte, error) {
	return json.Marshal(d, json.Deterministic(true), jsontext.WithIndent("  "))
}

// delays are those of this state, as the law is now: the directory in force has
// them, however old it is. Where they cannot be read nothing is shown.
func (x *Exchange) delays() (Delays, error) {
	v, _ := x.deps.Directory()
	if v == nil || v.Version() < 1 {
		return Delays{}, fault.New(fault.DirectoryExpired, "without a directory it is not known what the law delays")
	}
	b, _ := v.File(x.cfg.State, DelayFile)
	d, err := ParseDelays(b)
	if err != nil {
		return d, fault.Wrap(fault.Internal, err, "what the law delays: %v", err)
	}
	return d, nil
}

// hide tells whether an entry is not to be shown yet.
func (d Delays) hide(e Traced, now time.Time) bool {
	return slices.ContainsFunc(d.Delays, func(x Delay) bool {
		return slices.Contains(e.law, x.Purpose) && now.Before(e.At.AddDate(0, 0, x.Days))
	})
}
