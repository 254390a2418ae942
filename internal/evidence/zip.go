package evidence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// A container is a ZIP file (APPNOTE 6.3.3) of one form: every entry stored,
// without extra fields, comments or descriptors; mimetype first, the rest in
// the order of their names, each behind the other without a gap. So equal
// contents are equal bytes, nothing in it can expand, no two readers see
// different files, and a reader need not trust the directory at its end: it
// holds it against the bytes that it must have made.
const (
	localHeader   = 30
	centralHeader = 46
	endRecord     = 22

	maxEntries = 4096
	maxName    = 255
	maxSize    = 1<<32 - 1 // beyond it ZIP has other fields
	maxCentral = maxEntries * (centralHeader + maxName)

	smallFile = 32 << 10 // bytes of a file that is copied at once
)

// allowed lets in no absolute path, no dot segments, no backslash, nothing that
// one file system reads otherwise than another: one to nine segments, each
// beginning with a letter or digit, of these, - and _, and dots that stand alone
// and not at the end.
func allowed(name string) bool {
	segments, before := 1, byte('/')
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' || c == '_':
			if before == '/' {
				return false
			}
		case c == '.' || c == '/':
			if before == '.' || before == '/' {
				return false
			}
			if c == '/' {
				segments++
			}
		default:
			return false
		}
		before = c
	}
	return before != '/' && before != '.' && segments <= 9 && len(name) <= maxName
}

type entry struct {
	name   string
	size   int64
	crc    uint32
	offset int64 // of its local header
	stamp  uint32
}

func (e *entry) data() int64 { return e.offset + localHeader + int64(len(e.name)) }

// appendLocal appends what stands before an entry's bytes (4.3.7).
func (e *entry) appendLocal(b []byte) []byte {
	b = append(b, "PK\x03\x04"...)
	b = binary.LittleEndian.AppendUint16(b, 10) // version needed: stored
	b = e.appendCommon(b)
	return append(b, e.name...)
}

// appendCentral appends an entry's line in the directory at the end (4.3.12).
func (e *entry) appendCentral(b []byte) []byte {
	b = append(b, "PK\x01\x02"...)
	b = binary.LittleEndian.AppendUint16(b, 3<<8|10) // made by: Unix, so that the mode counts
	b = binary.LittleEndian.AppendUint16(b, 10)
	b = e.appendCommon(b)
	b = append(b, 0, 0, 0, 0, 0, 0)                           // no comment, first disk, no internal attributes
	b = binary.LittleEndian.AppendUint32(b, 0o100644<<16)     // a plain file
	b = binary.LittleEndian.AppendUint32(b, uint32(e.offset)) // fits: see check
	return append(b, e.name...)
}

func (e *entry) appendCommon(b []byte) []byte {
	b = append(b, 0, 0, 0, 0) // no flags, stored
	b = binary.LittleEndian.AppendUint32(b, e.stamp)
	b = binary.LittleEndian.AppendUint32(b, e.crc)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.size))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.size))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.name)))
	return append(b, 0, 0) // no extra fields
}

// appendEnd appends the record that ends the file (4.3.16).
func appendEnd(b []byte, entries int, central, offset int64) []byte {
	b = append(b, "PK\x05\x06\x00\x00\x00\x00"...)
	b = binary.LittleEndian.AppendUint16(b, uint16(entries))
	b = binary.LittleEndian.AppendUint16(b, uint16(entries))
	b = binary.LittleEndian.AppendUint32(b, uint32(central))
	b = binary.LittleEndian.AppendUint32(b, uint32(offset))
	return append(b, 0, 0)
}

// stampOf is a time as ZIP has it (MS-DOS: two seconds, 1980 to 2107), in UTC.
func stampOf(t time.Time) uint32 {
	t = t.UTC()
	year := t.Year() - 1980
	if year < 0 || year > 127 {
		return 1<<21 | 1<<16 // 1980-01-01
	}
	date := uint32(year)<<9 | uint32(t.Month())<<5 | uint32(t.Day())
	return date<<16 | uint32(t.Hour())<<11 | uint32(t.Minute())<<5 | uint32(t.Second()/2)
}

