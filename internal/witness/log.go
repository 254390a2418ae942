package witness

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Source is the log itself: the journal. What Head gives is durable.
type Source interface {
	Head(ctx context.Context) (size int64, root merkle.Hash, err error)
	Tile(ctx context.Context, level int, n int64, width int) ([]byte, error)
	Bundle(ctx context.Context, n int64, width int) ([]byte, error)
	Proof(ctx context.Context, index, size int64) ([]merkle.Hash, error)
}

// LogConfig sets the pace of a log; its zero value is usable.
type LogConfig struct {
	// Every is how often the log is looked at for new leaves (500 ms).
	Every time.Duration
	// Patience is how long one head waits for its quorum before a newer one
	// takes its place, and how long a witness may fail before that is worth a
	// warning: at a start it passes (5 s).
	Patience time.Duration
	// Answer is how long a witness may take (5 s).
	Answer time.Duration
}

// LogDeps are what a log's publisher stands on.
type LogDeps struct {
	DB     *store.DB // opened with Migrations
	Source Source
	State  union.State
	Union  func() Union
	Signer func() (merkle.Signer, error) // this state's, for its log; asked only where the directory names a log of the state
	Ask    Ask
	Now    func() time.Time
	Log    *slog.Logger
}

// Log publishes this state's log: it signs its heads and has the other states'
// witnesses cosign them. Safe for concurrent use; several processes of a state
// may each have one.
type Log struct {
	cfg  LogConfig
	deps LogDeps

	mu       sync.Mutex
	signed   merkle.Signed // newest; of no origin: none yet
	cosigned merkle.Signed // newest with its quorum
	target   target
	storing  bool // a cosigned checkpoint is being written
	peers    map[merkle.Key]*peer
	news     chan struct{} // closed when cosigned grows
	failed   error         // why the last look at the log came to nothing
	looked   time.Time     // when one did not
	stopped  error
	origin   string    // of the log that stopped
	vouched  place     // that the witnesses know as it is here
	doubt    error     // why that is not known
	heard    time.Time // when a witness was asked last what it has seen
	turn     int       // which one
}

// place is a log on one server: on another it may be an older copy.
type place struct {
	origin string
	server uint64
}

// The stages under which checkpoints are stored.
const (
	stageSigned   = 1
	stageCosigned = 2
)

// NewLog makes the publisher of a log. Run makes it work.
func NewLog(cfg LogConfig, deps LogDeps) *Log {
	if cfg.Every <= 0 {
		cfg.Every = 500 * time.Millisecond
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 5 * time.Second
	}
	if cfg.Answer <= 0 {
		cfg.Answer = 5 * time.Second
	}
	return &Log{cfg: cfg, deps: deps, peers: map[merkle.Key]*peer{}, news: make(chan struct{})}
}

