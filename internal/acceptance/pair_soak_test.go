//go:build soak

package acceptance_test

import "testing"

// TestSoakPair is TestPair with many kills and promotions.
func TestSoakPair(t *testing.T) { paired(t, 40, 12) }
