package merkle

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"filippo.io/mldsa"
	"golang.org/x/mod/sumdb/note"
)

// Kind is a type of note signature: the byte that C2SP signed-note assigns.
type Kind byte

// The kinds in use.
const (
	LogSignature Kind = 1 // Ed25519 over the note's text
	Cosignature  Kind = 4 // Ed25519 over a time and the text: C2SP tlog-cosignature, v1
	Quantum      Kind = 6 // ML-DSA-44 over a time, both names and the head: the same document
)

// size is that of a kind's public keys, in bytes; 0 where it is not known here.
func (k Kind) size() int {
	switch k {
	case LogSignature, Cosignature:
		return ed25519.PublicKeySize
	case Quantum:
		return mldsa.MLDSA44PublicKeySize
	}
	return 0
}

// MaxKeyName bounds a key's name, in bytes.
const MaxKeyName = 255

// Key verifies the signatures of one name and one kind. It is comparable; the
// zero value is no key.
type Key struct {
	name   string
	kind   Kind
	public string // its bytes
}

// NewKey makes a key of its parts.
func NewKey(name string, kind Kind, public crypto.PublicKey) (Key, error) {
	if err := checkKeyName(name); err != nil {
		return Key{}, err
	}
	if kind.size() == 0 {
		return Key{}, fmt.Errorf("merkle: signatures of kind %d are not known here", kind)
	}
	var b []byte
	switch p := public.(type) {
	case ed25519.PublicKey:
		b = p
	case *mldsa.PublicKey:
		b = p.Bytes()
	}
	if _, large := public.(*mldsa.PublicKey); len(b) != kind.size() || large != (kind == Quantum) {
		return Key{}, fmt.Errorf("merkle: the key of %s is not one for signatures of kind %d", name, kind)
	}
	return Key{name: name, kind: kind, public: string(b)}, nil
}

// ParseKey reads a verifier key (C2SP signed-note: name+identifier+key). There
// is one way to write a key, and no other is taken.
func ParseKey(s string) (Key, error) {
	name, rest, _ := strings.Cut(s, "+")
	_, b64, ok := strings.Cut(rest, "+")
	b, err := base64.StdEncoding.Strict().DecodeString(b64)
	if !ok || err != nil || len(b) < 1 || len(b) != 1+Kind(b[0]).size() {
		return Key{}, errors.New("merkle: not a verifier key: wanted name+identifier+key")
	}
	var public crypto.PublicKey = ed25519.PublicKey(b[1:])
	if Kind(b[0]) == Quantum {
		if public, err = mldsa.NewPublicKey(mldsa.MLDSA44(), b[1:]); err != nil {
			return Key{}, fmt.Errorf("merkle: the key of %.64q: %w", name, err)
		}
	}
	k, err := NewKey(name, Kind(b[0]), public)
	if err != nil {
		return Key{}, err
	}
	if k.String() != s {
		return Key{}, errors.New("merkle: the verifier key's identifier is not its key's")
	}
	return k, nil
}

// String is the verifier key, as ParseKey reads it.
func (k Key) String() string {
	if k == (Key{}) {
		return ""
	}
	return fmt.Sprintf("%s+%08x+%s", k.name, k.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{byte(k.kind)}, k.public...)))
}

// MarshalText writes the verifier key.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a verifier key.
func (k *Key) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKey(string(b))
	return err
}

// Named is the same public key under another name: another key to notes.
func (k Key) Named(name string) (Key, error) {
	if err := checkKeyName(name); err != nil {
		return Key{}, err
	}
	k.name = name
	return k, nil
}

// Name is the key's name: the log's origin, or the witness's name.
func (k Key) Name() string { return k.name }

// Kind is the kind of signature that the key verifies.
func (k Key) Kind() Kind { return k.kind }

