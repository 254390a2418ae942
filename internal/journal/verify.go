package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
)

// Part names what was found changed.
type Part string

// The parts of the journal.
const (
	PartRecord Part = "record" // an encrypted record, or where it begins and ends
	PartLeaf   Part = "leaf"   // a leaf that is not its record's
	PartKey    Part = "key"    // the column that finds a record by its key
	PartCommit Part = "commit" // a commit missing, out of place, or too many
	PartTile   Part = "tile"   // a hash in a tile of level 1 or above
	PartHead   Part = "head"   // size, root or edge of the head
)

// Wrong is one value that is not what was written.
type Wrong struct {
	Part Part
	// Index is a record's index; of a tile's hash, its place in its level.
	Index  int64
	Level  int // of a tile
	Detail string
}

// Report is what Verify found.
type Report struct {
	Size    int64       // records in the log
	Root    merkle.Hash // as recomputed
	Read    int64       // records decrypted and held against their leaf
	Erased  int64       // records whose key was destroyed: only the leaf was looked at
	Wrong   []Wrong     // the first of them
	Omitted int64       // how many more were wrong
}

// OK says that nothing was wrong.
func (r *Report) OK() bool { return len(r.Wrong) == 0 }

// maxWrong bounds a report: beyond it the disk is to be replaced, not read.
const maxWrong = 1000

func (r *Report) add(part Part, index int64, format string, args ...any) {
	r.addWrong(Wrong{Part: part, Index: index, Detail: fmt.Sprintf(format, args...)})
}

func (r *Report) addWrong(w Wrong) {
	if len(r.Wrong) >= maxWrong {
		r.Omitted++
		return
	}
	r.Wrong = append(r.Wrong, w)
}

// Verify recomputes the log from the records up: every record against its
// leaf and its key, every tile against the leaves, the head against the
// tiles. It names every value that changed; the error is only of reading.
// Appends go on meanwhile, and are not looked at.
func (j *Journal) Verify(ctx context.Context) (*Report, error) {
	v := &verifier{j: j, growing: map[int][]byte{}}
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verifying the journal: %w", err)
	}
	return &v.Report, nil
}

// verifier walks the log once, in short reads: a snapshot held for hours
// would keep the engine from tidying up.
type verifier struct {
	Report
	j       *Journal
	edge    merkle.Edge
	missing bool           // leaves are missing: what lies above cannot be told
	growing map[int][]byte // of each level the tile being filled
	keyed   int64
	err     error
}

func (v *verifier) run(ctx context.Context) error {
	var size, last int64
	var root merkle.Hash
	var edge []byte
	err := v.j.db.Read(ctx, func(tx *store.Tx) (err error) {
		if size, root, edge, err = readHead(ctx, tx); fault.CodeOf(err) == fault.Corrupt {
			v.add(PartHead, 0, "size or root cannot be those of a log")
			err = nil
		}
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT COALESCE(MAX(first), -1) FROM journal_commit").Scan(&last)
	})
	if err != nil {
		return err
	}
	for at := int64(math.MinInt64); at < last; {
		if at, err = v.commit(ctx, at); err != nil {
			return err
		}
	}
	v.Size, v.Root = v.edge.Size(), v.edge.Root()
	if v.missing {
		// Neither tiles nor head can be told from leaves that are not there.
		return nil
	}
	if v.head(size, root, edge); v.missing {
		return nil
	}
	for level, b := range v.growing {
		v.tile(ctx, level, v.Size>>((level+1)*merkle.TileHeight), b)
	}
	if v.err != nil {
		return v.err
	}
	return v.strays(ctx)
}

// head holds the stored head against the recomputed one.
func (v *verifier) head(size int64, root merkle.Hash, edge []byte) {
	if own, err := merkle.ParseEdge(size, edge); err == nil && size > v.Size && own.Root() == root {
		v.add(PartCommit, v.Size, "missing: a sound head counts %d records, the commits hold %d", size, v.Size)
		v.missing = true
		return
	}
	if size != v.Size {
		v.add(PartHead, v.Size, "it counts %d records, the commits hold %d", size, v.Size)
	}
	if string(edge) != string(v.edge.Bytes()) {
		v.add(PartHead, v.Size, "its edge does not follow from the leaves")
	}
	if root != v.Root {
		v.add(PartHead, v.Size, "its root does not follow from the leaves")
	}
}

