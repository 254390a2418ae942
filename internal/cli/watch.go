package cli

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/union"
)

type evidenceCmd struct {
	Show   evidenceShowCmd   `cmd:""`
	Verify evidenceVerifyCmd `cmd:""`
	Export evidenceExportCmd `cmd:""`

	Receipt evidenceReceiptCmd `cmd:""`
	Erase   evidenceEraseCmd   `cmd:""`
}

type evidenceShowCmd struct {
	ID string `arg:"" name:"id"`
}

// ask puts the question about a call to the nodes until one knows it.
func (s *session) ask(query, id string, out any) error {
	return s.find(func(n *target) error { return n.Query(s.ctx, query, url.Values{"id": {id}}, out) })
}

// find asks the nodes in turn until one knows what is asked for.
func (s *session) find(ask func(*target) error) error {
	all, err := s.nodes("")
	if err != nil {
		return err
	}
	for _, n := range all {
		err = ask(n)
		var r *admin.Refusal
		if !errors.As(err, &r) || r.Code != fault.NotFound {
			return err
		}
	}
	return err
}

func (c *evidenceShowCmd) Run(s *session) error {
	var e *exchange.Evidence
	err := s.find(func(n *target) (err error) {
		e, err = exchange.Pages(func(p exchange.Page) (*exchange.Evidence, error) {
			q, page := url.Values{"id": {c.ID}}, new(exchange.Evidence)
			p.Query(q)
			return page, n.Query(s.ctx, "evidence", q, page)
		})
		return err
	})
	if err != nil {
		return err
	}
	return s.show(e, func() {
		for _, h := range e.Halves {
			s.printf("%s %s/%s\n", s.say(t("Held by node", "لدى العقدة")), h.State, h.Node)
			if len(h.Records) == 0 && h.More == 0 {
				s.line(t("  no record of this call", "  لا قيد لهذا الطلب"))
			}
			for _, r := range h.Records {
				head := headOf(r)
				what := head.Method + " " + head.Path + " " + head.Purpose
				if head.Status != 0 {
					what = strconv.Itoa(head.Status) + " " + head.Fault
				}
				s.printf("  %s  %s  %s → %s  %s\n", r.At.Format(millis), pad(s.say(r.Parts.Kind.Text()), 16), head.Client, head.Service, strings.TrimSpace(what))
				if head.RequestID != "" {
					s.printf("    X-Road-Request-Id %s\n", head.RequestID)
				}
				s.printf(s.say(t("    sealed %s, certificate %s\n", "    خُتم %s، الشهادة %s\n")), r.Sealed.Format(time.RFC3339), hex.EncodeToString(r.Cert[:8]))
				s.printf(s.say(t("    leaf %d, %s\n", "    الورقة %d، %s\n")), r.Leaf, hex.EncodeToString(r.Hash[:]))
			}
			if h.More != 0 {
				s.printf(s.say(t("  more from leaf %d on was left out\n", "  لم يُعرض الباقي ابتداءً من الورقة %d\n")), h.More)
			}
		}
		if e.Missing != "" {
			s.line(t("The other side's half is missing:", "ما لدى الطرف الآخر غير متوفر:"))
			s.indent("  ", e.Missing)
		}
	})
}

// heading is what a person reads of a record's sealed head.
type heading struct {
	Client, Service, Method, Path, Purpose, Fault string
	Status                                        int
	RequestID                                     string `json:"request_id"`
}

func headOf(r exchange.Record) (h heading) {
	json.Unmarshal(r.Head, &h) // what cannot be read is left out
	return h
}

type evidenceVerifyCmd struct {
	ID string `arg:"" name:"id"`
}

func (c *evidenceVerifyCmd) Run(s *session) error {
	var v node.Verification
	if err := s.ask("verification", c.ID, &v); err != nil {
		return err
	}
	if err := s.show(v, func() {
		wrong := 0
		for _, x := range v.Checks {
			s.printf("%s %s\n", mark(x.OK), s.say(t(x.What, x.WhatAr)))
			if !x.OK {
				wrong++
				s.indent("    ", x.Detail)
			}
		}
		switch {
		case v.OK:
			s.line(t("The evidence holds.", "الأدلة صحيحة."))
		case v.Missing != "" && wrong == 1:
			s.line(t("What is here holds, but the other side could not be asked: nobody knows yet whether it holds the same. Try again later.",
				"الموجود هنا صحيح، لكن تعذّر سؤال الطرف الآخر، فلا يُعرف بعد هل لديه مثله. أعد المحاولة لاحقاً."))
		default:
			s.line(t("The evidence does not hold.", "الأدلة غير صحيحة."))
		}
	}); err != nil {
		return err
	}
	if !v.OK {
		return errExit(ExitFailed)
	}
	return nil
}

