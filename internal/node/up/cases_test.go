package up

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// TestCases: between two nodes a half that somebody took out of a database is
// found by its own state's fsck and by the other state's comparison, and the
// meters count.
func TestCases(t *testing.T) {
	dir := t.TempDir()
	p := play(t, dir, Deps{}, "BH", "SA")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.at("BH").R1+"/cases/", strings.NewReader(
		`{"service":"residence","peer":"SA","form":"apply","fields":{"residence_number":"784199012345676","name":"Fatima Hasan","birth":"1990-03-14","use":"bank"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"X-Road-Client": portal("BH").String(), "X-Road-Id": "first", "X-Road-UserId": "900101", "Content-Type": "application/json"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var r casework.Receipt
	err = json.NewDecoder(resp.Body).Decode(&r)
	if resp.Body.Close(); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status, err)
	}
	compared := func() (found []node.CasesCompared) {
		t.Helper()
		if _, err := p.admin("BH").Change(t.Context(), "case.reconcile", node.CasePeer{Peer: "SA"}, &found); err != nil {
			t.Fatal(err)
		}
		return found
	}
	soon := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	soon("the halves agree", func() bool { return len(compared()) == 0 })
	if _, body := ask(t, http.DefaultTransport, p.at("BH").Operations+"/metrics"); !strings.Contains(body, `falaj_cases_open{service="residence"} 1`) || !strings.Contains(body, "falaj_case_differences 0") {
		t.Errorf("meters: %s", body)
	}

	db := storetest.Open(t, store.Config{DSN: filepath.Join(dir, "SA", "node.db")})
	for _, table := range []string{"call", "act", "clock", "message", "event", "case"} {
		if _, err := db.Exec(t.Context(), `DELETE FROM casework_`+table); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := p.admin("SA").Save(t.Context(), "fsck", nil, &b, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	c, err := node.ReadFsck(&b, func(string, int64, int64) {})
	if err != nil || c.OK || !slices.ContainsFunc(c.Flaws, func(f node.Flaw) bool { return f.Place == "case" && f.Name == r.Case }) {
		t.Errorf("fsck: %+v %v", c, err)
	}
	found := compared()
	if len(found) != 1 || found[0].Peer != "SA" || found[0].Why != nil || len(found[0].Differences) != 1 || found[0].Differences[0].Case != r.Case || found[0].Differences[0].What != casework.DiffersMissing {
		t.Errorf("compared: %+v", found)
	}
	// Who asks for a comparison must be told why there is none.
	if _, err := p.admin("BH").Change(t.Context(), "case.reconcile", node.CasePeer{Peer: union.State("BH")}, nil); err == nil {
		t.Error("a state compared with itself")
	}
	if len(found) == 1 {
		soon("it is sent again", func() bool { return len(compared()) == 0 })
	}
}
