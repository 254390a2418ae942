package directory

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// announcementDelay is how long k of n states must have announced a state's
// new key in public before others take it without the old key's word.
const announcementDelay = 7 * 24 * time.Hour

// Succession is a state's old key naming its successor.
type Succession struct {
	State     union.State `json:"state"`
	Old       string      `json:"old"` // identifier of the key that signs
	Key       string      `json:"key"` // the new public key, PEM
	Signature []byte      `json:"signature"`
}

// Announcement is k of n states saying that a state will have a new key, for
// the case that the old one is lost or stolen.
type Announcement struct {
	State union.State `json:"state"`
	Key   string      `json:"key"` // the new public key, PEM
}

// Succeed lets the old key of a state name the new one, in the union of that
// name.
func Succeed(unionName string, state union.State, old crypto.Signer, successor crypto.PublicKey) (*Succession, error) {
	id, err := keyID(old.Public())
	if err != nil {
		return nil, err
	}
	k, err := tufKey(successor)
	if err != nil {
		return nil, err
	}
	s := &Succession{State: state, Old: id, Key: k.Value.PublicKey}
	digest, err := s.digest(unionName)
	if err != nil {
		return nil, err
	}
	if s.Signature, err = old.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		return nil, fmt.Errorf("sign succession: %w", err)
	}
	return s, nil
}

// digest is what the old key signs: SHA-256 of five lines.
func (s Succession) digest(unionName string) ([32]byte, error) {
	_, id, err := pemKey(s.Key)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256([]byte("falaj succession v1\n" + unionName + "\n" + string(s.State) + "\n" + s.Old + "\n" + id + "\n")), nil
}

// succeeds follows the successions of a state from the key that is trusted
// (PEM) to the one that now signs.
func (c *Charter) succeeds(state union.State, trusted, now string) bool {
	key := trusted
	for range len(c.Successions) + 1 {
		if key == now {
			return true
		}
		next := ""
		for _, s := range c.Successions {
			if _, id, err := pemKey(key); s.State == state && err == nil && s.Old == id && s.signedBy(c.Name, key) {
				next = s.Key
			}
		}
		if next == "" {
			return false
		}
		key = next
	}
	return false
}

func (s Succession) signedBy(unionName, key string) bool {
	k, _, err := pemKey(key)
	if err != nil {
		return false
	}
	pub, err := k.ToPublicKey()
	if err != nil {
		return false
	}
	digest, err := s.digest(unionName)
	p, ok := pub.(*ecdsa.PublicKey)
	return err == nil && ok && ecdsa.VerifyASN1(p, digest[:], s.Signature)
}

// pemKey reads a public key in PEM and gives its identifier.
func pemKey(key string) (*metadata.Key, string, error) {
	k := &metadata.Key{Type: metadata.KeyTypeECDSA_SHA2_P256, Scheme: metadata.KeySchemeECDSA_SHA2_P256, Value: metadata.KeyVal{PublicKey: key}}
	pub, err := k.ToPublicKey()
	if err != nil {
		return nil, "", fmt.Errorf("public key: %w", err)
	}
	if k, err = tufKey(pub); err != nil {
		return nil, "", err
	}
	id, err := k.ID()
	return k, id, err
}

// PublicPEM writes a directory key's public half as PEM, as documents hold it.
func PublicPEM(pub crypto.PublicKey) (string, error) {
	k, err := tufKey(pub)
	if err != nil {
		return "", err
	}
	return k.Value.PublicKey, nil
}
