-- +goose Up
-- Time-stamps that renew others (RFC 4998 §5.2): one of level n is over those
-- of level n-1 from first to below size, level 0 over the log itself. digest:
-- of what the token does not bind (empty in rows of before).
ALTER TABLE witness_stamp RENAME TO witness_stamp_old;
CREATE TABLE witness_stamp (
    level     INTEGER NOT NULL DEFAULT 0,
    first     INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    note      BLOB NOT NULL,
    token     BLOB NOT NULL,
    authority TEXT NOT NULL, -- the state whose it is; empty: of none
    name      TEXT NOT NULL,
    edition   INTEGER NOT NULL,   -- version of the directory by which it was judged
    signer    BLOB NOT NULL,   -- digest of the authority's certificate
    serial    BLOB NOT NULL,
    digest    BLOB NOT NULL DEFAULT x'',
    PRIMARY KEY (level, first),
    UNIQUE (signer, serial)
) STRICT;
INSERT INTO witness_stamp (first, size, note, token, authority, name, edition, signer, serial)
    SELECT first, size, note, token, authority, name, edition, signer, serial FROM witness_stamp_old;
DROP TABLE witness_stamp_old;
CREATE INDEX witness_stamp_signer ON witness_stamp (level, signer, first);
