package up

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/verify"
)

// stamped waits until a node's receipt of a call has its second stage.
func stamped(t *testing.T, at *admin.Client, id string) exchange.CallReceipt {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		var r exchange.CallReceipt
		err := at.Query(t.Context(), "receipt", url.Values{"id": {id}}, &r)
		if refusal, ok := err.(*admin.Refusal); err != nil && (!ok || refusal.Code != fault.ReceiptPending) {
			t.Fatal(err)
		}
		if r.Stage == "stamped" {
			return r
		}
		if r.Stage != "" && (!strings.Contains(r.Time.En, "cosignatures alone") || r.Time.Ar == "") {
			t.Errorf("without a time-stamp: %+v", r.Time)
		}
		if time.Now().After(end) {
			t.Fatalf("no time-stamp: %+v", r)
		}
	}
}

// run runs a line of a README, or another command, in a folder.
func run(t *testing.T, dir, line string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", line)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTimeStamps: a call's records are stamped by another state; the receipt
// says so, the container shows it to openssl and to who has the root alone.
func TestTimeStamps(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA", "AE")
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons", "X-Road-Id: proof"); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	r := stamped(t, p.admin("SA"), "proof")
	if !strings.Contains(r.Time.En, "time-stamp authority") || len(r.Records) != 2 {
		t.Errorf("%+v", r)
	}
	for _, x := range r.Records {
		proof, err := stamp.ParseRecord(x.Stamp.Record)
		must(t, err)
		must(t, proof.Verify(x.Hash))
		c, err := p.union.nodes[0].Directory().View().Stamped(proof[0].Token, x.Stamp.State)
		must(t, err)
		if x.Stamp.State == "SA" || c.State != x.Stamp.State || x.Stamp.AccuracyMS != 1000 || !proof[0].Token.At.Equal(x.Stamp.At) || time.Since(x.Stamp.At).Abs() > time.Minute {
			t.Errorf("%+v", x.Stamp)
		}
	}

	resp, body := ask(t, http.DefaultTransport, p.at("SA").R1+"/evidence/proof/container", "X-Road-Client: "+p.at("SA").Client)
	if resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	dir := t.TempDir()
	z, err := zip.NewReader(strings.NewReader(body), int64(len(body)))
	must(t, err)
	must(t, os.CopyFS(dir, z))
	text, err := os.ReadFile(filepath.Join(dir, "README.txt"))
	must(t, err)
	lines := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if line, ok := strings.CutPrefix(line, "    "); ok {
			lines[strings.Fields(line)[0]+" "+strings.Fields(line)[1]] = true
			if said, err := run(t, dir, line); err != nil {
				t.Errorf("%s%s", line, said)
			}
			if strings.HasPrefix(line, "openssl ts") { // each changed thing is found
				for _, kind := range []string{"root", "tst"} {
					files, err := filepath.Glob(filepath.Join(dir, "META-INF/falaj/stamp/*."+kind))
					must(t, err)
					for _, file := range files {
						b, err := os.ReadFile(file)
						must(t, err)
						spoilt := bytes.Clone(b)
						spoilt[len(b)-1] ^= 1
						must(t, os.WriteFile(file, spoilt, 0o600))
						if said, err := run(t, dir, line); err == nil && strings.Contains(line, filepath.Base(file)) {
							t.Errorf("%s changed: %s", file, said)
						}
						must(t, os.WriteFile(file, b, 0o600))
					}
				}
			}
		}
	}
	if !lines["openssl ts"] || !lines["od -An"] {
		t.Errorf("the lines of the time-stamp are missing: %v", lines)
	}
	root, err := os.ReadFile(filepath.Join(p.union.folder("SA"), "root.json"))
	must(t, err)
	v, err := verify.New(root)
	must(t, err)
	report := v.Container(strings.NewReader(body), int64(len(body)))
	want := 3
	for _, x := range r.Records {
		if x.Kind == "answer received" && x.Stamp.State == "BH" {
			want -= 2 // BH's word about its own seal is none
		}
	}
	passed := 0
	for _, c := range report.Checks {
		if c.Result == verify.Passed && (strings.Contains(c.What, "stamped the time") || strings.Contains(c.What, "as old as")) {
			passed++
		}
	}
	if report.Verdict != verify.Holds || passed != want {
		t.Errorf("%d passed: %+v", passed, report)
	}

	var h node.Health
	must(t, p.admin("SA").Query(t.Context(), "health", nil, &h))
	for _, c := range h.Checks {
		if (c.Name == "stamps" || c.Name == "clock") && !c.OK {
			t.Errorf("%+v", c)
		}
	}
	if _, text := ask(t, http.DefaultTransport, p.at("SA").Operations+"/metrics"); !strings.Contains(text, "\nfalaj_stamp_waiting_seconds ") {
		t.Error("no meter")
	}
}

