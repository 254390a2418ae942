package directory

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// How long what is signed holds. Everything is renewed at half of it.
const (
	stampLife = 7 * 24 * time.Hour       // snapshots and time-stamps
	partLife  = 60 * 24 * time.Hour      // a state's part
	rootLife  = 3 * 365 * 24 * time.Hour // root and targets: the next ceremony

	clockSlack   = time.Hour // how far a proposer's clock may be ahead of a cosigner's
	maxIdle      = 8         // attempts at a proposal while nobody gets on
	maxTries     = 200       // attempts in all
	maxRefusals  = 3         // of them at a party that answers conflict and has nothing newer
	cosignWithin = 5 * time.Second
)

// Edition is a state's part while it is being changed.
type Edition struct {
	*Part
	Policy string            // Cedar
	Files  map[string][]byte // by name under the state's path: openapi/….json, CRLs
}

// Publish changes the node's own state's part, signs it, and has the new
// directory cosigned. change may be called again if others published in the
// meantime, and asks nothing of the directory but its View. Nothing changed is
// nothing published.
func (d *Directory) Publish(ctx context.Context, change func(*Edition) error) error {
	return d.publishPart(ctx, change, false)
}

func (d *Directory) publishPart(ctx context.Context, change func(*Edition) error, always bool) error {
	if d.cfg.State == "" {
		return fault.New(fault.DirectoryInvalid, "only a state's node publishes a part")
	}
	return d.propose(ctx, func(v *View, p *proposal) error {
		if v.release == nil {
			return fault.New(fault.DirectoryExpired, "no directory has been received yet")
		}
		raw, files, err := d.edit(v, change, always)
		if err != nil || raw == nil {
			return err
		}
		p.set(string(d.cfg.State), d.record.Part, raw)
		for name, b := range files {
			if v.release.files[name] == nil { // the others have the rest
				p.files[name] = b
			}
		}
		return nil
	})
}

// edit makes the next version of the own part, and judges it as others will.
// It gives nil if nothing changed.
func (d *Directory) edit(v *View, change func(*Edition) error, always bool) ([]byte, bundle, error) {
	state := d.cfg.State
	if v.release.roles[state] == nil {
		return nil, nil, fault.New(fault.UnknownState, "the union has no state %s", state)
	}
	key, err := d.key(StateKey)
	if err != nil {
		return nil, nil, err
	}
	if d.ownKey() != v.release.key(state) {
		return nil, nil, fault.New(fault.DirectoryInvalid, "the union names another key for %s than this node holds", state)
	}
	e := &Edition{Part: &Part{State: state}, Files: map[string][]byte{}}
	old := v.parts[state]
	if old != nil {
		if e, err = v.Edition(state); err != nil {
			return nil, nil, err
		}
	}
	if err := change(e); err != nil {
		return nil, nil, err
	}
	role, err := e.role(state)
	if err != nil {
		return nil, nil, err
	}
	if old != nil && !always && maps.EqualFunc(role.meta.Signed.Targets, old.targets, equalTargets) {
		return nil, nil, nil
	}
	d.record.Part++
	if m := v.release.snapshot.Signed.Meta[string(state)+".json"]; m != nil {
		d.record.Part = max(d.record.Part, m.Version+1)
	}
	role.meta.Signed.Version, role.meta.Signed.Expires = d.record.Part, d.until(partLife)
	if err := sign(role.meta, key); err != nil {
		return nil, nil, err
	}
	raw, err := role.meta.ToBytes(false)
	if err != nil {
		return nil, nil, fmt.Errorf("write part: %w", err)
	}
	return raw, role.bundle(), nil
}

func equalTargets(a, b *metadata.TargetFiles) bool { return a.Equal(*b) }

// role puts the edition into files and judges it.
func (e *Edition) role(state union.State) (*role, error) {
	doc, err := encode(e.Part)
	if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "the part of %s", state)
	}
	prefix := string(state) + "/"
	g := &role{meta: metadata.Targets(), files: map[string][]byte{prefix + stateFile: doc}}
	if e.Policy != "" {
		g.files[prefix+policyFile] = []byte(e.Policy)
	}
	used := map[string]bool{}
	for _, m := range e.Members {
		for _, s := range m.Subsystems {
			for _, v := range s.Services {
				used[v.OpenAPI] = true
			}
		}
	}
	for name, b := range e.Files {
		if used[name] || !openapiName.MatchString(name) {
			g.files[prefix+name] = b
		}
	}
	for name, b := range g.files {
		if g.meta.Signed.Targets[name], err = metadata.TargetFile().FromBytes(name, b); err != nil {
			return nil, fmt.Errorf("describe %s: %w", name, err)
		}
	}
	if err := ownPaths(g.meta, prefix); err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "the part of %s", state)
	}
	if _, err := buildPart(state, g, nil); err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "the part of %s", state)
	}
	return g, nil
}