// KeyHash is the key's identifier: the first four bytes of SHA-256 over the
// name, a newline, the kind and the public key.
func (k Key) KeyHash() uint32 {
	h := sha256.New()
	h.Write([]byte(k.name + "\n"))
	h.Write([]byte{byte(k.kind)})
	h.Write([]byte(k.public))
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// timeSize is what a cosignature has before its signature.
const timeSize = 8

// Verify tells whether sig is this key's over the text of a note.
func (k Key) Verify(text, sig []byte) bool {
	if k.kind == LogSignature {
		return len(sig) == ed25519.SignatureSize && ed25519.Verify(ed25519.PublicKey(k.public), text, sig)
	}
	if len(sig) <= timeSize || sig[0]&0x80 != 0 {
		return false
	}
	at, sig := binary.BigEndian.Uint64(sig), sig[timeSize:]
	switch k.kind {
	case Cosignature:
		return len(sig) == ed25519.SignatureSize && ed25519.Verify(ed25519.PublicKey(k.public), cosigned(text, at), sig)
	case Quantum:
		p, err := mldsa.NewPublicKey(mldsa.MLDSA44(), []byte(k.public))
		msg, ok := cosignedHead(k.name, string(text), at)
		return err == nil && ok && mldsa.Verify(p, msg, sig, nil) == nil
	}
	return false
}

// cosignedHead is what an ML-DSA-44 cosignature of a checkpoint is made over: C2SP
// tlog-cosignature, cosigned_message.
func cosignedHead(name, text string, at uint64) ([]byte, bool) {
	c, err := ParseCheckpoint(text)
	if err != nil {
		return nil, false
	}
	b := append([]byte("subtree/v1\n\x00"), byte(len(name)))
	b = binary.BigEndian.AppendUint64(append(b, name...), at)
	b = append(append(b, byte(len(c.Origin))), c.Origin...)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Size))
	return append(b, c.Root[:]...), true
}

// cosigned is what a cosignature of a time, in seconds, is made over.
func cosigned(text []byte, at uint64) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), text...)
}

// Signer makes the signatures of a key.
type Signer struct {
	Key
	private crypto.Signer
}

// NewSigner makes a signer under a name of a private key that stays where it is.
func NewSigner(name string, kind Kind, private crypto.Signer) (Signer, error) {
	k, err := NewKey(name, kind, private.Public())
	return Signer{k, private}, err
}

// As is the signer under another name: another key to notes.
func (s Signer) As(name string) (Signer, error) {
	k, err := s.Named(name)
	return Signer{k, s.private}, err
}

// Line signs the text of a note and gives the signature line, newline and all.
// A cosignature says at, in whole seconds.
func (s Signer) Line(text string, at time.Time) (string, error) {
	sig := binary.BigEndian.AppendUint32(nil, s.KeyHash())
	msg := []byte(text)
	if s.kind != LogSignature {
		if at.Unix() < 0 {
			return "", errors.New("merkle: a cosignature's time lies before 1970")
		}
		sig = binary.BigEndian.AppendUint64(sig, uint64(at.Unix()))
		msg = cosigned(msg, uint64(at.Unix()))
	}
	if s.kind == Quantum {
		var ok bool
		if msg, ok = cosignedHead(s.name, text, uint64(at.Unix())); !ok {
			return "", errors.New("merkle: what is cosigned is no checkpoint")
		}
	}
	b, err := s.private.Sign(rand.Reader, msg, crypto.Hash(0))
	if err != nil {
		return "", fmt.Errorf("signing as %s: %w", s.name, err)
	}
	return signatureLine(s.name, base64.StdEncoding.EncodeToString(append(sig, b...))), nil
}

// OpenNote reads a note that has one signature, by a key, and is written as
// there is only one way to; it gives the text.
func OpenNote(msg []byte, by Key) (text string, err error) {
	if len(msg) > MaxNote {
		return "", fmt.Errorf("merkle: a note of %d bytes; at most %d", len(msg), MaxNote)
	}
	n, err := note.Open(msg, note.VerifierList(by))
	if err != nil {
		return "", fmt.Errorf("merkle: opening a note: %w", err)
	}
	if len(n.Sigs) != 1 || n.Text+"\n"+signatureLine(n.Sigs[0].Name, n.Sigs[0].Base64) != string(msg) {
		return "", errors.New("merkle: the note has more than one signature")
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return "", fmt.Errorf("merkle: the note's signature: %w", err)
	}
	return n.Text, nil
}

func signatureLine(name, b64 string) string { return "— " + name + " " + b64 + "\n" }

func checkKeyName(name string) error {
	if name == "" || len(name) > MaxKeyName || !utf8.ValidString(name) || strings.Contains(name, "+") ||
		strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return errors.New("merkle: a key's name has 1 to 255 bytes and neither spaces nor plus signs")
	}
	return nil
}
