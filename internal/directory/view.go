package directory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// View is one version of the directory, ready to be asked. It never changes;
// any number of goroutines may use it.
type View struct {
	release  *release
	charter  *Charter
	parts    map[union.State]*part
	problems []Problem

	states     map[union.State]State
	members    map[union.MemberID]Member
	subsystems map[union.SubsystemID]Subsystem
	services   map[union.ServiceID]Service
	certs      map[[32]byte]Certificate
	purposes   map[string]Purpose
	policies   []policy.Source
	agreements []policy.Agreement
	defaults   map[grant]string
}

type grant struct {
	client  union.SubsystemID
	service union.ServiceID
}

// State is a state of the union as the directory shows it. Without a good part
// it has a name and nothing else.
type State struct {
	Seat
	Version int64     // of its own part
	Signed  int64     // of what it signed last, good or not
	Expires time.Time // of its own part
	Nodes   []Node
	Members []Member
	Stamps  []Stamp
	Log     Log // zero where the state names none
	Batch   bool
}

// Problem is what is wrong with one state's part. The last good one stays.
type Problem struct {
	State  union.State `json:"state"`
	Detail string      `json:"detail"`
}

// newView indexes a release. parts are the good ones.
func newView(r *release, parts map[union.State]*part, problems []Problem) *View {
	v := &View{
		release: r, charter: &Charter{}, parts: parts, problems: problems,
		states:     map[union.State]State{},
		members:    map[union.MemberID]Member{},
		subsystems: map[union.SubsystemID]Subsystem{},
		services:   map[union.ServiceID]Service{},
		certs:      map[[32]byte]Certificate{},
		purposes:   map[string]Purpose{},
		defaults:   map[grant]string{},
	}
	if r == nil {
		return v
	}
	v.charter = r.charter
	for _, p := range v.charter.Purposes {
		v.purposes[p.Code] = p
	}
	for _, seat := range v.charter.States {
		s := State{Seat: seat}
		if m := r.snapshot.Signed.Meta[string(seat.Code)+".json"]; m != nil {
			s.Signed = m.Version
		}
		if p := parts[seat.Code]; p != nil {
			s.Version, s.Expires, s.Nodes, s.Members, s.Stamps, s.Log, s.Batch = p.version, p.expires, p.doc.Nodes, p.doc.Members, p.doc.Stamps, p.log, p.doc.Batch
			v.addPart(seat.Code, p)
		}
		v.states[seat.Code] = s
	}
	return v
}

func (v *View) addPart(state union.State, p *part) {
	for _, m := range p.doc.Members {
		v.members[m.ID] = m
		for _, s := range m.Subsystems {
			v.subsystems[s.ID] = s
			for _, svc := range s.Services {
				v.services[svc.ID] = svc
			}
		}
	}
	for _, c := range p.certs {
		v.certs[c.SHA256] = c
	}
	if p.policy != "" {
		v.policies = append(v.policies, policySource(state, p.policy))
	}
	for _, a := range p.doc.Agreements {
		v.agreements = append(v.agreements, a.Agreement)
		if a.DefaultPurpose != "" {
			v.defaults[grant{a.Client, a.Service}] = a.DefaultPurpose
		}
	}
}

func policySource(state union.State, text string) policy.Source {
	return policy.Source{Name: string(state) + "/" + policyFile, State: state, Text: text}
}

// checkPolicy refuses rules that do not compile: they would deny all of the
// state's calls.
func checkPolicy(state union.State, text string, agreements []Agreement) error {
	var src []policy.Source
	if text != "" {
		src = append(src, policySource(state, text))
	}
	list := make([]policy.Agreement, len(agreements))
	for i, a := range agreements {
		list[i] = a.Agreement
	}
	_, err := policy.Compile(src, list)
	return err
}

// Version is the directory's version, 0 where there is none yet.
func (v *View) Version() int64 {
	if v.release == nil {
		return 0
	}
	return v.release.version
}

// Proves is the version by which a state's seals are as this view shows them:
// an older one than the view's own where it holds on to a part that has been
// followed by none that is good.
func (v *View) Proves(state union.State) int64 {
	if p := v.parts[state]; p != nil && p.release != 0 {
		return p.release
	}
	return v.Version()
}

// Expires is when the directory can no longer be relied on.
func (v *View) Expires() time.Time {
	if v.release == nil {
		return time.Time{}
	}
	return v.release.expires()
}

