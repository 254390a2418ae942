package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/go-json-experiment/json"
)

// To find a person's records without opening all, the journal is condensed in
// blocks of traceBlock records: for each record that names a person, the
// beginning of his hash and the record's place. That is a function of the
// records alone and is made after them, away from the calls; a block that is
// missing or not what was written is made anew when it is looked into.
//
// A row is parts, each after its length in four bytes: one for each retention
// class and month in the block, encrypted like its records and under the same
// key. So the table says nothing, and where a key is destroyed the part goes
// dark with the records. Each is bound to its block, its place and their
// number: none can be left out or put elsewhere. Only a block without a
// readable record has none, and is looked at anew each time.
const (
	traceBlock = 1 << 12
	placeHash  = 8             // bytes of the hash: enough to open few records in vain
	placeSize  = placeHash + 2 // and the record's place in its block
	traceLabel = "falaj trace v1\n"
	traceMark  = 16 // bytes of what holds the place of a row
	// traceEvery is how often the journal is looked through for blocks that
	// have become full.
	traceEvery = time.Minute
)

// about is what a record's note tells of whose data it is about: a call's, of
// one person; a reading's, of all whose data was read.
type about struct {
	Subject  *subject         `json:"subject"`
	Subjects []message.Digest `json:"subjects"`
}

// persons are the hashes of whose data a record is about.
func persons(r *journal.Stored) []message.Digest {
	if !bytes.Contains(r.Local, []byte(`"subject`)) {
		return nil
	}
	var a about
	if json.Unmarshal(r.Local, &a) != nil {
		return nil // administration writes notes of other forms
	}
	if a.Subject != nil {
		a.Subjects = append(a.Subjects, a.Subject.Hash)
	}
	return a.Subjects
}

// tracePart is what a block holds of one retention class and month.
type tracePart struct {
	class  string
	at     time.Time
	places []place
}

type place [placeSize]byte

// condense makes a block's row from its records, and tells how many of them
// could not be read.
func (x *Exchange) condense(ctx context.Context, block int64) (row []byte, unread int, err error) {
	row = []byte{}
	parts := map[string]*tracePart{}
	first := block * x.cfg.traceBlock
	err = x.deps.Journal.Each(ctx, first, first+x.cfg.traceBlock, func(s journal.Stored, err error) error {
		if err != nil {
			unread++
		}
		if err != nil || s.Erased {
			return ctx.Err()
		}
		key := s.Class + " " + seal.PeriodOf(s.At).String()
		p := parts[key]
		if p == nil {
			p = &tracePart{class: s.Class, at: s.At}
			parts[key] = p
		}
		for _, hash := range persons(&s) {
			at := place(binary.BigEndian.AppendUint16(slices.Clone(hash[:placeHash]), uint16(s.Index-first)))
			p.places = append(p.places, at)
		}
		return nil
	})
	if err != nil {
		return nil, unread, err
	}
	for i, key := range slices.Sorted(maps.Keys(parts)) {
		p := parts[key]
		slices.SortFunc(p.places, func(a, b place) int { return bytes.Compare(a[:], b[:]) })
		plain := make([]byte, 0, len(p.places)*placeSize)
		for _, at := range p.places {
			plain = append(plain, at[:]...)
		}
		sealed, err := x.deps.Records.Seal(nil, p.class, p.at, plain, traceAAD(block, i, len(parts)))
		if err != nil {
			return nil, unread, fmt.Errorf("encrypting the trace's index: %w", err)
		}
		row = binary.BigEndian.AppendUint32(row, uint32(len(sealed)))
		row = append(row, sealed...)
	}
	return row, unread, nil
}

func traceAAD(block int64, part, parts int) []byte {
	b := binary.BigEndian.AppendUint64([]byte(traceLabel), uint64(block))
	b = binary.BigEndian.AppendUint16(b, uint16(part))
	return binary.BigEndian.AppendUint16(b, uint16(parts))
}

