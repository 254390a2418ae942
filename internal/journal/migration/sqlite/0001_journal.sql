-- +goose Up
CREATE TABLE journal_head (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    root BLOB    NOT NULL,
    edge BLOB    NOT NULL
) STRICT;
INSERT INTO journal_head (id, size, root, edge)
VALUES (1, 0, x'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', x'');

-- One row a commit. Leaves and keys stand before the records: reading them
-- does not read through the records.
CREATE TABLE journal_commit (
    first   INTEGER NOT NULL PRIMARY KEY,
    leaves  BLOB    NOT NULL,
    keys    BLOB    NOT NULL,
    ends    BLOB    NOT NULL,
    records BLOB    NOT NULL
) STRICT;

-- The hashes of level 1 and above; level 0 follows from the leaves.
CREATE TABLE journal_tile (
    level  INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    hashes BLOB    NOT NULL,
    PRIMARY KEY (level, n)
) STRICT, WITHOUT ROWID;

-- The hashes of 4096 records' keys in order, in 256 parts by their first byte.
-- Written once when the last of these records comes: one great index would
-- fetch and write a page of its own for each record.
CREATE TABLE journal_key (
    part INTEGER NOT NULL,
    era  INTEGER NOT NULL,
    keys BLOB    NOT NULL,
    PRIMARY KEY (part, era)
) STRICT, WITHOUT ROWID;
