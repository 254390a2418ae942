package exchange

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

// The kinds of value that Inspect names.
const (
	PlaceBody     = "body"     // of a large body: its file, and the row that keeps it
	PlaceClaim    = "claim"    // an id that may not be used twice
	PlaceDelivery = "delivery" // a row of the outbox
	PlaceSpool    = "spool"    // which spool belongs to which database
	PlaceTrace    = "trace"    // a row of the index of whose data records are about
)

// Wrong is one stored value that is not what was written.
type Wrong struct {
	Place  string
	Name   string // an X-Road-Id stands in none
	Detail string
}

// Inspected is what Inspect looked at.
type Inspected struct {
	Bodies, Bytes      int64
	Claims, Deliveries int64
	Dark               int64 // of these, those whose records are ended, erased or away: only that they are there was seen
	Wrong              []Wrong
	Omitted            int64
}

// inspector looks through what is stored beside the journal.
type inspector struct {
	Inspected
	x     *Exchange
	large []large
	seen  func(place string, done int64)
}

// maxWrong bounds what one inspection names.
const maxWrong = 1000

func (i *inspector) add(place, name, format string, args ...any) {
	if len(i.Wrong) >= maxWrong {
		i.Omitted++
		return
	}
	i.Wrong = append(i.Wrong, Wrong{place, name, fmt.Sprintf(format, args...)})
}

// inspectStep is how many rows are read at a time.
const inspectStep = 500

// Large collects which records name a large body.
type Large struct{ named []large }

type large struct {
	index int64
	at    time.Time
	spool string
}

// See is shown all records: journal.Inspection.Record.
func (l *Large) See(s journal.Stored) {
	if n, err := readNote(s.Local); err == nil && n.Spool != "" {
		l.named = append(l.named, large{s.Index, s.At, n.Spool})
	}
}

// Inspect holds claims, deliveries, spooled bodies and the trace's index against
// the records that they are about, and these, of which bodies were collected,
// against what is kept. It needs no running exchange: records, their keys, names
// (the keyed hash of Deps.Names) and spool are handed in. The error is only of
// reading.
func Inspect(ctx context.Context, db *store.DB, records *journal.Journal, keys journal.Cipher, names interface{ Sum(b []byte) [32]byte }, spool *seal.Spool, bodies *Large, seen func(place string, done int64)) (Inspected, error) {
	i := &inspector{large: bodies.named, x: &Exchange{cfg: Config{traceBlock: traceBlock}, deps: Deps{DB: db, Journal: records, Records: keys, Names: names, Spool: spool}}, seen: seen}
	for _, part := range []func(context.Context) error{i.place, i.bodies, i.bodiless, i.claims, i.deliveries, i.traces} {
		if err := part(ctx); err != nil {
			return i.Inspected, fmt.Errorf("looking through what stands beside the journal: %w", err)
		}
	}
	return i.Inspected, nil
}

// traces derives the trace's index once more.
func (i *inspector) traces(ctx context.Context) error {
	return i.x.checkTrace(ctx, func(block int64) { i.seen(PlaceTrace, block*traceBlock) }, func(block int64) {
		i.add(PlaceTrace, strconv.FormatInt(block*traceBlock, 10), "the %d records from here on give another row", traceBlock)
	})
}

// place holds the names of database and spool against each other.
func (i *inspector) place(ctx context.Context) error {
	known := map[string]string{}
	rows, err := i.x.deps.DB.Query(ctx, `SELECT name, value FROM exchange_place`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		known[name] = value
	}
	if err := rows.Err(); err != nil || len(known) == 0 {
		return err
	}
	folder, owner, err := i.x.deps.Spool.Marked()
	switch {
	case errors.Is(err, fs.ErrNotExist) || fault.CodeOf(err) == fault.Corrupt:
		i.add(PlaceSpool, "mark", "%v", err)
	case err != nil:
		return err
	case folder != known["spool"] || owner != known["database"] || len(known) != 2:
		i.add(PlaceSpool, "mark", "the spool's mark says %q, the database %q", folder+" "+owner, known["spool"]+" "+known["database"])
	}
	return nil
}

