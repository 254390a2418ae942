// Package evidence is the room of what is handed to others as proof of a call:
// an ASiC-E container with CAdES signatures (ETSI EN 319 162-1) that stock
// tools check, written and read. It packs what it is given and holds no key;
// docs/protocols/evidence.md says what is in it.
package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// MIME is a container's media type, the content of its first file.
const MIME = "application/vnd.etsi.asic-e+zip"

// The names in a container beside those of the messages' parts (seal.Names).
// What falaj adds lies under META-INF, where ASiC keeps what is no signed
// content.
const (
	mimeName = "mimetype"

	ReadmeName   = "README.txt"
	ContentsName = "META-INF/falaj/container.json"
	SumsName     = "META-INF/falaj/SHA256SUMS"
	DirectoryDir = "META-INF/falaj/directory/"
	ReceiptDir   = "META-INF/falaj/receipt/"
	StampDir     = "META-INF/falaj/stamp/"

	certificateDir = "META-INF/falaj/certificate/"
)

// Limits on what goes into a container and what is read of one.
const (
	MaxContents = 1 << 20 // bytes of container.json
	MaxHead     = 256 << 10
	MaxFile     = 4 << 20 // of the directory, certificates, receipts
	MaxRecords  = 64
	MaxRenewals = 1024 // of all records' time-stamps: each may take a directory of its own to judge
)

// Aside are the names of what stands beside a message: the certificate that
// sealed it, its authority's, the authority's CRL, and the seal as it travels; of
// one that was sealed in a batch also its own manifest, and the way from it to
// the batch.
type Aside struct{ Certificate, Authority, CRL, Seal, Leaf, Way string }

// AsideOf names what stands beside a part.
func AsideOf(p seal.Part) Aside { return asides[p] }

var asides = [...]Aside{seal.Request: aside(seal.Request), seal.Answer: aside(seal.Answer)}

func aside(p seal.Part) Aside {
	n, own := certificateDir+label(p), "META-INF/falaj/"+label(p)
	return Aside{n + ".pem", n + "-authority.pem", n + "-crl.pem", own + ".seal", own + "-leaf.xml", own + "-way.txt"}
}

// Batch is what stands in a container because a message was sealed in a batch;
// nothing for one that was sealed by itself.
func Batch(p seal.Part, manifest []byte, s seal.Seal) map[string][]byte {
	if s.Batch == nil {
		return nil
	}
	var way bytes.Buffer
	for _, step := range s.Batch.Steps() {
		side := "left"
		if step.Left {
			side = "right"
		}
		fmt.Fprintf(&way, "%s %x\n", side, step.Sibling)
	}
	n := AsideOf(p)
	return map[string][]byte{p.Names().Batch: s.Document(manifest), n.Leaf: manifest, n.Way: way.Bytes()}
}

func label(p seal.Part) string {
	if p == seal.Request {
		return "request"
	}
	return "answer"
}

// Call is what a container is made of.
type Call struct {
	ID        string
	Union     string
	Request   *Message // nil where none was sealed
	Answer    *Message // nil where there is none
	Records   []Record
	Stamps    []Stamp           // those that Records name
	Directory map[string][]byte // the signed directory of the day, by its files' names
}

// Message is a sealed message with what its seal is judged by.
type Message struct {
	Head      []byte
	Seal      []byte // wire form
	Body      *Body  // nil where the head names none
	Cert      *x509.Certificate
	Authority *x509.Certificate
	CRL       []byte // DER; nil where the authority has none
}

// Body is a message's body: Open gives it from its beginning, as often as it
// is asked. Without Open it is absent, for the reason that Absent gives.
type Body struct {
	Size   int64
	SHA256 [32]byte
	Open   func() (io.ReadCloser, error)
	Absent union.Text
}

// Contents is container.json: what is there beside the sealed parts, and what
// is not. Nobody signed it; it only says where to look.
type Contents struct {
	Type    string    `json:"type"`
	ID      string    `json:"id"`
	Absent  []Absence `json:"absent,omitempty"`
	Records []Record  `json:"records"`
}

// ContentsType is the label of this form.
const ContentsType = "falaj.container/1"

// Absence is a part that a manifest names and the container lacks.
type Absence struct {
	Name string     `json:"name"`
	Why  union.Text `json:"why"`
}

// Record is a node's record of one of the messages, as the opening of its leaf
// in that state's log (docs/protocols/node.md §20).
type Record struct {
	State   union.State `json:"state"`
	Node    string      `json:"node"`
	Message string      `json:"message"` // "request" or "answer": the envelope that the record is of
	Kind    uint8       `json:"kind"`
	At      int64       `json:"at"` // Unix milliseconds
	Leaf    int64       `json:"leaf"`
	Salt    Digest      `json:"salt"`
	Class   Digest      `json:"class"`
	Key     Digest      `json:"key"`
	Body    Digest      `json:"body"`
	Local   Digest      `json:"local"`
	Hash    Digest      `json:"hash"`
	Stamp   *StampPlace `json:"stamp,omitzero"`
	Receipt []byte      `json:"-"` // C2SP tlog-proof; nil where there is none yet
	Proof   []byte      `json:"-"` // evidence record (RFC 4998) of the leaf; nil where there is no time-stamp yet
	Digest  [32]byte    `json:"-"` // of the record, for the file of the leaf beside Proof
}

