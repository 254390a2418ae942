package acceptance_test

import (
	"fmt"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/falaj/falaj/internal/store/storetest"
)

// TestCeremony founds a union in service, not a demonstration, by the commands
// alone, of parties who have nothing in common but the files that they send
// each other: two states vote, Egypt is a partner; every node has two persons, who
// are known by account and by certificate, and nothing is waived. Then a
// system comes in by HTTPS with its own certificate and reads another state's
// files.
func TestCeremony(t *testing.T) {
	t.Parallel()
	c := &council{dir: t.TempDir(), first: ports(t, 20)}
	at := func(names ...string) string { return filepath.Join(append([]string{c.dir}, names...)...) }

	// Each party has its own folder, and only files go from one to another.
	write(t, at("sec", "purposes.json"), `[{"code": "customs", "name": {"en": "Clearing goods", "ar": "تخليص البضائع"},
		"basis": {"en": "Article 6 of the agreement", "ar": "المادة السادسة من الاتفاقية"}}]`)
	carry := func(from, to, name string) { write(t, at(to, name), read(t, at(from, name))) }
	falaj(t, "directory", "init", at("sec", "draft.json"), "--union", "Customs test", "--threshold", "2", "--keys", at("sec", "keys"), "--purposes", at("sec", "purposes.json"))
	for _, s := range []struct{ state, en, ar string }{{"BH", "Bahrain", "البحرين"}, {"SA", "Saudi Arabia", "السعودية"}, {"EG", "Egypt", "مصر"}} {
		args := []string{"--state", s.state, "directory", "enrol", at(s.state, s.state+".json"), "--name-en", s.en, "--name-ar", s.ar,
			"--keys", at(s.state, "keys"), "--address", c.door(s.state, "link"), "--member", "GOV/customs|Customs|الجمارك"}
		if s.state == "EG" {
			args = append(args, "--partner", "--no-vote")
		}
		falaj(t, args...)
		carry(s.state, "sec", s.state+".json")
		falaj(t, "directory", "add-state", at("sec", "draft.json"), at("sec", s.state+".json"))
	}
	refusedAny(t, "directory", "sign", at("sec", "draft.json"), "--keys", at("sec", "keys")) // it has no vote
	carry("sec", "BH", "draft.json")
	said := falaj(t, "--lang", "ar", "directory", "sign", at("BH", "draft.json"), "--keys", at("BH", "keys"))
	if !strings.Contains(said, "البحرين") || !strings.Contains(said, "1/2") {
		t.Error(said)
	}
	refusedAny(t, "directory", "publish", at("BH", "draft.json"), "--keys", at("BH", "keys")) // one of two votes
	carry("BH", "EG", "draft.json")
	refusedAny(t, "directory", "sign", at("EG", "draft.json"), "--keys", at("EG", "keys")) // a partner has no vote
	carry("BH", "SA", "draft.json")
	if before, after := printed(t, said, `[0-9a-f]{64}`), falaj(t, "directory", "sign", at("SA", "draft.json"), "--keys", at("SA", "keys")); !strings.Contains(after, before) {
		t.Errorf("the states signed different things: %s\n%s", before, after)
	}

	// Saudi Arabia and Bahrain bring it into force without the secretariat; the
	// others take it over, Saudi Arabia among them, and all pin the same root.
	way := []string{"SA", "BH", "sec", "EG", "SA"}
	for i, s := range way {
		if i > 0 {
			carry(way[i-1], s, "draft.json")
		}
		said := falaj(t, "directory", "publish", at(s, "draft.json"), "--keys", at(s, "keys"))
		if inForce := strings.Contains(said, "in force ("); inForce != (i > 0) {
			t.Errorf("step %d, %s: %s", i, s, said)
		}
		sum := printed(t, do(t, nil, "sha256sum", at(s, "root.json")).out, `[0-9a-f]{64}`)
		if !strings.Contains(said, sum) || read(t, at(s, "root.json")) != read(t, at("SA", "root.json")) {
			t.Errorf("step %d, %s: the root %s: %s", i, s, sum, said)
		}
	}
	check(t, os.Rename(at("sec", "draft.json"), at("draft.json")))

	c.meet(t)
	states := []string{"BH", "SA", "EG"}
	parts := []*process{start(t, nil, "falaj", "secretariat", "--data", at("sec"), "--listen", c.door("", "directory"))}
	for _, s := range states {
		write(t, at(s, "node.yaml"), c.config(t, s))
		if s == "EG" { // the password of a database stands in no configuration
			check(t, os.WriteFile(at(s, "dsn"), []byte(storetest.Postgres(t).DSN+"\n"), 0o600))
			write(t, at(s, "node.yaml"), c.config(t, s)+"store: {dsn_file: dsn}\n")
		}
		parts = append(parts, start(t, nil, "falaj", "node", "--config", at(s, "node.yaml")))
	}
	for _, s := range states {
		eventually(t, "the node of "+s, func() error {
			a, err := tryCurl(t.Context(), "http://"+c.door(s, "operations")+"/readyz")
			if err == nil && a.status != 200 {
				err = fmt.Errorf("%d %s", a.status, a.body)
			}
			return err
		})
	}

	folder := t.TempDir()
	write(t, filepath.Join(folder, "بيان جمركي.txt"), "بضائع")
	const service, client = "BH/GOV/customs/manifests/files", "SA/GOV/customs/desk"
	c.two(t, "BH", "service", "add", service, nginx(t, folder, folder), "--name-en", "Manifests", "--name-ar", "البيانات الجمركية")
	c.two(t, "SA", "client", "add", client, "--certificate", c.print(t, "desk"))
	eventually(t, "Bahrain hears of the client", func() error {
		a, err := tryCurl(t.Context(), "-H", "Accept: application/json", "http://"+c.door("BH", "r1")+"/listClients?xRoadInstance=SA")
		if err == nil && !strings.Contains(string(a.body), `"desk"`) {
			err = fmt.Errorf("%s", a.body)
		}
		return err
	})
	c.two(t, "BH", "access", "grant", client, service, "--purpose", "customs")

	path := "/r1/" + service + (&url.URL{Path: "/بيان جمركي.txt"}).EscapedPath()
	head := []string{"-H", "X-Road-Client: " + client, "-H", "Falaj-Purpose: customs", "-H", "X-Road-Id: goods-1"}
	mutual := append([]string{"--cacert", c.authority(t, "SA"), "--cert", at("people", "desk", "cert.pem"), "--key", at("people", "desk", "key.pem"), "https://" + c.door("SA", "r1s") + path}, head...)
	eventually(t, "the first call", func() error {
		a, err := tryCurl(t.Context(), mutual...)
		if err == nil && (a.status != 200 || string(a.body) != "بضائع") {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
	for name, args := range map[string][]string{
		"plain HTTP":                  append([]string{"http://" + c.door("SA", "r1") + path}, head...),
		"HTTPS without certificate":   append([]string{"--cacert", c.authority(t, "SA"), "https://" + c.door("SA", "r1s") + path}, head...),
		"somebody else's certificate": append([]string{"--cacert", c.authority(t, "SA"), "--cert", at("people", "khalid", "cert.pem"), "--key", at("people", "khalid", "key.pem"), "https://" + c.door("SA", "r1s") + path}, head...),
	} {
		if a := curl(t, args...); a.header.Get("X-Road-Error") != "Server.ClientProxy.SslAuthenticationFailed" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	for _, s := range []string{"SA", "BH"} {
		falaj(t, "--admin", at(s, "admin.sock"), "evidence", "verify", "goods-1")
	}
	if said := falaj(t, "--admin", at("BH", "admin.sock"), "audit", "changes"); !strings.Contains(said, "Fatima") || !strings.Contains(said, "Khalid") {
		t.Error(said)
	}
	falaj(t, "directory", "verify", "--source", "http://"+c.door("", "directory"), "--root", at("sec", "root.json"), "--all")
	if said := falaj(t, "--lang", "ar", "directory", "show", "--source", "http://"+c.door("", "directory"), "--root", at("sec", "root.json")); !strings.Contains(said, "السعودية") {
		t.Error(said)
	}

	// The link's key is replaced while calls go on.
	c.two(t, "SA", "key", "rotate", "tls")
	if a := curl(t, append(mutual, "-H", "X-Road-Id: goods-2")...); a.status != 400 { // two ids
		t.Errorf("%d %s", a.status, a.body)
	}
	mutual[len(mutual)-1] = "X-Road-Id: goods-3"
	eventually(t, "a call with the new key", func() error {
		a, err := tryCurl(t.Context(), mutual...)
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})

	// The running union takes fewer witnesses, and the secretariat's by name; Bahrain
	// says where everybody reads its log. Each takes two persons.
	refusedAny(t, "directory", "amend", at("BH", "change.json"), "--dir", at("BH"), "--keys", at("BH", "keys")) // they are a state's
	falaj(t, "directory", "amend", at("sec", "change.json"), "--dir", at("sec"), "--quorum", "1", "--keys", at("sec", "keys"))
	for i, s := range []string{"BH", "SA"} {
		carry([]string{"sec", "BH"}[i], s, "change.json")
		falaj(t, "directory", "sign", at(s, "change.json"), "--keys", at(s, "keys"))
	}
	c.two(t, "SA", "directory", "publish", at("SA", "change.json"))
	c.two(t, "BH", "log", "open", "--public", "https://log.example")
	eventually(t, "both changes at the other node", func() error {
		a, err := tryCurl(t.Context(), "--unix-socket", at("SA", "admin.sock"), "http://node/v1/logs")
		if said := string(a.body); err == nil && (!strings.Contains(said, `"quorum":1`) || !strings.Contains(said, `"https://log.example/log"`)) {
			err = fmt.Errorf("%s", said)
		}
		return err
	})

	t.Run("a demonstration's keys", func(t *testing.T) {
		falaj(t, "--state", "QA", "directory", "enrol", at("demo.json"), "--name-en", "Qatar", "--name-ar", "قطر", "--keys", at("demo"), "--address", c.door("EG", "link"), "--demonstration")
		refused(t, "config.demonstration", "node", "--config", at("EG", "node.yaml"), "--set", "keys.folder="+at("demo"), "--set", "data="+at("elsewhere"))
		refusedAny(t, "directory", "sign", at("draft.json"), "--keys", at("demo"))
	})
	for _, p := range parts {
		p.stop(t, syscall.SIGTERM)
	}
}

func refusedAny(t *testing.T, args ...string) {
	t.Helper()
	if r := do(t, nil, "falaj", args...); r.code == 0 {
		t.Errorf("%s: done\n%s", r.line, r.out)
	}
}

// printed finds what a command said.
func printed(t *testing.T, said, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindString(said)
	if found == "" {
		t.Fatalf("no %s: %s", pattern, said)
	}
	return found
}

// council is a union in service that is being founded.
type council struct {
	dir   string
	first int // port
}

// door is where a party listens.
func (c *council) door(state, name string) string {
	for i, s := range []string{"", "BH", "SA", "EG"} {
		for k, d := range []string{"directory", "link", "r1", "r1s", "operations"} {
			if s == state && d == name {
				return fmt.Sprintf("127.0.0.1:%d", c.first+i*5+k)
			}
		}
	}
	panic("no such door")
}

// meet gives Khalid, who works from another machine, and the desk, a system,
// keys and certificates of openssl.
func (c *council) meet(t *testing.T) {
	for _, who := range []string{"khalid", "desk"} {
		dir := filepath.Join(c.dir, "people", who)
		check(t, os.MkdirAll(dir, 0o700))
		r := do(t, nil, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
			"-subj", "/CN="+who, "-addext", "extendedKeyUsage=clientAuth", "-keyout", filepath.Join(dir, "key.pem"), "-out", filepath.Join(dir, "cert.pem"))
		if r.code != 0 {
			t.Fatal(r.err)
		}
		check(t, os.Chmod(filepath.Join(dir, "key.pem"), 0o600))
	}
}

// print is a certificate's fingerprint, as openssl says it.
func (c *council) print(t *testing.T, who string) string {
	t.Helper()
	r := do(t, nil, "openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", filepath.Join(c.dir, "people", who, "cert.pem"))
	_, print, ok := strings.Cut(strings.TrimSpace(r.out), "=")
	if !ok {
		t.Fatal(r.out, r.err)
	}
	return print
}

func (c *council) config(t *testing.T, state string) string {
	t.Helper()
	me, err := user.Current()
	check(t, err)
	return fmt.Sprintf(`
state: %s
data: .
r1: {http: %q, https: %q}
link: {listen: %q}
operations: {listen: %q, drain: 2s}
directory: {sources: ["http://%s"], refresh: 1s}
backends: {allow: [127.0.0.0/8]}
admin:
  https: %q
  persons:
    - {name: Fatima, os_user: %q, roles: [registrar, security-officer, service-administrator, auditor]}
    - {name: Khalid, certificates: [%q], roles: [registrar, security-officer, service-administrator]}
`, state, c.door(state, "r1"), c.door(state, "r1s"), c.door(state, "link"), c.door(state, "operations"), c.door("", "directory"), c.door(state, "directory"), me.Username, c.print(t, "khalid"))
}

// authority is the certificate of a state's authority, in a file.
func (c *council) authority(t *testing.T, state string) string {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(c.dir, "BH", "directory", "targets", state, "*.state.json"))
	check(t, err)
	if len(parts) == 0 {
		t.Fatalf("no part of %s", state)
	}
	var part struct {
		Authorities []struct{ Certificate string }
	}
	into(t, read(t, parts[0]), &part)
	file := filepath.Join(c.dir, "people", state+".pem")
	write(t, file, part.Authorities[0].Certificate)
	return file
}

// two has Fatima ask for a change, and Khalid agree to it over HTTPS.
func (c *council) two(t *testing.T, state string, args ...string) {
	t.Helper()
	r := do(t, nil, "falaj", append([]string{"--json", "--admin", filepath.Join(c.dir, state, "admin.sock")}, args...)...)
	if r.code != 5 {
		t.Fatalf("%s: code %d, wanted 5: it takes a second person\n%s%s", r.line, r.code, r.out, r.err)
	}
	var asked struct{ Change string }
	into(t, r.out, &asked)
	refused(t, "admin.second-person", "--admin", filepath.Join(c.dir, state, "admin.sock"), "approval", "approve", asked.Change)
	falaj(t, "--admin", "https://"+c.door(state, "directory"), "--authority", c.authority(t, state),
		"--cert", filepath.Join(c.dir, "people", "khalid", "cert.pem"), "--key", filepath.Join(c.dir, "people", "khalid", "key.pem"),
		"approval", "approve", asked.Change)
}
