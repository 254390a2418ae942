// Package casework runs this state's half of cases: what happens in one is an
// event in the journal, what it says to the other half crosses as a sealed
// message. Definitions say what a case is; this room makes it durable, keeps
// its deadlines, and hears and is heard whatever stops or starts.
package casework

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Service is the code of the service by which each state's case system hears
// the others.
const Service = "casework"

// Class is the retention class of cases' records.
const Class = "case"

//go:embed migrations
var migrations embed.FS

// Migrations are the casework's tables.
func Migrations() store.Migrations {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return store.Migrations{Room: "casework", FS: sub}
}

// Config bounds the casework. Zero values take the defaults in brackets.
type Config struct {
	State   union.State
	Clock   time.Duration // case time is ahead by so much: in demonstrations alone
	Sandbox bool          // a demonstration: messages of a case time that is ahead are heard
	Workers int           // deadlines, messages and calls at work at a time [32]
	Early   int           // messages of one peer that wait for one before them [4096]
	Retry   time.Duration // pause after a message was refused on its way [1 min]; it doubles
	Poll    time.Duration // longest sleep between looks for work [1 s]
	Daily   time.Duration // between comparisons with the other states' halves [24 h]
	Page    int           // cases that one answer to such a comparison holds, at most 500 [500]
}

func (c *Config) defaults() {
	set(&c.Workers, 32)
	set(&c.Early, 4096)
	set(&c.Retry, time.Minute)
	set(&c.Poll, time.Second)
	set(&c.Daily, 24*time.Hour)
	set(&c.Page, standingPage)
}

func set[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Book is what the directory says of joint services at a moment: this state's
// adoption, the others', and the definitions compiled.
type Book interface {
	// Program is a definition that the states have signed; CaseVersion where
	// there is none, or this binary cannot run it.
	Program(service string, version int) (*definition.Program, error)
	// Version is the highest version that both states have adopted by then.
	Version(service string, peer union.State, at time.Time) (int, bool)
	// Opens tells whether cases with another state may begin by a version at a
	// time: both have adopted it.
	Opens(service string, version int, peer union.State, at time.Time) bool
	// Speaks tells whether a subsystem of this state speaks for a role.
	Speaks(sub union.SubsystemID, service string, version int, role string) bool
	// Zone is this state's time zone, in which people read times.
	Zone() *time.Location
	// System is a state's case system.
	System(st union.State) (union.SubsystemID, bool)
	// Peers are the states with which cases can run, each with a purpose for
	// which the two states' case systems speak.
	Peers() map[union.State]string
	// Register is the service to which a call's name is bound.
	Register(service string, version int, name string) (union.ServiceID, bool)
}

// Exchange carries what leaves this half: exchange.Exchange.
type Exchange interface {
	// Post takes a message over for delivery; durable when it returns.
	Post(ctx context.Context, c exchange.Call) error
	// Fetch asks and waits for the answer.
	Fetch(ctx context.Context, c exchange.Call) (exchange.Answer, error)
}

// EffectFunc writes beside an event, in its transaction. It may run again.
type EffectFunc func(ctx context.Context, tx *store.Tx, e Effect) error

// Effect is what an event asks of Go outside the definition.
type Effect struct {
	Case  string
	Event int64
	Peer  union.State
	At    time.Time
	With  definition.Values
}

// Deps are what the casework stands on.
type Deps struct {
	DB       *store.DB
	Journal  *journal.Journal
	Records  journal.Cipher                    // seals what is kept of a case beside the journal
	Names    interface{ Sum([]byte) [32]byte } // keyed hash that stands for acts' identifiers
	Book     func() (Book, error)
	Exchange Exchange
	Effects  map[string]EffectFunc
	// Erase removes records of the journal for good, with what in does in the
	// same transaction; fault.Held where a hold keeps one.
	Erase func(ctx context.Context, leaves []int64, in func(ctx context.Context, tx *store.Tx) error) error
	Now   func() time.Time
	Log   *slog.Logger
}

// Engine is one process's share of a state's cases.
type Engine struct {
	cfg   Config
	deps  Deps
	locks [64]sync.Mutex   // by case: who loses a race would do its work twice
	wakes [3]chan struct{} // of those who post, let deadlines act, and ask registers

	asking  sync.Map       // what registers are being asked: askedKey
	asks    chan struct{}  // one for each of them
	answers sync.WaitGroup // and who waits for them
	events  atomic.Int64

	mu       sync.Mutex
	compared map[union.State]Compared
}

// New makes an engine.
func New(cfg Config, deps Deps) *Engine {
	cfg.defaults()
	e := &Engine{cfg: cfg, deps: deps, asks: make(chan struct{}, 4*cfg.Workers), compared: map[union.State]Compared{}}
	for i := range e.wakes {
		e.wakes[i] = make(chan struct{}, 1)
	}
	return e
}

// now is case time, to the millisecond.
func (e *Engine) now() time.Time {
	return e.deps.Now().Add(e.cfg.Clock).UTC().Truncate(time.Millisecond)
}

// lock keeps others of this process from a case; it gives the way to let go.
func (e *Engine) lock(id string) func() {
	h := sha256.Sum256([]byte(id))
	m := &e.locks[int(h[0])%len(e.locks)]
	m.Lock()
	return m.Unlock
}

// stir wakes who looks for work.
func (e *Engine) stir() {
	for _, wake := range e.wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// errStale tells that another step of the case came first.
var errStale = errors.New("another step of the case came first")

// refused turns a definition's refusal into a fault.
func refused(err error) error {
	var r *definition.Refusal
	if !errors.As(err, &r) {
		return err
	}
	code := fault.CaseRefused
	switch r.Why {
	case definition.Invalid:
		code = fault.CaseInvalid
	case definition.Actors:
		code = fault.CaseActor
	case definition.Closed:
		code = fault.CaseClosed
	}
	return fault.New(code, "%s", detail(r.Text.En, r.Detail)).Arabic("%s", detail(r.Text.Ar, r.Detail))
}

func detail(text, detail string) string {
	if detail == "" {
		return text
	}
	return text + ": " + detail
}
