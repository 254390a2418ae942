package acceptance_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seven are the states that take part where nobody says otherwise.
var seven = []string{"BH", "SA", "AE", "KW", "OM", "QA", "EG"}

// TestFirstRun: what a new user sees and does in the first minute. It has the
// machine for itself, as far as this room goes: it measures the start.
func TestFirstRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "union")
	began := time.Now()
	u := startUp(t, dir, base(t))
	t.Logf("from the start of the binary to the first answered call between two states, and the ready file: %v (goal: 2 s)", time.Since(began))
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("%v until everything answered", d)
	}
	if !slices.Equal(u.states(), seven) {
		t.Fatalf("the union is %v", u.states())
	}
	var printed string
	eventually(t, "the table", func() error {
		if printed = read(t, u.all.out); !strings.Contains(printed, "Ctrl-C") {
			return fmt.Errorf("not there yet: %q", printed)
		}
		return nil
	})
	for _, n := range u.Nodes {
		for _, cell := range []string{n.State, n.R1, n.Name.En, n.Name.Ar} {
			if cell == "" || !strings.Contains(printed, cell) {
				t.Errorf("the table lacks %q of %s", cell, n.State)
			}
		}
	}
	if len(u.Examples) != 3 {
		t.Errorf("%d examples", len(u.Examples))
	}
	for _, line := range u.Examples {
		if !strings.Contains(printed, line) {
			t.Errorf("not printed: %s", line)
		}
		r := do(t, nil, "sh", "-c", line)
		var entry struct {
			Simulator bool
			ID        string
		}
		if into(t, r.out, &entry); r.code != 0 || !entry.Simulator || entry.ID == "" {
			t.Errorf("pasted, %s\ngives %d: %s", line, r.code, r.out)
		}
		if r := do(t, nil, "sh", "-c", line+" -s -o /dev/null -w '%{http_code}'"); r.out != "200" {
			t.Errorf("status %s of %s", r.out, line)
		}
	}

	id := u.read(t, "SA", "BH", "vehicles")
	keys := snapshot(t, dir)
	before := u.Nodes
	u.all.stop(t, syscall.SIGINT)
	for _, left := range []string{"ready.json"} {
		if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
			t.Errorf("%s says of a stopped union that it answers", left)
		}
	}

	t.Run("a second run goes on", func(t *testing.T) {
		u := startUp(t, dir)
		for i, n := range u.Nodes {
			if n.R1 != before[i].R1 || n.Link != before[i].Link {
				t.Errorf("%s moved from %s to %s", n.State, before[i].R1, n.R1)
			}
		}
		u.read(t, "SA", "BH", "vehicles")
		e := evidence(t, u, "SA", id)
		if len(e.Halves) != 2 || len(e.Halves[0].Records) != 2 || len(e.Halves[1].Records) != 2 {
			t.Errorf("the first run's evidence: %+v", e)
		}
		if now := snapshot(t, dir); !slices.Equal(now, keys) {
			t.Errorf("the keys changed:\n%v\n%v", keys, now)
		}
		u.all.stop(t, syscall.SIGTERM)
	})
	t.Run("other ports", func(t *testing.T) {
		u := startUp(t, dir, "--base-port=0")
		if u.Nodes[0].R1 == before[0].R1 {
			t.Errorf("still %s", u.Nodes[0].R1)
		}
		u.read(t, "KW", "OM", "companies")
		u.all.stop(t, syscall.SIGINT)
	})
	t.Run("other states are refused", func(t *testing.T) {
		if said := refused(t, "admin.conflict", "up", "--data", dir, "--state", "BH,SA"); !strings.Contains(said, "--fresh") {
			t.Error(said)
		}
	})
	t.Run("fresh", func(t *testing.T) {
		u := startUp(t, dir, "--fresh", "--state", "bh,SA", base(t))
		if got := strings.Join(u.states(), " "); got != "BH SA" {
			t.Fatalf("the union is %s", got)
		}
		u.read(t, "SA", "BH", "persons")
		a := curl(t, "-H", "X-Road-Client: SA/GOV/egov/portal", u.node(t, "SA").R1+"/evidence/"+id)
		if a.status != 404 {
			t.Errorf("the old union's evidence: %d %s", a.status, a.body)
		}
		for _, key := range snapshot(t, dir) {
			if slices.Contains(keys, key) {
				t.Errorf("a key of the old union: %s", key)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "QA")); err == nil {
			t.Error("a state of the old union has its folder still")
		}
		u.all.stop(t, syscall.SIGTERM)
	})
}

