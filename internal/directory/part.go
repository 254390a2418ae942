package directory

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Use says what a certificate is for.
type Use string

// The uses of certificates in a directory.
const (
	UseSeal  Use = "seal"  // seals a member's messages
	UseTLS   Use = "tls"   // a node shows it on its link
	UseStamp Use = "stamp" // signs time-stamps (RFC 3161)
)

// Certificate is a certificate of the directory, its signature verified
// against an authority of its own state. Whether it is within its validity is
// for the user to ask of the time that he judges.
type Certificate struct {
	Cert    *x509.Certificate
	SHA256  [32]byte
	State   union.State
	Member  union.MemberID // of a seal
	Node    string         // of a TLS certificate
	Use     Use
	Revoked *Revocation // nil if it is not revoked
}

// Revocation is an entry of a CRL. What was sealed before At stays valid.
type Revocation struct {
	At     time.Time
	Reason string // RFC 5280 §5.3.1
}

// At tells whether the certificate could be relied on at a time: within its
// validity (or the fault CertExpired) and not yet revoked (CertRevoked).
func (c Certificate) At(t time.Time) error {
	switch {
	case c.Revoked != nil && !t.Before(c.Revoked.At):
		return fault.New(fault.CertRevoked, "the certificate was revoked at %s (%s)", c.Revoked.At.UTC().Format(time.RFC3339), c.Revoked.Reason)
	case t.Before(c.Cert.NotBefore):
		return fault.New(fault.CertExpired, "the certificate is valid only from %s", c.Cert.NotBefore.UTC().Format(time.RFC3339))
	case t.After(c.Cert.NotAfter):
		return fault.New(fault.CertExpired, "the certificate ended at %s", c.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// part is a state's part as far as it is good: decoded, its certificates
// verified.
type part struct {
	doc     *Part
	version int64
	release int64 // the newest that has it as it is here; 0: not known
	expires time.Time
	targets map[string]*metadata.TargetFiles
	raw     []byte // the role's bytes, to hold on to
	files   map[string][]byte
	certs   []Certificate
	policy  string
	log     Log
}

// Names of target files: the union's, and a state's under its path.
const (
	charterFile = "union.json"
	stateFile   = "state.json"
	policyFile  = "policy.cedar"
	crlFile     = "crl.der"
)

// buildPart judges what a state signed. An unchanged part is taken over from
// before, since verifying certificates is what costs.
func buildPart(state union.State, g *role, before *part) (*part, error) {
	if g.err != nil {
		return nil, g.err
	}
	p := &part{version: g.meta.Signed.Version, expires: g.meta.Signed.Expires, targets: g.meta.Signed.Targets, raw: g.raw, files: g.files}
	if before != nil && maps.EqualFunc(p.targets, before.targets, func(a, b *metadata.TargetFiles) bool { return a.Equal(*b) }) {
		p.doc, p.certs, p.policy, p.log = before.doc, before.certs, before.policy, before.log
		return p, nil
	}
	file := func(name string) []byte { return g.files[string(state)+"/"+name] }
	var err error
	if p.doc, err = DecodePart(file(stateFile)); err != nil {
		return nil, err
	}
	if p.doc.State != state {
		return nil, fmt.Errorf("state.json is of %s", p.doc.State)
	}
	if p.policy = string(file(policyFile)); !utf8.ValidString(p.policy) {
		return nil, errors.New("policy.cedar is not UTF-8")
	}
	if err := checkPolicy(state, p.policy, p.doc.Agreements); err != nil {
		return nil, err
	}
	if b := file(logFile); b != nil {
		if p.log, err = DecodeLog(state, b); err != nil {
			return nil, err
		}
	}
	for _, m := range p.doc.Members {
		for _, s := range m.Subsystems {
			for _, v := range s.Services {
				if v.OpenAPI != "" && file(v.OpenAPI) == nil {
					return nil, fmt.Errorf("service %s: its description %s is not in the part", v.ID, v.OpenAPI)
				}
			}
		}
	}
	p.certs, err = checkCertificates(p.doc, file)
	return p, err
}

func checkCertificates(doc *Part, file func(string) []byte) ([]Certificate, error) {
	v := &verifier{state: doc.State, revoked: map[string]map[string]*Revocation{}}
	for _, a := range doc.Authorities {
		if err := v.addAuthority(a, file); err != nil {
			return nil, fmt.Errorf("authority %q: %w", clip(a.Certificate.Subject.String()), err)
		}
	}
	for _, n := range doc.Nodes {
		for _, c := range n.Certificates {
			if err := v.add(Certificate{Cert: c.Certificate, Node: n.Name, Use: UseTLS}, string(doc.State)+"/"+n.Name); err != nil {
				return nil, fmt.Errorf("certificate of node %s: %w", n.Name, err)
			}
		}
	}
	for _, m := range doc.Members {
		for _, c := range m.Seals {
			if err := v.add(Certificate{Cert: c.Certificate, Member: m.ID, Use: UseSeal}, m.ID.String()); err != nil {
				return nil, fmt.Errorf("seal certificate of %s: %w", m.ID, err)
			}
		}
	}
	for _, s := range doc.Stamps {
		if err := v.add(Certificate{Cert: s.Certificate.Certificate, Use: UseStamp}, string(doc.State)); err != nil {
			return nil, fmt.Errorf("certificate of the time-stamp authority: %w", err)
		}
	}
	return v.certs, nil
}

// verifier holds the certificates of one state against its own authorities.
type verifier struct {
	state   union.State
	anchors []*x509.Certificate
	revoked map[string]map[string]*Revocation // by issuer's subject, then serial number
	certs   []Certificate
	seen    map[[32]byte]bool
}

// addAuthority takes an authority that belongs to the state: its subject names
// the country, as national authorities' do, so that no state can present
// another's authority, and with it another's certificates, as its own.
func (v *verifier) addAuthority(a Issuer, file func(string) []byte) error {
	c := a.Certificate.Certificate
	if !slices.Equal(c.Subject.Country, []string{string(v.state)}) {
		return fmt.Errorf("its subject's country is not %s", v.state)
	}
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("it is not a certificate authority's certificate")
	}
	if err := acceptable(c); err != nil {
		return err
	}
	v.anchors = append(v.anchors, c)
	if a.CRL == "" {
		return nil
	}
	crl, err := x509.ParseRevocationList(file(a.CRL))
	if err != nil {
		return fmt.Errorf("CRL %s: %w", a.CRL, err)
	}
	if !bytes.Equal(crl.RawIssuer, c.RawSubject) {
		return fmt.Errorf("CRL %s is another authority's", a.CRL)
	}
	if err := crl.CheckSignatureFrom(c); err != nil {
		return fmt.Errorf("CRL %s: %w", a.CRL, err)
	}
	list := v.revoked[string(c.RawSubject)]
	if list == nil {
		list = map[string]*Revocation{}
		v.revoked[string(c.RawSubject)] = list
	}
	for _, e := range crl.RevokedCertificateEntries {
		list[serial(e.SerialNumber)] = &Revocation{At: e.RevocationTime, Reason: reason(e.ReasonCode)}
	}
	return nil
}

// add verifies one certificate. owner is whom it is listed for: if it names an
// owner of its own (URI falaj:…), the two must be the same.
func (v *verifier) add(c Certificate, owner string) error {
	if c.Cert.IsCA {
		return errors.New("it is an authority's")
	}
	if err := acceptable(c.Cert); err != nil {
		return err
	}
	if err := fits(c.Cert, c.Use); err != nil {
		return err
	}
	for _, u := range c.Cert.URIs {
		if u.Scheme == uriScheme && u.Opaque != owner {
			return fmt.Errorf("it names %s, and is listed for %s", clip(u.Opaque), owner)
		}
	}
	err := errors.New("no authority of the state issued it")
	for _, a := range v.anchors {
		if bytes.Equal(c.Cert.RawIssuer, a.RawSubject) {
			if err = c.Cert.CheckSignatureFrom(a); err == nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	c.State, c.SHA256 = v.state, Cert{c.Cert}.SHA256()
	if v.seen == nil {
		v.seen = map[[32]byte]bool{}
	}
	if v.seen[c.SHA256] {
		return errors.New("it stands twice")
	}
	v.seen[c.SHA256] = true
	c.Revoked = v.revoked[string(c.Cert.RawIssuer)][serial(c.Cert.SerialNumber)]
	v.certs = append(v.certs, c)
	return nil
}

// fits holds a certificate's key usages against its use.
func fits(c *x509.Certificate, use Use) error {
	const sealing = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	var want []x509.ExtKeyUsage
	switch use {
	case UseSeal:
		if c.KeyUsage&sealing == 0 {
			return errors.New("its key usage is not for signatures")
		}
		if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
			return errors.New("it is for TLS servers, not for seals")
		}
		return nil
	case UseTLS:
		want = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	case UseStamp:
		critical := slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Critical && e.Id.String() == "2.5.29.37" })
		if len(c.ExtKeyUsage) != 1 || !critical {
			return errors.New("a time-stamp authority's certificate has that use alone, marked critical (RFC 3161 §2.3)")
		}
		want = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}
	}
	for _, w := range want {
		if !slices.Contains(c.ExtKeyUsage, w) {
			return fmt.Errorf("its extended key usage does not allow %s", use)
		}
	}
	return nil
}

// acceptable takes the keys that seals are verified with: P-256 and P-384, and
// the RSA of national authorities.
func acceptable(c *x509.Certificate) error {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 8192 {
			return nil
		}
	}
	return errors.New("its key is neither P-256, P-384 nor RSA of 2048 to 8192 bits")
}

func serial(n *big.Int) string { return n.Text(16) }

var reasons = [...]string{
	0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
	5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
}

func reason(code int) string {
	if code >= 0 && code < len(reasons) && reasons[code] != "" {
		return reasons[code]
	}
	return reasons[0]
}

func reasonCode(name string) (int, error) {
	if i := slices.Index(reasons[:], name); i >= 0 && name != "" {
		return i, nil
	}
	return 0, fmt.Errorf("reason %q is none of %s", clip(name), strings.Join(slices.DeleteFunc(slices.Clone(reasons[:]), func(s string) bool { return s == "" }), ", "))
}
