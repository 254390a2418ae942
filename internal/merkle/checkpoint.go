package merkle

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// MaxNote bounds a checkpoint with its signatures, in bytes: far more than a
// union's witnesses need.
const MaxNote = 64 << 10

// Checkpoint is the head of a log: C2SP tlog-checkpoint, without extension
// lines, so that one head has one text.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
}

// Text is the note's text, which is what signatures cover.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// ParseCheckpoint reads what Text wrote, and nothing else.
func ParseCheckpoint(text string) (Checkpoint, error) {
	f := strings.Split(text, "\n")
	if len(f) != 4 || f[3] != "" {
		return Checkpoint{}, errors.New("merkle: a checkpoint has three lines: origin, size, root")
	}
	c := Checkpoint{Origin: f[0]}
	if err := checkKeyName(c.Origin); err != nil {
		return Checkpoint{}, errors.New("merkle: a checkpoint's origin has neither spaces nor plus signs")
	}
	var ok bool
	if c.Size, ok = decimal(f[1]); !ok || c.Size > MaxSize {
		return Checkpoint{}, errors.New("merkle: a checkpoint's size is not one")
	}
	if c.Root, ok = parseHash(f[2]); !ok {
		return Checkpoint{}, errors.New("merkle: a checkpoint's root is not one")
	}
	return c, nil
}

// Origin reads whose checkpoint a note says it is, before anything is verified.
func Origin(msg []byte) string {
	line, _, _ := strings.Cut(string(msg[:min(len(msg), MaxKeyName+1)]), "\n")
	return line
}

// Signed is a checkpoint whose signatures have been verified.
type Signed struct {
	Checkpoint
	Line         string // the log's signature line
	Cosignatures []Witnessed
}

// Witnessed is a cosignature that verified.
type Witnessed struct {
	Key  Key
	At   time.Time // when the witness knew no larger head, in whole seconds, UTC
	Line string
}

// Note is the checkpoint with the signatures that verified.
func (s Signed) Note() []byte {
	var b strings.Builder
	b.WriteString(s.Text() + "\n" + s.Line)
	for _, w := range s.Cosignatures {
		b.WriteString(w.Line)
	}
	return []byte(b.String())
}

// ErrUnsigned says that a checkpoint lacks its log's valid signature.
var ErrUnsigned = errors.New("merkle: the checkpoint is not signed by its log's key")

// OpenCheckpoint verifies a checkpoint: it must have its log's signature and
// origin. Signatures of keys that are not named are left out; one of a key
// that is named and does not verify spoils the whole (C2SP signed-note).
func OpenCheckpoint(msg []byte, log Key, witnesses ...Key) (Signed, error) {
	if len(msg) > MaxNote {
		return Signed{}, fmt.Errorf("merkle: a checkpoint of %d bytes; at most %d", len(msg), MaxNote)
	}
	known := []note.Verifier{log}
	byKey := map[uint32]Key{}
	for _, w := range witnesses {
		known, byKey[w.KeyHash()] = append(known, w), w
	}
	n, err := note.Open(msg, note.VerifierList(known...))
	var none *note.UnverifiedNoteError
	var bad *note.InvalidSignatureError
	if errors.As(err, &none) || errors.As(err, &bad) && bad.Name == log.name {
		return Signed{}, ErrUnsigned
	}
	if err != nil {
		return Signed{}, fmt.Errorf("merkle: opening a checkpoint: %w", err)
	}
	var s Signed
	if s.Checkpoint, err = ParseCheckpoint(n.Text); err != nil {
		return Signed{}, err
	}
	for _, g := range n.Sigs {
		line := signatureLine(g.Name, g.Base64)
		if g.Name == log.name && g.Hash == log.KeyHash() {
			s.Line = line
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(g.Base64)
		if w := byKey[g.Hash]; err == nil && w.name == g.Name && w.kind != LogSignature {
			at := time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()
			s.Cosignatures = append(s.Cosignatures, Witnessed{Key: w, At: at, Line: line})
		}
	}
	if s.Line == "" || s.Origin != log.name {
		return Signed{}, ErrUnsigned
	}
	return s, nil
}

// decimal reads a number in its one form: no sign, no leading zero.
func decimal(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

// strict takes one form of each value.
var strict = base64.StdEncoding.Strict()

func parseHash(s string) (Hash, bool) {
	var b [HashSize + 1]byte                               // base64 comes in threes
	if len(s) != base64.StdEncoding.EncodedLen(HashSize) { // with ends of lines, which Decode passes over, it would be longer
		return Hash{}, false
	}
	n, err := strict.Decode(b[:], []byte(s))
	return Hash(b[:HashSize]), err == nil && n == HashSize
}

// parseHashes reads lines of one hash each.
func parseHashes(lines []string, most int) ([]Hash, error) {
	if len(lines) > most {
		return nil, fmt.Errorf("merkle: a proof of %d hashes; at most %d", len(lines), most)
	}
	proof := make([]Hash, len(lines))
	for i, line := range lines {
		var ok bool
		if proof[i], ok = parseHash(line); !ok {
			return nil, errors.New("merkle: a line of the proof is not a hash")
		}
	}
	return proof, nil
}

func writeHashes(b *strings.Builder, proof []Hash) {
	for _, h := range proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
}
