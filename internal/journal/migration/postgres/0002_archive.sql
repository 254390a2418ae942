-- +goose Up
-- Which records lie in files of the archive instead: from first on and below
-- upto. The ends and records of their commits are empty.
CREATE TABLE journal_archive (
    first BIGINT NOT NULL PRIMARY KEY,
    upto  BIGINT NOT NULL
);

-- +goose Down
DROP TABLE journal_archive;
