package definition

import (
	"os"
	"testing"
	"time"
)

func residence(t testing.TB) *Program {
	t.Helper()
	b, err := os.ReadFile("../../services/residence/residence.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// BenchmarkStep takes the step of the certificate of residence that does most:
// a register's answer, a guard over seven facts, two facts set, a message, a
// decision, two deadlines.
func BenchmarkStep(b *testing.B) {
	p := residence(b)
	h := Half{Party: "host", State: "CHECKING", Opened: noon, Facts: Values{"residence_number": "784199012345676", "name": "Fatima Hasan", "birth": "1990-03-14"}}
	in := Input{Trigger: "register", At: noon, Status: 200, Fields: Values{"match": true, "resident": true, "number": "AE-1", "address": "Street 12, Abu Dhabi", "since": "2021-09-01"}}
	b.ReportAllocs()
	for b.Loop() {
		out, err := p.Step(b.Context(), h, in)
		if err != nil || out.State != "ISSUED" {
			b.Fatal(out, err)
		}
	}
}

func BenchmarkStepForm(b *testing.B) {
	p := residence(b)
	h, err := p.Open("home", noon, noon)
	if err != nil {
		b.Fatal(err)
	}
	in := Input{Trigger: "apply", At: noon, Actor: Actor{Role: "applicant"}, Fields: Values{"residence_number": "784199012345676", "name": "Fatima Hasan", "birth": "1990-03-14", "use": "bank"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Step(b.Context(), h, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	text, err := os.ReadFile("../../services/residence/residence.yaml")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := Read(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Compile(d, nil); err != nil {
			b.Fatal(err)
		}
	}
}
