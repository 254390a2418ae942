package admin

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/store"
)

//go:embed migrations
var migrations embed.FS

// Migrations are the counter's tables.
func Migrations() store.Migrations {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return store.Migrations{Room: "admin", FS: sub}
}

// The states of an approval; they stand in the database.
const (
	stateWaiting = iota + 1
	stateDone
	stateRejected
	stateFailed
	stateStarted
)

// maxWaiting bounds the changes that wait at one time, keepApproval how long
// one stays listed after its time: the journal holds what became of it.
const (
	maxWaiting   = 1000
	keepApproval = 30 * 24 * time.Hour
)

// Approval is a change that waits, or waited, for a second person.
type Approval struct {
	ID          string          `json:"id"`
	Action      string          `json:"action"`
	Params      json.RawMessage `json:"params"`
	RequestedBy string          `json:"requested_by"`
	RequestedAt time.Time       `json:"requested_at"`
	ExpiresAt   time.Time       `json:"expires_at"`
	State       string          `json:"state"` // waiting, expired, done, rejected, failed, started
	DecidedBy   string          `json:"decided_by,omitempty"`
	DecidedAt   *time.Time      `json:"decided_at,omitempty"`
	Note        string          `json:"note,omitempty"` // a fault's code, where it failed
}

// park keeps a change until a second person agrees.
func (s *Server) park(ctx context.Context, c *change) (*Approval, error) {
	if err := s.write(ctx, c, requested, Done{}, nil); err != nil {
		return nil, err
	}
	now := s.deps.Now()
	err := s.deps.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM admin_approval WHERE expires_at < ?`, now.Add(-keepApproval).UnixMilli()); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM admin_approval WHERE state = ? AND expires_at > ?`, stateWaiting, now.UnixMilli()).Scan(&n); err != nil {
			return err
		}
		if n >= maxWaiting {
			return fault.New(fault.Overloaded, "%d changes wait for a second person; decide some of them first", n)
		}
		_, err := tx.Exec(ctx, `INSERT INTO admin_approval
			(id, action, params, requested_by, requested_at, expires_at, state, decided_by, decided_at, note)
			VALUES (?, ?, ?, ?, ?, ?, ?, '', 0, '')`,
			c.id, c.action.Name, []byte(c.params), c.first.Name, now.UnixMilli(), now.Add(s.cfg.Expiry).UnixMilli(), stateWaiting)
		return err
	})
	if err != nil {
		return nil, stored(err, "keeping the change")
	}
	return s.approval(ctx, c.id)
}

const approvalColumns = `id, action, params, requested_by, requested_at, expires_at, state, decided_by, decided_at, note`

func (s *Server) scan(row interface{ Scan(...any) error }) (*Approval, error) {
	var a Approval
	var params []byte
	var requestedAt, expiresAt, state, decidedAt int64
	if err := row.Scan(&a.ID, &a.Action, &params, &a.RequestedBy, &requestedAt, &expiresAt, &state, &a.DecidedBy, &decidedAt, &a.Note); err != nil {
		return nil, err
	}
	a.Params = params
	a.RequestedAt, a.ExpiresAt = time.UnixMilli(requestedAt).UTC(), time.UnixMilli(expiresAt).UTC()
	switch state {
	case stateWaiting:
		a.State = "waiting"
		if !s.deps.Now().Before(a.ExpiresAt) {
			a.State = "expired"
		}
	case stateDone:
		a.State = "done"
	case stateRejected:
		a.State = "rejected"
	case stateFailed:
		a.State = "failed"
	default:
		a.State = "started"
	}
	if decidedAt > 0 {
		t := time.UnixMilli(decidedAt).UTC()
		a.DecidedAt = &t
	}
	return &a, nil
}

