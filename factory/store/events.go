package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gprovision/model/record"
)

// Event is a stored event.
type Event struct {
	// ID is higher for a later arrival.
	ID int64 `json:"id"`
	// Received is when the event arrived, by the server's clock.
	Received time.Time `json:"received"`
	record.Event
}

// AddEvents stores events of an existing unit, each only once, and applies them to the unit. It returns the number of
// new ones. The events must have been validated. Their field Unit is ignored. If there is no room for one of them,
// none is stored, and the error is ErrQuota or ErrDisk.
func (d *DB) AddEvents(ctx context.Context, unit string, events []record.Event) (stored int, err error) {
	if events, err = d.fitToDisk(events); err != nil {
		return 0, err
	}
	err = d.tx(ctx, func(tx *sql.Tx) error {
		stored = 0
		now := nano(d.now())
		b := bill{may: d.bounds, unit: unit, used: map[string]usage{}, docs: map[string]int64{}}
		for _, e := range events {
			attrs, err := jsonText(e.Attrs)
			if err != nil {
				return fmt.Errorf("store event: %w", err)
			}
			res, err := tx.ExecContext(ctx, `INSERT INTO events (unit, boot, seq, time, received, kind, source, level, message, attrs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (unit, boot, seq) DO NOTHING`, unit, e.Boot, int64(e.Seq), eventTime(e.Time), now, e.Kind, e.Source, e.Level, e.Message, attrs)
			if err != nil {
				return fmt.Errorf("store event: %w", err)
			}
			if n, _ := res.RowsAffected(); n == 0 {
				continue
			}
			stored++
			if err := b.charge(ctx, tx, e, attrs); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO boots (unit, boot) VALUES (?, ?) ON CONFLICT (unit, boot) DO NOTHING`, unit, e.Boot); err != nil {
				return fmt.Errorf("store boot: %w", err)
			}
			switch e.Kind {
			case record.KindState:
				err = applyState(ctx, tx, unit, e, now)
			case record.KindFact:
				err = applyFact(ctx, tx, unit, e, now)
			}
			if err != nil {
				return err
			}
		}
		if err := b.settle(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE units SET last_seen = ? WHERE id = ?`, now, unit)
		return err
	})
	return stored, err
}

// eventTime is nano, limited to the years that fit.
func eventTime(t time.Time) int64 {
	if y := t.Year(); y < 1970 || y > 2200 {
		return 0
	}
	return nano(t)
}

