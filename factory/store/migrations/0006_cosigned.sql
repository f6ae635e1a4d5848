-- +goose Up
-- How many witnesses have cosigned the checkpoint of the proof.
ALTER TABLE erases ADD COLUMN cosigned INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE erases DROP COLUMN cosigned;
