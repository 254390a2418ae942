package operation

import (
	"log/slog"
	"time"
)

// nagEvery is how often a failure that goes on is told again.
const nagEvery = time.Minute

// Alarm logs work that is done again and again: when it begins to fail, once a
// minute while it goes on failing, and when it succeeds again. It is for one
// goroutine.
type Alarm struct {
	log  *slog.Logger
	now  func() time.Time
	told map[string]time.Time // of what fails, when it was last told
}

// NewAlarm makes an alarm that nothing has set off.
func NewAlarm(log *slog.Logger, now func() time.Time) *Alarm {
	return &Alarm{log, now, map[string]time.Time{}}
}

// Report says how some work ended.
func (a *Alarm) Report(work string, err error) {
	last, failing := a.told[work]
	switch now := a.now(); {
	case err == nil && failing:
		delete(a.told, work)
		a.log.Info(work + ": succeeds again")
	case err != nil && (!failing || now.Sub(last) >= nagEvery):
		a.told[work] = now
		a.log.Warn(work+": failed", "error", err)
	}
}
