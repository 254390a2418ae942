package directory

import (
	"context"
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Founding is what a union begins with.
type Founding struct {
	Name          string
	Demonstration bool
	Threshold     int // k: votes that root and targets take
	Quorum        int // witnesses that a log's head takes
	Purposes      []Purpose
	Secretariat   crypto.PublicKey // its online key; nil for a union without one
	Witness       merkle.Key       // its witness; zero: it has none
	Now           time.Time
}

// Enrolment is what a state brings to the ceremony: its public keys and its
// part, signed with its state key.
type Enrolment struct {
	Seat   Seat              `json:"seat"`
	Votes  bool              `json:"votes"`          // has a vote on root and targets
	Root   string            `json:"root,omitzero"`  // public keys, PEM
	Key    string            `json:"key"`            // of its part
	Online string            `json:"online"`         // of snapshots and time-stamps
	Part   string            `json:"part"`           // the signed role
	Files  map[string]string `json:"files"`          // what it names, where that is UTF-8
	Data   map[string][]byte `json:"data,omitempty"` // and where it is not

	// Succession is the old state key's word, where the state replaces it.
	Succession *Succession `json:"succession,omitempty"`
}

// Enrol makes a state's enrolment with the keys of its folder. In a union that
// the state is in already, version is one above that of its last part.
func Enrol(seat Seat, votes bool, keys Keys, version int64, now time.Time, e *Edition) (*Enrolment, error) {
	g, err := e.role(seat.Code)
	if err != nil {
		return nil, err
	}
	n := &Enrolment{Seat: seat, Votes: votes}
	names := map[string]*string{StateKey: &n.Key, OnlineKey: &n.Online}
	if votes {
		names[RootKey] = &n.Root
	}
	for name, to := range names {
		s, err := keys.Signer(name)
		if err != nil {
			return nil, fmt.Errorf("enrol %s: %w", seat.Code, err)
		}
		k, err := tufKey(s.Public())
		if err != nil {
			return nil, fmt.Errorf("enrol %s: key %s: %w", seat.Code, name, err)
		}
		*to = k.Value.PublicKey
		if name == StateKey {
			g.meta.Signed.Version, g.meta.Signed.Expires = version, now.Add(partLife).UTC().Truncate(time.Second)
			if err := sign(g.meta, s); err != nil {
				return nil, err
			}
		}
	}
	raw, err := g.meta.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("enrol %s: %w", seat.Code, err)
	}
	n.Part = string(raw)
	n.Files, n.Data = g.bundle().split()
	return n, nil
}

// Encode writes the enrolment for the way to the ceremony.
func (n *Enrolment) Encode() ([]byte, error) { return encode(n) }

// DecodeEnrolment reads an enrolment strictly. Its part is judged when it is
// added to a draft.
func DecodeEnrolment(raw []byte) (*Enrolment, error) {
	if len(raw) > maxBundle {
		return nil, fmt.Errorf("enrolment of %d bytes; at most %d", len(raw), maxBundle)
	}
	n := new(Enrolment)
	if err := unmarshal(raw, n); err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	return n, nil
}

// Draft is the next root and targets on their way round the states, who sign
// them one after the other.
type Draft struct {
	last    *metadata.Metadata[metadata.RootType] // the root in force, nil for a new union
	root    *metadata.Metadata[metadata.RootType]
	targets *metadata.Metadata[metadata.TargetsType]
	charter *Charter
	files   bundle           // roots and targets aside: parts of states and what they name
	parts   map[string]int64 // versions of the parts that come with it
	opening bundle           // a new union's first time-stamp and snapshot, once a party has signed them (Enact)
}

