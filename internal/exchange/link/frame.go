package link

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/falaj/falaj/internal/fault"
	"github.com/google/uuid"
)

// The frame types. Numbers cross the wire and are never reused.
const (
	typeHello   = 1
	typeRequest = 2
	typeAnswer  = 3
	typeBody    = 4
	typeWindow  = 5
	typeReset   = 6
	typeQuery   = 7
	typeReply   = 8
	typePing    = 9
	typePong    = 10
	typeGoaway  = 11
	typeRelease = 12
)

const (
	flagNotBegun = 1 // on RESET: the call surely had no effect
	flagHeld     = 2 // on REQUEST and ANSWER: not said before RELEASE
)

const (
	lowestVersion  = 1
	highestVersion = 1

	headerSize  = 14
	maxEnvelope = 1 << 20
	maxInline   = 64 << 10 // a body up to here travels in the opening frame
	maxChunk    = 64 << 10 // bytes of a BODY frame
	freeOpening = 16 << 10 // an opening frame up to here is not counted as held
	firstCredit = 64 << 10 // credit of each body before any WINDOW
	maxNotice   = 2 << 10  // RESET and GOAWAY
	maxHello    = 1 << 10
	maxUnknown  = 64 << 10 // frames of a type this version lacks
	maxDetail   = 1 << 10
	maxWord     = 1 << 10 // RELEASE
	maxKind     = 64
	maxSoftware = 64
	maxCode     = 64

	requestHead = 16
	answerHead  = 12
)

const magic = "falaj"

// header opens each frame: payload length, type, flags, stream; big-endian.
type header struct {
	length uint32
	typ    byte
	flags  byte
	stream uint64
}

func appendHeader(b []byte, h header) []byte {
	b = binary.BigEndian.AppendUint32(b, h.length)
	b = append(b, h.typ, h.flags)
	return binary.BigEndian.AppendUint64(b, h.stream)
}

func parseHeader(b []byte) header {
	return header{
		length: binary.BigEndian.Uint32(b),
		typ:    b[4],
		flags:  b[5],
		stream: binary.BigEndian.Uint64(b[6:]),
	}
}

// violation is a break of the protocol. It ends the connection; the peer is
// told why.
type violation string

func (v violation) Error() string { return "protocol violation: " + string(v) }

func violate(format string, args ...any) error { return violation(fmt.Sprintf(format, args...)) }

// check holds a header against what any frame of its type may be.
func (h header) check() error {
	var least, most uint32
	opens := true // a frame about a stream
	switch h.typ {
	case typeHello:
		least, most, opens = 0, maxHello, false
	case typeRequest, typeQuery:
		least, most = requestHead, requestHead+maxEnvelope+maxInline
	case typeAnswer, typeReply:
		least, most = answerHead, answerHead+maxEnvelope+maxInline
	case typeBody:
		least, most = 1, maxChunk
	case typeWindow:
		least, most = 4, 4
	case typeReset:
		least, most = 2, maxNotice
	case typeRelease:
		least, most = 0, maxWord
	case typePing, typePong:
		least, most, opens = 8, 8, false
	case typeGoaway:
		least, most, opens = 10, maxNotice, false
	default:
		if h.length > maxUnknown {
			return violate("%d bytes in a frame of unknown type %d", h.length, h.typ)
		}
		return nil
	}
	switch {
	case h.length < least || h.length > most:
		return violate("%d bytes in a frame of type %d", h.length, h.typ)
	case opens != (h.stream != 0):
		return violate("stream %d in a frame of type %d", h.stream, h.typ)
	case h.flags != 0 && (h.typ != typeReset || h.flags != flagNotBegun) &&
		(h.typ != typeRequest && h.typ != typeAnswer || h.flags != flagHeld):
		return violate("flags %#x in a frame of type %d", h.flags, h.typ)
	}
	return nil
}

// opening is the payload of REQUEST, QUERY, ANSWER and REPLY.
type opening struct {
	held     bool   // the frame's flag
	deadline uint32 // milliseconds; 0: none. REQUEST and QUERY only
	size     uint64 // of the body
	head     []byte // envelope, or a query's kind
	inline   []byte // the body, if its size is at most maxInline
}

// appendOpening writes a whole frame; body is its inline body.
func appendOpening(b []byte, typ byte, stream uint64, o opening) []byte {
	n := answerHead
	if typ == typeRequest || typ == typeQuery {
		n = requestHead
	}
	h := header{length: uint32(n + len(o.head) + len(o.inline)), typ: typ, stream: stream}
	if o.held {
		h.flags = flagHeld
	}
	b = appendHeader(b, h)
	if n == requestHead {
		b = binary.BigEndian.AppendUint32(b, o.deadline)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(o.head)))
	b = binary.BigEndian.AppendUint64(b, o.size)
	b = append(b, o.head...)
	return append(b, o.inline...)
}

