package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// kernelClock tells how far the clock may be off, if the kernel has it kept by
// someone (adjtimex(2)).
func kernelClock() (time.Duration, bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil || state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return 0, false
	}
	return time.Duration(t.Maxerror) * time.Microsecond, true
}