func (s *Server) approval(ctx context.Context, id string) (*Approval, error) {
	a, err := s.scan(s.deps.DB.QueryRow(ctx, `SELECT `+approvalColumns+` FROM admin_approval WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "no change of this number waits here")
	}
	return a, stored(err, "reading the change")
}

// approvals lists the newest.
func (s *Server) approvals(ctx context.Context) ([]*Approval, error) {
	rows, err := s.deps.DB.Query(ctx, `SELECT `+approvalColumns+` FROM admin_approval ORDER BY requested_at DESC, id LIMIT 200`)
	if err != nil {
		return nil, stored(err, "reading the changes")
	}
	defer rows.Close()
	out := []*Approval{}
	for rows.Next() {
		a, err := s.scan(rows)
		if err != nil {
			return nil, stored(err, "reading the changes")
		}
		out = append(out, a)
	}
	return out, stored(rows.Err(), "reading the changes")
}

// decide lets a second person agree or reject.
func (s *Server) decide(ctx context.Context, who Person, id string, agree bool) (*Approval, any, error) {
	a, err := s.approval(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	action, ok := s.actions[a.Action]
	if !ok {
		return nil, nil, fault.New(fault.Conflict, "this version of the node does not know the action %s", a.Action)
	}
	c := &change{id: a.ID, action: action, params: a.Params, first: Person{Name: a.RequestedBy}, second: who.Name}
	switch {
	case !who.Has(action.Roles):
		if err := s.write(ctx, c, refused, Done{}, fault.New(fault.NotAllowed, "")); err != nil {
			return nil, nil, err
		}
		return nil, nil, s.notAllowed(action.Roles)
	case agree && who.Name == a.RequestedBy:
		return nil, nil, fault.New(fault.NeedsSecondPerson, "%s asked for it; another must agree", a.RequestedBy)
	case a.State != "waiting":
		return nil, nil, fault.New(fault.Conflict, "the change is %s", a.State)
	case agree && !s.still(a.RequestedBy, action):
		return nil, nil, fault.New(fault.Conflict, "%s, who asked for it, may no longer do so", a.RequestedBy)
	}
	next := stateStarted
	if !agree {
		next = stateRejected
	}
	if err := s.move(ctx, id, stateWaiting, next, who.Name, ""); err != nil {
		return nil, nil, err
	}
	if !agree {
		if err := s.write(ctx, c, rejected, Done{}, nil); err != nil {
			return nil, nil, err
		}
		a, err = s.approval(ctx, id)
		return a, nil, err
	}
	d, err := s.carry(ctx, c)
	end, note := stateDone, ""
	if err != nil {
		end, note = stateFailed, string(fault.CodeOf(err))
	}
	if merr := s.move(context.WithoutCancel(ctx), id, stateStarted, end, who.Name, note); err == nil {
		err = merr
	}
	if err != nil {
		return nil, nil, err
	}
	a, err = s.approval(ctx, id)
	return a, d.Result, err
}

// still tells whether who asked for a change may ask for it today.
func (s *Server) still(name string, a *Action) bool {
	return len(s.cfg.Persons) == 0 || slices.ContainsFunc(s.cfg.Persons, func(p config.Person) bool {
		return p.Name == name && Person{Roles: p.Roles}.Has(a.Roles)
	})
}

// move changes an approval's state, if it is still what it was.
func (s *Server) move(ctx context.Context, id string, from, to int, who, note string) error {
	err := s.deps.DB.Write(ctx, func(tx *store.Tx) error {
		res, err := tx.Exec(ctx, `UPDATE admin_approval SET state = ?, decided_by = ?, decided_at = ?, note = ? WHERE id = ? AND state = ?`,
			to, who, s.deps.Now().UnixMilli(), note, id, from)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fault.New(fault.Conflict, "another person decided it in the meantime")
	})
	return stored(err, "deciding the change")
}

// stored gives an error of the store its code; a fault keeps its own.
func stored(err error, doing string) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) {
		return err
	}
	return fault.Wrap(fault.StoreFailed, err, "%s", doing)
}
