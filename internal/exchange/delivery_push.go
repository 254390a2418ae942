package exchange

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// headerStatus carries, on a pushed outcome, the status that the service
// answered with.
const headerStatus = "Falaj-Status"

// outcomeOf gives what a call without delivery would have given; a fault
// where there is nothing to give yet or any more.
func (x *Exchange) outcomeOf(ctx context.Context, d *delivery) (*Reply, error) {
	if d.state == deliveryOpen {
		return nil, fault.New(fault.DeliveryPending, "/async/%s tells how far it is", escape(d.message))
	}
	if !d.answered.Valid {
		if err := x.tell(ctx, d); err != nil {
			return nil, err
		}
		// It was skipped: a decision says so, no message.
		f := fault.New(d.code, "")
		b := f.XRoad()
		return &Reply{
			ID: d.message, RequestID: d.request, Client: d.client, Service: d.service, Status: f.Entry().Status, Fault: f.Code,
			Headers: []message.Header{{Name: "content-type", Value: "application/json; charset=utf-8"}},
			Body:    &body{size: int64(len(b)), inline: b, sha256: sha256.Sum256(b)}, Keep: true,
		}, nil
	}
	if d.state == deliveryAnswered {
		if err := x.stillAllowed(ctx, d); err != nil {
			return nil, err
		}
	}
	s, a, err := x.answerAt(ctx, d.answered.Int64)
	if err != nil {
		return nil, err
	}
	if d.spool != "" {
		return replyOf(a, &body{size: a.Body.Size, sha256: a.Body.SHA256, spool: d.spool}), nil
	}
	b, err := x.bodyOf(s, a.Body)
	if err != nil {
		return nil, err
	}
	return replyOf(a, b), nil
}

// stillAllowed asks the rules again before a service's answer is given, as for
// a client that repeats an id: this state's, and the other's as far as they
// are published.
func (x *Exchange) stillAllowed(ctx context.Context, d *delivery) error {
	c := x.again(d)
	if err := x.resolve(ctx, c); err != nil {
		return err
	}
	if _, err := x.readHead(ctx, c); err != nil {
		return err
	}
	if err := x.decideAsking(ctx, c); err != nil {
		return err
	}
	_, err := x.decide(c.view, question(policy.Provider, c.request), c.offer)
	return err
}

// outlet is how a client is told of an outcome; nil: it asks for it.
func (x *Exchange) outlet(client union.SubsystemID) func(context.Context, *delivery) (fault.Code, error) {
	if x.postedInside(client) {
		return x.tellInside
	}
	c, ok := x.local.Client(client)
	if !ok || c.Push == "" {
		return nil
	}
	return func(ctx context.Context, d *delivery) (fault.Code, error) { return x.pushTo(ctx, d, c.Push) }
}

// push brings an outcome to its client. The error says that the client was not
// reached.
func (x *Exchange) push(ctx context.Context, d delivery) (away error) {
	tell := x.outlet(d.client)
	if tell == nil || !x.deps.Now().Before(d.expires) && !x.postedInside(d.client) { // it no longer wants to be told, or cannot be
		x.release(ctx, d, false)
		return nil
	}
	code, err := tell(ctx, &d)
	if err == nil {
		x.release(ctx, d, true)
		return nil
	}
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMargin)
	defer cancel()
	if err := x.postpone(keep, x.deps.DB, &d, code, x.pause(d.pushes, x.cfg.RetryCap)); err != nil {
		x.deps.Log.Error("an attempt to push an outcome left no trace", "error", err)
	}
	x.deps.Log.Info("outcome not pushed yet", "client", d.client.String(), "attempts", d.pushes+1, "error", err)
	if code == fault.BackendFailed || code == fault.BackendTimeout {
		return err
	}
	return nil
}

