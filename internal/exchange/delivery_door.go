package exchange

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// Status says how far a delivery is.
type Status string

// The statuses. A delivery is blocked while an earlier one of its conversation
// keeps failing.
const (
	StatusWaiting  Status = "waiting"
	StatusSending  Status = "sending"
	StatusBlocked  Status = "blocked"
	StatusAnswered Status = "answered"
	StatusRefused  Status = "refused"
	StatusExpired  Status = "expired"
	StatusSkipped  Status = "skipped"
)

// Delivery is an asynchronous call as its client and administrators see it.
type Delivery struct {
	ID           string            `json:"id"`
	Client       union.SubsystemID `json:"client"`
	Service      union.ServiceID   `json:"service"`
	Conversation string            `json:"conversation,omitzero"`
	Status       Status            `json:"status"`
	Behind       string            `json:"behind,omitzero"` // the first of its conversation that has not ended, if that is another
	Attempts     int               `json:"attempts"`
	Accepted     time.Time         `json:"accepted"`
	Expires      time.Time         `json:"expires,omitzero"`      // while it has not ended
	Next         time.Time         `json:"next_attempt,omitzero"` // while it waits
	Ended        time.Time         `json:"ended,omitzero"`
	Code         fault.Code        `json:"code,omitzero"` // why there is no answer of the service
	Message      string            `json:"message,omitzero"`
	MessageAr    string            `json:"message_ar,omitzero"`
	Answer       string            `json:"answer,omitzero"` // where it is fetched
	Pushes       int               `json:"pushes,omitzero"` // failed attempts to push the outcome
	Pushed       time.Time         `json:"pushed,omitzero"`
}

// final is the status of a delivery that has ended.
func (d *delivery) final() Status {
	switch d.state {
	case deliveryAnswered:
		return StatusAnswered
	case deliveryRefused:
		return StatusRefused
	case deliveryExpired:
		return StatusExpired
	}
	return StatusSkipped
}

// deliveryRows reads deliveries with what their status depends on beside
// them: who is at them, and who stands before them.
const deliveryRows = `SELECT ` + deliveryColumns + `, CASE WHEN d.lease IN (SELECT id FROM exchange_process) THEN 1 ELSE 0 END,
		COALESCE(h.asked, -1), COALESCE(h.attempts, 0), COALESCE(h.code, '')
	FROM exchange_delivery d LEFT JOIN exchange_delivery h ON h.asked < d.asked AND h.asked =
		(SELECT MIN(e.asked) FROM exchange_delivery e WHERE e.work = 1 AND e.conversation <> '' AND d.work = 1
			AND e.client = d.client AND e.service = d.service AND e.conversation = d.conversation)`

// find reads a client's delivery by its X-Road-Id.
func (x *Exchange) findDelivery(ctx context.Context, client union.SubsystemID, id string) (Delivery, delivery, error) {
	v, d, err := x.showDelivery(x.deps.DB.QueryRow(ctx, deliveryRows+` WHERE d.id = ?`, x.claimKey(client, id)))
	if errors.Is(err, sql.ErrNoRows) {
		return v, d, fault.New(fault.NotFound, "%s has no delivery of this id here", client)
	}
	if err == nil {
		d.message = id
		err = x.name(ctx, &v, &d)
	}
	return v, d, storeFault(err, "looking for the delivery")
}

// name adds to a delivery what only the records tell.
func (x *Exchange) name(ctx context.Context, v *Delivery, d *delivery) error {
	if err := x.tell(ctx, d); err != nil {
		return err
	}
	v.ID, v.Conversation = d.message, d.talk
	if d.state != deliveryOpen {
		v.Answer = "/async/" + escape(d.message) + "/answer"
	}
	if d.behind < 0 {
		return nil
	}
	r, err := x.requestAt(ctx, d.behind)
	if err == nil && r != nil {
		v.Behind = r.ID
	}
	return err
}

