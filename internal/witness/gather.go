package witness

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
)

// target is the head for which cosignatures are gathered.
type target struct {
	merkle.Signed
	since time.Time
	done  bool // has its quorum
	fresh bool // has more cosignatures than are stored
}

func (t *target) late(now time.Time, patience time.Duration) bool {
	return t.Origin != "" && !t.done && now.Sub(t.since) >= patience
}

// peer is another state's witness, as this process knows it.
type peer struct {
	known  int64 // size of the head that it cosigned last, as far as is known
	busy   bool
	failed time.Time     // when that began; zero: it cosigns
	lost   bool          // and that has been said
	after  time.Time     // when it may be asked again
	pause  time.Duration // how long it is left alone after the next failure
}

// gather asks every witness that has not cosigned the target, each by itself:
// one that does not answer holds up nothing.
func (l *Log) gather(ctx context.Context, asking *sync.WaitGroup) error {
	own, u, ok := l.own()
	if !ok {
		return nil
	}
	now := l.deps.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signed.Origin == "" || l.stopped != nil {
		return nil
	}
	l.listen(ctx, own, u, asking, now)
	t := &l.target
	if t.Origin != l.signed.Origin || t.Size < l.signed.Size && (t.done || t.late(now, l.cfg.Patience)) {
		*t = target{Signed: l.signed, since: now}
		if t.Size == l.cosigned.Size && t.Origin == l.cosigned.Origin {
			t.Signed, t.done = l.cosigned, l.cosigned.Witnesses() >= u.Quorum // of an earlier run, or of another process
		}
	}
	if err := l.settle(ctx, u.Quorum); err != nil {
		return err
	}
	for _, p := range u.Parties {
		if p.State == own.State || p.Witness == (merkle.Key{}) || t.has(p.Witness) {
			continue
		}
		w := l.peers[p.Witness]
		if w == nil {
			w = &peer{}
			l.peers[p.Witness] = w
		}
		if w.busy || now.Before(w.after) {
			continue
		}
		w.busy = true
		head, known := t.Signed, w.known
		asking.Go(func() { l.submit(ctx, own, p, head, known) })
	}
	return nil
}

// listen asks one other witness now and then, each time the next, what it has
// seen of this log: where another process goes on with it on another database,
// this one is to know before it signs something itself. Under mu.
func (l *Log) listen(ctx context.Context, own Party, u Union, asking *sync.WaitGroup, now time.Time) {
	if now.Sub(l.heard) < l.cfg.Patience {
		return
	}
	l.heard = now
	for range u.Parties {
		l.turn++
		if p := u.Parties[l.turn%len(u.Parties)]; p.State != own.State && p.Witness != (merkle.Key{}) {
			asking.Go(func() {
				within, cancel := context.WithTimeout(ctx, l.cfg.Answer)
				defer cancel()
				_ = l.stop(own, l.held(within, own, p)) // one that does not answer is not the log's fault
			})
			return
		}
	}
}

func (t *target) has(k merkle.Key) bool {
	for _, c := range t.Cosignatures {
		if c.Key == k {
			return true
		}
	}
	return false
}

// settle stores the target when it has its quorum, and what has come since
// when there is no newer one to gather for. Under mu, which it lets go while it
// writes: nobody who asks what has been cosigned waits for the disk.
func (l *Log) settle(ctx context.Context, quorum int) error {
	for t := &l.target; !l.storing && t.Witnesses() >= quorum && (!t.done || t.fresh && t.Size >= l.signed.Size); {
		s := t.Signed
		l.storing, t.fresh = true, false
		l.mu.Unlock()
		err := l.keep(ctx, stageCosigned, s)
		l.mu.Lock()
		l.storing = false
		same := t.Origin == s.Origin && t.Size == s.Size // or a newer one is gathered for by now
		if err != nil {
			t.fresh = t.fresh || same
			return err
		}
		t.done = t.done || same
		l.take(s)
	}
	return nil
}

// submit brings a head to one witness and takes its cosignature home.
func (l *Log) submit(ctx context.Context, own, to Party, head merkle.Signed, known int64) {
	within, cancel := context.WithTimeout(ctx, l.cfg.Answer)
	defer cancel()
	lines, known, err := l.cosign(within, own, to, head, known)
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.peers[to.Witness]
	w.busy, w.known = false, known
	if err != nil {
		w.pause = min(max(2*w.pause, firstWait), lastWait)
		now := l.deps.Now()
		w.after = now.Add(w.pause)
		if w.failed.IsZero() {
			w.failed = now
		}
		if ctx.Err() == nil && !w.lost && now.Sub(w.failed) >= l.cfg.Patience {
			w.lost = true
			l.deps.Log.Warn("a witness does not cosign", "witness", to.Witness.Name(), "size", head.Size, "error", err)
		}
		return
	}
	if w.lost {
		l.deps.Log.Info("a witness cosigns again", "witness", to.Witness.Name())
	}
	w.pause, w.after, w.failed, w.lost = 0, time.Time{}, time.Time{}, false
	t := &l.target
	if len(lines) == 0 || t.Origin != head.Origin || t.Size != head.Size || t.has(to.Witness) {
		return
	}
	t.Cosignatures = append(t.Cosignatures[:len(t.Cosignatures):len(t.Cosignatures)], lines...)
	t.fresh = true
	if err := l.settle(ctx, l.deps.Union().Quorum); err != nil && ctx.Err() == nil {
		l.deps.Log.Error("storing a cosigned checkpoint", "error", err)
	}
}

