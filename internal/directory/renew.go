package directory

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// retired is how long a seal's certificate stays listed after its end, for
// deliveries that are still under way. Older evidence is judged by ViewAt.
const retired = 30 * 24 * time.Hour

// Renew renews what is due and what the keys of this party may renew: its own
// certificates and CRL, its part, and the directory's time-stamp, for which it
// waits a little longer the further back it stands in the directory, so that
// one party at a time does it. A directory that has expired is renewed too.
func (d *Directory) Renew(ctx context.Context) error {
	now, v := d.deps.Now(), d.View()
	if v.release == nil {
		return nil
	}
	if p := v.parts[d.cfg.State]; p != nil && d.ownKey() != "" {
		issuer, err := d.Authority()
		if err != nil {
			issuer = nil // the state's certificates are issued elsewhere
		}
		always := p.expires.Sub(now) < partLife/2
		if always || issuer != nil && d.due(v, issuer, now) {
			return d.publishPart(ctx, func(e *Edition) error {
				if issuer == nil {
					return nil
				}
				return d.renewCertificates(e, issuer, now)
			}, always)
		}
	}
	if !d.stampDue(v, now) {
		return nil
	}
	return d.propose(ctx, func(v *View, p *proposal) error {
		p.force = d.stampDue(v, d.deps.Now())
		return nil
	})
}

func (d *Directory) stampDue(v *View, now time.Time) bool {
	if _, err := d.key(OnlineKey); err != nil || v.release == nil {
		return false
	}
	rank := 1 + slices.IndexFunc(v.charter.States, func(s Seat) bool { return s.Code == d.cfg.State })
	left := stampLife/2 - stampLife/4*time.Duration(rank)/maxSeats
	end := v.release.timestamp.Signed.Expires
	if s := v.release.snapshot.Signed.Expires; s.Before(end) {
		end = s
	}
	return end.Sub(now) < left
}

// Authority is the state's own authority, if its key is in this node's folder
// and the state's part names it.
func (d *Directory) Authority() (*Authority, error) {
	key, err := d.key(AuthorityKey)
	if err != nil {
		return nil, err
	}
	if p := d.View().parts[d.cfg.State]; p != nil {
		for _, a := range p.doc.Authorities {
			if same(a.Certificate.PublicKey, key.Public()) {
				return &Authority{State: d.cfg.State, Cert: a.Certificate.Certificate, Key: key, Now: d.deps.Now}, nil
			}
		}
	}
	return nil, fault.New(fault.NotAllowed, "the state's part names no authority whose key is in this node's folder")
}

func same(a, b crypto.PublicKey) bool {
	k, ok := a.(*ecdsa.PublicKey)
	return ok && k.Equal(b)
}

// Revoke puts a certificate of the own state on its CRL and publishes that.
// The reason is one of RFC 5280's names, such as keyCompromise.
func (d *Directory) Revoke(ctx context.Context, sha256 [32]byte, reason string) error {
	code, err := reasonCode(reason)
	if err != nil {
		return fault.Wrap(fault.BadRequest, err, "revoke")
	}
	issuer, err := d.Authority()
	if err != nil {
		return err
	}
	c, ok := d.View().Certificate(sha256)
	if !ok || c.State != d.cfg.State {
		return fault.New(fault.CertUnknown, "%x is no certificate of %s in the directory", sha256, d.cfg.State)
	}
	if !bytes.Equal(c.Cert.RawIssuer, issuer.Cert.RawSubject) {
		return fault.New(fault.NotAllowed, "another authority issued that certificate: it alone can revoke it")
	}
	entry := x509.RevocationListEntry{SerialNumber: c.Cert.SerialNumber, RevocationTime: d.deps.Now().UTC().Truncate(time.Second), ReasonCode: code}
	return d.Publish(ctx, func(e *Edition) error { return e.renewCRL(issuer, entry) })
}

func (e *Edition) renewCRL(issuer *Authority, add ...x509.RevocationListEntry) error {
	for _, a := range e.Authorities {
		if a.CRL != "" && bytes.Equal(a.Certificate.Raw, issuer.Cert.Raw) {
			crl, err := issuer.CRL(e.Files[a.CRL], add...)
			if err != nil {
				return err
			}
			e.Files[a.CRL] = crl
			return nil
		}
	}
	return fault.New(fault.NotAllowed, "the state's part names no CRL of its authority")
}

// due tells whether a certificate or the CRL is to be renewed: what
// renewCertificates would do, without doing it.
func (d *Directory) due(v *View, issuer *Authority, now time.Time) bool {
	p := v.parts[d.cfg.State]
	for _, a := range p.doc.Authorities {
		if b := p.files[string(d.cfg.State)+"/"+a.CRL]; bytes.Equal(a.Certificate.Raw, issuer.Cert.Raw) && crlDue(b, now) {
			return true
		}
	}
	return slices.ContainsFunc(d.slots(p.doc, issuer), func(s slot) bool { return s.due(now) })
}

