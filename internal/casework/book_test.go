package casework

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/casework/adoption"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// What cannot be read or run is as if it were not there, is said once in the
// log, and why whenever somebody asks.
func TestLibrary(t *testing.T) {
	u := directorytest.New(t, []union.State{"BH", "SA"}, func(s union.State, e *directory.Edition) {
		e.Files[adoption.File] = []byte(map[union.State]string{
			"BH": `{"system":"BH/GOV/egov/cases","zone":"Asia/Bahrain","weekend":["Fri"],"adopts":[{"service":"permit","version":1,"from":"2026-01-01"},{"service":"broken","version":1,"from":"2026-01-01"},{"service":"later","version":1,"from":"2026-01-01"}]}`,
			"SA": `{"system":1}`,
		}[s])
	})
	dr, err := u.Dirs["BH"].Draft()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	must(dr.AddDefinition(directory.Definition{Name: "permit", Version: 1, Text: []byte(permit)}))
	must(dr.AddDefinition(directory.Definition{Name: "broken", Version: 1, Text: []byte("falaj: service/9\n")}))
	for _, s := range []union.State{"BH", "SA"} {
		k, err := u.Keys[s].Signer(directory.RootKey)
		must(err)
		must(dr.Sign(k))
	}
	must(u.Dirs["BH"].Install(t.Context(), dr))
	var log strings.Builder
	l := NewLibrary("BH", nil, func() (*directory.View, error) { return u.Dirs["BH"].View(), nil }, slog.New(slog.NewTextHandler(&log, nil)))
	for range 2 {
		l.book = nil // as after each change of the directory
		b, err := l.Book()
		must(err)
		if p, err := b.Program("permit", 1); err != nil || p.Definition().Name != "permit" {
			t.Errorf("permit: %v", err)
		}
		for name, why := range map[string]string{"broken": "cannot run it: ", "later": "signed none"} {
			if _, err := b.Program(name, 1); fault.CodeOf(err) != fault.CaseVersion || !strings.Contains(fault.From(err).Detail, why) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, ok := b.Version("permit", "SA", time.Now()); ok {
			t.Error("what cannot be read adopts a version")
		}
		found, err := l.Problems()
		must(err)
		if len(found) != 3 {
			t.Errorf("%q", found)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
		t.Errorf("%d errors are logged, not one of the adoption and one of the definition:\n%s", n, log.String())
	}
}
