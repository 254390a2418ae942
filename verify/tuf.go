package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/merkle"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits on the directory's files, as docs/protocols/directory.md §2 has them.
const (
	maxRoot   = 1 << 20
	maxFile   = 4 << 20
	maxSteps  = 1024 // roots from the pin on
	maxStates = 64
	maxDepth  = 16

	onlineThreshold = 2
)

// errAway says that something is not here to be checked: no fault is found,
// and nothing is shown.
var errAway = errors.New("it cannot be checked")

func away(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errAway}, args...)...)
}

// errOther says that a directory and the pinned root have no key in common.
var errOther = away("the given root knows none of the directory's signers: container and root are of two unions")

// signed is a TUF metadata file: a role's statement and the signatures on it.
type signed struct {
	Signed     jsontext.Value `json:"signed"`
	Signatures []struct {
		KeyID string `json:"keyid"`
		Sig   string `json:"sig"`
	} `json:"signatures"`
	canonical []byte
}

// statement is what roles say, as far as it is needed here.
type statement struct {
	Type          string             `json:"_type"`
	Spec          string             `json:"spec_version"`
	Version       int64              `json:"version"`
	Expires       time.Time          `json:"expires"`
	Keys          map[string]key     `json:"keys"`
	Roles         map[string]roleDef `json:"roles"`
	Meta          map[string]meta    `json:"meta"`
	Targets       map[string]meta    `json:"targets"`
	Delegations   *delegations       `json:"delegations"`
	Demonstration string             `json:"x-falaj-demonstration"`
}

type key struct {
	Type   string `json:"keytype"`
	Scheme string `json:"scheme"`
	Value  struct {
		Public string `json:"public"`
	} `json:"keyval"`
}

type roleDef struct {
	KeyIDs    []string `json:"keyids"`
	Threshold int      `json:"threshold"`
}

type meta struct {
	Version int64             `json:"version"`
	Length  int64             `json:"length"`
	Hashes  map[string]string `json:"hashes"`
	Signed  string            `json:"x-falaj-signed"`
}

type delegations struct {
	Keys     map[string]key `json:"keys"`
	Succinct jsontext.Value `json:"succinct_roles"`
	Roles    []struct {
		KeyIDs      []string       `json:"keyids"`
		Threshold   int            `json:"threshold"`
		Name        string         `json:"name"`
		Paths       []string       `json:"paths"`
		Terminating bool           `json:"terminating"`
		Prefixes    jsontext.Value `json:"path_hash_prefixes"`
	} `json:"roles"`
}

// parse reads a metadata file of a type.
func parse(b []byte, kind string) (*signed, *statement, error) {
	m, s := new(signed), new(statement)
	if err := json.Unmarshal(b, m, json.RejectUnknownMembers(true)); err != nil {
		return nil, nil, fmt.Errorf("not signed metadata: %w", err)
	}
	var err error
	if m.canonical, err = canonical(m.Signed); err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(m.Signed, s); err != nil {
		return nil, nil, fmt.Errorf("not metadata of %s: %w", kind, err)
	}
	if s.Type != kind || s.Version < 1 || !strings.HasPrefix(s.Spec, "1.") || s.Expires.IsZero() {
		return nil, nil, fmt.Errorf("not metadata of %s: type %.32q, version %d", kind, s.Type, s.Version)
	}
	return m, s, nil
}

// canonical is the canonical JSON (OLPC) that TUF signatures cover. It refuses
// what could be read in two ways: repeated names, fractions, null.
func canonical(v []byte) ([]byte, error) {
	d := jsontext.NewDecoder(bytes.NewReader(v))
	out, err := canonicalValue(nil, d)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	return out, nil
}

