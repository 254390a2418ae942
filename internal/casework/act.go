package casework

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Act is what somebody of this state does in a case, through a subsystem that
// speaks for a role.
type Act struct {
	ID      string            // by which the asker may repeat it
	System  union.SubsystemID // authenticated
	User    string            // X-Road-UserId: the subsystem's assertion
	Case    string            // "": opens one
	Service string            // of a case to be opened
	Peer    union.State       // who has the other half of it
	Form    string
	Fields  []byte // JSON object; of a confirmation none
	Confirm int64  // event in which another person proposed what this one confirms
}

// Receipt is what an act led to.
type Receipt struct {
	Case     string     `json:"case"`
	Event    int64      `json:"event"`
	Leaf     int64      `json:"leaf"` // of the event's record in this state's log
	State    string     `json:"state"`
	Title    union.Text `json:"title"`             // of the state
	Proposal bool       `json:"proposal,omitzero"` // waits for a second person
	Held     string     `json:"held,omitempty"`
	Messages []string   `json:"messages,omitempty"` // X-Road-Id of what was sent: names its evidence
}

// Limits of an act.
const (
	maxActID  = 255
	maxUser   = 256
	maxFields = 256 << 10
)

// Act does it, or says why not; what was done under the same identifier
// before is told again.
func (e *Engine) Act(ctx context.Context, a Act) (Receipt, error) {
	if a.ID == "" || len(a.ID) > maxActID {
		return Receipt{}, fault.New(fault.BadHeader, "X-Road-Id names the act: 1 to %d bytes", maxActID)
	}
	if len(a.User) > maxUser || len(a.Fields) > maxFields {
		return Receipt{}, fault.New(fault.TooLarge, "at most %d bytes of X-Road-UserId and %d of fields", maxUser, maxFields)
	}
	if !plainUser(a.User) {
		return Receipt{}, fault.New(fault.BadHeader, "X-Road-UserId: letters, digits and signs, without spaces")
	}
	id := e.deps.Names.Sum(fmt.Appendf(nil, "falaj act v1\x00%s\x00%s", a.System, a.ID))
	digest := e.deps.Names.Sum(fmt.Appendf(nil, "falaj act content v1\x00%q %q %q %q %q %d %q", a.User, a.Case, a.Service, a.Peer, a.Form, a.Confirm, a.Fields))
	key := a.Case
	if key == "" {
		key = string(id[:])
	}
	defer e.lock(key)()
	for try := 1; ; try++ {
		r, err := e.act(ctx, a, id, digest)
		if err == nil {
			return r, nil
		}
		// It may have been done before: that is looked at only where it did not go
		// through now, since hardly any act is repeated.
		was, prior := e.repeated(ctx, id, digest)
		switch {
		case prior != nil || was.Case != "":
			return was, prior
		case !errors.Is(err, errStale) || try == staleTries:
			return r, err
		}
	}
}

