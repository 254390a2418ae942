package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/falaj/falaj/internal/fault"
)

// The PEM labels of what key files hold.
const (
	signerLabel  = "PRIVATE KEY" // PKCS #8, as RFC 7468 section 10
	hmacLabel    = "FALAJ HMAC KEY"
	recordLabel  = "FALAJ RECORD KEY"
	wrappedLabel = "FALAJ WRAPPED KEY"
)

// demoMark begins the file of a demonstration key. It stands before the PEM
// block, where RFC 7468 allows explanatory text, so that stock tools still read
// the file.
const demoMark = "Demonstration: true\n"

// WrapKey encrypts the files of a key folder (AES-256-GCM). It comes from
// outside: a file, the environment, the helper of a hardware module. The zero
// WrapKey is none.
type WrapKey struct {
	redacted
	key func() []byte
}

// NewWrapKey takes the 32 bytes of a key. It is a key, not a password: nothing
// is done against guessing.
func NewWrapKey(key []byte) (WrapKey, error) {
	if len(key) != 32 {
		return WrapKey{}, fmt.Errorf("a key that wraps others has 32 bytes, not %d", len(key))
	}
	key = bytes.Clone(key)
	return WrapKey{key: func() []byte { return key }}, nil
}

// coding turns keys into files and back.
type coding struct {
	demo bool
	wrap cipher.AEAD // nil: files are not wrapped
}

func newCoding(cfg KeyConfig) (*coding, error) {
	c := &coding{demo: cfg.Demonstration}
	if cfg.Wrap.key == nil {
		return c, nil
	}
	var err error
	c.wrap, err = newAEAD(cfg.Wrap.key())
	return c, err
}

// newAEAD is AES-256-GCM with random nonces (28 bytes of overhead): the one
// form of GCM that FIPS 140 mode also allows by itself.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// encode gives the file of a key. The name is bound where files are wrapped, so
// that one cannot be put in another's place.
func (c *coding) encode(label, name string, key []byte) ([]byte, error) {
	file := pem.EncodeToMemory(&pem.Block{Type: label, Bytes: key})
	if c.demo {
		file = append([]byte(demoMark), file...)
	}
	if c.wrap != nil {
		sealed := c.wrap.Seal(nil, nil, file, []byte(label+"\n"+name))
		clear(file)
		file = pem.EncodeToMemory(&pem.Block{Type: wrappedLabel, Bytes: sealed})
	}
	return file, nil
}

// decode reads a file that encode wrote, or that another tool wrote in its
// form. Its errors quote nothing of the file.
func (c *coding) decode(label, name string, file []byte) ([]byte, error) {
	if c.wrap != nil {
		sealed, err := unpem(wrappedLabel, file)
		if err != nil {
			return nil, fmt.Errorf("reading key %s: %w", name, err)
		}
		if file, err = c.wrap.Open(nil, nil, sealed, []byte(label+"\n"+name)); err != nil {
			return nil, fmt.Errorf("reading key %s: wrapped with another key, under another name, or damaged", name)
		}
	}
	plain, demo := bytes.CutPrefix(file, []byte(demoMark))
	if demo && !c.demo {
		return nil, fault.New(fault.DemoRefused, "key %s is a demonstration key, and this node was not started as demonstration", name)
	}
	key, err := unpem(label, plain)
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	return key, nil
}

// unpem reads a file that is one PEM block and nothing else.
func unpem(label string, file []byte) ([]byte, error) {
	if !bytes.HasPrefix(file, []byte("-----BEGIN "+label+"-----")) {
		return nil, errors.New("the file does not begin with -----BEGIN " + label + "-----")
	}
	block, rest := pem.Decode(file)
	if block == nil || block.Type != label || len(block.Headers) != 0 || len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("the file is not one PEM block " + label)
	}
	return block.Bytes, nil
}