func canonicalValue(b []byte, d *jsontext.Decoder) ([]byte, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if d.StackDepth() > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	switch t.Kind() {
	case '"':
		return canonicalString(b, t.String()), nil
	case 't', 'f':
		return strconv.AppendBool(b, t.Bool()), nil
	case '0':
		n, err := strconv.ParseInt(t.String(), 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != t.String() {
			return nil, fmt.Errorf("the number %.32q is no plain integer", t.String())
		}
		return strconv.AppendInt(b, n, 10), nil
	case '[':
		b = append(b, '[')
		for i := 0; d.PeekKind() != ']'; i++ {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = canonicalValue(b, d); err != nil {
				return nil, err
			}
		}
		_, err = d.ReadToken()
		return append(b, ']'), err
	case '{':
		members := map[string][]byte{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, fmt.Errorf("not JSON: %w", err)
			}
			key := name.String()
			if members[key], err = canonicalValue(nil, d); err != nil {
				return nil, err
			}
		}
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(members)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(canonicalString(b, name), ':'), members[name]...)
		}
		_, err = d.ReadToken()
		return append(b, '}'), err
	}
	return nil, errors.New("null is no value in metadata")
}

func canonicalString(b []byte, s string) []byte {
	return append(append(append(b, '"'), strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)...), '"')
}

// public reads a key: ECDSA P-256 under its own identifier, as the directory's
// rules have it.
func (k key) public(id string) (*ecdsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(k.Value.Public))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("key %.16s is not PEM", id)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key %.16s: %w", id, err)
	}
	p, ok := pub.(*ecdsa.PublicKey)
	if !ok || p.Curve != elliptic.P256() || k.Scheme != "ecdsa-sha2-nistp256" {
		return nil, fmt.Errorf("key %.16s is not an ECDSA P-256 key", id)
	}
	return p, nil
}

// by tells whether metadata names any of the keys as a signer's. Where none is
// named, the signatures are not wrong: they are others'.
func (m *signed) by(keys map[string]key) bool {
	for _, s := range m.Signatures {
		if _, ok := keys[s.KeyID]; ok {
			return true
		}
	}
	return false
}

// verify holds metadata against a role: so many of its keys have signed.
func (m *signed) verify(keys map[string]key, role roleDef) error {
	if role.Threshold < 1 || len(role.KeyIDs) == 0 {
		return errors.New("the role has no keys")
	}
	digest := sha256.Sum256(m.canonical)
	good := map[string]bool{} // by key, not by identifier
	seen := map[string]bool{}
	for _, s := range m.Signatures {
		if seen[s.KeyID] {
			return errors.New("one key's signature stands twice")
		}
		seen[s.KeyID] = true
		sig, err := hex.DecodeString(s.Sig)
		if err != nil {
			return errors.New("a signature is not hexadecimal")
		}
		k, ok := keys[s.KeyID]
		if !ok || !slices.Contains(role.KeyIDs, s.KeyID) {
			continue
		}
		pub, err := k.public(s.KeyID)
		if err != nil {
			return err
		}
		if ecdsa.VerifyASN1(pub, digest[:], sig) {
			raw, err := pub.Bytes()
			if err != nil {
				return err
			}
			good[string(raw)] = true
		}
	}
	if len(good) < role.Threshold {
		return fmt.Errorf("%d of the %d signatures that it takes", len(good), role.Threshold)
	}
	return nil
}

// checkRoot holds a root to what the union demands beyond TUF.
func checkRoot(s *statement) error {
	for name, least := range map[string]int{"root": 1, "targets": 1, "snapshot": onlineThreshold, "timestamp": onlineThreshold} {
		if s.Roles[name].Threshold < least {
			return fmt.Errorf("its role %s needs fewer than %d signatures", name, least)
		}
	}
	return nil
}

// edition is one version of the directory, followed from the pinned root, with
// one state's files. When it ends is for the user to ask.
type edition struct {
	union         string
	demonstration bool
	expires       time.Time               // of the directory as a whole
	partExpires   time.Time               // of the state's part
	files         map[string][]byte       // the state's, by their names there
	quorum        int                     // witnesses that a log's head takes
	witness       merkle.Key              // the secretariat's; zero: it has none
	logs          map[string]merkle.Trust // whom each state's log is held against

	certificates memo[*certificate]  // of seals, by their digest
	stampers     memo[*certificate]  // of authorities, by the digest of the token that each made
	heads        memo[merkle.Signed] // checkpoints, by state and digest
}

// memo remembers what was found good by the digest of all that it was found of.
// Safe for concurrent use; the zero value is usable.
type memo[V any] struct {
	mu    sync.Mutex
	known map[[32]byte]V
	bytes int // of all that is known, about
}