func crlDue(b []byte, now time.Time) bool {
	crl, err := x509.ParseRevocationList(b)
	return err == nil && crl.NextUpdate.Sub(now) < crlLife/2
}

func newestOf(list []Cert, key crypto.Signer) (newest *x509.Certificate) {
	for _, c := range list {
		if same(c.PublicKey, key.Public()) && (newest == nil || c.NotAfter.After(newest.NotAfter)) {
			newest = c.Certificate
		}
	}
	return newest
}

func (d *Directory) renewCertificates(e *Edition, issuer *Authority, now time.Time) error {
	for _, a := range e.Authorities {
		if bytes.Equal(a.Certificate.Raw, issuer.Cert.Raw) && crlDue(e.Files[a.CRL], now) {
			if err := e.renewCRL(issuer); err != nil {
				return err
			}
		}
	}
	for _, s := range d.slots(e.Part, issuer) {
		if !s.due(now) {
			continue
		}
		c, err := s.issue()
		if err != nil {
			return err
		}
		list := slices.DeleteFunc(slices.Clone(s.list), func(c Cert) bool { return now.After(c.NotAfter.Add(retired)) })
		s.put(append(list, Cert{c}))
	}
	return nil
}

// slot is a list of certificates that belong to one key of this node's folder.
type slot struct {
	list  []Cert
	key   crypto.Signer
	life  time.Duration
	issue func() (*x509.Certificate, error)
	put   func([]Cert)
}

// due: the key has no certificate, or its newest one has less than a third of
// its life left.
func (s slot) due(now time.Time) bool {
	c := newestOf(s.list, s.key)
	return c == nil || c.NotAfter.Sub(now) < s.life/3
}

// maxStamps is how many certificates of time-stamp authorities stay listed when
// one is added: what an earlier one stamped is judged by the directory of its
// day.
const maxStamps = 8

// slots finds the certificates that this node renews.
func (d *Directory) slots(p *Part, issuer *Authority) []slot {
	var slots []slot
	if key, err := d.key(TLSKey); err == nil {
		for i := range p.Nodes {
			n := &p.Nodes[i]
			// Of several nodes, the one whose certificate is for our key.
			old := newestOf(n.Certificates, key)
			if old == nil && len(p.Nodes) > 1 {
				continue
			}
			slots = append(slots, slot{n.Certificates, key, tlsLife, func() (*x509.Certificate, error) {
				return issuer.TLS(n.Name, hostsOf(n.Certificates), key.Public())
			}, func(l []Cert) { n.Certificates = l }})
		}
	}
	for i := range p.Members {
		m := &p.Members[i]
		if key, err := d.key(SealKey(m.ID)); err == nil {
			slots = append(slots, slot{m.Seals, key, sealLife, func() (*x509.Certificate, error) {
				return issuer.Seal(m.ID, m.Name.En, key.Public())
			}, func(l []Cert) { m.Seals = l }})
		}
	}
	if key, err := d.key(StampKey); err == nil {
		var certs []Cert
		address := map[[32]byte]string{}
		own := "" // where the one before was
		for _, x := range p.Stamps {
			certs = append(certs, x.Certificate)
			address[x.Certificate.SHA256()] = x.Address
			if bytes.Equal(x.Certificate.RawIssuer, issuer.Cert.RawSubject) {
				own = x.Address
			}
		}
		slots = append(slots, slot{certs, key, stampCertLife, func() (*x509.Certificate, error) {
			return issuer.Stamp(key.Public())
		}, func(l []Cert) {
			p.Stamps = nil
			for _, c := range l[max(0, len(l)-maxStamps):] {
				at, ok := address[c.SHA256()]
				if !ok {
					at = own
				}
				p.Stamps = append(p.Stamps, Stamp{at, c})
			}
		}})
	}
	return slots
}

// hostsOf gives the names that the last certificate was for.
func hostsOf(list []Cert) []string {
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	hosts := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

// Current picks what a node shows on its link: the newest of its certificates
// for the key that others have had time to learn of, else the newest.
func (n Node) Current(key crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	var known, newest *x509.Certificate
	for _, c := range n.Certificates {
		if !same(c.PublicKey, key) || now.After(c.NotAfter) || now.Before(c.NotBefore) {
			continue
		}
		if newest == nil || c.NotAfter.After(newest.NotAfter) {
			newest = c.Certificate
		}
		if now.Sub(c.NotBefore) > time.Hour && (known == nil || c.NotAfter.After(known.NotAfter)) {
			known = c.Certificate
		}
	}
	switch {
	case known != nil:
		return known, nil
	case newest != nil:
		return newest, nil
	}
	return nil, fmt.Errorf("node %s has no certificate for its key that is valid now", n.Name)
}
