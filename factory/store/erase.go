package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"gprovision/model/ledger"
	"gprovision/model/record"
)

// ErrOtherErase means that another certificate of the same run is stored.
var ErrOtherErase = errors.New("another certificate of this run is stored")

// Limits of what one unit may store about its erases.
const (
	maxErases      = 64       // certificates
	maxEraseBytes  = 32 << 20 // of them in all
	maxBefore      = 1024     // states of drives
	maxBeforeBytes = 16 << 20 // of them in all
)

// Erase is the certificate of an erase. Only DB.Erase and DB.AddErase set the files.
type Erase struct {
	ID   int64  `json:"id"`
	Unit string `json:"unit"`
	Run  string `json:"run"`
	// Outcome and Level are those of the main disks.
	Outcome string `json:"outcome"`
	Level   string `json:"level"`
	// Recovery is the outcome of the recovery volume. It is empty if the certificate says nothing of it.
	Recovery string `json:"recovery"`
	// Fingerprint is that of the key that signed it.
	Fingerprint string    `json:"fingerprint"`
	Received    time.Time `json:"received"`
	// Operator is who brought it. It is empty if the unit itself sent it.
	Operator string `json:"operator"`
	// Accepted reports that an outcome that is less than proved was accepted.
	Accepted bool `json:"accepted"`
	// Ended is when this erase ended the unit's life. It is zero if it did not.
	Ended time.Time `json:"ended"`
	// Log is the name of the log that has it, and Number its number there.
	Log    string `json:"log"`
	Number int64  `json:"number"`
	// Cosigned is how many witnesses have cosigned the checkpoint of Proof.
	Cosigned int `json:"cosigned"`
	// The files that belong together.
	Certificate []byte `json:"-"`
	Signature   []byte `json:"-"`
	Voucher     []byte `json:"-"`
	Proof       []byte `json:"-"`
}

// EraseInput is a certificate that has been checked. What it says is so; whose the key is, is for AddErase to find.
type EraseInput struct {
	// Unit and PublicKey are those in the certificate.
	Unit      string
	PublicKey []byte
	// Run, Outcome, Level, Recovery, Certificate, Signature, Operator and Accepted are those of Erase.
	Run, Outcome, Level    string
	Recovery               string
	Certificate, Signature []byte
	Operator               string
	Accepted               bool
	// Ends reports whether the erase is good enough to end the unit's life.
	Ends bool
	// Drives are what became of the methods.
	Drives []DriveResult
}

// DriveResult is what became of one method on one drive.
type DriveResult struct {
	Model, Firmware, Bus, Method, Result string
	Seconds                              int64
}

// EraseDoor is what is needed to vouch for a certificate and to enter it into the log.
type EraseDoor struct {
	// Key is the enrolment of the key that signed it.
	Key Enrolment
	// Units and Log are the server's keys.
	Units, Log NoteKey
	// Records is the log. What is appended is stored together with the certificate, or not at all.
	Records ledger.Store
}

// Seal vouches for the key of a certificate and enters the certificate into the log, as record number.
type Seal func(EraseDoor) (voucher, proof []byte, number int64, err error)

const eraseColumns = `id, unit, run, outcome, level, public_key, received, operator, accepted, ended, log, number, recovery,
	cosigned`

