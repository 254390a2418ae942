package casework

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

func (s *side) exec(query string, args ...any) {
	s.w.t.Helper()
	if _, err := s.db.Exec(context.Background(), query, args...); err != nil {
		s.w.t.Fatalf("%s: %v", query, err)
	}
}

// TestReconcilePages: whatever is missing in either half is found, wherever the
// pages of the two end.
func TestReconcilePages(t *testing.T) { each(t, reconcilePages) }

func reconcilePages(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	ctx := context.Background()
	const cases = 9
	var ids []string
	for range cases {
		ids = append(ids, w.home.must("citizen", "u", "", "ask", asking).Case)
	}
	slices.Sort(ids)
	for _, id := range ids {
		w.host.reaches(id, "READY")
	}
	sides := []*side{w.home, w.host}
	for _, s := range sides {
		s.stop()
		<-s.done
		s.exec(`CREATE TABLE aside AS SELECT * FROM casework_case`)
	}
	for round := range 20 {
		gone := map[union.State]map[string]bool{"BH": {}, "SA": {}}
		for _, s := range sides {
			s.cfgPage(1 + rand.IntN(cases+1))
			for range rand.IntN(4) {
				id := ids[rand.IntN(cases)]
				if round%3 == 0 { // at the borders of pages
					id = ids[min(cases-1, s.Engine.cfg.Page*rand.IntN(1+cases/s.Engine.cfg.Page))]
				}
				gone[s.state][id] = true
			}
			s.exec(`DELETE FROM casework_case WHERE id IN ('` + strings.Join(slices.Collect(maps.Keys(gone[s.state])), "','") + `')`)
		}
		want := map[string]union.State{}
		for _, id := range ids {
			switch bh, sa := gone["BH"][id], gone["SA"][id]; {
			case bh && !sa:
				want[id] = "BH"
			case sa && !bh:
				want[id] = "SA"
			}
		}
		for _, s := range sides {
			found, err := s.Reconcile(ctx, w.other(s).state)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]union.State{}
			for _, d := range found {
				where := s.state
				if d.There == nil {
					where = w.other(s).state
				}
				if got[d.Case] = where; d.What != DiffersMissing {
					t.Errorf("%+v", d)
				}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("%s, pages of %d and %d: found missing in %v, not in %v", s.state, w.home.Engine.cfg.Page, w.host.Engine.cfg.Page, got, want)
			}
		}
		for _, s := range sides {
			s.exec(`INSERT INTO casework_case SELECT * FROM aside WHERE id NOT IN (SELECT id FROM casework_case)`)
		}
	}
}

func (s *side) cfgPage(n int) { s.Engine.cfg.Page = n }