// Run publishes until ctx ends. Before it signs anything, and again before it
// signs anything of what another database server shows, it asks the witnesses
// what they have seen of this log: one that was restored from an old copy, or
// goes on where another process had gone further, must not sign another history.
func (l *Log) Run(ctx context.Context) error {
	var asking sync.WaitGroup
	defer asking.Wait()
	tick := time.NewTicker(l.cfg.Every)
	defer tick.Stop()
	said := ""
	for {
		begun := l.deps.Now()
		err := l.publish(ctx, &asking)
		l.mu.Lock()
		if l.failed = err; err == nil {
			l.looked = begun
		}
		l.mu.Unlock()
		if err == nil {
			err = l.gather(ctx, &asking)
		}
		switch text := fmt.Sprint(err); {
		case ctx.Err() != nil:
			return nil
		case err != nil && text != said:
			level := slog.LevelError
			if fault.CodeOf(err) == fault.ReceiptPending {
				level = slog.LevelInfo
			}
			l.deps.Log.Log(ctx, level, "publishing the log", "error", err)
			said = text
		case err == nil:
			said = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Union is what the directory says now.
func (l *Log) Union() Union { return l.deps.Union() }

// own is what the directory names of this state; false where it names no log.
func (l *Log) own() (Party, Union, bool) {
	u := l.deps.Union()
	for _, p := range u.Parties {
		if p.State == l.deps.State && p.Log != (merkle.Key{}) {
			return p, u, true
		}
	}
	return Party{}, u, false
}

// publish signs the head that the log has now, if it is a new one.
func (l *Log) publish(ctx context.Context, asking *sync.WaitGroup) error {
	own, u, ok := l.own()
	if !ok {
		return nil
	}
	l.mu.Lock()
	if l.origin != own.Log.Name() {
		l.stopped = nil // people have named a new log
	}
	err := l.stopped
	l.mu.Unlock()
	if err != nil {
		return err
	}
	signer, err := l.deps.Signer()
	if err != nil {
		return fmt.Errorf("the log's key: %w", err)
	}
	if signer.Key != own.Log {
		return fault.New(fault.ConfigInvalid, "the directory names another key for the log than the one in this node's folder")
	}
	here := place{own.Log.Name(), l.deps.DB.Server()}
	signed, cosigned, err := l.stored(ctx, own, u)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.take(cosigned)
	shown, vouched := l.signed, l.vouched == here
	l.mu.Unlock()
	if !vouched {
		if err := l.vouch(ctx, own, u, here, asking); err != nil {
			return err
		}
	}
	size, root, err := l.deps.Source.Head(ctx)
	if err != nil {
		return err
	}
	for _, before := range []merkle.Signed{signed, shown} { // shown: that what was stored may be gone
		if before.Origin == own.Log.Name() && (size != before.Size || root != before.Root) {
			if err := l.contradicts(ctx, before, size); err != nil {
				return l.stop(own, err)
			}
		}
	}
	moved := func() error {
		if l.deps.DB.Server() == here.server {
			return nil
		}
		return fault.New(fault.StoreFailed, "another database server answers than when the log was looked at")
	}
	if err := moved(); err != nil {
		return err
	}
	if signed.Origin == "" || size != signed.Size || root != signed.Root {
		c := merkle.Checkpoint{Origin: own.Log.Name(), Size: size, Root: root}
		line, err := signer.Line(c.Text(), l.deps.Now())
		if err != nil {
			return err
		}
		signed = merkle.Signed{Checkpoint: c, Line: line}
		if err := l.keep(ctx, stageSigned, signed); err != nil {
			return err
		}
	}
	if err := moved(); err != nil { // it was kept elsewhere
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signed = signed
	return nil
}

// contradicts tells whether a head that this log's own key signed is not a
// beginning of the log as it is: LogDivided, or an error of reading.
func (l *Log) contradicts(ctx context.Context, head merkle.Signed, now int64) error {
	if head.Size > now {
		return fault.New(fault.LogDivided, "the log has %d entries, and a head of %d has been signed: the database is older than what was published", now, head.Size)
	}
	_, before, _, err := merkle.ProveGrowth(head.Size, head.Size, l.tiles(ctx))
	if err != nil {
		return err
	}
	if before != head.Root {
		return fault.New(fault.LogDivided, "the first %d entries of the log are not those under a head that was signed", head.Size)
	}
	return nil
}

// stop ends the publishing where a head contradicts the log: nothing more is
// signed until people have named a new log in the directory.
func (l *Log) stop(own Party, err error) error {
	if fault.CodeOf(err) != fault.LogDivided {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped == nil {
		l.stopped, l.origin = err, own.Log.Name()
		l.deps.Log.Error("the log signs no more heads", "error", err)
	}
	return err
}

// Err says why the log signs no more heads, or nil: for readiness.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}

// Late says why the newest head has no quorum, or is not even signed; or nil.
func (l *Log) Late() error {
	quorum := l.deps.Union().Quorum
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doubt != nil {
		return l.doubt
	}
	if !l.target.late(l.deps.Now(), l.cfg.Patience) {
		return nil
	}
	return fault.New(fault.ReceiptPending, "%d of %d witnesses have cosigned the head of %d entries", l.target.Witnesses(), quorum, l.target.Size)
}

// tiles reads the own log.
func (l *Log) tiles(ctx context.Context) merkle.Tiles {
	return func(level int, n int64, width int) ([]byte, error) {
		return l.deps.Source.Tile(ctx, level, n, width)
	}
}

// stored reads the newest checkpoints: another process may have made them.
func (l *Log) stored(ctx context.Context, own Party, u Union) (signed, cosigned merkle.Signed, err error) {
	read := func(stage int) (s merkle.Signed, err error) {
		var b []byte
		err = l.deps.DB.QueryRow(ctx, "SELECT note FROM witness_checkpoint WHERE origin = ? AND stage = ?", own.Log.Name(), stage).Scan(&b)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return s, nil
		case err != nil:
			return s, fault.Wrap(fault.StoreFailed, err, "the log's checkpoints")
		}
		s, err = merkle.OpenCheckpoint(b, own.Log, others(u, own.State)...)
		if errors.Is(err, merkle.ErrUnsigned) {
			return merkle.Signed{}, nil // by the key before this one
		}
		return s, err
	}
	if signed, err = read(stageSigned); err == nil {
		cosigned, err = read(stageCosigned)
	}
	return signed, cosigned, err
}

// keep stores a checkpoint, unless a newer one is there.
func (l *Log) keep(ctx context.Context, stage int, s merkle.Signed) error {
	_, err := l.deps.DB.Exec(ctx, `INSERT INTO witness_checkpoint (origin, stage, size, note) VALUES (?, ?, ?, ?)
		ON CONFLICT (origin, stage) DO UPDATE SET size = excluded.size, note = excluded.note
		WHERE excluded.size >= witness_checkpoint.size`, s.Origin, stage, s.Size, s.Note())
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the log's checkpoints")
	}
	return nil
}

// take makes a cosigned checkpoint the newest, if it is. Under mu.
func (l *Log) take(s merkle.Signed) {
	switch {
	case s.Origin == "" || s.Origin == l.cosigned.Origin && s.Size < l.cosigned.Size:
	case s.Origin == l.cosigned.Origin && s.Size == l.cosigned.Size:
		if s.Witnesses() > l.cosigned.Witnesses() {
			l.cosigned = s
		}
	default:
		l.cosigned = s
		close(l.news)
		l.news = make(chan struct{})
	}
}

// others are the keys of the witnesses that count for a state's log: its own
// is none.
func others(u Union, own union.State) (keys []merkle.Key) {
	for _, p := range u.Parties {
		if p.State != own && p.Witness != (merkle.Key{}) {
			keys = append(keys, p.Witness)
			if p.Quantum != (merkle.Key{}) {
				keys = append(keys, p.Quantum)
			}
		}
	}
	return keys
}

// Trust is whom a receipt or a checkpoint of a state's log is held against;
// false where the directory names no log of the state.
func (u Union) Trust(state union.State) (merkle.Trust, bool) {
	for _, p := range u.Parties {
		if p.State == state && p.Log != (merkle.Key{}) {
			return merkle.Trust{Log: p.Log, Witnesses: others(u, state), Quorum: u.Quorum}, true
		}
	}
	return merkle.Trust{}, false
}

// Checkpoint is what the log publishes: the newest head with its quorum, or,
// where none is to be had, the newest that is signed.
func (l *Log) Checkpoint() ([]byte, error) {
	head, err := l.published()
	if err != nil {
		return nil, err
	}
	return head.Note(), nil
}

func (l *Log) published() (merkle.Signed, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.signed.Origin == "" && l.cosigned.Origin != "":
		return l.cosigned, nil
	case l.signed.Origin == "":
		return merkle.Signed{}, fault.New(fault.NotFound, "this node has published no head of its log yet")
	case l.cosigned.Origin != l.signed.Origin, l.target.late(l.deps.Now(), l.cfg.Patience):
		if l.target.Size == l.signed.Size && l.target.Root == l.signed.Root {
			return l.target.Signed, nil
		}
		return l.signed, nil
	}
	return l.cosigned, nil
}

// stale is after how many looks that did not happen the head says nothing of
// now: whoever waits for a record waits longer than this, so that no slow
// machine is taken for a liar.
const stale = 6

// Signed is the newest head that the log's key has signed, whoever has cosigned
// it: for whoever waits for a record to be in the log. It is an error that the
// log cannot be read now, since then the head may be an old one.
func (l *Log) Signed() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stopped != nil:
		return nil, l.stopped
	case l.failed != nil:
		return nil, l.failed
	case l.signed.Origin == "":
		return nil, fault.New(fault.NotFound, "this node has signed no head of its log yet")
	case l.deps.Now().Sub(l.looked) > stale*l.cfg.Every:
		return nil, fault.New(fault.StoreFailed, "the log was last read at %s", l.looked.UTC().Format(time.RFC3339))
	}
	return l.signed.Note(), nil
}

// Receipt proves that a record is under a head which the quorum has cosigned:
// C2SP tlog-proof. The fault ReceiptPending asks for patience.
func (l *Log) Receipt(ctx context.Context, index int64) (merkle.Receipt, error) {
	l.mu.Lock()
	head, stopped := l.cosigned, l.stopped
	l.mu.Unlock()
	if index < 0 || head.Origin == "" || index >= head.Size {
		if stopped != nil {
			return merkle.Receipt{}, stopped
		}
		return merkle.Receipt{}, fault.New(fault.ReceiptPending, "of the record %d no head is cosigned yet", index)
	}
	proof, err := l.deps.Source.Proof(ctx, index, head.Size)
	if err != nil {
		return merkle.Receipt{}, err
	}
	return merkle.Receipt{Index: index, Proof: proof, Note: head.Note()}, nil
}

// Wait waits until a record has its receipt, or ctx ends.
func (l *Log) Wait(ctx context.Context, index int64) error {
	for {
		l.mu.Lock()
		there, news := l.cosigned.Origin != "" && index < l.cosigned.Size, l.news
		l.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fault.Wrap(fault.ReceiptPending, ctx.Err(), "of the record %d no head is cosigned yet", index)
		}
	}
}
