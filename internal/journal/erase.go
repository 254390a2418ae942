package journal

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
)

// A mark stands in the place of an erased record, wherever that lay:
//
//	0 | leaf of the decision's record (8, big-endian) | 16 bytes of the keyed hash of
//	"falaj erased v1\n" | leaf's index (8) | leaf (32) | leaf of the decision's record (8)
//
// No encrypted record begins with 0. The hash keeps a changed record from
// passing for an erased one, and names the decision that must be there.
const (
	markByte  = 0
	markSize  = 1 + 8 + 16
	markLabel = "falaj erased v1\n"
)

func (j *Journal) mark(index int64, leaf [leafSize]byte, decision int64) []byte {
	b := make([]byte, 0, len(markLabel)+8+leafSize+8)
	b = append(b, markLabel...)
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	b = append(b, leaf[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(decision))
	sum := j.keys.Sum(b)
	out := binary.BigEndian.AppendUint64([]byte{markByte}, uint64(decision))
	return append(out, sum[:16]...)
}

// marked reads a mark; false where it is not the one of this leaf.
func (j *Journal) marked(index int64, leaf [leafSize]byte, b []byte) (decision int64, ok bool) {
	if len(b) != markSize {
		return 0, false
	}
	decision = int64(binary.BigEndian.Uint64(b[1:]))
	return decision, string(j.mark(index, leaf, decision)) == string(b)
}

// Erasure is a decision to erase records.
type Erasure struct {
	Leaves []int64   // at most MaxFound
	By     []string  // who decided it
	Reason string    // holds nothing about the persons in the records: it stays
	At     time.Time // when
	Class  string    // retention class of the decision's own record
}

// erasure is what the decision's record says, in its local part.
type erasure struct {
	Event  string   `json:"event"`
	Leaves []int64  `json:"leaves"`
	By     []string `json:"by"`
	Reason string   `json:"reason"`
}

// ErasedEvent is the event in a decision's record.
const ErasedEvent = "evidence.erased"

// Erase removes records for good: envelope, body, notes, salt, digests and what
// finds them. Only their leaves stay, and a mark. The decision is a record of
// its own and durable together with what it does; in, if there is one, does
// what others have to do about the leaves in the same transaction. Records in
// the archive are then removed from its files as FinishErasures says, which goes
// on where that breaks off. What older copies of the database hold stays there.
func (j *Journal) Erase(ctx context.Context, e Erasure, sign Sign, vouch Vouch, in func(ctx context.Context, tx *store.Tx) error) (Entry, error) {
	if len(e.Leaves) == 0 || len(e.Leaves) > MaxFound {
		return Entry{}, fault.New(fault.BadRequest, "%d records to erase; 1 to %d at a time", len(e.Leaves), MaxFound)
	}
	e.Leaves = slices.Compact(slices.Sorted(slices.Values(e.Leaves)))
	for _, i := range e.Leaves {
		s, err := j.Get(ctx, i)
		if err != nil {
			return Entry{}, err
		}
		if s.Kind == Decision {
			return Entry{}, fault.New(fault.Conflict, "record %d is a decision or a reading of evidence: those stay until their retention ends", i)
		}
	}
	local, err := json.Marshal(erasure{ErasedEvent, e.Leaves, e.By, e.Reason})
	if err != nil {
		return Entry{}, fmt.Errorf("writing down an erasure: %w", err)
	}
	decision, err := j.Append(ctx, Record{
		Kind: Decision, Key: "erasure", At: e.At, Class: e.Class, Local: local,
		In: func(ctx context.Context, tx *store.Tx, index int64) error {
			for _, i := range e.Leaves {
				if err := j.eraseOne(ctx, tx, i, index); err != nil {
					return err
				}
			}
			if in == nil {
				return nil
			}
			return in(ctx, tx)
		},
	})
	if err != nil {
		return Entry{}, err
	}
	if err := j.FinishErasures(ctx, sign, vouch); err != nil {
		all, readErr := j.pending(ctx)
		if readErr != nil || slices.ContainsFunc(all, func(p pending) bool { return p.decision == decision.Index }) {
			return decision, fmt.Errorf("the erasure is decided and goes on by itself in the archive: %w", errors.Join(err, readErr))
		}
	}
	if err := j.db.Settle(ctx, false); err != nil {
		return decision, fmt.Errorf("emptying the database's log of what was erased: %w", err)
	}
	return decision, nil
}

// Settled waits until what was being committed is: who asks a record after it
// sees every erasure that was let through before.
func (j *Journal) Settled(ctx context.Context) error {
	return j.db.WriteLocked(ctx, func(tx *store.Tx) error {
		_, err := lockHead(ctx, tx)
		return err
	})
}

// eraseOne puts the mark in a record's place and forgets what finds it. The
// head of the log is held by the transaction that this is in.
func (j *Journal) eraseOne(ctx context.Context, tx *store.Tx, index, decision int64) error {
	var first int64
	var leaves, keys, ends, records []byte
	err := tx.QueryRow(ctx, `SELECT first, leaves, keys, ends, records FROM journal_commit
		WHERE first <= ? ORDER BY first DESC LIMIT 1`, index).Scan(&first, &leaves, &keys, &ends, &records)
	i := int(index - first)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (len(leaves) < (i+1)*leafSize || len(keys) < (i+1)*keySize) {
		return fault.New(fault.NotFound, "the log has no record %d", index)
	}
	if err != nil {
		return fmt.Errorf("finding record %d: %w", index, err)
	}
	if len(ends) == 0 { // it lies in the archive
		ends, records = []byte{}, []byte{}
	} else {
		if ends, records, err = replace(ends, records, i, j.mark(index, [leafSize]byte(leaves[i*leafSize:]), decision)); err != nil {
			return err
		}
	}
	if j.archive != "" || len(ends) == 0 {
		_, err := tx.Exec(ctx, `INSERT INTO journal_erase_pending (leaf, decision) VALUES (?, ?)
			ON CONFLICT (leaf) DO UPDATE SET decision = excluded.decision`, index, decision)
		if err != nil {
			return fmt.Errorf("erasing record %d: %w", index, err)
		}
	}
	key := [keySize]byte(keys[i*keySize:])
	clear(keys[i*keySize : (i+1)*keySize])
	if _, err := tx.Exec(ctx, "UPDATE journal_commit SET keys = ?, ends = ?, records = ? WHERE first = ?", keys, ends, records, first); err != nil {
		return fmt.Errorf("erasing record %d: %w", index, err)
	}
	if key == [keySize]byte{} {
		return nil
	}
	var places []byte
	era := index / eraSize
	err = tx.QueryRow(ctx, "SELECT keys FROM journal_key WHERE part = ? AND era = ?", key[0], era).Scan(&places)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // the era has no index yet
	}
	if err != nil {
		return fmt.Errorf("erasing record %d: %w", index, err)
	}
	place := binary.BigEndian.AppendUint16(key[:], uint16(index%eraSize))
	for at := 0; at+placeSize <= len(places); at += placeSize {
		if string(places[at:at+placeSize]) == string(place) {
			places = slices.Delete(places, at, at+placeSize)
			break
		}
	}
	if _, err := tx.Exec(ctx, "UPDATE journal_key SET keys = ? WHERE part = ? AND era = ?", places, key[0], era); err != nil {
		return fmt.Errorf("erasing record %d: %w", index, err)
	}
	return nil
}

