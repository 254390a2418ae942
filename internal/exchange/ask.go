package exchange

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Ask is a request of a client system that the edge has authenticated.
type Ask struct {
	Client       union.SubsystemID
	Door         string // how the client proved itself: http, https, mutual
	Service      union.ServiceID
	Method       string
	Path         string // with query, as written
	Headers      []message.Header
	ID           string // X-Road-Id; empty: the node makes one, and nobody can repeat it
	Purpose      string
	Conversation string
	Subject      string // whose data: in the client's own terms, for this node alone
	// Receive takes the body, kept under a retention class; nil: there is none.
	// It is called once it is known that it may be sent.
	Receive func(class string) (*body, error)
	In      time.Time
	Async   bool // the client would rather fetch the answer later than wait for it
}

// asking is a call at the caller's node. Each stage adds to it; none changes
// what another wrote.
type asking struct {
	Ask

	named bool // the client chose the id: it may repeat it

	// resolve
	view   *directory.View
	offer  directory.Service
	target link.Target
	limit  time.Duration // for the call, the way of its bodies aside
	later  bool          // accepted now, delivered by the outbox

	// aim
	purpose string

	// decide
	decision policy.Decision

	// receive
	Body *body

	// compose
	subject  *subject
	request  *message.Request
	deadline time.Time

	// once
	before  claim // what an earlier try of this id left
	again   bool
	earlier *Reply // what an earlier try got, or that the outbox has the call: the stages end here

	// sealRequest
	sealed sealed

	// record
	asked   journal.Entry
	promise *message.Promise // that this record is in the log
	unclear bool             // whether it is recorded, only the database knows

	// send
	reply *link.Message
	stop  context.CancelFunc // ends the wait for the answer, its body included
	out   time.Time

	// verify
	answer   *message.Answer
	envelope []byte
	theirs   *message.Promise // nil: none came
	body     *body
	back     time.Time

	// of a call that the outbox delivers
	delivery *delivery
	raw      []byte                                                    // the request's seal in its wire form
	ending   func(ctx context.Context, tx *store.Tx, leaf int64) error // what a refusal ends
}

// stage is one step of a call. The error that ends a call is a fault.
type stage[T any] struct {
	name string
	do   func(context.Context, T) error
}

// callerStages is the way of a call at the caller's node.
func (x *Exchange) callerStages() []stage[*asking] {
	return []stage[*asking]{
		{"resolve", x.resolve},
		{"aim", x.aim},
		{"decide", x.decideAsking},
		{"receive", x.receiveAsked},
		{"compose", x.compose},
		{"once", x.once},
		{"seal", x.sealRequest},
		{"outbox", x.leaveToOutbox},
		{"send", x.send},
		{"verify", x.verifyAnswer},
		{"keep", x.keepAnswer},
	}
}

// Reply is what the client gets.
type Reply struct {
	ID        string
	RequestID string
	Hash      string // X-Road-Request-Hash
	Client    union.SubsystemID
	Service   union.ServiceID
	Status    int
	Headers   []message.Header
	Fault     fault.Code // set where a node answered, not the service
	Body      *body
	Keep      bool // the body stays in the spool

	// of an answer from the record
	subject    *subject
	commitment *message.Digest
}

// Ask carries a request to its service and brings the answer. An error is a
// fault of this node's making, already sealed and journalled where the rules
// ask for it; the answer of the other node, also a refusal, is a Reply.
func (x *Exchange) Ask(ctx context.Context, in Ask) (*Reply, error) {
	c := &asking{Ask: in, named: in.ID != ""}
	if !c.named {
		c.ID = uuid.NewString()
	}
	defer func() {
		if c.stop != nil {
			c.stop()
		}
		// A large body that no record names is wanted by nobody.
		if c.asked == (journal.Entry{}) && !c.unclear || c.offer.DigestOnly && !c.later {
			x.discard(c.Body)
		}
	}()
	for _, s := range x.callerStages() {
		if err := s.do(ctx, c); err != nil {
			return nil, x.refuse(ctx, c, err)
		}
		if s.name == "receive" && c.named {
			leave, err := x.flights.enter(ctx, "ask "+c.Client.String()+" "+c.ID)
			if err != nil {
				x.observeAsking(c, fault.CodeOf(err)) // nobody waits for an answer any more
				return nil, err
			}
			defer leave()
		}
		if c.earlier != nil {
			if !c.later {
				x.observeAsking(c, "")
			}
			return c.earlier, nil
		}
	}
	x.observeAsking(c, "")
	return c.replied(), nil
}

func (c *asking) replied() *Reply {
	return &Reply{
		ID: c.ID, RequestID: c.request.RequestID, Hash: c.answer.Hash, Client: c.Client, Service: c.Service,
		Status: c.answer.Status, Headers: c.answer.Headers, Fault: fault.Code(c.answer.Fault), Body: c.body, Keep: !c.offer.DigestOnly,
	}
}

