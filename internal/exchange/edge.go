package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Edge is the door for the state's own systems: X-Road's message protocol for
// REST under /r1, its metaservices, and what falaj adds. Addresses are taken
// as they were written: no router cleans them first.
func (x *Exchange) Edge() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.EscapedPath()
		switch {
		case strings.HasPrefix(path, "/r1/"):
			x.serveR1(w, r)
		case path == "/listClients":
			x.listClients(w, r)
		case strings.HasPrefix(path, "/async/"):
			x.serveAsync(w, r)
		case strings.HasPrefix(path, "/evidence/"):
			x.serveEvidence(w, r)
		default:
			if h, ok := x.mounted(path); ok {
				h.ServeHTTP(w, r)
				return
			}
			x.problem(w, fault.New(fault.NotFound, "this door knows /r1/, /async/, /listClients and /evidence/"))
		}
	})
}

func (x *Exchange) serveR1(w http.ResponseWriter, r *http.Request) {
	leave := func() {}
	defer func() { leave() }() // only when the answer has been taken
	reply, err := x.fromHTTP(w, r, &leave)
	if err != nil {
		x.writeFault(w, err)
		return
	}
	if wait, _ := wantsReceipt(r.Header); wait {
		w.Header().Set(headerReceipt, x.await(r.Context(), reply.Client, reply.ID))
	}
	x.writeReply(w, r, reply)
}

// fromHTTP reads, authenticates and asks.
func (x *Exchange) fromHTTP(w http.ResponseWriter, r *http.Request, leave *func()) (*Reply, error) {
	a := Ask{In: x.deps.Now()}
	if err := x.read(r, &a, leave); err != nil {
		return nil, x.turnAway(r.Context(), a, err)
	}
	size := r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		size = 0
	}
	a.Receive = func(class string) (*body, error) {
		b, err := x.take(r.Body, size, class, true)
		// It has arrived: net/http would take the end of the time that it had for
		// that for a client who hung up, and end the call.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		return b, err
	}
	return x.Ask(r.Context(), a)
}

// read fills in what is asked, but for the body.
func (x *Exchange) read(r *http.Request, a *Ask, leave *func()) (err error) {
	if a.Client, a.Door, *leave, err = x.admit(r); err != nil {
		return err
	}
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") { // absolute form (RFC 9112 §3.2.2)
		target = r.URL.RequestURI()
	}
	if len(target) > message.MaxPath {
		return fault.New(fault.BadPath, "an address of %d bytes; at most %d", len(target), message.MaxPath)
	}
	if a.Service, a.Path, err = address(target); err != nil {
		return err
	}
	switch r.Method {
	case "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE":
		a.Method = r.Method
	default:
		return fault.New(fault.MethodNotAllowed, "X-Road carries DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE")
	}
	headers := r.Header
	if async, rest := respondAsync(r.Header["Prefer"]); async {
		// What this node does is not asked of the service again.
		a.Async, headers = true, maps.Clone(headers)
		headers["Prefer"] = rest
	}
	if a.Headers, err = passed(headers); err != nil {
		return err
	}
	var bad error // for the record all are read: by the purpose it may be withheld from the subject
	for header, value := range map[string]*string{
		"X-Road-Id": &a.ID, headerPurpose: &a.Purpose, headerSubject: &a.Subject, headerConversation: &a.Conversation,
	} {
		if *value, err = one(r.Header, header); err != nil {
			bad = err
		}
	}
	if bad != nil {
		return bad
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "Falaj-") && len(values) > 1 {
			return fault.New(fault.RepeatedHeader, "%s stands %d times", name, len(values))
		}
	}
	if _, err := wantsReceipt(r.Header); err != nil {
		return err
	}
	if _, sent := r.Header["X-Road-Id"]; sent && !message.ValidID(a.ID) {
		return fault.New(fault.BadHeader, "X-Road-Id holds 1 to %d visible ASCII characters, and is neither . nor ..", message.MaxID)
	}
	return nil
}

// admit lets an authenticated client in, within its share of what this node
// can take. leave gives the place back; it is never nil.
func (x *Exchange) admit(r *http.Request) (id union.SubsystemID, door string, leave func(), err error) {
	if id, door, err = x.client(r); err == nil {
		leave, err = x.shares.enter(id, x.cfg.Share)
	}
	if err != nil {
		return id, door, func() {}, err
	}
	return id, door, leave, nil
}

