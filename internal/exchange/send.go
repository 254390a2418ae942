package exchange

import (
	"cmp"
	"context"
	"crypto/sha256"
	"time"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// send carries the sealed request to the other state's node, and makes it
// durable while it is on its way.
func (x *Exchange) send(ctx context.Context, c *asking) error {
	msg := &link.Message{Envelope: c.sealed.envelope}
	if c.Body != nil && c.Body.size > 0 {
		r, err := x.open(c.Body)
		if err != nil {
			return err
		}
		msg.Body, msg.Size = r, c.Body.size
		if c.Body.spool == "" {
			msg = link.NewMessage(c.sealed.envelope, c.Body.inline)
		}
	}
	recorded := c.asked != (journal.Entry{})
	msg.Hold = func() ([]byte, error) {
		if !recorded {
			recorded = true
			if err := x.recordRequest(ctx, c); err != nil {
				return nil, err
			}
		}
		return promiseBytes(c.promise), nil
	}
	c.out = x.deps.Now()
	call, stop := context.WithCancel(ctx)
	timer := time.AfterFunc(c.deadline.Sub(c.out), stop)
	c.stop = func() { timer.Stop(); stop() }
	reply, err := x.deps.Link.Exchange(call, c.target, msg)
	if !recorded {
		err = cmp.Or(x.recordRequest(ctx, c), err) // it was asked, and nothing left
	}
	if err != nil {
		return err
	}
	timer.Reset(max(callMargin+transit(reply.Size), c.deadline.Sub(x.deps.Now())))
	c.reply = reply
	return nil
}

// released waits until the other node stands by its answer.
func (x *Exchange) released(ctx context.Context, c *asking) (err error) {
	c.theirs, err = promised(c.reply.Released(ctx))
	return err
}

// verifyAnswer checks the answer while the other node makes it durable. Also who
// does not believe an answer waits for that: a call that has ended for its
// client has ended everywhere.
func (x *Exchange) verifyAnswer(ctx context.Context, c *asking) error {
	err := x.believe(ctx, c)
	if lost := x.released(ctx, c); lost != nil && err == nil {
		x.discard(c.body)
		c.answer, c.body = nil, nil
		return lost
	}
	return err
}

// believe takes nothing from the answer before its seal, its binding to our
// request and its whole body are checked.
func (x *Exchange) believe(ctx context.Context, c *asking) error {
	if c.reply.Body != nil {
		defer c.reply.Body.Close()
	}
	c.back = x.deps.Now()
	head, raw, err := message.Open(c.reply.Envelope)
	if err != nil {
		return fault.Wrap(fault.MessageMalformed, err, "%v", err)
	}
	a, err := message.ParseAnswer(head)
	if err != nil {
		return fault.Wrap(fault.MessageMalformed, err, "%v", err)
	}
	r := c.request
	if a.Type != message.TypeAnswer || a.Union != r.Union || a.ID != r.ID || a.RequestID != r.RequestID ||
		a.Client != r.Client || a.Service != r.Service || a.Request != sha256.Sum256(c.sealed.manifest) {
		return fault.New(fault.MessageMismatch, "the answer belongs to another request")
	}
	if err := x.inTime(a.NotBefore, a.NotAfter); err != nil {
		return err
	}
	member := c.Service.MemberID
	if a.Fault != "" {
		member = union.MemberID{} // a refusal may be its node operator's
	}
	v, err := x.deps.Directory() // of now: a certificate may have been revoked meanwhile
	if err == nil && a.Directory > v.Version() {
		if err = x.deps.Versions.Reach(ctx, a.Directory, c.Service.State); err == nil {
			v, err = x.deps.Directory()
		}
	}
	if err != nil {
		return err
	}
	sealed, err := x.authentic(v, seal.Answer, manifest(seal.Answer, head, a.Body), raw, c.Service.State, member)
	if err != nil {
		return err
	}
	sealed.Version, sealed.Union = a.Directory, a.Union
	if err := x.deps.Versions.Prove(ctx, v, sealed); err != nil {
		return err
	}
	unread := a.Fault != "" && r.Body != nil && a.Hash == "" // refused before the body was taken
	if !unread && a.Hash != requestHash(r, c.Body.wide()) {
		return fault.New(fault.MessageMismatch, "the answer's request hash is not this request's")
	}
	b, err := x.arrive(c.reply, a.Body, class(c.offer), false)
	if err != nil {
		return err
	}
	c.answer, c.envelope, c.body = a, c.reply.Envelope, b
	return nil
}

// arrive takes a message's body and holds it against what the sealed head says.
func (x *Exchange) arrive(m *link.Message, said *message.Body, class string, wide bool) (*body, error) {
	var size int64
	if said != nil {
		size = said.Size
	}
	if m.Size != size {
		return nil, fault.New(fault.BodyTruncated, "the head says %d bytes, the link brings %d", size, m.Size)
	}
	if size == 0 {
		return &body{}, nil
	}
	b, err := x.take(m.Body, size, class, wide)
	if err != nil {
		return nil, err
	}
	if message.Digest(b.sha256) != said.SHA256 {
		x.discard(b)
		return nil, fault.New(fault.MessageMismatch, "the body is not the one that was sealed")
	}
	return b, nil
}

// keepAnswer makes the answer durable before the client sees it.
func (x *Exchange) keepAnswer(ctx context.Context, c *asking) error {
	became := effectDone
	if c.answer.Fault != "" {
		became = effectNone // the id may be tried again; the provider knows best
	}
	return x.recordAnswer(ctx, c, func(ctx context.Context, tx *store.Tx, leaf int64) error {
		if !c.named {
			return nil
		}
		return x.settle(ctx, tx, sideCaller, c.request, c.asked.Index, became, leaf)
	})
}

// recordAnswer writes the answer's record with what must stand or fall with it.
func (x *Exchange) recordAnswer(ctx context.Context, c *asking, with func(context.Context, *store.Tx, int64) error) error {
	// It has come, whether or not the client still waits for it.
	e, err := x.deps.Journal.Append(context.WithoutCancel(ctx), journal.Record{
		Kind: journal.AnswerReceived, Key: c.ID, At: x.deps.Now(), Class: class(c.offer), Envelope: c.envelope,
		Local: note{Spool: kept(c.body, c.offer), Promise: promiseBytes(c.theirs)}.bytes(),
		Body:  inline(c.body, c.offer),
		In: func(ctx context.Context, tx *store.Tx, leaf int64) error {
			if err := with(ctx, tx, leaf); err != nil {
				return err
			}
			return x.hold(ctx, tx, c.body, c.offer, leaf)
		},
	})
	if err != nil {
		x.unnamed(c.body, err)
		return storeFault(err, "recording the answer")
	}
	x.expect(e.Index, c.Service.State, c.ID, journal.AnswerSent, c.theirs, c.envelope)
	return nil
}
