//go:build !linux

package node

import "time"

// kernelClock: this operating system is not asked.
func kernelClock() (time.Duration, bool) { return 0, false }
