// Package exchange is the way of a call: from a client system's request at its
// own state's node, sealed and journalled, over the link to the other state's
// node, through policy to the service and all the way back. ask.go lists the
// stages at the caller's node, serve.go those at the provider's.
package exchange

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Config bounds the exchange. Zero values take the defaults in brackets.
type Config struct {
	State    union.State    // whose node this is
	Node     string         // which of its nodes
	Operator union.MemberID // seals refusals that no member of its own can seal; zero: whom Deps.Seal has for that
	Alone    bool           // no other process shares the store

	Inline   int           // bodies above this many bytes go to the spool [64 KiB]
	MaxBody  int64         // bytes of one body [4 GiB]
	CallTime time.Duration // the longest that a call may take [5 min]; a service may say less
	Share    int           // calls of one client in flight at the door [256]
	Skew     time.Duration // how far another node's clock may be off [30 s]
	Answer   time.Duration // how long an asynchronous call is tried, and its answer pushed [7 d]; at most message.MaxValidity
	Keep     time.Duration // how long ids and outcomes are remembered [32 d]; at least so long that no sealed request outlives it
	Senders  int           // deliveries and pushes at work at a time [64]
	Tables   bool          // verify seals by tables of keys that seal often
	Settle   time.Duration // how long other nodes may take to learn of a new directory [1 min]
	Retry    time.Duration // pause after a first failed delivery or push [1 s]; it doubles
	RetryCap time.Duration // longest such pause [1 min]

	Allow []netip.Prefix   // networks where backends may lie although they are loopback, private or link-local
	Own   []netip.AddrPort // this node's own listeners: never a backend

	traceBlock int64 // records that share a row of the trace's index; tests take fewer
}

func (c *Config) defaults() {
	set(&c.Inline, 64<<10)
	set(&c.MaxBody, 4<<30)
	set(&c.CallTime, 5*time.Minute)
	set(&c.Share, 256)
	set(&c.Skew, 30*time.Second)
	set(&c.Answer, 7*24*time.Hour)
	c.Answer = min(c.Answer, message.MaxValidity)
	c.Keep = max(c.Keep, message.MaxValidity+24*time.Hour)
	set(&c.Senders, 64)
	set(&c.Retry, time.Second)
	set(&c.Settle, time.Minute)
	set(&c.RetryCap, time.Minute)
	set(&c.traceBlock, traceBlock)
}

func set[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Credential is what a member seals with.
type Credential struct {
	Signer crypto.Signer
	Cert   *x509.Certificate
}

// Caller carries a sealed request to another state's node: link.Link.
type Caller interface {
	Exchange(ctx context.Context, to link.Target, req *link.Message) (*link.Message, error)
	Query(ctx context.Context, to link.Target, kind string, body []byte) ([]byte, error)
}

// Versions are the directory's, as messages name them.
type Versions interface {
	// Reach brings the directory up to a version that a message of a state names.
	Reach(ctx context.Context, version int64, by union.State) error
	// Prove holds a seal against the version that its message names.
	Prove(ctx context.Context, now *directory.View, seal directory.Named) error
}

// Persons are the keyed hashes that stand for a person in this state's store.
type Persons interface {
	Sum(name []byte) [32]byte              // under the newest key
	Every(name []byte) ([][32]byte, error) // under every key that there was, the newest first
}

// Deps are what the exchange stands on.
type Deps struct {
	DB        *store.DB
	Journal   *journal.Journal
	Spool     *seal.Spool
	Directory func() (*directory.View, error)          // the directory now; a fault where it is too old to go by
	Versions  Versions                                 // the directory of the versions that messages name: directory.Directory
	Seal      func(union.MemberID) (Credential, error) // this node's credential for a member of its state
	Persons   Persons                                  // stand for persons in this state's store
	Records   journal.Cipher                           // the keys of the journal's records
	Names     interface{ Sum(b []byte) [32]byte }      // keyed hash that stands for ids and conversations there; the same for the life of the database
	Rules     func() []policy.Source                   // the node's local rules, beside its state's
	Link      Caller                                   // set by node after both exist
	Receipts  Receipts                                 // nil: records have none
	Stamps    Stamps                                   // nil: records have none
	Promises  Promises                                 // nil: nobody is held to his
	Observe   func(Observation)                        // operational monitoring
	Now       func() time.Time
	Log       *slog.Logger
	// Archive is the directory of an earlier day, by its version; nil where
	// none is kept.
	Archive func(ctx context.Context, version int64) (*directory.View, error)
	// Chain is the signed files that prove what a version says of the states
	// named, from the union's root on: directory.Directory's. nil as Archive.
	Chain func(ctx context.Context, version int64, states ...union.State) (map[string][]byte, error)
	// Dial reaches backends, once their addresses are resolved; nil: the
	// machine's network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Exchange is one process's share of a node's calls.
type Exchange struct {
	cfg      Config
	deps     Deps
	local    *Local
	process  string // names this run in claims
	flights  flights
	shares   shares
	judge    atomic.Pointer[judge]
	reloads  atomic.Uint64 // how often the local rules changed
	backends backends
	stranded stranded
	senders  senders
	releases releases
	batcher  batcher
	agreed   agreed
	checker  seal.Checker
	inside   Inside                  // nil: none
	mounts   map[string]http.Handler // doors of other rooms, by their first segment
}

// New makes an exchange over registrations already read.
func New(cfg Config, deps Deps, local *Local) (*Exchange, error) {
	cfg.defaults()
	if deps.Rules == nil {
		deps.Rules = func() []policy.Source { return nil }
	}
	if deps.Observe == nil {
		deps.Observe = func(Observation) {}
	}
	x := &Exchange{cfg: cfg, deps: deps, local: local, process: uuid.NewString()}
	x.checker.Tables = cfg.Tables
	x.senders.wake = make(chan struct{}, 1)
	return x, nil
}

// Local gives the registrations of this node's own systems.
func (x *Exchange) Local() *Local { return x.local }

// SetLink hands in the link, which itself needs the exchange as its handler.
func (x *Exchange) SetLink(l Caller) { x.deps.Link = l }

// Start makes sure that the spool is this database's, marks what an earlier run
// left open and sweeps the spool. Nothing may be asked before it returns.
func (x *Exchange) Start(ctx context.Context) error {
	if err := x.atHome(ctx); err != nil {
		return err
	}
	if err := x.beat(ctx, x.cfg.Alone); err != nil {
		return err
	}
	return x.sweep(ctx)
}

// Run keeps the exchange alive, and its outbox moving, until ctx ends.
func (x *Exchange) Run(ctx context.Context) error {
	var rest sync.WaitGroup
	defer rest.Wait()
	rest.Go(func() { x.deliver(ctx) })
	rest.Go(func() { x.prune(ctx) })
	rest.Go(func() { x.indexTrace(ctx) })
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := x.beat(ctx, x.cfg.Alone); err != nil && ctx.Err() == nil {
				x.deps.Log.Error("beat", "error", err)
			}
			if err := x.local.Load(ctx); err != nil && ctx.Err() == nil {
				x.deps.Log.Error("reading registrations", "error", err)
			}
		}
	}
}

