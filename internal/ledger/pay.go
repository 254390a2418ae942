package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Quote is a price that the payer's state holds itself to.
type Quote struct {
	ID     string     `json:"id"`
	Rate   union.Rate `json:"rate"` // from the claim's currency to the payer's
	Source string     `json:"source"`
	From   time.Time  `json:"from"`
	Until  time.Time  `json:"until"` // from then on no more
}

// Price is what an amount of the claim's currency costs the payer.
func (q Quote) Price(m union.Money) (union.Money, error) {
	price, _, err := q.Rate.Convert(m)
	return price, err
}

// Payment is money that came for a claim.
type Payment struct {
	Key       string      `json:"key"` // of the collector's receipt: what is booked once
	At        time.Time   `json:"at"`
	Claim     string      `json:"claim"`
	Creditor  union.State `json:"creditor"`
	Owed      union.Money `json:"owed"` // all that is owed on the claim, in the creditor's currency, before any payment
	Paid      union.Money `json:"paid"` // in the payer's currency; zero where what is open for the claim is to be used
	Collector string      `json:"collector"`
	Quote     Quote       `json:"quote"`
}

// Pay books a payment: what of it discharges the claim (Into Debt, in the
// creditor's currency: what the state may undertake to pay), and what exceeds
// it (Into Open). Paying less than the whole discharges what it buys; what is
// left over below the creditor's minor unit stays open, and counts next time.
// Nothing is lost: a second payment of a discharged claim is open as a whole.
//
// A quote that does not hold at the time of the payment is refused with
// fault.QuoteExpired: the caller takes a fresh one, as the money has come.
func Pay(ctx context.Context, tx *store.Tx, p Payment) (Entry, error) {
	if err := checkNames(p.Key, p.Claim, string(p.Creditor)); err != nil {
		return Entry{}, err
	}
	if err := checkAmount(p.Owed); err != nil {
		return Entry{}, err
	}
	if p.Paid.Minor != 0 || p.Paid.Check() != nil {
		if err := checkAmount(p.Paid); err != nil {
			return Entry{}, err
		}
	}
	if p.Quote.Rate.Check() != nil || p.Quote.Rate.From != p.Owed.Currency || p.Quote.Rate.To != p.Paid.Currency {
		return Entry{}, fault.New(fault.AmountRefused, "the quote is not one from %s to %s", p.Owed.Currency, p.Paid.Currency)
	}
	return post(ctx, tx, opPay, p.Key, p.At, p, []locked{claimLock(p.Claim, p.Paid.Currency)}, func() ([]Line, error) { return p.lines(ctx, tx) })
}

// Split reckons what money does for what is left to pay of a claim: how much
// it discharges, and at which price, with what rounding took off that in
// millionths. What exceeds the price stays open.
func Split(rate union.Rate, left, money union.Money) (discharged, price union.Money, rest int64, err error) {
	if price, rest, err = rate.Convert(left); err != nil || price.Minor <= money.Minor {
		return left, price, rest, err
	}
	if discharged, err = rate.Buys(money); err != nil {
		return union.Money{}, union.Money{}, 0, err
	}
	price, rest, err = rate.Convert(discharged)
	return discharged, price, rest, err
}

func claimLock(claim string, c union.Currency) locked {
	return locked{Account{Open, "", claim}, whole(c)}
}

func (p Payment) lines(ctx context.Context, tx *store.Tx) ([]Line, error) {
	var (
		o    = string(p.Creditor)
		due  = Account{Due, o, p.Claim}
		open = Account{Open, "", p.Claim}
		debt = Account{Debt, o, p.Claim}
		here = whole(p.Paid.Currency)
	)
	done, err := balance(ctx, tx, debt, whole(p.Owed.Currency))
	if err != nil {
		return nil, fmt.Errorf("reading what is discharged: %w", err)
	}
	kept, err := balance(ctx, tx, open, here)
	if err != nil {
		return nil, fmt.Errorf("reading what is open: %w", err)
	}
	lines := move(Account{Cash, p.Collector, ""}, open, here, p.Paid.Minor)
	left := union.Money{Minor: max(p.Owed.Minor-done, 0), Currency: p.Owed.Currency}
	if left.Minor == 0 {
		return lines, nil
	}
	if p.At.Before(p.Quote.From) || !p.At.Before(p.Quote.Until) {
		return nil, fault.New(fault.QuoteExpired, "it holds from %s until %s", p.Quote.From.UTC().Format(time.RFC3339), p.Quote.Until.UTC().Format(time.RFC3339))
	}
	left, price, rest, err := Split(p.Quote.Rate, left, union.Money{Minor: kept + p.Paid.Minor, Currency: p.Paid.Currency})
	if err != nil {
		return nil, fault.Wrap(fault.AmountRefused, err, "")
	}
	lines = append(lines, move(open, due, here, price.Minor)...)
	lines = append(lines, move(Account{Rounding, "", ""}, due, parts(p.Paid.Currency), rest)...)
	return append(lines, move(Account{Exchange, o, ""}, debt, whole(left.Currency), left.Minor)...), nil
}

