package exchange

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Asynchronous delivery. A call that need not be answered at once is sealed
// and journalled like any other, and put into the outbox in the transaction of
// its record: from then on it ends in exactly one way, whatever stops or
// starts. delivery_run.go hands out the work, delivery_send.go tries a
// delivery, delivery_push.go brings the outcome to a client that wants it
// brought, delivery_door.go is what clients and administrators see,
// delivery_prune.go forgets what ended long ago.

// The states of a delivery. All but the first are final, but for an answer
// that comes after the delivery was given up: what was done is what counts.
const (
	deliveryOpen     = 1
	deliverySkipped  = 2
	deliveryExpired  = 3
	deliveryRefused  = 4
	deliveryAnswered = 5
)

// What is left to do about a delivery. The numbers stand in queries as they
// are, so that partial indexes serve them.
const (
	workNone    = 0
	workDeliver = 1
	workPush    = 2
	workKeep    = 3 // nothing, until the body may be forgotten
)

// untilTold is how long an outcome waits for a part of this binary: until it
// takes it.
const untilTold = 100 * 365 * 24 * time.Hour

// outbox stands for the process in the claim of a call that waits for its
// delivery: no call beside it may take the id over.
const outbox = "outbox"

// delivery is a row of the outbox.
type delivery struct {
	id           []byte
	client       union.SubsystemID
	message      string // read from the record, see tell
	request      string
	service      union.ServiceID
	conversation string // its hash
	talk         string // what it is called, see tell
	behind       int64  // leaf of the first of its conversation; -1 where nobody is before it, or that was not asked
	asked        int64
	answered     sql.NullInt64
	state, work  int
	lane         string
	attempts     int
	pushes       int
	next         time.Time
	expires      time.Time // of the present work
	pushed       sql.NullInt64
	lease        string
	code         fault.Code
	spool        string
	accepted     time.Time
	changed      time.Time
}

const deliveryColumns = `d.id, d.client, d.request, d.service, d.conversation, d.asked, d.answered, d.state, d.work,
	d.lane, d.attempts, d.pushes, d.next_at, d.expires_at, d.pushed_at, d.lease, d.code, d.spool, d.accepted_at, d.changed_at`

// scan reads deliveryColumns, and more where there is more.
func (d *delivery) scan(row interface{ Scan(...any) error }, more ...any) error {
	var client, service string
	var next, expires, accepted, changed int64
	d.behind = -1
	err := row.Scan(append([]any{&d.id, &client, &d.request, &service, &d.conversation, &d.asked, &d.answered, &d.state, &d.work,
		&d.lane, &d.attempts, &d.pushes, &next, &expires, &d.pushed, &d.lease, &d.code, &d.spool, &accepted, &changed}, more...)...)
	if err != nil {
		return err
	}
	if d.client, err = union.ParseClient(client); err != nil {
		return err
	}
	if d.service, err = union.ParseService(service); err != nil {
		return err
	}
	d.next, d.expires = time.UnixMilli(next).UTC(), time.UnixMilli(expires).UTC()
	d.accepted, d.changed = time.UnixMilli(accepted).UTC(), time.UnixMilli(changed).UTC()
	return nil
}

// tell reads from a delivery's record what no column tells: its id, and which
// conversation it is of. Where its retention has ended they stay empty.
func (x *Exchange) tell(ctx context.Context, d *delivery) error {
	if d.message != "" && (d.conversation == "" || d.talk != "") {
		return nil
	}
	r, err := x.requestAt(ctx, d.asked)
	if err == nil && r != nil {
		d.message, d.talk = r.ID, r.Conversation
	}
	return err
}

// talkKey stands for a conversation in the clear; "" for none.
func (x *Exchange) talkKey(conversation string) string {
	if conversation == "" {
		return ""
	}
	h := x.deps.Names.Sum([]byte("falaj conversation v1\x00" + conversation))
	return hex.EncodeToString(h[:16])
}

