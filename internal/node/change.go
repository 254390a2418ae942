package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// ClientAdd registers a system that calls. A member or subsystem that the
// directory does not know is entered there, the member with a seal of its own.
type ClientAdd struct {
	ID           union.SubsystemID `json:"id"`
	Mode         exchange.Mode     `json:"mode,omitempty"`
	Certificates []string          `json:"certificates,omitempty"`
	Push         string            `json:"push,omitempty"`
	Name         union.Text        `json:"name,omitzero"`   // of the subsystem; default: its code
	Member       union.Text        `json:"member,omitzero"` // name of the member; default: its code
}

// ID names what is to go.
type ID struct {
	ID string `json:"id"`
}

// publish changes the state's part and tells the peers before anybody hears
// that it is done: who reads of a new service may call it at once.
func (n *Node) publish(ctx context.Context, change func(*directory.Edition) error) error {
	if err := n.directory.Publish(ctx, change); err != nil {
		return err
	}
	n.tell(ctx)
	return nil
}

// tellTime is how long a change waits for peers to hear of it. Those that do
// not hear of it now, ask.
const tellTime = time.Second

func (n *Node) tell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	n.directory.PassOn(ctx)
}

// permitPush refuses an address to which no outcome would ever be pushed.
func (n *Node) permitPush(ctx context.Context, params json.RawMessage) error {
	var p struct{ Push string }
	if err := json.Unmarshal(params, &p); err != nil {
		return fault.Wrap(fault.BadRequest, err, "%v", err)
	}
	if p.Push == "" {
		return nil
	}
	return n.exchange.Permit(ctx, p.Push)
}

func (n *Node) addClient(ctx context.Context, _ admin.Person, p ClientAdd) (admin.Done, error) {
	if p.ID.State != n.cfg.State {
		return admin.Done{}, fault.New(fault.BadIdentifier, "%s is not a system of %s", p.ID, n.cfg.State)
	}
	before, had := n.exchange.Local().Client(p.ID)
	after := exchange.Client{ID: p.ID, Mode: p.Mode, Certificates: p.Certificates, Push: p.Push}
	if after.Mode == "" && len(after.Certificates) > 0 {
		after.Mode = exchange.ModeMutual
	}
	if err := n.exchange.Local().PutClient(ctx, after); err != nil {
		return admin.Done{}, err
	}
	err := n.publish(ctx, func(e *directory.Edition) error {
		m, err := n.member(e, p.ID.MemberID, p.Member)
		if err != nil || p.ID.Subsystem == "" {
			return err
		}
		subsystem(m, p.ID.Subsystem, p.Name)
		return nil
	})
	if err != nil {
		return admin.Done{}, errors.Join(err, n.putBack(ctx, before, had, p.ID))
	}
	after, _ = n.exchange.Local().Client(p.ID)
	return admin.Done{Result: after, Before: before, After: after}, nil
}

// putBack undoes a registration whose publication failed.
func (n *Node) putBack(ctx context.Context, c exchange.Client, had bool, id union.SubsystemID) error {
	if had {
		return n.exchange.Local().PutClient(ctx, c)
	}
	return n.exchange.Local().DropClient(ctx, id)
}

// removeClient takes a system out of the directory, and from among those that
// call through this node. What other states granted it is theirs to take back:
// it lets nobody in whom the directory does not name.
func (n *Node) removeClient(ctx context.Context, _ admin.Person, p ID) (admin.Done, error) {
	id, err := union.ParseClient(p.ID)
	if err != nil {
		return admin.Done{}, fault.Wrap(fault.BadIdentifier, err, "%v", err)
	}
	before, _ := n.exchange.Local().Client(id)
	gone := false
	err = n.publish(ctx, func(e *directory.Edition) error {
		gone, err = takeOut(e, id)
		return err
	})
	if err != nil {
		return admin.Done{}, err
	}
	err = n.exchange.Local().DropClient(ctx, id)
	if gone && fault.CodeOf(err) == fault.NotFound {
		err = nil
	}
	return admin.Done{Result: p, Before: before}, err
}