// Found begins a union.
func Found(f Founding) (*Draft, error) {
	// It is shown in sentences, and signed as a line of its own.
	if strings.TrimSpace(f.Name) != f.Name || strings.ContainsFunc(f.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, fmt.Errorf("found union: the name %q begins or ends with a blank, or holds what cannot be printed", clip(f.Name))
	}
	d := &Draft{
		root:    metadata.Root(f.Now.Add(rootLife).UTC().Truncate(time.Second)),
		targets: metadata.Targets(f.Now.Add(rootLife).UTC().Truncate(time.Second)),
		charter: &Charter{Name: f.Name, Demonstration: f.Demonstration, Quorum: f.Quorum, Witness: f.Witness, Purposes: f.Purposes, States: []Seat{}},
		files:   bundle{}, parts: map[string]int64{},
	}
	if d.charter.Purposes == nil {
		d.charter.Purposes = []Purpose{}
	}
	if f.Demonstration {
		d.root.Signed.UnrecognizedFields = map[string]any{demonstrationField: "true"}
	}
	d.targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{}}
	for name, n := range map[string]int{
		metadata.ROOT: f.Threshold, metadata.TARGETS: f.Threshold,
		metadata.SNAPSHOT: onlineThreshold, metadata.TIMESTAMP: onlineThreshold,
	} {
		if n < 1 {
			return nil, fmt.Errorf("found union: a threshold of %d", n)
		}
		d.root.Signed.Roles[name].Threshold = n
	}
	if f.Secretariat != nil {
		k, err := tufKey(f.Secretariat)
		if err != nil {
			return nil, fmt.Errorf("found union: %w", err)
		}
		if _, err := d.addKey(k.Value.PublicKey, metadata.SNAPSHOT, metadata.TIMESTAMP); err != nil {
			return nil, err
		}
	}
	return d, d.seal()
}

// Draft begins a change of root or targets of the current directory. Changes
// and then signatures come into it; Install publishes it.
func (d *Directory) Draft() (*Draft, error) {
	r := d.View().release
	if r == nil {
		return nil, fault.New(fault.DirectoryExpired, "no directory has been received yet")
	}
	dr := &Draft{last: r.root, files: bundle{}, parts: map[string]int64{}}
	var err error
	if dr.root, err = again(metadata.Root(), r.root); err != nil {
		return nil, err
	}
	if dr.targets, err = again(metadata.Targets(), r.targets); err != nil {
		return nil, err
	}
	for target, t := range r.targets.Signed.Targets {
		name := targetFile(target, t.Hashes["sha256"])
		dr.files[name] = r.files[name] // union.json is written anew below
	}
	dr.root.Signed.Version++
	dr.targets.Signed.Version++
	dr.root.Signed.Expires, dr.targets.Signed.Expires = d.until(rootLife), d.until(rootLife)
	raw, err := encode(r.charter)
	if err != nil {
		return nil, err
	}
	if dr.charter, err = DecodeCharter(raw); err != nil {
		return nil, err
	}
	return dr, dr.seal()
}

// again copies metadata.
func again[T metadata.Roles](to, from *metadata.Metadata[T]) (*metadata.Metadata[T], error) {
	raw, err := from.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("copy metadata: %w", err)
	}
	return to.FromBytes(raw)
}

// AddState gives a state its seat, its keys and its part. In a union that has
// the state it replaces its keys; the old state key's word must stand in the
// enrolment (Succession) or an announcement in the directory (Announce), or no
// node will take it.
func (dr *Draft) AddState(n *Enrolment) error {
	code := n.Seat.Code
	if _, err := union.ParseState(string(code)); err != nil {
		return err
	}
	files, err := join(n.Files, n.Data)
	if err != nil {
		return fmt.Errorf("enrolment of %s: %w", code, err)
	}
	g := &role{raw: []byte(n.Part)}
	if err := plain(g.raw); err != nil {
		return fmt.Errorf("enrolment of %s: %w", code, err)
	}
	if g.meta, err = metadata.Targets().FromBytes(g.raw); err != nil {
		return fmt.Errorf("enrolment of %s: %w", code, err)
	}
	rel := &release{files: bundle{}}
	if g.files, err = rel.fetchFiles(context.Background(), chain{files}, g.meta, string(code)+"/"); err != nil {
		return fmt.Errorf("enrolment of %s: %w", code, err)
	}
	if _, err := buildPart(code, g, nil); err != nil {
		return fmt.Errorf("enrolment of %s: %w", code, err)
	}
	if err := dr.seat(n); err != nil {
		return fmt.Errorf("enrolment of %s: %w", code, err)
	}
	if err := dr.targets.VerifyDelegate(string(code), g.meta); err != nil {
		return fmt.Errorf("enrolment of %s: its part is not signed by its key: %w", code, err)
	}
	dr.parts[string(code)] = g.meta.Signed.Version
	dr.files[versioned(g.meta.Signed.Version, string(code))] = g.raw
	maps.Copy(dr.files, rel.files)
	if n.Succession != nil {
		dr.charter.Successions = append(dr.charter.Successions, *n.Succession)
	}
	return dr.seal()
}