// cosign asks one witness for its cosignature, from wherever it stands. It
// gives none, and no error, where the witness is ahead of this head.
func (l *Log) cosign(ctx context.Context, own, to Party, head merkle.Signed, known int64) ([]merkle.Witnessed, int64, error) {
	alone := head
	alone.Cosignatures = nil
	for range 3 {
		if known > head.Size {
			now, _, err := l.deps.Source.Head(ctx)
			if err != nil || known <= now {
				return nil, known, err // another process submitted a newer head
			}
			return nil, known, l.suspect(ctx, own, to)
		}
		proof, _, _, err := merkle.ProveGrowth(known, head.Size, l.tiles(ctx))
		if err != nil {
			return nil, known, err
		}
		b, err := l.deps.Ask(ctx, to.State, KindAdd, merkle.Submission{Old: known, Proof: proof, Note: alone.Note()}.Bytes())
		if err != nil {
			return nil, known, err
		}
		a, err := ParseAnswer(b)
		if err != nil {
			return nil, known, err
		}
		switch a.Status {
		case Done:
			keys := []merkle.Key{to.Witness}
			if to.Quantum != (merkle.Key{}) {
				keys = append(keys, to.Quantum)
			}
			s, err := merkle.OpenCheckpoint(append(alone.Note(), a.Body...), own.Log, keys...)
			if err != nil {
				return nil, known, fmt.Errorf("its cosignature: %w", err)
			}
			if s.Witnesses() != 1 || len(s.Cosignatures) > len(keys) {
				return nil, known, errors.New("it gave no cosignature of its own")
			}
			return s.Cosignatures, head.Size, nil
		case Behind:
			n, err := strconv.ParseInt(strings.TrimSuffix(string(a.Body), "\n"), 10, 64)
			if err != nil || n < 0 || n > merkle.MaxSize {
				return nil, known, errors.New("it does not say where it stands")
			}
			if n == known {
				return nil, known, l.suspect(ctx, own, to)
			}
			known = n
		case NotGrown:
			return nil, known, l.suspect(ctx, own, to)
		default:
			return nil, known, fmt.Errorf("it answered %d %.200q", a.Status, a.Body)
		}
	}
	return nil, known, errors.New("its record moves faster than this log")
}

// suspect looks into why a witness will not follow this log. If it shows a
// head under this log's own signature that is not the log's, the log stops. A
// witness that shows none may say what it likes.
func (l *Log) suspect(ctx context.Context, own, to Party) error {
	if err := l.held(ctx, own, to); err != nil {
		return l.stop(own, err)
	}
	return fault.New(fault.PeerRefused, "the witness %s says that this log is another than it was, and shows no head for it", to.Witness.Name())
}

// held holds this log against the heads that a witness has seen of it.
func (l *Log) held(ctx context.Context, own, of Party) error {
	b, err := l.deps.Ask(ctx, of.State, KindHeads, nil)
	if err != nil {
		return err
	}
	heads, err := splitHeads(b)
	if err != nil {
		return err
	}
	for _, b := range heads {
		s, err := merkle.OpenCheckpoint(b, own.Log)
		if err != nil {
			continue // another's, or nobody's
		}
		now, _, err := l.deps.Source.Head(ctx)
		if err != nil {
			return err
		}
		if err := l.contradicts(ctx, s, now); err != nil {
			return err
		}
	}
	return nil
}

// vouch holds the log against what the witnesses have seen of it. At least half
// of them must have answered: with a quorum of more than half, one of those has
// seen the last head that anybody could rely on. What the others have to say
// comes a little later, and stops the log as well.
func (l *Log) vouch(ctx context.Context, own Party, u Union, here place, asking *sync.WaitGroup) error {
	asked := 0
	answers := make(chan error, len(u.Parties))
	for _, p := range u.Parties {
		if p.State == own.State || p.Witness == (merkle.Key{}) {
			continue
		}
		asked++
		asking.Go(func() {
			within, cancel := context.WithTimeout(ctx, l.cfg.Answer)
			defer cancel()
			answers <- l.stop(own, l.held(within, own, p))
		})
	}
	half := asked/2 + asked%2
	heard := 0
	for n := 0; n < asked && heard < half; n++ {
		err := <-answers
		if fault.CodeOf(err) == fault.LogDivided {
			return err
		}
		if err == nil {
			heard++
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if heard < half {
		l.doubt = fault.New(fault.ReceiptPending, "%d of %d witnesses have told what they have seen of the log; before %d have, no head is signed, as its database may be an older copy", heard, asked, half)
		return l.doubt
	}
	l.vouched, l.doubt = here, nil
	return nil
}
