package ledger

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Payers is the payers' money of one currency: Cash = Receipts - Refunds =
// Due + Open + Suspense.
type Payers struct {
	Currency union.Currency `json:"currency"`
	Receipts int64          `json:"receipts"`
	Refunds  int64          `json:"refunds"`
	Cash     int64          `json:"cash"`
	Due      int64          `json:"due"`
	Open     int64          `json:"open"`
	Suspense int64          `json:"suspense"`
}

// Report is what an audit found.
type Report struct {
	Entries  int64    `json:"entries"`
	Payers   []Payers `json:"payers"`
	Findings []string `json:"findings"` // empty where the books are whole
}

// Audit reckons everything anew from what is written down, and says where it
// does not fit: the tables themselves, the payers' money, what is owed against
// what must be bought for it, and accounts that fell below nothing.
func Audit(ctx context.Context, tx *store.Tx) (Report, error) {
	r := Report{Findings: []string{}}
	find := func(format string, args ...any) { r.Findings = append(r.Findings, fmt.Sprintf(format, args...)) }
	var err error
	if r.Entries, err = auditEntries(ctx, tx, find); err != nil {
		return r, fmt.Errorf("reading the entries: %w", err)
	}
	if err := auditTables(ctx, tx, find); err != nil {
		return r, err
	}
	all, err := Trial(ctx, tx, ever())
	if err != nil {
		return r, err
	}
	of := map[Unit]map[Kind]int64{}
	sum := map[Unit]int64{}
	for _, b := range all {
		if of[b.Unit] == nil {
			of[b.Unit] = map[Kind]int64{}
		}
		of[b.Unit][b.Kind] += b.Credit - b.Debit
		sum[b.Unit] += b.Credit - b.Debit
	}
	for unit, left := range sum {
		if left != 0 {
			find("%s: debits and credits differ by %d", unit, left)
		}
	}
	for _, c := range union.Currencies() {
		kinds := of[whole(c)]
		if kinds[Exchange]+kinds[Debt] != 0 {
			find("%s: what is owed and what is to be bought for it differ", c)
		}
		if rests := of[parts(c)]; rests[Due]+rests[Rounding] != 0 {
			find("%s: what rounding left is not what rounding took", c)
		}
		p := Payers{Currency: c, Cash: -kinds[Cash], Due: kinds[Due], Open: kinds[Open], Suspense: kinds[Suspense]}
		if p.Receipts, p.Refunds, err = receipts(ctx, tx, c); err != nil {
			return r, err
		}
		if p.Cash != p.Receipts-p.Refunds || p.Cash != p.Due+p.Open+p.Suspense {
			find("%s: payers' cash is %d, receipts less refunds %d, due, open and in suspense %d", c, p.Cash, p.Receipts-p.Refunds, p.Due+p.Open+p.Suspense)
		}
		if p != (Payers{Currency: c}) {
			r.Payers = append(r.Payers, p)
		}
	}
	return r, nil
}

// receipts adds up what came and what was paid back, by what the entries are.
func receipts(ctx context.Context, tx *store.Tx, c union.Currency) (in, out int64, err error) {
	err = tx.QueryRow(ctx, `SELECT
		(SELECT CAST(COALESCE(SUM(p.minor), 0) AS BIGINT) FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.debit
		 WHERE e.op IN ('pay', 'park') AND a.kind = 'cash' AND p.unit = ?),
		(SELECT CAST(COALESCE(SUM(p.minor), 0) AS BIGINT) FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry JOIN ledger_account a ON a.id = p.credit
		 WHERE e.op IN ('refund', 'return') AND a.kind = 'cash' AND p.unit = ?)`, whole(c), whole(c)).Scan(&in, &out)
	if err != nil {
		return 0, 0, fmt.Errorf("adding up receipts and refunds: %w", err)
	}
	return in, out, nil
}

// batch is how many entries an audit holds in memory.
const batch = 1000

// auditEntries holds each entry's postings against the digest that was taken
// when they were booked, and counts the entries.
func auditEntries(ctx context.Context, tx *store.Tx, find func(string, ...any)) (n int64, err error) {
	bad := 0
	for last := int64(0); ; {
		booked := map[int64][]byte{}
		lines := map[int64][]Line{}
		next := last
		rows, err := tx.Query(ctx, "SELECT id, booked FROM ledger_entry WHERE id > ? ORDER BY id LIMIT ?", last, batch)
		if err != nil {
			return 0, err
		}
		for rows.Next() {
			var sum []byte
			if err := rows.Scan(&next, &sum); err != nil {
				_ = rows.Close()
				return 0, err
			}
			booked[next] = sum
		}
		if err := rows.Err(); err != nil {
			return 0, err
		}
		if len(booked) == 0 {
			break
		}
		n += int64(len(booked))
		if err := postings(ctx, tx, fmt.Sprintf("p.entry > ? AND p.entry <= %d", next), last, func(entry int64, l Line) {
			lines[entry] = append(lines[entry], l)
		}); err != nil {
			return 0, err
		}
		for id, want := range booked {
			got, err := digestOf("lines", lines[id])
			if err != nil {
				return 0, err
			}
			if !bytes.Equal(got[:], want) {
				bad++
			}
		}
		last = next
	}
	if bad > 0 {
		find("%d entries are not what was booked", bad)
	}
	return n, nil
}

// auditTables finds what the schema forbids, should somebody have changed the
// tables past it, and accounts that hold less than nothing.
func auditTables(ctx context.Context, tx *store.Tx, find func(string, ...any)) error {
	for _, check := range []struct{ what, query string }{
		{"postings without their entry or accounts, or of another unit", `SELECT COUNT(*) FROM ledger_posting p
			LEFT JOIN ledger_entry e ON e.id = p.entry
			LEFT JOIN ledger_account d ON d.id = p.debit AND d.unit = p.unit
			LEFT JOIN ledger_account c ON c.id = p.credit AND c.unit = p.unit
			WHERE e.id IS NULL OR d.id IS NULL OR c.id IS NULL OR p.minor <= 0`},
		{"accounts that hold less than nothing", `SELECT COUNT(*) FROM (SELECT account FROM (
			SELECT p.credit AS account, p.minor FROM ledger_posting p JOIN ledger_account a ON a.id = p.credit
			WHERE a.kind IN ('due', 'open', 'suspense', 'debt', 'claim') AND a.unit NOT LIKE '%-6'
			UNION ALL
			SELECT p.debit AS account, -p.minor FROM ledger_posting p JOIN ledger_account a ON a.id = p.debit
			WHERE a.kind IN ('due', 'open', 'suspense', 'debt', 'claim') AND a.unit NOT LIKE '%-6') AS moved
			JOIN ledger_account a ON a.id = moved.account
			GROUP BY account HAVING SUM(CASE WHEN a.kind = 'claim' THEN -minor ELSE minor END) < 0) AS below`},
	} {
		var n int64
		if err := tx.QueryRow(ctx, check.query).Scan(&n); err != nil {
			return fmt.Errorf("looking for %s: %w", strings.SplitN(check.what, ",", 2)[0], err)
		}
		if n != 0 {
			find("%d %s", n, check.what)
		}
	}
	return nil
}
