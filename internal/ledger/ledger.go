// Package ledger is a state's own books of what the joint services take and
// owe: double entry, each thing booked once, all of it in the caller's
// transaction. It moves no money: it says what there must be.
package ledger

import (
	"context"
	"embed"
	"io/fs"

	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

//go:embed migration
var migration embed.FS

// Migrations are the ledger's tables.
func Migrations() store.Migrations {
	dir, err := fs.Sub(migration, "migration")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return store.Migrations{Room: "ledger", FS: dir}
}

// Kind is what an account is for.
type Kind string

// The kinds. The first four are the payers' money and whose it is: what is
// held equals what is due, open and in suspense. R is the state in which the
// payer pays, O the one whose fine it is.
const (
	Cash     Kind = "cash"     // what payers paid and was not refunded, by who holds it: a collector, or "" for the state's bank
	Due      Kind = "due"      // of it, what is set aside for claims of other states
	Open     Kind = "open"     // of it, what exceeds what its payer owes: to be refunded or credited
	Suspense Kind = "suspense" // of it, what matches nothing yet

	Debt     Kind = "debt"     // of R to O, in O's currency: R's undertakings
	Exchange Kind = "exchange" // what R has still to buy of O's currency for them
	Claim    Kind = "claim"    // of O on R: the same undertakings in O's books
	Income   Kind = "income"   // O's fines
	Discount Kind = "discount" // O's: what it gave up of them

	Rounding   Kind = "rounding"   // R's: what rounding to the payer's minor unit gave or took, in millionths
	Difference Kind = "difference" // R's: what exchange rates cost it since
	Provision  Kind = "provision"  // R's: what it has set aside for that
	Chargeback Kind = "chargeback" // R's: payments that the payer's bank took back
	Collection Kind = "collection" // R's: what its collectors cost
	Own        Kind = "own"        // R's own money, which these are paid from
)

// Account is one account of one unit.
type Account struct {
	Kind    Kind   `json:"kind"`
	Party   string `json:"party,omitempty"`   // a state, or a collector
	Subject string `json:"subject,omitempty"` // a claim, or the receipt of what is in suspense
}

// Unit is a currency's minor unit, or a millionth of it.
type Unit string

func whole(c union.Currency) Unit { return Unit(c) }
func parts(c union.Currency) Unit { return Unit(c) + "-6" }

// Line moves an amount from the credited account to the debited one.
type Line struct {
	Debit  Account `json:"debit"`
	Credit Account `json:"credit"`
	Unit   Unit    `json:"unit"`
	Minor  int64   `json:"minor"` // above zero
}

// Op is what an entry did.
type Op string

// The operations.
const (
	opPay        Op = "pay"
	opPark       Op = "park"
	opMatch      Op = "match"
	opReturn     Op = "return" // from suspense
	opRefund     Op = "refund"
	opCredit     Op = "credit"
	opBank       Op = "bank"
	opBear       Op = "bear"
	opRevalue    Op = "revalue"
	opAccept     Op = "accept"
	opRelease    Op = "release"
	opReleasedBy Op = "released-by"
)

// Entry is what one operation booked.
type Entry struct {
	Key   string `json:"key"`
	Op    Op     `json:"op"`
	AtMS  int64  `json:"at"` // Unix milliseconds
	Lines []Line `json:"lines"`
	// Again: it stood there already, and nothing was booked now.
	Again bool `json:"again,omitempty"`
}

// Into is what the entry credited to accounts of a kind, less what it debited.
func (e Entry) Into(kind Kind, c union.Currency) union.Money {
	m := union.Money{Currency: c}
	for _, l := range e.Lines {
		if l.Unit == whole(c) && l.Credit.Kind == kind {
			m.Minor += l.Minor
		}
		if l.Unit == whole(c) && l.Debit.Kind == kind {
			m.Minor -= l.Minor
		}
	}
	return m
}

// move is a line of an amount, which may be zero (none) or below it (the other
// way).
func move(debit, credit Account, unit Unit, minor int64) []Line {
	switch {
	case minor > 0:
		return []Line{{debit, credit, unit, minor}}
	case minor < 0:
		return []Line{{credit, debit, unit, -minor}}
	}
	return nil
}

// balance is what was credited to an account less what was debited.
func balance(ctx context.Context, tx *store.Tx, a Account, unit Unit) (minor int64, err error) {
	err = tx.QueryRow(ctx, `SELECT CAST(COALESCE(SUM(minor), 0) AS BIGINT) FROM (
		SELECT p.minor FROM ledger_posting p JOIN ledger_account a ON a.id = p.credit
		WHERE a.kind = ? AND a.party = ? AND a.subject = ? AND a.unit = ?
		UNION ALL
		SELECT -p.minor FROM ledger_posting p JOIN ledger_account a ON a.id = p.debit
		WHERE a.kind = ? AND a.party = ? AND a.subject = ? AND a.unit = ?) AS moved`,
		a.Kind, a.Party, a.Subject, unit, a.Kind, a.Party, a.Subject, unit).Scan(&minor)
	return minor, err
}
