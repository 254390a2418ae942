package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// Spool is a folder of large bodies, encrypted while they arrive. A body is a
// file under a key of its own, derived from the record key of its retention
// class and month, so that destroying that key ends it too.
//
// The file: the head of an encrypted record (version, class, period, id), then
// the body in chunks of 64 KiB, the last one shorter or not, each as nonce
// (12 bytes), ciphertext, tag (16), bound to its number and to whether it is
// the last (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár,
// 2015, with random nonces). So nothing can be cut, swapped or added unseen.
//
// Several processes may share a folder, on a file system that carries flock
// between them. Safe for concurrent use.
type Spool struct {
	dir     string
	keys    RecordKeys
	session session
	chunks  sync.Pool // of *chunk
}

// chunk is the working memory of one body that is written or read.
type chunk struct {
	plain  [chunkBytes]byte
	sealed [sealedChunk]byte
}

func (s *Spool) takeChunk() *chunk {
	if c, ok := s.chunks.Get().(*chunk); ok {
		return c
	}
	return new(chunk)
}

// giveChunk gives the memory back, without the plaintext.
func (s *Spool) giveChunk(c *chunk) {
	clear(c.plain[:])
	s.chunks.Put(c)
}

const (
	chunkBytes    = 64 << 10
	sealedChunk   = chunkBytes + aeadOverhead
	partSuffix    = ".part"
	spoolLabel    = "falaj spool v1\n"
	maxSpoolChunk = 1 << 31 // 128 TiB: far below what one key may encrypt

	// syncEvery is after how many chunks (8 MiB) a body is made durable as far
	// as it goes. Left until its end, a gigabyte of unwritten pages holds up the
	// journal's small commits on the same disk by hundreds of milliseconds.
	syncEvery = 128
)

// OpenSpool opens the folder and makes it where it is not there. Until Close,
// or the process's end, no sweep takes away what was begun here.
func OpenSpool(dir string, keys RecordKeys) (*Spool, error) {
	s := &Spool{dir: dir, keys: keys}
	err := makeFolder(dir)
	if err == nil {
		s.session, err = enter(filepath.Join(dir, liveFolder))
	}
	if err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	return s, nil
}

// SpoolConfig says how a body is kept.
type SpoolConfig struct {
	Class  string    // retention class
	At     time.Time // when it arrived: gives the month of its key
	Limit  int64     // most bytes; more give fault TooLarge. 0: nothing may be written
	SHA512 bool      // also compute SHA-512 (X-Road-Request-Hash)
}

// Create begins a body. Its writer must be closed.
func (s *Spool) Create(cfg SpoolConfig) (*SpoolWriter, error) {
	name := periodName{cfg.Class, PeriodOf(cfg.At)}
	key, err := s.keys.p.forSealing(name)
	if err != nil {
		return nil, err
	}
	head := name.appendHead(nil)
	var id [idBytes]byte
	_, _ = rand.Read(id[copy(id[:], s.session.id[:]):]) // never fails
	head = append(head, id[:]...)
	aead, err := key.derive(spoolLabel, head)
	if err != nil {
		return nil, fmt.Errorf("spooling a body: %w", err)
	}
	w := &SpoolWriter{spool: s, id: hex.EncodeToString(id[:]), aead: aead, limit: cfg.Limit, sha256: sha256.New(), buf: s.takeChunk()}
	if cfg.SHA512 {
		w.sha512 = sha512.New()
	}
	w.file, err = os.OpenFile(s.path(w.id)+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = w.file.Write(head)
	}
	if err != nil {
		w.fail(err)
		return nil, w.err
	}
	return w, nil
}

// Open opens a body for reading from its start. Its last chunk is checked at
// once, so the size is true; the rest is checked as it is read. A body may be
// opened many times, also at once.
func (s *Spool) Open(id string) (*SpoolReader, error) {
	if err := checkSpoolID(id); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, fmt.Errorf("opening a spooled body: %w", err)
	}
	r := &SpoolReader{spool: s, file: f, buf: s.takeChunk()}
	if err := r.begin(id); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// Destroy removes a body for good: without the random id in its head, which is
