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

	"gprovision/model/platform"
	"gprovision/model/record"
)

// Token is a one-time token as handed out.
type Token struct {
	// MAC is the address of the port that fetched the boot script.
	MAC string `json:"mac"`
	// Serial is the serial number in the firmware, or empty if that has none.
	Serial  string    `json:"serial"`
	Remote  string    `json:"remote"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// hashToken returns the hash under which a token is stored. A token has at least 128 random bits, so a plain hash is
// enough.
func hashToken(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

// AddToken stores the hash of a token for the unit with this port. It replaces the unused tokens of the same port.
// There is always room: each address has only a few tokens, and if there are too many in total, the oldest one of the
// address with the most is removed.
func (d *DB) AddToken(ctx context.Context, token string, t Token) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		now := d.now()
		if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE enrolment = 0 AND (mac = ? OR expires < ?) OR expires < ?`,
			t.MAC, nano(now), nano(now.Add(-7*24*time.Hour))); err != nil {
			return fmt.Errorf("store token: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE enrolment = 0 AND remote = ? ORDER BY created DESC, hash LIMIT -1 OFFSET ?)`,
			t.Remote, maxTokensAddress-1); err != nil {
			return fmt.Errorf("store token: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE (SELECT count(*) FROM tokens WHERE enrolment = 0) >= ? AND hash IN (
				SELECT hash FROM tokens WHERE enrolment = 0 AND remote = (SELECT remote FROM tokens WHERE enrolment = 0 GROUP BY remote ORDER BY count(*) DESC, min(created) LIMIT 1)
				ORDER BY created, hash LIMIT 1)`, maxTokens); err != nil {
			return fmt.Errorf("store token: %w", err)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens (hash, mac, serial, remote, created, expires) VALUES (?, ?, ?, ?, ?, ?)`,
			hashToken(token), t.MAC, t.Serial, t.Remote, nano(t.Created), nano(t.Expires))
		if err != nil {
			return fmt.Errorf("store token: %w", err)
		}
		return nil
	})
}

// Tokens returns the tokens that may still be used, newest first. They belong to units that have fetched their boot
// script and have not enrolled yet.
func (d *DB) Tokens(ctx context.Context) ([]Token, error) {
	return list(ctx, d, `SELECT mac, serial, remote, created, expires FROM tokens WHERE enrolment = 0 AND expires > ? ORDER BY created DESC LIMIT 200`, func(s scanner, t *Token) error {
		var c, e int64
		err := s.Scan(&t.MAC, &t.Serial, &t.Remote, &c, &e)
		t.Created, t.Expires = fromNano(c), fromNano(e)
		return err
	}, nano(d.now()))
}

// EnrolStatus is the status of a key.
type EnrolStatus string

// The statuses of a key.
const (
	Active   EnrolStatus = "active"   // the key speaks for the unit
	Pending  EnrolStatus = "pending"  // an operator must decide
	Replaced EnrolStatus = "replaced" // a newer key speaks for the unit
	Rejected EnrolStatus = "rejected" // an operator has rejected it, or nobody decided in time
	Ended    EnrolStatus = "ended"    // the unit was erased, and with that its life with this key is over
)

// Enrolment is one key that asked to speak for a unit.
type Enrolment struct {
	ID        int64  `json:"id"`
	Unit      string `json:"unit"`
	PublicKey []byte `json:"publicKey"`
	// Fingerprint is the fingerprint of the key, as the unit's panel shows it.
	Fingerprint string      `json:"fingerprint"`
	Status      EnrolStatus `json:"status"`
	Boot        string      `json:"boot"`
	Platform    string      `json:"platform"`
	Remote      string      `json:"remote"`
	// MAC is the port that the key's token was made for, or empty.
	MAC string `json:"mac"`
	// Reason is why an operator has to decide.
	Reason  string    `json:"reason"`
	Created time.Time `json:"created"`
	// Seen is the time of the last request to enrol the key.
	Seen time.Time `json:"seen"`
	// Asked is when the key first got credentials. It is zero if it never did.
	Asked time.Time `json:"asked"`
	// ApprovedBy is the operator who decided about the key. It is empty if no operator had to.
	ApprovedBy string `json:"approvedBy"`
}

// Held is what a unit says it has from an earlier time. A server restored from a backup needs it.
type Held struct {
	// Generation is the generation of the credentials that are set on the unit, or 0.
	Generation uint64
	// Provisioned reports whether the unit's provisioning was completed.
	Provisioned bool
}

