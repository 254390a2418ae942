package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Limits of the counter.
const (
	maxParams   = 8 << 20 // bytes; an OpenAPI description may be 4 MiB
	maxKey      = 128     // bytes of an Idempotency-Key
	keyLife     = 24 * time.Hour
	interrupted = 10 * time.Minute // after which a change that never answered is taken for broken off
)

// Deps are what the counter needs of the node.
type Deps struct {
	DB     *store.DB
	Record func(ctx context.Context, local []byte) error // into the journal, durable
	Now    func() time.Time
	Log    *slog.Logger
}

// Server is the counter.
type Server struct {
	cfg     config.Admin
	deps    Deps
	actions map[string]*Action
	queries map[string]*Query
}

// New makes the counter with what can be asked of it.
func New(cfg config.Admin, deps Deps, actions []Action, queries []Query) *Server {
	s := &Server{cfg: cfg, deps: deps, actions: map[string]*Action{}, queries: map[string]*Query{}}
	for i := range actions {
		s.actions[actions[i].Name] = &actions[i]
	}
	for i := range queries {
		s.queries[queries[i].Name] = &queries[i]
	}
	return s
}

// HTTP is the server of the counter's doors.
func (s *Server) HTTP() *http.Server {
	h := operation.Server(s.Handler(), 16<<10, 10*time.Second, time.Minute, 0)
	h.ReadTimeout = time.Minute
	h.ConnContext = remember
	return h
}

// Handler answers:
//
//	GET  /v1                        who I am, what can be asked
//	GET  /v1/{query}?…              a question
//	POST /v1/{query}                one whose parameters may stand in no address
//	POST /v1/{action}               a change; 202 where it waits for a second person
//	GET  /v1/approvals[/{id}]       changes that wait or waited
//	POST /v1/approvals/{id}/{approve|reject}
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, h func(*http.Request, Person) (int, any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, h) })
	}
	on("GET /v1", func(_ *http.Request, p Person) (int, any, error) { return 200, s.describe(p), nil })
	on("GET /v1/{query}", s.ask)
	on("POST /v1/{action}", s.once(s.act))
	for name, q := range s.queries {
		if q.Ask != nil {
			on("POST /v1/"+name, s.confide(q))
		}
	}
	on("GET /v1/approvals", func(r *http.Request, p Person) (int, any, error) {
		list, err := s.approvals(r.Context())
		return 200, list, err
	})
	on("GET /v1/approvals/{id}", func(r *http.Request, p Person) (int, any, error) {
		a, err := s.approval(r.Context(), r.PathValue("id"))
		return 200, a, err
	})
	on("POST /v1/approvals/{id}/{verb}", s.once(func(r *http.Request, p Person, _ []byte) (int, any, error) {
		verb := r.PathValue("verb")
		if verb != "approve" && verb != "reject" {
			return 0, nil, fault.New(fault.NotFound, "approve or reject")
		}
		a, result, err := s.decide(r.Context(), p, r.PathValue("id"), verb == "approve")
		return 200, Answer{Change: r.PathValue("id"), Result: result, Approval: a}, err
	}))
	on("/", func(*http.Request, Person) (int, any, error) { return 0, nil, fault.New(fault.NotFound, "see GET /v1") })
	return mux
}

