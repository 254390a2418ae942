-- +goose Up
-- Changes that wait for a second person, and what came of them.
-- state: 1 waiting, 2 done, 3 rejected, 4 failed, 5 being carried out.
CREATE TABLE admin_approval (
  id           TEXT    NOT NULL PRIMARY KEY,
  action       TEXT    NOT NULL,
  params       BLOB    NOT NULL,
  requested_by TEXT    NOT NULL,
  requested_at INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  state        INTEGER NOT NULL,
  decided_by   TEXT    NOT NULL,
  decided_at   INTEGER NOT NULL,
  note         TEXT    NOT NULL
);
CREATE INDEX admin_approval_state ON admin_approval (state, requested_at);
-- Idempotency keys. status 0: being carried out, or interrupted.
CREATE TABLE admin_request (
  id     BLOB    NOT NULL PRIMARY KEY,
  digest BLOB    NOT NULL,
  status INTEGER NOT NULL,
  answer BLOB    NOT NULL,
  at     INTEGER NOT NULL
);
CREATE INDEX admin_request_at ON admin_request (at);

-- +goose Down
DROP TABLE admin_request;
DROP TABLE admin_approval;
