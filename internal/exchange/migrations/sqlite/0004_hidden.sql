-- +goose Up
-- Identifiers and conversations are whatever a client writes, perhaps somebody's
-- number: they stand in the encrypted records alone, and here as keyed hashes.
-- The rows' ids of before were not keyed: those calls are found no more.
ALTER TABLE exchange_claim DROP COLUMN client;
ALTER TABLE exchange_claim DROP COLUMN message;
ALTER TABLE exchange_claim DROP COLUMN service;
ALTER TABLE exchange_delivery DROP COLUMN message;
UPDATE exchange_delivery SET next_at = accepted_at WHERE work = 1 AND conversation <> '';
UPDATE exchange_delivery SET conversation = '' WHERE conversation <> '';

-- +goose Down
ALTER TABLE exchange_delivery ADD COLUMN message TEXT NOT NULL DEFAULT '';
ALTER TABLE exchange_claim ADD COLUMN service TEXT NOT NULL DEFAULT '';
ALTER TABLE exchange_claim ADD COLUMN message TEXT NOT NULL DEFAULT '';
ALTER TABLE exchange_claim ADD COLUMN client TEXT NOT NULL DEFAULT '';