// overwritten first, what is left of it on the disk cannot be read with the key
// of its month either, unless the file system keeps copies.
func (s *Spool) Destroy(id string) error {
	if err := checkSpoolID(id); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(id), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(make([]byte, 2+maxClass+4+idBytes))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a spooled body: %w", err)
	}
	if err := s.Remove(id); err != nil {
		return err
	}
	return syncFolder(s.dir)
}

// Remove removes a body. One that is not there is no error. Readers that have
// it open read on.
func (s *Spool) Remove(id string) error {
	if err := checkSpoolID(id); err != nil {
		return err
	}
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a spooled body: %w", err)
	}
	return nil
}

func (s *Spool) path(id string) string { return filepath.Join(s.dir, id) }

func checkSpoolID(id string) error {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != idBytes || strings.ToLower(id) != id {
		return fmt.Errorf("spool id %.64q is not %d bytes in lower-case hexadecimal", id, idBytes)
	}
	return nil
}

// SpoolWriter takes a body. It is for one goroutine.
type SpoolWriter struct {
	redacted
	spool  *Spool
	id     string
	file   *os.File
	aead   cipher.AEAD
	limit  int64
	size   int64
	chunks uint64
	buf    *chunk
	n      int // bytes in buf.plain that are not yet encrypted
	sha256 hash.Hash
	sha512 hash.Hash
	err    error // once set, nothing more is written
}

// Write implements io.Writer. Faults: TooLarge, DiskFull, StoreFailed; after
// one the body is gone.
func (w *SpoolWriter) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(b)) > w.limit-w.size {
		w.fail(fault.New(fault.TooLarge, "the body is larger than %d bytes", w.limit))
		return 0, w.err
	}
	w.sha256.Write(b)
	if w.sha512 != nil {
		w.sha512.Write(b)
	}
	w.size += int64(len(b))
	for rest := b; len(rest) > 0; {
		// A full chunk waits for more, since the last one is marked.
		if w.n == chunkBytes {
			if w.flush(false); w.err != nil {
				return 0, w.err
			}
		}
		n := copy(w.buf.plain[w.n:], rest)
		w.n += n
		rest = rest[n:]
	}
	return len(b), nil
}

// Spooled is a body that lies in the spool.
type Spooled struct {
	ID     string // 32 hexadecimal digits
	Size   int64  // bytes
	SHA256 Digest
	SHA512 [sha512.Size]byte // zero where it was not asked for
}

// Finish ends the body and makes it durable.
func (w *SpoolWriter) Finish() (Spooled, error) {
	if w.err != nil {
		return Spooled{}, w.err
	}
	if w.flush(true); w.err != nil {
		return Spooled{}, w.err
	}
	err := w.file.Sync()
	if err == nil {
		err = os.Rename(w.spool.path(w.id)+partSuffix, w.spool.path(w.id))
	}
	if err == nil {
		err = syncFolder(w.spool.dir)
	}
	if err != nil {
		w.fail(err)
		return Spooled{}, w.err
	}
	w.end(errors.New("the spooled body is finished"))
	done := Spooled{ID: w.id, Size: w.size, SHA256: Digest(w.sha256.Sum(nil))}
	if w.sha512 != nil {
		w.sha512.Sum(done.SHA512[:0])
	}
	return done, nil
}

// Close removes the body unless Finish kept it: it is to be deferred.
func (w *SpoolWriter) Close() error {
	if w.err == nil {
		w.fail(errors.New("the spooled body was given up"))
	}
	return nil
}

func (w *SpoolWriter) flush(last bool) {
	if w.chunks == maxSpoolChunk {
		w.fail(fault.New(fault.TooLarge, "the body has too many chunks"))
		return
	}
	aad := chunkAAD(w.chunks, last)
	sealed := w.aead.Seal(w.buf.sealed[:0], nil, w.buf.plain[:w.n], aad[:])
	if _, err := w.file.Write(sealed); err != nil {
		w.fail(err)
		return
	}
	w.chunks++
	w.n = 0
	if w.chunks%syncEvery == 0 {
		if err := w.file.Sync(); err != nil {
			w.fail(err)
		}
	}
}

// fail ends the body and removes what there is of it.
func (w *SpoolWriter) fail(err error) {
	_ = os.Remove(w.spool.path(w.id) + partSuffix)
	_ = os.Remove(w.spool.path(w.id))
	w.end(spoolFault(err))
}

