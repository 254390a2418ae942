package operation

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestAlarm: what fails every second is told when it begins, each minute, and
// when it is over; one work's failures do not hide another's.
func TestAlarm(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1_700_000_000, 0)
	a := NewAlarm(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	said := func() int { n := strings.Count(out.String(), "\n"); out.Reset(); return n }
	a.Report("work", nil)
	if n := said(); n != 0 {
		t.Errorf("%d lines about nothing", n)
	}
	for range 150 {
		a.Report("work", errors.New("no"))
		now = now.Add(time.Second)
	}
	if n := said(); n != 3 { // at 0, 60 and 120 seconds
		t.Errorf("%d lines in 150 seconds", n)
	}
	a.Report("other", errors.New("no"))
	if s := out.String(); !strings.Contains(s, "level=WARN") || said() != 1 {
		t.Errorf("another failure: %s", s)
	}
	a.Report("work", nil)
	a.Report("work", nil)
	if s := out.String(); !strings.Contains(s, "level=INFO") || said() != 1 {
		t.Errorf("at its end: %s", s)
	}
	a.Report("work", errors.New("no"))
	if said() != 1 {
		t.Error("a new failure is not told")
	}
}
