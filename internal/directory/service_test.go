package directory_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
)

// travelled gives what a draft is after its journey to the next state.
func travelled(t testing.TB, dr *directory.Draft) *directory.Draft {
	t.Helper()
	raw, err := dr.Encode()
	must(t, err)
	dr, err = directory.DecodeDraft(raw)
	must(t, err)
	return dr
}

// TestDefinitions: what k of n states sign of a joint service all parties hold,
// byte for byte, also those that come later; what fewer sign nobody does.
func TestDefinitions(t *testing.T) {
	u := directorytest.New(t, four, nil)
	first := directory.Definition{Name: "residence-certificate", Version: 1, Text: []byte("falaj: service/1\nname: إقامة\n")}
	second := directory.Definition{Name: "residence-certificate", Version: 12, Text: []byte("falaj: service/1\r\n# two\n")}
	third := directory.Definition{Name: "a_b", Version: 999_999_999, Text: []byte{0xff, 0}}

	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	must(t, dr.AddDefinition(second))
	must(t, dr.AddDefinition(first))
	must(t, dr.AddDefinition(first))
	dr = travelled(t, dr)
	for _, s := range four[:2] {
		must(t, dr.Sign(key(t, u.Keys[s], directory.RootKey)))
	}
	dr = travelled(t, dr)
	if err := u.Dirs["SA"].Install(t.Context(), dr); err == nil || len(u.Dirs["SA"].View().Definitions()) != 0 {
		t.Fatalf("two of four: %v", err)
	}
	must(t, dr.AddDefinition(third)) // which voids the votes
	if got, _, _ := dr.Votes(); got != 0 {
		t.Fatalf("%d votes for what was not there", got)
	}
	vote(t, u, dr)
	must(t, u.Dirs["SA"].Install(t.Context(), travelled(t, dr)))
	u.Refresh()

	has := func(d *directory.Directory, want ...directory.Definition) {
		t.Helper()
		v := d.View()
		list := v.Definitions()
		if len(list) != len(want) {
			t.Fatalf("%d definitions", len(list))
		}
		for i, w := range want {
			b, ok := v.Definition(w.Name, w.Version)
			if !ok || !bytes.Equal(b, w.Text) || list[i].Name != w.Name || list[i].Version != w.Version || !bytes.Equal(list[i].Text, w.Text) {
				t.Errorf("%s@%d: %q %v", w.Name, w.Version, b, ok)
			}
		}
		for _, not := range []directory.Definition{{Name: "residence-certificate", Version: 2}, {Name: "residence", Version: 1}, {Version: 1}, {}} {
			if _, ok := v.Definition(not.Name, not.Version); ok {
				t.Errorf("%+v is there", not)
			}
		}
	}
	for _, d := range u.Dirs {
		has(d, third, first, second)
	}
	dir := t.TempDir()
	late := u.Open("AE", directory.Config{Dir: dir}, u.Keys["AE"])
	must(t, late.Refresh(t.Context()))
	has(late, third, first, second)
	has(u.Open("AE", directory.Config{Dir: dir}, u.Keys["AE"]), third, first, second) // from its own disk

	// A state's publication and the next change of the union leave them as they are.
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("x")))
	dr, err = u.Dirs["BH"].Draft()
	must(t, err)
	must(t, dr.SetQuorum(1))
	changed := first
	changed.Text = []byte("other")
	wantCode(t, dr.AddDefinition(changed), fault.DirectoryConflict, "residence-certificate@1")
	dr = travelled(t, dr)
	if n := len(dr.Definitions()); n != 3 {
		t.Fatalf("the draft holds %d", n)
	}
	vote(t, u, dr)
	must(t, u.Dirs["BH"].Install(t.Context(), dr))
	u.Refresh()
	for _, d := range u.Dirs {
		has(d, third, first, second)
	}
	if (&directory.View{}).Definitions() != nil {
		t.Error("a view of nothing has some")
	}
}

// TestDefinitionBounds: what a definition may be called, and how much of them
// there may be.
func TestDefinitionBounds(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	for _, d := range []directory.Definition{
		{"", 1, nil}, {"x", 0, nil}, {"x", -1, nil}, {"x", 1_000_000_000, nil}, {"X", 1, nil}, {"../x", 1, nil}, {"a/b", 1, nil}, {"a.b", 1, nil},
		{"إقامة", 1, nil}, {strings.Repeat("x", 65), 1, nil}, {"-x", 1, nil}, {"x", 1, make([]byte, 1<<20+1)},
	} {
		wantCode(t, dr.AddDefinition(d), fault.DirectoryInvalid, "")
	}
	for i := range 8 {
		d := directory.Definition{Name: "large", Version: i + 1, Text: make([]byte, 1<<20)}
		if err := dr.AddDefinition(d); (err == nil) != (i < 7) { // union.json is among the eight
			t.Errorf("%d: %v", i, err)
		}
	}
	dr, err = u.Dirs["SA"].Draft()
	must(t, err)
	for i := range 257 {
		d := directory.Definition{Name: fmt.Sprint("service-", i), Version: 1}
		if err := dr.AddDefinition(d); (err == nil) != (i < 256) {
			t.Errorf("%d: %v", i, err)
		}
	}
	// A state alone names no joint service.
	err = u.Dirs["BH"].Publish(t.Context(), func(e *directory.Edition) error {
		e.Files["../service/x/1.yaml"] = []byte("x")
		return nil
	})
	wantCode(t, err, fault.DirectoryInvalid, "not in its path")
	must(t, u.Dirs["BH"].Publish(t.Context(), func(e *directory.Edition) error {
		e.Files["casework.json"], e.Files["casework/fines.json"] = []byte("{}"), []byte("[]")
		return nil
	}))
	u.Refresh()
	if b, ok := u.Dirs["SA"].View().File("BH", "casework/fines.json"); !ok || string(b) != "[]" {
		t.Error("a state's table is not there")
	}
}