// takeOut removes a subsystem from a state's part, unless something there
// stands on it, and tells whether there was one.
func takeOut(e *directory.Edition, id union.SubsystemID) (bool, error) {
	for _, a := range e.Agreements {
		if a.Client == id {
			return false, fault.New(fault.Conflict, "%s may call %s under %q; falaj access revoke takes that back first", id, a.Service, a.ID)
		}
	}
	gone := false
	for i := range e.Members {
		m := &e.Members[i]
		if m.ID != id.MemberID {
			continue
		}
		for _, s := range m.Subsystems {
			if s.Code == id.Subsystem && len(s.Services) > 0 {
				return false, fault.New(fault.Conflict, "%s offers %s; falaj service remove takes that back first", id, s.Services[0].ID)
			}
		}
		m.Subsystems = slices.DeleteFunc(m.Subsystems, func(s directory.Subsystem) bool {
			gone = gone || s.Code == id.Subsystem
			return s.Code == id.Subsystem
		})
	}
	return gone, nil
}

// member finds a member in the state's part, or enters it with a seal that the
// state's own authority issues. It may run again with another edition.
func (n *Node) member(e *directory.Edition, id union.MemberID, name union.Text) (*directory.Member, error) {
	for i := range e.Members {
		if m := &e.Members[i]; m.Class == id.Class && m.Code == id.Code {
			if name.Complete() {
				m.Name = name
			}
			return m, nil
		}
	}
	if !name.Complete() {
		name = union.Text{En: or(name.En, id.Code), Ar: or(name.Ar, or(name.En, id.Code))}
	}
	issuer, err := n.directory.Authority()
	if err != nil {
		return nil, fault.Wrap(fault.NotAllowed, err, "%s is new, and the state's authority, which would issue its seal, is not in this node's hands", id)
	}
	key, err := n.key(directory.SealKey(id))
	if err != nil {
		return nil, err
	}
	cert, err := issuer.Seal(id, name.En, key.Public())
	if err != nil {
		return nil, err
	}
	e.Members = append(e.Members, directory.Member{ID: id, Class: id.Class, Code: id.Code, Name: name, Seals: []directory.Cert{{Certificate: cert}}})
	return &e.Members[len(e.Members)-1], nil
}

