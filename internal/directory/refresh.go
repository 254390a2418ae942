package directory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const (
	peerPatience   = 5 * time.Second  // for all that one peer is asked in one refresh
	refusalHolds   = 30 * time.Second // before a refused time-stamp is looked at again
	maxRefused     = 64
	gossipInterval = 4 // refreshes between two that ask another peer beside the first
)

type refusal struct {
	at  time.Time
	err error
}

// Refresh takes the newest valid directory that its peers have: it asks the
// first that answers and, every few rounds, another one in turn, so that no
// single source can hold a newer one back; and everybody, when its own has
// expired. When nothing changed it costs one small file.
func (d *Directory) Refresh(ctx context.Context) error {
	if d.deps.Peers == nil {
		return nil
	}
	peers := d.deps.Peers()
	d.mu.Lock()
	extra := -1
	if d.rounds++; len(peers) > 1 && d.rounds%gossipInterval == 0 {
		extra = 1 + d.rounds/gossipInterval%(len(peers)-1)
	}
	d.mu.Unlock()
	var failed []error
	answered, stale := false, d.Fresh() != nil
	for i, p := range peers {
		if answered && i != extra && !stale {
			continue
		}
		if err := d.heal(ctx, d.pull(ctx, p)); err != nil {
			failed = append(failed, fmt.Errorf("from %s: %w", p.name(), err))
			d.deps.Log.Debug("refresh of the directory failed", "peer", p.name(), "error", err)
			continue
		}
		answered = true
	}
	if answered || len(peers) == 0 {
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
	stamp, err := p.Fetcher.Fetch(ctx, timestampName, maxTimestamp)
	if err != nil {
		return err
	}
	if err := d.offer(ctx, stamp, p.Fetcher); err != nil {
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
	return d.heal(ctx, d.offer(ctx, stamp, from))
}

func (d *Directory) offer(ctx context.Context, stamp []byte, from Fetcher) error {
	cur := d.View().release
	if cur != nil && bytes.Equal(stamp, cur.stamp) {
		return nil
	}
	if err := within(timestampName, len(stamp), maxTimestamp); err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "")
	}
	key := sha256.Sum256(stamp)
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
