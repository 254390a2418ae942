package node

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	pkix "filippo.io/mldsa/x509"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/seal"
)

// Key is a key of the folder and the certificates that speak for it.
type Key struct {
	Name         string        `json:"name"`
	PublicSHA256 string        `json:"public_sha256"`
	Certificates []Certificate `json:"certificates"`
}

// Certificate is a certificate of one of this node's keys.
type Certificate struct {
	SHA256  string    `json:"sha256"`
	Use     string    `json:"use"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Revoked bool      `json:"revoked"`
}

func (n *Node) listKeys(context.Context, admin.Person, url.Values) (any, error) {
	names, err := n.keys.Names()
	if err != nil {
		return nil, fmt.Errorf("reading the key folder: %w", err)
	}
	v := n.directory.View()
	s, _ := v.State(n.cfg.State)
	var certs []directory.Cert
	for _, x := range s.Nodes {
		certs = append(certs, x.Certificates...)
	}
	for _, m := range s.Members {
		certs = append(certs, m.Seals...)
	}
	for _, x := range s.Stamps {
		certs = append(certs, x.Certificate)
	}
	out := []Key{}
	for _, name := range names {
		key, err := n.keys.Signer(name)
		if err != nil {
			return nil, fmt.Errorf("reading the key %s: %w", name, err)
		}
		k := Key{Name: name, Certificates: []Certificate{}}
		if k.PublicSHA256, err = publicDigest(key); err != nil {
			return nil, err
		}
		pub, _ := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		for _, c := range certs {
			if known, ok := v.Certificate(sha256.Sum256(c.Raw)); ok && pub != nil && pub.Equal(c.PublicKey) {
				k.Certificates = append(k.Certificates, Certificate{hex.EncodeToString(known.SHA256[:]), string(known.Use), c.NotBefore, c.NotAfter, known.Revoked != nil})
			}
		}
		out = append(out, k)
	}
	return out, nil
}

// key finds a key, or makes it: running twice makes one.
func (n *Node) key(name string) (crypto.Signer, error) {
	key, err := n.keys.Signer(name)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = n.keys.Create(name, seal.ECDSAP256); errors.Is(err, fs.ErrExist) {
			key, err = n.keys.Signer(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the key %s: %w", name, err)
	}
	return key, nil
}

func (n *Node) keyDigest(name string) (string, error) {
	key, err := n.keys.Signer(name)
	if err != nil {
		return "", fmt.Errorf("the key %s: %w", name, err)
	}
	return publicDigest(key)
}

func publicDigest(key crypto.Signer) (string, error) {
	der, err := pkix.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("writing a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// KeyName names a key of the folder.
type KeyName struct {
	Name string `json:"name"`
}

// rotateKey replaces a key that certificates speak for, or takes a new one to
// hide persons under. Keys that sign the directory are replaced by a ceremony,
// with their union's knowledge.
func (n *Node) rotateKey(ctx context.Context, _ admin.Person, p KeyName) (admin.Done, error) {
	if p.Name == "person" {
		was := n.persons.newest()
		if err := n.persons.use(was + 1); err != nil {
			return admin.Done{}, err
		}
		return admin.Done{Result: map[string]string{"name": personKey(was + 1)}, Before: personKey(was), After: personKey(was + 1)}, nil
	}
	if p.Name != directory.TLSKey && p.Name != directory.StampKey && !strings.HasPrefix(p.Name, "seal-") {
		return admin.Done{}, fault.New(fault.BadRequest, "the key %q is not replaced here: those of the directory take a ceremony (falaj directory)", p.Name)
	}
	if !n.keys.Has(p.Name) {
		return admin.Done{}, fault.New(fault.NotFound, "no key %q is in this node's folder", p.Name)
	}
	if _, err := n.directory.Authority(); err != nil {
		return admin.Done{}, err // nobody would certify the new key
	}
	before, err := n.keyDigest(p.Name)
	if err != nil {
		return admin.Done{}, err
	}
	// Until others know the new certificate, the old pair, in memory, goes on.
	if _, err := n.identity.TLS(); err != nil {
		n.log.Warn("rotating a key while the link has no certificate", "error", err)
	}
	if _, err := n.keys.Replace(p.Name, seal.ECDSAP256, n.now()); err != nil {
		return admin.Done{}, fmt.Errorf("replacing the key: %w", err)
	}
	if err := n.directory.Renew(ctx); err != nil {
		return admin.Done{}, fmt.Errorf("publishing the new key's certificate: %w", err)
	}
	n.tell(ctx)
	after, err := n.keyDigest(p.Name)
	return admin.Done{Result: map[string]string{"name": p.Name, "public_sha256": after}, Before: before, After: after}, err
}

func (n *Node) renewDue(ctx context.Context, _ admin.Person, _ struct{}) (admin.Done, error) {
	before := n.directory.View().Version()
	err := n.renew(ctx)
	after := n.directory.View().Version()
	return admin.Done{Result: map[string]bool{"renewed": after != before}, Before: before, After: after}, err
}

// Revocation names a certificate and why it is to count no more.
type Revocation struct {
	SHA256 string `json:"sha256"`
	Reason string `json:"reason"` // RFC 5280: keyCompromise, superseded, …
}

func (n *Node) revokeCertificate(ctx context.Context, _ admin.Person, p Revocation) (admin.Done, error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(p.SHA256, ":", ""))
	if err != nil || len(raw) != 32 {
		return admin.Done{}, fault.New(fault.BadRequest, "a certificate is named by its SHA-256 in hexadecimal")
	}
	if err := n.directory.Revoke(ctx, [32]byte(raw), p.Reason); err != nil {
		return admin.Done{}, err
	}
	n.tell(ctx)
	return admin.Done{Result: p, After: p}, nil
}
