//go:build dss

package up

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDSS has Bouncy Castle judge evidence whose time-stamps were renewed, once
// and twice, each by two authorities. (DSS takes no time-stamps of years that
// are yet to come.)
func TestDSS(t *testing.T) {
	containers, _, _ := decades(t)
	for i, b := range containers[1:] {
		name := filepath.Join(t.TempDir(), "call.asice")
		must(t, os.WriteFile(name, b, 0o600))
		out, err := exec.CommandContext(t.Context(), "../../../scripts/ers/ers", name).CombinedOutput()
		t.Logf("%s", out)
		if err != nil || strings.Count(string(out), fmt.Sprintf("holds, %d renewals", 2*(i+1))) != 2 {
			t.Errorf("Bouncy Castle: %v", err)
		}
	}
}
