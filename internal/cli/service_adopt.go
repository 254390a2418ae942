package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/casework/adoption"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/union"
)

type serviceAdoptCmd struct {
	Joint   string   `arg:"" optional:"" name:"joint"`
	From    string   `placeholder:"DATE"`
	Until   string   `placeholder:"DATE"`
	Role    []string `placeholder:"ROLE=SUBSYSTEM"`
	Call    []string `placeholder:"NAME=SERVICE"`
	System  string   `placeholder:"SUBSYSTEM"`
	Zone    string   `placeholder:"ZONE"`
	Weekend []string `placeholder:"DAY"`
	File    string   `type:"existingfile" placeholder:"FILE"`
	Table   []string `type:"existingfile" placeholder:"FILE"`
}

// Run has the state's node sign what the state adopts.
func (c *serviceAdoptCmd) Run(s *session) error {
	p, err := c.params()
	if err != nil {
		return err
	}
	n, err := s.node("")
	if err != nil {
		return err
	}
	return s.changed(n, "service.adopt", p, nil, func() {
		what := c.Joint
		if what == "" {
			what = adoption.File
		}
		s.printf("%s %s\n", s.say(t("Adopted:", "اعتُمد:")), what)
		s.printf("%s\n  falaj access grant SUBSYSTEM SERVICE --purpose …\n", s.say(t("Next, for each state with which cases are to run: its case system may send to this one's service casework.",
			"التالي لكل دولة ستجري معها المعاملات: السماح لنظام معاملاتها بالإرسال إلى خدمة casework لهذه الدولة.")))
	})
}

func (c *serviceAdoptCmd) params() (node.ServiceAdopt, error) {
	p := node.ServiceAdopt{Zone: c.Zone, Tables: map[string]json.RawMessage{}}
	if (c.Joint == "") == (c.File == "") {
		return p, fault.New(fault.Usage, "name a version, as in residence-certificate@1, or a --file that says all")
	}
	if c.Joint != "" {
		a, err := c.adopted()
		if err != nil {
			return p, err
		}
		p.Adopt = &a
	}
	var err error
	if c.System != "" {
		if p.System, err = union.ParseSubsystem(c.System); err != nil {
			return p, fault.New(fault.BadIdentifier, "--system: %v", err)
		}
	}
	for _, name := range c.Weekend {
		var day adoption.Weekday
		if err := day.UnmarshalText([]byte(name)); err != nil {
			return p, fault.New(fault.Usage, "--weekend: %v", err)
		}
		p.Weekend = append(p.Weekend, day)
	}
	read := func(flag, name string) (json.RawMessage, error) {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fault.New(fault.File, "%s: %v", flag, err)
		}
		if !json.Valid(b) {
			return nil, fault.New(fault.Usage, "%s: %s is not JSON", flag, name)
		}
		return b, nil
	}
	if c.File != "" {
		if p.File, err = read("--file", c.File); err != nil {
			return p, err
		}
	}
	for _, name := range c.Table {
		if p.Tables["casework/"+filepath.Base(name)], err = read("--table", name); err != nil {
			return p, err
		}
	}
	return p, nil
}

// adopted is what the arguments say of one version.
func (c *serviceAdoptCmd) adopted() (a adoption.Adopted, err error) {
	name, version, _ := strings.Cut(c.Joint, "@")
	if a.Version, err = strconv.Atoi(version); err != nil || name == "" {
		return a, fault.New(fault.Usage, "%q is not of the form residence-certificate@1", c.Joint)
	}
	a.Service = name
	for _, d := range []struct {
		flag, value string
		to          *adoption.Date
	}{{"--from", c.From, &a.From}, {"--until", c.Until, &a.Until}} {
		if d.value == "" && d.to == &a.Until {
			continue
		}
		if err := d.to.UnmarshalText([]byte(d.value)); err != nil {
			return a, fault.New(fault.Usage, "%s: %v", d.flag, err)
		}
	}
	a.Roles, a.Calls = map[string][]union.SubsystemID{}, map[string]union.ServiceID{}
	for _, x := range c.Role {
		role, system, _ := strings.Cut(x, "=")
		id, err := union.ParseSubsystem(system)
		if err != nil {
			return a, fault.New(fault.BadIdentifier, "--role %s: %v", x, err)
		}
		a.Roles[role] = append(a.Roles[role], id)
	}
	for _, x := range c.Call {
		call, service, _ := strings.Cut(x, "=")
		if a.Calls[call], err = union.ParseService(service); err != nil {
			return a, fault.New(fault.BadIdentifier, "--call %s: %v", x, err)
		}
	}
	return a, nil
}

// readDefinition reads a joint service's definition, in which lint finds no
// error, for a purpose that the union has.
func readDefinition(name string, purposes []directory.Purpose) (directory.Definition, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return directory.Definition{}, fault.New(fault.File, "%v", err)
	}
	p, found, err := compiled(name)
	if err != nil {
		return directory.Definition{}, err
	}
	if p != nil {
		found, _ = definition.Lint(p.Definition())
	}
	for _, f := range found {
		if f.Severity == definition.Error {
			return directory.Definition{}, fault.New(fault.Usage, "falaj service lint %s finds errors, the first in line %d: %s", name, f.Line, f.Text.En).
				Arabic("يجد falaj service lint %s أخطاءً، أولها في السطر %d: %s", name, f.Line, f.Text.Ar)
		}
	}
	d := p.Definition()
	var codes []string
	for _, p := range purposes {
		codes = append(codes, p.Code)
	}
	if !slices.Contains(codes, d.Purpose) {
		return directory.Definition{}, fault.New(fault.UnknownPurpose, "the purpose %q is none of %s; --purposes changes them", d.Purpose, strings.Join(codes, ", "))
	}
	return directory.Definition{Name: d.Name, Version: d.Version, Text: text}, nil
}

// joint is a definition as those see it who are asked to sign it.
type joint struct {
	Service string `json:"service"`
	Version int    `json:"version"`
	SHA256  string `json:"sha256"`
}

func joints(list []directory.Definition) []joint {
	out := []joint{}
	for _, d := range list {
		sum := sha256.Sum256(d.Text)
		out = append(out, joint{d.Name, d.Version, hex.EncodeToString(sum[:])})
	}
	return out
}

func (s *session) joints(list []joint) {
	var rows [][]string
	for _, x := range list {
		rows = append(rows, []string{fmt.Sprintf("%s@%d", x.Service, x.Version), x.SHA256})
	}
	s.table([]string{s.say(t("joint service", "الخدمة المشتركة")), "SHA-256"}, rows)
}
