package store

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	"gprovision/model/record"
)

const mac3, adapter = "52:54:00:00:00:03", "52:54:00:00:00:aa"

// asker is a machine that boots over the network and wants its key accepted.
type asker struct {
	t    *testing.T
	db   *DB
	n    int
	unit string
	macs []string
	// field is where its name comes from.
	field string
	key   []byte
	held  Held
	// byPerson is the server's own setting.
	byPerson bool
}

func machine(t *testing.T, db *DB, unit string, n byte, macs ...string) *asker {
	return &asker{t: t, db: db, unit: unit, key: key(n), macs: macs, field: record.FirmwareSerial}
}

// script fetches a boot script with the first port and returns the token.
func (a *asker) script() string { return a.scriptAs(a.macs[0], a.unit, "10.7.0.50") }

func (a *asker) scriptAs(mac, serial, remote string) string {
	a.t.Helper()
	a.n++
	tok := fmt.Sprintf("%s-%x-%d", a.unit, a.key[0], a.n)
	now := a.db.now()
	if err := a.db.AddToken(a.t.Context(), tok, Token{MAC: mac, Serial: serial, Remote: remote, Created: now, Expires: now.Add(30 * time.Minute)}); err != nil {
		a.t.Fatal(err)
	}
	return tok
}

func (a *asker) enrol(tok, remote string) (Enrolment, string, error) {
	return a.db.Enrol(a.t.Context(), EnrolInput{Unit: a.unit, PublicKey: a.key, Token: tok, Boot: "b", SerialField: a.field, MACs: a.macs, Remote: remote, Held: a.held, ByPerson: a.byPerson})
}

// wants makes a request with a token and checks what becomes of the key. says is part of the reason.
func (a *asker) wants(tok string, want EnrolStatus, says string) Enrolment {
	a.t.Helper()
	e, reason, err := a.enrol(tok, "10.7.0.51")
	if err != nil || e.Status != want || !strings.Contains(reason, says) {
		a.t.Fatalf("%s: got %s %q %v, want %s with %q", a.unit, e.Status, reason, err, want, says)
	}
	return e
}

func (a *asker) credentials(e Enrolment) (gen uint64, err error) {
	err = a.db.AddSecret(a.t.Context(), e.Unit, e.ID, func(g uint64) ([]byte, error) { gen = g; return fmt.Appendf(nil, "%s %x %d", a.unit, a.key[0], g), nil })
	return gen, err
}

