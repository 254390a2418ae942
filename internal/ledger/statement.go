package ledger

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// maxLines is how many lines a statement has at most: a caller who wants more
// asks for a shorter time.
const maxLines = 100_000

// ever is a time after all that is booked.
func ever() time.Time { return time.UnixMilli(math.MaxInt64) }

// total is what was credited to all accounts of a kind and a party for a time
// before until, less what was debited.
func total(ctx context.Context, tx *store.Tx, kind Kind, party string, unit Unit, until time.Time) (minor int64, err error) {
	err = tx.QueryRow(ctx, `SELECT CAST(COALESCE(SUM(minor), 0) AS BIGINT) FROM (
		SELECT p.minor FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.credit
		WHERE a.kind = ? AND a.party = ? AND a.unit = ? AND e.at < ?
		UNION ALL
		SELECT -p.minor FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.debit
		WHERE a.kind = ? AND a.party = ? AND a.unit = ? AND e.at < ?) AS moved`,
		kind, party, unit, until.UnixMilli(), kind, party, unit, until.UnixMilli()).Scan(&minor)
	if err != nil {
		return 0, fmt.Errorf("adding up %s: %w", kind, err)
	}
	return minor, nil
}

// BalanceOf is what was credited to one account, less what was debited.
func BalanceOf(ctx context.Context, tx *store.Tx, a Account, c union.Currency) (union.Money, error) {
	minor, err := balance(ctx, tx, a, whole(c))
	if err != nil {
		return union.Money{}, fmt.Errorf("reading %s: %w", a.Kind, err)
	}
	return union.Money{Minor: minor, Currency: c}, nil
}

// Balance is one line of a trial balance: all accounts of a kind, a party and
// a unit.
type Balance struct {
	Kind   Kind   `json:"kind"`
	Party  string `json:"party,omitempty"`
	Unit   Unit   `json:"unit"`
	Debit  int64  `json:"debit"`
	Credit int64  `json:"credit"`
}

