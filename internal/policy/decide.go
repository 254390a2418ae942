package policy

import (
	"fmt"
	"iter"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/falaj/falaj/internal/union"
)

// Decide answers the question by the rules of the state whose role it is:
// allowed if a permit matches, no forbid does, and every rule could be
// evaluated. Nothing is cached: rules may depend on the time.
//
// Only the agreements of the question's own client and service are evaluated.
// That changes no decision: any other's scope (principal ==, resource ==) is
// false before its conditions are looked at.
func (s *Set) Decide(q Question) Decision {
	rules, request, known, refusal := s.prepare(q)
	if refusal != nil {
		return *refusal
	}
	outcome, found := cedar.Authorize(rules, known, request)
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

// prepare gives what Cedar needs, or the decision where it need not be asked.
func (s *Set) prepare(q Question) (candidates, cedar.Request, *entities, *Decision) {
	deny := func(r Rule, err string) (candidates, cedar.Request, *entities, *Decision) {
		return candidates{}, cedar.Request{}, nil, &Decision{Rules: []Rule{r}, Errors: []string{err}}
	}
	state := q.Client.State
	if q.Role == Provider {
		state = q.Service.State
	}
	switch {
	case q.Role != Consumer && q.Role != Provider, q.Client.IsZero(), q.Service.IsZero(), q.Method == "", q.At.IsZero():
		return deny(badQuestion(), "the question lacks role, client, service, method or time")
	case s.faulty[state]:
		return deny(sourceError(), "the rules of "+string(state)+" are faulty")
	}
	path, err := ParsePath(q.Path)
	if err != nil {
		return deny(badPath(), err.Error())
	}
	rules := candidates{state: s.rules[state]}
	both := s.accords[pair{q.Client, q.Service}]
	if both.entities == nil {
		both.entities = newEntities(q.Client, q.Service)
	}
	if q.Role == Provider {
		rules.agreements = both.agreements
	}
	var fits []types.Value
	for _, r := range rules.agreements {
		fits = append(fits, r.fits(q.Method, path)...)
	}
	return rules, cedar.Request{
		Principal: both.entities[0].UID,
		Action:    types.NewEntityUID("Action", "call"),
		Resource:  both.entities[1].UID,
		Context: types.NewRecord(types.RecordMap{
			"role":         types.String(q.Role),
			"method":       types.String(q.Method),
			"path":         types.String(path.String()),
			"endpoints":    types.NewSet(fits...),
			"purpose":      types.String(q.Purpose),
			"basis":        types.String(q.Basis),
			"dataClass":    types.String(q.DataClass),
			"clientState":  types.String(q.Client.State),
			"serviceState": types.String(q.Service.State),
			"at":           types.NewDatetime(q.At),
		}),
	}, both.entities, nil
}

// fits lists the endpoints that a call is for. It is asked here and not by
// Cedar's like, whose wildcard runs across slashes.
func (r *rule) fits(method string, path Path) (names []types.Value) {
	for _, e := range r.endpoints {
		if (e.method == "*" || e.method == method) && e.pattern.Match(path) {
			names = append(names, e.name)
		}
	}
	return names
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