// bodies reads every body that is kept to its end.
func (i *inspector) bodies(ctx context.Context) error {
	type kept struct {
		id   string
		leaf int64
	}
	for after := ""; ; {
		var step []kept
		err := i.x.deps.DB.Read(ctx, func(tx *store.Tx) error {
			step = step[:0]
			rows, err := tx.Query(ctx, `SELECT id, leaf FROM exchange_spool WHERE id > ? ORDER BY id LIMIT ?`, after, inspectStep)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var k kept
				if err := rows.Scan(&k.id, &k.leaf); err != nil {
					return err
				}
				step = append(step, k)
			}
			return rows.Err()
		})
		if err != nil || len(step) == 0 {
			return err
		}
		for _, k := range step {
			after = k.id
			if err := i.body(ctx, k.id, k.leaf); err != nil {
				return err
			}
		}
	}
}

func (i *inspector) body(ctx context.Context, id string, leaf int64) error {
	if leaf < 0 {
		s, known, err := i.record(ctx, PlaceBody, id, forgotten(leaf))
		if err != nil || s.Erased {
			return err // it is about to go
		}
		if kept, err := i.stillKept(ctx, id); err != nil || !kept || !known {
			return err
		}
		i.add(PlaceBody, id, "its row says that record %d was erased, which is there", forgotten(leaf))
		return nil
	}
	i.Bodies++
	i.seen(PlaceBody, i.Bodies)
	r, err := i.x.deps.Spool.Open(id)
	if err == nil {
		var n int64
		n, err = io.Copy(io.Discard, r)
		i.Bytes += n
		err = errors.Join(err, r.Close())
	}
	switch {
	case errors.Is(err, seal.ErrDestroyed):
		i.Dark++
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if kept, err := i.stillKept(ctx, id); err != nil || !kept {
			return err
		}
		i.add(PlaceBody, id, "its file is not in the spool")
		return nil
	case errors.Is(err, seal.ErrDamaged):
		i.add(PlaceBody, id, "%v", err)
		return nil
	case err != nil:
		// An id that is none, or a file that the disk does not give.
		i.add(PlaceBody, id, "it cannot be read: %v", err)
		return nil
	}
	s, known, err := i.record(ctx, PlaceBody, id, leaf)
	if err != nil || !known {
		return err
	}
	n, err := readNote(s.Local)
	if err == nil && n.Spool == id {
		return nil
	}
	var aside int
	err = i.x.deps.DB.QueryRow(ctx, `SELECT COUNT(*) FROM exchange_delivery WHERE spool = ? AND (asked = ? OR answered = ?)`, id, leaf, leaf).Scan(&aside)
	if err != nil {
		return err
	}
	if kept, err := i.stillKept(ctx, id); err != nil || !kept || aside > 0 {
		return err
	}
	i.add(PlaceBody, id, "its row names record %d, which is not about it", leaf)
	return nil
}

// bodiless looks for records whose large body nothing keeps.
func (i *inspector) bodiless(ctx context.Context) error {
	for _, l := range i.large {
		// The body was there a little earlier: its month may have ended before.
		if seal.PeriodOf(l.at.Add(-bodyAhead)) != seal.PeriodOf(l.at) {
			continue
		}
		if kept, err := i.stillKept(ctx, l.spool); err != nil {
			return err
		} else if kept {
			continue
		}
		if now, err := i.x.deps.Journal.Get(ctx, l.index); err != nil || now.Erased {
			continue // meanwhile
		}
		i.add(PlaceBody, l.spool, "nothing keeps it, and record %d names it", l.index)
	}
	return ctx.Err()
}

// bodyAhead is by how much a body may be older than the record that names it.
const bodyAhead = 24 * time.Hour

// stillKept asks again: the row may have gone since it was read.
func (i *inspector) stillKept(ctx context.Context, id string) (bool, error) {
	var n int
	err := i.x.deps.DB.QueryRow(ctx, `SELECT COUNT(*) FROM exchange_spool WHERE id = ?`, id).Scan(&n)
	return n > 0, err
}

