package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"gprovision/model/ledger"
	"gprovision/model/secret"
)

// NoteKind says what a NoteKey signs.
type NoteKind string

// The kinds of keys.
const (
	UnitsKey NoteKind = "units" // statements over the keys of units
	LogKey   NoteKind = "log"   // checkpoints of the log that has the name of the key
)

// NoteKey is a key that signs notes. No unit obeys it.
type NoteKey struct {
	Name string
	Kind NoteKind
	// Private and Public are its halves in the form of golang.org/x/mod/sumdb/note.
	Private secret.Secret
	Public  string
	Since   time.Time
	// Closed is when its log ended, zero if it has not.
	Closed time.Time
}

const noteKeyColumns = `name, kind, private, public, since, closed`

func scanNoteKey(s scanner, k *NoteKey) error {
	var since, closed int64
	var private string
	err := s.Scan(&k.Name, &k.Kind, &private, &k.Public, &since, &closed)
	k.Private, k.Since, k.Closed = secret.Secret(private), fromNano(since), fromNano(closed)
	return err
}

// NoteKeys returns all keys, those of closed logs too, the newest first. It adds the keys that are missing: of each kind one that is in
// use.
func (d *DB) NoteKeys(ctx context.Context, add func(NoteKind) (NoteKey, error)) ([]NoteKey, error) {
	var kinds int
	if err := d.r.QueryRowContext(ctx, `SELECT count(DISTINCT kind) FROM note_keys WHERE closed = 0`).Scan(&kinds); err != nil {
		return nil, fmt.Errorf("read keys of notes: %w", err)
	}
	if kinds < 2 {
		err := d.tx(ctx, func(tx *sql.Tx) error {
			_, err := d.noteKey(ctx, tx, UnitsKey, add)
			if err == nil {
				_, err = d.noteKey(ctx, tx, LogKey, add)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list(ctx, d, `SELECT `+noteKeyColumns+` FROM note_keys ORDER BY since DESC, rowid DESC`, scanNoteKey)
}

// noteKey returns the key of a kind that is in use. If there is none, it stores the one that add makes.
func (d *DB) noteKey(ctx context.Context, tx *sql.Tx, kind NoteKind, add func(NoteKind) (NoteKey, error)) (NoteKey, error) {
	var k NoteKey
	err := scanNoteKey(tx.QueryRowContext(ctx, `SELECT `+noteKeyColumns+` FROM note_keys WHERE kind = ? AND closed = 0`, kind), &k)
	if err == nil {
		return k, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return NoteKey{}, fmt.Errorf("read keys of notes: %w", err)
	}
	if k, err = add(kind); err != nil {
		return NoteKey{}, err
	}
	k.Since = d.now().UTC()
	if _, err := tx.ExecContext(ctx, `INSERT INTO note_keys (name, kind, private, public, since) VALUES (?, ?, ?, ?, ?)`,
		k.Name, kind, k.Private.Reveal(), k.Public, nano(k.Since)); err != nil {
		return NoteKey{}, fmt.Errorf("store key of notes: %w", err)
	}
	return k, nil
}

// CloseLog ends the log of this name, if it is in use. The next record begins a new one.
func (d *DB) CloseLog(ctx context.Context, name string) error {
	_, err := d.w.ExecContext(ctx, `UPDATE note_keys SET closed = ? WHERE kind = 'log' AND name = ? AND closed = 0`, nano(d.now()), name)
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// closeLogs ends the log that is in use.
func (d *DB) closeLogs(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `UPDATE note_keys SET closed = ? WHERE kind = 'log' AND closed = 0`, nano(d.now())); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// Log returns the records of a log, for reading.
func (d *DB) Log(ctx context.Context, name string) ledger.Store { return logStore{ctx, d.r, nil, name} }

// logStore is one log. Without a transaction it can only be read.
type logStore struct {
	ctx  context.Context
	q    querier
	tx   *sql.Tx
	name string
}

// Size returns how many records there are.
func (l logStore) Size() (int64, error) {
	var n int64
	if err := l.q.QueryRowContext(l.ctx, `SELECT coalesce(max(number) + 1, 0) FROM log_records WHERE log = ?`, l.name).Scan(&n); err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	return n, nil
}

// ReadHashes returns stored hashes.
func (l logStore) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		var b []byte
		if err := l.q.QueryRowContext(l.ctx, `SELECT hash FROM log_hashes WHERE log = ? AND number = ?`, l.name, x).Scan(&b); err != nil {
			return nil, fmt.Errorf("read hash %d of log: %w", x, err)
		}
		if copy(out[i][:], b) != tlog.HashSize {
			return nil, fmt.Errorf("read hash %d of log: it has %d bytes", x, len(b))
		}
	}
	return out, nil
}

// Append stores record n with the hashes that follow those there are.
func (l logStore) Append(n int64, record []byte, hashes []tlog.Hash) error {
	if l.tx == nil {
		return errors.New("the log is open for reading only")
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	if size != n {
		return fmt.Errorf("there are %d records: %w", size, ledger.ErrMoved)
	}
	if _, err := l.tx.ExecContext(l.ctx, `INSERT INTO log_records (log, number, record) VALUES (?, ?, ?)`, l.name, n, record); err != nil {
		return fmt.Errorf("store record: %w", err)
	}
	for i, h := range hashes {
		if _, err := l.tx.ExecContext(l.ctx, `INSERT INTO log_hashes (log, number, hash) VALUES (?, ?, ?)`,
			l.name, tlog.StoredHashCount(n)+int64(i), h[:]); err != nil {
			return fmt.Errorf("store hash: %w", err)
		}
	}
	return nil
}
