// Package directorytest makes small unions, really signed, in a few
// milliseconds and without a disk: for the tests of other rooms.
package directorytest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/union"
)

// Keys is a key folder in memory: a key is made when it is first asked for,
// but for those in Missing.
type Keys struct {
	mu      sync.Mutex
	m       map[string]crypto.Signer
	Missing []string
}

// Signer gives the key of the name.
func (k *Keys) Signer(name string) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Contains(k.Missing, name) {
		return nil, fmt.Errorf("key %s: %w", name, fs.ErrNotExist)
	}
	if k.m[name] == nil {
		s, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if k.m == nil {
			k.m = map[string]crypto.Signer{}
		}
		k.m[name] = s
	}
	return k.m[name], nil
}

// Replace makes another key of the name.
func (k *Keys) Replace(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, name)
}

// Clone copies the folder, as a thief does.
func (k *Keys) Clone() *Keys {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Keys{m: maps.Clone(k.m)}
}

// Union is a union of states with a secretariat, each with a directory and
// keys of its own, all in this process.
type Union struct {
	t     testing.TB
	Name  string
	Root  []byte                // the pin
	Keys  map[union.State]*Keys // "" is the secretariat's
	CA    map[union.State]*directory.Authority
	Dirs  map[union.State]*directory.Directory
	order []union.State

	mu     sync.Mutex
	now    time.Time
	absent map[union.State]bool
}

// Start is the time at which a union's clock stands when it is made.
func Start() time.Time { return time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC) }

// New makes a union of the states. Each has node n1 at 127.0.0.1:1, the member
// <STATE>/GOV/interior, a time-stamp authority, and whatever edit adds to its part. The clock stands
// until it is moved.
func New(t testing.TB, states []union.State, edit func(state union.State, e *directory.Edition)) *Union {
	t.Helper()
	return NewAt(t, Start(), states, edit)
}

// NewAt makes a union whose clock stands at a time: for tests with programs
// that have a clock of their own.
func NewAt(t testing.TB, now time.Time, states []union.State, edit func(state union.State, e *directory.Edition)) *Union {
	t.Helper()
	u := &Union{
		t: t, Name: "Test union", now: now, order: states, absent: map[union.State]bool{},
		Keys: map[union.State]*Keys{"": {}}, CA: map[union.State]*directory.Authority{}, Dirs: map[union.State]*directory.Directory{},
	}
	dr, err := directory.Found(directory.Founding{
		Name: u.Name, Demonstration: true, Threshold: len(states)/2 + 1, Quorum: 2, Now: u.now,
		Purposes: []directory.Purpose{
			{Code: "traffic", Name: Text("Traffic"), Basis: Text("Union traffic agreement, article 4")},
			{Code: "audit", Name: Text("Audit"), Basis: Text("Union audit agreement, article 1")},
		},
		Secretariat: u.signer("", directory.OnlineKey).Public(),
	})
	u.must(err)
	for _, s := range states {
		u.Keys[s] = &Keys{}
		u.must(dr.AddState(u.Enrol(s, 1, edit)))
	}
	for _, s := range states {
		u.must(dr.Sign(u.signer(s, directory.RootKey)))
	}
	u.Root, err = dr.Root()
	u.must(err)
	for _, s := range append([]union.State{""}, states...) {
		u.Dirs[s] = u.Open(s, directory.Config{}, u.Keys[s])
	}
	u.must(u.Dirs[""].Install(t.Context(), dr))
	u.Refresh()
	return u
}

// Text is the text in both languages.
func Text(en string) union.Text { return union.Text{En: en, Ar: "نص: " + en} }

// Enrol makes a state's enrolment with its own keys and a new authority.
func (u *Union) Enrol(s union.State, version int64, edit func(union.State, *directory.Edition)) *directory.Enrolment {
	u.t.Helper()
	ca, err := directory.NewAuthority(s, "State "+string(s), u.signer(s, directory.AuthorityKey), u.Now)
	u.must(err)
	u.CA[s] = ca
	crl, err := ca.CRL(nil)
	u.must(err)
	e := &directory.Edition{Files: map[string][]byte{"crl.der": crl}, Part: &directory.Part{
		State:       s,
		Authorities: []directory.Issuer{{Certificate: directory.Cert{Certificate: ca.Cert}, CRL: "crl.der"}},
		Nodes:       []directory.Node{{Name: "n1", Address: "127.0.0.1:1", Certificates: []directory.Cert{u.tls(s)}}},
		Members:     []directory.Member{u.Member(s, "GOV", "interior")},
		Stamps:      []directory.Stamp{u.stamp(s)},
	}}
	if edit != nil {
		edit(s, e)
	}
	n, err := directory.Enrol(directory.Seat{Code: s, Name: Text("State " + string(s))}, true, u.Keys[s], version, u.Now(), e)
	u.must(err)
	return n
}

// Member makes a member with a seal certificate; its key is in the state's
// folder under directory.SealKey.
func (u *Union) Member(s union.State, class, code string) directory.Member {
	u.t.Helper()
	id := union.MemberID{State: s, Class: class, Code: code}
	cert, err := u.CA[s].Seal(id, "Member "+code, u.signer(s, directory.SealKey(id)).Public())
	u.must(err)
	return directory.Member{Class: class, Code: code, Name: Text("Member " + code), Seals: []directory.Cert{{Certificate: cert}}}
}

