package acceptance_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOneProcess holds `falaj up` to the suite.
func TestOneProcess(t *testing.T) {
	t.Parallel()
	u := startUp(t, filepath.Join(t.TempDir(), "union"), base(t), "--log-level=debug")
	suite(t, u)
	t.Run("no personal data in the log", func(t *testing.T) {
		nobodyIn(t, u, read(t, u.all.log))
	})
	u.all.stop(t, syscall.SIGTERM)
}

// suite is what every union of the seven states does, in whatever processes
// it runs.
func suite(t *testing.T, u *union) {
	for _, x := range []struct {
		name string
		test func(*testing.T, *union)
	}{
		{"every state asks every other", everyPair},
		{"probes and meters", probes},
		{"links", links},
		{"an X-Road client", xroadClient},
		{"metaservices", metaservices},
		{"refusals", refusals},
		{"an answer fetched later", async},
		{"commands", commands},
		{"real input", realInput},
		{"real uploads", uploads},
		{"nothing readable at rest", atRest},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, u) })
	}
}

func everyPair(t *testing.T, u *union) {
	calls := 0
	for _, kind := range []string{"vehicles", "persons", "companies"} {
		for i, to := range u.states() {
			path, entry := u.sample(t, to, kind)
			service, purpose := register(to, kind)
			for k, from := range u.states() {
				// One register by all pairs, the others by a ring.
				if from == to || kind != "vehicles" && k != (i+1)%len(u.Nodes) {
					continue
				}
				a := curl(t, u.as(t, from, purpose, service+path)...).want(t, 200)
				if a.sum() != entry.sum() || a.header.Get("X-Road-Service") != service || a.header.Get("X-Road-Client") != u.node(t, from).Client {
					t.Errorf("%s asked %s for %s: %v %s", from, to, kind, a.header, a.body)
				}
				calls++
			}
		}
	}
	if n := len(u.Nodes); calls != n*(n-1)+2*n {
		t.Errorf("%d calls", calls)
	}
}

func probes(t *testing.T, u *union) {
	for _, n := range u.Nodes {
		if a := curl(t, n.Operations+"/healthz").want(t, 200); string(a.body) != "ok\n" {
			t.Errorf("%s: %q", n.State, a.body)
		}
		var ready struct {
			Ready, Draining bool
			Checks          []struct{ Name string }
		}
		into(t, string(curl(t, n.Operations+"/readyz").want(t, 200).body), &ready)
		if !ready.Ready || ready.Draining || len(ready.Checks) == 0 {
			t.Errorf("%s: %+v", n.State, ready)
		}
		meters := string(curl(t, n.Operations+"/metrics").want(t, 200).body)
		for _, line := range []string{`falaj_requests_total{`, `security_server_type="Client"`, `falaj_directory_version `, "process_resident_memory_bytes "} {
			if !strings.Contains(meters, line) {
				t.Errorf("%s meters no %s", n.State, line)
			}
		}
		nobodyIn(t, u, meters)
	}
}

// marks are the number and the names of a person of each of two registers that
// the suite has read.
func marks(t *testing.T, u *union) []string {
	t.Helper()
	var out []string
	for _, state := range []string{"BH", "SA"} {
		_, entry := u.sample(t, state, "persons")
		var person struct {
			ID   string
			Name struct{ En, Ar string }
		}
		into(t, string(entry.body), &person)
		if person.ID == "" || person.Name.En == "" || !arabic(person.Name.Ar) {
			t.Fatalf("%s", entry.body)
		}
		out = append(out, person.ID, person.Name.En, person.Name.Ar)
	}
	return out
}

// nobodyIn looks for persons of the registers in what a node says of itself.
func nobodyIn(t *testing.T, u *union, text string) {
	t.Helper()
	if text == "" {
		t.Error("it says nothing at all")
	}
	for _, mark := range marks(t, u) {
		if at := strings.Index(text, mark); at >= 0 {
			t.Errorf("a person, %q, stands there: %.300q", mark, text[max(0, at-150):])
		}
	}
}

// atRest looks for what passed through the nodes in all that they have on
// disk: journal, its write-ahead log, spool, keys, directory.
func atRest(t *testing.T, u *union) {
	marks := append(marks(t, u), "هذا نص عربي", "pay once")
	var files, size int
	public := false // that the search finds what is there
	check(t, filepath.WalkDir(u.Data, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "ready.json" { // its examples name an entry each
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files, size = files+1, size+len(b)
		public = public || bytes.Contains(b, []byte("السعودية"))
		for _, mark := range marks {
			if bytes.Contains(b, []byte(mark)) {
				t.Errorf("%s holds %q for anybody to read", path, mark)
			}
		}
		return err
	}))
	t.Logf("%d files, %d bytes", files, size)
	if size < 1<<20 || !public {
		t.Error("that cannot be all")
	}
}

