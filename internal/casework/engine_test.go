package casework

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

const asking = `{"name":"سارة","stay":30}`

func TestSameTables(t *testing.T) { storetest.SameTables(t, Migrations()) }

// A case from its opening to its end, in both halves.
func TestGranted(t *testing.T) { each(t, granted) }

func granted(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	r := w.home.must("citizen", "u1", "", "ask", asking)
	w.host.reaches(r.Case, "READY")
	g := w.host.must("officer", "o1", r.Case, "grant", `{"fee":{"minor":5500,"currency":"SAR"}}`)
	if len(g.Messages) != 1 || g.Messages[0] != r.Case+".1" {
		t.Errorf("granting sent %v", g.Messages)
	}
	home := w.home.reaches(r.Case, "GRANTED")
	host := w.host.reaches(r.Case, "GRANTED")
	until, _ := home.Facts["until"].(time.Time)
	if d := until.Sub(w.now()); d < 29*24*time.Hour || d > 31*24*time.Hour {
		t.Errorf("granted until %v", home.Facts["until"])
	}
	if _, crossed := home.Facts["known"]; crossed {
		t.Error("what the register said left the state")
	}
	if !home.Ended || !host.Ended || len(home.Clocks)+len(host.Clocks) > 0 {
		t.Errorf("home %+v\nhost %+v", home, host)
	}
	w.agree(r.Case)
	story, err := w.home.Read(context.Background(), r.Case, Reader{system("BH", "citizen"), "u1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(story.Notices) != 1 || !strings.Contains(story.Notices[0].Text.Ar, "حتى") || len(story.Events) != 2 || len(story.Can) != 0 {
		t.Errorf("the citizen is told %+v", story)
	}
	for _, who := range []Reader{{system("BH", "citizen"), "u2"}, {system("BH", "citizen"), ""}, {system("BH", "police"), "u1"}} {
		if _, err := w.home.Read(context.Background(), r.Case, who); fault.CodeOf(err) != fault.CaseUnknown {
			t.Errorf("%v reads the case: %v", who, err)
		}
	}
	if _, err := w.host.act("officer", "o1", r.Case, "grant", `{"fee":{"minor":1,"currency":"SAR"}}`); fault.CodeOf(err) != fault.CaseClosed {
		t.Errorf("granting twice: %v", err)
	}
	for _, s := range []*side{w.home, w.host} {
		if s.db.Dialect() == store.Postgres {
			continue // whose files are not ours to read
		}
		if raw, err := os.ReadFile(s.cfg.DSN); err != nil || strings.Contains(string(raw), "سارة") {
			t.Errorf("the name stands in %s's database in the clear (%v)", s.state, err)
		}
	}
}

// agree holds both halves against each other, and against their own histories.
func (w *world) agree(id string) {
	w.t.Helper()
	for _, s := range []*side{w.home, w.host} {
		if err := s.Replay(context.Background(), id); err != nil {
			w.t.Errorf("%s: %v", s.state, err)
		}
	}
	w.settle(func() bool { // what is on its way looks like a difference
		found, err := w.home.Reconcile(context.Background(), w.host.state)
		return err == nil && len(found) == 0
	})
}

// Refusing takes two persons: the second one's is what counts.
func TestTwoPersons(t *testing.T) { each(t, twoPersons) }

func twoPersons(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	if _, err := w.host.act("officer", "", id, "refuse", `{}`); fault.CodeOf(err) != fault.CaseActor {
		t.Errorf("an unnamed person proposed: %v", err)
	}
	proposed := w.host.must("officer", "o1", id, "refuse", `{}`)
	if !proposed.Proposal || proposed.State != "READY" {
		t.Errorf("one person refused: %+v", proposed)
	}
	confirm := func(user string) error {
		_, err := w.host.Act(context.Background(), Act{ID: "confirm " + user, System: system("SA", "officer"), User: user, Case: id, Form: "refuse", Confirm: proposed.Event})
		return err
	}
	for _, user := range []string{"o1", ""} {
		if err := confirm(user); fault.CodeOf(err) != fault.CaseActor {
			t.Errorf("%q confirmed: %v", user, err)
		}
	}
	if err := confirm("o2"); err != nil {
		t.Fatal(err)
	}
	w.home.reaches(id, "REFUSED")
	w.agree(id)
}

// What is repeated under the same identifier is done once; other content under
// it is a conflict.
func TestRepeatedAct(t *testing.T) { each(t, repeatedAct) }

func repeatedAct(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	a := Act{ID: "once", System: system("BH", "citizen"), User: "u1", Service: "permit", Peer: "SA", Form: "ask", Fields: []byte(asking)}
	var mu sync.Mutex
	seen := map[string]bool{}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			r, err := w.home.Act(context.Background(), a)
			mu.Lock()
			defer mu.Unlock()
			if seen[fmt.Sprint(r.Case, r.Event, r.Leaf)] = true; err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(seen) != 1 {
		t.Errorf("one act, %d receipts: %v", len(seen), seen)
	}
	// Also when the case has gone on, and would not take it any more.
	first, err := w.home.Act(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	w.host.reaches(first.Case, "READY")
	grant := Act{ID: "grant", System: system("SA", "officer"), User: "o1", Case: first.Case, Form: "grant", Fields: []byte(`{"fee":{"minor":5500,"currency":"SAR"}}`)}
	done, err := w.host.Act(context.Background(), grant)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.host.Act(context.Background(), grant); err != nil || fmt.Sprint(again) != fmt.Sprint(done) {
		t.Errorf("granted again: %+v %v, not %+v", again, err, done)
	}
	a.Fields = []byte(`{"name":"نورة","stay":30}`)
	if _, err := w.home.Act(context.Background(), a); fault.CodeOf(err) != fault.IDConflict {
		t.Errorf("another act under the same identifier: %v", err)
	}
}

// A withdrawal and a grant pass each other.
func TestCrossing(t *testing.T) {
	w := newWorld(t, permit)
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.held = func(exchange.Call) bool { return true }
	w.home.must("citizen", "u1", id, "withdraw", `{}`)
	w.host.must("officer", "o1", id, "grant", `{"fee":{"minor":5500,"currency":"SAR"}}`)
	w.settle(func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.waiting) == 2 })
	w.release()
	w.home.reaches(id, "WITHDRAWN")
	w.host.reaches(id, "ENDED")
	w.settle(func() bool { c, err := w.home.load(context.Background(), id); return err == nil && c.Heard == 1 })
	w.agree(id)
}