// millis is a record's time, always as wide.
const millis = "2006-01-02T15:04:05.000Z07:00"

func mark(ok bool) string {
	if ok {
		return "✓"
	}
	return "✗"
}

type outcomeCmd struct {
	List    outcomeListCmd    `cmd:""`
	Resolve outcomeResolveCmd `cmd:""`
}

type outcomeListCmd struct{}

func (c *outcomeListCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var list []exchange.Outcome
	if err := n.Query(s.ctx, "outcomes", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		if len(list) == 0 {
			s.line(t("No call's outcome is unknown.", "لا يوجد طلب مجهول النتيجة."))
			return
		}
		var rows [][]string
		for _, o := range list {
			rows = append(rows, []string{o.ID, o.Client, o.Service, o.Since.UTC().Format(time.RFC3339)})
		}
		s.table([]string{"X-Road-Id", s.say(t("client", "العميل")), s.say(t("service", "الخدمة")), s.say(t("since", "منذ"))}, rows)
		s.printf("\n%s\n", s.say(t("Find out with the service's owner what took effect, then say it of each, once:", "تحقّق مع صاحب الخدمة مما نُفّذ، ثم بيّنه لكل طلب مرة واحدة:")))
		for _, o := range list {
			s.printf("  falaj outcome resolve %s '%s' --happened|--nothing --reason TEXT\n", o.Client, o.ID)
		}
	})
}

type outcomeResolveCmd struct {
	Client   string `arg:"" name:"client"`
	ID       string `arg:"" name:"id"`
	Happened bool   `xor:"decision"`
	Nothing  bool   `xor:"decision"`
	Reason   string `required:"" placeholder:"TEXT"`
}

func (c *outcomeResolveCmd) Run(s *session) error {
	if !c.Happened && !c.Nothing {
		return fault.New(fault.Usage, "--happened or --nothing: which of the two is it")
	}
	id, err := union.ParseClient(c.Client)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	n, err := s.node("")
	if err != nil {
		return err
	}
	return s.changed(n, "outcome.resolve", node.Resolution{Client: id, ID: c.ID, Happened: c.Happened, Reason: c.Reason}, nil, func() { s.line(textDecided) })
}

type deliveryCmd struct {
	List deliveryListCmd `cmd:""`
	Skip deliverySkipCmd `cmd:""`
}

type deliveryListCmd struct {
	Client       string `placeholder:"CLIENT"`
	Conversation string `placeholder:"ID"`
	Status       string `enum:"waiting,sending,blocked,answered,refused,expired,skipped," default:"" placeholder:"STATUS"`
}

func (c *deliveryListCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	q := url.Values{}
	for k, v := range map[string]string{"client": c.Client, "conversation": c.Conversation, "status": c.Status} {
		if v != "" {
			q.Set(k, v)
		}
	}
	var list []exchange.Delivery
	if err := n.Query(s.ctx, "deliveries", q, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		if len(list) == 0 {
			s.line(t("No deliveries.", "لا توجد تسليمات."))
			return
		}
		var rows [][]string
		for _, d := range list {
			rows = append(rows, []string{d.ID, d.Client.String(), d.Service.String(), d.Conversation, s.word(string(d.Status)), strconv.Itoa(d.Attempts), d.Accepted.UTC().Format(time.RFC3339), pushed(d)})
		}
		s.table([]string{"X-Road-Id", s.say(t("client", "العميل")), s.say(t("service", "الخدمة")), s.say(t("conversation", "المحادثة")),
			s.say(t("status", "الحالة")), s.say(t("attempts", "المحاولات")), s.say(t("accepted", "قُبل")), s.say(t("push", "الدفع"))}, rows)
	})
}

// pushed says what became of pushing a delivery's outcome to its client: done,
// or tried in vain so many times.
func pushed(d exchange.Delivery) string {
	switch {
	case !d.Pushed.IsZero():
		return "✓"
	case d.Pushes > 0:
		return "✗ " + strconv.Itoa(d.Pushes)
	}
	return ""
}

type deliverySkipCmd struct {
	Client string `arg:"" name:"client"`
	ID     string `arg:"" name:"id"`
	Reason string `required:"" placeholder:"TEXT"`
}

func (c *deliverySkipCmd) Run(s *session) error {
	id, err := union.ParseClient(c.Client)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	n, err := s.node(id.State)
	if err != nil {
		return err
	}
	return s.changed(n, "delivery.skip", node.Skip{Client: id, ID: c.ID, Reason: c.Reason}, nil, func() { s.line(textDecided) })
}