// record reads a record that a row is about; known is false where nothing can
// be told from it, which is no fault where it is ended, erased or archived
// elsewhere. One that is damaged the journal names.
func (i *inspector) record(ctx context.Context, place, name string, leaf int64) (s journal.Stored, known bool, err error) {
	s, err = i.x.deps.Journal.Get(ctx, leaf)
	switch fault.CodeOf(err) {
	case "":
		if s.Erased {
			i.Dark++
		}
		return s, !s.Erased, nil
	case fault.Archived, fault.Corrupt:
		i.Dark++
		return s, false, nil
	case fault.NotFound:
		i.add(place, name, "it names record %d, which the log does not have", leaf)
		return s, false, nil
	}
	return s, false, err
}

// request reads the request that a row is about.
func (i *inspector) request(ctx context.Context, place, name string, leaf int64, kind journal.Kind) (*message.Request, error) {
	s, known, err := i.record(ctx, place, name, leaf)
	if err != nil || !known {
		return nil, err
	}
	head, _, err := message.Open(s.Envelope)
	if err == nil {
		var r *message.Request
		if r, err = message.ParseRequest(head); err == nil && s.Kind == kind {
			return r, nil
		}
	}
	i.add(place, name, "it names record %d as its request, which is another", leaf)
	return nil, nil
}

// claims holds each claim against the request that made it and the record that
// ended it. Whether one without an answer is open or of unknown outcome, which
// process has it, and since when, no record tells.
func (i *inspector) claims(ctx context.Context) error {
	type row struct {
		side, state, asked int64
		answered           sql.NullInt64
		id, content        []byte
	}
	at := row{id: []byte{}}
	for {
		var step []row
		err := i.x.deps.DB.Read(ctx, func(tx *store.Tx) error {
			step = step[:0]
			rows, err := tx.Query(ctx, `SELECT side, id, content, state, asked, answered FROM exchange_claim
				WHERE (side, id) > (?, ?) ORDER BY side, id LIMIT ?`, at.side, at.id, inspectStep)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var r row
				if err := rows.Scan(&r.side, &r.id, &r.content, &r.state, &r.asked, &r.answered); err != nil {
					return err
				}
				step = append(step, r)
			}
			return rows.Err()
		})
		if err != nil || len(step) == 0 {
			return err
		}
		for _, c := range step {
			at = c
			i.Claims++
			i.seen(PlaceClaim, i.Claims)
			name := fmt.Sprintf("%d/%x", c.side, c.id)
			kind := journal.RequestReceived
			if c.side == sideCaller {
				kind = journal.RequestSent
			}
			if c.side != sideCaller && c.side != sideProvider || c.state < claimOpen || c.state > claimSettled || len(c.content) > 0 {
				i.add(PlaceClaim, name, "its side, state or content is none that is written")
				continue
			}
			r, err := i.request(ctx, PlaceClaim, name, c.asked, kind)
			if err != nil {
				return err
			}
			if r == nil {
				continue
			}
			if string(i.x.claimKey(r.Client, r.ID)) != string(c.id) {
				if kept, err := i.stillClaimed(ctx, c.side, c.id, c.asked); err != nil || !kept {
					return err
				}
				i.add(PlaceClaim, name, "the request in record %d has another id", c.asked)
				continue
			}
			if err := i.answered(ctx, PlaceClaim, name, r, c.state == claimAnswered || c.state == claimSettled, c.answered); err != nil {
				return err
			}
		}
	}
}

// stillClaimed asks again: the claim may have been taken over since.
func (i *inspector) stillClaimed(ctx context.Context, side int64, id []byte, asked int64) (bool, error) {
	var n int
	err := i.x.deps.DB.QueryRow(ctx, `SELECT COUNT(*) FROM exchange_claim WHERE side = ? AND id = ? AND asked = ?`, side, id, asked).Scan(&n)
	return n > 0, err
}