// applyState makes a state event the state of its unit if it is the newest one. A successful provisioning counts no
// matter when its event arrives. It uses up a release only if it was permitted after that release.
func applyState(ctx context.Context, tx *sql.Tx, unit string, e record.Event, now int64) error {
	s, ok := record.StateOf(e)
	if !ok {
		return nil
	}
	if s.Job == record.JobProvision && s.Phase == record.Succeeded && e.Source == record.Observed {
		_, err := tx.ExecContext(ctx, `UPDATE units SET provisioned_at = ?, released_at = 0, released_by = '' WHERE id = ? AND (released_at = 0 OR permit_boot = ?)`, now, unit, e.Boot)
		if err != nil {
			return fmt.Errorf("store state: %w", err)
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE units SET job = ?, phase = ?, step = ?, percent = ?, code = ?, text = ?, hint = ?, state_boot = ?, state_seq = ?, state_at = ?
		WHERE id = ? AND (state_boot = '' OR state_boot = ? AND state_seq < ?
			OR state_boot <> ? AND (SELECT rank FROM boots WHERE unit = units.id AND boot = state_boot) < (SELECT rank FROM boots WHERE unit = units.id AND boot = ?))`,
		s.Job, s.Phase, s.Step, s.Percent, s.Code, s.Text, s.Hint, e.Boot, int64(e.Seq), now,
		unit, e.Boot, int64(e.Seq), e.Boot, e.Boot)
	if err != nil {
		return fmt.Errorf("store state: %w", err)
	}
	return nil
}

// applyFact stores a fact. A fact that the server understands also updates the unit.
func applyFact(ctx context.Context, tx *sql.Tx, unit string, e record.Event, now int64) error {
	name, _ := e.Attrs["name"].(string)
	if name == "" || len(name) > record.MaxName {
		return nil
	}
	value, err := jsonText(e.Attrs["value"])
	if err != nil {
		return fmt.Errorf("store fact: %w", err)
	}
	// The facts of one unit are limited.
	_, err = tx.ExecContext(ctx, `INSERT INTO facts (unit, name, value, source, time) SELECT ?, ?, ?, ?, ?
		WHERE (SELECT count(*) FROM facts WHERE unit = ?) < 1000 OR EXISTS (SELECT 1 FROM facts WHERE unit = ? AND name = ?)
		ON CONFLICT (unit, name) DO UPDATE SET value = excluded.value, source = excluded.source, time = excluded.time`,
		unit, name, value, e.Source, now, unit, unit, name)
	if err != nil {
		return fmt.Errorf("store fact: %w", err)
	}
	switch name {
	case record.FactPlatform:
		if p, ok := e.Attrs["value"].(string); ok && p != "" && len(p) <= record.MaxName {
			_, err = tx.ExecContext(ctx, `UPDATE units SET platform = ? WHERE id = ?`, p, unit)
		}
	case record.FactMACs, record.FactBMCMACs:
		var macs []string
		if json.Unmarshal([]byte(value), &macs) != nil {
			return nil
		}
		text, e := jsonText(cleanMACs(macs))
		if e != nil {
			return e
		}
		column := "macs"
		if name == record.FactBMCMACs {
			column = "bmc_macs"
		}
		_, err = tx.ExecContext(ctx, `UPDATE units SET `+column+` = ? WHERE id = ?`, text, unit)
	}
	if err != nil {
		return fmt.Errorf("store fact: %w", err)
	}
	return nil
}

// Fact is something that is known about a unit.
type Fact struct {
	Name   string          `json:"name"`
	Value  json.RawMessage `json:"value"`
	Source record.Source   `json:"source"`
	Time   time.Time       `json:"time"`
}

// Facts returns the facts about a unit, sorted by name. A value of more than maxFact bytes is replaced by a text with
// its size. So is each value beyond maxFacts bytes in total.
func (d *DB) Facts(ctx context.Context, unit string) ([]Fact, error) {
	total := 0
	return list(ctx, d, `SELECT name, CASE WHEN octet_length(value) <= ? THEN value END, octet_length(value), source, time FROM facts WHERE unit = ? ORDER BY name LIMIT 1000`, func(s scanner, f *Fact) error {
		var v sql.NullString
		var size int
		var t int64
		err := s.Scan(&f.Name, &v, &size, &f.Source, &t)
		if total += len(v.String); !v.Valid || total > maxFacts {
			v.String = fmt.Sprintf(`"[a value of %d bytes]"`, size)
		}
		f.Value, f.Time = json.RawMessage(v.String), fromNano(t)
		return err
	}, maxFact, unit)
}

// Limits of one answer, in bytes.
const (
	maxFact   = 8 << 10
	maxFacts  = 1 << 20
	maxEvents = 4 << 20
)

// Events returns at most limit events of a unit with an ID below before, newest first. A before of 0 starts at the
// newest. If kinds are given, it returns only events of these kinds. It stops early at maxEvents bytes. more reports
// whether there are older events.
func (d *DB) Events(ctx context.Context, unit string, before int64, limit int, kinds ...record.Kind) (events []Event, more bool, err error) {
	if before <= 0 {
		before = 1 << 62
	}
	query := `SELECT id, boot, seq, time, received, kind, source, level, message, attrs FROM events WHERE unit = ? AND id < ?`
	args := []any{unit, before}
	for i, k := range kinds {
		if i == 0 {
			query += ` AND kind IN (?`
		} else {
			query += `, ?`
		}
		args = append(args, k)
	}
	if len(kinds) > 0 {
		query += `)`
	}
	size, n := 0, 0
	events, err = list(ctx, d, query+` ORDER BY id DESC LIMIT ?`, func(s scanner, e *Event) error {
		var t, r, seq int64
		var attrs string
		if err := s.Scan(&e.ID, &e.Boot, &seq, &t, &r, &e.Kind, &e.Source, &e.Level, &e.Message, &attrs); err != nil {
			return err
		}
		size += len(e.Message) + len(attrs) + recordCost
		if n++; n > limit || n > 1 && size > maxEvents {
			more = true
			return errEnough
		}
		e.Unit, e.Seq, e.Time, e.Received = unit, uint64(seq), fromNano(t), fromNano(r)
		return json.Unmarshal([]byte(attrs), &e.Attrs)
	}, append(args, limit+1)...)
	return events, more, err
}

// Secret is the ciphertext of one generation of credentials.
type Secret struct {
	Unit       string    `json:"unit"`
	Generation uint64    `json:"generation"`
	Ciphertext []byte    `json:"ciphertext"`
	Created    time.Time `json:"created"`
	// Confirmed is when the unit reported that it has set the credentials. It is zero if it has not.
	Confirmed time.Time `json:"confirmed"`
	// Fingerprint is that of the key that got the credentials. Active reports whether that is the unit's active key.
	Fingerprint string `json:"fingerprint"`
	Active      bool   `json:"active"`
	// Void reports whether another key became active before a provisioning with these credentials finished. They are
	// set nowhere.
	Void bool `json:"void"`
	// Lost reports whether the unit has the credentials and the server, restored from a backup, does not.
	Lost bool `json:"lost"`
	// Spent reports whether the life of the unit in which it got them was ended by an erase.
	Spent bool `json:"spent"`
}

const secretColumns = `s.unit, s.generation, s.created, s.confirmed, s.void, length(s.ciphertext) = 0, e.public_key, e.status = 'active',
	e.status = 'ended' FROM secrets s JOIN enrolments e ON e.id = s.enrolment`

func scanSecret(s scanner, v *Secret, more ...any) error {
	var g, c, f int64
	var key []byte
	err := s.Scan(append(more, &v.Unit, &g, &c, &f, &v.Void, &v.Lost, &key, &v.Active, &v.Spent)...)
	v.Generation, v.Created, v.Confirmed, v.Fingerprint = uint64(g), fromNano(c), fromNano(f), record.Fingerprint(key)
	return err
}

// AddSecret stores a new generation of credentials for the key of an enrolment. seal gets its number and returns the
// ciphertext. The error is ErrNotEnrolled if the enrolment is not the active one. It is ErrConfirmed if the key has
// confirmed credentials and the unit has not been released since. It is ErrCompleted if the unit is completed.
func (d *DB) AddSecret(ctx context.Context, unit string, enrolment int64, seal func(generation uint64) ([]byte, error)) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		if err := d.mayAsk(ctx, tx, unit, enrolment); err != nil {
			return err
		}
		var gen int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(generation), 0) + 1 FROM secrets WHERE unit = ?`, unit).Scan(&gen); err != nil {
			return fmt.Errorf("store credentials: %w", err)
		}
		ciphertext, err := seal(uint64(gen))
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO secrets (unit, generation, enrolment, ciphertext, created) VALUES (?, ?, ?, ?, ?)`, unit, gen, enrolment, ciphertext, nano(d.now())); err != nil {
			return fmt.Errorf("store credentials: %w", err)
		}
		// From now on no token makes another key active.
		if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET asked = ? WHERE id = ? AND asked = 0`, nano(d.now()), enrolment); err != nil {
			return fmt.Errorf("store credentials: %w", err)
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM secrets WHERE unit = ? AND confirmed = 0 AND generation <= ?`, unit, gen-maxUnconfirmed)
		return err
	})
}

func (d *DB) mayAsk(ctx context.Context, tx *sql.Tx, unit string, enrolment int64) error {
	u, err := scanUnit(tx.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, unit))
	if err != nil {
		return err
	}
	if err := isActive(ctx, tx, unit, enrolment); err != nil {
		return err
	}
	var confirmed int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(confirmed), 0) FROM secrets WHERE unit = ? AND enrolment = ?`, unit, enrolment).Scan(&confirmed); err != nil {
		return fmt.Errorf("read credentials: %w", err)
	}
	if confirmed > 0 && nano(u.Released) <= confirmed {
		return ErrConfirmed
	}
	if u.Completed() {
		return ErrCompleted
	}
	return nil
}

