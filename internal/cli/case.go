package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/union"
)

type caseCmd struct {
	Open      caseOpenCmd      `cmd:""`
	Act       caseActCmd       `cmd:""`
	Show      caseShowCmd      `cmd:""`
	List      caseListCmd      `cmd:""`
	Reconcile caseReconcileCmd `cmd:""`
}

// caseAs is as whom a person goes to the node's door for cases: as a system of
// the state, and in whose name.
type caseAs struct {
	Client string `placeholder:"CLIENT"`
	User   string `placeholder:"ID"`
}

// caseTime is how long a person waits for the node.
const caseTime = 5 * time.Minute

// maxCases is more than any answer of the door holds, in bytes.
const maxCases = 256 << 20

// at asks the door under /cases/ and gives its JSON. not is the state that the
// client is not of, where nobody says which.
func (c caseAs) at(s *session, not union.State, method, path, id string, body any) ([]byte, error) {
	base, client, err := s.door(c.Client, not)
	if err != nil {
		return nil, err
	}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(s.ctx, method, base+"/cases/"+path, in)
	if err != nil {
		return nil, fault.New(fault.Usage, "%v", err)
	}
	for name, value := range map[string]string{"X-Road-Client": client, "X-Road-UserId": c.User, "X-Road-Id": id} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	caller, err := s.caller(caseTime)
	if err != nil {
		return nil, err
	}
	resp, err := caller.Do(req)
	if err == nil {
		defer resp.Body.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(resp.Body, maxCases)); err == nil {
			if resp.StatusCode >= 400 {
				return nil, admin.ReadRefusal(resp, b)
			}
			return b, nil
		}
	}
	switch {
	case timedOut(err) && id != "": // under the same id it is not done twice
		return nil, fault.Wrap(fault.OutOfTime, err, "X-Road-Id: %s", id)
	case timedOut(err):
		return nil, fault.Wrap(fault.OutOfTime, err, "%s", path)
	}
	return nil, fault.Wrap(fault.NoNode, err, "%v", err)
}

// told prints the door's JSON, or what people writes of it.
func told[T any](s *session, raw []byte, people func(T)) error {
	if s.JSON {
		s.print(s.Out, json.RawMessage(raw))
		return nil
	}
	var v T
	if err := jsonv2.Unmarshal(raw, &v); err != nil {
		return fault.Wrap(fault.Corrupt, err, "the node answered something else than a case")
	}
	people(v)
	return nil
}

// caseFields are a form's fields, as one JSON object.
type caseFields struct {
	Data string `short:"d" placeholder:"JSON|@FILE"`
}

func (c caseFields) read(s *session) (json.RawMessage, error) {
	text := []byte(c.Data)
	if file, ok := strings.CutPrefix(c.Data, "@"); ok {
		var err error
		if file == "-" {
			text, err = io.ReadAll(io.LimitReader(s.In, 1<<20))
		} else {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, fault.New(fault.File, "-d: %v", err)
		}
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil, nil
	}
	if text[0] != '{' || !json.Valid(text) {
		return nil, fault.New(fault.Usage, `-d: wanted a JSON object such as {"name":"…"}`).Arabic(`-d: المطلوب كائن JSON مثل {"name":"…"}`)
	}
	return text, nil
}

type caseOpenCmd struct {
	Service string `arg:"" name:"service"`
	Peer    string `required:"" placeholder:"SA"`
	Form    string `required:"" placeholder:"FORM"`
	caseFields
	caseAs
	ID string `name:"id" placeholder:"ID"`
}

func (c *caseOpenCmd) Run(s *session) error {
	peer, err := union.ParseState(strings.ToUpper(c.Peer))
	if err != nil {
		return fault.New(fault.Usage, "--peer: %v", err)
	}
	fields, err := c.read(s)
	if err != nil {
		return err
	}
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	raw, err := c.at(s, peer, http.MethodPost, "", c.ID, struct {
		Service string          `json:"service"`
		Peer    union.State     `json:"peer"`
		Form    string          `json:"form"`
		Fields  json.RawMessage `json:"fields,omitempty"`
	}{c.Service, peer, c.Form, fields})
	if err != nil {
		return err
	}
	return told(s, raw, s.receipt)
}