// client authenticates the calling system: X-Road-Client says who it is, the
// connection has to fit what is registered. Of several X-Road-Client headers
// the last one counts, as in X-Road.
func (x *Exchange) client(r *http.Request) (union.SubsystemID, string, error) {
	said := r.Header["X-Road-Client"]
	if len(said) == 0 {
		return union.SubsystemID{}, "", fault.New(fault.MissingClient, "send X-Road-Client: state/class/member/subsystem")
	}
	id, err := union.ParseClient(said[len(said)-1])
	if err != nil {
		return union.SubsystemID{}, "", fault.Wrap(fault.BadIdentifier, err, "X-Road-Client: %v", err)
	}
	if x.isInside(id) {
		return union.SubsystemID{}, "", fault.New(fault.ClientNotAuthentic, "%s is a part of this node, and calls through no door", id)
	}
	c, ok := x.local.Client(id)
	if !ok {
		return union.SubsystemID{}, "", fault.New(fault.UnknownClient, "%s is not registered at this node", id)
	}
	door := ModeHTTP
	if r.TLS != nil {
		door = ModeHTTPS
		if len(r.TLS.PeerCertificates) > 0 {
			cert, now := r.TLS.PeerCertificates[0], x.deps.Now()
			sum := sha256.Sum256(cert.Raw)
			if slices.Contains(c.Certificates, hex.EncodeToString(sum[:])) {
				if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
					return union.SubsystemID{}, "", fault.New(fault.ClientNotAuthentic, "the certificate of %s is good from %s to %s", id,
						cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
				}
				door = ModeMutual
			}
		}
	}
	// A client may come through a stricter door than it must, never a laxer one.
	if rank(door) < rank(c.Mode) {
		return union.SubsystemID{}, "", fault.New(fault.ClientNotAuthentic, "%s is registered to connect by %s", id, c.Mode)
	}
	return id, string(door), nil
}

func rank(m Mode) int {
	switch m {
	case ModeMutual:
		return 2
	case ModeHTTPS:
		return 1
	}
	return 0
}

// writeReply gives the client its answer. Nodes' own headers overwrite the
// service's.
func (x *Exchange) writeReply(w http.ResponseWriter, r *http.Request, reply *Reply) {
	if !reply.Keep {
		defer x.discard(reply.Body)
	}
	body, err := x.open(reply.Body)
	if err != nil {
		x.writeFault(w, err)
		return
	}
	h := w.Header()
	for _, p := range reply.Headers {
		name := http.CanonicalHeaderKey(p.Name)
		h[name] = append(h[name], p.Value)
	}
	label(h, reply)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // none was sent: net/http must not guess one
	}
	if _, ok := h["Date"]; !ok {
		h["Date"] = nil
	}
	if bodyAllowed(r.Method, reply.Status) {
		h["Content-Length"] = []string{strconv.FormatInt(reply.Body.size, 10)}
	}
	w.WriteHeader(reply.Status)
	if body == nil {
		return
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil && !gone(err) {
		x.deps.Log.Warn("an answer broke off on its way to the client", "request", reply.RequestID, "error", err)
		panic(http.ErrAbortHandler) // the client must not take the part for the whole
	}
}

// label writes the headers of X-Road's protocol that name call and answer.
func label(h http.Header, reply *Reply) {
	h["X-Road-Client"] = []string{reply.Client.String()}
	h["X-Road-Service"] = []string{reply.Service.String()}
	h["X-Road-Id"] = []string{reply.ID}
	h[headerEvidence] = []string{reply.ID}
	h["X-Road-Request-Id"] = []string{reply.RequestID}
	if reply.Hash != "" { // only the serving node's word counts
		h["X-Road-Request-Hash"] = []string{reply.Hash}
	}
	if reply.Fault != "" {
		h["X-Road-Error"] = []string{fault.Lookup(reply.Fault).Type}
	}
}

func bodyAllowed(method string, status int) bool {
	return method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified
}

// gone tells whether the client hung up: no fault of ours.
func gone(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, context.Canceled)
}

// told is the fault that somebody is told of. One of the node's own stands in
// the log too, under the support number that he is given.
func (x *Exchange) told(err error) *fault.Error {
	f := fault.From(err)
	if f.Code == fault.Internal {
		x.deps.Log.Error("an error of the node's own", "support", f.ID, "error", f)
	}
	return f
}

// problem answers outside X-Road's protocol: RFC 9457.
func (x *Exchange) problem(w http.ResponseWriter, err error) {
	f := x.told(err)
	b := f.Problem()
	if f.Entry().Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", fault.ProblemType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(f.Entry().Status)
	_, _ = w.Write(b)
}
