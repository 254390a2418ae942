package exchange

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

// answer seals what came of a call and makes it durable before it counts: a
// large one before it leaves, another while it is on its way.
func (x *Exchange) answer(ctx context.Context, c *serving) (m *link.Message, err error) {
	lose := func(err error) {
		if c.claimed {
			x.strand(c)
		}
		if c.result != nil {
			x.unnamed(c.result.body, err)
		}
	}
	ready := false
	defer func() {
		if !ready {
			lose(err)
		}
	}()
	if !c.claimed && !c.unclear || c.offer.DigestOnly {
		// However this ends, nobody wants the request's large body any more: of
		// what was refused or repeated, its digest in the head is enough.
		defer x.discard(c.body)
	}
	if !c.claimed {
		// The request has no record of its own yet.
		if err := x.recordAsked(ctx, c, nil); err != nil {
			return nil, storeFault(err, "recording the request")
		}
	}
	// What is sealed now is judged by the directory of now: the one that the call
	// came under may know another seal of the member, or have expired.
	v, err := x.deps.Directory()
	if err != nil {
		v = c.view
	}
	a, res := x.compile(c, v)
	s, err := x.sealAnswer(ctx, c, v, a)
	if err != nil && a.Fault == "" {
		// It cannot be said as it is: that is what is said.
		if c.earlier == nil {
			x.discard(res.body)
		}
		c.earlier, c.result = nil, &result{fault: fault.From(err)}
		a, res = x.compile(c, v)
		s, err = x.sealAnswer(ctx, c, v, a)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "")
	}
	ready = true
	record := func() ([]byte, error) {
		promise, err := x.recordSent(ctx, c, res, s)
		if err != nil {
			lose(err)
			return nil, err
		}
		x.observeServing(c, a, res)
		return promise, nil
	}
	m = link.NewMessage(s.envelope, res.body.inline)
	if m.Hold = record; res.body.spool == "" {
		return m, nil
	}
	promise, err := record()
	if err != nil {
		return nil, err
	}
	m.Hold = func() ([]byte, error) { return promise, nil }
	r, err := x.open(res.body)
	if err != nil {
		return nil, err
	}
	m.Body, m.Size = r, res.body.size
	if c.earlier == nil && c.offer.DigestOnly {
		m.Body = &once{ReadCloser: r, then: func() { x.discard(res.body) }}
	}
	return m, nil
}

// recordSent makes an answer durable and gives the promise of its record.
func (x *Exchange) recordSent(ctx context.Context, c *serving, res *result, s sealed) ([]byte, error) {
	rec := journal.Record{
		Kind: journal.AnswerSent, Key: c.request.ID, At: x.deps.Now(), Class: class(c.offer), Envelope: s.envelope,
		Local: answerNote(c, res).bytes(),
		Body:  inline(res.body, c.offer),
		In: func(ctx context.Context, tx *store.Tx, leaf int64) error {
			if c.earlier == nil {
				if err := x.hold(ctx, tx, res.body, c.offer, leaf); err != nil {
					return err
				}
			}
			if !c.claimed {
				return nil
			}
			return x.settle(ctx, tx, sideProvider, c.request, c.asked.Index, c.effect, leaf)
		},
	}
	// The peer may have hung up; what happened is recorded all the same.
	e, err := x.deps.Journal.Append(context.WithoutCancel(ctx), rec)
	if err != nil {
		return nil, storeFault(err, "recording the answer")
	}
	return promiseBytes(message.PromiseOf(e, &rec)), nil
}

// answerNote says of an answer about a person also what was asked: his trace
// then needs no other record.
func answerNote(c *serving, res *result) note {
	n := note{Spool: kept(res.body, c.offer), Repeat: c.earlier != nil, Effect: c.effect.String(), Subject: res.subject}
	if n.Subject != nil {
		n.Method, n.Purpose = c.request.Method, c.request.Purpose
	}
	return n
}

// sealAnswer seals an answer for the service's member; a refusal, where need
// be, for the node's operator.
func (x *Exchange) sealAnswer(ctx context.Context, c *serving, v *directory.View, a *message.Answer) (sealed, error) {
	head, err := a.Encode()
	if err != nil {
		// Only a backend's headers can be at fault here.
		return sealed{}, fault.Wrap(fault.BackendFailed, err, "the service's answer: %v", err)
	}
	cred, err := x.credential(c.request.Service.MemberID)
	if a.Fault != "" {
		cred, err = x.witness(v, c.request.Service.MemberID)
	}
	var s sealed
	if err == nil {
		// The peer may have hung up; what happened is sealed all the same.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMargin)
		defer cancel()
		s, err = x.sealTo(within, v, c.request.Client.State, cred, seal.Answer, head, a.Body)
	}
	if err != nil && a.Fault == "" {
		// The service has acted, and nobody can vouch for its answer any more.
		if c.effect == effectDone {
			c.effect = x.unclear(c, effectUnknown)
		}
		return s, fault.Wrap(fault.OutcomeUnknown, err, "the service answered, and its member's seal is gone")
	}
	return s, err
}

// once is a body that is forgotten after it was read.
type once struct {
	io.ReadCloser
	then func()
}

