package traffic

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/union"
)

// Rates is what a state signs of the rates at which its people pay fines of
// others: what one unit of each currency is worth in one that is common to
// all. Any two of them give a rate.
type Rates struct {
	Source  string         `json:"source"`
	Sample  bool           `json:"sample,omitempty"`
	Minutes int64          `json:"minutes"` // how long a quote holds
	Common  union.Currency `json:"common"`
	Rates   []union.Rate   `json:"rates"` // from each currency to the common one
}

// ErrRates is wrapped by every error about rates.
var ErrRates = errors.New("not a table of rates")

// DecodeRates reads a table of rates strictly.
func DecodeRates(b []byte) (*Rates, error) {
	if len(b) > 1<<16 {
		return nil, fmt.Errorf("%w: %d bytes are too many", ErrRates, len(b))
	}
	r := new(Rates)
	if err := json.Unmarshal(b, r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRates, err)
	}
	if r.Source == "" || len(r.Source) > maxText || r.Minutes < 1 || r.Minutes > 7*24*60 {
		return nil, fmt.Errorf("%w: its source, or how long a quote holds (1 minute to 7 days)", ErrRates)
	}
	seen := []union.Currency{r.Common}
	for _, one := range r.Rates {
		if one.Check() != nil || one.To != r.Common || slices.Contains(seen, one.From) {
			return nil, fmt.Errorf("%w: each rate is from another currency to the common one, once", ErrRates)
		}
		seen = append(seen, one.From)
	}
	return r, nil
}

// Encode writes it: the same rates give the same bytes.
func (r *Rates) Encode() ([]byte, error) {
	return json.Marshal(r, json.Deterministic(true), jsontext.WithIndent("  "))
}

// Use refuses a sample table outside the sandbox.
func (r *Rates) Use(sandbox bool) error { return useSample(r.Sample, sandbox) }

// rate gives the rate between two currencies, in lowest terms.
func (r *Rates) rate(from, to union.Currency) (union.Rate, error) {
	worth := func(c union.Currency) *big.Rat {
		if c == r.Common {
			return big.NewRat(1, 1)
		}
		for _, one := range r.Rates {
			if one.From == c {
				return big.NewRat(one.Num, one.Den)
			}
		}
		return nil
	}
	a, b := worth(from), worth(to)
	if a == nil || b == nil {
		return union.Rate{}, fmt.Errorf("%w: a currency that is not in it", ErrRates)
	}
	q := new(big.Rat).Quo(a, b)
	if !q.Num().IsInt64() || !q.Denom().IsInt64() {
		return union.Rate{}, fmt.Errorf("%w: the rate is too exact to be written", ErrRates)
	}
	return union.Rate{From: from, To: to, Num: q.Num().Int64(), Den: q.Denom().Int64()}, nil
}

// Quote is the rate at which an amount can be paid in another currency, from
// now on until it ends.
func (r *Rates) Quote(from, to union.Currency, now time.Time) (ledger.Quote, error) {
	rate, err := r.rate(from, to)
	if err != nil {
		return ledger.Quote{}, err
	}
	now = now.UTC().Truncate(time.Second)
	until := now.Add(time.Duration(r.Minutes) * time.Minute)
	return ledger.Quote{ID: fmt.Sprintf("%s-%s-%s", from, to, now.Format("20060102T150405Z")), Rate: rate, Source: r.Source, From: now, Until: until}, nil
}

func (r *Rates) quote(m union.Money, to union.Currency, now time.Time) (any, error) {
	q, err := r.Quote(m.Currency, to, now)
	if err != nil {
		return nil, err
	}
	price, err := q.Price(m)
	if err != nil {
		return nil, err
	}
	out := valueOf(q)
	out["price"] = value(price)
	return out, nil
}

// valueOf writes a quote as quoteOf reads it.
func valueOf(q ledger.Quote) map[string]any {
	return map[string]any{
		"id": q.ID, "source": q.Source, "from": q.From.UTC().Format(time.RFC3339), "until": q.Until.UTC().Format(time.RFC3339),
		"rate": map[string]any{"from": string(q.Rate.From), "to": string(q.Rate.To), "num": q.Rate.Num, "den": q.Rate.Den},
	}
}

// quoteOf reads what quote wrote.
func quoteOf(v map[string]any) (q ledger.Quote, err error) {
	rate, _ := v["rate"].(map[string]any)
	get := func(m map[string]any, name string) string { s, _ := m[name].(string); return s }
	q = ledger.Quote{ID: get(v, "id"), Source: get(v, "source"),
		Rate: union.Rate{From: union.Currency(get(rate, "from")), To: union.Currency(get(rate, "to"))}}
	q.Rate.Num, _ = rate["num"].(int64)
	q.Rate.Den, _ = rate["den"].(int64)
	if q.From, err = time.Parse(time.RFC3339, get(v, "from")); err == nil {
		q.Until, err = time.Parse(time.RFC3339, get(v, "until"))
	}
	if err == nil {
		err = q.Rate.Check()
	}
	if err != nil {
		return ledger.Quote{}, errors.New("not a quote")
	}
	return q, nil
}