// commit looks at the next commit after a place and gives its place.
func (v *verifier) commit(ctx context.Context, after int64) (int64, error) {
	var first int64
	var leaves, ends, records []byte
	err := v.j.db.QueryRow(ctx, `SELECT first, leaves, ends, records FROM journal_commit
		WHERE first > ? ORDER BY first LIMIT 1`, after).Scan(&first, &leaves, &ends, &records)
	if err != nil {
		return 0, err
	}
	n := len(leaves) / leafSize
	switch next := v.edge.Size(); {
	case len(leaves)%leafSize != 0 || n*endSize != len(ends) || n == 0:
		v.add(PartCommit, first, "its leaves and records are not of one number")
		v.missing = true
		return first, nil
	case first != next && !v.missing:
		v.add(PartCommit, next, "missing or out of place: the next commit is at %d", first)
		v.missing = true
	}
	for i := range n {
		index, leaf := first+int64(i), [32]byte(leaves[i*leafSize:])
		if leaf, err = v.record(ctx, index, leaf, ends, i, records); err != nil {
			return 0, err
		}
		if !v.missing {
			v.edge.Append(merkle.Leaf(leaf[:]), func(level int, n int64, root merkle.Hash) { v.full(ctx, level, n, root) })
		}
	}
	return first, v.err
}

// record holds one record against its leaf and its key, and gives the leaf
// that it should have: its own, where it can be read.
func (v *verifier) record(ctx context.Context, index int64, leaf [32]byte, ends []byte, i int, records []byte) ([32]byte, error) {
	from, to, ok := span(ends, i)
	if !ok || to > len(records) || i == len(ends)/endSize-1 && to != len(records) {
		v.add(PartRecord, index, "it does not lie within its commit")
		return leaf, nil
	}
	s, wrong := v.j.open(index, leaf, records[from:to])
	switch {
	case s.Erased:
		v.Erased++
		return leaf, nil
	case wrong == PartRecord:
		v.add(PartRecord, index, "it cannot be decrypted")
		return leaf, nil
	case wrong == PartLeaf:
		v.add(PartLeaf, index, "it is not that of its record")
	}
	v.Read++
	if s.Key == "" {
		return s.Leaf, nil
	}
	v.keyed++
	sum := v.j.keys.Sum([]byte(s.Key))
	var found int
	err := v.j.db.QueryRow(ctx, "SELECT COUNT(*) FROM journal_key WHERE key = ? AND idx = ?", sum[:], index).Scan(&found)
	if err == nil && found == 0 {
		v.add(PartKey, index, "its record cannot be found by its key")
	}
	return s.Leaf, err
}

// full takes the root of a tile that the leaves completed.
func (v *verifier) full(ctx context.Context, level int, n int64, root merkle.Hash) {
	b := append(v.growing[level], root[:]...)
	v.growing[level] = b
	if len(b) == merkle.TileWidth*merkle.HashSize {
		v.tile(ctx, level, n/merkle.TileWidth, b)
		v.growing[level] = nil
	}
}

// tile holds a stored tile against the hashes it should begin with.
func (v *verifier) tile(ctx context.Context, level int, n int64, want []byte) {
	if v.err != nil || len(want) == 0 {
		return
	}
	var got []byte
	err := v.j.db.QueryRow(ctx, "SELECT hashes FROM journal_tile WHERE level = ? AND n = ?", level, n).Scan(&got)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		v.err = err
		return
	}
	for i := 0; i < len(want); i += merkle.HashSize {
		h := want[i : i+merkle.HashSize]
		if len(got) < i+merkle.HashSize || string(got[i:i+merkle.HashSize]) != string(h) {
			v.addWrong(Wrong{
				Part: PartTile, Level: level, Index: n*merkle.TileWidth + int64(i/merkle.HashSize),
				Detail: "the hash does not follow from the leaves below it",
			})
		}
	}
}

// strays looks for keys and tiles that belong to no record.
func (v *verifier) strays(ctx context.Context) error {
	var keys int64
	err := v.j.db.QueryRow(ctx, "SELECT COUNT(*) FROM journal_key WHERE idx < ?", v.Size).Scan(&keys)
	if err != nil {
		return err
	}
	if more := keys - v.keyed - v.Erased; more > 0 {
		v.add(PartKey, -1, "%d keys more than there are records", more)
	}
	rows, err := v.j.db.Query(ctx, "SELECT level, n FROM journal_tile")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var level int
		var n int64
		if err := rows.Scan(&level, &n); err != nil {
			return err
		}
		// A tile just beyond is of records appended meanwhile.
		if level < 1 || level > merkle.MaxLevel || n < 0 || n > v.Size>>((level+1)*merkle.TileHeight)+1 {
			v.addWrong(Wrong{Part: PartTile, Level: level, Index: n, Detail: "a tile that no leaf is under"})
		}
	}
	return rows.Err()
}
