package casework

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
)

// counter is a service whose cases can go on for ever, alone or heard by the
// other half: the one of `falaj bench casework`.
func counter(t testing.TB) string {
	b, err := os.ReadFile("../bench/counter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// BenchmarkKeep is a transition within a state, durable; 64 cases at a time.
func BenchmarkKeep(b *testing.B) { benchActs(b, "keep") }

// BenchmarkTell is one whose message crosses and is heard.
func BenchmarkTell(b *testing.B) { benchActs(b, "tell") }

func benchActs(b *testing.B, form string) {
	w := newWorld(b, counter(b))
	var ids []string
	for range 64 {
		ids = append(ids, w.home.must("clerk", "o", "", "start", `{"note":"x"}`).Case)
	}
	var next atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		id := ids[int(next.Add(1))%len(ids)]
		for i := 0; pb.Next(); i++ {
			if _, err := w.home.act("clerk", "o", id, form, fmt.Sprintf(`{"note":"entry %d"}`, i)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	w.flying.Wait()
}
