package node

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// identity is what this node shows of itself: its TLS certificate on the link
// and its members' seals. It joins the keys of the folder with the
// certificates that the directory names for them, anew for each version.
type identity struct {
	keys  *seal.Keys
	dir   *directory.Directory
	state union.State
	node  string
	now   func() time.Time

	mu    sync.Mutex
	view  *directory.View
	tls   *tls.Certificate
	seals map[union.MemberID]exchange.Credential
}

// TLS is the certificate for the link.
func (i *identity) TLS() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.sync(); err != nil {
		return nil, err
	}
	if i.tls == nil {
		return nil, fault.New(fault.CertUnknown, "the directory names no valid certificate of node %s/%s for the key %q", i.state, i.node, directory.TLSKey)
	}
	return i.tls, nil
}

// Seal is the credential of a member of this state.
func (i *identity) Seal(m union.MemberID) (exchange.Credential, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.sync(); err != nil {
		return exchange.Credential{}, err
	}
	c, ok := i.seals[m]
	if !ok {
		return c, fault.New(fault.CertUnknown, "no valid seal of %s is in this node's hands", m)
	}
	return c, nil
}

// Operator is the member that seals what no other member of this state can:
// the first of the directory that has its seal here.
func (i *identity) Operator() union.MemberID {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sync() != nil {
		return union.MemberID{}
	}
	s, _ := i.dir.View().State(i.state)
	for _, m := range s.Members {
		if _, ok := i.seals[m.ID]; ok {
			return m.ID
		}
	}
	return union.MemberID{}
}

// sync follows the directory. A key that was replaced and whose certificate is
// not published yet leaves the former pair in use: it is in memory, and valid.
func (i *identity) sync() error {
	v := i.dir.View()
	if v == i.view {
		return nil
	}
	state, _ := v.State(i.state)
	var shown *tls.Certificate
	for _, n := range state.Nodes {
		if n.Name != i.node {
			continue
		}
		key, cert, err := i.pair(v, directory.TLSKey, n.Certificates)
		if err != nil {
			return err
		}
		if cert != nil {
			// Others need time to learn of a new one.
			if c, err := n.Current(key.Public(), i.now()); err == nil && i.good(v, c) {
				cert = c
			}
			shown = &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
		} else if i.tls != nil && i.good(v, i.tls.Leaf) {
			shown = i.tls
		}
	}
	seals := map[union.MemberID]exchange.Credential{}
	for _, m := range state.Members {
		key, cert, err := i.pair(v, directory.SealKey(m.ID), m.Seals)
		if err != nil {
			return err
		}
		if cert != nil {
			seals[m.ID] = exchange.Credential{Signer: key, Cert: cert}
		} else if old, ok := i.seals[m.ID]; ok && i.good(v, old.Cert) {
			seals[m.ID] = old
		}
	}
	i.view, i.tls, i.seals = v, shown, seals
	return nil
}

// pair finds the certificate of a key of the folder that lasts longest; nil
// where there is no such key here, or no such certificate.
func (i *identity) pair(v *directory.View, name string, certs []directory.Cert) (crypto.Signer, *x509.Certificate, error) {
	key, err := i.keys.Signer(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the key %s: %w", name, err)
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, nil, fmt.Errorf("the key %s is of a kind that has no certificates", name)
	}
	var best *x509.Certificate
	for _, c := range certs {
		if pub.Equal(c.PublicKey) && i.good(v, c.Certificate) && (best == nil || c.NotAfter.After(best.NotAfter)) {
			best = c.Certificate
		}
	}
	return key, best, nil
}

func (i *identity) good(v *directory.View, cert *x509.Certificate) bool {
	c, ok := v.Certificate(sha256.Sum256(cert.Raw))
	return ok && c.At(i.now()) == nil
}

// authenticate finds the peer of a finished handshake in the directory.
func (i *identity) authenticate(cs tls.ConnectionState) (link.Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return link.Peer{}, fault.New(fault.CertUnknown, "the peer showed no certificate")
	}
	c, ok := i.dir.View().Certificate(sha256.Sum256(cs.PeerCertificates[0].Raw))
	switch {
	case !ok || c.Use != directory.UseTLS:
		return link.Peer{}, fault.New(fault.CertUnknown, "no state of the union names this certificate for a node")
	case c.Revoked != nil:
		return link.Peer{}, fault.New(fault.CertRevoked, "of node %s/%s, at %s", c.State, c.Node, c.Revoked.At.UTC().Format(time.RFC3339))
	}
	if err := c.At(i.now()); err != nil {
		return link.Peer{}, fault.Wrap(fault.CertExpired, err, "of node %s/%s", c.State, c.Node)
	}
	return link.Peer{State: c.State, Node: c.Node, Cert: c.SHA256}, nil
}

// known tells whether a live peer may stay: what the directory says now.
func (i *identity) known(p link.Peer) bool {
	c, ok := i.dir.View().Certificate(p.Cert)
	return ok && c.Use == directory.UseTLS && c.State == p.State && c.At(i.now()) == nil
}