func (o *once) Close() error {
	err := o.ReadCloser.Close()
	if o.then != nil {
		o.then()
		o.then = nil
	}
	return err
}

// compile writes the head of the answer to whatever came of the call.
func (x *Exchange) compile(c *serving, v *directory.View) (*message.Answer, *result) {
	r, now := c.request, x.deps.Now()
	a := &message.Answer{
		Type: message.TypeAnswer, Union: r.Union, Directory: v.Proves(x.cfg.State), ID: r.ID, RequestID: r.RequestID,
		Client: r.Client, Service: r.Service, Request: sha256.Sum256(c.manifest),
		NotBefore: now.UnixMilli(), NotAfter: max(r.NotAfter, now.Add(x.cfg.CallTime).UnixMilli()),
	}
	if c.body != nil || r.Body == nil { // of a body that was refused unread no hash is known
		a.Hash = requestHash(r, c.body.wide())
	}
	// The caller's clock may be ahead: no message is valid for longer than this.
	a.NotAfter = min(a.NotAfter, now.Add(message.MaxValidity).UnixMilli())
	if c.earlier != nil {
		a.Status, a.Headers, a.Fault, a.Body = c.earlier.Status, c.earlier.Headers, string(c.earlier.Fault), c.earlier.Body.named()
		a.Subject, c.effect = c.earlier.commitment, effectDone // it shows the person's data once more
		return a, &result{status: a.Status, headers: a.Headers, subject: c.earlier.subject, body: c.earlier.Body}
	}
	res := c.result
	if f := res.fault; f != nil {
		b := f.XRoad()
		if f.Entry().Status >= 500 {
			x.deps.Log.Warn("call refused", fit(c.view, r.Client, r.Service, f)...)
		}
		res = &result{
			fault: f, status: f.Entry().Status, headers: []message.Header{{Name: "content-type", Value: "application/json; charset=utf-8"}},
			body: &body{size: int64(len(b)), inline: b, sha256: sha256.Sum256(b)},
		}
		a.Fault = string(f.Code)
	}
	a.Status, a.Headers, a.Subject, a.Body = res.status, res.headers, res.subject.commitment(), res.body.named()
	return a, res
}

func (x *Exchange) observeServing(c *serving, a *message.Answer, res *result) {
	var size int64
	if c.body != nil {
		size = c.body.size
	}
	x.deps.Observe(Observation{
		ProviderSide: true, Client: c.request.Client, Service: c.request.Service, Method: c.request.Method, ID: c.request.ID,
		RequestIn: c.in, RequestOut: c.out, ResponseIn: c.back, ResponseOut: x.deps.Now(),
		RequestSize: size, ResponseSize: res.body.size, Status: a.Status, Fault: fault.Code(a.Fault),
	})
}

// recorded rebuilds the answer that a record holds, for a client that repeats
// its id.
func (x *Exchange) recorded(ctx context.Context, leaf int64) (*Reply, error) {
	s, a, err := x.answerAt(ctx, leaf)
	if err != nil {
		return nil, err
	}
	b, err := x.bodyOf(s, a.Body)
	if err != nil {
		return nil, err
	}
	n, err := readNote(s.Local)
	if err != nil {
		return nil, storeFault(err, "reading a record's note")
	}
	r := replyOf(a, b)
	r.subject, r.commitment = n.Subject, a.Subject
	return r, nil
}

// answerAt reads the record of an answer or refusal.
func (x *Exchange) answerAt(ctx context.Context, leaf int64) (journal.Stored, *message.Answer, error) {
	s, err := x.deps.Journal.Get(ctx, leaf)
	if err != nil {
		return s, nil, storeFault(err, "reading the recorded answer")
	}
	if s.Erased {
		return s, nil, fault.New(fault.AnswerGone, "its retention has ended")
	}
	head, _, err := message.Open(s.Envelope)
	if err != nil {
		return s, nil, storeFault(err, "reading the recorded answer")
	}
	a, err := message.ParseAnswer(head)
	if err != nil {
		return s, nil, storeFault(err, "reading the recorded answer")
	}
	return s, a, nil
}

func replyOf(a *message.Answer, b *body) *Reply {
	return &Reply{
		ID: a.ID, RequestID: a.RequestID, Hash: a.Hash, Client: a.Client, Service: a.Service,
		Status: a.Status, Headers: a.Headers, Fault: fault.Code(a.Fault), Body: b, Keep: true,
	}
}

// bodyOf finds the body that a record's head names: in the record or in the
// spool; a body of which only the digest was kept is gone.
func (x *Exchange) bodyOf(s journal.Stored, said *message.Body) (*body, error) {
	if said == nil {
		return &body{}, nil
	}
	b := &body{size: said.Size, sha256: said.SHA256, inline: s.Body}
	if len(s.Body) == 0 {
		n, err := readNote(s.Local)
		if err != nil {
			return nil, storeFault(err, "reading a record's note")
		}
		if n.Spool == "" {
			return nil, fault.New(fault.AnswerGone, "of this service's bodies only the digest is kept")
		}
		b.spool = n.Spool
	}
	return b, nil
}
