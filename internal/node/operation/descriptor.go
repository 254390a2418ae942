package operation

import (
	"math"

	"golang.org/x/sys/unix"
)

// Descriptors is how many files and connections this process may have open at
// once: its soft limit, which the Go runtime has raised to the hard one.
func Descriptors() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(l.Cur)
}

// Connections is how many connections each of a process's doors may hold open,
// at most as many as wanted, so that all doors together leave a quarter of the
// descriptors, and 256 more, to everything else: the database, the spool, the
// services called, and the door that says how the node is.
func Connections(descriptors, doors, wanted int) int {
	return max(1, min(wanted, (descriptors-descriptors/4-256)/max(1, doors)))
}
