package exchange

import (
	"bufio"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
)

// xroadError is the error body as X-Road's clients know it, with what we add.
type xroadError struct {
	Type, Message, Detail, Code string
	MessageAr                   string `json:"message_ar"`
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (a answer) fault(t testing.TB) xroadError {
	t.Helper()
	var e xroadError
	if err := json.Unmarshal(a.body, &e); err != nil {
		t.Fatalf("%d, no error JSON: %s", a.status, a.body)
	}
	if a.header.Get("X-Road-Error") != e.Type || !uuidForm.MatchString(e.Detail) || e.Message == "" ||
		!strings.ContainsAny(e.MessageAr, "ابتثجحخدذرزسشصضطظعغفقكلمنهوي") {
		t.Errorf("error %+v beside X-Road-Error %q", e, a.header.Get("X-Road-Error"))
	}
	return e
}

func TestFaultsOfTheCallersNode(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { t.Error("the backend was reached") })
	things := offered("BH", "things").String()
	cases := map[string]struct {
		path, code, kind string
		headers          []string
	}{
		"no client":              {things, "request.client.missing", "Client.", []string{"X-Road-Client: "}},
		"client of two parts":    {things, "request.identifier", "Client.", []string{"X-Road-Client: SA/GOV"}},
		"client of five parts":   {things, "request.identifier", "Client.", []string{"X-Road-Client: SA/GOV/office/desk/x"}},
		"client not encoded":     {things, "request.identifier", "Client.", []string{"X-Road-Client: SA/GOV/of fice/desk"}},
		"client not registered":  {things, "request.client.unknown", "Client.", []string{"X-Road-Client: SA/GOV/office/other"}},
		"client of member alone": {things, "request.client.unknown", "Client.", []string{"X-Road-Client: SA/GOV/office"}},
		"four parts":             {"BH/GOV/office/desk", "request.identifier", "Client.", nil},
		"unknown state":          {"US/GOV/office/desk/things", "directory.state.unknown", "Server.ClientProxy.", nil},
		"unknown service":        {"BH/GOV/office/desk/nothing", "directory.service.unknown", "Server.ClientProxy.", nil},
		"no purpose":             {things, "request.purpose.missing", "Client.", []string{"Falaj-Purpose: "}},
		"unknown purpose":        {things, "request.purpose.unknown", "Client.", []string{"Falaj-Purpose: fun"}},
		"id too long":            {things, "request.header", "Client.", []string{"X-Road-Id: " + strings.Repeat("x", 256)}},
		"id of two words":        {things, "request.header", "Client.", []string{"X-Road-Id: a b"}},
		"a way out of the path":  {things + "/%2e%2e/admin", "request.path", "Client.", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest("GET", u.nodes["SA"].edge.URL+"/r1/"+c.path, nil)
			check(t, err)
			req.URL.Opaque = "/r1/" + c.path
			req.Header.Set("X-Road-Client", desk("SA").String())
			req.Header.Set("Falaj-Purpose", "test")
			for _, h := range c.headers {
				n, v, _ := strings.Cut(h, ": ")
				if req.Header.Set(n, v); v == "" {
					req.Header.Del(n)
				}
			}
			a := do(t, req)
			e := a.fault(t)
			if e.Code != c.code || !strings.HasPrefix(e.Type, c.kind) {
				t.Errorf("%d %+v, wanted %s", a.status, e, c.code)
			}
			if strings.HasPrefix(e.Type, "Client.") && a.status != 400 {
				t.Errorf("%s with status %d", e.Type, a.status)
			}
		})
	}
}

func TestAServicesOwnErrorsAreItsOwn(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Road-Error", "Server.Forged")
		w.Header().Set("X-Road-Id", "forged")
		w.Header().Set("X-Road-Request-Hash", "forged")
		w.Header().Set("Server", "secret/1.0")
		http.Error(w, "mine", http.StatusTeapot)
	})
	a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: mine-1")
	if a.status != http.StatusTeapot || string(a.body) != "mine\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a.header.Get("X-Road-Error") != "" || a.header.Get("Server") != "" || a.header.Get("X-Road-Id") != "mine-1" ||
		a.header.Get("X-Road-Request-Hash") == "forged" {
		t.Errorf("%v", a.header)
	}
}