func scanErase(s scanner, e *Erase, more ...any) error {
	var key []byte
	var received, ended int64
	err := s.Scan(append([]any{&e.ID, &e.Unit, &e.Run, &e.Outcome, &e.Level, &key, &received, &e.Operator, &e.Accepted, &ended, &e.Log,
		&e.Number, &e.Recovery, &e.Cosigned}, more...)...)
	e.Fingerprint, e.Received, e.Ended = record.Fingerprint(key), fromNano(received), fromNano(ended)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// scanWhole reads an erase with its files.
func scanWhole(s scanner, e *Erase) error {
	return scanErase(s, e, &e.Certificate, &e.Signature, &e.Voucher, &e.Proof)
}

const wholeErase = `SELECT ` + eraseColumns + `, certificate, signature, voucher, proof FROM erases`

// Erases returns the certificates of a unit without the files, newest first.
func (d *DB) Erases(ctx context.Context, unit string) ([]Erase, error) {
	return list(ctx, d, `SELECT `+eraseColumns+` FROM erases WHERE unit = ? ORDER BY id DESC`, func(s scanner, e *Erase) error {
		return scanErase(s, e)
	}, unit)
}

// Erase returns one certificate of a unit with its files, or ErrNotFound.
func (d *DB) Erase(ctx context.Context, unit string, id int64) (Erase, error) {
	var e Erase
	err := scanWhole(d.r.QueryRowContext(ctx, wholeErase+` WHERE unit = ? AND id = ?`, unit, id), &e)
	return e, err
}

// EraseKeys returns the keys by which a unit may send certificates: the active one first, then those whose life an erase has ended, the
// newest first. With these it can only ask again for what it got. The error is ErrNotFound if there are none.
func (d *DB) EraseKeys(ctx context.Context, unit string) ([]Enrolment, error) {
	unit, err := canonical(ctx, d.r, unit)
	if err != nil {
		return nil, err
	}
	keys, err := list(ctx, d, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? AND status IN ('active', 'ended')
		ORDER BY status = 'active' DESC, id DESC LIMIT 8`, scanEnrolment, unit)
	if err == nil && len(keys) == 0 {
		err = ErrNotFound
	}
	return keys, err
}

// AddErase stores a certificate, once, with what seal makes of it. The same certificate again is no error: it gets what was stored then.
// The error is ErrOtherErase for another certificate of the same run.
//
// The key must be one that speaks for the unit, or spoke for it, if an operator brings the certificate; else the error is ErrNotEnrolled.
// If the erase is good enough, and the key is the active one, the unit's life ends.
func (d *DB) AddErase(ctx context.Context, in EraseInput, add func(NoteKind) (NoteKey, error), seal Seal) (e Erase, err error) {
	err = d.tx(ctx, func(tx *sql.Tx) error {
		unit, err := canonical(ctx, tx, in.Unit)
		if err != nil {
			return err
		}
		e = Erase{}
		err = scanWhole(tx.QueryRowContext(ctx, wholeErase+` WHERE unit = ? AND run = ?`, unit, in.Run), &e)
		switch {
		case errors.Is(err, ErrNotFound):
			if e, err = d.newErase(ctx, tx, unit, in, add, seal); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("read erases: %w", err)
		case !bytes.Equal(e.Certificate, in.Certificate):
			return ErrOtherErase
		}
		return d.endLife(ctx, tx, in, &e)
	})
	return e, err
}

// newErase stores a certificate of which the run is not known yet.
func (d *DB) newErase(
	ctx context.Context, tx *sql.Tx, unit string, in EraseInput, add func(NoteKind) (NoteKey, error), seal Seal,
) (Erase, error) {
	door := EraseDoor{}
	err := scanEnrolment(tx.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? AND public_key = ?
		AND status IN ('active', 'replaced', 'ended') ORDER BY status = 'active' DESC, id DESC LIMIT 1`, unit, in.PublicKey), &door.Key)
	switch {
	case errors.Is(err, ErrNotFound):
		return Erase{}, ErrNotEnrolled
	case err != nil:
		return Erase{}, fmt.Errorf("read enrolment: %w", err)
	case door.Key.Status == Ended, door.Key.Status == Replaced && in.Operator == "":
		return Erase{}, ErrNotEnrolled
	}
	if err := d.eraseRoom(ctx, tx, `erases`, `certificate`, unit, len(in.Certificate), maxErases, maxEraseBytes); err != nil {
		return Erase{}, err
	}
	if door.Units, err = d.noteKey(ctx, tx, UnitsKey, add); err != nil {
		return Erase{}, err
	}
	if door.Log, err = d.noteKey(ctx, tx, LogKey, add); err != nil {
		return Erase{}, err
	}
	door.Records = logStore{ctx, tx, tx, door.Log.Name}
	e := Erase{
		Unit: unit, Run: in.Run, Outcome: in.Outcome, Level: in.Level, Recovery: in.Recovery, Fingerprint: record.Fingerprint(in.PublicKey),
		Received: d.now().UTC(), Operator: in.Operator, Accepted: in.Accepted, Log: door.Log.Name, Certificate: in.Certificate,
		Signature: in.Signature,
	}
	if e.Voucher, e.Proof, e.Number, err = seal(door); err != nil {
		return Erase{}, err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO erases (unit, run, outcome, level, public_key, received, operator, accepted, log, number,
		recovery, certificate, signature, voucher, proof) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		unit, e.Run, e.Outcome, e.Level, in.PublicKey, nano(e.Received), e.Operator, e.Accepted, e.Log, e.Number,
		e.Recovery, e.Certificate, e.Signature, e.Voucher, e.Proof).Scan(&e.ID)
	if err != nil {
		return Erase{}, fmt.Errorf("store erase: %w", err)
	}
	for _, r := range in.Drives {
		if _, err := tx.ExecContext(ctx, `INSERT INTO erase_drives (erase, model, firmware, bus, method, result, seconds)
			VALUES (?, ?, ?, ?, ?, ?, ?)`, e.ID, r.Model, r.Firmware, r.Bus, r.Method, r.Result, r.Seconds); err != nil {
			return Erase{}, fmt.Errorf("store drives of erase: %w", err)
		}
	}
	if in.Operator != "" {
		err = action(ctx, tx, unit, nano(e.Received), in.Operator, "brought the certificate of the erase "+e.Run)
	}
	return e, err
}

