package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Bounds of what is booked.
const (
	maxName  = 255                   // bytes of a key, a party, a subject
	maxMinor = 1_000_000_000_000_000 // so that thousands of them still add up
)

// checkNames refuses what cannot name anything.
func checkNames(names ...string) error {
	for _, n := range names {
		if n == "" || len(n) > maxName {
			return fault.New(fault.AmountRefused, "a key or a name of a claim, a receipt or a party has 1 to %d bytes", maxName)
		}
	}
	return nil
}

// checkAmount refuses what is no amount above zero.
func checkAmount(m union.Money) error {
	if err := m.Check(); err != nil {
		return fault.Wrap(fault.AmountRefused, err, "")
	}
	if m.Minor <= 0 || m.Minor > maxMinor {
		return fault.New(fault.AmountRefused, "an amount is above zero, and at most %d minor units", int64(maxMinor))
	}
	return nil
}

// enough refuses to take more from an account than there is.
func enough(ctx context.Context, tx *store.Tx, a Account, want union.Money) error {
	have, err := balance(ctx, tx, a, whole(want.Currency))
	if err != nil {
		return fmt.Errorf("reading the %s of a claim: %w", a.Kind, err)
	}
	if a.Kind == Claim {
		have = -have
	}
	if have < want.Minor {
		return fault.New(fault.AmountRefused, "there is less than that to take from: %s", a.Kind)
	}
	return nil
}

// post books an entry once. What is asked for (its key, and all that decides
// on it) is hashed: a repetition gives the entry that stands there, another
// request under the same key is a conflict. The accounts of lock are taken
// first, so that what lines reads of them does not change meanwhile.
func post[T any](ctx context.Context, tx *store.Tx, op Op, key string, at time.Time, asked T, lock []locked, lines func() ([]Line, error)) (Entry, error) {
	if err := checkNames(key); err != nil {
		return Entry{}, err
	}
	digest, err := digestOf(string(op), asked)
	if err != nil {
		return Entry{}, err
	}
	for _, l := range lock {
		if err := take(ctx, tx, l); err != nil {
			return Entry{}, fmt.Errorf("taking an account: %w", err)
		}
	}
	if e, err := stands(ctx, tx, key, digest); err != nil || e.Again {
		return e, err
	}
	e := Entry{Key: key, Op: op, AtMS: at.UnixMilli()}
	if e.Lines, err = lines(); err != nil {
		return Entry{}, err
	}
	booked, err := digestOf("lines", e.Lines)
	if err != nil {
		return Entry{}, err
	}
	var id int64
	err = tx.QueryRow(ctx, `INSERT INTO ledger_entry (key, op, at, asked, booked) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (key) DO NOTHING RETURNING id`, key, op, e.AtMS, digest[:], booked[:]).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return stands(ctx, tx, key, digest) // another transaction was first
	}
	if err != nil {
		return Entry{}, fmt.Errorf("booking an entry: %w", err)
	}
	for i, l := range e.Lines {
		if err := write(ctx, tx, id, i, l); err != nil {
			return Entry{}, fmt.Errorf("booking a line: %w", err)
		}
	}
	return e, nil
}

// digestOf hashes what is asked for, or what was booked.
func digestOf(what string, v any) ([32]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return [32]byte{}, fmt.Errorf("hashing an entry: %w", err)
	}
	return sha256.Sum256(append([]byte("falaj ledger v1\n"+what+"\n"), b...)), nil
}

// stands gives the entry that a key has already, with Again; or nothing.
func stands(ctx context.Context, tx *store.Tx, key string, digest [32]byte) (Entry, error) {
	e := Entry{Key: key, Again: true}
	var (
		id   int64
		was  []byte
		fail = func(err error) (Entry, error) { return Entry{}, fmt.Errorf("reading an entry: %w", err) }
	)
	err := tx.QueryRow(ctx, "SELECT id, op, at, asked FROM ledger_entry WHERE key = ?", key).Scan(&id, &e.Op, &e.AtMS, &was)
	if errors.Is(err, sql.ErrNoRows) {
		return Entry{}, nil
	}
	if err != nil {
		return fail(err)
	}
	if !bytes.Equal(was, digest[:]) {
		return Entry{}, fault.New(fault.BookedOtherwise, "something else is booked under this key")
	}
	if err := postings(ctx, tx, "p.entry = ?", id, func(_ int64, l Line) { e.Lines = append(e.Lines, l) }); err != nil {
		return fail(err)
	}
	return e, nil
}

// postings gives each posting that fulfils a condition, in order.
func postings(ctx context.Context, tx *store.Tx, where string, arg int64, each func(entry int64, l Line)) error {
	rows, err := tx.Query(ctx, `SELECT p.entry, p.unit, p.minor, d.kind, d.party, d.subject, c.kind, c.party, c.subject
		FROM ledger_posting p JOIN ledger_account d ON d.id = p.debit JOIN ledger_account c ON c.id = p.credit
		WHERE `+where+` ORDER BY p.entry, p.line`, arg)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var entry int64
		var l Line
		if err := rows.Scan(&entry, &l.Unit, &l.Minor, &l.Debit.Kind, &l.Debit.Party, &l.Debit.Subject, &l.Credit.Kind, &l.Credit.Party, &l.Credit.Subject); err != nil {
			return err
		}
		each(entry, l)
	}
	return rows.Err()
}

func write(ctx context.Context, tx *store.Tx, entry int64, n int, l Line) error {
	debit, err := number(ctx, tx, l.Debit, l.Unit)
	if err != nil {
		return err
	}
	credit, err := number(ctx, tx, l.Credit, l.Unit)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO ledger_posting (entry, line, unit, debit, credit, minor) VALUES (?, ?, ?, ?, ?, ?)",
		entry, n, l.Unit, debit, credit, l.Minor)
	return err
}

// number gives the number of an account, which it opens if need be.
func number(ctx context.Context, tx *store.Tx, a Account, unit Unit) (id int64, err error) {
	find := func() error {
		return tx.QueryRow(ctx, "SELECT id FROM ledger_account WHERE kind = ? AND party = ? AND subject = ? AND unit = ?",
			a.Kind, a.Party, a.Subject, unit).Scan(&id)
	}
	if err = find(); !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = tx.QueryRow(ctx, `INSERT INTO ledger_account (kind, party, subject, unit) VALUES (?, ?, ?, ?)
		ON CONFLICT (kind, party, subject, unit) DO NOTHING RETURNING id`, a.Kind, a.Party, a.Subject, unit).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = find()
	}
	return id, err
}

// locked is an account that only one transaction at a time may reckon with.
type locked struct {
	account Account
	unit    Unit
}

func take(ctx context.Context, tx *store.Tx, l locked) error {
	id, err := number(ctx, tx, l.account, l.unit)
	if err != nil {
		return err
	}
	return tx.QueryRow(ctx, "SELECT id FROM ledger_account WHERE id = ? FOR UPDATE", id).Scan(&id)
}