// accept puts a call into the outbox, in the transaction of its record and
// after its id was claimed. One that stands behind another of its conversation
// is not due before that one has ended: it has nothing to do until it expires.
func (x *Exchange) accept(ctx context.Context, tx *store.Tx, c *asking, leaf int64) error {
	r, now := c.request, x.deps.Now().UnixMilli()
	id, next, spool, talk := x.claimKey(r.Client, r.ID), now, "", x.talkKey(r.Conversation)
	if c.offer.DigestOnly && c.Body != nil {
		spool = c.Body.spool
	}
	if talk != "" {
		var before int64
		err := tx.QueryRow(ctx, `SELECT asked FROM exchange_delivery WHERE work = 1 AND conversation <> ''
			AND client = ? AND service = ? AND conversation = ? LIMIT 1`, r.Client.String(), r.Service.String(), talk).Scan(&before)
		if err == nil {
			next = r.NotAfter
		} else if !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("looking for earlier messages of the conversation: %w", err)
		}
	}
	for _, s := range []struct {
		query string
		args  []any
	}{
		// An earlier delivery of the id has ended without an answer, or the
		// claim would not be ours.
		{`DELETE FROM exchange_spool WHERE id IN (SELECT spool FROM exchange_delivery WHERE id = ?)`, []any{id}},
		{`DELETE FROM exchange_delivery WHERE id = ?`, []any{id}},
		{`INSERT INTO exchange_delivery (id, client, request, service, conversation, asked, answered, state, work,
			lane, attempts, pushes, next_at, expires_at, pushed_at, lease, code, spool, accepted_at, changed_at)
			VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, 0, 0, ?, ?, NULL, '', '', ?, ?, ?)`,
			[]any{id, r.Client.String(), r.RequestID, r.Service.String(), talk, leaf, deliveryOpen, workDeliver,
				string(r.Service.State), next, r.NotAfter, spool, now, now}},
		{`UPDATE exchange_claim SET process = ? WHERE side = ? AND id = ?`, []any{outbox, sideCaller, id}},
	} {
		if _, err := tx.Exec(ctx, s.query, s.args...); err != nil {
			return fmt.Errorf("putting a call into the outbox: %w", err)
		}
	}
	return x.holdAside(ctx, tx, spool, leaf)
}

// aside puts a body of which only the digest will be kept into the spool, for
// as long as the delivery needs it.
func (x *Exchange) aside(b *body, offer directory.Service) error {
	if !offer.DigestOnly || b == nil || b.size == 0 || b.spool != "" {
		return nil
	}
	s, err := x.spool(bytes.NewReader(b.inline), b.size, class(offer), false)
	if err != nil {
		return err
	}
	b.spool, b.inline = s.spool, nil
	return nil
}

func (x *Exchange) holdAside(ctx context.Context, tx *store.Tx, spool string, leaf int64) error {
	if spool == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, `INSERT INTO exchange_spool (id, leaf, kept_at) VALUES (?, ?, ?)`, spool, leaf, x.deps.Now().UnixMilli()); err != nil {
		return fmt.Errorf("keeping a body for its delivery: %w", err)
	}
	return nil
}

// errEnded tells that a delivery has already ended another way; nothing was
// written.
var errEnded = errors.New("the delivery has ended")

// ending is how a delivery ends.
type ending struct {
	state int
	code  fault.Code // why, where no service answered
	told  bool       // the record is a message: what a client is to be given
	tried bool       // it took another attempt
	free  bool       // the provider says that nothing happened: the id may be used anew
	spool string     // the answer's body, where only its digest is kept
}

