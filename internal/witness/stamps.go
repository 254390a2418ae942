package witness

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Stamper is a time-stamp authority that may be asked: of another state, or of
// none. A state's own is never one: a party's word about itself counts for
// nothing.
type Stamper struct {
	Name  string
	State union.State // "": of none
	Ask   func(ctx context.Context, request []byte) ([]byte, error)
	// Judge holds a token against whom it is to be by, and says by which version
	// of the directory (0: by none).
	Judge func(*stamp.Token) (int64, error)
}

// StampConfig sets the pace; its zero value is usable.
type StampConfig struct {
	Every  time.Duration // between two time-stamps, while records come (25 s)
	Look   time.Duration // how often is looked for new records (2 s)
	Answer time.Duration // how long an authority may take (5 s)
	Late   time.Duration // when a record has waited too long (60 s)
	Most   int64         // entries under one time-stamp (stamp.MaxLeaves)
}

// StampDeps are what the stamping stands on.
type StampDeps struct {
	DB       *store.DB // opened with Migrations
	Source   Source
	Log      *Log
	Stampers func() []Stamper
	// Written tells when the record of an index was made.
	Written func(ctx context.Context, index int64) (time.Time, error)
	Now     func() time.Time
	Logger  *slog.Logger
}

// Stamps has the log stamped by authorities of others, and keeps what they
// gave. Safe for concurrent use; several processes of a state may each run one.
type Stamps struct {
	cfg  StampConfig
	deps StampDeps

	mu      sync.Mutex
	waiting int64     // the oldest record without a time-stamp; -1: there is none
	since   time.Time // when that was made
	turn    int       // whom to ask first
	pauses  map[string]*pause
	failed  error // of the last round; nil: none failed

	last time.Time // when the last time-stamp came; of Run alone
}

// pause is how long an authority that failed is asked after the others.
type pause struct {
	until time.Time
	long  time.Duration
}

// Stamp is a time-stamp that this node keeps: over the digest of a checkpoint
// and the root of the hash tree (RFC 4998) over the log's entries from First
// to below Size.
type Stamp struct {
	First, Size int64
	Note        []byte // the checkpoint, with the cosignatures that it had
	Token       *stamp.Token
	State       union.State // whose authority; "": none's
	Name        string      // of the authority
	Edition     int64       // version of the directory by which it was judged; 0: none
}

const (
	firstPause = 10 * time.Second
	lastPause  = 5 * time.Minute
	// slack is how far an authority's time may be from this node's, and before
	// the last cosignature, until the token is refused: whatever wrong clocks a
	// union works with, a node refuses calls beyond it too.
	slack = 5 * time.Minute
)

// NewStamps makes the stamping. Run makes it work.
func NewStamps(cfg StampConfig, deps StampDeps) *Stamps {
	if cfg.Every <= 0 {
		cfg.Every = 25 * time.Second
	}
	if cfg.Look <= 0 {
		cfg.Look = 2 * time.Second
	}
	if cfg.Answer <= 0 {
		cfg.Answer = 5 * time.Second
	}
	if cfg.Late <= 0 {
		cfg.Late = time.Minute
	}
	if cfg.Most <= 0 || cfg.Most > stamp.MaxLeaves {
		cfg.Most = stamp.MaxLeaves
	}
	return &Stamps{cfg: cfg, deps: deps, waiting: -1, pauses: map[string]*pause{}}
}

