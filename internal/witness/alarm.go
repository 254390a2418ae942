package witness

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/note"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// What an alarm may be about.
const (
	AlarmUnpromised = "unpromised" // a message came without a promise
	AlarmAbsent     = "absent"     // the log has another entry where the record was promised
	AlarmLate       = "late"       // the log ends before the record that was promised, and time is up
	AlarmDivided    = "divided"    // the log contradicts a head that its own key signed
	AlarmEnded      = "ended"      // the log is a new one, and a head that its key signed under an old name is not in it
)

// AlarmText says in both languages what a kind of alarm is about.
func AlarmText(kind string) union.Text {
	switch kind {
	case AlarmUnpromised:
		return union.Text{En: "messages came without a promise of their records", Ar: "وصلت رسائل بلا تعهد بإدراج قيودها"}
	case AlarmAbsent:
		return union.Text{En: "promised records are not in the log: other entries stand in their places", Ar: "قيود متعهَّد بها ليست في سجل الشفافية، وفي مواضعها قيود أخرى"}
	case AlarmLate:
		return union.Text{En: "promised records did not appear in the log in time", Ar: "لم تظهر قيود متعهَّد بها في سجل الشفافية في الموعد"}
	case AlarmDivided:
		return union.Text{En: "the log contradicts a head that it signed", Ar: "سجل الشفافية يناقض رأساً سبق أن وقّعه"}
	case AlarmEnded:
		return union.Text{En: "the state goes on as a new log, which does not hold what its log before had", Ar: "تتابع الدولة بسجل شفافية جديد لا يحوي ما كان في سجلها السابق"}
	}
	return union.Text{En: kind, Ar: kind}
}

// Alarm is what a state says of another's log, signed: it holds messages whose
// records are not where they were promised. It names messages by digests, and
// so tells nobody else what they say.
type Alarm struct {
	From     union.State `json:"from"` // who raises it
	Of       union.State `json:"of"`   // whose log it is about
	Log      string      `json:"log"`  // its origin
	Kind     string      `json:"kind"`
	At       time.Time   `json:"at"`
	Count    int         `json:"count"` // messages; the first of them follow
	Messages []Broken    `json:"messages,omitempty"`
	Heads    []string    `json:"heads,omitempty"` // checkpoints, signed by the log's key, against which it was held
}

// Broken is a message whose promise was not kept. Digests are in hexadecimal.
type Broken struct {
	Envelope string   `json:"envelope"`           // SHA-256 of the sealed message
	Leaf     string   `json:"leaf,omitzero"`      // the entry that was promised
	Index    int64    `json:"index,omitzero"`     // and where
	Entry    string   `json:"entry,omitzero"`     // what stands there
	Proof    []string `json:"proof,omitempty"`    // that it does, under the first head
	Own      int64    `json:"own_leaf,omitempty"` // the raiser's own record of the message
}

const (
	alarmLabel = "falaj alarm v1\n"
	// alarmSuffix makes of a log's name the name under which its key signs
	// alarms.
	alarmSuffix = "/alarm"
	// maxAlarm bounds an alarm's note, in bytes.
	maxAlarm = 64 << 10
	// maxName bounds a log's name, in bytes.
	maxName = 256
	// maxBroken is how many messages an alarm names; Count has all.
	maxBroken = 8
	// hourly is how many alarms of one state are taken in an hour.
	hourly = 120
	// listed is how many alarms of each state are listed: none pushes out
	// another's.
	listed = 200
	day    = 24 * time.Hour
	// taken is how old an alarm may be that is taken, and kept how long it
	// stays: longer, so that none is taken again.
	taken = 30 * day
	kept  = 32 * day
)

// Sign makes the alarm's note: C2SP signed-note, the text being a label line
// and a line of JSON, by the log's key of the state that raises it, under the
// log's name and "/alarm". No checkpoint begins with that label.
func (a Alarm) Sign(log merkle.Signer) ([]byte, error) {
	s, err := log.As(log.Name() + alarmSuffix)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("writing an alarm: %w", err)
	}
	text := alarmLabel + string(b) + "\n"
	line, err := s.Line(text, a.At)
	if err != nil {
		return nil, fmt.Errorf("signing an alarm: %w", err)
	}
	return []byte(text + "\n" + line), nil
}

