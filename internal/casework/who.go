package casework

import (
	"maps"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// personOf is the citizen in a role of this half, as the subsystems of this
// state name him; "" while nobody is known. Where the definition has a fact for
// him, that fact alone says who he is; otherwise it is he who opened the case.
func (c *Case) personOf(role string) string {
	if fact := c.program.Definition().Roles[role].Person; fact != "" {
		who, _ := c.Facts[fact].(string)
		return who
	}
	return c.Persons[role]
}

// person is the citizen whose case it is in this half: a half has one role of
// citizens at most.
func (c *Case) person() string {
	for name, role := range c.program.Definition().Roles {
		if role.Party == c.Party && role.Kind == definition.Citizen {
			return c.personOf(name)
		}
	}
	return ""
}

// bind makes the case that of the citizen who opens it.
func (c *Case) bind(a *Actor) {
	if r := c.program.Definition().Roles[a.Role]; c.Events == 1 && r.Kind == definition.Citizen && r.Person == "" {
		c.Persons[a.Role] = a.User
	}
}

// own holds a citizen to his own case, and an officer to giving his name.
func own(c *Case, name, user string, fields definition.Values) error {
	role := c.program.Definition().Roles[name]
	if role.Kind == definition.System {
		return nil
	}
	if user == "" {
		return fault.New(fault.CaseActor, "X-Road-UserId")
	}
	if role.Kind == definition.Officer {
		return nil
	}
	whose := c.personOf(name)
	if c.Events == 0 { // only who opens a case says whose it is
		whose = user
		if role.Person != "" {
			whose, _ = fields[role.Person].(string)
		}
	}
	if user != whose {
		return fault.New(fault.CaseActor, "not this person's case").Arabic("ليست معاملة هذا الشخص")
	}
	return nil
}

// unknown is said of a case that is not there, and of one that is not for who
// asks: whether there is such a case is not for everybody to know.
func unknown() error { return fault.New(fault.CaseUnknown, "").Arabic("") }

// concerns tells whether a subsystem speaks for any role of this half.
func (c *Case) concerns(b Book, system union.SubsystemID) bool {
	for name, role := range c.program.Definition().Roles {
		if role.Party == c.Party && b.Speaks(system, c.Service, c.Version, name) {
			return true
		}
	}
	return false
}

// rolesOf are the roles of this half in which a reader sees the case: those
// that his system speaks for, of a citizen's if he is that citizen, of an
// officer's if the officer is named.
func (e *Engine) rolesOf(c *Case, r Reader) ([]string, error) {
	b, err := e.deps.Book()
	if err != nil {
		return nil, err
	}
	var roles []string
	for name, role := range c.program.Definition().Roles {
		switch {
		case role.Party != c.Party || !b.Speaks(r.System, c.Service, c.Version, name):
		case role.Kind != definition.System && r.User == "":
		case role.Kind == definition.Citizen && r.User != c.personOf(name):
		default:
			roles = append(roles, name)
		}
	}
	if len(roles) == 0 {
		return nil, unknown()
	}
	slices.Sort(roles)
	return roles, nil
}

// citizens tells whether roles are citizens' alone.
func (c *Case) citizens(roles []string) bool {
	return !slices.ContainsFunc(roles, func(name string) bool {
		return c.program.Definition().Roles[name].Kind != definition.Citizen
	})
}

// forCitizen leaves out of a story what is no citizen's to see: who the state's
// people are, what the half asks and is answered inside its state, and what
// hooks and effects are given, what others are told.
func (s *Story) forCitizen(c *Case, roles []string, user string) {
	others := func(n Notice) bool { return !slices.Contains(roles, n.Role) }
	s.Proposals, s.Notices = nil, slices.DeleteFunc(s.Notices, others)
	for fact := range c.internal() {
		delete(s.Facts, fact)
		delete(s.Shown, fact)
		delete(s.Titles.Facts, fact)
	}
	for _, ev := range s.Events {
		ev.Act, ev.Let, ev.Calls, ev.Effects = nil, nil, nil, nil
		ev.Notices = slices.DeleteFunc(ev.Notices, others)
		if ev.Kind == KindCall {
			ev.Fields = nil
		}
		for _, a := range []*Actor{ev.Actor, ev.Second} {
			if a != nil && a.User != user {
				a.User = ""
			}
		}
	}
}

// internal are the facts that a register of this state gave and nobody is told:
// no form, message or notice names them.
func (c *Case) internal() map[string]bool {
	d, out := c.program.Definition(), map[string]bool{}
	for _, call := range d.Calls {
		for fact := range call.Keep {
			out[fact] = call.Party == c.Party
		}
	}
	named := func(fact string) bool {
		for _, f := range d.Forms {
			if slices.Contains(f.Fields, fact) {
				return true
			}
		}
		for _, m := range d.Messages {
			if slices.Contains(m.Fields, fact) {
				return true
			}
		}
		for _, n := range d.Notices {
			if strings.Contains(n.Title.En+n.Text.En, "{"+fact+"}") {
				return true
			}
		}
		return false
	}
	maps.DeleteFunc(out, func(fact string, own bool) bool { return !own || named(fact) })
	return out
}
