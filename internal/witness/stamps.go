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
	"slices"
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
	Renew  time.Duration // before the end of its authority's certificate, a time-stamp is renewed (180 days)
}

// StampDeps are what the stamping stands on.
type StampDeps struct {
	DB       *store.DB // opened with Migrations
	Source   Source
	Log      *Log
	Stampers func() []Stamper
	// Written tells when the record of an index was made.
	Written func(ctx context.Context, index int64) (time.Time, error)
	// Revoked tells whether the directory has revoked the certificate of an
	// authority since, by its digest.
	Revoked func(signer []byte) bool
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
	aged    error // why time-stamps that are due are not renewed; nil: none is, or it goes on
	ends    time.Time

	last   time.Time // when the last time-stamp came; of Run alone
	looked time.Time // when it was looked last for some to renew; of Run alone, as the next three
	pace   time.Duration
	retry  time.Duration
	lapse  error // what failed then
}

// pause is how long an authority that failed is asked after the others.
type pause struct {
	until time.Time
	long  time.Duration
}

// Stamp is a time-stamp that this node keeps: over the digest of a checkpoint
// and the root of the hash tree (RFC 4998) over the log's entries from First
// to below Size; or, where it renews others, over the digests of these.
type Stamp struct {
	First, Size int64
	Level       int64  // 0: over the log; n: over the time-stamps of level n-1
	Note        []byte // the checkpoint, with the cosignatures that it had
	Token       *stamp.Token
	State       union.State // whose authority; "": none's
	Name        string      // of the authority
	Edition     int64       // version of the directory by which it was judged; 0: none

	Renewals []*Stamp // each of the one before, this one the first
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
	if cfg.Renew <= 0 {
		cfg.Renew = 180 * 24 * time.Hour
	}
	return &Stamps{cfg: cfg, deps: deps, waiting: -1, pauses: map[string]*pause{}}
}

