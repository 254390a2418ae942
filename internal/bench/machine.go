package bench

import (
	"crypto/fips140"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the numbers were measured on.
type Machine struct {
	Go         string  `json:"go"`
	System     string  `json:"system"`
	CPUs       int     `json:"cpus"`
	GOMAXPROCS int     `json:"gomaxprocs"`
	FIPS       bool    `json:"fips"`
	SyncMicros float64 `json:"fdatasync_p50_us"`  // median of appending 4 KiB and syncing it, half a millisecond of computing before each
	PeakMiB    float64 `json:"peak_resident_mib"` // of the process: client, two hops or nodes, backend
}

func machine(syncs []time.Duration) Machine {
	slices.Sort(syncs)
	return Machine{
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
		CPUs: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0), FIPS: fips140.Enabled(),
		SyncMicros: micros(quantile(syncs, 0.5)), PeakMiB: float64(rusage().Maxrss*maxrssUnit) / (1 << 20),
	}
}

// spent is what the process has used up so far.
type spent struct {
	cpu            time.Duration // user and system
	objects, bytes uint64        // allocated
}

func rusage() (r unix.Rusage) {
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		panic(fmt.Sprintf("getrusage of this process: %v", err)) // the kernel knows no such failure
	}
	return r
}

func usage() spent {
	r := rusage()
	m := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(m)
	return spent{
		cpu:     time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		objects: m[0].Value.Uint64(), bytes: m[1].Value.Uint64(),
	}
}

// betweenSyncs is how long a call computes, about, between two waits for the
// disk. A disk that is asked again at once answers sooner than one that is not.
const betweenSyncs = 500 * time.Microsecond

// measureSync appends 4 KiB to a file of the folder and waits until the disk
// has it, with as much to compute in between as a call has: 50 times or for half
// a second.
func measureSync(dir string) (took []time.Duration, err error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	page := make([]byte, 4096)
	for begin := time.Now(); len(took) < 50 && time.Since(begin) < time.Second/2; {
		for pause := time.Now(); time.Since(pause) < betweenSyncs; {
			_ = sha256.Sum256(page)
		}
		start := time.Now()
		if _, err := f.Write(page); err != nil {
			return nil, err
		}
		if err := syncData(f); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}
