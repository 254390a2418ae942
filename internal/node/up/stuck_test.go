package up

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/witness"
)

// TestStuck: a node whose database was set back takes no calls, and that is
// said while the rest runs and can be found; once it goes on as a new log the
// union is ready, and whoever watches sees that the old log ended.
func TestStuck(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "SA", "node.db")
	p := play(t, dir, Deps{}, "BH", "SA")
	must(t, p.stop())
	old, err := os.ReadFile(db)
	must(t, err)

	p = play(t, dir, Deps{}, "BH", "SA")
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons", "X-Road-Id: lost"); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	stamped(t, p.admin("SA"), "lost") // so its log is cosigned above it
	must(t, p.stop())
	must(t, os.WriteFile(db, old, 0o600))
	for _, more := range []string{"-wal", "-shm"} {
		if err := os.Remove(db + more); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}

	var stuck []Unready
	p = play(t, dir, Deps{Stuck: func(list []Unready) error {
		stuck = list
		b, err := os.ReadFile(filepath.Join(dir, ReadyFile))
		if err != nil {
			return err
		}
		var r Ready
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		for _, n := range r.Nodes {
			if n.State == "SA" {
				_, err = admin.Dial(n.Admin, nil).Change(t.Context(), "log.renew", struct{}{}, nil)
				return err
			}
		}
		return fs.ErrNotExist
	}}, "BH", "SA")
	if stuck == nil {
		// It answered before a witness had told what it had seen. From then on it
		// takes no calls, and its people are told the same.
		var h node.Health
		for end := time.Now().Add(20 * time.Second); len(stuck) == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			must(t, p.admin("SA").Query(t.Context(), "health", nil, &h))
			if wrong := slices.DeleteFunc(h.Checks, func(f operation.Finding) bool { return f.OK || f.Code != fault.LogDivided }); !h.Ready && len(wrong) > 0 {
				stuck = []Unready{{State: "SA", Checks: wrong}}
			}
		}
		p.change("SA", "log.renew", struct{}{})
	}
	if len(stuck) != 1 || stuck[0].State != "SA" || stuck[0].Checks[0].Code != fault.LogDivided || !strings.Contains(stuck[0].Checks[0].Do.En, "log renew") {
		t.Fatalf("%+v", stuck)
	}
	p.heard()
	var heads node.Witnessed
	must(t, p.admin("BH").Query(t.Context(), "heads", nil, &heads))
	var sight witness.Sight
	for end := time.Now().Add(20 * time.Second); sight.Size == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		sight, _ = witness.Look(t.Context(), "SA", p.fetch("SA"), p.trust("SA"), heads.Heads["SA"])
	}
	if sight.What != witness.SightEnded || !strings.HasSuffix(sight.Log, "/log2") || len(sight.Former) != 1 || !strings.HasSuffix(sight.Former[0].Log, "/log1") {
		t.Errorf("%+v", sight)
	}
}
