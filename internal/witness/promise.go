package witness

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Held is a message of another state whose record its log is held to.
type Held struct {
	Own      int64       // leaf of this node's own record of the message
	From     union.State // whose message it is
	Envelope [32]byte    // SHA-256 of the sealed message
	Index    int64       // where the sender promised its record; -1: it promised nothing
	Leaf     [32]byte    // the entry that then stands there
	At       time.Time   // when it came

	missed time.Time // when a head was first asked for that lacked it though time was up
}

// PromiseConfig sets the pace; its zero value is usable.
type PromiseConfig struct {
	Every  time.Duration // between two looks at the logs (1 s)
	Due    time.Duration // after which a promised record must be there (10 s)
	Quiet  time.Duration // between two alarms of one kind about one state (1 min); the later counts all
	Answer time.Duration // how long an answer may take (5 s)
	Round  time.Duration // how long a look at one log may take (20 s)
	// Confront is the time between two looks at what another state's witness
	// has seen of a log (1 min).
	Confront time.Duration
	Queue    int // messages of one state that wait in memory (65,536); more wait in the journal
}

// PromiseDeps are what it stands on.
type PromiseDeps struct {
	DB     *store.DB // opened with Migrations
	State  union.State
	Union  func() Union
	Signer func() (merkle.Signer, error) // this state's, for its log
	Ask    Ask
	// Head is the size of this node's own log; Received reads what its records
	// from a leaf on hold others to, and gives the next leaf to read.
	Head     func(ctx context.Context) (int64, error)
	Received func(ctx context.Context, from int64, count int) ([]Held, int64, error)
	Alone    bool                         // no other process shares the database
	Raised   func(context.Context, Alarm) // of each alarm raised or heard; may be nil
	Now      func() time.Time
	Log      *slog.Logger
}

// Promises holds other states' nodes to what comes with each of their messages:
// where in their log its record stands. What has come is held in memory until
// it was found there; what a crash or a long absence of the peer took from
// memory is read again from the journal.
type Promises struct {
	cfg     PromiseConfig
	deps    PromiseDeps
	process string
	hearing sync.Mutex

	mu      sync.Mutex
	wards   map[union.State]*ward
	ready   bool  // where an earlier run ended is known
	seen    int64 // newest own leaf that was handed in
	marked  int64 // seen, when the cursor was last saved
	untold  bool  // an alarm waits to be told
	telling bool
}

// ward is a state that is held to its promises.
type ward struct {
	queue   []Held
	working []Held // taken out of the queue, by the round at work
	gap     span   // own leaves whose messages are in neither
	broken  map[string]*broken
	last    merkle.Signed // newest head that this process has seen
	shown   bool          // in the last round it showed a head

	// Of the round at work alone.
	unread     map[int64]int // bundles that could not be read, and how often
	confronted time.Time     // when it was held against another witness's
	turn       int           // and whose turn it was
	stored     time.Time     // when last was kept in the database
	followed   string        // origin of the log whose first head was held against the logs before it

	busy   bool
	silent error     // why the log cannot be seen
	since  time.Time // since when
	warned bool      // and that has been logged
	mute   error     // why an alarm is due and could not be raised
}

// span is a range of leaves, [from, to).
type span struct{ from, to int64 }

// broken is what the next alarm of a kind will say.
type broken struct {
	low      int64 // the first own leaf that it is about; -1: none
	count    int
	messages []Broken
	heads    []string
	raised   time.Time // when the last alarm of the kind was
}

// NewPromises makes it. Run makes it work.
func NewPromises(cfg PromiseConfig, deps PromiseDeps) *Promises {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&cfg.Every, time.Second)
	set(&cfg.Due, 10*time.Second)
	set(&cfg.Quiet, time.Minute)
	set(&cfg.Answer, 5*time.Second)
	set(&cfg.Round, 4*cfg.Answer)
	set(&cfg.Confront, time.Minute)
	if cfg.Queue <= 0 {
		cfg.Queue = 1 << 16
	}
	return &Promises{cfg: cfg, deps: deps, process: rand.Text(), wards: map[union.State]*ward{}, seen: -1, marked: -1, untold: true}
}