// Trial is the trial balance of all that was booked for a time before until.
// In each unit debits equal credits.
func Trial(ctx context.Context, tx *store.Tx, until time.Time) ([]Balance, error) {
	rows, err := tx.Query(ctx, `SELECT kind, party, unit, CAST(SUM(debit) AS BIGINT), CAST(SUM(credit) AS BIGINT) FROM (
		SELECT a.kind, a.party, a.unit, p.minor AS debit, 0 AS credit
		FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.debit WHERE e.at < ?
		UNION ALL
		SELECT a.kind, a.party, a.unit, 0 AS debit, p.minor AS credit
		FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.credit WHERE e.at < ?) AS moved
		GROUP BY kind, party, unit ORDER BY unit, kind, party`, until.UnixMilli(), until.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("reading a trial balance: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []Balance
	for rows.Next() {
		var b Balance
		if err := rows.Scan(&b.Kind, &b.Party, &b.Unit, &b.Debit, &b.Credit); err != nil {
			return nil, fmt.Errorf("reading a trial balance: %w", err)
		}
		all = append(all, b)
	}
	return all, rows.Err()
}

// Item is one entry's part in a statement.
type Item struct {
	Key     string `json:"key"`
	Op      Op     `json:"op"`
	AtMS    int64  `json:"at"`
	Subject string `json:"subject"`
	Minor   int64  `json:"minor"` // credited less debited
}

// Statement is what happened to the accounts of a kind and a party in one
// unit, between two times.
type Statement struct {
	Kind    Kind   `json:"kind"`
	Party   string `json:"party"`
	Unit    Unit   `json:"unit"`
	Opening int64  `json:"opening"` // credited less debited before
	Items   []Item `json:"items"`   // by time and key
	Closing int64  `json:"closing"`
}

// StatementOf reads a statement: of all that was booked for times from and on,
// before until.
func StatementOf(ctx context.Context, tx *store.Tx, kind Kind, party string, c union.Currency, from, until time.Time) (Statement, error) {
	s := Statement{Kind: kind, Party: party, Unit: whole(c), Items: []Item{}}
	rows, err := tx.Query(ctx, `SELECT key, op, at, subject, CAST(SUM(minor) AS BIGINT) FROM (
		SELECT e.key, e.op, e.at, a.subject, p.minor
		FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.credit
		WHERE a.kind = ? AND a.party = ? AND a.unit = ? AND e.at >= ? AND e.at < ?
		UNION ALL
		SELECT e.key, e.op, e.at, a.subject, -p.minor
		FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.debit
		WHERE a.kind = ? AND a.party = ? AND a.unit = ? AND e.at >= ? AND e.at < ?) AS moved
		GROUP BY key, op, at, subject ORDER BY at, key, subject LIMIT ?`,
		kind, party, s.Unit, from.UnixMilli(), until.UnixMilli(), kind, party, s.Unit, from.UnixMilli(), until.UnixMilli(), maxLines+1)
	if err != nil {
		return s, fmt.Errorf("reading a statement: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var i Item
		if err := rows.Scan(&i.Key, &i.Op, &i.AtMS, &i.Subject, &i.Minor); err != nil {
			return s, fmt.Errorf("reading a statement: %w", err)
		}
		s.Items = append(s.Items, i)
		s.Closing += i.Minor
	}
	if err := rows.Err(); err != nil {
		return s, fmt.Errorf("reading a statement: %w", err)
	}
	if len(s.Items) > maxLines {
		return s, fault.New(fault.TooLarge, "the statement has more than %d lines: ask for a shorter time", maxLines)
	}
	if s.Opening, err = total(ctx, tx, kind, party, s.Unit, from); err != nil {
		return s, err
	}
	s.Closing += s.Opening
	return s, nil
}

// Break is where two states' books differ: an undertaking or its release that
// one of them lacks, or has with another amount or for another claim.
type Break struct {
	Key     string `json:"key"`
	Subject string `json:"subject"`
	AtMS    int64  `json:"at"` // how old it is
	Claim   int64  `json:"claim"`
	Debt    int64  `json:"debt"`
}

// Compare holds a creditor's statement of its claims on a debtor against the
// debtor's of its debt to the creditor, by the key of each entry. Opening is
// true where the two agreed on what came before.
func Compare(claims, debts Statement) (breaks []Break, opening bool) {
	type id struct{ key, subject string }
	found := map[id]*Break{}
	for _, s := range []Statement{claims, debts} {
		for _, i := range s.Items {
			b := found[id{i.Key, i.Subject}]
			if b == nil {
				b = &Break{Key: i.Key, Subject: i.Subject, AtMS: i.AtMS}
				found[id{i.Key, i.Subject}] = b
			}
			b.AtMS = min(b.AtMS, i.AtMS)
			if s.Kind == Claim {
				b.Claim -= i.Minor // a claim is debited
			} else {
				b.Debt += i.Minor
			}
		}
	}
	for _, b := range found {
		if b.Claim != b.Debt {
			breaks = append(breaks, *b)
		}
	}
	slices.SortFunc(breaks, func(a, b Break) int {
		return cmp.Or(cmp.Compare(a.AtMS, b.AtMS), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Subject, b.Subject))
	})
	return breaks, claims.Unit == debts.Unit && -claims.Opening == debts.Opening
}

// Waiting is payers' money that waits for someone to do something about it.
type Waiting struct {
	Subject string      `json:"subject"` // a receipt, or a claim
	Amount  union.Money `json:"amount"`
	SinceMS int64       `json:"since"`
}

// Waits lists what is in suspense, or open, oldest first: at most limit.
func Waits(ctx context.Context, tx *store.Tx, kind Kind, limit int) ([]Waiting, error) {
	if kind != Suspense && kind != Open {
		return nil, fault.New(fault.AmountRefused, "only what is in suspense or open waits")
	}
	rows, err := tx.Query(ctx, `SELECT subject, unit, CAST(SUM(minor) AS BIGINT), MIN(at) FROM (
		SELECT a.subject, a.unit, p.minor, e.at
		FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.credit WHERE a.kind = ?
		UNION ALL
		SELECT a.subject, a.unit, -p.minor, e.at
		FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.debit WHERE a.kind = ?) AS moved
		GROUP BY subject, unit HAVING SUM(minor) <> 0 ORDER BY MIN(at), subject LIMIT ?`, kind, kind, limit)
	if err != nil {
		return nil, fmt.Errorf("listing what waits: %w", err)
	}
	defer func() { _ = rows.Close() }()
	all := []Waiting{}
	for rows.Next() {
		var w Waiting
		var unit string
		if err := rows.Scan(&w.Subject, &unit, &w.Amount.Minor, &w.SinceMS); err != nil {
			return nil, fmt.Errorf("listing what waits: %w", err)
		}
		w.Amount.Currency = union.Currency(unit)
		all = append(all, w)
	}
	return all, rows.Err()
}
