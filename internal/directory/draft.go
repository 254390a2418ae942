package directory

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Charter is what the draft says about the union.
func (dr *Draft) Charter() Charter { return *dr.charter }

// Versions gives the version of the draft's root and targets.
func (dr *Draft) Versions() (root, targets int64) {
	return dr.root.Signed.Version, dr.targets.Signed.Version
}

// Sign adds the votes of a key: to the root, by one of its own keys or of the
// root before it, and to targets. A key without a vote is an error.
func (dr *Draft) Sign(key crypto.Signer) error {
	if len(dr.opening) > 0 {
		return fault.New(fault.DirectoryConflict, "the draft had its votes, and a party has begun to bring it into force: it takes no more of them")
	}
	id, err := keyID(key.Public())
	if err != nil {
		return err
	}
	voted := false
	if slices.Contains(dr.root.Signed.Roles[metadata.ROOT].KeyIDs, id) ||
		dr.last != nil && slices.Contains(dr.last.Signed.Roles[metadata.ROOT].KeyIDs, id) {
		voted = true
		if err := sign(dr.root, key); err != nil {
			return err
		}
	}
	if slices.Contains(dr.root.Signed.Roles[metadata.TARGETS].KeyIDs, id) {
		voted = true
		if err := sign(dr.targets, key); err != nil {
			return err
		}
	}
	if !voted {
		return fault.New(fault.NotAllowed, "the key %s has no vote in this union", id)
	}
	return nil
}

// Votes counts the votes of the draft and those that it takes, and names the
// states that have voted.
func (dr *Draft) Votes() (got, need int, states []union.State) {
	for _, s := range dr.charter.States {
		if slices.ContainsFunc(dr.targets.Signatures, func(g metadata.Signature) bool { return g.KeyID == s.Root }) {
			states = append(states, s.Code)
		}
	}
	return len(states), dr.root.Signed.Roles[metadata.TARGETS].Threshold, states
}

// Ready tells what signatures a draft still lacks.
func (dr *Draft) Ready() error {
	if dr.last != nil {
		if err := dr.last.VerifyDelegate(metadata.ROOT, dr.root); err != nil {
			return fmt.Errorf("root, by the keys in force: %w", err)
		}
	}
	if err := dr.root.VerifyDelegate(metadata.ROOT, dr.root); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if err := dr.root.VerifyDelegate(metadata.TARGETS, dr.targets); err != nil {
		return fmt.Errorf("targets: %w", err)
	}
	return nil
}

// Root is the draft's root as a file: what is pinned once it is signed.
func (dr *Draft) Root() ([]byte, error) {
	b, err := dr.root.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("write root: %w", err)
	}
	return b, nil
}

// bundle gives all files of the draft.
func (dr *Draft) bundle() (bundle, error) {
	b := maps.Clone(dr.files)
	root, err := dr.Root()
	if err != nil {
		return nil, err
	}
	targets, err := dr.targets.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("write targets: %w", err)
	}
	b[versioned(dr.root.Signed.Version, metadata.ROOT)] = root
	b[versioned(dr.targets.Signed.Version, metadata.TARGETS)] = targets
	maps.Copy(b, dr.opening)
	return b, nil
}

// Encode writes the draft for the way to the next state.
func (dr *Draft) Encode() ([]byte, error) {
	b, err := dr.bundle()
	if err != nil {
		return nil, err
	}
	if dr.last != nil {
		raw, err := dr.last.ToBytes(false)
		if err != nil {
			return nil, fmt.Errorf("write root: %w", err)
		}
		b[versioned(dr.last.Signed.Version, metadata.ROOT)] = raw
	}
	return b.encode()
}

var (
	draftName   = regexp.MustCompile(`^([1-9][0-9]{0,17})\.(root|targets|[A-Z]{2})\.json$`)
	openingName = regexp.MustCompile(`^[1-9][0-9]{0,17}\.snapshot\.json$`)
)

// DecodeDraft reads a draft strictly: one targets, one root and perhaps the
// one before, one part a state, and of a new union perhaps the first time-stamp
// and snapshot, which are judged when it is enacted.
func DecodeDraft(raw []byte) (*Draft, error) {
	b, err := decodeBundle(raw)
	if err != nil {
		return nil, fmt.Errorf("draft: %w", err)
	}
	dr := &Draft{files: bundle{}, parts: map[string]int64{}, opening: bundle{}}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if name == timestampName || openingName.MatchString(name) {
			dr.opening[name] = b[name]
			continue
		}
		m := draftName.FindStringSubmatch(name)
		if m == nil {
			if !strings.HasPrefix(name, "targets/") {
				return nil, fmt.Errorf("draft: %s does not belong in one", name)
			}
			dr.files[name] = b[name]
			continue
		}
		if err := plain(b[name]); err != nil {
			return nil, fmt.Errorf("draft: %s: %w", name, err)
		}
		version, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("draft: %s: %w", name, err)
		}
		if err := dr.take(m[2], version, name, b[name]); err != nil {
			return nil, fmt.Errorf("draft: %s: %w", name, err)
		}
	}
	return dr, dr.checkWhole()
}

func (dr *Draft) take(role string, version int64, name string, raw []byte) error {
	switch role {
	case metadata.ROOT:
		m, err := metadata.Root().FromBytes(raw)
		if err != nil || m.Signed.Version != version {
			return errors.Join(errors.New("not a root of that version"), err)
		}
		if err := checkRoot(&m.Signed); err != nil {
			return err
		}
		if dr.root == nil || m.Signed.Version > dr.root.Signed.Version {
			m, dr.root = dr.root, m
		}
		if dr.last != nil {
			return errors.New("too many roots")
		}
		dr.last = m
	case metadata.TARGETS:
		m, err := metadata.Targets().FromBytes(raw)
		if err != nil || m.Signed.Version != version {
			return errors.Join(errors.New("not targets of that version"), err)
		}
		if dr.targets != nil {
			return errors.New("more than one targets")
		}
		dr.targets = m
	default:
		if dr.parts[role] != 0 {
			return errors.New("more than one part")
		}
		dr.parts[role], dr.files[name] = version, raw
	}
	return nil
}

func (dr *Draft) checkWhole() error {
	if dr.root == nil || dr.targets == nil {
		return errors.New("draft: root or targets are missing")
	}
	if dr.last != nil && dr.last.Signed.Version+1 != dr.root.Signed.Version {
		return errors.New("draft: its roots do not follow each other")
	}
	if n := len(dr.opening); n != 0 && (n != 2 || dr.last != nil || dr.opening[timestampName] == nil) {
		return errors.New("draft: a time-stamp and a snapshot stand in a new union's alone, and together")
	}
	rel := &release{root: dr.root, targets: dr.targets, files: bundle{}}
	files, err := rel.fetchFiles(context.Background(), chain{dr.files}, dr.targets, "")
	if err != nil {
		return fmt.Errorf("draft: %w", err)
	}
	if dr.charter, err = DecodeCharter(files[charterFile]); err != nil {
		return fmt.Errorf("draft: %w", err)
	}
	rel.charter = dr.charter
	if err := rel.checkDelegations(); err != nil {
		return fmt.Errorf("draft: %w", err)
	}
	return nil
}
