package seal

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/mldsa"
	pkcs8 "filippo.io/mldsa/x509"
)

// KeyConfig says how a key folder is used. Its zero value is a node in earnest
// whose key files lie unwrapped under the file system's protection.
type KeyConfig struct {
	redacted
	// Demonstration marks every key made here as a demonstration key. Without
	// it the folder refuses keys so marked.
	Demonstration bool
	// Wrap, unless zero, encrypts every file of the folder. A folder is wrapped
	// as a whole or not at all.
	Wrap WrapKey
}

// Keys is a folder of keys: signing keys (name.pem, PKCS #8), keys of keyed
// hashes (name.hmac), keys of records by class and month (records/class/
// yyyy-mm.key), and what was replaced (archive/). Folders have mode 0700, files
// 0600; other modes are refused. Several processes may share a folder. Keys is
// safe for concurrent use.
type Keys struct {
	redacted
	dir     string
	coding  *coding
	periods *periods
}

const (
	signerSuffix  = ".pem"
	archiveFolder = "archive"
)

// OpenKeys opens the folder and makes it where it is not there. A demonstration
// key in it is refused (fault DemoRefused) unless cfg says Demonstration.
func OpenKeys(dir string, cfg KeyConfig) (*Keys, error) {
	c, err := newCoding(cfg)
	if err != nil {
		return nil, err
	}
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("opening the key folder: %w", err)
	}
	k := &Keys{dir: dir, coding: c}
	k.periods = &periods{dir: filepath.Join(dir, recordFolder), coding: c, keys: map[periodName]*periodKey{}}
	for _, kind := range []struct{ label, suffix string }{{signerLabel, signerSuffix}, {hmacLabel, hmacSuffix}} {
		names, err := namesIn(dir, kind.suffix)
		if err != nil {
			return nil, fmt.Errorf("opening the key folder: %w", err)
		}
		for _, name := range names {
			if _, err := k.read(kind.label, name, kind.suffix); err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

// Create makes a signing key. A name that is taken gives fs.ErrExist and leaves
// the key that has it.
func (k *Keys) Create(name string, alg Algorithm) (crypto.Signer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	s, file, err := k.generate(name, alg)
	if err != nil {
		return nil, err
	}
	if err := createFile(k.path(name, signerSuffix), file); err != nil {
		return nil, fmt.Errorf("creating key %s: %w", name, err)
	}
	return s, nil
}

// Replace makes a signing key in the place of the one of that name and keeps
// the old file in the folder's archive under the name and the time. At every
// moment, whatever crashes, the name has one whole key.
func (k *Keys) Replace(name string, alg Algorithm, at time.Time) (crypto.Signer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	// One at a time across processes: otherwise a key could be handed out and
	// then be lost under the other's.
	lock, err := os.Open(k.dir)
	if err != nil {
		return nil, fmt.Errorf("replacing key %s: %w", name, err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("replacing key %s: locking the folder: %w", name, err)
	}

	path, archive := k.path(name, signerSuffix), filepath.Join(k.dir, archiveFolder)
	s, file, err := k.generate(name, alg)
	if err != nil {
		return nil, err
	}
	err = makeFolder(archive)
	if err == nil {
		stamp := at.UTC().Format("20060102T150405.000000000Z")
		err = os.Link(path, filepath.Join(archive, name+"."+stamp+signerSuffix))
	}
	if err == nil {
		err = syncFolder(archive)
	}
	var temp string
	if err == nil {
		temp, err = writeTemp(path, file)
	}
	if err == nil {
		if err = os.Rename(temp, path); err != nil {
			_ = os.Remove(temp)
		}
	}
	if err == nil {
		err = syncFolder(k.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("replacing key %s: %w", name, err)
	}
	return s, nil
}

// Signer reads a signing key. It reads the file each time, so that a replaced
// key is seen: a caller on a busy path keeps the signer. No key of the name
// gives fs.ErrNotExist.
func (k *Keys) Signer(name string) (crypto.Signer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	der, err := k.read(signerLabel, name, signerSuffix)
	if err != nil {
		return nil, err
	}
	return parseSigner(name, der)
}

// ReadKey reads one signing key that is in no node's folder: that of a person,
// who shows himself by a certificate. Its file has mode 0600; what lies beside
// it does not matter. A demonstration key is read too: whether it is good
// enough, the other side decides.
func ReadKey(file string) (crypto.Signer, error) {
	b, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", file, err)
	}
	c := coding{demo: true}
	der, err := c.decode(signerLabel, file, b)
	if err != nil {
		return nil, err
	}
	return parseSigner(file, der)
}

// Has tells whether there is a signing key of the name.
func (k *Keys) Has(name string) bool {
	if checkName(name) != nil {
		return false
	}
	_, err := os.Lstat(k.path(name, signerSuffix))
	return err == nil
}

// Names lists the signing keys, sorted.
func (k *Keys) Names() ([]string, error) {
	names, err := namesIn(k.dir, signerSuffix)
	if err != nil {
		return nil, fmt.Errorf("listing keys: %w", err)
	}
	return names, nil
}

func (k *Keys) path(name, suffix string) string { return filepath.Join(k.dir, name+suffix) }

func (k *Keys) read(label, name, suffix string) ([]byte, error) {
	file, err := readFile(k.path(name, suffix))
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	return k.coding.decode(label, name, file)
}

func (k *Keys) generate(name string, alg Algorithm) (crypto.Signer, []byte, error) {
	var key crypto.Signer
	var err error
	switch alg {
	case ECDSAP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case MLDSA44:
		key, err = mldsa.GenerateKey(mldsa.MLDSA44())
	default:
		err = fmt.Errorf("no keys of %v are made here", alg)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("creating key %s: %w", name, err)
	}
	der, err := pkcs8.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("creating key %s: %w", name, err)
	}
	file, err := k.coding.encode(signerLabel, name, der)
	if err != nil {
		return nil, nil, fmt.Errorf("creating key %s: %w", name, err)
	}
	return newSigner(key), file, nil
}

// signer hides a private key behind the one thing that it may be used for.
type signer struct {
	redacted
	public crypto.PublicKey
	sign   func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error)
}

func newSigner(key crypto.Signer) *signer { return &signer{public: key.Public(), sign: key.Sign} }

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer.
func (s *signer) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.sign(r, digest, opts)
}

func parseSigner(name string, der []byte) (crypto.Signer, error) {
	key, err := pkcs8.ParsePKCS8PrivateKey(der)
	if err != nil {
		// The cause is left out: it could quote the file.
		return nil, fmt.Errorf("key %s is not a private key in PKCS #8", name)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return newSigner(key), nil
		}
	case *rsa.PrivateKey:
		if _, err := algorithmOf(&key.PublicKey); err == nil {
			return newSigner(key), nil
		}
	case ed25519.PrivateKey:
		return newSigner(key), nil
	case *mldsa.PrivateKey:
		if key.PublicKey().Parameters() == mldsa.MLDSA44() {
			return newSigner(key), nil
		}
	}
	return nil, fmt.Errorf("key %s is of a kind that is not used here: want ECDSA P-256 or P-384, Ed25519, ML-DSA-44, RSA of 2048 to 4096 bits", name)
}

// checkName accepts the names that are also file names: the characters of a
// member's code (X-Road's alphabet), at most 200 bytes, beginning with a letter
// or digit.
func checkName(name string) error {
	if name == "" || len(name) > 200 {
		return errors.New("a key's name has 1 to 200 bytes")
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && strings.IndexByte("'()+,-.=?_", c) >= 0:
		default:
			return fmt.Errorf("key name %q holds a character that may not stand there", name)
		}
	}
	return nil
}
