package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/union"
)

// Action is a change that a person may ask for. Its parameters are JSON and
// hold no secret and nothing about the persons in the registers: they stand in
// the journal.
type Action struct {
	Name  string        // "service.add"
	Event string        // "service.added": its name in the audit catalogue
	Text  union.Text    // what it does
	Roles []config.Role // who may; none: every person known here
	Two   bool          // it touches keys or the directory: a second person must agree
	// Check, if there is one, refuses nonsense before it waits for approval.
	Check func(ctx context.Context, params json.RawMessage) error
	Do    func(ctx context.Context, who Person, params json.RawMessage) (Done, error)
}

// Done is what came of a change. Before and After are the state that it
// changed; their digests are recorded.
type Done struct {
	Result        any
	Before, After any
}

// Query is a question that changes nothing.
type Query struct {
	Name  string
	Text  union.Text
	Roles []config.Role // who may; none: every person known here
	Do    func(ctx context.Context, who Person, params url.Values) (any, error)
	// Ask instead of Do: the question is asked by POST with its parameters as
	// JSON, since they name a person and may stand in no address and no log.
	Ask func(ctx context.Context, who Person, params json.RawMessage) (any, error)
}

// File is an answer that is no JSON: it is written out as it comes.
type File struct {
	Type  string // its media type
	Size  int64  // bytes; -1: nobody knows before it is written
	Write func(ctx context.Context, w io.Writer) error
}

// Params makes an Action's Do from a function of typed parameters; unknown
// fields are refused.
func Params[T any](do func(context.Context, Person, T) (Done, error)) func(context.Context, Person, json.RawMessage) (Done, error) {
	return func(ctx context.Context, who Person, raw json.RawMessage) (Done, error) {
		var p T
		if err := Decode(raw, &p); err != nil {
			return Done{}, err
		}
		return do(ctx, who, p)
	}
}

// Decode reads parameters strictly.
func Decode(raw json.RawMessage, p any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return fault.New(fault.BadRequest, "the parameters: %v", err)
	}
	if d.More() {
		return fault.New(fault.BadRequest, "the parameters: something follows them")
	}
	return nil
}

// The phases of a change, as they stand in its records.
const (
	requested = "requested" // waits for the second person
	ordered   = "ordered"   // written before it is carried out
	done      = "done"
	failed    = "failed"
	refused   = "refused" // the role does not allow it
	rejected  = "rejected"
)

// Entry is a change's record in the journal: a record for each phase.
type Entry struct {
	Event        string          `json:"event"`
	Phase        string          `json:"phase"`
	Change       string          `json:"change"` // joins the records of one change
	Person       string          `json:"person"`
	Second       string          `json:"second,omitempty"`
	Waived       bool            `json:"second_person_waived,omitempty"` // a demonstration needed none
	Params       json.RawMessage `json:"params,omitempty"`
	ParamsSHA256 string          `json:"params_sha256"`
	Before       string          `json:"before_sha256,omitempty"`
	After        string          `json:"after_sha256,omitempty"`
	Fault        fault.Code      `json:"fault,omitempty"`
}

// maxRecorded is the most bytes of parameters that a record holds; of more, it
// holds the digest.
const maxRecorded = 16 << 10

// changeTime bounds the making of one change; a directory change asks another
// state's node to cosign.
const changeTime = 2 * time.Minute

// change is one being made.
type change struct {
	id     string
	action *Action
	params json.RawMessage
	first  Person
	second string
	waived bool
}

func newChange(a *Action, params json.RawMessage, who Person) *change {
	return &change{id: uuid.NewString(), action: a, params: params, first: who}
}

func (s *Server) write(ctx context.Context, c *change, phase string, d Done, f error) error {
	e := Entry{
		Event: c.action.Event, Phase: phase, Change: c.id, Person: c.first.Name, Second: c.second, Waived: c.waived,
		ParamsSHA256: hexDigest(c.params), Before: stateDigest(d.Before), After: stateDigest(d.After), Fault: fault.CodeOf(f),
	}
	if len(c.params) <= maxRecorded {
		e.Params = c.params
	}
	local, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing down %s: %w", c.action.Name, err)
	}
	return s.deps.Record(ctx, local)
}

func hexDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// stateDigest is "" for a state that nobody stated.
func stateDigest(v any) string {
	if v == nil {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return hexDigest(b)
}

// carry makes the change: its record is durable before it is made, and what
// came of it is recorded before anybody hears of it.
func (s *Server) carry(ctx context.Context, c *change) (Done, error) {
	if err := s.write(ctx, c, ordered, Done{}, nil); err != nil {
		return Done{}, err
	}
	// The person's connection may go; a change is made whole or refused all the
	// same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	d, err := c.action.Do(ctx, c.first, c.params)
	phase := done
	if err != nil {
		phase = failed
	}
	s.deps.Log.Info("admin", "event", c.action.Event, "phase", phase, "change", c.id, "person", c.first.Name, "second", c.second, "code", fault.CodeOf(err))
	if werr := s.write(context.WithoutCancel(ctx), c, phase, d, err); werr != nil {
		return Done{}, fault.Wrap(fault.StoreFailed, werr, "the change %s was %s, yet its record could not be written", c.id, phase)
	}
	return d, err
}
