package up

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// played is a union that runs in a test.
type played struct {
	Ready
	t     *testing.T
	union *Union
	stop  func() error
}

// play runs a union of the states until the test ends or stops it.
func play(t *testing.T, dir string, deps Deps, states ...union.State) *played {
	t.Helper()
	base := 0
	u, err := Open(t.Context(), Config{Data: dir, States: states, Base: &base}, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan Ready, 1), make(chan error, 1)
	go func() { done <- u.Run(ctx, func(r Ready) error { ready <- r; return nil }) }()
	var ended atomic.Bool
	p := &played{t: t, union: u, stop: func() error {
		if ended.Swap(true) {
			return nil
		}
		cancel()
		return <-done
	}}
	t.Cleanup(func() { p.stop() })
	select {
	case p.Ready = <-ready:
	case err := <-done:
		ended.Store(true)
		t.Fatal(err)
	}
	return p
}

func (p *played) at(s union.State) Place {
	for _, n := range p.Nodes {
		if n.State == s {
			return n
		}
	}
	p.t.Fatalf("no node of %s", s)
	return Place{}
}

func (p *played) admin(s union.State) *admin.Client { return admin.Dial(p.at(s).Admin, nil) }

// change makes a change at a state's node.
func (p *played) change(s union.State, action string, params any) {
	p.t.Helper()
	if _, err := p.admin(s).Change(p.t.Context(), action, params, nil); err != nil {
		p.t.Fatalf("%s: %v", action, err)
	}
	p.heard()
}