// Answer is what a change answers with.
type Answer struct {
	Change   string    `json:"change"` // the number under which its records stand
	Result   any       `json:"result,omitempty"`
	Waived   bool      `json:"second_person_waived,omitempty"` // a demonstration asked for no second person
	Approval *Approval `json:"approval,omitempty"`             // where it waits for one
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, h func(*http.Request, Person) (int, any, error)) {
	who, err := s.identify(r)
	if err != nil {
		s.deps.Log.Warn("admin", "event", EventUnknownPerson, "error", err)
		operation.Refuse(w, r, err)
		return
	}
	status, v, err := h(r, who)
	body, ok := v.([]byte)
	file, whole := v.(File)
	if err == nil && !ok && !whole {
		if body, err = json.Marshal(v); err != nil {
			err = fmt.Errorf("writing the answer: %w", err)
		}
	}
	if err != nil {
		f := fault.From(err) // once: the number that is logged is the one that is told
		level := slog.LevelInfo
		switch f.Code {
		case fault.Internal, fault.StoreFailed, fault.DiskFull, fault.Corrupt:
			level = slog.LevelError // the others are mistakes of those who ask
		}
		s.deps.Log.Log(r.Context(), level, "admin", "path", r.URL.Path, "person", who.Name, "code", f.Code, "support", f.ID, "error", err)
		operation.Refuse(w, r, f)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if whole {
		w.Header().Set("Content-Type", file.Type)
		if file.Size >= 0 {
			w.Header().Set("Content-Length", strconv.FormatInt(file.Size, 10))
		}
		if err := file.Write(r.Context(), w); err != nil {
			s.deps.Log.Warn("admin", "path", r.URL.Path, "person", who.Name, "error", err)
			panic(http.ErrAbortHandler) // nobody must take the part for the whole
		}
		return
	}
	w.WriteHeader(status)
	w.Write(body)
}

func (s *Server) notAllowed(roles []config.Role) error {
	return fault.New(fault.NotAllowed, "it takes one of the roles: %s", config.List(roles))
}

func (s *Server) ask(r *http.Request, who Person) (int, any, error) {
	q, ok := s.queries[r.PathValue("query")]
	if !ok {
		return 0, nil, fault.New(fault.NotFound, "no such question; see GET /v1")
	}
	if !who.Has(q.Roles) {
		return 0, nil, s.notAllowed(q.Roles)
	}
	if q.Do == nil {
		return 0, nil, fault.New(fault.MethodNotAllowed, "this is asked with POST, its parameters in the body")
	}
	v, err := q.Do(r.Context(), who, r.URL.Query())
	return 200, v, err
}

// confide hands a question its body. Unlike a change's, nothing of it is kept:
// an Idempotency-Key has no meaning here.
func (s *Server) confide(q *Query) func(*http.Request, Person) (int, any, error) {
	return func(r *http.Request, who Person) (int, any, error) {
		if !who.Has(q.Roles) {
			return 0, nil, s.notAllowed(q.Roles)
		}
		params, err := body(r)
		if err != nil {
			return 0, nil, err
		}
		v, err := q.Ask(r.Context(), who, params)
		return 200, v, err
	}
}

// body reads what was sent as JSON.
func body(r *http.Request) ([]byte, error) {
	// A browser cannot be led to send this by another site's page.
	if m, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || m != "application/json" {
		return nil, fault.New(fault.BadHeader, "Content-Type must be application/json")
	}
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxParams))
	if err != nil {
		return nil, fault.Wrap(fault.TooLarge, err, "the parameters; at most %d bytes", maxParams)
	}
	return b, nil
}

func (s *Server) act(r *http.Request, who Person, params []byte) (int, any, error) {
	a, ok := s.actions[r.PathValue("action")]
	if !ok {
		return 0, nil, fault.New(fault.NotFound, "no such action; see GET /v1")
	}
	ctx := r.Context()
	if len(bytes.TrimSpace(params)) == 0 {
		params = []byte("{}")
	}
	if !json.Valid(params) {
		return 0, nil, fault.New(fault.BadRequest, "the parameters are not JSON")
	}
	c := newChange(a, params, who)
	if !who.Has(a.Roles) {
		err := s.notAllowed(a.Roles)
		if werr := s.write(ctx, c, refused, Done{}, err); werr != nil {
			return 0, nil, werr
		}
		return 0, nil, err
	}
	if a.Check != nil {
		if err := a.Check(ctx, params); err != nil {
			return 0, nil, err
		}
	}
	if a.Two && s.cfg.SecondPerson != config.Waived {
		if !Seconded(s.cfg.Persons, a.Roles, who.Name) {
			err := fault.New(fault.NeedsSecondPerson, "this node's configuration names nobody beside %s who may agree; list persons who have one of the roles %s under admin.persons", who.Name, config.List(a.Roles))
			if werr := s.write(ctx, c, refused, Done{}, err); werr != nil {
				return 0, nil, werr
			}
			return 0, nil, err
		}
		waits, err := s.park(ctx, c)
		return http.StatusAccepted, Answer{Change: c.id, Approval: waits}, err
	}
	c.waived = a.Two
	d, err := s.carry(ctx, c)
	return 200, Answer{Change: c.id, Result: d.Result, Waived: c.waived}, err
}

