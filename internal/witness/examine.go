package witness

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

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
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Round)
	defer cancel()
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
	if err := p.continues(ctx, s, w, head, log, read); err != nil {
		return left, err
	}
	p.mu.Lock()
	w.last, w.shown = head, true
	p.mu.Unlock()
	// In the order of the log: of each bundle of entries, once. What the last
	// rounds could not read comes last, and holds up nothing.
	slices.SortStableFunc(left, func(a, b Held) int {
		return cmp.Or(cmp.Compare(w.unread[a.bundle()], w.unread[b.bundle()]), cmp.Compare(a.Index, b.Index))
	})
	todo := left
	left = nil
	in := func(h Held) bool { return h.Index < head.Size }
	for _, h := range todo {
		switch {
		case in(h):
		case asked.Sub(h.At) < p.cfg.Due:
			left = append(left, h)
		case h.missed.IsZero():
			h.missed = asked // its node may have been halted with an old head in hand
			left = append(left, h)
		case asked.Sub(h.missed) < p.cfg.Every:
			left = append(left, h)
		default:
			p.breach(w, AlarmLate, &h, Broken{}, string(head.Note()))
		}
	}
	todo = slices.DeleteFunc(todo, func(h Held) bool { return !in(h) })
	unread := map[int64]int{}
	moved := false
	for len(todo) > 0 {
		n := todo[0].bundle()
		here := 1
		for here < len(todo) && todo[here].bundle() == n {
			here++
		}
		if ctx.Err() != nil { // the round's time is up
			for _, h := range todo {
				if x, ok := w.unread[h.bundle()]; ok {
					unread[h.bundle()] = x
				}
			}
			left = append(left, todo...)
			if err == nil && (!moved || asked.Sub(todo[0].At) >= slow*p.cfg.Due) {
				err = fault.New(fault.PeerUnreachable, "it shows its entries too slowly to look at what waits")
			}
			break
		}
		bundle, e := read.bundle(n)
		if e == nil {
			e = p.compare(w, head, read, n, bundle, todo[:here])
		}
		if fault.CodeOf(e) == fault.LogDivided {
			return append(left, todo...), e
		}
		if e != nil {
			unread[n] = w.unread[n] + 1
			left, err = append(left, todo[:here]...), cmp.Or(err, e)
		} else {
			moved = true
		}
		todo = todo[here:]
	}
	w.unread = unread
	return left, cmp.Or(parent.Err(), err)
}

// bundle is the bundle of entries in which the promise lies.
func (h Held) bundle() int64 { return h.Index / merkle.TileWidth }

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

// continues holds a head against the one seen before, by whichever process of
// this state, against what its witness has cosigned, and now and then against
// what another witness has: whoever shows one history here and another there
// is found.
func (p *Promises) continues(ctx context.Context, s union.State, w *ward, head merkle.Signed, log merkle.Key, read *reading) error {
	p.mu.Lock()
	known := []merkle.Signed{w.last}
	p.mu.Unlock()
	rows, err := p.deps.DB.Query(ctx, "SELECT note FROM witness_head WHERE origin = ? UNION ALL SELECT note FROM witness_shown WHERE origin = ?", head.Origin, head.Origin)
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the heads seen of %s", head.Origin)
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return fault.Wrap(fault.StoreFailed, err, "the heads seen of %s", head.Origin)
		}
		if k, err := merkle.OpenCheckpoint(b, log); err == nil {
			known = append(known, k)
		}
	}
	if err := rows.Err(); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the heads seen of %s", head.Origin)
	}
	rows.Close()
	now := p.deps.Now()
	if now.Sub(w.confronted) >= p.cfg.Confront {
		w.confronted = now
		known = append(known, p.elsewhere(ctx, s, w, log)...)
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
	if w.followed != head.Origin {
		if err := p.follows(ctx, w, head, log, read); err != nil {
			return err
		}
		w.followed, w.stored = head.Origin, time.Time{}
	}
	if now.Sub(w.stored) < saveEvery*p.cfg.Every {
		return nil
	}
	head.Cosignatures = nil
	if _, err := p.deps.DB.Exec(ctx, `INSERT INTO witness_shown (origin, size, note) VALUES (?, ?, ?)
		ON CONFLICT (origin) DO UPDATE SET size = excluded.size, note = excluded.note WHERE witness_shown.size < excluded.size`,
		head.Origin, head.Size, head.Note()); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the head seen of %s", head.Origin)
	}
	w.stored = now
	return nil
}

// follows holds the first head that this state is shown of a log against the
// last ones that it has seen of the logs before it: the new one begins with
// what they held, or their history ended, which is said once.
func (p *Promises) follows(ctx context.Context, w *ward, head merkle.Signed, log merkle.Key, read *reading) error {
	rows, err := p.deps.DB.Query(ctx, "SELECT note, 0 FROM witness_head UNION ALL SELECT note, 1 FROM witness_shown")
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the heads seen before %s", head.Origin)
	}
	defer rows.Close()
	ended := map[string]merkle.Signed{}
	for rows.Next() {
		var b []byte
		var shown int
		if err := rows.Scan(&b, &shown); err != nil {
			return fault.Wrap(fault.StoreFailed, err, "the heads seen before %s", head.Origin)
		}
		k, err := Head{Note: string(b)}.open(log)
		switch {
		case err != nil: // of another state
		case k.Origin == head.Origin && shown == 1:
			return nil // it was held against them then
		case k.Origin != head.Origin && earlier(k.Origin, head.Origin) && k.Size >= ended[k.Origin].Size:
			ended[k.Origin] = k
		}
	}
	if err := rows.Err(); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "the heads seen before %s", head.Origin)
	}
	rows.Close()
	for _, k := range ended {
		held := k.Size <= head.Size
		if held {
			if held, err = grown(k, head, read.tiles); err != nil {
				return err
			}
		}
		if !held {
			p.breach(w, AlarmEnded, nil, Broken{}, string(k.Note()), string(head.Note()))
		}
	}
	return nil
}

// elsewhere asks one other witness, each time the next, which heads of a log it
// has cosigned. One that says nothing is not the log's fault.
func (p *Promises) elsewhere(ctx context.Context, s union.State, w *ward, log merkle.Key) (out []merkle.Signed) {
	var witnesses []union.State
	for _, x := range p.deps.Union().Parties {
		if x.State != s && x.State != p.deps.State && x.Witness != (merkle.Key{}) {
			witnesses = append(witnesses, x.State)
		}
	}
	if len(witnesses) == 0 {
		return nil
	}
	w.turn++
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Answer)
	defer cancel()
	b, err := p.deps.Ask(ctx, witnesses[w.turn%len(witnesses)], KindHeads, nil)
	if err != nil {
		return nil
	}
	heads, err := splitHeads(b)
	if err != nil {
		return nil
	}
	for _, b := range heads {
		if k, err := merkle.OpenCheckpoint(b, log); err == nil {
			out = append(out, k)
		}
	}
	return out[:min(len(out), 1)] // a witness has one of each log
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
