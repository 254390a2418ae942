package traffic_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// story is one case, both of its halves in memory, and what they book in two
// ledgers. Chance decides what people do, when messages arrive, what the
// register answers and how time passes.
type story struct {
	t       testing.TB
	p       *definition.Program
	dice    *rand.Rand
	name    string
	now     time.Time
	opened  time.Time
	halves  map[string]definition.Half
	lines   map[string][]definition.Input // to a half, in order
	books   map[string]*store.DB
	events  []string
	parked  int64
	numbers int
}

func other(party string) string {
	if party == "offence" {
		return "registration"
	}
	return "offence"
}

// take takes one step, with its effects in one transaction; a crash before its
// commit is a step that did not happen, and is taken again.
func (s *story) take(party string, in definition.Input) {
	s.t.Helper()
	h, ok := s.halves[party]
	if !ok {
		var err error
		if h, err = s.p.Open(party, s.opened, s.now); err != nil {
			s.t.Fatal(err)
		}
	}
	in.At = s.now
	out, err := s.p.Step(s.t.Context(), h, in)
	var refusal *definition.Refusal
	if errors.As(err, &refusal) {
		return
	}
	if err != nil {
		s.t.Fatalf("%s: %v", s, err)
	}
	s.events = append(s.events, fmt.Sprintf("%s %s: %s -> %s", party, in.Trigger, h.State, out.State))
	if out.Held != "" {
		s.t.Fatalf("%s: held: %s", s, out.Held)
	}
	peer := map[string]union.State{"offence": "BH", "registration": "AE"}[party]
	for n, end := range []error{errCrash, nil} {
		if len(out.Effects) == 0 || n == 0 && s.dice.IntN(4) > 0 {
			continue
		}
		err := s.books[party].Write(s.t.Context(), func(tx *store.Tx) error {
			for _, e := range out.Effects {
				if err := traffic.Effects()[e.Run](s.t.Context(), tx, casework.Effect{Case: s.name, Peer: peer, At: s.now, With: e.With}); err != nil {
					return fmt.Errorf("%s: %w", e.Run, err)
				}
			}
			return end
		})
		if !errors.Is(err, end) {
			s.t.Fatalf("%s: %v", s, err)
		}
	}
	for _, e := range out.Effects {
		if e.Run == "ledger.park@1" {
			s.parked += e.With["paid"].(map[string]any)["minor"].(int64)
		}
	}
	s.halves[party] = out.Half
	for _, m := range out.Send {
		s.lines[other(party)] = append(s.lines[other(party)], definition.Input{Trigger: m.Message, Fields: m.Fields})
	}
	for range out.Ask {
		answer := definition.Input{Trigger: "vehicle", Status: 200, Fields: definition.Values{"registered": "456789", "make": "Toyota Camry", "colour": "white"}}
		if roll := s.dice.IntN(10); roll == 0 {
			answer.Status, answer.Fields = 503, nil
		}
		s.take(party, answer)
	}
}

var errCrash = errors.New("the process ends here")

func (s *story) String() string { return s.name + "\n" + strings.Join(s.events, "\n") }

// arrive delivers the oldest message to a half, if there is one.
func (s *story) arrive(party string) bool {
	if len(s.lines[party]) == 0 {
		return false
	}
	in := s.lines[party][0]
	s.lines[party] = s.lines[party][1:]
	s.take(party, in)
	return true
}

// wait lets time pass, and fires what falls due.
func (s *story) wait(d time.Duration) {
	until := s.now.Add(d)
	for n := 0; ; n++ {
		var party, name string
		var at time.Time
		for _, half := range []string{"offence", "registration"} {
			for _, clock := range slices.Sorted(maps.Keys(s.halves[half].Clocks)) {
				if due := s.halves[half].Clocks[clock]; name == "" || due.Before(at) {
					party, name, at = half, clock, due
				}
			}
		}
		if name == "" || at.After(until) {
			break
		}
		if n > 1000 {
			s.t.Fatalf("%s: time does not pass", s)
		}
		if at.After(s.now) {
			s.now = at
		}
		s.take(party, definition.Input{Trigger: name})
	}
	s.now = until
}

// act has somebody do something that his half offers him.
func (s *story) act() {
	party := []string{"offence", "registration", "registration"}[s.dice.IntN(3)]
	h, ok := s.halves[party]
	if !ok {
		return
	}
	m := s.p.Definition().Halves[party]
	var forms []string
	for _, on := range []map[string]definition.On{m.Always.On, m.States[h.State].On} {
		for _, name := range slices.Sorted(maps.Keys(on)) {
			if _, form := s.p.Definition().Forms[name]; form {
				forms = append(forms, name)
			}
		}
	}
	if len(forms) == 0 {
		return
	}
	form := forms[s.dice.IntN(len(forms))]
	if form == "cancel" && s.dice.IntN(4) > 0 {
		return
	}
	s.numbers++
	fields := definition.Values{}
	for _, name := range s.p.Definition().Forms[form].Fields {
		switch name {
		case "receipt":
			fields[name] = fmt.Sprint("R-", s.numbers-s.dice.IntN(2)) // now and then one that was reported before
		case "refund_number":
			fields[name] = fmt.Sprint("F-", s.numbers)
		case "paid":
			fields[name] = amount([]int64{26_619, 40_953, 81_906, 50_000, 1 + s.dice.Int64N(60_000)}[s.dice.IntN(5)], "BHD")
		case "amount":
			fields[name] = amount(1+s.dice.Int64N(80_000), "AED")
		case "ground":
			fields[name] = "other"
		case "why":
			fields[name] = "not_found"
		case "nominee_state":
			fields[name] = "KW"
		case "plate":
			fields[name] = "456789"
		case "photo":
			fields[name] = strings.Repeat("ab", 32)
		default:
			fields[name] = "a text that is long enough"
		}
	}
	s.take(party, definition.Input{Trigger: form, Actor: definition.Actor{Role: s.p.Definition().Forms[form].Role, User: "u"}, Fields: fields})
}