// EnrolInput is a request to let a key speak for a unit. The caller has verified that the sender holds the key.
type EnrolInput struct {
	Unit      string
	PublicKey []byte
	Token     string // may be empty
	Boot      string
	Platform  string
	// SerialField is the keyword of the appliance table that Unit comes from, or empty if unknown.
	SerialField   string
	MACs, BMCMACs []string
	Remote        string
	Held          Held
	// ByPerson reports whether an operator must approve each new key.
	ByPerson bool
}

const enrolColumns = `id, unit, public_key, status, boot, platform, remote, mac, reason, created, seen, asked, approved_by`

func scanEnrolment(s scanner, e *Enrolment) error {
	var created, seen, asked int64
	err := s.Scan(&e.ID, &e.Unit, &e.PublicKey, &e.Status, &e.Boot, &e.Platform, &e.Remote, &e.MAC, &e.Reason, &created, &seen, &asked, &e.ApprovedBy)
	e.Created, e.Seen, e.Asked, e.Fingerprint = fromNano(created), fromNano(seen), fromNano(asked), record.Fingerprint(e.PublicKey)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// querier is a transaction or a pool of connections.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// canonical returns the unit's own name for a name. That is the name itself, unless an operator has given it to a
// unit as a further name.
func canonical(ctx context.Context, q querier, name string) (string, error) {
	var unit string
	err := q.QueryRowContext(ctx, `SELECT unit FROM aliases WHERE name = ? AND NOT EXISTS (SELECT 1 FROM units WHERE id = ?)`, name, name).Scan(&unit)
	if errors.Is(err, sql.ErrNoRows) {
		return name, nil
	}
	if err != nil {
		return "", fmt.Errorf("read names of units: %w", err)
	}
	return unit, nil
}

// ActiveKey returns the active enrolment of a unit, or ErrNotFound. unit may be the name of a mainboard that was
// joined to the unit. The Enrolment has the unit's own name.
func (d *DB) ActiveKey(ctx context.Context, unit string) (Enrolment, error) {
	var e Enrolment
	unit, err := canonical(ctx, d.r, unit)
	if err != nil {
		return e, err
	}
	return activeKey(ctx, d.r, unit)
}

func activeKey(ctx context.Context, q querier, unit string) (Enrolment, error) {
	var e Enrolment
	err := scanEnrolment(q.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? AND status = 'active'`, unit), &e)
	return e, err
}

// Enrolments returns all keys that asked to speak for a unit, newest first.
func (d *DB) Enrolments(ctx context.Context, unit string) ([]Enrolment, error) {
	return list(ctx, d, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? ORDER BY id DESC LIMIT 100`, scanEnrolment, unit)
}

// Enrol decides about a key.
//
// An active key stays active. So a repeated request is harmless, and a unit can keep its key for life. A completed
// unit accepts no other key (ErrCompleted). Another key becomes the active one by a token that is good for this unit
// (judge), as long as the active key has not got credentials. In all other cases the key waits for an operator, and
// reason is why. The error is ErrRejected for a key that an operator has rejected.
func (d *DB) Enrol(ctx context.Context, in EnrolInput) (e Enrolment, reason string, err error) {
	in.MACs, in.BMCMACs = cleanMACs(in.MACs), cleanMACs(in.BMCMACs)
	err = d.tx(ctx, func(tx *sql.Tx) error {
		reason = ""
		now := d.now()
		if err := sweep(ctx, tx, now); err != nil {
			return err
		}
		name := in.Unit
		in := in
		var err error
		if in.Unit, err = canonical(ctx, tx, name); err != nil {
			return err
		}
		u, err := scanUnit(tx.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, in.Unit))
		known := err == nil
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("enrol: %w", err)
		}
		active, err := activeKey(ctx, tx, in.Unit)
		taken := err == nil
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("enrol: %w", err)
		}
		v, err := d.judge(ctx, tx, in, name, active, taken)
		if err != nil {
			return err
		}
		if taken && slices.Equal(active.PublicKey, in.PublicKey) {
			e = active
			return d.renew(ctx, tx, in, e, v, now)
		}
		if known && u.Completed() {
			return ErrCompleted
		}
		if !v.good {
			reason = v.why
			e, err = storePending(ctx, tx, in, v, now)
			return err
		}
		if err := ensureUnit(ctx, tx, in.Unit, now); err != nil {
			return err
		}
		if err := depose(ctx, tx, in.Unit, u, Replaced); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'replaced' WHERE unit = ? AND status = 'pending' AND public_key = ?`, in.Unit, in.PublicKey); err != nil {
			return fmt.Errorf("enrol: %w", err)
		}
		if e, err = insertEnrolment(ctx, tx, in, Active, v, now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET enrolment = ? WHERE hash = ?`, e.ID, v.hash); err != nil {
			return fmt.Errorf("enrol: %w", err)
		}
		return d.accept(ctx, tx, in, e, now)
	})
	return e, reason, err
}

