// Package journal keeps what a node must be able to prove: each record
// encrypted, in the order of its leaf in a Merkle log, both written in one
// transaction, so that the log cannot disagree with the records.
package journal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
)

// Cipher encrypts records; seal.RecordKeys is one.
type Cipher interface {
	// Seal appends what it encrypts to out.
	Seal(out []byte, class string, at time.Time, plaintext, aad []byte) ([]byte, error)
	Open(sealed, aad []byte) ([]byte, error)
}

// Hash hashes keys; seal.HMAC is one.
type Hash interface{ Sum(data []byte) [32]byte }

// Config bounds the journal; its zero value is usable.
type Config struct {
	// Queue is how many records may wait (4096); more are refused as overload.
	Queue int
	// QueueBytes bounds their size (64 MiB).
	QueueBytes int
	// Timeout bounds one group's transaction (15 s).
	Timeout time.Duration
	// ProbeEvery is the pause between attempts to write again after the store
	// failed (1 s).
	ProbeEvery time.Duration
}

// Deps are what the journal stands on.
type Deps struct {
	DB      *store.DB // opened with Migrations
	Records Cipher
	// Keys hashes records' keys for the column that finds them. A keyed hash
	// keeps short keys from being guessed by whoever reads the database alone;
	// nil is SHA-256. It must stay the same for the life of the database.
	Keys Hash
	// Archive is the folder of the archive's files; "" where there is none.
	Archive string
}

//go:embed migration
var migration embed.FS

// Migrations are the journal's tables.
func Migrations() store.Migrations {
	dir, err := fs.Sub(migration, "migration")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	return store.Migrations{Room: "journal", FS: dir}
}

// Journal is safe for concurrent use.
type Journal struct {
	cfg    Config
	db     *store.DB
	cipher Cipher
	keys   Hash

	archive string

	plain  sync.Pool // *[]byte, for records on their way to the cipher
	sealed sync.Pool // *[]byte, for those on their way to the database

	blob []byte           // the committer's, to build a group in
	head *head            // the committer's, as it left it; nil where it must look
	pace [crowd]time.Time // the committer's: when it took its last records
	turn int              // where the oldest of them is

	wake chan struct{} // holds one token where the committer has work
	done chan struct{} // closed when the committer has ended
	stop context.CancelFunc

	mu      sync.Mutex
	queue   []*job
	bytes   int
	writing int
	closing bool
	down    *fault.Error // why nothing is accepted; nil in health
}

// job is a record on its way.
type job struct {
	state  atomic.Uint32
	done   chan struct{}
	in     func(ctx context.Context, tx *store.Tx, index int64) error
	key    [keySize]byte // zeros: none
	sealed *[]byte
	entry  Entry

	excluded bool // by its own hook, whose traces must be undone
	err      error
}

// States of a job: its caller withdraws it or the committer takes it.
const (
	waiting uint32 = iota
	taken
	withdrawn
)

// New opens the journal in a database and starts its committer. It refuses a
// log whose head does not follow from its tiles and last records.
func New(cfg Config, deps Deps) (*Journal, error) {
	if cfg.Queue <= 0 {
		cfg.Queue = 4096
	}
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = 64 << 20
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.ProbeEvery <= 0 {
		cfg.ProbeEvery = time.Second
	}
	j, err := NewReader(deps)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	j.cfg, j.stop, j.closing = cfg, stop, false
	j.wake, j.done = make(chan struct{}, 1), make(chan struct{})
	start, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if err := j.checkHead(start); err != nil {
		stop()
		return nil, err
	}
	go j.run(ctx)
	return j, nil
}

// NewReader makes a journal that only reads, whatever state the database is in.
// It is not closed.
func NewReader(deps Deps) (*Journal, error) {
	if deps.DB == nil || deps.Records == nil {
		return nil, errors.New("journal: a database and record keys are needed")
	}
	if deps.Keys == nil {
		deps.Keys = plain{}
	}
	return &Journal{db: deps.DB, cipher: deps.Records, keys: deps.Keys, archive: deps.Archive, closing: true}, nil
}

type plain struct{}

func (plain) Sum(data []byte) [32]byte { return sha256.Sum256(data) }

// aad binds what is encrypted here to this use.
const aad = "falaj journal record v1\n"

// ErrUnclear is in the error of a record that may be durable, now or soon: its
// caller stopped waiting, or the database broke off in the middle of a commit.
var ErrUnclear = errors.New("journal: it may be recorded")

// Append makes a record durable and gives its place. On an error nothing was
// recorded, unless it is ErrUnclear.
func (j *Journal) Append(ctx context.Context, r Record) (Entry, error) {
	if err := r.check(); err != nil {
		return Entry{}, err
	}
	w := &job{done: make(chan struct{}), in: r.In}
	_, _ = rand.Read(w.entry.Salt[:]) // never fails
	w.entry.Leaf = Leaf(w.entry.Salt, r.Digest())
	if r.Key != "" {
		w.key = j.hash(r.Key)
	}
	plain := buffer(&j.plain)
	*plain = r.encode((*plain)[:0], w.entry.Salt)
	w.sealed = buffer(&j.sealed)
	var err error
	*w.sealed, err = j.cipher.Seal((*w.sealed)[:0], r.Class, r.At, *plain, []byte(aad))
	j.plain.Put(plain)
	if err != nil {
		return Entry{}, fault.Wrap(fault.StoreFailed, err, "encrypting a record")
	}
	if err := j.enqueue(w); err != nil {
		return Entry{}, err
	}
	select {
	case <-w.done:
		return w.result()
	case <-ctx.Done():
	}
	if w.state.CompareAndSwap(waiting, withdrawn) {
		return Entry{}, fault.Wrap(fault.Timeout, ctx.Err(), "waiting for the journal: withdrawn, not recorded")
	}
	select {
	case <-w.done: // it was done as well: the truth is the better answer
		return w.result()
	default:
		return Entry{}, fault.Wrap(fault.Timeout, errors.Join(ErrUnclear, ctx.Err()), "waiting for the journal: it may be recorded")
	}
}

// buffer takes one from a pool.
func buffer(p *sync.Pool) *[]byte {
	if b, ok := p.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (w *job) result() (Entry, error) {
	if w.err != nil {
		return Entry{}, w.err
	}
	return w.entry, nil
}

func (j *Journal) enqueue(w *job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closing:
		return fault.New(fault.Draining, "the journal is closing")
	case j.down != nil:
		return fault.Wrap(j.down.Code, j.down, "the journal could not write and tries again")
	case len(j.queue) >= j.cfg.Queue || j.bytes+len(*w.sealed) > j.cfg.QueueBytes && j.bytes > 0:
		return fault.New(fault.Overloaded, "%d records wait for the journal", len(j.queue))
	}
	j.queue = append(j.queue, w)
	j.bytes += len(*w.sealed)
	j.signal()
	return nil
}

func (j *Journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Load is how many records wait for the committer, and how many it is writing.
func (j *Journal) Load() (waiting, writing int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue), j.writing
}

// Err says why the journal accepts nothing, or nil: for readiness.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return fault.New(fault.Draining, "the journal is closing")
	}
	if j.down != nil {
		return j.down
	}
	return nil
}

// Close accepts nothing more, makes durable what waits, and ends. Where ctx
// ends first, what still waits fails. The database stays open.
func (j *Journal) Close(ctx context.Context) error {
	j.mu.Lock()
	j.closing = true
	j.mu.Unlock()
	j.signal()
	select {
	case <-j.done:
	case <-ctx.Done():
		j.stop()
		<-j.done
		return ctx.Err()
	}
	j.stop()
	return nil
}