// replace puts other bytes in the place of record i of a commit.
func replace(ends, records []byte, i int, with []byte) (newEnds, newRecords []byte, err error) {
	from, to, ok := span(ends, i)
	if !ok || to > len(records) {
		return nil, nil, fault.New(fault.Corrupt, "where a record begins and ends")
	}
	newRecords = slices.Concat(records[:from], with, records[to:])
	newEnds = slices.Clone(ends)
	for ; (i+1)*endSize <= len(ends); i++ {
		end := binary.BigEndian.Uint32(ends[i*endSize:])
		binary.BigEndian.PutUint32(newEnds[i*endSize:], uint32(int(end)-(to-from)+len(with)))
	}
	return newEnds, newRecords, nil
}

// decided tells whether a record is the decision to erase another; true also
// where the decision's own retention has ended.
func (j *Journal) decided(ctx context.Context, decision, index int64) (bool, error) {
	s, err := j.Get(ctx, decision)
	switch fault.CodeOf(err) {
	case "":
	case fault.NotFound, fault.Corrupt:
		return false, nil
	default:
		return false, err
	}
	return s.Erased || s.decides(index), nil
}

// decides tells whether a record is the decision to erase another.
func (s *Stored) decides(index int64) bool {
	var e erasure
	return !s.Erased && s.Kind == Decision && json.Unmarshal(s.Local, &e) == nil && e.Event == ErasedEvent && slices.Contains(e.Leaves, index)
}
