// Package merkle is the mathematics of the log: an RFC 6962 tree laid out in
// C2SP tlog-tiles (https://c2sp.org/tlog-tiles), its growing right edge, proofs,
// and what is signed of it: checkpoints, cosignatures, receipts. It does no I/O
// and knows nothing of what the entries mean.
package merkle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a SHA-256 node of the tree.
type Hash = tlog.Hash

const (
	// HashSize is the length of a Hash in bytes.
	HashSize = tlog.HashSize
	// TileHeight is how many levels of the tree one tile spans.
	TileHeight = 8
	// TileWidth is how many hashes, or entries, a full tile holds.
	TileWidth = 1 << TileHeight
	// MaxLevel is the highest level of tiles that tlog-tiles knows.
	MaxLevel = 5
	// MaxSize bounds the tree: what MaxLevel can address, far below it.
	MaxSize = 1 << 40
)

// Leaf is the hash of an entry (RFC 6962 section 2.1: 0x00 before it).
func Leaf(entry []byte) Hash { return tlog.RecordHash(entry) }

// Edge is the right edge of a tree: the roots of its full subtrees, largest
// first, one for each set bit of the size. It is all that growing takes.
type Edge struct {
	size  int64
	roots []Hash
}

// ParseEdge reads what Bytes gave for a tree of that size.
func ParseEdge(size int64, b []byte) (Edge, error) {
	if size < 0 || size > MaxSize || len(b) != bits.OnesCount64(uint64(size))*HashSize {
		return Edge{}, fmt.Errorf("merkle: an edge of %d bytes does not fit a tree of size %d", len(b), size)
	}
	e := Edge{size: size, roots: make([]Hash, 0, len(b)/HashSize+1)}
	for ; len(b) > 0; b = b[HashSize:] {
		e.roots = append(e.roots, Hash(b[:HashSize]))
	}
	return e, nil
}

// Bytes is the edge as it is stored: its hashes, one after the other.
func (e *Edge) Bytes() []byte { return join(e.roots) }

// Size is the number of leaves.
func (e *Edge) Size() int64 { return e.size }

// Append adds a leaf. For each tile that the leaf completes, lowest first, it
// calls full with the place of that tile's root in the tiles of the level
// above: full(1, n, root) means that tile n of level 0 is complete.
func (e *Edge) Append(leaf Hash, full func(level int, n int64, root Hash)) {
	h := leaf
	height := 0
	for n := e.size; n&1 == 1; n >>= 1 {
		last := len(e.roots) - 1
		h = tlog.NodeHash(e.roots[last], h)
		e.roots = e.roots[:last]
		height++
		if height%TileHeight == 0 {
			full(height/TileHeight, n>>1, h)
		}
	}
	e.roots = append(e.roots, h)
	e.size++
}

// Root is the root of the tree; for an empty one the hash of nothing.
func (e *Edge) Root() Hash {
	if len(e.roots) == 0 {
		return sha256.Sum256(nil)
	}
	h := e.roots[len(e.roots)-1]
	for i := len(e.roots) - 2; i >= 0; i-- {
		h = tlog.NodeHash(e.roots[i], h)
	}
	return h
}

// Tiles gives width hashes of tile n of a level, one after the other.
type Tiles func(level int, n int64, width int) ([]byte, error)

// Width is the width of tile n of a level in a tree of that size; 0 where
// there is no such tile.
func Width(size int64, level int, n int64) int {
	if level < 0 || level > MaxLevel || n < 0 {
		return 0
	}
	return int(max(0, min(TileWidth, size>>(level*TileHeight)-n*TileWidth)))
}

// EdgeOf computes the edge of a tree from its tiles.
func EdgeOf(size int64, tiles Tiles) (Edge, error) {
	e := Edge{size: size}
	for bit, done := 62, int64(0); bit >= 0; bit-- {
		if size>>bit&1 == 0 {
			continue
		}
		level := bit / TileHeight
		first := done >> (level * TileHeight)
		count := 1 << (bit % TileHeight)
		from := int(first % TileWidth)
		b, err := tile(tiles, level, first/TileWidth, from+count)
		if err != nil {
			return Edge{}, err
		}
		e.roots = append(e.roots, subtree(b[from*HashSize:]))
		done += 1 << bit
	}
	return e, nil
}

// subtree is the root over a power of two of hashes.
func subtree(b []byte) Hash {
	if len(b) == HashSize {
		return Hash(b)
	}
	return tlog.NodeHash(subtree(b[:len(b)/2]), subtree(b[len(b)/2:]))
}

func tile(tiles Tiles, level int, n int64, width int) ([]byte, error) {
	b, err := tiles(level, n, width)
	if err != nil {
		return nil, err
	}
	if len(b) != width*HashSize {
		return nil, fmt.Errorf("merkle: tile %s has %d bytes", Path(level, n, width), len(b))
	}
	return b, nil
}

// Prove gives the inclusion proof (RFC 6962 section 2.1.1) of a leaf in the
// tree of the first size leaves, and that tree's root, from its tiles.
func Prove(size, index int64, tiles Tiles) ([]Hash, Hash, error) {
	if index < 0 || index >= size || size > MaxSize {
		return nil, Hash{}, fmt.Errorf("merkle: leaf %d is not in a tree of size %d", index, size)
	}
	r := reader(size, tiles)
	root, err := tlog.TreeHash(size, r)
	if err != nil {
		return nil, Hash{}, err
	}
	proof, err := tlog.ProveRecord(size, index, r)
	return proof, root, err
}

