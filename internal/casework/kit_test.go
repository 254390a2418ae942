package casework

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// permit is a service with all that the engine has to carry: forms of three
// kinds of roles, two persons, a register, deadlines, messages that cross.
const permit = `
falaj: service/1
name: permit
version: 1
title: {en: Permit, ar: تصريح}
purpose: permits
basis:
  act: {en: Permits Act, ar: قانون التصاريح}
retention: {days: 365, basis: act}
parties:
  home: {en: Home state, ar: الدولة الأم}
  host: {en: Host state, ar: الدولة المضيفة}
opens: home
roles:
  citizen: {party: home, kind: citizen, title: {en: Citizen, ar: مواطن}}
  officer: {party: host, kind: officer, title: {en: Officer, ar: موظف}}
facts:
  name: {owner: home, type: text, title: {en: Name, ar: الاسم}, schema: {maxLength: 200}, personal: act}
  stay: {owner: home, type: whole, title: {en: Days, ar: الأيام}, schema: {minimum: 1, maximum: 90}}
  known: {owner: host, type: truth, title: {en: Known to the register, ar: معروف لدى السجل}}
  until: {owner: host, type: instant, title: {en: Until, ar: حتى}}
  fee: {owner: host, type: money, title: {en: Fee, ar: الرسم}}
forms:
  ask: {role: citizen, title: {en: Ask, ar: طلب}, fields: [name, stay]}
  withdraw: {role: citizen, title: {en: Withdraw, ar: سحب}}
  grant: {role: officer, title: {en: Grant, ar: منح}, fields: [fee]}
  refuse: {role: officer, title: {en: Refuse, ar: رفض}, two: true}
messages:
  request: {from: home, title: {en: Request, ar: طلب}, fields: [name, stay], needs: [name, stay]}
  withdrawn: {from: home, title: {en: Withdrawn, ar: مسحوب}}
  granted: {from: host, title: {en: Granted, ar: ممنوح}, fields: [until, fee], needs: [until]}
  refused: {from: host, title: {en: Refused, ar: مرفوض}}
calls:
  register: {party: host, service: residents, basis: act, method: GET, path: "/persons/{name}", keep: {known: /known}, timeout: PT5S}
reasons:
  unknown-person: {en: The register does not know this person., ar: السجل لا يعرف هذا الشخص.}
notices:
  granted: {role: citizen, title: {en: Granted, ar: مُنح}, text: {en: "Until {until}.", ar: "حتى {until}."}}
halves:
  home:
    start: NEW
    hold: HELD
    states:
      NEW:
        title: {en: New, ar: جديد}
        deadlines: {stale: {after: P1D}}
        on:
          ask: {branches: [{to: ASKED, send: [request]}]}
          stale: {branches: [{to: WITHDRAWN}]}
      ASKED:
        title: {en: Asked, ar: مطلوب}
        deadlines: {silence: {after: PT1H}}
        on:
          granted: {branches: [{to: GRANTED, notice: [granted]}]}
          refused: {branches: [{to: REFUSED}]}
          withdraw: {branches: [{to: WITHDRAWN, send: [withdrawn]}]}
          silence: {branches: [{to: UNANSWERED}]}
      UNANSWERED:
        title: {en: Unanswered, ar: بلا جواب}
        deadlines: {end: {after: P30D}}
        on:
          granted: {branches: [{to: GRANTED, notice: [granted]}]}
          refused: {branches: [{to: REFUSED}]}
          withdraw: {branches: [{to: WITHDRAWN, send: [withdrawn]}]}
          end: {branches: [{to: WITHDRAWN, send: [withdrawn]}]}
      HELD:
        title: {en: Held, ar: معلّق}
        deadlines: {give-up: {after: P30D}}
        on:
          give-up: {branches: [{to: WITHDRAWN, send: [withdrawn]}]}
          granted: {branches: [{to: GRANTED}]}
          refused: {branches: [{to: REFUSED}]}
      GRANTED: {title: {en: Granted, ar: ممنوح}, final: true}
      REFUSED: {title: {en: Refused, ar: مرفوض}, final: true}
      WITHDRAWN: {title: {en: Withdrawn, ar: مسحوب}, final: true, on: {granted: {branches: [{}]}, refused: {branches: [{}]}}}
  host:
    start: NEW
    hold: HELD
    states:
      NEW:
        title: {en: New, ar: جديد}
        deadlines: {stale: {after: P1D}}
        on:
          request: {branches: [{to: CHECKING, call: [register]}]}
          stale: {branches: [{to: ENDED}]}
      CHECKING:
        title: {en: Checking, ar: قيد التحقق}
        deadlines: {slow: {after: P2D}}
        on:
          register:
            branches:
              - {if: "call.status == 200 && known.known && fact.known", to: READY}
              - {if: "call.status == 200", to: REFUSED, send: [refused]}
              - {to: READY}
          withdrawn: {branches: [{to: ENDED}]}
          slow: {branches: [{to: READY}]}
      READY:
        title: {en: Ready to decide, ar: جاهز للقرار}
        deadlines: {late: {after: P10D}}
        on:
          grant: {branches: [{to: GRANTED, set: {until: 'now + days(fact.stay)'}, send: [granted]}]}
          refuse: {branches: [{to: REFUSED, send: [refused]}]}
          withdrawn: {branches: [{to: ENDED}]}
          late: {branches: [{to: REFUSED, send: [refused]}]}
      HELD:
        title: {en: Held, ar: معلّق}
        deadlines: {give-up: {after: P30D}}
        on:
          give-up: {branches: [{to: REFUSED, send: [refused]}]}
          refuse: {branches: [{to: REFUSED, send: [refused]}]}
          withdrawn: {branches: [{to: ENDED}]}
      GRANTED: {title: {en: Granted, ar: ممنوح}, final: true, on: {withdrawn: {branches: [{to: ENDED}]}}}
      REFUSED: {title: {en: Refused, ar: مرفوض}, final: true, on: {withdrawn: {branches: [{}]}}}
      ENDED: {title: {en: Ended, ar: منتهٍ}, final: true}
`

