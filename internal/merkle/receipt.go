package merkle

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	receiptMark = "c2sp.org/tlog-proof@v1\n"
	// maxProof is the most hashes of a proof (C2SP tlog-witness).
	maxProof = 63
	// maxExtra bounds what a receipt carries beside its proof, in bytes.
	maxExtra = 16 << 10
	// MaxReceipt bounds a receipt, in bytes.
	MaxReceipt = MaxNote + 2*maxExtra
)

// Receipt proves that an entry is in a log whose head others have seen: C2SP
// tlog-proof.
type Receipt struct {
	Extra []byte // nobody vouches for it
	Index int64
	Proof []Hash
	Note  []byte // the checkpoint with its signatures
}

// Bytes is the receipt as it travels.
func (r Receipt) Bytes() []byte {
	var b strings.Builder
	b.WriteString(receiptMark)
	if r.Extra != nil {
		b.WriteString("extra " + base64.StdEncoding.EncodeToString(r.Extra) + "\n")
	}
	b.WriteString("index " + strconv.FormatInt(r.Index, 10) + "\n")
	writeHashes(&b, r.Proof)
	b.WriteString("\n")
	b.Write(r.Note)
	return []byte(b.String())
}

// ParseReceipt reads a receipt. It verifies nothing. The note is a part of b.
func ParseReceipt(b []byte) (Receipt, error) {
	if len(b) > MaxReceipt {
		return Receipt{}, fmt.Errorf("merkle: a receipt of %d bytes; at most %d", len(b), MaxReceipt)
	}
	head, checkpoint, ok := bytes.Cut(b, []byte("\n\n"))
	rest, marked := strings.CutPrefix(string(head), receiptMark)
	if !ok || !marked {
		return Receipt{}, errors.New("merkle: not a receipt (c2sp.org/tlog-proof@v1)")
	}
	r := Receipt{Note: checkpoint}
	lines := strings.Split(rest, "\n")
	if extra, ok := strings.CutPrefix(lines[0], "extra "); ok {
		x, err := base64.StdEncoding.Strict().DecodeString(extra)
		if err != nil || len(x) > maxExtra || strings.Contains(extra, "\r") {
			return Receipt{}, errors.New("merkle: a receipt's extra line is not base64, or too long")
		}
		r.Extra, lines = append([]byte{}, x...), lines[1:]
	}
	if len(lines) == 0 {
		return Receipt{}, errors.New("merkle: a receipt without an index")
	}
	index, ok := strings.CutPrefix(lines[0], "index ")
	if r.Index, marked = decimal(index); !ok || !marked {
		return Receipt{}, errors.New("merkle: a receipt's index is not one")
	}
	var err error
	r.Proof, err = parseHashes(lines[1:], maxProof)
	return r, err
}

// Trust is whom a receipt is held against: the log's key, the witnesses that
// count for this log (its own state's is none), and how many it takes.
type Trust struct {
	Log       Key
	Witnesses []Key
	Quorum    int
}

// Verify holds a receipt against its entry and against whom is trusted. It
// gives the checkpoint with the cosignatures that count; where they are fewer
// than the quorum the error is ErrQuorum, and the rest holds.
func (r Receipt) Verify(entry []byte, t Trust) (Signed, error) {
	s, err := OpenCheckpoint(r.Note, t.Log, t.Witnesses...)
	if err != nil {
		return Signed{}, err
	}
	if err = r.Under(s, entry, t.Quorum); err != nil && !errors.Is(err, ErrQuorum) {
		return Signed{}, err
	}
	return s, err
}

// Under is Verify where the receipt's checkpoint has been opened already.
func (r Receipt) Under(s Signed, entry []byte, quorum int) error {
	if err := Check(r.Proof, s.Size, s.Root, r.Index, Leaf(entry)); err != nil {
		return fmt.Errorf("merkle: the entry is not in the tree of the checkpoint: %w", err)
	}
	if n := s.Witnesses(); n < quorum {
		return fmt.Errorf("%w: %d of %d", ErrQuorum, n, quorum)
	}
	return nil
}

// ErrQuorum says that fewer witnesses have cosigned than it takes.
var ErrQuorum = errors.New("merkle: fewer witnesses have cosigned than it takes")

// Quantum counts the cosignatures that stay good when Ed25519 no longer is.
func (s Signed) Quantum() (n int) {
	for _, w := range s.Cosignatures {
		if w.Key.kind == Quantum {
			n++
		}
	}
	return n
}

// Witnesses counts who cosigned: keys of Ed25519, which every witness has,
// since such a cosignature does not say under
// which name it was made.
func (s Signed) Witnesses() int {
	keys := map[string]bool{}
	for _, w := range s.Cosignatures {
		if w.Key.kind == Cosignature {
			keys[w.Key.public] = true
		}
	}
	return len(keys)
}

// Submission is what a log sends to a witness: C2SP tlog-witness,
// add-checkpoint.
type Submission struct {
	Old   int64 // size of the head that the witness cosigned last
	Proof []Hash
	Note  []byte
}

// MaxSubmission bounds a submission, in bytes.
const MaxSubmission = MaxNote + 4<<10

// Bytes is the submission as it travels.
func (s Submission) Bytes() []byte {
	var b strings.Builder
	b.WriteString("old " + strconv.FormatInt(s.Old, 10) + "\n")
	writeHashes(&b, s.Proof)
	b.WriteString("\n")
	b.Write(s.Note)
	return []byte(b.String())
}

// ParseSubmission reads a submission. It verifies nothing.
func ParseSubmission(b []byte) (Submission, error) {
	if len(b) > MaxSubmission {
		return Submission{}, fmt.Errorf("merkle: a submission of %d bytes; at most %d", len(b), MaxSubmission)
	}
	head, checkpoint, ok := strings.Cut(string(b), "\n\n")
	lines := strings.Split(head, "\n")
	old, marked := strings.CutPrefix(lines[0], "old ")
	if !ok || !marked {
		return Submission{}, errors.New("merkle: not a submission: it begins with the old size")
	}
	s := Submission{Note: []byte(checkpoint)}
	if s.Old, ok = decimal(old); !ok {
		return Submission{}, errors.New("merkle: a submission's old size is not one")
	}
	var err error
	s.Proof, err = parseHashes(lines[1:], maxProof)
	return s, err
}
