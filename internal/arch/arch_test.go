// Package arch holds the house to its plan: which room may import which, what
// each may take from outside, and the habits that a program can check. It has
// no code of its own. CONTRIBUTING.md says the same in words.
package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/falaj/falaj"

// A room is a package with everything beneath it, unless that is a room of
// its own. It imports rooms of a level up to sees; its tests may also import
// rooms of its own level.
type room struct {
	path  string
	level int
	sees  int
}

var rooms = []room{
	{"internal/arch", 0, -1},
	{"internal/union", 0, -1},
	{"internal/fault", 0, -1},
	{"internal/p256", 0, -1},
	{"internal/merkle", 1, 0},
	{"internal/policy", 1, 0},
	{"internal/registry", 1, 0},
	{"internal/seal", 1, 0},
	{"internal/stamp", 1, 0},
	{"internal/casework/calendar", 1, 0},
	{"internal/store", 1, 0},
	{"internal/casework/adoption", 2, 1},
	{"internal/casework/definition", 2, 1},
	{"internal/directory", 2, 1},
	{"internal/evidence", 2, 1},
	{"internal/journal", 2, 1},
	{"internal/ledger", 2, 1},
	{"internal/witness", 2, 1},
	{"verify", 2, 1},
	{"internal/exchange", 3, 2},
	{"internal/exchange/link", 3, 2},
	{"internal/exchange/message", 3, 2},
	{"internal/casework", 4, 3},
	{"internal/services", 5, 4},
	{"internal/bench", 7, 6},
	{"internal/node", 7, 6},
	{"internal/cli", 8, 7},
	{"internal/acceptance", 9, 8},
	{"cmd/falaj", 9, 8},
}

// siblings lists which room may import which of its own level, and why the
// two are not one.
var siblings = map[string][]string{
	"internal/fault":    {"internal/union"},                                      // texts in both languages
	"internal/exchange": {"internal/exchange/link", "internal/exchange/message"}, // the pipeline stands on both; neither knows it
	"verify":            {"internal/evidence"},                                   // reads the container, which sees no directory either
	"internal/bench":    {"internal/node"},                                       // measures what node wires
}

// A fence says who may import a package from outside the house. Path "a/b"
// covers "a/b/…"; no rooms means nobody.
type fence struct {
	path  string
	rooms []string
	tests bool // tests of other rooms may
	why   string
}

var fences = []fence{
	{"filippo.io/nistec", []string{"internal/p256"}, false, "only p256 adds points itself"},
	{"modernc.org/sqlite", []string{"internal/store"}, false, "only store opens databases"},
	{"github.com/jackc/pgx", []string{"internal/store"}, false, "only store opens databases"},
	{"github.com/pressly/goose", []string{"internal/store"}, false, "only store migrates databases"},
	{"github.com/cedar-policy/cedar-go", []string{"internal/policy"}, false, "only policy evaluates rules"},
	{"github.com/google/cel-go", []string{"internal/casework/definition"}, false, "only definition evaluates expressions"},
	{"github.com/santhosh-tekuri/jsonschema", []string{"internal/casework/definition"}, true, "only definition holds data against schemas"},
	{"github.com/theupdateframework/go-tuf", []string{"internal/directory"}, false, "only directory reads signed metadata"},
	{"github.com/alecthomas/kong", []string{"internal/cli", "cmd/falaj"}, false, "only cli parses command lines"},
	{"log", nil, false, "log/slog is the logger"},
	{"log/slog", everywhere, true, ""},
	{"math/rand", nil, false, "math/rand/v2 from a seed, crypto/rand for secrets"},
	{"math/rand/v2", everywhere, true, ""},
	{"io/ioutil", nil, false, "io and os have it"},
	{"unsafe", nil, false, "nothing here needs it"},
	{"C", nil, false, "no cgo"},
	{"plugin", nil, false, "one binary"},
	{"expvar", nil, false, "it registers itself on the default mux"},
	{"net/http/pprof", nil, false, "it registers itself on the default mux"},
	{"os/exec", nil, true, "a node starts no programs"},
	{"reflect", []string{"internal/registry", "internal/node", "internal/bench", "internal/cli"}, true, "no reflection in levels 0 to 3"},
	{"net/http", []string{"internal/registry", "internal/directory", "internal/exchange", "internal/casework", "internal/node", "internal/bench", "internal/cli"}, true, "no HTTP beneath the rooms that speak it"},
	{"net/http/httputil", []string{"internal/bench"}, true, "exchange hands bytes on itself; bench measures the stock proxy"},
}

