package node

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// maxListed bounds what one question answers with.
const maxListed = 1000

// About describes a running node.
type About struct {
	State         union.State         `json:"state"`
	Name          string              `json:"name"`
	Union         string              `json:"union"`
	Demonstration bool                `json:"demonstration"`
	Directory     int64               `json:"directory_version"`
	Process       int                 `json:"process"`
	Addresses     Addresses           `json:"addresses"`
	SecondPerson  config.SecondPerson `json:"second_person"`
}

func (n *Node) describe(context.Context, admin.Person, url.Values) (any, error) {
	v := n.directory.View()
	return About{n.cfg.State, n.cfg.Name, v.Union(), n.cfg.Demonstration, v.Version(), os.Getpid(), n.Addresses(), n.cfg.Admin.SecondPerson}, nil
}

// Health is what doctor reads.
type Health struct {
	Ready  bool                `json:"ready"`
	Checks []operation.Finding `json:"checks"`
}

func (n *Node) examine(ctx context.Context, _ admin.Person, _ url.Values) (any, error) {
	ok, found := n.health.Examine(ctx)
	return Health{ok, found}, nil
}

// listClients lists this node's clients; with service=, those of them that an
// agreement lets call it.
func (n *Node) listClients(_ context.Context, _ admin.Person, q url.Values) (any, error) {
	all := n.exchange.Local().Clients()
	if !q.Has("service") {
		return all, nil
	}
	service, err := union.ParseService(q.Get("service"))
	if err != nil {
		return nil, fault.Wrap(fault.BadIdentifier, err, "%v", err)
	}
	agreements := n.directory.View().Agreements()
	return slices.DeleteFunc(all, func(c exchange.Client) bool {
		return !slices.ContainsFunc(agreements, func(a policy.Agreement) bool { return a.Client == c.ID && a.Service == service })
	}), nil
}

// Service is a service of this state: what the union knows, and where it runs.
type Service struct {
	directory.Service
	ID      union.ServiceID `json:"id"`
	Address string          `json:"address,omitzero"` // "": no backend at this node
	Public  bool            `json:"published"`        // stands in the directory
}

func (n *Node) listServices(context.Context, admin.Person, url.Values) (any, error) {
	out := []Service{}
	seen := map[union.ServiceID]bool{}
	s, _ := n.directory.View().State(n.cfg.State)
	for _, m := range s.Members {
		for _, sub := range m.Subsystems {
			for _, svc := range sub.Services {
				b, _ := n.exchange.Local().Backend(svc.ID)
				out = append(out, Service{svc, svc.ID, b.Address, true})
				seen[svc.ID] = true
			}
		}
	}
	for _, b := range n.exchange.Local().Backends() {
		if !seen[b.Service] {
			out = append(out, Service{ID: b.Service, Address: b.Address})
		}
	}
	return out, nil
}

func (n *Node) listAccess(_ context.Context, _ admin.Person, q url.Values) (any, error) {
	p, err := n.directory.View().Part(n.cfg.State)
	if err != nil {
		return nil, err
	}
	out := []directory.Agreement{}
	for _, a := range p.Agreements {
		if (q.Get("service") == "" || q.Get("service") == a.Service.String()) && (q.Get("client") == "" || q.Get("client") == a.Client.String()) {
			out = append(out, a)
		}
	}
	return out, nil
}

func (n *Node) listPurposes(context.Context, admin.Person, url.Values) (any, error) {
	return n.directory.View().Purposes(), nil
}

// Explained is how both sides decide a call. The other state's local rules are
// its own affair and not known here.
type Explained struct {
	Consumer policy.Explanation `json:"consumer"`
	Provider policy.Explanation `json:"provider"`
}

func (n *Node) explain(_ context.Context, _ admin.Person, q url.Values) (any, error) {
	client, err := union.ParseClient(q.Get("client"))
	if err != nil {
		return nil, fault.Wrap(fault.BadIdentifier, err, "client: %v", err)
	}
	service, err := union.ParseService(q.Get("service"))
	if err != nil {
		return nil, fault.Wrap(fault.BadIdentifier, err, "service: %v", err)
	}
	v := n.directory.View()
	set, err := policy.Compile(append(v.Policies(), n.rules()...), v.Agreements())
	if err != nil {
		n.log.Warn("rules of the directory", "error", err)
	}
	purpose := q.Get("purpose")
	if purpose == "" {
		purpose, _ = v.DefaultPurpose(client, service)
	}
	known, _ := v.Purpose(purpose)
	offered, ok := v.Service(service)
	if !ok {
		return nil, fault.New(fault.UnknownService, "%s", service)
	}
	if _, ok := v.Subsystem(client); !ok {
		return nil, fault.New(fault.UnknownClient, "%s", client)
	}
	question := policy.Question{
		Client: client, Service: service, Method: or(strings.ToUpper(q.Get("method")), "GET"), Path: or(q.Get("path"), "/"),
		Purpose: purpose, Basis: known.Basis.En, DataClass: offered.DataClass, At: n.now(),
	}
	var e Explained
	question.Role = policy.Consumer
	e.Consumer = set.Explain(question)
	question.Role = policy.Provider
	e.Provider = set.Explain(question)
	return e, nil
}

// DirectoryStatus is the directory as this node has it.
type DirectoryStatus struct {
	Union    string              `json:"union"`
	Version  int64               `json:"version"`
	Expires  time.Time           `json:"expires"`
	Fresh    bool                `json:"fresh"`
	States   []StateStatus       `json:"states"`
	Problems []directory.Problem `json:"problems"`
}

