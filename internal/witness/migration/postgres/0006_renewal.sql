-- +goose Up
-- Time-stamps that renew others (RFC 4998 §5.2): one of level n is over those
-- of level n-1 from first to below size, level 0 over the log itself. digest:
-- of what the token does not bind (empty in rows of before).
ALTER TABLE witness_stamp ADD COLUMN level BIGINT NOT NULL DEFAULT 0;
ALTER TABLE witness_stamp ADD COLUMN digest BYTEA NOT NULL DEFAULT '';
ALTER TABLE witness_stamp DROP CONSTRAINT witness_stamp_pkey;
ALTER TABLE witness_stamp ADD CONSTRAINT witness_stamp_level_pkey PRIMARY KEY (level, first);
CREATE INDEX witness_stamp_signer ON witness_stamp (level, signer, first);
