package exchange

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// auditor reads what he may.
var auditor = Reader{Name: "Fatima", May: func(_, _ union.SubsystemID) bool { return true }}

// smallBlocks makes the trace's index of rows that tests can fill.
func smallBlocks(c *Config, _ *Deps) { c.traceBlock = 8 }

func (n *testNode) traceOf(t *testing.T, q TraceQuestion) *Trace {
	t.Helper()
	got, err := n.Trace(t.Context(), q, auditor)
	check(t, err)
	return got
}

// told is what entries say, the newest first.
func told(tr *Trace) (out []string) {
	for _, e := range tr.Entries {
		s := e.What + " " + e.ID + e.Action
		if e.Purpose != nil {
			s += " " + e.Purpose.Code
		}
		if s += " " + e.Outcome; e.Fault != "" {
			s += " " + string(e.Fault)
		}
		out = append(out, s)
	}
	return out
}

func wantTold(t *testing.T, what string, got *Trace, withheld int, want ...string) {
	t.Helper()
	if g := told(got); !slices.Equal(g, want) || got.Withheld != withheld || got.Unread != 0 {
		t.Errorf("%s:\n %s\nwithheld %d, unread %d; wanted\n %s\nwithheld %d", what, strings.Join(g, "\n "), got.Withheld, got.Unread, strings.Join(want, "\n "), withheld)
	}
}

// delay makes a state's law delay what a purpose's calls tell.
func (u *testUnion) delay(s union.State, purpose string, days int) {
	u.t.Helper()
	check(u.t, u.nodes[s].dir.Publish(u.t.Context(), func(e *directory.Edition) error {
		d, err := ParseDelays(e.Files[DelayFile])
		if err == nil {
			d, err = d.Set(purpose, days)
		}
		if err == nil {
			e.Files[DelayFile], err = d.Encode()
		}
		return err
	}))
	u.refresh()
}

