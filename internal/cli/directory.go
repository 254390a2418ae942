package cli

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// directoryCmd founds a union and changes who is in it. Each state signs with
// its own keys at its own place; what goes round between them is one file.
type directoryCmd struct {
	Init     directoryInitCmd    `cmd:""`
	Enrol    directoryEnrolCmd   `cmd:""`
	AddState directoryAddCmd     `cmd:""`
	Amend    directoryAmendCmd   `cmd:""`
	Sign     directorySignCmd    `cmd:""`
	Publish  directoryPublishCmd `cmd:""`
	Show     directoryShowCmd    `cmd:""`
	Verify   directoryVerifyCmd  `cmd:""`
}

const sourcePatience = 30 * time.Second

type directoryInitCmd struct {
	Draft         string `arg:"" name:"draft" type:"path"`
	Union         string `required:"" placeholder:"NAME"`
	Threshold     int    `required:"" placeholder:"K"`
	Quorum        int    `default:"2" placeholder:"N"`
	Purposes      string `type:"existingfile" placeholder:"FILE"`
	Keys          string `type:"path" placeholder:"DIR"`
	Demonstration bool
}

// Run begins a union: an empty draft with the secretariat's key.
func (c *directoryInitCmd) Run(s *session) error {
	f := directory.Founding{Name: c.Union, Demonstration: c.Demonstration, Threshold: c.Threshold, Quorum: c.Quorum, Now: time.Now()}
	var err error
	if f.Purposes, err = readPurposes(c.Purposes); err != nil {
		return err
	}
	if c.Keys != "" {
		keys, err := openKeys(c.Keys, c.Demonstration, directory.OnlineKey)
		if err != nil {
			return err
		}
		online, err := keys.Signer(directory.OnlineKey)
		if err != nil {
			return err
		}
		f.Secretariat = online.Public()
	}
	d, err := directory.Found(f)
	if err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	if err := createFile(c.Draft, d.Encode); err != nil {
		return err
	}
	return s.drafted(d, t("Begun. Next: each state runs \"falaj directory enrol\"; its file is added with \"falaj directory add-state\".",
		"بدأ التأسيس. التالي: تشغّل كل دولة \"falaj directory enrol\"، ثم يضاف ملفها بالأمر \"falaj directory add-state\"."))
}

type directoryEnrolCmd struct {
	File    string   `arg:"" name:"enrolment" type:"path"`
	Keys    string   `required:"" type:"path" placeholder:"DIR"`
	NameEn  string   `name:"name-en" placeholder:"TEXT"`
	NameAr  string   `name:"name-ar" placeholder:"TEXT"`
	Address string   `placeholder:"HOST:PORT"`
	Node    string   `default:"n1" placeholder:"NAME"`
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
	names := []string{directory.StateKey, directory.OnlineKey, directory.AuthorityKey, directory.TLSKey}
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
		s.line(t("Take the file to whoever keeps the draft, by a way on which nobody can exchange it. The keys stay here.",
			"سلّم الملف لمن يحفظ المسودة بطريق لا يمكن فيه استبداله. المفاتيح تبقى هنا."))
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
			return nil, fault.New(fault.Usage, "--policy: %v", err)
		}
		e.Policy = string(b)
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

type directoryAddCmd struct {
	Draft      string   `arg:"" name:"draft" type:"existingfile"`
	Enrolments []string `arg:"" name:"enrolment" type:"existingfile"`
}

// Run adds states to a draft. What was signed before is void.
func (c *directoryAddCmd) Run(s *session) error {
	d, err := readDraft(c.Draft)
	if err != nil {
		return err
	}
	for _, name := range c.Enrolments {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		n, err := directory.DecodeEnrolment(raw)
		if err == nil {
			err = d.AddState(n)
		}
		if err != nil {
			return fault.New(fault.DirectoryInvalid, "%s: %v", name, err)
		}
	}
	if err := replaceFile(c.Draft, d.Encode); err != nil {
		return err
	}
	return s.drafted(d, t("Added. When all are in, the states sign: \"falaj directory sign\".",
		"أضيفت. متى اكتملت الدول توقّع: \"falaj directory sign\"."))
}

