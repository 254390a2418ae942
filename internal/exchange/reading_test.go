package exchange

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
)

// readings gives who read of an id, and what came of it.
func (n *testNode) readings(t testing.TB, id string) (out []string) {
	t.Helper()
	found, err := n.journal.Find(t.Context(), readingKey(id))
	check(t, err)
	for _, s := range found {
		var r reading
		check(t, json.Unmarshal(s.Local, &r))
		if s.Kind != journal.Decision || r.ID != id {
			t.Errorf("%s %s", s.Kind, s.Local)
		}
		out = append(out, strings.TrimSpace(r.Action+" "+r.By+" "+string(r.Code)))
	}
	return out
}

// TestReadingIsARecord: who reads evidence, or is refused it, stands in the
// journal; so does whoever is refused a delivery.
func TestReadingIsARecord(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("secret")) })
	sa := u.nodes["SA"]
	u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: read")
	if _, err := sa.Evidence(t.Context(), "read", Reader{Name: "an auditor", May: func(_, _ union.SubsystemID) bool { return true }}, Page{}); err != nil {
		t.Error(err)
	}
	u.evidence(t, desk("SA"), "read")
	u.evidence(t, desk("SA"), "nothing")
	if got := fmt.Sprint(sa.readings(t, "read"), sa.readings(t, "nothing")); got != "[evidence.read an auditor evidence.read SA/GOV/office/desk] [evidence.read SA/GOV/office/desk not-found]" {
		t.Errorf("recorded %s", got)
	}

	if a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: later", "Prefer: respond-async"); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	u.soon("it is answered", func() bool { return strings.Contains(string(u.at("SA", "/async/later").body), `"answered"`) })
	if a := u.at("SA", "/async/later/answer"); string(a.body) != "secret" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	before := sa.held(t, "later")
	u.withdraw("BH", "SA-things")
	if a := u.at("SA", "/async/later/answer"); !strings.Contains(string(a.body), string(fault.PolicyDenied)) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := sa.held(t, "later"); got != before+", refused" {
		t.Errorf("recorded %s", got)
	}
	u.at("SA", "/async/another")
	if got := fmt.Sprint(sa.readings(t, "another")); got != "[delivery.read SA/GOV/office/desk not-found]" {
		t.Errorf("recorded %s", got)
	}
	if e, a := u.evidence(t, desk("SA"), "later"); e == nil {
		t.Errorf("%d %s", a.status, a.body)
	} else if wrong := sa.failing(t, e); wrong != nil {
		t.Error(wrong)
	}
}

// TestNoCallAmongReadings: no client can give a call an id under which it would
// stand among readings.
func TestNoCallAmongReadings(t *testing.T) {
	if message.ValidID(readingKey("x")) {
		t.Errorf("%q may be an id", readingKey("x"))
	}
}

// TestNothingReadWithoutRecord: what cannot be recorded is not shown.
func TestNothingReadWithoutRecord(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {})
	u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: read")
	check(t, u.nodes["SA"].journal.Close(t.Context()))
	if e, a := u.evidence(t, desk("SA"), "read"); e != nil || a.status != 503 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestMuchOfAnID: no client hides evidence by using an id often, and no
// evidence is larger than an answer may be: what is left out is told, and found
// by asking on.
func TestMuchOfAnID(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {})
	sa := u.nodes["SA"]
	u.call("SA", "GET", offered("BH", "nothing"), "/", nil, "X-Road-Id: often")
	first, err := sa.journal.Find(t.Context(), "often")
	check(t, err)
	done := make(chan error, 300)
	for range cap(done) {
		go func() { _, err := sa.journal.Append(t.Context(), first[0].Record); done <- err }()
	}
	for range cap(done) {
		check(t, <-done)
	}
	u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: often")
	e, a := u.evidence(t, desk("SA"), "often")
	if e == nil || len(e.Halves) != 2 || len(e.Halves[0].Records) != 303 || len(e.Halves[1].Records) != 2 {
		t.Fatalf("%d %.500s", a.status, a.body)
	}

	for range 10 {
		u.call("SA", "GET", offered("BH", "closed"), "/", nil, "X-Road-Id: much", "X-Big: "+strings.Repeat("b", 200<<10))
	}
	e, a = u.evidence(t, desk("SA"), "much")
	if e == nil || len(e.Halves) != 2 || len(a.body) > 2*maxEvidence+maxEvidence/2 {
		t.Fatalf("%d, %d bytes", a.status, len(a.body))
	}
	if wrong := fmt.Sprint(sa.failing(t, e)); !strings.Contains(wrong, "was left out") {
		t.Errorf("what was left out is not missed: %.500s", wrong)
	}
	all := &Evidence{ID: e.ID, Halves: e.Halves}
	for i, h := range e.Halves {
		if h.More == 0 || len(h.Records) >= 20 {
			t.Errorf("of %s %d records, and more from %d on", h.State, len(h.Records), h.More)
		}
		for more := h.More; more != 0; {
			a := u.at("SA", fmt.Sprintf("/evidence/much?state=%s&from=%d", h.State, more))
			var next Evidence
			check(t, json.Unmarshal(a.body, &next))
			if len(next.Halves) != 1 || next.Halves[0].State != h.State || len(next.Halves[0].Records) == 0 {
				t.Fatalf("%d %.500s", a.status, a.body)
			}
			more = next.Halves[0].More
			all.Halves[i].Records = append(all.Halves[i].Records, next.Halves[0].Records...)
		}
		all.Halves[i].More = 0
		if n := len(all.Halves[i].Records); n != 20 {
			t.Errorf("of %s %d records in all", h.State, n)
		}
	}
	if wrong := sa.failing(t, all); wrong != nil {
		t.Error(wrong)
	}
	for _, q := range []string{"state=xx1", "from=1", "state=SA&from=-1", "state=SA&from=x"} {
		if a := u.at("SA", "/evidence/much?"+q); a.status != 400 {
			t.Errorf("%s: %d %s", q, a.status, a.body)
		}
	}
}