// check holds names and order against the form, and gives each entry its
// place: it ends with the offset of the directory behind the last.
func check(entries []*entry) (end int64, err error) {
	if len(entries) == 0 || len(entries) > maxEntries {
		return 0, fmt.Errorf("%d entries; 1 to %d", len(entries), maxEntries)
	}
	for i, e := range entries {
		switch {
		case !allowed(e.name):
			return 0, fmt.Errorf("entry %d has a name that is not allowed", i)
		case i == 0 && (e.name != mimeName || e.size != int64(len(MIME))):
			return 0, errors.New("mimetype is not the first entry")
		case i > 1 && e.name <= entries[i-1].name, i > 0 && e.name == mimeName:
			return 0, fmt.Errorf("%s is out of order or stands twice", e.name)
		}
		e.offset = end
		end = e.data() + e.size
		if e.size < 0 || end > maxSize {
			return 0, fmt.Errorf("%s ends beyond 4 GiB", e.name)
		}
	}
	// A file cannot lie where a folder is.
	files := entries[1:] // in order; mimetype stands before it
	last := ""
	for _, e := range entries {
		for dir := folder(e.name); dir != "" && !within(last, dir); dir = folder(dir) {
			if _, ok := find(files, dir); ok || dir == mimeName {
				return 0, fmt.Errorf("%s is a file and a folder", dir)
			}
		}
		last = e.name // its folders have been looked at
	}
	return end, nil
}

// folder is what stands before the last slash of a name, "" where there is none.
func folder(name string) string { return name[:max(0, strings.LastIndexByte(name, '/'))] }

func within(name, dir string) bool {
	return len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}

// Container is a container that is read. It is safe for concurrent use.
type Container struct {
	r       io.ReaderAt
	held    []byte // all of it, where it is held in memory
	entries []*entry
}

// ErrForm is wrapped by every error about a file that is no container of this
// form.
var ErrForm = errors.New("not a container as falaj writes it")

// Open reads which files a container holds. Everything in it may come from an
// adversary: sizes and numbers are bounded before anything is made of them.
func Open(r io.ReaderAt, size int64) (*Container, error) {
	return formed(open(&Container{r: r}, size))
}

// OpenBytes is Open of a container that is held in memory. What Read gives is a
// part of b.
func OpenBytes(b []byte) (*Container, error) {
	return formed(open(&Container{r: bytes.NewReader(b), held: b}, int64(len(b))))
}

func formed(c *Container, err error) (*Container, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	return c, nil
}

func open(c *Container, size int64) (*Container, error) {
	r := c.r
	if size < endRecord || size > maxSize+maxCentral+endRecord {
		return nil, fmt.Errorf("%d bytes", size)
	}
	var end [endRecord]byte
	if err := readAt(r, end[:], size-endRecord); err != nil {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint16(end[10:]))
	length, offset := int64(binary.LittleEndian.Uint32(end[12:])), int64(binary.LittleEndian.Uint32(end[16:]))
	if string(end[:]) != string(appendEnd(nil, n, length, offset)) || length > maxCentral || offset+length+endRecord != size {
		return nil, errors.New("it does not end as it should")
	}
	central, err := c.part(offset, length)
	if err != nil {
		return nil, err
	}
	text := string(central) // names are parts of it
	slab := make([]entry, min(n, len(central)/centralHeader))
	c.entries = make([]*entry, 0, len(slab))
	for b := central; len(b) > 0; {
		if len(b) < centralHeader || len(c.entries) >= len(slab) {
			return nil, errors.New("its directory is broken")
		}
		e := &slab[len(c.entries)]
		*e = entry{
			stamp: binary.LittleEndian.Uint32(b[12:]), crc: binary.LittleEndian.Uint32(b[16:]),
			size: int64(binary.LittleEndian.Uint32(b[20:])),
		}
		name := int(binary.LittleEndian.Uint16(b[28:]))
		if len(b) < centralHeader+name {
			return nil, errors.New("its directory is broken")
		}
		at := len(central) - len(b) + centralHeader
		e.name = text[at : at+name]
		b = b[centralHeader+name:]
		c.entries = append(c.entries, e)
	}
	at, err := check(c.entries)
	if err != nil {
		return nil, err
	}
	if len(c.entries) != n || at != offset {
		return nil, errors.New("its directory is not that of its entries")
	}
	made, rest := make([]byte, 0, centralHeader+maxName), central
	for _, e := range c.entries {
		made = e.appendCentral(made[:0])
		var same bool
		if rest, same = bytes.CutPrefix(rest, made); !same {
			return nil, errors.New("its directory is not that of its entries")
		}
		head, err := c.part(e.offset, e.data()-e.offset)
		if err != nil {
			return nil, err
		}
		if made = e.appendLocal(made[:0]); string(head) != string(made) {
			return nil, fmt.Errorf("%s begins otherwise than the directory says", e.name)
		}
	}
	if len(rest) > 0 {
		return nil, errors.New("its directory is not that of its entries")
	}
	if b, err := c.Read(mimeName, int64(len(MIME))); err != nil || string(b) != MIME {
		return nil, errors.New("its media type is another")
	}
	return c, nil
}

// part gives n bytes from an offset on, which lie within the container's size.
func (c *Container) part(offset, n int64) ([]byte, error) {
	if c.held != nil {
		return c.held[offset : offset+n : offset+n], nil
	}
	b := make([]byte, n)
	return b, readAt(c.r, b, offset)
}

