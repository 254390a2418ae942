package policy

import (
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/falaj/falaj/internal/union"
)

// Decide answers the question by the rules of the state whose role it is:
// allowed if a permit matches, no forbid does, and every rule could be
// evaluated. Time counts in whole seconds.
//
// Only the agreements of the question's own client and service are evaluated.
// That changes no decision: any other's scope (principal ==, resource ==) is
// false before its conditions are looked at.
func (s *Set) Decide(q Question) Decision {
	c, refusal := s.prepare(q)
	if refusal != nil {
		return *refusal
	}
	same := c.matter
	if !s.paths[c.state] {
		same.Path = ""
	}
	d, known := s.recent.find(same)
	if !known {
		d = s.decide(c)
		s.recent.keep(same, d)
	}
	return d
}

// cause is a question as the rules are asked it.
type cause struct {
	matter
	state union.State // whose rules
	rules candidates
	known *entities
}

// matter is all that the rules can know of a question: what differs in nothing
// of it has the same answer.
type matter struct {
	Question         // at a whole second, the path decoded
	endpoints string // that the call fits, a line each
}

// prepare finds the rules and what they ask about, or gives the decision where
// they need not be asked.
func (s *Set) prepare(q Question) (c cause, refusal *Decision) {
	deny := func(r Rule, err string) (cause, *Decision) {
		return cause{}, &Decision{Rules: []Rule{r}, Errors: []string{err}}
	}
	if c.state = q.Client.State; q.Role == Provider {
		c.state = q.Service.State
	}
	switch {
	case q.Role != Consumer && q.Role != Provider, q.Client.IsZero(), q.Service.IsZero(), q.Method == "", q.At.IsZero():
		return deny(badQuestion(), "the question lacks role, client, service, method or time")
	case s.faulty[c.state]:
		return deny(sourceError(), "the rules of "+string(c.state)+" are faulty")
	}
	path, err := ParsePath(q.Path)
	if err != nil {
		return deny(badPath(), err.Error())
	}
	both := s.accords[pair{q.Client, q.Service}]
	if c.known = both.entities; c.known == nil {
		c.known = newEntities(q.Client, q.Service)
	}
	c.rules = candidates{state: s.rules[c.state]}
	if q.Role == Provider {
		c.rules.agreements = both.agreements
	}
	c.Question, c.Path, c.At = q, path.String(), q.At.UTC().Truncate(time.Second)
	for _, r := range c.rules.agreements {
		c.endpoints += r.fits(q.Method, path)
	}
	return c, nil
}

// request is the question in Cedar's terms.
func (c *cause) request() cedar.Request {
	var fits []types.Value
	for line := range strings.Lines(c.endpoints) {
		fits = append(fits, types.String(strings.TrimSuffix(line, "\n")))
	}
	return cedar.Request{
		Principal: c.known[0].UID,
		Action:    types.NewEntityUID("Action", "call"),
		Resource:  c.known[1].UID,
		Context: types.NewRecord(types.RecordMap{
			"role":         types.String(c.Role),
			"method":       types.String(c.Method),
			"path":         types.String(c.Path),
			"endpoints":    types.NewSet(fits...),
			"purpose":      types.String(c.Purpose),
			"basis":        types.String(c.Basis),
			"dataClass":    types.String(c.DataClass),
			"clientState":  types.String(c.Client.State),
			"serviceState": types.String(c.Service.State),
			"at":           types.NewDatetime(c.At),
		}),
	}
}

// decide asks the rules.
func (s *Set) decide(c cause) Decision {
	outcome, found := cedar.Authorize(c.rules, c.known, c.request())
	d := Decision{Allow: outcome == cedar.Allow}
	for _, e := range found.Errors {
		d.Allow = false
		r := s.named[e.PolicyID]
		d.Errors = append(d.Errors, fmt.Sprintf("rule %q of source %q, line %d, could not be evaluated", r.ID, r.Source, r.line))
	}
	switch {
	case len(found.Errors) > 0:
		d.Rules = append(d.Rules, ruleError())
		for _, e := range found.Errors {
			d.Rules = append(d.Rules, s.named[e.PolicyID].Rule)
		}
	case len(found.Reasons) == 0:
		d.Rules = append(d.Rules, noRule())
	default:
		for _, r := range found.Reasons {
			d.Rules = append(d.Rules, s.named[r.PolicyID].Rule)
		}
	}
	return d
}

// memory keeps the decisions of one second: calls of one kind come together.
type memory struct {
	mu     sync.Mutex
	at     time.Time
	answer map[matter]Decision
}

// maxRecent bounds the decisions remembered.
const maxRecent = 4096

func (m *memory) find(q matter) (d Decision, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok = m.answer[q]
	return d, ok
}

func (m *memory) keep(q matter, d Decision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.at.Equal(q.At) || len(m.answer) >= maxRecent {
		m.at, m.answer = q.At, map[matter]Decision{}
	}
	m.answer[q] = d
}

// fits lists the endpoints that a call is for, a line each. It is asked here and
// not by Cedar's like, whose wildcard runs across slashes.
func (r *rule) fits(method string, path Path) (lines string) {
	for _, e := range r.endpoints {
		if (e.method == "*" || e.method == method) && e.pattern.Match(path) {
			lines += e.line
		}
	}
	return lines
}

// candidates are the rules that can match a question.
type candidates struct{ state, agreements []*rule }

// All makes it a cedar.PolicyIterator.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, list := range [...][]*rule{c.state, c.agreements} {
			for _, r := range list {
				if !yield(r.key, r.policy) {
					return
				}
			}
		}
	}
}

// entities are the two sides of a call and what they belong to. There are so
// few that looking through them is faster than a map.
type entities [7]types.Entity

// Get makes it a cedar.EntityGetter.
func (e *entities) Get(id types.EntityUID) (types.Entity, bool) {
	for i := range e {
		if e[i].UID == id {
			return e[i], true
		}
	}
	return types.Entity{}, false
}

func newEntities(client union.SubsystemID, service union.ServiceID) *entities {
	e := new(entities)
	e[0] = subsystemEntity(client)
	e[1] = entity("Service", service.String(), uid("Subsystem", service.SubsystemID.String()), types.RecordMap{
		"state": types.String(service.State), "class": types.String(service.Class), "member": types.String(service.Code),
		"subsystem": types.String(service.Subsystem), "code": types.String(service.Service),
	})
	e[2] = subsystemEntity(service.SubsystemID)
	for i, m := range [...]union.MemberID{client.MemberID, service.MemberID} {
		state := uid("State", string(m.State))
		e[3+2*i] = entity("Member", m.String(), state, nil)
		e[4+2*i] = types.Entity{UID: state}
	}
	return e
}

func subsystemEntity(id union.SubsystemID) types.Entity {
	return entity("Subsystem", id.String(), uid("Member", id.MemberID.String()), types.RecordMap{
		"state": types.String(id.State), "class": types.String(id.Class), "member": types.String(id.Code), "code": types.String(id.Subsystem),
	})
}

func entity(kind types.EntityType, id string, parent types.EntityUID, attributes types.RecordMap) types.Entity {
	return types.Entity{UID: uid(kind, id), Parents: types.NewEntityUIDSet(parent), Attributes: types.NewRecord(attributes)}
}

func uid(kind types.EntityType, id string) types.EntityUID {
	return types.NewEntityUID(kind, types.String(id))
}
