package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// certificate is a seal's certificate as a state's part of the directory
// shows it.
type certificate struct {
	cert, authority *x509.Certificate
	crl             []byte // DER; nil where the authority publishes none
	member          string
	batch           bool // its state gives seals over many messages

	certPEM, authorityPEM, crlPEM []byte // as they lie in containers
	revoked                       *x509.RevocationListEntry
}

// statePart is state.json, as far as it is needed here.
type statePart struct {
	State       string `json:"state"`
	Authorities []struct {
		Certificate string `json:"certificate"`
		CRL         string `json:"crl"`
	} `json:"authorities"`
	Members []struct {
		Class string   `json:"class"`
		Code  string   `json:"code"`
		Seals []string `json:"seals"`
	} `json:"members"`
	Stamps []struct {
		Certificate string `json:"certificate"`
	} `json:"stamps"`
	Batch bool `json:"batch"`
}

// bytes is about what it takes in memory; the list itself is the edition's.
func (c *certificate) bytes() int {
	return 8*(len(c.certPEM)+len(c.authorityPEM)) + len(c.crlPEM)
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func readCertificate(text string) (*x509.Certificate, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// certificate finds the seal certificate of a digest in a state's part, and
// holds it against the state's own authorities (docs/protocols/directory.md
// §4). What was found good is remembered.
func (e *edition) certificate(state union.State, sum [32]byte) (*certificate, error) {
	return e.certificates.of(sum, (*certificate).bytes, func() (*certificate, error) { return e.judge(state, sum) })
}

func (e *edition) part(state union.State) (p statePart, err error) {
	if err := json.Unmarshal(e.files["state.json"], &p); err != nil {
		return p, fmt.Errorf("state.json of %s: %w", state, err)
	}
	if p.State != string(state) {
		return p, fmt.Errorf("state.json is of %.8q", p.State)
	}
	return p, nil
}

func (e *edition) judge(state union.State, sum [32]byte) (*certificate, error) {
	p, err := e.part(state)
	if err != nil {
		return nil, err
	}
	found := &certificate{}
	for _, m := range p.Members {
		for _, text := range m.Seals {
			c, err := readCertificate(text)
			if err == nil && sha256.Sum256(c.Raw) == sum {
				id := union.MemberID{State: state, Class: m.Class, Code: m.Code}
				found.cert, found.member, found.batch = c, id.String(), p.Batch
			}
		}
	}
	if found.cert == nil {
		return nil, fmt.Errorf("the directory of that day names no seal certificate %x of %s", sum[:8], state)
	}
	if err := e.issued(state, &p, found); err != nil {
		return nil, err
	}
	return found, found.use()
}

// issued finds the state's authority that issued a certificate, and whether it
// was revoked.
func (e *edition) issued(state union.State, p *statePart, found *certificate) error {
	for _, a := range p.Authorities {
		ca, err := readCertificate(a.Certificate)
		if err != nil || found.cert.CheckSignatureFrom(ca) != nil {
			continue
		}
		if !ca.IsCA || ca.KeyUsage&x509.KeyUsageCertSign == 0 || !slices.Equal(ca.Subject.Country, []string{string(state)}) {
			return fmt.Errorf("the authority that issued it is not one of %s", state)
		}
		found.authority = ca
		found.certPEM, found.authorityPEM = asPEM("CERTIFICATE", found.cert.Raw), asPEM("CERTIFICATE", ca.Raw)
		if a.CRL != "" {
			found.crl = e.files[a.CRL]
			found.crlPEM = asPEM("X509 CRL", found.crl)
			crl, err := x509.ParseRevocationList(found.crl)
			if err == nil && !bytes.Equal(crl.RawIssuer, ca.RawSubject) {
				err = errors.New("it is another authority's")
			}
			if err == nil {
				err = crl.CheckSignatureFrom(ca)
			}
			if err != nil {
				return fmt.Errorf("the revocation list of %s: %w", state, err)
			}
			for i, r := range crl.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(found.cert.SerialNumber) == 0 {
					found.revoked = &crl.RevokedCertificateEntries[i]
				}
			}
		}
		return nil
	}
	return fmt.Errorf("no authority of %s issued the certificate", state)
}

// use holds the certificate against what it is for.
func (c *certificate) use() error {
	switch {
	case c.cert.IsCA, c.cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0, slices.Contains(c.cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth):
		return errors.New("the certificate is not for seals")
	}
	for _, u := range c.cert.URIs {
		if u.Scheme == "falaj" && u.Opaque != c.member {
			return fmt.Errorf("the certificate is for another than %s", c.member)
		}
	}
	return nil
}

// at tells whether the certificate could be relied on at a time.
func (c *certificate) at(t time.Time) error {
	switch {
	case c.revoked != nil && !t.Before(c.revoked.RevocationTime):
		return fmt.Errorf("it was revoked at %s", c.revoked.RevocationTime.UTC().Format(time.RFC3339))
	case t.Before(c.cert.NotBefore), t.After(c.cert.NotAfter):
		return fmt.Errorf("it is good from %s to %s", c.cert.NotBefore.UTC().Format(time.RFC3339), c.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
