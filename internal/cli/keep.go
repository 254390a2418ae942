package cli

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/node"
)

type evidenceEraseCmd struct {
	ID     string  `arg:"" name:"id" optional:""`
	Client string  `placeholder:"CLIENT"`
	Leaf   []int64 `placeholder:"N"`
	Reason string  `required:"" placeholder:"TEXT"`
}

// Run finds the call's records at one node and has them erased by their
// leaves: in what stays of the change, its id does not stand. Leaves are named
// where an erasure broke off: the id finds nothing any more.
func (c *evidenceEraseCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	leaves := c.Leaf
	if (c.ID == "") == (len(leaves) == 0) {
		return fault.New(fault.Usage, "an X-Road-Id or --leaf: what is to be erased").Arabic("المعرّف X-Road-Id أو --leaf: ما المراد محوه")
	}
	if c.ID != "" {
		var clients []string
		if leaves, clients, err = s.leaves(n, c.ID, c.Client); err != nil {
			return err
		}
		if len(clients) > 1 {
			list := strings.Join(clients, "\n")
			return fault.New(fault.Usage, "several clients have used this id; name one with --client:\n%s", list).Arabic("استعمل أكثر من عميل هذا المعرّف، فسمِّ أحدهم بالخيار --client:\n%s", list)
		}
	}
	var done node.Erased
	return s.changed(n, "evidence.erase", node.Erase{Leaves: leaves, Reason: c.Reason}, &done, func() {
		s.printf(s.say(t("Erased, but for their leaves in the log: %s\n", "مُحيت، ولم تبق إلا أوراقها في سجل الشفافية: %s\n")), strings.Trim(fmt.Sprint(done.Leaves), "[]"))
		s.line(t("The other state's node holds its own records of the call, and copies made before hold these.", "ولدى عقدة الدولة الأخرى قيودها لهذا الطلب، وفي النسخ المأخوذة من قبل هذه القيود."))
	})
}

// leaves are those of a call's records at a node, with the clients that they
// name: ids are each client's own, and two may have used the same.
func (s *session) leaves(n *target, id, client string) (out []int64, clients []string, err error) {
	var about node.About
	if err := n.Query(s.ctx, "node", nil, &about); err != nil {
		return nil, nil, err
	}
	for q := (url.Values{"id": {id}, "state": {string(about.State)}}); ; {
		var e exchange.Evidence
		if err := n.Query(s.ctx, "evidence", q, &e); err != nil {
			return nil, nil, err
		}
		more := int64(0)
		for _, h := range e.Halves {
			more = h.More
			for _, r := range h.Records {
				of := headOf(r).Client
				if client != "" && of != client {
					continue
				}
				out = append(out, r.Leaf)
				if of != "" && !slices.Contains(clients, of) {
					clients = append(clients, of)
				}
			}
		}
		if more == 0 {
			break
		}
		q.Set("from", strconv.FormatInt(more, 10))
	}
	if len(out) == 0 {
		return nil, nil, fault.New(fault.NotFound, "the node holds no record of this id")
	}
	return out, clients, nil
}

type holdCmd struct {
	Add     holdAddCmd     `cmd:""`
	List    holdListCmd    `cmd:""`
	Release holdReleaseCmd `cmd:""`
}

type holdAddCmd struct {
	Hold   string `arg:"" name:"hold"`
	Class  string `xor:"what" placeholder:"CLASS"`
	Month  string `placeholder:"YYYY-MM"`
	ID     string `name:"id" xor:"what" placeholder:"ID"`
	Reason string `required:"" placeholder:"TEXT"`
}

func (c *holdAddCmd) Run(s *session) error {
	if c.Class == "" && c.ID == "" {
		return fault.New(fault.Usage, "--class or --id: what is to be held").Arabic("--class أو --id: ما المراد حفظه")
	}
	n, err := s.node("")
	if err != nil {
		return err
	}
	p := node.HoldAdd{Name: c.Hold, Class: c.Class, Month: c.Month, Reason: c.Reason}
	if c.ID != "" {
		if p.Leaves, _, err = s.leaves(n, c.ID, ""); err != nil {
			return err
		}
	}
	var all []node.Hold
	return s.changed(n, "hold.add", p, &all, func() { s.held(all) })
}

func (s *session) held(all []node.Hold) {
	if len(all) == 0 {
		s.line(t("Nothing is held.", "لا توجد أوامر حفظ."))
		return
	}
	var rows [][]string
	for _, h := range all {
		month := h.Month
		if month == "" {
			month = s.say(t("every month", "كل شهر"))
		}
		rows = append(rows, []string{h.Name, h.Class, month, strings.Trim(fmt.Sprint(h.Leaves), "[]"), h.By, h.At.UTC().Format(time.RFC3339), h.Reason})
	}
	s.table([]string{s.say(t("hold", "أمر الحفظ")), s.say(t("class", "الفئة")), s.say(t("month", "الشهر")), s.say(t("leaves", "الأوراق")),
		s.say(t("by", "بواسطة")), s.say(t("since", "منذ")), s.say(t("reason", "السبب"))}, rows)
}

type holdListCmd struct{}

func (c *holdListCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var all []node.Hold
	if err := n.Query(s.ctx, "holds", nil, &all); err != nil {
		return err
	}
	return s.show(all, func() { s.held(all) })
}

type holdReleaseCmd struct {
	Hold   string `arg:"" name:"hold"`
	Reason string `required:"" placeholder:"TEXT"`
}

func (c *holdReleaseCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	return s.changed(n, "hold.release", node.HoldRelease{Name: c.Hold, Reason: c.Reason}, nil, func() { s.printf("%s %s\n", s.say(textRemoved), c.Hold) })
}

type journalCmd struct {
	Archive journalArchiveCmd `cmd:""`
}

type journalArchiveCmd struct {
	Before  string `placeholder:"YYYY-MM"`
	Compact bool
}

// Run asks until nothing is left to archive: one change has its time.
func (c *journalArchiveCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	all := node.Archived{Files: []journal.Archived{}, More: true}
	for all.More {
		var done node.Archived
		if _, err := n.Change(s.ctx, "journal.archive", node.Archive{Before: c.Before, Compact: c.Compact}, &done); err != nil {
			return err
		}
		all.Folder, all.More, all.Files = done.Folder, done.More, append(all.Files, done.Files...)
	}
	return s.show(all, func() {
		if len(all.Files) == 0 {
			s.line(t("There is nothing to archive.", "لا يوجد ما يُؤرشف."))
		}
		if c.Compact {
			s.line(t("The database has given its free space back.", "أعادت قاعدة البيانات المساحة الخالية."))
		}
		if len(all.Files) == 0 {
			return
		}
		for _, f := range all.Files {
			s.printf(s.say(t("%s: records: %d, from leaf %d on, bytes: %d\n", "%s: القيود: %d، ابتداءً من الورقة %d، بالبايت: %d\n")), filepath.Join(all.Folder, f.File), f.Count, f.First, f.Bytes)
		}
		s.line(t("Copy them elsewhere: what is in them is no longer in the database, nor in a backup of it.", "انسخها إلى موضع آخر: ما فيها لم يعد في قاعدة البيانات ولا في نسخها الاحتياطية."))
	})
}
