-- +goose Up
-- Keys that sign notes: kind 'units' vouches for keys of units, kind 'log' signs checkpoints of the log of that name. A log that was
-- closed gets no more records.
CREATE TABLE note_keys (
    name     TEXT    PRIMARY KEY,
    kind     TEXT    NOT NULL,
    private  TEXT    NOT NULL,
    public   TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    closed   INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE log_records (
    log     TEXT    NOT NULL REFERENCES note_keys(name),
    number  INTEGER NOT NULL,
    record  BLOB    NOT NULL,
    PRIMARY KEY (log, number)
);

-- In the numbering of tlog.StoredHashIndex.
CREATE TABLE log_hashes (
    log     TEXT    NOT NULL REFERENCES note_keys(name),
    number  INTEGER NOT NULL,
    hash    BLOB    NOT NULL,
    PRIMARY KEY (log, number)
);

-- Certificates of erases. operator: who brought it, '' for the unit itself. ended: when it ended the unit's life, 0 if it did not.
CREATE TABLE erases (
    id           INTEGER PRIMARY KEY,
    unit         TEXT    NOT NULL REFERENCES units(id),
    run          TEXT    NOT NULL,
    outcome      TEXT    NOT NULL,
    level        TEXT    NOT NULL,
    public_key   BLOB    NOT NULL,
    received     INTEGER NOT NULL,
    operator     TEXT    NOT NULL,
    accepted     INTEGER NOT NULL,
    ended        INTEGER NOT NULL DEFAULT 0,
    log          TEXT    NOT NULL,
    number       INTEGER NOT NULL,
    certificate  BLOB    NOT NULL,
    signature    BLOB    NOT NULL,
    voucher      BLOB    NOT NULL,
    proof        BLOB    NOT NULL,
    UNIQUE (unit, run),
    FOREIGN KEY (log, number) REFERENCES log_records(log, number)
);

-- What became of each method on each drive.
CREATE TABLE erase_drives (
    erase     INTEGER NOT NULL REFERENCES erases(id),
    model     TEXT    NOT NULL,
    firmware  TEXT    NOT NULL,
    bus       TEXT    NOT NULL,
    method    TEXT    NOT NULL,
    result    TEXT    NOT NULL,
    seconds   INTEGER NOT NULL
);
CREATE INDEX erase_drives_model ON erase_drives (model, firmware, method);

-- What drives were before an erase. Nothing is ever replaced.
CREATE TABLE drives_before (
    id        INTEGER PRIMARY KEY,
    unit      TEXT    NOT NULL REFERENCES units(id),
    run       TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    state     TEXT    NOT NULL,
    received  INTEGER NOT NULL,
    UNIQUE (unit, run, name, state)
);

-- +goose Down
DROP TABLE drives_before;
DROP TABLE erase_drives;
DROP TABLE erases;
DROP TABLE log_hashes;
DROP TABLE log_records;
DROP TABLE note_keys;