// once reads the body and lets a repeated Idempotency-Key answer as before.
func (s *Server) once(h func(*http.Request, Person, []byte) (int, any, error)) func(*http.Request, Person) (int, any, error) {
	return func(r *http.Request, who Person) (int, any, error) {
		body, err := body(r)
		if err != nil {
			return 0, nil, err
		}
		key := r.Header.Get("Idempotency-Key")
		if key == "" {
			return h(r, who, body)
		}
		if len(key) > maxKey {
			return 0, nil, fault.New(fault.BadHeader, "Idempotency-Key: at most %d bytes", maxKey)
		}
		ctx := r.Context()
		id := sha256.Sum256([]byte(who.Name + "\x00" + key))
		digest := sha256.Sum256([]byte(r.Method + " " + r.URL.Path + "\x00" + string(body)))
		status, answer, err := s.claim(ctx, id[:], digest[:])
		if err != nil || status != 0 {
			return status, answer, err
		}
		status, v, err := h(r, who, body)
		ctx = context.WithoutCancel(ctx)
		if err != nil {
			// Nothing stands, or its records say what does: the key may be used again.
			_, derr := s.deps.DB.Exec(ctx, `DELETE FROM admin_request WHERE id = ?`, id[:])
			return 0, nil, errors.Join(err, derr)
		}
		if answer, err = json.Marshal(v); err != nil {
			return 0, nil, fmt.Errorf("writing the answer: %w", err)
		}
		_, err = s.deps.DB.Exec(ctx, `UPDATE admin_request SET status = ?, answer = ? WHERE id = ?`, status, answer, id[:])
		return status, answer, stored(err, "keeping the answer")
	}
}

// claim takes an idempotency key, or gives the answer that it had.
func (s *Server) claim(ctx context.Context, id, digest []byte) (int, []byte, error) {
	var status int
	var answer []byte
	now := s.deps.Now().UnixMilli()
	err := s.deps.DB.Write(ctx, func(tx *store.Tx) error {
		status, answer = 0, nil
		if _, err := tx.Exec(ctx, `DELETE FROM admin_request WHERE at < ?`, now-keyLife.Milliseconds()); err != nil {
			return err
		}
		var had []byte
		var at int64
		err := tx.QueryRow(ctx, `SELECT digest, status, answer, at FROM admin_request WHERE id = ?`, id).Scan(&had, &status, &answer, &at)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			_, err = tx.Exec(ctx, `INSERT INTO admin_request (id, digest, status, answer, at) VALUES (?, ?, 0, ?, ?)`, id, digest, []byte{}, now)
			return err
		case err != nil:
			return err
		case !bytes.Equal(had, digest):
			return fault.New(fault.IDConflict, "this Idempotency-Key was used for something else")
		case status == 0 && now-at < interrupted.Milliseconds():
			return fault.New(fault.InFlight, "the change of this Idempotency-Key is being made")
		case status == 0:
			return fault.New(fault.OutcomeUnknown, "the change of this Idempotency-Key was broken off; see what stands, then use another key")
		}
		return nil
	})
	return status, answer, stored(err, "reading the Idempotency-Key")
}

// Described is what GET /v1 answers.
type Described struct {
	Person       Person              `json:"person"`
	SecondPerson config.SecondPerson `json:"second_person"`
	Actions      []Offer             `json:"actions"`
	Queries      []Offer             `json:"queries"`
}

// Offer is something that can be asked.
type Offer struct {
	Name    string        `json:"name"`
	Event   string        `json:"event,omitempty"`
	Text    union.Text    `json:"text"`
	Roles   []config.Role `json:"roles,omitempty"`
	Two     bool          `json:"second_person,omitempty"`
	Post    bool          `json:"post,omitempty"` // a question that is asked with POST
	Allowed bool          `json:"allowed"`        // to the person who asks
}

func (s *Server) describe(p Person) Described {
	d := Described{Person: p, SecondPerson: s.cfg.SecondPerson, Actions: []Offer{}, Queries: []Offer{}}
	for _, a := range s.actions {
		d.Actions = append(d.Actions, Offer{Name: a.Name, Event: a.Event, Text: a.Text, Roles: a.Roles, Two: a.Two, Allowed: p.Has(a.Roles)})
	}
	for _, q := range s.queries {
		d.Queries = append(d.Queries, Offer{Name: q.Name, Text: q.Text, Roles: q.Roles, Post: q.Ask != nil, Allowed: p.Has(q.Roles)})
	}
	byName := func(a, b Offer) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(d.Actions, byName)
	slices.SortFunc(d.Queries, byName)
	return d
}