type directoryAmendCmd struct {
	Draft string `arg:"" name:"draft" type:"path"`
	where
	Threshold int      `placeholder:"K"`
	Purposes  string   `type:"existingfile" placeholder:"FILE"`
	Announce  []string `type:"existingfile" placeholder:"ENROLMENT"`
	Remove    []string `placeholder:"BH"`
}

// Run begins a change of a union that is there: a draft of the next version.
func (c *directoryAmendCmd) Run(s *session) error {
	book, err := c.open(s)
	if err != nil {
		return err
	}
	d, err := book.Draft()
	if err != nil {
		return err
	}
	for _, code := range c.Remove {
		if err := d.RemoveState(union.State(strings.ToUpper(code))); err != nil {
			return err
		}
	}
	if c.Threshold > 0 {
		if err := d.SetThreshold(c.Threshold); err != nil {
			return fault.New(fault.Usage, "%v", err)
		}
	}
	if c.Purposes != "" {
		list, err := readPurposes(c.Purposes)
		if err != nil {
			return err
		}
		if err := d.SetPurposes(list); err != nil {
			return fault.New(fault.Usage, "--purposes: %v", err)
		}
	}
	for _, name := range c.Announce {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		n, err := directory.DecodeEnrolment(raw)
		if err == nil {
			err = d.Announce(n.Seat.Code, n.Key)
		}
		if err != nil {
			return fault.New(fault.DirectoryInvalid, "%s: %v", name, err)
		}
	}
	if err := createFile(c.Draft, d.Encode); err != nil {
		return err
	}
	return s.drafted(d, t("The states sign it: \"falaj directory sign\".", "توقّعه الدول: \"falaj directory sign\"."))
}

type directorySignCmd struct {
	Draft string `arg:"" name:"draft" type:"existingfile"`
	Keys  string `required:"" type:"existingdir" placeholder:"DIR"`
}

// Run adds a state's vote to a draft.
func (c *directorySignCmd) Run(s *session) error {
	d, err := readDraft(c.Draft)
	if err != nil {
		return err
	}
	keys, err := openKeys(c.Keys, d.Charter().Demonstration)
	if err != nil {
		return err
	}
	key, err := keys.Signer(directory.RootKey)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotAllowed, "there is no key %q in %s", directory.RootKey, c.Keys)
	}
	if err != nil {
		return err
	}
	if err := d.Sign(key); err != nil {
		return err
	}
	if err := replaceFile(c.Draft, d.Encode); err != nil {
		return err
	}
	next := t("It goes to the next state.", "ينتقل إلى الدولة التالية.")
	if d.Ready() == nil {
		next = t("It has its votes: \"falaj directory publish\" brings it into force.", "اكتملت أصواته، وينفذ بالأمر \"falaj directory publish\".")
	}
	return s.drafted(d, next)
}

type directoryPublishCmd struct {
	Draft  string   `arg:"" name:"draft" type:"existingfile"`
	Keys   []string `type:"existingdir" placeholder:"DIR"`
	Dir    string   `type:"path" placeholder:"DIR"`
	Source []string `placeholder:"URL"`
	Pin    string   `type:"path" placeholder:"FILE"`
}

