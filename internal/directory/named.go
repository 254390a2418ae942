package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// A sealed message names the version of the directory that its sender judged
// by. Whoever verifies the message later has nothing but that version, as it
// follows from the root: not what a node knew besides. So a receiver looks at
// that version too, and takes nothing that could not be verified by it.

const (
	searchPatience = 5 * time.Second  // for one search, and for those that come before it
	searchPause    = 10 * time.Second // after a search in vain, before peers are asked for the same state again
	maxSearches    = 32               // old versions that are read in a minute for one state
	maxDays        = 64               // of which what they show is kept, for one state
)

// Named is a seal, and what its message says of the directory that it was made
// by.
type Named struct {
	Version int64
	Union   string
	State   union.State    // whose member sealed it
	Member  union.MemberID // zero: any of the state's may have
	Cert    [32]byte       // SHA-256 of the seal's certificate
	At      time.Time      // when it was sealed
}

// day is what one version, as it follows from the root alone, shows of one
// state's seals. It never changes.
type day struct {
	union   string
	expires time.Time // of the directory or of the state's part, whichever ends first
	seals   map[[32]byte]listed
	err     error // why its part of the state proves nothing
}

type listed struct {
	member  union.MemberID
	revoked *Revocation
}

// search is what is looked for because a state's messages name it. So a state
// that names what there is not harms its own messages alone.
type search struct {
	turn chan struct{} // held by the one search at a time

	mu    sync.Mutex
	days  map[int64]*day
	since time.Time // of reads
	reads int
	pause time.Time // until then no peer is asked
}

// Reach brings the directory up to a version that a message of a state names,
// if it has to be asked for: of that state first, which must have it. One search
// a state is under way at a time, and none shortly after one in vain. A version
// that is not reached is DirectoryUnknown.
func (d *Directory) Reach(ctx context.Context, version int64, by union.State) error {
	s := d.search(by)
	leave, err := s.enter(ctx, version)
	if err != nil {
		return err
	}
	defer leave()
	if d.View().Version() >= version {
		return nil
	}
	if !s.mayAsk(d.deps.Now()) {
		return unknown(version, "it was asked for in vain a moment ago")
	}
	within, cancel := context.WithTimeout(ctx, searchPatience)
	defer cancel()
	for _, p := range d.peersFrom(by) {
		if p.State == by {
			err = d.heal(within, d.pull(within, p))
		}
	}
	if d.View().Version() < version {
		err = errors.Join(err, d.Refresh(within))
	}
	if d.View().Version() >= version {
		return nil
	}
	if ctx.Err() == nil {
		s.inVain(d.deps.Now())
	}
	return fault.Wrap(fault.DirectoryUnknown, err, "version %d is named, and this node's newest is %d", version, d.View().Version())
}

// Prove holds a seal against the version that its message names, which the
// directory has reached. The seal's certificate is one that v, a view of this
// directory, lists for its member: where the version named is v's, that is asked
// again only if v shows another part of the state than that version's own. What
// the version does not prove is SealInvalid, a version that cannot be looked at
// DirectoryUnknown.
func (d *Directory) Prove(ctx context.Context, v *View, n Named) error {
	if p := v.parts[n.State]; n.Version == v.Version() && n.Union == v.Union() && p != nil && p.release == n.Version {
		if end := v.Expires(); n.At.After(end) || n.At.After(p.expires) {
			return expired(n)
		}
		return nil
	}
	y, err := d.day(ctx, n.Version, n.State)
	if err != nil {
		return err
	}
	return y.prove(n)
}

func (y *day) prove(n Named) error {
	c, ok := y.seals[n.Cert]
	switch {
	case y.err != nil:
		return fault.Wrap(fault.SealInvalid, y.err, "version %d of the directory, which the message names, proves nothing of %s", n.Version, n.State)
	case y.union != n.Union:
		return fault.New(fault.SealInvalid, "version %d of the directory, which the message names, is of a union of another name", n.Version)
	case n.At.After(y.expires):
		return expired(n)
	case !ok, !n.Member.IsZero() && c.member != n.Member:
		return fault.New(fault.SealInvalid, "version %d of the directory, which the message names, does not list its certificate", n.Version)
	case c.revoked != nil && !n.At.Before(c.revoked.At):
		return fault.New(fault.SealInvalid, "by version %d of the directory, which the message names, its certificate was revoked", n.Version)
	}
	return nil
}

func expired(n Named) error {
	return fault.New(fault.SealInvalid, "sealed at %s, when version %d of the directory, which the message names, had expired", n.At.UTC().Format(time.RFC3339), n.Version)
}

func unknown(version int64, why string) error {
	return fault.New(fault.DirectoryUnknown, "version %d is named: %s", version, why)
}