// resolve finds service, state and time-out in the directory.
func (x *Exchange) resolve(_ context.Context, c *asking) error {
	v, err := x.deps.Directory()
	c.view = v // also of one too old to go by: the refusal names its version
	if err != nil {
		return err
	}
	st, ok := v.State(c.Service.State)
	if !ok {
		return fault.New(fault.UnknownState, "%s", c.Service.State)
	}
	if err := x.inForce(v, c.Client.State, c.Service.State); err != nil {
		return err
	}
	if !reserved(c.Service.Service) {
		if c.offer, ok = v.Service(c.Service); !ok {
			return fault.New(fault.UnknownService, "%s", c.Service)
		}
	} else if _, ok := v.Subsystem(c.Service.SubsystemID); !ok {
		return fault.New(fault.UnknownService, "%s", c.Service.SubsystemID)
	}
	if _, ok := v.Subsystem(c.Client); !ok && c.Client.Subsystem != "" {
		return fault.New(fault.UnknownClient, "%s", c.Client)
	}
	c.target = link.Target{State: c.Service.State, Addrs: addresses(st)}
	c.limit = x.cfg.CallTime
	if t := c.offer.Timeout(); t > 0 {
		c.limit = min(c.limit, t+callMargin)
	}
	c.later = c.Async || c.offer.Async
	return nil
}

// callMargin is what a call may take beyond its service's time-out: both
// nodes' records and the way between them.
const callMargin = 5 * time.Second

// deadline is when a call that goes on now gives up.
func (x *Exchange) deadline(c *asking) time.Time {
	var size int64
	if c.Body != nil {
		size = c.Body.size
	}
	return x.deps.Now().Add(c.limit + transit(size))
}

// transit is how long a body may be on its way between nodes: a service's
// time-out is about the service, not about the size of what is carried.
func transit(size int64) time.Duration {
	const slowest = 1 << 20 // bytes a second
	return time.Duration(size/slowest) * time.Second
}

// aim finds what the call is for.
func (x *Exchange) aim(_ context.Context, c *asking) error {
	c.purpose = c.Purpose
	if c.purpose == "" {
		c.purpose, _ = c.view.DefaultPurpose(c.Client, c.Service)
	}
	if c.purpose == "" && reserved(c.Service.Service) {
		c.purpose = purposeMeta
	}
	if c.purpose == "" {
		return fault.New(fault.MissingPurpose, "the codes are %s", purposes(c.view))
	}
	return purposeKnown(c.view, c.purpose, c.Service)
}

// purposeKnown holds a purpose against the union's list. Metaservices are
// asked for one of their own, which serves for nothing else.
func purposeKnown(v *directory.View, purpose string, service union.ServiceID) error {
	if _, ok := v.Purpose(purpose); !ok && !(purpose == purposeMeta && reserved(service.Service)) {
		return fault.New(fault.UnknownPurpose, "the codes are %s", purposes(v))
	}
	return nil
}

// purposes names the codes from which a client may choose, twenty at most.
func purposes(v *directory.View) string {
	var codes []string
	for _, p := range v.Purposes() {
		if codes = append(codes, p.Code); len(codes) == 20 {
			codes = append(codes, "…")
			break
		}
	}
	return strings.Join(codes, ", ")
}

// receiveAsked takes the body, now that it may be sent: whoever may not ask
// costs no disk.
func (x *Exchange) receiveAsked(_ context.Context, c *asking) (err error) {
	if c.Receive != nil {
		c.Body, err = c.Receive(class(c.offer))
	}
	return err
}

// compose writes down what is asked; the head is sealed later, once it is
// known that it will be sent.
func (x *Exchange) compose(_ context.Context, c *asking) error {
	c.deadline = x.deadline(c)
	until := c.deadline.Add(x.cfg.Skew)
	if c.later {
		until = c.In.Add(x.cfg.Answer)
	}
	r := &message.Request{
		Type: message.TypeRequest, Union: c.view.Union(), Directory: c.view.Proves(c.Client.State),
		ID: c.ID, RequestID: uuid.NewString(), Client: c.Client, Service: c.Service,
		Method: c.Method, Path: c.Path, Headers: c.Headers, Purpose: c.purpose, Conversation: c.Conversation,
		NotBefore: x.deps.Now().UnixMilli(), NotAfter: until.UnixMilli(), Body: c.Body.named(),
	}
	c.subject = x.person(c.Subject)
	r.Subject = c.subject.commitment()
	c.request = r
	return nil
}

// decideAsking asks the caller's state whether its system may ask this.
func (x *Exchange) decideAsking(_ context.Context, c *asking) error {
	d, err := x.decide(c.view, policy.Question{
		Role: policy.Consumer, Client: c.Client, Service: c.Service, Method: c.Method, Path: pathOnly(c.Path), Purpose: c.purpose,
	}, c.offer)
	c.decision = d
	return err
}