// Run has the log stamped until ctx ends.
func (s *Stamps) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Look)
	defer tick.Stop()
	said := ""
	for {
		behind, err := s.round(ctx)
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		switch text := fmt.Sprint(err); {
		case ctx.Err() != nil:
			return nil
		case err != nil && text != said:
			s.deps.Logger.Warn("the log gets no time-stamp", "error", err)
			said = text
		case err == nil:
			said = ""
		}
		if behind {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round gets one time-stamp, if one is due, and tells whether the next one is
// due at once: there are more records than one covers.
func (s *Stamps) round(ctx context.Context) (behind bool, err error) {
	head, err := s.deps.Log.published()
	if err != nil {
		return false, nil // there is nothing to stamp yet
	}
	first, err := s.next(ctx)
	if err != nil {
		return false, err
	}
	if err := s.wait(ctx, first, head.Size); err != nil || first >= head.Size {
		return false, err
	}
	size := min(head.Size, first+s.cfg.Most)
	if now := s.deps.Now(); size == head.Size && now.Sub(s.last) < s.cfg.Every && !now.Before(s.last) {
		return false, nil
	}
	list, err := s.entries(ctx, first, size)
	if err != nil {
		return false, err
	}
	note := head.Note()
	imprint := stamp.Join(sha256.Sum256(note), stamp.Root(list))
	st, err := s.ask(ctx, imprint, head)
	if err != nil {
		return false, err
	}
	st.First, st.Size, st.Note = first, size, note
	if err := s.keep(ctx, st); err != nil {
		return false, err
	}
	s.last = s.deps.Now()
	return size < head.Size, s.wait(ctx, size, head.Size)
}

// next is the oldest record that no time-stamp covers.
func (s *Stamps) next(ctx context.Context) (size int64, err error) {
	err = s.deps.DB.QueryRow(ctx, "SELECT size FROM witness_stamp ORDER BY first DESC LIMIT 1").Scan(&size)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fault.Wrap(fault.StoreFailed, err, "the time-stamps")
	}
	return size, nil
}

// wait notes since when the oldest record without a time-stamp waits.
func (s *Stamps) wait(ctx context.Context, first, size int64) error {
	s.mu.Lock()
	waiting := s.waiting
	s.mu.Unlock()
	var since time.Time
	switch {
	case first >= size:
		first = -1
	case first == waiting:
		return nil
	default:
		var err error
		if since, err = s.deps.Written(ctx, first); err != nil {
			since = s.deps.Now() // erased since, or not to be read: fsck has more to say of it
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting, s.since = first, since
	return nil
}

// Age is how long the oldest record without a time-stamp has waited for one.
func (s *Stamps) Age() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting < 0 {
		return 0
	}
	return max(0, s.deps.Now().Sub(s.since))
}

// LateErr says why records wait for a time-stamp longer than they should, or
// nil.
func (s *Stamps) LateErr() error {
	age := s.Age()
	if age <= s.cfg.Late {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	why := ""
	if s.failed != nil {
		why = ": " + fault.From(s.failed).Detail
	}
	return fault.Wrap(fault.StampPending, s.failed, "the record %d has waited for %v%s", s.waiting, age.Round(time.Second), why)
}

// entries reads the log's entries.
func (s *Stamps) entries(ctx context.Context, first, size int64) ([]stamp.Digest, error) {
	const each = 2 + sha256.Size // after its length (C2SP tlog-tiles)
	list := make([]stamp.Digest, 0, size-first)
	for n := first / merkle.TileWidth; n*merkle.TileWidth < size; n++ {
		begin := n * merkle.TileWidth
		width := int(min(merkle.TileWidth, size-begin))
		b, err := s.deps.Source.Bundle(ctx, n, width)
		if err != nil {
			return nil, err
		}
		if len(b) != width*each {
			return nil, fault.New(fault.Corrupt, "the entries from %d on have %d bytes", begin, len(b))
		}
		for i := max(0, first-begin); i < int64(width); i++ {
			list = append(list, stamp.Digest(b[i*each+2:(i+1)*each]))
		}
	}
	return list, nil
}

// ask asks one authority after the other, those that failed of late last.
func (s *Stamps) ask(ctx context.Context, imprint stamp.Digest, head merkle.Signed) (*Stamp, error) {
	all := s.deps.Stampers()
	if len(all) == 0 {
		return nil, fault.New(fault.StampPending, "there is no time-stamp authority but this state's own")
	}
	now := s.deps.Now()
	var ready, failed []Stamper
	for i := range all {
		x := all[(i+s.turn)%len(all)]
		if p := s.pauses[x.Name]; p != nil && now.Before(p.until) {
			failed = append(failed, x)
		} else {
			ready = append(ready, x)
		}
	}
	s.turn++
	var errs []error
	for _, x := range append(ready, failed...) {
		token, edition, err := s.try(ctx, x, imprint, head)
		if err == nil {
			delete(s.pauses, x.Name)
			return &Stamp{Token: token, State: x.State, Name: x.Name, Edition: edition}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p := s.pauses[x.Name]
		if p == nil {
			p = &pause{}
			s.pauses[x.Name] = p
		}
		p.long = min(max(2*p.long, firstPause), lastPause)
		p.until = now.Add(p.long)
		errs = append(errs, fmt.Errorf("%s: %w", x.Name, err))
	}
	return nil, fault.New(fault.StampPending, "%v", errors.Join(errs...))
}

// try asks one authority, and believes nothing of its answer that it cannot
// check.
func (s *Stamps) try(ctx context.Context, x Stamper, imprint stamp.Digest, head merkle.Signed) (*stamp.Token, int64, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, 0, fmt.Errorf("a nonce: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Answer)
	defer cancel()
	b, err := x.Ask(ctx, stamp.Request{Imprint: imprint, Nonce: nonce, Certificate: true}.Bytes())
	if err != nil {
		return nil, 0, err
	}
	bad := func(format string, args ...any) (*stamp.Token, int64, error) {
		return nil, 0, fault.New(fault.StampInvalid, format, args...)
	}
	raw, err := stamp.ParseResponse(b)
	var refused *stamp.Refusal
	if errors.As(err, &refused) {
		return nil, 0, fault.Wrap(fault.PeerRefused, err, "%v", err)
	}
	if err != nil {
		return bad("%v", err)
	}
	t, err := stamp.ParseToken(raw)
	if err != nil {
		return bad("%v", err)
	}
	switch {
	case t.Imprint != imprint:
		return bad("it stamped something else")
	case t.Nonce == nil || t.Nonce.Cmp(nonce) != 0:
		return bad("it answers another question: the nonce is not the one that was sent")
	}
	if d := t.At.Sub(s.deps.Now()); d.Abs() > slack {
		return bad("its clock and this node's are %v apart", d.Abs().Round(time.Second))
	}
	for _, c := range head.Cosignatures {
		if c.At.Sub(t.At) > slack {
			return bad("it stamped at %s what was cosigned at %s", t.At.Format(time.RFC3339), c.At.Format(time.RFC3339))
		}
	}
	edition, err := x.Judge(t)
	if err != nil {
		return bad("%v", err)
	}
	var seen int
	err = s.deps.DB.QueryRow(ctx, "SELECT COUNT(*) FROM witness_stamp WHERE signer = ? AND serial = ?", t.By(), t.Serial.Bytes()).Scan(&seen)
	if err != nil {
		return nil, 0, fault.Wrap(fault.StoreFailed, err, "the time-stamps")
	}
	if seen > 0 {
		return bad("it has given the serial number %x before, to another time-stamp", t.Serial)
	}
	return t, edition, nil
}

// keep stores a time-stamp, unless another process was first.
func (s *Stamps) keep(ctx context.Context, st *Stamp) error {
	_, err := s.deps.DB.Exec(ctx, `INSERT INTO witness_stamp (first, size, note, token, authority, name, edition, signer, serial)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		st.First, st.Size, st.Note, st.Token.Raw, string(st.State), st.Name, st.Edition, st.Token.By(), st.Token.Serial.Bytes())
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the time-stamps")
	}
	return nil
}

// Of gives the time-stamp that covers a record; nil where there is none yet.
func (s *Stamps) Of(ctx context.Context, index int64) (*Stamp, error) {
	st := &Stamp{}
	var token []byte
	var state string
	err := s.deps.DB.QueryRow(ctx, `SELECT first, size, note, token, authority, name, edition FROM witness_stamp
		WHERE first <= ? ORDER BY first DESC LIMIT 1`, index).Scan(&st.First, &st.Size, &st.Note, &token, &state, &st.Name, &st.Edition)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && index >= st.Size:
		return nil, nil
	case err != nil:
		return nil, fault.Wrap(fault.StoreFailed, err, "the time-stamps")
	}
	st.State = union.State(state)
	if st.Token, err = stamp.ParseToken(token); err != nil {
		return nil, fault.Wrap(fault.Corrupt, err, "the time-stamp of the records from %d on", st.First)
	}
	return st, nil
}

// Record is the evidence record (RFC 4998) of a record under a time-stamp: the
// way from its entry to what was stamped. root is what the token's imprint is
// the digest of.
func (s *Stamps) Record(ctx context.Context, st *Stamp, index int64) (r *stamp.Record, root []byte, err error) {
	if index < st.First || index >= st.Size {
		return nil, nil, fault.New(fault.NotFound, "the time-stamp does not cover the record %d", index)
	}
	list, err := s.entries(ctx, st.First, st.Size)
	if err != nil {
		return nil, nil, err
	}
	note := sha256.Sum256(st.Note)
	entry := list[index-st.First]
	tree, others := stamp.Path(list, int(index-st.First))
	r = stamp.NewRecord(entry, append(others, note), st.Token)
	if err := r.Verify(entry); err != nil {
		return nil, nil, fault.Wrap(fault.Corrupt, err, "the entries are not those that were stamped")
	}
	return r, stamp.Preimage(note, tree), nil
}
