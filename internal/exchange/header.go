package exchange

import (
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
)

// The headers of falaj itself: to its own node, never passed on as they are.
const (
	headerPurpose      = "Falaj-Purpose"
	headerSubject      = "Falaj-Subject"
	headerConversation = "Falaj-Conversation"
)

// passed takes from an HTTP header what goes on to the other side, in the
// stated order. X-Road's filter (message.Hop), what nodes write themselves
// (message.Ours), and whatever the sender's Connection header names stay
// behind (RFC 9110 §7.6.1).
func passed(h http.Header) ([]message.Header, error) {
	var named []string
	for _, v := range h["Connection"] {
		for n := range strings.SplitSeq(v, ",") {
			named = append(named, strings.ToLower(strings.TrimSpace(n)))
		}
	}
	out := make([]message.Header, 0, len(h))
	for name, values := range h {
		low := strings.ToLower(name)
		if message.Hop(low) || message.Ours(low) || contains(named, low) {
			continue
		}
		if !message.Token(low) {
			return nil, fault.New(fault.BadHeader, "a header's name is not a token (RFC 9110 §5.6.2)")
		}
		for _, v := range values {
			if !message.ValidValue(v) {
				return nil, fault.New(fault.BadHeader, "the value of %s is not UTF-8 or holds control characters", low)
			}
			out = append(out, message.Header{Name: low, Value: v})
		}
	}
	if len(out) > message.MaxHeaders {
		return nil, fault.New(fault.BadHeader, "%d header lines; at most %d", len(out), message.MaxHeaders)
	}
	message.Sort(out)
	return out, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// one reads a header that may stand at most once.
func one(h http.Header, name string) (string, error) {
	v := h[http.CanonicalHeaderKey(name)]
	switch {
	case len(v) == 0:
		return "", nil
	case len(v) > 1:
		return "", fault.New(fault.RepeatedHeader, "%s stands %d times", name, len(v))
	case !message.ValidValue(v[0]) || len(v[0]) > message.MaxTextField:
		return "", fault.New(fault.BadHeader, "the value of %s", name)
	}
	return v[0], nil
}

// requestHash is X-Road-Request-Hash: base64 of SHA-512 over the SHA-512 of
// the request's head as X-Road writes it and, if there is a body, the SHA-512
// of the body (X-Road: Message Protocol for REST; research notes §1.1).
//
// X-Road writes the head as verb, CRLF, path with query, CRLF, then name:value
// CRLF a header, x-road-request-id last. Both our nodes compute it from the
// sealed head, so its order of headers is the head's.
func requestHash(r *message.Request, body *[64]byte) string {
	var b strings.Builder
	b.WriteString(r.Method + "\r\n/r1/" + r.Service.String() + r.Path + "\r\n")
	lines := append([]message.Header{
		{Name: "x-road-client", Value: r.Client.String()},
		{Name: "x-road-id", Value: r.ID},
	}, r.Headers...)
	message.Sort(lines)
	for _, h := range lines {
		b.WriteString(h.Name + ":" + h.Value + "\r\n")
	}
	b.WriteString("x-road-request-id:" + r.RequestID + "\r\n")
	head := sha512.Sum512([]byte(b.String()))
	if body == nil {
		return base64.StdEncoding.EncodeToString(head[:])
	}
	both := sha512.Sum512(append(head[:], body[:]...))
	return base64.StdEncoding.EncodeToString(both[:])
}

// writeFault answers in X-Road's form: error JSON and X-Road-Error.
func (x *Exchange) writeFault(w http.ResponseWriter, err error) {
	e := x.told(err)
	entry := e.Entry()
	b := e.XRoad()
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Road-Error", entry.Type)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if entry.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(entry.Status)
	_, _ = w.Write(b)
}