func isActive(ctx context.Context, tx *sql.Tx, unit string, enrolment int64) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM enrolments WHERE id = ? AND unit = ? AND status = 'active'`, enrolment, unit).Scan(&n); err != nil {
		return fmt.Errorf("read enrolment: %w", err)
	}
	if n == 0 {
		return ErrNotEnrolled
	}
	return nil
}

// ConfirmSecret marks a generation as the one that is set on the unit. It may be repeated. Only the newest generation
// of the active key can be confirmed. For any other the error is ErrGeneration.
func (d *DB) ConfirmSecret(ctx context.Context, unit string, enrolment int64, generation uint64) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		if err := isActive(ctx, tx, unit, enrolment); err != nil {
			return err
		}
		var newest, confirmed int64
		err := tx.QueryRowContext(ctx, `SELECT generation, confirmed FROM secrets WHERE unit = ? AND enrolment = ? ORDER BY generation DESC LIMIT 1`, unit, enrolment).Scan(&newest, &confirmed)
		if errors.Is(err, sql.ErrNoRows) || err == nil && uint64(newest) != generation {
			return ErrGeneration
		}
		if err != nil {
			return fmt.Errorf("confirm credentials: %w", err)
		}
		if confirmed > 0 {
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE secrets SET confirmed = ? WHERE unit = ? AND generation = ?`, nano(d.now()), unit, newest)
		return err
	})
}

