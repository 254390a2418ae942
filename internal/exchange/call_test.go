package exchange

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
)

func TestOneCall(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", "yes")
		fmt.Fprintf(w, "%s %s for %s", r.Method, r.RequestURI, r.Header.Get("Falaj-Purpose"))
	})
	a := u.call("SA", "GET", offered("BH", "things"), "/a/%D8%A7?x=1&x=2", nil)
	if a.status != 200 || string(a.body) != "GET /a/%D8%A7?x=1&x=2 for test" || a.header.Get("X-Backend") != "yes" {
		t.Fatalf("%d %s %v", a.status, a.body, a.header)
	}
	for name, want := range map[string]string{
		"X-Road-Client": "SA/GOV/office/desk", "X-Road-Service": "BH/GOV/office/desk/things", "X-Road-Error": "",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, wanted %q", name, got, want)
		}
	}
	for _, name := range []string{"X-Road-Id", "X-Road-Request-Id", "X-Road-Request-Hash"} {
		if a.header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
	e, err := u.nodes["SA"].Evidence(t.Context(), a.header.Get("X-Road-Id"), Reader{Name: "auditor", May: func(_, _ union.SubsystemID) bool { return true }}, Page{})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, h := range e.Halves {
		for _, r := range h.Records {
			kinds = append(kinds, string(h.State)+" "+r.Kind)
		}
	}
	if got := strings.Join(kinds, ", "); len(kinds) != 4 {
		t.Errorf("evidence: %s; missing: %s", got, e.Missing)
	}
	checks, err := u.nodes["SA"].VerifyEvidence(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if !c.OK {
			t.Errorf("%s: %s", c.What, c.Detail)
		}
	}
}