// TestTrace: each state tells of its own person who asked what, on both sides
// of a call, refusals and readings too, and of nobody else.
func TestTrace(t *testing.T) {
	t.Parallel()
	const ours, theirs = "1098765432", "880311234"
	logs := newLogs()
	u := newUnion(t, []union.State{"BH", "SA"}, smallBlocks, func(_ *Config, d *Deps) {
		d.Log = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Falaj-Subject", r.Header.Get("X-Test-Person"))
		_, _ = io.WriteString(w, "ok")
	})
	apart := func() { time.Sleep(2 * time.Millisecond) } // times are kept in milliseconds
	call := func(id, person, found string, status int, service string, more ...string) {
		t.Helper()
		apart()
		a := u.call("SA", "GET", offered("BH", service), "/", nil, append([]string{"Falaj-Subject: " + person, "X-Test-Person: " + found, "X-Road-Id: " + id}, more...)...)
		if a.status != status {
			t.Fatalf("%s: %d %s", id, a.status, a.body)
		}
	}
	call("t-1", ours, theirs, 200, "things")
	call("t-2", "2222", "3333", 200, "things")
	call("t-3", ours, theirs, 500, "closed")
	call("t-4", ours, theirs, 500, "things", "Falaj-Purpose: other")
	call("t-5", ours, theirs, 400, "things", "Falaj-Purpose: fun")
	call("t-1", ours, theirs, 200, "things") // from the record of the caller's node: nothing crosses
	call("t-6", "", theirs, 200, "things")
	call("t-7", ours, "", 200, "things")

	sa, bh := u.nodes["SA"], u.nodes["BH"]
	asked := []string{"asked t-7 test answered", "asked t-5 fun refused " + string(fault.UnknownPurpose), "asked t-4 other refused " + string(fault.PolicyDenied), "asked t-3 test refused " + string(fault.PolicyDenied), "asked t-1 test answered"}
	apart()
	got := sa.traceOf(t, TraceQuestion{Subject: ours})
	wantTold(t, "SA", got, 0, asked...)
	wantTold(t, "BH", bh.traceOf(t, TraceQuestion{Subject: theirs}), 0, "served t-6 test answered", "served t-1 test answered")
	for _, e := range got.Entries {
		if e.Client.ID != desk("SA").String() || e.Client.Name.Ar == "" || e.Client.Member.En == "" || e.Service.Name.En == "" || e.Method != "GET" || e.At.IsZero() {
			t.Errorf("%+v %+v %+v", e, e.Client, e.Service)
		}
		if e.Purpose.Code == "test" && (e.Purpose.Basis.Ar == "" || e.Purpose.Name.En == "") || e.Fault != "" && !e.Reason.Complete() {
			t.Errorf("%+v %+v", e, e.Purpose)
		}
	}
	// Who read is in the trace as well, of the trace and of a call's evidence;
	// what was refused to him is, too.
	apart()
	_, err := sa.Evidence(t.Context(), "t-1", auditor, Page{})
	check(t, err)
	apart()
	_, err = sa.Container(t.Context(), Which{ID: "t-1"}, auditor)
	check(t, err)
	_, err = sa.Receipt(t.Context(), "t-1", auditor)
	if err == nil {
		t.Error("a receipt of a log that is not there")
	}
	apart()
	_, err = sa.Trace(t.Context(), TraceQuestion{Subject: ours, Limit: maxTraceLimit + 1}, auditor)
	if fault.CodeOf(err) != fault.BadRequest {
		t.Error(err)
	}
	all := append([]string{"read trace.read refused " + string(fault.BadRequest), "read t-1evidence.export answered", "read t-1evidence.read answered", "read trace.read answered"}, asked...)
	got = sa.traceOf(t, TraceQuestion{Subject: ours})
	wantTold(t, "after readings", got, 0, all...)
	if got.Entries[1].By != "Fatima" {
		t.Errorf("%+v", got.Entries[1])
	}

	// In pages, and of a time.
	var pages []string
	for q := (TraceQuestion{Subject: ours, Limit: 2, Until: got.Entries[0].At}); ; {
		page := sa.traceOf(t, q)
		pages = append(pages, told(page)...)
		if q.Before = page.Next; page.Next == 0 {
			break
		}
		if len(page.Entries) != 2 {
			t.Errorf("a page of %d", len(page.Entries))
		}
	}
	if !slices.Equal(pages, all[1:]) {
		t.Errorf("pages %q", pages)
	}
	wantTold(t, "since", sa.traceOf(t, TraceQuestion{Subject: ours, Since: got.Entries[5].At, Until: got.Entries[4].At}), 0, all[5])

	// Nobody else's, and nothing where nobody asked.
	for _, other := range []string{theirs, "3333", "nobody"} {
		wantTold(t, other, sa.traceOf(t, TraceQuestion{Subject: other}), 0)
	}
	for _, bad := range []TraceQuestion{{}, {Subject: strings.Repeat("1", maxSubject+1)}, {Subject: ours, Before: -1}} {
		if _, err := sa.Trace(t.Context(), bad, auditor); fault.CodeOf(err) != fault.BadRequest || strings.Contains(fmt.Sprint(err), "111") {
			t.Error(err)
		}
	}
	if s := logs.String(); strings.Contains(s, ours) || strings.Contains(s, theirs) {
		t.Error("the log names a person")
	}
}

