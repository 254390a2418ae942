package ledger_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestTables(t *testing.T) { storetest.SameTables(t, ledger.Migrations()) }

func money(t testing.TB, s string) union.Money {
	t.Helper()
	m, err := union.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// books is a ledger with what the tests do to it.
type books struct {
	testing.TB
	db *store.DB
}

func (b books) do(op func(context.Context, *store.Tx) (ledger.Entry, error)) (e ledger.Entry, err error) {
	err = b.db.Write(context.Background(), func(tx *store.Tx) (err error) {
		e, err = op(context.Background(), tx)
		return err
	})
	return e, err
}

func book[T any](b books, op func(context.Context, *store.Tx, T) (ledger.Entry, error), asked T) ledger.Entry {
	b.Helper()
	e, err := b.do(func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return op(ctx, tx, asked) })
	if err != nil {
		b.Fatalf("%+v: %v", asked, err)
	}
	return e
}

func refused[T any](b books, code fault.Code, op func(context.Context, *store.Tx, T) (ledger.Entry, error), asked T) {
	b.Helper()
	_, err := b.do(func(ctx context.Context, tx *store.Tx) (ledger.Entry, error) { return op(ctx, tx, asked) })
	if fault.CodeOf(err) != code {
		b.Errorf("%+v: %v, not %s", asked, err, code)
	}
}

func (b books) audit() ledger.Report {
	b.Helper()
	var r ledger.Report
	err := b.db.Read(context.Background(), func(tx *store.Tx) (err error) {
		r, err = ledger.Audit(context.Background(), tx)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func (b books) whole(want ledger.Payers) {
	b.Helper()
	r := b.audit()
	if len(r.Findings) > 0 {
		b.Errorf("found %q", r.Findings)
	}
	if !slices.Contains(r.Payers, want) {
		b.Errorf("payers' money is %+v, not %+v", r.Payers, want)
	}
}

func (b books) statement(kind ledger.Kind, party string, c union.Currency, from, until time.Time) ledger.Statement {
	b.Helper()
	var s ledger.Statement
	err := b.db.Read(context.Background(), func(tx *store.Tx) (err error) {
		s, err = ledger.StatementOf(context.Background(), tx, kind, party, c, from, until)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func each(t *testing.T, test func(b books)) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		test(books{t, storetest.Open(t, cfg, ledger.Migrations())})
	})
}

// quote is Saudi fines in Bahrain.
func quote() ledger.Quote {
	return ledger.Quote{ID: "q1", Rate: union.Rate{From: "SAR", To: "BHD", Num: 376, Den: 3750}, Source: "pegs", From: noon.Add(-time.Hour), Until: noon.Add(time.Hour)}
}

func payment(t testing.TB, key, claim, owed, paid string) ledger.Payment {
	return ledger.Payment{Key: key, At: noon, Claim: claim, Creditor: "SA", Owed: money(t, owed), Paid: money(t, paid), Collector: "benefit", Quote: quote()}
}

func TestPay(t *testing.T) {
	each(t, func(b books) {
		e := book(b, ledger.Pay, payment(b, "r1", "c1", "100.00 SAR", "10.027 BHD"))
		if got := e.Into(ledger.Debt, "SAR"); got != money(b, "100.00 SAR") || e.Again {
			b.Errorf("discharged %v", got)
		}
		if got := e.Into(ledger.Open, "BHD"); got.Minor != 0 {
			b.Errorf("open %v", got)
		}
		again := book(b, ledger.Pay, payment(b, "r1", "c1", "100.00 SAR", "10.027 BHD"))
		if !again.Again || !slices.Equal(again.Lines, e.Lines) || again.AtMS != e.AtMS || again.Op != e.Op {
			b.Errorf("a repetition gave %+v, not %+v", again, e)
		}
		refused(b, fault.BookedOtherwise, ledger.Pay, payment(b, "r1", "c1", "100.00 SAR", "10.028 BHD"))
		refused(b, fault.BookedOtherwise, ledger.Bank, ledger.Banked{Key: "r1", At: noon, Collector: "benefit", Amount: money(b, "10.027 BHD")})

		// A second payment of the same fine, by mistake.
		e = book(b, ledger.Pay, payment(b, "r2", "c1", "100.00 SAR", "10.027 BHD"))
		if e.Into(ledger.Debt, "SAR").Minor != 0 || e.Into(ledger.Open, "BHD") != money(b, "10.027 BHD") {
			b.Errorf("a second payment gave %+v", e)
		}
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 20054, Cash: 20054, Due: 10027, Open: 10027})
		refused(b, fault.AmountRefused, ledger.Refund, ledger.Transfer{Key: "f1", At: noon, From: "c1", Amount: money(b, "10.028 BHD")})
		book(b, ledger.Refund, ledger.Transfer{Key: "f1", At: noon, From: "c1", Amount: money(b, "10.027 BHD")})
		refused(b, fault.AmountRefused, ledger.Refund, ledger.Transfer{Key: "f2", At: noon, From: "c1", Amount: money(b, "0.001 BHD")})
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 20054, Refunds: 10027, Cash: 10027, Due: 10027})
	})
}

