package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"gprovision/model/record"
)

// Reasons why the store accepts no more. Of a refused request nothing is stored.
var (
	// ErrQuota means that a unit has stored as much as it may.
	ErrQuota = errors.New("the unit has used up what it may store")
	// ErrDisk means that the server's disk is nearly full.
	ErrDisk = errors.New("the disk of the server is nearly full")
)

// bounds are the limits of what units may store.
type bounds struct {
	// boot limits one boot of a unit, including its documents. Log records may not use the last eighth, so that a
	// unit with too many of them can still report how its job ended.
	boot usage
	// unit limits all events of a unit. Beyond it, first the log records of its oldest boots are removed, and then
	// all their records.
	unit usage
	// documents limits all documents of a unit, in bytes. Beyond it the oldest ones are removed.
	documents int64
}

func defaultBounds() bounds {
	return bounds{boot: usage{64 << 20, 100_000}, unit: usage{256 << 20, 400_000}, documents: 128 << 20}
}

// Limits of free space on the disk, in bytes. Below the first, only states and lines of the hardware check are
// stored, cut to a small size. Below the second, nothing is stored.
const (
	diskLow  = 2 << 30
	diskNone = 256 << 20
)

// maxLowEvent is the maximum size of an event's attributes, as JSON, while the disk is nearly full.
const maxLowEvent = 4 << 10

// recordCost is the size of a record besides its text: numbers, indexes, its share of a page.
const recordCost = 256

// usage is the room that the events of one boot take.
type usage struct{ bytes, records int64 }

func (u usage) over(bytes, records int64) bool { return u.bytes > bytes || u.records > records }

// freeBytes returns a function that returns how many bytes can still be written below dir.
func freeBytes(dir string) func() (int64, error) {
	return func() (int64, error) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return 0, fmt.Errorf("free space of %s: %w", dir, err)
		}
		return int64(st.Bavail) * st.Bsize, nil
	}
}

// Room returns nil if the disk has room for records. The error is ErrDisk while only states and lines of the hardware
// check are stored.
func (d *DB) Room() error {
	free, err := d.free()
	if err == nil && free < diskLow {
		return fmt.Errorf("%w: %d MiB are free, want %d", ErrDisk, free>>20, diskLow>>20)
	}
	return err
}

// fitToDisk returns the events in a form for which the disk has room: unchanged or, if little is free, cut to a small size.
// The error is ErrDisk if one of them is of a kind that is not stored now.
func (d *DB) fitToDisk(events []record.Event) ([]record.Event, error) {
	low := d.Room()
	if low == nil {
		return events, nil
	}
	if free, err := d.free(); err != nil || free < diskNone {
		return nil, low
	}
	out := make([]record.Event, len(events))
	for i, e := range events {
		switch e.Kind {
		case record.KindState:
			s, ok := record.StateOf(e)
			if !ok {
				return nil, low
			}
			e.Attrs, e.Message = s.Attrs(), ""
		case record.KindQA:
			if b, err := json.Marshal(e.Attrs); err != nil || len(b)+len(e.Message) > maxLowEvent {
				return nil, low
			}
		default:
			return nil, low
		}
		out[i] = e
	}
	return out, nil
}

// bill counts how much a batch of events adds to what its unit has stored.
type bill struct {
	may    bounds
	unit   string
	used   map[string]usage // by boot, before and with the batch
	docs   map[string]int64 // bytes of the boot's documents
	change bool
}

