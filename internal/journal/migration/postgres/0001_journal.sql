-- +goose Up
CREATE TABLE journal_head (
    id   BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    size BIGINT NOT NULL,
    root BYTEA  NOT NULL,
    edge BYTEA  NOT NULL
) WITH (fillfactor = 10);
INSERT INTO journal_head (id, size, root, edge)
VALUES (1, 0, '\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', '\x');

-- One row a commit. What is encrypted or hashed does not compress: stored as
-- it is, a part of it can be read without the rest.
CREATE TABLE journal_commit (
    first   BIGINT NOT NULL PRIMARY KEY,
    leaves  BYTEA  NOT NULL,
    keys    BYTEA  NOT NULL,
    ends    BYTEA  NOT NULL,
    records BYTEA  NOT NULL
);
ALTER TABLE journal_commit
    ALTER COLUMN leaves SET STORAGE EXTERNAL,
    ALTER COLUMN keys SET STORAGE EXTERNAL,
    ALTER COLUMN records SET STORAGE EXTERNAL;

-- The hashes of level 1 and above; level 0 follows from the leaves.
CREATE TABLE journal_tile (
    level  BIGINT NOT NULL,
    n      BIGINT NOT NULL,
    hashes BYTEA  NOT NULL,
    PRIMARY KEY (level, n)
);

-- The hashes of 4096 records' keys in order, in 256 parts by their first byte.
-- Written once when the last of these records comes: one great index would
-- fetch and write a page of its own for each record.
CREATE TABLE journal_key (
    part BIGINT NOT NULL,
    era  BIGINT NOT NULL,
    keys BYTEA  NOT NULL,
    PRIMARY KEY (part, era)
);
