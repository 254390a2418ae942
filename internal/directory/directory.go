// Package directory is the room of the signed union directory: who is in the
// union, with which keys, certificates and services, as the states themselves
// signed it. It is a TUF repository (theupdateframework.io, specification 1.0)
// that every node keeps whole, verifies, passes on and, for its own state's
// part, writes. docs/protocols/directory.md says what is in it.
package directory

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Config says which directory a node keeps, and where.
type Config struct {
	Dir           string      // folder of the node's copy; "" keeps it in memory
	Root          []byte      // a root that the node trusts: its pin
	State         union.State // the node's own state; "" at the secretariat and at a mere reader
	Demonstration bool        // the node was started as demonstration
}

// Deps is what a directory uses. Only Now is needed by one that only reads.
type Deps struct {
	Now   func() time.Time
	Log   *slog.Logger  // nil: none
	Keys  Keys          // nil: it signs nothing
	Peers func() []Peer // whom it can reach now; nil: nobody
	// Shuffle puts them into the order in which they are asked, anew for each
	// refresh; nil: math/rand/v2's.
	Shuffle func(n int, swap func(i, j int))
}

// Keys gives the key folder's signing keys by name; a key that is not there is
// fs.ErrNotExist. seal.Keys is one.
type Keys interface {
	Signer(name string) (crypto.Signer, error)
}

// The names of directory keys in a key folder.
const (
	RootKey      = "root"   // votes on root and targets
	StateKey     = "state"  // signs the state's part
	OnlineKey    = "online" // signs snapshots and time-stamps
	AuthorityKey = "ca"     // issues the state's certificates
)

// Peer is another keeper of the directory, as this node reaches it.
type Peer struct {
	State   union.State // "" for the secretariat, or for a mere source
	Fetcher Fetcher
	// Cosign asks it for its signature; nil: it signs nothing.
	Cosign func(ctx context.Context, proposal []byte) ([]byte, error)
	// Offer tells it of a newer directory: of the time-stamp where it can come
	// and fetch the rest, otherwise of everything, which whole gives. nil: it
	// is not told.
	Offer func(ctx context.Context, stamp []byte, whole func() ([]byte, error)) error
}

// Directory is a node's copy of the union directory. It is safe for
// concurrent use; reading never waits for a refresh.
type Directory struct {
	cfg   Config
	deps  Deps
	pin   pin
	files interface {
		Fetcher
		write(map[string][]byte) error
	}
	view    atomic.Pointer[View]
	changed atomic.Pointer[chan struct{}]

	publishing chan struct{} // held by the one publication at a time

	mu      sync.Mutex // held while the state below or the files change, never while a peer is asked
	record  record
	refused map[[32]byte]refusal // time-stamps refused of late
	fork    *release             // a valid release that takes something of ours back

	searching sync.Mutex // held while the map below is looked into
	searches  map[union.State]*search
}

// Open loads the last good directory from the folder, expired or not. Where
// there is none yet, the view is empty until the first Refresh.
func Open(ctx context.Context, cfg Config, deps Deps) (*Directory, error) {
	d := &Directory{cfg: cfg, deps: deps, publishing: make(chan struct{}, 1), refused: map[[32]byte]refusal{}, searches: map[union.State]*search{}}
	if d.deps.Log == nil {
		d.deps.Log = slog.New(slog.DiscardHandler)
	}
	d.files = &Memory{}
	if cfg.Dir != "" {
		d.files = Folder(cfg.Dir)
	}
	d.view.Store(newView(nil, nil, nil))
	ch := make(chan struct{})
	d.changed.Store(&ch)
	if err := d.checkPin(ctx); err != nil {
		return nil, err
	}
	var err error
	if d.record, err = readRecord(ctx, d.files); err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	stamp, err := d.files.Fetch(ctx, timestampName, maxTimestamp)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	r, err := trust{pin: d.pin}.load(ctx, stamp, d.files)
	if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "the copy in %s is damaged or another union's; move it away and the node fetches it anew", cfg.Dir)
	}
	before := map[union.State]*part{}
	for state := range r.roles {
		if p := d.held(ctx, state); p != nil {
			before[state] = p
		}
	}
	return d, d.install(r, before, r.files)
}