// charge adds a new event. The error is ErrQuota if there is no room for it.
func (b *bill) charge(ctx context.Context, tx *sql.Tx, e record.Event, attrs string) error {
	u, ok := b.used[e.Boot]
	if !ok {
		var docs int64
		err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT bytes FROM usage WHERE unit = ?1 AND boot = ?2), 0), coalesce((SELECT records FROM usage WHERE unit = ?1 AND boot = ?2), 0),
			coalesce((SELECT sum(length(body)) FROM documents WHERE unit = ?1 AND boot = ?2), 0)`, b.unit, e.Boot).Scan(&u.bytes, &u.records, &docs)
		if err != nil {
			return fmt.Errorf("read what a unit has stored: %w", err)
		}
		b.docs[e.Boot] = docs
	}
	u.bytes += int64(len(e.Message)+len(attrs)) + recordCost
	u.records++
	parts := int64(8)
	if e.Kind == record.KindLog {
		parts = 7
	}
	if u.over(b.may.boot.bytes/8*parts-b.docs[e.Boot], b.may.boot.records/8*parts) {
		return fmt.Errorf("%w: %d records and %d bytes of boot %s", ErrQuota, u.records-1, u.bytes+b.docs[e.Boot], e.Boot)
	}
	b.used[e.Boot] = u
	b.change = true
	return nil
}

// settle stores what the batch has added. If the unit has too much in total, it makes room.
func (b *bill) settle(ctx context.Context, tx *sql.Tx) error {
	if !b.change {
		return nil
	}
	for boot, u := range b.used {
		if _, err := tx.ExecContext(ctx, `INSERT INTO usage (unit, boot, bytes, records) VALUES (?, ?, ?, ?)
			ON CONFLICT (unit, boot) DO UPDATE SET bytes = excluded.bytes, records = excluded.records`, b.unit, boot, u.bytes, u.records); err != nil {
			return fmt.Errorf("count what a unit has stored: %w", err)
		}
	}
	for _, kind := range []string{string(record.KindLog), ""} { // first the log records of older boots, then all of theirs
		done, err := b.prune(ctx, tx, kind)
		if err != nil || done {
			return err
		}
	}
	return fmt.Errorf("%w over all its boots", ErrQuota)
}

// prune removes records of older boots, oldest first, if the unit has more than it may, until an eighth is free. The
// boots of the batch stay. It reports whether that was enough.
func (b *bill) prune(ctx context.Context, tx *sql.Tx, kind string) (bool, error) {
	// enough reports whether the unit has at most parts eighths of what it may have.
	enough := func(parts int64) (bool, error) {
		var all usage
		err := tx.QueryRowContext(ctx, `SELECT sum(bytes), sum(records) FROM usage WHERE unit = ?`, b.unit).Scan(&all.bytes, &all.records)
		return !all.over(b.may.unit.bytes/8*parts, b.may.unit.records/8*parts), err
	}
	if ok, err := enough(8); ok || err != nil {
		return ok, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT s.boot FROM usage s JOIN boots b ON b.unit = s.unit AND b.boot = s.boot WHERE s.unit = ? ORDER BY b.rank`, b.unit)
	if err != nil {
		return false, fmt.Errorf("make room: %w", err)
	}
	var boots []string
	for rows.Next() {
		var boot string
		if err := rows.Scan(&boot); err != nil {
			rows.Close()
			return false, fmt.Errorf("make room: %w", err)
		}
		boots = append(boots, boot)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return false, fmt.Errorf("make room: %w", err)
	}
	for _, boot := range boots {
		if _, mine := b.used[boot]; mine {
			continue
		}
		for _, q := range []string{
			`DELETE FROM events WHERE unit = ?1 AND boot = ?2 AND (?3 = '' OR kind = ?3)`,
			`UPDATE usage SET (bytes, records) = (SELECT coalesce(sum(octet_length(message) + octet_length(attrs) + 256), 0), count(*) FROM events WHERE unit = ?1 AND boot = ?2)
				WHERE unit = ?1 AND boot = ?2`,
			`DELETE FROM usage WHERE unit = ?1 AND boot = ?2 AND ?3 = ''`,
			`DELETE FROM boots WHERE unit = ?1 AND boot = ?2 AND ?3 = '' AND boot <> (SELECT state_boot FROM units WHERE id = ?1)`,
		} {
			if _, err := tx.ExecContext(ctx, q, b.unit, boot, kind); err != nil {
				return false, fmt.Errorf("make room: %w", err)
			}
		}
		if ok, err := enough(7); ok || err != nil { // so that the next batch finds room
			return ok, err
		}
	}
	return enough(8)
}

// chargeDocument returns nil if a document may be stored. It makes room for it among the older ones of its unit.
func (d *DB) chargeDocument(ctx context.Context, tx *sql.Tx, unit string, doc record.Document) error {
	if err := d.Room(); err != nil {
		return err
	}
	var bytes int64
	err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT bytes FROM usage WHERE unit = ?1 AND boot = ?2), 0)
		+ coalesce((SELECT sum(length(body)) FROM documents WHERE unit = ?1 AND boot = ?2 AND name <> ?3), 0)`, unit, doc.Boot, doc.Name).Scan(&bytes)
	if err != nil {
		return fmt.Errorf("read what a unit has stored: %w", err)
	}
	if bytes+int64(len(doc.Body)) > d.bounds.boot.bytes {
		return fmt.Errorf("%w: %d bytes of boot %s", ErrQuota, bytes, doc.Boot)
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM documents WHERE unit = ?1 AND id IN (
		SELECT id FROM (SELECT id, sum(length(body)) OVER (ORDER BY received DESC, id DESC) AS newer FROM documents WHERE unit = ?1) WHERE newer > ?2)`,
		unit, d.bounds.documents-int64(len(doc.Body)))
	if err != nil {
		return fmt.Errorf("make room for a document: %w", err)
	}
	return nil
}
