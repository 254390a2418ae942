package casework

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Gate lets the state's own systems in at a door: exchange.Exchange.
type Gate interface {
	Admit(r *http.Request) (id union.SubsystemID, door string, leave func(), err error)
	Problem(w http.ResponseWriter, err error)
}

// opening is what POST /cases/ takes.
type opening struct {
	Service string         `json:"service"`
	Peer    union.State    `json:"peer"`
	Form    string         `json:"form"`
	Fields  jsontext.Value `json:"fields"`
}

// acting is what POST /cases/{case}/{form} takes: fields, or confirm.
type acting struct {
	Fields  jsontext.Value `json:"fields,omitempty"`
	Confirm int64          `json:"confirm,omitzero"` // event of the proposal
}

// page is what GET /cases/ gives.
type page struct {
	Cases []Summary `json:"cases"`
	Next  string    `json:"next,omitempty"` // ?after= of the next page
}

// Door is what the state's own systems see of its cases: POST /cases/ opens
// one, POST /cases/{case}/{form} acts in it, GET /cases/ lists, GET
// /cases/{case} reads.
func (e *Engine) Door(g Gate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		system, _, leave, err := g.Admit(r)
		defer leave()
		if err == nil {
			err = e.serve(w, r, system)
		}
		if err != nil {
			g.Problem(w, err)
		}
	})
}

func (e *Engine) serve(w http.ResponseWriter, r *http.Request, system union.SubsystemID) error {
	user := r.Header.Get("X-Road-UserId")
	id, form, acts := strings.Cut(strings.TrimPrefix(r.URL.Path, "/cases/"), "/")
	switch {
	case strings.Contains(form, "/") || len(id) > 64 || acts && form == "":
		return fault.New(fault.NotFound, "/cases/, /cases/{case}, /cases/{case}/{form}")
	case r.Method == http.MethodGet && id == "":
		q := r.URL.Query()
		list, next, err := e.List(r.Context(), Filter{
			Service: q.Get("service"), State: q.Get("state"), Trouble: q.Has("trouble"), Mine: q.Has("mine"), After: q.Get("after"),
		}, Reader{system, user})
		if err != nil {
			return err
		}
		return write(w, http.StatusOK, page{list, next})
	case r.Method == http.MethodGet && !acts:
		story, err := e.Read(r.Context(), id, Reader{system, user})
		if err != nil {
			return err
		}
		return write(w, http.StatusOK, story)
	case r.Method == http.MethodPost && (id == "" || acts):
		a := Act{ID: r.Header.Get("X-Road-Id"), System: system, User: user, Case: id, Form: form}
		status := http.StatusOK
		if id == "" {
			var o opening
			if err := read(r, &o); err != nil {
				return err
			}
			a.Service, a.Peer, a.Form, a.Fields = o.Service, o.Peer, o.Form, o.Fields
			status = http.StatusCreated
		} else {
			var o acting
			if err := read(r, &o); err != nil {
				return err
			}
			a.Fields, a.Confirm = o.Fields, o.Confirm
		}
		if a.Fields == nil && a.Confirm == 0 {
			a.Fields = []byte("{}")
		}
		receipt, err := e.Act(r.Context(), a)
		if err != nil {
			return err
		}
		w.Header().Set("Location", "/cases/"+receipt.Case)
		return write(w, status, receipt)
	}
	return fault.New(fault.MethodNotAllowed, "GET and POST")
}

// read decodes a request's JSON.
func read(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxFields+4096+1))
	switch {
	case err != nil:
		return fault.Wrap(fault.BadRequest, err, "reading the body")
	case len(b) > maxFields+4096:
		return fault.New(fault.TooLarge, "at most %d bytes", maxFields+4096)
	}
	if err := json.Unmarshal(b, v, json.RejectUnknownMembers(true)); err != nil {
		var syntax *jsontext.SyntacticError
		if errors.As(err, &syntax) {
			return fault.New(fault.CaseInvalid, "no JSON at byte %d", syntax.ByteOffset)
		}
		return fault.New(fault.CaseInvalid, "a member is not what it should be, or unknown")
	}
	return nil
}

func write(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // or who asked is gone
	return nil
}