// maxMemo and maxMemoBytes bound how much is remembered: whoever brings other
// evidence each time has it checked each time.
const (
	maxMemo      = 4096
	maxMemoBytes = 8 << 20
)

// of gives what find found, which takes about so many bytes.
func (m *memo[V]) of(key [32]byte, bytes func(V) int, find func() (V, error)) (V, error) {
	m.mu.Lock()
	v, ok := m.known[key]
	m.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := find()
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes += bytes(v); m.known == nil || len(m.known) >= maxMemo || m.bytes > maxMemoBytes {
		m.known, m.bytes = map[[32]byte]V{}, bytes(v)
	}
	m.known[key] = v
	return v, nil
}

// follow verifies a version of the directory from the pin to a state's files.
// read gives a file by its name; one that is not there is errAway.
func follow(pin *statement, version int64, state string, read func(name string, limit int64) ([]byte, error)) (*edition, error) {
	file := func(name, kind string, limit int64) (*signed, *statement, error) {
		b, err := read(name, limit)
		if err != nil {
			return nil, nil, err
		}
		m, s, err := parse(b, kind)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		return m, s, nil
	}
	numbered := func(n int64, role string) string { return strconv.FormatInt(n, 10) + "." + role + ".json" }
	snapshot, snap, err := file(numbered(version, "snapshot"), "snapshot", maxFile)
	if err != nil {
		return nil, err
	}
	// Which root the snapshot was made under is believed only once it is
	// verified by that root.
	root, last := pin, snap.Meta["root.json"].Version
	switch {
	case last < pin.Version:
		return nil, away("version %d of the directory is of root %d, before the given root %d: give an earlier root", version, last, pin.Version)
	case last > pin.Version+maxSteps:
		return nil, fmt.Errorf("root %d is too far from %d", last, pin.Version)
	}
	for root.Version < last {
		name := numbered(root.Version+1, "root")
		m, next, err := file(name, "root", maxRoot)
		if err != nil {
			return nil, err
		}
		if root == pin && !m.by(pin.Keys) {
			return nil, errOther
		}
		for _, by := range []*statement{root, next} {
			if err := m.verify(by.Keys, by.Roles["root"]); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		if next.Version != root.Version+1 {
			return nil, fmt.Errorf("%s is version %d", name, next.Version)
		}
		root = next
	}
	if err := checkRoot(root); err != nil {
		return nil, fmt.Errorf("root %d: %w", root.Version, err)
	}
	stamp, ts, err := file(numbered(version, "timestamp"), "timestamp", maxFile)
	if err != nil {
		return nil, err
	}
	if root == pin && !stamp.by(pin.Keys) && !snapshot.by(pin.Keys) {
		return nil, errOther
	}
	digest := sha256.Sum256(snapshot.canonical)
	for role, m := range map[string]*signed{"timestamp": stamp, "snapshot": snapshot} {
		if err := m.verify(root.Keys, root.Roles[role]); err != nil {
			return nil, fmt.Errorf("%s: %w", numbered(version, role), err)
		}
	}
	if named := ts.Meta["snapshot.json"]; ts.Version != version || snap.Version != version || named.Version != version || named.Signed != hex.EncodeToString(digest[:]) {
		return nil, fmt.Errorf("%s names another snapshot", numbered(version, "timestamp"))
	}
	e := &edition{demonstration: root.Demonstration == "true", files: map[string][]byte{}, logs: map[string]merkle.Trust{}}
	e.expires = slices.MinFunc([]time.Time{root.Expires, ts.Expires, snap.Expires}, time.Time.Compare)
	listed := func(role string) (*signed, *statement, error) {
		m, ok := snap.Meta[role+".json"]
		if !ok {
			return nil, nil, away("the snapshot names no %s", role)
		}
		b, err := read(numbered(m.Version, role), maxFile)
		if err != nil {
			return nil, nil, err
		}
		if err := m.fits(b); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", role, err)
		}
		x, s, err := parse(b, "targets")
		if err == nil && s.Version != m.Version {
			err = fmt.Errorf("it is version %d, not %d", s.Version, m.Version)
		}
		return x, s, err
	}
	target := func(s *statement, name string) ([]byte, error) {
		t, ok := s.Targets[name]
		if !ok {
			return nil, fmt.Errorf("%s is not there", name)
		}
		i := strings.LastIndex(name, "/") + 1
		b, err := read("targets/"+name[:i]+t.Hashes["sha256"]+"."+name[i:], maxFile)
		if err != nil {
			return nil, err
		}
		return b, t.fits(b)
	}
	top, targets, err := listed("targets")
	if err != nil {
		return nil, err
	}
	if err := top.verify(root.Keys, root.Roles["targets"]); err != nil {
		return nil, fmt.Errorf("targets: %w", err)
	}
	if targets.Expires.Before(e.expires) {
		e.expires = targets.Expires
	}
	b, err := target(targets, "union.json")
	if err != nil {
		return nil, err
	}
	if err := e.charter(b, targets.Delegations); err != nil {
		return nil, err
	}
	var part *statement
	logs := map[string]logKeys{}
	for _, r := range targets.Delegations.Roles {
		m, says, err := listed(r.Name)
		if err == nil {
			if err = m.verify(targets.Delegations.Keys, roleDef{r.KeyIDs, r.Threshold}); err == nil && says.Delegations != nil {
				err = errors.New("a state's role delegates nothing")
			}
			if err != nil && r.Name != state {
				continue // what another state did wrong is that state's alone
			}
		}
		switch {
		case r.Name == state && err != nil:
			return nil, fmt.Errorf("%s: %w", state, err)
		case r.Name == state:
			part = says
		case errors.Is(err, errAway):
			continue // whose log and witness are not known here count for nothing
		case err != nil:
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		if _, ok := says.Targets[r.Name+"/log.json"]; ok {
			switch b, err := target(says, r.Name+"/log.json"); {
			case err == nil:
				logs[r.Name] = readLog(r.Name, b)
			case !errors.Is(err, errAway):
				return nil, fmt.Errorf("log.json of %s: %w", r.Name, err)
			}
		}
	}
	if part == nil {
		return nil, fmt.Errorf("%s is not of the union", state)
	}
	for state := range logs {
		e.logs[state] = e.trust(state, logs)
	}
	e.partExpires = part.Expires
	for name := range part.Targets {
		rest, ok := strings.CutPrefix(name, state+"/")
		if !ok {
			return nil, fmt.Errorf("%s: %.64q is not in its path", state, name)
		}
		if rest == "state.json" || strings.HasPrefix(rest, "crl") && !strings.Contains(rest, "/") {
			if e.files[rest], err = target(part, name); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return e, nil
}

// charter reads union.json, and holds the delegations to it: one for each
// state, for its own path, to one key.
func (e *edition) charter(b []byte, d *delegations) error {
	var c struct {
		Name          string `json:"name"`
		Demonstration bool   `json:"demonstration"`
		Quorum        int    `json:"quorum"`
		Witness       string `json:"witness"`
		States        []struct {
			Code string `json:"code"`
		} `json:"states"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("union.json: %w", err)
	}
	if c.Demonstration != e.demonstration || len(c.States) > maxStates {
		return errors.New("root and union.json disagree")
	}
	if d == nil || d.Succinct != nil || len(d.Roles) != len(c.States) {
		return errors.New("delegations and the states of union.json do not match")
	}
	states := map[string]bool{}
	for _, s := range c.States {
		states[s.Code] = true
	}
	for i, r := range d.Roles {
		known := states[r.Name]
		delete(states, r.Name)
		if !known || !r.Terminating || r.Threshold != 1 || len(r.KeyIDs) != 1 || r.Prefixes != nil || !slices.Equal(r.Paths, []string{r.Name + "/*", r.Name + "/*/*"}) {
			return fmt.Errorf("delegation %d is not one key for a state's own path", i)
		}
	}
	e.union, e.quorum = c.Name, c.Quorum
	if k, err := merkle.ParseKey(c.Witness); err == nil && k.Kind() == merkle.Cosignature {
		e.witness = k
	}
	return nil
}

// fits holds a file against the length and digest that name it.
func (m meta) fits(b []byte) error {
	sum := sha256.Sum256(b)
	if int64(len(b)) != m.Length || len(m.Hashes) != 1 || m.Hashes["sha256"] != hex.EncodeToString(sum[:]) {
		return errors.New("it is not the file that was signed for")
	}
	return nil
}
