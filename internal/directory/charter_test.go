package directory

import (
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"github.com/falaj/falaj/internal/merkle"
)

// TestDecodeCharterWitness: the secretariat's witness bears the secretariat's
// name and cosigns; no state's key, and no log's, stands in its place.
func TestDecodeCharterWitness(t *testing.T) {
	seed := sha256.Sum256([]byte("witness"))
	public := ed25519.NewKeyFromSeed(seed[:]).Public()
	for name, x := range map[string]struct {
		kind merkle.Kind
		ok   bool
	}{
		"union.example/secretariat/witness1":       {merkle.Cosignature, true},
		"union.example/secretariat/log1":           {merkle.LogSignature, false},
		"union.example/BH/witness1":                {merkle.Cosignature, false},
		"secretariat/witness1":                     {merkle.Cosignature, false},
		"union.example/secretariat/witness1/other": {merkle.Cosignature, false},
	} {
		k, err := merkle.NewKey(name, x.kind, public)
		if err != nil {
			t.Fatal(err)
		}
		c := Charter{Name: "u", Purposes: []Purpose{}, States: []Seat{}, Witness: k}
		if err := c.check(); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
