package cli

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/union"
)

type callCmd struct {
	Service string        `arg:"" name:"service"`
	Path    string        `arg:"" optional:"" name:"path"`
	Method  string        `short:"X" placeholder:"METHOD"`
	Data    string        `short:"d" placeholder:"TEXT|@FILE"`
	Header  []string      `short:"H" sep:"none" placeholder:"NAME: VALUE"`
	Purpose string        `placeholder:"CODE"`
	Client  string        `placeholder:"CLIENT"`
	ID      string        `name:"id" placeholder:"ID"`
	Include bool          `short:"i"`
	Timeout time.Duration `default:"5m"`
}

func (c *callCmd) Run(s *session) error {
	service, err := union.ParseService(c.Service)
	if err != nil {
		return fault.New(fault.BadIdentifier, "%v", err)
	}
	base, client, err := s.door(c.Client, service.State, service)
	if err != nil {
		return err
	}
	body, method, err := c.body(s)
	if err != nil {
		return err
	}
	if c.ID == "" { // of the caller's choosing, so that a call without an answer can be repeated
		c.ID = uuid.NewString()
	}
	path := escape(c.Path)
	if path != "" && path[0] != '/' && path[0] != '?' {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(s.ctx, method, base+"/r1/"+service.String()+path, body)
	if err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	req.Header.Set("X-Road-Client", client)
	for name, value := range map[string]string{"Falaj-Purpose": c.Purpose, "X-Road-Id": c.ID} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fault.New(fault.Usage, "-H: wanted \"Name: value\"")
		}
		req.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	caller, err := s.caller(c.Timeout)
	if err != nil {
		return err
	}
	resp, err := caller.Do(req)
	if err == nil {
		defer resp.Body.Close()
		if err = c.answer(s, resp); !timedOut(err) {
			return err
		}
	}
	if timedOut(err) {
		return fault.Wrap(fault.OutOfTime, err, "X-Road-Id: %s", c.ID)
	}
	return fault.Wrap(fault.NoNode, err, "%v", err)
}

