package exchange

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falaj/falaj/internal/union"
)

// BenchmarkCall is a whole call of 1 KB both ways between two nodes of one
// process, client and backend included, and the CPU time of the process for
// each.
func BenchmarkCall(b *testing.B) {
	u := newUnion(b, []union.State{"BH", "SA"})
	payload := bytes.Repeat([]byte("x"), 1024)
	srv := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(payload)
	})
	u.backend("BH", "things", srv)
	for _, clients := range []int{1, 64} {
		b.Run("clients="+string('0'+rune(clients/10))+string('0'+rune(clients%10)), func(b *testing.B) {
			b.ReportAllocs()
			tr := &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}
			defer tr.CloseIdleConnections()
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, clients)
			before := cpu(b)
			for range clients {
				go func() {
					for left.Add(-1) >= 0 {
						req, _ := http.NewRequest("POST", u.nodes["SA"].edge.URL+"/r1/"+offered("BH", "things").String()+"/x", strings.NewReader(string(payload)))
						req.Header.Set("X-Road-Client", desk("SA").String())
						req.Header.Set("Falaj-Purpose", "test")
						res, err := tr.RoundTrip(req)
						if err != nil {
							done <- err
							return
						}
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
						if res.StatusCode != 200 {
							b.Errorf("status %d", res.StatusCode)
						}
					}
					done <- nil
				}()
			}
			for range clients {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// cpu is what the process has used, user and system.
func cpu(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
