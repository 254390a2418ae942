// Package link is the room of the wire between nodes: persistent, mutually
// authenticated TLS 1.3 connections that carry many exchanges at once in
// length-prefixed frames. What an envelope holds is not its business; who the
// other side is, that nothing waits behind a large body, and what became of a
// call whose connection broke, are. docs/protocols/node.md gives it byte for
// byte.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"golang.org/x/time/rate"
)

// Every error of Exchange and Query is a fault that wraps exactly one of
// these: what is known of the call's effect decides whether it may be repeated.
var (
	// ErrNotSent: the peer surely did not begin the call. Repeating it is safe.
	ErrNotSent = errors.New("surely not begun by the peer")
	// ErrBroken: the call was sent and its outcome is unknown.
	ErrBroken = errors.New("sent, outcome unknown")
	// ErrRefused: the peer answered with a fault; the fault's code is the peer's.
	ErrRefused = errors.New("answered with a fault by the peer")
)

// Peer is the authenticated other side of a connection.
type Peer struct {
	State union.State
	Node  string   // name of the node within its state
	Cert  [32]byte // SHA-256 of the TLS certificate's DER
	Addr  string   // the address dialled, or the remote one of an accepted connection
}

// Target is where a call goes: a state and the link addresses of its nodes,
// the preferred first.
type Target struct {
	State union.State
	Addrs []string
}

// Handler is what stands behind the link at the answering side.
type Handler interface {
	// Exchange answers one sealed request, which may still have to be Released. The request's body must be read
	// before the answer is returned: an answer ends it. A returned error
	// reaches the peer as a fault: code, support id and detail, never the
	// cause; one that wraps ErrNotSent tells it that the call surely had no
	// effect. ctx ends with the caller's deadline, when it gives up, and when
	// the connection breaks; what must be finished all the same goes on under
	// Outlive of it.
	Exchange(ctx context.Context, peer Peer, req *Message) (*Message, error)
	// Query answers a small question between nodes (directory, evidence).
	Query(ctx context.Context, peer Peer, kind string, body []byte) ([]byte, error)
}

// Config holds the limits. Zero values mean the defaults stated.
type Config struct {
	MaxEnvelope      int           // bytes of an envelope; 1 MiB, which is also the protocol's maximum
	MaxBody          int64         // bytes of a declared body; 4 GiB
	MaxQuery         int           // bytes of a query's or a reply's body; 8 MiB
	MaxStreams       int           // calls at work for one peer state at a time; 1024
	MaxHeld          int64         // bytes that these may hold in memory together, beyond 16 KiB each; 32 MiB
	MaxConns         int           // accepted connections from one peer state; 32
	MaxHandshakes    int           // accepted connections in handshake at a time; 64, a quarter of them from one IP address
	Window           int           // bytes a large body may be ahead of its reader; 512 KiB
	Memory           int64         // bytes all windows together may take beyond 64 KiB each; 32 MiB
	HandshakeTimeout time.Duration // TLS and HELLO of an accepted connection; 10 s
	DialTimeout      time.Duration // TCP, TLS and HELLO of a dialled connection; 5 s
	FrameTimeout     time.Duration // from a frame's first byte to its last; 30 s
	Ping             time.Duration // between pings; a peer that leaves one unanswered that long is gone; 10 s
	Idle             time.Duration // a dialled connection without calls is closed; 10 min
	MaxDeadline      time.Duration // longest time a call may be at work; 15 min
	MaxBackoff       time.Duration // longest pause after failed dials; 5 s
	Software         string        // named in HELLO, at most 64 bytes

	minVersion, maxVersion uint16 // tests speak other versions
}

// Deps are what the link is given.
type Deps struct {
	// Certificate is asked at each handshake, so that a renewed certificate
	// needs no restart; live connections under the former one are retired.
	Certificate func() (*tls.Certificate, error)
	// Authenticate finds the peer of a finished key exchange in the directory,
	// or refuses it. It is asked at the handshake, at each ping, and before each
	// call to the peer: it must be cheap.
	Authenticate func(tls.ConnectionState) (Peer, error)
	Dial         func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer
	Now          func() time.Time                                                  // nil: time.Now
	Log          *slog.Logger                                                      // nil: discarded
}

// Link is one node's end of all its connections.
type Link struct {
	cfg    Config
	deps   Deps
	h      Handler
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine the link starts
	memory atomic.Int64   // what windows hold of Config.Memory
	turned atomic.Uint64  // connections refused
	warn   rate.Sometimes // about them: strangers must not fill the log
	chunks sync.Pool      // *[maxChunk]byte: what is to be sent
	rings  sync.Pool      // *[]byte: what has arrived

	mu        sync.Mutex
	conns     map[*conn]struct{}
	nodes     map[address]*node
	loads     map[union.State]*loadOf
	listeners map[net.Listener]struct{}
	shaking   map[string]int // accepted connections in handshake, by IP address
	handshake int            // their sum
	draining  bool
	empty     chan struct{} // closed when draining and the last connection is gone
}

// loadOf is what one peer state takes of this node.
type loadOf struct {
	streams atomic.Int64
	held    atomic.Int64 // bytes
	conns   int          // under Link.mu
}

