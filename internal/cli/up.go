package cli

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/union"
)

type upCmd struct {
	Data      string `type:"path" env:"FALAJ_UP_DATA" placeholder:"DIR"`
	BasePort  *int   `placeholder:"N"`
	Fresh     bool
	ReadyFile string `type:"path" placeholder:"FILE"`
	LogLevel  string `enum:"debug,info,warn,error" default:"warn"`
}

func (c *upCmd) Run(s *session) error {
	cfg := up.Config{Data: c.Data, Base: c.BasePort, Fresh: c.Fresh}
	var err error
	if cfg.Data == "" {
		if cfg.Data, err = s.upData(); err != nil {
			return err
		}
	}
	if cfg.States, err = states(s.State); err != nil {
		return err
	}
	defer operation.Memory()()
	u, err := up.Open(s.ctx, cfg, up.Deps{Log: operation.Logger(s.Err, "text", c.LogLevel), Stuck: s.stuck})
	if err != nil {
		return err
	}
	return u.Run(s.ctx, func(r up.Ready) error {
		if c.ReadyFile != "" {
			if err := r.Write(c.ReadyFile); err != nil {
				return err
			}
		}
		return s.show(r, func() { s.welcome(r) })
	})
}

// stuck says which nodes of a union that runs take no calls, and what to do. It
// goes beside the output, which is for what comes of the start.
func (s *session) stuck(list []up.Unready) error {
	e := *s
	e.Out = s.Err
	e.line(t("The union runs, and waits for nodes that take no calls. Commands find them: mend them in another window, and the start goes on.",
		"الاتحاد يعمل وينتظر عقداً لا تقبل الطلبات. تجدها بقية الأوامر: أصلحها من نافذة أخرى فيستمر التشغيل."))
	for _, x := range list {
		e.diagnose(diagnosis{State: x.State, Health: node.Health{Checks: x.Checks}}, false)
		if slices.ContainsFunc(x.Checks, func(f operation.Finding) bool { return f.Code == fault.LogDivided }) {
			e.printf("    falaj --state %s doctor\n    falaj --state %s log renew\n", x.State, x.State)
		}
	}
	return nil
}

// states reads the list of --state.
func states(list string) ([]union.State, error) {
	var out []union.State
	if list == "" {
		return nil, nil
	}
	for _, code := range strings.Split(list, ",") {
		st, err := union.ParseState(strings.ToUpper(strings.TrimSpace(code)))
		if err != nil {
			return nil, fault.New(fault.Usage, "--state: %v", err)
		}
		if slices.Contains(out, st) {
			return nil, fault.New(fault.Usage, "--state: %s stands twice", st)
		}
		out = append(out, st)
	}
	return out, nil
}

func (s *session) welcome(r up.Ready) {
	s.line(t("A union of states runs on this machine. Its registers are simulators; the way to them is real.",
		"اتحاد دول يعمل على هذا الجهاز. سجلاته محاكاة، والطريق إليها حقيقي."))
	s.printf("\n")
	var rows [][]string
	for _, n := range r.Nodes {
		rows = append(rows, []string{string(n.State), n.R1, n.Operations, n.Name.En, n.Name.Ar})
	}
	rows = append(rows, []string{"", r.Secretariat, "", "Secretariat", "الأمانة العامة"})
	s.table([]string{"", s.say(t("systems call", "باب الأنظمة")), s.say(t("probes, metrics", "الفحص والقياس")), s.say(t("state", "الدولة")), ""}, rows)
	s.printf("\n")
	s.line(t("Try, in another window:", "جرّب في نافذة أخرى:"))
	for _, e := range r.Examples {
		s.printf("  %s\n", e)
	}
	s.printf("\n%s %s\n", s.say(t("Data:", "البيانات:")), r.Data)
	usual, err := s.upData()
	if err == nil {
		usual, err = filepath.Abs(usual)
	}
	if err != nil || usual != r.Data {
		s.printf("%s\n  export FALAJ_UP_DATA='%s'\n", s.say(t("Other commands find it there after:", "تجدها بقية الأوامر بعد:")), r.Data)
	}
	s.line(t("Ctrl-C stops it; the next start goes on with the same data (--fresh: with none).",
		"اضغط Ctrl-C للإيقاف، والتشغيل التالي يتابع بالبيانات نفسها (--fresh يبدأ من جديد)."))
}

// upData is the folder of the union on this machine where nobody names one.
func (s *session) upData() (string, error) {
	if dir, ok := s.Env("FALAJ_UP_DATA"); ok && dir != "" {
		return dir, nil
	}
	home, err := s.Home()
	if err != nil {
		return "", fault.Wrap(fault.Usage, err, "there is no home folder here; name a folder with --data")
	}
	return filepath.Join(home, ".falaj", "up"), nil
}