// parseOpening reads a payload that header.check let pass. Its slices are p's.
func parseOpening(typ, flags byte, p []byte) (o opening, err error) {
	o.held = flags == flagHeld
	if typ == typeRequest || typ == typeQuery {
		o.deadline = binary.BigEndian.Uint32(p)
		p = p[4:]
	}
	head := binary.BigEndian.Uint32(p)
	o.size = binary.BigEndian.Uint64(p[4:])
	p = p[answerHead:]
	inline := o.size
	if o.size > maxInline {
		inline = 0
	}
	if head > maxEnvelope || uint64(len(p)) != uint64(head)+inline {
		return opening{}, violate("a frame of type %d with %d bytes for a head of %d and a body of %d", typ, len(p), head, o.size)
	}
	o.head, o.inline = p[:head:head], p[head:]
	if typ == typeQuery && !validKind(string(o.head)) {
		return opening{}, violate("a malformed query kind")
	}
	if typ == typeReply && head != 0 {
		return opening{}, violate("a REPLY with a head")
	}
	return o, nil
}

func validKind(k string) bool {
	return validName(k, maxKind)
}

// validName holds codes and kinds to lower-case letters, digits, . - _ /.
func validName(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(".-_/", c) < 0 {
			return false
		}
	}
	return true
}

// hello is the first frame of each side. Its layout, the header's, and the
// meaning of type 1 are the same in every version to come.
type hello struct {
	min, max uint16
	software string
}

func appendHello(b []byte, h hello) []byte {
	software := h.software[:min(len(h.software), maxSoftware)]
	b = appendHeader(b, header{length: uint32(len(magic) + 5 + len(software)), typ: typeHello})
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, h.min)
	b = binary.BigEndian.AppendUint16(b, h.max)
	b = append(b, byte(len(software)))
	return append(b, software...)
}

// parseHello ignores what follows the software's name: later versions may add.
func parseHello(p []byte) (hello, error) {
	n := len(magic)
	if len(p) < n+5 || string(p[:n]) != magic {
		return hello{}, violate("HELLO without its magic")
	}
	h := hello{min: binary.BigEndian.Uint16(p[n:]), max: binary.BigEndian.Uint16(p[n+2:])}
	length := int(p[n+4])
	p = p[n+5:]
	if length > len(p) || length > maxSoftware || h.min == 0 || h.min > h.max {
		return hello{}, violate("malformed HELLO")
	}
	h.software = printable(p[:length], maxSoftware)
	return h, nil
}

// agree gives the highest version that both speak.
func agree(a, b hello) (uint16, bool) {
	v := min(a.max, b.max)
	return v, v >= a.min && v >= b.min
}

// appendNotice writes the payload that RESET and GOAWAY share: code, support
// id, detail. The cause of a fault never leaves the node.
func appendNotice(b []byte, e *fault.Error) []byte {
	code, id := string(e.Code), e.ID
	if !validName(code, maxCode) {
		code = string(fault.Internal)
	}
	if len(id) > maxCode {
		id = ""
	}
	b = append(append(b, byte(len(code))), code...)
	b = append(append(b, byte(len(id))), id...)
	return append(b, printable([]byte(e.Detail), maxDetail)...)
}

// parseNotice reads a peer's fault. A code outside the alphabet becomes
// Internal, an id that is no UUID is dropped: both reach logs.
func parseNotice(p []byte) (*fault.Error, error) {
	take := func() (string, bool) {
		if len(p) < 1 || len(p) < 1+int(p[0]) {
			return "", false
		}
		s := string(p[1 : 1+p[0]])
		p = p[1+len(s):]
		return s, true
	}
	code, ok := take()
	id, ok2 := take()
	if !ok || !ok2 {
		return nil, violate("a malformed notice")
	}
	if !validName(code, maxCode) {
		code = string(fault.Internal)
	}
	if uuid.Validate(id) != nil {
		id = ""
	}
	return &fault.Error{Code: fault.Code(code), ID: id, Detail: printable(p, maxDetail)}, nil
}

func appendReset(b []byte, stream uint64, e *fault.Error, flags byte) []byte {
	at := len(b)
	b = appendNotice(appendHeader(b, header{typ: typeReset, flags: flags, stream: stream}), e)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-headerSize))
	return b
}

// appendGoaway tells the last stream that was begun, and why no more will be.
func appendGoaway(b []byte, last uint64, e *fault.Error) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint64(appendHeader(b, header{typ: typeGoaway}), last)
	b = appendNotice(b, e)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-headerSize))
	return b
}

func appendWindow(b []byte, stream uint64, credit uint32) []byte {
	b = appendHeader(b, header{length: 4, typ: typeWindow, stream: stream})
	return binary.BigEndian.AppendUint32(b, credit)
}

func appendPing(b []byte, typ byte, nonce uint64) []byte {
	b = appendHeader(b, header{length: 8, typ: typ})
	return binary.BigEndian.AppendUint64(b, nonce)
}

// printable makes a peer's text safe for logs and people: valid UTF-8, no
// control characters, at most so many bytes.
func printable(p []byte, most int) string {
	if len(p) > most {
		p = p[:most]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != utf8.RuneError {
			return r
		}
		return '?'
	}, string(p))
}