// RemoveState takes a state's seat and keys away. What it signed stays in the
// archive.
func (dr *Draft) RemoveState(code union.State) error {
	i := dr.unseat(code)
	if i < 0 {
		return fault.New(fault.UnknownState, "the union has no state %s", clip(string(code)))
	}
	dr.charter.States = slices.Delete(dr.charter.States, i, i+1)
	return dr.seal()
}

// unseat takes a state's keys away and tells where its seat is, -1 for none.
func (dr *Draft) unseat(code union.State) int {
	root, targets := &dr.root.Signed, dr.targets.Signed.Delegations
	i := slices.IndexFunc(dr.charter.States, func(s Seat) bool { return s.Code == code })
	if i < 0 {
		return i
	}
	old := dr.charter.States[i]
	for _, role := range root.Roles {
		role.KeyIDs = slices.DeleteFunc(role.KeyIDs, func(id string) bool { return id == old.Root || id == old.Online })
	}
	delete(root.Keys, old.Root)
	delete(root.Keys, old.Online)
	targets.Roles = slices.DeleteFunc(targets.Roles, func(r metadata.DelegatedRole) bool {
		if r.Name == string(code) {
			delete(targets.Keys, r.KeyIDs[0])
		}
		return r.Name == string(code)
	})
	return i
}

// seat puts the state's keys in the place of those that it had.
func (dr *Draft) seat(n *Enrolment) error {
	i := dr.unseat(n.Seat.Code)
	if i < 0 {
		i = len(dr.charter.States)
		dr.charter.States = append(dr.charter.States, Seat{})
	}
	targets := dr.targets.Signed.Delegations
	seat, err := n.Seat, error(nil)
	seat.Root = ""
	if seat.Online, err = dr.addKey(n.Online, metadata.SNAPSHOT, metadata.TIMESTAMP); err != nil {
		return err
	}
	if n.Votes {
		if seat.Root, err = dr.addKey(n.Root, metadata.ROOT, metadata.TARGETS); err != nil {
			return err
		}
	}
	key, id, err := pemKey(n.Key)
	if err != nil {
		return err
	}
	targets.Keys[id] = key
	targets.Roles = append(targets.Roles, delegation(n.Seat.Code, id))
	dr.charter.States[i] = seat
	return nil
}

// addKey gives a key to roles of the root. No two parties share one: they
// would count as one signature.
func (dr *Draft) addKey(pem string, roles ...string) (string, error) {
	key, id, err := pemKey(pem)
	if err != nil {
		return "", err
	}
	if _, taken := dr.root.Signed.Keys[id]; taken {
		return "", fmt.Errorf("key %s is another party's already", id)
	}
	for _, r := range roles {
		if err := dr.root.Signed.AddKey(key, r); err != nil {
			return "", fmt.Errorf("add key: %w", err)
		}
	}
	return id, nil
}

// SetThreshold sets how many votes root and targets take.
func (dr *Draft) SetThreshold(k int) error {
	if n := len(dr.root.Signed.Roles[metadata.ROOT].KeyIDs); k < 1 || k > n {
		return fmt.Errorf("a threshold of %d with %d votes", k, n)
	}
	dr.root.Signed.Roles[metadata.ROOT].Threshold = k
	dr.root.Signed.Roles[metadata.TARGETS].Threshold = k
	return dr.seal()
}