// TestTraceIndex: the index finds what a look at all records finds; what is
// missing of it or was changed is made anew, and a changed row tells nothing.
func TestTraceIndex(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"}, smallBlocks)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for i := range 24 {
		u.call("SA", "GET", offered("BH", "things"), "/", nil, fmt.Sprintf("Falaj-Subject: p-%d", i%3), fmt.Sprintf("X-Road-Id: i-%d", i))
	}
	sa := u.nodes["SA"]
	find := func(what string) {
		t.Helper()
		for p := range 3 {
			var want []int64
			for i := range sa.size(t) {
				s, err := sa.journal.Get(t.Context(), i)
				check(t, err)
				if h := sa.Exchange.deps.Persons.Sum(fmt.Appendf(nil, "p-%d", p)); bytes.Contains(s.Local, []byte(hexOf(h))) {
					want = append(want, i)
				}
			}
			got, unread, err := sa.traced(t.Context(), hashesOf(t, sa, fmt.Sprintf("p-%d", p)))
			if err != nil || unread != 0 || !slices.Equal(got, want) || len(want) != 8 {
				t.Errorf("%s: %v, %d unread, %v; wanted %v", what, got, unread, err, want)
			}
		}
	}
	rows := func() (n int64) {
		t.Helper()
		check(t, sa.db.QueryRow(t.Context(), "SELECT COUNT(*) FROM exchange_trace").Scan(&n))
		return n
	}
	find("unindexed")
	if rows() != 6 {
		t.Errorf("%d rows", rows())
	}
	find("indexed")
	for _, change := range []string{
		"DELETE FROM exchange_trace WHERE block = 1",
		"DELETE FROM exchange_trace",
		"UPDATE exchange_trace SET parts = x''",
		"UPDATE exchange_trace SET parts = (SELECT parts FROM exchange_trace WHERE block = 2) WHERE block = 3",
		"UPDATE exchange_trace SET parts = substr(parts, 1, 40)",
		"UPDATE exchange_trace SET parts = parts || x'00000000'",
		"UPDATE exchange_trace SET parts = parts || parts",
		"INSERT INTO exchange_trace (block, parts) VALUES (99, x'00')",
	} {
		_, err := sa.db.Exec(t.Context(), change)
		check(t, err)
		find(change)
	}
	checked := func() (wrong []int64, err error) {
		err = sa.checkTrace(t.Context(), func(int64) {}, func(block int64) { wrong = append(wrong, block) })
		return wrong, err
	}
	check(t, sa.indexFull(t.Context()))
	if wrong, err := checked(); err != nil || len(wrong) != 0 {
		t.Errorf("%v %v", wrong, err)
	}
	_, err := sa.db.Exec(t.Context(), "UPDATE exchange_trace SET parts = (SELECT parts FROM exchange_trace WHERE block = 2) WHERE block = 3")
	check(t, err)
	if wrong, err := checked(); err != nil || !slices.Equal(wrong, []int64{3}) {
		t.Errorf("%v %v", wrong, err)
	}
	find("put right")
	if wrong, err := checked(); err != nil || len(wrong) != 0 {
		t.Errorf("%v %v", wrong, err)
	}

	// What is erased is erased there too, also while the row is being made.
	whole := hashesOf(t, sa, "p-1")
	found, _, err := sa.traced(t.Context(), whole)
	check(t, err)
	erase := func(leaf int64) {
		t.Helper()
		_, err := sa.journal.Erase(t.Context(), journal.Erasure{Leaves: []int64{leaf}, By: []string{"Fatima"}, At: sa.now(), Class: "exchange"}, nil, nil, func(ctx context.Context, tx *store.Tx) error {
			return sa.untrace(ctx, tx, leaf)
		})
		check(t, err)
	}
	inRow := func(leaf int64) bool {
		t.Helper()
		var row []byte
		check(t, sa.db.QueryRow(t.Context(), "SELECT COALESCE(MAX(parts), x'') FROM exchange_trace WHERE block = ?", leaf/8).Scan(&row))
		if len(row) <= traceMark {
			return false
		}
		found, err := sa.look(leaf/8, row, whole)
		check(t, err)
		return slices.Contains(found, leaf)
	}
	if !inRow(found[0]) {
		t.Error("not in its row")
	}
	erase(found[0])
	if inRow(found[0]) {
		t.Error("still in its row")
	}
	sa.Exchange.deps.Records = meddling{sa.Exchange.deps.Records, func() { erase(found[1]) }}
	_, _, err = sa.index(t.Context(), found[1]/8)
	check(t, err)
	sa.Exchange.deps.Records = sa.keys.Records()
	if inRow(found[1]) {
		t.Error("put into its row after it was erased")
	}
	if got, unread, err := sa.traced(t.Context(), whole); err != nil || unread != 0 || !slices.Equal(got, found[2:]) {
		t.Errorf("%v %d %v", got, unread, err)
	}

	// The end of retention is its end too: nobody can be found by it.
	check(t, sa.keys.Records().Destroy("exchange", seal.PeriodOf(sa.now())))
	if wrong, err := checked(); err != nil || len(wrong) != 0 {
		t.Errorf("%v %v", wrong, err)
	}
	if got, _, err := sa.traced(t.Context(), hashesOf(t, sa, "p-0")); err != nil || len(got) != 0 {
		t.Errorf("found %v, %v", got, err)
	}
}

// meddling does something before each encryption.
type meddling struct {
	journal.Cipher
	first func()
}

func (m meddling) Seal(dst []byte, class string, at time.Time, plaintext, aad []byte) ([]byte, error) {
	m.first()
	return m.Cipher.Seal(dst, class, at, plaintext, aad)
}

func hashesOf(t *testing.T, n *testNode, name string) (out []message.Digest) {
	t.Helper()
	every, err := n.Exchange.deps.Persons.Every([]byte(name))
	check(t, err)
	for _, h := range every {
		out = append(out, h)
	}
	return out
}

