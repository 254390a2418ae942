package operation

import (
	"os"
	"runtime/debug"
)

const (
	// collectAt is how much garbage, in percent of what lives, may gather
	// before it is collected. What a call leaves behind is all garbage, and
	// what lives is little: at Go's 100 a node would collect many times a
	// second to save memory that its machine has.
	collectAt = 800
	// memoryGoal is where the collector begins to work harder instead: well
	// below the 256 MiB that a node may take.
	memoryGoal = 160 << 20
)

// Memory has the collector of this process work as a node's should. GOGC and
// GOMEMLIMIT in the environment stand above it. undo gives back what was.
func Memory() (undo func()) {
	percent, limit := -1, int64(-1)
	if os.Getenv("GOGC") == "" {
		percent = debug.SetGCPercent(collectAt)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		limit = debug.SetMemoryLimit(memoryGoal)
	}
	return func() {
		if percent >= 0 {
			debug.SetGCPercent(percent)
		}
		if limit >= 0 {
			debug.SetMemoryLimit(limit)
		}
	}
}
