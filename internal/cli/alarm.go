package cli

import (
	"strings"
	"time"

	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/witness"
)

type logAlarmsCmd struct{}

// Run lists the alarms. That there are some is an exit code, so that a script
// sees it.
func (c *logAlarmsCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var a node.Alarms
	if err := n.Query(s.ctx, "alarms", nil, &a); err != nil {
		return err
	}
	if err := s.show(a, func() {
		for _, x := range a.Alarms {
			s.printf("%s  %s → %s  %s\n", x.At.UTC().Format(time.RFC3339), x.From, x.Of, s.say(witness.AlarmText(x.Kind)))
			if x.Count > 0 {
				s.printf(s.say(t("  messages: %d\n", "  الرسائل: %d\n")), x.Count)
			}
			for _, m := range x.Messages {
				s.printf(s.say(t("  message %s, promised at leaf %d\n", "  الرسالة %s، المتعهَّد بها عند الورقة %d\n")), m.Envelope, m.Index)
			}
			if len(x.Told) > 0 {
				s.printf(s.say(t("  told: %s\n", "  أُبلغت: %s\n")), strings.Join(x.Told, " "))
			}
		}
		for _, x := range a.Silent {
			s.printf(s.say(t("The log of %s has not shown itself since %s; messages that wait: %d: %s\n", "سجل شفافية %s غير متاح منذ %s، وتنتظره رسائل عددها %d: %s\n")), x.State, x.Since.Format(time.RFC3339), x.Messages, x.Why)
		}
		for of, why := range a.Unraised {
			s.printf(s.say(t("An alarm about %s is due and cannot be raised: %s\n", "إنذار بشأن %s واجب وتعذّر إصداره: %s\n")), of, why)
		}
		if len(a.Alarms)+len(a.Unraised) == 0 {
			s.line(t("No alarms.", "لا إنذارات."))
		}
	}); err != nil {
		return err
	}
	if len(a.Alarms)+len(a.Unraised) > 0 {
		return errExit(ExitFailed)
	}
	return nil
}
