package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/store"
)

// Flip flips one bit, drawn by lot, of a column in a row that holds something
// there, as whoever writes to the database could. keys are the columns that
// name a row. It says what it did and gives what undoes it; nil where no row
// holds anything.
func Flip(t testing.TB, db *store.DB, table, column string, keys ...string) (what string, undo func()) {
	t.Helper()
	row := make([]any, len(keys))
	into := make([]any, 0, len(keys)+1)
	for i := range row {
		into = append(into, &row[i])
	}
	var was any
	holds := column + " IS NOT NULL"
	if kind(t, db, table, column) != "integer" {
		holds = "length(" + column + ") > 0"
	}
	rows, err := db.Query(t.Context(), "SELECT "+strings.Join(append(slices.Clone(keys), column), ", ")+" FROM "+table+" WHERE "+holds+" ORDER BY random() LIMIT 1")
	if err != nil {
		t.Fatal(err)
	}
	found := rows.Next()
	if found {
		err = rows.Scan(append(into, &was)...)
	}
	if e := rows.Close(); err != nil || e != nil {
		t.Fatal(err, e)
	}
	if !found {
		return "", nil
	}
	set := func(value any) error {
		terms := make([]string, len(keys))
		for i, k := range keys {
			terms[i] = k + " = ?"
		}
		_, err := db.Exec(t.Context(), "UPDATE "+table+" SET "+column+" = ? WHERE "+strings.Join(terms, " AND "), append([]any{value}, row...)...)
		if i := slices.Index(keys, column); i >= 0 && err == nil {
			row[i] = value
		}
		return err
	}
	for range 50 {
		value, bit := flipped(t, was)
		if err = set(value); err == nil {
			return fmt.Sprintf("bit %d of %s.%s, row %v", bit, table, column, row), func() {
				t.Helper()
				if err := set(was); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Fatalf("%s.%s takes no other value: %v", table, column, err)
	return "", nil
}

func flipped(t testing.TB, was any) (value any, bit int) {
	switch v := was.(type) {
	case int64:
		bit = rand.IntN(40)
		return v ^ 1<<bit, bit
	case []byte:
		b := slices.Clone(v)
		bit = rand.IntN(8 * len(b))
		b[bit/8] ^= 1 << (bit % 8)
		return b, bit
	case string:
		for b := []byte(v); ; b = []byte(v) {
			bit = rand.IntN(8 * len(b))
			if b[bit/8] ^= 1 << (bit % 8); b[bit/8] > 0 && b[bit/8] < 0x80 && v[bit/8] < 0x80 {
				return string(b), bit
			}
		}
	}
	t.Fatalf("a value of type %T", was)
	return nil, 0
}

// kind is the type of a column: integer, bytes or text.
func kind(t testing.TB, db *store.DB, table, column string) string {
	t.Helper()
	for _, c := range Columns(t, db) {
		if c.Table == table && c.Name == column {
			return c.Type
		}
	}
	t.Fatalf("there is no column %s.%s", table, column)
	return ""
}

// Column is a column of a database.
type Column struct {
	Table, Name, Type string
	Key               bool
}

// Columns are those of all tables but what the migrations keep.
func Columns(t testing.TB, db *store.DB) (out []Column) {
	t.Helper()
	query := liteColumns
	if db.Dialect() == store.Postgres {
		query = pgColumns
	}
	rows, err := db.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(line) // table "column" name type …
		if !strings.HasSuffix(f[0], "_migration") {
			out = append(out, Column{f[0], f[2], f[3], strings.Contains(line, " key ")})
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
