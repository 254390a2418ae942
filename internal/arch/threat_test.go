package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreats: the tests that the threat model names exist, so that no threat
// is said to be tested by one that was renamed or removed.
func TestThreats(t *testing.T) {
	root := filepath.Join("..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	there := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(doc), -1)
	if len(named) < 40 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("the threat model names %s, and there is no such test", m[1])
		}
	}
	for i, line := range strings.Split(string(doc), "\n") {
		// A row of a table that has a column of tests names at least one.
		if strings.HasPrefix(line, "| ") && strings.Count(line, "|") >= 4 && !strings.HasPrefix(line, "| threat ") &&
			!strings.Contains(line, "`Test") && strings.Contains(section(string(doc), i), "| test |") {
			t.Errorf("line %d: a threat without a test: %s", i+1, line)
		}
	}
}

// section is the heading row of the table in which a line stands.
func section(doc string, line int) string {
	lines := strings.Split(doc, "\n")
	for line > 0 && strings.HasPrefix(lines[line-1], "|") {
		line--
	}
	return lines[line]
}