func TestRefusalByTheProvider(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "closed", func(w http.ResponseWriter, r *http.Request) { t.Error("the backend was reached") })
	a := u.call("SA", "GET", offered("BH", "closed"), "/", nil, "X-Road-Id: refused-1")
	e := a.fault(t)
	if e.Code != "policy.denied" || e.Type != "Server.ServerProxy.AccessDenied" || a.status != 500 {
		t.Errorf("%d %+v", a.status, e)
	}
	ev, err := u.nodes["SA"].Evidence(t.Context(), "refused-1", Reader{Name: "auditor", May: func(_, _ union.SubsystemID) bool { return true }}, Page{})
	check(t, err)
	checks, err := u.nodes["SA"].VerifyEvidence(t.Context(), ev)
	check(t, err)
	if len(ev.Halves) != 2 || len(ev.Halves[0].Records) != 2 || len(ev.Halves[1].Records) != 2 {
		t.Errorf("a refusal is not in evidence at both nodes: %+v", ev)
	}
	for _, c := range checks {
		if !c.OK {
			t.Errorf("%s: %s", c.What, c.Detail)
		}
	}
}

// TestRequestHash computes X-Road-Request-Hash as X-Road's specification says,
// with nothing of ours.
func TestRequestHash(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	for _, body := range []string{"", "a body"} {
		a := u.call("SA", "POST", offered("BH", "things"), "/p?q=1", strings.NewReader(body),
			"X-Road-Id: h-"+body[:min(len(body), 1)], "Content-Type: text/plain", "Accept: */*", "X-Road-UserId: SA1", "User-Agent: t", "Accept-Encoding: br")
		if a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		head := sha512.Sum512([]byte("POST\r\n/r1/BH/GOV/office/desk/things/p?q=1\r\n" +
			"accept:*/*\r\naccept-encoding:br\r\ncontent-type:text/plain\r\nx-road-client:SA/GOV/office/desk\r\nx-road-id:" +
			a.header.Get("X-Road-Id") + "\r\nx-road-userid:SA1\r\nx-road-request-id:" + a.header.Get("X-Road-Request-Id") + "\r\n"))
		want := head[:]
		if body != "" {
			sum := sha512.Sum512([]byte(body))
			both := sha512.Sum512(append(head[:], sum[:]...))
			want = both[:]
		}
		if got := a.header.Get("X-Road-Request-Hash"); got != base64.StdEncoding.EncodeToString(want) {
			t.Errorf("body %q: hash %s", body, got)
		}
	}
}

// raw sends bytes that no HTTP client would.
func (u *testUnion) raw(t testing.TB, from union.State, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(u.nodes[from].edge.URL, "http://"))
	check(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, request)
	check(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	check(t, err)
	return res
}

func TestRepeatedHeaders(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("X-Road-Client")) })
	const start = "GET /r1/BH/GOV/office/desk/things HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
	const client, purpose = "X-Road-Client: SA/GOV/office/desk\r\n", "Falaj-Purpose: test\r\n"
	for name, c := range map[string]struct {
		lines  string
		status int
	}{
		"the last client counts":         {"X-Road-Client: SA/GOV/evil/desk\r\n" + client + purpose, 200},
		"the last client, unknown":       {client + "X-Road-Client: SA/GOV/evil/desk\r\n" + purpose, 400},
		"two purposes":                   {client + purpose + purpose, 400},
		"two subjects":                   {client + purpose + "Falaj-Subject: 1\r\nFalaj-Subject: 2\r\n", 400},
		"two of an unknown Falaj header": {client + purpose + "Falaj-New: 1\r\nFalaj-New: 2\r\n", 400},
		"two ids":                        {client + purpose + "X-Road-Id: 1\r\nX-Road-Id: 2\r\n", 400},
		"two hosts":                      {client + purpose + "Host: g\r\n", 400},
		"two lengths":                    {client + purpose + "Content-Length: 1\r\nContent-Length: 2\r\n", 400},
		"length and chunks":              {client + purpose + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", 200},
		"folded header is unfolded":      {client + "Falaj-Purpose:\r\n test\r\n", 200}, // RFC 9112 §5.2
		"space before colon":             {client + "Falaj-Purpose : test\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			res := u.raw(t, "SA", start+c.lines+"\r\n")
			if res.StatusCode != c.status {
				b, _ := io.ReadAll(res.Body)
				t.Errorf("status %d: %s", res.StatusCode, b)
			}
		})
	}
}

