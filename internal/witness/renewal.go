package witness

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/store"
)

const (
	renewLook = time.Hour // between two looks for time-stamps that are to be renewed
	renewMost = 1 << 12   // under one renewal, at most: an export reads them again
)

// renewal renews one group of time-stamps (RFC 4998 §5.2), where it is time to
// look for some whose authority's certificate ends soon or was revoked. What
// fails is tried again after a while.
func (s *Stamps) renewal(ctx context.Context) error {
	now := s.deps.Now()
	if d := now.Sub(s.looked); d >= 0 && d < s.pace {
		return s.lapse
	}
	r := s.renewSome(ctx, now)
	switch s.looked = now; {
	case r.err != nil || r.single != nil:
		s.retry = min(max(2*s.retry, firstPause), lastPause)
		s.pace = s.retry
	case r.did:
		s.pace, s.retry = 0, 0
	default:
		s.pace, s.retry = renewLook, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aged, s.ends = r.err, r.ends
	s.lapse = errors.Join(r.err, r.single)
	return s.lapse
}

// renewing is what came of a look.
type renewing struct {
	did    bool
	ends   time.Time // the first end of a certificate whose time-stamps are not renewed
	err    error
	single error // why no second authority renews what one has renewed, which is no hurry
}

func (s *Stamps) renewSome(ctx context.Context, now time.Time) (r renewing) {
	var top int64
	if err := s.deps.DB.QueryRow(ctx, "SELECT COALESCE(MAX(level), -1) FROM witness_stamp WHERE level < ?", stamp.MaxLinks-1).Scan(&top); err != nil {
		r.err = fault.Wrap(fault.StoreFailed, err, "the time-stamps")
		return r
	}
	for level := top; level >= 0; level-- { // the highest first: that one is a group of its own
		d, err := s.due(ctx, level, now)
		if err != nil {
			r.err = errors.Join(r.err, err)
			return r
		}
		if !d.ends.IsZero() && (r.ends.IsZero() || d.ends.Before(r.ends)) {
			r.ends = d.ends
		}
		if r.did || d.size == 0 {
			continue
		}
		switch err := s.renew(ctx, d, now); { // if it fails, those beneath do not wait for it
		case err == nil:
			r.did = true
		case d.except == "":
			r.err = errors.Join(r.err, err)
		default:
			r.single = err
		}
	}
	return r
}

// due is what is to be renewed of a level.
type due struct {
	level, first, size int64 // size 0: nothing is
	most               int
	except             string    // the authority that is not to do it
	ends               time.Time // the first end of a certificate whose time-stamps are not renewed
}

// due looks which time-stamps of a level are to be renewed. Of a call's
// evidence, what the state says whose member sealed it vouches for no time
// (docs/protocols/evidence.md §21), and here nobody knows who that was: so each
// renewal, one of an odd level, is at once renewed by another authority.
func (s *Stamps) due(ctx context.Context, level int64, now time.Time) (d due, err error) {
	failed := func(err error) (due, error) { return due{}, fault.Wrap(fault.StoreFailed, err, "the time-stamps") }
	d.level, d.most = level, renewMost
	if d.first, err = s.next(ctx, level+1); err != nil {
		return d, err
	}
	for signer := []byte{}; ; {
		err := s.deps.DB.QueryRow(ctx, "SELECT signer FROM witness_stamp WHERE level = ? AND signer > ? ORDER BY signer LIMIT 1", level, signer).Scan(&signer)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return failed(err)
		}
		var size int64
		var token []byte
		err = s.deps.DB.QueryRow(ctx, "SELECT size, token FROM witness_stamp WHERE level = ? AND signer = ? AND first >= ? ORDER BY first DESC LIMIT 1", level, signer, d.first).Scan(&size, &token)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return failed(err)
		}
		t, err := stamp.ParseToken(token)
		if err != nil {
			return d, fault.Wrap(fault.Corrupt, err, "the time-stamp of the records below %d", size)
		}
		end := now // where nobody knows
		if c := t.Signer(); c != nil {
			end = c.NotAfter
		}
		if d.ends.IsZero() || end.Before(d.ends) {
			d.ends = end
		}
		if end.Sub(now) <= s.cfg.Renew || s.deps.Revoked(signer) {
			d.size = max(d.size, size)
		}
	}
	if d.size > 0 || level%2 == 0 {
		return d, nil
	}
	var first, size int64
	var by string
	err = s.deps.DB.QueryRow(ctx, "SELECT first, size, name FROM witness_stamp WHERE level = ? AND first >= ? ORDER BY first LIMIT 1", level, d.first).Scan(&first, &size, &by)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return failed(err)
	}
	if err == nil && slices.ContainsFunc(s.deps.Stampers(), func(x Stamper) bool { return x.Name != by }) {
		d.first, d.size, d.most, d.except = first, size, 1, by
	}
	return d, nil
}

