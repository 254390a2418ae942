package cli

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/union"
)

type caseShowCmd struct {
	Case string `arg:"" name:"case"`
	caseAs
}

func (c *caseShowCmd) Run(s *session) error {
	raw, err := c.at(s, "", http.MethodGet, url.PathEscape(c.Case), "", nil)
	if err != nil {
		return err
	}
	return told(s, raw, func(x story) {
		p := &page{s: s, now: time.Now()}
		p.story(x)
		s.printf("%s", plain(p.String()))
	})
}

// story is a case as the door tells it; facts are shown as it shows them.
type story struct {
	casework.Story
	Facts map[string]jsontext.Value `json:"facts"`
}

// page is a case written for a person.
type page struct {
	strings.Builder
	s   *session
	now time.Time
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) head(en, ar string) { p.line("\n%s", p.s.say(t(en, ar))) }

// title is what something is called, with its code behind it.
func (p *page) title(all map[string]union.Text, code string) string {
	return named(p.s.say(all[code]), code)
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }

func (p *page) story(x story) {
	say := p.s.say
	p.line("%s: %s %s", say(t("Case", "المعاملة")), x.Case, say(t("with", "مع"))+" "+string(x.Peer))
	p.line("  %s (%s@%d), %s: %s", say(x.Titles.Service), x.Service, x.Version, say(t("this half", "هذا الشق")), say(x.Titles.Parties[x.Party]))
	ended := ""
	if x.Ended {
		ended = say(t(", it has ended", "، وقد انتهت"))
	}
	p.line("  %s %s%s", say(t("stands in:", "حالتها:")), named(say(x.Title), x.State), ended)
	if x.Trouble != "" {
		p.line("  %s %s", say(t("a person should look at it:", "تحتاج إلى مراجعة موظف:")), p.s.trouble(x.Trouble))
	}
	p.line("  %s %s, %s %s", say(t("opened", "فُتحت")), stamp(x.Opened), say(t("last changed", "آخر تغيير")), stamp(x.Changed))

	if len(x.Can) > 0 {
		p.head("What can be done now:", "ما يمكن فعله الآن:")
		for _, form := range x.Can {
			p.line("  %s", p.title(x.Titles.Forms, form))
		}
	}
	if len(x.Proposals) > 0 {
		p.head("Waits for a second person:", "ينتظر شخصاً ثانياً:")
		for _, form := range slices.Sorted(maps.Keys(x.Proposals)) {
			y := x.Proposals[form]
			p.line("  %s: %s %s, %s (--confirm %d)", p.title(x.Titles.Forms, form), say(t("asked for by", "طلبه")), y.User, stamp(y.At), y.Event)
			for _, name := range slices.Sorted(maps.Keys(y.Shown)) {
				p.line("    %s: %s", p.title(x.Titles.Facts, name), say(y.Shown[name]))
			}
		}
	}
	if len(x.Deadlines) > 0 {
		p.head("Deadlines:", "المواعيد:")
		for _, name := range slices.SortedFunc(maps.Keys(x.Deadlines), func(a, b string) int { return x.Deadlines[a].Compare(x.Deadlines[b]) }) {
			p.line("  %s: %s, %s", name, stamp(x.Deadlines[name]), p.s.left(x.Deadlines[name].Sub(p.now)))
		}
	}
	if len(x.Facts) > 0 {
		p.head("Facts:", "المعلومات:")
		for _, name := range slices.Sorted(maps.Keys(x.Facts)) {
			p.line("  %s: %s", p.title(x.Titles.Facts, name), say(x.Shown[name]))
		}
	}
	p.head("History:", "السجل:")
	for _, ev := range x.Events {
		p.event(x, ev)
	}
	if len(x.Notices) > 0 {
		p.head("Notices:", "الإشعارات:")
		for _, n := range x.Notices {
			p.line("  %s  %s: %s\n    %s", stamp(n.At), p.title(x.Titles.Roles, n.Role), say(n.Title), say(n.Text))
		}
	}
}

// event is a thing that happened, and what followed from it.
func (p *page) event(x story, ev casework.StoryEvent) {
	say := p.s.say
	p.line("  %d. %s  %s", ev.Number, stamp(ev.At), p.happened(x, ev))
	if ev.Second != nil {
		p.line("     %s %s", say(t("confirmed by", "أكّده")), p.actor(x, ev.Second))
	}
	if ev.From != ev.To {
		p.line("     %s → %s", p.title(x.Titles.States, ev.From), p.title(x.Titles.States, ev.To))
	}
	if d := ev.Decision; d != nil {
		p.line("     %s %s: %s [%s]", say(t("decision:", "القرار:")), d.Outcome, say(d.Text), d.Reason+", "+d.Rule)
		if !d.Appeal.IsZero() {
			p.line("     %s %s, %s", say(t("can be appealed until", "يمكن التظلّم منه حتى")), stamp(d.Appeal), p.title(x.Titles.Forms, d.By))
		}
	}
	if r := ev.Refusal; r != nil {
		p.line("     %s %s", say(t("not taken:", "لم يُقبل:")), strings.TrimSpace(say(r.Text)+" "+r.Detail))
	}
	if len(ev.Amended) > 0 {
		p.line("     %s %s", say(t("others than before:", "تغيّر منها:")), strings.Join(ev.Amended, ", "))
	}
	if ev.Held != "" {
		p.line("     %s %s", say(t("held for a person to look at:", "عُلّقت ليراجعها موظف:")), ev.Held)
	}
	for i, m := range ev.Sent {
		id := ""
		if i < len(ev.Messages) {
			id = ev.Messages[i]
		}
		name := p.title(x.Titles.Messages, m.Message)
		if m.Message == casework.Amendment {
			name = say(t("facts, told anew", "المعلومات مذكورة من جديد"))
		}
		p.line("     %s %s: %s, %s %s", say(t("sent to", "أُرسلت إلى")), x.Peer, name, say(t("evidence", "أدلتها")), id)
	}
	for _, c := range ev.Calls {
		p.line("     %s (%s)", say(t("a register is asked", "يُسأل أحد السجلات")), c.Call)
	}
	p.line("     %s %d", say(t("leaf", "الورقة")), ev.Leaf)
}