// StateStatus is a state's place in it.
type StateStatus struct {
	Code     union.State `json:"code"`
	Name     union.Text  `json:"name"`
	Partner  bool        `json:"partner"`
	Version  int64       `json:"version"`
	Expires  time.Time   `json:"expires"`
	Nodes    []string    `json:"nodes"`
	Members  int         `json:"members"`
	Services int         `json:"services"`
}

func (n *Node) showDirectory(context.Context, admin.Person, url.Values) (any, error) {
	return StatusOf(n.directory.View(), n.now()), nil
}

// StatusOf is what a view holds.
func StatusOf(v *directory.View, now time.Time) DirectoryStatus {
	d := DirectoryStatus{Union: v.Union(), Version: v.Version(), Expires: v.Expires(), Fresh: v.Fresh(now) == nil, States: []StateStatus{}, Problems: append([]directory.Problem{}, v.Problems()...)}
	for _, s := range v.States() {
		x := StateStatus{Code: s.Code, Name: s.Name, Partner: s.Partner, Version: s.Version, Expires: s.Expires, Nodes: []string{}, Members: len(s.Members)}
		for _, node := range s.Nodes {
			x.Nodes = append(x.Nodes, node.Address)
		}
		for _, m := range s.Members {
			for _, sub := range m.Subsystems {
				x.Services += len(sub.Services)
			}
		}
		d.States = append(d.States, x)
	}
	return d
}

// everyone is an auditor's view: all calls of this node.
func everyone(_, _ union.SubsystemID) bool { return true }

func (n *Node) showEvidence(ctx context.Context, who admin.Person, q url.Values) (any, error) {
	page, err := exchange.ParsePage(q)
	if err != nil {
		return nil, err
	}
	return n.exchange.Evidence(ctx, q.Get("id"), exchange.Reader{Name: who.Name, May: everyone}, page)
}

func (n *Node) packEvidence(ctx context.Context, who admin.Person, q url.Values) (any, error) {
	which, err := exchange.ParseWhich(q.Get("id"), q)
	if err != nil {
		return nil, err
	}
	p, err := n.exchange.Container(ctx, which, exchange.Reader{Name: who.Name, May: everyone})
	if err != nil {
		return nil, err
	}
	return admin.File{Type: evidence.MIME, Size: p.Size(), Write: p.Write}, nil
}

func (n *Node) showReceipt(ctx context.Context, who admin.Person, q url.Values) (any, error) {
	return n.exchange.Receipt(ctx, q.Get("id"), exchange.Reader{Name: who.Name, May: everyone})
}

// Verification is evidence with what was verified of it.
type Verification struct {
	ID      string           `json:"id"`
	OK      bool             `json:"ok"`
	Missing string           `json:"missing,omitzero"` // why a side could not be asked
	Checks  []exchange.Check `json:"checks"`
}

func (n *Node) verifyEvidence(ctx context.Context, who admin.Person, q url.Values) (any, error) {
	e, err := exchange.Pages(func(p exchange.Page) (*exchange.Evidence, error) {
		return n.exchange.Evidence(ctx, q.Get("id"), exchange.Reader{Name: who.Name, May: everyone}, p)
	})
	if err != nil {
		return nil, err
	}
	checks, err := n.exchange.VerifyEvidence(ctx, e)
	if err != nil {
		return nil, err
	}
	ok := len(checks) > 0 && !slices.ContainsFunc(checks, func(c exchange.Check) bool { return !c.OK })
	return Verification{q.Get("id"), ok, e.Missing, checks}, nil
}

func (n *Node) listOutcomes(ctx context.Context, _ admin.Person, _ url.Values) (any, error) {
	list, err := n.exchange.Outcomes(ctx, maxListed)
	return append([]exchange.Outcome{}, list...), err
}

func (n *Node) listDeliveries(ctx context.Context, _ admin.Person, q url.Values) (any, error) {
	f := exchange.DeliveryFilter{Conversation: q.Get("conversation"), Status: exchange.Status(q.Get("status"))}
	if c := q.Get("client"); c != "" {
		var err error
		if f.Client, err = union.ParseClient(c); err != nil {
			return nil, fault.Wrap(fault.BadIdentifier, err, "client: %v", err)
		}
	}
	return n.exchange.Deliveries(ctx, f, maxListed)
}

func (n *Node) listEvents(context.Context, admin.Person, url.Values) (any, error) {
	return n.admin.Catalogue(), nil
}

// changeKey is the name under which a day's changes stand in the journal. It
// holds a space, as no id of a call does: none stands among them.
func changeKey(day time.Time) string { return "admin " + day.UTC().Format(time.DateOnly) }

// Change is a record of administration.
type Change struct {
	Leaf  int64           `json:"leaf"`
	At    time.Time       `json:"at"`
	Entry json.RawMessage `json:"entry"`
}

// listChanges answers with the first of a day's changes, or with those from a
// leaf on: an answer holds journal.MaxFound, and who wants all of a long day
// asks on from behind the last, until an answer is empty.
func (n *Node) listChanges(ctx context.Context, _ admin.Person, q url.Values) (any, error) {
	day := n.now()
	if d := q.Get("day"); d != "" {
		var err error
		if day, err = time.Parse(time.DateOnly, d); err != nil {
			return nil, fault.New(fault.BadRequest, "day: wanted yyyy-mm-dd")
		}
	}
	var from int64
	if f := q.Get("from"); f != "" {
		var err error
		if from, err = strconv.ParseInt(f, 10, 64); err != nil || from < 0 {
			return nil, fault.New(fault.BadRequest, "from: wanted the number of a leaf")
		}
	}
	found, err := n.journal.FindFrom(ctx, changeKey(day), from)
	if err != nil {
		return nil, err
	}
	out := []Change{}
	for _, r := range found {
		out = append(out, Change{r.Index, r.At.UTC(), r.Local})
	}
	return out, nil
}
