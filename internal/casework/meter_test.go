package casework

import (
	"context"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/store"
)

// TestMeters: what an operator watches is counted as it is.
func TestMeters(t *testing.T) { each(t, metered) }

func metered(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	meters := func(s *side) Meters {
		t.Helper()
		m, err := s.Meters(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	w.held = func(exchange.Call) bool { return true }
	var ids []string
	for range 3 {
		ids = append(ids, w.home.must("citizen", "u", "", "ask", asking).Case)
	}
	w.settle(func() bool { return meters(w.home).Waiting == 0 })
	w.home.stop()
	<-w.home.done
	w.home.must("citizen", "u", ids[0], "withdraw", `{}`)
	if m := meters(w.home); m.Open["permit"] != 2 || m.Events != 4 || m.Waiting != 1 || m.Overdue != 0 || m.Differed != 0 {
		t.Errorf("%+v", m)
	}
	w.pass(2 * time.Hour) // an hour after silence
	if m := meters(w.home); m.Overdue < 59*time.Minute || m.Overdue > 61*time.Minute {
		t.Errorf("overdue: %v", m.Overdue)
	}
	// One that fails waits for its next try, and is no less late.
	w.home.exec(`UPDATE casework_clock SET next_at = ?`, w.now().Add(maxPause/2).UnixMilli())
	if m := meters(w.home); m.Overdue < 59*time.Minute {
		t.Errorf("overdue, and failing: %v", m.Overdue)
	}
}