var everywhere = []string{""}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath, Name, Doc, Dir                         string
	GoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports                 []string
}

func (p pkg) path() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// roomOf finds the room that a path in the module belongs to: the longest.
func roomOf(path string) (room, bool) {
	var best room
	for _, r := range rooms {
		if within(path, r.path) && len(r.path) >= len(best.path) {
			best = r
		}
	}
	return best, best.path != ""
}

// within tells whether a path is the prefix or lies beneath it.
func within(path, prefix string) bool {
	return prefix == "" || path == prefix || strings.HasPrefix(path, prefix+"/")
}

// isTest tells whether a package is there for tests alone, such as storetest.
func isTest(p pkg) bool { return strings.HasSuffix(p.Name, "test") }

// brokenLayers names each import in the house that the plan forbids.
func brokenLayers(p pkg) []string {
	from, ok := roomOf(p.path())
	if !ok {
		return []string{fmt.Sprintf("%s is in no room: give it a level in internal/arch/arch_test.go and a line in CONTRIBUTING.md", p.ImportPath)}
	}
	var bad []string
	check := func(imports []string, sees int, what string) {
		for _, imp := range imports {
			if !within(imp, module) {
				continue
			}
			path := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			to, ok := roomOf(path)
			if !ok || to.path == from.path || to.level <= sees || slices.Contains(siblings[from.path], to.path) {
				continue
			}
			bad = append(bad, fmt.Sprintf("%s (level %d) %s %s (level %d)", p.path(), from.level, what, path, to.level))
		}
	}
	if !isTest(p) {
		for _, imp := range p.Imports {
			if within(imp, module) && strings.HasSuffix(imp, "test") {
				bad = append(bad, fmt.Sprintf("%s imports %s, which is for tests", p.path(), strings.TrimPrefix(imp, module+"/")))
			}
		}
	}
	check(p.Imports, from.sees, "imports")
	check(slices.Concat(p.TestImports, p.XTestImports), max(from.sees, from.level), "has a test that imports")
	return bad
}

// brokenFences names each import from outside that its room may not have.
func brokenFences(p pkg) []string {
	from, _ := roomOf(p.path())
	var bad []string
	check := func(imports []string, test bool) {
		for _, imp := range imports {
			var f fence
			for _, g := range fences {
				if within(imp, g.path) && len(g.path) >= len(f.path) {
					f = g
				}
			}
			if f.path == "" || test && f.tests {
				continue
			}
			if !slices.ContainsFunc(f.rooms, func(r string) bool { return r == "" || r == from.path }) {
				bad = append(bad, fmt.Sprintf("%s imports %s: %s", p.path(), imp, f.why))
			}
		}
	}
	check(p.Imports, isTest(p))
	check(slices.Concat(p.TestImports, p.XTestImports), true)
	return bad
}

// badNames names each package called after nothing, or without a comment.
func badNames(p pkg) []string {
	var bad []string
	last := filepath.Base(p.path())
	for _, no := range []string{"util", "common", "helper", "manager", "base", "misc", "lib"} {
		if p.Name == no || last == no || last == no+"s" {
			bad = append(bad, fmt.Sprintf("%s: %q says nothing of what is in it", p.path(), last))
		}
	}
	if len(p.GoFiles) > 0 && p.Doc == "" {
		bad = append(bad, p.path()+" has no package comment that says what room it is")
	}
	return bad
}

func TestRooms(t *testing.T) {
	for _, p := range packages(t) {
		for _, bad := range slices.Concat(brokenLayers(p), brokenFences(p), badNames(p)) {
			t.Error(bad)
		}
	}
}

