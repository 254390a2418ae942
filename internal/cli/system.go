package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// nameFlags name something in both languages.
type nameFlags struct {
	NameEn string `placeholder:"TEXT"`
	NameAr string `placeholder:"TEXT"`
}

func (f nameFlags) text() union.Text { return union.Text{En: f.NameEn, Ar: f.NameAr} }

type clientCmd struct {
	Add    clientAddCmd    `cmd:""`
	List   clientListCmd   `cmd:""`
	Remove clientRemoveCmd `cmd:""`
}

type clientAddCmd struct {
	Client string `arg:"" name:"client"`
	nameFlags
	Mode        string   `enum:"http,https,mutual," default:"" placeholder:"http|https|mutual"`
	Certificate []string `placeholder:"SHA256"`
	Push        string   `placeholder:"URL"`
}

func (c *clientAddCmd) Run(s *session) error {
	id, err := union.ParseClient(c.Client)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	n, err := s.node(id.State)
	if err != nil {
		return err
	}
	p := node.ClientAdd{ID: id, Mode: exchange.Mode(c.Mode), Certificates: c.Certificate, Push: c.Push, Name: c.text()}
	return s.changed(n, "client.add", p, nil, func() {
		s.printf("%s %s\n", s.say(t("Registered:", "سُجّل:")), id)
	})
}

type clientListCmd struct{}

func (c *clientListCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var list []exchange.Client
	if err := n.Query(s.ctx, "clients", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		var rows [][]string
		for _, x := range list {
			rows = append(rows, []string{x.ID.String(), string(x.Mode), x.Push})
		}
		s.table([]string{s.say(t("client", "العميل")), s.say(t("mode", "الاتصال")), s.say(t("push", "الدفع إلى"))}, rows)
	})
}

type clientRemoveCmd struct {
	Client string `arg:"" name:"client"`
}

func (c *clientRemoveCmd) Run(s *session) error {
	id, err := union.ParseClient(c.Client)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	n, err := s.node(id.State)
	if err != nil {
		return err
	}
	return s.changed(n, "client.remove", node.ID{ID: c.Client}, nil, func() { s.printf("%s %s\n", s.say(textRemoved), id) })
}

type serviceCmd struct {
	Add    serviceAddCmd    `cmd:""`
	List   serviceListCmd   `cmd:""`
	Move   serviceMoveCmd   `cmd:""`
	Remove serviceRemoveCmd `cmd:""`
	Adopt  serviceAdoptCmd  `cmd:""`

	Lint    serviceLintCmd    `cmd:""`
	Test    serviceTestCmd    `cmd:""`
	Diagram serviceDiagramCmd `cmd:""`
	Schema  serviceSchemaCmd  `cmd:""`
}

type serviceAddCmd struct {
	Service string `arg:"" name:"service"`
	Address string `arg:"" name:"address"`
	nameFlags
	OpenAPI    string `name:"openapi" placeholder:"FILE|URL"`
	Idempotent bool
	Async      bool
	Timeout    time.Duration `placeholder:"DURATION"`
	Retention  string        `placeholder:"CLASS"`
	DigestOnly bool
	DataClass  string `placeholder:"CLASS"`
	backendFlags
}

type backendFlags struct {
	KeyHeader string `placeholder:"HEADER"`
	BackendCA string `type:"path" placeholder:"FILE"`
}

func (f backendFlags) authorities() (string, error) {
	if f.BackendCA == "" {
		return "", nil
	}
	b, err := os.ReadFile(f.BackendCA)
	if err != nil {
		return "", fault.New(fault.File, "--backend-ca: %v", err)
	}
	return string(b), nil
}

func (c *serviceAddCmd) Run(s *session) error {
	id, err := union.ParseService(c.Service)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	p := node.ServiceAdd{
		ID: id, Address: c.Address, Name: c.text(), Idempotent: c.Idempotent, Async: c.Async, TimeoutMS: c.Timeout.Milliseconds(),
		Retention: c.Retention, DigestOnly: c.DigestOnly, DataClass: c.DataClass, KeyHeader: c.KeyHeader,
	}
	if p.Authorities, err = c.authorities(); err != nil {
		return err
	}
	if p.OpenAPI, err = description(s.ctx, c.OpenAPI); err != nil {
		return err
	}
	n, err := s.node(id.State)
	if err != nil {
		return err
	}
	var done node.Service
	return s.changed(n, "service.add", p, &done, func() {
		s.printf("%s %s → %s\n", s.say(t("Offered to the union:", "أُتيحت للاتحاد:")), id, c.Address)
		s.printf("%s\n  falaj access grant CLIENT %s --purpose …\n", s.say(t("Nobody may call it yet. Next:", "لا يحق لأحد طلبها بعد. التالي:")), id)
	})
}

