package traffic

import (
	"context"
	"errors"
	"time"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/union"
)

// take says what a payment does, in the ledger's own arithmetic: what is owed
// with the discount of the moment, what of it is discharged, what that costs,
// what stays open, and whether the whole is paid. The payer's quote counts
// while it holds; then the rate of the moment does, for the money has come.
//
// Where that cannot be reckoned, because a table or a rate is not there,
// "priced" is false: the money has come all the same, and is kept.
func (d Deps) take(ctx context.Context, now time.Time, v definition.Values) (any, error) {
	full, done, open, paid := amount(v, "amount"), amount(v, "discharged"), amount(v, "open"), amount(v, "paid")
	nothing := taken{total: done, open: open}
	nothing.discharged.Currency, nothing.price.Currency = full.Currency, open.Currency
	if paid.Currency != open.Currency || paid.Minor <= 0 { // which the definition refuses
		return nothing.value(now, Offer{Pay: full, Off: nothing.discharged}, nil), nil
	}
	offer, q, p, err := d.reckon(ctx, now, v, full, done, open, paid)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nothing.value(now, Offer{Pay: full, Off: nothing.discharged}, nil), nil
	}
	return p.value(now, offer, valueOf(q)), nil
}

func (d Deps) reckon(ctx context.Context, now time.Time, v definition.Values, full, done, open, paid union.Money) (offer Offer, q ledger.Quote, p taken, err error) {
	t, err := d.violations(ctx, union.State(text(v, "state")), instant(v, "at"))
	if err != nil {
		return offer, q, p, err
	}
	if offer, err = t.Discount(text(v, "code"), instant(v, "at"), instant(v, "served"), now, full); err != nil {
		return offer, q, p, err
	}
	raw, _ := v["quote"].(map[string]any)
	if q, err = quoteOf(raw); err != nil || now.Before(q.From) || !now.Before(q.Until) || q.Rate.From != full.Currency || q.Rate.To != paid.Currency {
		r, err := d.rates(ctx, now)
		if err != nil {
			return offer, q, p, err
		}
		if q, err = r.Quote(full.Currency, paid.Currency, now); err != nil {
			return offer, q, p, err
		}
	}
	p, err = reckon(offer.Pay, done, open, paid, q)
	if err == nil && !p.whole && offer.Off.Minor > 0 {
		// The discount is for the whole: a part is a part of the full amount.
		offer = Offer{Off: union.Money{Currency: full.Currency}, Pay: full}
		p, err = reckon(full, done, open, paid, q)
	}
	return offer, q, p, err
}

// taken is what a payment does.
type taken struct {
	discharged, total union.Money // in the claim's currency
	price, open       union.Money // in the payer's
	whole             bool
}

// value gives it as the definition sees it; no quote: it could not be reckoned.
func (t taken) value(now time.Time, o Offer, quote map[string]any) map[string]any {
	priced := quote != nil
	if !priced {
		quote = map[string]any{}
	}
	return map[string]any{"priced": priced, "owed": value(o.Pay), "off": value(o.Off), "rule": o.Rule, "quote": quote, "at": now.UTC().Format(time.RFC3339),
		"discharged": value(t.discharged), "total": value(t.total), "price": value(t.price), "open": value(t.open), "whole": t.whole}
}

func reckon(owed, done, open, paid union.Money, q ledger.Quote) (t taken, err error) {
	if open.Minor < 0 {
		return t, errors.New("what is open is not below zero")
	}
	money, err := open.Add(paid)
	if err != nil {
		return t, err
	}
	left, err := owed.Sub(done)
	if err != nil {
		return t, err
	}
	t.discharged, t.price = union.Money{Currency: owed.Currency}, union.Money{Currency: money.Currency}
	if left.Minor > 0 {
		if t.discharged, t.price, _, err = ledger.Split(q.Rate, left, money); err != nil {
			return t, err
		}
	}
	if t.total, err = done.Add(t.discharged); err == nil {
		t.open, err = money.Sub(t.price)
	}
	t.whole = t.total.Minor >= owed.Minor
	return t, err
}

// giveBack says what a payer gets back of what he spent when his fine becomes
// less after it was paid: he ends as if he had paid for the rest alone. The
// ledger reckons the same.
func giveBack(spent, discharged, relief union.Money) (any, error) {
	keep, err := discharged.Sub(relief)
	if err == nil && relief.Minor == 0 {
		return map[string]any{"back": value(union.Money{Currency: spent.Currency}), "spent": value(spent), "discharged": value(discharged)}, nil
	}
	if err != nil || relief.Minor < 0 || keep.Minor < 0 {
		return nil, errors.New("no more can be given up than was discharged")
	}
	cost, _, err := spent.Share(keep.Minor, discharged.Minor)
	if err != nil {
		return nil, err
	}
	back, err := spent.Sub(cost)
	if err != nil {
		return nil, err
	}
	return map[string]any{"back": value(back), "spent": value(cost), "discharged": value(keep)}, nil
}