// TestRulesSeeRooms shows that each rule about packages refuses what it is for.
func TestRulesSeeRooms(t *testing.T) {
	at := func(path string) string { return module + "/" + path }
	tests := []struct {
		name string
		pkg  pkg
		rule func(pkg) []string
		want string // part of the one breach, or "" for none
	}{
		{"upward", pkg{ImportPath: at("internal/store"), Imports: []string{at("internal/journal")}}, brokenLayers, "store (level 1) imports internal/journal (level 2)"},
		{"sideways", pkg{ImportPath: at("internal/journal"), Imports: []string{at("internal/directory")}}, brokenLayers, "imports internal/directory"},
		{"sideways in a test", pkg{ImportPath: at("internal/journal"), XTestImports: []string{at("internal/directory")}}, brokenLayers, ""},
		{"upward in a test", pkg{ImportPath: at("internal/journal"), XTestImports: []string{at("internal/node")}}, brokenLayers, "has a test that imports internal/node"},
		{"a sibling of the table", pkg{ImportPath: at("internal/exchange"), Imports: []string{at("internal/exchange/link")}}, brokenLayers, ""},
		{"the table's other way", pkg{ImportPath: at("internal/exchange/link"), Imports: []string{at("internal/exchange")}}, brokenLayers, "imports internal/exchange"},
		{"beneath its own room", pkg{ImportPath: at("internal/node"), Imports: []string{at("internal/node/config")}}, brokenLayers, ""},
		{"a room that sees less than its level", pkg{ImportPath: at("internal/registry"), Imports: []string{at("internal/store")}}, brokenLayers, "imports internal/store"},
		{"no room", pkg{ImportPath: at("internal/shed")}, brokenLayers, "is in no room"},
		{"downward", pkg{ImportPath: at("internal/journal"), Imports: []string{at("internal/store"), at("internal/fault")}}, brokenLayers, ""},
		{"a driver", pkg{ImportPath: at("internal/journal"), Imports: []string{"modernc.org/sqlite"}}, brokenFences, "only store"},
		{"a driver's package", pkg{ImportPath: at("internal/journal"), TestImports: []string{"github.com/jackc/pgx/v5/pgxpool"}}, brokenFences, "only store"},
		{"a driver in store", pkg{ImportPath: at("internal/store"), Imports: []string{"github.com/jackc/pgx/v5/stdlib"}}, brokenFences, ""},
		{"the old logger", pkg{ImportPath: at("internal/node"), Imports: []string{"log"}}, brokenFences, "log/slog"},
		{"the new logger", pkg{ImportPath: at("internal/node"), Imports: []string{"log/slog"}}, brokenFences, ""},
		{"the old dice", pkg{ImportPath: at("internal/union"), TestImports: []string{"math/rand"}}, brokenFences, "v2"},
		{"the new dice", pkg{ImportPath: at("internal/union"), Imports: []string{"math/rand/v2"}}, brokenFences, ""},
		{"HTTP low down", pkg{ImportPath: at("internal/seal"), Imports: []string{"net/http"}}, brokenFences, "no HTTP"},
		{"HTTP in a low room's test", pkg{ImportPath: at("internal/seal"), TestImports: []string{"net/http/httptest"}}, brokenFences, ""},
		{"reflection", pkg{ImportPath: at("internal/exchange/link"), Imports: []string{"reflect"}}, brokenFences, "no reflection"},
		{"another program", pkg{ImportPath: at("internal/node"), Imports: []string{"os/exec"}}, brokenFences, "starts no programs"},
		{"another program in a tests' package", pkg{ImportPath: at("internal/store/storetest"), Name: "storetest", Imports: []string{"os/exec"}}, brokenFences, ""},
		{"a tests' package in the house", pkg{ImportPath: at("internal/journal"), Name: "journal", Imports: []string{at("internal/store/storetest")}}, brokenLayers, "is for tests"},
		{"a tests' package in a test", pkg{ImportPath: at("internal/journal"), Name: "journal", TestImports: []string{at("internal/store/storetest")}}, brokenLayers, ""},
		{"the name", pkg{ImportPath: at("internal/node/utils"), Name: "utils", Doc: "Package utils."}, badNames, "says nothing"},
		{"the comment", pkg{ImportPath: at("internal/node"), Name: "node", GoFiles: []string{"node.go"}}, badNames, "no package comment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantBreach(t, tt.rule(tt.pkg), tt.want) })
	}
}

func wantBreach(t *testing.T, got []string, want string) {
	t.Helper()
	if want == "" {
		if len(got) != 0 {
			t.Errorf("refused %q", got)
		}
		return
	}
	if len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("got %q, wanted one breach with %q", got, want)
	}
}

// packages asks the go command for every package of the module, files of long
// runs included. That a package does not build is for the build to say (-e).
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-tags", "soak,dss", "-json", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

// root is the folder that holds go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}
