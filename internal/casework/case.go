package casework

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Case is this state's half of a case as it is now.
type Case struct {
	ID      string
	Service string
	Version int
	Party   string
	Peer    union.State
	State   string
	Ended   bool
	Final   time.Time // since when it has ended: first; zero if it has not
	Trouble string    // why a person should look at it: a code of the catalogue
	Events  int64
	Sent    int64 // messages to the other half
	Heard   int64 // messages from it, without a gap
	Opened  time.Time
	Changed time.Time

	Facts     definition.Values
	Clocks    map[string]time.Time // deadlines that run
	Fired     map[string]time.Time // those that ran out and stay so
	Told      definition.Values    // own facts as the other half was last told them
	Proposals map[string]Proposal  // by form: acts that wait for a second person
	Persons   map[string]string    // by role: the citizen whose case it is

	key     []byte // stands for the person, as it was stored
	program *definition.Program
}

// Proposal is an act that one person has asked for and another is to confirm.
type Proposal struct {
	Event  int64 // in which it was made: who confirms it names that
	Fields definition.Values
	Actor  Actor
	At     time.Time
}

// kept is what of a case is sealed, as JSON.
type kept struct {
	Facts     jsontext.Value          `json:"facts"`
	Clocks    map[string]time.Time    `json:"clocks,omitempty"`
	Fired     map[string]time.Time    `json:"fired,omitempty"`
	Told      jsontext.Value          `json:"told"`
	Proposals map[string]keptProposal `json:"proposals,omitempty"`
	Persons   map[string]string       `json:"persons,omitempty"`
}

type keptProposal struct {
	Event  int64          `json:"event"`
	Fields jsontext.Value `json:"fields"`
	Actor  Actor          `json:"actor"`
	At     time.Time      `json:"at"`
}

// half is the case as its definition sees it.
func (c *Case) half() definition.Half {
	return definition.Half{Party: c.Party, State: c.State, Facts: c.Facts, Clocks: c.Clocks, Fired: c.Fired, Opened: c.Opened}
}

// clone is a copy that a step may change.
func (c *Case) clone() *Case {
	n := *c
	n.Facts, n.Told = maps.Clone(c.Facts), maps.Clone(c.Told)
	n.Proposals, n.Persons = maps.Clone(c.Proposals), maps.Clone(c.Persons)
	return &n
}

// fresh is a case in which nothing has happened yet.
func fresh(id, service string, version int, party string, peer union.State, at time.Time, p *definition.Program) *Case {
	return &Case{
		ID: id, Service: service, Version: version, Party: party, Peer: peer, Opened: at, program: p,
		Facts: definition.Values{}, Told: definition.Values{}, Proposals: map[string]Proposal{}, Persons: map[string]string{},
	}
}

// keep writes what of a case is sealed: the same case gives the same bytes.
func (c *Case) keep() ([]byte, error) {
	k := kept{Clocks: c.Clocks, Fired: c.Fired, Persons: c.Persons, Proposals: map[string]keptProposal{}}
	var err error
	if k.Facts, err = c.Facts.AppendJSON(nil); err != nil {
		return nil, err
	}
	if k.Told, err = c.Told.AppendJSON(nil); err != nil {
		return nil, err
	}
	for form, p := range c.Proposals {
		fields, err := p.Fields.AppendJSON(nil)
		if err != nil {
			return nil, err
		}
		k.Proposals[form] = keptProposal{p.Event, fields, p.Actor, p.At}
	}
	return json.Marshal(k, json.Deterministic(true))
}

func (e *Engine) sealCase(c *Case) ([]byte, error) {
	plain, err := c.keep()
	if err != nil {
		return nil, err
	}
	return e.deps.Records.Seal(nil, Class, c.Changed, plain, []byte("case "+c.ID))
}

