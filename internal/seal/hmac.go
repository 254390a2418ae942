package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const hmacSuffix = ".hmac"

// HMAC is a keyed hash, HMAC-SHA-256, whose key it does not show. The zero
// HMAC panics on use.
type HMAC struct {
	redacted
	sum func(data []byte) [32]byte
}

// HMAC gives the keyed hash of a name and makes its key on first use. Versions
// are names ("person-1", "person-2"): a key is never replaced, since what was
// hashed would lose its meaning.
func (k *Keys) HMAC(name string) (HMAC, error) {
	if err := checkName(name); err != nil {
		return HMAC{}, err
	}
	path := k.path(name, hmacSuffix)
	der, err := k.read(hmacLabel, name, hmacSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		fresh := make([]byte, 32)
		_, _ = rand.Read(fresh) // never fails
		file, err := k.coding.encode(hmacLabel, name, fresh)
		if err == nil {
			err = createFile(path, file)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return HMAC{}, fmt.Errorf("creating key %s: %w", name, err)
		}
		// Read again: another process may have been first.
		der, err = k.read(hmacLabel, name, hmacSuffix)
		if err != nil {
			return HMAC{}, err
		}
	} else if err != nil {
		return HMAC{}, err
	}
	if len(der) != 32 {
		return HMAC{}, fmt.Errorf("key %s has %d bytes, not 32", name, len(der))
	}
	// Whoever was first may not have got as far as making the entry durable.
	if err := syncFolder(k.dir); err != nil {
		return HMAC{}, fmt.Errorf("reading key %s: %w", name, err)
	}
	return HMAC{sum: func(data []byte) (out [32]byte) {
		m := hmac.New(sha256.New, der)
		m.Write(data)
		m.Sum(out[:0])
		return out
	}}, nil
}

// HasHMAC tells whether a keyed hash of that name has its key.
func (k *Keys) HasHMAC(name string) bool {
	_, err := os.Stat(k.path(name, hmacSuffix))
	return err == nil
}

// Sum hashes the data under the key.
func (h HMAC) Sum(data []byte) [32]byte { return h.sum(data) }
