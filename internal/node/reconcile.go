package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/union"
)

// CasePeer names the state with which cases are to be compared.
type CasePeer struct {
	Peer union.State `json:"peer,omitempty"` // "": all
}

// CasesCompared is what a comparison of cases with another state's halves
// found, or why it did not come to its end.
type CasesCompared struct {
	Peer        union.State           `json:"peer"`
	Differences []casework.Difference `json:"differences"`
	Code        fault.Code            `json:"code,omitempty"`
	Why         *union.Text           `json:"why,omitempty"`
}

// reconcileCases compares now. What is on its way looks like a difference too.
func (n *Node) reconcileCases(ctx context.Context, _ admin.Person, p CasePeer) (admin.Done, error) {
	var peers []union.State
	if p.Peer != "" {
		if s, err := union.ParseState(string(p.Peer)); err != nil || s == n.cfg.State {
			return admin.Done{}, fault.New(fault.UnknownState, "%.16q", string(p.Peer))
		}
		peers = append(peers, p.Peer)
	}
	found := n.cases.CompareAll(ctx, peers)
	out := []CasesCompared{}
	for _, peer := range slices.Sorted(maps.Keys(found)) {
		c := found[peer]
		x := CasesCompared{Peer: peer, Differences: c.Differences}
		if c.Err != nil {
			f := fault.From(c.Err)
			text := f.Message()
			x.Code, x.Why = f.Code, &text
		}
		out = append(out, x)
	}
	return admin.Done{Result: out, After: out}, ctx.Err()
}

func caseChecks(n *Node) []operation.Check {
	return []operation.Check{{
		Name: "cases", Hint: true, Text: t("The halves of cases agree with the other states'.", "شقوق المعاملات مطابقة لشقوق الدول الأخرى."),
		What: t("Halves of cases differ from another state's, and did so at a second look.", "شقوق معاملات تختلف عن شقوق دولة أخرى، وظلت مختلفة عند المقارنة الثانية."),
		Do:   t("falaj case reconcile compares them again and lists all; compare the history of each with the other state's operator (falaj case show).", "يعيد الأمر falaj case reconcile مقارنتها ويعرضها كلها، فقارن سجل كل منها مع مشغّل الدولة الأخرى (falaj case show)."),
		Run: func(context.Context) error {
			var lines []string
			for _, c := range n.cases.Differing() {
				line := fmt.Sprintf("%s: %d", c.Peer, len(c.Differences))
				for _, d := range c.Differences[:min(3, len(c.Differences))] {
					line += " " + d.Case
				}
				lines = append(lines, line)
			}
			if lines == nil {
				return nil
			}
			return fault.New(fault.CaseDiffers, "%s", strings.Join(lines, "\n"))
		},
	}}
}

// caseMeters are asked when the meters are read.
type caseMeters struct {
	n                                        *Node
	open, events, waiting, overdue, differed *prometheus.Desc
}

func (m *meters) caseGauges(n *Node) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m.registry.MustRegister(&caseMeters{
		n:        n,
		open:     desc("falaj_cases_open", "Cases that have not ended in this half, by service.", "service"),
		events:   desc("falaj_case_events_total", "Events of cases that this process took."),
		waiting:  desc("falaj_case_messages_waiting", "Messages of cases that are not handed to the exchange yet."),
		overdue:  desc("falaj_case_overdue_seconds", "How long ago the oldest deadline should have acted; 0: none is late."),
		differed: desc("falaj_case_differences", "Cases whose halves the latest comparisons found to differ, twice."),
	})
}

// Describe tells what there is.
func (c *caseMeters) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.open, c.events, c.waiting, c.overdue, c.differed} {
		out <- d
	}
}

// Collect counts. What cannot be counted now is left out.
func (c *caseMeters) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(c.n.life, time.Second)
	defer cancel()
	m, err := c.n.cases.Meters(ctx)
	if err != nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for service, n := range m.Open {
		gauge(c.open, float64(n), service)
	}
	out <- prometheus.MustNewConstMetric(c.events, prometheus.CounterValue, float64(m.Events))
	gauge(c.waiting, float64(m.Waiting))
	gauge(c.overdue, m.Overdue.Seconds())
	gauge(c.differed, float64(m.Differed))
}