// Hold takes a message to whose record its sender is held.
func (p *Promises) Hold(h Held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = max(p.seen, h.Own)
	p.ward(h.From).take(h, p.cfg.Queue)
}

// ward finds or makes a state's. Under mu.
func (p *Promises) ward(s union.State) *ward {
	w := p.wards[s]
	if w == nil {
		w = &ward{broken: map[string]*broken{}}
		p.wards[s] = w
	}
	return w
}

// take puts a message into the queue, or leaves it in the journal.
func (w *ward) take(h Held, most int) {
	if len(w.queue)+len(w.working) < most {
		w.queue = append(w.queue, h)
		return
	}
	w.gap = w.gap.and(span{h.Own, h.Own + 1})
}

func (s span) empty() bool { return s.from >= s.to }

// and is the shortest span that holds both.
func (s span) and(o span) span {
	switch {
	case s.empty():
		return o
	case o.empty():
		return s
	}
	return span{min(s.from, o.from), max(s.to, o.to)}
}

// low is the first own leaf that the ward is not done with; next where there
// is none.
func (w *ward) low(next int64) int64 {
	for _, list := range [][]Held{w.queue, w.working} {
		for _, h := range list {
			next = min(next, h.Own)
		}
	}
	if !w.gap.empty() {
		next = min(next, w.gap.from)
	}
	for _, b := range w.broken {
		if b.count > 0 && b.low >= 0 {
			next = min(next, b.low)
		}
	}
	return next
}

const (
	// saveEvery is after how many looks it is written down how far this is.
	saveEvery = 5
	// replayed is how many records are read again from the journal at a look.
	replayed = 512
	// dead is after how long without a word a process is taken for dead.
	dead = time.Minute
	// slow is after how often the time in which a record must be there a log
	// that shows itself by and by is one that does not.
	slow = 10
)