// OpenAlarm verifies an alarm's note: the state that it is of has signed it, by
// the directory. What it says is for its reader to judge.
func OpenAlarm(msg []byte, u Union) (Alarm, error) {
	a, _, err := openAlarm(msg, u)
	return a, err
}

// openAlarm also gives the note with the one signature that counts: anybody can
// put more lines under a note.
func openAlarm(msg []byte, u Union) (Alarm, []byte, error) {
	if len(msg) > maxAlarm {
		return Alarm{}, nil, fmt.Errorf("witness: an alarm of %d bytes; at most %d", len(msg), maxAlarm)
	}
	var keys []note.Verifier
	whose := map[string]union.State{}
	for _, p := range u.Parties {
		if p.Log == (merkle.Key{}) {
			continue
		}
		k, err := p.Log.Named(p.Log.Name() + alarmSuffix)
		if err != nil {
			return Alarm{}, nil, err
		}
		keys, whose[k.Name()] = append(keys, k), p.State
	}
	n, err := note.Open(msg, note.VerifierList(keys...))
	if err != nil {
		return Alarm{}, nil, fmt.Errorf("witness: opening an alarm: %w", err)
	}
	a, err := parseAlarm(n.Text)
	if err != nil {
		return Alarm{}, nil, err
	}
	for _, sig := range n.Sigs {
		if whose[sig.Name] == a.From {
			b, err := base64.StdEncoding.DecodeString(sig.Base64) // of whose last bits there may be several spellings
			return a, []byte(n.Text + "\n— " + sig.Name + " " + base64.StdEncoding.EncodeToString(b) + "\n"), err
		}
	}
	return Alarm{}, nil, errors.New("witness: an alarm of a state that did not sign it")
}

// parseAlarm reads an alarm's text.
func parseAlarm(text string) (a Alarm, err error) {
	line, ok := strings.CutPrefix(text, alarmLabel)
	if !ok || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		return a, errors.New("witness: not an alarm: it has a label and a line")
	}
	if err := json.Unmarshal([]byte(line), &a, json.RejectUnknownMembers(true)); err != nil {
		return Alarm{}, fmt.Errorf("witness: reading an alarm: %w", err)
	}
	if len(a.Messages) > maxBroken || len(a.Heads) > 2 || a.Count < 0 {
		return Alarm{}, errors.New("witness: an alarm that says more than it may")
	}
	if err := a.plain(); err != nil {
		return Alarm{}, err
	}
	return a, nil
}

// plain refuses an alarm whose words are not what they stand for: people read
// them, on terminals too.
func (a Alarm) plain() error {
	if _, err := union.ParseState(string(a.From)); err != nil {
		return fmt.Errorf("witness: who raises an alarm: %w", err)
	}
	if _, err := union.ParseState(string(a.Of)); err != nil {
		return fmt.Errorf("witness: whom an alarm is about: %w", err)
	}
	if !slices.Contains([]string{AlarmUnpromised, AlarmAbsent, AlarmLate, AlarmDivided, AlarmEnded}, a.Kind) {
		return errors.New("witness: an alarm of a kind that there is not")
	}
	if len(a.Log) > maxName || strings.ContainsFunc(a.Log, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("witness: an alarm about a log of no name")
	}
	for _, m := range a.Messages {
		for _, s := range append([]string{m.Envelope, m.Leaf, m.Entry}, m.Proof...) {
			if _, err := hex.DecodeString(s); err != nil || s != "" && len(s) != 2*sha256.Size {
				return errors.New("witness: an alarm with a digest that is none")
			}
		}
	}
	for i, h := range a.Heads {
		if before := a.Kind == AlarmEnded && i == 0; (merkle.Origin([]byte(h)) == a.Log) == before {
			return errors.New("witness: an alarm with a head of another log")
		}
	}
	return nil
}

