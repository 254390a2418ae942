package casework

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// counter is a service whose cases can go on for ever, alone or heard by the
// other half.
const counter = `
falaj: service/1
name: permit
version: 1
title: {en: Counter, ar: عدّاد}
purpose: trial
basis: {act: {en: Act, ar: قانون}}
retention: {days: 1, basis: act}
parties: {home: {en: Home, ar: الوطن}, host: {en: Host, ar: المضيف}}
opens: home
roles:
  clerk: {party: home, kind: officer, title: {en: Clerk, ar: كاتب}}
facts:
  note: {owner: home, type: text, title: {en: Note, ar: ملاحظة}, schema: {maxLength: 200}}
  count: {owner: home, type: whole, title: {en: Count, ar: العدد}}
forms:
  start: {role: clerk, title: {en: Start, ar: بدء}, fields: [note]}
  keep: {role: clerk, title: {en: Keep, ar: حفظ}, fields: [note]}
  tell: {role: clerk, title: {en: Tell, ar: إخبار}, fields: [note]}
messages:
  told: {from: home, title: {en: Told, ar: أُخبر}, fields: [note, count]}
halves:
  home:
    start: NEW
    hold: HELD
    states:
      NEW: {title: {en: New, ar: جديد}, deadlines: {old: {after: P1D}}, on: {start: {branches: [{to: OPEN, set: {count: "0"}, send: [told]}]}, old: {branches: [{to: ENDED}]}}}
      OPEN:
        title: {en: Open, ar: مفتوح}
        deadlines: {old: {after: P30D}}
        on:
          keep: {branches: [{if: "fact.count < 1000000000", set: {count: fact.count + 1}}, {}]}
          tell: {branches: [{set: {count: fact.count + 1}, send: [told]}]}
          old: {branches: [{to: ENDED}]}
      HELD: {title: {en: Held, ar: معلّق}, deadlines: {old: {after: P30D}}, on: {old: {branches: [{to: ENDED}]}}}
      ENDED: {title: {en: Ended, ar: منتهٍ}, final: true}
  host:
    start: NEW
    hold: HELD
    states:
      NEW: {title: {en: New, ar: جديد}, deadlines: {old: {after: P1D}}, on: {told: {branches: [{to: OPEN}]}, old: {branches: [{to: ENDED}]}}}
      OPEN: {title: {en: Open, ar: مفتوح}, deadlines: {old: {after: P30D}}, on: {told: {branches: [{}]}, old: {branches: [{to: ENDED}]}}}
      HELD: {title: {en: Held, ar: معلّق}, deadlines: {old: {after: P30D}}, on: {told: {branches: [{}]}, old: {branches: [{to: ENDED}]}}}
      ENDED: {title: {en: Ended, ar: منتهٍ}, final: true, on: {told: {branches: [{}]}}}
`

// BenchmarkKeep is a transition within a state, durable; 64 cases at a time.
func BenchmarkKeep(b *testing.B) { benchActs(b, "keep") }

// BenchmarkTell is one whose message crosses and is heard.
func BenchmarkTell(b *testing.B) { benchActs(b, "tell") }

func benchActs(b *testing.B, form string) {
	w := newWorld(b, counter)
	var ids []string
	for range 64 {
		ids = append(ids, w.home.must("clerk", "o", "", "start", `{"note":"x"}`).Case)
	}
	var next atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		id := ids[int(next.Add(1))%len(ids)]
		for i := 0; pb.Next(); i++ {
			if _, err := w.home.act("clerk", "o", id, form, fmt.Sprintf(`{"note":"entry %d"}`, i)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	w.flying.Wait()
}
