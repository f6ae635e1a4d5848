package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Token is a one-time token as it was given out.
type Token struct {
	MAC     string    `json:"mac"`
	Serial  string    `json:"serial"`
	Remote  string    `json:"remote"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// hashToken is what is stored of a token. A token has 128 random bits or more, so that a plain hash is enough.
func hashToken(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

// AddToken stores the hash of a token for the unit with this port. It replaces the unused tokens of the same port.
func (d *DB) AddToken(ctx context.Context, token string, t Token) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		now := d.now()
		if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE enrolment = 0 AND (mac = ? OR expires < ?) OR expires < ?`,
			t.MAC, nano(now), nano(now.Add(-7*24*time.Hour))); err != nil {
			return fmt.Errorf("store token: %w", err)
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM tokens WHERE enrolment = 0`).Scan(&n); err != nil {
			return fmt.Errorf("store token: %w", err)
		}
		if n >= maxTokens {
			return ErrFull
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens (hash, mac, serial, remote, created, expires) VALUES (?, ?, ?, ?, ?, ?)`,
			hashToken(token), t.MAC, t.Serial, t.Remote, nano(t.Created), nano(t.Expires))
		if err != nil {
			return fmt.Errorf("store token: %w", err)
		}
		return nil
	})
}

// Tokens returns the tokens that may still be used, newest first: units that have fetched their boot script and have not
// enrolled yet.
func (d *DB) Tokens(ctx context.Context) ([]Token, error) {
	return list(ctx, d, `SELECT mac, serial, remote, created, expires FROM tokens WHERE enrolment = 0 AND expires > ? ORDER BY created DESC LIMIT 200`, func(s scanner, t *Token) error {
		var c, e int64
		err := s.Scan(&t.MAC, &t.Serial, &t.Remote, &c, &e)
		t.Created, t.Expires = fromNano(c), fromNano(e)
		return err
	}, nano(d.now()))
}

// EnrolStatus says what became of a key.
type EnrolStatus string

// What can become of a key.
const (
	Active   EnrolStatus = "active"   // it speaks for the unit
	Pending  EnrolStatus = "pending"  // an operator has to decide
	Replaced EnrolStatus = "replaced" // a newer key speaks for the unit
	Rejected EnrolStatus = "rejected" // an operator said no, or nobody decided in time
)

// Enrolment is one key that asked to speak for a unit.
type Enrolment struct {
	ID         int64       `json:"id"`
	Unit       string      `json:"unit"`
	PublicKey  []byte      `json:"publicKey"`
	Status     EnrolStatus `json:"status"`
	Boot       string      `json:"boot"`
	Platform   string      `json:"platform"`
	Remote     string      `json:"remote"`
	Created    time.Time   `json:"created"`
	ApprovedBy string      `json:"approvedBy"`
}

// EnrolInput is a request to let a key speak for a unit. The caller has verified that the sender holds the key.
type EnrolInput struct {
	Unit          string
	PublicKey     []byte
	Token         string // empty for none
	Boot          string
	Platform      string
	MACs, BMCMACs []string
	Remote        string
}

const enrolColumns = `id, unit, public_key, status, boot, platform, remote, created, approved_by`

