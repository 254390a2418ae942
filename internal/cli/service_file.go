package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/union"
)

// The commands about a definition of a joint service, as a file: they ask no
// node.

type serviceLintCmd struct {
	Files     []string `arg:"" name:"definition"`
	Crossings bool
}

// linted is what was found of one file.
type linted struct {
	File     string               `json:"file"`
	Service  string               `json:"service,omitempty"` // name@version
	Title    union.Text           `json:"title,omitzero"`
	Findings []definition.Finding `json:"findings"`
	Model    *definition.Model    `json:"model,omitempty"`  // nil where the file could not be read
	Leaves   []definition.Leaving `json:"leaves,omitempty"` // what each message takes out of its state
}

func (c *serviceLintCmd) Run(s *session) error {
	all := make([]linted, 0, len(c.Files))
	wrong := false
	for _, name := range c.Files {
		p, problems, err := compiled(name)
		if err != nil {
			return err
		}
		one := linted{File: name, Findings: problems}
		if p != nil {
			d := p.Definition()
			one.Service, one.Title, one.Leaves = fmt.Sprintf("%s@%d", d.Name, d.Version), d.Title, d.Leaves()
			one.Findings, one.Model = definition.Lint(d)
		}
		wrong = wrong || slices.ContainsFunc(one.Findings, func(f definition.Finding) bool { return f.Severity == definition.Error })
		all = append(all, one)
	}
	if err := s.show(all, func() {
		for i, one := range all {
			if i > 0 {
				s.printf("\n")
			}
			if c.Crossings {
				s.crossings(one)
			} else {
				s.linted(one)
			}
		}
	}); err != nil {
		return err
	}
	if wrong {
		return errExit(ExitFailed)
	}
	return nil
}

// compiled reads and compiles a definition. What is wrong in it comes back as
// findings, without a program; the error is of the file itself.
func compiled(name string) (*definition.Program, []definition.Finding, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fault.New(fault.File, "%v", err)
	}
	d, err := definition.Read(b)
	if err == nil {
		var p *definition.Program
		if p, err = definition.Compile(d, hooks()); err == nil {
			return p, nil, nil
		}
	}
	var problems *definition.Problems
	if !errors.As(err, &problems) {
		return nil, nil, fmt.Errorf("reading %s: %w", name, err)
	}
	var out []definition.Finding
	for _, p := range problems.List {
		out = append(out, definition.Finding{Rule: "definition", Severity: definition.Error, Where: p.Where, Line: p.Line, Text: t(p.Text, "لا يصح: "+p.Text)})
	}
	if problems.More > 0 {
		more := fmt.Sprint(problems.More)
		out = append(out, definition.Finding{Rule: "definition", Severity: definition.Error, Text: t("And "+more+" more.", "وغيرها: "+more)})
	}
	return nil, out, nil
}

// linted says to a person what was found of a file.
func (s *session) linted(one linted) {
	s.printf("%s", one.File)
	if one.Service != "" {
		s.printf("  %s  %s", one.Service, s.say(one.Title))
	}
	s.printf("\n")
	errs := 0
	for _, f := range one.Findings {
		sign := "!"
		if f.Severity == definition.Error {
			sign = "✗"
			errs++
		}
		at := f.Where
		if f.Line > 0 {
			at = fmt.Sprintf("%s %d  %s", s.say(t("line", "السطر")), f.Line, f.Where)
		}
		s.printf("  %s %s\n      %s [%s]\n", sign, cmp.Or(at, one.File), s.say(f.Text), f.Rule)
		if len(f.Run) > 0 {
			s.printf("      %s\n", s.say(t("For example:", "مثال:")))
		}
		for i, step := range f.Run {
			s.printf("        %2d. %s\n", i+1, s.say(step))
		}
	}
	if one.Model == nil {
		s.line(t("The definition cannot be read. Nothing else was looked at.", "تعذّرت قراءة التعريف، ولم يُفحص غير ذلك."))
		return
	}
	s.masks(one.Leaves)
	if len(one.Model.Closed) > 0 {
		s.printf("  %s\n", s.say(t("Messages that can find the case closed, and are told so:", "رسائل قد تجد المعاملة مغلقة فيُبلَّغ مرسلها بذلك:")))
		for i, m := range one.Model.Closed {
			if i > 0 && one.Model.Closed[i-1].State == m.State && one.Model.Closed[i-1].Party == m.Party {
				s.printf(", %s", m.Message)
				continue
			}
			if i > 0 {
				s.printf("\n")
			}
			s.printf("      %s %s: %s", m.Party, m.State, m.Message)
		}
		s.printf("\n")
	}
	if one.Model.Complete {
		s.printf("  %s\n", s.say(t(
			fmt.Sprintf("Both halves together: %d configurations, with up to %d messages under way in each direction.", one.Model.Configurations, one.Model.Underway),
			fmt.Sprintf("الشقان معاً: عدد الأوضاع %d، وعدد الرسائل في الطريق في كل اتجاه %d على الأكثر.", one.Model.Configurations, one.Model.Underway))))
	}
	switch {
	case errs > 0:
		s.printf("%s %d\n", s.say(t("It must not be put into force. What is marked ✗ has to be mended:", "لا يجوز العمل به قبل إصلاح ما عليه ✗، وعدده:")), errs)
	case len(one.Findings) > 0:
		s.line(t("Nothing is wrong. What is marked ! should be looked at.", "لا خطأ فيه، وينبغي النظر فيما عليه !."))
	default:
		s.line(t("Nothing is wrong.", "لا خطأ فيه."))
	}
}

