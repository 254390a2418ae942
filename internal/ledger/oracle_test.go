package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// oracle is what the books must say, reckoned otherwise: with fractions, claim
// by claim, without accounts and without a database. R is BH, O is SA.
type oracle struct {
	done              map[string]string // key -> what was asked for under it
	fines             map[string]*fine
	suspense          map[string]int64
	receipts, refunds int64
	borne             int64
}

// fine is one claim: halalas owed, undertaken by R, accepted by O; fils set
// aside for it, and open.
type fine struct{ owed, undertaken, accepted, aside, open int64 }

func (o *oracle) clone() *oracle {
	c := &oracle{map[string]string{}, map[string]*fine{}, map[string]int64{}, o.receipts, o.refunds, o.borne}
	for k, v := range o.done {
		c.done[k] = v
	}
	for k, v := range o.fines {
		f := *v
		c.fines[k] = &f
	}
	for k, v := range o.suspense {
		c.suspense[k] = v
	}
	return c
}

// fils is what halalas cost at 376/3750, exactly.
func fils(halalas int64) *big.Rat { return big.NewRat(halalas*376*10, 3750) }

// nearest rounds a fraction that is not below zero; of two that are as near,
// to the even number.
func nearest(r *big.Rat) int64 {
	n := new(big.Int).Quo(r.Num(), r.Denom()).Int64()
	switch new(big.Rat).Sub(r, big.NewRat(n, 1)).Cmp(big.NewRat(1, 2)) {
	case 1:
		return n + 1
	case 0:
		return n + n%2
	}
	return n
}

func (o *oracle) pay(f *fine, paid int64) {
	o.receipts += paid
	f.open += paid
	for halalas := f.owed - f.undertaken; halalas > 0; halalas-- {
		cost := fils(halalas)
		whole := halalas == f.owed-f.undertaken
		if whole && nearest(cost) > f.open || !whole && cost.Cmp(big.NewRat(f.open, 1)) > 0 {
			// Not one by one from a great fine down: to just above what it buys.
			if buys := new(big.Rat).Quo(big.NewRat(f.open, 1), fils(1)); halalas > nearest(buys)+2 {
				halalas = nearest(buys) + 2
			}
			continue
		}
		f.undertaken += halalas
		f.aside += nearest(cost)
		f.open -= nearest(cost)
		return
	}
}

func (o *oracle) relieve(f *fine, halalas int64) {
	keep := nearest(new(big.Rat).Mul(big.NewRat(f.aside, 1), big.NewRat(f.undertaken-halalas, f.undertaken)))
	f.undertaken -= halalas
	f.open += f.aside - keep
	f.aside = keep
}

// act is one thing that happens: to the books of one state, and to the oracle.
type act struct {
	at   *books
	key  string
	what string
	code fault.Code // with which the books must refuse it
	book func(context.Context, *store.Tx) (ledger.Entry, error)
	then func(o *oracle)
}

// world plays acts in both states' books.
type world struct {
	r, o   books
	name   string
	oracle *oracle
	past   []act
	draw   func(n int) int
	n      int
	at     time.Time
}

func fils2(n int64) union.Money { return union.Money{Minor: n, Currency: "BHD"} }
func sar(n int64) union.Money   { return union.Money{Minor: n, Currency: "SAR"} }

