package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

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
	if err := vacant(c.Draft); err != nil { // before keys are made
		return err
	}
	if c.Threshold < 1 {
		return fault.New(fault.Usage, "--threshold: a change of the union takes at least one vote")
	}
	f := directory.Founding{Name: c.Union, Demonstration: c.Demonstration, Threshold: c.Threshold, Quorum: c.Quorum, Now: time.Now()}
	var err error
	if f.Purposes, err = readPurposes(c.Purposes); err != nil {
		return err
	}
	if c.Keys != "" {
		keys, err := openKeys(c.Keys, c.Demonstration, directory.OnlineKey, directory.WitnessKey)
		if err != nil {
			return err
		}
		online, err := keys.Signer(directory.OnlineKey)
		if err != nil {
			return err
		}
		f.Secretariat = online.Public()
		if f.Witness, err = directory.SecretariatWitness("falaj", keys); err != nil {
			return err
		}
	}
	d, err := directory.Found(f)
	if err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	if err := createFile(c.Draft, d.Encode); err != nil {
		return err
	}
	return s.drafted(d, c.Draft)
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
	return s.drafted(d, c.Draft)
}

type directoryAmendCmd struct {
	Draft string `arg:"" name:"draft" type:"path"`
	where
	Threshold int      `placeholder:"K"`
	Quorum    *int     `placeholder:"N"`
	Keys      string   `type:"existingdir" placeholder:"DIR"`
	Purposes  string   `type:"existingfile" placeholder:"FILE"`
	Service   []string `type:"existingfile" placeholder:"FILE"`
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
	if c.Quorum != nil {
		if err := d.SetQuorum(*c.Quorum); err != nil {
			return fault.New(fault.Usage, "--quorum: %v", err)
		}
	}
	if c.Keys != "" {
		keys, err := openKeys(c.Keys, d.Charter().Demonstration)
		if err != nil {
			return err
		}
		online, err := keys.Signer(directory.OnlineKey)
		if errors.Is(err, fs.ErrNotExist) {
			err = noKey(c.Keys, directory.OnlineKey)
		}
		if err != nil {
			return err
		}
		if whose := d.Party(online.Public()); whose != "" {
			return fault.New(fault.Usage, "--keys: they are %s's; its own witness stands in its part (falaj log open)", whose)
		}
		if _, err := signer(keys, directory.WitnessKey); err != nil {
			return err
		}
		w, err := directory.SecretariatWitness("falaj", keys)
		if err == nil {
			err = d.SetWitness(w)
		}
		if err != nil {
			return fault.New(fault.Usage, "--keys: %v", err)
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
	for _, name := range c.Service {
		x, err := readDefinition(name, d.Charter().Purposes)
		if err == nil {
			err = d.AddDefinition(x)
		}
		if err != nil {
			return err
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
	return s.drafted(d, c.Draft)
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
		return noKey(c.Keys, directory.RootKey)
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
	return s.drafted(d, c.Draft)
}

// drafted shows a draft: what those who sign it put their names to, and what
// comes next.
func (s *session) drafted(d *directory.Draft, file string) error {
	c := d.Charter()
	root, targets := d.Versions()
	got, need, voted := d.Votes()
	print, err := d.Fingerprint()
	if err != nil {
		return err
	}
	type seat struct {
		directory.Seat
		Votes bool `json:"votes"`
		Voted bool `json:"voted"`
	}
	out := struct {
		Union       string  `json:"union"`
		Root        int64   `json:"root"`
		Targets     int64   `json:"targets"`
		Votes       int     `json:"votes"`
		Need        int     `json:"need"`
		Ready       bool    `json:"ready"`
		Parties     int     `json:"parties"` // that signed a new union's first snapshot; it takes two
		Fingerprint string  `json:"fingerprint"`
		States      []seat  `json:"states"`
		Services    []joint `json:"services"`
	}{c.Name, root, targets, got, need, d.Ready() == nil, d.Parties(), print, []seat{}, joints(d.Definitions())}
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
		s.printf(s.say(t("%s: root %d, targets %d; votes %d/%d\n", "%s: الجذر %d، الأهداف %d؛ الأصوات %d/%d\n")), c.Name, root, targets, got, need)
		if len(rows) > 0 {
			s.printf("\n")
			s.table([]string{"", s.say(t("state", "الدولة")), s.say(t("vote", "الصوت")), s.say(t("key", "المفتاح"))}, rows)
			if len(out.Services) > 0 {
				s.printf("\n")
				s.joints(out.Services)
			}
			s.printf("\n%s %s\n", s.say(t("Fingerprint of what is signed:", "بصمة ما يوقَّع:")), print)
		}
		s.step(d, file)
	})
}

// step says what comes next with a draft, and gives the command.
func (s *session) step(d *directory.Draft, file string) {
	next := func(text union.Text, commands ...string) {
		s.printf("\n%s\n", s.say(text))
		for _, c := range commands {
			s.printf("  falaj directory %s\n", c)
		}
	}
	file = filepath.Base(file)
	publish := "publish " + file
	root, _ := d.Versions()
	got, need, voted := d.Votes()
	var voters, missing []string
	for _, x := range d.Charter().States {
		if x.Root != "" {
			voters = append(voters, string(x.Code))
			if !slices.Contains(voted, x.Code) {
				missing = append(missing, string(x.Code))
			}
		}
	}
	switch {
	case len(voters) < need:
		next(t(fmt.Sprintf("Next: votes that it takes: %d; states in it that have one: %d. Each further state enrols with its own keys; whoever keeps the draft adds its file:", need, len(voters)),
			fmt.Sprintf("التالي: الأصوات اللازمة %d، والدول ذات الصوت في المسودة %d. تنضم كل دولة أخرى بمفاتيحها، ويضيف حافظ المسودة ملفها:", need, len(voters))),
			"enrol STATE.json --state STATE --keys KEYS --name-en … --name-ar … --address HOST:PORT", "add-state "+file+" STATE.json")
	case d.Ready() != nil:
		if got == 0 {
			next(t("Next: further states, if there are any, are added first, since that voids signatures:", "التالي: تضاف أولاً بقية الدول إن وُجدت، لأن الإضافة تبطل التواقيع:"),
				"add-state "+file+" STATE.json")
		}
		next(t(fmt.Sprintf("Next: the draft goes to those that have not signed (%s); %d more must. Each compares the fingerprint with the others by telephone, then signs:", strings.Join(missing, ", "), max(1, need-got)),
			fmt.Sprintf("التالي: تنتقل المسودة إلى من لم يوقّع (%s)، والأصوات الباقية %d. تقارن كل دولة البصمة مع غيرها هاتفياً ثم توقّع:", strings.Join(missing, "، "), max(1, need-got))),
			"sign "+file+" --keys KEYS")
	case root > 1:
		next(t("Next: it has its votes; a running node brings it into force:", "التالي: اكتملت أصواتها، وتنفذها عقدة عاملة:"), publish)
	case d.Parties() == 0:
		next(t("Next: it has its votes. Two parties, the secretariat or states, bring it into force one after the other, each with its own keys:",
			"التالي: اكتملت أصواتها. ينفذها طرفان، من الأمانة العامة أو الدول، أحدهما بعد الآخر، كلٌّ بمفاتيحه:"), publish+" --keys KEYS")
	case d.Parties() == 1:
		next(t("Next: one party has signed; the draft goes to another one, which brings it into force within seven days with its own keys:",
			"التالي: وقّع طرف واحد؛ تنتقل المسودة إلى طرف آخر ينفذها خلال سبعة أيام بمفاتيحه:"), publish+" --keys KEYS")
	default:
		next(t("Next: it is in force; every other party takes it over from the draft:", "التالي: هي نافذة، ويعتمدها كل طرف آخر من المسودة:"), publish+" --keys KEYS")
	}
}

func short(id string) string {
	if len(id) > 16 {
		return id[:16]
	}
	return id
}

func readDraft(name string) (*directory.Draft, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var bundle struct {
		Files map[string]string
		Data  map[string][]byte
	}
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	if strict.Decode(&bundle) != nil || bundle.Files == nil {
		return nil, fault.New(fault.Usage, "%s is no draft; falaj directory init and amend make them", name)
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
		return nil, fault.New(fault.File, "--purposes: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var list []directory.Purpose
	if err := d.Decode(&list); err != nil {
		line := 1 + bytes.Count(raw[:min(d.InputOffset(), int64(len(raw)))], []byte("\n"))
		return nil, fault.New(fault.Usage, "--purposes: line %d of %s is not as in [{\"code\": \"customs\", \"name\": {\"en\": \"…\", \"ar\": \"…\"}, \"basis\": {\"en\": \"…\", \"ar\": \"…\"}}]", line, name)
	}
	return list, nil
}

// createFile writes a file that is not there yet.
func createFile(name string, encode func() ([]byte, error)) error {
	if err := vacant(name); err != nil {
		return err
	}
	return replaceFile(name, encode)
}

func vacant(name string) error {
	if _, err := os.Lstat(name); err == nil {
		return fault.New(fault.Conflict, "%s is there already", name).Arabic("%s موجود من قبل", name)
	}
	return nil
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
