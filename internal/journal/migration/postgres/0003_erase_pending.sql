-- +goose Up
-- Records whose erasure is decided, by which record, and whose marks may not
-- stand in the files of the archive yet.
CREATE TABLE journal_erase_pending (
    leaf     BIGINT NOT NULL PRIMARY KEY,
    decision BIGINT NOT NULL
);

-- +goose Down
DROP TABLE journal_erase_pending;