// links asks openssl, as a stranger with a clock and a certificate of his own,
// what a node's door for other nodes is.
func links(t *testing.T, u *union) {
	at := u.node(t, "BH").Link
	dir := t.TempDir()
	r := do(t, nil, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-subj", "/CN=stranger", "-days", "2", "-keyout", filepath.Join(dir, "key.pem"), "-out", filepath.Join(dir, "cert.pem"))
	if r.code != 0 {
		t.Fatal(r.err)
	}
	stranger := []string{"-cert", filepath.Join(dir, "cert.pem"), "-key", filepath.Join(dir, "key.pem")}
	group, hybrid := "X25519", do(t, nil, "openssl", "list", "-kem-algorithms")
	if strings.Contains(hybrid.out, "X25519MLKEM768") {
		group = "X25519MLKEM768"
	}
	t.Logf("%s: key exchange by %s", strings.TrimSpace(do(t, nil, "openssl", "version").out), group)
	for _, x := range []struct {
		name string
		args []string
		want []string
	}{
		{"TLS 1.3", []string{"-tls1_3", "-alpn", "falaj/1"}, []string{"TLSv1.3", "ALPN protocol: falaj/1", group}},
		{"TLS 1.2", []string{"-tls1_2", "-alpn", "falaj/1"}, []string{"alert protocol version"}},
		{"another protocol", []string{"-alpn", "h2"}, []string{"alert no application protocol"}},
		{"no certificate", []string{"-alpn", "falaj/1"}, []string{"alert certificate required"}},
		{"a stranger's certificate", append(stranger, "-alpn", "falaj/1"), []string{"alert bad certificate"}},
	} {
		r := do(t, nil, "sh", append([]string{"-c", `openssl s_client -ign_eof -connect "$@" </dev/null 2>&1`, "sh", at}, x.args...)...)
		for _, want := range x.want {
			if !strings.Contains(r.out, want) {
				t.Errorf("%s: not in what openssl says: %q\n%s", x.name, want, r.out)
			}
		}
	}
	// No HTTP there, and no answer to noise.
	if a, err := tryCurl(t.Context(), "http://"+at+"/"); err == nil {
		t.Errorf("the link speaks HTTP: %d %s", a.status, a.body)
	}
}

// xroadClient makes the calls of X-Road's tutorials: nothing of falaj's own
// stands in them.
func xroadClient(t *testing.T, u *union) {
	service, _ := register("BH", "vehicles")
	path, entry := u.sample(t, "BH", "vehicles")
	sa := u.node(t, "SA")
	script := fmt.Sprintf(`curl -sS -i --raw -X GET \
  "%s/r1/%s%s" \
  -H "accept: application/json" \
  -H "X-Road-Client: %s" \
  -H "X-Road-Id: sa-%s-1" \
  -H "X-Road-UserId: SA1087654326" \
  -H "X-Road-Issue: 12/2026"`, sa.R1, strings.ReplaceAll(service, "interior", "interi%6Fr"), path, strings.ReplaceAll(sa.Client, "egov", "%65gov"), t.Name()[:7])
	r := do(t, nil, "sh", "-c", script)
	head, body, _ := strings.Cut(r.out, "\r\n\r\n")
	if r.code != 0 || !strings.HasPrefix(head, "HTTP/1.1 200") || body != string(entry.body) {
		t.Fatalf("%s\n%d %s%s", script, r.code, r.out, r.err)
	}
	for _, line := range []string{
		"X-Road-Client: " + sa.Client, "X-Road-Service: " + service, "X-Road-Id: sa-" + t.Name()[:7] + "-1", "X-Road-Request-Id: ", "X-Road-Request-Hash: ",
	} {
		if !strings.Contains(head+"\r\n", "\r\n"+line) {
			t.Errorf("no %s in\n%s", line, head)
		}
	}
	// The same id again is the same call; with another content it is none.
	again := do(t, nil, "sh", "-c", script)
	if _, body, _ := strings.Cut(again.out, "\r\n\r\n"); body != string(entry.body) {
		t.Errorf("repeated: %s", again.out)
	}
	other := do(t, nil, "sh", "-c", strings.Replace(script, "application/json", "text/plain", 1))
	if !strings.Contains(other.out, "request.id.conflict") || !strings.Contains(other.out, "X-Road-Error: Client.IdConflict") {
		t.Errorf("another call under the same id: %s", other.out)
	}
}

func metaservices(t *testing.T, u *union) {
	sa := u.node(t, "SA")
	as := func(path string, args ...string) answer {
		t.Helper()
		return curl(t, append([]string{"-H", "X-Road-Client: " + sa.Client, sa.R1 + path}, args...)...).want(t, 200)
	}
	var list struct {
		Member []struct {
			ID struct {
				Instance  string `json:"xroad_instance"`
				Subsystem string `json:"subsystem_code"`
			}
			Name string
		}
	}
	into(t, string(as("/listClients?xRoadInstance=BH", "-H", "Accept: application/json").body), &list)
	found := false
	for _, m := range list.Member {
		found = found || m.ID.Subsystem == "traffic" && m.ID.Instance == "BH" && m.Name != ""
	}
	if !found {
		t.Errorf("%+v", list)
	}
	var clients struct {
		XMLName xml.Name `xml:"http://x-road.eu/xsd/xroad.xsd clientList"`
		Member  []struct {
			Instance string `xml:"id>xRoadInstance"`
		} `xml:"member"`
	}
	if err := xml.Unmarshal(as("/listClients").body, &clients); err != nil || len(clients.Member) == 0 || clients.Member[0].Instance != "SA" {
		t.Errorf("%v %+v", err, clients)
	}
	for _, meta := range []string{"listMethods", "allowedMethods"} {
		var methods struct {
			Service []struct {
				Code string `json:"service_code"`
				Type string `json:"service_type"`
			}
		}
		into(t, string(as("/r1/BH/GOV/interior/traffic/"+meta).body), &methods)
		if len(methods.Service) != 1 || methods.Service[0].Code != "registry" || methods.Service[0].Type != "OPENAPI" {
			t.Errorf("%s: %+v", meta, methods)
		}
	}
	at := u.node(t, "BH").Registers["vehicles"]
	published, own := as("/r1/BH/GOV/interior/traffic/getOpenAPI?serviceCode=registry"), curl(t, at+"/openapi.json").want(t, 200)
	if published.sum() != own.sum() || !json.Valid(own.body) {
		t.Errorf("the description: %.200s\nand the service's own: %.200s", published.body, own.body)
	}
}

// refusals come in X-Road's form, with a stable code and in both languages.
func refusals(t *testing.T, u *union) {
	service, purpose := register("BH", "vehicles")
	path, _ := u.sample(t, "BH", "vehicles")
	for _, x := range []struct {
		name, kind, code string
		status           int
		args             []string
	}{
		{"no such service", "Server.ClientProxy.UnknownService", "directory.service.unknown", 500, u.as(t, "SA", purpose, "BH/GOV/interior/traffic/nothing/x")},
		{"no such state", "Server.ClientProxy.UnknownMember", "directory.state.unknown", 500, u.as(t, "SA", purpose, strings.Replace(service, "BH", "US", 1)+path)},
		{"no purpose of the union", "Client.UnknownPurpose", "request.purpose.unknown", 400, u.as(t, "SA", "curiosity", service+path)},
		{"a purpose without an agreement", "Server.ServerProxy.AccessDenied", "policy.denied", 500, u.as(t, "SA", "business", service+path)},
		{"a way out of the path", "Client.InvalidPath", "request.path", 400, append(u.as(t, "SA", purpose, service+"/vehicles/../../admin"), "--path-as-is")},
		{"a client of another state", "Client.UnknownClient", "request.client.unknown", 400, []string{"-H", "X-Road-Client: BH/GOV/egov/portal", u.node(t, "SA").R1 + "/r1/" + service + path}},
		{"nobody", "Client.MissingHeader", "request.client.missing", 400, []string{u.node(t, "SA").R1 + "/r1/" + service + path}},
	} {
		a := curl(t, x.args...)
		var e struct {
			Type, Message, Detail, Code string
			Ar                          string `json:"message_ar"`
		}
		into(t, string(a.body), &e)
		if a.status != x.status || e.Type != x.kind || a.header.Get("X-Road-Error") != x.kind || e.Code != x.code || e.Message == "" || !arabic(e.Ar) {
			t.Errorf("%s: %d %+v", x.name, a.status, e)
		}
	}
	a := curl(t, u.node(t, "SA").R1+"/nothing").want(t, 404)
	if a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("elsewhere: %v %s", a.header, a.body)
	}
}

