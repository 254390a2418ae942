-- +goose Up
-- Changes that wait for a second person, and what came of them.
-- state: 1 waiting, 2 done, 3 rejected, 4 failed, 5 being carried out.
CREATE TABLE admin_approval (
  id           TEXT    NOT NULL PRIMARY KEY,
  action       TEXT    NOT NULL,
  params       BYTEA   NOT NULL,
  requested_by TEXT    NOT NULL,
  requested_at BIGINT  NOT NULL,
  expires_at   BIGINT  NOT NULL,
  state        BIGINT  NOT NULL,
  decided_by   TEXT    NOT NULL,
  decided_at   BIGINT  NOT NULL,
  note         TEXT    NOT NULL
);
CREATE INDEX admin_approval_state ON admin_approval (state, requested_at);
-- Idempotency keys. status 0: being carried out, or interrupted.
CREATE TABLE admin_request (
  id     BYTEA   NOT NULL PRIMARY KEY,
  digest BYTEA   NOT NULL,
  status BIGINT  NOT NULL,
  answer BYTEA   NOT NULL,
  at     BIGINT  NOT NULL
);
CREATE INDEX admin_request_at ON admin_request (at);

-- +goose Down
DROP TABLE admin_request;
DROP TABLE admin_approval;