type keyCmd struct {
	List   keyListCmd   `cmd:""`
	Rotate keyRotateCmd `cmd:""`
	Renew  keyRenewCmd  `cmd:""`
	Revoke keyRevokeCmd `cmd:""`
}

type keyListCmd struct{}

func (c *keyListCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var list []node.Key
	if err := n.Query(s.ctx, "keys", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		var rows [][]string
		for _, k := range list {
			if len(k.Certificates) == 0 {
				rows = append(rows, []string{k.Name, k.PublicSHA256[:16], "", "", ""})
			}
			for _, x := range k.Certificates {
				revoked := ""
				if x.Revoked {
					revoked = s.say(t("revoked", "ملغاة"))
				}
				rows = append(rows, []string{k.Name, k.PublicSHA256[:16], x.Use, x.Until.UTC().Format(time.DateOnly), x.SHA256 + " " + revoked})
			}
		}
		s.table([]string{s.say(t("key", "المفتاح")), s.say(t("public", "العام")), s.say(t("use", "الاستعمال")), s.say(t("until", "حتى")), s.say(t("certificate", "الشهادة"))}, rows)
	})
}

type keyRotateCmd struct {
	Name string `arg:"" name:"name"`
}

func (c *keyRotateCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var done node.KeyName
	return s.changed(n, "key.rotate", node.KeyName{Name: c.Name}, &done, func() {
		if done.Name != c.Name {
			s.printf("%s %s\n", s.say(t("Persons are hidden under a new key from now on, and found under all:", "يُخفى الأشخاص من الآن بمفتاح جديد ويُبحث عنهم بكل المفاتيح:")), done.Name)
			return
		}
		s.printf("%s %s\n", s.say(t("Replaced, and its certificate published:", "استُبدل ونُشرت شهادته:")), c.Name)
	})
}

type keyRenewCmd struct{}

func (c *keyRenewCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var done struct{ Renewed bool }
	return s.changed(n, "key.renew", struct{}{}, &done, func() {
		if done.Renewed {
			s.line(t("What was due is renewed.", "جُدّد ما حان موعده."))
		} else {
			s.line(t("Nothing is due.", "لا شيء حان موعد تجديده."))
		}
	})
}

type keyRevokeCmd struct {
	SHA256 string `arg:"" name:"sha256"`
	Reason string `default:"superseded" placeholder:"REASON"`
}

func (c *keyRevokeCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	if c.SHA256, err = whole(s, n, c.SHA256); err != nil {
		return err
	}
	return s.changed(n, "certificate.revoke", node.Revocation{SHA256: c.SHA256, Reason: c.Reason}, nil, func() {
		s.printf("%s %s\n", s.say(t("Revoked:", "أُلغيت:")), c.SHA256)
	})
}

// whole finds the certificate of this node whose SHA-256 begins so; evidence
// shows sixteen digits. One that the node has no key of is named in full.
func whole(s *session, n *target, digits string) (string, error) {
	if len(digits) < 16 || len(digits) >= 64 {
		return digits, nil
	}
	var list []node.Key
	if err := n.Query(s.ctx, "keys", nil, &list); err != nil {
		return "", err
	}
	var found []string
	for _, k := range list {
		for _, x := range k.Certificates {
			if strings.HasPrefix(x.SHA256, strings.ToLower(digits)) && !slices.Contains(found, x.SHA256) {
				found = append(found, x.SHA256)
			}
		}
	}
	if len(found) != 1 {
		return "", fault.New(fault.NotFound, "%d certificates of this node's keys begin with %s; falaj key list shows them", len(found), digits)
	}
	return found[0], nil
}

type approvalCmd struct {
	List    approvalListCmd    `cmd:""`
	Approve approvalApproveCmd `cmd:""`
	Reject  approvalRejectCmd  `cmd:""`
}

type approvalListCmd struct{}

func (c *approvalListCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var list []admin.Approval
	if err := n.Query(s.ctx, "approvals", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		if len(list) == 0 {
			s.line(t("Nothing waits for a second person.", "لا شيء ينتظر شخصاً ثانياً."))
			return
		}
		var rows [][]string
		for _, a := range list {
			rows = append(rows, []string{a.ID, s.word(a.State), a.Action, a.RequestedBy, a.RequestedAt.UTC().Format(time.RFC3339), string(a.Params)})
		}
		s.table([]string{s.say(t("change", "التغيير")), s.say(t("state", "الحالة")), s.say(t("action", "الإجراء")), s.say(t("asked by", "طلبه")), s.say(t("at", "الوقت")), s.say(t("what", "ماذا"))}, rows)
	})
}

type approvalApproveCmd struct {
	ID string `arg:"" name:"id"`
}

