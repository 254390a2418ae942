package link

import (
	"crypto/tls"
	"fmt"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// protocol is the ALPN name. Its number changes only if HELLO could not tell.
const protocol = "falaj/1"

// identity is what a handshake found out.
type identity struct {
	peer Peer
	cert []byte // our own leaf, DER
}

// config makes the TLS configuration of one connection; want is the state that
// must answer, "" for an accepted connection. There is no session resumption:
// each connection proves both keys and asks the directory anew.
func (l *Link) config(want union.State, id *identity) *tls.Config {
	own := func() (*tls.Certificate, error) {
		c, err := l.deps.Certificate()
		if err != nil {
			return nil, fmt.Errorf("the node's own TLS certificate: %w", err)
		}
		if len(c.Certificate) > 0 {
			id.cert = c.Certificate[0]
		}
		return c, nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		// Hybrid first: what is recorded today must not be read by the
		// quantum computer of tomorrow. P-256 is for FIPS mode without it.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		SessionTicketsDisabled: true,
		// Writes are whole batches; small records would only cost.
		DynamicRecordSizingDisabled: true,
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own() },
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() },
		ClientAuth:                  tls.RequireAnyClientCert,
		// Certificates are held against the signed directory, not against
		// roots and host names: VerifyConnection does it, on both sides.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != protocol {
				return fault.New(fault.PeerRefused, "no ALPN %s", protocol)
			}
			p, err := l.deps.Authenticate(cs)
			if err != nil {
				return err
			}
			if want != "" && p.State != want {
				return fault.New(fault.PeerRefused, "a node of %s answers where %s was called", p.State, want)
			}
			id.peer = p
			return nil
		},
	}
}
