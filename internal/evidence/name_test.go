package evidence

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestNames holds the reader of names against the form in words of a regular
// expression (docs/protocols/evidence.md §1).
func TestNames(t *testing.T) {
	form := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*(/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*){0,8}$`)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOfN(rapid.RuneFrom([]rune("aZ09-_./\\ \n\x00م")), 0, 24, -1).Draw(t, "name")
		if got, want := allowed(name), form.MatchString(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	})
	for name, want := range map[string]bool{
		strings.Repeat("a/", 8) + "a": true, strings.Repeat("a/", 9) + "a": false,
		strings.Repeat("a", maxName): true, strings.Repeat("a", maxName+1): false,
	} {
		if allowed(name) != want {
			t.Errorf("%q", name)
		}
	}
}
