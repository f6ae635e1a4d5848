package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"gprovision/model/record"
)

// OldSigner reports whether the unit already had a key under version 0.1.0. Such a unit may sign its requests as that
// version did.
func (d *DB) OldSigner(ctx context.Context, unit string) (bool, error) {
	var n int
	if err := d.r.QueryRowContext(ctx, `SELECT count(*) FROM old_signers WHERE unit = ?`, unit).Scan(&n); err != nil {
		return false, fmt.Errorf("read old signers: %w", err)
	}
	return n > 0, nil
}

// NoteScheme records how a unit has signed a verified request. It does so only for units that may use the old scheme,
// and writes only changes. So nearly every call only reads.
func (d *DB) NoteScheme(ctx context.Context, unit string, s record.Scheme) error {
	var last, newer int64
	err := d.r.QueryRowContext(ctx, `SELECT last, newer FROM old_signers WHERE unit = ?`, unit).Scan(&last, &newer)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read old signers: %w", err)
	}
	column := "newer"
	if s == record.SchemeV1 {
		column = "last"
	}
	if old := last > newer; old == (s == record.SchemeV1) && max(last, newer) > 0 {
		return nil
	}
	_, err = d.w.ExecContext(ctx, `UPDATE old_signers SET `+column+` = ? WHERE unit = ?`, nano(d.now()), unit)
	if err != nil {
		return fmt.Errorf("note scheme: %w", err)
	}
	return nil
}
