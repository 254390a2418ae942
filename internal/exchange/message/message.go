// Package message is what two nodes say to each other in one call: the head of
// a request and of an answer, how they are written, and how strictly they are
// read. It knows nothing of sockets, keys or stores.
//
// A head is JSON. Its writer chooses the bytes once; they are sealed, sent,
// stored and verified as they are and never written again, so that no two
// programs need agree on a canonical JSON. docs/protocols/node.md describes
// every field.
package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Type labels keep a request from being shown as an answer or as anything else.
const (
	TypeRequest = "falaj.request/1"
	TypeAnswer  = "falaj.answer/1"
	// TypeRefusal is a refusal by the caller's own node: nothing was sent.
	TypeRefusal = "falaj.refusal/1"
)

// Limits on a head. They are part of the protocol: a head beyond them is
// malformed whoever sealed it.
const (
	MaxHead      = 256 << 10
	MaxHeaders   = 200
	MaxPath      = 16 << 10
	MaxID        = 255
	MaxTextField = 1024
	MaxSealBytes = 4 << 10
	// MaxValidity is the longest time a sealed request may wait for delivery.
	MaxValidity = 31 * 24 * time.Hour
)

// ErrMalformed is wrapped by every error of this package.
var ErrMalformed = errors.New("malformed message")

// Header is one header line. Names are in lower case.
type Header struct {
	Name  string
	Value string
}

// Body names a body by size and digest; absent where there is no body. An
// empty body and no body are the same on HTTP, and here.
type Body struct {
	Size   int64  `json:"size"`
	SHA256 Digest `json:"sha256"`
}

// Digest is a SHA-256 digest, written in hexadecimal.
type Digest [32]byte

// MarshalText writes lower-case hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads 64 lower-case hexadecimal digits.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 64 || bytes.ContainsAny(b, "ABCDEF") {
		return fmt.Errorf("%w: a digest is 64 lower-case hexadecimal digits", ErrMalformed)
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// Request is the head of a request.
type Request struct {
	Type         string            `json:"type"`
	Union        string            `json:"union"`
	Directory    int64             `json:"directory"` // version of the directory that the sender judged by
	ID           string            `json:"id"`        // X-Road-Id
	RequestID    string            `json:"request_id"`
	Client       union.SubsystemID `json:"client"`
	Service      union.ServiceID   `json:"service"`
	Method       string            `json:"method"`
	Path         string            `json:"path,omitzero"` // what follows the service in the address, with the query, as the client wrote it
	Headers      []Header          `json:"headers,omitempty"`
	Purpose      string            `json:"purpose"`
	Conversation string            `json:"conversation,omitzero"`
	Subject      *Digest           `json:"subject,omitempty"` // blinded commitment, never the person
	NotBefore    int64             `json:"not_before"`        // Unix milliseconds
	NotAfter     int64             `json:"not_after"`
	Body         *Body             `json:"body,omitempty"`
}

// Answer is the head of an answer: by the service, or, with Fault set, by a node.
type Answer struct {
	Type      string            `json:"type"`
	Union     string            `json:"union"`
	Directory int64             `json:"directory"`
	ID        string            `json:"id"`
	RequestID string            `json:"request_id"`
	Client    union.SubsystemID `json:"client"`
	Service   union.ServiceID   `json:"service"`
	Request   Digest            `json:"request"`               // SHA-256 of the request's manifest; zero in a refusal by the caller's own node
	Hash      string            `json:"request_hash,omitzero"` // X-Road-Request-Hash as the provider computes it; the caller's node compares
	Status    int               `json:"status"`
	Headers   []Header          `json:"headers,omitempty"`
	Fault     string            `json:"fault,omitzero"` // code of the catalogue; the body is X-Road's error JSON
	Subject   *Digest           `json:"subject,omitempty"`
	NotBefore int64             `json:"not_before"`
	NotAfter  int64             `json:"not_after"`
	Body      *Body             `json:"body,omitempty"`
}

