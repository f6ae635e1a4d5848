package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"gprovision/model/record"
)

// Port is a network port that belongs to a unit.
type Port struct {
	MAC  string `json:"mac"`
	Unit string `json:"unit"`
	// Proven reports whether the port fetched the boot script whose token enrolled the unit. If not, the unit has
	// merely named it.
	Proven bool      `json:"proven"`
	Since  time.Time `json:"since"`
}

// SharedPort is a network adapter that serves many units, and so does not identify one.
type SharedPort struct {
	MAC      string    `json:"mac"`
	Note     string    `json:"note"`
	Operator string    `json:"operator"` // empty if the server found out by itself
	Since    time.Time `json:"since"`
}

// Alias is a further name of a unit.
type Alias struct {
	Name     string    `json:"name"`
	Operator string    `json:"operator"`
	Since    time.Time `json:"since"`
}

// claimPorts gives ports to a unit: the one that its token proves, and those that it names. A port of another unit stays
// with that unit, unless that unit has merely named it and this one proves it. A completed unit gets no port by
// naming it.
func claimPorts(ctx context.Context, tx *sql.Tx, unit, proven string, named []string, now time.Time) error {
	const shared = `SELECT 1 FROM shared_ports WHERE mac = ?`
	if proven != "" {
		if _, err := tx.ExecContext(ctx, `INSERT INTO ports (mac, unit, proven, since) SELECT ?, ?, 1, ? WHERE NOT EXISTS (`+shared+`)
			ON CONFLICT (mac) DO UPDATE SET unit = excluded.unit, proven = 1, since = CASE WHEN ports.unit = excluded.unit THEN ports.since ELSE excluded.since END
				WHERE ports.unit = excluded.unit OR ports.proven = 0`, proven, unit, nano(now), proven); err != nil {
			return fmt.Errorf("store ports: %w", err)
		}
	}
	var complete bool
	if err := tx.QueryRowContext(ctx, `SELECT provisioned_at > 0 AND released_at = 0 FROM units WHERE id = ?`, unit).Scan(&complete); err != nil {
		return fmt.Errorf("store ports: %w", err)
	}
	if complete {
		return nil
	}
	for _, mac := range named {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM ports WHERE unit = ?`, unit).Scan(&n); err != nil {
			return fmt.Errorf("store ports: %w", err)
		}
		if n >= record.MaxMACs { // limit the ports of one unit
			return nil
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO ports (mac, unit, proven, since) SELECT ?, ?, 0, ? WHERE NOT EXISTS (`+shared+`) ON CONFLICT (mac) DO NOTHING`, mac, unit, nano(now), mac); err != nil {
			return fmt.Errorf("store ports: %w", err)
		}
	}
	return nil
}

// FindUnit returns the unit of a machine that boots. serial is the serial number in its firmware, or empty. mac is
// the port that it boots from. The serial number decides for units whose name comes from that field of the firmware.
// For others the port decides, unless it is an adapter that serves many units, or the port's unit would have another
// serial number. The error is ErrNotFound if there is no such unit.
func (d *DB) FindUnit(ctx context.Context, serial, mac string) (Unit, error) {
	field := func(unit string) (string, error) {
		var f string
		err := d.r.QueryRowContext(ctx, `SELECT serial_field FROM units WHERE id = ?`, unit).Scan(&f)
		if errors.Is(err, sql.ErrNoRows) {
			return "", ErrNotFound
		}
		return f, err
	}
	if serial != "" {
		name, err := canonical(ctx, d.r, serial)
		if err != nil {
			return Unit{}, err
		}
		f, err := field(name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Unit{}, fmt.Errorf("find unit: %w", err)
		}
		if err == nil && (f == "" || f == record.FirmwareSerial || name != serial) {
			return d.Unit(ctx, name)
		}
	}
	var owner string
	err := d.r.QueryRowContext(ctx, `SELECT unit FROM ports WHERE mac = ? AND NOT EXISTS (SELECT 1 FROM shared_ports WHERE mac = ports.mac)`, mac).Scan(&owner)
	if errors.Is(err, sql.ErrNoRows) {
		return Unit{}, ErrNotFound
	}
	if err != nil {
		return Unit{}, fmt.Errorf("find unit: %w", err)
	}
	if f, err := field(owner); err != nil || f == record.FirmwareSerial && serial != "" {
		if err == nil { // another machine, on an adapter of that unit
			err = ErrNotFound
		}
		return Unit{}, err
	}
	return d.Unit(ctx, owner)
}

// Ports returns the ports of a unit, or of all units for "", sorted by address.
func (d *DB) Ports(ctx context.Context, unit string) ([]Port, error) {
	return list(ctx, d, `SELECT mac, unit, proven, since FROM ports WHERE ? = '' OR unit = ? ORDER BY mac LIMIT 10000`, func(s scanner, p *Port) error {
		var t int64
		err := s.Scan(&p.MAC, &p.Unit, &p.Proven, &t)
		p.Since = fromNano(t)
		return err
	}, unit, unit)
}

// ReleasePort takes a port from its unit. The next unit that boots from it may have it. The error is ErrNotFound if
// no unit has it.
func (d *DB) ReleasePort(ctx context.Context, mac, operator string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		return releasePort(ctx, tx, mac, operator, nano(d.now()), "released the port "+mac)
	})
}

func releasePort(ctx context.Context, tx *sql.Tx, mac, operator string, now int64, what string) error {
	var unit string
	err := tx.QueryRowContext(ctx, `DELETE FROM ports WHERE mac = ? RETURNING unit`, mac).Scan(&unit)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("release port: %w", err)
	}
	return action(ctx, tx, unit, now, operator, what)
}

