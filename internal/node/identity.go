package node

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
)

// identity is what this node shows of itself: its TLS certificate on the link,
// its members' seals, its time-stamp authority. It joins the keys of the folder with the
// certificates that the directory names for them, anew for each version.
type identity struct {
	keys  *seal.Keys
	dir   *directory.Directory
	state union.State
	node  string
	now   func() time.Time
	grace time.Duration // that others are given to learn of a new certificate

	mu    sync.Mutex
	view  *directory.View
	wake  time.Time // when a newer pair takes over; zero: none waits
	tls   shown
	seals map[union.MemberID]shown
	stamp shown
}

// shown is a pair of key and certificate that is in use, and the one that
// follows it.
type shown struct {
	pair
	next pair
	at   time.Time // when next takes over
}

type pair struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// TLS is the certificate for the link.
func (i *identity) TLS() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.sync(); err != nil {
		return nil, err
	}
	p := i.tls.pair
	if names := i.named(); p.cert == nil && len(names) > 0 && !slices.Contains(names, i.node) {
		return nil, fault.New(fault.CertUnknown, "the directory names node %s of %s, this one is called %s: set name: %s in its configuration", strings.Join(names, ", "), i.state, i.node, names[0])
	}
	if p.cert == nil {
		return nil, fault.New(fault.CertUnknown, "the directory names no valid certificate of node %s/%s for the key %q", i.state, i.node, directory.TLSKey)
	}
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}, nil
}

// Stamp is what this state's time-stamp authority signs with.
func (i *identity) Stamp() (stamp.Authority, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.sync(); err != nil {
		return stamp.Authority{}, err
	}
	p := i.stamp.pair
	if p.cert == nil {
		return stamp.Authority{}, fault.New(fault.CertUnknown, "the directory names no valid certificate of %s for the key %q", i.state, directory.StampKey)
	}
	return stamp.Authority{Cert: p.cert, Key: p.key}, nil
}

// named lists the state's nodes as the directory names them. Under mu.
func (i *identity) named() []string {
	var names []string
	s, _ := i.view.State(i.state)
	for _, n := range s.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// Seal is the credential of a member of this state; of no member, that of the
// operator as the directory stands now: a node may have started without one.
func (i *identity) Seal(m union.MemberID) (exchange.Credential, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.sync(); err != nil {
		return exchange.Credential{}, err
	}
	if m.IsZero() {
		m = i.operator()
	}
	p := i.seals[m].pair
	if p.cert == nil {
		return exchange.Credential{}, fault.New(fault.CertUnknown, "no valid seal of %s is in this node's hands", m)
	}
	return exchange.Credential{Signer: p.key, Cert: p.cert}, nil
}

// operator is the member that seals what no other member of this state can:
// the first of the directory that has its seal here. Under mu.
func (i *identity) operator() union.MemberID {
	s, _ := i.view.State(i.state)
	for _, m := range s.Members {
		if i.seals[m.ID].cert != nil {
			return m.ID
		}
	}
	return union.MemberID{}
}

// sync follows the directory and the clock.
func (i *identity) sync() error {
	v, now := i.dir.View(), i.now()
	if v == i.view && (i.wake.IsZero() || now.Before(i.wake)) {
		return nil
	}
	state, _ := v.State(i.state)
	i.wake = time.Time{}
	link, seals := shown{}, map[union.MemberID]shown{}
	for _, n := range state.Nodes {
		if n.Name != i.node {
			continue
		}
		p, err := i.pair(v, directory.TLSKey, n.Certificates)
		if err != nil {
			return err
		}
		link = i.follow(v, i.tls, p, now)
	}
	for _, m := range state.Members {
		p, err := i.pair(v, directory.SealKey(m.ID), m.Seals)
		if err != nil {
			return err
		}
		seals[m.ID] = i.follow(v, i.seals[m.ID], p, now)
	}
	var stamps []directory.Cert
	for _, x := range state.Stamps {
		stamps = append(stamps, x.Certificate)
	}
	p, err := i.pair(v, directory.StampKey, stamps)
	if err != nil {
		return err
	}
	i.view, i.tls, i.seals, i.stamp = v, link, seals, i.follow(v, i.stamp, p, now)
	return nil
}

// follow lets a new pair take over from the one in use: not before others have
// had time to learn of it, but at once where the old one is no longer good.
// What is in use is in memory, so a key that was replaced in the folder goes
// on until then.
func (i *identity) follow(v *directory.View, s shown, p pair, now time.Time) shown {
	switch old := s.cert != nil && i.good(v, s.cert); {
	case !old:
		return shown{pair: p}
	case p.cert == nil || p.cert.Equal(s.cert):
		return shown{pair: s.pair}
	case s.next.cert == nil || !p.cert.Equal(s.next.cert):
		s.next, s.at = p, now.Add(i.grace)
	case !now.Before(s.at):
		return shown{pair: p}
	}
	if i.wake.IsZero() || s.at.Before(i.wake) {
		i.wake = s.at
	}
	return s
}

// pair finds a key of the folder and its certificate that lasts longest; none
// where there is no such key here, or no such certificate.
func (i *identity) pair(v *directory.View, name string, certs []directory.Cert) (pair, error) {
	key, err := i.keys.Signer(name)
	if errors.Is(err, fs.ErrNotExist) {
		return pair{}, nil
	}
	if err != nil {
		return pair{}, fmt.Errorf("reading the key %s: %w", name, err)
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return pair{}, fmt.Errorf("the key %s is of a kind that has no certificates", name)
	}
	best := pair{key: key}
	for _, c := range certs {
		if pub.Equal(c.PublicKey) && i.good(v, c.Certificate) && (best.cert == nil || c.NotAfter.After(best.cert.NotAfter)) {
			best.cert = c.Certificate
		}
	}
	return best, nil
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
