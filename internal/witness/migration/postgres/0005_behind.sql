-- +goose Up
-- Of a state that is behind the others, a row of its own; '' is all others.
ALTER TABLE witness_promise RENAME TO witness_promise_old;
CREATE TABLE witness_promise (
    process TEXT NOT NULL,
    state   TEXT NOT NULL,
    leaf    BIGINT NOT NULL,
    beat_at BIGINT NOT NULL,
    CONSTRAINT witness_promise_state_pkey PRIMARY KEY (process, state)
);
INSERT INTO witness_promise (process, state, leaf, beat_at) SELECT process, '', leaf, beat_at FROM witness_promise_old;
DROP TABLE witness_promise_old;
