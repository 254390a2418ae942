// Package cli is the front desk: it reads a command line, asks the node that
// it is about, and says in the person's language what came of it. What it
// prints for machines (--json) and its exit codes are a contract.
package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/union"
)

// The exit codes.
const (
	ExitDone     = 0 // it is done, or the answer is yes
	ExitFailed   = 1 // it was tried and failed, or the answer is no
	ExitUsage    = 2 // the command line or the configuration is wrong
	ExitNoNode   = 3 // no node was found or reached
	ExitRefused  = 4 // a role or a rule does not allow it
	ExitApproval = 5 // it waits for a second person
)

// World is what the commands reach of the world.
type World struct {
	In       io.Reader
	Out, Err io.Writer
	Env      func(string) (string, bool)
	Home     func() (string, error)
}

// root is the command line. Its texts stand in text.go, in both languages.
type root struct {
	Lang       string `enum:"auto,en,ar" default:"auto" placeholder:"en|ar"`
	JSON       bool   `name:"json"`
	Admin      string `env:"FALAJ_ADMIN" placeholder:"SOCKET|URL"`
	Cert       string `env:"FALAJ_ADMIN_CERT" placeholder:"FILE"`
	PrivateKey string `name:"key" env:"FALAJ_ADMIN_KEY" placeholder:"FILE"`
	State      string `placeholder:"BH"`

	Authority string `env:"FALAJ_ADMIN_AUTHORITY" placeholder:"FILE"`

	Up          upCmd          `cmd:""`
	Call        callCmd        `cmd:""`
	Case        caseCmd        `cmd:""`
	Demo        demoCmd        `cmd:""`
	Service     serviceCmd     `cmd:""`
	Access      accessCmd      `cmd:""`
	Client      clientCmd      `cmd:""`
	Policy      policyCmd      `cmd:""`
	Evidence    evidenceCmd    `cmd:""`
	Trace       traceCmd       `cmd:""`
	Verify      verifyCmd      `cmd:""`
	Directory   directoryCmd   `cmd:""`
	Outcome     outcomeCmd     `cmd:""`
	Delivery    deliveryCmd    `cmd:""`
	Doctor      doctorCmd      `cmd:""`
	Node        nodeCmd        `cmd:""`
	Secretariat secretariatCmd `cmd:""`
	Registry    registryCmd    `cmd:""`
	Key         keyCmd         `cmd:""`
	Approval    approvalCmd    `cmd:""`
	Audit       auditCmd       `cmd:""`
	Log         logCmd         `cmd:""`
	Seal        sealCmd        `cmd:""`
	Fsck        fsckCmd        `cmd:""`
	Journal     journalCmd     `cmd:""`
	Hold        holdCmd        `cmd:""`
	Backup      backupCmd      `cmd:""`
	Restore     restoreCmd     `cmd:""`
	Bench       benchCmd       `cmd:""`
	Config      configCmd      `cmd:""`
	Version     versionCmd     `cmd:""`
}

// session is one command being run.
type session struct {
	World
	*root
	ctx  context.Context
	ar   bool
	path string // of the command: "falaj service add"
}

// errExit ends a command whose answer is printed already with an exit code.
type errExit int

func (e errExit) Error() string { return "" }

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, args []string, w World) int {
	s := &session{World: w, root: &root{}, ctx: ctx}
	s.ar = s.arabic(args)
	exit := -1
	k, err := kong.New(s.root, kong.Name("falaj"), kong.Writers(w.Out, w.Err), kong.Exit(func(code int) { exit = code }),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, Compact: true, WrapUpperBound: 100}),
		kong.Help(s.help), kong.Resolvers(environment(w.Env)))
	if err != nil {
		return s.fail(err)
	}
	s.name(k.Model)
	if len(args) == 0 {
		args = []string{"--help"}
	}
	c, err := k.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	var wrong *kong.ParseError
	if errors.As(err, &wrong) {
		c = wrong.Context
	}
	if c != nil && c.Selected() != nil {
		s.path = strings.Join(strings.Fields(c.Selected().FullPath()), " ")
	}
	if err != nil && c != nil && strings.HasPrefix(err.Error(), "unexpected argument") && slices.ContainsFunc(c.Path, func(p *kong.Path) bool { return p.Command != nil && p.Command.Name == "trace" }) {
		return s.fail(unnamed()) // what was typed may be a person's number: it is not repeated
	}
	if err != nil {
		return s.fail(misuse(err))
	}
	return s.fail(c.Run(s))
}

