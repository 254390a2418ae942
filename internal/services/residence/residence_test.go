package residence_test

import (
	"testing"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/services/residence"
)

func TestScenarios(t *testing.T) {
	d, err := definition.Read(residence.Definition)
	if err != nil {
		t.Fatal(err)
	}
	p, err := definition.Compile(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := definition.ReadScenarios(residence.Scenarios)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			trace, err := p.Play(t.Context(), s)
			if err != nil {
				t.Fatalf("%v\n%s", err, trace)
			}
			t.Log("\n" + trace.String())
		})
	}
}

func TestNothingToFind(t *testing.T) {
	d, err := definition.Read(residence.Definition)
	if err != nil {
		t.Fatal(err)
	}
	found, _ := definition.Lint(d)
	for _, f := range found {
		t.Errorf("%s %s %s: %s", f.Severity, f.Rule, f.Where, f.Text.En)
	}
}
