package casework

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
)

func message(id string, number int, name, fields string) []byte {
	return fmt.Appendf(nil, `{"falaj":"case/1","case":%q,"service":"permit","version":1,"number":%d,"message":%q,"at":%q,"fields":%s}`,
		id, number, name, time.Now().UTC().Format(time.RFC3339Nano), fields)
}

// Facts told anew are held to what any message is held to, and a person is told
// that they changed.
func TestAmended(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	for i, fields := range []string{
		`{"name":"سارة","stay":-99999}`,
		`{"name":"\u202eevil","stay":30}`,
		`{"name":"` + strings.Repeat("x", 5000) + `","stay":30}`,
		`{"name":7,"stay":30}`,
		`{"fee":{"minor":1,"currency":"SAR"}}`,
	} {
		h, err := w.host.Hear(ctx, system("BH", "cases"), message(id, i+2, Amendment, fields))
		if err != nil || h.Refusal == nil || h.Refusal.Why != "invalid" {
			t.Errorf("%.40s: %+v %v", fields, h, err)
		}
	}
	if h, err := w.home.Hear(ctx, system("SA", "cases"), message(id, 1, Amendment, `{"known":true}`)); err != nil || h.Refusal == nil {
		t.Errorf("a fact that no message carries came in: %+v %v", h, err)
	}
	c := w.host.reaches(id, "READY")
	if c.Facts["stay"] != int64(30) {
		t.Errorf("the host knows %v", c.Facts)
	}
	if h, err := w.host.Hear(ctx, system("BH", "cases"), message(id, 7, Amendment, `{"name":"سارة","stay":90}`)); err != nil || h.Refusal != nil {
		t.Errorf("facts told anew: %+v %v", h, err)
	}
	if c = w.host.reaches(id, "READY"); c.Facts["stay"] != int64(90) || c.Trouble != "amended" {
		t.Errorf("after that: %v, trouble %q", c.Facts, c.Trouble)
	}
	if err := w.host.Replay(ctx, id); err != nil {
		t.Error(err)
	}
}

// Who confirms a proposal confirms the one that he has seen, of the case as he
// has seen it.
func TestProposals(t *testing.T) {
	w := newWorld(t, permit)
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	confirm := func(user string, event int64) error {
		_, err := w.host.Act(context.Background(), Act{ID: fmt.Sprint("confirm ", user, event), System: system("SA", "officer"), User: user, Case: id, Form: "refuse", Confirm: event})
		return err
	}
	first := w.host.must("officer", "o1", id, "refuse", `{}`)
	second := w.host.must("officer", "o1", id, "refuse", `{}`)
	if err := confirm("o2", first.Event); fault.CodeOf(err) != fault.CaseRefused {
		t.Errorf("confirmed what another has taken the place of: %v", err)
	}
	for _, user := range []string{"O1", "o1 ", "o\u200b1", "o1\n"} {
		if err := confirm(user, second.Event); err == nil {
			t.Errorf("%q is taken for somebody else than o1", user)
		}
	}
	w.home.must("citizen", "u1", id, "withdraw", `{}`)
	w.host.reaches(id, "ENDED")
	if err := confirm("o2", second.Event); fault.CodeOf(err) != fault.CaseRefused {
		t.Errorf("confirmed in a case that has gone on: %v", err)
	}
}