func scanEnrolment(s scanner, e *Enrolment) error {
	var t int64
	err := s.Scan(&e.ID, &e.Unit, &e.PublicKey, &e.Status, &e.Boot, &e.Platform, &e.Remote, &t, &e.ApprovedBy)
	e.Created = fromNano(t)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// ActiveKey returns the enrolment that speaks for a unit, or ErrNotFound.
func (d *DB) ActiveKey(ctx context.Context, unit string) (Enrolment, error) {
	var e Enrolment
	err := scanEnrolment(d.r.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? AND status = 'active'`, unit), &e)
	return e, err
}

// Enrolments returns all keys that asked to speak for a unit, newest first.
func (d *DB) Enrolments(ctx context.Context, unit string) ([]Enrolment, error) {
	return list(ctx, d, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? ORDER BY id DESC LIMIT 100`, scanEnrolment, unit)
}

// Enrol decides about a key. With a token that is valid for this unit the key becomes the active one; it replaces an older
// key, unless the unit is completed (ErrCompleted). Without one the key waits for an operator, and reason says why. A key that
// is active already stays so, which makes a repeated request harmless.
func (d *DB) Enrol(ctx context.Context, in EnrolInput) (e Enrolment, reason string, err error) {
	in.MACs, in.BMCMACs = cleanMACs(in.MACs), cleanMACs(in.BMCMACs)
	err = d.tx(ctx, func(tx *sql.Tx) error {
		now := d.now()
		if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'rejected' WHERE status = 'pending' AND created < ?`, nano(now.Add(-pendingAge))); err != nil {
			return fmt.Errorf("enrol: %w", err)
		}
		for _, stale := range []string{
			`DELETE FROM enrolments WHERE status = 'rejected' AND created < ?`,
			`DELETE FROM units WHERE last_seen < ? AND NOT EXISTS (SELECT 1 FROM enrolments WHERE unit = units.id)
				AND NOT EXISTS (SELECT 1 FROM events WHERE unit = units.id) AND NOT EXISTS (SELECT 1 FROM actions WHERE unit = units.id)`,
		} {
			if _, err := tx.ExecContext(ctx, stale, nano(now.Add(-2*pendingAge))); err != nil {
				return fmt.Errorf("enrol: %w", err)
			}
		}
		u, err := scanUnit(tx.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, in.Unit))
		known := err == nil
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("enrol: %w", err)
		}
		var active Enrolment
		err = scanEnrolment(tx.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? AND status = 'active'`, in.Unit), &active)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("enrol: %w", err)
		}
		same := err == nil && slices.Equal(active.PublicKey, in.PublicKey)

		hash, good, why, err := d.judgeToken(ctx, tx, in, u, known, active.ID)
		if err != nil {
			return err
		}
		switch {
		case same && (!good || u.Completed()):
			e = active
			return d.touch(ctx, tx, in, now)
		case known && u.Completed():
			return ErrCompleted
		case good:
			if err := d.ensureUnit(ctx, tx, in, now); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'replaced' WHERE unit = ? AND status IN ('active', 'pending')`, in.Unit); err != nil {
				return fmt.Errorf("enrol: %w", err)
			}
			if e, err = insertEnrolment(ctx, tx, in, Active, hash, now); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE tokens SET enrolment = ? WHERE hash = ?`, e.ID, hash); err != nil {
				return fmt.Errorf("enrol: %w", err)
			}
			return d.touch(ctx, tx, in, now)
		}
		reason = why
		err = scanEnrolment(tx.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? AND status = 'pending' AND public_key = ?`, in.Unit, in.PublicKey), &e)
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		var all, mine int
		if err := tx.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN unit = ? THEN 1 END) FROM enrolments WHERE status = 'pending'`, in.Unit).Scan(&all, &mine); err != nil {
			return fmt.Errorf("enrol: %w", err)
		}
		if all >= maxPending || mine >= maxPendingUnit {
			return ErrFull
		}
		if err := d.ensureUnit(ctx, tx, in, now); err != nil {
			return err
		}
		e, err = insertEnrolment(ctx, tx, in, Pending, nil, now)
		return err
	})
	return e, reason, err
}

