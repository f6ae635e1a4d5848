-- +goose Up
-- The keyword of the appliance table that a unit's name comes from, '' for unknown.
ALTER TABLE units ADD COLUMN serial_field TEXT NOT NULL DEFAULT '';

-- What a key said when it asked: its ports, and the port that its token was made for ('' for none).
ALTER TABLE enrolments ADD COLUMN mac          TEXT    NOT NULL DEFAULT '';
ALTER TABLE enrolments ADD COLUMN macs         TEXT    NOT NULL DEFAULT '[]';
ALTER TABLE enrolments ADD COLUMN bmc_macs     TEXT    NOT NULL DEFAULT '[]';
ALTER TABLE enrolments ADD COLUMN serial_field TEXT    NOT NULL DEFAULT '';
ALTER TABLE enrolments ADD COLUMN reason       TEXT    NOT NULL DEFAULT '';
-- What the unit says that it has from an earlier time.
ALTER TABLE enrolments ADD COLUMN held_generation   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE enrolments ADD COLUMN held_provisioned  INTEGER NOT NULL DEFAULT 0;
-- When it last asked to be enrolled, and when it first got credentials.
ALTER TABLE enrolments ADD COLUMN seen         INTEGER NOT NULL DEFAULT 0;
ALTER TABLE enrolments ADD COLUMN asked        INTEGER NOT NULL DEFAULT 0;
UPDATE enrolments SET seen = created,
    mac = coalesce((SELECT t.mac FROM tokens t WHERE t.hash = token_hash), ''),
    asked = coalesce((SELECT min(s.created) FROM secrets s WHERE s.enrolment = enrolments.id), 0);

-- Credentials of a key that lost the unit before the unit was complete: they are set nowhere.
ALTER TABLE secrets ADD COLUMN void INTEGER NOT NULL DEFAULT 0;

-- Which unit a port belongs to. proven: it fetched the script whose token enrolled the unit; else the unit said so.
CREATE TABLE ports (
    mac     TEXT    PRIMARY KEY,
    unit    TEXT    NOT NULL REFERENCES units(id),
    proven  INTEGER NOT NULL DEFAULT 0,
    since   INTEGER NOT NULL
);
CREATE INDEX ports_unit ON ports (unit);

-- Adapters that serve many units and say nothing about which one it is.
CREATE TABLE shared_ports (
    mac       TEXT    PRIMARY KEY,
    note      TEXT    NOT NULL,
    operator  TEXT    NOT NULL,
    since     INTEGER NOT NULL
);

-- Further names of a unit: the serial number of a mainboard that was put into it.
CREATE TABLE aliases (
    name      TEXT    PRIMARY KEY,
    unit      TEXT    NOT NULL REFERENCES units(id),
    operator  TEXT    NOT NULL,
    since     INTEGER NOT NULL
);
CREATE INDEX enrolments_key ON enrolments (public_key);
CREATE INDEX aliases_unit ON aliases (unit);

-- A port that several units reported so far was one that several used.
INSERT INTO shared_ports (mac, note, operator, since)
    SELECT m.value, 'several units reported it', '', min(u.first_seen) FROM units u, json_each(u.macs) m GROUP BY m.value HAVING count(DISTINCT u.id) > 1;
INSERT INTO ports (mac, unit, proven, since)
    SELECT m.value, min(u.id), 0, min(u.first_seen) FROM units u, json_each(u.macs) m GROUP BY m.value HAVING count(DISTINCT u.id) = 1;
UPDATE ports SET proven = 1 WHERE EXISTS (SELECT 1 FROM enrolments e WHERE e.mac = ports.mac AND e.unit = ports.unit AND e.status = 'active');

-- When the server was last restored from a backup: one row for each time.
CREATE TABLE epochs (
    id     TEXT    PRIMARY KEY,
    since  INTEGER NOT NULL
);

-- +goose Down
DROP TABLE epochs;
DROP INDEX enrolments_key;
DROP TABLE aliases;
DROP TABLE shared_ports;
DROP TABLE ports;
ALTER TABLE secrets DROP COLUMN void;
ALTER TABLE enrolments DROP COLUMN asked;
ALTER TABLE enrolments DROP COLUMN held_provisioned;
ALTER TABLE enrolments DROP COLUMN held_generation;
ALTER TABLE enrolments DROP COLUMN seen;
ALTER TABLE enrolments DROP COLUMN reason;
ALTER TABLE enrolments DROP COLUMN serial_field;
ALTER TABLE enrolments DROP COLUMN bmc_macs;
ALTER TABLE enrolments DROP COLUMN macs;
ALTER TABLE enrolments DROP COLUMN mac;
ALTER TABLE units DROP COLUMN serial_field;
