package journal_test

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// BenchmarkAppend appends records of an exchange with a small body, each of a
// key of its own, and reports the CPU time of the whole process for each
// (without PostgreSQL's), the size of the groups, and the median latency.
func BenchmarkAppend(b *testing.B) {
	for _, engine := range []struct {
		name string
		cfg  func(testing.TB) store.Config
	}{{"sqlite", storetest.SQLite}, {"postgres", storetest.Postgres}} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(engine.name+"/"+strconv.Itoa(callers), func(b *testing.B) { benchmarkAppend(b, engine.cfg(b), callers) })
		}
	}
}

func benchmarkAppend(b *testing.B, cfg store.Config, callers int) {
	j, db := open(b, cfg)
	ctx := context.Background()
	envelope, body := bytes.Repeat([]byte("e"), 1200), bytes.Repeat([]byte("b"), 1000)
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	before := cpu()
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= int64(b.N) {
					return
				}
				r := record(int(n))
				r.Envelope, r.Body = envelope, body
				at := time.Now()
				if _, err := j.Append(ctx, r); err != nil {
					b.Error(err)
					return
				}
				took[n] = time.Since(at)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	spent := cpu() - before
	var commits int
	if err := db.QueryRow(ctx, "SELECT COUNT(*) FROM journal_commit").Scan(&commits); err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-µs/record")
	b.ReportMetric(float64(b.N)/float64(commits), "records/commit")
	b.ReportMetric(float64(took[b.N/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds()), "p99-µs")
}

// BenchmarkDisk is what an append cannot be faster than: 4 KiB appended to a
// file and made durable.
func BenchmarkDisk(b *testing.B) {
	f, err := os.Create(b.TempDir() + "/file")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 4096)
	took := make([]time.Duration, b.N)
	for n := range b.N {
		at := time.Now()
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		took[n] = time.Since(at)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2].Microseconds()), "p50-µs")
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var _ = journal.RequestSent
