package admin

import (
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/union"
)

// Event is an entry of the audit catalogue: something that a person answers
// for, or that somebody should look at.
type Event struct {
	Name   string     `json:"name"` // dotted, past tense
	Text   union.Text `json:"text"`
	Action string     `json:"action,omitempty"` // the action that it is the event of
	Where  string     `json:"where"`            // journal: a record; log: a line; metrics: a count
}

// The events that no action makes. They go to the log and are counted; they
// are about callers whom nobody knows, and so never take space in the journal.
const (
	EventStarted        = "node.started"
	EventDrained        = "node.drained"
	EventUnknownPerson  = "person.unknown"
	EventShed           = "call.shed"
	EventConfigApplied  = "config.applied"
	EventDirectoryStale = "directory.stale"
	EventRetained       = "retention.ended"
	EventAlarm          = "log.alarmed"
)

func t(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

// Catalogue lists every audit event.
func (s *Server) Catalogue() []Event {
	out := []Event{
		{Name: EventStarted, Text: t("The node started.", "بدأت العقدة العمل."), Where: "log"},
		{Name: EventDrained, Text: t("The node stopped after its last calls.", "توقفت العقدة بعد إنهاء آخر طلباتها."), Where: "log"},
		{Name: EventUnknownPerson, Text: t("Somebody unknown came to the admin door.", "حضر إلى باب الإدارة شخص غير معروف."), Where: "log"},
		{Name: EventShed, Text: t("A call was turned away: too many at once.", "رُدّ طلب بسبب كثرة الطلبات في آن واحد."), Where: "metrics"},
		{Name: EventConfigApplied, Text: t("The configuration file's systems were registered.", "سُجّلت الأنظمة الواردة في ملف الإعدادات."), Where: "journal"},
		{Name: EventRetained, Text: t("Records reached the end of their retention: their key was destroyed.", "انتهت مدة حفظ قيود فأُتلف مفتاحها."), Where: "journal"},
		{Name: EventAlarm, Text: t("A state's log broke its word, as this node or another one says.", "أخلف سجل شفافية إحدى الدول وعده بحسب هذه العقدة أو عقدة أخرى."), Where: "journal"},
		{Name: EventDirectoryStale, Text: t("The directory could not be refreshed.", "تعذّر تحديث الدليل."), Where: "log"},
	}
	for _, a := range s.actions {
		out = append(out, Event{a.Event, a.Text, a.Name, "journal"})
	}
	slices.SortFunc(out, func(a, b Event) int { return strings.Compare(a.Name, b.Name) })
	return out
}
