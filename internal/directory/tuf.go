package directory

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// onlineThreshold is how many of {secretariat, states} sign each snapshot and
// time-stamp: nobody alone can freeze, mix or split views.
const onlineThreshold = 2

// Fields of ours in the signed metadata, which other TUF clients pass over.
const (
	demonstrationField = "x-falaj-demonstration" // root: "true"
	signedField        = "x-falaj-signed"        // time-stamp: SHA-256 of the snapshot's canonical signed part
)

// release is one version of the directory with every signature verified, but
// for the passing of time: what has expired is judged when it is used, so that
// a node can load yesterday's directory in order to renew it.
type release struct {
	version   int64
	root      *metadata.Metadata[metadata.RootType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	targets   *metadata.Metadata[metadata.TargetsType]
	charter   *Charter
	services  []Definition
	roles     map[union.State]*role
	stamp     []byte   // timestamp.json as fetched
	digest    [32]byte // of the time-stamp's signed part: the same for every set of signatures
	files     bundle   // all that it stands on, by name
}

// role is what one state signed. err says why it cannot be used; the rest of
// the union does not depend on it.
type role struct {
	meta  *metadata.Metadata[metadata.TargetsType]
	raw   []byte
	files map[string][]byte // its targets, by target path
	err   error
}

// Whoever steals keys must not be able to push a version so high that there is
// none above it: versions are bounded, and so is each step. This is what other
// TUF clients reset versions for after a change of keys (specification
// §5.3.11), which here is not needed.
const (
	maxVersion = 1 << 53
	maxJump    = 1 << 20
)

// errBehind marks a release that would take something back.
var errBehind = errors.New("rollback")

// trust is where verification starts: with a root that is trusted because it
// was pinned, or with a release that was verified before.
type trust struct {
	pin  pin
	base *release // nil: from the pin
	last int64    // the last root to follow; 0: as far as the chain goes
}

// pin is a root that a node was given.
type pin struct {
	raw  []byte
	root *metadata.Metadata[metadata.RootType]
}

func readPin(raw []byte) (pin, error) {
	if err := within("root", len(raw), maxRoot); err != nil {
		return pin{}, err
	}
	if err := plain(raw); err != nil {
		return pin{}, err
	}
	root, err := metadata.Root().FromBytes(raw)
	if err != nil {
		return pin{}, err
	}
	return pin{raw, root}, checkRoot(&root.Signed)
}

// load verifies the release that a time-stamp names. Readers are asked in turn
// for every other file.
func (t trust) load(ctx context.Context, stamp []byte, readers ...Fetcher) (*release, error) {
	src := chain(readers)
	r := &release{roles: map[union.State]*role{}, stamp: stamp, files: bundle{}}
	tm, err := t.loadRoots(ctx, src, r.files)
	if err != nil {
		return nil, err
	}
	r.root = tm.Root
	if err := within(timestampName, len(stamp), maxTimestamp); err != nil {
		return nil, err
	}
	if err := plain(stamp); err != nil {
		return nil, fmt.Errorf("time-stamp: %w", err)
	}
	if r.timestamp, err = tm.UpdateTimestamp(stamp); err != nil {
		return nil, fmt.Errorf("time-stamp: %w", err)
	}
	if r.digest, err = signedDigest(r.timestamp.Signed); err != nil {
		return nil, err
	}
	r.version = r.timestamp.Signed.Version
	snap, ok := r.timestamp.Signed.Meta["snapshot.json"]
	if !ok || snap.Version != r.version || r.version < 1 || r.version > maxVersion {
		return nil, errors.New("time-stamp: it does not name the snapshot of its own version")
	}
	r.files[versioned(r.version, metadata.TIMESTAMP)] = stamp
	if err := r.loadSnapshot(ctx, tm, src); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if err := r.loadTargets(ctx, tm, src, t.base); err != nil {
		return nil, err
	}
	return r, nil
}

// loadRoots follows the chain of roots: each is signed by k of the one before
// and by k of its own.
func (t trust) loadRoots(ctx context.Context, src chain, files bundle) (*trustedmetadata.TrustedMetadata, error) {
	tm := &trustedmetadata.TrustedMetadata{Root: t.pin.root, Targets: map[string]*metadata.Metadata[metadata.TargetsType]{}}
	raw := t.pin.raw
	if t.base != nil {
		tm.Root = t.base.root
		raw = t.base.files[versioned(tm.Root.Signed.Version, metadata.ROOT)]
	}
	files[versioned(tm.Root.Signed.Version, metadata.ROOT)] = raw
	tm.RefTime = time.Time{} // before every expiry
	for range maxRootSteps {
		if t.last > 0 && tm.Root.Signed.Version >= t.last {
			break
		}
		name := versioned(tm.Root.Signed.Version+1, metadata.ROOT)
		raw, err := src.get(ctx, name, maxRoot, func(b []byte) error {
			if err := plain(b); err != nil {
				return err
			}
			_, err := tm.UpdateRoot(b)
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		files[name] = raw
	}
	return tm, checkRoot(&tm.Root.Signed)
}

func checkRoot(root *metadata.RootType) error {
	for _, name := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if r := root.Roles[name]; r == nil || r.Threshold < onlineThreshold {
			return fmt.Errorf("root: %s needs fewer than %d signatures", name, onlineThreshold)
		}
	}
	for _, name := range []string{metadata.ROOT, metadata.TARGETS} {
		if r := root.Roles[name]; r == nil || r.Threshold < 1 {
			return fmt.Errorf("root: it has no role %s", name)
		}
	}
	return checkKeys(root.Keys)
}

// checkKeys wants P-256 keys under their own identifiers.
func checkKeys(keys map[string]*metadata.Key) error {
	for id, k := range keys {
		pub, err := k.ToPublicKey()
		if err != nil {
			return fmt.Errorf("key %s: %w", clip(id), err)
		}
		if own, err := keyID(pub); err != nil || own != id {
			return fmt.Errorf("key %s is not an ECDSA P-256 key of that identifier", clip(id))
		}
	}
	return nil
}

func (r *release) loadSnapshot(ctx context.Context, tm *trustedmetadata.TrustedMetadata, src chain) error {
	want, _ := r.timestamp.Signed.Meta["snapshot.json"].UnrecognizedFields[signedField].(string)
	name := versioned(r.version, metadata.SNAPSHOT)
	raw, err := src.get(ctx, name, maxMetadata, func(b []byte) error {
		if err := plain(b); err != nil {
			return err
		}
		// Checked before the signatures: a fork's snapshot of the same
		// version may lie in the local folder.
		m, err := metadata.Snapshot().FromBytes(b)
		if err != nil {
			return err
		}
		if digest, err := signedDigest(m.Signed); err != nil || hex.EncodeToString(digest[:]) != want {
			return errors.New("it is not the snapshot that the time-stamp names")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if r.snapshot, err = tm.UpdateSnapshot(raw, false); err != nil {
		return err
	}
	if root := r.snapshot.Signed.Meta["root.json"]; root == nil || root.Version != r.root.Signed.Version {
		return fmt.Errorf("it was not made under root %d", r.root.Signed.Version)
	}
	for name, m := range r.snapshot.Signed.Meta {
		if !metaName.MatchString(name) || m.Version < 1 || m.Version > maxVersion {
			return fmt.Errorf("%s, version %d, does not belong in it", clip(name), m.Version)
		}
		if name != "root.json" && (m.Length < 1 || m.Length > maxMetadata || len(m.Hashes["sha256"]) != sha256.Size) {
			return fmt.Errorf("%s stands in it without length or digest", clip(name))
		}
	}
	r.files[name] = raw
	return nil
}

func (r *release) loadTargets(ctx context.Context, tm *trustedmetadata.TrustedMetadata, src chain, base *release) error {
	raw, err := r.fetchMeta(ctx, src, metadata.TARGETS)
	if err != nil {
		return err
	}
	if r.targets, err = tm.UpdateTargets(raw); err != nil {
		return fmt.Errorf("targets: %w", err)
	}
	files, err := r.fetchFiles(ctx, src, r.targets, "")
	if err != nil {
		return fmt.Errorf("targets: %w", err)
	}
	if r.charter, err = DecodeCharter(files[charterFile]); err != nil {
		return err
	}
	r.services = definitions(files)
	if err := r.checkDelegations(); err != nil {
		return fmt.Errorf("targets: %w", err)
	}
	if (r.root.Signed.UnrecognizedFields[demonstrationField] == "true") != r.charter.Demonstration {
		return errors.New("root and union.json disagree whether this is a demonstration")
	}
	for _, seat := range r.charter.States {
		role, err := r.loadRole(ctx, tm, src, seat.Code, base)
		if err != nil {
			return fmt.Errorf("%s: %w", seat.Code, err)
		}
		r.roles[seat.Code] = role
	}
	return nil
}

// checkDelegations wants exactly one terminating delegation a state, bound to
// the state's path, with one key.
func (r *release) checkDelegations() error {
	d := r.targets.Signed.Delegations
	if d == nil || d.SuccinctRoles != nil || len(d.Roles) != len(r.charter.States) {
		return errors.New("delegations and the states of union.json do not match")
	}
	for _, g := range d.Roles {
		want := delegation(union.State(g.Name), "")
		if !slices.ContainsFunc(r.charter.States, func(s Seat) bool { return string(s.Code) == g.Name }) ||
			!g.Terminating || g.Threshold != 1 || len(g.KeyIDs) != 1 || !slices.Equal(g.Paths, want.Paths) || g.PathHashPrefixes != nil {
			return fmt.Errorf("the delegation to %q is not one key for its own path", clip(g.Name))
		}
	}
	return checkKeys(d.Keys)
}

func delegation(state union.State, key string) metadata.DelegatedRole {
	return metadata.DelegatedRole{
		Name: string(state), KeyIDs: []string{key}, Threshold: 1, Terminating: true,
		Paths: []string{string(state) + "/*", string(state) + "/*/*"},
	}
}

// key gives the public key (PEM) that the states say is a state's.
func (r *release) key(state union.State) string {
	for _, g := range r.targets.Signed.Delegations.Roles {
		if k := r.targets.Signed.Delegations.Keys[g.KeyIDs[0]]; g.Name == string(state) && k != nil {
			return k.Value.PublicKey
		}
	}
	return ""
}

// loadRole verifies what one state signed. What the state did wrong goes into
// role.err and concerns that state alone; what a reader failed to bring is an
// error, so that another reader is asked.
func (r *release) loadRole(ctx context.Context, tm *trustedmetadata.TrustedMetadata, src chain, state union.State, base *release) (*role, error) {
	name := string(state)
	if r.snapshot.Signed.Meta[name+".json"] == nil {
		return &role{err: errors.New("the state has published nothing yet")}, nil
	}
	if g := r.unchanged(state, base); g != nil {
		return g, nil
	}
	raw, err := r.fetchMeta(ctx, src, name)
	if err != nil {
		return nil, err
	}
	g := &role{raw: raw}
	if err := plain(raw); err != nil {
		g.err = err
		return g, nil
	}
	if g.meta, g.err = tm.UpdateDelegatedTargets(raw, name, metadata.TARGETS); g.err != nil {
		g.meta = nil
		return g, nil
	}
	if g.err = ownPaths(g.meta, name+"/"); g.err != nil {
		return g, nil
	}
	g.files, err = r.fetchFiles(ctx, src, g.meta, name+"/")
	return g, err
}

// unchanged takes over what a state signed from the release before, if it is
// the same file under the same key: it need not be verified again.
func (r *release) unchanged(state union.State, base *release) *role {
	if base == nil || base.roles[state] == nil || base.roles[state].err != nil || base.key(state) != r.key(state) {
		return nil
	}
	old, now := base.snapshot.Signed.Meta[string(state)+".json"], r.snapshot.Signed.Meta[string(state)+".json"]
	if old == nil || old.Version != now.Version || old.Length != now.Length || !old.Hashes.Equal(now.Hashes) {
		return nil
	}
	g := *base.roles[state]
	r.files[versioned(now.Version, string(state))] = g.raw
	maps.Copy(r.files, g.bundle())
	return &g
}

// ownPaths holds a role to the paths that are its own, and to our limits.
func ownPaths(m *metadata.Metadata[metadata.TargetsType], prefix string) error {
	if m.Signed.Delegations != nil && prefix != "" {
		return errors.New("a state's role delegates nothing")
	}
	most := maxTargets
	if prefix == "" {
		most = 1 + maxDefinitions
	}
	if len(m.Signed.Targets) > most {
		return fmt.Errorf("%d files; at most %d", len(m.Signed.Targets), most)
	}
	var size int64
	for name, t := range m.Signed.Targets {
		joint := strings.HasPrefix(name, servicePath)
		if !targetPath.MatchString(name) || !strings.HasPrefix(name, prefix) || prefix == "" && name != charterFile && !joint {
			return fmt.Errorf("%q is not in its path", clip(name))
		}
		if joint && t.Length > maxDefinition {
			return fmt.Errorf("%s: %d bytes; at most %d", name, t.Length, maxDefinition)
		}
		if len(t.Hashes) != 1 || len(t.Hashes["sha256"]) != sha256.Size || t.Length < 0 || t.Length > maxDocument {
			return fmt.Errorf("%s: digest or length is not acceptable", name)
		}
		size += t.Length
	}
	if size > maxPartSize {
		return fmt.Errorf("%d bytes; at most %d", size, maxPartSize)
	}
	return nil
}

// fetchMeta gets the file that the snapshot names for a role and holds it
// against its length and digest.
func (r *release) fetchMeta(ctx context.Context, src chain, role string) ([]byte, error) {
	m := r.snapshot.Signed.Meta[role+".json"]
	if m == nil {
		return nil, fmt.Errorf("the snapshot does not name %s", role)
	}
	name := versioned(m.Version, role)
	raw, err := src.get(ctx, name, m.Length, m.VerifyLengthHashes)
	if err != nil {
		return nil, err
	}
	r.files[name] = raw
	return raw, nil
}

// fetchFiles gets the target files that a role names.
func (r *release) fetchFiles(ctx context.Context, src chain, m *metadata.Metadata[metadata.TargetsType], prefix string) (map[string][]byte, error) {
	if err := ownPaths(m, prefix); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for target, t := range m.Signed.Targets {
		name := targetFile(target, t.Hashes["sha256"])
		raw, err := src.get(ctx, name, t.Length, t.VerifyLengthHashes)
		if err != nil {
			return nil, err
		}
		files[target], r.files[name] = raw, raw
	}
	return files, nil
}

// follows tells whether a release may take the place of another: nothing in it
// may be older. errBehind marks one that is not wholly newer.
func (r *release) follows(base *release) error {
	if base == nil {
		return nil
	}
	if r.root.Signed.Version < base.root.Signed.Version {
		return fmt.Errorf("%w: root %d after %d", errBehind, r.root.Signed.Version, base.root.Signed.Version)
	}
	if r.version <= base.version {
		return fmt.Errorf("%w: version %d after %d", errBehind, r.version, base.version)
	}
	if r.version > base.version+maxJump {
		return fmt.Errorf("version %d is too far from %d", r.version, base.version)
	}
	for name, old := range base.snapshot.Signed.Meta {
		now := r.snapshot.Signed.Meta[name]
		switch {
		case now == nil:
			return fmt.Errorf("%w: %s is gone", errBehind, name)
		case now.Version < old.Version:
			return fmt.Errorf("%w: %s %d after %d", errBehind, name, now.Version, old.Version)
		case name == "targets.json" && now.Version == old.Version && !now.Hashes.Equal(old.Hashes):
			return fmt.Errorf("%w: two different targets of version %d", errBehind, old.Version)
		}
	}
	for name, now := range r.snapshot.Signed.Meta {
		var from int64
		if old := base.snapshot.Signed.Meta[name]; old != nil {
			from = old.Version
		}
		if now.Version > from+maxJump {
			return fmt.Errorf("%s: version %d is too far from %d", name, now.Version, from)
		}
	}
	return nil
}

// markDoubles finds states that signed two contents under one number: they
// harm only themselves.
func (r *release) markDoubles(base *release) {
	if base == nil {
		return
	}
	for state, g := range r.roles {
		old, now := base.snapshot.Signed.Meta[string(state)+".json"], r.snapshot.Signed.Meta[string(state)+".json"]
		if old != nil && now != nil && now.Version == old.Version && !now.Hashes.Equal(old.Hashes) {
			g.err = fmt.Errorf("the state signed two different parts as version %d", now.Version)
		}
	}
}

// expires is when the directory as a whole can no longer be relied on.
func (r *release) expires() time.Time {
	return slices.MinFunc([]time.Time{
		r.root.Signed.Expires, r.targets.Signed.Expires, r.snapshot.Signed.Expires, r.timestamp.Signed.Expires,
	}, time.Time.Compare)
}

// plain refuses JSON that go-tuf would stumble over: null where it expects an
// object, repeated names, what is not one JSON value.
func plain(b []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(b))
	for whole := false; ; {
		t, err := d.ReadToken()
		if errors.Is(err, io.EOF) && whole {
			return nil
		}
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		if whole {
			return errors.New("more than one JSON value")
		}
		whole = d.StackDepth() == 0
		if t.Kind() == jsontext.KindNull {
			return errors.New("null is no value in metadata")
		}
		if d.StackDepth() > 16 {
			return errors.New("nested too deeply")
		}
	}
}

// keyID gives a public key's TUF identifier.
func keyID(pub crypto.PublicKey) (string, error) {
	k, err := tufKey(pub)
	if err != nil {
		return "", err
	}
	return k.ID()
}

func tufKey(pub crypto.PublicKey) (*metadata.Key, error) {
	if p, ok := pub.(*ecdsa.PublicKey); !ok || p.Curve != elliptic.P256() {
		return nil, errors.New("directory keys are ECDSA P-256")
	}
	return metadata.KeyFromPublicKey(pub)
}

// signedDigest is the SHA-256 of what a role's signatures cover.
func signedDigest(signed any) ([32]byte, error) {
	b, err := cjson.EncodeCanonical(signed)
	if err != nil {
		return [32]byte{}, fmt.Errorf("canonical form: %w", err)
	}
	return sha256.Sum256(b), nil
}

// sign adds the key's signature, or renews it (TUF specification §4.2.1).
func sign[T metadata.Roles](m *metadata.Metadata[T], key crypto.Signer) error {
	id, err := keyID(key.Public())
	if err != nil {
		return err
	}
	digest, err := signedDigest(m.Signed)
	if err != nil {
		return err
	}
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign metadata: %w", err)
	}
	m.Signatures = slices.DeleteFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
	m.Signatures = append(m.Signatures, metadata.Signature{KeyID: id, Signature: sig})
	return nil
}
