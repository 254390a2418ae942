package casework

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// format is the version of what crosses between halves.
const format = "case/1"

// Amendment is the message by which a half tells its facts anew; no definition
// has a message of this name.
const Amendment = "~facts"

// maxMessage bounds a message, in bytes.
const maxMessage = 512 << 10

// wire is a message as it crosses: POST …/casework/messages.
type wire struct {
	Format  string         `json:"falaj"`
	Case    string         `json:"case"`
	Service string         `json:"service"`
	Version int            `json:"version"`
	Number  int64          `json:"number"` // in this direction, from 1 on
	Message string         `json:"message"`
	At      time.Time      `json:"at"`               // case time at the sender
	Clock   int64          `json:"clock_s,omitzero"` // by how much case time is ahead there: in demonstrations alone
	Fields  jsontext.Value `json:"fields"`
}

// Heard is the answer to a message.
type Heard struct {
	Heard   int64    `json:"heard"` // messages of the sender that have been taken, without a gap
	Refusal *Refusal `json:"refusal,omitempty"`
}

var notReadable = union.Text{En: "The message is not what the definition says.", Ar: "الرسالة لا توافق التعريف."}

var notTheSame = union.Text{En: "The other half has heard another message under this number.", Ar: "سمع الشق الآخر رسالة أخرى بهذا الرقم."}
var notArrived = union.Text{En: "The message has not arrived for a long time; it is still being sent.", Ar: "لم تصل الرسالة منذ وقت طويل، ولا يزال إرسالها مستمراً."}

const (
	grace    = 7 * 24 * time.Hour       // in which a case that began in time is heard of
	longest  = 62 * 24 * time.Hour      // that a first message can have been under way
	fewTries = 5                        // after which a person is told
	maxClock = 200 * 365 * 24 * 60 * 60 // seconds
)

// plain is a refusal of another state as this one keeps it: bounded, and
// nothing in it but text.
func (r *Refusal) plain() *Refusal {
	out := &Refusal{Why: r.Why, Reason: plainText(r.Reason, 64), Detail: plainText(r.Detail, 256), Text: union.Text{En: plainText(r.Text.En, 1024), Ar: plainText(r.Text.Ar, 1024)}}
	switch definition.Why(r.Why) {
	case definition.Invalid, definition.Actors, definition.Unexpected, definition.Closed, definition.Refused:
	default:
		out.Why = string(definition.Invalid)
	}
	return out
}

func plainText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// messageID is the X-Road-Id of a message, and of its later tries.
func messageID(id string, number int64, tries int) string {
	s := id + "." + strconv.FormatInt(number, 10)
	if tries > 0 {
		s += "." + strconv.Itoa(tries)
	}
	return s
}

func parseMessageID(s string) (id string, number, tries int64, ok bool) {
	id, rest, ok := strings.Cut(s, ".")
	rest, again, more := strings.Cut(rest, ".")
	number, err := strconv.ParseInt(rest, 10, 64)
	if more && err == nil {
		tries, err = strconv.ParseInt(again, 10, 64)
	}
	return id, number, tries, ok && err == nil
}

// isCase tells whether a text can name a case: a UUID, written in one way.
func isCase(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}

// encode is the message's bytes: always the same ones.
func (c *Case) encode(ev *Event, s Sent) ([]byte, error) {
	return json.Marshal(wire{format, c.ID, c.Service, c.Version, s.Number, s.Message, ev.At, ev.Clock, s.Fields}, json.Deterministic(true))
}

// Hear takes a message of another state's half. It is sure to be kept when it
// returns without an error; a repeated one is answered as before.
func (e *Engine) Hear(ctx context.Context, from union.SubsystemID, body []byte) (Heard, error) {
	var m wire
	if len(body) > maxMessage {
		return Heard{}, fault.New(fault.TooLarge, "%d bytes; at most %d", len(body), maxMessage)
	}
	if err := json.Unmarshal(body, &m, json.RejectUnknownMembers(true)); err != nil || m.Format != format || m.Number < 1 || !isCase(m.Case) || m.Fields.Kind() != '{' {
		return Heard{}, fault.New(fault.CaseInvalid, "%s", format)
	}
	if m.Clock < -maxClock || m.Clock > maxClock || m.Clock != 0 && !e.cfg.Sandbox {
		return Heard{}, fault.New(fault.CaseInvalid, "clock_s: case time is ahead in demonstrations alone")
	}
	b, err := e.deps.Book()
	if err != nil {
		return Heard{}, err
	}
	if err := e.fromSystem(from); err != nil {
		return Heard{}, err
	}
	defer e.lock(m.Case)()
	for try := 1; ; try++ {
		h, err := e.hear(ctx, b, from.State, &m, body)
		if errors.Is(err, errStale) && try < staleTries {
			continue
		}
		return h, err
	}
}

