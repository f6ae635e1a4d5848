package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// SetLogin stores the hash of an operator's password. The operator's sessions end.
func (d *DB) SetLogin(ctx context.Context, operator string, hash []byte) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO logins (operator, hash, created) VALUES (?, ?, ?) ON CONFLICT (operator) DO UPDATE SET hash = excluded.hash`, operator, hash, nano(d.now()))
		if err != nil {
			return fmt.Errorf("store login: %w", err)
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM sessions WHERE operator = ?`, operator)
		return err
	})
}

// Login returns the hash of an operator's password, or ErrNotFound.
func (d *DB) Login(ctx context.Context, operator string) ([]byte, error) {
	var h []byte
	err := d.r.QueryRowContext(ctx, `SELECT hash FROM logins WHERE operator = ?`, operator).Scan(&h)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	return h, err
}

// Logins returns the number of operators.
func (d *DB) Logins(ctx context.Context) (int, error) {
	var n int
	err := d.r.QueryRowContext(ctx, `SELECT count(*) FROM logins`).Scan(&n)
	return n, err
}

// AddSession stores the hash of a session's identifier.
func (d *DB) AddSession(ctx context.Context, id, operator string, expires time.Time) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires < ?`, nano(d.now())); err != nil {
			return fmt.Errorf("store session: %w", err)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (hash, operator, expires) VALUES (?, ?, ?)`, hashToken(id), operator, nano(expires))
		if err != nil {
			return fmt.Errorf("store session: %w", err)
		}
		return nil
	})
}

// Session returns the operator of a session that has not expired, or ErrNotFound.
func (d *DB) Session(ctx context.Context, id string) (string, error) {
	var op string
	err := d.r.QueryRowContext(ctx, `SELECT operator FROM sessions WHERE hash = ? AND expires > ?`, hashToken(id), nano(d.now())).Scan(&op)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrNotFound
	}
	return op, err
}

// EndSession removes a session. It may be repeated.
func (d *DB) EndSession(ctx context.Context, id string) error {
	_, err := d.w.ExecContext(ctx, `DELETE FROM sessions WHERE hash = ?`, hashToken(id))
	return err
}
