package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
)

// meters counts what the node does. The labels are those of X-Road's
// operational monitoring where they fit, and each has few values: the two
// sides, the states of the union, the codes of the catalogue.
type meters struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	turned   *prometheus.CounterVec
}

func newMeters() *meters {
	m := &meters{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "falaj_requests_total", Help: "Calls, by security_server_type (Client: of this state's systems; Producer: of other states'), the other state, whether a service answered, and the fault's code.",
		}, []string{"security_server_type", "peer", "succeeded", "fault"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "falaj_request_duration_seconds", Help: "From requestInTs to responseOutTs, by stage: all, or beyond (waiting for the other node or the service).",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"security_server_type", "stage"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "falaj_message_bytes_total", Help: "Bytes of bodies: requestSize and responseSize.",
		}, []string{"security_server_type", "message"}),
		turned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "falaj_shed_total", Help: "Calls turned away at the gate, by the fault's code.",
		}, []string{"fault"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.bytes, m.turned,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// gauges are asked when the meters are read.
func (m *meters) gauges(n *Node) {
	gauge := func(name, help string, read func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	gauge("falaj_requests_in_flight", "Calls of this state's systems inside.", func() float64 { return float64(n.gate.InFlight()) })
	gauge("falaj_link_connections", "Live connections with other nodes.", func() float64 { return float64(len(n.link.Peers())) })
	gauge("falaj_stamp_waiting_seconds", "Age of the oldest record without a time-stamp of another's authority; 0: there is none.", func() float64 { return n.stamps.Age().Seconds() })
	gauge("falaj_stamp_ends_seconds", "Until the first certificate ends on which time-stamps rest that are not renewed; 0: there are none.", func() float64 {
		if at := n.stamps.Ends(); !at.IsZero() {
			return at.Sub(n.now()).Seconds()
		}
		return 0
	})
	gauge("falaj_directory_version", "Version of the directory in force here.", func() float64 { return float64(n.directory.View().Version()) })
	gauge("falaj_directory_expires_seconds", "Until the directory can no longer be gone by.", func() float64 { return n.directory.View().Expires().Sub(n.now()).Seconds() })
}

func (m *meters) shed(code fault.Code) { m.turned.WithLabelValues(string(code)).Inc() }

func (m *meters) observe(o exchange.Observation) {
	side, peer := "Client", o.Service.State
	if o.ProviderSide {
		side, peer = "Producer", o.Client.State
	}
	if o.Fault == fault.UnknownState || o.Fault == fault.UnknownClient {
		peer = "" // anything can stand there
	}
	succeeded, code := "true", o.Fault
	if code != "" {
		succeeded = "false"
		if known := fault.Lookup(code).Code; known != code {
			code = "other" // another node's: anything can stand there, too
		}
	}
	m.requests.WithLabelValues(side, string(peer), succeeded, string(code)).Inc()
	span := func(stage string, from, to time.Time) {
		if !from.IsZero() && !to.IsZero() {
			m.seconds.WithLabelValues(side, stage).Observe(to.Sub(from).Seconds())
		}
	}
	span("all", o.RequestIn, o.ResponseOut)
	span("beyond", o.RequestOut, o.ResponseIn)
	m.bytes.WithLabelValues(side, "request").Add(float64(max(0, o.RequestSize)))
	m.bytes.WithLabelValues(side, "response").Add(float64(max(0, o.ResponseSize)))
}