// MarshalJSON writes ["name","value"].
func (h Header) MarshalJSONTo(e *jsontext.Encoder) error {
	for _, t := range []jsontext.Token{jsontext.BeginArray, jsontext.String(h.Name), jsontext.String(h.Value), jsontext.EndArray} {
		if err := e.WriteToken(t); err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalJSONFrom reads exactly ["name","value"].
func (h *Header) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var got [2]string
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return errors.Join(err, fmt.Errorf("%w: a header is an array of name and value", ErrMalformed))
	}
	for i := range got {
		t, err := d.ReadToken()
		if err != nil || t.Kind() != '"' {
			return errors.Join(err, fmt.Errorf("%w: a header is an array of name and value", ErrMalformed))
		}
		got[i] = t.String()
	}
	if t, err := d.ReadToken(); err != nil || t.Kind() != ']' {
		return errors.Join(err, fmt.Errorf("%w: a header is an array of name and value", ErrMalformed))
	}
	h.Name, h.Value = got[0], got[1]
	return nil
}

// Encode writes a head once and for all, refusing what Parse would refuse.
func (r *Request) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return encode(r)
}

// Encode writes a head once and for all, refusing what Parse would refuse.
func (a *Answer) Encode() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	return encode(a)
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(b) > MaxHead {
		return nil, fmt.Errorf("%w: a head of %d bytes, at most %d", ErrMalformed, len(b), MaxHead)
	}
	return b, nil
}

// ParseRequest reads a request's head from exactly these bytes.
func ParseRequest(b []byte) (*Request, error) {
	r := new(Request)
	if err := parse(b, r); err != nil {
		return nil, err
	}
	return r, r.check()
}

// ParseAnswer reads an answer's or refusal's head from exactly these bytes.
func ParseAnswer(b []byte) (*Answer, error) {
	a := new(Answer)
	if err := parse(b, a); err != nil {
		return nil, err
	}
	return a, a.check()
}

// Kind tells a head's type label without trusting the rest.
func Kind(b []byte) string {
	var t struct {
		Type string `json:"type"`
	}
	if len(b) > MaxHead || json.Unmarshal(b, &t) != nil {
		return ""
	}
	return t.Type
}