// LessCosigned returns the certificates of a log of which fewer witnesses than n have cosigned the proof's checkpoint, without the files.
func (d *DB) LessCosigned(ctx context.Context, log string, n int) ([]Erase, error) {
	return list(ctx, d, `SELECT `+eraseColumns+` FROM erases WHERE log = ? AND cosigned < ? ORDER BY id`, func(s scanner, e *Erase) error {
		return scanErase(s, e)
	}, log, n)
}

// SetProof replaces the proof of a certificate by one with a checkpoint that more witnesses have cosigned.
func (d *DB) SetProof(ctx context.Context, id int64, proof []byte, cosigned int) error {
	_, err := d.w.ExecContext(ctx, `UPDATE erases SET proof = ?, cosigned = ? WHERE id = ? AND cosigned < ?`, proof, cosigned, id, cosigned)
	if err != nil {
		return fmt.Errorf("store proof: %w", err)
	}
	return nil
}

// eraseRoom returns nil if a unit may store so many more bytes in a column of a table.
func (d *DB) eraseRoom(ctx context.Context, tx *sql.Tx, table, column, unit string, more, maxRows, maxBytes int) error {
	if free, err := d.free(); err != nil || free < diskNone { // what leaves the unit only once is taken as long as anything is
		return errors.Join(ErrDisk, err)
	}
	var rows, size int
	err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(octet_length(`+column+`)), 0) FROM `+table+` WHERE unit = ?`, unit).
		Scan(&rows, &size)
	switch {
	case err != nil:
		return fmt.Errorf("read what a unit has stored: %w", err)
	case rows >= maxRows || size+more > maxBytes:
		return fmt.Errorf("%w: %d rows and %d bytes of its erases", ErrQuota, rows, size)
	}
	return nil
}

// endLife ends the life of the unit if the erase is good enough and was signed by the active key: that one is revoked, credentials that
// are set nowhere are void, and the unit is as if it had never been provisioned. What is stored of it stays.
func (d *DB) endLife(ctx context.Context, tx *sql.Tx, in EraseInput, e *Erase) error {
	if !in.Ends || !e.Ended.IsZero() {
		return nil
	}
	active, err := activeKey(ctx, tx, e.Unit)
	if errors.Is(err, ErrNotFound) || err == nil && !slices.Equal(active.PublicKey, in.PublicKey) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read enrolment: %w", err)
	}
	u, err := scanUnit(tx.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, e.Unit))
	if err != nil {
		return err
	}
	if err := depose(ctx, tx, e.Unit, u, Ended); err != nil {
		return err
	}
	now := d.now()
	if _, err := tx.ExecContext(ctx, `UPDATE units SET provisioned_at = 0, released_at = 0, released_by = '', permit_boot = '' WHERE id = ?`,
		e.Unit); err != nil {
		return fmt.Errorf("end life of unit: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE erases SET ended = ?, accepted = ? WHERE id = ?`, nano(now), in.Accepted, e.ID); err != nil {
		return fmt.Errorf("end life of unit: %w", err)
	}
	e.Ended, e.Accepted = now.UTC(), in.Accepted
	who := in.Operator
	if who == "" {
		who = "(the unit)"
	}
	what := fmt.Sprintf("ended this life by the erase %s: the key %s is revoked", e.Run, active.Fingerprint)
	return action(ctx, tx, e.Unit, nano(now), who, what)
}