// subsystem finds or enters a subsystem of a member.
func subsystem(m *directory.Member, code string, name union.Text) *directory.Subsystem {
	for i := range m.Subsystems {
		if s := &m.Subsystems[i]; s.Code == code {
			if name.Complete() {
				s.Name = name
			}
			return s
		}
	}
	if !name.Complete() {
		name = union.Text{En: or(name.En, code), Ar: or(name.Ar, or(name.En, code))}
	}
	m.Subsystems = append(m.Subsystems, directory.Subsystem{Code: code, Name: name})
	return &m.Subsystems[len(m.Subsystems)-1]
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// ServiceAdd offers a service. Where it is offered already, what is given here
// takes the place of what stood there.
type ServiceAdd struct {
	ID          union.ServiceID   `json:"id"`
	Address     string            `json:"address"`
	Name        union.Text        `json:"name,omitzero"`      // default: the description's title, or the code
	Subsystem   union.Text        `json:"subsystem,omitzero"` // name, where it is new
	Member      union.Text        `json:"member,omitzero"`    // name, where it is new
	OpenAPI     json.RawMessage   `json:"openapi,omitempty"`  // the description
	Endpoints   []policy.Endpoint `json:"endpoints,omitempty"`
	Idempotent  bool              `json:"idempotent,omitzero"`
	Async       bool              `json:"async,omitzero"`
	TimeoutMS   int64             `json:"timeout_ms,omitzero"`
	Retention   string            `json:"retention,omitzero"` // default: exchange
	DigestOnly  bool              `json:"digest_only,omitzero"`
	DataClass   string            `json:"data_class,omitzero"` // default: official
	KeyHeader   string            `json:"key_header,omitzero"`
	Authorities string            `json:"authorities,omitzero"` // PEM
}

// permit refuses an address that would never be called.
func (n *Node) permit(ctx context.Context, params json.RawMessage) error {
	var p struct{ Address string }
	if err := json.Unmarshal(params, &p); err != nil {
		return fault.Wrap(fault.BadRequest, err, "%v", err)
	}
	return n.exchange.Permit(ctx, p.Address)
}

func (n *Node) addService(ctx context.Context, _ admin.Person, p ServiceAdd) (admin.Done, error) {
	if p.ID.State != n.cfg.State {
		return admin.Done{}, fault.New(fault.BadIdentifier, "%s is not a service of %s", p.ID, n.cfg.State)
	}
	d, err := readDescription(p.OpenAPI)
	if err != nil {
		return admin.Done{}, err
	}
	if !p.Name.Complete() {
		p.Name = union.Text{En: or(p.Name.En, or(d.title.En, p.ID.Service)), Ar: or(p.Name.Ar, or(d.title.Ar, p.ID.Service))}
	}
	if len(p.Endpoints) == 0 {
		p.Endpoints = d.endpoints
	}
	offered := directory.Service{
		ID: p.ID, Code: p.ID.Service, Name: p.Name, Endpoints: p.Endpoints, Idempotent: p.Idempotent, Async: p.Async,
		TimeoutMS: p.TimeoutMS, Retention: or(p.Retention, "exchange"), DigestOnly: p.DigestOnly, DataClass: or(p.DataClass, "official"),
	}
	if !slices.ContainsFunc(n.cfg.Retention, func(c config.Class) bool { return c.Name == offered.Retention }) {
		return admin.Done{}, fault.New(fault.BadRequest, "this node's configuration has no retention class %q", offered.Retention)
	}
	before, had := n.exchange.Local().Backend(p.ID)
	after := exchange.Backend{Service: p.ID, Address: p.Address, KeyHeader: p.KeyHeader, RootsPEM: p.Authorities}
	// The backend first: a service that stood in the directory without one
	// would be called in vain.
	if err := n.exchange.Local().PutBackend(ctx, after); err != nil {
		return admin.Done{}, err
	}
	err = n.publish(ctx, func(e *directory.Edition) error {
		m, err := n.member(e, p.ID.MemberID, p.Member)
		if err != nil {
			return err
		}
		s := subsystem(m, p.ID.Subsystem, p.Subsystem)
		if len(p.OpenAPI) > 0 {
			offered.OpenAPI = "openapi/" + fileName(p.ID) + ".json"
			e.Files[offered.OpenAPI] = p.OpenAPI
		}
		s.Services = append(slices.DeleteFunc(s.Services, func(o directory.Service) bool { return o.Code == offered.Code }), offered)
		return nil
	})
	if err != nil {
		if had {
			return admin.Done{}, errors.Join(err, n.exchange.Local().PutBackend(ctx, before))
		}
		return admin.Done{}, errors.Join(err, n.exchange.Local().DropBackend(ctx, p.ID))
	}
	return admin.Done{Result: Service{Service: offered, ID: p.ID, Address: p.Address}, Before: before, After: after}, nil
}

// fileName names a service's description: two services never share one.
func fileName(id union.ServiceID) string {
	sum := sha256.Sum256([]byte(id.String()))
	return hex.EncodeToString(sum[:16])
}

// ServiceMove changes the backend of a service, which only this node knows.
type ServiceMove struct {
	ID          union.ServiceID `json:"id"`
	Address     string          `json:"address"`
	KeyHeader   string          `json:"key_header,omitzero"`
	Authorities string          `json:"authorities,omitzero"`
}

func (n *Node) moveService(ctx context.Context, _ admin.Person, p ServiceMove) (admin.Done, error) {
	before, ok := n.exchange.Local().Backend(p.ID)
	if !ok {
		return admin.Done{}, fault.New(fault.NotFound, "%s has no backend at this node", p.ID)
	}
	after := exchange.Backend{Service: p.ID, Address: p.Address, KeyHeader: p.KeyHeader, RootsPEM: p.Authorities}
	return admin.Done{Result: p, Before: before, After: after}, n.exchange.Local().PutBackend(ctx, after)
}

func (n *Node) removeService(ctx context.Context, _ admin.Person, p ID) (admin.Done, error) {
	id, err := union.ParseService(p.ID)
	if err != nil {
		return admin.Done{}, fault.Wrap(fault.BadIdentifier, err, "%v", err)
	}
	before, _ := n.exchange.Local().Backend(id)
	gone := false
	err = n.publish(ctx, func(e *directory.Edition) error {
		gone = false
		for i := range e.Members {
			for j := range e.Members[i].Subsystems {
				s := &e.Members[i].Subsystems[j]
				if e.Members[i].ID == id.MemberID && s.Code == id.Subsystem {
					s.Services = slices.DeleteFunc(s.Services, func(o directory.Service) bool {
						gone = gone || o.Code == id.Service
						return o.Code == id.Service
					})
				}
			}
		}
		e.Agreements = slices.DeleteFunc(e.Agreements, func(a directory.Agreement) bool { return a.Service == id })
		return nil
	})
	if err != nil {
		return admin.Done{}, err
	}
	err = n.exchange.Local().DropBackend(ctx, id)
	if gone && fault.CodeOf(err) == fault.NotFound {
		err = nil
	}
	return admin.Done{Result: p, Before: before}, err
}

// Grant is what access.grant takes: an agreement of the serving state.
type Grant struct {
	ID             string            `json:"id,omitzero"` // default: made of client and service, so that a second grant changes the first
	Client         union.SubsystemID `json:"client"`
	Service        union.ServiceID   `json:"service"`
	Endpoints      []policy.Endpoint `json:"endpoints,omitempty"`
	Purposes       []string          `json:"purposes"`
	DefaultPurpose string            `json:"default_purpose,omitzero"`
	From           time.Time         `json:"from,omitzero"`
	Until          time.Time         `json:"until,omitzero"`
	Basis          union.Text        `json:"basis,omitzero"` // default: that of the first purpose
}

func grantID(client union.SubsystemID, service union.ServiceID) string {
	sum := sha256.Sum256([]byte(client.String() + "\x00" + service.String()))
	return "grant-" + hex.EncodeToString(sum[:8])
}

func (n *Node) grant(ctx context.Context, _ admin.Person, p Grant) (admin.Done, error) {
	v := n.directory.View()
	if p.Service.State != n.cfg.State {
		return admin.Done{}, fault.New(fault.BadIdentifier, "%s is not a service of %s: only the serving state grants", p.Service, n.cfg.State)
	}
	if _, ok := v.Service(p.Service); !ok {
		return admin.Done{}, fault.New(fault.UnknownService, "%s", p.Service)
	}
	if _, ok := v.Subsystem(p.Client); !ok {
		return admin.Done{}, fault.New(fault.UnknownClient, "%s", p.Client)
	}
	if len(p.Purposes) == 0 {
		return admin.Done{}, fault.New(fault.MissingPurpose, "a grant names at least one purpose of the union's list")
	}
	for _, code := range p.Purposes {
		x, ok := v.Purpose(code)
		if !ok {
			var codes []string
			for _, known := range v.Purposes() {
				codes = append(codes, known.Code)
			}
			return admin.Done{}, fault.New(fault.UnknownPurpose, "%q is none of %s", code, strings.Join(codes, ", "))
		}
		if !p.Basis.Complete() {
			p.Basis = x.Basis
		}
	}
	if p.ID == "" {
		p.ID = grantID(p.Client, p.Service)
	}
	agreement := directory.Agreement{Agreement: policy.Agreement{
		ID: p.ID, Client: p.Client, Service: p.Service, Endpoints: p.Endpoints, Purposes: p.Purposes, From: p.From, Until: p.Until, Basis: p.Basis,
	}, DefaultPurpose: p.DefaultPurpose}
	var before *directory.Agreement
	err := n.publish(ctx, func(e *directory.Edition) error {
		before = nil
		for i := range e.Agreements {
			if e.Agreements[i].ID == p.ID {
				old := e.Agreements[i]
				before, e.Agreements[i] = &old, agreement
				return nil
			}
		}
		e.Agreements = append(e.Agreements, agreement)
		return nil
	})
	return admin.Done{Result: agreement, Before: before, After: agreement}, err
}

func (n *Node) revoke(ctx context.Context, _ admin.Person, p ID) (admin.Done, error) {
	var before *directory.Agreement
	err := n.publish(ctx, func(e *directory.Edition) error {
		before = nil
		e.Agreements = slices.DeleteFunc(e.Agreements, func(a directory.Agreement) bool {
			if a.ID == p.ID {
				before = &a
			}
			return a.ID == p.ID
		})
		if before == nil {
			return fault.New(fault.NotFound, "%s grants nothing under %q", n.cfg.State, p.ID)
		}
		return nil
	})
	return admin.Done{Result: p, Before: before}, err
}

// Policy is Cedar text.
type Policy struct {
	Cedar string `json:"cedar"`
}

func (n *Node) setPolicy(ctx context.Context, _ admin.Person, p Policy) (admin.Done, error) {
	if strings.TrimSpace(p.Cedar) == "" {
		return admin.Done{}, fault.New(fault.BadRequest, "no rules are given; without any, every call would be denied")
	}
	if _, err := policy.Compile([]policy.Source{{Name: "policy.cedar", State: n.cfg.State, Text: p.Cedar}}, nil); err != nil {
		return admin.Done{}, fault.Wrap(fault.BadRequest, err, "%v", err)
	}
	var before string
	err := n.publish(ctx, func(e *directory.Edition) error {
		before, e.Policy = e.Policy, p.Cedar
		return nil
	})
	return admin.Done{Before: before, After: p.Cedar}, err
}

func (n *Node) refreshDirectory(ctx context.Context, _ admin.Person, _ struct{}) (admin.Done, error) {
	before := n.directory.View().Version()
	err := n.directory.Refresh(ctx)
	after := n.directory.View().Version()
	return admin.Done{Result: map[string]int64{"version": after}, Before: before, After: after}, err
}

// Draft is a change of the union that k of its states have signed, as
// "falaj directory" writes it.
type Draft struct {
	Draft string `json:"draft"`
}

// Version is a version of the directory.
type Version struct {
	Version int64 `json:"version"`
}

func (n *Node) installDraft(ctx context.Context, _ admin.Person, p Draft) (admin.Done, error) {
	d, err := directory.DecodeDraft([]byte(p.Draft))
	if err != nil {
		return admin.Done{}, fault.Wrap(fault.BadRequest, err, "%v", err)
	}
	before := Version{n.directory.View().Version()}
	if err := n.directory.Install(ctx, d); err != nil {
		return admin.Done{}, err
	}
	n.tell(ctx)
	after := Version{n.directory.View().Version()}
	return admin.Done{Result: after, Before: before, After: after}, nil
}

// Resolution decides an unknown outcome.
type Resolution struct {
	Client   union.SubsystemID `json:"client"`
	ID       string            `json:"id"`
	Happened bool              `json:"happened"`
	Reason   string            `json:"reason"`
}

func (n *Node) resolveOutcome(ctx context.Context, who admin.Person, p Resolution) (admin.Done, error) {
	// The answer is kept for a day, in the clear: the id does not stand in it.
	return admin.Done{After: p}, n.exchange.ResolveOutcome(ctx, p.Client, p.ID, p.Happened, who.Name, p.Reason)
}

// Skip gives a delivery up.
type Skip struct {
	Client union.SubsystemID `json:"client"`
	ID     string            `json:"id"`
	Reason string            `json:"reason"`
}

func (n *Node) skipDelivery(ctx context.Context, who admin.Person, p Skip) (admin.Done, error) {
	return admin.Done{After: p}, n.exchange.SkipDelivery(ctx, p.Client, p.ID, who.Name, p.Reason)
}