// Fresh gives DirectoryExpired if at that time the directory, or the part of
// one of the states named, can no longer be relied on.
func (v *View) Fresh(now time.Time, states ...union.State) error {
	if v.release == nil {
		return fault.New(fault.DirectoryExpired, "no directory has been received yet")
	}
	if end := v.Expires(); now.After(end) {
		return fault.New(fault.DirectoryExpired, "directory version %d expired at %s", v.Version(), end.UTC().Format(time.RFC3339))
	}
	for _, s := range states {
		if p := v.parts[s]; p != nil && now.After(p.expires) {
			return fault.New(fault.DirectoryExpired, "the part of %s expired at %s", s, p.expires.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Union is the union's name.
func (v *View) Union() string { return v.charter.Name }

// Demonstration tells whether the union is one for demonstration.
func (v *View) Demonstration() bool { return v.charter.Demonstration }

// Witness is the secretariat's witness; zero: it has none.
func (v *View) Witness() merkle.Key { return v.charter.Witness }

// Quorum is how many witnesses a log's head needs.
func (v *View) Quorum() int { return v.charter.Quorum }

// Root is the root's bytes: what a new node is given as its pin.
func (v *View) Root() []byte {
	if v.release == nil {
		return nil
	}
	return v.release.files[versioned(v.release.root.Signed.Version, "root")]
}

// States lists the states in the directory's order.
func (v *View) States() []State {
	list := make([]State, 0, len(v.charter.States))
	for _, s := range v.charter.States {
		list = append(list, v.states[s.Code])
	}
	return list
}

// State finds a state.
func (v *View) State(code union.State) (State, bool) {
	s, ok := v.states[code]
	return s, ok
}

// Member finds a member.
func (v *View) Member(id union.MemberID) (Member, bool) {
	m, ok := v.members[id]
	return m, ok
}

// Subsystem finds a subsystem.
func (v *View) Subsystem(id union.SubsystemID) (Subsystem, bool) {
	s, ok := v.subsystems[id]
	return s, ok
}

// Service finds a service.
func (v *View) Service(id union.ServiceID) (Service, bool) {
	s, ok := v.services[id]
	return s, ok
}

// OpenAPI gives the description of a service.
func (v *View) OpenAPI(id union.ServiceID) ([]byte, bool) {
	s, ok := v.services[id]
	if !ok || s.OpenAPI == "" {
		return nil, false
	}
	b, ok := v.parts[id.State].files[string(id.State)+"/"+s.OpenAPI]
	return b, ok
}

// File gives a file of a state's part by its name there, for rooms that put
// files of their own beside state.json.
func (v *View) File(state union.State, name string) ([]byte, bool) {
	p := v.parts[state]
	if p == nil {
		return nil, false
	}
	b, ok := p.files[string(state)+"/"+name]
	return b, ok
}

// Certificate finds a certificate by the SHA-256 of its DER.
func (v *View) Certificate(sha256 [32]byte) (Certificate, bool) {
	c, ok := v.certs[sha256]
	return c, ok
}

// Purposes lists the union's purposes.
func (v *View) Purposes() []Purpose { return slices.Clone(v.charter.Purposes) }

// Purpose finds a purpose.
func (v *View) Purpose(code string) (Purpose, bool) {
	p, ok := v.purposes[code]
	return p, ok
}

// DefaultPurpose is what an agreement sets for a client that sends none.
func (v *View) DefaultPurpose(client union.SubsystemID, service union.ServiceID) (string, bool) {
	p, ok := v.defaults[grant{client, service}]
	return p, ok
}

// Policies lists the states' rules.
func (v *View) Policies() []policy.Source { return slices.Clone(v.policies) }

// Agreements lists all states' agreements.
func (v *View) Agreements() []policy.Agreement { return slices.Clone(v.agreements) }

// Problems lists the states whose part is not what they last signed, and why.
func (v *View) Problems() []Problem { return slices.Clone(v.problems) }

// Part gives a copy of what a state says of itself.
func (v *View) Part(state union.State) (*Part, error) {
	e, err := v.Edition(state)
	if err != nil {
		return nil, err
	}
	return e.Part, nil
}

// Edition gives a copy of a state's part, to be changed and signed anew.
func (v *View) Edition(state union.State) (*Edition, error) {
	p := v.parts[state]
	if p == nil {
		return nil, fault.New(fault.UnknownState, "%s has no part in the directory", clip(string(state)))
	}
	b, err := encode(p.doc)
	if err != nil {
		return nil, fmt.Errorf("copy part: %w", err)
	}
	e := &Edition{Policy: p.policy, Files: map[string][]byte{}}
	if e.Part, err = DecodePart(b); err != nil {
		return nil, fmt.Errorf("copy part: %w", err)
	}
	for name, b := range p.files {
		if name = strings.TrimPrefix(name, string(state)+"/"); name != stateFile && name != policyFile {
			e.Files[name] = b
		}
	}
	return e, nil
}

// settle judges the parts of a release: each that is good replaces the one
// before; for one that is not, the last good one stays and a problem is noted.
func settle(r *release, before map[union.State]*part) (map[union.State]*part, []Problem) {
	parts, problems := map[union.State]*part{}, []Problem(nil)
	for state, g := range r.roles {
		p, err := buildPart(state, g, before[state])
		if err != nil {
			problems = append(problems, Problem{State: state, Detail: err.Error()})
			p = before[state]
		} else {
			p.release = r.version
		}
		if p != nil {
			parts[state] = p
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return cmp.Compare(a.State, b.State) })
	return parts, problems
}
