package directory

import (
	"context"
	"crypto"
	"encoding/hex"
	"maps"
	"time"

	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// What attackers in the tests build: metadata signed with keys that they
// stole, without any of the checks that a party makes.

type (
	Bundle   = bundle
	Forgery  = proposal
	Release  = release
	Metadata = metadata.MetaFiles

	DelegatedRole = metadata.DelegatedRole
)

var (
	DecodeBundle = decodeBundle
	Plain        = plain
	TargetFile   = targetFile
	Versioned    = versioned
	WithinLimit  = within
)

const (
	MaxBundle = maxBundle
	StampLife = stampLife
	PartLife  = partLife
)

func (p *proposal) Set(role string, version int64, raw []byte) { p.set(role, version, raw) }
func (p *proposal) Meta() map[string]*metadata.MetaFiles       { return p.meta }
func (p *proposal) Files() map[string][]byte                   { return p.files }
func (b bundle) Encode() ([]byte, error)                       { return b.encode() }

// Files gives the files of the current release.
func (d *Directory) Files() bundle {
	b := maps.Clone(d.View().release.files)
	b[timestampName] = d.View().release.stamp
	return b
}

// Reader gives the directory's own files, local ones too.
func (d *Directory) Reader() Fetcher { return d.files }

// Forge makes a release of the version after edit, signed by the keys given.
func (d *Directory) Forge(version int64, end time.Time, edit func(*Forgery), keys ...crypto.Signer) bundle {
	r := d.View().release
	p := &proposal{meta: map[string]*metadata.MetaFiles{}, files: maps.Clone(r.files)}
	for name, m := range r.snapshot.Signed.Meta {
		c := *m
		p.meta[name] = &c
	}
	if edit != nil {
		edit(p)
	}
	snapshot, stamp := metadata.Snapshot(end), metadata.Timestamp(end)
	snapshot.Signed.Version, snapshot.Signed.Meta, stamp.Signed.Version = version, p.meta, version
	digest, err := signedDigest(snapshot.Signed)
	if err != nil {
		panic(err)
	}
	m := metadata.MetaFile(version)
	m.UnrecognizedFields = map[string]any{signedField: hex.EncodeToString(digest[:])}
	stamp.Signed.Meta["snapshot.json"] = m
	for _, k := range keys {
		if err := p.seal(snapshot, stamp, k); err != nil {
			panic(err)
		}
	}
	return p.files
}

// SignPart signs files, by their target paths, as a state's part.
func SignPart(version int64, end time.Time, files map[string][]byte, key crypto.Signer) (raw []byte, out bundle) {
	g := &role{meta: metadata.Targets(end), files: files}
	g.meta.Signed.Version = version
	for name, b := range files {
		t, err := metadata.TargetFile().FromBytes(name, b)
		if err != nil {
			panic(err)
		}
		g.meta.Signed.Targets[name] = t
	}
	if err := sign(g.meta, key); err != nil {
		panic(err)
	}
	raw, err := g.meta.ToBytes(false)
	if err != nil {
		panic(err)
	}
	return raw, g.bundle()
}

// PartFiles gives the files of a state's last good part by target path.
func (d *Directory) PartFiles(state union.State) map[string][]byte {
	return maps.Clone(d.View().parts[state].files)
}

// RoleVersion is the version of a role in the current snapshot.
func (d *Directory) RoleVersion(role string) int64 {
	return d.View().release.snapshot.Signed.Meta[role+".json"].Version
}

// LoadFrom verifies a release from scratch.
func LoadFrom(pin, stamp []byte, readers ...Fetcher) (*release, error) {
	p, err := readPin(pin)
	if err != nil {
		return nil, err
	}
	return trust{pin: p}.load(context.Background(), stamp, readers...)
}

// RoleFromBytes reads a role as loading does, to be fuzzed.
func RoleFromBytes(raw []byte) error {
	if err := plain(raw); err != nil {
		return err
	}
	m, err := metadata.Targets().FromBytes(raw)
	if err != nil {
		return err
	}
	return ownPaths(m, "BH/")
}

// Delegation is the draft's delegation to a state, to be changed.
func (dr *Draft) Delegation(state union.State) *metadata.DelegatedRole {
	list := dr.targets.Signed.Delegations.Roles
	for i := range list {
		if list[i].Name == string(state) {
			return &list[i]
		}
	}
	return nil
}
