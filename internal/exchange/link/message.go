package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/falaj/falaj/internal/fault"
)

// Message is an envelope, which the link does not look into, and a body of
// exactly Size bytes. A body of at most 64 KiB travels beside the envelope in
// one frame and is in memory when it arrives.
type Message struct {
	Envelope []byte
	Body     io.ReadCloser // nil where Size is 0, or not
	Size     int64

	// Hold, of a message that is to be sent, does what must be done before the
	// message counts, at most once: while the message is on its way where its
	// body is in the opening frame, otherwise before. The receiver acts on
	// nothing before Hold has returned, and gets its word, of at most 1 KiB; its
	// error ends the call. Of an answer it is called whatever becomes of the call.
	Hold func() (word []byte, err error)

	hold *hold // of a received message; nil: it came with no reserve
}

// hold is a received message's reserve.
type hold struct {
	s    *stream
	over chan struct{} // closed when the message is released, or never will be
	word []byte        // what the sender said
	err  error         // why it never will be

	forget func() bool // at the caller's side: stops what ends the call with its ctx
}

// Released waits until the sender stands by a received message, and gives the
// word that he adds, if any. Nothing may be done with the message before but
// what leaves no trace.
func (m *Message) Released(ctx context.Context) (word []byte, err error) {
	if m.hold == nil {
		return nil, nil
	}
	select {
	case <-m.hold.over:
		return m.hold.word, m.hold.err
	default:
	}
	select {
	case <-m.hold.over:
		return m.hold.word, m.hold.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Timeout, errors.Join(ErrBroken, ctx.Err()), "%s sent a message and did not release it in time", m.hold.s.c.peer.State)
	}
}

// memory is a body that is already here.
type memory struct {
	bytes.Reader
	b []byte
}

// Close does nothing.
func (*memory) Close() error { return nil }

// NewMessage makes a message whose body is in memory. The slices must not
// change until the message has been sent.
func NewMessage(envelope, body []byte) *Message {
	m := &Message{Envelope: envelope, Size: int64(len(body))}
	if len(body) > 0 {
		b := &memory{b: body}
		b.Reset(body)
		m.Body = b
	}
	return m
}

// Bytes gives the whole body if it is in memory, without reading it: always
// so for a message of NewMessage and for a received body of at most 64 KiB.
func (m *Message) Bytes() ([]byte, bool) {
	if m.Size == 0 {
		return nil, true
	}
	if b, ok := m.Body.(*memory); ok {
		return b.b, true
	}
	return nil, false
}

// check holds a message that is to be sent against the limits.
func (m *Message) check(cfg Config) *fault.Error {
	switch {
	case len(m.Envelope) > cfg.MaxEnvelope || m.Size > cfg.MaxBody:
		return fault.New(fault.TooLarge, "an envelope of %d bytes with a body of %d", len(m.Envelope), m.Size)
	case m.Size < 0 || m.Size > 0 && m.Body == nil:
		return fault.New(fault.BodyTruncated, "%d bytes declared, and no body", m.Size)
	}
	return nil
}

func (m *Message) close() {
	if m.Body != nil {
		m.Body.Close()
	}
}

// all reads the body, of at most limit bytes, into memory.
func (m *Message) all(limit int) ([]byte, error) {
	if b, ok := m.Bytes(); ok {
		return b, nil
	}
	if m.Size > int64(limit) {
		return nil, fault.New(fault.TooLarge, "%d bytes; at most %d", m.Size, limit)
	}
	b := make([]byte, m.Size)
	if _, err := io.ReadFull(m.Body, b); err != nil {
		return nil, err
	}
	return b, nil
}

// inline gives a body that is to travel beside its envelope.
func (m *Message) inline() ([]byte, error) {
	if b, ok := m.Bytes(); ok {
		if int64(len(b)) != m.Size {
			return nil, errSize
		}
		return b, nil
	}
	b := make([]byte, m.Size)
	return b, readExactly(m.Body, b, true)
}

var errSize = errors.New("the body does not have its declared size")

// readExactly fills b, and where last is set holds the reader to having no
// byte more.
func readExactly(r io.Reader, b []byte, last bool) error {
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return errSize
		}
		return fmt.Errorf("read the body: %w", err)
	}
	if !last {
		return nil
	}
	var more [1]byte
	switch n, err := io.ReadFull(r, more[:]); {
	case n > 0:
		return errSize
	case err != io.EOF:
		return fmt.Errorf("read the body: %w", err)
	}
	return nil
}
