package exchange

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// testUnion is a union of real nodes in one process: real keys, a directory
// signed by all, SQLite files, TLS links over loopback. Each state xx has the
// member xx/GOV/office with the subsystem desk, which calls and serves.
type testUnion struct {
	t     testing.TB
	nodes map[union.State]*testNode
}

type testNode struct {
	*Exchange
	state   union.State
	dir     *directory.Directory
	keys    *seal.Keys
	issuer  *directory.Authority
	seals   map[union.MemberID]Credential
	tls     *x509.Certificate
	journal *journal.Journal
	db      *store.DB
	link    *link.Link
	edge    *httptest.Server
	seen    chan Observation
	now     func() time.Time // this node's clock; change it before it is used
	shift   *atomic.Int64    // nanoseconds by which its clock is ahead
	home    string           // folder of the node
	spool   string           // folder of large bodies
	inside  Inside           // what this node serves itself; nil: nothing
}

// engine gives the store of a node.
type engine func(t testing.TB) store.Config

func onSQLite(t testing.TB) store.Config {
	return store.Config{DSN: filepath.Join(t.TempDir(), "node.db")}
}

func desk(s union.State) union.SubsystemID {
	return union.SubsystemID{MemberID: union.MemberID{State: s, Class: "GOV", Code: "office"}, Subsystem: "desk"}
}

func offered(s union.State, code string) union.ServiceID {
	return union.ServiceID{SubsystemID: desk(s), Service: code}
}

// services every state offers in tests; "things" is granted to every desk.
var testServices = []directory.Service{
	{Code: "things", Retention: "exchange", DataClass: "public", TimeoutMS: 10_000, OpenAPI: "openapi/things.json", Endpoints: []policy.Endpoint{{Method: "*", Path: "/**"}}},
	{Code: "idem", Retention: "exchange", DataClass: "public", TimeoutMS: 10_000, Idempotent: true},
	{Code: "later", Retention: "exchange", DataClass: "public", TimeoutMS: 10_000, Async: true},
	{Code: "brief", Retention: "exchange", DataClass: "public", TimeoutMS: 300},
	{Code: "fleeting", Retention: "exchange", DataClass: "public", TimeoutMS: 10_000, DigestOnly: true},
	{Code: "closed", Retention: "exchange", DataClass: "public", TimeoutMS: 10_000},
}

type kitOption func(*Config, *Deps)

// newUnion starts a union of the states given, on SQLite.
func newUnion(t testing.TB, states []union.State, options ...kitOption) *testUnion {
	t.Helper()
	return newUnionOn(t, onSQLite, states, options...)
}

func newUnionOn(t testing.TB, on engine, states []union.State, options ...kitOption) *testUnion {
	t.Helper()
	u, listeners := foundUnion(t, states)
	for _, s := range states {
		u.nodes[s].start(t, on, listeners[s], options)
	}
	return u
}