// end writes a delivery's end in the transaction of the record that tells of
// it, and lets the next message of its conversation go.
func (x *Exchange) end(ctx context.Context, tx *store.Tx, d *delivery, e ending, leaf int64) error {
	now := x.deps.Now()
	work, lane, tried, below := workNone, d.lane, 0, deliveryOpen+1
	if e.spool != "" {
		work = workKeep
	}
	if x.outlet(d.client) != nil {
		work, lane = workPush, d.client.String()
	}
	keep := x.cfg.Answer
	if x.postedInside(d.client) {
		keep = untilTold
	}
	if e.tried {
		tried = 1
	}
	if e.state == deliveryAnswered {
		below = deliveryAnswered
	}
	res, err := tx.Exec(ctx, `UPDATE exchange_delivery SET state = ?, work = ?, lane = ?, answered = ?, attempts = attempts + ?, pushes = 0,
		next_at = ?, expires_at = ?, pushed_at = NULL, lease = '', code = ?, spool = ?, changed_at = ?
		WHERE id = ? AND asked = ? AND state < ?`,
		e.state, work, lane, sql.NullInt64{Int64: leaf, Valid: e.told}, tried,
		now.UnixMilli(), now.Add(keep).UnixMilli(), string(e.code), e.spool, now.UnixMilli(), d.id, d.asked, below)
	if err != nil {
		return fmt.Errorf("ending a delivery: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("ending a delivery: %w", err)
	} else if n == 0 {
		return errEnded
	}
	if err := x.endClaim(ctx, tx, d, e, leaf); err != nil {
		return err
	}
	if d.spool != "" { // the request's body: delivered, or wanted no more
		if _, err := tx.Exec(ctx, `DELETE FROM exchange_spool WHERE id = ?`, d.spool); err != nil {
			return fmt.Errorf("ending a delivery: %w", err)
		}
	}
	if err := x.holdAside(ctx, tx, e.spool, leaf); err != nil {
		return err
	}
	if d.conversation == "" {
		return nil
	}
	// Whoever is first now has its turn.
	_, err = tx.Exec(ctx, `UPDATE exchange_delivery SET next_at = ? WHERE asked = (SELECT MIN(asked) FROM exchange_delivery
		WHERE work = 1 AND conversation <> '' AND client = ? AND service = ? AND conversation = ?)`,
		now.UnixMilli(), d.client.String(), d.service.String(), d.conversation)
	if err != nil {
		return fmt.Errorf("letting the next message of a conversation go: %w", err)
	}
	return nil
}

// endClaim says what the end means for a client that sends the id again.
func (x *Exchange) endClaim(ctx context.Context, tx *store.Tx, d *delivery, e ending, leaf int64) error {
	var err error
	now := x.deps.Now().UnixMilli()
	switch {
	case e.state == deliveryAnswered: // it gets this answer
		_, err = tx.Exec(ctx, `UPDATE exchange_claim SET state = ?, answered = ?, changed_at = ? WHERE side = ? AND id = ?`,
			claimAnswered, leaf, now, sideCaller, d.id)
	case e.free: // it may ask what it likes
		_, err = tx.Exec(ctx, `DELETE FROM exchange_claim WHERE side = ? AND id = ? AND process = ?`, sideCaller, d.id, outbox)
	default: // it may ask the same again
		_, err = tx.Exec(ctx, `UPDATE exchange_claim SET process = '', changed_at = ? WHERE side = ? AND id = ? AND process = ?`,
			now, sideCaller, d.id, outbox)
	}
	if err != nil {
		return fmt.Errorf("ending a delivery's claim: %w", err)
	}
	return nil
}

// postpone writes that an attempt led to nothing yet, and when the next one
// is. It takes a transaction, or the DB where no record goes with it.
func (x *Exchange) postpone(ctx context.Context, tx interface {
	Exec(context.Context, string, ...any) (sql.Result, error)
}, d *delivery, code fault.Code, after time.Duration) error {
	now := x.deps.Now()
	counter := "attempts"
	if d.work == workPush {
		counter = "pushes"
	}
	_, err := tx.Exec(ctx, `UPDATE exchange_delivery SET `+counter+` = `+counter+` + 1, next_at = ?, lease = '', code = CASE WHEN state = 1 THEN ? ELSE code END
		WHERE id = ? AND asked = ? AND work = ? AND (lease = ? OR lease = '')`,
		now.Add(after).UnixMilli(), string(code), d.id, d.asked, d.work, x.process)
	if err != nil {
		return fmt.Errorf("postponing a delivery: %w", err)
	}
	return nil
}
