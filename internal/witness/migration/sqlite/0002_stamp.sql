-- +goose Up
-- Time-stamps (RFC 3161) by authorities of others over this state's log: each
-- covers the entries from first to below size, and a checkpoint (note).
CREATE TABLE witness_stamp (
    first     INTEGER NOT NULL PRIMARY KEY,
    size      INTEGER NOT NULL,
    note      BLOB NOT NULL,
    token     BLOB NOT NULL,
    authority TEXT NOT NULL, -- the state whose it is; empty: of none
    name      TEXT NOT NULL,
    edition   INTEGER NOT NULL,   -- version of the directory by which it was judged
    signer    BLOB NOT NULL,   -- digest of the authority's certificate
    serial    BLOB NOT NULL,
    UNIQUE (signer, serial)
) STRICT;
