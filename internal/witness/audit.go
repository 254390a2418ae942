package witness

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
)

// Get reads what a log serves under a path: checkpoint, tile/….
type Get func(ctx context.Context, path string) ([]byte, error)

// Audited is what was found of a whole log.
type Audited struct {
	Head    merkle.Signed
	Entries int64
	Tiles   int64
}

// Audit recomputes a whole log from its entries: every tile must be what the
// entries give, and the root the one under the checkpoint, which the log must
// have signed (LogUnsigned). Fewer cosignatures than the quorum are merkle.ErrQuorum, beside
// a result that holds otherwise; what does not fit is LogDivided. What it
// needs of memory does not grow with the log.
func Audit(ctx context.Context, get Get, trust merkle.Trust) (a Audited, err error) {
	b, err := get(ctx, "checkpoint")
	if err != nil {
		return a, err
	}
	if a.Head, err = merkle.OpenCheckpoint(b, trust.Log, trust.Witnesses...); err != nil {
		if !errors.Is(err, merkle.ErrUnsigned) {
			return a, fault.Wrap(fault.LogDivided, err, "its checkpoint does not verify")
		}
		of := merkle.Origin(b)
		if strings.ContainsFunc(of, func(r rune) bool { return r <= ' ' || r > '~' }) {
			of = "no log" // it goes to a terminal
		}
		return a, fault.Wrap(fault.LogUnsigned, err, "its checkpoint names %s, and is not signed by the key of %s", of, trust.Log.Name())
	}
	r := recount{ctx: ctx, get: get, size: a.Head.Size, open: map[int][]byte{}}
	for first := int64(0); first < r.size; first += merkle.TileWidth {
		if err := r.bundle(first / merkle.TileWidth); err != nil {
			return a, err
		}
	}
	for level := range merkle.MaxLevel + 1 {
		if n := len(r.open[level]) / merkle.HashSize; n > 0 {
			if err := r.compare(level, (r.size>>(level*merkle.TileHeight))/merkle.TileWidth); err != nil {
				return a, err
			}
		}
	}
	a.Entries, a.Tiles = r.edge.Size(), r.tiles
	if r.edge.Root() != a.Head.Root {
		return a, fault.New(fault.LogDivided, "the %d entries do not give the root of the checkpoint", r.size)
	}
	if n := a.Head.Witnesses(); n < trust.Quorum {
		return a, fmt.Errorf("%w: %d of %d", merkle.ErrQuorum, n, trust.Quorum)
	}
	return a, nil
}

// recount builds the tree anew and holds each tile against it.
type recount struct {
	ctx   context.Context
	get   Get
	size  int64
	edge  merkle.Edge
	open  map[int][]byte // the tile that is growing, of each level
	tiles int64
}

func (r *recount) bundle(n int64) error {
	width := merkle.Width(r.size, 0, n)
	b, err := r.read(merkle.BundlePath(n, width), merkle.BundlePath(n, merkle.TileWidth))
	if err != nil {
		return err
	}
	for range width {
		if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return fault.New(fault.LogDivided, "the bundle %d of entries is cut off", n)
		}
		end := 2 + int(binary.BigEndian.Uint16(b))
		if err := r.add(merkle.Leaf(b[2:end])); err != nil {
			return err
		}
		b = b[end:]
	}
	if len(b) > 0 && width == merkle.TileWidth {
		return fault.New(fault.LogDivided, "the bundle %d of entries holds more than it may", n)
	}
	return nil
}

func (r *recount) add(leaf merkle.Hash) error {
	var err error
	put := func(level int, n int64, h merkle.Hash) {
		r.open[level] = append(r.open[level], h[:]...)
		if err == nil && len(r.open[level]) == merkle.TileWidth*merkle.HashSize {
			err = r.compare(level, n/merkle.TileWidth)
		}
	}
	put(0, r.edge.Size(), leaf)
	r.edge.Append(leaf, put)
	return err
}

// compare holds the growing tile of a level against what is served, and begins
// the next.
func (r *recount) compare(level int, n int64) error {
	want := r.open[level]
	width := len(want) / merkle.HashSize
	b, err := r.read(merkle.Path(level, n, width), merkle.Path(level, n, merkle.TileWidth))
	if err != nil {
		return err
	}
	if len(b) < len(want) || !bytes.Equal(b[:len(want)], want) {
		return fault.New(fault.LogDivided, "%s is not what the entries give", merkle.Path(level, n, width))
	}
	r.open[level] = want[:0]
	r.tiles++
	return nil
}

// read fetches a part; where a partial one is no longer served, the whole.
func (r *recount) read(path, whole string) ([]byte, error) {
	b, err := r.get(r.ctx, path)
	if err != nil && path != whole && r.ctx.Err() == nil {
		if all, bad := r.get(r.ctx, whole); bad == nil {
			return all, nil
		}
	}
	if err != nil {
		return nil, errors.Join(fault.New(fault.NotFound, "%s cannot be read", path), err)
	}
	return b, nil
}
