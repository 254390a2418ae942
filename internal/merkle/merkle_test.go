package merkle_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/merkle"
)

// log keeps a tree twice: as this package lays it out, and as the tlog
// package stores one, which is the measure.
type log struct {
	edge   merkle.Edge
	tiles  map[[2]int64][]byte // level and number: hashes
	stored []merkle.Hash
}

func grow(t interface{ Fatalf(string, ...any) }, size int) *log {
	l := &log{tiles: map[[2]int64][]byte{}}
	for i := range size {
		l.add(t, binary.BigEndian.AppendUint64(nil, uint64(i)))
	}
	return l
}

func (l *log) add(t interface{ Fatalf(string, ...any) }, entry []byte) {
	n := l.edge.Size()
	hashes, err := tlog.StoredHashes(n, entry, tlog.HashReaderFunc(l.read))
	if err != nil {
		t.Fatalf("the measure: %v", err)
	}
	l.stored = append(l.stored, hashes...)
	put := func(level int, n int64, h merkle.Hash) {
		at := [2]int64{int64(level), n / merkle.TileWidth}
		if int64(len(l.tiles[at])/merkle.HashSize) != n%merkle.TileWidth {
			t.Fatalf("hash %d of level %d comes out of turn", n, level)
		}
		l.tiles[at] = append(l.tiles[at], h[:]...)
	}
	put(0, n, merkle.Leaf(entry))
	l.edge.Append(merkle.Leaf(entry), put)
}

func (l *log) read(indexes []int64) ([]merkle.Hash, error) {
	out := make([]merkle.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.stored[x]
	}
	return out, nil
}

func (l *log) tile(level int, n int64, width int) ([]byte, error) {
	b := l.tiles[[2]int64{int64(level), n}]
	if len(b) < width*merkle.HashSize {
		return nil, fmt.Errorf("tile %d of level %d has no width %d", n, level, width)
	}
	return b[:width*merkle.HashSize], nil
}

// TestRoots are the trees of Certificate Transparency's reference test data.
func TestRoots(t *testing.T) {
	entries := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var e merkle.Edge
	for i, want := range roots {
		if got := e.Root(); hex.EncodeToString(got[:]) != want {
			t.Errorf("the root of %d leaves is %x", i, got)
		}
		if i < len(entries) {
			b, err := hex.DecodeString(entries[i])
			if err != nil {
				t.Fatal(err)
			}
			e.Append(merkle.Leaf(b), nil)
		}
	}
}

// TestTree holds tiles, edges and proofs of many sizes against tlog's.
func TestTree(t *testing.T) {
	const most = 1 << 17 // two levels of full tiles
	l := &log{tiles: map[[2]int64][]byte{}}
	for i := range most + 700 {
		switch size := int64(i); {
		case i < 20, i >= 250 && i < 260, i == 511, i == 65535, i == 65536, i == 65537, i == 65792, i == most-1, i == most, i == most+699:
			l.check(t, size)
		}
		l.add(t, binary.BigEndian.AppendUint64(nil, uint64(i)))
	}
}

func (l *log) check(t *testing.T, size int64) {
	t.Helper()
	root, err := tlog.TreeHash(size, tlog.HashReaderFunc(l.read))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.edge.Root(); got != root || l.edge.Size() != size {
		t.Fatalf("size %d: the edge gives %v of %d", size, got, l.edge.Size())
	}
	// Each tile that tlog would publish is there, hash by hash.
	for _, tile := range tlog.NewTiles(merkle.TileHeight, max(0, size-1000), size) {
		want, err := tlog.ReadTileData(tile, tlog.HashReaderFunc(l.read))
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.tile(tile.L, tile.N, tile.W)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("size %d: %s differs, %v", size, tile.Path(), err)
		}
		if w := merkle.Width(size, tile.L, tile.N); w != tile.W {
			t.Fatalf("size %d: %s has width %d", size, tile.Path(), w)
		}
	}
	edge, err := merkle.EdgeOf(size, l.tile)
	if err != nil || !bytes.Equal(edge.Bytes(), l.edge.Bytes()) {
		t.Fatalf("size %d: the edge from the tiles differs, %v", size, err)
	}
	again, err := merkle.ParseEdge(size, l.edge.Bytes())
	if err != nil || again.Root() != root {
		t.Fatalf("size %d: the edge does not come back, %v", size, err)
	}
	for _, index := range []int64{0, 1, 255, 256, size / 2, size - 2, size - 1} {
		if index < 0 || index >= size {
			continue
		}
		want, err := tlog.ProveRecord(size, index, tlog.HashReaderFunc(l.read))
		if err != nil {
			t.Fatal(err)
		}
		got, proven, err := merkle.Prove(size, index, l.tile)
		if err != nil || proven != root || fmt.Sprint(got) != fmt.Sprint([]merkle.Hash(want)) {
			t.Fatalf("the proof of %d in %d differs, %v", index, size, err)
		}
	}
}

