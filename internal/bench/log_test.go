package bench

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/falaj/falaj/internal/fault"
)

func TestALogIsLoaded(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cfg := LogConfig{Duration: 300 * time.Millisecond, Concurrency: 16, Dir: t.TempDir()}
	r, err := Log(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(cfg.Dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if r.Leaves == 0 || r.PerSecond <= 0 || r.PerCommit < 1 || r.P99Micros < r.P50Micros || r.Receipts == 0 || r.ReceiptP99Milli < r.ReceiptP50Milli ||
		r.Extra < 100 || r.Extra > 4096 || r.RawPerSecond <= 0 || r.SyncsPerSecond <= 0 || r.CPUMicros <= 0 {
		t.Errorf("%+v", r)
	}
	for _, bad := range []LogConfig{{Duration: time.Hour}, {Concurrency: 1 << 20}, {Size: 1}} {
		if _, err := Log(t.Context(), bad); fault.CodeOf(err) != fault.Usage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
