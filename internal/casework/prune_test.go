package casework

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
)

// still ends what a side does by itself.
func (s *side) still() {
	s.stop()
	<-s.done
}

func (s *side) count(table string) (n int) {
	s.w.t.Helper()
	if err := s.db.QueryRow(context.Background(), `SELECT COUNT(*) FROM casework_`+table).Scan(&n); err != nil {
		s.w.t.Fatal(err)
	}
	return n
}

// withdrawn is a case that has ended in both halves.
func (w *world) withdrawn() string {
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.home.must("citizen", "u1", id, "withdraw", `{}`)
	w.host.reaches(id, "ENDED")
	w.flying.Wait()
	return id
}

// What is forgotten is forgotten at once, however much it is.
func TestForgetsAll(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.flying.Wait()
	w.home.still()
	if err := w.home.db.Write(ctx, func(tx *store.Tx) error {
		for i := range 2*pruneAtOnce + 1 {
			if _, err := tx.Exec(ctx, `INSERT INTO casework_act (id, digest, case_id, event, at) VALUES (?, ?, ?, 1, 1)`, fmt.Append(nil, i), []byte{0}, id); err != nil {
				return err
			}
			of := id // the others' cases never came
			if i > 1 {
				of = fmt.Sprint("orphan ", i)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO casework_message (case_id, mine, number, event, work, tries, next_at, peer, body) VALUES (?, 0, ?, 0, 2, 0, 1, 'SA', ?)`, of, i+2, []byte{0}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.home.forget(ctx); err != nil {
		t.Fatal(err)
	}
	if acts, early := w.home.count("act"), w.home.count("message WHERE work = 2"); acts != 1 || early != 2 {
		t.Errorf("%d acts and %d early messages are left", acts, early)
	}
}

// Retention counts from the end of a case, whatever the other half says later.
func TestRetentionFromTheEnd(t *testing.T) { each(t, retentionFromTheEnd) }

func retentionFromTheEnd(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	ctx := context.Background()
	id := w.withdrawn()
	w.pass(300 * 24 * time.Hour)
	if _, err := w.home.Hear(ctx, system("SA", "cases"), said(id, 1, "nonsense", `{}`)); err != nil {
		t.Fatal(err)
	}
	w.pass(60 * 24 * time.Hour)
	if err := w.home.forget(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.home.Replay(ctx, id); err != nil {
		t.Errorf("before its time: %v", err)
	}
	w.pass(10 * 24 * time.Hour)
	if err := w.home.forget(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.home.load(ctx, id); fault.CodeOf(err) != fault.CaseUnknown {
		t.Errorf("it ended 370 days ago, is kept for 365, and is there: %v", err)
	}

	// What is sent again does not open it anew.
	h, err := w.home.Hear(ctx, system("SA", "cases"), said(id, 1, "granted", `{"until":"2026-12-01T00:00:00Z"}`))
	if err != nil || h.Heard != 1 || h.Refusal == nil || h.Refusal.Why != "closed" {
		t.Errorf("a message of an erased case: %+v, %v", h, err)
	}
	if n := w.home.count("case"); n > 0 {
		t.Error("it is back")
	}
	w.pass(keepBuried + time.Hour)
	if err := w.home.forget(ctx); err != nil {
		t.Fatal(err)
	}
	if n := w.home.count("buried"); n > 0 {
		t.Errorf("%d erased cases are remembered for ever", n)
	}
}

// A case that is held, or that cannot be erased, stops none of the others; one
// in which something has happened meanwhile is not erased at all.
func TestErasesTheOthers(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	var ids []string
	for range 4 {
		ids = append(ids, w.withdrawn())
	}
	w.home.still()
	w.pass(366 * 24 * time.Hour)
	c, err := w.home.load(ctx, ids[3])
	if err != nil {
		t.Fatal(err)
	}
	if err := w.home.Engine.erase(ctx, over{id: ids[3], events: c.Events - 1}); !errors.Is(err, errStale) {
		t.Errorf("erased as it was before: %v", err)
	}
	if err := w.home.Replay(ctx, ids[3]); err != nil {
		t.Error(err)
	}
	erase, first := w.home.deps.Erase, map[int64]error{}
	for i, err := range []error{fault.New(fault.Held, "test"), errors.New("a record that cannot be erased")} {
		leaves, bad := w.home.leaves(ctx, ids[i])
		if bad != nil {
			t.Fatal(bad)
		}
		first[leaves[0]] = err
	}
	w.home.deps.Erase = func(ctx context.Context, leaves []int64, in func(ctx context.Context, tx *store.Tx) error) error {
		if err := first[leaves[0]]; err != nil {
			return err
		}
		return erase(ctx, leaves, in)
	}
	if err := w.home.forget(ctx); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		if _, err := w.home.load(ctx, id); (err == nil) != (i < 2) {
			t.Errorf("case %d: %v", i, err)
		}
	}
	first = nil
	if err := w.home.forget(ctx); err != nil || w.home.count("case") > 0 {
		t.Errorf("released, and not erased (%v)", err)
	}
}

// A case that cannot be read, or of which the definition is not at hand, takes
// no other with it.
func TestOneBadCase(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	var ids []string
	for range 3 {
		ids = append(ids, w.host.w.home.must("citizen", "u1", "", "ask", asking).Case)
	}
	for _, id := range ids {
		w.host.reaches(id, "READY")
	}
	w.flying.Wait()
	w.host.still()
	for i, query := range []string{`UPDATE casework_case SET version = 7 WHERE id = ?`, `UPDATE casework_case SET body = X'00' WHERE id = ?`} {
		if _, err := w.host.db.Exec(ctx, query, ids[i]); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := w.host.List(ctx, Filter{}, Reader{system("SA", "officer"), "o1"})
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, s := range list {
		if want := map[string]string{ids[1]: unreadable}[s.Case]; s.Trouble != want {
			t.Errorf("%s: trouble %q, not %q", s.Case, s.Trouble, want)
		}
	}
	page, _, err := w.host.Standings(ctx, "BH", "")
	if err != nil || len(page) != 3 {
		t.Errorf("standings: %+v, %v", page, err)
	}
}

// said is a message as the other half sends it.
func said(id string, number int, message, fields string) []byte {
	return fmt.Appendf(nil, `{"falaj":"case/1","case":%q,"service":"permit","version":1,"number":%d,"message":%q,"at":"2026-11-22T10:00:00Z","fields":%s}`, id, number, message, fields)
}
