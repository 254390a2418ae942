package cli

import (
	"crypto"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

type directoryEnrolCmd struct {
	File    string   `arg:"" name:"enrolment" type:"path"`
	Keys    string   `required:"" type:"path" placeholder:"DIR"`
	NameEn  string   `name:"name-en" placeholder:"TEXT"`
	NameAr  string   `name:"name-ar" placeholder:"TEXT"`
	Address string   `placeholder:"HOST:PORT"`
	Node    string   `placeholder:"NAME"`
	Member  []string `sep:"none" placeholder:"CLASS/CODE|ENGLISH|ARABIC"`
	Policy  string   `type:"existingfile" placeholder:"FILE"`
	Partner bool
	NoVote  bool
	Replace bool
	where
	Demonstration bool
}

// Run makes a state's keys, authority and part where they are not there yet,
// and writes what the ceremony needs of them. With --replace the state has its
// keys changed: the old one signs for the new one.
func (c *directoryEnrolCmd) Run(s *session) error {
	state, err := union.ParseState(strings.ToUpper(s.State))
	if err != nil {
		return fault.New(fault.Usage, "--state: %v", err)
	}
	if c.Node == "" {
		c.Node = config.NodeName(state)
	}
	names := []string{directory.StateKey, directory.OnlineKey, directory.AuthorityKey, directory.TLSKey, directory.StampKey, directory.LogKey, directory.WitnessKey}
	if !c.NoVote {
		names = append(names, directory.RootKey)
	}
	keys, err := openKeys(c.Keys, c.Demonstration, names...)
	if err != nil {
		return err
	}
	seat := directory.Seat{Code: state, Name: t(c.NameEn, c.NameAr), Partner: c.Partner}
	var e *directory.Edition
	var word *directory.Succession
	version := int64(1)
	if c.Replace {
		d, err := c.open(s)
		if err != nil {
			return err
		}
		st, ok := d.View().State(state)
		if !ok {
			return fault.New(fault.UnknownState, "the union has no state %s", state)
		}
		seat, version = st.Seat, st.Signed+1
		if e, err = d.View().Edition(state); err != nil {
			return err
		}
		if word, err = replaceKeys(keys, d.View().Union(), state, names); err != nil {
			return err
		}
	} else {
		if !seat.Name.Complete() || c.Address == "" {
			return fault.New(fault.Usage, "--name-en, --name-ar and --address are needed for a new state")
		}
		if e, err = c.part(keys, seat); err != nil {
			return err
		}
	}
	n, err := directory.Enrol(seat, !c.NoVote, keys, version, time.Now(), e)
	if err != nil {
		return err
	}
	n.Succession = word
	if err := createFile(c.File, n.Encode); err != nil {
		return err
	}
	return s.show(map[string]any{"state": state, "enrolment": c.File, "key": n.Key, "succession": word != nil}, func() {
		s.printf("%s %s\n", s.say(t("Enrolment of", "ملف انضمام")), s.say(seat.Name))
		s.line(t("Next: take the file to whoever keeps the draft, by a way on which nobody can exchange it; the keys stay here. There:",
			"التالي: سلّم الملف لمن يحفظ المسودة بطريق لا يمكن فيه استبداله، والمفاتيح تبقى هنا. وهناك:"))
		s.printf("  falaj directory add-state DRAFT %s\n", filepath.Base(c.File))
	})
}

// replaceKeys puts new directory keys in the place of the old, and lets the
// old state key sign for its successor.
func replaceKeys(keys *seal.Keys, name string, state union.State, names []string) (*directory.Succession, error) {
	old, err := keys.Signer(directory.StateKey)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if n != directory.StateKey && n != directory.OnlineKey && n != directory.RootKey {
			continue
		}
		if _, err := keys.Replace(n, seal.ECDSAP256, time.Now()); err != nil {
			return nil, err
		}
	}
	now, err := keys.Signer(directory.StateKey)
	if err != nil {
		return nil, err
	}
	return directory.Succeed(name, state, old, now.Public())
}

