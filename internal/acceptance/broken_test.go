package acceptance_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestBroken takes a union's parts away, one after the other, and looks at
// what the others do and say.
func TestBroken(t *testing.T) {
	t.Parallel()
	u := apart(t, nil, "--state=BH,SA,KW")
	for _, x := range []struct {
		name string
		test func(*testing.T, *union)
	}{
		{"a node is killed while calls are under way", killed},
		{"a node is away", away},
		{"the secretariat is killed", noSecretariat},
		{"a node is restored from a copy", restored},
		{"a node that must not start", mustNotStart},
		{"a demonstration is none", noDemonstration},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, u) })
	}
	for _, p := range u.parts {
		p.stop(t, syscall.SIGTERM)
	}
}

// killed kills the serving node again and again under calls that must take
// effect at most once.
func killed(t *testing.T, u *union) {
	var mu sync.Mutex
	effects := map[string]int{}
	books := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		id := r.Header.Get("X-Road-Id")
		mu.Lock()
		effects[id]++
		mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		fmt.Fprintf(w, "booked %s for %s", b, id)
	}))
	defer books.Close()
	const service = "BH/GOV/egov/portal/books"
	u.falaj(t, "BH", "service", "add", service, books.URL)
	u.falaj(t, "BH", "access", "grant", "SA/GOV/egov/portal", service, "--purpose", "trial")
	u.granted(t, "SA", service)

	const callers, each = 4, 60
	answered := make([]map[string]bool, callers)
	var wg sync.WaitGroup
	for c := range callers {
		answered[c] = map[string]bool{}
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("book-%d-%d", c, i)
				for range 5 { // a client that repeats under the same id
					a, err := tryCurl(t.Context(), append(u.as(t, "SA", "trial", service+"/"), "-H", "X-Road-Id: "+id, "--data-binary", "one")...)
					if err != nil {
						t.Errorf("%s: %v", id, err)
					}
					if a.status == 200 {
						if string(a.body) != "booked one for "+id {
							t.Errorf("%s: %s", id, a.body)
						}
						answered[c][id] = true
						break
					}
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	kills := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(300 * time.Millisecond):
			if kills < 4 {
				u.parts["BH"].end(syscall.SIGKILL, patience)
				u.startNode(t, "BH")
				u.waitNode(t, "BH")
				kills++
			}
		}
	}
	if kills == 0 {
		t.Error("the calls were over before a kill")
	}
	var unknown []struct{ ID string }
	into(t, u.falaj(t, "BH", "--json", "outcome", "list"), &unknown)
	listed := map[string]bool{}
	for _, o := range unknown {
		listed[o.ID] = true
	}
	good := 0
	mu.Lock()
	defer mu.Unlock()
	for c := range callers {
		for i := range each {
			id := fmt.Sprintf("book-%d-%d", c, i)
			switch n := effects[id]; {
			case n > 1:
				t.Errorf("%s took effect %d times", id, n)
			case answered[c][id] && n != 1:
				t.Errorf("%s was answered and took no effect", id)
			case answered[c][id]:
				good++
			case n == 1 && !listed[id]:
				t.Errorf("%s took effect, was not answered, and is not listed as unknown", id)
			}
		}
	}
	t.Logf("%d kills, %d of %d calls answered, %d unknown", kills, good, callers*each, len(unknown))
	if good < callers*each/4 {
		t.Errorf("only %d answered", good)
	}
	for i := 0; i < each; i += 20 {
		if id := fmt.Sprintf("book-0-%d", i); answered[0][id] {
			u.falaj(t, "SA", "evidence", "verify", id)
			u.falaj(t, "BH", "evidence", "verify", id)
		}
	}
	for _, id := range unknown {
		u.falaj(t, "BH", "outcome", "resolve", u.node(t, "SA").Client, id.ID, "--happened", "--reason", "a test")
	}
}