// environment resolves env tags from the World instead of the process.
func environment(look func(string) (string, bool)) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
		for _, name := range f.Tag.Envs {
			if v, ok := look(name); ok {
				return v, nil
			}
		}
		return nil, nil
	})
}

// arabic tells the language: --lang, else what the environment says of
// messages (POSIX: LC_ALL, LC_MESSAGES, LANG). It is needed before the command
// line is read, for the help and for what is wrong with the line.
func (s *session) arabic(args []string) bool {
	for i, a := range args {
		v, ok := strings.CutPrefix(a, "--lang=")
		if a == "--lang" && i+1 < len(args) {
			v, ok = args[i+1], true
		}
		if ok && v != "auto" {
			return v == "ar"
		}
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v, ok := s.Env(name); ok && v != "" {
			return strings.HasPrefix(v, "ar")
		}
	}
	return false
}

// say picks the text in the person's language.
func (s *session) say(t union.Text) string {
	if s.ar {
		return t.Ar
	}
	return t.En
}

// help prints kong's help with its headings in the person's language.
func (s *session) help(o kong.HelpOptions, c *kong.Context) error {
	if !s.ar {
		return kong.DefaultHelpPrinter(o, c)
	}
	var b bytes.Buffer
	out := c.Stdout
	c.Stdout = &b
	err := kong.DefaultHelpPrinter(o, c)
	c.Stdout = out
	if err != nil {
		return err
	}
	text := strings.NewReplacer("Usage:", "الاستخدام:", "Arguments:", "المعاملات:", "Flags:", "الخيارات:", "Commands:", "الأوامر:",
		`Run "`, `شغّل "`, `" for more information on a command.`, `" لتفاصيل أي أمر.`, `" for more information.`, `" للتفاصيل.`).Replace(b.String())
	_, err = io.WriteString(out, text)
	return err
}

// fail says what went wrong and gives the exit code.
func (s *session) fail(err error) int {
	if err == nil {
		return ExitDone
	}
	if e := errExit(0); errors.As(err, &e) {
		return int(e)
	}
	var r *admin.Refusal
	if !errors.As(err, &r) {
		f := fault.From(err)
		e := f.Entry()
		r = &admin.Refusal{Code: f.Code, Title: e.What, Do: e.Do, Detail: f.Detail, DetailAr: f.DetailAr, ID: f.ID}
		if f.Detail == "" && f.Cause != nil {
			r.Detail = f.Cause.Error() // this is the person's own machine
		}
	}
	if r.Code == fault.Usage && s.path != "" {
		help := strings.NewReplacer("falaj --help", s.path+" --help")
		r.Do = union.Text{En: help.Replace(r.Do.En), Ar: help.Replace(r.Do.Ar)}
	}
	if s.JSON {
		s.print(s.Err, struct {
			Code   fault.Code `json:"code"`
			What   union.Text `json:"what"`
			Do     union.Text `json:"do"`
			Detail string     `json:"detail,omitempty"`
			ID     string     `json:"id,omitempty"`
		}{r.Code, r.Title, r.Do, r.Detail, r.ID})
	} else {
		text := strings.TrimSpace("falaj: "+s.say(r.Title)+" "+s.say(r.Do)) + "\n"
		detail := r.Detail
		if s.ar && r.DetailAr != "" {
			detail = r.DetailAr
		}
		for line := range strings.Lines(detail) {
			text += "  " + strings.TrimRight(line, "\n") + "\n"
		}
		io.WriteString(s.Err, text+"  ["+string(r.Code)+"]\n")
	}
	switch r.Code {
	case fault.Usage, fault.File, fault.ConfigInvalid, fault.DemoRefused, fault.PortTaken:
		return ExitUsage
	case fault.NoNode:
		return ExitNoNode
	case fault.NotAllowed, fault.NeedsSecondPerson, fault.PolicyDenied, fault.CaseActor:
		return ExitRefused
	}
	return ExitFailed
}
