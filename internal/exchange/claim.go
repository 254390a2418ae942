package exchange

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// The sides of a claim.
const (
	sideCaller   = 1
	sideProvider = 2
)

// The states of a claim. Only the provider's side knows unknown and settled.
const (
	claimOpen     = 1
	claimAnswered = 2
	claimUnknown  = 3 // the backend may or may not have acted: listed for a decision
	claimSettled  = 4 // a person decided that it had acted
)

// claim is what is known of an id that somebody may repeat.
type claim struct {
	state    int
	process  string
	asked    int64 // leaf of the request's record, where its content is
	answered int64 // leaf of the answer's record
}

// errClaimed tells that the id stood there already; nothing was written.
var errClaimed = errors.New("id already claimed")

// claimKey stands for client and id in the clear: an id may be somebody's
// number, and is not to be guessed from the database alone.
func (x *Exchange) claimKey(client union.SubsystemID, id string) []byte {
	h := x.deps.Names.Sum([]byte("falaj claim v1\x00" + client.String() + "\x00" + id))
	return h[:]
}

// claimID writes the claim in the transaction of the request's record. The id
// is free or the record is not written either.
func (x *Exchange) claimID(ctx context.Context, tx *store.Tx, side int, r *message.Request, leaf int64) error {
	res, err := tx.Exec(ctx, `INSERT INTO exchange_claim (side, id, content, state, process, asked, answered, changed_at)
		VALUES (?, ?, ?, ?, ?, ?, NULL, ?) ON CONFLICT (side, id) DO NOTHING`,
		side, x.claimKey(r.Client, r.ID), []byte{}, claimOpen, x.process, leaf, x.deps.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("claiming an id: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("claiming an id: %w", err)
	} else if n == 0 {
		return errClaimed
	}
	return nil
}

// reclaim takes over an open claim of nobody, or one that may be tried again.
// It is a compare-and-set: of two processes one wins.
func (x *Exchange) reclaim(ctx context.Context, tx *store.Tx, side int, r *message.Request, was claim, leaf int64) error {
	res, err := tx.Exec(ctx, `UPDATE exchange_claim SET state = ?, process = ?, asked = ?, changed_at = ?
		WHERE side = ? AND id = ? AND state = ? AND process = ?`,
		claimOpen, x.process, leaf, x.deps.Now().UnixMilli(), side, x.claimKey(r.Client, r.ID), was.state, was.process)
	if err != nil {
		return fmt.Errorf("taking over an id: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("taking over an id: %w", err)
	} else if n == 0 {
		return errClaimed
	}
	return nil
}

// settle says in the transaction of the answer's record what became of the
// claim that the record asked made. Where another call has taken it over since,
// that one settles it.
func (x *Exchange) settle(ctx context.Context, tx *store.Tx, side int, r *message.Request, asked int64, became effect, leaf int64) error {
	var err error
	switch became {
	case effectNone: // the id is free again: nothing happened
		_, err = tx.Exec(ctx, `DELETE FROM exchange_claim WHERE side = ? AND id = ? AND asked = ?`, side, x.claimKey(r.Client, r.ID), asked)
	case effectUnknown:
		_, err = tx.Exec(ctx, `UPDATE exchange_claim SET state = ?, answered = ?, changed_at = ? WHERE side = ? AND id = ? AND asked = ?`,
			claimUnknown, leaf, x.deps.Now().UnixMilli(), side, x.claimKey(r.Client, r.ID), asked)
	case effectDone:
		_, err = tx.Exec(ctx, `UPDATE exchange_claim SET state = ?, answered = ?, changed_at = ? WHERE side = ? AND id = ? AND asked = ?`,
			claimAnswered, leaf, x.deps.Now().UnixMilli(), side, x.claimKey(r.Client, r.ID), asked)
	}
	if err != nil {
		return fmt.Errorf("settling an id: %w", err)
	}
	return nil
}

// claimed reads a claim; ok is false where there is none.
func (x *Exchange) claimed(ctx context.Context, side int, r *message.Request) (c claim, ok bool, err error) {
	err = x.deps.DB.Read(ctx, func(tx *store.Tx) error {
		var leaf sql.NullInt64
		err := tx.QueryRow(ctx, `SELECT state, process, asked, answered FROM exchange_claim WHERE side = ? AND id = ?`,
			side, x.claimKey(r.Client, r.ID)).Scan(&c.state, &c.process, &c.asked, &leaf)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		c.answered, ok = leaf.Int64, true
		return nil
	})
	if err != nil {
		return claim{}, false, fmt.Errorf("reading a claim: %w", err)
	}
	return c, ok, nil
}

// sameAs tells whether a request has the content of the one that made a claim,
// which its record alone holds: a digest of it beside the claim could be guessed
// by whoever reads the database and knows what may be asked. about is the
// person's hash, which only the caller's side knows.
func (x *Exchange) sameAs(ctx context.Context, was claim, r *message.Request, about *subject) (bool, error) {
	s, err := x.deps.Journal.Get(ctx, was.asked)
	if err != nil {
		return false, storeFault(err, "reading the request that claimed an id")
	}
	if s.Erased {
		return false, fault.New(fault.AnswerGone, "its retention has ended")
	}
	head, _, err := message.Open(s.Envelope)
	if err != nil {
		return false, storeFault(err, "reading the request that claimed an id")
	}
	before, err := message.ParseRequest(head)
	if err != nil {
		return false, storeFault(err, "reading the request that claimed an id")
	}
	n, err := readNote(s.Local)
	if err != nil {
		return false, storeFault(err, "reading the note of the request that claimed an id")
	}
	same := before.Content() == r.Content()
	if s.Kind == journal.RequestSent {
		same = same && x.isOne(n.Subject, about)
	}
	return same, nil
}

// isOne tells whether two notes are about one person, or both about nobody. The
// earlier may have been hashed under an earlier key.
func (x *Exchange) isOne(earlier, now *subject) bool {
	if earlier == nil || now == nil || earlier.Hash == now.Hash {
		return earlier.hash() == now.hash()
	}
	every, err := x.deps.Persons.Every([]byte(now.name))
	return err == nil && slices.Contains(every, [32]byte(earlier.Hash))
}

// stranded are the provider's claims that this process could not end, since
// its store failed: they wait for the next beat that can write.
type stranded struct {
	landing sync.Mutex // one at a time ends them
	mu      sync.Mutex
	left    []strand
}

// isStranded tells whether a request's claim is among them.
func (x *Exchange) isStranded(r *message.Request) bool {
	s := &x.stranded
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.left) == 0 {
		return false
	}
	key := x.claimKey(r.Client, r.ID)
	return slices.ContainsFunc(s.left, func(l strand) bool { return bytes.Equal(l.key, key) })
}

// strand is one of them.
type strand struct {
	key    []byte
	asked  int64 // the record that claimed it: another call may take it over
	became effect
}

// strand leaves a claim to the next beat, which frees it if nothing can have
// happened or may happen again, and lists it as unknown otherwise.
func (x *Exchange) strand(c *serving) {
	became := effectNone
	if c.effect != effectNone {
		became = x.unclear(c, effectUnknown)
	}
	x.leave(strand{x.claimKey(c.request.Client, c.request.ID), c.asked.Index, became})
}

func (x *Exchange) leave(s strand) {
	x.stranded.mu.Lock()
	defer x.stranded.mu.Unlock()
	x.stranded.left = append(x.stranded.left, s)
}

// land ends the stranded claims. Of one whose record was never written, the
// number may be another's by now, but not with the same id: who claims that
// lands it first.
func (x *Exchange) land(ctx context.Context) error {
	x.stranded.landing.Lock()
	defer x.stranded.landing.Unlock()
	x.stranded.mu.Lock()
	left := slices.Clone(x.stranded.left)
	x.stranded.mu.Unlock()
	if len(left) == 0 {
		return nil
	}
	err := x.deps.DB.Write(ctx, func(tx *store.Tx) error {
		for _, s := range left {
			query, args := `DELETE FROM exchange_claim`, []any(nil)
			if s.became == effectUnknown {
				query, args = `UPDATE exchange_claim SET state = ?, changed_at = ?`, []any{claimUnknown, x.deps.Now().UnixMilli()}
			}
			if _, err := tx.Exec(ctx, query+` WHERE side = ? AND id = ? AND state = ? AND process = ? AND asked = ?`,
				append(args, sideProvider, s.key, claimOpen, x.process, s.asked)...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ending claims that were left: %w", err)
	}
	x.stranded.mu.Lock()
	defer x.stranded.mu.Unlock()
	x.stranded.left = slices.Clone(x.stranded.left[len(left):])
	return nil
}

// beatEvery and deadAfter are how processes of one node see each other alive.
const (
	beatEvery = 2 * time.Second
	deadAfter = 10 * time.Second
)

// beat says that this process lives, and marks the provider's open claims of
// processes that do not: what they were doing nobody can know. alone is true
// where no other process can share the store, so that all others are dead.
func (x *Exchange) beat(ctx context.Context, alone bool) error {
	if err := x.land(ctx); err != nil {
		return err
	}
	now := x.deps.Now()
	oldest := now.Add(-deadAfter).UnixMilli()
	if alone {
		oldest = now.UnixMilli() + 1
	}
	err := x.deps.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO exchange_process (id, beat_at) VALUES (?, ?)
			ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at`, x.process, now.UnixMilli()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM exchange_process WHERE beat_at < ? AND id <> ?`, oldest, x.process); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE exchange_claim SET state = ?, changed_at = ?
			WHERE side = ? AND state = ? AND state <> 2 AND process NOT IN (SELECT id FROM exchange_process)`, // <> 2: the index's own words
			claimUnknown, now.UnixMilli(), sideProvider, claimOpen)
		return err
	})
	if err != nil {
		return fmt.Errorf("saying that this process lives: %w", err)
	}
	return nil
}
