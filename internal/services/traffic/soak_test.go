//go:build soak

package traffic_test

import "testing"

func TestSoakRandom(t *testing.T) { t.Log(random(t, 20_000)) }
