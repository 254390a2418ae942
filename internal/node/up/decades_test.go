package up

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/verify"
)

// ceremony renews root and targets of a union that does not run, as its states
// do every three years.
func ceremony(t *testing.T, dir string, now func() time.Time, states ...union.State) {
	t.Helper()
	all := []*party{{dir: filepath.Join(dir, "secretariat")}}
	for _, s := range states {
		all = append(all, &party{state: s, dir: filepath.Join(dir, string(s))})
	}
	for _, x := range all {
		must(t, x.open())
	}
	must(t, openBooks(t.Context(), all, now))
	must(t, refreshAll(t.Context(), all))
	draft, err := all[1].book.Draft()
	must(t, err)
	for _, x := range all[1:] {
		key, err := x.keys.Signer(directory.RootKey)
		must(t, err)
		must(t, draft.Sign(key))
	}
	must(t, all[1].book.Install(t.Context(), draft))
	must(t, refreshAll(t.Context(), all))
}

// decades has a call of a union of three exported on its day, and twice again
// when the authorities' certificates were about to end, the second time after
// the log's first records were archived. It gives the root, and the time.
func decades(t *testing.T) (containers [3][]byte, root []byte, begun time.Time) {
	t.Helper()
	dir, states := t.TempDir(), []union.State{"BH", "SA", "AE"}
	var shift time.Duration
	now := func() time.Time { return time.Now().Add(shift) }
	for i := range containers {
		if i > 0 {
			shift += 1700 * 24 * time.Hour // of the certificates' five years
			ceremony(t, dir, now, states...)
		}
		p := play(t, dir, Deps{Now: now}, states...)
		sa := p.admin("SA")
		if i == 0 {
			begun = now()
			if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons", "X-Road-Id: proof"); resp.StatusCode != 200 {
				t.Fatalf("%s %s", resp.Status, body)
			}
		}
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			r := stamped(t, sa, "proof")
			done := true
			for _, x := range r.Records {
				done = done && len(x.Stamp.Renewals) == 2*i // each by one authority, and by another
			}
			if done {
				break
			}
			if time.Now().After(end) {
				var h node.Health
				must(t, sa.Query(t.Context(), "health", nil, &h))
				t.Fatalf("after %v: %d, %d renewals; %+v", shift, len(r.Records[0].Stamp.Renewals), len(r.Records[1].Stamp.Renewals), h)
			}
		}
		var file bytes.Buffer
		must(t, sa.Save(t.Context(), "container", url.Values{"id": {"proof"}}, &file, func(int64, int64) {}))
		containers[i] = file.Bytes()
		var found bytes.Buffer
		must(t, sa.Save(t.Context(), "fsck", nil, &found, func(int64, int64) {}))
		if c, err := node.ReadFsck(&found, func(string, int64, int64) {}); err != nil || !c.OK {
			t.Errorf("after %v: %+v %v", shift, c, err)
		}
		if i == 1 {
			for more := (node.Archived{More: true}); more.More; {
				_, err := sa.Change(t.Context(), "journal.archive", node.Archive{}, &more)
				must(t, err)
			}
			var e exchange.Evidence
			must(t, sa.Query(t.Context(), "evidence", url.Values{"id": {"proof"}}, &e))
		}
		must(t, p.stop())
	}
	root, err := os.ReadFile(filepath.Join(dir, "SA", "root.json"))
	must(t, err)
	return containers, root, begun
}

// TestDecades: evidence that was exported years later proves its time when the
// certificates have ended by which it was stamped at first, with no more than
// the union's first root; what was exported before does so no longer, and
// falaj verify says so in both languages.
func TestDecades(t *testing.T) {
	containers, root, begun := decades(t)
	for i, b := range containers {
		for _, years := range []int{1, 6, 10} {
			v, err := verify.New(root)
			must(t, err)
			v.At(begun.AddDate(years, 0, 0))
			r := v.Container(bytes.NewReader(b), int64(len(b)))
			proven, lapsed := 0, 0
			for _, c := range r.Checks {
				switch {
				case c.Result == verify.Passed && strings.Contains(c.What, "stamped the time"):
					proven++
				case c.Result == verify.Unchecked && strings.Contains(c.What, "no longer proven") && strings.Contains(c.WhatAr, "لم يعد"):
					lapsed++
				case c.Result == verify.Failed:
					t.Errorf("%+v", c)
				}
			}
			// That of the answer counts only where another than its sealer gave it.
			if good := years <= []int{1, 6, 10}[i]; r.Verdict != verify.Holds || proven+lapsed == 0 || good != (lapsed == 0) {
				t.Errorf("export %d judged after %d years: verdict %d, %d proven, %d lapsed", i, years, r.Verdict, proven, lapsed)
			}
		}
	}
}
