package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Undertaking is what the payer's state undertook to pay for a claim, as its
// creditor books it.
type Undertaking struct {
	Key      string      `json:"key"` // the same as of the payment: by it the two states' books are compared
	At       time.Time   `json:"at"`  // of the payment
	Claim    string      `json:"claim"`
	Debtor   union.State `json:"debtor"`
	Amount   union.Money `json:"amount"`
	Discount union.Money `json:"discount"` // what the creditor gave up beside it, for the same part of the fine; minor 0 for none
}

// Accept books an undertaking in the creditor's books: his claim on the other
// state. The discount is his.
func Accept(ctx context.Context, tx *store.Tx, u Undertaking) (Entry, error) {
	if err := checkNames(u.Key, u.Claim, string(u.Debtor)); err != nil {
		return Entry{}, err
	}
	if err := checkAmount(u.Amount); err != nil {
		return Entry{}, err
	}
	if u.Discount.Minor != 0 {
		if err := checkAmount(u.Discount); err != nil {
			return Entry{}, err
		}
		if u.Discount.Currency != u.Amount.Currency {
			return Entry{}, fault.New(fault.AmountRefused, "the discount is in another currency")
		}
	}
	return post(ctx, tx, opAccept, u.Key, u.At, u, nil, func() ([]Line, error) {
		unit, income := whole(u.Amount.Currency), Account{Income, "", u.Claim}
		return append(move(Account{Claim, string(u.Debtor), u.Claim}, income, unit, u.Amount.Minor),
			move(Account{Discount, "", u.Claim}, income, unit, u.Discount.Minor)...), nil
	})
}

// Relief is what a creditor gives up of what was undertaken already: the fine
// was cancelled or reduced after it was paid.
type Relief struct {
	Key    string         `json:"key"` // the same in both states' books
	At     time.Time      `json:"at"`
	Claim  string         `json:"claim"`
	Party  union.State    `json:"party"` // the other state
	Amount union.Money    `json:"amount"`
	Payer  union.Currency `json:"payer,omitempty"` // the payer's, in the debtor's books
}

func (r Relief) check() error {
	if err := checkNames(r.Key, r.Claim, string(r.Party)); err != nil {
		return err
	}
	return checkAmount(r.Amount)
}

// Release books it for the creditor: his claim becomes less.
func Release(ctx context.Context, tx *store.Tx, r Relief) (Entry, error) {
	if err := r.check(); err != nil {
		return Entry{}, err
	}
	claim, unit := Account{Claim, string(r.Party), r.Claim}, whole(r.Amount.Currency)
	return post(ctx, tx, opRelease, r.Key, r.At, r, []locked{{claim, unit}}, func() ([]Line, error) {
		if err := enough(ctx, tx, claim, r.Amount); err != nil {
			return nil, err
		}
		return move(Account{Income, "", r.Claim}, claim, unit, r.Amount.Minor), nil
	})
}

// ReleasedBy books it for the debtor: his debt becomes less, and what the
// payer paid for that part, at the price that he paid, is open for him.
func ReleasedBy(ctx context.Context, tx *store.Tx, r Relief) (Entry, error) {
	if err := r.check(); err != nil {
		return Entry{}, err
	}
	if _, err := union.ParseCurrency(string(r.Payer)); err != nil {
		return Entry{}, fault.Wrap(fault.AmountRefused, err, "")
	}
	return post(ctx, tx, opReleasedBy, r.Key, r.At, r, []locked{claimLock(r.Claim, r.Payer)}, func() ([]Line, error) { return r.lines(ctx, tx) })
}