// pushTo sends an outcome to an address: the body as it is, and of the headers
// only those that say how to read it, since the others were meant for whoever
// asked, not for whoever is asked.
func (x *Exchange) pushTo(ctx context.Context, d *delivery, address string) (fault.Code, error) {
	reply, err := x.outcomeOf(ctx, d)
	if fault.CodeOf(err) == fault.AnswerGone {
		return "", nil // there is nothing left to push
	}
	if err != nil {
		return fault.CodeOf(err), err
	}
	target, err := backendURL(address)
	if err != nil {
		return fault.CodeOf(err), err
	}
	transport, err := x.backends.transport(x, Backend{})
	if err != nil {
		return fault.CodeOf(err), err
	}
	in, err := x.open(reply.Body)
	if err != nil {
		return fault.CodeOf(err), err
	}
	if in == nil {
		in = http.NoBody
	}
	ctx, cancel := context.WithTimeout(ctx, x.cfg.CallTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), in)
	if err != nil {
		return fault.BadRequest, err
	}
	req.ContentLength = reply.Body.size
	h := req.Header
	for _, p := range reply.Headers {
		if strings.HasPrefix(p.Name, "content-") {
			name := http.CanonicalHeaderKey(p.Name)
			h[name] = append(h[name], p.Value)
		}
	}
	label(h, reply)
	h["User-Agent"] = []string{""} // none
	h[headerStatus] = []string{strconv.Itoa(reply.Status)}
	res, err := transport.RoundTrip(req)
	if err != nil {
		err = backendFault(ctx, err)
		return fault.CodeOf(err), err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection can serve again
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fault.PeerRefused, fault.New(fault.PeerRefused, "the client took the outcome with status %d", res.StatusCode)
	}
	return "", nil
}

// releases are the ends of pushes that wait to be written. Where one process
// has the store to itself, those that come while some are written are written
// together.
type releases struct {
	mu   sync.Mutex
	list []*letGo
	busy bool
}

// letGo is one of them.
type letGo struct {
	delivery
	work int
	keep string // the spool that stays
	at   sql.NullInt64
	done chan struct{}
}

// release ends a push, or whatever else was left: the outcome was pushed, or
// need not be. A body of which only the digest was to be kept goes with it,
// unless the client may still fetch it.
func (x *Exchange) release(ctx context.Context, d delivery, pushed bool) {
	now := x.deps.Now()
	l := &letGo{delivery: d, work: workNone, at: sql.NullInt64{Int64: now.UnixMilli(), Valid: pushed}, done: make(chan struct{})}
	if d.spool != "" && !pushed && now.Before(d.expires) {
		l.work, l.keep = workKeep, d.spool
	}
	r := &x.releases
	r.mu.Lock()
	r.list = append(r.list, l)
	first := !r.busy
	r.busy = true
	r.mu.Unlock()
	if !first {
		<-l.done
		return
	}
	for {
		r.mu.Lock()
		some := r.list
		if !x.cfg.Alone { // another process may hold some of the rows, and want others
			some = some[:min(len(some), 1)]
		}
		r.list = r.list[len(some):]
		r.busy = len(some) > 0
		r.mu.Unlock()
		if len(some) == 0 {
			return
		}
		x.letGo(ctx, some)
		for _, l := range some {
			close(l.done)
		}
	}
}

// letGo writes the ends of pushes.
func (x *Exchange) letGo(ctx context.Context, some []*letGo) {
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMargin)
	defer cancel()
	err := x.deps.DB.Write(keep, func(tx *store.Tx) error {
		for _, l := range some {
			if l.spool != l.keep {
				if _, err := tx.Exec(keep, `DELETE FROM exchange_spool WHERE id = ?`, l.spool); err != nil {
					return err
				}
			}
			if _, err := tx.Exec(keep, `UPDATE exchange_delivery SET work = ?, spool = ?, next_at = expires_at, pushed_at = ?, lease = ''
				WHERE id = ? AND asked = ? AND state = ? AND work = ?`, l.work, l.keep, l.at, l.id, l.asked, l.state, l.delivery.work); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		// They are done once more: at least once is what was promised.
		x.deps.Log.Error("the end of a push left no trace", "error", err)
		return
	}
	for _, l := range some {
		if l.spool != l.keep {
			x.discard(&body{spool: l.spool})
		}
	}
}