// sweep removes the enrolments about which nobody decided in time.
func sweep(ctx context.Context, tx *sql.Tx, now time.Time) error {
	if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'rejected' WHERE status = 'pending' AND seen < ?`, nano(now.Add(-pendingAge))); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	old := nano(now.Add(-2 * pendingAge))
	if _, err := tx.ExecContext(ctx, `DELETE FROM enrolments WHERE status = 'rejected' AND seen < ?`, old); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM units WHERE last_seen < ?`+nothingElse, old); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	return nil
}

// nothingElse selects units about which nothing is known but a request to enrol.
const nothingElse = ` AND NOT EXISTS (SELECT 1 FROM enrolments WHERE unit = units.id) AND NOT EXISTS (SELECT 1 FROM events WHERE unit = units.id)
	AND NOT EXISTS (SELECT 1 FROM actions WHERE unit = units.id) AND NOT EXISTS (SELECT 1 FROM ports WHERE unit = units.id)
	AND NOT EXISTS (SELECT 1 FROM aliases WHERE unit = units.id) AND NOT EXISTS (SELECT 1 FROM documents WHERE unit = units.id)`

// verdict is the result of judge.
type verdict struct {
	hash []byte
	// mac is the port of a usable token, if the unit lists that port as its own.
	mac  string
	good bool
	why  string
}

// judge decides whether the token of in lets a new key speak for the unit, and if not, why not.
//
// A token belongs to the port that fetched it, and so to the unit that has the port. If the unit's name comes from
// the firmware field that iPXE sends, the token belongs to a serial number as well. The port must be free or the
// unit's own. An adapter that serves many units proves nothing about a unit that has a key, unless the serial number
// does.
func (d *DB) judge(ctx context.Context, tx *sql.Tx, in EnrolInput, name string, active Enrolment, taken bool) (verdict, error) {
	no := func(v verdict, why string) (verdict, error) {
		v.why = why + ": an operator must approve this key"
		return v, nil
	}
	if in.Token == "" {
		if _, since, err := epoch(ctx, tx); err != nil || since.IsZero() {
			return verdict{why: "there is no token: an operator must approve this key"}, err
		}
		return no(verdict{}, "there is no token, and the server was restored from a backup that may be older than this key")
	}
	v := verdict{hash: hashToken(in.Token)}
	var mac, serial string
	var expires, used int64
	err := tx.QueryRowContext(ctx, `SELECT mac, serial, expires, enrolment FROM tokens WHERE hash = ?`, v.hash).Scan(&mac, &serial, &expires, &used)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return no(v, "the token is not known")
	case err != nil:
		return v, fmt.Errorf("read token: %w", err)
	case used != 0:
		return no(v, "the token was used already")
	case expires < nano(d.now()):
		return no(v, "the token has expired")
	case !slices.Contains(in.MACs, mac):
		return no(v, "the token was made for the port "+mac+", which this unit does not name as its own")
	}
	named := in.SerialField == record.FirmwareSerial && serial != ""
	if named && serial != name {
		return no(v, "the token was made for the serial number "+serial)
	}
	v.mac = mac
	var shared bool
	var owner string
	var proven bool
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM shared_ports WHERE mac = ?), coalesce((SELECT unit FROM ports WHERE mac = ?), ''), coalesce((SELECT proven FROM ports WHERE mac = ?), 0)`,
		mac, mac, mac).Scan(&shared, &owner, &proven)
	if err != nil {
		return v, fmt.Errorf("read ports: %w", err)
	}
	own := owner == in.Unit && !shared
	var elsewhere string
	err = tx.QueryRowContext(ctx, `SELECT unit FROM enrolments WHERE public_key = ? AND status = 'active' AND unit <> ? LIMIT 1`, in.PublicKey, in.Unit).Scan(&elsewhere)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("read enrolments: %w", err)
	}
	over, err := hasEnded(ctx, tx, in)
	switch {
	case err != nil:
		return v, err
	case over:
		return no(v, "this key was revoked when the unit was erased")
	case elsewhere != "":
		return no(v, "this key speaks for the unit "+elsewhere)
	case in.ByPerson:
		return no(v, "this server takes no key without a person")
	case !shared && !own && owner != "" && proven:
		return no(v, "the port "+mac+" belongs to the unit "+owner+" until it is released there or listed as a shared adapter")
	case !taken:
		v.good = true
		return v, nil
	case !active.Asked.IsZero():
		return no(v, "the key that speaks for this unit has got its credentials")
	case shared && active.MAC == mac && named:
	case !own:
		return no(v, "the unit is known with other ports")
	}
	v.good = true
	return v, nil
}

// storePending stores a key that needs an operator. There is always room (makeRoom).
func storePending(ctx context.Context, tx *sql.Tx, in EnrolInput, v verdict, now time.Time) (e Enrolment, err error) {
	err = scanEnrolment(tx.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE unit = ? AND public_key = ?
		AND (status = 'pending' OR status = 'rejected' AND approved_by <> '') ORDER BY id DESC LIMIT 1`, in.Unit, in.PublicKey), &e)
	switch {
	case err == nil && e.Status == Rejected:
		return e, ErrRejected
	case err == nil:
		e.Seen, e.Reason, e.MAC = now.UTC(), v.why, v.mac
		macs, bmc, jerr := macsText(in)
		if jerr != nil {
			return e, jerr
		}
		_, err = tx.ExecContext(ctx, `UPDATE enrolments SET seen = ?, reason = ?, mac = ?, macs = ?, bmc_macs = ?, held_generation = ?, held_provisioned = ?, remote = ? WHERE id = ?`,
			nano(now), v.why, v.mac, macs, bmc, heldNumber(in.Held), in.Held.Provisioned, in.Remote, e.ID)
		return e, err
	case !errors.Is(err, ErrNotFound):
		return e, err
	}
	if err := makeRoom(ctx, tx, in); err != nil {
		return e, err
	}
	if err := ensureUnit(ctx, tx, in.Unit, now); err != nil {
		return e, err
	}
	return insertEnrolment(ctx, tx, in, Pending, v, now)
}