func TestPayInParts(t *testing.T) {
	each(t, func(b books) {
		for _, c := range []struct {
			paid             string
			discharged, open int64
		}{
			{"0.001 BHD", 0, 1},     // buys less than a halala, and waits
			{"3.333 BHD", 3325, -1}, // together they buy 33.25 riyals, which cost 3.334
			{"0.007 BHD", 6, 1},     // six halalas cost six fils; the seventh is not paid yet
			{"6.000 BHD", 5985, -1},
			{"1.000 BHD", 684, 314}, // all that was left; one payment would have cost 10.027
		} {
			e := book(b, ledger.Pay, payment(b, "r"+c.paid, "c1", "100.00 SAR", c.paid))
			if got := e.Into(ledger.Debt, "SAR").Minor; got != c.discharged {
				b.Errorf("%s discharged %d", c.paid, got)
			}
			if got := e.Into(ledger.Open, "BHD").Minor; got != c.open {
				b.Errorf("%s opened %d", c.paid, got)
			}
		}
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 10341, Cash: 10341, Due: 10027, Open: 314})
		if left := b.statement(ledger.Debt, "SA", "SAR", noon, noon.Add(time.Second)); left.Closing != 10000 {
			b.Errorf("discharged %d", left.Closing)
		}
	})
}

// TestOpenCounts: what is open for a claim is used before new money.
func TestOpenCounts(t *testing.T) {
	each(t, func(b books) {
		book(b, ledger.Park, ledger.Receipt{Key: "p1", At: noon.Add(-48 * time.Hour), Receipt: "bank-77", Paid: money(b, "15.000 BHD"), Collector: "benefit"})
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 15000, Cash: 15000, Suspense: 15000})
		var waits []ledger.Waiting
		list := func(kind ledger.Kind) []ledger.Waiting {
			if err := b.db.Read(context.Background(), func(tx *store.Tx) (err error) {
				waits, err = ledger.Waits(context.Background(), tx, kind, 10)
				return err
			}); err != nil {
				b.Fatal(err)
			}
			return waits
		}
		if got := list(ledger.Suspense); len(got) != 1 || got[0] != (ledger.Waiting{Subject: "bank-77", Amount: money(b, "15.000 BHD"), SinceMS: noon.Add(-48 * time.Hour).UnixMilli()}) {
			b.Errorf("in suspense: %+v", got)
		}
		refused(b, fault.AmountRefused, ledger.Match, ledger.Transfer{Key: "m1", At: noon, From: "bank-78", To: "c1", Amount: money(b, "1.000 BHD")})
		refused(b, fault.AmountRefused, ledger.Match, ledger.Transfer{Key: "m1", At: noon, From: "bank-77", Amount: money(b, "1.000 BHD")})
		book(b, ledger.Match, ledger.Transfer{Key: "m1", At: noon, From: "bank-77", To: "c1", Amount: money(b, "14.000 BHD")})
		book(b, ledger.Return, ledger.Transfer{Key: "m2", At: noon, From: "bank-77", Amount: money(b, "1.000 BHD")})
		e := book(b, ledger.Pay, payment(b, "m3", "c1", "100.00 SAR", "0 BHD"))
		if e.Into(ledger.Debt, "SAR") != money(b, "100.00 SAR") {
			b.Errorf("%+v", e)
		}
		if got := list(ledger.Open); len(got) != 1 || got[0].Amount != money(b, "3.973 BHD") || got[0].Subject != "c1" {
			b.Errorf("open: %+v", got)
		}
		refused(b, fault.AmountRefused, ledger.Credit, ledger.Transfer{Key: "k1", At: noon, From: "c1", To: "c1", Amount: money(b, "1.000 BHD")})
		book(b, ledger.Credit, ledger.Transfer{Key: "k1", At: noon, From: "c1", To: "c2", Amount: money(b, "3.973 BHD")})
		if e = book(b, ledger.Pay, payment(b, "r2", "c2", "50.00 SAR", "1.040 BHD")); e.Into(ledger.Debt, "SAR") != money(b, "50.00 SAR") || e.Into(ledger.Open, "BHD").Minor != -3973 {
			b.Errorf("%+v", e)
		}
		if got := list(ledger.Open); len(got) != 0 {
			b.Errorf("open: %+v", got)
		}
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 16040, Refunds: 1000, Cash: 15040, Due: 15040})
	})
}