type caseActCmd struct {
	Case string `arg:"" name:"case"`
	Form string `arg:"" name:"form"`
	caseFields
	Confirm int64 `placeholder:"EVENT"`
	caseAs
	ID string `name:"id" placeholder:"ID"`
}

func (c *caseActCmd) Run(s *session) error {
	fields, err := c.read(s)
	if err != nil {
		return err
	}
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	raw, err := c.at(s, "", http.MethodPost, url.PathEscape(c.Case)+"/"+url.PathEscape(c.Form), c.ID, struct {
		Fields  json.RawMessage `json:"fields,omitempty"`
		Confirm int64           `json:"confirm,omitempty"`
	}{fields, c.Confirm})
	if err != nil {
		return err
	}
	return told(s, raw, s.receipt)
}

// receipt says what an act led to.
func (s *session) receipt(r casework.Receipt) {
	s.printf("%s %s\n", s.say(t("Case", "المعاملة")), r.Case)
	s.printf("  %s %s\n", s.say(t("stands in:", "حالتها:")), named(s.say(r.Title), r.State))
	if r.Proposal {
		s.printf(s.say(t("  It waits for a second person, who confirms it with --confirm %d.\n", "  ينتظر شخصاً ثانياً يؤكده بالخيار --confirm %d.\n")), r.Event)
	}
	if r.Held != "" {
		s.printf("  %s %s\n", s.say(t("held for a person to look at:", "عُلّقت ليراجعها موظف:")), r.Held)
	}
	for _, id := range r.Messages {
		s.printf("  %s %s\n", s.say(t("sent, evidence:", "أُرسلت رسالة، أدلتها:")), id)
	}
	s.printf("  %s %d\n", s.say(t("leaf in this state's log:", "ورقتها في سجل شفافية هذه الدولة:")), r.Leaf)
}

type caseListCmd struct {
	Service string `placeholder:"SERVICE"`
	In      string `placeholder:"STATE"`
	Trouble bool
	Mine    bool
	After   string `placeholder:"PLACE"`
	caseAs
}

func (c *caseListCmd) Run(s *session) error {
	q := url.Values{}
	for name, value := range map[string]string{"service": c.Service, "state": c.In, "after": c.After} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, set := range map[string]bool{"trouble": c.Trouble, "mine": c.Mine} {
		if set {
			q.Set(name, "1")
		}
	}
	raw, err := c.at(s, "", http.MethodGet, "?"+q.Encode(), "", nil)
	if err != nil {
		return err
	}
	type page struct {
		Cases []casework.Summary `json:"cases"`
		Next  string             `json:"next"`
	}
	return told(s, raw, func(p page) {
		var rows [][]string
		for _, x := range p.Cases {
			rows = append(rows, []string{x.Case, x.Service, string(x.Peer), s.say(x.Title), x.Changed.UTC().Format(time.RFC3339), s.trouble(x.Trouble)})
		}
		if rows == nil && p.Next == "" {
			s.line(t("There is no such case that this system may see.", "لا توجد معاملة كهذه يحق لهذا النظام الاطلاع عليها."))
		} else if rows != nil {
			s.table([]string{s.say(t("case", "المعاملة")), s.say(t("service", "الخدمة")), s.say(t("with", "مع")), s.say(t("stands in", "الحالة")),
				s.say(t("changed", "آخر تغيير")), s.say(t("trouble", "الخلل"))}, rows)
		}
		if p.Next != "" {
			s.printf("%s --after %s\n", s.say(t("There is more:", "للمزيد:")), p.Next)
		}
	})
}