func TestProof(t *testing.T) {
	l := grow(t, 700)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 700).Draw(t, "size")
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		proof, root, err := merkle.Prove(size, index, l.tile)
		if err != nil {
			t.Fatal(err)
		}
		leaf := merkle.Leaf(binary.BigEndian.AppendUint64(nil, uint64(index)))
		if err := merkle.Check(proof, size, root, index, leaf); err != nil {
			t.Fatal(err)
		}
		// Whatever is changed, it proves no more.
		switch rapid.IntRange(0, 3).Draw(t, "change") {
		case 0:
			leaf[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1
		case 1:
			root[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1
		case 2:
			index = (index + 1) % (size + 1)
			if merkle.Leaf(binary.BigEndian.AppendUint64(nil, uint64(index))) == leaf {
				return
			}
		case 3:
			proof = append(proof, merkle.Hash{})
		}
		if merkle.Check(proof, size, root, index, leaf) == nil {
			t.Fatal("a changed proof passed")
		}
	})
	for _, c := range [][2]int64{{0, 0}, {5, 5}, {5, -1}, {701, 0}, {1 << 50, 0}} {
		if _, _, err := merkle.Prove(c[0], c[1], l.tile); err == nil {
			t.Errorf("leaf %d of %d was proven", c[1], c[0])
		}
	}
	torn := func(level int, n int64, width int) ([]byte, error) { return l.tiles[[2]int64{int64(level), n}], nil }
	if _, _, err := merkle.Prove(600, 3, torn); err == nil {
		t.Error("tiles of the wrong length were used")
	}
}

func TestWidth(t *testing.T) {
	for _, c := range []struct {
		size  int64
		level int
		n     int64
		want  int
	}{
		{0, 0, 0, 0}, {1, 0, 0, 1}, {256, 0, 0, 256}, {256, 0, 1, 0}, {257, 0, 1, 1}, {256, 1, 0, 1}, {255, 1, 0, 0},
		{70000, 1, 1, 17}, {70000, 2, 0, 1}, {70000, 3, 0, 0}, {9, -1, 0, 0}, {9, 0, -1, 0}, {9, 64, 0, 0},
	} {
		if got := merkle.Width(c.size, c.level, c.n); got != c.want {
			t.Errorf("tile %d of level %d at size %d has width %d, not %d", c.n, c.level, c.size, got, c.want)
		}
	}
}

// TestPaths are tlog-tiles' forms.
func TestPaths(t *testing.T) {
	for want, got := range map[string]string{
		"tile/0/000":                     merkle.Path(0, 0, 256),
		"tile/0/001.p/5":                 merkle.Path(0, 1, 5),
		"tile/3/x001/x234/067":           merkle.Path(3, 1234067, 256),
		"tile/1/x273/145.p/255":          merkle.Path(1, 273145, 255),
		"tile/entries/x001/000":          merkle.BundlePath(1000, 256),
		"tile/entries/x123/x456/789.p/1": merkle.BundlePath(123456789, 1),
	} {
		if got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	if got := merkle.Bundle([]byte("abcdef"), 3); string(got) != "\x00\x03abc\x00\x03def" {
		t.Errorf("the bundle is %q", got)
	}
}

func FuzzParseEdge(f *testing.F) {
	f.Add(int64(0), []byte{})
	f.Add(int64(3), make([]byte, 64))
	f.Add(int64(-1), make([]byte, 2048))
	f.Add(int64(1)<<41, make([]byte, 32))
	f.Fuzz(func(t *testing.T, size int64, b []byte) {
		e, err := merkle.ParseEdge(size, b)
		if err != nil {
			return
		}
		if !bytes.Equal(e.Bytes(), b) || e.Size() != size {
			t.Fatalf("an edge of %d came back otherwise", size)
		}
		e.Append(merkle.Hash{}, func(int, int64, merkle.Hash) {})
		e.Root()
		if _, err := merkle.ParseEdge(size+1, e.Bytes()); err != nil && size < merkle.MaxSize {
			t.Fatal(err)
		}
	})
}