func parse(b []byte, v any) error {
	if len(b) > MaxHead {
		return fmt.Errorf("%w: a head of %d bytes, at most %d", ErrMalformed, len(b), MaxHead)
	}
	// Duplicate keys, invalid UTF-8 and other capitals are refused by default.
	if err := json.Unmarshal(b, v, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

func (r *Request) check() error {
	switch {
	case r.Type != TypeRequest:
		return bad("type %q is not a request's", r.Type)
	case r.Service.Service == "":
		return bad("no service")
	case !Token(r.Method) || len(r.Method) > 16:
		return bad("method %q", clip(r.Method))
	case len(r.Path) > MaxPath:
		return bad("a path of %d bytes, at most %d", len(r.Path), MaxPath)
	case r.Path != "" && r.Path[0] != '/' && r.Path[0] != '?':
		return bad("path %q begins with neither / nor ?", clip(r.Path))
	case !visible(r.Path):
		return bad("a path with spaces, control or non-ASCII characters")
	case r.Purpose == "":
		return bad("no purpose")
	}
	if err := texts(r.Purpose, r.Conversation); err != nil {
		return err
	}
	return common(r.Union, r.Directory, r.ID, r.RequestID, r.Client, r.Headers, r.NotBefore, r.NotAfter, r.Body)
}

func (a *Answer) check() error {
	switch {
	case a.Type != TypeAnswer && a.Type != TypeRefusal:
		return bad("type %q is not an answer's", a.Type)
	case a.Service.Service == "":
		return bad("no service")
	case a.Status < 200 || a.Status > 599:
		return bad("status %d", a.Status)
	case a.Type == TypeRefusal && a.Fault == "":
		return bad("a refusal without its reason")
	case a.Fault != "" && a.Status < 400:
		return bad("a fault with status %d", a.Status)
	case a.Body != nil && (a.Status == 204 || a.Status == 304):
		return bad("a body with status %d", a.Status)
	}
	if err := texts(a.Fault, a.Hash); err != nil {
		return err
	}
	return common(a.Union, a.Directory, a.ID, a.RequestID, a.Client, a.Headers, a.NotBefore, a.NotAfter, a.Body)
}

func common(name string, version int64, id, requestID string, client union.SubsystemID, hs []Header, from, to int64, body *Body) error {
	switch {
	case name == "" || len(name) > MaxID:
		return bad("no union, or too long a name")
	case version < 1:
		return bad("directory version %d", version)
	case !ValidID(id):
		return bad("id %q", clip(id))
	case !ValidID(requestID):
		return bad("request id %q", clip(requestID))
	case client.IsZero():
		return bad("no client")
	case from < 0 || to <= from || to-from > MaxValidity.Milliseconds():
		return bad("validity from %d to %d", from, to)
	case body != nil && body.Size < 1:
		return bad("a body of %d bytes", body.Size)
	case len(hs) > MaxHeaders:
		return bad("%d headers, at most %d", len(hs), MaxHeaders)
	}
	for i, h := range hs {
		switch {
		case !Token(h.Name) || h.Name != strings.ToLower(h.Name) || Hop(h.Name) || Ours(h.Name):
			return bad("header name %q", clip(h.Name))
		case !ValidValue(h.Value):
			return bad("value of header %q", clip(h.Name))
		case i > 0 && h.Name < hs[i-1].Name:
			return bad("header %q is out of order", clip(h.Name))
		}
	}
	return nil
}

func texts(ss ...string) error {
	for _, s := range ss {
		if len(s) > MaxTextField || !ValidValue(s) {
			return bad("text field %q", clip(s))
		}
	}
	return nil
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

func clip(s string) string {
	if len(s) > 48 {
		return strings.ToValidUTF8(s[:48], "") + "…"
	}
	return s
}

// ValidID tells whether s may be an X-Road-Id: 1 to 255 visible ASCII
// characters, neither "." nor "..". It stands in addresses, of which those two
// would name another, and in logs, so nothing else is let in.
func ValidID(s string) bool { return s != "" && s != "." && s != ".." && len(s) <= MaxID && visible(s) }

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// ValidValue tells whether s may be a header's value (RFC 9110 §5.5): no
// control characters but tab, and valid UTF-8, as JSON needs.
func ValidValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return strings.ToValidUTF8(s, "") == s
}

// Token tells whether s is a token (RFC 9110 §5.6.2).
func Token(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return true
}

// hop lists what X-Road's node does not pass on.
var hop = []string{"connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"}

// Hop tells whether a header (in lower case) stays between client and node.
func Hop(name string) bool { _, ok := slices.BinarySearch(hop, name); return ok }

// ours lists the headers that nodes write themselves from fields of the head:
// what a client or service sent under these names is never passed on as a header.
var ours = []string{"x-road-client", "x-road-error", "x-road-id", "x-road-request-hash", "x-road-request-id", "x-road-service"}

// Ours tells whether a header (in lower case) is written by nodes alone, or
// could be taken for one that is.
func Ours(name string) bool {
	name = Shape(name)
	_, ok := slices.BinarySearch(ours, name)
	return ok || strings.HasPrefix(name, "falaj-")
}

// Shape is what a backend may take a header's name for: gateways to CGI and
// its kin (RFC 3875 §4.1.18) read whatever is neither letter nor digit as one
// and the same sign.
func Shape(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, strings.ToLower(name))
}

// Sort puts headers in the stated order: by name; of one name, as they came.
func Sort(hs []Header) {
	slices.SortStableFunc(hs, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
}

// Content is a digest of what a client asks for, apart from when: two requests
// with the same id and the same content are one request sent twice.
func (r *Request) Content() [32]byte {
	h := sha256.New()
	h.Write([]byte("falaj content v1\n"))
	put := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	put(r.Client.String())
	put(r.Service.String())
	put(r.Method)
	put(r.Path)
	put(r.Purpose)
	put(r.Conversation)
	for _, x := range r.Headers {
		put(x.Name)
		put(x.Value)
	}
	if r.Body != nil {
		h.Write(r.Body.SHA256[:])
	}
	return [32]byte(h.Sum(nil))
}

// Envelope joins a head and its seal as they travel and are stored:
// u32 length of the head, head, seal.
func Envelope(head, seal []byte) []byte {
	b := make([]byte, 4, 4+len(head)+len(seal))
	binary.BigEndian.PutUint32(b, uint32(len(head)))
	b = append(b, head...)
	return append(b, seal...)
}

// Open parts an envelope; the parts share its memory.
func Open(b []byte) (head, seal []byte, err error) {
	if len(b) < 4 {
		return nil, nil, bad("an envelope of %d bytes", len(b))
	}
	n := int64(binary.BigEndian.Uint32(b))
	rest := b[4:]
	if n > MaxHead || n > int64(len(rest)) {
		return nil, nil, bad("a head of %d bytes in an envelope of %d", n, len(b))
	}
	head, seal = rest[:n:n], rest[n:]
	if len(seal) == 0 || len(seal) > MaxSealBytes {
		return nil, nil, bad("a seal of %d bytes", len(seal))
	}
	return head, seal, nil
}
