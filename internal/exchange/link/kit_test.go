package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// authority is a small CA and, as Authenticate, the directory of a test.
type authority struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu      sync.Mutex
	serial  int64
	revoked map[[32]byte]bool
}

func newAuthority(tb testing.TB) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(tb, err)
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-240 * time.Hour), NotAfter: now.Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	ok(tb, err)
	cert, err := x509.ParseCertificate(der)
	ok(tb, err)
	return &authority{tb: tb, cert: cert, key: key, serial: 1, revoked: map[[32]byte]bool{}}
}

// issue makes a certificate for a node of a state.
func (a *authority) issue(state union.State, node string) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(a.tb, err)
	a.mu.Lock()
	a.serial++
	t := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{Country: []string{string(state)}, CommonName: node},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	a.mu.Unlock()
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	ok(a.tb, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) revoke(c *tls.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[sha256.Sum256(c.Certificate[0])] = true
}

func (a *authority) authenticate(cs tls.ConnectionState) (Peer, error) {
	leaf := cs.PeerCertificates[0]
	if err := leaf.CheckSignatureFrom(a.cert); err != nil {
		return Peer{}, fault.Wrap(fault.CertUnknown, err, "")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := sha256.Sum256(leaf.Raw)
	if a.revoked[sum] {
		return Peer{}, fault.New(fault.CertRevoked, "")
	}
	return Peer{State: union.State(leaf.Subject.Country[0]), Node: leaf.Subject.CommonName, Cert: sum}, nil
}

func (a *authority) deps(cert *tls.Certificate) Deps {
	return Deps{
		Certificate:  func() (*tls.Certificate, error) { return cert, nil },
		Authenticate: a.authenticate,
	}
}

// hands is a Handler of two functions.
type hands struct {
	exchange func(context.Context, Peer, *Message) (*Message, error)
	query    func(context.Context, Peer, string, []byte) ([]byte, error)
}

func (h hands) Exchange(ctx context.Context, p Peer, m *Message) (*Message, error) {
	if h.exchange == nil {
		return echo(ctx, p, m)
	}
	return h.exchange(ctx, p, m)
}

func (h hands) Query(ctx context.Context, p Peer, kind string, body []byte) ([]byte, error) {
	if h.query == nil {
		return append([]byte(kind+" "+string(p.State)+" "), body...), nil
	}
	return h.query(ctx, p, kind, body)
}

// echo answers with what came.
func echo(_ context.Context, _ Peer, m *Message) (*Message, error) {
	if m.Size == 0 {
		return NewMessage(m.Envelope, nil), nil
	}
	b, err := io.ReadAll(m.Body)
	if err != nil {
		return nil, err
	}
	return NewMessage(m.Envelope, b), nil
}

// pair is two nodes: BH calls SA.
type pair struct {
	ca       *authority
	bh, sa   *Link
	bhCert   *tls.Certificate
	saCert   *tls.Certificate
	to       Target
	listener net.Listener
}

func newPair(tb testing.TB, client, server Config, h Handler) *pair {
	p := &pair{ca: newAuthority(tb)}
	p.bhCert, p.saCert = p.ca.issue("BH", "bh-1"), p.ca.issue("SA", "sa-1")
	p.bh = New(client, p.ca.deps(p.bhCert), hands{})
	p.sa = New(server, p.ca.deps(p.saCert), h)
	p.listener = listen(tb)
	p.to = Target{State: "SA", Addrs: []string{p.listener.Addr().String()}}
	serve(tb, p.sa, p.listener)
	tb.Cleanup(p.bh.Close)
	return p
}

func listen(tb testing.TB) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ok(tb, err)
	return ln
}

// serve serves until the test ends.
func serve(tb testing.TB, l *Link, ln net.Listener) {
	done := make(chan error, 1)
	go func() { done <- l.Serve(context.Background(), ln) }()
	tb.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
}

// wire is a raw end of a connection: what a test writes and reads frame by frame.
type wire struct {
	tb testing.TB
	net.Conn
	br *bufio.Reader
}

func newWire(tb testing.TB, c net.Conn) *wire {
	return &wire{tb: tb, Conn: c, br: bufio.NewReaderSize(c, 256<<10)}
}