// next makes up something that could happen.
func (w *world) next(o *oracle) act {
	w.n++
	key := fmt.Sprintf("%s-%d", w.name, w.n)
	name := fmt.Sprintf("%s-c%d", w.name, w.draw(8))
	f := o.fines[name]
	if f == nil {
		f = &fine{owed: int64(1 + w.draw(40_000))}
		o.fines[name] = f
	}
	a := act{at: &w.r, key: key}
	made := func(code fault.Code, asked any, book func(context.Context, *store.Tx) (ledger.Entry, error), then func(o *oracle)) act {
		a.code, a.book, a.then, a.what = code, book, then, fmt.Sprintf("%+v", asked)
		return a
	}
	some := func(most int64) int64 { return 1 + int64(w.draw(int(most))) }
	over := func(want, have int64) fault.Code {
		if want > have {
			return fault.AmountRefused
		}
		return ""
	}
	switch w.draw(12) {
	case 0, 1, 2:
		paid := nearest(fils(f.owed - f.undertaken))
		if w.draw(3) == 0 {
			paid = some(5000)
		}
		if paid == 0 && w.draw(2) == 0 {
			paid = some(50)
		}
		p := payment(w.r, key, name, "1 SAR", "1 BHD")
		p.Owed, p.Paid, p.At = sar(f.owed), fils2(paid), w.at
		return made("", p, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Pay(ctx, tx, p) },
			func(o *oracle) { o.pay(o.fines[name], paid) })
	case 3:
		r := ledger.Receipt{Key: key, At: w.at, Receipt: key, Paid: fils2(some(3000)), Collector: "k"}
		return made("", r, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Park(ctx, tx, r) },
			func(o *oracle) { o.suspense[key] += r.Paid.Minor; o.receipts += r.Paid.Minor })
	case 4, 5:
		from := fmt.Sprintf("%s-%d", w.name, 1+w.draw(w.n))
		t := ledger.Transfer{Key: key, At: w.at, From: from, To: name, Amount: fils2(some(3000))}
		if have := o.suspense[from]; have > 0 && w.draw(2) == 0 {
			t.Amount.Minor = have
		}
		if w.draw(2) == 0 {
			return made(over(t.Amount.Minor, o.suspense[from]), t, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Match(ctx, tx, t) },
				func(o *oracle) { o.suspense[from] -= t.Amount.Minor; o.fines[name].open += t.Amount.Minor })
		}
		t.To = ""
		return made(over(t.Amount.Minor, o.suspense[from]), t, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Return(ctx, tx, t) },
			func(o *oracle) { o.suspense[from] -= t.Amount.Minor; o.refunds += t.Amount.Minor })
	case 6:
		t := ledger.Transfer{Key: key, At: w.at, From: name, Amount: fils2(max(1, f.open-int64(w.draw(3))))}
		return made(over(t.Amount.Minor, f.open), t, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Refund(ctx, tx, t) },
			func(o *oracle) { o.fines[name].open -= t.Amount.Minor; o.refunds += t.Amount.Minor })
	case 7:
		to := name + "x"
		t := ledger.Transfer{Key: key, At: w.at, From: name, To: to, Amount: fils2(some(100))}
		return made(over(t.Amount.Minor, f.open), t, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Credit(ctx, tx, t) },
			func(o *oracle) {
				o.fines[name].open -= t.Amount.Minor
				if o.fines[to] == nil {
					o.fines[to] = &fine{owed: 1}
				}
				o.fines[to].open += t.Amount.Minor
			})
	case 8:
		a.at = &w.o
		u := ledger.Undertaking{Key: key, At: w.at, Claim: name, Debtor: "BH", Amount: sar(max(1, f.undertaken-f.accepted)), Discount: sar(int64(w.draw(100)))}
		return made("", u, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Accept(ctx, tx, u) },
			func(o *oracle) { o.fines[name].accepted += u.Amount.Minor })
	case 9:
		l := ledger.Relief{Key: key, At: w.at, Claim: name, Party: "SA", Amount: sar(some(max(1, f.undertaken))), Payer: "BHD"}
		return made(over(l.Amount.Minor, f.undertaken), l, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.ReleasedBy(ctx, tx, l) },
			func(o *oracle) { o.relieve(o.fines[name], l.Amount.Minor) })
	case 10:
		a.at = &w.o
		l := ledger.Relief{Key: key, At: w.at, Claim: name, Party: "BH", Amount: sar(some(max(1, f.accepted)))}
		return made(over(l.Amount.Minor, f.accepted), l, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Release(ctx, tx, l) },
			func(o *oracle) { o.fines[name].accepted -= l.Amount.Minor })
	}
	b := ledger.Burden{Key: key, At: w.at, Kind: ledger.Chargeback, Claim: name, Amount: fils2(some(3000))}
	return made("", b, func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Bear(ctx, tx, b) },
		func(o *oracle) { o.borne += b.Amount.Minor })
}

