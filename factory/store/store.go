// Package store stores the data of the factory server: units, their keys, events, facts and documents, encrypted
// credentials, and the operators' logins. It is one SQLite file.
//
// The package enforces the rules that must hold under concurrency, each in one transaction. A unit has one active
// key. A token is used once. An event is stored once. Confirmed credentials are final.
//
// It does not verify signatures, does not make or open secrets, and does not know HTTP. Tokens and sessions are
// stored as hashes, and secrets as ciphertext. Whoever reads the file learns no password and cannot enrol a unit. They
// can vouch for keys of units and log certificates in the name of this server: the keys for that are in the file.
package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"gprovision/model/record"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Reasons why the store refuses a request.
var (
	// ErrNotFound means that there is no such item.
	ErrNotFound = errors.New("not found")
	// ErrCompleted means that the unit's provisioning was completed and the unit has not been released since.
	ErrCompleted = errors.New("the unit is provisioned already: an operator must release it first")
	// ErrConfirmed means that the credentials of this key are confirmed.
	ErrConfirmed = errors.New("the credentials are confirmed and are not given again")
	// ErrGeneration means that a generation is not the newest one of its key.
	ErrGeneration = errors.New("this is not the newest generation of credentials")
	// ErrNotEnrolled means that the enrolment no longer speaks for the unit.
	ErrNotEnrolled = errors.New("the key does not speak for this unit")
	// ErrRejected means that an operator has rejected the key.
	ErrRejected = errors.New("an operator has rejected this key")
	// ErrFingerprint means that the key is not the one that the operator means.
	ErrFingerprint = errors.New("the fingerprint is not that of the key: compare it with the unit's panel")
	// ErrTaken means that a name or a port belongs to another unit.
	ErrTaken = errors.New("it belongs to another unit")
	// ErrInput means that an operator's input cannot be right.
	ErrInput = errors.New("wrong input")
	// ErrLost means that the unit's current credentials were made after the backup from which the server was
	// restored.
	ErrLost = errors.New("the credentials that are set on the unit were lost when the server was restored from a backup: provision the unit again for new ones")
)

// Limits of what strangers can store.
const (
	maxPending        = 1000    // waiting enrolments in total
	maxPendingUnit    = 64      // the same for one unit
	maxPendingAddress = 8       // the same for one address
	maxTokens         = 10000   // tokens that are neither used nor expired
	maxTokensAddress  = 16      // the same for one address
	maxUnconfirmed    = 20      // unconfirmed generations of credentials of one unit
	maxHeld           = 1 << 31 // the highest generation of credentials that a unit may claim to have
	pendingAge        = 24 * time.Hour
)

// DB is an open store. It is safe for concurrent use.
type DB struct {
	w   *sql.DB // one connection: writers queue up
	r   *sql.DB
	now func() time.Time
	// free returns how many bytes can still be written where the file is.
	free   func() (int64, error)
	bounds bounds
}