// TestPublicAuthority: anybody may have something stamped at the public door,
// with openssl and an HTTP client; the certificate is the directory's.
func TestPublicAuthority(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	s, _ := p.union.nodes[0].Directory().View().State("BH")
	part, err := p.union.nodes[0].Directory().View().Part("BH")
	must(t, err)
	if len(s.Stamps) != 1 || s.Stamps[0].Address != p.at("BH").Public+"/tsa" {
		t.Fatalf("%+v", s.Stamps)
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "data"), []byte("what is stamped"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: part.Authorities[0].Certificate.Raw}), 0o600))
	for _, line := range []string{
		"openssl ts -query -data data -sha256 -cert -out q",
		"curl -sf -H 'Content-Type: application/timestamp-query' --data-binary @q -o r -D h " + s.Stamps[0].Address,
		"grep -i 'content-type: application/timestamp-reply' h",
		"openssl ts -verify -queryfile q -in r -CAfile ca.pem",
	} {
		if said, err := run(t, dir, line); err != nil {
			t.Fatalf("%s: %s", line, said)
		}
	}
	post := func(kind, body string) (int, string) {
		resp, err := http.Post(s.Stamps[0].Address, kind, strings.NewReader(body))
		must(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(b)
	}
	if status, _ := post("text/plain", "x"); status != 400 {
		t.Errorf("another content: %d", status)
	}
	if status, _ := post(stamp.QueryMIME, strings.Repeat("x", stamp.MaxRequest+1)); status != 400 && status != 413 {
		t.Errorf("too much: %d", status)
	}
	if status, body := post(stamp.QueryMIME, "x"); status != 200 {
		t.Errorf("nonsense: %d", status)
	} else if _, err := stamp.ParseResponse([]byte(body)); err == nil || !strings.Contains(err.Error(), "badDataFormat") {
		t.Errorf("nonsense: %v", err)
	}
	shed := false
	request := string(stamp.Request{}.Bytes())
	for range 1000 {
		if status, _ := post(stamp.QueryMIME, request); status == 503 {
			shed = true
			break
		}
	}
	if !shed {
		t.Error("everybody gets as many as he likes")
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestOlderUnion: a union that was founded before there were time-stamp
// authorities has them after its next start.
func TestOlderUnion(t *testing.T) {
	dir := t.TempDir()
	p := play(t, dir, Deps{}, "BH", "SA")
	must(t, p.stop())
	all := []*party{{dir: filepath.Join(dir, "secretariat")}, {state: "BH", dir: filepath.Join(dir, "BH")}, {state: "SA", dir: filepath.Join(dir, "SA")}}
	for _, x := range all {
		must(t, x.open())
	}
	must(t, openBooks(t.Context(), all, time.Now))
	for _, x := range all[1:] {
		must(t, x.book.Publish(t.Context(), func(e *directory.Edition) error { e.Stamps = nil; return nil }))
		must(t, os.Remove(filepath.Join(x.dir, "keys", "tsa.pem")))
	}
	p = play(t, dir, Deps{}, "BH", "SA")
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons", "X-Road-Id: later"); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	r := stamped(t, p.admin("SA"), "later")
	if x := r.Records[0].Stamp; x.State != "BH" || !strings.Contains(r.Time.En, "two states") {
		t.Errorf("%+v %+v", x, r.Time)
	}
	s, _ := p.union.nodes[0].Directory().View().State("BH")
	if len(s.Stamps) != 1 || s.Stamps[0].Address != p.at("BH").Public+"/tsa" {
		t.Errorf("%+v", s.Stamps)
	}

	// A node by itself makes up for it too.
	must(t, os.Remove(filepath.Join(dir, "BH", "keys", "tsa.pem")))
	must(t, p.union.nodes[0].Directory().Publish(t.Context(), func(e *directory.Edition) error { e.Stamps = nil; return nil }))
	p.change("BH", "key.renew", struct{}{})
	if s, _ = p.union.nodes[0].Directory().View().State("BH"); len(s.Stamps) != 1 {
		t.Errorf("%+v", s.Stamps)
	}
	if _, err := os.Stat(filepath.Join(dir, "BH", "keys", "tsa.pem")); err != nil {
		t.Error(err)
	}
}

// TestAuthorityOutside: a node whose peers are all away has its log stamped by
// the authority that its configuration names: here openssl's.
func TestAuthorityOutside(t *testing.T) {
	dir, tsa := t.TempDir(), t.TempDir()
	p := play(t, dir, Deps{}, "BH", "SA")
	must(t, p.stop())
	must(t, os.WriteFile(filepath.Join(tsa, "cnf"), []byte("[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=outside\n[ca]\nbasicConstraints=critical,CA:TRUE\n[end]\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=critical,timeStamping\n"+
		"[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_cert=tsa.pem\nsigner_key=tsa.key\nsigner_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256\ness_cert_id_alg=sha256\n"), 0o600))
	for _, line := range []string{
		"openssl req -config cnf -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=root -extensions ca -days 2",
		"openssl req -config cnf -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr",
		"openssl x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem -extfile cnf -extensions end -days 2",
	} {
		if said, err := run(t, tsa, line); err != nil {
			t.Fatalf("%s: %s", line, said)
		}
	}
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Content-Type") != "application/timestamp-query" {
			w.WriteHeader(400)
			return
		}
		c := exec.CommandContext(r.Context(), "sh", "-c", "cat > q && openssl ts -reply -config cnf -queryfile q -out r >&2 && cat r")
		c.Dir, c.Stdin = tsa, bytes.NewReader(b)
		out, err := c.Output()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		_, _ = w.Write(out)
	}))
	defer door.Close()
	file := filepath.Join(dir, "BH", "node.yaml")
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(text, "stamp: {authorities: [{address: \""+door.URL+"\", anchor: \""+filepath.Join(tsa, "ca.pem")+"\"}]}\n"...), 0o600))
	cfg, err := config.Load(config.Source{File: file})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	n, err := node.New(ctx, cfg, node.Deps{})
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	defer func() { cancel(); must(t, <-done) }()
	// A call that its own node refuses is recorded too, and takes no peer.
	resp, body := ask(t, http.DefaultTransport, n.Addresses().R1+"/r1/SA/GOV/interior/civil/registry/persons", "X-Road-Client: "+portal("BH").String(), "X-Road-Id: alone", "Falaj-Purpose: nothing")
	if resp.StatusCode == 200 {
		t.Fatal(body)
	}
	at := admin.Dial(n.Addresses().Admin, nil)
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		var h node.Health
		must(t, at.Query(t.Context(), "health", nil, &h))
		_, metrics := ask(t, http.DefaultTransport, n.Addresses().Operations+"/metrics")
		if strings.Contains(metrics, "\nfalaj_stamp_waiting_seconds 0\n") && stampedOutside(t, filepath.Join(dir, "BH", "node.db"), door.URL) {
			return
		}
		if time.Now().After(end) {
			b, _ := json.Marshal(h)
			t.Fatalf("%s %s", b, metrics)
		}
	}
}

// stampedOutside tells whether a node keeps a time-stamp of that authority.
func stampedOutside(t *testing.T, dsn, name string) bool {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{DSN: dsn})
	must(t, err)
	defer func() { _ = db.Close() }()
	var n int
	must(t, db.QueryRow(t.Context(), "SELECT COUNT(*) FROM witness_stamp WHERE name = ? AND authority = ''", name).Scan(&n))
	return n > 0
}
