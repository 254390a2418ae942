package exchange

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// TraceQuestion asks who asked what about a person.
type TraceQuestion struct {
	Subject string    `json:"subject"` // as the state's systems name him in Falaj-Subject
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`  // this moment no more
	Before  int64     `json:"before,omitzero"` // only leaves below it: Trace.Next of the page before
	Limit   int       `json:"limit,omitzero"`  // of entries: 100, at most 1000
}

// Trace is what this state's journal tells of a person, the newest first.
type Trace struct {
	Entries []Traced `json:"entries"`
	Next    int64    `json:"next,omitzero"` // ask on from here; 0: this is all
	// Withheld counts what the law does not allow to be shown yet, of the whole
	// journal: by no choice of times can it be told when these were.
	Withheld int `json:"withheld"`
	Unread   int `json:"unread,omitzero"` // records that cannot be read, of anybody
}

// Traced is one entry: a call about the person, or a look at what is kept of it.
type Traced struct {
	What      string      `json:"what"` // asked: by a system of this state; served: by a service of it; read: here, by an auditor or a system
	At        time.Time   `json:"at"`
	Leaf      int64       `json:"leaf"`
	ID        string      `json:"id,omitzero"` // X-Road-Id: falaj evidence show
	Client    *Party      `json:"client,omitempty"`
	Service   *Party      `json:"service,omitempty"`
	By        string      `json:"by,omitzero"`     // who read
	Action    string      `json:"action,omitzero"` // evidence.read, evidence.export, trace.read
	Method    string      `json:"method,omitzero"`
	Purpose   *TraceBasis `json:"purpose,omitempty"`
	Outcome   string      `json:"outcome,omitzero"` // answered, refused, failed; open: no answer yet; unread: it cannot be read
	Status    int         `json:"status,omitzero"`  // HTTP
	Fault     fault.Code  `json:"fault,omitzero"`
	Reason    *union.Text `json:"reason,omitempty"` // the fault in words
	Directory int64       `json:"directory,omitzero"`

	request string // X-Road-Request-Id
	law     []string
}

// Party is a system as the directory of the day names it.
type Party struct {
	ID     string     `json:"id"`
	Name   union.Text `json:"name,omitzero"`
	Member union.Text `json:"member,omitzero"`
}

// TraceBasis is what a call was for, as the directory of the day has it.
type TraceBasis struct {
	Code  string     `json:"code"`
	Name  union.Text `json:"name,omitzero"`
	Basis union.Text `json:"basis,omitzero"`
}

const (
	maxTraceLimit = 1000
	// maxSubject bounds the name of a person, in bytes.
	maxSubject = 256
)

// Trace collects who asked what about a person, as far as this state's law
// shows it by now. That it was read is a record of its own, and in the trace
// from then on; it is durable before anything is shown.
func (x *Exchange) Trace(ctx context.Context, q TraceQuestion, by Reader) (*Trace, error) {
	r := reading{Action: "trace.read", By: by.Name, Door: by.Door}
	t, err := x.trace(ctx, q)
	if q.Subject != "" && len(q.Subject) <= maxSubject {
		r.Subjects = []message.Digest{x.deps.Persons.Sum([]byte(q.Subject))}
	}
	if err := x.recordReading(ctx, r, err); err != nil {
		return nil, err
	}
	return t, nil
}

func (x *Exchange) trace(ctx context.Context, q TraceQuestion) (*Trace, error) {
	switch {
	case q.Subject == "" || len(q.Subject) > maxSubject:
		return nil, fault.New(fault.BadRequest, "subject: a person is named by 1 to %d bytes", maxSubject)
	case q.Limit < 0 || q.Limit > maxTraceLimit || q.Before < 0:
		return nil, fault.New(fault.BadRequest, "limit: at most %d; before: a leaf", maxTraceLimit)
	}
	every, err := x.deps.Persons.Every([]byte(q.Subject))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the keys that hide persons")
	}
	who := make([]message.Digest, len(every))
	for i, h := range every {
		who[i] = h
	}
	delays, err := x.delays()
	if err != nil {
		return nil, err
	}
	found, unread, err := x.traced(ctx, who)
	if err != nil {
		return nil, storeFault(err, "looking for a person's records")
	}
	out := &Trace{Entries: []Traced{}, Unread: unread}
	limit := cmp.Or(q.Limit, 100)
	for _, leaf := range slices.Backward(found) {
		s, err := x.deps.Journal.Get(ctx, leaf)
		if unreadable(err) {
			out.Unread++
			continue
		}
		if err != nil {
			return nil, storeFault(err, "reading a record")
		}
		e, ok := entry(&s)
		if s.Erased || !ok || !isAbout(&s, who) {
			continue
		}
		switch {
		case delays.hide(e, x.deps.Now()):
			out.Withheld++
		case q.Before > 0 && leaf >= q.Before || e.At.Before(q.Since) || !q.Until.IsZero() && !e.At.Before(q.Until):
		case len(out.Entries) < limit:
			out.Entries = append(out.Entries, e)
		case out.Next == 0:
			out.Next = out.Entries[limit-1].Leaf
		}
	}
	return out, x.spellOut(ctx, out.Entries)
}

// unreadable tells of an error whether a record was changed, or lies in a file
// of the archive that is not there.
func unreadable(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.Corrupt || code == fault.Archived
}

// entry reads a record as an entry of a trace. What only repeats another
// record's entry is none.
func entry(s *journal.Stored) (e Traced, ok bool) {
	e = Traced{At: s.At.UTC(), Leaf: s.Index}
	if s.Kind == journal.Decision {
		var r reading
		if json.Unmarshal(s.Local, &r) != nil || r.Action == "" {
			return e, false
		}
		e.What, e.Action, e.By, e.ID, e.law = "read", r.Action, r.By, r.ID, r.Purposes
		e.end(0, r.Code)
		return e, true
	}
	n, err := readNote(s.Local)
	head, _, errHead := message.Open(s.Envelope)
	if err != nil || errHead != nil {
		return e, false
	}
	purpose := n.Purpose
	switch s.Kind {
	case journal.RequestSent:
		r, err := message.ParseRequest(head)
		if err != nil {
			return e, false
		}
		e.What, e.Outcome, purpose = "asked", "open", r.Purpose
		e.ID, e.request, e.Method, e.Directory = r.ID, r.RequestID, r.Method, r.Directory
		e.Client, e.Service = &Party{ID: r.Client.String()}, &Party{ID: r.Service.String()}
	case journal.AnswerSent, journal.Refused:
		a, err := message.ParseAnswer(head)
		if err != nil {
			return e, false
		}
		if e.What = "served"; s.Kind == journal.Refused {
			e.What = "asked"
		}
		e.ID, e.Method, e.Directory = a.ID, n.Method, a.Directory
		e.Client, e.Service = &Party{ID: a.Client.String()}, &Party{ID: a.Service.String()}
		e.end(a.Status, fault.Code(a.Fault))
	default:
		return e, false
	}
	if purpose != "" {
		e.Purpose, e.law = &TraceBasis{Code: purpose}, []string{purpose}
	}
	return e, true
}

// end says how a call ended.
func (e *Traced) end(status int, code fault.Code) {
	e.Outcome, e.Status, e.Fault = "answered", status, code
	if code == "" {
		return
	}
	switch kind, _, _ := strings.Cut(string(code), "."); kind {
	case "request", "policy", "directory", "certificate", "seal", "message", "service", "admin":
		e.Outcome = "refused"
	default: // it was let through, and came to nothing or to nobody knows what
		e.Outcome = "failed"
	}
	f := fault.Lookup(code)
	e.Reason = &f.What
}

// spellOut adds to entries how the calls ended, and the names that the
// directory of the day has.
func (x *Exchange) spellOut(ctx context.Context, list []Traced) error {
	now, _ := x.deps.Directory() // one that is too old to go by has names still
	views := map[int64]*directory.View{}
	for i := range list {
		e := &list[i]
		if e.Outcome == "open" {
			if err := x.follow(ctx, e); err != nil {
				return err
			}
		}
		if e.Client == nil {
			continue
		}
		v, ok := views[e.Directory]
		if !ok {
			v = now
			if x.deps.Archive != nil {
				if day, err := x.deps.Archive(ctx, e.Directory); err == nil {
					v = day
				}
			}
			views[e.Directory] = v
		}
		e.name(v)
	}
	return nil
}

// name takes names from a directory. What it does not know has its code alone.
func (e *Traced) name(v *directory.View) {
	if v == nil {
		return
	}
	if id, err := union.ParseClient(e.Client.ID); err == nil {
		sub, _ := v.Subsystem(id)
		m, _ := v.Member(id.MemberID)
		e.Client.Name, e.Client.Member = sub.Name, m.Name
	}
	if id, err := union.ParseService(e.Service.ID); err == nil {
		svc, _ := v.Service(id)
		m, _ := v.Member(id.MemberID)
		e.Service.Name, e.Service.Member = svc.Name, m.Name
	}
	if e.Purpose != nil {
		p, _ := v.Purpose(e.Purpose.Code)
		e.Purpose.Name, e.Purpose.Basis = p.Name, p.Basis
	}
}

// follow finds how a call of this state ended.
func (x *Exchange) follow(ctx context.Context, e *Traced) error {
	for from, scanned := e.Leaf+1, 0; scanned < maxScanned; {
		found, err := x.deps.Journal.FindFrom(ctx, e.ID, from)
		if unreadable(err) {
			e.Outcome = "unread"
			return nil
		}
		if err != nil {
			return storeFault(err, "looking for records")
		}
		for _, s := range found {
			from = s.Index + 1
			if s.Kind != journal.AnswerReceived && s.Kind != journal.Unanswered {
				continue
			}
			head, _, err := message.Open(s.Envelope)
			if err != nil {
				continue
			}
			if a, err := message.ParseAnswer(head); err == nil && a.RequestID == e.request {
				e.end(a.Status, fault.Code(a.Fault))
				return nil
			}
		}
		if scanned += len(found); len(found) < journal.MaxFound {
			return nil
		}
	}
	return nil
}
