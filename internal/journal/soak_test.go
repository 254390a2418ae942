//go:build soak

package journal_test

import "testing"

func TestSoakCrash(t *testing.T) { crash(t, 1000) }