// foundUnion makes keys and directory of a union, and opens the sockets that
// the directory names; no node runs yet.
func foundUnion(t testing.TB, states []union.State) (*testUnion, map[union.State]net.Listener) {
	t.Helper()
	u := &testUnion{t: t, nodes: map[union.State]*testNode{}}
	text := union.Text{En: "a text", Ar: "نص"}
	draft, err := directory.Found(directory.Founding{
		Name: "test", Demonstration: true, Threshold: len(states), Quorum: 1, Now: time.Now(),
		Purposes: []directory.Purpose{{Code: "test", Name: text, Basis: text}, {Code: "other", Name: text, Basis: text}},
	})
	check(t, err)
	listeners := map[union.State]net.Listener{}
	for _, s := range states {
		n := &testNode{state: s, seals: map[union.MemberID]Credential{}, seen: make(chan Observation, 4096), shift: new(atomic.Int64)}
		n.now = func() time.Time { return time.Now().Add(time.Duration(n.shift.Load())) }
		u.nodes[s] = n
		n.home = t.TempDir()
		n.keys, err = seal.OpenKeys(filepath.Join(n.home, "keys"), seal.KeyConfig{Demonstration: true})
		check(t, err)
		for _, k := range []string{directory.RootKey, directory.StateKey, directory.OnlineKey, directory.AuthorityKey, "tls", directory.SealKey(desk(s).MemberID)} {
			_, err := n.keys.Create(k, seal.ECDSAP256)
			check(t, err)
		}
		ca, err := n.keys.Signer(directory.AuthorityKey)
		check(t, err)
		n.issuer, err = directory.NewAuthority(s, "State "+string(s), ca, time.Now)
		check(t, err)
		sealKey, err := n.keys.Signer(directory.SealKey(desk(s).MemberID))
		check(t, err)
		sealCert, err := n.issuer.Seal(desk(s).MemberID, "Office", sealKey.Public())
		check(t, err)
		n.seals[desk(s).MemberID] = Credential{Signer: sealKey, Cert: sealCert}
		tlsKey, err := n.keys.Signer("tls")
		check(t, err)
		tlsCert, err := n.issuer.TLS("n1", []string{"127.0.0.1"}, tlsKey.Public())
		check(t, err)
		n.tls = tlsCert
		crl, err := n.issuer.CRL(nil)
		check(t, err)
		listeners[s], err = net.Listen("tcp", "127.0.0.1:0")
		check(t, err)

		edition := &directory.Edition{
			Part: &directory.Part{
				State:       s,
				Authorities: []directory.Issuer{{Certificate: directory.Cert{Certificate: n.issuer.Cert}, CRL: "crl.der"}},
				Nodes:       []directory.Node{{Name: "n1", Address: listeners[s].Addr().String(), Certificates: []directory.Cert{{Certificate: tlsCert}}}},
				Members: []directory.Member{{
					Class: "GOV", Code: "office", Name: text, Seals: []directory.Cert{{Certificate: sealCert}},
					Subsystems: []directory.Subsystem{{Code: "desk", Name: text, Services: named(testServices, text)}},
				}},
			},
			Policy: policy.Base(s),
			Files:  map[string][]byte{"crl.der": crl, "openapi/things.json": []byte(`{"openapi":"3.0.0","info":{"title":"things","version":"1"},"paths":{}}`)},
		}
		for _, client := range states {
			for _, svc := range testServices {
				if client != s && svc.Code != "closed" {
					edition.Agreements = append(edition.Agreements, directory.Agreement{Agreement: policy.Agreement{
						ID: fmt.Sprintf("%s-%s", client, svc.Code), Client: desk(client), Service: offered(s, svc.Code), Purposes: []string{"test"}, Basis: text,
					}})
				}
			}
		}
		enrolment, err := directory.Enrol(directory.Seat{Code: s, Name: text}, true, n.keys, 1, time.Now(), edition)
		check(t, err)
		check(t, draft.AddState(enrolment))
	}
	for _, s := range states {
		key, err := u.nodes[s].keys.Signer(directory.RootKey)
		check(t, err)
		check(t, draft.Sign(key))
	}
	root, err := draft.Root()
	check(t, err)
	for _, s := range states {
		n := u.nodes[s]
		n.dir, err = directory.Open(t.Context(), directory.Config{Root: root, State: s, Demonstration: true}, directory.Deps{
			Now: time.Now, Keys: n.keys, Peers: func() []directory.Peer {
				var out []directory.Peer
				for _, other := range states {
					if other != s {
						out = append(out, directory.Peer{State: other, Fetcher: u.nodes[other].dir, Cosign: u.nodes[other].dir.Cosign})
					}
				}
				return out
			},
		})
		check(t, err)
	}
	check(t, u.nodes[states[0]].dir.Install(t.Context(), draft))
	u.refresh()
	return u, listeners
}

func named(list []directory.Service, name union.Text) []directory.Service {
	out := append([]directory.Service(nil), list...)
	for i := range out {
		out[i].Name = name
	}
	return out
}

// refresh brings every node to the newest directory.
func (u *testUnion) refresh() {
	u.t.Helper()
	for _, n := range u.nodes {
		check(u.t, n.dir.Refresh(u.t.Context()))
	}
}