// unfoldRow decrypts a block's row: the places of all its parts that are not
// dark. An error means that it is not what was written.
func (x *Exchange) unfoldRow(block int64, row []byte) (parts [][]byte, err error) {
	for len(row) > 0 {
		if len(row) < 4 || uint64(len(row)-4) < uint64(binary.BigEndian.Uint32(row)) {
			return nil, errors.New("its parts do not fill it")
		}
		n := 4 + int(binary.BigEndian.Uint32(row))
		parts, row = append(parts, row[4:n]), row[n:]
	}
	if len(parts) == 0 {
		return nil, errors.New("it has no part")
	}
	for i, sealed := range parts {
		parts[i], err = x.deps.Records.Open(sealed, traceAAD(block, i, len(parts)))
		if err != nil && !errors.Is(err, seal.ErrDestroyed) {
			return nil, err
		}
	}
	return parts, nil
}

// look finds in a block's row the leaves that may be about one of the persons.
func (x *Exchange) look(block int64, row []byte, persons []message.Digest) (found []int64, err error) {
	parts, err := x.unfoldRow(block, row)
	for _, places := range parts {
		n := len(places) / placeSize
		for _, hash := range persons {
			i := sort.Search(n, func(i int) bool {
				return bytes.Compare(places[i*placeSize:][:placeHash], hash[:placeHash]) >= 0
			})
			for ; i < n && string(places[i*placeSize:][:placeHash]) == string(hash[:placeHash]); i++ {
				found = append(found, block*x.cfg.traceBlock+int64(binary.BigEndian.Uint16(places[i*placeSize+placeHash:])))
			}
		}
	}
	return found, err
}

// traced finds the leaves of the records that may be about one of the persons,
// in order, and how many records could not be looked at.
func (x *Exchange) traced(ctx context.Context, persons []message.Digest) (found []int64, unread int, err error) {
	size, _, err := x.deps.Journal.Head(ctx)
	if err != nil {
		return nil, 0, err
	}
	full := size / x.cfg.traceBlock
	found, missing, err := x.lookAll(ctx, full, persons)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the trace's index: %w", err)
	}
	for _, block := range missing {
		row, n, err := x.index(ctx, block)
		if err != nil {
			return nil, 0, err
		}
		more, _ := x.look(block, row, persons) // of what was just made
		found, unread = append(found, more...), unread+n
	}
	err = x.deps.Journal.Each(ctx, full*x.cfg.traceBlock, size, func(s journal.Stored, err error) error {
		if err != nil {
			unread++
		} else if isAbout(&s, persons) {
			found = append(found, s.Index)
		}
		return ctx.Err()
	})
	slices.Sort(found)
	return slices.Compact(found), unread, err
}

// lookAll looks through the rows of the full blocks, and lists those that are
// missing or not what was written.
func (x *Exchange) lookAll(ctx context.Context, full int64, persons []message.Digest) (found, missing []int64, err error) {
	rows, err := x.deps.DB.Query(ctx, "SELECT block, parts FROM exchange_trace WHERE block >= 0 AND block < ? ORDER BY block", full)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = rows.Close() }()
	next := int64(0)
	for rows.Next() {
		var block int64
		var row []byte
		if err := rows.Scan(&block, &row); err != nil {
			return nil, nil, err
		}
		for ; next < block; next++ {
			missing = append(missing, next)
		}
		next++
		if len(row) <= traceMark {
			missing = append(missing, block)
			continue
		}
		more, err := x.look(block, row, persons)
		if err != nil {
			missing = append(missing, block)
			x.deps.Log.Warn("a part of the trace's index is made anew", "block", block, "error", err)
			continue
		}
		found = append(found, more...)
	}
	for ; next < full; next++ {
		missing = append(missing, next)
	}
	return found, missing, rows.Err()
}

