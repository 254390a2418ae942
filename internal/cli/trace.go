package cli

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

type traceCmd struct {
	Show   traceShowCmd   `cmd:"" default:"withargs"`
	Delay  traceDelayCmd  `cmd:""`
	Delays traceDelaysCmd `cmd:""`
}

type traceShowCmd struct {
	Since  string `placeholder:"TIME"`
	Until  string `placeholder:"TIME"`
	Before int64  `placeholder:"LEAF"`
	Limit  int    `placeholder:"N"`
}

// Run asks about the person whose name stands on the standard input: on a
// command line other accounts of the machine would see him, and its history
// would keep him.
func (c *traceShowCmd) Run(s *session) error {
	q := exchange.TraceQuestion{Before: c.Before, Limit: c.Limit}
	var err error
	if q.Since, err = moment("--since", c.Since); err != nil {
		return err
	}
	if q.Until, err = moment("--until", c.Until); err != nil {
		return err
	}
	n, err := s.node("")
	if err != nil {
		return err
	}
	if q.Subject, err = s.person(); err != nil {
		return err
	}
	var got exchange.Trace
	if err := n.Confide(s.ctx, "trace", q, &got); err != nil {
		return err
	}
	return s.show(got, func() { s.trace(got) })
}

// moment reads a day, UTC, or a time.
func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fault.New(fault.Usage, "%s: wanted 2026-11-22 or 2026-11-22T08:00:00Z", flag).Arabic("%s: المطلوب 2026-11-22 أو 2026-11-22T08:00:00Z", flag)
}

// person reads the first line of the standard input.
func (s *session) person() (string, error) {
	if f, ok := s.In.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			io.WriteString(s.Err, s.say(t("The person, as this state's registers name him: ", "رقم الشخص في سجلات هذه الدولة: ")))
		}
	}
	line, err := bufio.NewReader(io.LimitReader(s.In, 4<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fault.New(fault.Usage, "the standard input: %v", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", unnamed()
	}
	return line, nil
}

func unnamed() error {
	return fault.New(fault.Usage, "the person is named on the standard input: falaj trace < FILE").
		Arabic("يُذكر الشخص في الدخل القياسي: falaj trace < FILE")
}

func (s *session) trace(got exchange.Trace) {
	for _, e := range got.Entries {
		s.printf("%s  %s\n", e.At.UTC().Format(time.RFC3339), s.traced(e))
		if e.What != "read" {
			s.printf("  %s → %s %s\n", s.party(e.Client), e.Method, s.party(e.Service))
		}
		if p := e.Purpose; p != nil {
			s.printf("  %s %s\n", s.say(t("purpose:", "الغرض:")), named(s.say(p.Name), p.Code))
			if p.Basis.En != "" {
				s.printf("  %s %s\n", s.say(t("legal basis:", "السند القانوني:")), s.say(p.Basis))
			}
		}
		if e.ID != "" {
			s.printf("  X-Road-Id: %s\n", e.ID)
		}
	}
	if len(got.Entries) == 0 {
		s.line(t("Nothing is recorded of this person that can be shown.", "لا يوجد قيد عن هذا الشخص يمكن عرضه."))
	}
	if got.Withheld > 0 {
		s.printf(s.say(t("Withheld until the law allows: %d\n", "محجوب حتى يسمح القانون: %d\n")), got.Withheld)
	}
	if got.Unread > 0 {
		s.printf(s.say(t("Records of this node that cannot be read, among which something of this person may be: %d\n", "قيود هذه العقدة التي تعذرت قراءتها، وقد يكون بينها ما يخص هذا الشخص: %d\n")), got.Unread)
	}
	if got.Next > 0 {
		s.printf(s.say(t("There is more: --before %d\n", "للمزيد: --before %d\n")), got.Next)
	}
}

// traced says in a line what an entry is, and how it ended.
func (s *session) traced(e exchange.Traced) string {
	what := map[string]union.Text{
		"asked":           t("a system of this state asked another state", "طلب من نظام لهذه الدولة إلى دولة أخرى"),
		"served":          t("a service of this state was asked", "طلب من خدمة لهذه الدولة"),
		"trace.read":      t("this trace was read", "اطلاع على هذا السجل"),
		"evidence.read":   t("the evidence of a call was read", "اطلاع على أدلة طلب"),
		"evidence.export": t("the evidence of a call was exported", "تصدير أدلة طلب"),
	}
	key := e.What
	if key == "read" {
		key = e.Action
	}
	line := s.say(what[key])
	if e.By != "" {
		line += ": " + e.By
	}
	line += s.say(t(", ", "، "))
	end := map[string]union.Text{
		"answered": t("allowed", "مسموح"), "refused": t("refused", "مرفوض"), "failed": t("allowed, failed", "مسموح ولم ينجح"), "open": t("no answer yet", "بلا رد بعد"), "unread": t("the answer cannot be read", "تعذرت قراءة الرد"),
	}[e.Outcome]
	line += s.say(end)
	if e.Fault != "" {
		line += " [" + string(e.Fault) + "]"
	}
	if e.Reason != nil {
		line += " " + s.say(*e.Reason)
	}
	return line
}

func (s *session) party(p *exchange.Party) string {
	name := s.say(p.Name)
	if m := s.say(p.Member); m != "" && name != "" {
		name = m + s.say(t(", ", "، ")) + name
	}
	return named(name, p.ID)
}

// named is a name with its code behind it, or the code alone.
func named(name, code string) string {
	if name == "" {
		return code
	}
	return name + " (" + code + ")"
}

type traceDelayCmd struct {
	Purpose string `arg:"" name:"purpose"`
	Days    int    `required:"" placeholder:"N"`
}

func (c *traceDelayCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	return s.changed(n, "trace.delay", exchange.Delay{Purpose: c.Purpose, Days: c.Days}, nil, func() {
		if c.Days == 0 {
			s.printf(s.say(t("Calls for %s are told at once.\n", "يُطلَع أصحاب البيانات فوراً على طلبات %s.\n")), c.Purpose)
			return
		}
		s.printf(s.say(t("Calls for %s, those of before too, are told after so many days: %d\n", "يُطلَع أصحاب البيانات على طلبات %s، السابقة منها أيضاً، بعد مدة بالأيام: %d\n")), c.Purpose, c.Days)
	})
}

type traceDelaysCmd struct{}

func (c *traceDelaysCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var list []exchange.Delay
	if err := n.Query(s.ctx, "delays", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		for _, d := range list {
			s.printf(s.say(t("%s: days: %d\n", "%s: الأيام: %d\n")), d.Purpose, d.Days)
		}
		if len(list) == 0 {
			s.line(t("Persons hear of every call at once.", "يُطلَع أصحاب البيانات على كل طلب فوراً."))
		}
	})
}