// play plays a case and then lets everything arrive, and time end it.
func (s *story) play() {
	fields := definition.Values{"number": "AD-1", "offence_state": "AE", "registered_in": "BH", "plate_seen": "٤٥٦٧٨٩", "make_seen": "Toyota", "colour_seen": "silver",
		"code": "SPEED-20", "what_en": "Speeding", "what_ar": "تجاوز السرعة", "offended_at": s.now.Add(-time.Hour), "place": "Abu Dhabi",
		"amount": amount(40_000, "AED"), "original": strings.Repeat("00", 32), "photo": strings.Repeat("ab", 32)}
	if s.dice.IntN(2) == 0 {
		fields["code"], fields["amount"] = "PHONE", amount(80_000, "AED")
	}
	s.opened = s.now
	s.take("offence", definition.Input{Trigger: "record", Actor: definition.Actor{Role: "police"}, Fields: fields})
	for range 20 + s.dice.IntN(40) {
		switch s.dice.IntN(6) {
		case 0, 1:
			s.arrive("offence")
		case 2, 3:
			s.arrive("registration")
		case 4:
			s.act()
		default:
			s.wait(time.Duration(s.dice.Int64N(int64(12 * 24 * time.Hour))))
		}
	}
	for range 10 {
		for s.arrive("offence") || s.arrive("registration") {
		}
		s.wait(400 * 24 * time.Hour)
	}
}

// judge holds the ended case against both ledgers.
func (s *story) judge() {
	get := func(party, fact string) int64 {
		m, _ := s.halves[party].Facts[fact].(map[string]any)
		n, _ := m["minor"].(int64)
		return n
	}
	balance := func(party string, kind ledger.Kind, peer, unit string) int64 {
		var m union.Money
		err := s.books[party].Read(s.t.Context(), func(tx *store.Tx) (err error) {
			m, err = ledger.BalanceOf(s.t.Context(), tx, ledger.Account{Kind: kind, Party: peer, Subject: s.name}, union.Currency(unit))
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
		return m.Minor
	}
	for _, c := range []struct {
		what      string
		fact, led int64
	}{
		{"received", get("offence", "received"), -balance("offence", ledger.Claim, "BH", "AED")},
		{"discharged", get("registration", "discharged"), balance("registration", ledger.Debt, "AE", "AED")},
		{"spent", get("registration", "spent"), balance("registration", ledger.Due, "AE", "BHD")},
		{"open", get("registration", "open"), balance("registration", ledger.Open, "", "BHD")},
		{"received and discharged", get("offence", "received"), get("registration", "discharged")},
	} {
		if c.fact != c.led {
			s.t.Fatalf("%s\n%s: %d and %d", s, c.what, c.fact, c.led)
		}
	}
	for party, h := range s.halves {
		if !s.p.Definition().Halves[party].States[h.State].Final {
			s.t.Fatalf("%s\n%s is stuck in %s", s, party, h.State)
		}
	}
}

// random plays cases by chance, and tells in which states they ended.
func random(t testing.TB, cases int) map[string]int {
	p := compiled(t)
	books := map[string]*store.DB{"offence": storetest.Open(t, storetest.SQLite(t), ledger.Migrations()), "registration": storetest.Open(t, storetest.SQLite(t), ledger.Migrations())}
	start, ends, parked := in("2026-03-02T08:00:00Z"), map[string]int{}, int64(0)
	for n := range cases {
		s := &story{t: t, p: p, dice: rand.New(rand.NewPCG(uint64(n), 7)), name: fmt.Sprint("case-", n), now: start,
			halves: map[string]definition.Half{}, lines: map[string][]definition.Input{}, books: books}
		s.play()
		s.judge()
		parked += s.parked
		for party, h := range s.halves {
			ends[party+" "+h.State]++
		}
	}
	var claims, debts ledger.Statement
	for party, db := range books {
		err := db.Read(t.Context(), func(tx *store.Tx) (err error) {
			r, err := ledger.Audit(t.Context(), tx)
			if err != nil || len(r.Findings) > 0 {
				t.Errorf("%s: %+v, %v", party, r, err)
			}
			far := start.AddDate(100, 0, 0)
			if party == "offence" {
				claims, err = ledger.StatementOf(t.Context(), tx, ledger.Claim, "BH", "AED", start, far)
				return err
			}
			if len(r.Payers) != 1 || r.Payers[0].Suspense != parked {
				t.Errorf("%+v, and %d were parked", r.Payers, parked)
			}
			debts, err = ledger.StatementOf(t.Context(), tx, ledger.Debt, "AE", "AED", start, far)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if breaks, ok := ledger.Compare(claims, debts); len(breaks) > 0 || !ok {
		t.Errorf("the two states' books differ: %+v", breaks)
	}
	return ends
}

func TestRandom(t *testing.T) {
	ends := random(t, 200)
	t.Log(ends)
	for _, state := range []string{"offence PAID", "offence CANCELLED", "offence HANDED_OVER", "offence TIME_BARRED", "offence UNSERVABLE", "registration PAID", "registration CLOSED", "registration CANCELLED"} {
		if ends[state] == 0 {
			t.Errorf("no case ended in %s", state)
		}
	}
}
