package exchange

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// refuse ends a call at the caller's own node. What was asked and why it got
// no answer is sealed and journalled like an answer, as far as the store lets.
func (x *Exchange) refuse(ctx context.Context, c *asking, cause error) error {
	f := fault.From(cause)
	if f.ID == "" { // another node's fault, whose support number was none
		f = fault.Wrap(f.Code, cause, "%s", f.Detail)
	}
	x.observeAsking(c, f.Code)
	// No code of another node's says anything of this one's store.
	unable := (f.Code == fault.StoreFailed || f.Code == fault.DiskFull || f.Code == fault.Draining) && !errors.Is(cause, link.ErrRefused)
	if unable || c.view == nil || c.view.Version() < 1 {
		x.deps.Log.Error("call ended without a record", "code", f.Code, "support", f.ID, "error", f)
		return f
	}
	if err := x.recordRefusal(ctx, c, f); err != nil {
		// It tells nothing and does nothing, so its reason is still the truest answer.
		x.deps.Log.Error("a refusal left no record", "code", f.Code, "support", f.ID, "error", err)
		return f
	}
	if f.Entry().Status >= http.StatusInternalServerError {
		x.deps.Log.Warn("call not answered", fit(c.view, c.Client, c.Service, f)...)
	}
	return f
}

// fit is what a log may say of a refusal. What a caller named and the directory
// does not know may be anything, a person's number too; the record has it.
func fit(v *directory.View, client union.SubsystemID, service union.ServiceID, f *fault.Error) []any {
	_, calls := v.Subsystem(client)
	_, serves := v.Service(service)
	if _, here := v.Subsystem(service.SubsystemID); here && reserved(service.Service) {
		serves = true
	}
	if !serves || !calls && client.Subsystem != "" {
		return []any{"code", f.Code, "support", f.ID, "error", f.Entry().What.En}
	}
	return []any{"service", service.String(), "client", client.String(), "code", f.Code, "support", f.ID, "error", f}
}

// turnAway ends what could not be read as a call. Where the client proved who
// it is and named a service, that is a refusal like any other; the rest is
// counted alone.
func (x *Exchange) turnAway(ctx context.Context, in Ask, cause error) error {
	c := &asking{Ask: in}
	if in.Door == "" || in.Service.IsZero() {
		x.observeAsking(c, fault.CodeOf(cause))
		return cause
	}
	if !message.ValidID(c.ID) {
		c.ID = uuid.NewString()
	}
	if c.view, _ = x.deps.Directory(); c.view != nil {
		c.offer, _ = c.view.Service(c.Service)
	}
	return x.refuse(ctx, c, cause)
}

// recordRefusal seals and journals why a call got no answer.
func (x *Exchange) recordRefusal(ctx context.Context, c *asking, f *fault.Error) error {
	kind := journal.Refused
	if c.asked != (journal.Entry{}) || c.delivery != nil {
		kind = journal.Unanswered
	}
	entry := f.Entry()
	now := x.deps.Now()
	body := f.XRoad()
	requestID := uuid.NewString()
	var request message.Digest
	if c.sealed.manifest != nil {
		requestID, request = c.request.RequestID, sha256.Sum256(c.sealed.manifest)
	}
	sum := message.Digest(sha256.Sum256(body))
	a := &message.Answer{
		Type: message.TypeRefusal, Union: c.view.Union(), Directory: c.view.Proves(c.Client.State), ID: c.ID, RequestID: requestID,
		Client: c.Client, Service: c.Service, Request: request, Status: entry.Status, Fault: string(f.Code),
		NotBefore: now.UnixMilli(), NotAfter: now.Add(time.Hour).UnixMilli(), Body: &message.Body{Size: int64(len(body)), SHA256: sum},
	}
	head, err := a.Encode()
	if err != nil {
		return err
	}
	cred, err := x.witness(c.view, c.Client.MemberID)
	if err != nil {
		return err
	}
	s, err := sealHead(cred, seal.Answer, head, a.Body, now)
	if err != nil {
		return err
	}
	// Refused before it was aimed too, it has the purpose that it would have had:
	// by that the law may delay that its subject is told.
	meant, _ := c.view.DefaultPurpose(c.Client, c.Service)
	n := note{Door: c.Door, Rules: ruleNames(c.decision), Method: c.Method, Purpose: cmp.Or(c.purpose, c.Purpose, meant), Subject: c.subject}
	if n.Subject == nil {
		n.Subject = x.person(c.Subject) // refused before it was composed
	}
	if c.sealed.manifest == nil {
		n.Path = strings.ToValidUTF8(c.Path, "\ufffd") // nothing else tells what was asked
	}
	// A client that hung up still leaves its trace.
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMargin)
	defer cancel()
	_, err = x.deps.Journal.Append(keep, journal.Record{
		Kind: kind, Key: c.ID, At: now, Class: class(c.offer), Envelope: s.envelope, Body: body, In: c.ending,
		Local: n.bytes(),
	})
	return err
}

// witness finds who can seal a refusal: the client's member, or the node's
// operator where that one's seal is missing or void, which may be the very
// reason for the refusal.
func (x *Exchange) witness(v *directory.View, m union.MemberID) (Credential, error) {
	if cred, err := x.vouched(v, m); err == nil {
		return cred, nil
	}
	return x.credential(x.cfg.Operator)
}

// vouched is a member's seal that the directory stands behind now.
func (x *Exchange) vouched(v *directory.View, m union.MemberID) (Credential, error) {
	cred, err := x.credential(m)
	if err != nil {
		return cred, fault.Wrap(fault.ServiceDisabled, err, "this node has no seal of %s", m)
	}
	c, ok := v.Certificate(sha256.Sum256(cred.Cert.Raw))
	if !ok {
		return cred, fault.New(fault.CertUnknown, "the directory does not name this node's seal of %s", m)
	}
	return cred, c.At(x.deps.Now())
}
