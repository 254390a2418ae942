-- +goose Up
-- What this node alone knows of its own systems.
CREATE TABLE exchange_client (
  id         TEXT    NOT NULL PRIMARY KEY,
  entry      BYTEA   NOT NULL,
  changed_at BIGINT  NOT NULL
);
CREATE TABLE exchange_backend (
  id         TEXT    NOT NULL PRIMARY KEY,
  entry      BYTEA   NOT NULL,
  changed_at BIGINT  NOT NULL
);
-- One row an id that somebody may repeat. side: 1 caller's node, 2 provider's.
-- state: 1 open, 2 answered, 3 unknown, 4 settled by decision.
CREATE TABLE exchange_claim (
  side       BIGINT  NOT NULL,
  id         BYTEA   NOT NULL,
  client     TEXT    NOT NULL,
  message    TEXT    NOT NULL,
  service    TEXT    NOT NULL,
  content    BYTEA   NOT NULL,
  state      BIGINT  NOT NULL,
  process    TEXT    NOT NULL,
  asked      BIGINT  NOT NULL,
  answered   BIGINT,
  changed_at BIGINT  NOT NULL,
  PRIMARY KEY (side, id)
);
CREATE INDEX exchange_claim_state ON exchange_claim (state, side) WHERE state <> 2;
-- Who is alive: claims of a process that no longer beats are nobody's.
CREATE TABLE exchange_process (
  id      TEXT    NOT NULL PRIMARY KEY,
  beat_at BIGINT  NOT NULL
);
-- Spool files that a record names.
CREATE TABLE exchange_spool (
  id      TEXT    NOT NULL PRIMARY KEY,
  leaf    BIGINT  NOT NULL,
  kept_at BIGINT  NOT NULL
);

-- +goose Down
DROP TABLE exchange_spool;
DROP TABLE exchange_process;
DROP TABLE exchange_claim;
DROP TABLE exchange_backend;
DROP TABLE exchange_client;