// heard waits until every node has the newest directory: on a busy machine
// news may take longer than a change waits for it.
func (p *played) heard() {
	p.t.Helper()
	for range 6000 {
		newest, same := int64(-1), true
		for _, n := range p.union.nodes {
			v := n.Directory().View().Version()
			same = same && (newest < 0 || v == newest)
			newest = v
		}
		if same {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatal("the nodes do not agree on a directory")
}

// call asks a service as a state's portal.
func (p *played) call(from union.State, service, path string, head ...string) (*http.Response, string) {
	p.t.Helper()
	return ask(p.t, http.DefaultTransport, p.at(from).R1+"/r1/"+service+path, append([]string{"X-Road-Client: " + p.at(from).Client}, head...)...)
}

func ask(t *testing.T, via http.RoundTripper, url string, head ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	for _, h := range head {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := via.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// offer brings a handler into the union as a service of a state, granted to
// the portals of others.
func (p *played) offer(s union.State, code string, h http.HandlerFunc, clients ...union.State) string {
	p.t.Helper()
	srv := httptest.NewServer(h)
	p.t.Cleanup(srv.Close)
	id := union.ServiceID{SubsystemID: union.SubsystemID{MemberID: union.MemberID{State: s, Class: "GOV", Code: "data"}, Subsystem: "tests"}, Service: code}
	p.change(s, "service.add", node.ServiceAdd{ID: id, Address: srv.URL})
	for _, c := range clients {
		p.change(s, "access.grant", node.Grant{Client: portal(c), Service: id, Purposes: []string{"trial"}, DefaultPurpose: "trial"})
	}
	return id.String()
}

func code(body string) fault.Code {
	var f struct{ Code fault.Code }
	json.Unmarshal([]byte(body), &f)
	return f.Code
}

// TestUnion tries a running union of three.
func TestUnion(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA", "EG")

	t.Run("each reads each", func(t *testing.T) {
		for _, from := range p.Nodes {
			for _, to := range p.Nodes {
				resp, body := p.call(from.State, fmt.Sprintf("%s/GOV/interior/traffic/registry", to.State), "/vehicles")
				if resp.StatusCode != 200 || !strings.Contains(body, `"simulator":true`) {
					t.Errorf("%s asks %s: %s %.200s", from.State, to.State, resp.Status, body)
				}
			}
		}
	})

	t.Run("examples", func(t *testing.T) {
		if len(p.Examples) != 3 {
			t.Fatalf("%d examples", len(p.Examples))
		}
		for _, line := range p.Examples {
			f := strings.Fields(line)
			var head []string
			for _, h := range strings.Split(line, "'") {
				if strings.Contains(h, ": ") {
					head = append(head, h)
				}
			}
			if resp, body := ask(t, http.DefaultTransport, f[len(f)-1], head...); resp.StatusCode != 200 {
				t.Errorf("%s: %s %s", line, resp.Status, body)
			}
		}
	})

	t.Run("probes and meters", func(t *testing.T) {
		if resp, body := ask(t, http.DefaultTransport, p.at("BH").Operations+"/readyz"); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
		_, body := ask(t, http.DefaultTransport, p.at("BH").Operations+"/metrics")
		for _, want := range []string{
			`falaj_requests_total{fault="",peer="SA",security_server_type="Producer",succeeded="true"}`,
			`falaj_requests_total{fault="",peer="SA",security_server_type="Client",succeeded="true"}`,
			`falaj_request_duration_seconds_count{security_server_type="Client",stage="beyond"}`,
			`falaj_directory_version`, `falaj_link_connections`, `go_goroutines`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("the meters lack %s", want)
			}
		}
	})

	t.Run("a service heard of at once", func(t *testing.T) {
		id := p.offer("BH", "echo", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.RequestURI()) }, "SA", "EG")
		for _, s := range []union.State{"SA", "EG"} {
			if resp, body := p.call(s, id, "/a%2Cb?q=%D9%85"); resp.StatusCode != 200 || body != "/a%2Cb?q=%D9%85" {
				t.Errorf("%s: %s %s", s, resp.Status, body)
			}
		}
		if resp, body := p.call("BH", id, "/", "Falaj-Purpose: trial"); code(body) != fault.PolicyDenied || resp.Header.Get("X-Road-Error") == "" {
			t.Errorf("without a grant: %s %s", resp.Status, body)
		}
	})

	t.Run("the node's own doors are no backend", func(t *testing.T) {
		id := p.offer("EG", "inward", nil, "SA")
		for _, door := range []string{p.at("EG").R1, p.at("EG").Operations, "http://" + p.at("EG").Link, "http://169.254.169.254/latest"} {
			var sid union.ServiceID
			sid.UnmarshalText([]byte(id))
			for action, params := range map[string]any{
				"service.move": node.ServiceMove{ID: sid, Address: door}, "service.add": node.ServiceAdd{ID: sid, Address: door},
			} {
				_, err := p.admin("EG").Change(t.Context(), action, params, nil)
				wantRefusal(t, err, fault.BackendRefused)
			}
		}
	})

	t.Run("changing rules", func(t *testing.T) {
		p.change("EG", "policy.set", node.Policy{Cedar: policy.Base("EG") + `
			@id("closed") @en("Egypt is closed today.") @ar("مصر مغلقة اليوم.")
			forbid (principal, action, resource) when { context.role == "provider" };`})
		if resp, body := p.call("SA", "EG/GOV/interior/traffic/registry", "/vehicles"); code(body) != fault.PolicyDenied {
			t.Errorf("%s %s", resp.Status, body)
		}
		var e node.Explained
		q := url.Values{"client": {p.at("SA").Client}, "service": {"EG/GOV/interior/traffic/registry"}, "purpose": {"traffic"}}
		if err := p.admin("BH").Query(t.Context(), "policy", q, &e); err != nil || e.Provider.Allow || len(e.Provider.Rules) == 0 || e.Provider.Rules[0].Ar != "مصر مغلقة اليوم." {
			t.Errorf("explained elsewhere: %+v, %v", e.Provider.Decision, err)
		}
		_, err := p.admin("EG").Change(t.Context(), "policy.set", node.Policy{Cedar: "permit (nobody"}, nil)
		wantRefusal(t, err, fault.BadRequest)
		p.change("EG", "policy.set", node.Policy{Cedar: policy.Base("EG")})
		if resp, body := p.call("SA", "EG/GOV/interior/traffic/registry", "/vehicles"); resp.StatusCode != 200 {
			t.Errorf("opened again: %s %s", resp.Status, body)
		}
	})

	t.Run("keys are replaced while calls go on", func(t *testing.T) {
		over := make(chan struct{})
		failed := make(chan string)
		go func() {
			defer close(failed)
			for {
				select {
				case <-over:
					return
				default:
				}
				if resp, body := p.call("SA", "BH/GOV/interior/traffic/registry", "/vehicles"); resp.StatusCode != 200 {
					failed <- resp.Status + " " + body
					return
				}
			}
		}()
		for _, name := range []string{"seal-GOV_interior", "tls", "seal-GOV_interior", "tls"} {
			p.change("BH", "key.rotate", node.KeyName{Name: name})
			p.change("SA", "key.rotate", node.KeyName{Name: "seal-GOV_egov"}) // and news from elsewhere
		}
		close(over)
		if why, broke := <-failed; broke {
			t.Error(why)
		}
	})

	t.Run("a revoked node is let in no more", func(t *testing.T) {
		var keys []node.Key
		if err := p.admin("EG").Query(t.Context(), "keys", nil, &keys); err != nil {
			t.Fatal(err)
		}
		if resp, body := p.call("EG", "BH/GOV/interior/traffic/registry", "/vehicles"); resp.StatusCode != 200 {
			t.Fatalf("before: %s %s", resp.Status, body)
		}
		for _, k := range keys {
			if k.Name == "tls" {
				p.change("EG", "certificate.revoke", node.Revocation{SHA256: k.Certificates[0].SHA256, Reason: "keyCompromise"})
			}
		}
		var last string
		for range 3000 { // the live link is dropped once the news is there
			resp, body := p.call("EG", "BH/GOV/interior/traffic/registry", "/vehicles")
			if last = body; resp.StatusCode != 200 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		switch code(last) { // refused there, or known as revoked here already
		case fault.PeerUnreachable, fault.PeerRefused, fault.CertRevoked, fault.CertUnknown:
		default:
			t.Errorf("after: %s", last)
		}
		p.change("EG", "key.rotate", node.KeyName{Name: "tls"})
		for range 3000 {
			resp, body := p.call("EG", "BH/GOV/interior/traffic/registry", "/vehicles")
			if last = body; resp.StatusCode == 200 {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("with a new key: %s", last)
	})
}

func wantRefusal(t *testing.T, err error, c fault.Code) {
	t.Helper()
	r, ok := err.(*admin.Refusal)
	if !ok || r.Code != c {
		t.Errorf("got %v, wanted %s", err, c)
	}
}

// TestDrain: a call inside when the node is told to end gets its answer.
func TestDrain(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	entered, leave := make(chan struct{}), make(chan struct{})
	id := p.offer("BH", "slow", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		io.WriteString(w, "late")
	}, "SA")
	type answer struct {
		status int
		body   string
	}
	got := make(chan answer)
	go func() {
		resp, body := p.call("SA", id, "/")
		got <- answer{resp.StatusCode, body}
	}()
	<-entered
	stopped := make(chan error)
	go func() { stopped <- p.stop() }()
	probe := p.at("SA").Operations + "/readyz"
	for { // the probe says so first
		resp, err := http.Get(probe)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(leave)
	if a := <-got; a.status != 200 || a.body != "late" {
		t.Errorf("the call inside: %d %s", a.status, a.body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestSleep: a union that slept for weeks or years wakes up whole; what it
// sealed before still holds.
func TestSleep(t *testing.T) {
	dir := t.TempDir()
	var shift atomic.Int64
	deps := Deps{Now: func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }}
	const day = 24 * time.Hour
	for i, slept := range []time.Duration{0, 20 * day, 100 * day, 500 * day} {
		shift.Add(int64(slept))
		p := play(t, dir, deps, "BH", "SA")
		resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons", fmt.Sprintf("X-Road-Id: call-%d", i))
		if resp.StatusCode != 200 {
			t.Fatalf("after %v: %s %s", slept, resp.Status, body)
		}
		var h node.Health
		if err := p.admin("BH").Query(t.Context(), "health", nil, &h); err != nil || !h.Ready {
			t.Errorf("after %v: %+v, %v", slept, h, err)
		}
		var v node.Verification
		last := fmt.Sprintf("call-%d", max(0, i-1))
		if err := p.admin("SA").Query(t.Context(), "verification", url.Values{"id": {last}}, &v); slept < 400*day && (err != nil || !v.OK) {
			t.Errorf("after %v, the call before: %+v, %v", slept, v, err)
		}
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMoved: a union on other ports tells its peers where its nodes are now.
func TestMoved(t *testing.T) {
	dir := t.TempDir()
	p := play(t, dir, Deps{}, "BH", "SA")
	was := p.at("BH").Link
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", was)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p = play(t, dir, Deps{}, "BH", "SA")
	if p.at("BH").Link == was {
		t.Error("it took a port that is taken")
	}
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// TestBrokenCeremony: a founding that broke off is done anew; a folder of
// somebody else is left alone.
func TestBrokenCeremony(t *testing.T) {
	dir := t.TempDir()
	half := &plan{What: planMark, States: []union.State{"BH", "SA"}}
	if err := half.write(dir); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "SA", "keys")
	if err := os.MkdirAll(junk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(junk, "tls.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := play(t, dir, Deps{}, "BH", "SA")
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, planFile), []byte(`{"what":"a shop"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	base := 0
	if _, err := Open(t.Context(), Config{Data: other, Fresh: true, Base: &base}, Deps{}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("another's folder: %v", err)
	}
}

// TestClientRemoved: a system that calls no more leaves the directory too,
// unless it serves, or its own state's agreements name it.
func TestClientRemoved(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	named := func(id union.SubsystemID) bool {
		_, ok := p.union.nodes[0].Directory().View().Subsystem(id)
		return ok
	}
	remove := func(id string, want fault.Code) {
		t.Helper()
		_, err := p.admin("SA").Change(t.Context(), "client.remove", node.ID{ID: id}, nil)
		if want != "" {
			wantRefusal(t, err, want)
		} else if err != nil {
			t.Error(err)
		}
		p.heard()
	}
	clerk := union.SubsystemID{MemberID: union.MemberID{State: "SA", Class: "GOV", Code: "customs"}, Subsystem: "clerk"}
	service := p.offer("SA", "paper", func(http.ResponseWriter, *http.Request) {})
	id, err := union.ParseService(service)
	if err != nil {
		t.Fatal(err)
	}
	p.change("SA", "client.add", node.ClientAdd{ID: clerk})
	p.change("SA", "access.grant", node.Grant{ID: "g", Client: clerk, Service: id, Purposes: []string{"trial"}})
	if !named(clerk) {
		t.Fatal("the directory does not name it")
	}
	remove(clerk.String(), fault.Conflict)
	if resp, body := ask(t, http.DefaultTransport, p.at("SA").R1+"/r1/SA/GOV/data/tests/listMethods", "X-Road-Client: "+clerk.String()); resp.StatusCode != 200 {
		t.Errorf("after a refusal it is a client no more: %s", body)
	}
	p.change("SA", "access.revoke", node.ID{ID: "g"})
	remove(clerk.String(), "")
	if named(clerk) {
		t.Error("the directory still names it")
	}
	remove(clerk.String(), fault.NotFound)
	remove(id.SubsystemID.String(), fault.Conflict) // it serves
	if !named(id.SubsystemID) {
		t.Error("the directory no longer names who serves")
	}
}

// TestMutual: a client that is bound to its certificate comes in with it over
// TLS, and in no other way.
func TestMutual(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	mine, ended := identity(t, time.Now().Add(time.Hour)), identity(t, time.Now().Add(-time.Minute))
	var known []string
	for _, c := range []tls.Certificate{mine, ended} {
		sum := sha256.Sum256(c.Certificate[0])
		known = append(known, hex.EncodeToString(sum[:]))
	}
	p.change("SA", "client.add", node.ClientAdd{ID: portal("SA"), Mode: "mutual", Certificates: known})

	part, err := p.union.nodes[1].Directory().View().Part("SA")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(part.Authorities[0].Certificate.Certificate)
	const path = "/r1/BH/GOV/interior/civil/registry/persons"
	for _, x := range []struct {
		name, door string
		shows      []tls.Certificate
		want       fault.Code
	}{
		{"plain", p.at("SA").R1, nil, fault.ClientNotAuthentic},
		{"TLS alone", p.at("SA").R1TLS, nil, fault.ClientNotAuthentic},
		{"another's certificate", p.at("SA").R1TLS, []tls.Certificate{identity(t, time.Now().Add(time.Hour))}, fault.ClientNotAuthentic},
		{"one that has ended", p.at("SA").R1TLS, []tls.Certificate{ended}, fault.ClientNotAuthentic},
		{"its own", p.at("SA").R1TLS, []tls.Certificate{mine}, ""},
	} {
		via := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: x.shows}}
		if resp, body := ask(t, via, x.door+path, "X-Road-Client: "+portal("SA").String()); code(body) != x.want {
			t.Errorf("%s: %s %.200s", x.name, resp.Status, body)
		}
	}
}

func identity(t *testing.T, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