// StampPlace says which time-stamp covers a record, and where the authorities
// are found that gave and renewed it.
type StampPlace struct {
	End int64 `json:"end"` // the time-stamp's entries lie below it: its name in the container
	Judge
	Renewals []Judge `json:"renewals,omitempty"` // each of the one before
}

// Judge says where the authority of a time-stamp is found.
type Judge struct {
	Authority union.State `json:"authority,omitzero"` // "": of no state
	Directory int64       `json:"directory,omitzero"` // version that names it
}

// Digest is a SHA-256 digest, written as 64 lower-case hexadecimal digits.
type Digest [32]byte

// MarshalText writes it.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads it.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) || slices.ContainsFunc(b, func(c byte) bool { return c <= 'F' && c >= 'A' }) {
		return errors.New("a digest is 64 lower-case hexadecimal digits")
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// ReceiptName is where the receipt of a record lies.
func (r *Record) ReceiptName() string { return r.name(ReceiptDir, ".tlog-proof") }

// Pack is a container ready to be written.
type Pack struct {
	entries []*entry
	files   map[string][]byte
	bodies  map[string]*Body
	size    int64
	absent  []Absence
}

// New makes a container. It verifies each seal and reads each body once, so
// that nothing broken is handed out: faults SealInvalid, Corrupt. Equal calls
// give equal bytes.
func New(ctx context.Context, c Call) (*Pack, error) {
	p := &Pack{files: map[string][]byte{mimeName: []byte(MIME)}, bodies: map[string]*Body{}}
	if c.Request == nil && c.Answer == nil {
		return nil, fault.New(fault.NotFound, "a container holds a message")
	}
	if len(c.Records) > MaxRecords {
		return nil, fault.New(fault.TooLarge, "%d records of one call; at most %d", len(c.Records), MaxRecords)
	}
	sums := map[string][32]byte{}
	var said []sealedPart
	for part, m := range map[seal.Part]*Message{seal.Request: c.Request, seal.Answer: c.Answer} {
		if m == nil {
			continue
		}
		s, err := p.message(ctx, part, m, sums)
		if err != nil {
			return nil, fmt.Errorf("packing the %s: %w", label(part), err)
		}
		said = append(said, s)
	}
	slices.SortFunc(said, func(a, b sealedPart) int { return int(a.part) - int(b.part) })
	for name, b := range c.Directory {
		p.files[DirectoryDir+name] = b
	}
	for _, r := range c.Records {
		if r.Receipt != nil {
			p.files[r.ReceiptName()] = r.Receipt
		}
		if r.Stamp != nil {
			n := r.StampNames()
			p.files[n.Proof], p.files[n.Leaf] = r.Proof, r.Opening(r.Digest)
		}
	}
	for _, s := range c.Stamps {
		p.stamp(s)
	}
	slices.SortFunc(p.absent, func(a, b Absence) int { return strings.Compare(a.Name, b.Name) })
	in := Contents{ContentsType, c.ID, p.absent, append([]Record{}, c.Records...)}
	contents, err := json.Marshal(in, json.Deterministic(true))
	if err == nil {
		err = in.check() // what no reader would take is not made
	}
	if err != nil {
		return nil, fmt.Errorf("packing evidence: %w", err)
	}
	p.files[ContentsName] = append(contents, '\n')
	p.files[ReadmeName] = readme(c, said, p.absent)
	p.sum(sums)
	return p, p.place(said[0].at)
}

// sealedPart is what the README says of a message.
type sealedPart struct {
	part       seal.Part
	at         time.Time
	batch      *seal.Place
	body, here bool // it has a body; and that is in the container
	crl        bool
}

