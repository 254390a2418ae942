//go:build soak

package up

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestSoakSimulation is TestSimulation for eight minutes, with longer storms of
// seeds that nobody has chosen, and with both flaws.
func TestSoakSimulation(t *testing.T) {
	from := foundSimulation(t)
	t.Run(flawUnchecked, func(t *testing.T) { findFlaw(t, from, flawUnchecked, "it took effect 2 times", 10*time.Second) })
	t.Run(flawLying, func(t *testing.T) { findFlaw(t, from, flawLying, "its client has an answer, and", 10*time.Second) })
	for begun := time.Now(); time.Since(begun) < 8*time.Minute; {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			for _, b := range simulate(t, from, seed, time.Minute, "") {
				t.Error(b)
			}
		})
	}
}