func compiled(t testing.TB, yaml string) *definition.Program {
	t.Helper()
	d, err := definition.Read([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	p, err := definition.Compile(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// book is a directory in which all states have adopted one service.
type book struct{ program *definition.Program }

func (b book) Program(service string, version int) (*definition.Program, error) {
	if d := b.program.Definition(); service != d.Name || version != d.Version {
		return nil, fault.New(fault.CaseVersion, "%s@%d", service, version)
	}
	return b.program, nil
}
func (b book) Version(service string, _ union.State, _ time.Time) (int, bool) {
	d := b.program.Definition()
	return d.Version, service == d.Name
}
func (b book) Speaks(sub union.SubsystemID, _ string, _ int, role string) bool {
	return sub.Subsystem == role
}
func (b book) Opens(service string, version int, _ union.State, _ time.Time) bool {
	_, err := b.Program(service, version)
	return err == nil
}
func (b book) Zone() *time.Location                            { return time.FixedZone("", 3*60*60) }
func (b book) System(st union.State) (union.SubsystemID, bool) { return system(st, "cases"), true }
func (b book) Peers() map[union.State]string {
	return map[union.State]string{"BH": "permits", "SA": "permits"}
}
func (b book) Register(string, int, string) (union.ServiceID, bool) {
	return union.ServiceID{SubsystemID: system("XX", "register"), Service: "v1"}, true
}

func system(st union.State, code string) union.SubsystemID {
	return union.SubsystemID{MemberID: union.MemberID{State: st, Class: "GOV", Code: "egov"}, Subsystem: code}
}

// world is two states and what lies between them.
type world struct {
	t        testing.TB
	on       func(testing.TB) store.Config
	program  *definition.Program
	home     *side
	host     *side
	mu       sync.Mutex
	ahead    time.Duration // of the clock of both
	chance   *rand.Rand    // nil: nothing goes wrong on the way
	register func() (int, string)
	lies     func(ask string) string // what the other case system answers in place of the truth
	daily    time.Duration
	flying   sync.WaitGroup
	gate     sync.RWMutex             // held by who stops and starts a side
	held     func(exchange.Call) bool // keeps messages on the way
	waiting  []exchange.Call
}

type side struct {
	*Engine
	w       *world
	state   union.State
	dir     string // of its keys
	cfg     store.Config
	db      *store.DB
	keys    *seal.Keys
	journal *journal.Journal
	fetched []string // identifiers under which registers were asked
	stop    context.CancelFunc
	done    chan struct{}
}

func newWorld(t testing.TB, yaml string) *world { return newWorldOn(t, storetest.SQLite, yaml) }

// newWorldOn is a world whose states have databases of a kind.
func newWorldOn(t testing.TB, on func(testing.TB) store.Config, yaml string) *world {
	w := &world{t: t, on: on, program: compiled(t, yaml), register: func() (int, string) { return 200, `{"known":true,"secret":"x"}` }}
	w.home, w.host = w.side("BH"), w.side("SA")
	return w
}

func (w *world) side(st union.State) *side {
	s := &side{w: w, state: st, dir: w.t.TempDir(), cfg: w.on(w.t)}
	s.start()
	w.t.Cleanup(s.kill)
	return s
}

func (s *side) start() {
	t := s.w.t
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	s.db, err = store.Open(ctx, s.cfg, journal.Migrations(), Migrations())
	must(err)
	s.keys, err = seal.OpenKeys(filepath.Join(s.dir, "keys"), seal.KeyConfig{})
	must(err)
	s.journal, err = journal.New(journal.Config{}, journal.Deps{DB: s.db, Records: s.keys.Records()})
	must(err)
	names, err := s.keys.HMAC("casework-1")
	must(err)
	s.Engine = New(Config{State: s.state, Daily: s.w.daily, Poll: 20 * time.Millisecond, Retry: 10 * time.Millisecond}, Deps{
		DB: s.db, Journal: s.journal, Records: s.keys.Records(), Names: names, Exchange: s, Erase: s.erase,
		Book: func() (Book, error) { return book{s.w.program}, nil }, Now: s.w.now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	ctx, s.stop = context.WithCancel(ctx)
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		_ = s.Run(ctx)
	}()
}

func (s *side) erase(ctx context.Context, leaves []int64, in func(ctx context.Context, tx *store.Tx) error) error {
	_, err := s.journal.Erase(ctx, journal.Erasure{Leaves: leaves, By: []string{"test"}, Reason: "retention", At: s.w.now(), Class: "admin"}, nil, nil, in)
	return err
}

func (s *side) kill() {
	s.stop()
	<-s.done
	_ = s.journal.Close(context.Background())
	_ = s.db.Close()
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.ahead += d
	w.mu.Unlock()
	w.home.stir()
	w.host.stir()
}

func (w *world) other(s *side) *side {
	if s == w.home {
		return w.host
	}
	return w.home
}

// Post is the exchange between the two, with what can go wrong there.
func (s *side) Post(_ context.Context, c exchange.Call) error {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil && w.held(c) {
		w.waiting = append(w.waiting, c)
		return nil
	}
	roll := func(n int) bool { return w.chance != nil && w.chance.IntN(n) == 0 }
	if roll(20) {
		return fault.New(fault.Overloaded, "test")
	}
	lost, twice, late := roll(6), roll(4), time.Duration(0)
	if w.chance != nil {
		late = time.Duration(w.chance.IntN(20)) * time.Millisecond
	}
	w.flying.Go(func() {
		time.Sleep(late)
		if lost {
			s.ended(exchange.End{ID: c.ID, Answer: exchange.Answer{Fault: fault.DeliveryExpired}})
			return
		}
		s.deliver(c)
		if twice {
			s.deliver(c)
		}
	})
	return nil
}

func (s *side) deliver(c exchange.Call) {
	ctx := context.Background()
	c.Client = system(s.state, "cases")
	s.w.gate.RLock()
	a, err := s.w.other(s).Serve(ctx, c)
	s.w.gate.RUnlock()
	if err != nil {
		a = exchange.Answer{Fault: fault.CodeOf(err)}
	}
	s.ended(exchange.End{ID: c.ID, Answer: a})
}

// ended tells of an outcome until it is taken.
func (s *side) ended(end exchange.End) {
	for done := false; !done; {
		s.w.gate.RLock()
		done = s.Ended(context.Background(), end) == nil
		s.w.gate.RUnlock()
	}
}

// Fetch asks the register, or the other state.
func (s *side) Fetch(ctx context.Context, c exchange.Call) (exchange.Answer, error) {
	if s.w.lies != nil {
		return exchange.Answer{Status: 200, Body: []byte(s.w.lies(string(c.Body)))}, nil
	}
	if c.Service.Service != Service {
		s.w.mu.Lock()
		s.fetched = append(s.fetched, c.ID)
		s.w.mu.Unlock()
		status, body := s.w.register()
		if status == 0 {
			return exchange.Answer{}, fault.New(fault.BackendTimeout, "test")
		}
		return exchange.Answer{Status: status, Body: []byte(body)}, nil
	}
	return s.w.other(s).Serve(ctx, c)
}

// release lets messages go that were kept on the way.
func (w *world) release() {
	w.mu.Lock()
	all := w.waiting
	w.waiting, w.held = nil, nil
	w.mu.Unlock()
	for _, c := range slices.Backward(all) {
		from := w.home
		if c.Client.State == w.host.state {
			from = w.host
		}
		from.deliver(c)
	}
}

// act does something in a case, or opens one.
func (s *side) act(role, user, id, form, fields string) (Receipt, error) {
	a := Act{ID: fmt.Sprintf("%s-%d", form, rand.Int64()), System: system(s.state, role), User: user, Case: id, Form: form, Fields: []byte(fields)}
	if id == "" {
		a.Service, a.Peer = s.w.program.Definition().Name, s.w.other(s).state
	}
	return s.Act(context.Background(), a)
}

func (s *side) must(role, user, id, form, fields string) Receipt {
	s.w.t.Helper()
	r, err := s.act(role, user, id, form, fields)
	if err != nil {
		s.w.t.Fatalf("%s: %v", form, err)
	}
	return r
}

// reaches waits until a half stands in a state.
func (s *side) reaches(id, state string) *Case {
	s.w.t.Helper()
	var c *Case
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if c, err = s.load(context.Background(), id); err == nil && c.State == state {
			return c
		}
	}
	if c != nil {
		s.w.t.Fatalf("%s: case %s stands in %s (%s), not in %s: %v", s.state, id, c.State, c.Trouble, state, err)
	}
	s.w.t.Fatalf("%s: case %s: %v", s.state, id, err)
	return nil
}

// whole inspects everything.
func (s *side) whole(ctx context.Context) (int64, []Wrong, error) {
	var kept Kept
	size, _, err := s.journal.Head(ctx)
	if err == nil {
		err = s.journal.Each(ctx, 0, size, func(r journal.Stored, err error) error {
			kept.See(r)
			return err
		})
	}
	if err != nil {
		return 0, nil, err
	}
	return s.Inspect(ctx, &kept, func(int64) {})
}

// each runs a test on both engines. A world has two databases.
func each(t *testing.T, test func(t *testing.T, on func(testing.TB) store.Config)) {
	t.Run("sqlite", func(t *testing.T) { test(t, storetest.SQLite) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.Postgres) })
}
