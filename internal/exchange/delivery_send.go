package exchange

import (
	"context"
	"errors"
	"time"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

// deliveryStages is one attempt: the way of a call from its record on, with
// directory, certificate and rules asked again as they are now.
func (x *Exchange) deliveryStages() []stage[*asking] {
	return []stage[*asking]{
		{"resolve", x.resolve},
		{"reopen", x.reopen},
		{"decide", x.decideAsking},
		{"vouch", x.vouch},
		{"send", x.send},
		{"send", x.released},
		{"verify", x.verifyAnswer},
		{"keep", x.keepDelivered},
	}
}

// attempt tries a delivery once. The error says that the other node was not
// reached.
func (x *Exchange) attempt(ctx context.Context, d delivery) (away error) {
	c := x.again(&d)
	defer func() {
		if c.stop != nil {
			c.stop()
		}
	}()
	for _, s := range x.deliveryStages() {
		err := s.do(ctx, c)
		switch {
		case errors.Is(err, errEnded):
			return nil
		case err != nil && c.ID == "": // it ends, or waits, before its request was read
			if lost := x.tell(ctx, &d); lost != nil {
				return x.failed(ctx, c, "tell", lost)
			}
			c.ID = d.message
		}
		if err != nil {
			return x.failed(ctx, c, s.name, err)
		}
	}
	return nil
}

// again is the call of a delivery, to be gone through once more.
func (x *Exchange) again(d *delivery) *asking {
	return &asking{Ask: Ask{Client: d.client, Service: d.service, ID: d.message, In: x.deps.Now()}, named: true, delivery: d}
}

// reopen takes the sealed request from its record, or finds that it is valid
// no longer.
func (x *Exchange) reopen(ctx context.Context, c *asking) error {
	err := x.readRequest(ctx, c)
	if !x.deps.Now().Before(c.delivery.expires) {
		return fault.New(fault.DeliveryExpired, "not delivered by %s", c.delivery.expires.Format(time.RFC3339))
	}
	c.deadline = x.deadline(c)
	return err
}

// readRequest reads the request's record: every attempt sends these bytes.
func (x *Exchange) readRequest(ctx context.Context, c *asking) error {
	d := c.delivery
	s, err := x.readHead(ctx, c)
	if err != nil {
		return err
	}
	n, err := readNote(s.Local)
	if err != nil {
		return storeFault(err, "reading the request to deliver")
	}
	if r := c.request; d.spool != "" {
		c.Body = &body{size: r.Body.Size, sha256: r.Body.SHA256, spool: d.spool}
	} else if c.Body, err = x.bodyOf(s, r.Body); err != nil {
		return err
	}
	copy(c.Body.sha512[:], n.Wide)
	c.Door, c.subject = n.Door, n.Subject
	return nil
}

// readHead reads what was asked, without the body.
func (x *Exchange) readHead(ctx context.Context, c *asking) (journal.Stored, error) {
	s, err := x.deps.Journal.Get(ctx, c.delivery.asked)
	if err != nil {
		return s, storeFault(err, "reading a delivery's request")
	}
	if s.Erased {
		return s, fault.New(fault.AnswerGone, "its retention has ended")
	}
	head, raw, err := message.Open(s.Envelope)
	if err != nil {
		return s, storeFault(err, "reading a delivery's request")
	}
	r, err := message.ParseRequest(head)
	if err != nil {
		return s, storeFault(err, "reading a delivery's request")
	}
	c.ID, c.delivery.message, c.delivery.talk = r.ID, r.ID, r.Conversation
	c.Method, c.Path, c.purpose, c.request, c.asked, c.raw = r.Method, r.Path, r.Purpose, r, s.Entry, raw
	c.promise = message.PromiseOf(s.Entry, &s.Record)
	c.sealed = sealed{head: head, manifest: manifest(seal.Request, head, r.Body), envelope: s.Envelope}
	return s, nil
}

// vouch asks whether the directory still stands behind the request's seal: the
// other node would ask too, but a seal that was revoked is not even sent.
func (x *Exchange) vouch(_ context.Context, c *asking) error {
	_, err := x.authentic(c.view, seal.Request, c.sealed.manifest, c.raw, c.Client.State, c.Client.MemberID)
	return err
}

// keepDelivered makes an answer durable, together with what it means for the
// delivery.
func (x *Exchange) keepDelivered(ctx context.Context, c *asking) error {
	d, code := c.delivery, fault.Code(c.answer.Fault)
	state := verdict("keep", code, nil)
	if code == "" {
		state = deliveryAnswered
	}
	e := ending{state: state, code: code, told: true, tried: true, free: state == deliveryRefused}
	if state != deliveryOpen {
		if err := x.aside(c.body, c.offer); err != nil {
			x.discard(c.body)
			return err
		}
		if c.offer.DigestOnly {
			e.spool = c.body.spool
		}
	}
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMargin)
	defer cancel()
	err := x.recordAnswer(keep, c, func(ctx context.Context, tx *store.Tx, leaf int64) error {
		if state == deliveryOpen {
			return x.postpone(ctx, tx, d, code, x.patience(d))
		}
		return x.end(ctx, tx, d, e, leaf)
	})
	if err != nil {
		return err
	}
	if state != deliveryOpen {
		x.ended(c, code)
	}
	return nil
}