func (e *Engine) hear(ctx context.Context, b Book, peer union.State, m *wire, body []byte) (Heard, error) {
	c, err := e.load(ctx, m.Case)
	switch {
	case fault.CodeOf(err) == fault.CaseUnknown && !errors.Is(err, errDark):
		if gone, err := e.buried(ctx, m.Case); err != nil || gone != nil {
			return Heard{m.Number, gone}, err
		}
		if c, err = e.opened(b, peer, m); err != nil {
			return Heard{}, err
		}
	case err != nil:
		return Heard{}, err
	case c.Peer != peer || c.Service != m.Service || c.Version != m.Version:
		return Heard{}, fault.New(fault.CaseUnknown, "").Arabic("")
	}
	switch {
	case m.Number <= c.Heard:
		return e.heardBefore(ctx, c, m)
	case m.Number > c.Heard+1:
		return Heard{Heard: c.Heard}, e.keepEarly(ctx, c, m, body)
	}
	first := Heard{}
	for {
		h := e.reading(c, m)
		ev, next, err := e.take(ctx, c, h)
		if err != nil {
			return Heard{}, err
		}
		if _, err := e.commit(ctx, c, next, ev, nil); err != nil {
			return Heard{}, err
		}
		if first.Heard == 0 {
			first.Refusal = ev.Refusal
		}
		c, first.Heard = next, next.Heard
		if m, err = e.early(ctx, c); err != nil || m == nil {
			return first, err
		}
	}
}

// opened is a case that begins with a message of the other half.
func (e *Engine) opened(b Book, peer union.State, m *wire) (*Case, error) {
	now := e.now()
	// A case that began on the last day of a version may be heard of later.
	if !b.Opens(m.Service, m.Version, peer, now) && !b.Opens(m.Service, m.Version, peer, now.Add(-grace)) {
		return nil, fault.New(fault.CaseVersion, "%.64q@%d: %s, %s", m.Service, m.Version, e.cfg.State, peer)
	}
	p, err := b.Program(m.Service, m.Version)
	if err != nil {
		return nil, err
	}
	d := p.Definition()
	for party := range d.Parties {
		if party != d.Opens {
			opened := m.At.UTC().Truncate(time.Millisecond)
			if opened.After(now) || opened.Before(now.Add(-longest)) {
				opened = now
			}
			return fresh(m.Case, m.Service, m.Version, party, peer, opened, p), nil
		}
	}
	return nil, fault.New(fault.CaseVersion, "%s@%d", m.Service, m.Version)
}

// reading is what a message is to the half that hears it.
func (e *Engine) reading(c *Case, m *wire) happening {
	d := c.program.Definition()
	h := happening{kind: KindMessage, trigger: m.Message, at: e.now(), message: m.Number, sent: m.At.UTC().Truncate(time.Millisecond)}
	var err error
	if h.fields, err = d.ReadValues(m.Fields); err != nil {
		h.refusal = &Refusal{Why: string(definition.Invalid), Text: notReadable, Detail: err.Error()}
	} else if of, ok := d.Messages[m.Message]; m.Message != Amendment && (!ok || of.From == c.Party) {
		h.refusal = &Refusal{Why: string(definition.Invalid), Text: notReadable, Detail: fmt.Sprintf("%.64q", m.Message)}
	}
	if m.Service != c.Service || m.Version != c.Version {
		h.refusal = &Refusal{Why: string(definition.Invalid), Text: notReadable, Detail: "service"}
	}
	if h.refusal != nil {
		h.fields = nil
	}
	return h
}

// heardBefore answers a message that was heard already, if it is the same one.
func (e *Engine) heardBefore(ctx context.Context, c *Case, m *wire) (Heard, error) {
	var leaf int64
	err := e.deps.DB.QueryRow(ctx, `SELECT v.leaf FROM casework_message m JOIN casework_event v ON v.case_id = m.case_id AND v.number = m.event
		WHERE m.case_id = ? AND m.mine = 0 AND m.number = ?`, c.ID, m.Number).Scan(&leaf)
	if err != nil {
		return Heard{}, fmt.Errorf("looking for message %d of case %s: %w", m.Number, c.ID, err)
	}
	ev, err := e.event(ctx, leaf)
	if err != nil {
		return Heard{}, err
	}
	if ev.Fields != nil {
		was, err := c.program.Definition().ReadValues(m.Fields)
		if err != nil {
			return Heard{}, fault.New(fault.IDConflict, "message %d", m.Number)
		}
		if now, err := was.AppendJSON(nil); err != nil || !bytes.Equal(now, ev.Fields) || ev.Trigger != m.Message {
			return Heard{}, fault.New(fault.IDConflict, "message %d", m.Number)
		}
	}
	return Heard{Heard: c.Heard, Refusal: ev.Refusal}, nil
}