func (g *role) bundle() bundle {
	b := bundle{}
	for name, raw := range g.files {
		b[targetFile(name, g.meta.Signed.Targets[name].Hashes["sha256"])] = raw
	}
	return b
}

func (d *Directory) until(life time.Duration) time.Time {
	return d.deps.Now().Add(life).UTC().Truncate(time.Second)
}

func (d *Directory) key(name string) (crypto.Signer, error) {
	if d.deps.Keys == nil {
		return nil, fault.New(fault.NotAllowed, "this node has no keys to sign the directory with")
	}
	key, err := d.deps.Keys.Signer(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.NotAllowed, err, "the key %q is not in this node's key folder", name)
	}
	if err != nil {
		return nil, fmt.Errorf("directory key %s: %w", name, err)
	}
	return key, nil
}

// proposal is the next version of the directory on its way to being signed.
type proposal struct {
	meta  map[string]*metadata.MetaFiles
	files bundle
	least int64    // its version is above this
	news  []string // what is new in meta
	force bool     // it is proposed even with nothing new in it
}

// set puts a role's new metadata in.
func (p *proposal) set(role string, version int64, raw []byte) {
	m := metadata.MetaFile(version)
	digest := sha(raw)
	m.Length, m.Hashes = int64(len(raw)), metadata.Hashes{"sha256": digest[:]}
	p.meta[role+".json"] = m
	p.files[versioned(version, role)] = raw
	p.news = append(p.news, role+".json")
}

// propose has a change signed by this party and one other. The secretariat is
// asked first and then the states in the directory's order, so that a union in
// good health does one thing after the other; who signed something else
// meanwhile says so, and the change is made anew on top of that.
func (d *Directory) propose(ctx context.Context, change func(*View, *proposal) error) error {
	select {
	case d.publishing <- struct{}{}:
		defer func() { <-d.publishing }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for another publication: %w", ctx.Err())
	}
	var last error
	for tries, idle := 0, 0; tries < maxTries && idle < maxIdle; tries++ {
		if err := d.pause(ctx, idle); err != nil {
			return errors.Join(last, err)
		}
		before := d.View().Version()
		p, err := d.prepare(change)
		if err != nil || p == nil {
			return err
		}
		again, err := d.collect(ctx, p, idle >= maxRefusals)
		if err == nil || !again {
			return err
		}
		last = err
		if idle++; d.View().Version() > before {
			idle = 0 // somebody else got on: at once again on top of that
		}
	}
	return last
}

