-- +goose Up
-- Whose data the records of a block are about, made from them: see trace_index.go.
-- It is encrypted under the keys of the records themselves and ends with them.
CREATE TABLE exchange_trace (
  block INTEGER NOT NULL PRIMARY KEY,
  parts BLOB    NOT NULL
);

-- +goose Down
DROP TABLE exchange_trace;