// away stops a node, and holds the others to what they promise meanwhile.
func away(t *testing.T, u *union) {
	u.parts["BH"].stop(t, syscall.SIGTERM)
	service, purpose := register("BH", "vehicles")
	path, entry := u.sample(t, "BH", "vehicles")
	a := curl(t, append(u.as(t, "SA", purpose, service+path), "-H", "X-Road-Id: away-1")...).want(t, 500)
	if a.header.Get("X-Road-Error") != "Server.ClientProxy.NetworkError" {
		t.Errorf("%s", a.body)
	}
	var e held
	into(t, u.falaj(t, "SA", "--json", "evidence", "show", "away-1"), &e)
	if len(e.Halves) != 1 || len(e.Halves[0].Records) < 1 || e.Halves[0].Records[0].Kind != "request sent" || e.Missing == "" {
		t.Errorf("%+v", e)
	}
	if last := e.Halves[0].Records; last[len(last)-1].Kind != "unanswered" {
		t.Errorf("it does not stay in evidence as unanswered: %+v", last)
	}
	if r := u.do(t, "SA", "doctor"); r.code != 0 || !strings.Contains(r.out, "takes calls") || !strings.Contains(r.out, "BH") || !strings.Contains(r.out, "[peer.unreachable]") {
		t.Errorf("doctor at SA: %d %s%s", r.code, r.out, r.err)
	}
	for _, args := range [][]string{{"doctor"}, {"service", "list"}} {
		if r := u.do(t, "BH", args...); r.code != 3 || !strings.Contains(r.err, "[cli.node]") || !strings.Contains(r.err, u.node(t, "BH").Admin) {
			t.Errorf("%s: %d %s%s", r.line, r.code, r.out, r.err)
		}
	}

	// Two calls that are delivered later, in one conversation: the second
	// waits behind the first, and a person may skip that.
	later := func(id string) answer {
		return curl(t, append(u.as(t, "SA", purpose, service+path), "-H", "Prefer: respond-async", "-H", "Falaj-Conversation: talk", "-H", "X-Road-Id: "+id)...).want(t, 202)
	}
	later("later-1")
	at := later("later-2").header.Get("Location")
	var list []struct {
		ID, Conversation, Status string
		Attempts                 int
	}
	eventually(t, "an attempt", func() error {
		into(t, u.falaj(t, "SA", "--json", "delivery", "list", "--conversation", "talk"), &list)
		if len(list) != 2 || list[0].Attempts == 0 || list[1].Status != "blocked" {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	u.falaj(t, "SA", "delivery", "skip", u.node(t, "SA").Client, "later-1", "--reason", "not wanted any more")
	u.startNode(t, "BH")
	u.waitNode(t, "BH")
	var status struct{ Status, Answer string }
	sa := u.node(t, "SA")
	eventually(t, "the delivery", func() error {
		into(t, string(curl(t, "-H", "X-Road-Client: "+sa.Client, sa.R1+at).want(t, 200).body), &status)
		if status.Status != "answered" {
			return fmt.Errorf("%+v", status)
		}
		return nil
	})
	if got := curl(t, "-H", "X-Road-Client: "+sa.Client, sa.R1+status.Answer).want(t, 200); got.sum() != entry.sum() {
		t.Errorf("%s", got.body)
	}
	into(t, u.falaj(t, "SA", "--json", "delivery", "list", "--conversation", "talk"), &list)
	if len(list) != 2 || list[0].Status != "skipped" || list[1].Status != "answered" {
		t.Errorf("%+v", list)
	}
	if said := u.falaj(t, "SA", "--lang", "ar", "delivery", "list"); !strings.Contains(said, "later-2") || !arabic(said) {
		t.Error(said)
	}
}

// noSecretariat takes the one party away that stands in nobody's way.
func noSecretariat(t *testing.T, u *union) {
	u.parts["secretariat"].end(syscall.SIGKILL, patience)
	u.read(t, "SA", "BH", "vehicles")
	folder := t.TempDir()
	write(t, filepath.Join(folder, "x.txt"), "still here")
	const service = "KW/GOV/egov/portal/files"
	u.falaj(t, "KW", "service", "add", service, nginx(t, folder, folder))
	u.falaj(t, "KW", "access", "grant", "BH/GOV/egov/portal", service, "--purpose", "trial")
	u.granted(t, "BH", service)
	if a := curl(t, u.as(t, "BH", "trial", service+"/x.txt")...).want(t, 200); string(a.body) != "still here" {
		t.Errorf("%s", a.body)
	}
	version := func(at string) (v int64) {
		var meta struct{ Signed struct{ Version int64 } }
		b, err := os.ReadFile(at)
		check(t, err)
		check(t, json.Unmarshal(b, &meta))
		return meta.Signed.Version
	}
	news := version(filepath.Join(u.Data, "KW", "directory", "timestamp.json"))
	if old := version(filepath.Join(u.Data, "secretariat", "directory", "timestamp.json")); old >= news {
		t.Errorf("the secretariat, which is dead, has version %d, Kuwait %d", old, news)
	}
	u.startSecretariat(t)
	eventually(t, "the secretariat hears of it", func() error {
		a, err := tryCurl(t.Context(), u.Secretariat+"/timestamp.json")
		if err != nil {
			return err
		}
		var meta struct{ Signed struct{ Version int64 } }
		into(t, string(a.body), &meta)
		if meta.Signed.Version < news {
			return fmt.Errorf("version %d, wanted %d", meta.Signed.Version, news)
		}
		return nil
	})
	u.falaj(t, "KW", "service", "remove", service)
}

// restored loses Kuwait's machine and goes on with a copy on another.
func restored(t *testing.T, u *union) {
	id := u.read(t, "KW", "SA", "persons")
	copied := filepath.Join(t.TempDir(), "copy")
	u.falaj(t, "KW", "backup", copied)
	u.parts["KW"].end(syscall.SIGKILL, patience)
	i := 2 // Kuwait
	old := u.Nodes[i]
	machine := filepath.Join(t.TempDir(), "kw")
	config := filepath.Join(machine, "node.yaml")
	write(t, config, read(t, old.Config))
	u.Nodes[i].Config, u.Nodes[i].Admin = config, filepath.Join(machine, "admin.sock")
	if strings.Contains(read(t, config), "admin:") {
		u.Nodes[i].Admin = old.Admin
	}
	falaj(t, "restore", copied, "--config", config)
	check(t, os.RemoveAll(filepath.Dir(old.Config)))
	u.startNode(t, "KW")
	eventually(t, "a new log: the old one may have been published beyond the copy", func() error {
		if r := u.do(t, "KW", "log", "renew"); r.code != 0 {
			return errors.New(r.err)
		}
		return nil
	})
	u.waitNode(t, "KW")
	u.read(t, "KW", "BH", "vehicles")
	u.read(t, "BH", "KW", "vehicles")
	if said := u.falaj(t, "KW", "evidence", "verify", id); !strings.Contains(said, "The evidence holds") {
		t.Error(said)
	}
	if r := u.do(t, "KW", "doctor"); r.code != 0 || !well(r.out) {
		t.Errorf("%d %s", r.code, r.out)
	}
}

// mustNotStart breaks what a node stands on: it says what, and does not start.
func mustNotStart(t *testing.T, u *union) {
	u.parts["SA"].stop(t, syscall.SIGTERM)
	sa := u.node(t, "SA")
	data := filepath.Dir(sa.Config)
	nothing := func() error { return nil }
	for _, x := range []struct {
		name, says string
		hurt, mend func() error
		env        []string
	}{
		{"a key that others may read", "chmod 600",
			func() error { return os.Chmod(data+"/keys/tls.pem", 0o644) }, func() error { return os.Chmod(data+"/keys/tls.pem", 0o600) }, nil},
		{"a key folder that others may enter", "chmod 700",
			func() error { return os.Chmod(data+"/keys", 0o755) }, func() error { return os.Chmod(data+"/keys", 0o700) }, nil},
		{"no pinned root", "root.json",
			func() error { return os.Rename(data+"/root.json", data+"/gone") }, func() error { return os.Rename(data+"/gone", data+"/root.json") }, nil},
		{"a database that is none", "not a database",
			func() error {
				check(t, os.Rename(data+"/node.db", data+"/gone"))
				return os.WriteFile(data+"/node.db", []byte(strings.Repeat("not a database ", 999)), 0o600)
			}, func() error { return os.Rename(data+"/gone", data+"/node.db") }, nil},
		{"a data folder that cannot be one", "not a directory", nothing, nothing, []string{"FALAJ_DATA=" + sa.Config}},
	} {
		check(t, x.hurt())
		p := start(t, x.env, "falaj", "node", "--config", sa.Config)
		select {
		case <-p.done:
		case <-time.After(patience):
			t.Errorf("%s: the node runs", x.name)
			p.end(syscall.SIGKILL, patience)
		}
		said := read(t, p.log)
		if code := p.cmd.ProcessState.ExitCode(); code <= 0 || !strings.Contains(said, x.says) || strings.Contains(said, "goroutine") || strings.Contains(said, "PRIVATE") {
			t.Errorf("%s: %d %s", x.name, code, said)
		}
		check(t, x.mend())
	}
	u.startNode(t, "SA")
	u.waitNode(t, "SA")
	u.read(t, "SA", "BH", "vehicles")
}

// noDemonstration: keys and root of a demonstration are refused in service.
func noDemonstration(t *testing.T, u *union) {
	sa := u.node(t, "SA")
	for name, extra := range map[string][]string{
		"keys": nil,
		"root": {"--set", "keys.folder=" + filepath.Join(t.TempDir(), "keys")},
	} {
		args := append([]string{"node", "--config", sa.Config, "--set", "demonstration=false", "--set", "data=" + filepath.Join(t.TempDir(), "data"),
			"--set", "keys.folder=" + filepath.Join(filepath.Dir(sa.Config), "keys"), "--set", "directory.root=" + filepath.Join(filepath.Dir(sa.Config), "root.json")}, extra...)
		if said := refused(t, "config.demonstration", args...); !strings.Contains(said, "demonstration") {
			t.Errorf("%s: %s", name, said)
		}
	}
	u.parts["secretariat"].stop(t, syscall.SIGTERM)
	refused(t, "config.demonstration", "secretariat", "--data", filepath.Join(u.Data, "secretariat"), "--listen", fmt.Sprintf("127.0.0.1:%d", ports(t, 1)))
}