func (c *approvalApproveCmd) Run(s *session) error { return s.decide(c.ID, "approve") }

type approvalRejectCmd struct {
	ID string `arg:"" name:"id"`
}

func (c *approvalRejectCmd) Run(s *session) error { return s.decide(c.ID, "reject") }

func (s *session) decide(id, verb string) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	a, err := n.Change(s.ctx, "approvals/"+url.PathEscape(id)+"/"+verb, struct{}{}, nil)
	if err != nil {
		return err
	}
	return s.show(a, func() { s.line(textDecided) })
}

type auditCmd struct {
	Events  auditEventsCmd  `cmd:""`
	Changes auditChangesCmd `cmd:""`
}

type auditEventsCmd struct{}

func (c *auditEventsCmd) Run(s *session) error {
	all, err := s.nodes("")
	if err != nil {
		return err
	}
	var list []admin.Event
	if err := all[0].Query(s.ctx, "events", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		var rows [][]string
		for _, e := range list {
			rows = append(rows, []string{e.Name, s.word(e.Where), s.say(e.Text)})
		}
		s.table([]string{s.say(t("event", "الحدث")), s.say(t("kept in", "يُقيَّد في")), ""}, rows)
	})
}

type auditChangesCmd struct {
	Day string `placeholder:"YYYY-MM-DD"`
}

func (c *auditChangesCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	q := url.Values{}
	if c.Day != "" {
		q.Set("day", c.Day)
	}
	list := []node.Change{}
	for {
		var more []node.Change
		if err := n.Query(s.ctx, "changes", q, &more); err != nil {
			return err
		}
		if len(more) == 0 {
			break
		}
		list = append(list, more...)
		q.Set("from", strconv.FormatInt(more[len(more)-1].Leaf+1, 10))
	}
	return s.show(list, func() {
		var rows [][]string
		for _, x := range list {
			var e admin.Entry
			json.Unmarshal(x.Entry, &e)
			rows = append(rows, []string{strconv.FormatInt(x.Leaf, 10), x.At.UTC().Format("2006-01-02 15:04:05Z"), e.Event, s.word(e.Phase), e.Person, e.Second, string(e.Params)})
		}
		s.table([]string{s.say(t("leaf", "الورقة")), s.say(t("at", "الوقت")), s.say(t("event", "الحدث")), s.say(t("phase", "المرحلة")), s.say(t("by", "من")), s.say(t("with", "مع")), s.say(t("what", "ماذا"))}, rows)
	})
}

type doctorCmd struct {
	All bool
}

// diagnosis is what doctor says of one node.
type diagnosis struct {
	State union.State `json:"state,omitzero"`
	node.Health
	Error string `json:"error,omitempty"`
}

func (c *doctorCmd) Run(s *session) error {
	all, err := s.nodes("")
	if err != nil {
		return err
	}
	sick := false
	var out []diagnosis
	for _, n := range all {
		d := diagnosis{State: n.place.State}
		if err := n.Query(s.ctx, "health", nil, &d.Health); err != nil {
			if s.Admin != "" {
				return err
			}
			d.Error = err.Error()
			var f *fault.Error
			if errors.As(err, &f) {
				d.Error = f.Detail
			}
		} else if d.State == "" {
			var a node.About
			if err := n.Query(s.ctx, "node", nil, &a); err == nil {
				d.State = a.State
			}
		}
		sick = sick || d.Error != "" || !d.Ready
		out = append(out, d)
	}
	if err := s.show(out, func() {
		for _, d := range out {
			s.diagnose(d, c.All)
		}
	}); err != nil {
		return err
	}
	if sick {
		return errExit(ExitFailed)
	}
	return nil
}

func (s *session) diagnose(d diagnosis, all bool) {
	switch {
	case d.Error != "":
		s.printf("✗ %s %s\n  %s\n", d.State, s.say(t("the node cannot be reached", "تعذّر الوصول إلى العقدة")), d.Error)
		return
	case d.Ready:
		s.printf("✓ %s %s\n", d.State, s.say(t("the node takes calls", "العقدة تقبل الطلبات")))
	default:
		s.printf("✗ %s %s\n", d.State, s.say(t("the node takes no calls", "العقدة لا تقبل الطلبات")))
	}
	for _, f := range d.Checks {
		switch {
		case f.OK && all:
			s.printf("  ✓ %s\n", s.say(f.Text))
		case !f.OK:
			s.printf("  %s %s %s\n", sign(f), s.say(f.What), s.say(f.Do))
			if f.Detail != "" {
				s.indent("    ", f.Detail+" ["+string(f.Code)+"]")
			}
		}
	}
}

func sign(f operation.Finding) string {
	if f.Hint {
		return "!"
	}
	return "✗"
}