// SetQuorum sets how many witnesses a log's head takes.
func (dr *Draft) SetQuorum(n int) error {
	dr.charter.Quorum = n
	return dr.seal()
}

// SetWitness names the secretariat's witness.
func (dr *Draft) SetWitness(k merkle.Key) error {
	dr.charter.Witness = k
	return dr.seal()
}

// SetPurposes sets the union's purposes.
func (dr *Draft) SetPurposes(p []Purpose) error {
	dr.charter.Purposes = p
	return dr.seal()
}

// Announce says in public that a state will have a new key (PEM).
func (dr *Draft) Announce(state union.State, key string) error {
	dr.charter.Announcements = slices.DeleteFunc(dr.charter.Announcements, func(a Announcement) bool { return a.State == state })
	dr.charter.Announcements = append(dr.charter.Announcements, Announcement{State: state, Key: key})
	return dr.seal()
}

// seal puts union.json into targets. What was signed before is void.
func (dr *Draft) seal() error {
	if err := dr.charter.check(); err != nil {
		return fmt.Errorf("union.json: %w", err)
	}
	b, err := encode(dr.charter)
	if err != nil {
		return fmt.Errorf("union.json: %w", err)
	}
	t, err := metadata.TargetFile().FromBytes(charterFile, b)
	if err != nil {
		return fmt.Errorf("union.json: %w", err)
	}
	if old := dr.targets.Signed.Targets[charterFile]; old != nil {
		delete(dr.files, targetFile(charterFile, old.Hashes["sha256"]))
	}
	dr.targets.Signed.Targets[charterFile] = t
	dr.files[targetFile(charterFile, t.Hashes["sha256"])] = b
	dr.root.Signatures, dr.targets.Signatures = []metadata.Signature{}, []metadata.Signature{}
	dr.opening = nil
	return nil
}

// Party tells which state's online key a key is; "" for the secretariat's and
// for a stranger's.
func (dr *Draft) Party(online crypto.PublicKey) union.State {
	id, err := keyID(online)
	for _, s := range dr.charter.States {
		if err == nil && s.Online == id {
			return s.Code
		}
	}
	return ""
}

// voted tells whether a draft has its votes.
func (dr *Draft) voted() error {
	if err := dr.Ready(); err != nil {
		got, need, _ := dr.Votes()
		return fault.Wrap(fault.DirectoryInvalid, err, "the draft has %d of the %d votes that it takes", got, need)
	}
	return nil
}

// Install publishes a draft that has its votes: this party and one other sign
// the snapshot that brings it into force.
func (d *Directory) Install(ctx context.Context, dr *Draft) error {
	if err := dr.voted(); err != nil {
		return err
	}
	return d.propose(ctx, dr.fill)
}

// fill puts the draft into a proposal.
func (dr *Draft) fill(v *View, p *proposal) error {
	files, err := dr.bundle()
	if err != nil {
		return err
	}
	root, targets := dr.Versions()
	if r := v.release; r != nil && (root != r.root.Signed.Version+1 || targets != r.targets.Signed.Version+1) {
		return fault.New(fault.DirectoryConflict, "root %d and targets %d are in force; the draft was made for others", r.root.Signed.Version, r.targets.Signed.Version)
	}
	maps.Copy(p.files, dr.files)
	p.files[versioned(root, metadata.ROOT)] = files[versioned(root, metadata.ROOT)]
	p.meta["root.json"] = metadata.MetaFile(root)
	p.set(metadata.TARGETS, targets, files[versioned(targets, metadata.TARGETS)])
	for role, version := range dr.parts {
		if m := p.meta[role+".json"]; m != nil && m.Version >= version {
			return fault.New(fault.DirectoryConflict, "%s has published version %d of its part since it enrolled with version %d: it enrols again", role, m.Version, version)
		}
		p.set(role, version, dr.files[versioned(version, role)])
	}
	return nil
}
