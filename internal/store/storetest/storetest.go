// Package storetest gives every room's tests both engines: SQLite in a
// temporary folder, and a throw-away PostgreSQL that runs as long as the test
// process does. Both make commits durable as in earnest.
package storetest

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/store"
)

// Each runs a test on both engines; cfg leads to an empty database that is
// the test's own.
func Each(t *testing.T, test func(t *testing.T, cfg store.Config)) {
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// SQLite leads to a database file that does not exist yet.
func SQLite(t testing.TB) store.Config {
	return store.Config{DSN: filepath.Join(t.TempDir(), "falaj.db")}
}

// Open opens a database for the test's duration.
func Open(t testing.TB, cfg store.Config, rooms ...store.Migrations) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), cfg, rooms...)
	if err != nil {
		t.Fatalf("opening the database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	return db
}

// SameTables fails the test where the two dialects of the rooms' migrations
// do not end with the same tables, columns and keys.
func SameTables(t *testing.T, rooms ...store.Migrations) {
	t.Helper()
	lite := tables(t, Open(t, SQLite(t), rooms...))
	pg := tables(t, Open(t, Postgres(t), rooms...))
	if len(lite) == 0 {
		t.Error("there are no tables")
	}
	for _, line := range lite {
		if !slices.Contains(pg, line) {
			t.Errorf("only SQLite has:     %s", line)
		}
	}
	for _, line := range pg {
		if !slices.Contains(lite, line) {
			t.Errorf("only PostgreSQL has: %s", line)
		}
	}
}

// tables describes each column, key and index in a line that is the same on
// both engines.
func tables(t *testing.T, db *store.DB) []string {
	t.Helper()
	columns, indexes := liteColumns, liteIndexes
	if db.Dialect() == store.Postgres {
		columns, indexes = pgColumns, pgIndexes
	}
	out := append(lines(t, db, columns), lines(t, db, indexes)...)
	return slices.DeleteFunc(out, func(s string) bool { return strings.Contains(s, "_migration ") })
}

func lines(t *testing.T, db *store.DB, query string) []string {
	t.Helper()
	rows, err := db.Query(context.Background(), query)
	if err != nil {
		t.Fatalf("reading the tables: %v", err)
	}
	defer func() { _ = rows.Close() }()
	var out []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatalf("reading the tables: %v", err)
		}
		out = append(out, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("reading the tables: %v", err)
	}
	return out
}

const liteColumns = `
SELECT m.name || ' column ' || c.name
    || CASE c.type WHEN 'INTEGER' THEN ' integer' WHEN 'BLOB' THEN ' bytes' WHEN 'TEXT' THEN ' text' ELSE ' ' || c.type END
    || CASE WHEN c."notnull" = 1 OR c.pk > 0 THEN ' not null' ELSE '' END
    || CASE WHEN c.pk > 0 THEN ' key ' || c.pk ELSE '' END
FROM sqlite_master m, pragma_table_info(m.name) c
WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'`

const pgColumns = `
SELECT c.table_name || ' column ' || c.column_name
    || CASE c.data_type WHEN 'bigint' THEN ' integer' WHEN 'bytea' THEN ' bytes' WHEN 'text' THEN ' text' ELSE ' ' || c.data_type END
    || CASE WHEN c.is_nullable = 'NO' THEN ' not null' ELSE '' END
    || COALESCE((SELECT ' key ' || k.ordinal_position
        FROM information_schema.key_column_usage k
        JOIN information_schema.table_constraints n
          ON n.constraint_name = k.constraint_name AND n.table_schema = k.table_schema AND n.table_name = k.table_name
        WHERE n.constraint_type = 'PRIMARY KEY' AND k.table_schema = c.table_schema
          AND k.table_name = c.table_name AND k.column_name = c.column_name), '')
FROM information_schema.columns c
WHERE c.table_schema = current_schema()`

const liteIndexes = `
SELECT m.name || CASE i."unique" WHEN 1 THEN ' unique' ELSE ' index' END || CASE i.partial WHEN 1 THEN ' partial' ELSE '' END
    || ' (' || (SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)) || ')'
FROM sqlite_master m, pragma_index_list(m.name) i
WHERE m.type = 'table' AND i.origin <> 'pk'`

const pgIndexes = `
SELECT r.relname || CASE WHEN i.indisunique THEN ' unique' ELSE ' index' END || CASE WHEN i.indpred IS NOT NULL THEN ' partial' ELSE '' END
    || ' (' || (SELECT string_agg(a.attname, ', ' ORDER BY k.n)
        FROM unnest(i.indkey) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) || ')'
FROM pg_index i JOIN pg_class r ON r.oid = i.indrelid JOIN pg_namespace s ON s.oid = r.relnamespace
WHERE s.nspname = current_schema() AND NOT i.indisprimary`