// checkPin refuses a pin that is no root, that is a demonstration's where the
// node is in earnest, or that differs from the root of that version which the
// folder holds.
func (d *Directory) checkPin(ctx context.Context) error {
	var err error
	if d.pin, err = readPin(d.cfg.Root); err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "pinned root")
	}
	root := d.pin.root
	if root.Signed.UnrecognizedFields[demonstrationField] == "true" && !d.cfg.Demonstration {
		return fault.New(fault.DemoRefused, "the pinned root is of a demonstration union")
	}
	name := versioned(root.Signed.Version, "root")
	kept, err := d.files.Fetch(ctx, name, maxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	other, err := readPin(kept)
	if err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "%s", name)
	}
	mine, err := signedDigest(root.Signed)
	if err != nil {
		return err
	}
	if theirs, err := signedDigest(other.root.Signed); err != nil || mine != theirs {
		return fault.New(fault.DirectoryInvalid, "%s holds the directory of another union than the pinned root names", d.cfg.Dir)
	}
	return nil
}

// View is the current view; it is never nil.
func (d *Directory) View() *View { return d.view.Load() }

// Watch gives a channel that is closed when the view next changes.
func (d *Directory) Watch() <-chan struct{} { return *d.changed.Load() }

// Fresh is View().Fresh by the directory's clock.
func (d *Directory) Fresh(states ...union.State) error {
	return d.View().Fresh(d.deps.Now(), states...)
}

// Serve gives a file of the directory for a peer: metadata and targets by
// their names in the repository, old versions too. What is not there is the
// fault NotFound.
func (d *Directory) Serve(ctx context.Context, name string) ([]byte, error) {
	if !fileName.MatchString(name) {
		return nil, fault.New(fault.NotFound, "%q is no file of a directory", clip(name))
	}
	if r := d.View().release; name == timestampName && r != nil {
		return r.stamp, nil
	}
	b, err := d.files.Fetch(ctx, name, maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "the directory has no file %q", clip(name))
	}
	return b, err
}

