package casework

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// exempt says of columns why a change of them need not be named.
func exempt() map[string]string {
	return map[string]string{
		"casework_message.work":    "of a sent one, whether it is still to be handed over: reconciliation sends again what did not arrive; others are named",
		"casework_message.tries":   "how often it was sent",
		"casework_message.next_at": "when it is sent again, or forgotten",
		"casework_call.until_at":   "how long a register is asked; what it said, or that it said nothing, is an event",
		"casework_clock.next_at":   "when it is let act: later where that failed",
		"casework_call.tries":      "how often it was asked: makes the question's next identifier",
		"casework_call.next_at":    "when it is asked again",
		"casework_act.at":          "when it is forgotten",
		"casework_buried.id":       "stands for a case of which nothing is left to hold it against",
		"casework_buried.at":       "when it is forgotten",
	}
}

// TestInspect: every bit that is changed of what stands beside the events is
// found, or does not matter.
func TestInspect(t *testing.T) {
	each(t, inspected)
}

func inspected(t *testing.T, on func(testing.TB) store.Config) {
	t.Parallel()
	w := newWorldOn(t, on, permit)
	tries := 2
	if w.home.db.Dialect() == store.Postgres {
		tries = 1 // finding a column takes long there
	}
	ctx := context.Background()
	refused := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(refused, "READY")
	w.host.must("officer", "o1", refused, "refuse", `{}`)
	w.register = func() (int, string) { return 0, "" }
	asked := w.home.must("citizen", "u2", "", "ask", asking).Case
	w.host.reaches(asked, "CHECKING")
	w.held = func(c exchange.Call) bool { return strings.HasSuffix(c.ID, ".1") }
	behind := w.home.must("citizen", "u3", "", "ask", asking).Case
	w.home.must("citizen", "u3", behind, "withdraw", `{}`)
	w.settle(func() bool {
		var n int
		return w.host.db.QueryRow(ctx, `SELECT COUNT(*) FROM casework_message WHERE work = 2`).Scan(&n) == nil && n == 1
	})
	// From here on nobody but this test changes a row.
	for _, s := range []*side{w.home, w.host} {
		s.stop()
		<-s.done
	}
	look := func(s *side) []Wrong {
		t.Helper()
		_, wrong, err := s.whole(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return wrong
	}
	keys, changed := map[string][]string{}, map[string]bool{}
	columns := slices.DeleteFunc(storetest.Columns(t, w.home.db), func(c storetest.Column) bool { return !strings.HasPrefix(c.Table, "casework_") })
	for _, c := range columns {
		if c.Key {
			keys[c.Table] = append(keys[c.Table], c.Name)
		}
	}
	for _, s := range []*side{w.home, w.host} {
		if wrong := look(s); len(wrong) > 0 {
			t.Fatalf("%s: %+v", s.state, wrong)
		}
		for _, c := range columns {
			name := c.Table + "." + c.Name
			if _, ok := exempt()[name]; ok {
				changed[name] = true
				continue
			}
			for range tries {
				what, undo := storetest.Flip(t, s.db, c.Table, c.Name, keys[c.Table]...)
				if undo == nil && c.Table == "casework_case" { // it is empty wherever it stands: something comes in
					set := func(value string) {
						var v any = value
						if c.Type == "bytes" {
							v = []byte(value)
						}
						if _, err := s.db.Exec(ctx, "UPDATE "+c.Table+" SET "+c.Name+" = ?", v); err != nil {
							t.Fatal(err)
						}
					}
					what, undo = name, func() { set("") }
					set("x")
				}
				if undo == nil {
					continue
				}
				changed[name] = true
				if len(look(s)) == 0 {
					t.Errorf("%s: %s: not named", s.state, what)
				}
				undo()
			}
		}
		if wrong := look(s); len(wrong) > 0 {
			t.Fatalf("%s, repaired: %+v", s.state, wrong)
		}
	}
	for _, c := range columns {
		if name := c.Table + "." + c.Name; !changed[name] {
			t.Errorf("nobody says what becomes of %s when it is changed", name)
		}
	}

	// What is taken away is missed.
	for _, table := range []string{"casework_case", "casework_event", "casework_clock", "casework_call", "casework_act", "casework_message WHERE work <> 2"} {
		name, where, _ := strings.Cut(table, " ")
		named := 0
		for _, s := range []*side{w.home, w.host} {
			if err := s.db.Write(ctx, func(tx *store.Tx) error {
				if _, err := tx.Exec(ctx, `CREATE TABLE aside AS SELECT * FROM `+name+" "+where); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `DELETE FROM `+table)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			named += len(look(s))
			if err := s.db.Write(ctx, func(tx *store.Tx) error {
				if _, err := tx.Exec(ctx, `INSERT INTO `+name+` SELECT * FROM aside`); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `DROP TABLE aside`)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if named == 0 {
			t.Errorf("%s: nobody misses it", table)
		}
	}

	// So is a case of which nothing is left but what its state's log holds.
	for _, table := range []string{"case", "event", "clock", "message", "call", "act"} {
		w.home.exec(`DELETE FROM casework_` + table)
	}
	if wrong := look(w.home); len(wrong) != 4 { // three were opened, one withdrawn
		t.Errorf("without all of them: %+v", wrong)
	}
}