// Open opens the SQLite file at path. It makes a missing file, and migrates the tables.
func Open(ctx context.Context, path string) (*DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// We make the file ourselves, because SQLite gives its mode to the files beside it.
	f, err := os.OpenFile(abs, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	f.Close()
	dsn := func(pragmas ...string) string {
		q := url.Values{"_txlock": {"immediate"}}
		for _, p := range append([]string{"busy_timeout(10000)", "foreign_keys(1)"}, pragmas...) {
			q.Add("_pragma", p)
		}
		return (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String()
	}
	// synchronous(FULL): a unit forgets what the server has acknowledged, so that must survive a power cut.
	w, err := sql.Open("sqlite", dsn("journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(67108864)"))
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	w.SetMaxOpenConns(1)
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, w, sub, goose.WithDisableGlobalRegistry(true))
	if err == nil {
		_, err = p.Up(ctx)
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	r, err := sql.Open("sqlite", dsn("query_only(1)"))
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	r.SetMaxOpenConns(4)
	return &DB{w: w, r: r, now: time.Now, free: freeBytes(filepath.Dir(abs)), bounds: defaultBounds()}, nil
}

// Close closes the file.
func (d *DB) Close() error { return errors.Join(d.r.Close(), d.w.Close()) }

// tx runs f in one write transaction.
func (d *DB) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.w.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer tx.Rollback() // even after a panic of f: there is only one connection for writing
	if err := f(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func nano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// Unit is what is known about one unit.
type Unit struct {
	// ID is the unit's name, usually its serial number.
	ID       string   `json:"unit"`
	Platform string   `json:"platform"`
	MACs     []string `json:"macs"`
	BMCMACs  []string `json:"bmcMacs"`
	// State is the state in the unit's newest state event. StateAt is when the server got that event.
	State   record.State `json:"-"`
	StateAt time.Time    `json:"stateAt"`
	// FirstSeen and LastSeen are by the server's clock.
	FirstSeen time.Time `json:"firstSeen"`
	LastSeen  time.Time `json:"lastSeen"`
	// Provisioned is when the unit last reported a successful provisioning. It is zero if it never did.
	Provisioned time.Time `json:"provisioned"`
	// Released is when an operator allowed another provisioning. It is zero if none is allowed.
	Released   time.Time `json:"released"`
	ReleasedBy string    `json:"releasedBy"`
	// Enrolled reports whether the unit has an active key.
	Enrolled bool `json:"enrolled"`
	// Pending is the number of keys that wait for an operator's approval.
	Pending int `json:"pending"`
	// Confirmed reports whether the newest key has confirmed its credentials.
	Confirmed bool `json:"credentialsConfirmed"`
	// OldScheme reports whether the unit signs its requests as version 0.1.0 did.
	OldScheme bool `json:"oldScheme"`
}

// Completed reports whether the unit's provisioning was completed and the unit has not been released since.
func (u Unit) Completed() bool { return !u.Provisioned.IsZero() && u.Released.IsZero() }

const unitColumns = `u.id, u.platform, u.macs, u.bmc_macs, u.job, u.phase, u.step, u.percent, u.code, u.text, u.hint, u.state_at,
	u.first_seen, u.last_seen, u.provisioned_at, u.released_at, u.released_by,
	EXISTS (SELECT 1 FROM enrolments e WHERE e.unit = u.id AND e.status = 'active'),
	(SELECT count(*) FROM enrolments e WHERE e.unit = u.id AND e.status = 'pending'),
	EXISTS (SELECT 1 FROM secrets s JOIN enrolments e ON e.id = s.enrolment WHERE s.unit = u.id AND e.status = 'active' AND s.confirmed > 0),
	EXISTS (SELECT 1 FROM old_signers o WHERE o.unit = u.id AND o.last > o.newer)`

type scanner interface{ Scan(...any) error }

func scanUnit(r scanner) (Unit, error) {
	var u Unit
	var macs, bmc, job, phase string
	var stateAt, first, last, prov, rel int64
	err := r.Scan(&u.ID, &u.Platform, &macs, &bmc, &job, &phase, &u.State.Step, &u.State.Percent, &u.State.Code, &u.State.Text, &u.State.Hint, &stateAt,
		&first, &last, &prov, &rel, &u.ReleasedBy, &u.Enrolled, &u.Pending, &u.Confirmed, &u.OldScheme)
	if errors.Is(err, sql.ErrNoRows) {
		return Unit{}, ErrNotFound
	}
	if err != nil {
		return Unit{}, err
	}
	u.State.Job, u.State.Phase = record.Job(job), record.Phase(phase)
	u.StateAt, u.FirstSeen, u.LastSeen, u.Provisioned, u.Released = fromNano(stateAt), fromNano(first), fromNano(last), fromNano(prov), fromNano(rel)
	if err := errors.Join(json.Unmarshal([]byte(macs), &u.MACs), json.Unmarshal([]byte(bmc), &u.BMCMACs)); err != nil {
		return Unit{}, fmt.Errorf("unit %s: %w", u.ID, err)
	}
	return u, nil
}

// MaxUnits is the maximum number of units that one call of Units returns.
const MaxUnits = 1000

// Units returns at most limit units from the one at offset, most recently seen first. It also returns the number of
// all units.
func (d *DB) Units(ctx context.Context, offset, limit int) (units []Unit, total int, err error) {
	if err := d.r.QueryRowContext(ctx, `SELECT count(*) FROM units`).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count units: %w", err)
	}
	units, err = list(ctx, d, `SELECT `+unitColumns+` FROM units u ORDER BY u.last_seen DESC, u.id LIMIT ? OFFSET ?`, func(s scanner, u *Unit) error {
		var err error
		*u, err = scanUnit(s)
		return err
	}, min(limit, MaxUnits), max(offset, 0))
	return units, total, err
}

// Unit returns one unit, or ErrNotFound.
func (d *DB) Unit(ctx context.Context, id string) (Unit, error) {
	return scanUnit(d.r.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, id))
}

// Release allows one more provisioning of the unit. A successful provisioning uses up the permission.
func (d *DB) Release(ctx context.Context, unit, operator string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		now := nano(d.now())
		res, err := tx.ExecContext(ctx, `UPDATE units SET released_at = ?, released_by = ?, permit_boot = '' WHERE id = ?`, now, operator, unit)
		if err != nil {
			return fmt.Errorf("release unit: %w", err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return ErrNotFound
		}
		return action(ctx, tx, unit, now, operator, "released for another provisioning")
	})
}

