package up

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
)

// TestKeep: records of a closed month are archived, read, exported and proved
// from the archive, held, erased; and all of it is whole to fsck.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	p := play(t, dir, Deps{}, "BH", "SA")
	for _, id := range []string{"old", "other"} {
		if resp, body := p.call("SA", "BH/GOV/interior/traffic/registry", "/vehicles", "X-Road-Id: "+id); resp.StatusCode != 200 {
			t.Fatal(resp.Status, body)
		}
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = play(t, dir, Deps{Now: func() time.Time { return time.Now().AddDate(0, 0, 33) }}, "BH", "SA")
	sa := p.admin("SA")
	ask := func(query, id string, out any) error {
		return sa.Query(t.Context(), query, url.Values{"id": {id}}, out)
	}
	fsck := func() node.Checked {
		t.Helper()
		var b bytes.Buffer
		if err := sa.Save(t.Context(), "fsck", nil, &b, func(int64, int64) {}); err != nil {
			t.Fatal(err)
		}
		c, err := node.ReadFsck(&b, func(string, int64, int64) {})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	_, err := sa.Change(t.Context(), "journal.archive", node.Archive{Before: "2999-01"}, nil)
	wantRefusal(t, err, fault.BadRequest)
	var done node.Archived
	for done.More = true; done.More; {
		if _, err := sa.Change(t.Context(), "journal.archive", node.Archive{Compact: true}, &done); err != nil {
			t.Fatal(err)
		}
	}
	if len(done.Files) != 1 || done.Files[0].First != 0 || done.Files[0].Count < 4 {
		t.Fatalf("%+v", done)
	}
	var e exchange.Evidence
	whole := func() {
		t.Helper()
		if err := ask("evidence", "old", &e); err != nil || len(e.Halves) != 2 || len(e.Halves[0].Records) != 2 {
			t.Fatalf("%+v %v", e, err)
		}
		var v node.Verification
		if err := ask("verification", "old", &v); err != nil || !v.OK {
			t.Errorf("%+v %v", v, err)
		}
		var file bytes.Buffer
		if err := sa.Save(t.Context(), "container", url.Values{"id": {"old"}}, &file, func(int64, int64) {}); err != nil || file.Len() < 1000 {
			t.Errorf("%d bytes, %v", file.Len(), err)
		}
		var r exchange.CallReceipt
		for end := time.Now().Add(20 * time.Second); r.ID == "" && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			err = ask("receipt", "old", &r)
		}
		if err != nil || len(r.Records) != 2 {
			t.Errorf("%+v %v", r, err)
		}
		if c := fsck(); !c.OK || len(c.Gaps) > 0 {
			t.Errorf("%+v", c)
		}
	}
	whole()

	folder := filepath.Join(dir, "SA", "archive")
	if err := os.Rename(folder, folder+"-away"); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, ask("evidence", "old", &e), fault.Archived)
	if c := fsck(); !c.OK || len(c.Gaps) != 1 || c.Gaps[0].Detail != filepath.Join(folder, done.Files[0].File) {
		t.Errorf("%+v", c)
	}
	if err := os.Rename(folder+"-away", folder); err != nil {
		t.Fatal(err)
	}
	whole()

	var leaves []int64
	for _, r := range e.Halves[0].Records {
		leaves = append(leaves, r.Leaf)
	}
	erase := node.Erase{Leaves: leaves, Reason: "a court's order"}
	if _, err := sa.Change(t.Context(), "hold.add", node.HoldAdd{Name: "case-7", Leaves: leaves, Reason: "a suit"}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = sa.Change(t.Context(), "hold.add", node.HoldAdd{Name: "case-7", Class: "exchange", Reason: "a suit"}, nil)
	wantRefusal(t, err, fault.Conflict)
	for month, want := range map[string]fault.Code{"1999-12": fault.NotFound, "2999-01": fault.BadRequest} {
		_, err = sa.Change(t.Context(), "hold.add", node.HoldAdd{Name: "case-8", Class: "exchange", Month: month, Reason: "a suit"}, nil)
		wantRefusal(t, err, want)
	}
	_, err = sa.Change(t.Context(), "hold.add", node.HoldAdd{Name: "Bad Name", Class: "exchange", Reason: "a suit"}, nil)
	if wantRefusal(t, err, fault.BadRequest); !strings.Contains(err.Error(), `name of a hold "Bad Name"`) {
		t.Error(err)
	}
	if _, err := sa.Change(t.Context(), "hold.add", node.HoldAdd{Name: "case-9", Class: "exchange", Reason: "a suit"}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = sa.Change(t.Context(), "evidence.erase", erase, nil)
	if wantRefusal(t, err, fault.Held); !strings.Contains(err.Error(), "case-7") || !strings.Contains(err.Error(), "case-9") {
		t.Error(err)
	}
	if _, err := sa.Change(t.Context(), "hold.release", node.HoldRelease{Name: "case-9", Reason: "settled"}, nil); err != nil {
		t.Fatal(err)
	}
	var holds []node.Hold
	if err := sa.Query(t.Context(), "holds", nil, &holds); err != nil || len(holds) != 1 || holds[0].Name != "case-7" || len(holds[0].Leaves) != 2 || holds[0].Month == "" {
		t.Errorf("%+v %v", holds, err)
	}
	if _, err := sa.Change(t.Context(), "hold.release", node.HoldRelease{Name: "case-7", Reason: "settled"}, nil); err != nil {
		t.Fatal(err)
	}
	var gone node.Erased
	if _, err := sa.Change(t.Context(), "evidence.erase", erase, &gone); err != nil || len(gone.Leaves) != 2 || gone.Decision == 0 {
		t.Fatalf("%+v %v", gone, err)
	}
	e = exchange.Evidence{}
	wantRefusal(t, ask("evidence", "old", &e), fault.NotFound)
	if err := ask("evidence", "other", &e); err != nil || len(e.Halves) != 2 {
		t.Errorf("%+v %v", e, err)
	}
	if c := fsck(); !c.OK || c.Erased != 2 {
		t.Errorf("%+v", c)
	}
	b, err := os.ReadFile(filepath.Join(folder, done.Files[0].File))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(filepath.Join(folder, done.Files[0].File), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := fsck(); c.OK || c.Flaws[0].Place != "archive" {
		t.Errorf("%+v", c)
	}
}
