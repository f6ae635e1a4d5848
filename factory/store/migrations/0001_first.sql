-- +goose Up
-- Times are nanoseconds since 1970 in UTC, 0 for never.
CREATE TABLE units (
    id              TEXT    PRIMARY KEY,
    platform        TEXT    NOT NULL DEFAULT '',
    macs            TEXT    NOT NULL DEFAULT '[]',
    bmc_macs        TEXT    NOT NULL DEFAULT '[]',
    job             TEXT    NOT NULL DEFAULT '',
    phase           TEXT    NOT NULL DEFAULT '',
    step            TEXT    NOT NULL DEFAULT '',
    percent         INTEGER NOT NULL DEFAULT -1,
    code            TEXT    NOT NULL DEFAULT '',
    text            TEXT    NOT NULL DEFAULT '',
    hint            TEXT    NOT NULL DEFAULT '',
    state_boot      TEXT    NOT NULL DEFAULT '',
    state_seq       INTEGER NOT NULL DEFAULT 0,
    state_at        INTEGER NOT NULL DEFAULT 0,
    first_seen      INTEGER NOT NULL,
    last_seen       INTEGER NOT NULL,
    permit_boot     TEXT    NOT NULL DEFAULT '',
    provisioned_at  INTEGER NOT NULL DEFAULT 0,
    released_at     INTEGER NOT NULL DEFAULT 0,
    released_by     TEXT    NOT NULL DEFAULT ''
);

-- Boots in the order in which their first event arrived.
CREATE TABLE boots (
    rank  INTEGER PRIMARY KEY,
    unit  TEXT    NOT NULL REFERENCES units(id),
    boot  TEXT    NOT NULL,
    UNIQUE (unit, boot)
);

-- One row for each key that asked to speak for a unit.
CREATE TABLE enrolments (
    id            INTEGER PRIMARY KEY,
    unit          TEXT    NOT NULL REFERENCES units(id),
    public_key    BLOB    NOT NULL,
    status        TEXT    NOT NULL,
    token_hash    BLOB,
    boot          TEXT    NOT NULL,
    platform      TEXT    NOT NULL DEFAULT '',
    remote        TEXT    NOT NULL DEFAULT '',
    created       INTEGER NOT NULL,
    approved_by   TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX enrolments_unit ON enrolments (unit, status);
CREATE UNIQUE INDEX enrolments_active ON enrolments (unit) WHERE status = 'active';

CREATE TABLE tokens (
    hash       BLOB    PRIMARY KEY,
    mac        TEXT    NOT NULL,
    serial     TEXT    NOT NULL,
    remote     TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    enrolment  INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tokens_mac ON tokens (mac);

CREATE TABLE events (
    id        INTEGER PRIMARY KEY,
    unit      TEXT    NOT NULL REFERENCES units(id),
    boot      TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    time      INTEGER NOT NULL,
    received  INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    source    TEXT    NOT NULL,
    level     TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    attrs     TEXT    NOT NULL,
    UNIQUE (unit, boot, seq)
);
CREATE INDEX events_unit ON events (unit, id);

CREATE TABLE facts (
    unit    TEXT    NOT NULL REFERENCES units(id),
    name    TEXT    NOT NULL,
    value   TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    time    INTEGER NOT NULL,
    PRIMARY KEY (unit, name)
);

CREATE TABLE documents (
    id        INTEGER PRIMARY KEY,
    unit      TEXT    NOT NULL REFERENCES units(id),
    boot      TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    type      TEXT    NOT NULL,
    body      BLOB    NOT NULL,
    received  INTEGER NOT NULL,
    UNIQUE (unit, boot, name)
);

CREATE TABLE secrets (
    unit        TEXT    NOT NULL REFERENCES units(id),
    generation  INTEGER NOT NULL,
    enrolment   INTEGER NOT NULL REFERENCES enrolments(id),
    ciphertext  BLOB    NOT NULL,
    created     INTEGER NOT NULL,
    confirmed   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (unit, generation)
);

CREATE TABLE readings (
    id          INTEGER PRIMARY KEY,
    unit        TEXT    NOT NULL REFERENCES units(id),
    generation  INTEGER NOT NULL,
    time        INTEGER NOT NULL,
    operator    TEXT    NOT NULL,
    remote      TEXT    NOT NULL
);

CREATE TABLE logins (
    operator  TEXT    PRIMARY KEY,
    hash      BLOB    NOT NULL,
    created   INTEGER NOT NULL
);

CREATE TABLE sessions (
    hash      BLOB    PRIMARY KEY,
    operator  TEXT    NOT NULL REFERENCES logins(operator) ON DELETE CASCADE,
    expires   INTEGER NOT NULL
);

CREATE TABLE actions (
    id        INTEGER PRIMARY KEY,
    unit      TEXT    NOT NULL REFERENCES units(id),
    time      INTEGER NOT NULL,
    operator  TEXT    NOT NULL,
    action    TEXT    NOT NULL
);

-- +goose Down
DROP TABLE actions;
DROP TABLE sessions;
DROP TABLE logins;
DROP TABLE readings;
DROP TABLE secrets;
DROP TABLE documents;
DROP TABLE facts;
DROP TABLE events;
DROP TABLE tokens;
DROP TABLE enrolments;
DROP TABLE boots;
DROP TABLE units;