// masks lists what each message takes out of its state.
func (s *session) masks(all []definition.Leaving) {
	s.printf("  %s\n", s.say(t("What leaves a state (* is about a person):", "ما يغادر الدولة (* بيانات شخصية):")))
	for _, x := range all {
		var facts []string
		for _, f := range x.Facts {
			if x.Personal[f] != "" {
				f += "*"
			}
			facts = append(facts, f)
		}
		s.printf("      %s → %s  %s: %s\n", x.From, x.To, x.Message, cmp.Or(strings.Join(facts, ", "), "–"))
	}
}

// crossings prints the crossings that can happen, to be put into the file.
func (s *session) crossings(one linted) {
	if one.Model == nil || !one.Model.Complete {
		s.linted(one)
		return
	}
	if len(one.Model.Crossings) == 0 {
		s.printf("crossings: []\n")
		return
	}
	s.printf("crossings:\n")
	for _, c := range one.Model.Crossings {
		s.printf("%s", c.YAML("  "))
	}
}

// hooks are the functions that a definition may name, of all services of this
// binary. Those that read a state's signed tables have none here: a scenario
// says what they give.
func hooks() definition.Hooks { return traffic.Hooks(traffic.Deps{Sandbox: true}) }

type serviceDiagramCmd struct {
	File string `arg:"" name:"definition"`
}

func (c *serviceDiagramCmd) Run(s *session) error {
	p, problems, err := compiled(c.File)
	if err != nil {
		return err
	}
	if p == nil {
		return s.unreadable(c.File, problems)
	}
	lang := "en"
	if s.ar {
		lang = "ar"
	}
	drawn := definition.Diagram(p.Definition(), lang)
	return s.show(map[string]string{"mermaid": drawn}, func() { s.printf("%s", drawn) })
}

// unreadable says what lint says of a definition that cannot be read.
func (s *session) unreadable(name string, problems []definition.Finding) error {
	one := linted{File: name, Findings: problems}
	return errors.Join(s.show([]linted{one}, func() { s.linted(one) }), errExit(ExitFailed))
}

type serviceTestCmd struct {
	Files []string `arg:"" name:"definition"`
	Trace bool
}

// played is what became of one scenario.
type played struct {
	File     string             `json:"file"`
	Scenario string             `json:"scenario"`
	Error    string             `json:"error,omitempty"` // "": it went as it says
	Steps    []definition.Taken `json:"steps"`
}

// Run plays the scenarios of residence.test.yaml beside residence.yaml.
func (c *serviceTestCmd) Run(s *session) error {
	var all []played
	for _, name := range c.Files {
		p, problems, err := compiled(name)
		if err != nil {
			return err
		}
		if p == nil {
			return s.unreadable(name, problems)
		}
		beside := strings.TrimSuffix(name, filepath.Ext(name)) + ".test" + filepath.Ext(name)
		b, err := os.ReadFile(beside)
		if err != nil {
			return fault.New(fault.File, "%v", err)
		}
		scenarios, err := definition.ReadScenarios(b)
		if err != nil {
			all = append(all, played{File: beside, Error: err.Error()})
			continue
		}
		for _, x := range scenarios {
			one := played{File: beside, Scenario: x.Name}
			trace, err := p.Play(s.ctx, x)
			if err != nil {
				one.Error = err.Error()
			}
			if trace != nil {
				one.Steps = trace.Taken
			}
			all = append(all, one)
		}
	}
	failed := 0
	for _, one := range all {
		if one.Error != "" {
			failed++
		}
	}
	if err := s.show(all, func() { s.played(all, c.Trace, failed) }); err != nil {
		return err
	}
	if failed > 0 {
		return errExit(ExitFailed)
	}
	return nil
}

// played says how scenarios went: step by step those that did not go as they
// say, or all.
func (s *session) played(all []played, trace bool, failed int) {
	file := ""
	for _, one := range all {
		if one.File != file {
			file = one.File
			s.printf("%s\n", file)
		}
		sign := "✓"
		if one.Error != "" {
			sign = "✗"
		}
		s.printf("  %s %s\n", sign, one.Scenario)
		if trace || one.Error != "" {
			for _, step := range one.Steps {
				s.printf("      %s\n", step)
			}
		}
		s.indent("      ", one.Error)
	}
	if failed > 0 {
		s.printf("%s %d / %d\n", s.say(t("Scenarios that went otherwise:", "سيناريوهات جرت على غير المذكور:")), failed, len(all))
		return
	}
	s.printf("%s %d\n", s.say(t("Scenarios that went as they say:", "سيناريوهات جرت كما ذُكر:")), len(all))
}

type serviceSchemaCmd struct{}

func (c *serviceSchemaCmd) Run(s *session) error {
	_, err := s.Out.Write(definition.Schema())
	return err
}