func (w *wire) send(frames []byte) {
	w.tb.Helper()
	_, err := w.Write(frames)
	ok(w.tb, err)
}

func (w *wire) frame() (header, []byte, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(w.br, b[:]); err != nil {
		return header{}, nil, err
	}
	h := parseHeader(b[:])
	p := make([]byte, h.length)
	_, err := io.ReadFull(w.br, p)
	return h, p, err
}

// next gives the next frame that is not a PING.
func (w *wire) next() (header, []byte) {
	w.tb.Helper()
	for {
		h, p, err := w.frame()
		ok(w.tb, err)
		if h.typ != typePing {
			return h, p
		}
	}
}

// want reads frames until one of the type comes.
func (w *wire) want(typ byte) (header, []byte) {
	w.tb.Helper()
	for {
		h, p, err := w.frame()
		if err != nil {
			w.tb.Fatalf("waiting for type %d: %v", typ, err)
		}
		if h.typ == typ {
			return h, p
		}
	}
}

// notice reads until RESET or GOAWAY and gives the fault in it.
func (w *wire) notice(typ byte) (header, *fault.Error) {
	w.tb.Helper()
	h, p := w.want(typ)
	if typ == typeGoaway {
		p = p[8:]
	}
	e, err := parseNotice(p)
	ok(w.tb, err)
	return h, e
}

func (w *wire) greet() {
	w.tb.Helper()
	w.send(appendHello(nil, hello{min: 1, max: 1, software: "wire"}))
	w.want(typeHello)
}

// dialWire connects to a link as a node would, by hand.
func (p *pair) dialWire(tb testing.TB, cert *tls.Certificate) *wire {
	w, err := p.tryWire(tb, func(c *tls.Config) { c.Certificates = []tls.Certificate{*cert} })
	ok(tb, err)
	return w
}

func (p *pair) tryWire(tb testing.TB, change func(*tls.Config)) (*wire, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, InsecureSkipVerify: true}
	change(cfg)
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := tls.DialWithDialer(&d, "tcp", p.to.Addrs[0], cfg)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { c.Close() })
	ok(tb, c.SetDeadline(time.Now().Add(30*time.Second)))
	return newWire(tb, c), nil
}

// record is a log that may be read while it is written.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// bare joins a link to a wire without TLS and without buffers: each write of
// the link waits until the test reads it. Dialled means that the link called,
// so that its Exchange to SA at "pipe" runs on the wire.
func bare(tb testing.TB, cfg Config, h Handler, dialled bool) (*Link, *wire) {
	l, w, c := join(tb, cfg, h, dialled)
	tb.Cleanup(func() {
		w.Close()
		l.Close()
	})
	l.wg.Go(func() {
		if c.greet() == nil {
			c.run()
		}
	})
	w.greet()
	return l, w
}

func join(tb testing.TB, cfg Config, h Handler, dialled bool) (*Link, *wire, *conn) {
	here, there := net.Pipe()
	peer := Peer{State: "SA", Node: "wire", Addr: "pipe"}
	l := New(cfg, Deps{
		Certificate:  func() (*tls.Certificate, error) { return &tls.Certificate{}, nil },
		Authenticate: func(tls.ConnectionState) (Peer, error) { return peer, nil },
		Dial:         func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no second pipe") },
	}, h)
	c := newConn(l, here, here, peer, dialled)
	ok(tb, l.register(c))
	if dialled {
		l.nodes[address{"SA", "pipe"}] = &node{conn: c}
	}
	return l, newWire(tb, there), c
}

var onPipe = Target{State: "SA", Addrs: []string{"pipe"}}

func ok(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func soon(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// wantFault holds an error against a code and the sentinel that it must wrap.
func wantFault(tb testing.TB, err error, code fault.Code, sentinel error) {
	tb.Helper()
	if fault.CodeOf(err) != code {
		tb.Errorf("error %v has code %q, want %q", err, fault.CodeOf(err), code)
	}
	for _, s := range []error{ErrNotSent, ErrBroken, ErrRefused} {
		if errors.Is(err, s) != (s == sentinel) {
			tb.Errorf("error %v: is %q: %v", err, s, errors.Is(err, s))
		}
	}
}

// eventually waits until a condition holds.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatal("never happened: " + what)
		}
	}
}
