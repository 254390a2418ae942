package bench

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/falaj/falaj/internal/fault"
)

func TestContainersAreVerified(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cfg := VerifyConfig{Containers: 6, Rounds: 2, Dir: t.TempDir()}
	r, err := Verify(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(cfg.Dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if r.Containers != 6 || r.Messages != 12 || r.Receipts != 12 || r.PerSecond <= 0 || r.CPUMicros <= 0 || r.Bytes < 6*4096 || r.P256Micros <= 0 || r.Ed25519Micros <= 0 || r.Spread.Least > r.PerSecond {
		t.Errorf("%+v", r)
	}
	for _, bad := range []VerifyConfig{{Containers: -1}, {Containers: 1e6}, {Rounds: 1000}, {Size: 1}} {
		if _, err := Verify(t.Context(), bad); fault.CodeOf(err) != fault.Usage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// BenchmarkVerify is for profiles.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	union, folder := dir+"/union", dir+"/containers"
	root, err := makeContainers(b.Context(), VerifyConfig{Containers: 300, Size: 1024}, union, folder)
	if err != nil {
		b.Fatal(err)
	}
	out := &VerifyReport{}
	for b.Loop() {
		if err := out.round(b.Context(), root, folder); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(out.Messages)/b.Elapsed().Seconds(), "messages/s")
}
