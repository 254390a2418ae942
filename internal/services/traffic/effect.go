package traffic

import (
	"context"
	"errors"
	"time"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// effect books beside an event.
type effect struct {
	args map[string]definition.Type
	do   func(ctx context.Context, tx *store.Tx, e casework.Effect) error
}

// Effects are those of Hooks that book, for the engine. Claims are named by
// their case, entries by case and receipt, or another number that both states
// know: by it their books are compared.
func Effects() map[string]casework.EffectFunc {
	out := map[string]casework.EffectFunc{}
	for name, e := range effects() {
		out[name] = e.do
	}
	return out
}

var errSplit = errors.New("the ledger discharges another amount than the case says")

func effects() map[string]effect {
	number, at, sum := definition.Text, definition.Instant, definition.Money
	key := func(e casework.Effect) string { return e.Case + "/" + text(e.With, "number") }
	when := func(e casework.Effect) time.Time { return instant(e.With, "at") }
	transfer := func(e casework.Effect) ledger.Transfer {
		return ledger.Transfer{Key: key(e), At: when(e), From: e.Case, Amount: amount(e.With, "amount"), Collector: text(e.With, "collector")}
	}
	relief := func(e casework.Effect) ledger.Relief {
		return ledger.Relief{Key: key(e), At: when(e), Claim: e.Case, Party: e.Peer, Amount: amount(e.With, "amount"), Payer: union.Currency(text(e.With, "payer"))}
	}
	return map[string]effect{
		// The payer's state takes a payment.
		"ledger.pay@1": {
			args("number", number, "at", at, "owed", sum, "paid", sum, "discharged", sum, "collector", definition.Text, "quote", definition.Object),
			func(ctx context.Context, tx *store.Tx, e casework.Effect) error {
				raw, _ := e.With["quote"].(map[string]any)
				q, err := quoteOf(raw)
				if err != nil {
					return err
				}
				want := amount(e.With, "discharged")
				entry, err := ledger.Pay(ctx, tx, ledger.Payment{Key: key(e), At: when(e), Claim: e.Case, Creditor: e.Peer,
					Owed: amount(e.With, "owed"), Paid: amount(e.With, "paid"), Collector: text(e.With, "collector"), Quote: q})
				if err == nil && entry.Into(ledger.Debt, want.Currency) != want {
					return errSplit
				}
				return err
			},
		},
		// Money that came when the case no longer took any.
		"ledger.park@1": {
			args("number", number, "at", at, "paid", sum, "collector", definition.Text),
			func(ctx context.Context, tx *store.Tx, e casework.Effect) error {
				_, err := ledger.Park(ctx, tx, ledger.Receipt{Key: key(e), At: when(e), Receipt: key(e), Paid: amount(e.With, "paid"), Collector: text(e.With, "collector")})
				return err
			},
		},
		// The state of the offence accepts what was undertaken.
		"ledger.accept@1": {
			args("number", number, "at", at, "amount", sum, "discount", sum),
			func(ctx context.Context, tx *store.Tx, e casework.Effect) error {
				_, err := ledger.Accept(ctx, tx, ledger.Undertaking{Key: key(e), At: when(e), Claim: e.Case, Debtor: e.Peer,
					Amount: amount(e.With, "amount"), Discount: amount(e.With, "discount")})
				return err
			},
		},
		// It gives up what was paid already; the payer's state learns of it.
		"ledger.release@1": {
			args("number", number, "at", at, "amount", sum),
			func(ctx context.Context, tx *store.Tx, e casework.Effect) error {
				_, err := ledger.Release(ctx, tx, relief(e))
				return err
			},
		},
		"ledger.released@1": {
			args("number", number, "at", at, "amount", sum, "payer", definition.Text),
			func(ctx context.Context, tx *store.Tx, e casework.Effect) error {
				_, err := ledger.ReleasedBy(ctx, tx, relief(e))
				return err
			},
		},
		// What is open goes back to the payer.
		"ledger.refund@1": {
			args("number", number, "at", at, "amount", sum, "collector", definition.Text),
			func(ctx context.Context, tx *store.Tx, e casework.Effect) error {
				_, err := ledger.Refund(ctx, tx, transfer(e))
				return err
			},
		},
		// The payer's bank took the payment back: his state bears it.
		"ledger.chargeback@1": {
			args("number", number, "at", at, "amount", sum),
			func(ctx context.Context, tx *store.Tx, e casework.Effect) error {
				_, err := ledger.Bear(ctx, tx, ledger.Burden{Key: key(e), At: when(e), Kind: ledger.Chargeback, Claim: e.Case, Amount: amount(e.With, "amount")})
				return err
			},
		},
	}
}