// hasEnded reports whether the life of a unit with this key is over.
func hasEnded(ctx context.Context, tx *sql.Tx, in EnrolInput) (over bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM enrolments WHERE unit = ? AND public_key = ? AND status = 'ended')`,
		in.Unit, in.PublicKey).Scan(&over)
	if err != nil {
		return false, fmt.Errorf("read enrolments: %w", err)
	}
	return over, nil
}

// DriveBefore is what a drive was before an erase.
type DriveBefore struct {
	Run      string          `json:"run"`
	Name     string          `json:"name"`
	State    json.RawMessage `json:"state"`
	Received time.Time       `json:"received"`
}

// AddDriveBefore stores what a drive of a unit was before an erase. The same again is stored once, something else beside it.
func (d *DB) AddDriveBefore(ctx context.Context, unit string, b record.EraseBefore) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		if err := d.eraseRoom(ctx, tx, `drives_before`, `state`, unit, len(b.State), maxBefore, maxBeforeBytes); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO drives_before (unit, run, name, state, received) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`, unit, b.Run, b.Name, string(b.State), nano(d.now()))
		if err != nil {
			return fmt.Errorf("store drive before erase: %w", err)
		}
		return nil
	})
}

// DrivesBefore returns what the drives of a unit were before its erases, newest first, at most 200.
func (d *DB) DrivesBefore(ctx context.Context, unit string) ([]DriveBefore, error) {
	return list(ctx, d, `SELECT run, name, state, received FROM drives_before WHERE unit = ? ORDER BY id DESC LIMIT 200`,
		func(s scanner, b *DriveBefore) error {
			var state string
			var t int64
			err := s.Scan(&b.Run, &b.Name, &state, &t)
			b.State, b.Received = json.RawMessage(state), fromNano(t)
			return err
		}, unit)
}

// DriveModel is what drives of one model and firmware did when they were told to erase by one method, all units together.
type DriveModel struct {
	Model    string `json:"model"`
	Firmware string `json:"firmware"`
	Bus      string `json:"bus"`
	Method   string `json:"method"`
	// How often the method was refused, was taken and was not enough, ended as weaker, ended as proved, and how often the drive said that all
	// was well and data was left.
	Refused   int `json:"refused"`
	NotEnough int `json:"notEnough"`
	Weaker    int `json:"weaker"`
	Proved    int `json:"proved"`
	Lied      int `json:"lied"`
	// Shortest and Longest are how many seconds it took, where it was taken.
	Shortest int64 `json:"shortest"`
	Longest  int64 `json:"longest"`
}

// Results of a method on a drive, as DriveResult names them.
const (
	MethodRefused   = "refused"
	MethodNotEnough = "not-enough"
	MethodWeaker    = "weaker"
	MethodProved    = "proved"
	MethodLied      = "lied"
)

// DriveModels returns what all drives did, by model, firmware and method, at most 2000 rows.
func (d *DB) DriveModels(ctx context.Context) ([]DriveModel, error) {
	return list(ctx, d, `SELECT model, firmware, bus, method, sum(result = 'refused'), sum(result = 'not-enough'), sum(result = 'weaker'),
		sum(result = 'proved'), sum(result = 'lied'),
		coalesce(min(CASE WHEN result <> 'refused' THEN seconds END), 0), coalesce(max(CASE WHEN result <> 'refused' THEN seconds END), 0)
		FROM erase_drives GROUP BY model, firmware, bus, method ORDER BY model, firmware, bus, method LIMIT 2000`,
		func(s scanner, m *DriveModel) error {
			return s.Scan(&m.Model, &m.Firmware, &m.Bus, &m.Method, &m.Refused, &m.NotEnough, &m.Weaker, &m.Proved, &m.Lied, &m.Shortest, &m.Longest)
		})
}
