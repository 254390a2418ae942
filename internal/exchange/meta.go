package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// X-Road's metaservices (Service Metadata Protocol for REST). They are asked
// like any service and sealed like any answer.
const (
	listMethods    = "listMethods"
	allowedMethods = "allowedMethods"
	getOpenAPI     = "getOpenAPI"
)

// purposeMeta stands in the head of a metaservice's request from a client that
// names no purpose: what is asked is in the directory and concerns no person.
const purposeMeta = "metadata"

// reserved tells whether a service code is X-Road's own.
func reserved(code string) bool {
	switch code {
	case listMethods, allowedMethods, getOpenAPI, "listClients", "getWsdl",
		"getSecurityServerMetrics", "getSecurityServerOperationalData", "getSecurityServerHealthData":
		return true
	}
	return false
}

// meta answers a metaservice from the directory.
func (x *Exchange) meta(_ context.Context, c *serving) *result {
	r := c.request
	if r.Method != http.MethodGet {
		return &result{fault: fault.New(fault.MethodNotAllowed, "metaservices are read with GET")}
	}
	switch r.Service.Service {
	case listMethods, allowedMethods:
		return x.methods(c, r.Service.Service == allowedMethods)
	case getOpenAPI:
		_, query, _ := strings.Cut(r.Path, "?")
		q, err := url.ParseQuery(query)
		if err != nil || len(q["serviceCode"]) != 1 {
			return &result{fault: fault.New(fault.BadRequest, "ask with ?serviceCode= and the code of one service")}
		}
		id := union.ServiceID{SubsystemID: r.Service.SubsystemID, Service: q.Get("serviceCode")}
		doc, ok := c.view.OpenAPI(id)
		if !ok {
			return &result{fault: fault.New(fault.NotFound, "the directory has no OpenAPI description of this service")}
		}
		kind := "application/json"
		if b := bytes.TrimSpace(doc); len(b) == 0 || b[0] != '{' {
			kind = "text/yaml; charset=utf-8"
		}
		return plain(kind, doc)
	}
	return &result{fault: fault.New(fault.UnknownService, "this node does not offer the metaservice %s", r.Service.Service)}
}

// method is a service as listMethods shows it.
type method struct {
	Class     string            `json:"member_class"`
	Member    string            `json:"member_code"`
	Object    string            `json:"object_type"`
	Code      string            `json:"service_code"`
	Type      string            `json:"service_type"`
	Subsystem string            `json:"subsystem_code"`
	Instance  union.State       `json:"xroad_instance"`
	Endpoints []policy.Endpoint `json:"endpoint_list"`
}

func (x *Exchange) methods(c *serving, allowedOnly bool) *result {
	sub, ok := c.view.Subsystem(c.request.Service.SubsystemID)
	if !ok {
		return &result{fault: fault.New(fault.UnknownService, "the directory names no such subsystem")}
	}
	out := struct {
		Service []method `json:"service"`
	}{Service: []method{}}
	grants := map[union.ServiceID][]policy.Agreement{}
	for _, a := range c.view.Agreements() {
		if a.Client == c.request.Client {
			grants[a.Service] = append(grants[a.Service], a)
		}
	}
	now := x.deps.Now()
	for _, s := range sub.Services {
		m := method{
			Class: s.ID.Class, Member: s.ID.Code, Object: "SERVICE", Code: s.ID.Service, Type: "REST",
			Subsystem: s.ID.Subsystem, Instance: s.ID.State, Endpoints: append([]policy.Endpoint{}, s.Endpoints...),
		}
		if s.OpenAPI != "" {
			m.Type = "OPENAPI"
		}
		if allowedOnly {
			m.Endpoints = []policy.Endpoint{}
			granted := false
			for _, a := range grants[s.ID] {
				if now.Before(a.From) || !a.Until.IsZero() && !now.Before(a.Until) {
					continue
				}
				granted = true
				if len(a.Endpoints) == 0 {
					m.Endpoints = append([]policy.Endpoint{}, s.Endpoints...)
					break
				}
				m.Endpoints = append(m.Endpoints, a.Endpoints...)
			}
			if !granted {
				continue
			}
		}
		out.Service = append(out.Service, m)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return &result{fault: fault.Wrap(fault.Internal, err, "")}
	}
	return plain("application/json", b)
}

func plain(kind string, b []byte) *result {
	return &result{
		status: http.StatusOK, headers: []message.Header{{Name: "content-type", Value: kind}},
		body: &body{size: int64(len(b)), inline: b, sha256: sha256.Sum256(b)},
	}
}

// clientName is a client as listClients shows it, in X-Road's two forms.
type clientName struct {
	XMLName xml.Name `json:"-" xml:"member"`
	ID      struct {
		Type      string `json:"object_type" xml:"objectType,attr"`
		Instance  string `json:"xroad_instance" xml:"xRoadInstance"`
		Class     string `json:"member_class" xml:"memberClass"`
		Member    string `json:"member_code" xml:"memberCode"`
		Subsystem string `json:"subsystem_code,omitempty" xml:"subsystemCode,omitempty"`
	} `json:"id" xml:"id"`
	Name      string `json:"name" xml:"name"`
	Subsystem string `json:"subsystem_name,omitempty" xml:"subsystemName,omitempty"`
}

// listClients answers GET /listClients[?xRoadInstance=X]: all members and
// subsystems of a state, of one's own where none is named. XML, or JSON where
// Accept asks for it.
func (x *Exchange) listClients(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		x.writeFault(w, fault.New(fault.MethodNotAllowed, "listClients is read with GET"))
		return
	}
	v, err := x.deps.Directory()
	if err != nil {
		x.writeFault(w, err)
		return
	}
	state := x.cfg.State
	if q := r.URL.Query(); q.Has("xRoadInstance") {
		if state, err = union.ParseState(q.Get("xRoadInstance")); err != nil {
			x.writeFault(w, fault.Wrap(fault.BadIdentifier, err, "%v", err))
			return
		}
	}
	st, ok := v.State(state)
	if !ok {
		x.writeFault(w, fault.New(fault.UnknownState, "%s", state))
		return
	}
	list := struct {
		XMLName xml.Name     `json:"-" xml:"http://x-road.eu/xsd/xroad.xsd clientList"`
		Member  []clientName `json:"member" xml:"member"`
	}{Member: []clientName{}}
	for _, m := range st.Members {
		var c clientName
		c.ID.Type, c.ID.Instance, c.ID.Class, c.ID.Member = "MEMBER", string(state), m.ID.Class, m.ID.Code
		c.Name = m.Name.En
		list.Member = append(list.Member, c)
		for _, s := range m.Subsystems {
			d := c
			d.ID.Type, d.ID.Subsystem, d.Subsystem = "SUBSYSTEM", s.ID.Subsystem, s.Name.En
			list.Member = append(list.Member, d)
		}
	}
	kind, b := "text/xml; charset=utf-8", []byte(nil)
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		kind = "application/json"
		b, err = json.Marshal(list)
	} else if b, err = xml.Marshal(list); err == nil {
		b = append([]byte(xml.Header), b...)
	}
	if err != nil {
		x.writeFault(w, fault.Wrap(fault.Internal, err, ""))
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(b)
}
