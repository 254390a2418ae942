package traffic_test

import (
	"testing"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/services/traffic"
)

func compiled(t testing.TB) *definition.Program {
	t.Helper()
	d, err := definition.Read(traffic.Definition)
	if err != nil {
		t.Fatal(err)
	}
	p, err := definition.Compile(d, traffic.Hooks(traffic.Example()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNothingToFind(t *testing.T) {
	found, m := definition.Lint(compiled(t).Definition())
	t.Logf("%d configurations, %d under way, complete: %t", m.Configurations, m.Underway, m.Complete)
	for _, f := range found {
		t.Errorf("%s %s %s: %s", f.Severity, f.Rule, f.Where, f.Text.En)
	}
}

func TestScenarios(t *testing.T) {
	p := compiled(t)
	all, err := definition.ReadScenarios(traffic.Scenarios)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			trace, err := p.Play(t.Context(), s)
			if err != nil {
				t.Fatalf("%v\n%s", err, trace)
			}
		})
	}
}