// end gives back what the writer holds; err answers whatever is called later.
func (w *SpoolWriter) end(err error) {
	w.err = err
	_ = w.file.Close() // either synced before or removed
	w.spool.giveChunk(w.buf)
	w.buf = nil
}

// spoolFault gives the operating system's errors their codes.
func spoolFault(err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.DiskFull, err, "spooling a body")
	}
	return fault.Wrap(fault.StoreFailed, err, "spooling a body")
}

// chunkAAD binds a chunk to its place.
func chunkAAD(n uint64, last bool) [9]byte {
	var aad [9]byte
	binary.BigEndian.PutUint64(aad[:], n)
	if last {
		aad[8] = 1
	}
	return aad
}

// SpoolReader reads a body. It is for one goroutine.
type SpoolReader struct {
	redacted
	spool  *Spool
	file   *os.File
	aead   cipher.AEAD
	size   int64
	head   int64  // where the chunks begin
	next   uint64 // number of the chunk to read
	chunks uint64
	buf    *chunk
	rest   []byte // of buf.plain, what is not yet read
	err    error
}

// begin reads the head and the last chunk.
func (r *SpoolReader) begin(id string) error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("opening a spooled body: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("opening a spooled body: %w: not a file", ErrDamaged)
	}
	head := make([]byte, 2+maxClass+4+idBytes)
	n, err := r.file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("opening a spooled body: %w", err)
	}
	name, start, err := parseHead(head[:n])
	if err != nil {
		return err
	}
	if n < start+idBytes || hex.EncodeToString(head[start:start+idBytes]) != id {
		return fmt.Errorf("opening a spooled body: %w: another's head", ErrDamaged)
	}
	key, err := r.spool.keys.p.forOpening(name)
	if err != nil {
		return err
	}
	r.head = int64(start + idBytes)
	if r.aead, err = key.derive(spoolLabel, head[:r.head]); err != nil {
		return fmt.Errorf("opening a spooled body: %w", err)
	}
	// The number of chunks follows from the length; that the last of them is
	// marked as the last proves the length.
	length := info.Size() - r.head
	r.chunks = uint64((length + sealedChunk - 1) / sealedChunk)
	r.size = length - int64(r.chunks)*aeadOverhead
	if length < aeadOverhead || r.size < int64(r.chunks-1)*chunkBytes || r.chunks > maxSpoolChunk {
		return fmt.Errorf("opening a spooled body: %w: a length that no body has", ErrDamaged)
	}
	r.next = r.chunks - 1
	if err := r.chunk(); err != nil {
		return err
	}
	if r.chunks > 1 {
		r.next, r.rest = 0, nil
	}
	return nil
}

// Size is the size of the body in bytes.
func (r *SpoolReader) Size() int64 { return r.size }

// Read implements io.Reader. Nothing that fails its check is given out.
func (r *SpoolReader) Read(b []byte) (int, error) {
	if len(r.rest) == 0 && len(b) > 0 {
		if r.err == nil && r.next == r.chunks {
			r.err = io.EOF
		}
		if r.err == nil {
			r.err = r.chunk()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// chunk reads and checks the next chunk.
func (r *SpoolReader) chunk() error {
	last := r.next == r.chunks-1
	sealed := r.buf.sealed[:]
	if last {
		sealed = sealed[:r.size-int64(r.next)*chunkBytes+aeadOverhead]
	}
	if _, err := r.file.ReadAt(sealed, r.head+int64(r.next)*sealedChunk); err == io.EOF {
		// Never io.EOF itself: a reader would take it for the body's end.
		return fmt.Errorf("reading a spooled body: chunk %d: %w: the file became shorter", r.next, ErrDamaged)
	} else if err != nil {
		return fmt.Errorf("reading a spooled body: %w", err)
	}
	aad := chunkAAD(r.next, last)
	plain, err := r.aead.Open(r.buf.plain[:0], nil, sealed, aad[:])
	if err != nil {
		return fmt.Errorf("reading a spooled body: chunk %d: %w", r.next, ErrDamaged)
	}
	r.rest = plain
	r.next++
	return nil
}

// Close implements io.Closer.
func (r *SpoolReader) Close() error {
	if r.buf == nil {
		return os.ErrClosed
	}
	r.spool.giveChunk(r.buf)
	r.buf, r.rest, r.err = nil, nil, os.ErrClosed
	return r.file.Close()
}
