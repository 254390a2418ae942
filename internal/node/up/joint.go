package up

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/casework/adoption"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/services/residence"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/union"
)

// joint is a joint service in which every state of the demonstration takes
// part, and who plays what in it: member and subsystem of each state.
type joint struct {
	text   []byte
	roles  map[definition.Kind][2]string
	named  map[string][2]string // roles that others speak for than their kind says
	calls  map[string][2]string // registers
	tables func(s union.State, zone string) (map[string][]byte, error)
}

// joints are the demonstration's own, and those of the configuration.
func joints(more ...[]byte) []joint {
	roles := map[definition.Kind][2]string{definition.Citizen: {"egov", "portal"}, definition.Officer: {"interior", "residence"}}
	violations := [2]string{"interior", "violations"}
	all := []joint{
		{text: residence.Definition, roles: roles, calls: map[string][2]string{"residents": {"interior", "civil"}}},
		{
			text: traffic.Definition, calls: map[string][2]string{"vehicles": {"interior", "traffic"}}, tables: traffic.Sample,
			roles: map[definition.Kind][2]string{definition.Citizen: {"egov", "portal"}, definition.Officer: violations, definition.System: {"interior", "cameras"}},
			named: map[string][2]string{"collector": {"egov", "payments"}, "server": {"egov", "portal"}},
		},
	}
	for _, text := range more {
		all = append(all, joint{text: text, roles: roles})
	}
	return all
}

// cases is a state's case system.
func cases(s union.State) union.SubsystemID { return id(s, "egov", "cases") }

// calendars are the states' zones and weekends.
func calendars(s union.State) adoption.Calendar {
	zones := map[union.State]string{
		"BH": "Asia/Bahrain", "SA": "Asia/Riyadh", "AE": "Asia/Dubai", "KW": "Asia/Kuwait", "OM": "Asia/Muscat", "QA": "Asia/Qatar", "EG": "Africa/Cairo",
	}
	c := adoption.Calendar{Zone: zones[s], Weekend: []adoption.Weekday{adoption.Weekday(time.Friday), adoption.Weekday(time.Saturday)}}
	if s == "AE" {
		c.Weekend = []adoption.Weekday{adoption.Weekday(time.Saturday), adoption.Weekday(time.Sunday)}
	}
	return c
}

// present puts the joint services that are new before the states, with the
// purposes that they serve. It tells whether any was.
func present(dr *directory.Draft, all []joint) (bool, error) {
	has, codes := dr.Definitions(), dr.Charter().Purposes
	for _, p := range purposes() {
		if !slices.ContainsFunc(codes, func(c directory.Purpose) bool { return c.Code == p.Code }) {
			codes = append(codes, p)
		}
	}
	some := len(codes) != len(dr.Charter().Purposes)
	if err := dr.SetPurposes(codes); err != nil {
		return false, err
	}
	for _, j := range all {
		d, err := definition.Read(j.text)
		if err != nil {
			return false, fmt.Errorf("a joint service: %w", err)
		}
		if slices.ContainsFunc(has, func(x directory.Definition) bool { return x.Name == d.Name && x.Version == d.Version }) {
			continue // as it was signed, even if it is written otherwise today
		}
		some = true
		if err := dr.AddDefinition(directory.Definition{Name: d.Name, Version: d.Version, Text: j.text}); err != nil {
			return false, err
		}
	}
	return some, nil
}

// takePart has a state adopt, from today on, the joint services of which it
// has said nothing, and lets the states' case systems send to its own. What it
// says already stays as it is.
func takePart(e *directory.Edition, all []joint, states []union.State, now time.Time) error {
	a := &adoption.Adoption{System: cases(e.State), Calendar: calendars(e.State)}
	if raw := e.Files[adoption.File]; raw != nil {
		var err error
		if a, err = adoption.Decode(e.State, raw); err != nil {
			return nil // somebody's own, which is his to mend
		}
	}
	zone, err := time.LoadLocation(a.Zone)
	if err != nil {
		return err
	}
	var uses []string
	changed := false
	for _, j := range all {
		d, err := definition.Read(j.text)
		if err != nil {
			return fmt.Errorf("a joint service: %w", err)
		}
		if !slices.Contains(uses, d.Purpose) {
			uses = append(uses, d.Purpose)
		}
		if _, ok := a.Adopted(d.Name, d.Version); ok {
			continue
		}
		changed = true
		x := adoption.Adopted{
			Service: d.Name, Version: d.Version, From: adoption.Date(now.In(zone).Format(time.DateOnly)),
			Roles: map[string][]union.SubsystemID{}, Calls: map[string]union.ServiceID{},
		}
		for role, r := range d.Roles {
			by, ok := j.named[role]
			if !ok {
				by, ok = j.roles[r.Kind]
			}
			if ok {
				x.Roles[role] = []union.SubsystemID{id(e.State, by[0], by[1])}
			}
		}
		if j.tables != nil {
			if err := sign(e, a, j.tables, x.From); err != nil {
				return err
			}
		}
		for name, by := range j.calls {
			x.Calls[name] = union.ServiceID{SubsystemID: id(e.State, by[0], by[1]), Service: service}
			grantCases(e, "cases-"+by[1], x.Calls[name], e.State, d.Purpose)
		}
		a.Adopt(x)
	}
	if !changed {
		return nil
	}
	if e.Files[adoption.File], err = a.Encode(); err != nil {
		return err
	}
	enter(e)
	for _, s := range states {
		if s != e.State {
			for _, purpose := range uses {
				grantCases(e, string(s)+"-cases", node.CaseService(cases(e.State)).ID, s, purpose)
			}
		}
	}
	return nil
}

