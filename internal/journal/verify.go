package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

// Part names what was found changed.
type Part string

// The parts of the journal.
const (
	PartRecord Part = "record" // an encrypted record, or where it begins and ends
	PartLeaf   Part = "leaf"   // a leaf that is not its record's
	PartKey    Part = "key"    // a key's hash, beside its record or in the index
	PartCommit Part = "commit" // a commit missing, out of place, or too many
	PartTile   Part = "tile"   // a hash in a tile of level 1 or above
	PartHead   Part = "head"   // size, root or edge of the head

	PartArchive Part = "archive" // a file of the archive, or which records it is said to hold
	PartErasure Part = "erasure" // of a record, decided and not finished in the archive
)

// Wrong is one value that is not what was written.
type Wrong struct {
	Part Part
	// Index is a record's index; of a tile's hash, its place in its level.
	Index  int64
	Level  int    // of a tile
	File   string // of the archive
	Detail string
}

// Report is what Verify found.
type Report struct {
	Size    int64       // records in the log
	Root    merkle.Hash // as recomputed
	Read    int64       // records decrypted and held against their leaf
	Erased  int64       // records whose key was destroyed: only the leaf was looked at
	Absent  []string    // files of the archive that are not there: their records were not looked at
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

// Inspection is what Inspect is told beside the journal's Deps. Its zero value
// is usable.
type Inspection struct {
	// Seen is told after each commit how many records of how many were looked at.
	Seen func(done, all int64)
	// Vouch says whether the note of an archive's file is signed by this state's
	// log; nil: nobody asks.
	Vouch Vouch
	// Record is shown each record that could be read, so that who looks for
	// something in them reads none again.
	Record func(Stored)
}

// Inspect recomputes the log from the records up: every record against its
// leaf and its key, every tile against the leaves, the head against the tiles,
// and the files of the archive. It names every value that changed; the error is
// only of reading. It may run beside a journal that is open on the same
// database: appends go on meanwhile, and are not looked at.
func Inspect(ctx context.Context, deps Deps, in Inspection) (*Report, error) {
	j, err := NewReader(deps)
	if err != nil {
		return nil, err
	}
	return j.inspect(ctx, in)
}

// Verify is Inspect of this journal.
func (j *Journal) Verify(ctx context.Context) (*Report, error) {
	return j.inspect(ctx, Inspection{})
}

func (j *Journal) inspect(ctx context.Context, in Inspection) (*Report, error) {
	if in.Seen == nil {
		in.Seen = func(int64, int64) {}
	}
	if in.Record == nil {
		in.Record = func(Stored) {}
	}
	if in.Vouch == nil {
		in.Vouch = func([]byte) error { return nil }
	}
	v := &verifier{Inspection: in, j: j, growing: map[int][]byte{}, heads: map[[16]byte]headSeen{}}
	defer v.close()
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verifying the journal: %w", err)
	}
	return &v.Report, nil
}

// verifier walks the log once, in short reads: a snapshot held for hours
// would keep the engine from tidying up.
type verifier struct {
	Report
	Inspection
	j       *Journal
	edge    merkle.Edge
	missing bool           // leaves are missing: what lies above cannot be told
	growing map[int][]byte // of each level the tile being filled
	keys    []byte         // of the era being filled
	marks   [][2]int64     // records that were erased, and by which decision
	heads   map[[16]byte]headSeen
	file    *archiveFile // of the archive, that is being read
	// Of the last readable record, the earliest month that the next may name; of
	// the dark ones since, the latest that was named, and by which.
	since, latest seal.Period
	latestAt      int64
	absent        int64 // below it the archive's file is not there
	err           error
}

// headSeen is the head of encrypted records with one random id.
type headSeen struct {
	head  string
	index int64
	dark  bool // its key is said to be destroyed
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
		return tx.QueryRow(ctx, "SELECT COALESCE(MAX(first), ?) FROM journal_commit", int64(math.MinInt64)).Scan(&last)
	})
	if err != nil {
		return err
	}
	if err := v.ranges(ctx); err != nil {
		return err
	}
	for at := int64(math.MinInt64); at < last; {
		if at, err = v.commit(ctx, at); err != nil {
			return err
		}
		v.Seen(min(at+1, size), size)
	}
	if err := v.erasures(ctx); err != nil {
		return err
	}
	if err := v.unfinished(ctx); err != nil {
		return err
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
	var leaves, keys, ends, records []byte
	err := v.j.db.QueryRow(ctx, `SELECT first, leaves, keys, ends, records FROM journal_commit
		WHERE first > ? ORDER BY first LIMIT 1`, after).Scan(&first, &leaves, &keys, &ends, &records)
	if err != nil {
		return 0, err
	}
	n := len(leaves) / leafSize
	switch next := v.edge.Size(); {
	case n == 0 || len(leaves) != n*leafSize || len(keys) != n*keySize || len(ends) != n*endSize && len(ends)+len(records) > 0:
		v.add(PartCommit, first, "its leaves, keys and records are not of one number")
		v.missing = true
		return first, nil
	case first != next && !v.missing:
		v.add(PartCommit, next, "missing or out of place: the next commit is at %d", first)
		v.missing = true
	}
	inFile := len(ends) == 0
	if inFile {
		v.openFile(ctx, first, int64(n))
	}
	for i := range n {
		index := first + int64(i)
		leaf, key := [leafSize]byte(leaves[i*leafSize:]), [keySize]byte(keys[i*keySize:])
		var s Stored
		var ok bool
		if inFile {
			s, ok = v.archived(index, leaf)
		} else {
			s, ok = v.record(index, leaf, ends, i, records)
		}
		if s.ErasedBy != 0 && key != [keySize]byte{} {
			v.add(PartKey, index, "its record was erased, and it was to go with it")
		}
		if ok {
			leaf = s.Leaf
			if own := v.j.hash(s.Key); own != key {
				v.add(PartKey, index, "it is not that of its record")
				key = own
			}
		}
		if !v.missing {
			v.edge.Append(merkle.Leaf(leaf[:]), func(level int, n int64, root merkle.Hash) { v.full(ctx, level, n, root) })
			if v.keys = append(v.keys, key[:]...); len(v.keys) == eraSize*keySize {
				v.era(ctx, index/eraSize)
			}
		}
	}
	return first, v.err
}

