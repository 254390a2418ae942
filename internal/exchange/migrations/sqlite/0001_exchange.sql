-- +goose Up
-- What this node alone knows of its own systems.
CREATE TABLE exchange_client (
  id         TEXT    NOT NULL PRIMARY KEY,
  entry      BLOB    NOT NULL,
  changed_at INTEGER NOT NULL
);
CREATE TABLE exchange_backend (
  id         TEXT    NOT NULL PRIMARY KEY,
  entry      BLOB    NOT NULL,
  changed_at INTEGER NOT NULL
);
-- One row an id that somebody may repeat. side: 1 caller's node, 2 provider's.
-- state: 1 open, 2 answered, 3 unknown, 4 settled by decision.
CREATE TABLE exchange_claim (
  side       INTEGER NOT NULL,
  id         BLOB    NOT NULL,
  client     TEXT    NOT NULL,
  message    TEXT    NOT NULL,
  service    TEXT    NOT NULL,
  content    BLOB    NOT NULL,
  state      INTEGER NOT NULL,
  process    TEXT    NOT NULL,
  asked      INTEGER NOT NULL,
  answered   INTEGER,
  changed_at INTEGER NOT NULL,
  PRIMARY KEY (side, id)
);
CREATE INDEX exchange_claim_state ON exchange_claim (state, side) WHERE state <> 2;
-- Who is alive: claims of a process that no longer beats are nobody's.
CREATE TABLE exchange_process (
  id      TEXT    NOT NULL PRIMARY KEY,
  beat_at INTEGER NOT NULL
);
-- Spool files that a record names.
CREATE TABLE exchange_spool (
  id      TEXT    NOT NULL PRIMARY KEY,
  leaf    INTEGER NOT NULL,
  kept_at INTEGER NOT NULL
);

-- +goose Down
DROP TABLE exchange_spool;
DROP TABLE exchange_process;
DROP TABLE exchange_claim;
DROP TABLE exchange_backend;
DROP TABLE exchange_client;