// A deadline that cannot act stops no other one, and does not fill the log.
func TestBrokenDeadlines(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	good := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(good, "READY")
	var lines lineCounter
	w.home.deps.Log = slog.New(slog.NewTextHandler(&lines, nil))
	if err := w.home.db.Write(ctx, func(tx *store.Tx) error {
		for i := range batch {
			if _, err := tx.Exec(ctx, `INSERT INTO casework_clock (case_id, name, due_at, next_at) VALUES (?, 'silence', 1, 1)`, fmt.Sprintf("bad-%032d", i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	w.home.reaches(good, "UNANSWERED")
	time.Sleep(300 * time.Millisecond)
	if n, last := lines.count(); n > 8 { // a look every 20 ms
		t.Errorf("%d lines of log, such as %.300s", n, last)
	}
}

type lineCounter struct {
	mu   sync.Mutex
	n    int
	last string
}

func (l *lineCounter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	l.last = string(b)
	return len(b), nil
}

func (l *lineCounter) count() (int, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n, l.last
}

// A hook that panics holds its case, and nothing else.
func TestPanickingHook(t *testing.T) {
	d, err := definition.Read([]byte(strings.Replace(permit, "silence: {branches: [{to: UNANSWERED}]}", "silence: {let: {x: {run: boom@1, with: {}}}, branches: [{if: result.x, to: UNANSWERED}, {to: UNANSWERED}]}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := definition.Compile(d, definition.Hooks{"boom@1": {Gives: definition.Truth, Call: func(context.Context, time.Time, definition.Values) (any, error) { panic("a name") }}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, permit)
	w.gate.Lock()
	w.home.kill()
	w.host.kill()
	w.program = p
	w.home.start()
	w.host.start()
	w.gate.Unlock()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.pass(2 * time.Hour)
	if c := w.home.reaches(id, "HELD"); c.Trouble != "held" {
		t.Errorf("nobody is told: %q", c.Trouble)
	}
	events, _, err := w.home.history(context.Background(), id)
	if last := events[len(events)-1]; err != nil || strings.Contains(last.Held, "a name") || last.Held == "" {
		t.Errorf("%+v %v", last, err)
	}
	if err := w.home.Replay(context.Background(), id); err != nil {
		t.Error(err)
	}
}

// A register that is slow holds up nothing else, and one that failed is asked
// again, as if for the first time.
func TestRegisters(t *testing.T) {
	w := newWorld(t, permit)
	block := make(chan struct{})
	first := make(chan struct{})
	var once sync.Once
	w.register = func() (int, string) {
		once.Do(func() { close(first) })
		<-block
		return 200, `{"known":true}`
	}
	slow := w.home.must("citizen", "u1", "", "ask", asking).Case
	<-first
	other := w.home.must("citizen", "u2", "", "ask", asking).Case
	w.host.reaches(other, "CHECKING")
	if err := w.host.amend(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	w.settle(func() bool { c, err := w.home.load(context.Background(), other); return err == nil && c.Heard == 1 })
	close(block)
	w.host.reaches(slow, "READY")

	w = newWorld(t, permit)
	answers := []int{503, 429, 0, 200}
	w.register = func() (int, string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		now := answers[0]
		answers = answers[min(1, len(answers)-1):]
		return now, `{"known":false}`
	}
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "REFUSED")
	seen := map[string]bool{}
	for _, id := range w.host.fetched {
		if seen[id] {
			t.Errorf("asked twice under %s: the exchange gives the recorded answer again", id)
		}
		seen[id] = true
	}
	if len(seen) != 4 {
		t.Errorf("asked %d times", len(seen))
	}
}

// A message that came early and is then refused: its sender is told.
func TestEarlyRefusal(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	w.mu.Lock()
	w.held = func(c exchange.Call) bool { return strings.HasSuffix(c.ID, ".1") && c.Service.State == "BH" }
	w.mu.Unlock()
	// The host says it once too often, against its own definition.
	w.host.must("officer", "o1", id, "grant", `{"fee":{"minor":5500,"currency":"SAR"}}`)
	c := w.host.reaches(id, "GRANTED")
	ev, next, err := w.host.take(ctx, c, happening{kind: KindAmend, at: w.host.now()})
	if err != nil {
		t.Fatal(err)
	}
	ev.Sent[0].Message = "granted"
	if _, err := w.host.commit(ctx, c, next, ev, nil); err != nil {
		t.Fatal(err)
	}
	w.settle(func() bool {
		var n int
		return w.home.db.QueryRow(ctx, `SELECT COUNT(*) FROM casework_message WHERE work = 2`).Scan(&n) == nil && n == 1
	})
	w.release()
	w.home.reaches(id, "GRANTED")
	w.settle(func() bool { c, err := w.host.load(ctx, id); return err == nil && c.Trouble == "returned closed" })
}

// What a refusal of another state says is bounded, and in no column that
// anybody reads in the clear.
func TestPlainRefusal(t *testing.T) {
	r := (&Refusal{Why: strings.Repeat("sara 784199012345676 ", 100), Reason: strings.Repeat("r", 999), Detail: "a\u202eb\x00c" + strings.Repeat("d", 9999)}).plain()
	if r.Why != "invalid" || len(r.Reason) > 64 || len(r.Detail) > 256 || !strings.HasPrefix(r.Detail, "abcd") {
		t.Errorf("%+v", r)
	}
}

// The case time of a demonstration is no case time elsewhere.
func TestClockAhead(t *testing.T) {
	w := newWorld(t, permit)
	body := strings.Replace(string(message("00000000-0000-4000-8000-000000000001", 1, "request", asking)), `"at":`, `"clock_s":86400,"at":`, 1)
	if _, err := w.host.Hear(context.Background(), system("BH", "cases"), []byte(body)); fault.CodeOf(err) != fault.CaseInvalid {
		t.Errorf("heard: %v", err)
	}
	w.host.Engine.cfg.Sandbox = true
	if h, err := w.host.Hear(context.Background(), system("BH", "cases"), []byte(body)); err != nil || h.Refusal != nil {
		t.Errorf("in a demonstration: %+v %v", h, err)
	}
}