func (n *testNode) start(t testing.TB, on engine, ln net.Listener, options []kitOption) {
	t.Helper()
	n.spool = filepath.Join(n.home, "spool")
	var err error
	n.db, err = store.Open(t.Context(), on(t), journal.Migrations(), Migrations())
	check(t, err)
	hidden, err := n.keys.HMAC("journal-1")
	check(t, err)
	n.journal, err = journal.New(journal.Config{}, journal.Deps{DB: n.db, Records: n.keys.Records(), Keys: hidden})
	check(t, err)
	spool, err := seal.OpenSpool(n.spool, n.keys.Records())
	check(t, err)
	names, err := n.keys.HMAC("exchange-1")
	check(t, err)
	cfg := Config{
		State: n.state, Node: "n1", Operator: desk(n.state).MemberID, Alone: true, MaxBody: 2 << 30, Settle: time.Nanosecond,
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	deps := Deps{
		DB: n.db, Journal: n.journal, Spool: spool, Persons: hashes{n.keys}, Records: n.keys.Records(), Names: names, Now: n.now, Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError})),
		Directory: func() (*directory.View, error) { return n.dir.View(), n.dir.View().Fresh(n.now()) },
		Seal: func(m union.MemberID) (Credential, error) {
			c, ok := n.seals[m]
			if !ok {
				return c, fault.New(fault.NotFound, "no seal of %s", m)
			}
			return c, nil
		},
		Versions: n.dir, Archive: n.dir.ViewAt, Chain: n.dir.Chain,
		Observe: func(o Observation) {
			select {
			case n.seen <- o:
			default:
			}
		},
	}
	for _, o := range options {
		o(&cfg, &deps)
	}
	local, err := OpenLocal(t.Context(), n.db, n.now)
	check(t, err)
	n.Exchange, err = New(cfg, deps, local)
	check(t, err)
	n.link = link.New(link.Config{MaxBackoff: 50 * time.Millisecond}, link.Deps{
		Certificate: func() (*tls.Certificate, error) {
			key, err := n.keys.Signer("tls")
			return &tls.Certificate{Certificate: [][]byte{n.tls.Raw}, PrivateKey: key}, err
		},
		Authenticate: func(cs tls.ConnectionState) (link.Peer, error) {
			c, ok := n.dir.View().Certificate(sha256.Sum256(cs.PeerCertificates[0].Raw))
			if !ok || c.Use != directory.UseTLS {
				return link.Peer{}, fault.New(fault.CertUnknown, "not in the directory")
			}
			if err := c.At(n.now()); err != nil {
				return link.Peer{}, fault.Wrap(fault.CertRevoked, err, "%v", err)
			}
			return link.Peer{State: c.State, Node: c.Node, Cert: c.SHA256}, nil
		},
		Now: n.now,
	}, n.Exchange)
	n.SetLink(n.link)
	n.SetInside(n.inside)
	check(t, n.Start(t.Context()))
	check(t, local.PutClient(t.Context(), Client{ID: desk(n.state)}))
	n.edge = httptest.NewServer(n.Edge())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = n.link.Serve(ctx, ln); done <- struct{}{} }()
	go func() { _ = n.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() {
		n.edge.CloseClientConnections()
		n.edge.Close()
		cancel()
		n.link.Close()
		<-done
		<-done
		_ = spool.Close()
		_ = n.journal.Close(context.Background())
		_ = n.db.Close()
	})
}

// hashes are the keys for persons of a key folder.
type hashes struct{ keys *seal.Keys }

func (h hashes) versions() (all []seal.HMAC) {
	for i := 1; i == 1 || h.keys.HasHMAC(fmt.Sprintf("person-%d", i)); i++ {
		key, err := h.keys.HMAC(fmt.Sprintf("person-%d", i))
		if err != nil {
			panic(err)
		}
		all = append([]seal.HMAC{key}, all...)
	}
	return all
}

func (h hashes) Sum(name []byte) [32]byte { return h.versions()[0].Sum(name) }

func (h hashes) Every(name []byte) (out [][32]byte, err error) {
	for _, key := range h.versions() {
		out = append(out, key.Sum(name))
	}
	return out, nil
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// backend registers a handler as what stands behind a state's service.
func (u *testUnion) backend(s union.State, code string, h http.HandlerFunc) *httptest.Server {
	u.t.Helper()
	srv := httptest.NewServer(h)
	u.t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	check(u.t, u.nodes[s].Local().PutBackend(u.t.Context(), Backend{Service: offered(s, code), Address: srv.URL}))
	return srv
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call asks a service through a state's node, as its desk and for the purpose
// test unless the headers, "Name: value", say otherwise.
func (u *testUnion) call(from union.State, method string, service union.ServiceID, path string, body io.Reader, headers ...string) answer {
	u.t.Helper()
	return u.callAt(u.nodes[from].edge.URL, from, method, service, path, body, headers...)
}

// callAt is call at a door of its own.
func (u *testUnion) callAt(door string, from union.State, method string, service union.ServiceID, path string, body io.Reader, headers ...string) answer {
	u.t.Helper()
	req, err := http.NewRequest(method, door+"/r1/"+service.String()+path, body)
	check(u.t, err)
	req.Header.Set("X-Road-Client", desk(from).String())
	req.Header.Set("Falaj-Purpose", "test")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if value == "" {
			req.Header.Del(name)
			continue
		}
		req.Header.Set(name, value)
	}
	return do(u.t, req)
}

func do(t testing.TB, req *http.Request) answer {
	t.Helper()
	res, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(req)
	check(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	check(t, err)
	return answer{res.StatusCode, res.Header, b}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// otherKey is a key that the union knows nothing of.
func otherKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return k
}

// served has a node answer a call as the link does: the answer counts once it
// is durable.
func served(ctx context.Context, x *Exchange, peer link.Peer, msg *link.Message) (*link.Message, error) {
	m, err := x.Exchange(ctx, peer, msg)
	if err == nil && m.Hold != nil {
		_, err = m.Hold()
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}
