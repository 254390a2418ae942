package up

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// TestFsck: what a node has stored is looked through while it runs, and when it
// is stopped; what is changed is named. Its head is held against the others'.
func TestFsck(t *testing.T) {
	dir := t.TempDir()
	p := play(t, dir, Deps{}, "BH", "SA")
	for range 3 {
		if resp, body := p.call("SA", "BH/GOV/interior/traffic/registry", "/vehicles"); resp.StatusCode != 200 {
			t.Fatal(resp.Status, body)
		}
	}
	running := func() node.Checked {
		t.Helper()
		var b bytes.Buffer
		if err := p.admin("SA").Save(t.Context(), "fsck", nil, &b, func(int64, int64) {}); err != nil {
			t.Fatal(err)
		}
		c, err := node.ReadFsck(&b, func(string, int64, int64) {})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var c node.Checked
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if c = running(); c.Checkpoints >= 4 { // its own, signed, cosigned and stamped, and the other's
			break
		}
	}
	if !c.OK || c.Records == 0 || c.Checkpoints < 4 || !slices.Contains(c.Witnesses, union.State("BH")) || len(c.Gaps) > 0 {
		t.Fatalf("%+v", c)
	}
	db := storetest.Open(t, store.Config{DSN: filepath.Join(dir, "SA", "node.db")})
	damaged := func(c node.Checked, what string) {
		t.Helper()
		if c.OK || !slices.ContainsFunc(c.Flaws, func(f node.Flaw) bool { return f.Place == "record" && f.What.Complete() && f.Do.Complete() }) {
			t.Errorf("%s: %+v", what, c)
		}
	}
	what, undo := storetest.Flip(t, db, "journal_commit", "records", "first")
	damaged(running(), what)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Source{File: filepath.Join(dir, "SA", "node.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	stopped := func() node.Checked {
		t.Helper()
		c, err := node.Fsck(t.Context(), cfg, func(string, int64, int64) {})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	damaged(stopped(), what)
	undo()
	if c := stopped(); !c.OK || len(c.Notes) != 1 || len(c.Witnesses) > 0 {
		t.Errorf("%+v", c)
	}

	// Every table is somebody's to look through.
	for _, c := range storetest.Columns(t, db) {
		looked := map[string]bool{
			"journal_head": true, "journal_commit": true, "journal_tile": true, "journal_key": true, "journal_archive": true, "journal_erase_pending": true, // internal/journal
			"witness_checkpoint": true, "witness_head": true, "witness_stamp": true, // internal/witness
			"witness_alarm": true, "witness_promise": true, "witness_alarm_told": true, "witness_shown": true, // of the last three: how far a process is, who need not be told again, and heads that are verified when they are used
			"exchange_claim": true, "exchange_delivery": true, "exchange_spool": true, "exchange_place": true, // internal/exchange, with what is exempt in these
			"exchange_process": true, "exchange_client": true, "exchange_backend": true, "exchange_trace": true,
			"casework_case": true, "casework_event": true, "casework_clock": true, "casework_message": true, "casework_call": true, // internal/casework
			"ledger_account": true, "ledger_entry": true, "ledger_posting": true, // internal/ledger
			"casework_act":    true, // acts by their identifiers: each stands in an event
			"casework_buried": true, // cases that were erased: nothing is left to hold it against
			"admin_approval":  true, // changes that wait for a second person: each is journalled, with the digest of what was asked
			"admin_request":   true, // answers by Idempotency-Key, for a day
		}
		if !looked[c.Table] {
			t.Errorf("nobody says whether fsck looks through the table %s", c.Table)
		}
	}
}
