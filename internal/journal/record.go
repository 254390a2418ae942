package journal

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Kind says what a record is of. The numbers go into leaves and so into
// evidence: none is changed or used again.
type Kind uint8

// The kinds.
const (
	RequestSent     Kind = 1 // consumer node: sealed, about to leave
	RequestReceived Kind = 2 // provider node: verified, about to take effect
	AnswerSent      Kind = 3 // provider node: sealed, about to leave
	AnswerReceived  Kind = 4 // consumer node: verified, about to be passed on
	Refused         Kind = 5 // a refusal, sealed or made here
	Unanswered      Kind = 6 // no answer came in time
	Decision        Kind = 7 // administration and audit
	CaseEvent       Kind = 8 // a step of this state's half of a case
)

// String is the kind's name in reports.
func (k Kind) String() string {
	names := [...]string{"", "request sent", "request received", "answer sent", "answer received", "refused", "unanswered", "decision", "case event"}
	if int(k) < len(names) && k != 0 {
		return names[k]
	}
	return "unknown kind"
}

// Text is the kind's name for people.
func (k Kind) Text() union.Text {
	ar := [...]string{"", "إرسال الطلب", "استلام الطلب", "إرسال الرد", "استلام الرد", "رفض", "بلا رد", "قرار", "حدث في معاملة"}
	if int(k) < len(ar) && k != 0 {
		return union.Text{En: k.String(), Ar: ar[k]}
	}
	return union.Text{En: k.String(), Ar: "نوع غير معروف"}
}

// Limits of a record, in bytes.
const (
	MaxKey      = 1 << 10
	MaxClass    = 32
	MaxEnvelope = 1 << 20
	MaxBody     = 1 << 20
	MaxLocal    = 64 << 10
)

// Record is what is kept of one step.
type Record struct {
	Kind Kind
	// Key finds the record again, together with others of the same key: of an
	// exchange "<client subsystem>|<X-Road-Id>". Empty: found by index alone.
	Key string
	// At is kept to the millisecond and names the retention period.
	At time.Time
	// Class is the retention class, for example "exchange".
	Class string
	// Envelope is the exact sealed bytes: head and seal.
	Envelope []byte
	// Body is a small body, or nil; where the large ones are stands in Local.
	Body []byte
	// Local is JSON that this node alone knows: decision, peer, subject.
	Local []byte
	// In runs inside the transaction that makes the record durable, before
	// its leaf is taken, and may run again with another index. Its error
	// excludes this record from the group and is what Append returns; what it
	// did until then is undone. It is cheapest where it changes nothing before
	// it fails: INSERT … ON CONFLICT DO NOTHING, then look at the rows
	// affected. The group waits for it: no network, no signature, no sleep.
	In func(ctx context.Context, tx *store.Tx, index int64) error
}

func (r *Record) check() error {
	switch {
	case r.Kind == 0:
		return fault.New(fault.Internal, "journal: a record without a kind")
	case r.Class == "" || len(r.Class) > MaxClass:
		return fault.New(fault.Internal, "journal: a retention class of %d bytes", len(r.Class))
	case r.At.Unix() < 0 || r.At.Year() > 9999:
		return fault.New(fault.Internal, "journal: a record without a usable time")
	case len(r.Key) > MaxKey:
		return fault.New(fault.TooLarge, "journal: a key of %d bytes, at most %d", len(r.Key), MaxKey)
	case len(r.Envelope) > MaxEnvelope:
		return fault.New(fault.TooLarge, "journal: an envelope of %d bytes, at most %d", len(r.Envelope), MaxEnvelope)
	case len(r.Body) > MaxBody:
		return fault.New(fault.TooLarge, "journal: a body of %d bytes, at most %d", len(r.Body), MaxBody)
	case len(r.Local) > MaxLocal:
		return fault.New(fault.TooLarge, "journal: %d bytes of local notes, at most %d", len(r.Local), MaxLocal)
	}
	return nil
}

// Digest is what the leaf commits to besides its salt:
//
//	SHA-256( "falaj record v1\n"
//	       | kind (1 byte)
//	       | at, Unix milliseconds (8 bytes, big-endian)
//	       | SHA-256(class) | SHA-256(key)
//	       | SHA-256(envelope) | SHA-256(body) | SHA-256(local) )
//
// Each part enters by its own digest, so that an opening can show one part
// and keep the others to itself. A body that is not in the record counts as
// empty here: its digest stands in the envelope's head.
func (r *Record) Digest() [32]byte {
	p := r.Parts()
	return p.Digest()
}