// pause waits before another attempt after some that moved nobody on: longer
// each time, and not as long as the others do.
func (d *Directory) pause(ctx context.Context, idle int) error {
	if idle == 0 {
		return ctx.Err()
	}
	rank := slices.IndexFunc(d.View().charter.States, func(s Seat) bool { return s.Code == d.cfg.State })
	t := time.NewTimer(time.Duration(idle) * time.Duration(rank+2) * 10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare builds and signs a proposal on top of the current release. The vote
// is on disk when it returns.
func (d *Directory) prepare(change func(*View, *proposal) error) (*proposal, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.View()
	p := &proposal{meta: map[string]*metadata.MetaFiles{}, files: bundle{}}
	if r := v.release; r != nil {
		maps.Copy(p.meta, r.snapshot.Signed.Meta)
		p.least = r.version
	}
	before := d.record.Part
	if err := change(v, p); err != nil {
		d.record.Part = before
		return nil, err
	}
	if d.fork != nil {
		p.take(d.fork, v.parts)
		maps.Copy(p.files, v.release.files) // the other side has not seen these
	}
	if len(p.news) == 0 && !p.force {
		return nil, nil
	}
	online, err := d.key(OnlineKey)
	if err != nil {
		return nil, err
	}
	snapshot := metadata.Snapshot(d.until(stampLife))
	snapshot.Signed.Version, snapshot.Signed.Meta = max(p.least, d.record.Vote.Version)+1, p.meta
	stamp := metadata.Timestamp(d.until(stampLife))
	stamp.Signed.Version = snapshot.Signed.Version
	digest, err := signedDigest(snapshot.Signed)
	if err != nil {
		return nil, err
	}
	m := metadata.MetaFile(snapshot.Signed.Version)
	m.UnrecognizedFields = map[string]any{signedField: hex.EncodeToString(digest[:])}
	stamp.Signed.Meta["snapshot.json"] = m
	if err := p.seal(snapshot, stamp, online); err != nil {
		return nil, err
	}
	return p, d.vote(stamp)
}

func (p *proposal) seal(snapshot *metadata.Metadata[metadata.SnapshotType], stamp *metadata.Metadata[metadata.TimestampType], online crypto.Signer) error {
	return errors.Join(
		signInto(p.files, versioned(snapshot.Signed.Version, "snapshot"), snapshot, online),
		signInto(p.files, timestampName, stamp, online))
}

func signInto[T metadata.Roles](files bundle, name string, m *metadata.Metadata[T], key crypto.Signer) error {
	if err := sign(m, key); err != nil {
		return err
	}
	b, err := m.ToBytes(false)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	files[name] = b
	return nil
}

// vote records what is about to be signed away. A party that signed another
// release of that version, or of a later one, refuses.
func (d *Directory) vote(stamp *metadata.Metadata[metadata.TimestampType]) error {
	digest, err := signedDigest(stamp.Signed)
	if err != nil {
		return err
	}
	v := vote{Version: stamp.Signed.Version, Digest: hex.EncodeToString(digest[:])}
	if v == d.record.Vote {
		return nil
	}
	if v.Version <= d.record.Vote.Version {
		return fault.New(fault.DirectoryConflict, "this party signed another version %d of the directory", d.record.Vote.Version)
	}
	next := d.record
	next.Vote = v
	files := map[string][]byte{}
	if err := next.put(files); err != nil {
		return err
	}
	if err := d.files.write(files); err != nil {
		return fmt.Errorf("record vote: %w", err)
	}
	d.record = next
	return nil
}

// collect asks the others in order for the second signature and installs the
// result. again says that somebody was ahead of us. A party that always says
// so is passed over in the end: it may not stop the union.
func (d *Directory) collect(ctx context.Context, p *proposal, pass bool) (again bool, err error) {
	raw, err := p.files.encode()
	if err != nil {
		return false, err
	}
	var failed []error
	var said []string
	code, base := fault.DirectoryUnsigned, d.View().Version()
	for _, peer := range d.cosigners() {
		err := d.askCosign(ctx, peer, p.files, raw)
		if err == nil {
			return false, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", peer.name(), err))
		said = append(said, peer.name()+": "+fault.From(err).Detail)
		switch fault.CodeOf(err) {
		case fault.DirectoryInvalid:
			code = fault.DirectoryInvalid
		case fault.DirectoryConflict:
			if err := d.pull(ctx, peer); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", peer.name(), err))
			}
			if d.contains(p) {
				return false, nil // its answer was lost on an earlier way
			}
			if !pass || d.View().Version() > base {
				return true, fault.Wrap(fault.DirectoryConflict, errors.Join(failed...), "another party was ahead")
			}
		}
	}
	if len(failed) == 0 {
		return false, fault.New(fault.DirectoryUnsigned, "there is nobody to sign it beside this party")
	}
	return false, fault.Wrap(code, errors.Join(failed...), "%s", strings.Join(said, "\n"))
}

// contains tells whether all that a proposal brought is in force.
func (d *Directory) contains(p *proposal) bool {
	r := d.View().release
	return r != nil && !slices.ContainsFunc(p.news, func(name string) bool {
		m := r.snapshot.Signed.Meta[name]
		return m == nil || m.Version != p.meta[name].Version || !m.Hashes.Equal(p.meta[name].Hashes)
	})
}

// cosigners orders the peers that can sign: the secretariat, then the states
// as they stand in the directory.
func (d *Directory) cosigners() []Peer {
	if d.deps.Peers == nil {
		return nil
	}
	rank := map[union.State]int{"": -1}
	for i, s := range d.View().charter.States {
		rank[s.Code] = i
	}
	peers := slices.DeleteFunc(slices.Clone(d.deps.Peers()), func(p Peer) bool {
		return p.Cosign == nil || p.State == d.cfg.State
	})
	slices.SortStableFunc(peers, func(a, b Peer) int { return rank[a.State] - rank[b.State] })
	return peers
}

func (d *Directory) askCosign(ctx context.Context, peer Peer, p bundle, raw []byte) error {
	ctx, cancel := context.WithTimeout(ctx, cosignWithin)
	defer cancel()
	reply, err := peer.Cosign(ctx, raw)
	if err != nil {
		return err
	}
	signed, err := decodeBundle(reply)
	if err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "answer to a proposal")
	}
	r, err := d.load(ctx, signed[timestampName], signed, p)
	if err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "answer to a proposal")
	}
	return d.commit(r)
}