// renew has a group of time-stamps stamped: the root of the tree over their
// digests.
func (s *Stamps) renew(ctx context.Context, d due, now time.Time) error {
	w := wanted{until: now.Add(s.cfg.Renew), except: d.except}
	var list []stamp.Digest
	size := d.first
	err := beneath(ctx, s.deps.DB, d.level, d.first, d.size, d.most, func(_, end int64, raw []byte) error {
		t, err := stamp.ParseToken(raw)
		if err != nil {
			return fault.Wrap(fault.Corrupt, err, "the time-stamp of the records below %d", end)
		}
		if t.At.After(w.since) {
			w.since = t.At
		}
		list, size = append(list, t.Digest()), end
		return nil
	})
	if err != nil {
		return err
	}
	w.imprint = stamp.Root(list)
	st, err := s.ask(ctx, w)
	if err != nil {
		return fault.Wrap(fault.StampAging, err, "the time-stamps of the records from %d on: a certificate ends at %s, or was revoked: %s", d.first, d.ends.UTC().Format(time.RFC3339), fault.From(err).Detail)
	}
	st.Level, st.First, st.Size, st.Note = d.level+1, d.first, size, []byte{}
	if err := s.keep(ctx, st); err != nil {
		return err
	}
	s.deps.Logger.Info("time-stamps are renewed", "first", st.First, "size", st.Size, "level", st.Level, "authority", st.Name)
	return nil
}

// beneath reads the time-stamps of a level that lie one behind the other from
// first to below size: one at least, most at most.
func beneath(ctx context.Context, db *store.DB, level, first, size int64, most int, each func(first, size int64, token []byte) error) error {
	rows, err := db.Query(ctx, "SELECT first, size, token FROM witness_stamp WHERE level = ? AND first >= ? AND first < ? ORDER BY first LIMIT ?", level, first, size, most)
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the time-stamps")
	}
	defer rows.Close()
	next, seen := first, 0
	for ; rows.Next(); seen++ {
		var begin, end int64
		var token []byte
		if err := rows.Scan(&begin, &end, &token); err != nil {
			return fault.Wrap(fault.StoreFailed, err, "the time-stamps")
		}
		if begin != next || end <= begin || end > size {
			break
		}
		if err := each(begin, end, token); err != nil {
			return err
		}
		next = end
	}
	if err := rows.Err(); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the time-stamps")
	}
	if next != size && seen < most || next == first {
		return fault.New(fault.Corrupt, "the time-stamps of level %d do not lie one behind the other from %d to %d", level, first, size)
	}
	return nil
}

// tree is the digests of those that a renewal is over, and which of them begins
// at the entry first; -1: none does.
func tree(ctx context.Context, db *store.DB, st *Stamp, first int64) (list []stamp.Digest, at int, err error) {
	at = -1
	err = beneath(ctx, db, st.Level-1, st.First, st.Size, math.MaxInt32, func(begin, _ int64, raw []byte) error {
		if begin == first {
			at = len(list)
		}
		list = append(list, (&stamp.Token{Raw: raw}).Digest())
		return nil
	})
	return list, at, err
}

// Ends is the first end of a certificate on which time-stamps rest that are not
// renewed; zero where there are none, or nobody has looked yet.
func (s *Stamps) Ends() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends
}

// AgingErr says why time-stamps that are to be renewed are not, or nil.
func (s *Stamps) AgingErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aged
}
