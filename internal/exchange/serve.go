package exchange

import (
	"context"
	"errors"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

// serving is a call at the provider's node. Each stage adds to it; none
// changes what another wrote.
type serving struct {
	peer link.Peer
	msg  *link.Message
	in   time.Time

	promise *message.Promise // that came with its release; nil: none

	// unfold
	request  *message.Request
	manifest []byte
	sealed   []byte // the seal's wire form

	// trust
	view  *directory.View
	offer directory.Service

	// judge
	decision policy.Decision

	// receive
	body *body

	// claim
	asked   journal.Entry
	claimed bool
	unclear bool   // whether it is claimed, only the database knows
	earlier *Reply // the answer of an earlier call with this id

	// invoke
	out    time.Time
	back   time.Time
	result *result
	effect effect
}

// result is a backend's answer.
type result struct {
	status  int
	headers []message.Header
	subject *subject
	body    *body
	fault   *fault.Error // set where this node refuses or the backend failed
}

// effect is what is known of a backend's doing.
type effect int

const (
	effectNone    effect = iota // it surely did nothing, or may be asked again
	effectDone                  // it answered
	effectUnknown               // it may or may not have acted
)

func (e effect) String() string { return [...]string{"none", "done", "unknown"}[e] }

// providerStages is the way of a call at the provider's node. A failure of a
// mute stage is answered without data and without record: nobody known has
// asked, or not this. Other refusals are sealed and journalled. What is refused
// by its head costs no room for its body.
func (x *Exchange) providerStages() []stage[*serving] {
	return []stage[*serving]{
		{"unfold", x.unfold},
		{"trust", x.trust},
		{"judge", x.decideServing},
		{"receive", x.receive},
		{"again", x.askAgain},
		{"claim", x.claimServing},
		{"invoke", x.invoke},
	}
}

func mute(stage string) bool { return stage == "unfold" || stage == "trust" || stage == "receive" }

// Exchange answers another node's request; it is the link's handler.
func (x *Exchange) Exchange(ctx context.Context, peer link.Peer, msg *link.Message) (*link.Message, error) {
	c := &serving{peer: peer, msg: msg, in: x.deps.Now()}
	leave := func() {}
	defer func() { leave() }()
	for _, s := range x.providerStages() {
		err := s.do(ctx, c)
		silent := mute(s.name)
		if s.name == "receive" && err == nil || err != nil && !silent {
			// What follows leaves traces: the request must count by now.
			promise, lost := promised(msg.Released(ctx))
			if c.promise = promise; lost != nil {
				err, silent = lost, true
			}
		}
		if err == nil && s.name == "receive" {
			var done func()
			if done, err = x.flights.enter(ctx, "serve "+c.request.Client.String()+" "+c.request.ID); err == nil {
				leave = done
			}
		}
		if err == nil && c.earlier != nil {
			break
		}
		if err != nil {
			if silent {
				x.discard(c.body) // it came, and the call still waited for another of its id
				f := fault.From(err)
				x.deps.Observe(Observation{ProviderSide: true, RequestIn: c.in, ResponseOut: x.deps.Now(), Fault: f.Code})
				return nil, f
			}
			c.result, c.effect = &result{fault: fault.From(err)}, effectNone
			break
		}
	}
	m, err := x.answer(ctx, c)
	if err == nil && m.Hold != nil {
		// Who repeats this id waits until its answer is durable.
		record, done := m.Hold, leave
		m.Hold = func() ([]byte, error) { defer done(); return record() }
		leave = func() {}
	}
	return m, err
}

// unfold parts the message and reads its head.
func (x *Exchange) unfold(_ context.Context, c *serving) error {
	head, raw, err := message.Open(c.msg.Envelope)
	if err != nil {
		return fault.Wrap(fault.MessageMalformed, err, "%v", err)
	}
	r, err := message.ParseRequest(head)
	if err != nil {
		return fault.Wrap(fault.MessageMalformed, err, "%v", err)
	}
	if err := safePath(pathOnly(r.Path)); err != nil {
		return err
	}
	c.request, c.sealed, c.manifest = r, raw, manifest(seal.Request, head, r.Body)
	return x.inTime(r.NotBefore, r.NotAfter)
}

// trust holds sender and seal against the directory, cheap checks first.
func (x *Exchange) trust(ctx context.Context, c *serving) error {
	v, err := x.deps.Directory()
	if err != nil {
		return err
	}
	if err := x.welcome(v, c.peer); err != nil {
		return err
	}
	r := c.request
	switch {
	case r.Union != v.Union():
		return fault.New(fault.MessageMismatch, "the request belongs to another union")
	case r.Client.State != c.peer.State:
		return fault.New(fault.MessageMismatch, "a node of %s brings a request of %s", c.peer.State, r.Client.State)
	case r.Service.State != x.cfg.State:
		return fault.New(fault.MessageMismatch, "this is a node of %s", x.cfg.State)
	}
	if r.Directory > v.Version() {
		if err := x.deps.Versions.Reach(ctx, r.Directory, c.peer.State); err != nil {
			return err
		}
		return x.trust(ctx, c)
	}
	if err := x.inForce(v, r.Client.State, r.Service.State); err != nil {
		return err
	}
	sealed, err := x.authentic(v, seal.Request, c.manifest, c.sealed, r.Client.State, r.Client.MemberID)
	if err != nil {
		return err
	}
	sealed.Version, sealed.Union = r.Directory, r.Union
	if err := x.deps.Versions.Prove(ctx, v, sealed); err != nil {
		return err
	}
	c.view = v
	c.offer, _ = v.Service(r.Service)
	return nil
}

// receive takes the whole body and holds it against the sealed digest.
func (x *Exchange) receive(_ context.Context, c *serving) (err error) {
	c.body, err = x.arrive(c.msg, c.request.Body, class(c.offer), true)
	return err
}

// askAgain asks directory, rules and clock anew where they may have changed
// while a large body, the request's release, or an earlier call of its id was
// waited for.
func (x *Exchange) askAgain(ctx context.Context, c *serving) error {
	if v, err := x.deps.Directory(); err == nil && v == c.view && c.body.spool == "" && x.deps.Now().Sub(c.in) < time.Second {
		return nil
	}
	if err := x.trust(ctx, c); err != nil {
		return err
	}
	return x.decideServing(ctx, c)
}

// decideServing asks the provider's state whether this client may ask this.
func (x *Exchange) decideServing(_ context.Context, c *serving) error {
	r := c.request
	if !reserved(r.Service.Service) {
		if _, ok := c.view.Service(r.Service); !ok {
			return fault.New(fault.UnknownService, "%s", r.Service)
		}
	}
	if _, ok := c.view.Subsystem(r.Client); !ok && r.Client.Subsystem != "" {
		return fault.New(fault.UnknownClient, "%s", r.Client)
	}
	if err := purposeKnown(c.view, r.Purpose, r.Service); err != nil {
		return err
	}
	d, err := x.decide(c.view, question(policy.Provider, r), c.offer)
	c.decision = d
	if err != nil {
		return err
	}
	// An effect is not worth an answer that nobody may believe.
	_, err = x.vouched(c.view, r.Service.MemberID)
	return err
}

// claimServing claims the id and makes the request durable, in one
// transaction, before anything takes effect.
func (x *Exchange) claimServing(ctx context.Context, c *serving) error {
	if x.isStranded(c.request) {
		if err := x.land(ctx); err != nil {
			return storeFault(err, "ending an earlier call of this id")
		}
	}
	err := x.stake(ctx, c, func(ctx context.Context, tx *store.Tx, leaf int64) error {
		return x.claimID(ctx, tx, sideProvider, c.request, leaf)
	})
	if !errors.Is(err, errClaimed) {
		return err
	}
	was, ok, err := x.claimed(ctx, sideProvider, c.request)
	if err != nil {
		return storeFault(err, "looking for an earlier request of this id")
	}
	switch {
	case !ok:
		return fault.New(fault.InFlight, "the id has just become free; ask again")
	}
	same, err := x.sameAs(ctx, was, c.request, nil)
	switch {
	case err != nil:
		return err
	case !same:
		return fault.New(fault.IDConflict, "%s", c.request.ID)
	case was.state == claimAnswered:
		c.earlier, err = x.recorded(ctx, was.answered)
		return err
	case was.state == claimOpen && was.process != x.process:
		return fault.New(fault.InFlight, "another process of the provider's node is busy with this id")
	case was.state == claimSettled:
		return fault.New(fault.OutcomeDone, "")
	case !x.repeatable(c):
		return x.unknown(ctx, c, was)
	}
	// The service may be asked again: take the claim over.
	err = x.stake(ctx, c, func(ctx context.Context, tx *store.Tx, leaf int64) error {
		return x.reclaim(ctx, tx, sideProvider, c.request, was, leaf)
	})
	if errors.Is(err, errClaimed) {
		return fault.New(fault.InFlight, "another process of the provider's node is busy with this id")
	}
	return err
}

// stake writes the request's record with its claim. A store that fails may
// have committed both: nothing was invoked, so then the id is to be free.
func (x *Exchange) stake(ctx context.Context, c *serving, how func(context.Context, *store.Tx, int64) error) error {
	tried := int64(-1)
	err := x.recordAsked(ctx, c, func(ctx context.Context, tx *store.Tx, leaf int64) error {
		tried = leaf
		return how(ctx, tx, leaf)
	})
	c.claimed, c.unclear = err == nil, errors.Is(err, journal.ErrUnclear)
	if err != nil && tried >= 0 && !errors.Is(err, errClaimed) {
		x.leave(strand{x.claimKey(c.request.Client, c.request.ID), tried, effectNone})
	}
	return storeFault(err, "recording the request")
}

// recordAsked writes the request's record with what must stand or fall with
// it: nothing where it will not be carried out, and then its large body is not
// kept either, or whoever is refused could fill the disk.
func (x *Exchange) recordAsked(ctx context.Context, c *serving, with func(context.Context, *store.Tx, int64) error) (err error) {
	large := c.body
	if with == nil {
		large = nil
	}
	// A peer that hangs up now must not leave in doubt what is recorded.
	c.asked, err = x.deps.Journal.Append(context.WithoutCancel(ctx), journal.Record{
		Kind: journal.RequestReceived, Key: c.request.ID, At: x.deps.Now(), Class: class(c.offer), Envelope: c.msg.Envelope,
		Local: note{Peer: c.peer.Node, Rules: ruleNames(c.decision), Version: c.view.Version(), Spool: kept(large, c.offer), Repeat: c.earlier != nil, Promise: promiseBytes(c.promise)}.bytes(),
		Body:  inline(c.body, c.offer),
		In: func(ctx context.Context, tx *store.Tx, leaf int64) error {
			if with != nil {
				if err := with(ctx, tx, leaf); err != nil {
					return err
				}
			}
			return x.hold(ctx, tx, large, c.offer, leaf)
		},
	})
	if err == nil {
		x.expect(c.asked.Index, c.request.Client.State, c.request.ID, journal.RequestSent, c.promise, c.msg.Envelope)
	}
	return err
}

// repeatable tells whether a second invocation does no harm: HTTP's safe
// methods, a service that says so, a backend that takes our id as its key, or
// one of this binary, which does for an id once what it does.
func (x *Exchange) repeatable(c *serving) bool {
	switch c.request.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	b, _ := x.local.Backend(c.request.Service)
	return c.offer.Idempotent || b.KeyHeader != "" || x.isInside(c.request.Service.SubsystemID)
}