// record holds one record against its leaf. Where it can be read, its own
// leaf and key are the ones to go on with, whatever is stored beside it.
func (v *verifier) record(index int64, leaf [leafSize]byte, ends []byte, i int, records []byte) (Stored, bool) {
	from, to, ok := span(ends, i)
	if !ok || to > len(records) || i == len(ends)/endSize-1 && to != len(records) {
		v.add(PartRecord, index, "it does not lie within its commit")
		return Stored{}, false
	}
	return v.opened(index, leaf, records[from:to])
}

// opened judges the bytes of a record.
func (v *verifier) opened(index int64, leaf [leafSize]byte, sealed []byte) (Stored, bool) {
	s, wrong, err := v.j.open(index, leaf, sealed)
	if wrong == "" && s.ErasedBy == 0 && (!v.sameHead(index, sealed, s.Erased) || !v.inTime(index, sealed, s)) {
		return s, false
	}
	switch {
	case s.Erased:
		v.Erased++
		if s.ErasedBy != 0 {
			v.marks = append(v.marks, [2]int64{index, s.ErasedBy})
		}
		return s, false
	case wrong == PartRecord:
		v.add(PartRecord, index, "it cannot be read: %v", err)
		return s, false
	case wrong == PartLeaf:
		v.add(PartLeaf, index, "it is not that of its record")
	}
	v.Read++
	v.Record(s)
	return s, true
}

// sameHead tells whether a record names the same key as the others with its
// random id: a changed month could name a key that was destroyed, and a record
// that is there pass for one that is not.
func (v *verifier) sameHead(index int64, sealed []byte, dark bool) bool {
	head, id, ok := seal.RecordHead(sealed)
	if !ok {
		return true
	}
	was, seen := v.heads[id]
	switch {
	case !seen:
		v.heads[id] = headSeen{string(head), index, dark}
		return true
	case was.head == string(head):
		return true
	case was.dark && !dark: // the one before was the changed one
		v.add(PartRecord, was.index, "the key that it names is not the one under which it lies")
		v.heads[id] = headSeen{string(head), index, dark}
		return true
	}
	v.add(PartRecord, index, "the key that it names is not the one under which it lies")
	return false
}

// monthSlack is how much earlier or later a record's time may be than its
// neighbours'.
const monthSlack = 24 * time.Hour

// inTime holds the month that a dark record names against its readable
// neighbours': it could have been changed to one that has ended.
func (v *verifier) inTime(index int64, sealed []byte, s Stored) bool {
	_, month, ok := seal.PeriodOfRecord(sealed)
	if !ok {
		return true
	}
	if !s.Erased {
		if v.latest > seal.PeriodOf(s.At.Add(monthSlack)) {
			v.add(PartRecord, v.latestAt, "the month that it names is after that of record %d", index)
		}
		v.latest, v.since = 0, seal.PeriodOf(s.At.Add(-monthSlack))
		return true
	}
	if month < v.since {
		v.add(PartRecord, index, "the month that it names is before that of the records before it")
		return false
	}
	if month > v.latest {
		v.latest, v.latestAt = month, index
	}
	return true
}

// era holds the index of an era against the keys of its records.
func (v *verifier) era(ctx context.Context, era int64) {
	for part, want := range indexEra(v.keys) {
		var got []byte
		err := v.j.db.QueryRow(ctx, "SELECT keys FROM journal_key WHERE part = ? AND era = ?", part, era).Scan(&got)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			v.err = err
			return
		}
		if err != nil || string(got) != string(want) {
			v.add(PartKey, era*eraSize, "part %d of the index of %d records from here on", part, eraSize)
		}
	}
	v.keys = v.keys[:0]
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

// strays looks for tiles and indexes that belong to no record.
func (v *verifier) strays(ctx context.Context) error {
	tiles, err := pairs(ctx, v.j.db, "SELECT level, n FROM journal_tile")
	if err != nil {
		return err
	}
	parts, err := pairs(ctx, v.j.db, "SELECT part, era FROM journal_key")
	if err != nil {
		return err
	}
	// Read last, since what came meanwhile is not astray.
	size, _, _, err := readHead(ctx, v.j.db)
	if err != nil && fault.CodeOf(err) != fault.Corrupt {
		return err
	}
	size = max(size, v.Size)
	const detail = "it belongs to no record"
	for _, t := range tiles {
		if level, n := int(t[0]), t[1]; level < 1 || merkle.Width(size, level, n) == 0 {
			v.addWrong(Wrong{Part: PartTile, Level: level, Index: n * merkle.TileWidth, Detail: detail})
		}
	}
	for _, p := range parts {
		if part, era := p[0], p[1]; part < 0 || part > 255 || era < 0 || era >= size/eraSize {
			v.addWrong(Wrong{Part: PartKey, Index: era * eraSize, Detail: detail})
		}
	}
	return v.strayFiles(ctx)
}

func pairs(ctx context.Context, q querier, query string) ([][2]int64, error) {
	rows, err := q.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out [][2]int64
	for rows.Next() {
		var p [2]int64
		if err := rows.Scan(&p[0], &p[1]); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}
