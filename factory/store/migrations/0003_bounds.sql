-- +goose Up
-- Units that had a key before requests named their server. last is when one of them last signed in the old way, newer in the new way.
CREATE TABLE old_signers (
    unit   TEXT    PRIMARY KEY,
    last   INTEGER NOT NULL DEFAULT 0,
    newer  INTEGER NOT NULL DEFAULT 0
);
INSERT INTO old_signers (unit) SELECT DISTINCT unit FROM enrolments WHERE status IN ('active', 'pending');

-- What the events of each boot take.
CREATE TABLE usage (
    unit     TEXT    NOT NULL REFERENCES units(id) ON DELETE CASCADE,
    boot     TEXT    NOT NULL,
    bytes    INTEGER NOT NULL,
    records  INTEGER NOT NULL,
    PRIMARY KEY (unit, boot)
);
INSERT INTO usage (unit, boot, bytes, records) SELECT unit, boot, sum(length(message) + length(attrs) + 256), count(*) FROM events GROUP BY unit, boot;

-- +goose Down
DROP TABLE usage;
DROP TABLE old_signers;