func (u *Union) tls(s union.State) directory.Cert {
	cert, err := u.CA[s].TLS("n1", []string{"localhost", "127.0.0.1"}, u.signer(s, directory.TLSKey).Public())
	u.must(err)
	return directory.Cert{Certificate: cert}
}

func (u *Union) stamp(s union.State) directory.Stamp {
	cert, err := u.CA[s].Stamp(u.signer(s, directory.StampKey).Public())
	u.must(err)
	return directory.Stamp{Certificate: directory.Cert{Certificate: cert}}
}

// Stamp gives the key and the newest certificate of a state's time-stamp
// authority.
func (u *Union) Stamp(s union.State) (crypto.Signer, *x509.Certificate) {
	u.t.Helper()
	st, ok := u.Dirs[s].View().State(s)
	if !ok || len(st.Stamps) == 0 {
		u.t.Fatalf("no time-stamp authority of %s", s)
	}
	return u.signer(s, directory.StampKey), st.Stamps[len(st.Stamps)-1].Certificate.Certificate
}

// Seal gives a member's key and its newest seal certificate.
func (u *Union) Seal(id union.MemberID) (crypto.Signer, *x509.Certificate) {
	u.t.Helper()
	m, ok := u.Dirs[id.State].View().Member(id)
	if !ok || len(m.Seals) == 0 {
		u.t.Fatalf("no member %s with a seal", id)
	}
	return u.signer(id.State, directory.SealKey(id)), m.Seals[len(m.Seals)-1].Certificate
}

// TLS gives what the state's node shows on its link.
func (u *Union) TLS(s union.State) *tls.Certificate {
	u.t.Helper()
	st, ok := u.Dirs[s].View().State(s)
	if !ok || len(st.Nodes) == 0 {
		u.t.Fatalf("no node of %s", s)
	}
	certs := st.Nodes[0].Certificates
	leaf := certs[len(certs)-1].Certificate
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, Leaf: leaf, PrivateKey: u.signer(s, directory.TLSKey)}
}

// Open makes another copy of the directory, as a node of the state. Config
// needs neither root nor state.
func (u *Union) Open(s union.State, cfg directory.Config, keys directory.Keys) *directory.Directory {
	u.t.Helper()
	if cfg.Root == nil {
		cfg.Root = u.Root
	}
	cfg.State, cfg.Demonstration = s, true
	d, err := directory.Open(context.Background(), cfg, directory.Deps{Now: u.Now, Keys: keys, Peers: func() []directory.Peer { return u.Peers(s) }})
	u.must(err)
	return d
}

// Peers are the others that a party reaches, the secretariat first.
func (u *Union) Peers(of union.State) []directory.Peer {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []directory.Peer
	for _, s := range append([]union.State{""}, u.order...) {
		if d := u.Dirs[s]; s != of && d != nil && !u.absent[s] {
			list = append(list, u.peer(of, s, d))
		}
	}
	return list
}

// peer reaches a directory in this process as it would be reached otherwise: a
// state's over a link, the secretariat by HTTP.
func (u *Union) peer(of, s union.State, d *directory.Directory) directory.Peer {
	if s != "" {
		return directory.LinkPeer(s, func(ctx context.Context, kind string, body []byte) ([]byte, error) {
			return d.Answer(ctx, kind, body, u.Dirs[of])
		})
	}
	return directory.Peer{Fetcher: d, Cosign: d.Cosign, Offer: func(ctx context.Context, _ []byte, whole func() ([]byte, error)) error {
		raw, err := whole()
		if err != nil {
			return err
		}
		return d.Take(ctx, raw)
	}}
}

// Away takes parties out of reach of the others, or brings them back.
func (u *Union) Away(away bool, states ...union.State) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range states {
		u.absent[s] = away
	}
}

// Now is the union's clock.
func (u *Union) Now() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now
}

// Advance moves the clock.
func (u *Union) Advance(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now = u.now.Add(d)
}

// Later moves the clock by as long as it takes for much to run out, and has the
// states renew it: root and targets by a ceremony, the rest by themselves.
func (u *Union) Later(d time.Duration) {
	u.t.Helper()
	u.Advance(d)
	dr, err := u.Dirs[u.order[0]].Draft()
	u.must(err)
	for _, s := range u.order {
		u.must(dr.Sign(u.signer(s, directory.RootKey)))
	}
	u.must(u.Dirs[""].Install(context.Background(), dr))
	u.Refresh()
	for range 3 { // what one renews, another takes up
		for _, s := range append([]union.State{""}, u.order...) {
			u.must(u.Dirs[s].Renew(context.Background()))
		}
		u.Refresh()
	}
}

// Refresh brings every directory up to date.
func (u *Union) Refresh() {
	u.t.Helper()
	for _, d := range u.Dirs {
		u.must(d.Refresh(context.Background()))
	}
}

func (u *Union) signer(s union.State, name string) crypto.Signer {
	k, err := u.Keys[s].Signer(name)
	u.must(err)
	return k
}

func (u *Union) must(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}
