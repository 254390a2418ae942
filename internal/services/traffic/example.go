package traffic

import (
	"context"
	"errors"
	"time"

	"github.com/falaj/falaj/internal/casework/calendar"
	"github.com/falaj/falaj/internal/union"
)

// example is made up, and marked as a sample: three violations of one state.
const example = `{
 "state": "AE", "zone": "Asia/Dubai", "sample": true,
 "violations": [
  {"code": "SPEED-20", "union_code": "speeding", "category": "speed", "text": {"en": "Speeding", "ar": "تجاوز السرعة"}, "fine_min": 40000, "fine_max": 60000, "course": "settleable", "law": "an example", "source": "an example", "confidence": "secondary"},
  {"code": "PHONE", "union_code": "phone", "category": "phone", "text": {"en": "Phone in hand", "ar": "استخدام الهاتف"}, "fine_min": 80000, "fine_max": 80000, "course": "settleable", "law": "an example", "source": "an example", "confidence": "secondary"},
  {"code": "DRUNK", "union_code": "drink_driving", "category": "drink_drug", "text": {"en": "Drunk driving", "ar": "القيادة تحت تأثير الكحول"}, "course": "criminal", "law": "an example", "source": "an example", "confidence": "secondary"}
 ],
 "discounts": [{"id": "early", "name": {"en": "Early payment", "ar": "الدفع المبكر"}, "percent": 35, "anchor": "served", "days": 10, "not_codes": ["SPEED-20"]}]
}`

const exampleRates = `{"source": "an example", "sample": true, "minutes": 15, "common": "USD", "rates": [
 {"from": "BHD", "to": "USD", "num": 1000, "den": 376},
 {"from": "AED", "to": "USD", "num": 10000, "den": 36725}]}`

// Example gives tables, rates and a calendar to try the definition with: those
// that its scenarios mean. They count nowhere else.
func Example() Deps {
	return Deps{
		Violations: func(_ context.Context, state union.State, _ time.Time) (*Table, error) {
			if state != "AE" {
				return nil, errors.New("the example has one state's table")
			}
			return DecodeTable([]byte(example))
		},
		Rates: func(context.Context, time.Time) (*Rates, error) { return DecodeRates([]byte(exampleRates)) },
		Calendar: func(context.Context) (calendar.Calendar, error) {
			zone, err := time.LoadLocation("Asia/Bahrain")
			return calendar.Calendar{Zone: zone, Weekend: []time.Weekday{time.Friday, time.Saturday}}, err
		},
		Sandbox: true,
	}
}

// Sample is what a state of a demonstration signs, by the names of its tables:
// the example's violations in its own currency, and rates of all. The amounts
// are made up; the pegs are those that are published.
func Sample(state union.State, zone string) (map[string][]byte, error) {
	currency := union.CurrencyOf(state)
	if currency == "" {
		return nil, errors.New("the state has no currency here")
	}
	t, err := DecodeTable([]byte(example))
	if err != nil {
		return nil, err
	}
	t.State, t.Zone = state, zone
	least := SampleFine(currency).Minor
	for i := range t.Violations {
		v := &t.Violations[i]
		if v.Min != nil {
			low, high := least, 2*least
			v.Min, v.Max = &low, &high
		}
	}
	r := Rates{Source: "published pegs; KWD and EGP are examples", Sample: true, Minutes: 15, Common: "USD"}
	for _, one := range []struct {
		of       union.Currency
		num, den int64
	}{{"AED", 10000, 36725}, {"BHD", 1000, 376}, {"EGP", 100, 4800}, {"KWD", 1000, 307}, {"OMR", 10000, 3845}, {"QAR", 100, 364}, {"SAR", 100, 375}} {
		r.Rates = append(r.Rates, union.Rate{From: one.of, To: "USD", Num: one.num, Den: one.den})
	}
	violations, err := t.Encode()
	if err != nil {
		return nil, err
	}
	rates, err := r.Encode()
	return map[string][]byte{"violations": violations, "rates": rates}, err
}

// SampleFine is the least fine of a demonstration's tables, in a currency.
func SampleFine(c union.Currency) union.Money {
	return union.Money{Currency: c, Minor: map[union.Currency]int64{
		"AED": 40000, "BHD": 50000, "EGP": 100000, "KWD": 20000, "OMR": 20000, "QAR": 40000, "SAR": 30000,
	}[c]}
}
