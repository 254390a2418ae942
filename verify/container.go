package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// open reads a container, at once where it is small. What is read of it must
// not be used after done: the next is read into the same place.
func (v *Verifier) open(r io.ReaderAt, size int64) (box *evidence.Container, done func(), err error) {
	if size < 0 || size > maxHeld {
		box, err = evidence.Open(r, size)
		return box, func() {}, err
	}
	held, _ := v.held.Get().(*[]byte)
	if held == nil {
		held = new([]byte)
	}
	done = func() { v.held.Put(held) }
	*held = slices.Grow((*held)[:0], int(size))[:size]
	if n, err := r.ReadAt(*held, 0); n < len(*held) {
		return nil, done, fmt.Errorf("reading it: %w", err)
	}
	box, err = evidence.OpenBytes(*held)
	return box, done, err
}

// container is a container with its directory, read once.
type container struct {
	*evidence.Container
	chain *chain
}

// chain is the files of a directory. It never changes and is of no container.
type chain struct {
	names    []string
	contents [][]byte          // of each
	files    map[string][]byte // by their names there
	sum      [32]byte          // of names and contents
	sums     []byte            // the lines of the files in the list of a container's digests
}

// directory reads the files of a container's directory. Most containers of a
// day have the same: what is the same as the last is that.
func (v *Verifier) directory(box *container) (*chain, error) {
	if box.chain != nil {
		return box.chain, nil
	}
	names := box.Names()
	first, _ := slices.BinarySearch(names[1:], evidence.DirectoryDir)
	names = names[1+first:]
	for i, name := range names {
		if !strings.HasPrefix(name, evidence.DirectoryDir) {
			names = names[:i]
			break
		}
	}
	files, total := make([][]byte, len(names)), 0
	last := v.last.Load()
	same := last != nil && slices.Equal(names, last.names)
	for i, name := range names {
		b, err := box.Read(name, maxFile)
		if err != nil {
			return nil, err
		}
		if total += len(b); total > maxDirectory {
			return nil, fmt.Errorf("the directory's files have more than %d bytes", maxDirectory)
		}
		files[i], same = b, same && bytes.Equal(b, last.contents[i])
	}
	if same {
		box.chain = last
		return last, nil
	}
	c := &chain{names: names, contents: files, files: map[string][]byte{}}
	all := sha256.New()
	for i, name := range names {
		var sizes [10]byte
		binary.BigEndian.PutUint16(sizes[:], uint16(len(name)))
		binary.BigEndian.PutUint64(sizes[2:], uint64(len(files[i])))
		_, _ = all.Write(sizes[:])
		_, _ = io.WriteString(all, name)
		_, _ = all.Write(files[i])
		files[i] = bytes.Clone(files[i])
		c.sums = appendSum(c.sums, sha256.Sum256(files[i]), name)
		c.files[name[len(evidence.DirectoryDir):]] = files[i]
	}
	c.sum = [32]byte(all.Sum(nil))
	v.last.Store(c)
	box.chain = c
	return c, nil
}

// edition follows a version of the directory from the root, once for the same
// bytes.
func (v *Verifier) edition(box *container, version int64, state union.State) (*edition, error) {
	chain, err := v.directory(box)
	if err != nil {
		return nil, err
	}
	id := edited{version, state, chain.sum}
	v.mu.Lock()
	e := v.known[id]
	v.mu.Unlock()
	if e != nil {
		return e, nil
	}
	e, err = follow(v.pin, version, string(state), func(name string, limit int64) ([]byte, error) {
		b, ok := chain.files[name]
		if !ok {
			return nil, away("the container lacks %s of the directory", name)
		}
		if int64(len(b)) > limit {
			return nil, fmt.Errorf("%s has %d bytes", name, len(b))
		}
		return b, nil
	})
	if err != nil {
		return nil, err
	}
	size := 0
	for _, b := range e.files {
		size += len(b)
	}
	v.mu.Lock()
	if v.bytes += size; len(v.known) >= maxKnown || v.bytes > maxKnownBytes {
		clear(v.known)
		v.bytes = size
	}
	v.known[id] = e
	v.mu.Unlock()
	return e, nil
}

// whole looks for what nobody sealed and a reader might take for sealed, and
// holds all files against the list of their digests, as sha256sum does.
func (v *Verifier) whole(box *container, in *evidence.Contents, messages [2]*message) error {
	known := make(map[string]*seal.Digest, 64) // with the digest, where another check has taken it
	for _, name := range []string{"mimetype", evidence.ReadmeName, evidence.SumsName, evidence.ContentsName} {
		known[name] = nil
	}
	for _, p := range []seal.Part{seal.Request, seal.Answer} {
		m := messages[p]
		if m == nil {
			continue // without its head nothing of it belongs here
		}
		n, a := p.Names(), evidence.AsideOf(p)
		for _, name := range []string{n.Head, n.Manifest, n.Signature, a.Seal, a.Certificate, a.Authority} {
			known[name] = nil
		}
		if m.head.Body != nil {
			known[n.Body] = m.sum
		}
		for name := range m.batch {
			known[name] = nil
		}
		if m.cert == nil || m.cert.crl != nil {
			known[a.CRL] = nil
		}
	}
	for i := range in.Records {
		known[in.Records[i].ReceiptName()] = nil
	}
	for _, name := range stampFiles(in, box) {
		known[name] = nil
	}
	chain, err := v.directory(box)
	if err != nil {
		return err
	}
	names := box.Names()
	sums, digest := make([]byte, 0, 128*len(names)), sha256.New()
	for _, name := range names {
		sum, belongs := known[name]
		switch {
		case strings.HasPrefix(name, evidence.DirectoryDir):
			if name == chain.names[0] {
				sums = append(sums, chain.sums...)
			}
			continue
		case !belongs:
			return fmt.Errorf("%s does not belong in it", name)
		case name == "mimetype", name == evidence.SumsName:
			continue // not in the list
		case sum == nil:
			digest.Reset()
			if err := box.Copy(digest, name); err != nil {
				return err
			}
			sum = (*seal.Digest)(digest.Sum(nil))
		}
		sums = appendSum(sums, *sum, name)
	}
	kept, err := box.Read(evidence.SumsName, evidence.MaxFile)
	if err == nil && !bytes.Equal(kept, sums) {
		err = fmt.Errorf("%s is not that of the files: one of them, which nobody signed, was changed", evidence.SumsName)
	}
	return err
}

// appendSum appends a line as sha256sum writes it.
func appendSum(b []byte, sum seal.Digest, name string) []byte {
	b = append(hex.AppendEncode(b, sum[:]), "  "...)
	return append(append(b, name...), '\n')
}
