package journal

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

const (
	leafSize = 32
	endSize  = 4
)

// querier is a store.DB or a store.Tx.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (*store.Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) *store.Row
}

// Head is the size and root of the log.
func (j *Journal) Head(ctx context.Context) (int64, merkle.Hash, error) {
	size, root, _, err := readHead(ctx, j.db)
	return size, root, err
}

func readHead(ctx context.Context, q querier) (size int64, root merkle.Hash, edge []byte, err error) {
	var r []byte
	err = q.QueryRow(ctx, "SELECT size, root, edge FROM journal_head WHERE id = 1").Scan(&size, &r, &edge)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, root, nil, fmt.Errorf("reading the log's head: %w", err)
	}
	if len(r) != merkle.HashSize || size < 0 || size > merkle.MaxSize {
		return 0, root, nil, fault.New(fault.Corrupt, "the log's head is not one")
	}
	return size, merkle.Hash(r), edge, nil
}

// Get reads the record at an index and holds it against its leaf. There is
// no such index: NotFound. It is in a file of the archive that is not there:
// Archived.
func (j *Journal) Get(ctx context.Context, index int64) (Stored, error) {
	s, err := j.get(ctx, index)
	if fault.CodeOf(err) == fault.Corrupt {
		return j.get(ctx, index) // it may have been archived or erased meanwhile
	}
	return s, err
}

func (j *Journal) get(ctx context.Context, index int64) (Stored, error) {
	var first int64
	var leaves, ends []byte
	err := j.db.QueryRow(ctx, `SELECT first, leaves, ends FROM journal_commit
		WHERE first <= ? ORDER BY first DESC LIMIT 1`, index).Scan(&first, &leaves, &ends)
	i := int(index - first)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && int64(len(leaves)/leafSize) <= index-first:
		return Stored{}, fault.New(fault.NotFound, "the log has no record %d", index)
	case err != nil:
		return Stored{}, fmt.Errorf("finding record %d: %w", index, err)
	}
	var sealed []byte
	if from, to, ok := span(ends, i); len(ends) == 0 {
		sealed, err = j.fromArchive(ctx, index)
	} else if !ok {
		return Stored{}, fault.New(fault.Corrupt, "where record %d begins and ends", index)
	} else {
		err = j.db.QueryRow(ctx, "SELECT substr(records, ?, ?) FROM journal_commit WHERE first = ?",
			from+1, to-from, first).Scan(&sealed)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("reading record %d: %w", index, err)
	}
	s, part, err := j.open(index, [32]byte(leaves[i*leafSize:]), sealed)
	if part != "" {
		return Stored{}, fault.Wrap(fault.Corrupt, err, "record %d: its %s is not what was written", index, part)
	}
	return s, nil
}

