package directory

import (
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
)

// Stamped holds a fresh time-stamp against the authorities that a state names,
// and gives the certificate of the one that made it. One that is revoked makes
// none, whatever time it writes into them.
func (v *View) Stamped(t *stamp.Token, by union.State) (Certificate, error) {
	s, _ := v.State(by)
	for _, x := range s.Stamps {
		if !t.Names(x.Certificate.Certificate) {
			continue
		}
		c, ok := v.Certificate(x.Certificate.SHA256())
		if !ok {
			break
		}
		if c.Revoked != nil {
			return c, fault.New(fault.CertRevoked, "the certificate of the time-stamp authority of %s is revoked", by)
		}
		return c, t.Verify(c.Cert)
	}
	return Certificate{}, fault.New(fault.CertUnknown, "the directory names no time-stamp authority of %s that made this time-stamp", by)
}