func TestQuoteExpires(t *testing.T) {
	each(t, func(b books) {
		p := payment(b, "r1", "c1", "100.00 SAR", "10.027 BHD")
		for _, at := range []time.Time{p.Quote.Until, p.Quote.From.Add(-time.Second)} {
			p.At = at
			refused(b, fault.QuoteExpired, ledger.Pay, p)
		}
		p.At = p.Quote.Until.Add(-time.Second)
		book(b, ledger.Pay, p)
		// What is not converted needs no quote: it is booked at any time.
		p.Key, p.At = "r2", p.Quote.Until.Add(time.Hour)
		if e := book(b, ledger.Pay, p); e.Into(ledger.Open, "BHD") != p.Paid {
			b.Errorf("%+v", e)
		}
	})
}

func TestRelief(t *testing.T) {
	each(t, func(b books) {
		book(b, ledger.Pay, payment(b, "r1", "c1", "100.00 SAR", "10.027 BHD"))
		r := ledger.Relief{Key: "x1", At: noon, Claim: "c1", Party: "SA", Amount: money(b, "33.33 SAR"), Payer: "BHD"}
		e := book(b, ledger.ReleasedBy, r)
		if got := e.Into(ledger.Open, "BHD"); got != money(b, "3.342 BHD") { // 66.67 riyals cost 6.685
			b.Errorf("open %v", got)
		}
		for _, l := range b.trial() {
			// 66.67 of 100 riyals' 10.026667 dinars are 6.684778668: less than is due.
			if l.Kind == ledger.Due && l.Unit == "BHD-6" && l.Credit-l.Debit != -221_333 {
				b.Errorf("rounding left %+v", l)
			}
		}
		r.Key, r.Amount = "x2", money(b, "66.68 SAR")
		refused(b, fault.AmountRefused, ledger.ReleasedBy, r)
		r.Amount = money(b, "66.67 SAR")
		if got := book(b, ledger.ReleasedBy, r).Into(ledger.Open, "BHD"); got != money(b, "6.685 BHD") {
			b.Errorf("open %v", got)
		}
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 10027, Cash: 10027, Open: 10027})
		book(b, ledger.Refund, ledger.Transfer{Key: "f1", At: noon, From: "c1", Amount: money(b, "10.027 BHD")})
		for _, l := range b.trial() {
			if l.Kind != ledger.Cash && l.Kind != ledger.Open && l.Debit != l.Credit {
				b.Errorf("after all was given back there is %+v", l)
			}
		}
	})
}

