package arch

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// brokenText names each thing in a tracked file that belongs to one machine
// or to unfinished work.
func brokenText(path string, text []byte, forbidden []forbidden) []string {
	if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
		return nil
	}
	var bad []string
	for i, line := range bytes.Split(text, []byte("\n")) {
		for _, f := range forbidden {
			if m := f.pattern.Find(line); m != nil {
				bad = append(bad, fmt.Sprintf("%s:%d: %q: %s", path, i+1, m, f.why))
			}
		}
	}
	return bad
}

type forbidden struct {
	pattern *regexp.Regexp
	why     string
}

// unwanted lists what no tracked file holds: marks of unfinished work, and
// folders and registry hosts of the machine that the test runs on.
func unwanted(folders, hosts []string) []forbidden {
	// Written in two parts, so that this file does not hold them either.
	list := []forbidden{
		{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`), "finish it, or write an issue"},
		{regexp.MustCompile(`(^|[^\w./-])/(home|Users)` + `/\w`), "a path of one machine"},
	}
	for _, dir := range folders {
		if dir = strings.TrimSuffix(dir, "/"); dir != "" && dir != strings.TrimSuffix(os.TempDir(), "/") {
			list = append(list, forbidden{regexp.MustCompile(`(^|[^\w.-])` + regexp.QuoteMeta(dir+"/")), "a path of this machine"})
		}
	}
	for _, host := range hosts {
		list = append(list, forbidden{regexp.MustCompile(`\b` + regexp.QuoteMeta(host) + `\b`), "a registry's host is for each machine to choose"})
	}
	return list
}

func TestTree(t *testing.T) {
	top := root(t)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	words := unwanted([]string{top, filepath.Dir(top), home}, registries(t))
	for _, path := range tracked(t, top) {
		text, err := os.ReadFile(filepath.Join(top, path))
		if os.IsNotExist(err) {
			continue // deleted, not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range brokenText(path, text, words) {
			t.Error(bad)
		}
		if isScript(path) {
			for _, bad := range brokenScript(path, text) {
				t.Error(bad)
			}
		}
	}
}

// isScript tells a testscript from other files.
func isScript(path string) bool {
	ext := filepath.Ext(path)
	return strings.Contains(path, "testdata/") && (ext == ".txtar" || ext == ".txt")
}

// brokenScript finds a command test that skips itself.
func brokenScript(path string, text []byte) []string {
	var bad []string
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "-- ") { // the files that the script brings
			break
		}
		if skipLine.MatchString(line) && !strings.Contains(line, "shared/data") {
			bad = append(bad, fmt.Sprintf("%s:%d: skips for another reason than an absent ../shared/data", path, i+1))
		}
	}
	return bad
}

var skipLine = regexp.MustCompile(`^\s*(\[[^]]*\]\s*)*skip\b`)

// registries asks the go command which hosts it gets modules from.
func registries(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOPROXY", "GOSUMDB").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	return hostsIn(string(out))
}

var hostPattern = regexp.MustCompile(`(?:https?://(?:[^/@\s,|]*@)?)?([a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,})\b`)

func hostsIn(settings string) []string {
	var hosts []string
	for _, m := range hostPattern.FindAllStringSubmatch(settings, -1) {
		if !slices.Contains(hosts, m[1]) {
			hosts = append(hosts, m[1])
		}
	}
	return hosts
}

// tracked lists the files that a clone would hold. Each folder is read too,
// so that the go command tests anew when a file comes or goes.
func tracked(t *testing.T, top string) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	seen := map[string]bool{}
	for _, f := range files {
		if dir := filepath.Dir(f); !seen[dir] {
			seen[dir] = true
			if _, err := os.ReadDir(filepath.Join(top, dir)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	return files
}

// TestDependenciesHaveReasons holds go.mod and docs/dependencies.md to each
// other.
func TestDependenciesHaveReasons(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root(t), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, p := range packages(t) {
		imports = slices.Concat(imports, p.Imports, p.TestImports, p.XTestImports)
	}
	for _, bad := range brokenDependencies(t, mod, doc, imports) {
		t.Error(bad)
	}
}

var dependencyRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|[^|\n]+\\|[^|\n]+\\|$")

func brokenDependencies(t *testing.T, mod, doc []byte, imports []string) []string {
	t.Helper()
	file, err := modfile.Parse("go.mod", mod, nil)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range dependencyRow.FindAllSubmatch(doc, -1) {
		told[string(m[1])] = true
	}
	var bad []string
	for _, r := range file.Require {
		if r.Indirect {
			if slices.ContainsFunc(imports, func(imp string) bool { return within(imp, r.Mod.Path) }) {
				bad = append(bad, "go.mod calls "+r.Mod.Path+" indirect, and the module imports it")
			}
			continue
		}
		if !told[r.Mod.Path] {
			bad = append(bad, "docs/dependencies.md does not say what "+r.Mod.Path+" is for")
		}
		delete(told, r.Mod.Path)
	}
	for path := range told {
		bad = append(bad, "docs/dependencies.md tells of "+path+", which go.mod does not require")
	}
	return bad
}

// TestRoomsAreToldOf keeps CONTRIBUTING.md's table and the one here equal.
func TestRoomsAreToldOf(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range untold(text) {
		t.Error(bad)
	}
}

var roomRow = regexp.MustCompile("(?m)^\\| (\\d+) \\| `([^`]+)` \\|")

func untold(text []byte) []string {
	told := map[string]string{}
	for _, m := range roomRow.FindAllSubmatch(text, -1) {
		told[string(m[2])] = string(m[1])
	}
	var bad []string
	for _, r := range rooms {
		if told[r.path] != fmt.Sprint(r.level) {
			bad = append(bad, fmt.Sprintf("CONTRIBUTING.md does not say that %s is on level %d", r.path, r.level))
		}
		delete(told, r.path)
	}
	for path := range told {
		bad = append(bad, "CONTRIBUTING.md tells of a room "+path+" that internal/arch/arch_test.go lacks")
	}
	return bad
}

// TestRulesSeeTree shows that each rule about files refuses what it is for.
func TestRulesSeeTree(t *testing.T) {
	words := unwanted([]string{"/srv/build/falaj", "/", os.TempDir()}, hostsIn("https://modules.example.net,direct\nsums.example.org+key\n"))
	text := func(s string) []string { return brokenText("a.md", []byte(s), words) }
	mod := []byte("module m\nrequire (\n\ta.example/one v1.0.0\n\ta.example/two v1.0.0 // indirect\n)\n")
	var table strings.Builder
	for _, r := range rooms[1:] {
		fmt.Fprintf(&table, "| %d | `%s` | words |\n", r.level, r.path)
	}
	first := fmt.Sprintf("| %d | `%s` | words |\n", rooms[0].level, rooms[0].path)
	tests := []struct {
		name string
		got  []string
		want string
	}{
		{"a mark", text("// TO" + "DO: later"), "finish it"},
		{"the checkout", text("see /srv/build/falaj/bin"), "this machine"},
		{"a home", text("data: /ho" + "me/layla/x"), "one machine"},
		{"a registry", text("from https://modules.example.net/x"), "registry"},
		{"the other registry", text("sums.example.org"), "registry"},
		{"plain words", text("data: /var/lib/falaj, todo, /tmp/x, https://example.net"), ""},
		{"not a text", text("\x00 FIX" + "ME"), ""},
		{"a script that skips", brokenScript("a.txtar", []byte("exec falaj\n[!exec:nginx] skip\n")), "another reason"},
		{"a script for want of data", brokenScript("a.txtar", []byte("[!data] skip 'no ../shared/data'\n")), ""},
		{"a script's file", brokenScript("a.txtar", []byte("exec falaj\n-- f --\nskip\n")), ""},
		{"a silent dependency", brokenDependencies(t, mod, nil, nil), "does not say"},
		{"one with its reason", brokenDependencies(t, mod, []byte("| `a.example/one` | MIT | counting |\n"), nil), ""},
		{"one without a reason", brokenDependencies(t, mod, []byte("| `a.example/one` | MIT |\n"), nil), "does not say"},
		{"one that is called indirect", brokenDependencies(t, mod, []byte("| `a.example/one` | MIT | counting |\n"), []string{"a.example/two/sub"}), "calls a.example/two indirect"},
		{"one that left", brokenDependencies(t, []byte("module m\n"), []byte("| `a.example/one` | MIT | counting |\n"), nil), "does not require"},
		{"an untold room", untold([]byte(table.String())), "does not say"},
		{"all rooms told", untold([]byte(table.String() + first)), ""},
		{"a room that left", untold([]byte(table.String() + first + "| 4 | `internal/attic` | words |\n")), "lacks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantBreach(t, tt.got, tt.want) })
	}
}