// Run brings a draft into force. A union that is there is changed by a running
// node, which signs as its state and asks another party; a new one by two
// parties at this table, or by one and the secretariat at --source.
func (c *directoryPublishCmd) Run(s *session) error {
	d, err := readDraft(c.Draft)
	if err != nil {
		return err
	}
	if version, _ := d.Versions(); version > 1 {
		if len(c.Keys) > 0 || c.Dir != "" || len(c.Source) > 0 {
			return fault.New(fault.Usage, "a union that is there is changed by a running node: leave --keys, --dir and --source out")
		}
		n, err := s.node("")
		if err != nil {
			return err
		}
		raw, err := d.Encode()
		if err != nil {
			return err
		}
		var done node.Version
		return s.changed(n, "directory.install", node.Draft{Draft: string(raw)}, &done, func() {
			s.printf("%s %d\n", s.say(t("In force: directory version", "نافذ الآن: إصدار الدليل")), done.Version)
		})
	}
	root, err := d.Root()
	if err != nil {
		return err
	}
	book, err := c.found(s, d, root)
	if err != nil {
		return err
	}
	if c.Pin != "" {
		if err := createFile(c.Pin, func() ([]byte, error) { return root, nil }); err != nil {
			return err
		}
	}
	return s.survey(book.View(), t("In force. Every node is given the root (--pin FILE) by a way on which nobody can exchange it.",
		"نافذ. تُعطى كل عقدة ملف الجذر (--pin FILE) بطريق لا يمكن فيه استبداله."))
}

// found lets the parties whose keys are here sign the first version.
func (c *directoryPublishCmd) found(s *session, d *directory.Draft, root []byte) (*directory.Directory, error) {
	far, err := sources(c.Source)
	if err != nil {
		return nil, err
	}
	var parties []directory.Peer
	var first *directory.Directory
	for i, name := range c.Keys {
		keys, err := openKeys(name, d.Charter().Demonstration)
		if err != nil {
			return nil, err
		}
		online, err := keys.Signer(directory.OnlineKey)
		if err != nil {
			return nil, err
		}
		cfg := directory.Config{Root: root, State: d.Party(online.Public()), Demonstration: true}
		if i == 0 {
			cfg.Dir = c.Dir
		}
		book, err := directory.Open(s.ctx, cfg, directory.Deps{Now: time.Now, Keys: keys, Peers: func() []directory.Peer {
			return append(far[:len(far):len(far)], parties...)
		}})
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = book
		} else {
			parties = append(parties, directory.Peer{State: cfg.State, Fetcher: book, Cosign: book.Cosign})
		}
	}
	if first == nil {
		return nil, fault.New(fault.Usage, "a new union takes the keys of two parties: --keys DIR twice, or once with --source")
	}
	return first, first.Install(s.ctx, d)
}

// where says which directory a command reads: a folder's, a source's, or the
// one that a running node has.
type where struct {
	Dir    string   `type:"existingdir" placeholder:"DIR"`
	Source []string `placeholder:"URL"`
	Root   string   `type:"path" placeholder:"FILE"`
}

func (w where) named() bool { return w.Dir != "" || len(w.Source) > 0 }

// open reads the directory and verifies it from the pinned root. It writes
// nothing.
func (w where) open(s *session) (*directory.Directory, error) {
	name := w.Root
	if name == "" && w.Dir != "" {
		name = filepath.Join(filepath.Dir(filepath.Clean(w.Dir)), "root.json") // where a node's data folder has it
	}
	if name == "" {
		return nil, fault.New(fault.Usage, "--root: the union's pinned root is needed, by which all else is known")
	}
	root, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.New(fault.Usage, "--root: %v", err)
	}
	peers, err := sources(w.Source)
	if err != nil {
		return nil, err
	}
	if w.Dir != "" {
		peers = append(peers, directory.Peer{Fetcher: directory.Folder(w.Dir)})
	}
	d, err := directory.Open(s.ctx, directory.Config{Root: root, Demonstration: true}, directory.Deps{Now: time.Now, Peers: func() []directory.Peer { return peers }})
	if err != nil {
		return nil, err
	}
	if err := d.Refresh(s.ctx); err != nil {
		return nil, err
	}
	if d.View().Version() == 0 {
		return nil, fault.New(fault.NotFound, "there is no directory in %s", w.Dir)
	}
	return d, nil
}