// day finds what a version shows of a state's seals, once for all messages that
// name it.
func (d *Directory) day(ctx context.Context, version int64, state union.State) (*day, error) {
	s := d.search(state)
	if y := s.known(version); y != nil {
		return y, nil
	}
	leave, err := s.enter(ctx, version)
	if err != nil {
		return nil, err
	}
	defer leave()
	if y := s.known(version); y != nil {
		return y, nil
	}
	if !s.mayRead(d.deps.Now()) {
		return nil, unknown(version, fmt.Sprintf("%s has named too many in this minute", state))
	}
	r := d.View().release
	if r == nil || r.version != version {
		if r, err = d.find(ctx, version, state, s); err != nil {
			return nil, err
		}
	}
	y := newDay(r, state)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.days) >= maxDays {
		clear(s.days)
	}
	s.days[version] = y
	return y, nil
}

// find reads an old version from the archive. One that this node never had, as
// it came from one before it to one after, it fetches and keeps: its evidence
// is to stand on nobody's goodwill.
func (d *Directory) find(ctx context.Context, version int64, state union.State, s *search) (*release, error) {
	r, err := d.releaseAt(ctx, version, chain{d.files})
	if err == nil {
		return r, nil
	}
	if version > d.View().Version() || !s.mayAsk(d.deps.Now()) {
		return nil, fault.Wrap(fault.DirectoryUnknown, err, "version %d is named, and this node does not hold it", version)
	}
	within, cancel := context.WithTimeout(ctx, searchPatience)
	defer cancel()
	src := chain{d.files}
	for _, p := range d.peersFrom(state) {
		src = append(src, p.Fetcher)
	}
	if r, err = d.releaseAt(within, version, src); err != nil {
		if ctx.Err() == nil {
			s.inVain(d.deps.Now())
		}
		return nil, fault.Wrap(fault.DirectoryUnknown, err, "version %d is named, and nobody gives it", version)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	missing := map[string][]byte{}
	for name, b := range r.files {
		if _, err := d.files.Fetch(ctx, name, maxDocument); errors.Is(err, fs.ErrNotExist) {
			missing[name] = b
		}
	}
	if err := d.files.write(missing); err != nil {
		return nil, fmt.Errorf("keep directory version %d: %w", version, err)
	}
	return r, nil
}

// peersFrom are the peers, a state's node first.
func (d *Directory) peersFrom(state union.State) []Peer {
	if d.deps.Peers == nil {
		return nil
	}
	peers := slices.Clone(d.deps.Peers())
	slices.SortStableFunc(peers, func(a, b Peer) int {
		switch {
		case a.State == state && b.State != state:
			return -1
		case b.State == state && a.State != state:
			return 1
		}
		return 0
	})
	return peers
}

// newDay reads what a release shows of a state's seals. It is no stricter than
// who verifies evidence: what else a state's part holds, be it wrong or newer
// than this program, takes nothing from the seals.
func newDay(r *release, state union.State) *day {
	g := r.roles[state]
	if g == nil || g.meta == nil {
		return &day{err: errors.New("it has no part signed by the state")}
	}
	y := &day{union: r.charter.Name, expires: r.expires(), seals: map[[32]byte]listed{}}
	if end := g.meta.Signed.Expires; end.Before(y.expires) {
		y.expires = end
	}
	file := func(name string) []byte { return g.files[string(state)+"/"+name] }
	var doc Part
	if err := json.Unmarshal(file(stateFile), &doc); err != nil {
		return &day{err: fmt.Errorf("state.json: %w", err)}
	}
	named := slices.Clone(doc.Members)
	whole := !slices.ContainsFunc(doc.Authorities, func(a Issuer) bool { return a.Certificate.Certificate == nil })
	for i := range named {
		m := &named[i]
		m.ID = union.MemberID{State: state, Class: m.Class, Code: m.Code}
		whole = whole && !slices.Contains(m.Seals, Cert{})
	}
	if doc.State != state || !whole {
		return &day{err: errors.New("state.json is not the state's, or lacks certificates")}
	}
	certs, err := checkCertificates(&Part{State: state, Authorities: doc.Authorities, Members: named}, file)
	if err != nil {
		return &day{err: err}
	}
	for _, c := range certs {
		y.seals[c.SHA256] = listed{c.Member, c.Revoked}
	}
	return y
}

// search finds what is looked for on a state's behalf.
func (d *Directory) search(state union.State) *search {
	d.searching.Lock()
	defer d.searching.Unlock()
	s := d.searches[state]
	if s == nil {
		s = &search{turn: make(chan struct{}, 1), days: map[int64]*day{}}
		d.searches[state] = s
	}
	return s
}

// enter waits for the turn, for a while.
func (s *search) enter(ctx context.Context, version int64) (leave func(), err error) {
	timer := time.NewTimer(searchPatience)
	defer timer.Stop()
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-timer.C:
		return nil, unknown(version, "other versions are being looked for")
	case <-ctx.Done():
		return nil, fault.Wrap(fault.DirectoryUnknown, ctx.Err(), "version %d is named", version)
	}
}

func (s *search) known(version int64) *day {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.days[version]
}

// mayRead counts what is read in a minute.
func (s *search) mayRead(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since) >= time.Minute {
		s.since, s.reads = now, 0
	}
	s.reads++
	return s.reads <= maxSearches
}

func (s *search) mayAsk(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !now.Before(s.pause)
}

func (s *search) inVain(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pause = now.Add(searchPause)
}
