package witness

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/union"
)

// examine holds a state's log against what is expected of it, and gives what
// still is. The error says why its log cannot be seen: then nothing is held
// against anybody.
func (p *Promises) examine(ctx context.Context, s union.State, w *ward, log merkle.Key) (left []Held, err error) {
	left = slices.Clone(w.working) // which stays as it is: others count it
	asked := p.deps.Now()
	ask := func(kind, path string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, p.cfg.Answer)
		defer cancel()
		return p.deps.Ask(ctx, s, kind, []byte(path))
	}
	left = slices.DeleteFunc(left, func(h Held) bool {
		if h.Index < 0 {
			p.breach(w, AlarmUnpromised, &h, Broken{})
		}
		return h.Index < 0
	})
	if len(left) == 0 {
		return nil, nil
	}
	b, err := ask(KindHead, "")
	if err != nil {
		return left, err
	}
	head, err := merkle.OpenCheckpoint(b, log)
	if err != nil {
		return left, fmt.Errorf("its head: %w", err)
	}
	read := shown(head.Size, ask)
	if err := p.continues(ctx, w, head, read); err != nil {
		return left, err
	}
	// In the order of the log: of each bundle of entries, once.
	slices.SortFunc(left, func(a, b Held) int { return int(a.Index - b.Index) })
	var late []Held
	for len(left) > 0 {
		n := left[0].Index / merkle.TileWidth
		if left[0].Index >= head.Size {
			late = left
			break
		}
		here, _ := slices.BinarySearchFunc(left, min(head.Size, (n+1)*merkle.TileWidth), func(h Held, to int64) int { return int(h.Index - to) })
		bundle, err := read.bundle(n)
		if err != nil {
			return left, err
		}
		if err := p.compare(w, head, read, n, bundle, left[:here]); err != nil {
			return left, err
		}
		left = left[here:]
	}
	left = nil
	for _, h := range late {
		if asked.Sub(h.At) < p.cfg.Due {
			left = append(left, h)
			continue
		}
		p.breach(w, AlarmLate, &h, Broken{}, string(head.Note()))
	}
	p.mu.Lock()
	w.last = head
	p.mu.Unlock()
	return left, nil
}

// compare holds one bundle of entries against what was promised of it.
func (p *Promises) compare(w *ward, head merkle.Signed, read *reading, n int64, entries []byte, held []Held) error {
	first := n * merkle.TileWidth
	proof, root, err := merkle.Prove(head.Size, first, read.over(n, entries))
	if err != nil {
		return err
	}
	// The proof of its first entry covers the rest of the bundle.
	if root != head.Root || merkle.Check(proof, head.Size, head.Root, first, merkle.Leaf(entries[:merkle.HashSize])) != nil {
		p.breach(w, AlarmDivided, nil, Broken{}, string(head.Note()))
		return fault.New(fault.LogDivided, "the entries do not give the root of %d that it signed", head.Size)
	}
	for _, h := range held {
		at := int(h.Index-first) * merkle.HashSize
		entry := entries[at : at+merkle.HashSize]
		if [32]byte(entry) == h.Leaf {
			continue
		}
		b := Broken{Entry: hex.EncodeToString(entry)}
		if proof, _, err := merkle.Prove(head.Size, h.Index, read.over(n, entries)); err == nil {
			for _, x := range proof {
				b.Proof = append(b.Proof, hex.EncodeToString(x[:]))
			}
		}
		p.breach(w, AlarmAbsent, &h, b, string(head.Note()))
	}
	return nil
}

// continues holds a head against the one seen before, and against what this
// state's witness has cosigned: whoever shows one history here and another
// there is found.
func (p *Promises) continues(ctx context.Context, w *ward, head merkle.Signed, read *reading) error {
	p.mu.Lock()
	known := []merkle.Signed{w.last}
	p.mu.Unlock()
	var b []byte
	err := p.deps.DB.QueryRow(ctx, "SELECT note FROM witness_head WHERE origin = ?", head.Origin).Scan(&b)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fault.Wrap(fault.StoreFailed, err, "the witness's record of %s", head.Origin)
	}
	for _, party := range p.deps.Union().Parties {
		if party.Log.Name() == head.Origin && len(b) > 0 {
			if s, err := merkle.OpenCheckpoint(b, party.Log); err == nil {
				known = append(known, s)
			}
		}
	}
	for _, k := range known {
		if k.Origin != head.Origin || k.Checkpoint == head.Checkpoint {
			continue
		}
		one, err := grown(k, head, read.tiles)
		if err != nil {
			return err
		}
		if !one {
			p.breach(w, AlarmDivided, nil, Broken{}, string(k.Note()), string(head.Note()))
			return fault.New(fault.LogDivided, "its heads of %d and %d entries do not belong together", k.Size, head.Size)
		}
	}
	return nil
}

// grown tells whether of two heads of a log the longer grew out of the other,
// by the log's own tiles.
func grown(a, b merkle.Signed, tiles merkle.Tiles) (bool, error) {
	if a.Size > b.Size {
		a, b = b, a
	}
	_, before, now, err := merkle.ProveGrowth(a.Size, b.Size, tiles)
	if err != nil {
		return false, err
	}
	return before == a.Root && now == b.Root, nil
}

// reading reads a log over the link, each tile once.
type reading struct {
	size int64
	ask  func(kind, path string) ([]byte, error)
	seen map[string][]byte
}

func shown(size int64, ask func(kind, path string) ([]byte, error)) *reading {
	return &reading{size, ask, map[string][]byte{}}
}

func (r *reading) tiles(level int, n int64, width int) ([]byte, error) {
	path := merkle.Path(level, n, width)
	if b, ok := r.seen[path]; ok {
		return b, nil
	}
	b, err := r.ask(KindLog, path)
	if err == nil {
		r.seen[path] = b
	}
	return b, err
}

// bundle reads the entries of a bundle, one after the other.
func (r *reading) bundle(n int64) ([]byte, error) {
	width := merkle.Width(r.size, 0, n)
	b, err := r.ask(KindLog, merkle.BundlePath(n, width))
	if err != nil {
		return nil, err
	}
	if len(b) != width*(2+merkle.HashSize) {
		return nil, fault.New(fault.MessageMalformed, "a bundle of %d bytes for %d entries", len(b), width)
	}
	entries := make([]byte, 0, width*merkle.HashSize)
	for ; len(b) > 0; b = b[2+merkle.HashSize:] {
		if b[0] != 0 || b[1] != merkle.HashSize {
			return nil, fault.New(fault.MessageMalformed, "an entry of another size")
		}
		entries = append(entries, b[2:2+merkle.HashSize]...)
	}
	return entries, nil
}

// over reads the log's tiles, the lowest over a bundle from its entries.
func (r *reading) over(bundle int64, entries []byte) merkle.Tiles {
	return func(level int, n int64, width int) ([]byte, error) {
		if level > 0 || n != bundle {
			return r.tiles(level, n, width)
		}
		b := make([]byte, 0, width*merkle.HashSize)
		for i := range min(width, len(entries)/merkle.HashSize) {
			h := merkle.Leaf(entries[i*merkle.HashSize : (i+1)*merkle.HashSize])
			b = append(b, h[:]...)
		}
		return b, nil
	}
}
