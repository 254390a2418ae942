package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/falaj/falaj/internal/fault"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Enact takes the draft of a new union, which has its votes, one step nearer
// to being in force, and tells whether it is. Before anything runs, the
// signatures of two parties travel in the draft itself: the first party to have
// it proposes the first snapshot, another one signs that too, and whoever gets
// it then, the two among them, takes it over. What this party signs is on its
// disk before it stands in the draft.
func (d *Directory) Enact(ctx context.Context, dr *Draft) (bool, error) {
	if err := dr.voted(); err != nil {
		return false, err
	}
	if dr.last != nil {
		return false, fault.New(fault.DirectoryConflict, "this draft changes a union that is there: a running node brings it into force")
	}
	files, err := dr.bundle()
	if err != nil {
		return false, err
	}
	stamp, err := dr.openingStamp()
	if err != nil {
		return false, fault.Wrap(fault.DirectoryInvalid, err, "draft")
	}
	if stamp != nil && dr.root.VerifyDelegate(metadata.TIMESTAMP, stamp) == nil {
		return true, d.Offer(ctx, files[timestampName], files)
	}
	online, err := d.key(OnlineKey)
	if err != nil {
		return false, err
	}
	id, err := keyID(online.Public())
	if err != nil {
		return false, err
	}
	if !slices.Contains(dr.root.Signed.Roles[metadata.TIMESTAMP].KeyIDs, id) {
		return false, fault.New(fault.NotAllowed, "%s is the key of no party of this union", id)
	}
	switch {
	case stamp == nil || stamp.Signed.Expires.Before(d.deps.Now()): // it was too long on its way
		return false, d.propound(dr)
	case slices.ContainsFunc(stamp.Signatures, func(g metadata.Signature) bool { return g.KeyID == id }):
		return false, nil
	}
	raw, err := files.encode()
	if err != nil {
		return false, err
	}
	signed, err := d.Cosign(ctx, raw)
	if err != nil {
		return false, err
	}
	dr.opening, err = decodeBundle(signed)
	return err == nil, err
}

// propound puts the first snapshot, signed by this party, into the draft.
func (d *Directory) propound(dr *Draft) error {
	p, err := d.prepare(dr.fill)
	if err != nil {
		return err
	}
	dr.opening = bundle{}
	for name, b := range p.files {
		if name == timestampName || openingName.MatchString(name) {
			dr.opening[name] = b
		}
	}
	return nil
}

// Parties counts those that have signed the first snapshot of a new union: at
// two it is in force. From the first on no vote can be added, for the snapshot
// stands on the votes as they were.
func (dr *Draft) Parties() int {
	stamp, err := dr.openingStamp()
	if stamp == nil || err != nil {
		return 0
	}
	return len(stamp.Signatures)
}

func (dr *Draft) openingStamp() (*metadata.Metadata[metadata.TimestampType], error) {
	raw := dr.opening[timestampName]
	if raw == nil {
		return nil, nil
	}
	if err := within(timestampName, len(raw), maxTimestamp); err != nil {
		return nil, err
	}
	if err := plain(raw); err != nil {
		return nil, err
	}
	return metadata.Timestamp().FromBytes(raw)
}

// Fingerprint is SHA-256 over what the votes are given to, in hexadecimal: the
// same at every state, whoever has signed so far.
func (dr *Draft) Fingerprint() (string, error) {
	root, err := signedDigest(dr.root.Signed)
	if err != nil {
		return "", fmt.Errorf("fingerprint: %w", err)
	}
	targets, err := signedDigest(dr.targets.Signed)
	if err != nil {
		return "", fmt.Errorf("fingerprint: %w", err)
	}
	sum := sha256.Sum256(append(root[:], targets[:]...))
	return hex.EncodeToString(sum[:]), nil
}