func (b books) trial() (all []ledger.Balance) {
	b.Helper()
	err := b.db.Read(context.Background(), func(tx *store.Tx) (err error) {
		all, err = ledger.Trial(context.Background(), tx, time.UnixMilli(math.MaxInt64))
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return all
}

// TestBurden: what R bears leaves the payers' money whole, and its debt.
func TestBurden(t *testing.T) {
	each(t, func(b books) {
		book(b, ledger.Pay, payment(b, "r1", "c1", "100.00 SAR", "10.027 BHD"))
		book(b, ledger.Bear, ledger.Burden{Key: "b1", At: noon, Kind: ledger.Chargeback, Claim: "c1", Amount: money(b, "10.027 BHD")})
		book(b, ledger.Bear, ledger.Burden{Key: "b2", At: noon, Kind: ledger.Collection, Claim: "march", Amount: money(b, "0.100 BHD")})
		refused(b, fault.AmountRefused, ledger.Bear, ledger.Burden{Key: "b3", At: noon, Kind: ledger.Cash, Claim: "c1", Amount: money(b, "1 BHD")})
		book(b, ledger.Bank, ledger.Banked{Key: "k1", At: noon, Collector: "benefit", Amount: money(b, "10.000 BHD")})
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 10027, Cash: 10027, Due: 10027})
		if with := b.statement(ledger.Cash, "benefit", "BHD", noon, noon.Add(time.Second)); with.Closing != -27 {
			b.Errorf("the collector has %d", with.Closing)
		}
		if owed := b.statement(ledger.Debt, "SA", "BHD", noon, noon.Add(time.Second)); owed.Closing != 0 {
			b.Errorf("the debt is %d fils", owed.Closing)
		}
		if owed := b.statement(ledger.Debt, "SA", "SAR", noon, noon.Add(time.Second)); owed.Closing != 10000 {
			b.Errorf("the debt is %d", owed.Closing)
		}

		// The riyal gains: R makes up for it, and takes it back when it falls.
		v := ledger.Valuation{Key: "v1", At: noon, Creditor: "SA", Rate: union.Rate{From: "SAR", To: "BHD", Num: 11, Den: 100}}
		if e := book(b, ledger.Revalue, v); e.Into(ledger.Provision, "BHD").Minor != 973 || e.Into(ledger.Difference, "BHD").Minor != -973 {
			b.Errorf("%+v", e)
		}
		v.Key = "v2"
		if e := book(b, ledger.Revalue, v); len(e.Lines) != 0 {
			b.Errorf("%+v", e)
		}
		v.Key, v.Rate.Num = "v3", 10
		if e := book(b, ledger.Revalue, v); e.Into(ledger.Provision, "BHD").Minor != -1000 {
			b.Errorf("%+v", e)
		}
		b.whole(ledger.Payers{Currency: "BHD", Receipts: 10027, Cash: 10027, Due: 10027})
	})
}

// TestPosition: A's claim on B is B's debt to A; what differs is listed.
func TestPosition(t *testing.T) {
	each(t, func(r books) {
		o := books{r.TB, storetest.Open(r, storetest.SQLite(r), ledger.Migrations())}
		next := noon.Add(24 * time.Hour)
		compare := func(from, until time.Time) ([]ledger.Break, bool) {
			return ledger.Compare(o.statement(ledger.Claim, "BH", "SAR", from, until), r.statement(ledger.Debt, "SA", "SAR", from, until))
		}
		book(r, ledger.Pay, payment(r, "r1", "c1", "100.00 SAR", "10.027 BHD"))
		if breaks, ok := compare(noon, next); len(breaks) != 1 || !ok || breaks[0] != (ledger.Break{Key: "r1", Subject: "c1", AtMS: noon.UnixMilli(), Debt: 10000}) {
			r.Errorf("%+v", breaks)
		}
		u := ledger.Undertaking{Key: "r1", At: noon, Claim: "c1", Debtor: "BH", Amount: money(r, "100.00 SAR"), Discount: money(r, "50.00 SAR")}
		if e := book(o, ledger.Accept, u); e.Into(ledger.Income, "SAR").Minor != 15000 || e.Into(ledger.Discount, "SAR").Minor != -5000 {
			r.Errorf("%+v", e)
		}
		if breaks, ok := compare(noon, next); len(breaks) != 0 || !ok {
			r.Errorf("%+v", breaks)
		}
		u.Amount.Minor--
		refused(o, fault.BookedOtherwise, ledger.Accept, u)

		relief := ledger.Relief{Key: "x1", At: next, Claim: "c1", Party: "BH", Amount: money(r, "25.00 SAR")}
		book(o, ledger.Release, relief)
		relief.Key, relief.Amount = "x2", money(r, "75.01 SAR")
		refused(o, fault.AmountRefused, ledger.Release, relief)
		if s := o.statement(ledger.Claim, "BH", "SAR", next, next.Add(time.Hour)); s.Opening != -10000 || s.Closing != -7500 || len(s.Items) != 1 || s.Items[0].Minor != 2500 {
			r.Errorf("%+v", s)
		}
		if breaks, ok := compare(next, next.Add(time.Hour)); len(breaks) != 1 || !ok || breaks[0].Claim != -2500 {
			r.Errorf("%+v", breaks)
		}
		book(r, ledger.ReleasedBy, ledger.Relief{Key: "x1", At: next, Claim: "c1", Party: "SA", Amount: money(r, "24.00 SAR"), Payer: "BHD"})
		if breaks, ok := compare(next, next.Add(time.Hour)); len(breaks) != 1 || !ok || breaks[0].Claim != -2500 || breaks[0].Debt != -2400 {
			r.Errorf("%+v", breaks)
		}
		if _, ok := compare(next.Add(time.Hour), next.Add(2*time.Hour)); ok {
			r.Error("an unequal opening passes")
		}
	})
}

