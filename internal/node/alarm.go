package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

const (
	// alarmed is how long an alarm stays a finding of the doctor.
	alarmed = 7 * 24 * time.Hour
	// unseen is how long a log may not show itself before that is a finding.
	unseen = time.Minute
)

// openPromises opens what holds the others' logs to their promises.
func (n *Node) openPromises(deps witness.LogDeps) {
	n.promises = witness.NewPromises(witness.PromiseConfig{}, witness.PromiseDeps{
		DB: n.db, State: n.cfg.State, Union: n.parties, Signer: deps.Signer, Ask: deps.Ask, Now: n.now, Log: n.log, Alone: n.db.Dialect() == store.SQLite,
		Head: func(ctx context.Context) (int64, error) {
			size, _, err := n.journal.Head(ctx)
			return size, err
		},
		Received: func(ctx context.Context, from int64, count int) ([]witness.Held, int64, error) {
			return n.exchange.Received(ctx, from, count)
		},
		Raised: n.recordAlarm,
	})
}

// recordAlarm writes an alarm among the day's changes: what the others are to
// answer for is also in this node's own log.
func (n *Node) recordAlarm(ctx context.Context, a witness.Alarm) {
	entry, err := json.Marshal(struct {
		Event string        `json:"event"`
		Alarm witness.Alarm `json:"alarm"`
	}{admin.EventAlarm, a})
	if err == nil {
		err = n.record(ctx, entry)
	}
	if err != nil {
		n.log.Error("recording an alarm", "error", err)
	}
}

func (n *Node) hearAlarm(ctx context.Context, peer link.Peer, body []byte) ([]byte, error) {
	return nil, n.promises.Hear(ctx, peer.State, body)
}

// Alarms are what states hold against each other's logs, and whose logs this
// node cannot see.
type Alarms struct {
	Alarms []witness.Raised `json:"alarms"`
	Silent []Silent         `json:"silent"`
	// Unraised says by state which alarms are due and cannot be raised, and why.
	Unraised map[union.State]string `json:"unraised,omitempty"`
	Settled  int64                  `json:"settled"` // leaf below which nothing waits
}

// Silent is a log that does not show itself while messages wait for their
// records in it. That is no alarm: its state may be cut off.
type Silent struct {
	State    union.State `json:"state"`
	Messages int         `json:"messages"`
	Since    time.Time   `json:"since"`
	Why      string      `json:"why"`
}

func (n *Node) listAlarms(ctx context.Context, _ admin.Person, _ url.Values) (any, error) {
	list, err := n.promises.Alarms(ctx, time.Time{})
	return Alarms{list, n.silent(0), n.unraised(), n.promises.Settled()}, err
}

// unraised says about whom alarms are due that cannot be raised.
func (n *Node) unraised() map[union.State]string {
	out := map[union.State]string{}
	for _, w := range n.promises.Waiting() {
		if w.Unraised != nil {
			out[w.State] = fault.From(w.Unraised).Error()
		}
	}
	return out
}

// silent lists whose logs have not shown themselves for so long.
func (n *Node) silent(long time.Duration) []Silent {
	out := []Silent{}
	for _, w := range n.promises.Waiting() {
		if w.Silent != nil && n.now().Sub(w.Since) >= long {
			out = append(out, Silent{w.State, w.Messages, w.Since.UTC(), fault.From(w.Silent).Error()})
		}
	}
	slices.SortFunc(out, func(a, b Silent) int { return strings.Compare(string(a.State), string(b.State)) })
	return out
}

func alarmChecks(n *Node) []operation.Check {
	return []operation.Check{
		{Name: "alarms", Hint: true, Text: union.Text{En: "No state's log has broken its word of late.", Ar: "لم يخلف سجل شفافية أي دولة وعده مؤخراً."},
			What: union.Text{En: "There are alarms about states' logs.", Ar: "توجد إنذارات بشأن سجلات شفافية لدول."},
			Do:   union.Text{En: "See falaj log alarms, and ask the operators of that state for the records; the evidence of the calls is here.", Ar: "راجع falaj log alarms، وطالب مشغّلي تلك الدولة بالقيود؛ وأدلة الطلبات محفوظة هنا."},
			Run: func(ctx context.Context) error {
				list, err := n.promises.Alarms(ctx, n.now().Add(-alarmed))
				if err != nil {
					return err
				}
				var lines []string
				for of, why := range n.unraised() {
					lines = append(lines, fmt.Sprintf("%s → %s: %s", n.cfg.State, of, why))
				}
				if len(list) == 0 && lines == nil {
					return nil
				}
				for _, a := range list[:min(3, len(list))] {
					lines = append(lines, fmt.Sprintf("%s: %s → %s: %s", a.At.UTC().Format(time.RFC3339), a.From, a.Of, a.Kind))
				}
				return fault.New(fault.LogAlarm, "%s", strings.Join(lines, "\n"))
			}},
		{Name: "promises", Hint: true, Text: union.Text{En: "The logs in which records are promised show themselves.", Ar: "سجلات الشفافية المتعهَّد بإدراج القيود فيها متاحة للاطلاع."},
			What: union.Text{En: "Whether promised records are in a state's log cannot be seen.", Ar: "تعذّر التحقق من إدراج قيود متعهَّد بها في سجل شفافية إحدى الدول."},
			Do:   union.Text{En: "See whether its node runs and can be reached; what waits is checked then.", Ar: "تحقق من أن عقدتها تعمل ويمكن الوصول إليها، وعندئذ يُتحقق مما ينتظر."},
			Run: func(context.Context) error {
				var lines []string
				for _, s := range n.silent(unseen) {
					lines = append(lines, fmt.Sprintf("%s: %d, %s: %s", s.State, s.Messages, s.Since.Format(time.RFC3339), s.Why))
				}
				if lines == nil {
					return nil
				}
				return fault.New(fault.PeerUnreachable, "%s", strings.Join(lines, "\n"))
			}},
	}
}

// alarmGauges are asked when the meters are read.
func (m *meters) alarmGauges(n *Node) {
	gauge := func(name, help string, read func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	gauge("falaj_alarms", "Alarms about states' logs in the last seven days, raised here or heard.", func() float64 {
		ctx, cancel := context.WithTimeout(n.life, time.Second)
		defer cancel()
		count, err := n.promises.Count(ctx, n.now().Add(-alarmed))
		if err != nil {
			return -1 // unknown, and not none
		}
		return float64(count)
	})
	gauge("falaj_promises_waiting", "Messages whose records have not been seen in their senders' logs yet.", func() float64 {
		sum := 0
		for _, w := range n.promises.Waiting() {
			sum += w.Messages
		}
		return float64(sum)
	})
}