func (w *world) settle(done func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatal("it does not come to rest")
		}
	}
}

// Time acts where nobody else does: no answer is a state of its own.
func TestDeadlines(t *testing.T) { each(t, deadlines) }

func deadlines(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	w.register = func() (int, string) { return 0, "" }
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "CHECKING")
	w.pass(10 * time.Second) // the register's time is over
	w.host.reaches(id, "READY")
	w.pass(2 * time.Hour)
	w.home.reaches(id, "UNANSWERED")
	w.pass(31 * 24 * time.Hour)
	w.home.reaches(id, "WITHDRAWN")
	w.settle(func() bool {
		c, err := w.host.load(context.Background(), id)
		return err == nil && c.Ended && c.Heard == 2
	})
	w.agree(id)
}

// What other states may not say, or not like this, changes nothing; that it
// was said is told to both.
func TestHostile(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	msg := func(id string, number int, message, fields string) []byte {
		return fmt.Appendf(nil, `{"falaj":"case/1","case":%q,"service":"permit","version":1,"number":%d,"message":%q,"at":"2026-11-22T10:00:00Z","fields":%s}`, id, number, message, fields)
	}
	host, home := system("SA", "cases"), system("BH", "cases")
	for name, c := range map[string]struct {
		to   *side
		from union.SubsystemID
		body []byte
		want fault.Code
	}{
		"another state":            {w.home, system("AE", "cases"), msg(id, 1, "granted", `{"until":"2026-12-01T00:00:00Z"}`), fault.CaseUnknown},
		"another system":           {w.home, system("SA", "police"), msg(id, 1, "granted", `{"until":"2026-12-01T00:00:00Z"}`), fault.CaseActor},
		"itself":                   {w.home, home, msg(id, 1, "granted", `{}`), fault.CaseActor},
		"no JSON":                  {w.home, host, []byte(`{"falaj":"case/1",`), fault.CaseInvalid},
		"a name twice":             {w.home, host, []byte(strings.Replace(string(msg(id, 1, "granted", `{}`)), `"number":1`, `"number":1,"number":1`, 1)), fault.CaseInvalid},
		"another service":          {w.home, host, []byte(strings.Replace(string(msg(id, 1, "granted", `{}`)), `"permit"`, `"visa"`, 1)), fault.CaseUnknown},
		"a version nobody adopted": {w.home, host, []byte(strings.Replace(string(msg("00000000-0000-4000-8000-000000000000", 1, "request", asking)), `"version":1`, `"version":2`, 1)), fault.CaseVersion},
		"the same number, other":   {w.host, home, msg(id, 1, "request", `{"name":"x","stay":90}`), fault.IDConflict},
		"too long":                 {w.home, host, []byte(strings.Repeat(" ", maxMessage+1)), fault.TooLarge},
	} {
		before, _ := c.to.load(ctx, id)
		if _, err := c.to.Hear(ctx, c.from, c.body); fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v, wanted %s", name, err, c.want)
		}
		if after, _ := c.to.load(ctx, id); after.Events != before.Events {
			t.Errorf("%s: it left an event", name)
		}
	}
	// These are heard, so that nothing waits behind them, and refused.
	for i, c := range []struct{ name, message, fields, why string }{
		{"a fact of the other half", "granted", `{"until":"2026-12-01T00:00:00Z","name":"x"}`, "invalid"},
		{"a message of this half", "request", asking, "invalid"},
		{"one of nobody", "promoted", `{}`, "invalid"},
		{"without what it needs", "granted", `{}`, "invalid"},
		{"an unknown fact", "granted", `{"until":"2026-12-01T00:00:00Z","king":true}`, "invalid"},
		{"the other's facts, told anew", Amendment, `{"name":"x"}`, "invalid"},
	} {
		h, err := w.home.Hear(ctx, host, msg(id, i+1, c.message, c.fields))
		if err != nil || h.Refusal == nil || h.Refusal.Why != c.why || !h.Refusal.Text.Complete() {
			t.Errorf("%s: %+v %v", c.name, h, err)
		}
		again, err := w.home.Hear(ctx, host, msg(id, i+1, c.message, c.fields))
		if err != nil || again.Refusal == nil {
			t.Errorf("%s, repeated: %+v %v", c.name, again, err)
		}
	}
	c := w.home.reaches(id, "ASKED")
	if c.Trouble == "" || c.Facts["name"] != "سارة" {
		t.Errorf("nobody is told to look: %+v", c)
	}
	if err := w.home.Replay(ctx, id); err != nil {
		t.Error(err)
	}
}

