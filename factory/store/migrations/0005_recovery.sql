-- +goose Up
-- The outcome of the recovery volume, '' where the certificate says nothing of it.
ALTER TABLE erases ADD COLUMN recovery TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE erases DROP COLUMN recovery;
