//go:build soak

package exchange

import (
	"os"
	"strconv"
	"testing"
)

// TestSoakKills is TestKills for longer: FALAJ_SOAK_KILLS says for how many
// kills (2000).
func TestSoakKills(t *testing.T) {
	kills := 2000
	if n, err := strconv.Atoi(os.Getenv("FALAJ_SOAK_KILLS")); err == nil && n > 0 {
		kills = n
	}
	crash{kills: kills}.run(t, func([]string) bool { return false })
}