// Parts is a record as its digest sees it: what is shown of a record whose
// parts are not all shown. Whoever has a part puts its digest in.
type Parts struct {
	Kind                              Kind
	At                                int64 // Unix milliseconds
	Class, Key, Envelope, Body, Local [32]byte
}

// Parts digests the record's parts.
func (r *Record) Parts() Parts {
	return Parts{
		Kind: r.Kind, At: r.At.UnixMilli(), Class: sha256.Sum256([]byte(r.Class)), Key: sha256.Sum256([]byte(r.Key)),
		Envelope: sha256.Sum256(r.Envelope), Body: sha256.Sum256(r.Body), Local: sha256.Sum256(r.Local),
	}
}

// Digest is that of the record which these are the parts of.
func (p *Parts) Digest() [32]byte {
	const label = "falaj record v1\n"
	b := make([]byte, 0, len(label)+1+8+5*sha256.Size)
	b = append(b, label...)
	b = append(b, byte(p.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(p.At))
	for _, part := range [...][32]byte{p.Class, p.Key, p.Envelope, p.Body, p.Local} {
		b = append(b, part[:]...)
	}
	return sha256.Sum256(b)
}

// Leaf is the log's entry for a digest:
//
//	SHA-256( "falaj leaf v1\n" | salt (32 bytes) | digest (32 bytes) )
//
// Its hash in the tree is RFC 6962's over these 32 bytes.
func Leaf(salt, digest [32]byte) [32]byte {
	const label = "falaj leaf v1\n"
	b := make([]byte, 0, len(label)+2*sha256.Size)
	b = append(b, label...)
	b = append(b, salt[:]...)
	b = append(b, digest[:]...)
	return sha256.Sum256(b)
}

// Entry is a record's place in the log.
type Entry struct {
	Index int64
	Salt  [32]byte
	Leaf  [32]byte // the log's entry, not its hash in the tree
}

// Stored is a record as it was kept; its In is nil. Of an erased one only
// Index and Leaf are left, and why.
type Stored struct {
	Entry
	Record
	Erased   bool
	ErasedBy int64 // leaf of the decision that erased it; 0: its retention ended
}

const recordVersion = 1

// encode appends the plaintext of a stored record:
//
//	version 1 | kind | at (8) | salt (32)
//	| length (1) class | length (2) key | length (4) envelope | length (4) body | length (4) local
func (r *Record) encode(b []byte, salt [32]byte) []byte {
	b = slices.Grow(b, 57+len(r.Class)+len(r.Key)+len(r.Envelope)+len(r.Body)+len(r.Local))
	b = append(b, recordVersion, byte(r.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(r.At.UnixMilli()))
	b = append(b, salt[:]...)
	b = append(b, byte(len(r.Class)))
	b = append(b, r.Class...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Key)))
	b = append(b, r.Key...)
	for _, part := range [][]byte{r.Envelope, r.Body, r.Local} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

var errForm = errors.New("journal: a record of a form that is not known")

// decode reads what encode wrote. The parts share b's memory.
func decode(b []byte) (Record, [32]byte, error) {
	var r Record
	var salt [32]byte
	if len(b) < 42 || b[0] != recordVersion {
		return r, salt, errForm
	}
	r.Kind = Kind(b[1])
	r.At = time.UnixMilli(int64(binary.BigEndian.Uint64(b[2:]))).UTC()
	salt = [32]byte(b[10:42])
	b = b[42:]
	ok := true
	take := func(width, limit int) []byte {
		var n uint64
		if ok = ok && len(b) >= width; !ok {
			return nil
		}
		for _, c := range b[:width] {
			n = n<<8 | uint64(c)
		}
		b = b[width:]
		if ok = n <= uint64(min(limit, len(b))); !ok || n == 0 {
			return nil
		}
		part := b[:n:n]
		b = b[n:]
		return part
	}
	r.Class = string(take(1, MaxClass))
	r.Key = string(take(2, MaxKey))
	r.Envelope = take(4, MaxEnvelope)
	r.Body = take(4, MaxBody)
	r.Local = take(4, MaxLocal)
	if !ok || len(b) != 0 {
		return Record{}, salt, errForm
	}
	return r, salt, nil
}