// act tries once.
func (e *Engine) act(ctx context.Context, a Act, id, digest [32]byte) (Receipt, error) {
	c, err := e.subject(ctx, a)
	if err != nil {
		return Receipt{}, err
	}
	h, err := e.acted(c, a)
	if err != nil {
		return Receipt{}, err
	}
	h.act = &Claim{id[:], digest[:]}
	if h.kind == KindProposal {
		// What the second person could not do either is not proposed.
		if _, _, err := e.take(ctx, c, happening{kind: KindForm, trigger: h.trigger, at: h.at, actor: h.actor, fields: h.fields}); err != nil {
			return Receipt{}, refused(err)
		}
	}
	ev, next, err := e.take(ctx, c, h)
	if err != nil {
		return Receipt{}, refused(err)
	}
	entry, err := e.commit(ctx, c, next, ev, func(tx *store.Tx) error {
		res, err := tx.Exec(ctx, `INSERT INTO casework_act (id, digest, case_id, event, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			id[:], digest[:], c.ID, ev.Number, e.deps.Now().UnixMilli())
		if err != nil {
			return fmt.Errorf("claiming an act: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(errStale, err)
		}
		return nil
	})
	if err != nil {
		return Receipt{}, err
	}
	return receipt(c, ev, entry.Index), nil
}

func receipt(c *Case, ev *Event, leaf int64) Receipt {
	r := Receipt{Title: c.program.Definition().Halves[c.Party].States[ev.To].Title,
		Case: ev.Case, Event: ev.Number, Leaf: leaf, State: ev.To, Proposal: ev.Kind == KindProposal, Held: ev.Held}
	for _, s := range ev.Sent {
		r.Messages = append(r.Messages, messageID(ev.Case, s.Number, 0))
	}
	return r
}

// repeated finds what was done under an identifier before.
func (e *Engine) repeated(ctx context.Context, id, digest [32]byte) (Receipt, error) {
	var was []byte
	var number, leaf int64
	var of string
	err := e.deps.DB.QueryRow(ctx, `SELECT a.digest, a.case_id, a.event, v.leaf FROM casework_act a
		JOIN casework_event v ON v.case_id = a.case_id AND v.number = a.event WHERE a.id = ?`, id[:]).Scan(&was, &of, &number, &leaf)
	if errors.Is(err, sql.ErrNoRows) {
		return Receipt{}, nil
	} else if err != nil {
		return Receipt{}, fmt.Errorf("looking for an earlier act: %w", err)
	}
	if !bytes.Equal(was, digest[:]) {
		return Receipt{}, fault.New(fault.IDConflict, "")
	}
	ev, err := e.event(ctx, leaf)
	if err != nil {
		return Receipt{}, err
	}
	c, err := e.load(ctx, of)
	if err != nil {
		return Receipt{}, err
	}
	return receipt(c, ev, leaf), nil
}

// subject is the case that an act is about: one that exists, or a new one.
func (e *Engine) subject(ctx context.Context, a Act) (*Case, error) {
	if a.Case != "" {
		return e.load(ctx, a.Case)
	}
	b, err := e.deps.Book()
	if err != nil {
		return nil, err
	}
	if a.Peer == e.cfg.State {
		return nil, fault.New(fault.BadRequest, "both halves would be in %s", a.Peer)
	}
	now := e.now()
	version, ok := b.Version(a.Service, a.Peer, now)
	if !ok {
		return nil, fault.New(fault.CaseVersion, "%.64q, %s, %s", a.Service, e.cfg.State, a.Peer)
	}
	p, err := b.Program(a.Service, version)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	return fresh(id.String(), a.Service, version, p.Definition().Opens, a.Peer, now, p), nil
}

// acted says what an act is to its case, if its actor may do it there.
func (e *Engine) acted(c *Case, a Act) (happening, error) {
	b, err := e.deps.Book()
	if err != nil {
		return happening{}, err
	}
	if c.Events > 0 && !c.concerns(b, a.System) {
		return happening{}, unknown()
	}
	d := c.program.Definition()
	form, ok := d.Forms[a.Form]
	if !ok || d.Roles[form.Role].Party != c.Party {
		return happening{}, fault.New(fault.CaseInvalid, "%.64q", a.Form)
	}
	if !b.Speaks(a.System, c.Service, c.Version, form.Role) {
		return happening{}, fault.New(fault.CaseActor, "%s: %s", a.System, form.Role)
	}
	actor := &Actor{Role: form.Role, Subsystem: a.System, User: a.User}
	h := happening{kind: KindForm, trigger: a.Form, at: e.now(), actor: actor}
	if a.Confirm != 0 {
		p, ok := c.Proposals[a.Form]
		switch {
		case !ok || p.Event != a.Confirm:
			return h, fault.New(fault.CaseRefused, "there is no proposal %d of %s: the case has gone on since", a.Confirm, a.Form).
				Arabic("لا يوجد اقتراح %d لهذا الإجراء (%s)، فقد تغيّرت المعاملة منذ تقديمه", a.Confirm, a.Form)
		case len(a.Fields) > 0:
			return h, fault.New(fault.CaseInvalid, "confirm: %s", a.Form)
		case a.User == "" || strings.EqualFold(a.User, p.Actor.User):
			return h, fault.New(fault.CaseActor, "a second person").Arabic("شخص ثانٍ")
		case !b.Speaks(p.Actor.Subsystem, c.Service, c.Version, form.Role):
			return h, fault.New(fault.CaseActor, "%s: %s", p.Actor.Subsystem, form.Role)
		}
		h.actor, h.second, h.fields = &p.Actor, actor, p.Fields
		return h, nil
	}
	if h.fields, err = d.ReadValues(a.Fields); err != nil {
		return h, fault.Wrap(fault.CaseInvalid, err, "%s", err)
	}
	if err := own(c, form.Role, a.User, h.fields); err != nil {
		return h, err
	}
	if form.Two {
		if a.User == "" {
			return h, fault.New(fault.CaseActor, "X-Road-UserId")
		}
		h.kind = KindProposal
	}
	return h, nil
}

// plainUser tells whether a person's name can be told from another's by eye and
// by machine: no spaces, nothing invisible.
func plainUser(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) })
}
