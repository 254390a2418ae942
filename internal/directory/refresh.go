package directory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const (
	peerPatience  = 5 * time.Second  // for all that one peer is asked in one refresh
	stampPatience = 2 * time.Second  // of which for its time-stamp: whether it has news at all
	refusalHolds  = 30 * time.Second // before a refused time-stamp is looked at again
	maxRefused    = 64
	askedAtOnce   = 3
)

type refusal struct {
	at  time.Time
	err error
}

// Refresh takes the newest valid directory that any of its peers has. It asks
// all of them, a few at once, in an order of chance: so neither does a single
// source hold a newer one back, nor do those that are stalled delay it for
// long. When nothing changed it costs a small file from each.
func (d *Directory) Refresh(ctx context.Context) error {
	if d.deps.Peers == nil {
		return nil
	}
	peers := slices.Clone(d.deps.Peers())
	shuffle := d.deps.Shuffle
	if shuffle == nil {
		shuffle = rand.Shuffle
	}
	shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })

	var mu sync.Mutex
	var failed []error
	next, answered := 0, 0
	take := func() (Peer, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(peers) {
			return Peer{}, false
		}
		next++
		return peers[next-1], true
	}
	var group sync.WaitGroup
	for range min(askedAtOnce, len(peers)) {
		group.Go(func() {
			for p, ok := take(); ok; p, ok = take() {
				err := d.heal(ctx, d.pull(ctx, p))
				mu.Lock()
				if err != nil {
					failed = append(failed, fmt.Errorf("from %s: %w", p.name(), err))
					d.deps.Log.Debug("refresh of the directory failed", "peer", p.name(), "error", err)
				} else {
					answered++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if answered > 0 || len(peers) == 0 {
		return nil
	}
	return errors.Join(failed...)
}

func (p Peer) name() string {
	if p.State == "" {
		return "secretariat"
	}
	return string(p.State)
}

func (d *Directory) pull(ctx context.Context, p Peer) error {
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	soon, done := context.WithTimeout(ctx, stampPatience)
	stamp, err := p.Fetcher.Fetch(soon, timestampName, maxTimestamp)
	done()
	if err != nil {
		return err
	}
	if err := d.offer(ctx, stamp, p.Fetcher, p.name()); err != nil {
		return err
	}
	d.pass(ctx, p, stamp)
	return nil
}

// pass tells a peer of a newer directory than the one it has just shown. What
// comes of it is the peer's affair.
func (d *Directory) pass(ctx context.Context, p Peer, shown []byte) {
	r := d.View().release
	if r == nil || p.Offer == nil || bytes.Equal(shown, r.stamp) {
		return
	}
	if m, err := metadata.Timestamp().FromBytes(shown); shown != nil && (err != nil || m.Signed.Version >= r.version) {
		return
	}
	if err := p.Offer(ctx, r.stamp, r.whole); err != nil {
		d.deps.Log.Debug("passing the directory on failed", "peer", p.name(), "error", err)
	}
}

// whole is everything that the release stands on.
func (r *release) whole() ([]byte, error) {
	b := maps.Clone(r.files)
	b[timestampName] = r.stamp
	return b.encode()
}

// PassOn tells every peer of the current directory: for when it has changed,
// so that news, a revocation above all, does not wait to be asked for.
func (d *Directory) PassOn(ctx context.Context) {
	if d.deps.Peers == nil {
		return
	}
	var wg sync.WaitGroup
	for _, p := range d.deps.Peers() {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, peerPatience)
			defer cancel()
			d.pass(ctx, p, nil)
		})
	}
	wg.Wait()
}

// Offer looks at a time-stamp that a peer passed on and, if it is newer than
// what the node has, fetches the rest from there. An old one is no error.
func (d *Directory) Offer(ctx context.Context, stamp []byte, from Fetcher) error {
	return d.heal(ctx, d.offer(ctx, stamp, from, ""))
}

// offer remembers for a while what it refused, and from whom: that one source
// could not go on with its time-stamp says nothing against another's. who is
// "" where a peer came unasked.
func (d *Directory) offer(ctx context.Context, stamp []byte, from Fetcher, who string) error {
	cur := d.View().release
	if cur != nil && bytes.Equal(stamp, cur.stamp) {
		return nil
	}
	if err := within(timestampName, len(stamp), maxTimestamp); err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "")
	}
	key := sha256.Sum256(append([]byte(who+"\x00"), stamp...))
	d.mu.Lock()
	old, known := d.refused[key]
	d.mu.Unlock()
	if known && d.deps.Now().Sub(old.at) < refusalHolds {
		return old.err
	}
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	err := d.consider(ctx, cur, stamp, from)
	if err != nil && ctx.Err() == nil {
		d.mu.Lock()
		if len(d.refused) >= maxRefused {
			clear(d.refused)
		}
		d.refused[key] = refusal{at: d.deps.Now(), err: err}
		d.mu.Unlock()
	}
	return err
}

func (d *Directory) consider(ctx context.Context, cur *release, stamp []byte, from Fetcher) error {
	if cur != nil {
		later, err := cur.earlierThan(stamp)
		if err != nil || !later {
			return err
		}
	}
	r, err := d.load(ctx, stamp, from)
	if err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "offered directory")
	}
	err = d.commit(r)
	if errors.Is(err, errBehind) {
		d.mu.Lock()
		d.fork = r
		d.mu.Unlock()
	}
	return err
}

// earlierThan tells, before anything is verified, whether a time-stamp could
// be of use: peers that lag behind are nothing to report.
func (r *release) earlierThan(stamp []byte) (bool, error) {
	if err := plain(stamp); err != nil {
		return false, fault.Wrap(fault.DirectoryInvalid, err, "offered time-stamp")
	}
	m, err := metadata.Timestamp().FromBytes(stamp)
	if err != nil {
		return false, fault.Wrap(fault.DirectoryInvalid, err, "offered time-stamp")
	}
	if m.Signed.Version > r.version {
		return true, nil
	}
	if m.Signed.Version == r.version {
		digest, err := signedDigest(m.Signed)
		return err == nil && digest != r.digest, err
	}
	return false, nil
}

// commit makes a release current if it takes nothing back.
func (d *Directory) commit(r *release) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.View()
	if v.release != nil && v.release.digest == r.digest {
		return nil
	}
	if err := r.follows(v.release); err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "offered directory")
	}
	r.markDoubles(v.release)
	return d.replace(r)
}
