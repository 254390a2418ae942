package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/falaj/falaj/internal/node"
)

// ExitUnsure is fsck's where nothing is wrong, and something could not be
// checked that should be.
const ExitUnsure = 2

type fsckCmd struct {
	configFlags
}

// Run looks through what a node has stored: a running node's, by asking it, or
// that of one that is stopped, where a configuration is named.
func (c *fsckCmd) Run(s *session) error {
	progress := s.steps()
	var r node.Checked
	if c.Config != "" {
		cfg, err := c.load(s)
		if err != nil {
			return err
		}
		if r, err = node.Fsck(s.ctx, cfg, progress); err != nil {
			return err
		}
	} else {
		n, err := s.node("")
		if err != nil {
			return err
		}
		from, to := io.Pipe()
		done := make(chan error, 1)
		go func() {
			err := n.Save(s.ctx, "fsck", nil, to, func(int64, int64) {})
			_ = to.CloseWithError(err)
			done <- err
		}()
		r, err = node.ReadFsck(from, progress)
		_ = from.Close()
		if failed := <-done; failed != nil && err != nil {
			err = failed // what the node said is the better answer
		}
		if err != nil {
			return err
		}
	}
	progress("", 0, 0)
	if err := s.show(r, func() { s.checked(r) }); err != nil {
		return err
	}
	switch {
	case !r.OK:
		return errExit(ExitFailed)
	case len(r.Gaps) > 0:
		return errExit(ExitUnsure)
	}
	return nil
}

func (s *session) checked(r node.Checked) {
	s.printf(s.say(t("Node %s/%s: records in the log: %d, root %s\n", "العقدة %s/%s: القيود في سجل الشفافية: %d، والجذر %s\n")), r.State, r.Node, r.Size, r.Root)
	s.printf(s.say(t("  records read and held against their leaves: %d, erased or ended: %d\n", "  القيود التي قُرئت وقورنت بأوراقها: %d، وما مُحي أو انتهى حفظه: %d\n")), r.Records, r.Erased)
	s.printf(s.say(t("  checkpoints and heads: %d, large bodies: %d (bytes: %d), claims: %d, deliveries: %d, cases: %d\n", "  نقاط التحقق والرؤوس: %d، المحتويات الكبيرة: %d (بالبايت: %d)، الحجوزات: %d، التسليمات: %d، المعاملات: %d\n")), r.Checkpoints, r.Bodies, r.BodyBytes, r.Claims, r.Deliveries, r.Cases)
	if len(r.Witnesses) > 0 {
		s.printf("%s %s\n", s.say(t("  the heads that these states' witnesses have seen are beginnings of the log:", "  الرؤوس التي رآها شهود هذه الدول بدايات لسجل الشفافية:")), strings.Trim(fmt.Sprint(r.Witnesses), "[]"))
	}
	for _, n := range r.Notes {
		s.printf("  %s\n", s.say(n))
	}
	for _, g := range r.Gaps {
		s.printf("? %s\n", s.say(g.What))
		s.indent("    ", g.Detail)
	}
	for _, f := range r.Flaws {
		s.printf("✗ %s\n    %s\n", s.say(f.What), s.say(f.Do))
		s.indent("    ", s.word(f.Place)+" "+f.Name+": "+f.Detail)
	}
	if r.Omitted > 0 {
		s.printf(s.say(t("… and %d more\n", "… و%d غيرها\n")), r.Omitted)
	}
	switch {
	case !r.OK:
		s.line(t("Something that is stored is not what was written.", "بعض ما خُزّن ليس ما كُتب."))
	case len(r.Gaps) > 0:
		s.line(t("Nothing is wrong in what could be looked at.", "لا خطأ في ما أمكن فحصه."))
	default:
		s.line(t("Everything stored is what was written.", "كل ما خُزّن هو ما كُتب."))
	}
}

// steps tells a person who waits at a terminal how far a long work is; an
// empty place ends it.
func (s *session) steps() node.Progress {
	f, ok := s.Err.(*os.File)
	if ok {
		st, err := f.Stat()
		ok = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	if !ok || s.JSON {
		return func(string, int64, int64) {}
	}
	told := false
	return func(place string, done, all int64) {
		switch {
		case place == "" && told:
			fmt.Fprint(s.Err, "\r\x1b[K")
		case place == "" || done%1000 != 0 && all > 0 && done != all:
		case all > 0:
			told = true
			fmt.Fprintf(s.Err, "\r\x1b[K%s %d / %d", s.word(place), done, all)
		default:
			told = true
			fmt.Fprintf(s.Err, "\r\x1b[K%s %d", s.word(place), done)
		}
	}
}
