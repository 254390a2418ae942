-- +goose Up
-- Calls accepted for asynchronous delivery, one row each: the outbox, and after
-- that where the outcome is found. What was asked and answered stands in the
-- journal, under the leaves named here.
-- state: 1 open, 2 skipped by decision, 3 expired, 4 refused, 5 answered.
-- work: 0 none left, 1 deliver, 2 push the outcome, 3 keep the answer's body.
CREATE TABLE exchange_delivery (
  id           BLOB    NOT NULL PRIMARY KEY, -- as in exchange_claim
  client       TEXT    NOT NULL,
  message      TEXT    NOT NULL,
  request      TEXT    NOT NULL, -- X-Road-Request-Id
  service      TEXT    NOT NULL,
  conversation TEXT    NOT NULL, -- '' where order does not matter
  asked        INTEGER NOT NULL, -- leaf of the request's record, so also the order of acceptance
  answered     INTEGER,          -- leaf of the record that ended it
  state        INTEGER NOT NULL,
  work         INTEGER NOT NULL,
  lane         TEXT    NOT NULL, -- to whom the work goes: a state, or a client of this one
  attempts     INTEGER NOT NULL, -- to deliver
  pushes       INTEGER NOT NULL, -- attempts to push
  next_at      INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL, -- of the present work
  pushed_at    INTEGER,
  lease        TEXT    NOT NULL, -- the process that is at it: no longer once it does not beat
  code         TEXT    NOT NULL, -- the last fault
  spool        TEXT    NOT NULL, -- a body that the records do not name, because only its digest is kept
  accepted_at  INTEGER NOT NULL,
  changed_at   INTEGER NOT NULL
);
CREATE UNIQUE INDEX exchange_delivery_asked ON exchange_delivery (asked);
CREATE INDEX exchange_delivery_next ON exchange_delivery (lane, next_at) WHERE work <> 0;
CREATE INDEX exchange_delivery_expires ON exchange_delivery (expires_at) WHERE work <> 0;
CREATE INDEX exchange_delivery_order ON exchange_delivery (client, service, conversation, asked) WHERE work = 1 AND conversation <> '';
CREATE INDEX exchange_delivery_done ON exchange_delivery (changed_at) WHERE work = 0;

-- +goose Down
DROP TABLE exchange_delivery;