// showDelivery reads a row of deliveryRows, but for what name adds.
func (x *Exchange) showDelivery(row interface{ Scan(...any) error }) (Delivery, delivery, error) {
	var d delivery
	var leased, tries int
	var code fault.Code
	var behind int64
	if err := d.scan(row, &leased, &behind, &tries, &code); err != nil {
		return Delivery{}, d, err
	}
	d.behind = behind
	v := Delivery{
		Client: d.client, Service: d.service,
		Attempts: d.attempts, Accepted: d.accepted, Code: d.code, Pushes: d.pushes,
	}
	switch {
	case d.state != deliveryOpen:
		v.Status = d.final()
	case behind >= 0 && tries > 0:
		v.Status, v.Code = StatusBlocked, code
	case leased == 1 || x.sending(d.id):
		v.Status = StatusSending
	default:
		v.Status = StatusWaiting
	}
	if d.state == deliveryOpen {
		v.Expires = d.expires
		if behind < 0 && v.Status == StatusWaiting {
			until, code := x.laneUntil(d.lane)
			v.Next = d.next
			if until.After(v.Next) {
				v.Next, v.Code = until.UTC().Truncate(time.Millisecond), code
			}
		}
	} else {
		v.Ended = d.changed
	}
	if d.pushed.Valid {
		v.Pushed = time.UnixMilli(d.pushed.Int64).UTC()
	}
	if v.Code != "" {
		e := fault.Lookup(v.Code)
		v.Message, v.MessageAr = e.What.En+" "+e.Do.En, e.What.Ar+" "+e.Do.Ar
	}
	return v, d, nil
}

// sending tells whether this process is at a delivery.
func (x *Exchange) sending(id []byte) bool {
	x.senders.mu.Lock()
	defer x.senders.mu.Unlock()
	return x.senders.busy[string(id)]
}

// laneUntil tells until when a lane is left alone, and why.
func (x *Exchange) laneUntil(name string) (time.Time, fault.Code) {
	x.senders.mu.Lock()
	defer x.senders.mu.Unlock()
	if l := x.senders.lanes[name]; l != nil {
		return l.until, l.code
	}
	return time.Time{}, ""
}

// DeliveryFilter chooses deliveries; its zero value chooses all.
type DeliveryFilter struct {
	Client       union.SubsystemID
	Conversation string
	Status       Status
}