func (a *asker) finish(e Enrolment) {
	a.t.Helper()
	gen, err := a.credentials(e)
	if err == nil {
		err = a.db.ConfirmSecret(a.t.Context(), e.Unit, e.ID, gen)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	add(a.t, a.db, e.Unit, state(fmt.Sprintf("b%d", gen), 1, record.JobProvision, record.Succeeded))
}

// testTakeover: a stranger on the factory network tries to speak for a unit.
func testTakeover(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	victim := machine(t, db, "S1", 1, mac1)
	stranger := machine(t, db, "S1", 9, mac2)
	// Before the unit is ever seen, its name can be taken with another port. That only makes a person necessary.
	early := stranger.wants(stranger.script(), Active, "")
	own := victim.wants(victim.script(), Pending, "other ports")
	if err := db.Approve(ctx, "S1", own.ID, "op", early.Fingerprint); !errors.Is(err, ErrFingerprint) {
		t.Fatal("approved by the fingerprint of another key:", err)
	}
	if _, err := stranger.credentials(early); err != nil {
		t.Fatal(err)
	}
	if err := db.ConfirmSecret(ctx, "S1", early.ID, 1); err != nil {
		t.Fatal(err)
	}
	if err := db.Approve(ctx, "S1", own.ID, "op", strings.ToLower(own.Fingerprint)); err != nil {
		t.Fatal(err)
	}
	if v, err := db.ReadSecret(ctx, "S1", 0, "op", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("the operator reads the stranger's passwords: %+v %v", v, err)
	}
	if _, err := stranger.credentials(early); !errors.Is(err, ErrNotEnrolled) {
		t.Error("the stranger gets more:", err)
	}
	// The unit has been seen, but has no credentials yet.
	stranger.wants(stranger.script(), Pending, "other ports")
	stranger.wants(stranger.scriptAs(mac2, "S9", "10.7.0.9"), Pending, "serial number S9")
	stranger.macs = []string{mac2, mac1} // it claims the unit's port as its own
	stranger.wants(stranger.script(), Pending, "other ports")
	stranger.wants("", Pending, "no token")
	if k, err := db.ActiveKey(ctx, "S1"); err != nil || k.ID != own.ID {
		t.Fatal(k, err)
	}
	// Forging port and address gives a token, but once the unit has credentials the token is worthless.
	if _, err := victim.credentials(own); err != nil {
		t.Fatal(err)
	}
	stranger.wants(stranger.scriptAs(mac1, "S1", "10.7.0.50"), Pending, "has got its credentials")
	if v, err := db.ReadSecret(ctx, "S1", 0, "op", ""); err != nil || string(v.Ciphertext) != "S1 1 2" || !v.Active || v.Fingerprint != own.Fingerprint {
		t.Errorf("%+v %v", v, err)
	}
	victim.finish(own)
	if _, _, err := stranger.enrol(stranger.scriptAs(mac1, "S1", "10.7.0.50"), ""); !errors.Is(err, ErrCompleted) {
		t.Error("a completed unit:", err)
	}
	if err := db.Release(ctx, "S1", "op"); err != nil {
		t.Fatal(err)
	}
	stranger.wants(stranger.scriptAs(mac1, "S1", "10.7.0.50"), Pending, "has got its credentials")
	victim.wants(victim.script(), Active, "")

	// On this server an operator must approve each key.
	third := machine(t, db, "S3", 3, mac3)
	third.byPerson = true
	e := third.wants(third.script(), Pending, "without a person")
	if err := db.Approve(ctx, "S3", e.ID, "op", e.Fingerprint); err != nil {
		t.Fatal(err)
	}
	third.wants("", Active, "")
	if p, err := db.Ports(ctx, "S3"); err != nil || len(p) != 1 || !p[0].Proven {
		t.Error(p, err)
	}
}

// testCut: the power fails after each step of a provisioning. lost means that the key is lost too: it was not yet on
// the recovery volume, or the volume was formatted. Each boot has another address than iPXE had.
func testCut(t *testing.T, db *DB, _ *clock) {
	for i, c := range []struct {
		after string
		lost  bool
		asked bool // the key has got credentials
		want  EnrolStatus
	}{
		{"script", true, false, Active},
		{"enrol", true, false, Active},
		{"format-recovery", false, false, Active},
		{"write-files", false, false, Active},
		{"credentials", false, true, Active},
		{"write-record", false, true, Active},
		{"a new recovery device", true, true, Pending},
	} {
		mac := fmt.Sprintf("52:54:00:00:01:%02x", i)
		m := machine(t, db, fmt.Sprint("S", i), byte(i+1), mac)
		tok := m.script()
		var first Enrolment
		if c.after != "script" {
			first = m.wants(tok, Active, "")
			m.wants(tok, Active, "") // the answer got lost
		}
		if c.asked {
			if _, err := m.credentials(first); err != nil {
				t.Fatal(err)
			}
		}
		if c.lost {
			m.key = key(byte(i + 101))
		}
		again, reason, err := m.enrol(m.scriptAs(mac, m.unit, "10.7.0.99"), "10.7.0.100")
		if err != nil || again.Status != c.want || (again.ID == first.ID) != (!c.lost && c.after != "script") {
			t.Errorf("after %s: %+v %q %v", c.after, again, reason, err)
		}
		if c.want != Active {
			continue
		}
		if _, err := m.credentials(again); err != nil {
			t.Errorf("after %s: no credentials: %v", c.after, err)
		}
	}
}

// testMainboard replaces a unit's mainboard: its ports change, and perhaps its serial number.
func testMainboard(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	m := machine(t, db, "S1", 1, mac1)
	m.finish(m.wants(m.script(), Active, ""))
	// The serial number is the same. The port is another. The recovery disk still has the key.
	m.macs = []string{mac2}
	if u, err := db.FindUnit(ctx, "S1", mac2); err != nil || !u.Completed() {
		t.Error(u, err)
	}
	m.wants(m.script(), Active, "")
	if p, err := db.Ports(ctx, "S1"); err != nil || len(p) != 2 || !p[1].Proven || p[1].MAC != mac2 {
		t.Errorf("%+v %v", p, err)
	}
	// A unit in its own right cannot be a board of another.
	other := machine(t, db, "BOARD-2", 2, mac3)
	other.wants(other.script(), Active, "")
	if err := db.Join(ctx, "S1", "BOARD-2", "", "op"); !errors.Is(err, ErrTaken) {
		t.Error("a name that is a unit itself:", err)
	}
	m.unit, m.macs = "BOARD-3", []string{"52:54:00:00:00:04"}
	m.wants(m.script(), Pending, "speaks for the unit S1")
	for _, bad := range [][2]string{{"", ""}, {"Default string", ""}, {"", "nonsense"}} {
		if err := db.Join(ctx, "S1", bad[0], bad[1], "op"); !errors.Is(err, ErrInput) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := db.Join(ctx, "nobody", "BOARD-3", "", "op"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := db.Join(ctx, "S1", "", mac3, "op"); !errors.Is(err, ErrTaken) {
		t.Error("a port of another unit:", err)
	}
	if err := db.Join(ctx, "S1", "BOARD-3", "52-54-00-00-00-04", "op"); err != nil {
		t.Fatal(err)
	}
	if e := m.wants(m.script(), Active, ""); e.Unit != "S1" {
		t.Error(e)
	}
	if k, err := db.ActiveKey(ctx, "BOARD-3"); err != nil || k.Unit != "S1" {
		t.Error(k, err)
	}
	for _, q := range [][2]string{{"BOARD-3", ""}, {"", "52:54:00:00:00:04"}, {"BOARD-3", "52:54:00:00:00:04"}} {
		if u, err := db.FindUnit(ctx, q[0], q[1]); err != nil || u.ID != "S1" {
			t.Error(q, u.ID, err)
		}
	}
	if a, err := db.Aliases(ctx, "S1"); err != nil || len(a) != 1 || a[0].Name != "BOARD-3" || a[0].Operator != "op" {
		t.Error(a, err)
	}
	if err := db.Join(ctx, "BOARD-2", "BOARD-3", "", "op"); !errors.Is(err, ErrTaken) {
		t.Error("a name of another unit:", err)
	}
}

// testAdapter moves one USB adapter from unit to unit.
func testAdapter(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	first := machine(t, db, "S1", 1, adapter, mac1)
	first.finish(first.wants(first.script(), Active, ""))
	second := machine(t, db, "S2", 2, adapter, mac2)
	if u, err := db.FindUnit(ctx, "S2", adapter); !errors.Is(err, ErrNotFound) {
		t.Error("the second unit is taken for the first:", u.ID, err)
	}
	tok := second.script()
	second.wants(tok, Pending, "belongs to the unit S1")
	if err := db.SharePort(ctx, strings.ToUpper(adapter), "station 3", "op"); err != nil {
		t.Fatal(err)
	}
	e := second.wants(tok, Active, "")
	// The power fails before the key is on the volume. The serial number shows that it is the same unit.
	second.key = key(12)
	second.wants(second.script(), Active, "")
	// Without a serial number in the firmware, nothing shows which unit it is.
	second.key = key(13)
	second.wants(second.scriptAs(adapter, "", ""), Pending, "other ports")
	for i, unit := range []string{"S4", "S5", "S6"} {
		m := machine(t, db, unit, byte(40+i), adapter, fmt.Sprint("52:54:00:00:02:0", i))
		m.finish(m.wants(m.script(), Active, ""))
		if u, err := db.FindUnit(ctx, "", adapter); !errors.Is(err, ErrNotFound) {
			t.Error(u.ID, err)
		}
		if u, err := db.FindUnit(ctx, unit, adapter); err != nil || u.ID != unit {
			t.Error(u.ID, err)
		}
	}
	p, err := db.SharedPorts(ctx)
	if err != nil || len(p) != 1 || p[0].Note != "station 3" || p[0].Operator != "op" || p[0].MAC != adapter {
		t.Error(p, err)
	}
	if err := db.UnsharePort(ctx, adapter); err != nil {
		t.Error(err)
	}
	if err := db.UnsharePort(ctx, adapter); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := db.SharePort(ctx, "x", "", "op"); !errors.Is(err, ErrInput) {
		t.Error(err)
	}
	_ = e
}

// testPorts checks which unit a port belongs to.
func testPorts(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	owns := func(unit string, want ...string) {
		t.Helper()
		p, err := db.Ports(ctx, unit)
		var got []string
		for _, x := range p {
			got = append(got, x.MAC)
		}
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s has %v, want %v, %v", unit, got, want, err)
		}
	}
	// Merely naming a port that nobody was seen with is worth less than booting from it.
	greedy := machine(t, db, "G", 1, mac2, mac1)
	e := greedy.wants(greedy.script(), Active, "")
	owns("G", mac1, mac2)
	victim := machine(t, db, "S1", 2, mac1)
	victim.wants(victim.script(), Active, "")
	owns("G", mac2)
	owns("S1", mac1)
	// A completed unit gets no more ports by naming them, whether they belong to others or to nobody.
	greedy.finish(e)
	greedy.macs = []string{mac2, mac1, mac3}
	greedy.wants("", Active, "")
	fact := record.Event{Boot: "b9", Seq: 1, Kind: record.KindFact, Source: record.Observed, Attrs: map[string]any{"name": record.FactMACs, "value": []any{mac1, mac3}}}
	add(t, db, "G", fact)
	owns("G", mac2)
	owns("S1", mac1)
	if u, err := db.FindUnit(ctx, "", mac1); err != nil || u.ID != "S1" {
		t.Error(u.ID, err)
	}
	if u, err := db.FindUnit(ctx, "", mac3); !errors.Is(err, ErrNotFound) {
		t.Error(u.ID, err)
	}
	// An operator releases a port.
	other := machine(t, db, "S7", 7, mac2)
	tok := other.script()
	other.wants(tok, Pending, "belongs to the unit G")
	if err := db.ReleasePort(ctx, mac2, "op"); err != nil {
		t.Fatal(err)
	}
	if err := db.ReleasePort(ctx, mac2, "op"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	other.wants(tok, Active, "")
	owns("S7", mac2)
	if a, err := db.Actions(ctx, "G"); err != nil || len(a) != 1 || a[0].Operator != "op" {
		t.Error(a, err)
	}
	// The serial number from iPXE does not count for a unit whose name comes from another field.
	board := machine(t, db, "BB1", 8, mac3)
	board.field = "baseboard-serial-number"
	board.wants(board.scriptAs(mac3, "CHASSIS", ""), Active, "")
	for _, q := range []struct {
		serial, mac string
		want        string
	}{{"CHASSIS", mac3, "BB1"}, {"", mac3, "BB1"}, {"BB1", "", ""}, {"S1", mac3, "S1"}, {"S9", mac1, ""}} {
		u, err := db.FindUnit(ctx, q.serial, q.mac)
		if u.ID != q.want || (q.want == "") != errors.Is(err, ErrNotFound) {
			t.Errorf("%+v: %q %v", q, u.ID, err)
		}
	}
}

// testReject: an operator's rejection counts, and only for that key.
func testReject(t *testing.T, db *DB, c *clock) {
	m := machine(t, db, "S1", 1, mac1)
	e := m.wants("", Pending, "")
	if err := db.Reject(t.Context(), "S2", e.ID, "op"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := db.Reject(t.Context(), "S1", e.ID, "op"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := m.enrol("", ""); !errors.Is(err, ErrRejected) {
			t.Error(err)
		}
	}
	if err := db.Approve(t.Context(), "S1", e.ID, "op", ""); !errors.Is(err, ErrNotFound) {
		t.Error("approved after it was rejected:", err)
	}
	machine(t, db, "S1", 2, mac1).wants("", Pending, "")
	c.add(3 * pendingAge)
	m.wants("", Pending, "")
}

// testFloods: strangers fill whatever they can. A unit that comes later still gets its token and its place, and keeps
// them for a while.
func testFloods(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	flood := func(unit string, from, n int) {
		for i := range n {
			in := EnrolInput{Unit: unit, PublicKey: key(byte(i)), Boot: "b", Remote: fmt.Sprint("10.9.", from, ".", i%4)}
			if unit == "" {
				in.Unit = fmt.Sprint("X", from, "-", i)
			}
			in.PublicKey[1] = byte(i >> 8)
			in.PublicKey[2] = byte(from)
			if e, _, err := db.Enrol(ctx, in); err != nil || e.Status != Pending {
				t.Fatal(e, err)
			}
		}
	}
	count := func(what string, most int) {
		t.Helper()
		var n int
		if err := db.r.QueryRowContext(ctx, "SELECT count(*) FROM "+what).Scan(&n); err != nil || n > most {
			t.Errorf("%d of %s, want at most %d, %v", n, what, most, err)
		}
	}
	victim := machine(t, db, "S1", 200, mac1)
	flood("S1", 1, 40)
	e := victim.wants("", Pending, "")
	flood("S1", 2, 40)
	flood("", 3, 40)
	if got := victim.wants("", Pending, ""); got.ID != e.ID {
		t.Error("the unit lost its place to a flood of a few addresses")
	}
	if err := db.Approve(ctx, "S1", e.ID, "op", e.Fingerprint); err != nil {
		t.Error(err)
	}
	count("enrolments WHERE status = 'pending'", 12*maxPendingAddress)
	count("units", 12*maxPendingAddress+1)

	second := machine(t, db, "S2", 201, mac2)
	tok := second.script()
	stranger := machine(t, db, "T", 1, mac3)
	for i := range 20 {
		stranger.scriptAs(fmt.Sprintf("52:54:00:00:03:%02x", i), "T", "10.9.0.1")
	}
	count("tokens WHERE remote = '10.9.0.1'", maxTokensAddress)
	second.wants(tok, Active, "")
}

// TestTokenRoom fills the store with tokens of many addresses. A new token finds room, at the expense of the address
// with the most.
func TestTokenRoom(t *testing.T) {
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := nano(time.Now())
	_, err = db.w.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
		INSERT INTO tokens (hash, mac, serial, remote, created, expires) SELECT i, 'm' || i, '', CASE WHEN i < 12 THEN 'greedy' ELSE 'r' || i END, ? + i, ? FROM n`,
		maxTokens, now, now+int64(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	m := machine(t, db, "S1", 1, mac1)
	tok := m.script()
	var all, greedy int
	if err := db.r.QueryRowContext(t.Context(), `SELECT count(*), count(CASE WHEN remote = 'greedy' THEN 1 END) FROM tokens`).Scan(&all, &greedy); err != nil || all != maxTokens || greedy != 11 {
		t.Error(all, greedy, err)
	}
	m.wants(tok, Active, "")
}

// testRestored uses a server restored from a backup: units know more than it does.
func testRestored(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	backup := filepath.Join(t.TempDir(), "backup.db")
	early := machine(t, db, "S1", 1, mac1)
	e := early.wants(early.script(), Active, "")
	gen, err := early.credentials(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Backup(ctx, backup); err != nil {
		t.Fatal(err)
	}
	if err := db.Backup(ctx, backup); err == nil {
		t.Error("a backup was overwritten")
	}
	// After the backup the unit is completed. A second unit arrives and is completed too.
	if err := db.ConfirmSecret(ctx, "S1", e.ID, gen); err != nil {
		t.Fatal(err)
	}
	late := machine(t, db, "S2", 2, mac2)
	late.finish(late.wants(late.script(), Active, ""))

	old, err := Open(ctx, backup)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if id, since, err := old.Epoch(ctx); err != nil || id != "" || !since.IsZero() {
		t.Error(id, since, err)
	}
	if err := old.BeginEpoch(ctx); err != nil {
		t.Fatal(err)
	}
	if id, since, err := old.Epoch(ctx); err != nil || id == "" || since.IsZero() {
		t.Error(id, since, err)
	}
	// A network boot of the completed unit must not make it a new one. It says what it holds before it asks for
	// permission.
	if u, err := old.FindUnit(ctx, "S1", mac1); err != nil || u.Completed() {
		t.Error(u, err)
	}
	// The unit that the backup knows says what it holds, with its existing key.
	early.db, early.held = old, Held{Generation: gen, Provisioned: true}
	again := early.wants("", Active, "")
	if again.ID != e.ID {
		t.Error("another key")
	}
	if u, err := old.Unit(ctx, "S1"); err != nil || !u.Completed() || !u.Confirmed {
		t.Errorf("%+v %v", u, err)
	}
	if _, err := early.credentials(again); !errors.Is(err, ErrConfirmed) {
		t.Error("confirmed credentials are made anew:", err)
	}
	if v, err := old.ReadSecret(ctx, "S1", 0, "op", ""); err != nil || v.Generation != gen {
		t.Error(v, err)
	}
	// The unit that the backup does not know keeps its key, once a person has approved it.
	late.db, late.held = old, Held{Generation: 1, Provisioned: true}
	w := late.wants("", Pending, "backup")
	if err := old.Approve(ctx, "S2", w.ID, "op", w.Fingerprint); err != nil {
		t.Fatal(err)
	}
	if u, err := old.Unit(ctx, "S2"); err != nil || !u.Completed() || !u.Confirmed {
		t.Errorf("%+v %v", u, err)
	}
	if _, err := late.credentials(w); !errors.Is(err, ErrConfirmed) {
		t.Error("confirmed credentials are made anew:", err)
	}
	if v, err := old.ReadSecret(ctx, "S2", 0, "op", ""); !errors.Is(err, ErrLost) {
		t.Error(v, err)
	}
	// After a release, it gets new credentials with a number of their own.
	if err := old.Release(ctx, "S2", "op"); err != nil {
		t.Fatal(err)
	}
	if g, err := late.credentials(w); err != nil || g != 2 {
		t.Error(g, err)
	}
	// Nobody else can say what a unit holds.
	thief := machine(t, old, "S1", 9, mac3)
	thief.held = Held{Generation: 1 << 40, Provisioned: true}
	if _, _, err := thief.enrol(thief.script(), ""); !errors.Is(err, ErrCompleted) {
		t.Error(err)
	}
	if s, err := old.Secrets(ctx, "S1"); err != nil || len(s) != 1 {
		t.Error(s, err)
	}
}

// TestPortsOfOldDatabase opens a database from before ports had owners. The ports that its units reported are kept.
// An adapter that several units had is a shared one. Keys that have got credentials cannot be replaced.
func TestPortsOfOldDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	w, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, w, sub, goose.WithDisableGlobalRegistry(true))
	if err == nil {
		_, err = p.UpTo(t.Context(), 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.ExecContext(t.Context(), `
		INSERT INTO units (id, macs, first_seen, last_seen) VALUES ('S1', '["`+mac1+`","`+adapter+`"]', 5, 6), ('S2', '["`+mac2+`","`+adapter+`"]', 7, 8), ('S3', '[]', 9, 9);
		INSERT INTO tokens (hash, mac, serial, remote, created, expires, enrolment) VALUES (x'01', '`+mac1+`', 'S1', '10.7.0.2', 5, 6, 1);
		INSERT INTO enrolments (unit, public_key, status, token_hash, boot, created) VALUES ('S1', ?, 'active', x'01', 'b', 5), ('S2', ?, 'active', x'02', 'b', 7);
		INSERT INTO secrets (unit, generation, enrolment, ciphertext, created) VALUES ('S1', 1, 1, x'00', 6);`, key(1), key(2))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ports, err := db.Ports(t.Context(), "")
	for i := range ports {
		ports[i].Since = time.Time{}
	}
	if want := []Port{{MAC: mac1, Unit: "S1", Proven: true}, {MAC: mac2, Unit: "S2"}}; err != nil || !cmp.Equal(ports, want) {
		t.Errorf("%+v %v", ports, err)
	}
	if s, err := db.SharedPorts(t.Context()); err != nil || len(s) != 1 || s[0].MAC != adapter {
		t.Errorf("%+v %v", s, err)
	}
	asked := machine(t, db, "S1", 9, mac1)
	asked.wants(asked.script(), Pending, "has got its credentials")
	first := machine(t, db, "S1", 1, mac1)
	first.wants("", Active, "")
	fresh := machine(t, db, "S2", 9, mac2)
	fresh.wants(fresh.script(), Active, "")
}