func (r Relief) lines(ctx context.Context, tx *store.Tx) ([]Line, error) {
	var (
		o    = string(r.Party)
		due  = Account{Due, o, r.Claim}
		debt = Account{Debt, o, r.Claim}
		unit = whole(r.Amount.Currency)
	)
	if err := enough(ctx, tx, debt, r.Amount); err != nil {
		return nil, err
	}
	owed, err := balance(ctx, tx, debt, unit)
	if err != nil {
		return nil, fmt.Errorf("reading a debt: %w", err)
	}
	aside, err := balance(ctx, tx, due, whole(r.Payer))
	if err != nil {
		return nil, fmt.Errorf("reading what is due: %w", err)
	}
	rests, err := balance(ctx, tx, due, parts(r.Payer))
	if err != nil {
		return nil, fmt.Errorf("reading what rounding left: %w", err)
	}
	// What stays is reckoned, and the rest given back: a fine reduced in many
	// steps costs what it would have in one.
	keep, rest, err := union.Money{Minor: aside, Currency: r.Payer}.Share(owed-r.Amount.Minor, owed)
	if err != nil {
		return nil, fault.Wrap(fault.AmountRefused, err, "")
	}
	old, _, err := union.Money{Minor: rests, Currency: r.Payer}.Share(owed-r.Amount.Minor, owed)
	if err != nil {
		return nil, fault.Wrap(fault.AmountRefused, err, "")
	}
	lines := move(debt, Account{Exchange, o, ""}, unit, r.Amount.Minor)
	lines = append(lines, move(due, Account{Open, "", r.Claim}, whole(r.Payer), aside-keep.Minor)...)
	return append(lines, move(due, Account{Rounding, "", ""}, parts(r.Payer), rests-old.Minor-rest)...), nil
}

// Burden is a cost that the payer's state bears itself.
type Burden struct {
	Key    string      `json:"key"`
	At     time.Time   `json:"at"`
	Kind   Kind        `json:"kind"`  // Chargeback or Collection
	Claim  string      `json:"claim"` // or the collector's bill
	Amount union.Money `json:"amount"`
}

// Bear books such a cost against the state's own money: the payers' stays
// whole, and what was undertaken is owed all the same.
func Bear(ctx context.Context, tx *store.Tx, b Burden) (Entry, error) {
	if err := checkNames(b.Key, b.Claim); err != nil {
		return Entry{}, err
	}
	if err := checkAmount(b.Amount); err != nil {
		return Entry{}, err
	}
	if b.Kind != Chargeback && b.Kind != Collection {
		return Entry{}, fault.New(fault.AmountRefused, "a state bears chargebacks and what collecting costs")
	}
	return post(ctx, tx, opBear, b.Key, b.At, b, nil, func() ([]Line, error) {
		return move(Account{b.Kind, "", b.Claim}, Account{Own, "", ""}, whole(b.Amount.Currency), b.Amount.Minor), nil
	})
}

// Valuation values what a state owes another one at a day's rate.
type Valuation struct {
	Key      string      `json:"key"`
	At       time.Time   `json:"at"`
	Creditor union.State `json:"creditor"`
	Rate     union.Rate  `json:"rate"` // from the creditor's currency to the payers'
}

// Revalue books by how much what is due no longer buys what is owed: the
// exchange difference, which the debtor bears and makes provision for. The
// payers' money is not touched.
func Revalue(ctx context.Context, tx *store.Tx, v Valuation) (Entry, error) {
	if err := checkNames(v.Key, string(v.Creditor)); err != nil {
		return Entry{}, err
	}
	if err := v.Rate.Check(); err != nil {
		return Entry{}, fault.Wrap(fault.AmountRefused, err, "")
	}
	o, unit := string(v.Creditor), whole(v.Rate.To)
	provision := Account{Provision, o, string(v.Rate.From)}
	return post(ctx, tx, opRevalue, v.Key, v.At, v, []locked{{provision, unit}}, func() ([]Line, error) {
		owed, err := total(ctx, tx, Debt, o, whole(v.Rate.From), ever())
		if err != nil {
			return nil, err
		}
		aside, err := total(ctx, tx, Due, o, unit, ever())
		if err != nil {
			return nil, err
		}
		made, err := balance(ctx, tx, provision, unit)
		if err != nil {
			return nil, fmt.Errorf("reading a provision: %w", err)
		}
		worth, _, err := v.Rate.Convert(union.Money{Minor: owed, Currency: v.Rate.From})
		if err != nil {
			return nil, fault.Wrap(fault.AmountRefused, err, "")
		}
		return move(Account{Difference, o, string(v.Rate.From)}, provision, unit, worth.Minor-aside-made), nil
	})
}