// message puts in what belongs to one message.
func (p *Pack) message(ctx context.Context, part seal.Part, m *Message, sums map[string][32]byte) (s sealedPart, err error) {
	sl, err := seal.ParseSeal(m.Seal)
	if err != nil {
		return s, err
	}
	names, aside := part.Names(), AsideOf(part)
	s = sealedPart{part: part, at: sl.At, batch: sl.Batch, body: m.Body != nil, crl: m.CRL != nil}
	var digest *seal.Digest
	if m.Body != nil {
		digest = &m.Body.SHA256
	}
	manifest := seal.Manifest(part, sha256.Sum256(m.Head), digest)
	p7s, err := seal.CMS(part, manifest, m.Cert, sl, m.Authority)
	if err != nil {
		return s, err
	}
	for name, b := range map[string][]byte{
		names.Head: m.Head, names.Manifest: sl.Signed(part, manifest), names.Signature: p7s, aside.Seal: m.Seal,
		aside.Certificate: pemOf("CERTIFICATE", m.Cert.Raw), aside.Authority: pemOf("CERTIFICATE", m.Authority.Raw),
	} {
		p.files[name] = b
	}
	maps.Copy(p.files, Batch(part, manifest, sl))
	if m.CRL != nil {
		p.files[aside.CRL] = pemOf("X509 CRL", m.CRL)
	}
	switch {
	case m.Body == nil:
		return s, nil
	case m.Body.Open == nil:
		p.absent = append(p.absent, Absence{names.Body, m.Body.Absent})
		return s, nil
	case m.Body.Size > maxBody:
		p.absent = append(p.absent, Absence{names.Body, union.Text{
			En: "a container holds at most 4 GiB", Ar: "لا تتسع الحاوية لأكثر من 4 غيغابايت",
		}})
		return s, nil
	}
	s.here = true
	p.bodies[names.Body] = m.Body
	crc, err := m.Body.copy(ctx, io.Discard)
	if err != nil {
		return s, err
	}
	sums[names.Body] = m.Body.SHA256
	p.entries = append(p.entries, &entry{name: names.Body, size: m.Body.Size, crc: crc})
	return s, nil
}

// maxBody is the largest body that goes in: two of them and the rest stay
// below what ZIP's 32 bits name.
const maxBody = 2<<30 - 128<<20

// copy writes the body out and holds it against its size and digest.
func (b *Body) copy(ctx context.Context, w io.Writer) (crc uint32, err error) {
	r, err := b.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	sum, check := sha256.New(), crc32.NewIEEE()
	n, err := io.Copy(io.MultiWriter(w, sum, check), io.LimitReader(reader{ctx, r}, b.Size+1))
	switch {
	case err != nil:
		return 0, fmt.Errorf("reading a body: %w", err)
	case n != b.Size || [32]byte(sum.Sum(nil)) != b.SHA256:
		return 0, fault.New(fault.Corrupt, "a kept body is not the one that was sealed")
	}
	return check.Sum32(), nil
}

// reader stops when nobody waits any more.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// sum writes the list that sha256sum checks.
func (p *Pack) sum(sums map[string][32]byte) {
	for name, b := range p.files {
		if name != mimeName {
			sums[name] = sha256.Sum256(b)
		}
	}
	var list bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&list, "%x  %s\n", sums[name], name)
	}
	p.files[SumsName] = list.Bytes()
}

// place puts all entries into their order, dated by the first seal.
func (p *Pack) place(at time.Time) error {
	for name, b := range p.files {
		if len(b) > MaxFile {
			return fault.New(fault.TooLarge, "%s has %d bytes; at most %d", name, len(b), MaxFile)
		}
		p.entries = append(p.entries, &entry{name: name, size: int64(len(b)), crc: crc32.ChecksumIEEE(b)})
	}
	order := func(e *entry) string { return strings.TrimPrefix(e.name, mimeName) } // "" for mimetype: first
	slices.SortFunc(p.entries, func(a, b *entry) int { return strings.Compare(order(a), order(b)) })
	for _, e := range p.entries {
		e.stamp = stampOf(at)
	}
	end, err := check(p.entries)
	if err != nil {
		return fault.Wrap(fault.TooLarge, err, "a container")
	}
	p.size = end + endRecord
	for _, e := range p.entries {
		p.size += centralHeader + int64(len(e.name))
	}
	return nil
}

// Size is the container's size in bytes.
func (p *Pack) Size() int64 { return p.size }

// Absent names the parts that are not in the container, and why.
func (p *Pack) Absent() []Absence { return p.absent }

// Write writes the container. Where a body is no longer what it was, it stops
// before the container's end: what is there then opens nowhere.
func (p *Pack) Write(ctx context.Context, w io.Writer) error {
	var end int64
	var central []byte
	for _, e := range p.entries {
		if _, err := w.Write(e.appendLocal(nil)); err != nil {
			return fmt.Errorf("writing a container: %w", err)
		}
		if b := p.bodies[e.name]; b != nil {
			if crc, err := b.copy(ctx, w); err != nil || crc != e.crc {
				return fmt.Errorf("writing a container: %s: %w", e.name, errors.Join(err, ctx.Err()))
			}
		} else if _, err := w.Write(p.files[e.name]); err != nil {
			return fmt.Errorf("writing a container: %w", err)
		}
		central = e.appendCentral(central)
		end = e.data() + e.size
	}
	central = appendEnd(central, len(p.entries), int64(len(central)), end)
	if _, err := w.Write(central); err != nil {
		return fmt.Errorf("writing a container: %w", err)
	}
	return nil
}
