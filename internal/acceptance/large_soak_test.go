//go:build soak

package acceptance_test

import "testing"

// TestSoakGigabyte is TestLarge with the size that is promised.
func TestSoakGigabyte(t *testing.T) { large(t, 1<<30) }