// makeRoom removes waiting keys so that one more fits: first those of the same address beyond its share, then those
// of the address with the most. Of one address it removes the key whose last request is the oldest, because a unit
// that is still there asks every few seconds.
func makeRoom(ctx context.Context, tx *sql.Tx, in EnrolInput) error {
	drop := func(query string, args ...any) error {
		var id int64
		var unit string
		err := tx.QueryRowContext(ctx, query, args...).Scan(&id, &unit)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM enrolments WHERE id = ?`, id)
		}
		if err == nil && unit != in.Unit {
			_, err = tx.ExecContext(ctx, `DELETE FROM units WHERE id = ?`+nothingElse, unit)
		}
		if err != nil {
			return fmt.Errorf("make room for keys that wait: %w", err)
		}
		return nil
	}
	const most = `(SELECT remote FROM enrolments WHERE status = 'pending' AND (? = '' OR unit = ?) GROUP BY remote ORDER BY count(*) DESC, min(seen) LIMIT 1)`
	return errors.Join(
		drop(`SELECT id, unit FROM enrolments WHERE status = 'pending' AND remote = ? AND (SELECT count(*) FROM enrolments WHERE status = 'pending' AND remote = ?) >= ? ORDER BY seen, id LIMIT 1`,
			in.Remote, in.Remote, maxPendingAddress),
		drop(`SELECT id, unit FROM enrolments WHERE status = 'pending' AND unit = ? AND (SELECT count(*) FROM enrolments WHERE status = 'pending' AND unit = ?) >= ? AND remote = `+most+` ORDER BY seen, id LIMIT 1`,
			in.Unit, in.Unit, maxPendingUnit, in.Unit, in.Unit),
		drop(`SELECT id, unit FROM enrolments WHERE status = 'pending' AND (SELECT count(*) FROM enrolments WHERE status = 'pending') >= ? AND remote = `+most+` ORDER BY seen, id LIMIT 1`,
			maxPending, "", ""),
	)
}

func macsText(in EnrolInput) (macs, bmc string, err error) {
	a, err1 := json.Marshal(in.MACs)
	b, err2 := json.Marshal(in.BMCMACs)
	return string(a), string(b), errors.Join(err1, err2)
}

func insertEnrolment(ctx context.Context, tx *sql.Tx, in EnrolInput, status EnrolStatus, v verdict, now time.Time) (Enrolment, error) {
	e := Enrolment{Unit: in.Unit, PublicKey: in.PublicKey, Fingerprint: record.Fingerprint(in.PublicKey), Status: status, Boot: in.Boot, Platform: in.Platform, Remote: in.Remote,
		MAC: v.mac, Reason: v.why, Created: now.UTC(), Seen: now.UTC()}
	macs, bmc, err := macsText(in)
	if err != nil {
		return Enrolment{}, err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO enrolments (unit, public_key, status, token_hash, boot, platform, remote, created, seen, mac, macs, bmc_macs, serial_field, reason, held_generation, held_provisioned)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		in.Unit, in.PublicKey, status, v.hash, in.Boot, in.Platform, in.Remote, nano(now), nano(now), v.mac, macs, bmc, in.SerialField, v.why, heldNumber(in.Held), in.Held.Provisioned).Scan(&e.ID)
	if err != nil {
		return Enrolment{}, fmt.Errorf("store enrolment: %w", err)
	}
	return e, nil
}

// heldNumber returns the generation that a unit claims to have, or 0 if the claim is impossible.
func heldNumber(h Held) int64 {
	if h.Generation > maxHeld {
		return 0
	}
	return int64(h.Generation)
}

// ensureUnit makes the row of a unit if it is missing.
func ensureUnit(ctx context.Context, tx *sql.Tx, unit string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO units (id, first_seen, last_seen) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING`, unit, nano(now), nano(now))
	if err != nil {
		return fmt.Errorf("store unit: %w", err)
	}
	return nil
}

