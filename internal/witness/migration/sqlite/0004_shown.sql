-- +goose Up
-- The longest head that each log has shown to whoever waits for promised
-- records in it.
CREATE TABLE witness_shown (
    origin TEXT NOT NULL PRIMARY KEY,
    size   INTEGER NOT NULL,
    note   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