// Receipt is money that came and matches no claim.
type Receipt struct {
	Key       string      `json:"key"`
	At        time.Time   `json:"at"`
	Receipt   string      `json:"receipt"` // names it from now on
	Paid      union.Money `json:"paid"`
	Collector string      `json:"collector"`
}

// Park books such money into suspense.
func Park(ctx context.Context, tx *store.Tx, r Receipt) (Entry, error) {
	if err := checkNames(r.Key, r.Receipt); err != nil {
		return Entry{}, err
	}
	if err := checkAmount(r.Paid); err != nil {
		return Entry{}, err
	}
	return post(ctx, tx, opPark, r.Key, r.At, r, nil, func() ([]Line, error) {
		return move(Account{Cash, r.Collector, ""}, Account{Suspense, "", r.Receipt}, whole(r.Paid.Currency), r.Paid.Minor), nil
	})
}

// Transfer moves what is held for one thing to where it belongs.
type Transfer struct {
	Key       string      `json:"key"`
	At        time.Time   `json:"at"`
	From      string      `json:"from"`         // a receipt (Match, Return) or a claim (Credit, Refund)
	To        string      `json:"to,omitempty"` // a claim (Match, Credit)
	Amount    union.Money `json:"amount"`
	Collector string      `json:"collector,omitempty"` // who pays out (Return, Refund); "": the state's bank
}

// Match takes money out of suspense for a claim, where it is open: Pay with
// nothing paid uses it.
func Match(ctx context.Context, tx *store.Tx, t Transfer) (Entry, error) {
	return t.post(ctx, tx, opMatch, Account{Suspense, "", t.From}, Account{Open, "", t.To})
}

// Return gives money in suspense back to where it came from.
func Return(ctx context.Context, tx *store.Tx, t Transfer) (Entry, error) {
	return t.post(ctx, tx, opReturn, Account{Suspense, "", t.From}, Account{Cash, t.Collector, ""})
}

// Refund gives the payer of a claim what is open.
func Refund(ctx context.Context, tx *store.Tx, t Transfer) (Entry, error) {
	return t.post(ctx, tx, opRefund, Account{Open, "", t.From}, Account{Cash, t.Collector, ""})
}

// Credit uses what is open of one claim for another of the same payer.
func Credit(ctx context.Context, tx *store.Tx, t Transfer) (Entry, error) {
	return t.post(ctx, tx, opCredit, Account{Open, "", t.From}, Account{Open, "", t.To})
}

func (t Transfer) post(ctx context.Context, tx *store.Tx, op Op, from, to Account) (Entry, error) {
	if err := checkNames(t.Key, t.From); err != nil {
		return Entry{}, err
	}
	if err := checkAmount(t.Amount); err != nil {
		return Entry{}, err
	}
	if to.Kind != Cash && (checkNames(t.To) != nil || from == to) || to.Kind == Cash && t.To != "" {
		return Entry{}, fault.New(fault.AmountRefused, "it names no other claim to move to, or one where it is paid out")
	}
	lock := []locked{{from, whole(t.Amount.Currency)}}
	if to.Kind == Open {
		lock = append(lock, claimLock(t.To, t.Amount.Currency))
	}
	return post(ctx, tx, op, t.Key, t.At, t, lock, func() ([]Line, error) {
		if err := enough(ctx, tx, from, t.Amount); err != nil {
			return nil, err
		}
		return move(from, to, whole(t.Amount.Currency), t.Amount.Minor), nil
	})
}

// Banked is what a collector handed over.
type Banked struct {
	Key       string      `json:"key"`
	At        time.Time   `json:"at"`
	Collector string      `json:"collector"`
	Amount    union.Money `json:"amount"`
}

// Bank books what a collector handed over to the state. What stays with him
// longer than he may keep it he claimed to have been paid and has to answer
// for: the payer is discharged all the same.
func Bank(ctx context.Context, tx *store.Tx, b Banked) (Entry, error) {
	if err := checkNames(b.Key, b.Collector); err != nil {
		return Entry{}, err
	}
	if err := checkAmount(b.Amount); err != nil {
		return Entry{}, err
	}
	return post(ctx, tx, opBank, b.Key, b.At, b, nil, func() ([]Line, error) {
		return move(Account{Cash, "", ""}, Account{Cash, b.Collector, ""}, whole(b.Amount.Currency), b.Amount.Minor), nil
	})
}