// depose gives the active key of a unit another status. Credentials that it got, and that no finished provisioning has set,
// become void, so that nobody takes them for the unit's.
func depose(ctx context.Context, tx *sql.Tx, unit string, u Unit, to EnrolStatus) error {
	if _, err := tx.ExecContext(ctx, `UPDATE secrets SET void = 1 WHERE unit = ? AND enrolment IN (SELECT id FROM enrolments WHERE unit = ? AND status = 'active')
		AND (confirmed = 0 OR confirmed > ?)`, unit, unit, nano(u.Provisioned)); err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = ? WHERE unit = ? AND status = 'active'`, to, unit); err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	return nil
}

// renew handles a request of a key that is already active. If it brings the token of a port, such as that of a new
// mainboard, the unit gets the port, unless another unit has it.
func (d *DB) renew(ctx context.Context, tx *sql.Tx, in EnrolInput, e Enrolment, v verdict, now time.Time) error {
	if err := tx.QueryRowContext(ctx, `UPDATE enrolments SET seen = ? WHERE id = ? RETURNING id`, nano(now), e.ID).Scan(&e.ID); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	if e.MAC = v.mac; v.mac != "" {
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET enrolment = ? WHERE hash = ?`, e.ID, v.hash); err != nil {
			return fmt.Errorf("enrol: %w", err)
		}
	}
	return d.accept(ctx, tx, in, e, now)
}