// caller speaks HTTP to a door as a system would.
func (s *session) caller(timeout time.Duration) (*http.Client, error) {
	conf, err := s.tls()
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, DisableCompression: true, DisableKeepAlives: true},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// timedOut tells whether --timeout ran out, at whatever point of the call.
func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// answer prints what came. A node's refusal, unlike a service's own error, is
// said in the person's language.
func (c *callCmd) answer(s *session, resp *http.Response) error {
	if resp.Header.Get("X-Road-Error") != "" {
		var f struct {
			Message   string     `json:"message"`
			MessageAr string     `json:"message_ar"`
			Detail    string     `json:"detail"`
			Code      fault.Code `json:"code"`
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		if json.Unmarshal(b, &f) == nil && f.Code != "" {
			r := &admin.Refusal{Code: f.Code, ID: f.Detail}
			r.Title, r.Do, r.Detail, r.DetailAr = parts(f.Code, f.Message, f.MessageAr)
			if id := resp.Header.Get("X-Road-Id"); id != "" {
				id = "X-Road-Id: " + id
				r.Detail = strings.TrimSpace(r.Detail + "\n" + id)
				if r.DetailAr != "" {
					r.DetailAr += "\n" + id
				}
			}
			return r
		}
	}
	if s.JSON {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		out := struct {
			Status int         `json:"status"`
			ID     string      `json:"id"`
			Header http.Header `json:"header"`
			Body   any         `json:"body"` // text, or base64 where it is none
		}{resp.StatusCode, resp.Header.Get("X-Road-Id"), resp.Header, b}
		if utf8.Valid(b) {
			out.Body = string(b)
		}
		s.print(s.Out, out)
	} else {
		if c.Include {
			s.printf("HTTP/1.1 %s\n", resp.Status)
			resp.Header.Write(s.Out)
			s.printf("\n")
		}
		if _, err := io.Copy(s.Out, resp.Body); err != nil {
			return err
		}
		io.WriteString(s.Err, "\n"+resp.Status+"  X-Road-Id: "+resp.Header.Get("X-Road-Id")+"\n")
	}
	if resp.StatusCode >= 400 {
		return errExit(ExitFailed)
	}
	return nil
}

// parts takes an X-Road message apart again into what happened, what to do and
// the detail; a message of another catalogue than this program's stays whole.
func parts(code fault.Code, en, ar string) (what, do union.Text, detail, detailAr string) {
	e := fault.Lookup(code)
	restEn, okEn := strings.CutPrefix(en, e.What.En+" "+e.Do.En)
	restAr, okAr := strings.CutPrefix(ar, e.What.Ar+" "+e.Do.Ar)
	if e.Code != code || !okEn || !okAr {
		return union.Text{En: en, Ar: ar}, union.Text{}, "", ""
	}
	inner := func(s string) string {
		return strings.TrimSuffix(strings.TrimPrefix(s, " ("), ")")
	}
	detail, detailAr = inner(restEn), inner(restAr)
	if strings.HasPrefix(detailAr, "\u2066") {
		detailAr = "" // it has no Arabic
	}
	return e.What, e.Do, detail, detailAr
}

func (c *callCmd) body(s *session) (io.Reader, string, error) {
	method := c.Method
	if c.Data == "" {
		if method == "" {
			method = http.MethodGet
		}
		return nil, method, nil
	}
	if method == "" {
		method = http.MethodPost
	}
	file, isFile := strings.CutPrefix(c.Data, "@")
	switch {
	case !isFile:
		return strings.NewReader(c.Data), method, nil
	case file == "-":
		return s.In, method, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, "", fault.New(fault.File, "-d: %v", err)
	}
	return f, method, nil // closed by the request
}

// door finds the door at which a client goes in, and as whom. Where nobody says
// which state it is of, it is another one than that; of several clients it is
// the one that an agreement lets call the service, if one is meant.
func (s *session) door(who string, that union.State, meant ...union.ServiceID) (base, client string, err error) {
	var about union.State
	if who != "" {
		id, err := union.ParseClient(who)
		if err != nil {
			return "", "", fault.New(fault.BadIdentifier, "--client: %v", err)
		}
		about = id.State
	}
	all, err := s.nodes(about)
	if err != nil {
		return "", "", err
	}
	n := all[0]
	if about == "" && s.State == "" { // from another state than the service's, if there is one
		for _, x := range all {
			if x.place.State != that {
				n = x
				break
			}
		}
	}
	if n.place.State == "" {
		var a node.About
		if err := n.Query(s.ctx, "node", nil, &a); err != nil {
			return "", "", err
		}
		n.place = up.Place{State: a.State, Addresses: a.Addresses}
	}
	base = n.place.R1
	if base == "" || s.Cert != "" && n.place.R1TLS != "" {
		base = n.place.R1TLS
	}
	if base == "" {
		return "", "", fault.New(fault.NoNode, "the node of %s has no door for systems (r1)", n.place.State)
	}
	if who != "" {
		return base, who, nil
	}
	var list, able []exchange.Client
	if err := n.Query(s.ctx, "clients", nil, &list); err != nil {
		return "", "", err
	}
	if len(list) > 1 && len(meant) > 0 {
		if err := n.Query(s.ctx, "clients", url.Values{"service": {meant[0].String()}}, &able); err != nil {
			return "", "", err
		}
		if len(able) == 1 {
			list = able
		}
	}
	if len(list) != 1 {
		var ids []string
		for _, x := range list {
			ids = append(ids, x.ID.String())
		}
		return "", "", fault.New(fault.Usage, "--client: which of this node's clients calls?\n%s", strings.Join(ids, "\n")).
			Arabic("--client: أي عملاء هذه العقدة يطلب؟\n%s", strings.Join(ids, "\n"))
	}
	return base, list[0].ID.String(), nil
}

// escape percent-encodes what a person may type into a path, and leaves what
// is encoded already.
func escape(path string) string {
	var b strings.Builder
	for _, r := range path {
		if r <= ' ' || r > '~' || r == '"' || r == '<' || r == '>' || r == '\\' || r == '^' || r == '`' || r == '{' || r == '|' || r == '}' || r == '#' {
			b.WriteString(url.PathEscape(string(r)))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