// answered holds the end of a call against its record.
func (i *inspector) answered(ctx context.Context, place, name string, r *message.Request, ended bool, leaf sql.NullInt64) error {
	if !leaf.Valid {
		if ended {
			i.add(place, name, "it has ended, yet names no record of that")
		}
		return nil
	}
	s, known, err := i.record(ctx, place, name, leaf.Int64)
	if err != nil || !known {
		return err
	}
	if s.Key != r.ID || s.Kind == journal.RequestSent || s.Kind == journal.RequestReceived {
		i.add(place, name, "it names record %d as its end, which is another's", leaf.Int64)
	} else if a := faultOf(s); (s.Kind == journal.AnswerSent || s.Kind == journal.AnswerReceived) && a == "" && !ended {
		i.add(place, name, "it is said not to have ended, yet record %d is its answer", leaf.Int64)
	}
	return nil
}

// faultOf is why an answer is none of a service; "" where it is.
func faultOf(s journal.Stored) fault.Code {
	head, _, err := message.Open(s.Envelope)
	if err != nil {
		return fault.Corrupt
	}
	a, err := message.ParseAnswer(head)
	if err != nil {
		return fault.Corrupt
	}
	return fault.Code(a.Fault)
}

// deliveries holds each row of the outbox against its records. When it is tried
// next, how often it was, by whom, and since when, no record tells.
func (i *inspector) deliveries(ctx context.Context) error {
	for after := []byte{}; ; {
		var step []delivery
		var broken [][]byte
		err := i.x.deps.DB.Read(ctx, func(tx *store.Tx) error {
			step, broken = step[:0], broken[:0]
			rows, err := tx.Query(ctx, `SELECT `+deliveryColumns+` FROM exchange_delivery d WHERE d.id > ? ORDER BY d.id LIMIT ?`, after, inspectStep)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var d delivery
				if err := d.scan(rows); err != nil && d.id == nil {
					return err
				} else if err != nil {
					broken = append(broken, d.id)
				}
				step = append(step, d)
			}
			return rows.Err()
		})
		if err != nil || len(step) == 0 {
			return err
		}
		for _, id := range broken {
			i.add(PlaceDelivery, fmt.Sprintf("%x", id), "its client or service is none")
		}
		for _, d := range step {
			after = d.id
			i.Deliveries++
			i.seen(PlaceDelivery, i.Deliveries)
			if err := i.delivery(ctx, &d); err != nil {
				return err
			}
		}
	}
}

func (i *inspector) delivery(ctx context.Context, d *delivery) error {
	name := fmt.Sprintf("%x", d.id)
	if d.state < deliveryOpen || d.state > deliveryAnswered || d.work < workNone || d.work > workKeep || (d.state == deliveryOpen) != (d.work == workDeliver) {
		i.add(PlaceDelivery, name, "its state and its work do not go together")
		return nil
	}
	if known := fault.Lookup(d.code); d.code != "" && known.Code != d.code {
		i.add(PlaceDelivery, name, "its fault is none of the catalogue")
	}
	r, err := i.request(ctx, PlaceDelivery, name, d.asked, journal.RequestSent)
	if err != nil || r == nil {
		return err
	}
	lane := d.lane
	switch d.work {
	case workDeliver:
		lane = string(r.Service.State)
	case workPush:
		lane = r.Client.String()
	}
	switch {
	case string(i.x.claimKey(r.Client, r.ID)) != string(d.id):
		i.add(PlaceDelivery, name, "the request in record %d has another id", d.asked)
	case r.Client != d.client || r.Service != d.service || r.RequestID != d.request || i.x.talkKey(r.Conversation) != d.conversation || lane != d.lane:
		i.add(PlaceDelivery, name, "the request in record %d is of another client, service or conversation", d.asked)
	case d.spool != "":
		if kept, err := i.stillKept(ctx, d.spool); err != nil {
			return err
		} else if !kept {
			i.add(PlaceDelivery, name, "it names a body that is not kept")
		}
	}
	return i.answered(ctx, PlaceDelivery, name, r, d.state == deliveryAnswered, d.answered)
}