// accept stores what the request with an accepted key says about its unit.
func (d *DB) accept(ctx context.Context, tx *sql.Tx, in EnrolInput, e Enrolment, now time.Time) error {
	set := func(column, value string) error {
		if value == "" {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `UPDATE units SET `+column+` = ? WHERE id = ?`, value, in.Unit); err != nil {
			return fmt.Errorf("store unit: %w", err)
		}
		return nil
	}
	macs, bmc, err := macsText(in)
	if err != nil {
		return err
	}
	if len(in.MACs) == 0 {
		macs = ""
	}
	if len(in.BMCMACs) == 0 {
		bmc = ""
	}
	err = errors.Join(set("platform", in.Platform), set("macs", macs), set("bmc_macs", bmc), set("serial_field", in.SerialField))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE units SET last_seen = ? WHERE id = ?`, nano(now), in.Unit); err != nil {
		return fmt.Errorf("store unit: %w", err)
	}
	if err := claimPorts(ctx, tx, in.Unit, e.MAC, in.MACs, now); err != nil {
		return err
	}
	return takeHeld(ctx, tx, in.Unit, in.Held, e.ID, now)
}

// Approve makes a pending key the active one of its unit. fingerprint may be empty. The error is ErrFingerprint if it
// is not the key's, ErrNotFound if no such key waits, and ErrCompleted if the unit must be released first.
func (d *DB) Approve(ctx context.Context, unit string, enrolment int64, operator, fingerprint string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		u, err := scanUnit(tx.QueryRowContext(ctx, `SELECT `+unitColumns+` FROM units u WHERE u.id = ?`, unit))
		if err != nil {
			return err
		}
		e, macs, err := pendingKey(ctx, tx, unit, enrolment)
		if err != nil {
			return err
		}
		if u.Completed() {
			return ErrCompleted
		}
		if fingerprint != "" && !record.SameFingerprint(fingerprint, e.Fingerprint) {
			return ErrFingerprint
		}
		if err := depose(ctx, tx, unit, u, Replaced); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'active', approved_by = ? WHERE id = ?`, operator, enrolment); err != nil {
			return fmt.Errorf("approve: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET enrolment = ? WHERE hash = (SELECT token_hash FROM enrolments WHERE id = ?) AND enrolment = 0`, enrolment, enrolment); err != nil {
			return fmt.Errorf("approve: %w", err)
		}
		if e.Platform != "" {
			if _, err := tx.ExecContext(ctx, `UPDATE units SET platform = ? WHERE id = ?`, e.Platform, unit); err != nil {
				return fmt.Errorf("approve: %w", err)
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE units SET serial_field = (SELECT serial_field FROM enrolments WHERE id = ?) WHERE id = ?`, enrolment, unit); err != nil {
			return fmt.Errorf("approve: %w", err)
		}
		// The ports are those of this key's machine. Ports that another key has claimed become free.
		text, err := json.Marshal(macs)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM ports WHERE unit = ? AND mac NOT IN (SELECT value FROM json_each(?))`, unit, string(text)); err != nil {
			return fmt.Errorf("approve: %w", err)
		}
		now := d.now()
		if err := claimPorts(ctx, tx, unit, e.MAC, macs, now); err != nil {
			return err
		}
		var gen int64
		var held Held
		if err := tx.QueryRowContext(ctx, `SELECT held_generation, held_provisioned FROM enrolments WHERE id = ?`, enrolment).Scan(&gen, &held.Provisioned); err != nil {
			return fmt.Errorf("approve: %w", err)
		}
		held.Generation = uint64(gen)
		if err := takeHeld(ctx, tx, unit, held, enrolment, now); err != nil {
			return err
		}
		return action(ctx, tx, unit, nano(now), operator, fmt.Sprintf("approved the key %s of %s", e.Fingerprint, e.Remote))
	})
}

// Reject rejects a pending key. The error is ErrNotFound if no such key waits. The same key may ask again after a few days.
func (d *DB) Reject(ctx context.Context, unit string, enrolment int64, operator string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		e, _, err := pendingKey(ctx, tx, unit, enrolment)
		if err != nil {
			return err
		}
		now := nano(d.now())
		if _, err := tx.ExecContext(ctx, `UPDATE enrolments SET status = 'rejected', approved_by = ?, seen = ? WHERE id = ?`, operator, now, enrolment); err != nil {
			return fmt.Errorf("reject: %w", err)
		}
		return action(ctx, tx, unit, now, operator, fmt.Sprintf("rejected the key %s of %s", e.Fingerprint, e.Remote))
	})
}

// pendingKey returns a pending key and the ports that its unit has named.
func pendingKey(ctx context.Context, tx *sql.Tx, unit string, enrolment int64) (e Enrolment, macs []string, err error) {
	if err := scanEnrolment(tx.QueryRowContext(ctx, `SELECT `+enrolColumns+` FROM enrolments WHERE id = ? AND unit = ? AND status = 'pending'`, enrolment, unit), &e); err != nil {
		return e, nil, err
	}
	var text string
	if err := tx.QueryRowContext(ctx, `SELECT macs FROM enrolments WHERE id = ?`, enrolment).Scan(&text); err != nil {
		return e, nil, fmt.Errorf("read enrolment: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &macs); err != nil {
		return e, nil, fmt.Errorf("read enrolment: %w", err)
	}
	return e, macs, nil
}

// IsSerial reports whether a text from a machine's firmware is a serial number, and not one of the texts that stand for none.
func IsSerial(s string) bool {
	return record.CheckUnit(s) == nil && platform.Identity{Serial: s}.CheckSerial() == nil
}
