package seal

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/p256"
)

// A batch is several messages of one member to one state under one signature:
// their manifests are the leaves of a Merkle tree (RFC 6962 section 2.1), and
// what is signed names its root. Each message carries its way to the root, so
// that its seal is as whole as a single one and needs no other message.

// MaxBatch is how many messages one signature may cover.
const MaxBatch = 1024

// Place is where a message stands in its batch.
type Place struct {
	Index, Size int      // of Size leaves this is number Index, from 0 on
	Path        []Digest // RFC 6962 section 2.1.1, from the leaf up
}

const (
	batched    = 0x80 // in the first byte of a seal's wire form: of a batch
	placeHead  = 2 + 2
	maxPath    = 10 // levels of a tree of MaxBatch leaves
	maxPlace   = placeHead + maxPath*sha256.Size
	batchTitle = "falaj batch v1"
)

// BatchDocument is what stands for a batch: three lines, as the body of a C2SP
// checkpoint: title, number of messages, root in base64.
func BatchDocument(size int, root Digest) []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", batchTitle, size, base64.StdEncoding.EncodeToString(root[:]))
}

// Document is the document of the seal's batch that a message's manifest leads
// to; nil where the seal is a single one.
func (s Seal) Document(manifest []byte) []byte {
	if s.Batch == nil {
		return nil
	}
	return BatchDocument(s.Batch.Size, s.Batch.root(leafOf(manifest)))
}

// Signed is the manifest that the signature is of: the message's own, or that
// of its batch's document.
func (s Seal) Signed(part Part, manifest []byte) []byte {
	if s.Batch == nil {
		return manifest
	}
	return batchManifest(part, sha256.Sum256(s.Document(manifest)))
}

// SignBatch seals manifests of one kind of message with one signature, in their
// order: one alone as Sign does.
func SignBatch(s crypto.Signer, cert *x509.Certificate, part Part, manifests [][]byte, at time.Time) ([]Seal, error) {
	if len(manifests) == 1 {
		one, err := Sign(s, cert, manifests[0], at)
		return []Seal{one}, err
	}
	if len(manifests) == 0 || len(manifests) > MaxBatch {
		return nil, fmt.Errorf("sealing a batch of %d messages; 1 to %d", len(manifests), MaxBatch)
	}
	leaves, paths := make([]Digest, len(manifests)), make([][]Digest, len(manifests))
	levels := bits.Len(uint(len(manifests) - 1))
	all := make([]Digest, levels*len(manifests)) // one allocation for all paths
	for i, m := range manifests {
		leaves[i], paths[i] = leafOf(m), all[i*levels:i*levels:(i+1)*levels]
	}
	root := climb(leaves, paths)
	signed, err := Sign(s, cert, batchManifest(part, sha256.Sum256(BatchDocument(len(leaves), root))), at)
	if err != nil {
		return nil, err
	}
	out := make([]Seal, len(manifests))
	places := make([]Place, len(manifests))
	for i := range out {
		places[i] = Place{i, len(leaves), paths[i]}
		out[i] = signed
		out[i].Batch = &places[i]
	}
	return out, nil
}

func leafOf(manifest []byte) Digest {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(manifest)
	return Digest(h.Sum(nil))
}

