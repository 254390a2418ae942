package node

import (
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/casework/adoption"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// TestAdoption: the first adoption says what all later ones stand on, and a
// later one leaves alone what it does not name.
func TestAdoption(t *testing.T) {
	system, err := union.ParseSubsystem("BH/GOV/egov/cases")
	if err != nil {
		t.Fatal(err)
	}
	first := adoption.Adopted{Service: "loan", Version: 1, From: "2026-12-01"}
	for name, p := range map[string]ServiceAdopt{
		"no system":      {Adopt: &first, Zone: "Asia/Bahrain"},
		"no zone":        {Adopt: &first, System: system},
		"nothing":        {},
		"not a file":     {File: []byte(`{"x":1}`)},
		"a wrong zone":   {Adopt: &first, System: system, Zone: "Asia/Nowhere"},
		"a wrong date":   {Adopt: &adoption.Adopted{Service: "loan", Version: 1}, System: system, Zone: "Asia/Bahrain"},
		"another's file": {File: []byte(`{"system":"SA/GOV/egov/cases","zone":"Asia/Riyadh","weekend":[],"adopts":[]}`)},
	} {
		if _, _, err := p.adoption("BH", nil); fault.CodeOf(err) != fault.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, a, err := ServiceAdopt{Adopt: &first, System: system, Zone: "Asia/Bahrain"}.adoption("BH", nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Holidays = []adoption.Holiday{{From: "2026-12-16", Until: "2026-12-17", Name: union.Text{En: "National day", Ar: "العيد الوطني"}}}
	before, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	second := adoption.Adopted{Service: "loan", Version: 2, From: "2027-01-01"}
	old, a, err := ServiceAdopt{Adopt: &second}.adoption("BH", before)
	if err != nil || len(old.Adopts) != 1 || len(a.Adopts) != 2 || len(a.Holidays) != 1 || a.System != system {
		t.Errorf("%+v %v", a, err)
	}
	if old, _, err := (ServiceAdopt{Adopt: &first}).adoption("BH", []byte("{}")); err == nil || old != nil || !strings.Contains(err.Error(), "subsystem") {
		t.Errorf("what cannot be read was added to: %v", err)
	}
}