func action(ctx context.Context, tx *sql.Tx, unit string, now int64, operator, what string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO actions (unit, time, operator, action) VALUES (?, ?, ?, ?)`, unit, now, operator, what)
	if err != nil {
		return fmt.Errorf("record action: %w", err)
	}
	return nil
}

// Action is a change that an operator made to a unit.
type Action struct {
	Time     time.Time `json:"time"`
	Operator string    `json:"operator"`
	Action   string    `json:"action"`
}

// Actions returns the actions of operators on a unit, newest first.
func (d *DB) Actions(ctx context.Context, unit string) ([]Action, error) {
	return list(ctx, d, `SELECT time, operator, action FROM actions WHERE unit = ? ORDER BY id DESC LIMIT 100`, func(s scanner, a *Action) error {
		var t int64
		err := s.Scan(&t, &a.Operator, &a.Action)
		a.Time = fromNano(t)
		return err
	}, unit)
}

// errEnough ends list before a row.
var errEnough = errors.New("that is enough")

// list runs a query and scans its rows. It stops before the row for which scan returns errEnough.
func list[T any](ctx context.Context, d *DB, query string, scan func(scanner, *T) error, args ...any) ([]T, error) {
	rows, err := d.r.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		var v T
		err := scan(rows, &v)
		if errors.Is(err, errEnough) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// Permit returns nil if the unit may be provisioned in this boot, and remembers that. An error, such as ErrCompleted
// or ErrConfirmed, is the one that the key of the enrolment would get from AddSecret later, when the unit's disks are
// already erased.
func (d *DB) Permit(ctx context.Context, unit string, enrolment int64, boot string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		if err := d.mayAsk(ctx, tx, unit, enrolment); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `UPDATE units SET permit_boot = ?, last_seen = ? WHERE id = ? AND (provisioned_at = 0 OR released_at > 0)`, boot, nano(d.now()), unit)
		if err != nil {
			return fmt.Errorf("permit: %w", err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return ErrCompleted
		}
		return nil
	})
}

// Document is a stored document. Only DB.Document sets Body.
type Document struct {
	ID       int64     `json:"id"`
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	Boot     string    `json:"boot"`
	Size     int64     `json:"size"`
	Received time.Time `json:"received"`
	Body     []byte    `json:"-"`
}

// AddDocument stores a document of a unit. It replaces one with the same boot and name. The error is ErrQuota or
// ErrDisk if there is no room.
func (d *DB) AddDocument(ctx context.Context, unit string, doc record.Document) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		if err := d.chargeDocument(ctx, tx, unit, doc); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO documents (unit, boot, name, type, body, received) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (unit, boot, name) DO UPDATE SET type = excluded.type, body = excluded.body, received = excluded.received`,
			unit, doc.Boot, doc.Name, doc.Type, doc.Body, nano(d.now()))
		if err != nil {
			return fmt.Errorf("store document: %w", err)
		}
		// Each unit keeps its newest hundred documents.
		_, err = tx.ExecContext(ctx, `DELETE FROM documents WHERE unit = ? AND id NOT IN (SELECT id FROM documents WHERE unit = ? ORDER BY received DESC, id DESC LIMIT 100)`, unit, unit)
		return err
	})
}

// Documents returns the documents of a unit without their bodies, newest first.
func (d *DB) Documents(ctx context.Context, unit string) ([]Document, error) {
	return list(ctx, d, `SELECT id, name, type, boot, length(body), received FROM documents WHERE unit = ? ORDER BY received DESC, id DESC`, func(s scanner, o *Document) error {
		var t int64
		err := s.Scan(&o.ID, &o.Name, &o.Type, &o.Boot, &o.Size, &t)
		o.Received = fromNano(t)
		return err
	}, unit)
}

// Document returns one document of a unit with its body, or ErrNotFound.
func (d *DB) Document(ctx context.Context, unit string, id int64) (Document, error) {
	var o Document
	var t int64
	err := d.r.QueryRowContext(ctx, `SELECT id, name, type, boot, length(body), received, body FROM documents WHERE unit = ? AND id = ?`, unit, id).
		Scan(&o.ID, &o.Name, &o.Type, &o.Boot, &o.Size, &t, &o.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return Document{}, ErrNotFound
	}
	o.Received = fromNano(t)
	return o, err
}

// cleanMACs returns the addresses in one form, without duplicates. It leaves out invalid ones.
func cleanMACs(in []string) []string {
	out := []string{}
	for _, m := range in {
		if c, err := record.CleanMAC(m); err == nil && !slices.Contains(out, c) && len(out) < record.MaxMACs {
			out = append(out, c)
		}
	}
	return out
}

func jsonText(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