// description reads an OpenAPI description, JSON or YAML, from a file or an
// address, and gives it as JSON.
func description(ctx context.Context, from string) (json.RawMessage, error) {
	if from == "" {
		return nil, nil
	}
	var b []byte
	var err error
	if strings.HasPrefix(from, "http://") || strings.HasPrefix(from, "https://") {
		b, err = download(ctx, from)
	} else {
		b, err = os.ReadFile(from)
	}
	if err != nil {
		return nil, fault.New(fault.Usage, "--openapi: %v", err)
	}
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] != '{' {
		if b, err = yaml.YAMLToJSON(b); err != nil {
			return nil, fault.New(fault.Usage, "--openapi: %s is neither JSON nor YAML", from)
		}
	}
	if !json.Valid(b) {
		return nil, fault.New(fault.Usage, "--openapi: %s is not JSON", from)
	}
	return b, nil
}

func download(ctx context.Context, from string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Usage, "%s answered %s", from, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 8<<20))
}

type serviceListCmd struct{}

func (c *serviceListCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var list []node.Service
	if err := n.Query(s.ctx, "services", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		var rows [][]string
		for _, x := range list {
			address := x.Address
			if address == "" {
				address = s.say(t("(no backend here)", "(لا خادم لها هنا)"))
			}
			if !x.Public {
				address += " " + s.say(t("(not in the directory)", "(غير واردة في الدليل)"))
			}
			rows = append(rows, []string{x.ID.String(), address, s.say(x.Name)})
		}
		s.table([]string{s.say(t("service", "الخدمة")), s.say(t("runs at", "تعمل على")), s.say(t("name", "الاسم"))}, rows)
	})
}

type serviceMoveCmd struct {
	Service string `arg:"" name:"service"`
	Address string `arg:"" name:"address"`
	backendFlags
}

func (c *serviceMoveCmd) Run(s *session) error {
	id, err := union.ParseService(c.Service)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	p := node.ServiceMove{ID: id, Address: c.Address, KeyHeader: c.KeyHeader}
	if p.Authorities, err = c.authorities(); err != nil {
		return err
	}
	n, err := s.node(id.State)
	if err != nil {
		return err
	}
	return s.changed(n, "service.move", p, nil, func() { s.printf("%s → %s\n", id, c.Address) })
}

type serviceRemoveCmd struct {
	Service string `arg:"" name:"service"`
}

func (c *serviceRemoveCmd) Run(s *session) error {
	id, err := union.ParseService(c.Service)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	n, err := s.node(id.State)
	if err != nil {
		return err
	}
	return s.changed(n, "service.remove", node.ID{ID: c.Service}, nil, func() { s.printf("%s %s\n", s.say(textRemoved), id) })
}

type accessCmd struct {
	Grant    accessGrantCmd    `cmd:""`
	Revoke   accessRevokeCmd   `cmd:""`
	List     accessListCmd     `cmd:""`
	Purposes accessPurposesCmd `cmd:""`
}

type accessGrantCmd struct {
	Client         string   `arg:"" name:"client"`
	Service        string   `arg:"" name:"service"`
	Purpose        []string `required:"" placeholder:"CODE"`
	DefaultPurpose string   `placeholder:"CODE"`
	Endpoint       []string `sep:"none" placeholder:"METHOD PATH"`
	Until          string   `placeholder:"YYYY-MM-DD"`
	BasisEn        string   `placeholder:"TEXT"`
	BasisAr        string   `placeholder:"TEXT"`
}

func (c *accessGrantCmd) Run(s *session) error {
	p := node.Grant{Purposes: c.Purpose, DefaultPurpose: c.DefaultPurpose, Basis: union.Text{En: c.BasisEn, Ar: c.BasisAr}}
	var err error
	if p.Client, err = union.ParseClient(c.Client); err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	if p.Service, err = union.ParseService(c.Service); err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	if c.Until != "" {
		if p.Until, err = time.Parse(time.DateOnly, c.Until); err != nil {
			return fault.New(fault.Usage, "--until: wanted yyyy-mm-dd")
		}
	}
	for _, e := range c.Endpoint {
		method, path, ok := strings.Cut(e, " ")
		if !ok {
			return fault.New(fault.Usage, "--endpoint: wanted a method and a path, such as \"GET /vehicles/*\"")
		}
		p.Endpoints = append(p.Endpoints, policy.Endpoint{Method: method, Path: path})
	}
	n, err := s.node(p.Service.State)
	if err != nil {
		return err
	}
	var done directory.Agreement
	return s.changed(n, "access.grant", p, &done, func() {
		s.printf("%s %s → %s (%s)\n", s.say(t("Granted:", "مُنح الإذن:")), p.Client, p.Service, strings.Join(done.Purposes, ", "))
		s.printf("%s\n  falaj call %s --client %s --purpose %s\n", s.say(t("Try:", "جرّب:")), p.Service, p.Client, p.Purposes[0])
	})
}

