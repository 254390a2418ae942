//go:build !linux

package bench

import "os"

// syncData is the nearest that this system has to fdatasync.
func syncData(f *os.File) error { return f.Sync() }

const maxrssUnit = 1 // getrusage(2) counts bytes