// snapshot lists the key files of a union's folder with what is in them.
func snapshot(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "keys", "*.pem"))
	check(t, err)
	if len(files) == 0 {
		t.Fatal("there are no keys")
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		check(t, err)
		info, err := os.Stat(f)
		check(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
		rel, err := filepath.Rel(dir, f)
		check(t, err)
		out = append(out, rel+"\n"+string(b))
	}
	return out
}

// TestNotTwice: what stands in the way of a start is said, with what to do.
func TestNotTwice(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "union")
	u := startUp(t, dir, "--state=BH,SA", base(t))

	if said := refused(t, "admin.conflict", "up", "--data", dir); !strings.Contains(said, "--data") {
		t.Error(said)
	}
	if said := do(t, nil, "falaj", "--lang", "ar", "up", "--data", dir); said.code == 0 || !strings.Contains(said.err, "يتعارض") {
		t.Errorf("%d %s", said.code, said.err)
	}
	_, port, err := net.SplitHostPort(u.Nodes[0].Link)
	check(t, err)
	if said := refused(t, "node.port-taken", "up", "--data", filepath.Join(t.TempDir(), "other"), "--base-port", port); !strings.Contains(said, "--base-port") || !strings.Contains(said, port) {
		t.Error(said)
	}
	home := t.TempDir()
	write(t, filepath.Join(home, "letter.txt"), "mine")
	refused(t, "admin.conflict", "up", "--data", home, "--fresh")
	if b, err := os.ReadFile(filepath.Join(home, "letter.txt")); err != nil || string(b) != "mine" {
		t.Fatalf("a folder that is not a union's was emptied: %v", err)
	}
	for _, args := range [][]string{
		{"--state=BH,XX"}, {"--state=BH,BH"}, {"--base-port=80"}, {"--base-port=65530"}, {"--base-port=many"},
	} {
		refused(t, "cli.usage", append([]string{"up", "--data", filepath.Join(t.TempDir(), "x")}, args...)...)
	}
	u.read(t, "SA", "BH", "vehicles") // all that did it no harm
	u.all.stop(t, syscall.SIGINT)

	// Killed at the worst time: whatever the first start left is mended or
	// done anew by the next.
	dir = filepath.Join(t.TempDir(), "broken off")
	for i := range 6 {
		p := start(t, nil, "falaj", "up", "--data", dir, "--state=BH,SA", base(t))
		time.Sleep(time.Duration(i) * 60 * time.Millisecond)
		p.end(syscall.SIGKILL, patience)
	}
	u = startUp(t, dir, "--state=BH,SA", base(t))
	u.read(t, "BH", "SA", "vehicles")
	u.all.stop(t, syscall.SIGTERM)
}

// TestIdleSize weighs the union at rest.
func TestIdleSize(t *testing.T) {
	t.Parallel()
	u := startUp(t, filepath.Join(t.TempDir(), "union"), base(t))
	time.Sleep(10 * time.Second)
	kb := memory(t, u.all, "VmRSS")
	t.Logf("seven states and the secretariat, idle for 10 s: %d MiB resident (at most 250)", kb>>10)
	if kb > 250<<10 {
		t.Errorf("%d kB", kb)
	}
	u.all.stop(t, syscall.SIGTERM)
}

// TestFirstWords: the binary says what it is, in both languages.
func TestFirstWords(t *testing.T) {
	t.Parallel()
	if said := falaj(t, "--help"); !strings.Contains(said, "Usage: falaj") || !strings.Contains(said, "demonstration union") {
		t.Error(said)
	}
	if said := falaj(t, "--lang", "ar", "--help"); !strings.Contains(said, "الاستخدام: falaj") {
		t.Error(said)
	}
	var version struct{ Version, Go, Platform string }
	if into(t, falaj(t, "--json", "version"), &version); version.Version == "" || !strings.HasPrefix(version.Go, "go1.") {
		t.Errorf("%+v", version)
	}
	if said := falaj(t, "version"); !strings.HasPrefix(said, "falaj "+version.Version) {
		t.Error(said)
	}
	refused(t, "cli.usage", "down")
}