// SharedPorts returns the adapters that serve many units, sorted by address.
func (d *DB) SharedPorts(ctx context.Context) ([]SharedPort, error) {
	return list(ctx, d, `SELECT mac, note, operator, since FROM shared_ports ORDER BY mac LIMIT 10000`, func(s scanner, p *SharedPort) error {
		var t int64
		err := s.Scan(&p.MAC, &p.Note, &p.Operator, &t)
		p.Since = fromNano(t)
		return err
	})
}

// SharePort lists a port as an adapter that serves many units. From then on it belongs to no unit. A second call
// replaces the note.
func (d *DB) SharePort(ctx context.Context, mac, note, operator string) error {
	mac, err := record.CleanMAC(mac)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	if len(note) > record.MaxName {
		return fmt.Errorf("%w: a note has at most %d bytes", ErrInput, record.MaxName)
	}
	return d.tx(ctx, func(tx *sql.Tx) error {
		now := nano(d.now())
		if err := releasePort(ctx, tx, mac, operator, now, "listed the port "+mac+" as a shared adapter"); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO shared_ports (mac, note, operator, since) VALUES (?, ?, ?, ?)
			ON CONFLICT (mac) DO UPDATE SET note = excluded.note, operator = excluded.operator`, mac, note, operator, now)
		if err != nil {
			return fmt.Errorf("share port: %w", err)
		}
		return nil
	})
}

// UnsharePort removes a port from the list of shared adapters. The error is ErrNotFound if it is not listed.
func (d *DB) UnsharePort(ctx context.Context, mac string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `DELETE FROM shared_ports WHERE mac = ? RETURNING mac`, mac).Scan(&mac)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("share port: %w", err)
		}
		return nil
	})
}

// Join makes a mainboard part of a unit. name is the name that the unit would have by the serial number of the new
// board. mac is the board's port. One of them may be empty. The unit keeps its own name on the server, and its key.
// The error is ErrTaken if another unit has the name or the port.
func (d *DB) Join(ctx context.Context, unit, name, mac, operator string) error {
	if name == "" && mac == "" {
		return fmt.Errorf("%w: a serial number or a port is needed", ErrInput)
	}
	if mac != "" {
		clean, err := record.CleanMAC(mac)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInput, err)
		}
		mac = clean
	}
	if name != "" && !IsSerial(name) {
		return fmt.Errorf("%w: %q is no serial number", ErrInput, name)
	}
	return d.tx(ctx, func(tx *sql.Tx) error {
		now := d.now()
		if _, err := scanUnit(tx.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, unit)); err != nil {
			return err
		}
		if name != "" && name != unit {
			if err := joinName(ctx, tx, unit, name, operator, now); err != nil {
				return err
			}
		}
		if mac != "" {
			var owner string
			err := tx.QueryRowContext(ctx, `INSERT INTO ports (mac, unit, proven, since) VALUES (?, ?, 1, ?)
				ON CONFLICT (mac) DO UPDATE SET proven = 1 RETURNING unit`, mac, unit, nano(now)).Scan(&owner)
			if err != nil {
				return fmt.Errorf("join mainboard: %w", err)
			}
			if owner != unit {
				return fmt.Errorf("%w: the port %s belongs to the unit %s: release it there first", ErrTaken, mac, owner)
			}
		}
		return action(ctx, tx, unit, nano(now), operator, fmt.Sprintf("joined a mainboard, serial number %q, port %q", name, mac))
	})
}

// joinName gives a unit a further name. A unit with that name that has only asked to enrol is removed.
func joinName(ctx context.Context, tx *sql.Tx, unit, name, operator string, now time.Time) error {
	var busy bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM enrolments WHERE unit = ? AND status IN ('active', 'replaced', 'ended')) OR EXISTS (SELECT 1 FROM events WHERE unit = ?)`, name, name).Scan(&busy)
	if err != nil {
		return fmt.Errorf("join mainboard: %w", err)
	}
	if busy {
		return fmt.Errorf("%w: %s is a unit itself", ErrTaken, name)
	}
	for _, q := range []string{`DELETE FROM enrolments WHERE unit = ?`, `DELETE FROM actions WHERE unit = ?`, `DELETE FROM ports WHERE unit = ?`, `DELETE FROM aliases WHERE unit = ?`, `DELETE FROM units WHERE id = ?`} {
		if _, err := tx.ExecContext(ctx, q, name); err != nil {
			return fmt.Errorf("join mainboard: %w", err)
		}
	}
	var owner string
	err = tx.QueryRowContext(ctx, `INSERT INTO aliases (name, unit, operator, since) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET since = since RETURNING unit`,
		name, unit, operator, nano(now)).Scan(&owner)
	if err != nil {
		return fmt.Errorf("join mainboard: %w", err)
	}
	if owner != unit {
		return fmt.Errorf("%w: %s is a name of the unit %s", ErrTaken, name, owner)
	}
	return nil
}

// Aliases returns the further names of a unit.
func (d *DB) Aliases(ctx context.Context, unit string) ([]Alias, error) {
	return list(ctx, d, `SELECT name, operator, since FROM aliases WHERE unit = ? ORDER BY name`, func(s scanner, a *Alias) error {
		var t int64
		err := s.Scan(&a.Name, &a.Operator, &t)
		a.Since = fromNano(t)
		return err
	}, unit)
}
