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