// judge is the compiled rules of one directory version.
type judge struct {
	view    *directory.View
	reloads uint64
	set     *policy.Set
}

// rules compiles the directory's and the node's rules once a version. What is
// faulty in them denies that state's calls alone: the set says so itself.
func (x *Exchange) rules(v *directory.View) *policy.Set {
	reloads := x.reloads.Load()
	if j := x.judge.Load(); j != nil && j.view == v && j.reloads == reloads {
		return j.set
	}
	set, err := policy.Compile(append(v.Policies(), x.deps.Rules()...), v.Agreements())
	if err != nil {
		x.deps.Log.Error("faulty rules in the directory", "version", v.Version(), "error", err)
	}
	x.judge.Store(&judge{view: v, reloads: reloads, set: set})
	return set
}

// question is what the rules of one side are asked about a request.
func question(role policy.Role, r *message.Request) policy.Question {
	return policy.Question{Role: role, Client: r.Client, Service: r.Service, Method: r.Method, Path: pathOnly(r.Path), Purpose: r.Purpose}
}

// decide puts a question to the rules, with what the directory and the clock
// say beside it.
func (x *Exchange) decide(v *directory.View, q policy.Question, offer directory.Service) (policy.Decision, error) {
	if reserved(q.Service.Service) {
		// Metaservices tell what the directory tells every member anyway.
		return policy.Decision{Allow: true}, nil
	}
	purpose, _ := v.Purpose(q.Purpose)
	q.Basis, q.DataClass, q.At = purpose.Basis.En, offer.DataClass, x.deps.Now()
	d := x.rules(v).Decide(q)
	if !d.Allow {
		side := "قواعد الدولة الطالبة"
		if q.Role == policy.Provider {
			side = "قواعد الدولة المقدِّمة"
		}
		return d, fault.New(fault.PolicyDenied, "%s: %s", q.Role, d.Rules[0].En).Arabic("%s: %s", side, d.Rules[0].Ar)
	}
	return d, nil
}

func ruleNames(d policy.Decision) []string {
	var out []string
	for _, r := range d.Rules {
		out = append(out, r.Source+"/"+r.ID)
	}
	return out
}

// Reload forgets compiled rules, after the node's local ones changed.
func (x *Exchange) Reload() { x.reloads.Add(1) }

// credential finds a member's seal, or the operator's where the member has none here.
func (x *Exchange) credential(m union.MemberID) (Credential, error) {
	c, err := x.deps.Seal(m)
	if err != nil {
		return Credential{}, fmt.Errorf("the seal of %s: %w", m, err)
	}
	return c, nil
}

// sealed is a head with its seal, ready to travel.
type sealed struct {
	head     []byte
	manifest []byte
	envelope []byte
}

func sealHead(c Credential, part seal.Part, head []byte, b *message.Body, at time.Time) (sealed, error) {
	m := manifest(part, head, b)
	s, err := seal.Sign(c.Signer, c.Cert, m, at)
	return joined(head, m, s, err)
}