// Unpushed counts, by client, the outcomes that did not reach the address that
// the client named, and are still tried.
func (x *Exchange) Unpushed(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	err := x.deps.DB.Read(ctx, func(tx *store.Tx) error {
		clear(out)
		rows, err := tx.Query(ctx, `SELECT client, COUNT(*) FROM exchange_delivery WHERE work <> 0 AND work = 2 AND pushes > 0 GROUP BY client`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var client string
			var n int
			if err := rows.Scan(&client, &n); err != nil {
				return err
			}
			out[client] = n
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("counting outcomes to push: %w", err)
	}
	return out, nil
}

// Deliveries lists the deliveries of this node's clients, the oldest first, at
// most most of them.
func (x *Exchange) Deliveries(ctx context.Context, f DeliveryFilter, most int) ([]Delivery, error) {
	where, args := ` WHERE 1 = 1`, []any(nil)
	if !f.Client.IsZero() {
		where, args = where+` AND d.client = ?`, append(args, f.Client.String())
	}
	if f.Conversation != "" {
		where, args = where+` AND d.conversation = ?`, append(args, x.talkKey(f.Conversation))
	}
	state, ended := map[Status]int{StatusSkipped: deliverySkipped, StatusExpired: deliveryExpired, StatusRefused: deliveryRefused, StatusAnswered: deliveryAnswered}[f.Status]
	switch {
	case ended:
		where, args = where+` AND d.state = ?`, append(args, state)
	case f.Status != "": // which of the open ones have it is seen row by row
		where += ` AND d.work = 1`
	}
	where += ` ORDER BY d.asked`
	if ended || f.Status == "" {
		where, args = where+` LIMIT ?`, append(args, most)
	}
	out := []Delivery{}
	var raw []delivery
	err := x.deps.DB.Read(ctx, func(tx *store.Tx) error {
		out, raw = out[:0], raw[:0]
		rows, err := tx.Query(ctx, deliveryRows+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for len(out) < most && rows.Next() {
			v, d, err := x.showDelivery(rows)
			if err != nil {
				return err
			}
			if f.Status == "" || f.Status == v.Status {
				out, raw = append(out, v), append(raw, d)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("listing deliveries: %w", err)
	}
	for i := range out {
		if err := x.name(ctx, &out[i], &raw[i]); err != nil && !away(err) {
			return nil, err
		}
	}
	return out, nil
}

// decided is what a journalled decision of a person says.
type decided struct {
	Action   string            `json:"action"`
	Client   union.SubsystemID `json:"client"`
	ID       string            `json:"id"`
	Happened *bool             `json:"happened,omitempty"`
	By       string            `json:"by"`
	Reason   string            `json:"reason"`
}

// decision journals what a person decided about a call, together with what
// comes of it.
func (x *Exchange) decision(ctx context.Context, d decided, in func(context.Context, *store.Tx, int64) error) error {
	if d.By == "" || strings.TrimSpace(d.Reason) == "" || len(d.By)+len(d.Reason) > message.MaxTextField {
		return fault.New(fault.BadRequest, "a decision names who made it and why, in at most %d bytes", message.MaxTextField)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return fault.Wrap(fault.BadRequest, err, "%v", err)
	}
	_, err = x.deps.Journal.Append(ctx, journal.Record{Kind: journal.Decision, Key: d.ID, At: x.deps.Now(), Class: "exchange", Local: b, In: in})
	return storeFault(err, "recording a decision")
}

// SkipDelivery ends a delivery by a person's decision, so that the rest of its
// conversation goes on. An answer that is under way may still come: then the
// delivery is answered after all.
func (x *Exchange) SkipDelivery(ctx context.Context, client union.SubsystemID, id, by, reason string) error {
	_, d, err := x.findDelivery(ctx, client, id)
	switch {
	case err != nil:
		return err
	case d.state != deliveryOpen:
		return fault.New(fault.Conflict, "the delivery has ended")
	}
	err = x.decision(ctx, decided{Action: "delivery.skip", Client: client, ID: id, By: by, Reason: reason}, func(ctx context.Context, tx *store.Tx, leaf int64) error {
		return x.end(ctx, tx, &d, ending{state: deliverySkipped, code: fault.DeliverySkipped}, leaf)
	})
	switch {
	case errors.Is(err, errEnded):
		return fault.New(fault.Conflict, "the delivery has just ended")
	case err != nil:
		return err
	case d.spool != "":
		x.discard(&body{spool: d.spool})
	}
	x.senders.stir()
	return nil
}

// leaveToOutbox ends the stages of a call that is delivered later: it is made
// durable, and the client is told so.
func (x *Exchange) leaveToOutbox(ctx context.Context, c *asking) error {
	if !c.later {
		return nil
	}
	if err := x.recordRequest(ctx, c); err != nil {
		return err
	}
	x.senders.stir()
	now := time.UnixMilli(x.deps.Now().UnixMilli()).UTC()
	c.earlier = c.acceptedReply(Delivery{
		ID: c.ID, Client: c.Client, Service: c.Service, Conversation: c.Conversation, Status: StatusWaiting,
		Accepted: now, Expires: time.UnixMilli(c.request.NotAfter).UTC(),
	}, c.request.RequestID)
	return nil
}

// waiting tells a client that repeats an id which the outbox has how far it is.
func (x *Exchange) waiting(ctx context.Context, c *asking) (*Reply, error) {
	v, d, err := x.findDelivery(ctx, c.Client, c.ID)
	if err != nil {
		return nil, err
	}
	if d.state != deliveryOpen {
		return nil, fault.New(fault.InFlight, "the delivery of this id has just ended; ask again")
	}
	return c.acceptedReply(v, d.request), nil
}

// acceptedReply is 202 (RFC 9110 §15.3.3) with the address where the rest is told.
func (c *asking) acceptedReply(v Delivery, requestID string) *Reply {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts, numbers and times alone
	}
	hs := []message.Header{
		{Name: "content-type", Value: "application/json"},
		{Name: "location", Value: "/async/" + escape(c.ID)},
	}
	if c.Async { // RFC 7240 §3: only what was asked for is confirmed
		hs = append(hs, message.Header{Name: "preference-applied", Value: "respond-async"})
	}
	return &Reply{
		ID: c.ID, RequestID: requestID, Client: c.Client, Service: c.Service, Status: http.StatusAccepted, Headers: hs,
		Body: &body{size: int64(len(b)), inline: b, sha256: sha256.Sum256(b)}, Keep: true,
	}
}

// respondAsync tells whether a client asked to fetch the answer later
// (RFC 7240 §4.1), and what is left of its preferences without that and
// without wait (§4.3), which means nothing else here. What is not formed as
// §2 says asks for nothing.
func respondAsync(lines []string) (asked bool, rest []string) {
	for _, line := range lines {
		items, ok := listed(line)
		if !ok {
			rest = append(rest, line)
			continue
		}
		var left []string
		for _, item := range items {
			name, _, _ := strings.Cut(item, ";")
			name, value, _ := strings.Cut(name, "=")
			name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
			switch {
			case name == "respond-async" && (value == "" || value == `""`): // RFC 7240 §2: an empty value is none
				asked = true
			case name == "wait":
			default:
				left = append(left, item)
			}
		}
		if len(left) > 0 {
			rest = append(rest, strings.Join(left, ", "))
		}
	}
	if !asked {
		return false, lines
	}
	return true, rest
}

// listed parts a header's list at its commas (RFC 9110 §5.6.1), but for those
// in quoted strings; false where a quote has no end.
func listed(line string) (items []string, ok bool) {
	from, quoted := 0, false
	add := func(to int) {
		if item := strings.Trim(line[from:to], " \t"); item != "" {
			items = append(items, item)
		}
		from = to + 1
	}
	for i := 0; i < len(line); i++ {
		switch {
		case quoted && line[i] == '\\':
			i++
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ',' && !quoted:
			add(i)
		}
	}
	if quoted {
		return nil, false
	}
	add(len(line))
	return items, true
}

// escape writes an X-Road-Id as one segment of a path.
func escape(id string) string { return url.PathEscape(id) }

// serveAsync answers GET /async/{id} with the status of a client's delivery,
// and GET /async/{id}/answer with what a call that waits would have got.
func (x *Exchange) serveAsync(w http.ResponseWriter, r *http.Request) {
	client, door, leave, err := x.admit(r)
	defer leave()
	if err != nil {
		x.problem(w, err)
		return
	}
	rest, _ := strings.CutPrefix(r.URL.EscapedPath(), "/async/")
	segment, answer := strings.CutSuffix(rest, "/answer")
	id, err := url.PathUnescape(segment)
	var v Delivery
	var d delivery
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		err = fault.New(fault.MethodNotAllowed, "a delivery is read with GET")
	case err != nil || !message.ValidID(id) || strings.Contains(segment, "/"):
		err = fault.New(fault.BadRequest, "an id has 1 to %d visible ASCII characters, percent-encoded as one segment", message.MaxID)
	default:
		v, d, err = x.findDelivery(r.Context(), client, id)
	}
	if err != nil {
		x.problem(w, x.recordReading(r.Context(), reading{Action: "delivery.read", By: client.String(), Door: door, ID: id}, err))
		return
	}
	if d.state == deliveryOpen {
		wait := max(1, min(60, int64(v.Next.Sub(x.deps.Now()).Seconds())+1))
		w.Header().Set("Retry-After", strconv.FormatInt(wait, 10))
	}
	if answer {
		reply, err := x.outcomeOf(r.Context(), &d)
		if err != nil {
			if fault.CodeOf(err) != fault.DeliveryPending { // that is no refusal
				err = x.turnAway(r.Context(), Ask{Client: client, Door: door, Service: d.service, ID: id, Method: r.Method, Path: "/async/" + rest, In: x.deps.Now()}, err)
			}
			x.problem(w, err)
			return
		}
		x.writeReply(w, r, reply)
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		x.problem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
}