func sources(list []string) ([]directory.Peer, error) {
	var peers []directory.Peer
	for _, base := range list {
		p, err := directory.HTTPPeer(base, &http.Client{Timeout: sourcePatience}, true)
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}

type directoryShowCmd struct {
	where
}

// Run shows a directory: of a folder or source, else that of a running node.
func (c *directoryShowCmd) Run(s *session) error {
	if !c.named() {
		n, err := s.node("")
		if err != nil {
			return err
		}
		var d node.DirectoryStatus
		if err := n.Query(s.ctx, "directory", nil, &d); err != nil {
			return err
		}
		return s.show(d, func() { s.surveyed(d) })
	}
	d, err := c.open(s)
	if err != nil {
		return err
	}
	return s.survey(d.View(), union.Text{})
}

type directoryVerifyCmd struct {
	where
	All bool
}

// verdict is what a verification found.
type verdict struct {
	Valid    bool               `json:"valid"`
	Versions []directoryVersion `json:"versions"`
}

type directoryVersion struct {
	Version  int64               `json:"version"`
	Expires  time.Time           `json:"expires"`
	Valid    bool                `json:"valid"`
	Error    string              `json:"error,omitempty"`
	Problems []directory.Problem `json:"problems,omitempty"`
}

// Run verifies a directory from the pinned root: every signature, threshold,
// digest, certificate and list, and with --all every old version that is
// there. The answer is no if something is wrong, or the newest has expired.
func (c *directoryVerifyCmd) Run(s *session) error {
	if !c.named() {
		return fault.New(fault.Usage, "--dir or --source: which directory is to be verified")
	}
	d, err := c.open(s)
	if err != nil {
		return err
	}
	v := verdict{Valid: true}
	newest := d.View().Version()
	for n := newest; n > 0 && (n == newest || c.All); n-- {
		x := directoryVersion{Version: n, Valid: true}
		view, err := d.ViewAt(s.ctx, n)
		if fault.CodeOf(err) == fault.NotFound {
			continue // numbers may be skipped
		}
		if err == nil && n == newest {
			err = view.Fresh(time.Now())
		}
		if err != nil {
			x.Valid, x.Error = false, err.Error()
		}
		if view != nil {
			x.Expires, x.Problems = view.Expires(), view.Problems()
			x.Valid = x.Valid && len(x.Problems) == 0
		}
		v.Valid = v.Valid && x.Valid
		v.Versions = append(v.Versions, x)
	}
	err = s.show(v, func() {
		for _, x := range v.Versions {
			say := t("holds", "صحيح")
			if !x.Valid {
				say = t("does not hold", "غير صحيح")
			}
			s.printf("%s %d %s", s.say(t("Version", "الإصدار")), x.Version, s.say(say))
			if x.Error != "" {
				s.printf(": %s", x.Error)
			}
			s.printf("\n")
			s.problems(x.Problems)
		}
	})
	if err == nil && !v.Valid {
		return errExit(ExitFailed)
	}
	return err
}

// survey shows what a view holds, and what is next.
func (s *session) survey(v *directory.View, next union.Text) error {
	d := node.StatusOf(v, time.Now())
	return s.show(d, func() {
		s.surveyed(d)
		if next.Complete() {
			s.line(next)
		}
	})
}

func (s *session) surveyed(d node.DirectoryStatus) {
	if d.Version == 0 {
		s.line(t("The node has received no directory yet.", "لم تتلقَّ العقدة دليلاً بعد."))
		return
	}
	fresh := t("in force", "سارٍ")
	if !d.Fresh {
		fresh = t("expired", "منتهي الصلاحية")
	}
	s.printf("%s: %s %d, %s (%s %s)\n\n", d.Union, s.say(t("version", "الإصدار")), d.Version, s.say(fresh),
		s.say(t("until", "حتى")), d.Expires.Local().Format(time.DateTime))
	var rows [][]string
	for _, x := range d.States {
		rows = append(rows, []string{
			string(x.Code), s.say(x.Name), fmt.Sprint(x.Version), x.Expires.Local().Format(time.DateOnly), strings.Join(x.Nodes, " "),
			fmt.Sprint(x.Members), fmt.Sprint(x.Services),
		})
	}
	s.table([]string{"", s.say(t("state", "الدولة")), s.say(t("part", "الجزء")), s.say(t("until", "حتى")), s.say(t("nodes", "العقد")),
		s.say(t("members", "الجهات")), s.say(t("services", "الخدمات"))}, rows)
	s.problems(d.Problems)
}

func (s *session) problems(list []directory.Problem) {
	for _, p := range list {
		s.printf("  %s %s: %s\n", s.say(t("Refused, the last good part stays:", "مرفوض، ويبقى آخر جزء سليم:")), p.State, p.Detail)
	}
}

// drafted shows a draft: what those who sign it put their names to.
func (s *session) drafted(d *directory.Draft, next union.Text) error {
	c := d.Charter()
	root, targets := d.Versions()
	got, need, voted := d.Votes()
	type seat struct {
		directory.Seat
		Votes bool `json:"votes"`
		Voted bool `json:"voted"`
	}
	out := struct {
		Union   string `json:"union"`
		Root    int64  `json:"root"`
		Targets int64  `json:"targets"`
		Votes   int    `json:"votes"`
		Need    int    `json:"need"`
		Ready   bool   `json:"ready"`
		States  []seat `json:"states"`
	}{c.Name, root, targets, got, need, d.Ready() == nil, []seat{}}
	var rows [][]string
	for _, x := range c.States {
		has := slices.Contains(voted, x.Code)
		out.States = append(out.States, seat{x, x.Root != "", has})
		say := t("has not signed", "لم توقّع")
		if has {
			say = t("signed", "وقّعت")
		}
		if x.Root == "" {
			say = t("has no vote", "لا صوت لها")
		}
		rows = append(rows, []string{string(x.Code), s.say(x.Name), s.say(say), short(x.Root)})
	}
	return s.show(out, func() {
		s.printf("%s: %s %d, %s %d; %s %d/%d\n\n", c.Name, s.say(t("root", "الجذر")), root, s.say(t("targets", "الأهداف")), targets,
			s.say(t("votes", "الأصوات")), got, need)
		s.table([]string{"", s.say(t("state", "الدولة")), s.say(t("vote", "الصوت")), s.say(t("key", "المفتاح"))}, rows)
		s.line(next)
	})
}

func short(id string) string {
	if len(id) > 16 {
		return id[:16]
	}
	return id
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
	if name == directory.AuthorityKey {
		alg = seal.ECDSAP384 // it signs for twenty years
	}
	return keys.Create(name, alg)
}

func readDraft(name string) (*directory.Draft, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	d, err := directory.DecodeDraft(raw)
	if err != nil {
		return nil, fault.New(fault.DirectoryInvalid, "%s: %v", name, err)
	}
	return d, nil
}

func readPurposes(name string) ([]directory.Purpose, error) {
	if name == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.New(fault.Usage, "--purposes: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var list []directory.Purpose
	if err := d.Decode(&list); err != nil {
		return nil, fault.New(fault.Usage, "--purposes: %v", err)
	}
	return list, nil
}

// createFile writes a file that is not there yet.
func createFile(name string, encode func() ([]byte, error)) error {
	if _, err := os.Lstat(name); err == nil {
		return fault.New(fault.Usage, "%s is there already", name)
	}
	return replaceFile(name, encode)
}

// replaceFile writes a file as a whole or not at all: it may hold signatures
// that took people a journey.
func replaceFile(name string, encode func() ([]byte, error)) (err error) {
	b, err := encode()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".falaj-*")
	if err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("writing %s: %w", name, err), os.Remove(f.Name()))
	}
	return err
}