// arabic tells whether there is Arabic in a text.
func arabic(text string) bool {
	return strings.ContainsAny(text, "ابتثجحخدذرزسشصضطظعغفقكلمنهوي")
}

// async asks by curl and fetches the answer later (RFC 7240).
func async(t *testing.T, u *union) {
	service, purpose := register("OM", "companies")
	path, entry := u.sample(t, "OM", "companies")
	kw := u.node(t, "KW")
	a := curl(t, append(u.as(t, "KW", purpose, service+path), "-H", "Prefer: respond-async")...).want(t, 202)
	at := a.header.Get("Location")
	if a.header.Get("Preference-Applied") != "respond-async" || !strings.HasPrefix(at, "/async/") {
		t.Fatalf("%v", a.header)
	}
	var status struct{ Status, Answer string }
	eventually(t, "the answer", func() error {
		into(t, string(curl(t, "-H", "X-Road-Client: "+kw.Client, kw.R1+at).want(t, 200).body), &status)
		if status.Status != "answered" {
			return fmt.Errorf("%+v", status)
		}
		return nil
	})
	if got := curl(t, "-H", "X-Road-Client: "+kw.Client, kw.R1+status.Answer).want(t, 200); got.sum() != entry.sum() {
		t.Errorf("fetched: %s", got.body)
	}
	// It is nobody else's.
	if a := curl(t, "-H", "X-Road-Client: "+u.node(t, "SA").Client, u.node(t, "SA").R1+at); a.status != 404 {
		t.Errorf("SA sees KW's delivery: %d %s", a.status, a.body)
	}
}