func readAt(r io.ReaderAt, b []byte, at int64) error {
	if n, err := r.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("reading it: %w", err)
	}
	return nil
}

// Names lists the files in their order.
func (c *Container) Names() []string {
	names := make([]string, len(c.entries))
	for i, e := range c.entries {
		names[i] = e.name
	}
	return names
}

func (c *Container) find(name string) (*entry, error) {
	if name == mimeName {
		return c.entries[0], nil
	}
	e, ok := find(c.entries[1:], name)
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return e, nil
}

func find(sorted []*entry, name string) (*entry, bool) {
	i, ok := slices.BinarySearchFunc(sorted, name, func(e *entry, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return nil, false
	}
	return sorted[i], true
}

// Size is a file's size in bytes; one that is not there is fs.ErrNotExist.
func (c *Container) Size(name string) (int64, error) {
	e, err := c.find(name)
	if err != nil {
		return 0, err
	}
	return e.size, nil
}

// Read reads a file of at most limit bytes.
func (c *Container) Read(name string, limit int64) ([]byte, error) {
	e, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if e.size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes; at most %d", ErrForm, name, e.size, limit)
	}
	b, err := c.part(e.data(), e.size) // where it ends was held against the directory's place
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if crc32.ChecksumIEEE(b) != e.crc {
		return nil, fmt.Errorf("%w: %s is damaged", ErrForm, name)
	}
	return b, nil
}

// Copy writes a file of any size out, and tells at its end whether it is
// damaged.
func (c *Container) Copy(w io.Writer, name string) error {
	e, err := c.find(name)
	if err != nil {
		return err
	}
	if e.size <= smallFile {
		b, err := c.Read(name, smallFile)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	crc := crc32.NewIEEE()
	if n, err := io.Copy(io.MultiWriter(w, crc), io.NewSectionReader(c.r, e.data(), e.size)); err != nil || n != e.size {
		return fmt.Errorf("reading %s: %d of %d bytes: %w", name, n, e.size, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if crc.Sum32() != e.crc {
		return fmt.Errorf("%w: %s is damaged", ErrForm, name)
	}
	return nil
}

// Contents reads what the container says of itself, with the receipts.
func (c *Container) Contents() (*Contents, error) {
	b, err := c.Read(ContentsName, MaxContents)
	if err != nil {
		return nil, err
	}
	out := Contents{Records: make([]Record, 0, 4)} // a call has that many, or fewer
	if err := json.Unmarshal(b, &out, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrForm, ContentsName, err)
	}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrForm, ContentsName, err)
	}
	for i := range out.Records {
		r := &out.Records[i]
		if r.Receipt, err = c.Read(r.ReceiptName(), merkle.MaxReceipt); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if r.Stamp == nil {
			continue
		}
		if r.Proof, err = c.Read(r.name(StampDir, ".ers"), stamp.MaxRecord); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// check holds what nobody signed to what may be shown on a screen and used in
// a name.
func (c *Contents) check() error {
	shown := func(texts ...string) bool {
		return !slices.ContainsFunc(texts, func(s string) bool {
			return len(s) > 1<<10 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
		})
	}
	switch {
	case c.Type != ContentsType:
		return errors.New("it is of another type")
	case len(c.ID) > 255 || !shown(c.ID):
		return errors.New("its id is none")
	case len(c.Records) > MaxRecords || len(c.Absent) > 2:
		return fmt.Errorf("%d records, %d absent bodies", len(c.Records), len(c.Absent))
	}
	for _, a := range c.Absent {
		if a.Name != seal.Request.Names().Body && a.Name != seal.Answer.Names().Body || !shown(a.Why.En, a.Why.Ar) {
			return errors.New("something else than a body is absent")
		}
	}
	renewals := 0
	for _, r := range c.Records {
		if _, err := union.ParseState(string(r.State)); err != nil || len(r.Node) > 255 || !shown(r.Node) || r.Leaf < 0 ||
			r.Message != label(seal.Request) && r.Message != label(seal.Answer) {
			return errors.New("one of its records is none")
		}
		if s := r.Stamp; s != nil {
			if renewals += len(s.Renewals); s.End <= r.Leaf || len(s.Renewals) >= stamp.MaxLinks || renewals > MaxRenewals {
				return errors.New("one of its time-stamps is none")
			}
			for _, j := range append([]Judge{s.Judge}, s.Renewals...) {
				if _, err := union.ParseState(string(j.Authority)); j.Directory < 0 || err != nil && j.Authority != "" {
					return errors.New("one of its time-stamps is none")
				}
			}
		}
	}
	return nil
}
