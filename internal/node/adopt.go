package node

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/casework/adoption"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/union"
)

// ServiceAdopt says in which joint services the state takes part, and how: a
// version of one more, or the whole file in the place of what it said before.
// The calendar and the case system are asked for the first time alone.
type ServiceAdopt struct {
	Adopt   *adoption.Adopted          `json:"adopt,omitempty"`
	System  union.SubsystemID          `json:"system,omitzero"`
	Zone    string                     `json:"zone,omitempty"`
	Weekend []adoption.Weekday         `json:"weekend,omitempty"`
	File    json.RawMessage            `json:"file,omitempty"`   // casework.json
	Tables  map[string]json.RawMessage `json:"tables,omitempty"` // by their file: casework/….json
}

// adoptService puts what the state adopts into its part, and the case system
// with its service, so that others can be granted to send messages to it.
func (n *Node) adoptService(ctx context.Context, _ admin.Person, p ServiceAdopt) (admin.Done, error) {
	var before, after json.RawMessage
	err := n.publish(ctx, func(e *directory.Edition) error {
		before = e.Files[adoption.File]
		old, a, err := p.adoption(n.cfg.State, before)
		if err != nil {
			return err
		}
		if after, err = a.Encode(); err != nil {
			return err
		}
		for _, d := range a.Adopts {
			if err := n.adoptable(old, d); err != nil {
				return err
			}
		}
		for name, b := range p.Tables {
			if !slices.ContainsFunc(a.Tables, func(t adoption.Table) bool { return t.File == name }) {
				return fault.New(fault.BadRequest, "%s names no table %s", adoption.File, name)
			}
			e.Files[name] = b
		}
		maps.DeleteFunc(e.Files, func(name string, _ []byte) bool {
			return strings.HasPrefix(name, "casework/") && !slices.ContainsFunc(a.Tables, func(t adoption.Table) bool { return t.File == name })
		})
		for _, t := range a.Tables {
			if e.Files[t.File] == nil {
				return fault.New(fault.BadRequest, "the table %s stands in no file %s", t.Name, t.File)
			}
		}
		e.Files[adoption.File] = after
		return n.caseSystem(e, a.System)
	})
	return admin.Done{Result: after, Before: before, After: after}, err
}

// adoption is what a state has adopted so far, nil where that is nothing or
// cannot be read, and what it adopts now.
func (p ServiceAdopt) adoption(state union.State, before []byte) (old, a *adoption.Adoption, err error) {
	old, _ = adoption.Decode(state, before)
	base := before
	if len(p.File) > 0 {
		base = p.File
	}
	a = new(adoption.Adoption)
	if len(base) > 0 {
		if a, err = adoption.Decode(state, base); err != nil {
			return nil, nil, fault.Wrap(fault.BadRequest, err, "%v", err)
		}
	}
	if p.System != (union.SubsystemID{}) {
		a.System = p.System
	}
	if p.Zone != "" {
		a.Zone = p.Zone
	}
	if p.Weekend != nil {
		a.Weekend = p.Weekend
	}
	if p.Adopt != nil {
		a.Adopt(*p.Adopt)
	}
	if a.System == (union.SubsystemID{}) || a.Zone == "" {
		return nil, nil, fault.New(fault.BadRequest, "the first adoption of a state also names its case system and its time zone: --system, --zone and --weekend").
			Arabic("يذكر أول اعتماد للدولة نظام معاملاتها ومنطقتها الزمنية أيضاً: --system و--zone و--weekend")
	}
	raw, err := a.Encode()
	if err == nil {
		a, err = adoption.Decode(state, raw)
	}
	if err != nil {
		return nil, nil, fault.Wrap(fault.BadRequest, err, "%v", err)
	}
	return old, a, nil
}

// adoptable holds what is adopted anew against the definition that the states
// signed: an unknown role or call would never be asked for.
func (n *Node) adoptable(old *adoption.Adoption, d adoption.Adopted) error {
	if was, ok := old.Adopted(d.Service, d.Version); ok && same(was, d) {
		return nil // also of a definition that a later falaj reads otherwise
	}
	text, ok := n.directory.View().Definition(d.Service, d.Version)
	if !ok {
		return fault.New(fault.NotFound, "the states have signed no %s@%d", d.Service, d.Version)
	}
	def, err := definition.Read(text)
	if err != nil {
		return fault.Wrap(fault.BadRequest, err, "%s@%d: this falaj cannot read it: %v", d.Service, d.Version, err)
	}
	for role := range d.Roles {
		if _, ok := def.Roles[role]; !ok {
			return fault.New(fault.BadRequest, "%s@%d has no role %q", d.Service, d.Version, role)
		}
	}
	for name := range d.Calls {
		known := false
		for _, call := range def.Calls {
			known = known || call.Service == name
		}
		if !known {
			return fault.New(fault.BadRequest, "%s@%d calls no %q", d.Service, d.Version, name)
		}
	}
	return nil
}

func same(a, b adoption.Adopted) bool {
	x, err := json.Marshal(a)
	y, also := json.Marshal(b)
	return err == nil && also == nil && bytes.Equal(x, y)
}

// caseSystem enters the state's case system and its service where they are
// new. They have no backend: this node is it.
func (n *Node) caseSystem(e *directory.Edition, id union.SubsystemID) error {
	m, err := n.member(e, id.MemberID, union.Text{})
	if err != nil {
		return err
	}
	s := subsystem(m, id.Subsystem, union.Text{En: "Cases of joint services", Ar: "معاملات الخدمات المشتركة"})
	if !slices.ContainsFunc(s.Services, func(o directory.Service) bool { return o.Code == adoption.Service }) {
		s.Services = append(s.Services, CaseService(id))
	}
	return nil
}

// CaseService is the service by which a state's case system takes messages.
func CaseService(system union.SubsystemID) directory.Service {
	return directory.Service{
		ID: union.ServiceID{SubsystemID: system, Service: adoption.Service}, Code: adoption.Service,
		Name:       union.Text{En: "Messages of cases", Ar: "رسائل المعاملات المشتركة"},
		Idempotent: true, TimeoutMS: 30_000, Retention: casework.Class, DataClass: "official",
	}
}