// happened says in a line what an event was, and whose.
func (p *page) happened(x story, ev casework.StoryEvent) string {
	say := p.s.say
	switch ev.Kind {
	case casework.KindForm:
		return p.title(x.Titles.Forms, ev.Trigger) + say(t(", ", "، ")) + p.actor(x, ev.Actor)
	case casework.KindProposal:
		return say(t("asked for, waits for a second person:", "طُلب وينتظر شخصاً ثانياً:")) + " " + p.title(x.Titles.Forms, ev.Trigger) + say(t(", ", "، ")) + p.actor(x, ev.Actor)
	case casework.KindMessage:
		if ev.Trigger == casework.Amendment {
			return p.s.sprintf(t("%s told its facts anew", "أعادت %s ذكر معلوماتها"), x.Peer)
		}
		return p.s.sprintf(t("heard from %s: ", "وصل من %s: "), x.Peer) + p.title(x.Titles.Messages, ev.Trigger)
	case casework.KindReturned:
		return p.s.sprintf(t("%s did not take the message: ", "لم تقبل %s الرسالة: "), x.Peer) + p.title(x.Titles.Messages, ev.Trigger)
	case casework.KindCall:
		if ev.Status == 0 {
			return p.s.sprintf(t("a register did not answer (%s)", "لم يُجب أحد السجلات (%s)"), ev.Trigger)
		}
		return p.s.sprintf(t("a register answered: %d (%s)", "أجاب أحد السجلات: %d (%s)"), ev.Status, ev.Trigger)
	case casework.KindDeadline:
		return p.s.sprintf(t("the time of %s was over", "حلّ الموعد %s"), ev.Trigger)
	case casework.KindAmend:
		return say(t("facts told anew: the halves differed", "أُعيد ذكر المعلومات لاختلاف الشقين"))
	}
	return ev.Kind + " " + ev.Trigger
}

// actor is who acted. The person is the subsystem's assertion.
func (p *page) actor(x story, a *casework.Actor) string {
	if a == nil {
		return ""
	}
	by := a.Subsystem.String()
	if a.User != "" {
		by = p.s.sprintf(t("%s, as %s says", "%s بحسب %s"), a.User, by)
	}
	return p.s.say(x.Titles.Roles[a.Role]) + ": " + by
}

// left says how long something still runs, or since when it is over.
func (s *session) left(d time.Duration) string {
	if d < 0 {
		return s.say(t("over for ", "مضى على حلوله ")) + s.span(-d)
	}
	return s.say(t("still ", "بقي ")) + s.span(d)
}

// span is a length of time in its two largest units.
func (s *session) span(d time.Duration) string {
	days, hours, minutes := int(d/(24*time.Hour)), int(d/time.Hour)%24, int(d/time.Minute)%60
	day := func() string {
		return s.count(days, "day", "days", "يوم واحد", "يومان", "أيام", "يوماً", "يوم")
	}
	hour := func() string {
		return s.count(hours, "hour", "hours", "ساعة واحدة", "ساعتان", "ساعات", "ساعة", "ساعة")
	}
	minute := func() string {
		return s.count(minutes, "minute", "minutes", "دقيقة واحدة", "دقيقتان", "دقائق", "دقيقة", "دقيقة")
	}
	and := s.say(t(" ", " و"))
	switch {
	case days > 0 && hours > 0:
		return day() + and + hour()
	case days > 0:
		return day()
	case hours > 0 && minutes > 0:
		return hour() + and + minute()
	case hours > 0:
		return hour()
	case minutes > 0:
		return minute()
	}
	return s.say(t("less than a minute", "أقل من دقيقة"))
}

// count counts as both languages do: Arabic has forms for one, two, three to
// ten, eleven to ninety-nine, and hundreds.
func (s *session) count(n int, one, more, ar1, ar2, ar3, ar11, ar100 string) string {
	if !s.ar {
		if n == 1 {
			return "1 " + one
		}
		return strconv.Itoa(n) + " " + more
	}
	switch r := n % 100; {
	case n == 1:
		return ar1
	case n == 2:
		return ar2
	case r >= 3 && r <= 10:
		return strconv.Itoa(n) + " " + ar3
	case r >= 11:
		return strconv.Itoa(n) + " " + ar11
	}
	return strconv.Itoa(n) + " " + ar100
}

func (s *session) sprintf(format union.Text, args ...any) string {
	return fmt.Sprintf(s.say(format), args...)
}

// plain takes out what would steer a terminal: some of it another state wrote.
// What isolates a value in a sentence of the other direction stays.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) && (r < 0x2066 || r > 0x2069) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