// Cosign is the other side: it verifies that a proposal is the current
// directory with newer parts, validly signed and good, and nothing else; adds
// this party's signatures; and makes it its own current directory, so that it
// is not lost with the proposer. It gives the signed snapshot and time-stamp.
// A party that is ahead of the proposer answers DirectoryConflict.
func (d *Directory) Cosign(ctx context.Context, raw []byte) ([]byte, error) {
	p, err := decodeBundle(raw)
	if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	online, err := d.key(OnlineKey)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.cosigned(ctx, p, online)
	if err != nil {
		return nil, err
	}
	if err := d.vote(r.timestamp); err != nil {
		return nil, err
	}
	if err := d.replace(r); err != nil {
		return nil, err
	}
	name := versioned(r.version, "snapshot")
	return bundle{timestampName: r.stamp, name: r.files[name]}.encode()
}

// cosigned gives the proposal as it would be with this party's signature, if
// it deserves one. The signatures made here have not left yet.
func (d *Directory) cosigned(ctx context.Context, p bundle, online crypto.Signer) (*release, error) {
	v := d.View()
	if err := within("proposal", len(p[timestampName]), maxTimestamp); err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	if err := plain(p[timestampName]); err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	stamp, err := metadata.Timestamp().FromBytes(p[timestampName])
	if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	name := versioned(max(1, stamp.Signed.Version), "snapshot")
	if err := plain(p[name]); err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	snapshot, err := metadata.Snapshot().FromBytes(p[name])
	if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	if stamp.Signed.Version <= v.Version() {
		return nil, fault.New(fault.DirectoryConflict, "this party already has version %d of the directory", v.Version())
	}
	for _, end := range []time.Time{stamp.Signed.Expires, snapshot.Signed.Expires} {
		if now := d.deps.Now(); end.Before(now) || end.After(now.Add(stampLife+clockSlack)) {
			return nil, fault.New(fault.DirectoryInvalid, "proposal: its expiry %s is not within %s of this party's clock", end.Format(time.RFC3339), stampLife)
		}
	}
	signed := proposal{files: bundle{}}
	if err := signed.seal(snapshot, stamp, online); err != nil {
		return nil, err
	}
	r, err := d.load(ctx, signed.files[timestampName], signed.files, p)
	if errors.Is(err, fs.ErrNotExist) {
		// It stands on a release that this party has not seen yet: the
		// proposer, told of a conflict, passes that on.
		return nil, fault.Wrap(fault.DirectoryConflict, err, "proposal")
	}
	if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	if err := r.follows(v.release); errors.Is(err, errBehind) {
		return nil, fault.Wrap(fault.DirectoryConflict, err, "proposal")
	} else if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "proposal")
	}
	r.markDoubles(v.release)
	return r, d.goodParts(v, r)
}

// goodParts refuses a proposal that brings a state's part which nobody could
// use: it is stopped before it is published.
func (d *Directory) goodParts(v *View, r *release) error {
	d.record.judge(r, d.cfg.State, d.ownKey(), d.deps.Now())
	for state, g := range r.roles {
		if v.release != nil {
			if was := v.release.roles[state]; was != nil && bytes.Equal(was.raw, g.raw) && was.err != nil == (g.err != nil) {
				continue
			}
		}
		if g.raw == nil {
			continue // a state that is new in the union and has not published
		}
		if _, err := buildPart(state, g, v.parts[state]); err != nil {
			return fault.Wrap(fault.DirectoryInvalid, err, "proposal: the part of %s", state)
		}
	}
	return nil
}

// heal puts a fork together. Two pairs of parties that could not see each
// other may have signed two releases; no part is lost if the newer of each is
// signed as a release above both, which all can follow. why is what came of an
// offer.
func (d *Directory) heal(ctx context.Context, why error) error {
	d.mu.Lock()
	other := d.fork
	d.mu.Unlock()
	if _, err := d.key(OnlineKey); err != nil || other == nil || !errors.Is(why, errBehind) {
		return why
	}
	err := d.propose(ctx, func(v *View, p *proposal) error {
		// Even if there is nothing new in it for this party: those on the
		// other side need a way here.
		p.force = v.Version() <= other.version
		return nil
	})
	d.mu.Lock()
	if d.fork == other {
		d.fork = nil
	}
	d.mu.Unlock()
	if err != nil {
		return errors.Join(why, fmt.Errorf("putting two directories together: %w", err))
	}
	return nil
}

// take adds what is newer, and good, in a release that took another way.
func (p *proposal) take(other *release, parts map[union.State]*part) {
	p.least = max(p.least, other.version)
	for name, m := range other.snapshot.Signed.Meta {
		if own := p.meta[name]; own != nil && own.Version >= m.Version || slices.Contains(p.news, name) {
			continue
		}
		state := union.State(strings.TrimSuffix(name, ".json"))
		if g := other.roles[state]; g != nil {
			if _, err := buildPart(state, g, parts[state]); err != nil {
				continue
			}
		}
		p.meta[name], p.news = m, append(p.news, name)
	}
	maps.Copy(p.files, other.files)
}
