package acceptance_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestTour takes the README's five-minute tour, line by line, beside a union on
// ports that are free. The
// one thing put in the place of another is the web server: nginx, which is
// here, for Python's, which may not be.
func TestTour(t *testing.T) {
	t.Parallel()
	top, err := filepath.Abs("../..")
	check(t, err)
	_, tour, ok := strings.Cut(read(t, filepath.Join(top, "README.md")), "## Five minutes")
	_, tour, ok2 := strings.Cut(tour, "```\n")
	tour, _, ok3 := strings.Cut(tour, "```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatal("the README has no tour")
	}
	u := startUp(t, filepath.Join(t.TempDir(), "union"), base(t))
	sa, err := url.Parse(u.node(t, "SA").R1)
	check(t, err)
	served := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		write(t, filepath.Join(served, name), read(t, filepath.Join(top, name)))
	}
	at := nginx(t, served, served)
	here := t.TempDir()
	check(t, os.Mkdir(filepath.Join(here, "bin"), 0o755))
	binary := strings.TrimSpace(do(t, nil, "sh", "-c", "command -v falaj").out)
	check(t, os.Symlink(binary, filepath.Join(here, "bin", "falaj")))

	server := regexp.MustCompile(`(?m)^python3 -m http.server (\d+) .*&$`)
	port := server.FindStringSubmatch(tour)
	if port == nil {
		t.Fatal("the tour starts no web server")
	}
	tour = server.ReplaceAllString(tour, ":")
	tour = strings.NewReplacer("http://127.0.0.1:"+port[1], at, "127.0.0.1:8110", sa.Host, "~/.falaj/up", u.Data, "/tmp/", here+"/", "\\\n", " ").Replace(tour)
	said := map[string]string{}
	for line := range strings.Lines(tour) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r := do(t, []string{"FALAJ_UP_DATA=" + u.Data}, "sh", "-c", "cd '"+here+"' && "+line)
		said[line] = r.out + r.err
		want := 0
		switch {
		case strings.Contains(line, "policy explain") && strings.Contains(line, "business"):
			want = 4 // no
		case strings.Contains(line, "/go.sum") && strings.Contains(line, "tour-1"):
			want = 1 // another call under an id that is taken
		}
		if r.code != want {
			t.Errorf("%s\ncode %d, wanted %d\n%s%s", line, r.code, want, r.out, r.err)
		}
	}
	for part, words := range map[string][]string{
		"-H 'Falaj-Purpose: traffic'":  {`"simulator":true`},
		"-H 'Falaj-Purpose: business'": {"policy.denied", "message_ar"},
		"policy explain":               {"denies"},
		"service add":                  {"access grant"},
		"/go.mod":                      {"module github.com/falaj/falaj", "tour-1"},
		"/go.sum":                      {"[request.id.conflict]"},
		"evidence show":                {"SA/n1", "BH/n1"},
		"evidence verify":              {"The evidence holds."},
		"evidence receipt":             {"c2sp.org/tlog-proof@v1"},
		"evidence export":              {"tour-1.asice"},
		"falaj verify":                 {"holds"},
		"falaj trace":                  {"allowed", "legal basis"},
		"audit changes":                {"service.added", "access.granted"},
		"doctor":                       {"✓ EG"},
	} {
		if err := among(said, part, words); err != nil {
			t.Error(err)
		}
	}
	u.all.stop(t, syscall.SIGINT)
}

// among looks for words in what a line of the tour said.
func among(said map[string]string, part string, words []string) error {
	for line, out := range said {
		if !strings.Contains(line, part) {
			continue
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				return fmt.Errorf("%s\ndoes not say %q: %s", line, w, out)
			}
		}
		return nil
	}
	return fmt.Errorf("the tour has no line with %s", part)
}
