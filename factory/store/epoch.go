package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Epoch returns the random name and the time of the last restore from a backup, or "" and zero.
//
// The time since then is an epoch, in which units may know more than the server. Their keys are not replaced without
// an operator. What they claim to hold is adopted. Credentials that they have confirmed are not replaced.
func (d *DB) Epoch(ctx context.Context) (id string, since time.Time, err error) {
	return epoch(ctx, d.r)
}

func epoch(ctx context.Context, q querier) (id string, since time.Time, err error) {
	var t int64
	err = q.QueryRowContext(ctx, `SELECT id, since FROM epochs ORDER BY since DESC LIMIT 1`).Scan(&id, &t)
	if errors.Is(err, sql.ErrNoRows) {
		return "", time.Time{}, nil
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("read epoch: %w", err)
	}
	return id, fromNano(t), nil
}

// BeginEpoch records that this store is a backup that is in use from now on. All earlier tokens and sessions end. So do its logs: what was
// entered after the backup is missing from them, and they must not tell others something else than they have told.
func (d *DB) BeginEpoch(ctx context.Context) error {
	b := make([]byte, 8)
	rand.Read(b) // never fails: on an error crypto/rand ends the program
	return d.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO epochs (id, since) VALUES (?, ?)`, hex.EncodeToString(b), nano(d.now())); err != nil {
			return fmt.Errorf("begin epoch: %w", err)
		}
		for _, q := range []string{`DELETE FROM tokens WHERE enrolment = 0`, `DELETE FROM sessions`} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return fmt.Errorf("begin epoch: %w", err)
			}
		}
		return d.closeLogs(ctx, tx)
	})
}

// Backup writes a copy of the store, as of one moment, to a file that must not exist. The store may be in use.
// Writers wait.
func (d *DB) Backup(ctx context.Context, path string) error {
	if _, err := d.w.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return fmt.Errorf("back up store: %w", err)
	}
	return nil
}

// takeHeld adopts what a unit claims to hold. It does so only in an epoch: at other times the server knows better.
func takeHeld(ctx context.Context, tx *sql.Tx, unit string, held Held, enrolment int64, now time.Time) error {
	if _, since, err := epoch(ctx, tx); err != nil || since.IsZero() {
		return err
	}
	if held.Provisioned {
		if _, err := tx.ExecContext(ctx, `UPDATE units SET provisioned_at = ? WHERE id = ? AND provisioned_at = 0`, nano(now), unit); err != nil {
			return fmt.Errorf("store what the unit holds: %w", err)
		}
	}
	if held.Generation == 0 || held.Generation > maxHeld {
		return nil
	}
	gen := int64(held.Generation)
	if _, err := tx.ExecContext(ctx, `UPDATE secrets SET confirmed = ? WHERE unit = ? AND generation = ? AND enrolment = ? AND confirmed = 0 AND void = 0
		AND generation = (SELECT max(generation) FROM secrets WHERE unit = ? AND enrolment = ?)`, nano(now), unit, gen, enrolment, unit, enrolment); err != nil {
		return fmt.Errorf("store what the unit holds: %w", err)
	}
	// The credentials were made after the backup. Their number is taken, and they are known to be set.
	_, err := tx.ExecContext(ctx, `INSERT INTO secrets (unit, generation, enrolment, ciphertext, created, confirmed) SELECT ?, ?, ?, x'', ?, ?
		WHERE ? > (SELECT coalesce(max(generation), 0) FROM secrets WHERE unit = ?)`, unit, gen, enrolment, nano(now), nano(now), gen, unit)
	if err != nil {
		return fmt.Errorf("store what the unit holds: %w", err)
	}
	return nil
}

// Check returns an error if the file is damaged.
func (d *DB) Check(ctx context.Context) error {
	var found string
	if err := d.r.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&found); err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	if found != "ok" {
		return fmt.Errorf("check store: %s", found)
	}
	return nil
}