// trouble says in words why a person should look at a case.
func (s *session) trouble(code string) string {
	kind, why, _ := strings.Cut(code, " ")
	text, ok := map[string]union.Text{
		"amended":  t("the other half told facts anew, and they were others", "أعاد الشق الآخر ذكر معلومات وكانت مختلفة"),
		"held":     t("a step could not be worked out, and waits for a person", "تعذّر حساب خطوة فهي تنتظر موظفاً"),
		"message":  t("a message of the other half was not taken", "رسالة من الشق الآخر لم تُقبل"),
		"returned": t("the other half did not take a message", "لم يقبل الشق الآخر رسالة"),
		"call":     t("a register's answer was not taken", "رد أحد السجلات لم يُقبل"),
		"deadline": t("a deadline did nothing", "حلول موعد لم يُفضِ إلى شيء"),
	}[kind]
	if !ok {
		return code
	}
	if why == "" {
		return s.say(text)
	}
	return s.say(text) + s.say(t(": ", ": ")) + s.why(why)
}

func (s *session) why(code string) string {
	text, ok := map[string]union.Text{
		"conflict":    t("the other half has heard another one under its number", "سمع الشق الآخر غيرها برقمها"),
		"undelivered": t("it does not arrive", "لا تصل"),
		"invalid":     t("not what the definition says", "لا يوافق التعريف"),
		"actor":       t("not this actor's to do", "ليس من صلاحية من قام به"),
		"unexpected":  t("not in this state", "ليس في هذه الحالة"),
		"closed":      t("the case has ended", "انتهت المعاملة"),
		"refused":     t("the definition refuses it", "يرفضه التعريف"),
	}[code]
	if !ok {
		return code
	}
	return s.say(text)
}

type caseReconcileCmd struct {
	Peer string `arg:"" optional:"" name:"peer"`
}

func (c *caseReconcileCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	p := node.CasePeer{Peer: union.State(strings.ToUpper(c.Peer))}
	var found []node.CasesCompared
	bad := false
	err = s.changed(n, "case.reconcile", p, &found, func() {
		for _, x := range found {
			if x.Why != nil {
				s.printf("%s: %s %s [%s]\n", x.Peer, s.say(t("not compared to the end:", "لم تكتمل المقارنة:")), s.say(*x.Why), x.Code)
			}
			for _, d := range x.Differences {
				s.printf("%s  %s  %s\n", x.Peer, d.Case, s.differs(d))
			}
		}
		if len(found) == 0 {
			s.line(t("All halves agree.", "كل الشقوق متطابقة."))
			return
		}
		s.line(t("What is missing is sent again, and facts are told anew by their owner. What is on its way looks like a difference too: ask again in a minute.",
			"يُعاد إرسال الناقص، ويعيد صاحب كل معلومة ذكرها. وما هو في الطريق يبدو اختلافاً أيضاً، فأعد السؤال بعد دقيقة."))
	})
	if bad = len(found) > 0; err == nil && bad {
		return errExit(ExitFailed)
	}
	return err
}

// differs says how the halves of a case differ.
func (s *session) differs(d casework.Difference) string {
	switch {
	case d.What == casework.DiffersMissing && d.Here == nil:
		return s.say(t("there is no such case here", "لا توجد هذه المعاملة هنا"))
	case d.What == casework.DiffersMissing:
		return s.say(t("there is no such case there", "لا توجد هذه المعاملة هناك"))
	case d.What == casework.DiffersBehind && d.Here != nil && d.There != nil:
		return s.sprintf(t("sent here %d, heard there %d; sent there %d, heard here %d", "أُرسل هنا %d وسُمع هناك %d، وأُرسل هناك %d وسُمع هنا %d"),
			d.Here.Sent, d.There.Heard, d.There.Sent, d.Here.Heard)
	case d.What == casework.DiffersFacts:
		return s.say(t("the same messages, other facts", "الرسائل نفسها والمعلومات مختلفة"))
	}
	return d.What
}