// sealTo seals a head for another state's node: with others in one batch where
// both states take such seals.
func (x *Exchange) sealTo(ctx context.Context, v *directory.View, to union.State, c Credential, part seal.Part, head []byte, b *message.Body) (sealed, error) {
	if !x.givesBatches(v, to) {
		return sealHead(c, part, head, b, x.deps.Now())
	}
	m := manifest(part, head, b)
	s, err := x.batcher.sign(ctx, batchKey{c.Cert, part, to}, c.Signer, m, x.deps.Now())
	return joined(head, m, s, err)
}

func joined(head, manifest []byte, s seal.Seal, err error) (sealed, error) {
	var raw []byte
	if err == nil {
		raw, err = s.AppendBinary(nil)
	}
	if err != nil {
		return sealed{}, err
	}
	return sealed{head: head, manifest: manifest, envelope: message.Envelope(head, raw)}, nil
}

// authentic holds a seal against the directory: the certificate is known, is
// for seals, of this member (any of the state where member is zero), neither
// revoked nor out of time, and its signature is right. It gives what is to be
// held against the version that the message names.
func (x *Exchange) authentic(v *directory.View, part seal.Part, manifest, raw []byte, state union.State, member union.MemberID) (n directory.Named, err error) {
	s, err := seal.ParseSeal(raw)
	if err != nil {
		return n, err
	}
	c, ok := v.Certificate(s.Cert)
	switch {
	case !ok:
		return n, fault.New(fault.CertUnknown, "no state of the union names the certificate of this seal")
	case c.Use != directory.UseSeal:
		return n, fault.New(fault.SealInvalid, "the certificate is not for seals")
	case c.State != state || !member.IsZero() && c.Member != member:
		return n, fault.New(fault.MessageMismatch, "sealed by %s, not by %s", c.Member, member)
	case s.Batch != nil && state != x.cfg.State && !x.takesBatches(v, state):
		return n, fault.New(fault.SealInvalid, "the seal of a batch: between %s and %s each message is sealed by itself", state, x.cfg.State)
	case c.Revoked != nil:
		return n, fault.New(fault.CertRevoked, "the certificate was revoked at %s", c.Revoked.At.UTC().Format(time.RFC3339))
	}
	now := x.deps.Now()
	switch d := s.At.Sub(now); {
	case d > x.cfg.Skew:
		return n, fault.New(fault.SealNotYetValid, "sealed %s ahead of this node's clock", d.Round(time.Second))
	case now.After(c.Cert.NotAfter):
		return n, fault.New(fault.CertExpired, "the certificate ended at %s", c.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return directory.Named{State: state, Member: member, Cert: s.Cert, At: s.At}, x.checker.Verify(c.Cert, part, manifest, s)
}

// welcome asks again, for each message, whether the directory still stands
// behind the peer: its certificate may have been revoked since the link's
// handshake.
func (x *Exchange) welcome(v *directory.View, p link.Peer) error {
	c, ok := v.Certificate(p.Cert)
	switch {
	case !ok || c.Use != directory.UseTLS || c.State != p.State:
		return fault.New(fault.CertUnknown, "the directory no longer names the certificate of this node of %s", p.State)
	case c.Revoked != nil:
		return fault.New(fault.CertRevoked, "the certificate of the node was revoked at %s", c.Revoked.At.UTC().Format(time.RFC3339))
	}
	return c.At(x.deps.Now())
}

// inForce tells whether what the states signed of themselves still holds. The
// directory around it may be younger: whoever keeps a state's newer part back
// would keep its revocations back with it.
func (x *Exchange) inForce(v *directory.View, states ...union.State) error {
	for _, code := range states {
		if s, _ := v.State(code); !s.Expires.IsZero() && x.deps.Now().After(s.Expires) {
			return fault.New(fault.DirectoryExpired, "the part of %s expired at %s", code, s.Expires.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// inTime holds a head's validity against this node's clock.
func (x *Exchange) inTime(from, to int64) error {
	now := x.deps.Now()
	switch {
	case time.UnixMilli(from).Sub(now) > x.cfg.Skew:
		return fault.New(fault.SealNotYetValid, "the message is valid from %s on; are both clocks right?", time.UnixMilli(from).UTC().Format(time.RFC3339))
	case now.Sub(time.UnixMilli(to)) > x.cfg.Skew:
		return fault.New(fault.SealExpired, "the message was valid until %s", time.UnixMilli(to).UTC().Format(time.RFC3339))
	}
	return nil
}

// Observation is one call for operational monitoring. The fields follow
// X-Road's operational monitoring records.
type Observation struct {
	ProviderSide bool
	Client       union.SubsystemID
	Service      union.ServiceID
	Method       string
	ID           string
	RequestIn    time.Time
	RequestOut   time.Time // sent on: to the other node, or to the backend
	ResponseIn   time.Time
	ResponseOut  time.Time
	RequestSize  int64
	ResponseSize int64
	Status       int
	Fault        fault.Code // "" where a service answered
}