func TestMetaservices(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	type service struct {
		Instance  string `json:"xroad_instance"`
		Class     string `json:"member_class"`
		Member    string `json:"member_code"`
		Subsystem string `json:"subsystem_code"`
		Code      string `json:"service_code"`
		Object    string `json:"object_type"`
		Type      string `json:"service_type"`
		Endpoints []struct{ Method, Path string }
	}
	list := func(code string, headers ...string) map[string]service {
		a := u.call("SA", "GET", offered("BH", code), "", nil, headers...)
		var out struct{ Service []service }
		if err := json.Unmarshal(a.body, &out); err != nil || a.status != 200 || a.header.Get("X-Road-Service") == "" {
			t.Fatalf("%s: %d %s", code, a.status, a.body)
		}
		m := map[string]service{}
		for _, s := range out.Service {
			m[s.Code] = s
		}
		return m
	}
	all := list(listMethods, "Falaj-Purpose: ")
	if s := all["things"]; len(all) != len(testServices) || s.Instance != "BH" || s.Class != "GOV" || s.Member != "office" || s.Subsystem != "desk" || s.Object != "SERVICE" || s.Type != "OPENAPI" {
		t.Errorf("listMethods: %+v", all)
	}
	if allowed := list(allowedMethods); len(allowed) != len(testServices)-1 || allowed["closed"].Code != "" || allowed["idem"].Type != "REST" {
		t.Errorf("allowedMethods: %+v", allowed)
	}
	if a := u.call("SA", "GET", offered("BH", getOpenAPI), "?serviceCode=things", nil); a.status != 200 || !strings.Contains(string(a.body), `"openapi"`) || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("getOpenAPI: %d %s", a.status, a.body)
	}
	if a := u.call("SA", "GET", offered("BH", getOpenAPI), "?serviceCode=idem", nil); a.fault(t).Code != "not-found" {
		t.Errorf("getOpenAPI of a service without one: %s", a.body)
	}
	if a := u.call("SA", "POST", offered("BH", listMethods), "", strings.NewReader("x")); a.fault(t).Code != "request.method" {
		t.Errorf("POST listMethods: %s", a.body)
	}

	get := func(query, accept string) answer {
		req, _ := http.NewRequest("GET", u.nodes["SA"].edge.URL+"/listClients"+query, nil)
		req.Header.Set("Accept", accept)
		return do(t, req)
	}
	var doc struct {
		XMLName xml.Name `xml:"http://x-road.eu/xsd/xroad.xsd clientList"`
		Member  []struct {
			ID struct {
				Type      string `xml:"objectType,attr"`
				Instance  string `xml:"xRoadInstance"`
				Subsystem string `xml:"subsystemCode"`
			} `xml:"id"`
		} `xml:"member"`
	}
	if err := xml.Unmarshal(get("", "*/*").body, &doc); err != nil || len(doc.Member) != 2 || doc.Member[1].ID.Type != "SUBSYSTEM" || doc.Member[1].ID.Instance != "SA" {
		t.Errorf("listClients in XML: %+v %v", doc, err)
	}
	var js struct {
		Member []struct {
			ID   map[string]string
			Name string
		}
	}
	if err := json.Unmarshal(get("?xRoadInstance=BH", "application/json").body, &js); err != nil || len(js.Member) != 2 || js.Member[1].ID["subsystem_code"] != "desk" || js.Member[0].ID["xroad_instance"] != "BH" {
		t.Errorf("listClients in JSON: %+v %v", js, err)
	}
	if a := get("?xRoadInstance=US", "*/*"); a.fault(t).Code != "directory.state.unknown" {
		t.Errorf("another union's state: %s", a.body)
	}
}
