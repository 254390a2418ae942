package directory

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// How long certificates hold. The authority's own is for as long as evidence
// may have to be judged; the others are renewed by the node when a third of
// their life is left.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	sealLife      = 365 * 24 * time.Hour
	tlsLife       = 90 * 24 * time.Hour
	stampCertLife = 5 * 365 * 24 * time.Hour
	clientLife    = 365 * 24 * time.Hour
	crlLife       = 30 * 24 * time.Hour

	// A certificate is valid from a little before it is made: other
	// machines' clocks are behind.
	backdate = 5 * time.Minute

	// uriScheme begins the name in a subject alternative name that binds a
	// certificate to its owner: falaj:BH/GOV/interior, falaj:BH/n1.
	uriScheme = "falaj"
)

// Authority is a state's own small certificate authority: one self-signed
// certificate that issues end certificates and CRLs. A state with a national
// one names that in its part instead.
type Authority struct {
	State union.State
	Cert  *x509.Certificate
	Key   crypto.Signer
	Now   func() time.Time
}

// NewAuthority makes a state's authority with a key that it has; name is the
// state's, in English.
func NewAuthority(state union.State, name string, key crypto.Signer, now func() time.Time) (*Authority, error) {
	start := now().Add(-backdate).UTC().Truncate(time.Second)
	t := &x509.Certificate{
		Subject:   pkix.Name{Country: []string{string(state)}, Organization: []string{name}, CommonName: "falaj authority " + string(state)},
		NotBefore: start, NotAfter: start.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	cert, err := issue(t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("authority of %s: %w", state, err)
	}
	return &Authority{State: state, Cert: cert, Key: key, Now: now}, nil
}

// Seal issues a member's seal certificate. The subject carries the member's
// identifier as serialNumber and organizationIdentifier (2.5.4.97, ETSI
// EN 319 412-1 §5.1.4 in its form for national schemes).
func (a *Authority) Seal(member union.MemberID, name string, pub crypto.PublicKey) (*x509.Certificate, error) {
	id := member.String()
	return a.end(x509.Certificate{
		Subject: pkix.Name{
			Country: []string{string(a.State)}, Organization: []string{name}, CommonName: name, SerialNumber: id,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 97}, Value: "FA:" + string(a.State) + "-" + id}},
		},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	}, id, sealLife, pub)
}

// TLS issues the certificate that a node shows on its link, as server and as
// client. hosts are DNS names or addresses.
func (a *Authority) TLS(node string, hosts []string, pub crypto.PublicKey) (*x509.Certificate, error) {
	t := x509.Certificate{
		Subject:     pkix.Name{Country: []string{string(a.State)}, CommonName: "falaj node " + string(a.State) + "/" + node},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return a.end(t, string(a.State)+"/"+node, tlsLife, pub)
}

// Stamp issues the certificate of the state's time-stamp authority (RFC 3161
// §2.3: one critical extended key usage).
func (a *Authority) Stamp(pub crypto.PublicKey) (*x509.Certificate, error) {
	// crypto/x509 would write the extension as not critical.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return nil, fmt.Errorf("time-stamp certificate: %w", err)
	}
	return a.end(x509.Certificate{
		Subject:         pkix.Name{Country: []string{string(a.State)}, CommonName: "falaj time-stamp authority " + string(a.State)},
		KeyUsage:        x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, string(a.State), stampCertLife, pub)
}

// Client issues the certificate by which a subsystem shows itself to its own
// state's node.
func (a *Authority) Client(id union.SubsystemID, pub crypto.PublicKey) (*x509.Certificate, error) {
	return a.end(x509.Certificate{
		Subject:     pkix.Name{Country: []string{string(a.State)}, CommonName: id.String()},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, id.String(), clientLife, pub)
}

func (a *Authority) end(t x509.Certificate, owner string, life time.Duration, pub crypto.PublicKey) (*x509.Certificate, error) {
	start := a.Now().Add(-backdate).UTC().Truncate(time.Second)
	t.NotBefore, t.NotAfter = start, start.Add(life)
	if t.NotAfter.After(a.Cert.NotAfter) {
		t.NotAfter = a.Cert.NotAfter
	}
	t.URIs = []*url.URL{{Scheme: uriScheme, Opaque: owner}}
	t.BasicConstraintsValid = true
	c, err := issue(&t, a.Cert, pub, a.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", owner, err)
	}
	return c, nil
}

func issue(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// CRL makes the authority's next revocation list: what stood in the last one
// (nil for the first), and what is added.
func (a *Authority) CRL(last []byte, add ...x509.RevocationListEntry) ([]byte, error) {
	t := &x509.RevocationList{Number: big.NewInt(1)}
	if last != nil {
		old, err := x509.ParseRevocationList(last)
		if err != nil {
			return nil, fmt.Errorf("CRL of %s: %w", a.State, err)
		}
		t.Number = new(big.Int).Add(old.Number, big.NewInt(1))
		for _, e := range old.RevokedCertificateEntries {
			// The entry as read carries its extensions raw; the reason is
			// written again from its field.
			t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: e.SerialNumber, RevocationTime: e.RevocationTime, ReasonCode: e.ReasonCode,
			})
		}
	}
	for _, e := range add {
		if slices.ContainsFunc(t.RevokedCertificateEntries, func(o x509.RevocationListEntry) bool { return o.SerialNumber.Cmp(e.SerialNumber) == 0 }) {
			continue // the first revocation counts
		}
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, e)
	}
	t.ThisUpdate = a.Now().Add(-backdate).UTC().Truncate(time.Second)
	t.NextUpdate = t.ThisUpdate.Add(crlLife)
	der, err := x509.CreateRevocationList(rand.Reader, t, a.Cert, a.Key)
	if err != nil {
		return nil, fmt.Errorf("CRL of %s: %w", a.State, err)
	}
	return der, nil
}

// SealKey is the name in a key folder of a member's seal key. The underscore
// cannot stand in an identifier, so no two members share a name.
func SealKey(m union.MemberID) string { return "seal-" + m.Class + "_" + m.Code }

// TLSKey is the name of the key of a node's link, StampKey that of the
// time-stamp authority.
const (
	TLSKey   = "tls"
	StampKey = "tsa"
)