// New makes a link. It opens nothing: Serve accepts, Exchange and Query dial.
func New(cfg Config, deps Deps, h Handler) *Link {
	def(&cfg.MaxEnvelope, maxEnvelope)
	cfg.MaxEnvelope = min(cfg.MaxEnvelope, maxEnvelope)
	def(&cfg.MaxBody, 4<<30)
	def(&cfg.MaxQuery, 8<<20)
	def(&cfg.MaxStreams, 1024)
	def(&cfg.MaxHeld, 32<<20)
	def(&cfg.MaxConns, 32)
	def(&cfg.MaxHandshakes, 64)
	def(&cfg.Window, 512<<10)
	cfg.Window = max(cfg.Window, firstCredit)
	def(&cfg.Memory, 32<<20)
	def(&cfg.HandshakeTimeout, 10*time.Second)
	def(&cfg.DialTimeout, 5*time.Second)
	def(&cfg.FrameTimeout, 30*time.Second)
	def(&cfg.Ping, 10*time.Second)
	def(&cfg.Idle, 10*time.Minute)
	def(&cfg.MaxDeadline, 15*time.Minute)
	def(&cfg.MaxBackoff, 5*time.Second)
	def(&cfg.Software, "falaj")
	def(&cfg.minVersion, lowestVersion)
	def(&cfg.maxVersion, highestVersion)
	if deps.Dial == nil {
		deps.Dial = new(net.Dialer).DialContext
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	l := &Link{
		cfg: cfg, deps: deps, h: h,
		conns:     map[*conn]struct{}{},
		nodes:     map[address]*node{},
		loads:     map[union.State]*loadOf{},
		listeners: map[net.Listener]struct{}{},
		shaking:   map[string]int{},
		empty:     make(chan struct{}),
	}
	l.warn = rate.Sometimes{First: 100, Interval: time.Second}
	l.chunks.New = func() any { return new([maxChunk]byte) }
	l.rings.New = func() any { return new([]byte) }
	ctx, cancel := context.WithCancel(context.Background())
	l.ctx, l.cancel = context.WithValue(ctx, lifeKey{}, ctx), cancel
	return l
}

// lifeKey finds the link's own context from any handler's.
type lifeKey struct{}

// Outlive gives, for a handler's ctx, the context of what has to be finished
// whether or not the caller still waits: it ends only when the link closes,
// after Drain has waited for the handlers too. Of another ctx it is that
// without its end.
func Outlive(ctx context.Context) context.Context {
	if life, ok := ctx.Value(lifeKey{}).(context.Context); ok {
		return life
	}
	return context.WithoutCancel(ctx)
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Exchange sends one sealed request and waits for its answer. It closes
// req.Body, perhaps after it has returned. The answer's body, if any, must be
// closed, and nothing be done with the answer before it is Released; ctx governs
// until then. An error of req.Hold is returned as it is.
func (l *Link) Exchange(ctx context.Context, to Target, req *Message) (*Message, error) {
	if e := req.check(l.cfg); e != nil {
		req.close()
		e.Cause = ErrNotSent
		return nil, e
	}
	return l.call(ctx, to, typeRequest, req)
}

// Query asks the peer a small question.
func (l *Link) Query(ctx context.Context, to Target, kind string, body []byte) ([]byte, error) {
	if !validKind(kind) || len(body) > l.cfg.MaxQuery {
		return nil, fault.Wrap(fault.BadRequest, ErrNotSent, "a query of kind %.64q with %d bytes", kind, len(body))
	}
	m, err := l.call(ctx, to, typeQuery, NewMessage([]byte(kind), body))
	if err != nil {
		return nil, err
	}
	defer m.close()
	return m.all(l.cfg.MaxQuery)
}

// Connection is a live connection, for health and doctor.
type Connection struct {
	Peer     Peer
	Dialled  bool // by us, so that our calls run on it; otherwise theirs
	Since    time.Time
	RTT      time.Duration // of the last ping; 0 before the first is answered
	Streams  int           // calls at work
	Version  uint16
	Software string
}

// Peers lists the live connections, in no order.
func (l *Link) Peers() []Connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Connection, 0, len(l.conns))
	for c := range l.conns {
		if d := c.describe(); d.Version != 0 { // past HELLO
			list = append(list, d)
		}
	}
	return list
}

// Drop closes, at once, every live connection whose peer the function names:
// after a revocation, say. Calls on them end with ErrBroken or ErrNotSent. The
// directory that Authenticate asks must know of the change before Drop is
// called; then a handshake that was under way is refused too.
func (l *Link) Drop(which func(Peer) bool) {
	l.mu.Lock()
	var gone []*conn
	for c := range l.conns {
		if which(c.peer) {
			gone = append(gone, c)
		}
	}
	l.mu.Unlock()
	for _, c := range gone {
		c.fail(fmt.Errorf("dropped by this node"))
	}
}

// Drain takes nothing new, lets what runs finish, handlers whose caller has
// gone included, and closes the link. When ctx ends first, what still runs is
// cut.
func (l *Link) Drain(ctx context.Context) {
	conns := l.shut()
	for _, c := range conns {
		c.retire("the node is draining")
	}
	done := make(chan struct{})
	go func() {
		<-l.empty
		l.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	l.Close()
	<-done
}

// Close cuts every connection and waits for what the link started: handlers
// too, whose contexts end.
func (l *Link) Close() {
	conns := l.shut()
	l.cancel()
	for _, c := range conns {
		c.fail(errors.New("this node is closing"))
	}
	l.wg.Wait()
}

// shut takes nothing new from now on and gives the live connections.
func (l *Link) shut() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.draining {
		l.draining = true
		if len(l.conns) == 0 {
			close(l.empty)
		}
	}
	for ln := range l.listeners {
		ln.Close()
	}
	return slices.Collect(maps.Keys(l.conns))
}
