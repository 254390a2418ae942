//go:build soak

package journal_test

import "testing"

func TestSoakCrash(t *testing.T) { crash(t, 1000) }

func TestSoakFaults(t *testing.T) { faults(t, func(int, int) bool { return true }) }
