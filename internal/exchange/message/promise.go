package message

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/falaj/falaj/internal/journal"
)

// Promise says where the sender's own record of a message stands in its log:
// the opening of that record's leaf, as far as the message itself does not tell
// it. Nobody signs it: whoever gives a false one has still sealed the message.
type Promise struct {
	Kind  journal.Kind
	Index int64
	At    int64 // of the record, Unix milliseconds
	Salt  [32]byte
	// Digests of the record's parts.
	Class, Body, Local [32]byte
}

const (
	promiseMark = 1 // the form of what follows
	// PromiseSize is what a promise takes, in bytes.
	PromiseSize = 1 + 1 + 8 + 8 + 4*32
)

// PromiseOf is the promise that a stored record keeps.
func PromiseOf(e journal.Entry, r *journal.Record) *Promise {
	return &Promise{
		Kind: r.Kind, Index: e.Index, At: r.At.UnixMilli(), Salt: e.Salt,
		Class: sha256.Sum256([]byte(r.Class)), Body: sha256.Sum256(r.Body), Local: sha256.Sum256(r.Local),
	}
}

// Append writes the promise as it travels, with the release of its message:
//
//	0x01 | kind (1) | index (8) | at (8) | salt (32) | class (32) | body (32) | local (32)
func (p *Promise) Append(b []byte) []byte {
	b = append(b, promiseMark, byte(p.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Index))
	b = binary.BigEndian.AppendUint64(b, uint64(p.At))
	for _, x := range [][32]byte{p.Salt, p.Class, p.Body, p.Local} {
		b = append(b, x[:]...)
	}
	return b
}

// ParsePromise reads what Append wrote.
func ParsePromise(b []byte) (*Promise, error) {
	if len(b) != PromiseSize || b[0] != promiseMark {
		return nil, bad("a promise of %d bytes", len(b))
	}
	p := &Promise{
		Kind: journal.Kind(b[1]), Index: int64(binary.BigEndian.Uint64(b[2:])), At: int64(binary.BigEndian.Uint64(b[10:])),
		Salt: [32]byte(b[18:]), Class: [32]byte(b[50:]), Body: [32]byte(b[82:]), Local: [32]byte(b[114:]),
	}
	if p.Index < 0 || p.At < 0 {
		return nil, bad("a promise of a leaf or a time that there is not")
	}
	return p, nil
}

// Leaf is the log's entry that keeps the promise for a message: its id, and
// the digest of its envelope.
func (p *Promise) Leaf(id string, envelope [32]byte) [32]byte {
	parts := journal.Parts{
		Kind: p.Kind, At: p.At, Class: p.Class, Key: sha256.Sum256([]byte(id)), Envelope: envelope, Body: p.Body, Local: p.Local,
	}
	return journal.Leaf(p.Salt, parts.Digest())
}