// index makes a block's row. It is kept where all its records could be read and
// none of them was erased meanwhile: until then a random mark holds its place.
func (x *Exchange) index(ctx context.Context, block int64) (row []byte, unread int, err error) {
	mark := make([]byte, traceMark)
	_, _ = rand.Read(mark) // never fails
	_, err = x.deps.DB.Exec(ctx, `INSERT INTO exchange_trace (block, parts) VALUES (?, ?)
		ON CONFLICT (block) DO UPDATE SET parts = excluded.parts`, block, mark)
	if err != nil {
		return nil, 0, err
	}
	row, unread, err = x.condense(ctx, block)
	if err != nil || unread > 0 {
		return row, unread, err
	}
	_, err = x.deps.DB.Exec(ctx, "UPDATE exchange_trace SET parts = ? WHERE block = ? AND parts = ?", row, block, mark)
	return row, 0, err
}

// untrace takes what the trace's index says of a record's block out of it, in
// the transaction that erases the record.
func (x *Exchange) untrace(ctx context.Context, tx *store.Tx, leaf int64) error {
	_, err := tx.Exec(ctx, "DELETE FROM exchange_trace WHERE block = ?", leaf/x.cfg.traceBlock)
	return err
}

// indexTrace indexes, until ctx ends, the blocks that have become full.
func (x *Exchange) indexTrace(ctx context.Context) {
	tick := time.NewTicker(traceEvery)
	defer tick.Stop()
	for {
		if err := x.indexFull(ctx); err != nil && ctx.Err() == nil {
			x.deps.Log.Error("indexing the trace", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// indexFull indexes what follows the last block that is. It leaves the calls
// most of the time.
func (x *Exchange) indexFull(ctx context.Context) error {
	size, _, err := x.deps.Journal.Head(ctx)
	if err != nil {
		return err
	}
	var block int64
	err = x.deps.DB.QueryRow(ctx, "SELECT COALESCE(MAX(block), -1) + 1 FROM exchange_trace").Scan(&block)
	for ; err == nil && block < size/x.cfg.traceBlock; block++ {
		began := time.Now()
		if _, _, err = x.index(ctx, block); err != nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(9 * time.Since(began)):
		}
	}
	return err
}

// checkTrace makes the trace's index anew from the records, and tells wrong of
// the blocks whose row says something else. It changes nothing.
func (x *Exchange) checkTrace(ctx context.Context, seen func(block int64), wrong func(block int64)) error {
	size, _, err := x.deps.Journal.Head(ctx)
	if err != nil {
		return err
	}
	read := func(block int64) (row []byte, err error) {
		err = x.deps.DB.QueryRow(ctx, "SELECT parts FROM exchange_trace WHERE block = ?", block).Scan(&row)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return row, err
	}
	for block := range size / x.cfg.traceBlock {
		seen(block)
		row, err := read(block)
		if err != nil {
			return err
		}
		if len(row) <= traceMark {
			continue // it says nothing, and is made before it is to say something
		}
		want, unread, err := x.condense(ctx, block)
		if err != nil {
			return err
		}
		is, err := x.unfoldRow(block, row)
		should, _ := x.unfoldRow(block, want)
		if err == nil && (unread > 0 || slices.EqualFunc(lit(is), lit(should), bytes.Equal)) {
			continue
		}
		// A record may have been erased meanwhile.
		if now, err := read(block); err != nil {
			return err
		} else if bytes.Equal(now, row) {
			wrong(block)
		}
	}
	return nil
}

// lit leaves out the parts that are dark: they are made no more.
func lit(parts [][]byte) [][]byte {
	return slices.DeleteFunc(parts, func(p []byte) bool { return len(p) == 0 })
}

// isAbout tells whether a record is about one of the persons.
func isAbout(r *journal.Stored, who []message.Digest) bool {
	return slices.ContainsFunc(persons(r), func(p message.Digest) bool { return slices.Contains(who, p) })
}