// A message that the other half refused is known to both.
func TestReturned(t *testing.T) {
	w := newWorld(t, permit)
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.pass(11 * 24 * time.Hour) // the host's time is over
	w.home.reaches(id, "REFUSED")
	c, err := w.host.load(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	// The definition does not let a refused permit be granted: the host says so against it.
	ev, next, err := w.host.take(context.Background(), c, happening{kind: KindAmend, at: w.host.now()})
	if err != nil {
		t.Fatal(err)
	}
	ev.Sent[0].Message, ev.Sent[0].Fields = "granted", []byte(`{"until":"2027-01-01T00:00:00Z"}`)
	if _, err := w.host.commit(context.Background(), c, next, ev, nil); err != nil {
		t.Fatal(err)
	}
	w.settle(func() bool {
		c, err := w.host.load(context.Background(), id)
		return err == nil && c.Trouble != ""
	})
	events, _, err := w.host.history(context.Background(), id)
	if last := events[len(events)-1]; err != nil || last.Kind != KindReturned || last.Refusal.Why != "closed" || last.Trigger != "granted" {
		t.Errorf("the host is told %+v %v", last, err)
	}
}

// Every difference that is put into a half is found; the facts' owner is who
// is believed.
func TestReconcile(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.agree(id)
	spoil := func(s *side, change func(*Case)) {
		t.Helper()
		c, err := s.load(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		body, err := s.sealCase(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.Exec(ctx, `UPDATE casework_case SET body = ?, sent = ?, heard = ? WHERE id = ?`, body, c.Sent, c.Heard, id); err != nil {
			t.Fatal(err)
		}
	}
	spoil(w.host, func(c *Case) { c.Facts["stay"] = int64(31) })
	if err := w.host.Replay(ctx, id); err == nil {
		t.Error("a half that is not what its events made of it is taken for it")
	}
	if _, wrong, err := w.host.whole(ctx); err != nil || len(wrong) != 1 || wrong[0].Case != id {
		t.Errorf("fsck finds %v %v", wrong, err)
	}
	found, err := w.host.Reconcile(ctx, "BH") // the host cannot mend what the home state writes
	if err != nil || len(found) != 1 || found[0].What != DiffersFacts {
		t.Fatalf("found %+v %v", found, err)
	}
	found, err = w.home.Reconcile(ctx, "SA")
	if err != nil || len(found) != 1 || found[0].What != DiffersFacts {
		t.Fatalf("found %+v %v", found, err)
	}
	w.settle(func() bool { c, err := w.host.load(ctx, id); return err == nil && c.Facts["stay"] == int64(30) })
	if found, err := w.home.Reconcile(ctx, "SA"); err != nil || len(found) > 0 {
		t.Errorf("mended, and yet %+v %v", found, err)
	}
	if _, err := w.host.db.Exec(ctx, `DELETE FROM casework_case WHERE id = ?`, id); err != nil {
		t.Fatal(err)
	}
	if found, err = w.host.Reconcile(ctx, "BH"); err != nil || len(found) != 1 || found[0].What != DiffersMissing {
		t.Errorf("a half that is gone: %+v %v", found, err)
	}
}

// A case whose retention has ended is gone, and its records with it.
func TestRetention(t *testing.T) { each(t, retention) }

func retention(t *testing.T, on func(testing.TB) store.Config) {
	w := newWorldOn(t, on, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.home.must("citizen", "u1", id, "withdraw", `{}`)
	w.host.reaches(id, "ENDED")
	if _, err := w.home.Read(ctx, id, Reader{system("BH", "citizen"), "u1"}); err != nil {
		t.Fatal(err)
	}
	w.pass(364 * 24 * time.Hour)
	if err := w.home.forget(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.home.load(ctx, id); err != nil {
		t.Fatalf("it is gone before its time: %v", err)
	}
	w.pass(2 * 24 * time.Hour)
	if err := w.home.forget(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.home.load(ctx, id); fault.CodeOf(err) != fault.CaseUnknown {
		t.Errorf("it is still there: %v", err)
	}
	all, err := w.home.journal.Find(ctx, key(id))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if !s.Erased && s.Kind == journal.CaseEvent {
			t.Errorf("its record %d is still there", s.Index)
		}
	}
	for _, table := range []string{"event", "clock", "message", "call", "act"} {
		var n int
		if err := w.home.db.QueryRow(ctx, `SELECT COUNT(*) FROM casework_`+table).Scan(&n); err != nil || n > 0 {
			t.Errorf("%d rows of %s are left (%v)", n, table, err)
		}
	}
}

// Many cases, with messages lost, doubled, late and out of order, registers
// that fail, and both sides killed: all halves end, agree, and are what their
// events make of them.
func TestStorm(t *testing.T) {
	each(t, func(t *testing.T, on func(testing.TB) store.Config) {
		if err := storm(t, on, map[bool]int{true: 60, false: 12}[t.Name() == "TestStorm/sqlite"], rand.New(rand.NewPCG(1, 2))); err != nil {
			t.Error(err)
		}
	})
}

func storm(t testing.TB, on func(testing.TB) store.Config, cases int, chance *rand.Rand) error {
	w := newWorldOn(t, on, permit)
	w.mu.Lock()
	w.chance = chance
	w.mu.Unlock()
	var mu sync.Mutex
	roll := func(n int) int { w.mu.Lock(); defer w.mu.Unlock(); return chance.IntN(n) }
	w.register = func() (int, string) {
		return []int{200, 200, 404, 500, 0}[roll(5)], `{"known":true}`
	}
	var ids []string
	var group sync.WaitGroup
	for range cases {
		group.Go(func() {
			r, err := w.home.act("citizen", "u", "", "ask", asking)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			ids = append(ids, r.Case)
			mu.Unlock()
		})
	}
	group.Wait()
	ended := func() bool {
		for _, id := range ids {
			for _, s := range []*side{w.home, w.host} {
				if c, err := s.load(context.Background(), id); err != nil || !c.Ended {
					return false
				}
			}
		}
		return true
	}
	begin := time.Now()
	for round := 0; !ended(); round++ {
		if time.Since(begin) > time.Minute {
			return errors.New("cases are stuck")
		}
		for _, id := range ids {
			switch roll(6) {
			case 0:
				_, _ = w.home.act("citizen", "u", id, "withdraw", `{}`)
			case 1:
				_, _ = w.host.act("officer", "o", id, "grant", `{"fee":{"minor":1,"currency":"SAR"}}`)
			}
		}
		if round%5 == 4 {
			s := []*side{w.home, w.host}[roll(2)]
			w.gate.Lock()
			s.kill()
			s.start()
			w.gate.Unlock()
		}
		w.pass(5 * 24 * time.Hour)
	}
	// What is still on its way arrives; then nothing may differ.
	w.mu.Lock()
	w.chance = nil
	w.mu.Unlock()
	var found []Difference
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var err error
		if found, err = w.home.Reconcile(context.Background(), w.host.state); err != nil {
			return err
		}
		if len(found) == 0 {
			break
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%d of %d cases differ: %s here %+v, there %+v", len(found), cases, found[0].What, *found[0].Here, *found[0].There)
	}
	for _, s := range []*side{w.home, w.host} {
		n, wrong, err := s.whole(context.Background())
		if err != nil || len(wrong) > 0 || n != int64(cases) {
			return fmt.Errorf("%s: %d cases, %+v, %w", s.state, n, wrong, err)
		}
	}
	return nil
}