// Fetch makes a directory a source for another one in the same process.
func (d *Directory) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := d.Serve(ctx, name)
	if fault.CodeOf(err) == fault.NotFound {
		return nil, fmt.Errorf("%s: %w", clip(name), fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return b, within(name, len(b), limit)
}

// ViewAt loads an old version from the archive, or from a peer's: evidence is
// judged by the directory of its day. A version that nobody holds is NotFound.
func (d *Directory) ViewAt(ctx context.Context, version int64) (*View, error) {
	if v := d.View(); v.Version() == version {
		return v, nil
	}
	r, err := d.releaseAt(ctx, version, d.anywhere())
	if err != nil {
		return nil, err
	}
	parts, problems := settle(r, nil)
	return newView(r, parts, problems), nil
}

// Chain gives what anyone needs to follow a version from this directory's pin
// to what the states named say of their certificates, by the files' names: the
// roots, time-stamp, snapshot, targets, union.json, of each state named its
// role, state.json and CRLs, and of all states what their logs and witnesses
// are known by. A version that nobody holds is NotFound.
func (d *Directory) Chain(ctx context.Context, version int64, states ...union.State) (map[string][]byte, error) {
	r, err := d.releaseAt(ctx, version, d.anywhere())
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	take := func(name string) { out[name] = r.files[name] }
	for name := range r.files {
		if strings.HasSuffix(name, "."+metadata.ROOT+".json") {
			take(name)
		}
	}
	take(versioned(version, metadata.TIMESTAMP))
	take(versioned(version, metadata.SNAPSHOT))
	take(versioned(r.targets.Signed.Version, metadata.TARGETS))
	take(targetFile(charterFile, r.targets.Signed.Targets[charterFile].Hashes["sha256"]))
	for state, g := range r.roles {
		if g.meta == nil {
			continue // the state has no part that could be followed
		}
		named := slices.Contains(states, state)
		for target, t := range g.meta.Signed.Targets {
			if base := path.Base(target); base == logFile || named && (base == stateFile || strings.HasPrefix(base, "crl")) {
				take(versioned(g.meta.Signed.Version, string(state)))
				take(targetFile(target, t.Hashes["sha256"]))
			}
		}
	}
	return out, nil
}

// anywhere is the archive and those of all peers.
func (d *Directory) anywhere() chain {
	src := chain{d.files}
	if d.deps.Peers != nil {
		for _, p := range d.deps.Peers() {
			src = append(src, p.Fetcher)
		}
	}
	return src
}

// releaseAt verifies an old version from the pin on.
func (d *Directory) releaseAt(ctx context.Context, version int64, src chain) (*release, error) {
	stamp, err := src.get(ctx, versioned(version, metadata.TIMESTAMP), maxTimestamp, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "nobody in reach holds version %d of the directory", version)
	}
	if err != nil {
		return nil, fmt.Errorf("read directory version %d: %w", version, err)
	}
	// The root of that day, not today's: its keys may have been replaced.
	raw, err := src.get(ctx, versioned(version, metadata.SNAPSHOT), maxMetadata, plain)
	if err != nil {
		return nil, fmt.Errorf("read directory version %d: %w", version, err)
	}
	snapshot, err := metadata.Snapshot().FromBytes(raw)
	if err != nil || snapshot.Signed.Meta["root.json"] == nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "directory version %d", version)
	}
	r, err := trust{pin: d.pin, last: snapshot.Signed.Meta["root.json"].Version}.load(ctx, stamp, src...)
	if err != nil {
		return nil, fault.Wrap(fault.DirectoryInvalid, err, "directory version %d", version)
	}
	return r, nil
}

// install makes a verified release the current one: on disk, but for the files
// that are there already, then in memory. The caller holds mu, or is Open.
func (d *Directory) install(r *release, before map[union.State]*part, there bundle) error {
	record := d.record.judge(r, d.cfg.State, d.ownKey(), d.deps.Now())
	parts, problems := settle(r, before)
	files := map[string][]byte{timestampName: r.stamp}
	for name, b := range r.files {
		if there[name] == nil {
			files[name] = b
		}
	}
	for _, p := range problems {
		if good := parts[p.State]; good != nil {
			files[heldName(p.State)] = good.raw
		}
		d.deps.Log.Warn("a state's part of the directory is refused; its last good one stays",
			"state", p.State, "version", r.version, "why", p.Detail)
	}
	if err := record.put(files); err != nil {
		return err
	}
	if err := d.files.write(files); err != nil {
		return fmt.Errorf("keep directory: %w", err)
	}
	d.record = record
	d.view.Store(newView(r, parts, problems))
	next := make(chan struct{})
	close(*d.changed.Swap(&next))
	return nil
}

// replace installs a release over the current one.
func (d *Directory) replace(r *release) error {
	v := d.View()
	var there bundle
	if v.release != nil {
		there = v.release.files
	}
	return d.install(r, v.parts, there)
}

// load verifies a release on top of the current one. Readers are asked after
// the node's own files.
func (d *Directory) load(ctx context.Context, stamp []byte, readers ...Fetcher) (*release, error) {
	return trust{pin: d.pin, base: d.View().release}.load(ctx, stamp, append([]Fetcher{d.files}, readers...)...)
}

// ownKey is the public key (PEM) of the state's key in this node's key folder,
// "" at a node that has none.
func (d *Directory) ownKey() string {
	if d.deps.Keys == nil {
		return ""
	}
	s, err := d.deps.Keys.Signer(StateKey)
	if err != nil {
		return ""
	}
	k, err := tufKey(s.Public())
	if err != nil {
		return ""
	}
	return k.Value.PublicKey
}
