package exchange

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Inside is a part of this binary that calls and serves as a system of its
// state: what it asks and answers is judged, sealed and journalled like any
// other system's, but goes over no loopback. Nobody outside can speak for it.
type Inside interface {
	// Owns tells whether it speaks for a system. It is asked for each call, and
	// gives its answer from memory.
	Owns(union.SubsystemID) bool
	// Serve answers a call to a service of a system that it owns. It may be
	// given an id again after it was stopped, or failed, in the middle of it: it
	// does for an id once what it does. It returns soon after ctx has ended. Its
	// error is a refusal, a fault.Error if the other side is to know why.
	Serve(ctx context.Context, c Call) (Answer, error)
	// Ended tells how a posted call ended, at least once; after an error again,
	// for as long as it takes. It may be of a system that it owned before.
	Ended(ctx context.Context, e End) error
}

// MaxInside bounds a body that an Inside is given or gives, in bytes.
const MaxInside = 1 << 20

// Call is a call of an Inside, or to one.
type Call struct {
	Client       union.SubsystemID
	Service      union.ServiceID
	Method       string
	Path         string // with query, as written
	Header       http.Header
	Body         []byte // at most MaxInside
	ID           string // X-Road-Id
	RequestID    string // of a call to it: made by the caller's node
	Purpose      string // "": the default that the directory has for client and service
	Conversation string
	Subject      string // of a call by it: whose data, for this node alone
}

// Answer is what came of a call.
type Answer struct {
	Status      int
	ContentType string
	Body        []byte
	Subject     string     // of an answer by it: whose data, for this node alone
	Fault       fault.Code // where a node answered, not the service: Body is X-Road's error JSON then, or empty
}

// End is how a posted call ended.
type End struct {
	Client       union.SubsystemID
	Service      union.ServiceID
	ID           string
	Conversation string
	Status       Status // answered, refused, expired or skipped
	// Answer is the service's, or the refusal. Fault is set too where a service's
	// answer can be given no longer: rules forbid it now, or it is gone.
	Answer Answer
}

// SetInside hands in what this binary serves itself, which needs the exchange
// to call. It is called before Start, or not at all.
func (x *Exchange) SetInside(i Inside) { x.inside = i }

// isInside tells whether a part of this binary speaks for a system.
func (x *Exchange) isInside(id union.SubsystemID) bool {
	return x.inside != nil && x.inside.Owns(id)
}

// postedInside tells whether a part of this binary posted a client's calls: it
// speaks for it, or did, since every other client is registered.
func (x *Exchange) postedInside(client union.SubsystemID) bool {
	_, registered := x.local.Client(client)
	return x.isInside(client) || x.inside != nil && !registered
}

// ask makes of a call by an Inside what the edge makes of a client's.
func (x *Exchange) ask(ctx context.Context, c Call, async bool) (*Reply, error) {
	if !x.isInside(c.Client) {
		return nil, fault.New(fault.ClientNotAuthentic, "%s is no system of this binary", c.Client)
	}
	service, path, err := address("/r1/" + c.Service.String() + c.Path)
	switch {
	case err != nil:
		return nil, err
	case service != c.Service || len(path) > message.MaxPath:
		return nil, fault.New(fault.BadPath, "a path begins with / and has at most %d bytes", message.MaxPath)
	case c.ID != "" && !message.ValidID(c.ID):
		return nil, fault.New(fault.BadHeader, "an id has 1 to %d visible ASCII characters, and is neither . nor ..", message.MaxID)
	case len(c.Body) > MaxInside:
		return nil, fault.New(fault.TooLarge, "a body of %d bytes; at most %d", len(c.Body), MaxInside)
	}
	headers, err := passed(c.Header)
	if err != nil {
		return nil, err
	}
	return x.Ask(ctx, Ask{
		Client: c.Client, Door: "inside", Service: service, Method: c.Method, Path: path, Headers: headers, ID: c.ID,
		Purpose: c.Purpose, Conversation: c.Conversation, Subject: c.Subject, In: x.deps.Now(), Async: async,
		Receive: func(class string) (*body, error) {
			return x.take(bytes.NewReader(c.Body), int64(len(c.Body)), class, true)
		},
	})
}

// Post accepts a call of an Inside into the outbox and returns when it is
// durable: from then on it ends in exactly one way, of which Ended is told. The
// same call under the same id is accepted once, unless it has ended without an
// answer: then it is tried anew. An error says that it was not accepted now;
// its code, whether the same call can be accepted later.
func (x *Exchange) Post(ctx context.Context, c Call) error {
	if c.ID == "" {
		return fault.New(fault.BadHeader, "a posted call has an id")
	}
	reply, err := x.ask(ctx, c, true)
	if err == nil && !reply.Keep {
		x.discard(reply.Body)
	}
	return err
}