func (e *Engine) openCase(c *Case, body []byte) error {
	plain, err := e.deps.Records.Open(body, []byte("case "+c.ID))
	if err != nil {
		return err
	}
	var k kept
	if err := json.Unmarshal(plain, &k, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	d := c.program.Definition()
	if c.Facts, err = d.ReadValues(k.Facts); err != nil {
		return err
	}
	if c.Told, err = d.ReadValues(k.Told); err != nil {
		return err
	}
	c.Clocks, c.Fired, c.Persons, c.Proposals = k.Clocks, k.Fired, k.Persons, map[string]Proposal{}
	if c.Persons == nil {
		c.Persons = map[string]string{}
	}
	for form, p := range k.Proposals {
		fields, err := d.ReadValues(p.Fields)
		if err != nil {
			return err
		}
		c.Proposals[form] = Proposal{p.Event, fields, p.Actor, p.At}
	}
	return nil
}

const caseColumns = `id, service, version, party, peer, state, ended, ended_at, trouble, events, sent, heard, opened_at, changed_at, person, body`

// scanCase reads caseColumns; the body is opened by whoever needs it.
func scanCase(row interface{ Scan(...any) error }) (*Case, []byte, error) {
	c := new(Case)
	var opened, changed, ended, final int64
	var body []byte
	err := row.Scan(&c.ID, &c.Service, &c.Version, &c.Party, &c.Peer, &c.State, &ended, &final, &c.Trouble,
		&c.Events, &c.Sent, &c.Heard, &opened, &changed, &c.key, &body)
	c.Opened, c.Changed = time.UnixMilli(opened).UTC(), time.UnixMilli(changed).UTC()
	if final != 0 {
		c.Final = time.UnixMilli(final).UTC()
	}
	if c.Ended = ended == 1; err == nil && !c.Ended && ended != 0 {
		err = fmt.Errorf("case %s has ended or not: %d", c.ID, ended)
	}
	return c, body, err
}

// load reads a case; CaseUnknown where there is none.
func (e *Engine) load(ctx context.Context, id string) (*Case, error) {
	c, body, err := scanCase(e.deps.DB.QueryRow(ctx, `SELECT `+caseColumns+` FROM casework_case WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, unknown()
	} else if err != nil {
		return nil, fmt.Errorf("reading a case: %w", err)
	}
	return c, e.unfold(c, body)
}

// unfold finds a case's definition and opens what is sealed of it.
func (e *Engine) unfold(c *Case, body []byte) error {
	b, err := e.deps.Book()
	if err != nil {
		return err
	}
	if c.program, err = b.Program(c.Service, c.Version); err != nil {
		return err
	}
	err = e.openCase(c, body)
	switch {
	case errors.Is(err, seal.ErrDestroyed):
		return fault.Wrap(fault.CaseUnknown, errDark, "its retention has ended").Arabic("انتهت مدة حفظها")
	case err != nil:
		return fmt.Errorf("opening case %s: %w", c.ID, err)
	}
	return nil
}

// put writes the case as it is after its newest event, if it is still as it
// was before that.
func (e *Engine) put(ctx context.Context, tx *store.Tx, c *Case, body []byte) error {
	ended, final := 0, int64(0)
	if c.Ended {
		ended, final = 1, c.Final.UnixMilli()
	}
	query, args := `UPDATE casework_case SET state = ?, ended = ?, ended_at = ?, trouble = ?, events = ?, sent = ?, heard = ?, changed_at = ?, person = ?, body = ?
		WHERE id = ? AND events = ?`,
		[]any{c.State, ended, final, c.Trouble, c.Events, c.Sent, c.Heard, c.Changed.UnixMilli(), e.personKey(c), body, c.ID, c.Events - 1}
	if c.Events == 1 {
		query, args = `INSERT INTO casework_case (`+caseColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			[]any{c.ID, c.Service, c.Version, c.Party, string(c.Peer), c.State, ended, final, c.Trouble, c.Events, c.Sent, c.Heard,
				c.Opened.UnixMilli(), c.Changed.UnixMilli(), e.personKey(c), body}
	}
	res, err := tx.Exec(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("writing a case: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("writing a case: %w", err)
	} else if n == 0 {
		return errStale
	}
	return nil
}

// personKey stands for the person in the clear.
func (e *Engine) personKey(c *Case) []byte { return e.nameOf(c.person()) }

func (e *Engine) nameOf(person string) []byte {
	if person == "" {
		return []byte{}
	}
	h := e.deps.Names.Sum([]byte("falaj case person v1\x00" + person))
	return h[:]
}