// Each goes through the records from an index on and below another, in their
// order; of one that cannot be read it tells fn why. It reads a commit at a
// time: no snapshot is held meanwhile.
func (j *Journal) Each(ctx context.Context, from, until int64, fn func(Stored, error) error) error {
	for from < until {
		var first int64
		var leaves, ends, records []byte
		err := j.db.QueryRow(ctx, `SELECT first, leaves, ends, records FROM journal_commit
			WHERE first <= ? ORDER BY first DESC LIMIT 1`, from).Scan(&first, &leaves, &ends, &records)
		n := int64(len(leaves) / leafSize)
		switch {
		case errors.Is(err, sql.ErrNoRows) || err == nil && first+n <= from:
			return fault.New(fault.Corrupt, "the commit of record %d is missing", from)
		case err != nil:
			return fmt.Errorf("reading from record %d on: %w", from, err)
		}
		for ; from < min(first+n, until); from++ {
			i := int(from - first)
			a, z, ok := span(ends, i)
			s, part, err := Stored{Entry: Entry{Index: from}}, PartRecord, error(nil)
			if ok && z <= len(records) {
				s, part, err = j.open(from, [32]byte(leaves[i*leafSize:]), records[a:z])
			} else if len(ends) == 0 {
				s, err = j.Get(ctx, from) // from the archive
				part = ""
			}
			if part != "" {
				err = fault.Wrap(fault.Corrupt, err, "record %d: its %s is not what was written", from, part)
			}
			if err := fn(s, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// span is where record i of a commit lies among its records.
func span(ends []byte, i int) (from, to int, ok bool) {
	if len(ends) < (i+1)*endSize {
		return 0, 0, false
	}
	if i > 0 {
		from = int(binary.BigEndian.Uint32(ends[(i-1)*endSize:]))
	}
	to = int(binary.BigEndian.Uint32(ends[i*endSize:]))
	return from, to, from <= to
}

// open decrypts a record and holds it against its leaf. Where something is
// wrong it names the part and says why; the record is returned if it could be
// read, with the leaf that is its own.
func (j *Journal) open(index int64, leaf [32]byte, sealed []byte) (s Stored, wrong Part, err error) {
	s.Index, s.Leaf = index, leaf
	if len(sealed) > 0 && sealed[0] == markByte {
		decision, ok := j.marked(index, leaf, sealed)
		if !ok {
			return s, PartRecord, errors.New("the mark of its erasure is not the one that was put there")
		}
		s.Erased, s.ErasedBy = true, decision
		return s, "", nil
	}
	b, err := j.cipher.Open(sealed, []byte(aad))
	if errors.Is(err, seal.ErrDestroyed) {
		s.Erased = true
		return s, "", nil
	}
	if err != nil {
		return s, PartRecord, err
	}
	if s.Record, s.Salt, err = decode(b); err != nil {
		return s, PartRecord, err
	}
	if s.Leaf = Leaf(s.Salt, s.Digest()); s.Leaf != leaf {
		return s, PartLeaf, errors.New("the leaf of the record is another")
	}
	return s, "", nil
}

// Proof gives the inclusion proof of an index in the tree of the log's first
// size records.
func (j *Journal) Proof(ctx context.Context, index, size int64) (proof []merkle.Hash, err error) {
	err = j.db.Read(ctx, func(tx *store.Tx) error {
		now, head, _, err := readHead(ctx, tx)
		if err != nil {
			return err
		}
		if index < 0 || index >= size || size > now {
			return fault.New(fault.NotFound, "the log of %d records has no record %d of the first %d", now, index, size)
		}
		var root merkle.Hash
		proof, root, err = merkle.Prove(size, index, tiles(ctx, tx))
		if err == nil && size == now && root != head {
			err = fault.New(fault.Corrupt, "the log's tiles do not give its head")
		}
		return err
	})
	return proof, err
}

// Tile reads a tile of hashes as tlog-tiles serves it, of the width it has in
// some tree up to the present one.
func (j *Journal) Tile(ctx context.Context, level int, n int64, width int) (b []byte, err error) {
	err = j.inTree(ctx, level, n, width, func(tx *store.Tx) error {
		b, err = tiles(ctx, tx)(level, n, width)
		return err
	})
	return b, err
}

// Bundle reads an entry bundle as tlog-tiles serves it.
func (j *Journal) Bundle(ctx context.Context, n int64, width int) (b []byte, err error) {
	err = j.inTree(ctx, 0, n, width, func(tx *store.Tx) error {
		leaves, err := readColumn(ctx, tx, "leaves", leafSize, n*merkle.TileWidth, width)
		b = merkle.Bundle(leaves, leafSize)
		return err
	})
	return b, err
}

func (j *Journal) inTree(ctx context.Context, level int, n int64, width int, fn func(*store.Tx) error) error {
	return j.db.Read(ctx, func(tx *store.Tx) error {
		size, _, _, err := readHead(ctx, tx)
		if err != nil {
			return err
		}
		if width < 1 || width > merkle.Width(size, level, n) {
			return fault.New(fault.NotFound, "the log has no such tile")
		}
		return fn(tx)
	})
}

// tiles reads tiles of any level: the lowest from the leaves, the others as
// they are stored.
func tiles(ctx context.Context, q querier) merkle.Tiles {
	return func(level int, n int64, width int) ([]byte, error) {
		if level > 0 {
			return readTile(ctx, q, level, n, width)
		}
		leaves, err := readColumn(ctx, q, "leaves", leafSize, n*merkle.TileWidth, width)
		if err != nil {
			return nil, err
		}
		b := make([]byte, 0, len(leaves))
		for ; len(leaves) > 0; leaves = leaves[leafSize:] {
			h := merkle.Leaf(leaves[:leafSize])
			b = append(b, h[:]...)
		}
		return b, nil
	}
}

// readTile reads the first width hashes of a stored tile.
func readTile(ctx context.Context, q querier, level int, n int64, width int) ([]byte, error) {
	if width == 0 {
		return nil, nil
	}
	var b []byte
	err := q.QueryRow(ctx, "SELECT hashes FROM journal_tile WHERE level = ? AND n = ?", level, n).Scan(&b)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("reading tile %d of level %d: %w", n, level, err)
	}
	if len(b) < width*merkle.HashSize {
		return nil, fault.New(fault.Corrupt, "tile %d of level %d has %d bytes, not %d", n, level, len(b), width*merkle.HashSize)
	}
	return b[:width*merkle.HashSize], nil
}

// readColumn reads what a column of the commits holds for count records from
// an index on: so many bytes for each.
func readColumn(ctx context.Context, q querier, column string, width int, from int64, count int) ([]byte, error) {
	out := make([]byte, 0, count*width)
	sound := true
	err := each(ctx, q, func(first int64, b []byte) bool {
		skip := (from-first)*int64(width) + int64(len(out))
		sound = len(b)%width == 0 && skip >= 0 && skip <= int64(len(b))
		if sound {
			out = append(out, b[skip:]...)
		}
		return sound
	}, "SELECT first, "+column+` FROM journal_commit
		WHERE first >= COALESCE((SELECT MAX(first) FROM journal_commit WHERE first <= ?), 0) AND first < ?
		ORDER BY first`, from, from+int64(count))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", column, err)
	}
	if !sound || len(out) < count*width {
		return nil, fault.New(fault.Corrupt, "the %s of records %d to %d are not all there", column, from, from+int64(count)-1)
	}
	return out[:count*width], nil
}

// checkHead holds the head against the tiles and the last leaves: cheap, and
// enough to see a torn, truncated or half-restored database.
func (j *Journal) checkHead(ctx context.Context) error {
	return j.db.Read(ctx, func(tx *store.Tx) error {
		size, root, b, err := readHead(ctx, tx)
		if err != nil {
			return err
		}
		stored, err := merkle.ParseEdge(size, b)
		if err != nil {
			return fault.Wrap(fault.Corrupt, err, "the log's head")
		}
		edge, err := merkle.EdgeOf(size, tiles(ctx, tx))
		if err != nil {
			return fmt.Errorf("checking the log's head: %w", err)
		}
		if string(edge.Bytes()) != string(stored.Bytes()) || edge.Root() != root {
			return fault.New(fault.Corrupt, "the log's head of %d records does not follow from its tiles", size)
		}
		var beyond int64
		err = tx.QueryRow(ctx, "SELECT COUNT(*) FROM journal_commit WHERE first >= ?", size).Scan(&beyond)
		if err != nil {
			return fmt.Errorf("checking the log's head: %w", err)
		}
		if beyond > 0 {
			return fault.New(fault.Corrupt, "%d commits lie beyond the log's head of %d records", beyond, size)
		}
		return nil
	})
}
