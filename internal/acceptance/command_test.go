package acceptance_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// commands goes through what a node's people do all day.
func commands(t *testing.T, u *union) {
	service, _ := register("BH", "vehicles")
	path, entry := u.sample(t, "BH", "vehicles")

	if got := u.falaj(t, "SA", "call", service, path, "--id", "desk-1"); got != string(entry.body) {
		t.Fatalf("call printed %q", got)
	}
	var called struct {
		Status   int
		ID, Body string
		Header   http.Header
	}
	if into(t, u.falaj(t, "SA", "--json", "call", service, path, "--id", "desk-1"), &called); called.Status != 200 || called.ID != "desk-1" || called.Body != string(entry.body) || called.Header.Get("X-Road-Service") != service {
		t.Errorf("%+v", called)
	}
	nothing := u.do(t, "SA", "--lang", "ar", "call", strings.Replace(service, "registry", "nothing", 1), path, "--client", "SA/GOV/egov/portal")
	if nothing.code != 1 || !strings.Contains(nothing.err, "[directory.service.unknown]") || !strings.Contains(nothing.err, "لا يعرف الدليل") {
		t.Errorf("%d %s", nothing.code, nothing.err)
	}
	if r := u.do(t, "SA", "call", service, "/nothing", "--purpose", "traffic"); r.code != 1 || !strings.Contains(r.out, `"status":404`) {
		t.Errorf("the service's own refusal: %d %s", r.code, r.out)
	}

	t.Run("evidence", func(t *testing.T) {
		for _, state := range []string{"SA", "BH"} {
			var e held
			into(t, u.falaj(t, state, "--json", "evidence", "show", "desk-1"), &e)
			if len(e.Halves) != 2 || e.Missing != "" || e.Halves[0].State != state {
				t.Fatalf("%+v", e)
			}
			for _, h := range e.Halves {
				kinds := map[string]string{"SA": "request sent, answer received", "BH": "request received, answer sent"}
				var got []string
				for _, r := range h.Records {
					got = append(got, r.Kind)
					if h.State != state && r.Note != nil {
						t.Errorf("%s told %s what is for itself alone: %s", h.State, state, r.Note)
					}
				}
				if strings.Join(got, ", ") != kinds[h.State] {
					t.Errorf("%s holds %v", h.State, got)
				}
			}
			var v struct {
				ID     string
				OK     bool
				Checks []struct {
					What string
					OK   bool
				}
			}
			into(t, u.falaj(t, state, "--json", "evidence", "verify", "desk-1"), &v)
			if !v.OK || len(v.Checks) < 10 || v.ID != "desk-1" {
				t.Errorf("%+v", v)
			}
			for _, half := range []string{"SA/", "BH/"} {
				if said := u.falaj(t, state, "evidence", "show", "desk-1"); !strings.Contains(said, half) || !strings.Contains(said, "GET "+path) {
					t.Error(said)
				}
			}
		}
		if said := u.falaj(t, "SA", "--lang", "ar", "evidence", "verify", "desk-1"); !strings.Contains(said, "الأدلة صحيحة") {
			t.Error(said)
		}
		if said := u.falaj(t, "SA", "--lang", "ar", "evidence", "show", "desk-1"); !arabic(said) || strings.Contains(said, "request sent") || strings.Contains(said, "Held by") {
			t.Error(said)
		}
		for _, what := range []string{"show", "verify"} {
			if r := u.do(t, "KW", "evidence", what, "desk-1"); r.code != 1 || !strings.Contains(r.err, "[not-found]") {
				t.Errorf("a third state: %d %s%s", r.code, r.out, r.err)
			}
		}
		cades(t, u, "desk-1")
	})

	t.Run("policy explain", func(t *testing.T) {
		args := []string{"policy", "explain", u.node(t, "SA").Client, service, "--purpose"}
		var e struct {
			Consumer, Provider struct {
				Allow bool
				Rules []struct{ ID, Source, En, Ar, Effect string }
			}
		}
		into(t, u.falaj(t, "BH", append([]string{"--json"}, append(args, "traffic")...)...), &e)
		for _, side := range []bool{e.Consumer.Allow && len(e.Consumer.Rules) > 0, e.Provider.Allow && len(e.Provider.Rules) > 0} {
			if !side {
				t.Errorf("%+v", e)
			}
		}
		if r := e.Provider.Rules[0]; r.ID == "" || r.Source == "" || r.En == "" || !arabic(r.Ar) || r.Effect != "permit" {
			t.Errorf("%+v", r)
		}
		for lang, text := range map[string]string{"en": "The serving state denies", "ar": "الدولة المقدِّمة ترفض"} {
			r := u.do(t, "BH", append([]string{"--lang", lang}, append(args, "business", "--all")...)...)
			if r.code != 4 || !strings.Contains(r.out, text) {
				t.Errorf("%d %s%s", r.code, r.out, r.err)
			}
		}
	})

	t.Run("doctor", func(t *testing.T) {
		for _, state := range u.states() {
			r := u.do(t, state, "doctor")
			if r.code != 0 || !strings.Contains(r.out, "takes calls") || !well(r.out) {
				t.Errorf("%s: %d %s%s", state, r.code, r.out, r.err)
			}
		}
		if said := u.falaj(t, "BH", "--lang", "ar", "doctor", "--all"); !strings.Contains(said, "العقدة تقبل الطلبات") || !strings.Contains(said, "الدليل ساري المفعول") {
			t.Error(said)
		}
	})

	t.Run("an outcome that nobody knows", func(t *testing.T) { outcome(t, u) })

	t.Run("configuration", func(t *testing.T) {
		for _, n := range u.Nodes {
			falaj(t, "config", "check", "-c", n.Config)
		}
		if said := falaj(t, "config", "show", "-c", u.node(t, "OM").Config, "--set", "store.dsn=postgres://falaj:hunter2@db/falaj"); strings.Contains(said, "hunter2") || !strings.Contains(said, "state: OM") || !strings.Contains(said, "header_time:") {
			t.Error(said)
		}
		broken := filepath.Join(t.TempDir(), "node.yaml")
		write(t, broken, read(t, u.node(t, "OM").Config)+"\nclientele: []\n")
		r := do(t, nil, "falaj", "--lang", "ar", "config", "check", "-c", broken)
		if r.code != 2 || !strings.Contains(r.err, `unknown field "clientele"`) || !strings.Contains(r.err, "الإعدادات غير صحيحة") {
			t.Errorf("%d %s", r.code, r.err)
		}
	})

	t.Run("backup", func(t *testing.T) {
		to := filepath.Join(t.TempDir(), "copy")
		u.falaj(t, "AE", "backup", to)
		info, err := os.Stat(filepath.Join(to, "keys"))
		check(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("the copy's keys have mode %v", info.Mode())
		}
		if r := u.do(t, "AE", "backup", to); r.code == 0 {
			t.Error("a copy was written over another")
		}
		// Not over a node, and not into the place of another state's.
		refused(t, "admin.conflict", "restore", to, "--config", u.node(t, "AE").Config)
		refused(t, "admin.conflict", "restore", to, "--config", u.node(t, "KW").Config)
	})

	t.Run("what was changed", func(t *testing.T) {
		if said := u.falaj(t, "AE", "audit", "changes"); !strings.Contains(said, "node.backed-up") || !strings.Contains(said, "ordered") || !strings.Contains(said, "done") {
			t.Error(said)
		}
	})
}