// part is the first part of a state: its authority, one node, its members.
func (c *directoryEnrolCmd) part(keys *seal.Keys, seat directory.Seat) (*directory.Edition, error) {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fault.New(fault.Usage, "--address: %v", err)
	}
	ca, err := keys.Signer(directory.AuthorityKey)
	if err != nil {
		return nil, err
	}
	authority, err := directory.NewAuthority(seat.Code, seat.Name.En, ca, time.Now)
	if err != nil {
		return nil, err
	}
	crl, err := authority.CRL(nil)
	if err != nil {
		return nil, err
	}
	key, err := keys.Signer(directory.TLSKey)
	if err != nil {
		return nil, err
	}
	tls, err := authority.TLS(c.Node, []string{host}, key.Public())
	if err != nil {
		return nil, err
	}
	e := &directory.Edition{
		Part: &directory.Part{
			State:       seat.Code,
			Authorities: []directory.Issuer{{Certificate: directory.Cert{Certificate: authority.Cert}, CRL: "crl.der"}},
			Nodes:       []directory.Node{{Name: c.Node, Address: c.Address, Certificates: []directory.Cert{{Certificate: tls}}}},
		},
		Policy: policy.Base(seat.Code),
		Files:  map[string][]byte{"crl.der": crl},
	}
	if c.Policy != "" {
		b, err := os.ReadFile(c.Policy)
		if err != nil {
			return nil, fault.New(fault.File, "--policy: %v", err)
		}
		e.Policy = string(b)
	}
	if key, err = keys.Signer(directory.StampKey); err != nil {
		return nil, err
	}
	stamp, err := authority.Stamp(key.Public())
	if err != nil {
		return nil, err
	}
	e.Stamps = []directory.Stamp{{Certificate: directory.Cert{Certificate: stamp}}}
	log, err := directory.NewLog(seat.Code, host, "", keys)
	if err != nil {
		return nil, err
	}
	if err := e.SetLog(log); err != nil {
		return nil, err
	}
	for _, text := range c.Member {
		m, err := member(keys, authority, seat.Code, text)
		if err != nil {
			return nil, err
		}
		e.Members = append(e.Members, m)
	}
	return e, nil
}

// member reads CLASS/CODE|ENGLISH|ARABIC and gives the member its seal.
func member(keys *seal.Keys, authority *directory.Authority, state union.State, text string) (m directory.Member, err error) {
	f := strings.Split(text, "|")
	if len(f) != 3 {
		return m, fault.New(fault.Usage, "--member %q: wanted CLASS/CODE|ENGLISH|ARABIC", text)
	}
	m.ID, err = union.ParseMember(string(state) + "/" + f[0])
	if err != nil {
		return m, fault.New(fault.Usage, "--member: %v", err)
	}
	m.Class, m.Code, m.Name = m.ID.Class, m.ID.Code, t(f[1], f[2])
	key, err := signer(keys, directory.SealKey(m.ID))
	if err != nil {
		return m, err
	}
	cert, err := authority.Seal(m.ID, m.Name.En, key.Public())
	if err != nil {
		return m, err
	}
	m.Seals = []directory.Cert{{Certificate: cert}}
	return m, nil
}

// openKeys opens a key folder and makes the keys named that it lacks.
func openKeys(dir string, demonstration bool, names ...string) (*seal.Keys, error) {
	keys, err := seal.OpenKeys(dir, seal.KeyConfig{Demonstration: demonstration})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, err := signer(keys, name); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func signer(keys *seal.Keys, name string) (crypto.Signer, error) {
	if keys.Has(name) {
		return keys.Signer(name)
	}
	alg := seal.ECDSAP256
	switch name {
	case directory.AuthorityKey:
		alg = seal.ECDSAP384 // it signs for twenty years
	case directory.LogKey, directory.WitnessKey:
		alg = seal.Ed25519
	}
	return keys.Create(name, alg)
}