// Run has the log stamped, and what was stamped renewed, until ctx ends.
func (s *Stamps) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Look)
	defer tick.Stop()
	told := map[string]string{}
	tell := func(what string, err error) {
		if text := fmt.Sprint(err); err != nil && text != told[what] && ctx.Err() == nil {
			s.deps.Logger.Warn(what, "error", err)
			told[what] = text
		} else if err == nil {
			delete(told, what)
		}
	}
	for {
		behind, err := s.round(ctx)
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		tell("the log gets no time-stamp", err)
		if ctx.Err() != nil {
			return nil
		}
		if behind {
			continue
		}
		tell("time-stamps are not renewed", s.renewal(ctx))
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
	first, err := s.next(ctx, 0)
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
	st, err := s.ask(ctx, wanted{imprint: imprint, after: head.Cosignatures})
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

// next is the oldest record that no time-stamp of the level covers.
func (s *Stamps) next(ctx context.Context, level int64) (size int64, err error) {
	err = s.deps.DB.QueryRow(ctx, "SELECT size FROM witness_stamp WHERE level = ? ORDER BY first DESC LIMIT 1", level).Scan(&size)
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

// wanted is what a time-stamp is asked for.
type wanted struct {
	imprint stamp.Digest
	after   []merkle.Witnessed // that are stamped with it
	since   time.Time          // of what it renews
	until   time.Time          // its authority's certificate lasts longer
	except  string             // the name of an authority that is not asked
}

// ask asks one authority after the other, those that failed of late last.
func (s *Stamps) ask(ctx context.Context, w wanted) (*Stamp, error) {
	all := slices.DeleteFunc(s.deps.Stampers(), func(x Stamper) bool { return x.Name == w.except })
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
		token, edition, err := s.try(ctx, x, w)
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
func (s *Stamps) try(ctx context.Context, x Stamper, w wanted) (*stamp.Token, int64, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, 0, fmt.Errorf("a nonce: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Answer)
	defer cancel()
	b, err := x.Ask(ctx, stamp.Request{Imprint: w.imprint, Nonce: nonce, Certificate: true}.Bytes())
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
	case t.Imprint != w.imprint:
		return bad("it stamped something else")
	case t.Nonce == nil || t.Nonce.Cmp(nonce) != 0:
		return bad("it answers another question: the nonce is not the one that was sent")
	case t.Signer() == nil:
		return bad("it does not carry its signer's certificate, which was asked for")
	case t.Signer().NotAfter.Before(w.until):
		return bad("its certificate ends at %s, too soon to renew with", t.Signer().NotAfter.UTC().Format(time.RFC3339))
	case t.At.Before(w.since):
		return bad("it stamped at %s what was there at %s", t.At.Format(time.RFC3339), w.since.Format(time.RFC3339))
	}
	if d := t.At.Sub(s.deps.Now()); d.Abs() > slack {
		return bad("its clock and this node's are %v apart", d.Abs().Round(time.Second))
	}
	for _, c := range w.after {
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
	_, err := s.deps.DB.Exec(ctx, `INSERT INTO witness_stamp (level, first, size, note, token, authority, name, edition, signer, serial, digest)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		st.Level, st.First, st.Size, st.Note, st.Token.Raw, string(st.State), st.Name, st.Edition, st.Token.By(), st.Token.Serial.Bytes(), st.digest())
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the time-stamps")
	}
	return nil
}

// digest is of what is kept beside the token and does not follow from it, so
// that a change of it is found.
func (st *Stamp) digest() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "falaj stamp row v1\n%d %d %d %q %q %d\n", st.Level, st.First, st.Size, st.State, st.Name, st.Edition))
	return sum[:]
}

// Of gives the time-stamp that covers a record, with its renewals; nil where
// there is none yet.
func (s *Stamps) Of(ctx context.Context, index int64) (*Stamp, error) {
	st, err := s.at(ctx, 0, index)
	for last := st; last != nil && err == nil; {
		if last, err = s.at(ctx, last.Level+1, index); last != nil {
			st.Renewals = append(st.Renewals, last)
		}
	}
	return st, err
}

// at gives the time-stamp of a level that covers a record; nil: there is none.
func (s *Stamps) at(ctx context.Context, level, index int64) (*Stamp, error) {
	st := &Stamp{}
	var token []byte
	var state string
	err := s.deps.DB.QueryRow(ctx, `SELECT level, first, size, note, token, authority, name, edition FROM witness_stamp
		WHERE level = ? AND first <= ? ORDER BY first DESC LIMIT 1`, level, index).Scan(&st.Level, &st.First, &st.Size, &st.Note, &token, &state, &st.Name, &st.Edition)
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

// Record is the evidence record (RFC 4998) of a record under a time-stamp and
// its renewals: the way from its entry to what was stamped. root is what the
// first token's imprint is the digest of.
func (s *Stamps) Record(ctx context.Context, st *Stamp, index int64) (r stamp.Record, root []byte, err error) {
	if index < st.First || index >= st.Size {
		return nil, nil, fault.New(fault.NotFound, "the time-stamp does not cover the record %d", index)
	}
	list, err := s.entries(ctx, st.First, st.Size)
	if err != nil {
		return nil, nil, err
	}
	note := sha256.Sum256(st.Note)
	entry := list[index-st.First]
	sum, others := stamp.Path(list, int(index-st.First))
	r = stamp.Record{stamp.NewLink(entry, append(others, note), st.Token)}
	for before, i := st, 0; i < len(st.Renewals); i++ {
		next := st.Renewals[i]
		under, at, err := tree(ctx, s.deps.DB, next, before.First)
		if err == nil && at < 0 {
			err = fault.New(fault.Corrupt, "the renewal of the records from %d on does not cover what it renews", next.First)
		}
		if err != nil {
			return nil, nil, err
		}
		_, others := stamp.Path(under, at)
		r = append(r, stamp.NewLink(before.Token.Digest(), others, next.Token))
		before = next
	}
	if err := r.Verify(entry); err != nil {
		return nil, nil, fault.Wrap(fault.Corrupt, err, "the entries are not those that were stamped")
	}
	return r, stamp.Preimage(note, sum), nil
}