// Fetch asks a service as an Inside and waits for the answer. An error is this
// node's; another's refusal is an Answer with its code.
func (x *Exchange) Fetch(ctx context.Context, c Call) (Answer, error) {
	reply, err := x.ask(ctx, c, false)
	if err != nil {
		return Answer{}, err
	}
	if !reply.Keep {
		defer x.discard(reply.Body)
	}
	return x.whole(reply)
}

// whole reads a reply to its end.
func (x *Exchange) whole(r *Reply) (Answer, error) {
	a := Answer{Status: r.Status, Fault: r.Fault}
	for _, h := range r.Headers {
		if h.Name == "content-type" {
			a.ContentType = h.Value
		}
	}
	var err error
	a.Body, err = x.bytes(r.Body)
	return a, err
}

// bytes reads a body that fits into memory.
func (x *Exchange) bytes(b *body) ([]byte, error) {
	if b != nil && b.size > MaxInside {
		return nil, fault.New(fault.TooLarge, "a body of %d bytes; at most %d", b.size, MaxInside)
	}
	r, err := x.open(b)
	if r == nil || err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	return out, storeFault(err, "reading a body")
}

// callInside has an Inside answer. An id that it is given again does no harm.
func (x *Exchange) callInside(ctx context.Context, c *serving) (*result, effect, error) {
	r := c.request
	in, err := x.bytes(c.body)
	if err != nil {
		return nil, effectNone, err
	}
	h := http.Header{}
	for _, p := range r.Headers {
		name := http.CanonicalHeaderKey(p.Name)
		h[name] = append(h[name], p.Value)
	}
	a, err := x.inside.Serve(ctx, Call{
		Client: r.Client, Service: r.Service, Method: r.Method, Path: r.Path, Header: h, Body: in,
		ID: r.ID, RequestID: r.RequestID, Purpose: r.Purpose, Conversation: r.Conversation,
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, effectNone, backendFault(ctx, ctx.Err())
	case err != nil:
		return nil, effectNone, fault.From(err)
	case a.Status < 200 || a.Status > 599 || len(a.Body) > MaxInside || !message.ValidValue(a.ContentType):
		return nil, effectNone, fault.New(fault.BackendFailed, "the service's answer has status %d and %d bytes", a.Status, len(a.Body))
	}
	out := &result{status: a.Status, subject: x.person(a.Subject)}
	if a.ContentType != "" {
		out.headers = []message.Header{{Name: "content-type", Value: a.ContentType}}
	}
	if out.body, err = x.take(bytes.NewReader(a.Body), int64(len(a.Body)), class(c.offer), false); err != nil {
		return nil, effectNone, err
	}
	return out, effectDone, nil
}

// tellInside tells an Inside how its call ended. One whose retention has ended
// has no name left by which it could be told of.
func (x *Exchange) tellInside(ctx context.Context, d *delivery) (code fault.Code, err error) {
	e := End{Client: d.client, Service: d.service, Status: d.final()}
	reply, err := x.outcomeOf(ctx, d)
	if err == nil {
		e.Answer, err = x.whole(reply)
	}
	if code = fault.CodeOf(err); err != nil && verdict("tell", code, err) != deliveryOpen {
		e.Answer.Fault, err = code, nil // and that will not change
	}
	if err == nil {
		err = x.tell(ctx, d) // what the outcome did not
	}
	if err != nil || d.message == "" {
		return fault.CodeOf(err), err
	}
	e.ID, e.Conversation = d.message, d.talk
	defer func() {
		if r := recover(); r != nil {
			x.panicked(d.service, r)
			err = fmt.Errorf("the part of the binary that was told panicked")
			code = fault.Internal
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, x.cfg.CallTime)
	defer cancel()
	if err = x.inside.Ended(ctx, e); err != nil {
		return fault.CodeOf(err), err
	}
	return "", nil
}

// Mount gives a door of its own to all paths of the edge that begin with
// /name/. Its handler lets callers in by Admit and answers faults by Problem.
// It is called before Edge.
func (x *Exchange) Mount(name string, h http.Handler) {
	if x.mounts == nil {
		x.mounts = map[string]http.Handler{}
	}
	x.mounts[name] = h
}

// mounted finds the door of a path.
func (x *Exchange) mounted(path string) (http.Handler, bool) {
	name, _, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	h, has := x.mounts[name]
	return h, ok && has
}

// Admit authenticates the caller of a mounted door as /r1 does: a registered
// system of this state, within its share of what this node can take. door says
// how it proved itself. leave gives its place back; it is never nil.
func (x *Exchange) Admit(r *http.Request) (id union.SubsystemID, door string, leave func(), err error) {
	return x.admit(r)
}

// Problem answers a fault outside X-Road's protocol, by RFC 9457.
func (x *Exchange) Problem(w http.ResponseWriter, err error) { x.problem(w, err) }