// TestTraceAcrossKeys: under whichever key a person was hashed, he is found;
// and a client that repeats its call after the key was replaced is the same.
func TestTraceAcrossKeys(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"}, smallBlocks)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	sa := u.nodes["SA"]
	call := func(id string, status int, who string) {
		t.Helper()
		if a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "Falaj-Subject: "+who, "X-Road-Id: "+id); a.status != status {
			t.Errorf("%s: %d %s", id, a.status, a.body)
		}
	}
	for v, id := range []string{"v-1", "v-2", "v-3"} {
		_, err := sa.keys.HMAC(fmt.Sprintf("person-%d", v+1))
		check(t, err)
		call(id, 204, "p")
	}
	wantTold(t, "three keys", sa.traceOf(t, TraceQuestion{Subject: "p"}), 0, "asked v-3 test answered", "asked v-2 test answered", "asked v-1 test answered")
	call("v-1", 204, "p")
	call("v-1", 400, "q")
}

// TestTraceDelays: what the law delays is counted and not shown, whatever time
// is asked for, refusals and what was read of it too, and shown when it may be.
func TestTraceDelays(t *testing.T) {
	t.Parallel()
	const person = "1098765432"
	u := newUnion(t, []union.State{"BH", "SA"}, smallBlocks)
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	u.delay("SA", "other", 30)
	u.delay("BH", "test", 30) // that state's law, for its own persons
	for i, purpose := range []string{"test", "other", "other"} {
		u.call("SA", "GET", offered("BH", "things"), "/", nil, "Falaj-Subject: "+person, "Falaj-Purpose: "+purpose, fmt.Sprintf("X-Road-Id: d-%d", i))
	}
	sa := u.nodes["SA"]
	_, err := sa.Evidence(t.Context(), "d-1", auditor, Page{})
	check(t, err)
	first := sa.traceOf(t, TraceQuestion{Subject: person})
	wantTold(t, "now", first, 3, "asked d-0 test answered")
	for _, q := range []TraceQuestion{
		{Subject: person, Until: first.Entries[0].At},
		{Subject: person, Since: time.Now().Add(time.Hour)},
	} {
		wantTold(t, "of a time that has none", sa.traceOf(t, q), 3)
	}
	sa.shift.Store(int64(29 * 24 * time.Hour))
	if got := sa.traceOf(t, TraceQuestion{Subject: person}); got.Withheld != 3 {
		t.Errorf("%q, withheld %d", told(got), got.Withheld)
	}
	sa.shift.Store(int64(31 * 24 * time.Hour))
	got := sa.traceOf(t, TraceQuestion{Subject: person, Until: time.Now().Add(time.Hour)})
	if got.Withheld != 0 || !slices.Contains(told(got), "asked d-2 other refused "+string(fault.PolicyDenied)) || !slices.Contains(told(got), "read d-1evidence.read answered") {
		t.Errorf("%q, withheld %d", told(got), got.Withheld)
	}
	// As the law is now: a longer delay hides again, one taken away shows.
	sa.shift.Store(int64(0))
	u.delay("SA", "other", 0)
	if got := sa.traceOf(t, TraceQuestion{Subject: person}); got.Withheld != 0 {
		t.Errorf("withheld %d", got.Withheld)
	}
	// What cannot be read is not guessed.
	check(t, sa.dir.Publish(t.Context(), func(e *directory.Edition) error {
		e.Files[DelayFile] = []byte(`{"delays":[{"purpose":"other"}]}`)
		return nil
	}))
	if _, err := sa.Trace(t.Context(), TraceQuestion{Subject: person}, auditor); err == nil {
		t.Error("shown although the delays are unknown")
	}
}

// FuzzDelays: whatever is read is written the same.
func FuzzDelays(f *testing.F) {
	f.Add([]byte(`{"delays":[{"purpose":"a","days":180},{"purpose":"b","days":1}]}`))
	f.Add([]byte(`{"delays":[{"purpose":"a","days":180},{"purpose":"a","days":1}]}`))
	f.Add([]byte(`{"delays":[{"purpose":"a","days":-1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDelays(b)
		if err != nil {
			return
		}
		again, err := d.Encode()
		check(t, err)
		back, err := ParseDelays(again)
		if check(t, err); !slices.Equal(back.Delays, d.Delays) {
			t.Errorf("%v became %v", d, back)
		}
	})
}