// outcome has a service break off after it took a request: whether it took
// effect, nobody knows, so a person decides.
func outcome(t *testing.T, u *union) {
	var mu sync.Mutex
	effects, breaks := 0, true
	fragile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		effects++
		if breaks {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "effect %d", effects)
	}))
	fragile.Config.ErrorLog = nil
	defer fragile.Close()
	const service = "EG/GOV/egov/portal/fragile"
	u.falaj(t, "EG", "service", "add", service, fragile.URL)
	u.falaj(t, "EG", "access", "grant", "AE/GOV/egov/portal", service, "--purpose", "trial")
	u.granted(t, "AE", service)
	post := func(id string) answer {
		return curl(t, append(u.as(t, "AE", "trial", service+"/"), "-H", "X-Road-Id: "+id, "--data-binary", "pay once")...)
	}
	var list []struct{ Client, ID, Service string }
	for _, id := range []string{"pay-1", "pay-2"} {
		if a := post(id).want(t, 500); a.header.Get("X-Road-Error") != "Server.ServerProxy.ServiceFailed" {
			t.Errorf("%s", a.body)
		}
		if a := post(id).want(t, 500); a.header.Get("X-Road-Error") == "" {
			t.Errorf("%s", a.body)
		}
	}
	invoked := func() int {
		mu.Lock()
		defer mu.Unlock()
		return effects
	}
	if n := invoked(); n != 2 {
		t.Errorf("invoked %d times", n)
	}
	mu.Lock()
	breaks = false
	mu.Unlock()
	into(t, u.falaj(t, "EG", "--json", "outcome", "list"), &list)
	if len(list) != 2 || list[0].ID != "pay-1" || list[0].Client != u.node(t, "AE").Client || list[0].Service != service {
		t.Fatalf("%+v", list)
	}
	if said := u.falaj(t, "EG", "doctor"); !strings.Contains(said, "outcome") {
		t.Errorf("doctor does not tell of them: %s", said)
	}
	client := u.node(t, "AE").Client
	u.falaj(t, "EG", "outcome", "resolve", client, "pay-1", "--happened", "--reason", "the books show it")
	u.falaj(t, "EG", "outcome", "resolve", client, "pay-2", "--nothing", "--reason", "the books do not show it")
	if r := u.do(t, "EG", "outcome", "resolve", client, "pay-2", "--nothing", "--reason", "again"); r.code == 0 {
		t.Error("decided twice")
	}
	if into(t, u.falaj(t, "EG", "--json", "outcome", "list"), &list); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	if a := post("pay-1"); a.status == 200 || invoked() != 2 {
		t.Errorf("what had happened happened again: %d %s", a.status, a.body)
	}
	if a := post("pay-2").want(t, 200); string(a.body) != "effect 3" {
		t.Errorf("what had not happened: %s", a.body)
	}
	u.falaj(t, "EG", "service", "remove", service)
}

// well tells whether the doctor found nothing but, where a state goes on as a
// new log after it lost its database, that its old log ended.
func well(said string) bool {
	return strings.Count(said, "\n  ! ") == strings.Count(said, "[evidence.log.alarm]") && !strings.Contains(said, "\n  ✗") &&
		strings.Count(said, ": ended") >= strings.Count(said, "[evidence.log.alarm]")
}