var errCrash = errors.New("the process ends here")

// play has things happen in transactions of several, some of which happen
// again, some of which never come to their commit.
func (w *world) play(t interface{ Fatalf(string, ...any) }, steps, most int) {
	for w.n < steps {
		o := w.oracle.clone()
		var acts []act
		for range 1 + w.draw(most) {
			if len(w.past) > 0 && w.draw(5) == 0 {
				acts = append(acts, w.past[w.draw(len(w.past))]) // a duplicate
			} else {
				acts = append(acts, w.next(o))
			}
			a := acts[len(acts)-1]
			if o.done[a.key] == "" && a.code == "" {
				o.done[a.key] = a.what
				a.then(o)
			}
		}
		crash := w.draw(6) == 0 // before the commit; then all of it again
		for _, at := range []*books{&w.r, &w.o} {
			if crash {
				if err := w.commit(at, acts, errCrash); !errors.Is(err, errCrash) {
					t.Fatalf("%v", err)
				}
			}
			if err := w.commit(at, acts, nil); err != nil {
				t.Fatalf("%v", err)
			}
		}
		w.oracle = o
		for _, a := range acts {
			if a.code == "" {
				w.past = append(w.past, a)
			}
		}
	}
}

// commit books what belongs in one state's books, in one transaction, which
// ends with an error.
func (w *world) commit(at *books, acts []act, end error) error {
	acts = slices.DeleteFunc(slices.Clone(acts), func(a act) bool { return a.at != at })
	if len(acts) == 0 && end == nil {
		return nil
	}
	return at.db.Write(context.Background(), func(tx *store.Tx) error {
		for _, a := range acts {
			e, err := a.book(context.Background(), tx)
			if code := fault.CodeOf(err); code != a.code {
				return fmt.Errorf("%s: %w, not %q", a.what, err, a.code)
			}
			if a.code == "" && (e.Key != a.key || e.Again != (w.oracle.done[a.key] != "")) {
				return fmt.Errorf("%s: again is %t", a.what, e.Again)
			}
		}
		return end
	})
}

// judge holds the books against the oracle.
func (w *world) judge(t interface {
	Errorf(string, ...any)
	Fatalf(string, ...any)
}) {
	sum := w.oracle.receipts - w.oracle.refunds
	for name, f := range w.oracle.fines {
		open, due, debt := w.r.balance(ledger.Open, "", name, "BHD"), w.r.balance(ledger.Due, "SA", name, "BHD"), w.r.balance(ledger.Debt, "SA", name, "SAR")
		claim := -w.o.balance(ledger.Claim, "BH", name, "SAR")
		if open != f.open || due != f.aside || debt != f.undertaken || claim != f.accepted {
			t.Errorf("%s: open %d, due %d, debt %d, claim %d; the oracle says %+v", name, open, due, debt, claim, *f)
		}
		sum -= f.open + f.aside
	}
	for receipt, held := range w.oracle.suspense {
		if got := w.r.balance(ledger.Suspense, "", receipt, "BHD"); got != held {
			t.Errorf("in suspense for %s: %d, not %d", receipt, got, held)
		}
		sum -= held
	}
	if sum != 0 {
		t.Fatalf("the oracle contradicts itself by %d", sum)
	}
}

