package traffic_test

import (
	"context"
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

// TestEffects books a case's payment, its relief and its refund in both
// states' ledgers as the engine would, each of them twice, and compares.
func TestEffects(t *testing.T) {
	bh, sa := storetest.Open(t, storetest.SQLite(t), ledger.Migrations()), storetest.Open(t, storetest.SQLite(t), ledger.Migrations())
	now, hooks := in("2026-03-01T12:00:00Z"), traffic.Hooks(deps(t))
	quote := call(t, hooks, "quote@1", now, definition.Values{"amount": amount(10_000, "SAR"), "currency": "BHD"})
	book := func(db *store.DB, run string, peer union.State, v definition.Values) error {
		t.Helper()
		f, ok := hooks[run]
		if !ok || f.Gives != "" || len(f.Args) != len(v) {
			t.Fatalf("%s takes %v", run, f.Args)
		}
		var err error
		for range 2 {
			err = db.Write(t.Context(), func(tx *store.Tx) error {
				return traffic.Effects()[run](t.Context(), tx, casework.Effect{Case: "case-1", Peer: peer, At: now, With: v})
			})
		}
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pay := definition.Values{"number": "r1", "at": now, "owed": amount(10_000, "SAR"), "paid": amount(11_000, "BHD"),
		"discharged": amount(9_999, "SAR"), "collector": "benefit", "quote": quote}
	if book(bh, "ledger.pay@1", "SA", pay) == nil {
		t.Error("the ledger books another amount than the case says")
	}
	pay["discharged"] = amount(10_000, "SAR")
	must(book(bh, "ledger.pay@1", "SA", pay))
	must(book(sa, "ledger.accept@1", "BH", definition.Values{"number": "r1", "at": now, "amount": amount(10_000, "SAR"), "discount": amount(0, "SAR")}))
	must(book(sa, "ledger.release@1", "BH", definition.Values{"number": "x1", "at": now, "amount": amount(4_000, "SAR")}))
	must(book(bh, "ledger.released@1", "SA", definition.Values{"number": "x1", "at": now, "amount": amount(4_000, "SAR"), "payer": "BHD"}))
	must(book(bh, "ledger.refund@1", "SA", definition.Values{"number": "f1", "at": now, "amount": amount(973+4_011, "BHD"), "collector": "benefit"}))
	must(book(bh, "ledger.chargeback@1", "SA", definition.Values{"number": "b1", "at": now, "amount": amount(11_000, "BHD")}))

	statement := func(db *store.DB, kind ledger.Kind, party string) (s ledger.Statement) {
		must(db.Read(t.Context(), func(tx *store.Tx) (err error) {
			r, err := ledger.Audit(t.Context(), tx)
			if err != nil || len(r.Findings) > 0 {
				t.Errorf("%+v, %v", r, err)
			}
			s, err = ledger.StatementOf(t.Context(), tx, kind, party, "SAR", now, now.Add(time.Millisecond))
			return err
		}))
		return s
	}
	claims, debts := statement(sa, ledger.Claim, "BH"), statement(bh, ledger.Debt, "SA")
	if breaks, ok := ledger.Compare(claims, debts); len(breaks) > 0 || !ok || debts.Closing != 6_000 {
		t.Errorf("%+v, %d", breaks, debts.Closing)
	}
	must(bh.Read(context.Background(), func(tx *store.Tx) error {
		open, err := ledger.BalanceOf(context.Background(), tx, ledger.Account{Kind: ledger.Open, Subject: "case-1"}, "BHD")
		if open.Minor != 0 {
			t.Errorf("%v is open", open)
		}
		return err
	}))
}
