-- +goose Up
-- What belongs to this database: its own name and that of its spool folder.
CREATE TABLE exchange_place (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);

-- +goose Down
DROP TABLE exchange_place;