func TestRefusals(t *testing.T) {
	each(t, func(b books) {
		good := payment(b, "r1", "c1", "100.00 SAR", "10.027 BHD")
		for _, spoil := range []func(p *ledger.Payment){
			func(p *ledger.Payment) { p.Key = "" },
			func(p *ledger.Payment) { p.Key = strings.Repeat("k", 256) },
			func(p *ledger.Payment) { p.Claim = "" },
			func(p *ledger.Payment) { p.Creditor = "" },
			func(p *ledger.Payment) { p.Owed.Minor = 0 },
			func(p *ledger.Payment) { p.Owed.Minor = -1 },
			func(p *ledger.Payment) { p.Owed.Minor = math.MaxInt64 },
			func(p *ledger.Payment) { p.Owed.Currency = "AED" },
			func(p *ledger.Payment) { p.Paid.Minor = -1 },
			func(p *ledger.Payment) { p.Paid.Currency = "" },
			func(p *ledger.Payment) { p.Paid.Currency = "KWD" },
			func(p *ledger.Payment) { p.Quote.Rate.Den = 0 },
		} {
			p := good
			spoil(&p)
			refused(b, fault.AmountRefused, ledger.Pay, p)
		}
		if r := b.audit(); r.Entries != 0 || len(r.Findings) != 0 {
			b.Errorf("%+v", r)
		}
	})
}

// TestAuditFinds: whoever writes past the schema is found out.
func TestAuditFinds(t *testing.T) {
	for _, c := range []struct{ spoil, want string }{
		{"UPDATE ledger_posting SET minor = minor + 1 WHERE line = 0", "2 entries are not what was booked"},
		{"DELETE FROM ledger_posting WHERE line = 0", "2 entries are not what was booked; 1 accounts that hold less than nothing"},
		{"DELETE FROM ledger_posting WHERE line = 3", "1 entries are not what was booked"},
		{"DELETE FROM ledger_posting WHERE unit = 'BHD-6'", "1 entries are not what was booked"},
		{"UPDATE ledger_account SET unit = 'AED' WHERE kind = 'cash'", "AED: payers' cash is 11027"},
		{"DELETE FROM ledger_account WHERE kind = 'open'", "3 postings without their entry or accounts"},
		{"DELETE FROM ledger_entry WHERE key = 'r2'", "postings without their entry or accounts"},
		{"UPDATE ledger_entry SET op = 'bank' WHERE key = 'r1'", "receipts less refunds 1000"},
	} {
		b := books{t, storetest.Open(t, storetest.SQLite(t), ledger.Migrations())}
		book(b, ledger.Pay, payment(b, "r1", "c1", "100.00 SAR", "10.027 BHD"))
		book(b, ledger.Pay, payment(b, "r2", "c1", "100.00 SAR", "1.000 BHD"))
		if found := b.audit().Findings; len(found) > 0 {
			t.Fatalf("whole books: %q", found)
		}
		if _, err := b.db.Exec(context.Background(), "PRAGMA foreign_keys = OFF"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.db.Exec(context.Background(), c.spoil); err != nil {
			t.Fatal(err)
		}
		if found := strings.Join(b.audit().Findings, "; "); !strings.Contains(found, c.want) {
			t.Errorf("%s: found %q", c.spoil, found)
		}
	}
}