// TestReconcileLies: another state that goes round in circles, or names what
// can be no case, is not followed.
func TestReconcileLies(t *testing.T) {
	w := newWorld(t, permit)
	const a, b = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
	page := func(more bool, ids ...string) string {
		var all []string
		for _, id := range ids {
			all = append(all, fmt.Sprintf(`{"case":%q,"sent":0,"heard":0,"told":"","known":""}`, id))
		}
		return fmt.Sprintf(`{"falaj":"case/1","after":"","cases":[%s],"more":%t}`, strings.Join(all, ","), more)
	}
	for name, lie := range map[string]string{
		"the same page for ever": page(true, a),
		"not in their order":     page(false, b, a),
		"one twice":              page(false, a, a),
		"no case":                page(false, "~"),
		"in capitals":            page(false, strings.ToUpper(a)),
		"more of nothing":        page(true),
		"no JSON":                `{`,
	} {
		w.lies = func(string) string { return lie }
		done := make(chan error, 1)
		go func() { _, err := w.home.Reconcile(context.Background(), "SA"); done <- err }()
		select {
		case err := <-done:
			if fault.CodeOf(err) != fault.BackendFailed {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: it does not end", name)
		}
	}
	// Nor one that has ever more cases of which nothing is known here.
	n := 0
	w.lies = func(string) string {
		var ids []string
		for range standingPage {
			n++
			ids = append(ids, fmt.Sprintf("00000000-0000-4000-8000-%012x", n))
		}
		return page(true, ids...)
	}
	if found, err := w.home.Reconcile(context.Background(), "SA"); fault.CodeOf(err) != fault.CaseDiffers || len(found) != maxDifferences {
		t.Errorf("%d differences: %v", len(found), err)
	}
}

// TestReconcileAfterRetention: a case that one half has forgotten at the end of
// its retention is no difference, and is not opened anew.
func TestReconcileAfterRetention(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.host.must("officer", "o1", id, "grant", `{"fee":{"minor":5500,"currency":"SAR"}}`)
	w.home.reaches(id, "GRANTED")
	w.pass(366 * 24 * time.Hour)
	if err := w.host.forget(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.host.load(ctx, id); fault.CodeOf(err) != fault.CaseUnknown {
		t.Fatal(err)
	}
	for _, s := range []*side{w.home, w.host} {
		if found, err := s.Reconcile(ctx, w.other(s).state); err != nil || len(found) > 0 {
			t.Errorf("%s: %+v %v", s.state, found, err)
		}
	}
	var again int
	if err := w.home.db.QueryRow(ctx, `SELECT COUNT(*) FROM casework_message WHERE tries > 0 OR work = 1`).Scan(&again); err != nil || again > 0 {
		t.Errorf("%d messages are sent to who has forgotten (%v)", again, err)
	}
}

// TestReconcileUnreadable: one case that nobody can read hides no other, and is
// found itself.
func TestReconcileUnreadable(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	var ids []string
	for range 3 {
		ids = append(ids, w.home.must("citizen", "u", "", "ask", asking).Case)
		w.host.reaches(ids[len(ids)-1], "READY")
	}
	w.host.exec(`UPDATE casework_case SET body = ? WHERE id = ?`, []byte("x"), ids[1])
	for _, s := range []*side{w.home, w.host} {
		found, err := s.Reconcile(ctx, w.other(s).state)
		if err != nil || len(found) != 1 || found[0].Case != ids[1] {
			t.Errorf("%s: %+v %v", s.state, found, err)
		}
	}
}

// TestDaily: halves are compared without being asked; what a second look still
// finds is told until it is mended.
func TestDaily(t *testing.T) {
	w := newWorld(t, permit)
	w.daily = 200 * time.Millisecond
	w.home.kill()
	w.home.start()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.mu.Lock()
	w.held = func(exchange.Call) bool { return true }
	w.mu.Unlock()
	for _, table := range []string{"event", "clock", "message", "call", "act"} {
		w.host.exec(`DELETE FROM casework_` + table)
	}
	w.host.exec(`DELETE FROM casework_case`)
	w.settle(func() bool {
		c := w.home.Differing()
		return len(c) == 1 && c[0].Peer == "SA" && len(c[0].Differences) == 1 && c[0].Differences[0].Case == id
	})
	w.release()
	w.host.reaches(id, "READY")
	w.settle(func() bool { return len(w.home.Differing()) == 0 })
	w.agree(id)
}

// TestDark: a case whose key is gone keeps nobody from the others.
func TestDark(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	old := w.home.must("citizen", "u", "", "ask", asking).Case
	w.host.reaches(old, "READY")
	w.host.must("officer", "o", old, "grant", `{"fee":{"minor":5500,"currency":"SAR"}}`)
	month := seal.PeriodOf(w.home.reaches(old, "GRANTED").Changed)
	w.pass(40 * 24 * time.Hour)
	young := w.home.must("citizen", "u", "", "ask", asking).Case
	w.host.reaches(young, "READY")
	if err := w.home.keys.Records().Destroy(Class, month); err != nil {
		t.Fatal(err)
	}
	reader := Reader{system("BH", "citizen"), "u"}
	list, _, err := w.home.List(ctx, Filter{}, reader)
	if err != nil || len(list) != 1 || list[0].Case != young {
		t.Errorf("listed %+v %v", list, err)
	}
	if _, err := w.home.Read(ctx, old, reader); fault.CodeOf(err) != fault.CaseUnknown {
		t.Errorf("read: %v", err)
	}
	for _, s := range []*side{w.home, w.host} {
		if found, err := s.Reconcile(ctx, w.other(s).state); err != nil || len(found) > 0 {
			t.Errorf("%s: %+v %v", s.state, found, err)
		}
	}
	if _, wrong, err := w.home.whole(ctx); err != nil || len(wrong) > 0 {
		t.Errorf("%+v %v", wrong, err)
	}
	// What comes late for it is refused, and opens nothing anew.
	late := fmt.Appendf(nil, `{"falaj":"case/1","case":%q,"service":"permit","version":1,"number":2,"message":"refused","at":"2026-11-22T10:00:00Z","fields":{}}`, old)
	if _, err := w.home.Hear(ctx, system("SA", "cases"), late); fault.CodeOf(err) != fault.CaseUnknown {
		t.Errorf("late: %v", err)
	}
}
