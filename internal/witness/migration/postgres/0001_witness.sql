-- +goose Up
-- The newest head of each log of another state that this state's witness has
-- seen: what it cosigns next must have grown out of it.
CREATE TABLE witness_head (
    origin TEXT   NOT NULL PRIMARY KEY,
    size   BIGINT NOT NULL,
    root   BYTEA  NOT NULL,
    note   BYTEA  NOT NULL
);

-- The newest checkpoints of this state's own log: signed (stage 1), and
-- cosigned by the quorum (stage 2).
CREATE TABLE witness_checkpoint (
    origin TEXT   NOT NULL,
    stage  BIGINT NOT NULL,
    size   BIGINT NOT NULL,
    note   BYTEA  NOT NULL,
    PRIMARY KEY (origin, stage)
);
