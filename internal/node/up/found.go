package up

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/registry"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// unionName is the name that the demonstration's evidence carries.
const unionName = "falaj-demonstration"

// nodeName is the name of each state's one node.
const nodeName = "n1"

// party is a state, or with an empty code the secretariat, before the ceremony.
type party struct {
	state union.State
	dir   string
	keys  *seal.Keys
	book  *directory.Directory
}

// found holds the ceremony: each state makes its keys in its own folder, signs
// its part, and votes; the first and the secretariat bring it into force.
func (u *Union) found(ctx context.Context) error {
	states := u.plan.States
	secretariat := &party{dir: u.folder("secretariat")}
	if err := secretariat.open(directory.OnlineKey, directory.WitnessKey); err != nil {
		return err
	}
	online, err := secretariat.keys.Signer(directory.OnlineKey)
	if err != nil {
		return fmt.Errorf("the secretariat's key: %w", err)
	}
	overseer, err := directory.SecretariatWitness(logHost, secretariat.keys)
	if err != nil {
		return err
	}
	now := u.deps.Now()
	votes := 0
	for _, s := range states {
		if x, err := seat(s); err != nil {
			return err
		} else if !x.Partner {
			votes++
		}
	}
	alone := votes == 0 // a partner's union of one still needs a vote
	draft, err := directory.Found(directory.Founding{
		Name: unionName, Demonstration: true, Threshold: max(1, votes/2+1), Quorum: len(states) / 2,
		Purposes: purposes(), Secretariat: online.Public(), Witness: overseer, Now: now,
	})
	if err != nil {
		return err
	}
	if _, err := present(draft, u.joints); err != nil {
		return err
	}
	parties := make([]*party, len(states))
	enrolments := make([]*directory.Enrolment, len(states))
	var group errgroup.Group
	for i, s := range states {
		group.Go(func() error {
			x, err := seat(s)
			if err != nil {
				return err
			}
			p := &party{state: s, dir: u.folder(string(s))}
			names := []string{directory.StateKey, directory.OnlineKey, directory.AuthorityKey, directory.TLSKey, directory.StampKey, directory.LogKey, directory.WitnessKey}
			vote := !x.Partner || alone
			if vote {
				names = append(names, directory.RootKey)
			}
			for _, o := range offices() {
				names = append(names, directory.SealKey(union.MemberID{State: s, Class: "GOV", Code: o.code}))
			}
			if err := p.open(names...); err != nil {
				return err
			}
			edition, err := p.part(x, u.joints, states, u.plan.link(s), u.plan.public(s), u.deps.Now)
			if err != nil {
				return fmt.Errorf("the part of %s: %w", s, err)
			}
			enrolments[i], err = directory.Enrol(x, vote, p.keys, 1, now, edition)
			parties[i] = p
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, e := range enrolments {
		if err := draft.AddState(e); err != nil {
			return err
		}
	}
	for _, p := range parties {
		if !p.keys.Has(directory.RootKey) {
			continue
		}
		key, err := p.keys.Signer(directory.RootKey)
		if err != nil {
			return fmt.Errorf("the vote of %s: %w", p.state, err)
		}
		if err := draft.Sign(key); err != nil {
			return fmt.Errorf("the vote of %s: %w", p.state, err)
		}
	}
	root, err := draft.Root()
	if err != nil {
		return err
	}
	all := append([]*party{secretariat}, parties...)
	for _, p := range all {
		if err := os.WriteFile(filepath.Join(p.dir, "root.json"), root, 0o600); err != nil {
			return fmt.Errorf("pinning the root: %w", err)
		}
	}
	if err := openBooks(ctx, all, u.deps.Now); err != nil {
		return err
	}
	if err := parties[0].book.Install(ctx, draft); err != nil {
		return fmt.Errorf("bringing the union into force: %w", err)
	}
	return refreshAll(ctx, all)
}

// open opens the party's key folder and makes the keys that it lacks.
func (p *party) open(names ...string) error {
	var err error
	if p.keys, err = seal.OpenKeys(filepath.Join(p.dir, "keys"), seal.KeyConfig{Demonstration: true}); err != nil {
		return fmt.Errorf("the key folder of %s: %w", p.dir, err)
	}
	for _, name := range names {
		if err := p.create(name); err != nil {
			return err
		}
	}
	return nil
}

func (p *party) create(name string) error {
	// P-256 for the authority too: every party verifies every certificate of
	// the union, and P-384 takes ten times as long.
	alg := seal.ECDSAP256
	if name == directory.LogKey || name == directory.WitnessKey {
		alg = seal.Ed25519
	}
	if _, err := p.keys.Create(name, alg); err != nil {
		return fmt.Errorf("the key %s of %s: %w", name, p.dir, err)
	}
	return nil
}

// nameLog says where the state's log is to be read now, and gives one to a
// state of a union that was founded before there were any.
func (p *party) nameLog(ctx context.Context, address string) error {
	s, ok := p.book.View().State(p.state)
	switch {
	case !ok || s.Log.Address == address:
		return nil
	case s.Log != (directory.Log{}):
		s.Log.Address = address
		return p.book.Publish(ctx, func(e *directory.Edition) error { return e.SetLog(s.Log) })
	}
	for _, name := range []string{directory.LogKey, directory.WitnessKey} {
		if p.keys.Has(name) {
			continue
		}
		if err := p.create(name); err != nil {
			return err
		}
	}
	log, err := directory.NewLog(p.state, logHost, address, p.keys)
	if err != nil {
		return err
	}
	return p.book.Publish(ctx, func(e *directory.Edition) error { return e.SetLog(log) })
}

// nameStamp gives a state of a union that was founded before there were any its
// time-stamp authority, and says where it is to be asked now.
func (p *party) nameStamp(ctx context.Context, address string) error {
	if !p.keys.Has(directory.StampKey) {
		if err := p.create(directory.StampKey); err != nil {
			return err
		}
	}
	if err := p.book.Renew(ctx); err != nil {
		return err
	}
	s, ok := p.book.View().State(p.state)
	if !ok || !slices.ContainsFunc(s.Stamps, func(x directory.Stamp) bool { return x.Address != address }) {
		return nil
	}
	return p.book.Publish(ctx, func(e *directory.Edition) error {
		for i := range e.Stamps {
			e.Stamps[i].Address = address
		}
		return nil
	})
}

// openBooks opens the parties' copies of the directory. In this process they
// reach each other directly, also when every certificate has run out.
func openBooks(ctx context.Context, all []*party, now func() time.Time) error {
	var group errgroup.Group
	for _, p := range all {
		peers := func() []directory.Peer {
			var out []directory.Peer
			for _, o := range all {
				if o != p {
					out = append(out, directory.Peer{State: o.state, Fetcher: o.book, Cosign: o.book.Cosign})
				}
			}
			return out
		}
		group.Go(func() error {
			root, err := os.ReadFile(filepath.Join(p.dir, "root.json"))
			if err != nil {
				return fmt.Errorf("the pinned root: %w", err)
			}
			p.book, err = directory.Open(ctx, directory.Config{
				Dir: filepath.Join(p.dir, "directory"), Root: root, State: p.state, Demonstration: true,
			}, directory.Deps{Now: now, Keys: p.keys, Peers: peers})
			return err
		})
	}
	return group.Wait()
}

// refreshAll brings every copy to the newest version.
func refreshAll(ctx context.Context, all []*party) error {
	var group errgroup.Group
	for _, p := range all {
		group.Go(func() error { return p.book.Refresh(ctx) })
	}
	return group.Wait()
}

// logHost stands in the names of the logs: nothing is there to be reached.
const logHost = "demonstration.falaj.example"

// part is what a state says of itself.
func (p *party) part(x directory.Seat, all []joint, states []union.State, link, public string, now func() time.Time) (*directory.Edition, error) {
	ca, err := p.keys.Signer(directory.AuthorityKey)
	if err != nil {
		return nil, err
	}
	authority, err := directory.NewAuthority(x.Code, x.Name.En, ca, now)
	if err != nil {
		return nil, err
	}
	crl, err := authority.CRL(nil)
	if err != nil {
		return nil, err
	}
	key, err := p.keys.Signer(directory.TLSKey)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(link)
	if err != nil {
		return nil, err
	}
	tls, err := authority.TLS(nodeName, []string{host}, key.Public())
	if err != nil {
		return nil, err
	}
	e := &directory.Edition{
		Part: &directory.Part{
			State:       x.Code,
			Authorities: []directory.Issuer{{Certificate: directory.Cert{Certificate: authority.Cert}, CRL: "crl.der"}},
			Nodes:       []directory.Node{{Name: nodeName, Address: link, Certificates: []directory.Cert{{Certificate: tls}}}},
		},
		Policy: policy.Base(x.Code),
		Files:  map[string][]byte{"crl.der": crl},
	}
	key, err = p.keys.Signer(directory.StampKey)
	if err != nil {
		return nil, err
	}
	stamp, err := authority.Stamp(key.Public())
	if err != nil {
		return nil, err
	}
	e.Stamps = []directory.Stamp{{Address: public + "/tsa", Certificate: directory.Cert{Certificate: stamp}}}
	log, err := directory.NewLog(x.Code, logHost, public+"/log", p.keys)
	if err != nil {
		return nil, err
	}
	if err := e.SetLog(log); err != nil {
		return nil, err
	}
	registers, err := registry.New(x.Code, registry.DefaultSeed)
	if err != nil {
		return nil, err
	}
	for _, o := range offices() {
		m := directory.Member{ID: union.MemberID{State: x.Code, Class: "GOV", Code: o.code}, Class: "GOV", Code: o.code, Name: o.name}
		key, err := p.keys.Signer(directory.SealKey(m.ID))
		if err != nil {
			return nil, err
		}
		cert, err := authority.Seal(m.ID, o.name.En, key.Public())
		if err != nil {
			return nil, err
		}
		m.Seals = []directory.Cert{{Certificate: cert}}
		for _, s := range o.subsystems {
			sub := s.entry(x.Code, o.code)
			if s.kind != "" {
				file := "openapi/" + string(s.kind) + ".json"
				if e.Files[file], err = describe(registers.Handler(s.kind)); err != nil {
					return nil, err
				}
				sub.Services = []directory.Service{{
					Code: service, Name: s.offers, OpenAPI: file, TimeoutMS: 10_000, Retention: "exchange", DataClass: "demonstration",
				}}
				e.Agreements = append(e.Agreements, agreements(x.Code, o.code, s, states)...)
			}
			m.Subsystems = append(m.Subsystems, sub)
		}
		e.Members = append(e.Members, m)
	}
	return e, takePart(e, all, states, now())
}

// agreements let every state's portal read a register.
func agreements(own union.State, member string, s system, states []union.State) []directory.Agreement {
	var out []directory.Agreement
	for _, client := range states {
		out = append(out, directory.Agreement{
			Agreement: policy.Agreement{
				ID: fmt.Sprintf("%s-%s", client, s.code), Client: portal(client),
				Service:  union.ServiceID{SubsystemID: id(own, member, s.code), Service: service},
				Purposes: []string{s.purpose, "trial"},
				Basis:    t("Demonstration: stands for an agreement between the two states.", "عرض تجريبي: يمثّل اتفاقاً بين الدولتين."),
			},
			DefaultPurpose: s.purpose,
		})
	}
	return out
}
