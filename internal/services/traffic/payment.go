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
func (d Deps) take(ctx context.Context, now time.Time, v definition.Values) (any, error) {
	t, err := d.violations(ctx, union.State(text(v, "state")), instant(v, "at"))
	if err != nil {
		return nil, err
	}
	full, done, open, paid := amount(v, "amount"), amount(v, "discharged"), amount(v, "open"), amount(v, "paid")
	if paid.Currency != open.Currency || paid.Minor <= 0 { // which the definition refuses
		none, nothing := value(union.Money{Currency: full.Currency}), value(union.Money{Currency: open.Currency})
		return map[string]any{"owed": value(full), "off": none, "rule": "", "quote": map[string]any{}, "at": now.UTC().Format(time.RFC3339),
			"discharged": none, "total": value(done), "price": nothing, "open": value(open), "whole": false}, nil
	}
	offer, err := t.Discount(text(v, "code"), instant(v, "at"), instant(v, "served"), now, full)
	if err != nil {
		return nil, err
	}
	raw, _ := v["quote"].(map[string]any)
	q, err := quoteOf(raw)
	if err != nil || now.Before(q.From) || !now.Before(q.Until) || q.Rate.From != full.Currency || q.Rate.To != paid.Currency {
		r, err := d.rates(ctx, now)
		if err != nil {
			return nil, err
		}
		if q, err = r.Quote(full.Currency, paid.Currency, now); err != nil {
			return nil, err
		}
	}
	p, err := reckon(offer.Pay, done, open, paid, q)
	if err == nil && !p.whole && offer.Off.Minor > 0 {
		// The discount is for the whole: a part is a part of the full amount.
		offer = Offer{Off: union.Money{Currency: full.Currency}, Pay: full}
		p, err = reckon(full, done, open, paid, q)
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"owed": value(offer.Pay), "off": value(offer.Off), "rule": offer.Rule, "quote": valueOf(q), "at": now.UTC().Format(time.RFC3339),
		"discharged": value(p.discharged), "total": value(p.total), "price": value(p.price), "open": value(p.open), "whole": p.whole}, nil
}

// taken is what a payment does.
type taken struct {
	discharged, total union.Money // in the claim's currency
	price, open       union.Money // in the payer's
	whole             bool
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
