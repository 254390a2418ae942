package exchange

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// TestWrongClocks: a little is borne, more is refused with a code that says
// which way, whichever node is wrong, and stays in the caller's evidence.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	k := map[union.State]*clock{"BH": {}, "SA": {}}
	u := newUnion(t, []union.State{"BH", "SA"}, k["BH"].of("BH"), k["SA"].of("SA"))
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	for name, c := range map[string]struct {
		state union.State
		ahead time.Duration
		code  fault.Code
	}{
		"both right":             {"SA", 0, ""},
		"the caller's a little":  {"SA", 20 * time.Second, ""},
		"behind a little":        {"SA", -20 * time.Second, ""},
		"the caller's ahead":     {"SA", 2 * time.Minute, fault.SealNotYetValid},
		"the caller's behind":    {"SA", -2 * time.Minute, fault.SealExpired},
		"the provider's ahead":   {"BH", 2 * time.Minute, fault.SealExpired},
		"the provider's behind":  {"BH", -2 * time.Minute, fault.SealNotYetValid},
		"a year ahead":           {"BH", 400 * 24 * time.Hour, fault.SealExpired},
		"the caller's by a year": {"SA", 400 * 24 * time.Hour, fault.DirectoryExpired},
	} {
		t.Run(name, func(t *testing.T) {
			k[c.state].advance(c.ahead)
			defer k[c.state].advance(-c.ahead)
			id := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "")
			a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: "+id)
			if c.code == "" {
				if a.status != 200 {
					t.Errorf("%d %s", a.status, a.body)
				}
				return
			}
			if e := a.fault(t); e.Code != string(c.code) {
				t.Errorf("%d %s, wanted %s", a.status, a.body, c.code)
			}
			if got := u.nodes["SA"].held(t, id); got != "request sent, unanswered" && (got != "refused" || c.ahead < 24*time.Hour) && got != "" {
				t.Errorf("the caller's node holds %s", got)
			}
			if got := u.nodes["BH"].held(t, id); got != "" {
				t.Errorf("the provider's node holds %s", got)
			}
		})
	}
	u.sound(t)
}

// TestDefaultPurpose: an agreement may say what a client calls for that cannot
// say so itself; who says it is taken at his word.
func TestDefaultPurpose(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Falaj-Purpose")) })
	u.publish("BH", func(e *directory.Edition) {
		i := slices.IndexFunc(e.Agreements, func(a directory.Agreement) bool { return a.ID == "SA-things" })
		e.Agreements[i].DefaultPurpose = "test"
	})
	if a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "Falaj-Purpose: "); a.status != 200 || string(a.body) != "test" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "Falaj-Purpose: other"); a.fault(t).Code != string(fault.PolicyDenied) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := u.call("SA", "GET", offered("BH", "idem"), "/", nil, "Falaj-Purpose: "); a.fault(t).Code != string(fault.MissingPurpose) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestRefusedBeforeItsPurpose: what the law delays of a call is delayed too
// where the call was refused before anybody looked for its purpose.
func TestRefusedBeforeItsPurpose(t *testing.T) {
	t.Parallel()
	const person = "1098765432"
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	u.publish("BH", func(e *directory.Edition) {
		i := slices.IndexFunc(e.Agreements, func(a directory.Agreement) bool { return a.ID == "SA-things" })
		e.Agreements[i].DefaultPurpose = "test"
	})
	u.delay("SA", "test", 30)
	u.delay("SA", "other", 30)
	for service, headers := range map[string][]string{
		"things": {"Falaj-Purpose: ", "X-Road-Id: .."},
		"idem":   {"Falaj-Purpose: other", "Falaj-Conversation: " + strings.Repeat("x", 5000)}, // has no default
	} {
		a := u.call("SA", "GET", offered("BH", service), "/", nil, append(headers, "Falaj-Subject: "+person)...)
		if a.status != http.StatusBadRequest {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	wantTold(t, "refused", u.nodes["SA"].traceOf(t, TraceQuestion{Subject: person}), 2)
}

// TestRulesOfEitherSide: the caller's own node refuses by its local rules
// before anything is sent, the provider's by its own after; both say by which
// rule, and their decisions are in evidence.
func TestRulesOfEitherSide(t *testing.T) {
	t.Parallel()
	for state, records := range map[union.State][2]string{
		"SA": {"refused", ""}, // of SA's and BH's node
		"BH": {"request sent, answer received", "request received, answer sent"},
	} {
		t.Run(string(state), func(t *testing.T) {
			u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, d *Deps) {
				if c.State == state {
					d.Rules = func() []policy.Source {
						return []policy.Source{{Name: "local/night", State: state, Text: `
							@id("no-posts") @en("Nothing is written here tonight.") @ar("لا كتابة هنا الليلة.")
							forbid (principal, action, resource) when { context.method == "POST" };`}}
					}
				}
			})
			u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "POST" {
					t.Error("the service was reached")
				}
			})
			if a := u.call("SA", "GET", offered("BH", "things"), "/", nil); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
			a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: night")
			if e := a.fault(t); e.Code != string(fault.PolicyDenied) || !strings.Contains(e.Message, "Nothing is written here tonight.") ||
				!strings.Contains(e.MessageAr, "لا كتابة هنا الليلة.") || strings.Contains(e.MessageAr, "tonight") {
				t.Errorf("%d %s", a.status, a.body)
			}
			for i, s := range []union.State{"SA", "BH"} {
				if got := u.nodes[s].held(t, "night"); got != records[i] {
					t.Errorf("%s holds %s", s, got)
				}
			}
			found, err := u.nodes[state].journal.Find(t.Context(), "night")
			check(t, err)
			n, err := readNote(found[0].Local)
			if err != nil || !slices.Contains(n.Rules, "local/night/no-posts") {
				t.Errorf("the record names the rules %v %v", n.Rules, err)
			}
			head, _, err := message.Open(found[len(found)-1].Envelope)
			if err != nil || !strings.Contains(string(head), `"fault":"policy.denied"`) {
				t.Errorf("%s %v", head, err)
			}
			u.sound(t)
		})
	}
}

// TestReleasedLate: what a node finds right while a request is held is asked
// again when it is released, if that takes its time.
func TestReleasedLate(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(3 * time.Second).Truncate(time.Second)
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, d *Deps) {
		if c.State == "BH" {
			d.Rules = func() []policy.Source {
				return []policy.Source{{Name: "local/end", State: "BH", Text: `
					@id("over") @en("It is over.") @ar("انتهى الأمر.")
					forbid (principal, action, resource) when { context.at >= datetime("` + end.UTC().Format(time.RFC3339) + `") };`}}
			}
		}
	})
	var calls atomic.Int32
	u.backend("BH", "things", func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	m := k.message(t)
	m.Hold = func() ([]byte, error) {
		time.Sleep(max(time.Until(end), time.Second) + 100*time.Millisecond)
		return nil, nil
	}
	if a, _, err := u.deliver("SA", "BH", m); err != nil || a.Fault != string(fault.PolicyDenied) || calls.Load() != 0 {
		t.Errorf("%+v %v after %d calls", a, err, calls.Load())
	}
}