// Run holds the others to their promises until ctx ends.
func (p *Promises) Run(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.Every)
	defer tick.Stop()
	var rounds sync.WaitGroup
	defer rounds.Wait()
	said := ""
	for n := 0; ; n++ {
		err := p.look(ctx, &rounds, n)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			said = ""
		case err.Error() != said:
			p.deps.Log.Error("holding others to their promises", "error", err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look begins a round with each state that has something to settle.
func (p *Promises) look(ctx context.Context, rounds *sync.WaitGroup, n int) error {
	u := p.deps.Union()
	if len(u.Parties) == 0 {
		return nil // there is no directory yet
	}
	if n%saveEvery == 0 || !p.ready {
		if err := p.adopt(ctx, u); err != nil {
			return err
		}
		if err := p.save(ctx); err != nil {
			return err
		}
	}
	err := p.replay(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, w := range p.wards {
		if w.busy || len(w.queue) == 0 && !w.pending() {
			continue
		}
		w.busy, w.working, w.queue = true, w.queue, nil
		rounds.Go(func() { p.round(ctx, u, s, w) })
	}
	if (p.untold || n%(2*saveEvery) == 0) && !p.telling {
		p.untold, p.telling = false, true
		rounds.Go(func() {
			err := p.tell(ctx)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.telling = false
			if err != nil && ctx.Err() == nil {
				p.deps.Log.Error("telling others of alarms", "error", err)
			}
		})
	}
	return err
}

func (w *ward) pending() bool {
	for _, b := range w.broken {
		if b.count > 0 {
			return true
		}
	}
	return false
}

// adopt takes over what processes that are no more were not done with, an
// earlier run of this one first of all.
func (p *Promises) adopt(ctx context.Context, u Union) error {
	now := p.deps.Now()
	oldest := now.Add(-dead).UnixMilli()
	if p.deps.Alone {
		oldest = now.Add(24 * time.Hour).UnixMilli()
	}
	size, err := p.deps.Head(ctx)
	if err != nil {
		return err
	}
	// By state; of "": of all that have no row of their own.
	low := map[union.State]int64{}
	err = p.deps.DB.Write(ctx, func(tx *store.Tx) error {
		clear(low)
		rows, err := tx.Query(ctx, "SELECT state, leaf FROM witness_promise WHERE process <> ? AND beat_at < ?", p.process, oldest)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var s union.State
			var leaf int64
			if err := rows.Scan(&s, &leaf); err != nil {
				return err
			}
			if at, ok := low[s]; leaf < size && (!ok || leaf < at) {
				low[s] = leaf
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close()
		for s, leaf := range low {
			_, err = tx.Exec(ctx, `INSERT INTO witness_promise (process, state, leaf, beat_at) VALUES (?, ?, ?, ?)
				ON CONFLICT (process, state) DO UPDATE SET leaf = CASE WHEN witness_promise.leaf < excluded.leaf THEN witness_promise.leaf ELSE excluded.leaf END`,
				p.process, string(s), leaf, now.UnixMilli())
			if err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, "DELETE FROM witness_promise WHERE process <> ? AND beat_at < ?", p.process, oldest)
		return err
	})
	if err != nil {
		return err
	}
	first := size
	if leaf, ok := low[""]; ok {
		first = leaf
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		p.ready, p.seen = true, max(p.seen, size-1)
		if p.marked < 0 {
			p.marked = min(first, size) - 1
		}
	}
	for _, party := range u.Parties {
		from := first
		if leaf, ok := low[party.State]; ok {
			from = min(from, leaf)
		}
		if party.State != p.deps.State && from < size {
			w := p.ward(party.State)
			w.gap = w.gap.and(span{from, size})
		}
	}
	return nil
}

// save writes down below which leaf all is settled, and of each state that is
// behind that, below which what it is held to is: one that is away makes
// nobody read the others' logs again. It goes by what had come when it was last
// asked: a record with a lower leaf may be handed in after one with a higher.
func (p *Promises) save(ctx context.Context) error {
	p.mu.Lock()
	next := p.marked + 1
	low := map[union.State]int64{"": next}
	for s, w := range p.wards {
		if leaf := w.low(next); leaf < next {
			low[s] = leaf
		}
	}
	p.marked = p.seen
	p.mu.Unlock()
	now := p.deps.Now().UnixMilli()
	return p.deps.DB.Write(ctx, func(tx *store.Tx) error {
		for s, leaf := range low {
			_, err := tx.Exec(ctx, `INSERT INTO witness_promise (process, state, leaf, beat_at) VALUES (?, ?, ?, ?)
				ON CONFLICT (process, state) DO UPDATE SET leaf = excluded.leaf, beat_at = excluded.beat_at`, p.process, string(s), leaf, now)
			if err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "DELETE FROM witness_promise WHERE process = ? AND beat_at < ?", p.process, now) // no longer behind
		return err
	})
}

// replay reads some of what is not in memory, for whoever has room and was not
// silent when last asked.
func (p *Promises) replay(ctx context.Context) error {
	p.mu.Lock()
	from, to := int64(-1), int64(0)
	for _, w := range p.wards {
		if w.room(p.cfg.Queue) && (from < 0 || w.gap.from < from) {
			from, to = w.gap.from, w.gap.to
		}
	}
	p.mu.Unlock()
	if from < 0 {
		return nil
	}
	list, next, err := p.deps.Received(ctx, from, int(min(replayed, to-from)))
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, w := range p.wards {
		if !w.room(p.cfg.Queue) || w.gap.from < from || w.gap.from > next {
			continue
		}
		for _, h := range list {
			if h.From == s && h.Own >= w.gap.from {
				w.queue = append(w.queue, h)
			}
		}
		if w.gap.from = next; next == from {
			w.gap = span{} // the log ends there
		}
	}
	return nil
}

// room tells whether something is to be read again for the ward now.
func (w *ward) room(most int) bool {
	return !w.gap.empty() && len(w.queue)+len(w.working) <= most/2 && (w.silent == nil || w.shown || len(w.queue) == 0)
}

// round settles what a state can be held to now, and raises what must be.
func (p *Promises) round(ctx context.Context, u Union, s union.State, w *ward) {
	var log merkle.Key
	for _, party := range u.Parties {
		if party.State == s {
			log = party.Log
		}
	}
	var left []Held
	var err error
	if log != (merkle.Key{}) { // a state that the directory names no log of is held to nothing
		p.mu.Lock()
		w.shown = false
		p.mu.Unlock()
		left, err = p.examine(ctx, s, w, log)
	}
	p.mu.Lock()
	w.queue, w.working = append(left, w.queue...), nil
	switch {
	case err == nil:
		if w.warned {
			p.deps.Log.Info("a log shows itself again", "of", s)
		}
		w.silent, w.since, w.warned = nil, time.Time{}, false
	case ctx.Err() == nil:
		if w.silent == nil {
			w.since = p.deps.Now()
		}
		if w.silent = err; !w.warned && p.deps.Now().Sub(w.since) >= p.cfg.Due {
			w.warned = true
			p.deps.Log.Warn("a log does not show itself", "of", s, "waiting", len(w.queue), "error", err)
		}
	}
	p.mu.Unlock()
	if log != (merkle.Key{}) {
		err := p.raise(ctx, s, w, log)
		p.mu.Lock()
		if err != nil && ctx.Err() == nil && (w.mute == nil || w.mute.Error() != err.Error()) {
			p.deps.Log.Error("raising an alarm", "of", s, "error", err)
		}
		w.mute = err
		p.mu.Unlock()
	}
	p.mu.Lock()
	w.busy = false
	p.mu.Unlock()
}

// raise signs and keeps the alarms that are due.
func (p *Promises) raise(ctx context.Context, s union.State, w *ward, log merkle.Key) error {
	now := p.deps.Now()
	p.mu.Lock()
	due := map[string]broken{}
	for kind, b := range w.broken {
		quiet := p.cfg.Quiet
		if kind == AlarmDivided {
			quiet *= 60 // it is and stays so
		}
		if b.count > 0 && (b.raised.IsZero() || now.Sub(b.raised) >= quiet) {
			due[kind] = *b
		}
	}
	p.mu.Unlock()
	for kind, b := range due {
		signer, err := p.deps.Signer()
		if err != nil {
			return err
		}
		a := Alarm{From: p.deps.State, Of: s, Log: log.Name(), Kind: kind, At: now.UTC().Truncate(time.Second), Count: b.count, Messages: b.messages, Heads: b.heads}
		if kind == AlarmDivided || kind == AlarmEnded {
			a.Count = 0
		}
		msg, err := a.Sign(signer)
		if err != nil {
			return err
		}
		if _, err := put(ctx, p.deps.DB, a, msg, now); err != nil {
			return err
		}
		p.mu.Lock()
		w.broken[kind] = &broken{low: -1, raised: now}
		p.untold = true
		p.mu.Unlock()
		p.sound(ctx, a)
	}
	return nil
}

// breach puts a broken promise into the next alarm of its kind.
func (p *Promises) breach(w *ward, kind string, h *Held, b Broken, heads ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := w.broken[kind]
	if next == nil {
		next = &broken{low: -1}
		w.broken[kind] = next
	}
	next.count++
	if next.heads == nil {
		next.heads = heads
	}
	if h == nil {
		return
	}
	if next.low < 0 || h.Own < next.low {
		next.low = h.Own
	}
	if len(next.messages) < maxBroken && (len(heads) == 0 || next.heads[0] == heads[0]) {
		b.Envelope, b.Own = hex.EncodeToString(h.Envelope[:]), h.Own
		if h.Index >= 0 {
			b.Index, b.Leaf = h.Index, hex.EncodeToString(h.Leaf[:])
		}
		next.messages = append(next.messages, b)
	}
}

// Settled is the leaf of this node's log below which all messages' records have
// been seen in their senders' logs, or an alarm says that they were not.
func (p *Promises) Settled() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.seen + 1
	for _, w := range p.wards {
		next = w.low(next)
	}
	return next
}

// Waiting is what a state is still held to.
type Waiting struct {
	State    union.State
	Messages int       // in memory; more may be in the journal
	Since    time.Time // when its log ceased to show itself; zero: it does
	Silent   error     // why
	Unraised error     // why an alarm about it is due and cannot be raised
}

// Waiting lists the states that are held to something.
func (p *Promises) Waiting() []Waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Waiting
	for s, w := range p.wards {
		if n := len(w.queue) + len(w.working); n > 0 || w.silent != nil || w.mute != nil {
			out = append(out, Waiting{s, n, w.since, w.silent, w.mute})
		}
	}
	return out
}
