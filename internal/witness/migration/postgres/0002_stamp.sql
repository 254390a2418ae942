-- +goose Up
-- Time-stamps (RFC 3161) by authorities of others over this state's log: each
-- covers the entries from first to below size, and a checkpoint (note).
CREATE TABLE witness_stamp (
    first     BIGINT NOT NULL PRIMARY KEY,
    size      BIGINT NOT NULL,
    note      BYTEA NOT NULL,
    token     BYTEA NOT NULL,
    authority TEXT NOT NULL, -- the state whose it is; empty: of none
    name      TEXT NOT NULL,
    edition   BIGINT NOT NULL,   -- version of the directory by which it was judged
    signer    BYTEA NOT NULL,   -- digest of the authority's certificate
    serial    BYTEA NOT NULL,
    UNIQUE (signer, serial)
);