type accessRevokeCmd struct {
	Grant string `arg:"" name:"grant"`
}

func (c *accessRevokeCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	return s.changed(n, "access.revoke", node.ID{ID: c.Grant}, nil, func() { s.printf("%s %s\n", s.say(textRemoved), c.Grant) })
}

type accessListCmd struct {
	Service string `placeholder:"SERVICE"`
	Client  string `placeholder:"CLIENT"`
}

func (c *accessListCmd) Run(s *session) error {
	var about union.State
	if id, err := union.ParseService(c.Service); err == nil {
		about = id.State
	}
	n, err := s.node(about)
	if err != nil {
		return err
	}
	q := url.Values{}
	if c.Service != "" {
		q.Set("service", c.Service)
	}
	if c.Client != "" {
		q.Set("client", c.Client)
	}
	var list []directory.Agreement
	if err := n.Query(s.ctx, "access", q, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		var rows [][]string
		for _, a := range list {
			until := ""
			if !a.Until.IsZero() {
				until = a.Until.Format(time.DateOnly)
			}
			rows = append(rows, []string{a.ID, a.Client.String(), a.Service.String(), strings.Join(a.Purposes, ","), until})
		}
		s.table([]string{s.say(t("grant", "الإذن")), s.say(t("client", "العميل")), s.say(t("service", "الخدمة")), s.say(t("purposes", "الأغراض")), s.say(t("until", "حتى"))}, rows)
	})
}

type accessPurposesCmd struct{}

func (c *accessPurposesCmd) Run(s *session) error {
	all, err := s.nodes("")
	if err != nil {
		return err
	}
	var list []directory.Purpose
	if err := all[0].Query(s.ctx, "purposes", nil, &list); err != nil {
		return err
	}
	return s.show(list, func() {
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{p.Code, s.say(p.Name), s.say(p.Basis)})
		}
		s.table([]string{s.say(t("purpose", "الغرض")), s.say(t("name", "الاسم")), s.say(t("legal basis", "السند القانوني"))}, rows)
	})
}

type policyCmd struct {
	Explain policyExplainCmd `cmd:""`
	Set     policySetCmd     `cmd:""`
}

type policyExplainCmd struct {
	Client  string `arg:"" name:"client"`
	Service string `arg:"" name:"service"`
	Purpose string `placeholder:"CODE"`
	Method  string `short:"X" default:"GET"`
	Path    string `default:"/" placeholder:"PATH"`
	All     bool
}

func (c *policyExplainCmd) Run(s *session) error {
	id, err := union.ParseService(c.Service)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	n, err := s.node(id.State)
	if err != nil {
		return err
	}
	var e node.Explained
	q := url.Values{"client": {c.Client}, "service": {c.Service}, "purpose": {c.Purpose}, "method": {c.Method}, "path": {c.Path}}
	if err := n.Query(s.ctx, "policy", q, &e); err != nil {
		return err
	}
	if err := s.show(e, func() {
		s.side(t("The client's state", "دولة العميل"), e.Consumer, c.All)
		s.side(t("The serving state", "الدولة المقدِّمة"), e.Provider, c.All)
	}); err != nil {
		return err
	}
	if !e.Consumer.Allow || !e.Provider.Allow {
		return errExit(ExitRefused)
	}
	return nil
}

func (s *session) side(who union.Text, e policy.Explanation, all bool) {
	verdict := t("denies", "ترفض")
	if e.Allow {
		verdict = t("allows", "تسمح")
	}
	s.printf("%s %s\n", s.say(who), s.say(verdict))
	for _, r := range e.Rules {
		s.printf("  %s [%s %s %s]\n", s.say(union.Text{En: r.En, Ar: r.Ar}), r.Source, r.ID, r.Effect)
	}
	for _, x := range e.Errors {
		s.printf("  ! %s\n", x)
	}
	if !all {
		return
	}
	for _, x := range e.Considered {
		became := map[policy.Outcome]union.Text{
			policy.Matched: t("applies", "تنطبق"), policy.NotMatched: t("does not apply", "لا تنطبق"), policy.Failed: t("failed", "أخفقت"),
		}[x.Outcome]
		s.printf("  · %s %s: %s\n", x.Source, x.ID, s.say(became))
		for _, why := range x.Why {
			s.printf("      %s\n", s.say(why))
		}
	}
}

type policySetCmd struct {
	File string `arg:"" type:"path"`
}

func (c *policySetCmd) Run(s *session) error {
	b, err := os.ReadFile(c.File)
	if err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	n, err := s.node("")
	if err != nil {
		return err
	}
	return s.changed(n, "policy.set", node.Policy{Cedar: string(b)}, nil, func() {
		s.line(t("The state's rules are published.", "نُشرت قواعد الدولة."))
	})
}
