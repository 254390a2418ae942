package exchange

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"io"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
)

// body is a message's body once it has arrived whole: small ones in memory
// and later in the journal, large ones encrypted in the spool.
type body struct {
	size   int64
	sha256 [32]byte
	sha512 [64]byte // for X-Road-Request-Hash; of requests only
	inline []byte
	spool  string
}

// take reads a body to its end. declared is its size, or -1 where the sender
// did not say. More than limit bytes are refused, as is less than declared.
func (x *Exchange) take(r io.Reader, declared int64, class string, wide bool) (*body, error) {
	if declared == 0 || r == nil {
		return &body{}, nil
	}
	if declared > x.cfg.MaxBody {
		return nil, fault.New(fault.TooLarge, "a body of %d bytes; at most %d", declared, x.cfg.MaxBody)
	}
	if declared > int64(x.cfg.Inline) {
		return x.spool(r, declared, class, wide)
	}
	// Room for one byte more tells whether a body of unknown size is a small one.
	room := int64(x.cfg.Inline) + 1
	if declared >= 0 {
		room = declared + 1
	}
	buf := make([]byte, room)
	n, err := fill(r, buf)
	switch {
	case err == nil && declared >= 0:
		return nil, fault.New(fault.BadRequest, "more body than the %d bytes declared", declared)
	case err == nil:
		return x.spool(io.MultiReader(bytes.NewReader(buf), r), -1, class, wide)
	case !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, broken(err)
	case int64(n) < declared:
		return nil, fault.New(fault.BodyTruncated, "%d of %d bytes arrived", n, declared)
	}
	b := &body{size: int64(n), inline: buf[:n:n], sha256: sha256.Sum256(buf[:n])}
	if wide {
		b.sha512 = sha512.Sum512(b.inline)
	}
	return b, nil
}

// fill reads until the buffer is full (nil) or the reader says why not. Unlike
// io.ReadFull it keeps a clean end (io.EOF) apart from a broken one.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	if n == len(buf) {
		err = nil
	}
	return n, err
}

func broken(err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		return err
	}
	return fault.Wrap(fault.BodyTruncated, err, "the body broke off")
}

// spool writes a large body encrypted to disk while it arrives.
func (x *Exchange) spool(r io.Reader, declared int64, class string, wide bool) (*body, error) {
	w, err := x.deps.Spool.Create(seal.SpoolConfig{Class: class, At: x.deps.Now(), Limit: x.cfg.MaxBody, SHA512: wide})
	if err != nil {
		return nil, storeFault(err, "making a spool file")
	}
	defer func() { _ = w.Close() }() // drops what Finish has not kept
	switch n, err := io.Copy(w, r); {
	case err != nil:
		return nil, broken(err)
	case declared >= 0 && n != declared:
		return nil, fault.New(fault.BodyTruncated, "%d of %d bytes arrived", n, declared)
	}
	done, err := w.Finish()
	if err != nil {
		return nil, storeFault(err, "finishing a spool file")
	}
	return &body{size: done.Size, sha256: done.SHA256, sha512: done.SHA512, spool: done.ID}, nil
}

// named is the body as a head names it: nil where it is empty.
func (b *body) named() *message.Body {
	if b == nil || b.size == 0 {
		return nil
	}
	return &message.Body{Size: b.size, SHA256: b.sha256}
}

// open reads the body from its beginning, as often as wanted.
func (x *Exchange) open(b *body) (io.ReadCloser, error) {
	if b == nil || b.size == 0 {
		return nil, nil
	}
	if b.spool == "" {
		return io.NopCloser(bytes.NewReader(b.inline)), nil
	}
	r, err := x.deps.Spool.Open(b.spool)
	if errors.Is(err, seal.ErrDestroyed) {
		return nil, fault.Wrap(fault.AnswerGone, err, "its retention has ended")
	}
	if err != nil {
		return nil, storeFault(err, "reading a spool file")
	}
	return r, nil
}

// unnamed forgets a spooled body whose record failed; where that is unclear, the
// sweep at the next start asks the database.
func (x *Exchange) unnamed(b *body, err error) {
	if !errors.Is(err, journal.ErrUnclear) {
		x.discard(b)
	}
}

// discard forgets a spooled body that no record names.
func (x *Exchange) discard(b *body) {
	if b != nil && b.spool != "" {
		if err := x.deps.Spool.Remove(b.spool); err != nil {
			x.deps.Log.Warn("a spool file stays until the next start", "error", err)
		}
	}
}

func manifest(part seal.Part, head []byte, b *message.Body) []byte {
	h := sha256.Sum256(head)
	if b == nil {
		return seal.Manifest(part, h, nil)
	}
	d := seal.Digest(b.SHA256)
	return seal.Manifest(part, h, &d)
}

// storeFault gives an error of the store its code; nil stays nil.
func storeFault(err error, doing string) error {
	var e *fault.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return fault.Wrap(fault.StoreFailed, err, "%s", doing)
}

func (b *body) wide() *[64]byte {
	if b == nil || b.size == 0 {
		return nil
	}
	return &b.sha512
}