// ended cleans up after a delivery's end and tells of it.
func (x *Exchange) ended(c *asking, code fault.Code) {
	if spool := c.delivery.spool; spool != "" {
		x.discard(&body{spool: spool})
	}
	if c.answer != nil {
		code = ""
	}
	x.observeAsking(c, code)
}

// patience is the pause after an answer that is none yet. Each such answer
// leaves evidence at both nodes, so the pauses go on growing with the wait: at
// most some eighty in a week.
func (x *Exchange) patience(d *delivery) time.Duration {
	return x.pause(d.attempts, max(x.cfg.RetryCap, x.deps.Now().Sub(d.accepted)/8))
}

// failed ends a delivery, or puts it off, after a stage that failed. The error
// says that the other node was not reached.
func (x *Exchange) failed(ctx context.Context, c *asking, stage string, cause error) (away error) {
	f, d := fault.From(cause), c.delivery
	if f.ID == "" { // another node's fault, whose support number was none
		f = fault.Wrap(f.Code, cause, "%s", f.Detail)
	}
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMargin)
	defer cancel()
	if state := verdict(stage, f.Code, cause); state != deliveryOpen {
		c.ending = func(ctx context.Context, tx *store.Tx, leaf int64) error {
			return x.end(ctx, tx, d, ending{state: state, code: f.Code, told: c.ID != "", tried: c.out != time.Time{}}, leaf)
		}
		var err error
		if c.ID != "" {
			err = x.recordRefusal(keep, c, f)
		} else { // its retention has ended: nobody knows any more what it was called
			_, err = x.deps.Journal.Append(keep, journal.Record{
				Kind: journal.Decision, At: x.deps.Now(), Class: "exchange", In: c.ending,
				Local: reading{Action: "delivery.erased", By: d.client.String(), Code: f.Code}.bytes(),
			})
		}
		switch {
		case err == nil:
			x.ended(c, f.Code)
			return nil
		case errors.Is(err, errEnded):
			return nil
		}
		f = fault.From(storeFault(err, "recording the end of a delivery"))
	}
	after := x.pause(d.attempts, x.cfg.RetryCap)
	if ctx.Err() != nil {
		after = 0 // this process stopped; the delivery did not fail
	}
	if err := x.postpone(keep, x.deps.DB, d, f.Code, after); err != nil {
		x.deps.Log.Error("an attempt to deliver left no trace", "code", f.Code, "support", f.ID, "error", err)
	}
	x.deps.Log.Info("not delivered yet", "service", d.service.String(), "attempts", d.attempts+1, "code", f.Code, "support", f.ID, "error", f)
	if stage == "send" && errors.Is(cause, link.ErrNotSent) && ctx.Err() == nil {
		return f
	}
	return nil
}

// verdict is what a fault means for a delivery: its end, or another attempt.
// Where it came from matters: that a node's certificate is void says nothing
// against the request, that its own is ends it.
func verdict(stage string, code fault.Code, err error) (state int) {
	switch stage {
	case "send":
		// Of what did not come from the other node itself, only a request
		// that no node would take can never be sent.
		if !errors.Is(err, link.ErrRefused) && code != fault.TooLarge {
			return deliveryOpen
		}
	case "verify":
		return deliveryOpen // the answer was at fault; the next one may be right
	case "vouch":
		switch code {
		case fault.CertUnknown, fault.CertRevoked, fault.CertExpired:
			return deliveryRefused
		}
	}
	switch code {
	case fault.DeliveryExpired, fault.SealExpired:
		return deliveryExpired
	case fault.BadRequest, fault.BadIdentifier, fault.BadPath, fault.BadHeader, fault.RepeatedHeader, fault.MissingClient,
		fault.UnknownClient, fault.ClientNotAuthentic, fault.TooLarge, fault.MethodNotAllowed, fault.MissingPurpose, fault.UnknownPurpose,
		fault.IDConflict, fault.AnswerGone, fault.NotFound, fault.UnknownService, fault.UnknownState, fault.PolicyDenied,
		fault.SealInvalid, fault.MessageMalformed, fault.MessageMismatch, fault.MessageReplayed,
		fault.OutcomeUnknown, fault.OutcomeDone, fault.Conflict, fault.NotAllowed:
		return deliveryRefused
	}
	// All else is about the moment: the network, a node, a backend, a clock, a
	// directory that is a little behind. So is a code that only a newer node knows.
	return deliveryOpen
}