func (b books) balance(kind ledger.Kind, party, subject string, c union.Currency) int64 {
	b.Helper()
	var m union.Money
	if err := b.db.Read(context.Background(), func(tx *store.Tx) (err error) {
		m, err = ledger.BalanceOf(context.Background(), tx, ledger.Account{Kind: kind, Party: party, Subject: subject}, c)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return m.Minor
}

// TestOracle plays short stories that rapid can make shorter.
func TestOracle(t *testing.T) {
	r, o := books{t, storetest.Open(t, storetest.SQLite(t), ledger.Migrations())}, books{t, storetest.Open(t, storetest.SQLite(t), ledger.Migrations())}
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := newWorld(r, o, run, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "draw") })
		w.play(t, 12, 6)
		w.judge(t)
	})
	wholeBooks(r, o)
}

func newWorld(r, o books, run int, draw func(n int) int) *world {
	return &world{r: r, o: o, name: fmt.Sprint("w", run), draw: draw, at: noon.Add(time.Duration(run) * time.Millisecond),
		oracle: &oracle{done: map[string]string{}, fines: map[string]*fine{}, suspense: map[string]int64{}}}
}

func wholeBooks(all ...books) {
	for _, b := range all {
		if r := b.audit(); len(r.Findings) > 0 {
			b.Errorf("found %q", r.Findings)
		}
	}
}

// long plays worlds of 500 events one after the other in the same books.
func long(r books, events int) {
	o := books{r.TB, storetest.Open(r, storetest.SQLite(r), ledger.Migrations())}
	for run := range events / 500 {
		dice := rand.New(rand.NewPCG(uint64(run), 1))
		w := newWorld(r, o, run, dice.IntN)
		w.play(r, 500, 60)
		w.judge(r)
	}
	wholeBooks(r, o)
}

func TestLong(t *testing.T) {
	each(t, func(b books) {
		events := 2_000
		if b.db.Dialect() == store.Postgres {
			events = 1_500
		}
		long(b, events)
	})
}

// TestConcurrent: writers who pay, match and refund the same claims, and each
// other's very payments again, at the same time.
func TestConcurrent(t *testing.T) {
	each(t, func(b books) {
		const writers, events = 4, 60
		var wg sync.WaitGroup
		var mu sync.Mutex
		booked := map[string]int{}
		for n := range writers {
			wg.Go(func() {
				dice := rand.New(rand.NewPCG(uint64(n), 2))
				for range events {
					k := dice.IntN(events) // the same for all writers
					p := payment(b, fmt.Sprint("p", k), fmt.Sprint("c", k%3), "900.00 SAR", "1 BHD")
					p.Paid.Minor = int64(1000 + 7*k)
					op := func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Pay(ctx, tx, p) }
					if dice.IntN(4) == 0 {
						x := ledger.Transfer{Key: fmt.Sprint("f", k), At: noon, From: p.Claim, Amount: fils2(1)}
						op = func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return ledger.Refund(ctx, tx, x) }
					}
					// As in the journal's transactions: at READ COMMITTED, where
					// the ledger's own locks must hold.
					var e ledger.Entry
					err := b.db.WriteLocked(context.Background(), func(tx *store.Tx) (err error) {
						e, err = op(context.Background(), tx)
						return err
					})
					if code := fault.CodeOf(err); err != nil && code != fault.AmountRefused {
						b.Errorf("%v", err)
					}
					if err == nil && !e.Again {
						mu.Lock()
						booked[e.Key]++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		want := int64(0)
		for key, n := range booked {
			if n != 1 {
				b.Errorf("%s was booked %d times", key, n)
			}
			var k int64
			if _, err := fmt.Sscanf(key, "p%d", &k); err == nil {
				want += 1000 + 7*k
			}
		}
		r := b.audit()
		if len(r.Findings) > 0 || r.Entries != int64(len(booked)) || r.Payers[0].Receipts != want {
			b.Errorf("%+v, not %d entries and %d received", r, len(booked), want)
		}
		for _, i := range b.statement(ledger.Debt, "SA", "SAR", noon, noon.Add(time.Second)).Items {
			if i.Minor > 90000 {
				b.Errorf("%+v", i)
			}
		}
	})
}