// Secrets returns all generations of a unit without their ciphertexts, newest first.
func (d *DB) Secrets(ctx context.Context, unit string) ([]Secret, error) {
	return list(ctx, d, `SELECT `+secretColumns+` WHERE s.unit = ? ORDER BY s.generation DESC LIMIT 1000`, func(s scanner, v *Secret) error { return scanSecret(s, v) }, unit)
}

// ReadSecret returns the ciphertext of a generation and records that operator has read it. Generation 0 means the
// newest that the active key has confirmed, else the newest that another key has confirmed in a finished
// provisioning, else the newest of the active key. A void generation can be read only by its number. The error is
// ErrNotFound if there is none, and ErrLost if only the unit has it.
func (d *DB) ReadSecret(ctx context.Context, unit string, generation uint64, operator, remote string) (Secret, error) {
	var v Secret
	err := d.tx(ctx, func(tx *sql.Tx) error {
		v = Secret{}
		err := scanSecret(tx.QueryRowContext(ctx, `SELECT s.ciphertext, `+secretColumns+` WHERE s.unit = ? AND (? = 0 AND s.void = 0 OR s.generation = ?)
			ORDER BY e.status = 'active' AND s.confirmed > 0 DESC, s.confirmed > 0 DESC, e.status = 'active' DESC, s.generation DESC LIMIT 1`, unit, int64(generation), int64(generation)), &v, &v.Ciphertext)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("read credentials: %w", err)
		}
		if v.Lost {
			return ErrLost
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO readings (unit, generation, time, operator, remote) VALUES (?, ?, ?, ?, ?)`, unit, int64(v.Generation), nano(d.now()), operator, remote)
		if err != nil {
			return fmt.Errorf("record reading: %w", err)
		}
		return nil
	})
	if err != nil {
		return Secret{}, err
	}
	return v, nil
}

// Reading records that an operator has read the credentials of a unit.
type Reading struct {
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
	Operator   string    `json:"operator"`
	Remote     string    `json:"remote"`
}

// Readings returns the readings of the credentials of a unit, newest first.
func (d *DB) Readings(ctx context.Context, unit string) ([]Reading, error) {
	return list(ctx, d, `SELECT generation, time, operator, remote FROM readings WHERE unit = ? ORDER BY id DESC LIMIT 1000`, func(s scanner, v *Reading) error {
		var g, t int64
		err := s.Scan(&g, &t, &v.Operator, &v.Remote)
		v.Generation, v.Time = uint64(g), fromNano(t)
		return err
	}, unit)
}