// judgeToken says whether the token of in is good for its unit, and if not, why.
func (d *DB) judgeToken(ctx context.Context, tx *sql.Tx, in EnrolInput, u Unit, known bool, active int64) (hash []byte, good bool, why string, err error) {
	if in.Token == "" {
		return nil, false, "there is no token: an operator must approve this unit", nil
	}
	hash = hashToken(in.Token)
	var mac, serial string
	var expires, used int64
	err = tx.QueryRowContext(ctx, `SELECT mac, serial, expires, enrolment FROM tokens WHERE hash = ?`, hash).Scan(&mac, &serial, &expires, &used)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, false, "the token is not known: an operator must approve this unit", nil
	case err != nil:
		return nil, false, "", fmt.Errorf("read token: %w", err)
	case used != 0:
		return nil, false, "the token was used already: an operator must approve this unit", nil
	case expires < nano(d.now()):
		return nil, false, "the token has expired: an operator must approve this unit", nil
	}
	// The token belongs to the port or the serial number that fetched the boot script.
	mine := serial != "" && serial == in.Unit || slices.Contains(in.MACs, mac)
	if known && len(u.MACs) > 0 && serial != in.Unit && !slices.Contains(u.MACs, mac) {
		mine = false
	}
	if !mine {
		return nil, false, "the token belongs to another unit: an operator must approve this one", nil
	}
	return hash, true, "", nil
}

func insertEnrolment(ctx context.Context, tx *sql.Tx, in EnrolInput, status EnrolStatus, hash []byte, now time.Time) (Enrolment, error) {
	e := Enrolment{Unit: in.Unit, PublicKey: in.PublicKey, Status: status, Boot: in.Boot, Platform: in.Platform, Remote: in.Remote, Created: now.UTC()}
	err := tx.QueryRowContext(ctx, `INSERT INTO enrolments (unit, public_key, status, token_hash, boot, platform, remote, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		in.Unit, in.PublicKey, status, hash, in.Boot, in.Platform, in.Remote, nano(now)).Scan(&e.ID)
	if err != nil {
		return Enrolment{}, fmt.Errorf("store enrolment: %w", err)
	}
	return e, nil
}

// ensureUnit makes the row of a unit if it is missing.
func (d *DB) ensureUnit(ctx context.Context, tx *sql.Tx, in EnrolInput, now time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO units (id, first_seen, last_seen) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING`, in.Unit, nano(now), nano(now))
	if err != nil {
		return fmt.Errorf("store unit: %w", err)
	}
	return nil
}

// touch writes down what an accepted key says about its unit.
func (d *DB) touch(ctx context.Context, tx *sql.Tx, in EnrolInput, now time.Time) error {
	set := func(column, value string) error {
		_, err := tx.ExecContext(ctx, `UPDATE units SET `+column+` = ? WHERE id = ?`, value, in.Unit)
		return err
	}
	if in.Platform != "" {
		if err := set("platform", in.Platform); err != nil {
			return err
		}
	}
	for column, macs := range map[string][]string{"macs": in.MACs, "bmc_macs": in.BMCMACs} {
		if len(macs) == 0 {
			continue
		}
		b, err := json.Marshal(macs)
		if err == nil {
			err = set(column, string(b))
		}
		if err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE units SET last_seen = ? WHERE id = ?`, nano(now), in.Unit)
	return err
}

// Approve makes a pending key the active one of its unit. It is ErrNotFound if there is no such key waiting, and
// ErrCompleted if the unit would have to be released first.
func (d *DB) Approve(ctx context.Context, unit string, enrolment int64, operator string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		u, err := scanUnit(tx.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, unit))
		if err != nil {
			return err
		}
		if u.Completed() {
			return ErrCompleted
		}
		var e Enrolment
		if err := scanEnrolment(tx.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE id = ? AND unit = ? AND status = 'pending'`, enrolment, unit), &e); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'replaced' WHERE unit = ? AND status = 'active'`, unit); err != nil {
			return fmt.Errorf("approve: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'active', approved_by = ? WHERE id = ?`, operator, enrolment); err != nil {
			return fmt.Errorf("approve: %w", err)
		}
		if e.Platform != "" {
			if _, err := tx.ExecContext(ctx, `UPDATE units SET platform = ? WHERE id = ?`, e.Platform, unit); err != nil {
				return fmt.Errorf("approve: %w", err)
			}
		}
		return action(ctx, tx, unit, nano(d.now()), operator, fmt.Sprintf("approved the key of %s", e.Remote))
	})
}