// keepEarly keeps a message until those before it have come.
func (e *Engine) keepEarly(ctx context.Context, c *Case, m *wire, body []byte) error {
	var waiting int
	if err := e.deps.DB.QueryRow(ctx, `SELECT COUNT(*) FROM casework_message WHERE work = 2 AND peer = ?`, string(c.Peer)).Scan(&waiting); err != nil {
		return fmt.Errorf("counting early messages: %w", err)
	}
	if waiting >= e.cfg.Early {
		return fault.New(fault.Overloaded, "%d messages of %s wait for others", waiting, c.Peer)
	}
	now := e.deps.Now()
	sealed, err := e.deps.Records.Seal(nil, Class, now, body, earlyName(c.ID, c.Peer, m.Number))
	if err != nil {
		return err
	}
	_, err = e.deps.DB.Exec(ctx, `INSERT INTO casework_message (case_id, mine, number, event, work, tries, next_at, peer, body) VALUES (?, 0, ?, 0, 2, 0, ?, ?, ?)
		ON CONFLICT (case_id, mine, number) DO NOTHING`, c.ID, m.Number, now.UnixMilli(), string(c.Peer), sealed)
	if err != nil {
		return fmt.Errorf("keeping an early message: %w", err)
	}
	return nil
}

func earlyName(id string, peer union.State, number int64) []byte {
	return fmt.Appendf(nil, "case message %s %s %d", id, peer, number)
}

// early finds the next message among those that came before their turn.
func (e *Engine) early(ctx context.Context, c *Case) (*wire, error) {
	var sealed []byte
	var peer union.State
	err := e.deps.DB.QueryRow(ctx, `SELECT body, peer FROM casework_message WHERE case_id = ? AND mine = 0 AND number = ? AND work = 2`, c.ID, c.Heard+1).Scan(&sealed, &peer)
	if errors.Is(err, sql.ErrNoRows) || err == nil && peer != c.Peer {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("looking for early messages: %w", err)
	}
	body, err := e.deps.Records.Open(sealed, earlyName(c.ID, peer, c.Heard+1))
	if err != nil {
		return nil, err
	}
	m := new(wire)
	return m, json.Unmarshal(body, m, json.RejectUnknownMembers(true))
}

// Ended takes what became of a message: as exchange.Inside. It may be told
// more than once.
func (e *Engine) Ended(ctx context.Context, end exchange.End) error {
	id, number, tries, ok := parseMessageID(end.ID)
	if !ok {
		return nil // no message: nobody waits for it
	}
	var a Heard
	if end.Answer.Fault == "" && json.Unmarshal(end.Answer.Body, &a, json.RejectUnknownMembers(true)) == nil {
		switch {
		case end.Answer.Status == http.StatusOK && a.Heard < number && tries == 0:
			// One before it is still on its way, or lost: that this one is asked about
			// again will tell, and what was made of it.
			return e.again(ctx, e.cfg.Retry, `number = ? AND tries = ?`, id, number, tries)
		case end.Answer.Status == http.StatusOK && a.Heard < number:
			return e.again(ctx, e.cfg.Retry, `number > ? AND number <= ?`, id, a.Heard, number)
		case end.Answer.Status == http.StatusOK:
			return nil
		case end.Answer.Status == http.StatusConflict && a.Refusal != nil:
			return e.returned(ctx, id, number, a.Refusal.plain())
		}
	}
	if end.Answer.Fault == fault.IDConflict {
		// The other half heard something else under this number: one of the two is
		// not what it was, and no repetition mends that.
		return e.returned(ctx, id, number, &Refusal{Why: "conflict", Text: notTheSame})
	}
	if tries == fewTries {
		if err := e.returned(ctx, id, number, &Refusal{Why: "undelivered", Text: notArrived, Detail: string(end.Answer.Fault)}); err != nil {
			return err
		}
	}
	e.deps.Log.Warn("a case's message did not arrive; it is sent again", "case", id, "number", number,
		"end", string(end.Status), "status", end.Answer.Status, "code", string(end.Answer.Fault))
	// It may not even be marked as posted yet: by its try it is known.
	return e.again(ctx, e.cfg.Retry, `number = ? AND tries = ?`, id, number, tries)
}

// again has messages posted anew, under other identifiers.
func (e *Engine) again(ctx context.Context, pause time.Duration, which, id string, a, b int64) error {
	_, err := e.deps.DB.Exec(ctx, `UPDATE casework_message SET work = 1, tries = tries + 1, next_at = ? + ? * (1 + tries * tries)
		WHERE case_id = ? AND mine = 1 AND tries < 1000 AND `+which, e.deps.Now().UnixMilli(), pause.Milliseconds(), id, a, b)
	if err != nil {
		return fmt.Errorf("having messages sent again: %w", err)
	}
	e.stir()
	return nil
}

// returned records that the other half refused a message.
func (e *Engine) returned(ctx context.Context, id string, number int64, r *Refusal) error {
	_, err := e.happen(ctx, id, func(c *Case) (*happening, error) {
		events, _, err := e.history(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		h := &happening{kind: KindReturned, at: e.now(), message: number, refusal: r}
		for _, ev := range events {
			if ev.Kind == KindReturned && ev.Message == number && ev.Refusal.Why == r.Why {
				return nil, nil
			}
			for _, s := range ev.Sent {
				if s.Number == number {
					h.trigger = s.Message
				}
			}
		}
		return h, nil
	}, nil)
	return err
}