// Raised is an alarm as it is kept.
type Raised struct {
	Alarm
	ID    string    `json:"id"` // SHA-256 of its note, under which nothing but its raiser's signature stands
	Heard time.Time `json:"heard"`
	Note  string    `json:"note"`
	Told  []string  `json:"told,omitempty"` // of an own one: who has taken it
}

// execer is a database, or a transaction of it.
type execer interface {
	Exec(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// put keeps an alarm; false where it was there.
func put(ctx context.Context, db execer, a Alarm, msg []byte, heard time.Time) (bool, error) {
	id := sha256.Sum256(msg)
	r, err := db.Exec(ctx, `INSERT INTO witness_alarm (id, raiser, heard_at, note) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		id[:], string(a.From), heard.UnixMilli(), msg)
	if err != nil {
		return false, fault.Wrap(fault.StoreFailed, err, "keeping an alarm")
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// Count counts the alarms, this state's and those it was told of, since a
// moment.
func (p *Promises) Count(ctx context.Context, since time.Time) (n int, err error) {
	err = p.deps.DB.QueryRow(ctx, "SELECT COUNT(*) FROM witness_alarm WHERE heard_at >= ?", since.UnixMilli()).Scan(&n)
	if err != nil {
		return 0, fault.Wrap(fault.StoreFailed, err, "the alarms")
	}
	return n, nil
}

// Alarms lists the newest alarms of each state, this state's and those it was
// told of, since a moment.
func (p *Promises) Alarms(ctx context.Context, since time.Time) ([]Raised, error) {
	told, err := p.told(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := p.deps.DB.Query(ctx, `SELECT id, heard_at, note FROM witness_alarm WHERE id IN (
			SELECT id FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY raiser ORDER BY heard_at DESC, id) AS place
				FROM witness_alarm WHERE heard_at >= ?) AS newest WHERE place <= ?)
		ORDER BY heard_at DESC`, since.UnixMilli(), listed)
	if err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "the alarms")
	}
	defer rows.Close()
	out := []Raised{}
	for rows.Next() {
		var id, msg []byte
		var heard int64
		if err := rows.Scan(&id, &heard, &msg); err != nil {
			return nil, fault.Wrap(fault.StoreFailed, err, "the alarms")
		}
		text, _, _ := strings.Cut(string(msg), "\n\n") // it was verified when it came
		a, err := parseAlarm(text + "\n")
		if err != nil {
			continue // of an earlier version, which took any words
		}
		name := hex.EncodeToString(id)
		out = append(out, Raised{Alarm: a, ID: name, Heard: time.UnixMilli(heard).UTC(), Note: string(msg), Told: told[name]})
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "the alarms")
	}
	return out, nil
}

// told lists by alarm who has taken it.
func (p *Promises) told(ctx context.Context) (map[string][]string, error) {
	rows, err := p.deps.DB.Query(ctx, "SELECT id, whom FROM witness_alarm_told ORDER BY whom")
	if err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "who was told of alarms")
	}
	defer rows.Close()
	out := map[string][]string{}
	for rows.Next() {
		var id []byte
		var whom string
		if err := rows.Scan(&id, &whom); err != nil {
			return nil, fault.Wrap(fault.StoreFailed, err, "who was told of alarms")
		}
		out[hex.EncodeToString(id)] = append(out[hex.EncodeToString(id)], whom)
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "who was told of alarms")
	}
	return out, nil
}

// Hear takes another state's alarm. Who raises too many is not heard for a
// while: each is a record here. One that is known is no other, whoever brings
// it again.
func (p *Promises) Hear(ctx context.Context, from union.State, msg []byte) error {
	a, msg, err := openAlarm(msg, p.deps.Union())
	if err != nil {
		return fault.Wrap(fault.BadRequest, err, "the alarm")
	}
	if a.From != from {
		return fault.New(fault.BadRequest, "the alarm is of %s, and not of the state that brings it", a.From)
	}
	now, id := p.deps.Now(), sha256.Sum256(msg)
	if old := now.Sub(a.At); old > taken || old < -day {
		return fault.New(fault.BadRequest, "the alarm is of %s; one is taken for %d days", a.At.Format(time.RFC3339), taken/day)
	}
	fresh := false
	p.hearing.Lock() // the transaction alone would do: at once they would run again and again
	err = p.deps.DB.Write(ctx, func(tx *store.Tx) error {
		fresh = false
		var known, lately int
		err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM witness_alarm WHERE id = ?", id[:]).Scan(&known)
		if err != nil || known > 0 {
			return err
		}
		err = tx.QueryRow(ctx, "SELECT COUNT(*) FROM witness_alarm WHERE raiser = ? AND heard_at > ?", string(from), now.Add(-time.Hour).UnixMilli()).Scan(&lately)
		if err != nil {
			return err
		}
		if lately >= hourly {
			return fault.New(fault.Overloaded, "%d alarms of %s in an hour", lately, from)
		}
		if _, err := tx.Exec(ctx, "DELETE FROM witness_alarm WHERE raiser <> ? AND heard_at < ?", string(p.deps.State), now.Add(-kept).UnixMilli()); err != nil {
			return err
		}
		fresh, err = put(ctx, tx, a, msg, now)
		return err
	})
	p.hearing.Unlock()
	switch {
	case err != nil && fault.CodeOf(err) != fault.Overloaded:
		return fault.Wrap(fault.StoreFailed, err, "hearing an alarm")
	case err == nil && fresh:
		p.sound(ctx, a)
	}
	return err
}

// tell brings this state's alarms of the last days to the others, the accused
// among them: he may have an answer.
func (p *Promises) tell(ctx context.Context) error {
	for _, to := range p.deps.Union().Parties {
		if to.State == p.deps.State {
			continue
		}
		untold, err := p.untoldTo(ctx, to.State)
		if err != nil {
			return err
		}
		for _, x := range untold {
			within, cancel := context.WithTimeout(ctx, p.cfg.Answer)
			_, err := p.deps.Ask(within, to.State, KindAlarm, x.note)
			cancel()
			if fault.CodeOf(err) == fault.BadRequest {
				continue // it will not have this one
			}
			if err != nil {
				break // asked again soon
			}
			if _, err := p.deps.DB.Exec(ctx, "INSERT INTO witness_alarm_told (id, whom) VALUES (?, ?) ON CONFLICT (id, whom) DO NOTHING", x.id, string(to.State)); err != nil {
				return fault.Wrap(fault.StoreFailed, err, "who was told of an alarm")
			}
		}
	}
	return nil
}

// letter is an alarm as it is brought.
type letter struct{ id, note []byte }

// untoldTo lists this state's alarms of the last days that a state has not
// taken, the newest first.
func (p *Promises) untoldTo(ctx context.Context, to union.State) ([]letter, error) {
	rows, err := p.deps.DB.Query(ctx, `SELECT id, note FROM witness_alarm AS a WHERE raiser = ? AND heard_at >= ?
		AND NOT EXISTS (SELECT 1 FROM witness_alarm_told AS t WHERE t.id = a.id AND t.whom = ?) ORDER BY heard_at DESC LIMIT ?`,
		string(p.deps.State), p.deps.Now().Add(-7*day).UnixMilli(), string(to), listed)
	if err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "the alarms to tell")
	}
	defer rows.Close()
	var out []letter
	for rows.Next() {
		var x letter
		if err := rows.Scan(&x.id, &x.note); err != nil {
			return nil, fault.Wrap(fault.StoreFailed, err, "the alarms to tell")
		}
		out = append(out, x)
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "the alarms to tell")
	}
	return out, nil
}

// sound makes an alarm loud.
func (p *Promises) sound(ctx context.Context, a Alarm) {
	p.deps.Log.Error("alarm: "+AlarmText(a.Kind).En, "from", a.From, "of", a.Of, "kind", a.Kind, "messages", a.Count)
	if p.deps.Raised != nil {
		p.deps.Raised(ctx, a)
	}
}