// sign puts a service's sample tables beside the adoption, for as long ago as
// anybody asks.
func sign(e *directory.Edition, a *adoption.Adoption, tables func(union.State, string) (map[string][]byte, error), from adoption.Date) error {
	all, err := tables(e.State, a.Zone)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if _, has := a.Table(name, from); has {
			continue
		}
		file := "casework/" + name + ".json"
		e.Files[file] = all[name]
		a.Tables = append(a.Tables, adoption.Table{Name: name, From: "2000-01-01", File: file})
	}
	return nil
}

// enter puts the demonstration's subsystems that are new into a part: the case
// system, with its service, and those that speak for roles.
func enter(e *directory.Edition) {
	for i := range e.Members {
		m := &e.Members[i]
		for _, o := range offices() {
			for _, s := range o.subsystems {
				if o.code == m.Code && s.kind == "" && !slices.ContainsFunc(m.Subsystems, func(x directory.Subsystem) bool { return x.Code == s.code }) {
					m.Subsystems = append(m.Subsystems, s.entry(e.State, o.code))
				}
			}
		}
	}
}

// entry is a subsystem that serves no register, as the directory has it.
func (s system) entry(state union.State, member string) directory.Subsystem {
	sub := directory.Subsystem{Code: s.code, Name: s.name}
	if own := cases(state); id(state, member, s.code) == own {
		sub.Services = []directory.Service{node.CaseService(own)}
	}
	return sub
}

// grantCases lets a state's case system call a service for a purpose.
func grantCases(e *directory.Edition, name string, to union.ServiceID, client union.State, purpose string) {
	i := slices.IndexFunc(e.Agreements, func(a directory.Agreement) bool { return a.ID == name })
	if i < 0 {
		i = len(e.Agreements)
		e.Agreements = append(e.Agreements, directory.Agreement{Agreement: policy.Agreement{
			ID: name, Client: cases(client), Service: to,
			Basis: t("Demonstration: stands for an agreement between the two states.", "عرض تجريبي: يمثّل اتفاقاً بين الدولتين."),
		}})
	}
	if !slices.Contains(e.Agreements[i].Purposes, purpose) {
		e.Agreements[i].Purposes = append(e.Agreements[i].Purposes, purpose)
	}
}

// joinIn gives a union that was founded before there were any the joint
// services that it lacks. all are its parties, the secretariat first.
func (u *Union) joinIn(ctx context.Context, all []*party) error {
	states := all[1:]
	dr, err := states[0].book.Draft()
	if err != nil {
		return err
	}
	some, err := present(dr, u.joints)
	if err != nil {
		return err
	}
	if some {
		for _, p := range states {
			if !p.keys.Has(directory.RootKey) {
				continue
			}
			key, err := p.keys.Signer(directory.RootKey)
			if err == nil {
				err = dr.Sign(key)
			}
			if err != nil && fault.CodeOf(err) != fault.NotAllowed { // a key that has been replaced has no vote
				return fmt.Errorf("the vote of %s: %w", p.state, err)
			}
		}
		if dr.Ready() != nil {
			return nil // its people have changed who votes: they bring services into force
		}
		if err := states[0].book.Install(ctx, dr); err != nil {
			return fmt.Errorf("bringing joint services into force: %w", err)
		}
		if err := refreshAll(ctx, all); err != nil {
			return err
		}
	}
	for _, p := range states {
		if err := p.book.Publish(ctx, func(e *directory.Edition) error { return takePart(e, u.joints, u.plan.States, u.deps.Now()) }); err != nil {
			return fmt.Errorf("joint services of %s: %w", p.state, err)
		}
	}
	return nil
}
