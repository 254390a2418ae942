package bench

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData is what SQLite waits for at a commit.
func syncData(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

const maxrssUnit = 1 << 10 // getrusage(2) counts kilobytes
