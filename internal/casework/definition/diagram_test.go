package definition

import (
	"os"
	"testing"
)

// TestDiagram compares with what was looked at, and read by Mermaid.
func TestDiagram(t *testing.T) {
	d := made(t, clean(t))
	for _, lang := range []string{"en", "ar"} {
		want, err := os.ReadFile("testdata/loan." + lang + ".md")
		if err != nil {
			t.Fatal(err)
		}
		if got := Diagram(d, lang); got != string(want) {
			t.Errorf("testdata/loan.%s.md is not\n%s", lang, got)
		}
	}
}