func nodeOf(left, right Digest) Digest {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// split is the number of leaves in the left half of a tree: the largest power
// of two below size.
func split(size int) int { return 1 << (bits.Len(uint(size-1)) - 1) }

// climb gives the root of a tree and adds to each leaf's path what lies above it.
func climb(leaves []Digest, paths [][]Digest) Digest {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	left, right := climb(leaves[:k], paths[:k]), climb(leaves[k:], paths[k:])
	for i := range paths {
		if i < k {
			paths[i] = append(paths[i], right)
		} else {
			paths[i] = append(paths[i], left)
		}
	}
	return nodeOf(left, right)
}

// sides tells for each step from a leaf up whether the leaf lies in the left
// half; the step nearest to the leaf comes first.
func sides(index, size int) (left []bool) {
	var down [maxPath]bool
	n := 0
	for ; size > 1; n++ {
		k := split(size)
		if down[n] = index < k; down[n] {
			size = k
		} else {
			index, size = index-k, size-k
		}
	}
	for i := n - 1; i >= 0; i-- {
		left = append(left, down[i])
	}
	return left
}

// Step is one step from a leaf to the root of a batch.
type Step struct {
	Sibling Digest
	Left    bool // the way comes from the left: the sibling is hashed behind it
}

// Steps are the steps from the message's leaf up.
func (p *Place) Steps() []Step {
	out := make([]Step, len(p.Path))
	for i, left := range sides(p.Index, p.Size) {
		out[i] = Step{p.Path[i], left}
	}
	return out
}

// root leads a leaf to the root. The path has been checked to be of the length
// that index and size ask for.
func (p *Place) root(h Digest) Digest {
	for _, s := range p.Steps() {
		if s.Left {
			h = nodeOf(h, s.Sibling)
		} else {
			h = nodeOf(s.Sibling, h)
		}
	}
	return h
}

// check holds a place against the only form that it may have.
func (p *Place) check() error {
	if p.Size < 2 || p.Size > MaxBatch || p.Index < 0 || p.Index >= p.Size {
		return fault.New(fault.SealInvalid, "message %d of a batch of %d; a batch has 2 to %d", p.Index, p.Size, MaxBatch)
	}
	if n := len(sides(p.Index, p.Size)); n != len(p.Path) {
		return fault.New(fault.SealInvalid, "%d steps to the root of a batch; its place asks for %d", len(p.Path), n)
	}
	return nil
}

// append appends the wire form: index and size (2 bytes each, big-endian), the
// digests of the path.
func (p *Place) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(p.Index))
	b = binary.BigEndian.AppendUint16(b, uint16(p.Size))
	for i := range p.Path {
		b = append(b, p.Path[i][:]...)
	}
	return b
}

func parsePlace(b []byte) (*Place, error) {
	if len(b) < placeHead || len(b) > maxPlace || (len(b)-placeHead)%sha256.Size != 0 {
		return nil, fault.New(fault.SealInvalid, "a place in a batch of %d bytes", len(b))
	}
	p := &Place{Index: int(binary.BigEndian.Uint16(b)), Size: int(binary.BigEndian.Uint16(b[2:]))}
	p.Path = make([]Digest, (len(b)-placeHead)/sha256.Size)
	for i := range p.Path {
		p.Path[i] = Digest(b[placeHead+i*sha256.Size:])
	}
	return p, p.check()
}

// Checker verifies seals as Verify does, and the signature of a batch once for
// all its messages. The zero Checker is ready, and safe for concurrent use.
type Checker struct {
	Tables bool // verify what keys of P-256 have sealed that seal often by tables (ADR 19)

	keys  p256.Keys
	mu    sync.Mutex
	known map[Digest]*judged
	order []Digest // of what is known, oldest first
}

// judged is the signature of a batch; whoever comes while it is verified waits.
type judged struct {
	once sync.Once
	ok   bool
}

// maxJudged bounds what a checker remembers: a batch's messages come together.
const maxJudged = 1024

// judge verifies a signature once. named is all that it depends on.
func (c *Checker) judge(named Digest, verify func() bool) bool {
	c.mu.Lock()
	j := c.known[named]
	if j == nil {
		if c.known == nil {
			c.known = map[Digest]*judged{}
		}
		if len(c.order) == maxJudged {
			delete(c.known, c.order[0])
			c.order = append(c.order[:0], c.order[1:]...)
		}
		j = &judged{}
		c.known[named], c.order = j, append(c.order, named)
	}
	c.mu.Unlock()
	j.once.Do(func() { j.ok = verify() })
	return j.ok
}