// once looks whether the client has sent this id before.
func (x *Exchange) once(ctx context.Context, c *asking) error {
	if !c.named {
		return nil
	}
	was, ok, err := x.claimed(ctx, sideCaller, c.request)
	if err != nil {
		return storeFault(err, "looking for an earlier request of this id")
	}
	if !ok {
		return nil
	}
	if same, err := x.sameAs(ctx, was, c.request, c.subject); err != nil {
		return err
	} else if !same {
		return fault.New(fault.IDConflict, "%s", c.ID)
	}
	if was.state == claimAnswered {
		// The answer is here, but the other state's rules still have a say:
		// as far as they are published, they are asked again too.
		if c.decision, err = x.decide(c.view, question(policy.Provider, c.request), c.offer); err != nil {
			return err
		}
		c.earlier, err = x.recorded(ctx, was.answered)
		return err
	}
	if was.process == outbox {
		c.earlier, err = x.waiting(ctx, c)
		return err
	}
	c.before, c.again = was, true
	return nil
}

// sealRequest fixes the head's bytes and seals them for the client's member.
func (x *Exchange) sealRequest(ctx context.Context, c *asking) error {
	head, err := c.request.Encode()
	if err != nil {
		return fault.Wrap(fault.BadRequest, err, "%v", err)
	}
	// A large body may have been waited for: by a directory that has expired
	// meanwhile nobody could judge the seal.
	if err := c.view.Fresh(x.deps.Now(), c.Client.State); err != nil {
		return err
	}
	cred, err := x.vouched(c.view, c.Client.MemberID)
	if err != nil {
		return err
	}
	if c.later { // it may wait for days, and what both states take may change meanwhile
		c.sealed, err = sealHead(cred, seal.Request, head, c.request.Body, x.deps.Now())
		return err
	}
	c.sealed, err = x.sealTo(ctx, c.view, c.Service.State, cred, seal.Request, head, c.request.Body)
	return err
}

// recordRequest makes the request durable. Before it is, the other node may have
// it, and may not act on it.
func (x *Exchange) recordRequest(ctx context.Context, c *asking) (err error) {
	n := note{Door: c.Door, Rules: ruleNames(c.decision), Subject: c.subject, Spool: kept(c.Body, c.offer)}
	if c.later {
		if err := x.aside(c.Body, c.offer); err != nil {
			return err
		}
		if w := c.Body.wide(); w != nil {
			n.Wide = w[:]
		}
	}
	rec := journal.Record{
		Kind: journal.RequestSent, Key: c.ID, At: x.deps.Now(), Class: class(c.offer), Envelope: c.sealed.envelope,
		Local: n.bytes(),
		Body:  inline(c.Body, c.offer),
		In: func(ctx context.Context, tx *store.Tx, leaf int64) (err error) {
			switch {
			case c.again:
				err = x.reclaim(ctx, tx, sideCaller, c.request, c.before, leaf)
			case c.named || c.later:
				err = x.claimID(ctx, tx, sideCaller, c.request, leaf)
			}
			if err == nil && c.later {
				err = x.accept(ctx, tx, c, leaf)
			}
			if err != nil {
				return err
			}
			return x.hold(ctx, tx, c.Body, c.offer, leaf)
		},
	}
	// A client that hangs up now must not leave in doubt what is recorded.
	c.asked, err = x.deps.Journal.Append(context.WithoutCancel(ctx), rec)
	c.unclear = errors.Is(err, journal.ErrUnclear)
	if err == nil {
		c.promise = message.PromiseOf(c.asked, &rec)
	}
	if errors.Is(err, errClaimed) {
		return fault.New(fault.InFlight, "another process of this node is busy with this id")
	}
	return storeFault(err, "recording the request")
}

func (x *Exchange) observeAsking(c *asking, code fault.Code) {
	o := Observation{
		Client: c.Client, Service: c.Service, Method: c.Method, ID: c.ID,
		RequestIn: c.In, RequestOut: c.out, ResponseIn: c.back, ResponseOut: x.deps.Now(), Fault: code,
	}
	if c.Body != nil {
		o.RequestSize = c.Body.size
	}
	if c.answer != nil && code == "" {
		o.Status, o.Fault = c.answer.Status, fault.Code(c.answer.Fault)
	}
	if c.body != nil {
		o.ResponseSize = c.body.size
	}
	if r := c.earlier; r != nil {
		o.Status, o.Fault, o.ResponseSize = r.Status, r.Fault, r.Body.size
	}
	x.deps.Observe(o)
}

// class is the retention class of a service's records.
func class(s directory.Service) string {
	if s.Retention == "" {
		return "exchange"
	}
	return s.Retention
}
