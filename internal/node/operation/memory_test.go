package operation

import (
	"runtime/debug"
	"testing"
)

func TestMemory(t *testing.T) {
	collector := func() (int, int64) {
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		return percent, debug.SetMemoryLimit(-1)
	}
	beforePercent, beforeLimit := collector()
	for _, v := range []struct {
		gogc, limit string
		percent     int
		bytes       int64
	}{
		{"", "", collectAt, memoryGoal},
		{"150", "", beforePercent, memoryGoal},
		{"", "1GiB", collectAt, beforeLimit},
	} {
		t.Setenv("GOGC", v.gogc)
		t.Setenv("GOMEMLIMIT", v.limit)
		undo := Memory()
		if percent, bytes := collector(); percent != v.percent || bytes != v.bytes {
			t.Errorf("GOGC=%s GOMEMLIMIT=%s: %d %%, %d bytes", v.gogc, v.limit, percent, bytes)
		}
		undo()
		if percent, bytes := collector(); percent != beforePercent || bytes != beforeLimit {
			t.Errorf("not undone: %d %%, %d bytes", percent, bytes)
		}
	}
}
