-- +goose Up
CREATE TABLE ledger_account (
    id      INTEGER NOT NULL PRIMARY KEY,
    kind    TEXT    NOT NULL,
    party   TEXT    NOT NULL, -- a state or a collector, '' if none
    subject TEXT    NOT NULL, -- a claim or a receipt, '' if none
    unit    TEXT    NOT NULL, -- a currency's minor unit, or with -6 behind it a millionth of that
    UNIQUE (kind, party, subject, unit),
    UNIQUE (id, unit)
) STRICT;

CREATE TABLE ledger_entry (
    id     INTEGER NOT NULL PRIMARY KEY,
    key    TEXT    NOT NULL UNIQUE,
    op     TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    asked  BLOB    NOT NULL, -- digest of the request
    booked BLOB    NOT NULL  -- digest of its postings
) STRICT;
CREATE INDEX ledger_entry_at ON ledger_entry (at);

-- A posting moves an amount from one account to another of the same unit:
-- there is no way to write down an entry that is not balanced.
CREATE TABLE ledger_posting (
    entry  INTEGER NOT NULL REFERENCES ledger_entry (id),
    line   INTEGER NOT NULL,
    unit   TEXT    NOT NULL,
    debit  INTEGER NOT NULL,
    credit INTEGER NOT NULL,
    minor  INTEGER NOT NULL CHECK (minor > 0),
    CHECK (debit <> credit),
    PRIMARY KEY (entry, line),
    FOREIGN KEY (debit, unit) REFERENCES ledger_account (id, unit),
    FOREIGN KEY (credit, unit) REFERENCES ledger_account (id, unit)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_posting_debit ON ledger_posting (debit);
CREATE INDEX ledger_posting_credit ON ledger_posting (credit);

-- +goose Down
DROP TABLE ledger_posting;
DROP TABLE ledger_entry;
DROP TABLE ledger_account;