// Check verifies an inclusion proof.
func Check(proof []Hash, size int64, root Hash, index int64, leaf Hash) error {
	if index < 0 || index >= size || len(proof) > 64 {
		return errors.New("merkle: the proof cannot be one")
	}
	return tlog.CheckRecord(proof, size, root, index, leaf)
}

// ProveGrowth gives the consistency proof (RFC 6962 section 2.1.2) between the
// tree of the first old leaves and that of the first size, and both roots.
func ProveGrowth(old, size int64, tiles Tiles) (proof []Hash, before, now Hash, err error) {
	if old < 0 || old > size || size > MaxSize {
		return nil, Hash{}, Hash{}, fmt.Errorf("merkle: a tree of size %d does not grow to %d", old, size)
	}
	r := reader(size, tiles)
	if before, err = tlog.TreeHash(old, r); err != nil {
		return nil, Hash{}, Hash{}, err
	}
	if now, err = tlog.TreeHash(size, r); err != nil {
		return nil, Hash{}, Hash{}, err
	}
	if old > 0 {
		proof, err = tlog.ProveTree(size, old, r)
	}
	return proof, before, now, err
}

// CheckGrowth verifies a consistency proof.
func CheckGrowth(proof []Hash, old int64, before Hash, size int64, now Hash) error {
	switch {
	case old < 0 || old > size || size > MaxSize || len(proof) > maxProof:
		return errors.New("merkle: the proof cannot be one")
	case old == 0:
		if len(proof) > 0 || before != sha256.Sum256(nil) || size == 0 && now != before {
			return errors.New("merkle: nothing is proved of an empty tree")
		}
		return nil
	}
	return tlog.CheckTree(proof, size, now, old, before)
}

// reader reads single nodes, each tile once.
func reader(size int64, tiles Tiles) tlog.HashReader {
	seen := map[[2]int64][]byte{}
	return tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		out := make([]Hash, len(indexes))
		for i, x := range indexes {
			height, n := tlog.SplitStoredHashIndex(x)
			level := height / TileHeight
			first := n << (height % TileHeight)
			at := [2]int64{int64(level), first / TileWidth}
			b, ok := seen[at]
			if !ok {
				var err error
				if b, err = tile(tiles, level, at[1], Width(size, level, at[1])); err != nil {
					return nil, err
				}
				seen[at] = b
			}
			from := int(first%TileWidth) * HashSize
			to := from + HashSize<<(height%TileHeight)
			if to > len(b) {
				return nil, fmt.Errorf("merkle: node %d of height %d is not in a tree of size %d", n, height, size)
			}
			out[i] = subtree(b[from:to])
		}
		return out, nil
	})
}

// Bundle is tlog-tiles' entry bundle: each entry after its length in two
// bytes, big-endian. Entries are of one size, one after the other.
func Bundle(entries []byte, size int) []byte {
	b := make([]byte, 0, len(entries)/size*(2+size))
	for ; len(entries) >= size; entries = entries[size:] {
		b = append(b, byte(size>>8), byte(size))
		b = append(b, entries[:size]...)
	}
	return b
}

// Path is where tlog-tiles serves a tile of hashes.
func Path(level int, n int64, width int) string {
	return "tile/" + strconv.Itoa(level) + "/" + number(n, width)
}

// BundlePath is where tlog-tiles serves a bundle of entries.
func BundlePath(n int64, width int) string { return "tile/entries/" + number(n, width) }

func number(n int64, width int) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	if width != TileWidth {
		s += ".p/" + strconv.Itoa(width)
	}
	return s
}

// Entries stands in the place of a level where ParsePath met a bundle.
const Entries = -1

// ParsePath reads what Path and BundlePath wrote, and nothing else; the level
// of a bundle is Entries.
func ParsePath(path string) (level int, n int64, width int, ok bool) {
	f := strings.Split(path, "/")
	if len(path) > 64 || len(f) < 3 {
		return 0, 0, 0, false
	}
	width = TileWidth
	digits := f[2:]
	if last := len(digits) - 2; last >= 0 && strings.HasSuffix(digits[last], ".p") {
		w, ok := decimal(digits[last+1])
		if !ok || w < 1 || w >= TileWidth {
			return 0, 0, 0, false
		}
		width, digits = int(w), digits[:last+1]
		digits[last] = strings.TrimSuffix(digits[last], ".p")
	}
	for _, d := range digits {
		part, err := strconv.ParseUint(strings.TrimPrefix(d, "x"), 10, 16)
		if err != nil || part > 999 || n > MaxSize {
			return 0, 0, 0, false
		}
		n = n*1000 + int64(part)
	}
	if f[1] == "entries" {
		return Entries, n, width, BundlePath(n, width) == path
	}
	l, ok := decimal(f[1])
	if !ok || l > MaxLevel {
		return 0, 0, 0, false
	}
	return int(l), n, width, Path(int(l), n, width) == path
}

func join(hashes []Hash) []byte {
	b := make([]byte, 0, len(hashes)*HashSize)
	for i := range hashes {
		b = append(b, hashes[i][:]...)
	}
	return b
}
