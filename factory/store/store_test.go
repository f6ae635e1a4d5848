package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gprovision/model/record"
)

// conformance tests what every store must do, wherever it keeps its rows. open returns an empty one.
func conformance(t *testing.T, open func(t *testing.T) *DB) {
	for name, f := range map[string]func(*testing.T, *DB, *clock){
		"enrol":      testEnrol,
		"pending":    testPending,
		"tokens":     testTokens,
		"events":     testEvents,
		"order":      testOrder,
		"release":    testRelease,
		"secrets":    testSecrets,
		"facts":      testFacts,
		"documents":  testDocuments,
		"logins":     testLogins,
		"concurrent": testConcurrent,
		"takeover":   testTakeover,
		"cut":        testCut,
		"mainboard":  testMainboard,
		"adapter":    testAdapter,
		"ports":      testPorts,
		"reject":     testReject,
		"floods":     testFloods,
		"restored":   testRestored,
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t)
			c := &clock{t: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
			db.now = c.now
			f(t, db, c)
		})
	}
}

func TestSQLite(t *testing.T) {
	conformance(t, func(t *testing.T) *DB {
		db, err := Open(t.Context(), filepath.Join(t.TempDir(), "a b?#%.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		return db
	})
}

// TestReopen: an existing file is opened with its content, and others cannot read it.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	for i := range 2 {
		db, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			enrol(t, db, "S1", 1)
		} else if _, err := db.Unit(t.Context(), "S1"); err != nil {
			t.Error(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(time.Millisecond)
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

const mac1, mac2 = "52:54:00:00:00:01", "52:54:00:00:00:02"

func key(n byte) []byte { b := make([]byte, 32); b[0] = n; return b }

func token(t *testing.T, db *DB, text, mac, serial string) {
	t.Helper()
	now := db.now()
	if err := db.AddToken(t.Context(), text, Token{MAC: mac, Serial: serial, Created: now, Expires: now.Add(30 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
}

// enrol makes key n speak for a unit, with a new token.
func enrol(t *testing.T, db *DB, unit string, n byte) Enrolment {
	t.Helper()
	tok := fmt.Sprintf("token-%s-%d", unit, n)
	token(t, db, tok, mac1, unit)
	e, reason, err := db.Enrol(t.Context(), EnrolInput{Unit: unit, PublicKey: key(n), Token: tok, Boot: "b", MACs: []string{mac1}, Platform: "P"})
	if err != nil || e.Status != Active {
		t.Fatalf("enrol: %v %q %v", e.Status, reason, err)
	}
	return e
}

func state(boot string, n uint64, job record.Job, phase record.Phase) record.Event {
	return record.Event{Boot: boot, Seq: n, Kind: record.KindState, Source: record.Observed, Attrs: record.State{Job: job, Phase: phase, Percent: -1}.Attrs()}
}

func add(t *testing.T, db *DB, unit string, ev ...record.Event) int {
	t.Helper()
	n, err := db.AddEvents(t.Context(), unit, ev)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testEnrol(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	first := enrol(t, db, "S1", 1)
	in := EnrolInput{Unit: "S1", PublicKey: key(1), Token: "token-S1-1", Boot: "b", MACs: []string{mac1}}
	if e, _, err := db.Enrol(ctx, in); err != nil || e.ID != first.ID {
		t.Errorf("the repeated request: %v %v", e, err)
	}
	in.PublicKey = key(2)
	if e, _, err := db.Enrol(ctx, in); err != nil || e.Status != Pending {
		t.Errorf("a used token enrols another key: %v %v", e, err)
	}
	second := enrol(t, db, "S1", 3)
	if k, err := db.ActiveKey(ctx, "S1"); err != nil || k.ID != second.ID {
		t.Errorf("active key: %v %v", k, err)
	}
	u, err := db.Unit(ctx, "S1")
	if err != nil || !u.Enrolled || u.Pending != 1 || u.Platform != "P" || !cmp.Equal(u.MACs, []string{mac1}) {
		t.Errorf("%+v %v", u, err)
	}
	for _, q := range [][2]string{{"S1", ""}, {"", mac1}, {"x", mac1}} {
		if u, err := db.FindUnit(ctx, q[0], q[1]); err != nil || u.ID != "S1" {
			t.Errorf("find %v: %v", q, err)
		}
	}
	if _, err := db.FindUnit(ctx, "", mac2); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func testPending(t *testing.T, db *DB, c *clock) {
	ctx := t.Context()
	in := EnrolInput{Unit: "S1", PublicKey: key(1), Boot: "b", Remote: "10.0.0.9", Platform: "P"}
	e, reason, err := db.Enrol(ctx, in)
	if err != nil || e.Status != Pending || reason == "" {
		t.Fatal(e, reason, err)
	}
	if again, _, err := db.Enrol(ctx, in); err != nil || again.ID != e.ID {
		t.Error("a second row for the same key", again, err)
	}
	if _, err := db.ActiveKey(ctx, "S1"); !errors.Is(err, ErrNotFound) {
		t.Error("an unapproved key is active")
	}
	if err := db.Approve(ctx, "S2", e.ID, "op", ""); !errors.Is(err, ErrNotFound) {
		t.Error("approved for another unit", err)
	}
	if err := db.Approve(ctx, "S1", e.ID, "op", ""); err != nil {
		t.Fatal(err)
	}
	if again, _, err := db.Enrol(ctx, in); err != nil || again.Status != Active {
		t.Error(again, err)
	}
	a, err := db.Actions(ctx, "S1")
	if err != nil || len(a) != 1 || a[0].Operator != "op" {
		t.Error(a, err)
	}
	// Strangers can store only a limited amount.
	for _, fill := range []string{
		`INSERT INTO units (id, first_seen, last_seen) SELECT 'X' || i, ?, ? FROM n`,
		`INSERT INTO enrolments (unit, public_key, status, boot, remote, created, seen) SELECT 'X' || i, i, 'pending', 'b', 'r' || i / 4, ?, ? FROM n`,
	} {
		now := nano(db.now())
		if _, err := db.w.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) `+fill, maxPending, now, now); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		in := EnrolInput{Unit: fmt.Sprint("V", i), PublicKey: key(byte(i)), Boot: "b", Remote: "10.0.0.3"}
		if e, _, err := db.Enrol(ctx, in); err != nil || e.Status != Pending {
			t.Fatal(e, err)
		}
	}
	if _, total, err := db.Units(ctx, 0, 10); err != nil || total != maxPending+1 { // and S1, which is enrolled
		t.Errorf("%d units, %v", total, err)
	}
	c.add(4 * pendingAge)
	if _, _, err := db.Enrol(ctx, EnrolInput{Unit: "Y", PublicKey: key(1), Boot: "b"}); err != nil {
		t.Error("old ones stay for ever:", err)
	}
	if _, _, err := db.Enrol(ctx, EnrolInput{Unit: "Z", PublicKey: key(1), Boot: "b"}); err != nil {
		t.Error(err)
	}
	units, total, err := db.Units(ctx, 0, 10)
	if err != nil || len(units) != 3 || total != 3 {
		t.Errorf("%d of %d units stay, %v", len(units), total, err)
	}
}

func testTokens(t *testing.T, db *DB, c *clock) {
	ctx := t.Context()
	ask := func(unit, tok string, macs ...string) EnrolStatus {
		e, _, err := db.Enrol(ctx, EnrolInput{Unit: unit, PublicKey: key(9), Token: tok, Boot: "b", MACs: macs})
		if err != nil {
			t.Fatal(err)
		}
		return e.Status
	}
	token(t, db, "a", mac1, "S1")
	if got := ask("S2", "a", mac2); got != Pending {
		t.Error("a token of another unit:", got)
	}
	token(t, db, "b", mac1, "S1") // replaces a
	if got := ask("S1", "a", mac1); got != Pending {
		t.Error("a replaced token:", got)
	}
	if list, err := db.Tokens(ctx); err != nil || len(list) != 1 || list[0].MAC != mac1 {
		t.Error(list, err)
	}
	if got := ask("BOARD7", "b", mac1); got != Active {
		t.Error("known by its port:", got)
	}
	if list, _ := db.Tokens(ctx); len(list) != 0 {
		t.Error("a used token still waits", list)
	}
	// A machine cannot use its own token to become a unit that is known with other ports.
	token(t, db, "c", mac2, "THIEF")
	e, _, err := db.Enrol(ctx, EnrolInput{Unit: "BOARD7", PublicKey: key(10), Token: "c", Boot: "b", MACs: []string{mac2, mac1}})
	if err != nil || e.Status != Pending {
		t.Error("stolen:", e.Status, err)
	}
	token(t, db, "d", mac1, "S5")
	c.add(time.Hour)
	if got := ask("S5", "d", mac1); got != Pending {
		t.Error("an expired token:", got)
	}
}

func testEvents(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	enrol(t, db, "S1", 1)
	ev := []record.Event{
		{Boot: "b1", Seq: 1, Time: time.Unix(100, 5).UTC(), Kind: record.KindLog, Source: record.Observed, Level: "INFO", Message: "hello", Attrs: map[string]any{"n": 1.5}},
		{Boot: "b1", Seq: 2, Kind: record.KindQA, Source: record.Observed},
	}
	if n := add(t, db, "S1", ev...); n != 2 {
		t.Error(n)
	}
	if n := add(t, db, "S1", ev[1], record.Event{Boot: "b1", Seq: 3, Kind: record.KindLog, Source: record.Inferred}); n != 1 {
		t.Error("counted twice:", n)
	}
	got, _, err := db.Events(ctx, "S1", 0, 10)
	if err != nil || len(got) != 3 || got[0].Seq != 3 || got[2].Message != "hello" || !got[2].Time.Equal(ev[0].Time) || got[2].Attrs["n"] != 1.5 {
		t.Errorf("%+v %v", got, err)
	}
	if got, _, _ = db.Events(ctx, "S1", got[0].ID, 1); len(got) != 1 || got[0].Seq != 2 {
		t.Errorf("page: %+v", got)
	}
	if got, _, _ = db.Events(ctx, "S1", 0, 10, record.KindQA, record.KindFact); len(got) != 1 {
		t.Errorf("kinds: %+v", got)
	}
	if _, err := db.AddEvents(ctx, "S9", ev); err == nil {
		t.Error("events of a unit that does not exist")
	}
}

func testOrder(t *testing.T, db *DB, _ *clock) {
	enrol(t, db, "S1", 1)
	is := func(want string) {
		t.Helper()
		u, err := db.Unit(t.Context(), "S1")
		if err != nil || u.State.String() != want {
			t.Errorf("state %q, want %q, %v", u.State.String(), want, err)
		}
	}
	is("unknown")
	add(t, db, "S1", state("b1", 5, record.JobProvision, record.Started))
	is("provision started")
	add(t, db, "S1", state("b1", 3, record.JobRepair, record.Started)) // late
	is("provision started")
	add(t, db, "S1", state("b2", 1, record.JobRestore, record.Started))
	is("restore started")
	add(t, db, "S1", state("b1", 9, record.JobProvision, record.Succeeded)) // from the boot before
	is("restore started")
	if u, _ := db.Unit(t.Context(), "S1"); !u.Completed() {
		t.Error("a late success does not count")
	}
	bad := state("b2", 2, record.JobRestore, record.Failed)
	bad.Attrs["code"], bad.Attrs["text"] = "G205", "an image is damaged"
	add(t, db, "S1", bad)
	is("restore failed")
	if u, _ := db.Unit(t.Context(), "S1"); u.State.Code != "G205" || u.State.Text == "" {
		t.Errorf("%+v", u.State)
	}
	add(t, db, "S1", state("b2", 3, record.JobRestore, record.Started))
	if u, _ := db.Unit(t.Context(), "S1"); u.State.Code != "" {
		t.Error("an old failure stays")
	}
}

func testRelease(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	e := enrol(t, db, "S1", 1)
	if err := db.Permit(ctx, "S1", e.ID, "b1"); err != nil {
		t.Fatal(err)
	}
	add(t, db, "S1", state("b1", 1, record.JobProvision, record.Failed))
	if err := db.Permit(ctx, "S1", e.ID, "b2"); err != nil {
		t.Error("not again after a failure:", err)
	}
	inferred := state("b2", 1, record.JobProvision, record.Succeeded)
	inferred.Source = record.Requested
	add(t, db, "S1", inferred)
	if u, _ := db.Unit(ctx, "S1"); u.Completed() {
		t.Error("a success that nobody observed")
	}
	add(t, db, "S1", state("b2", 2, record.JobProvision, record.Succeeded))
	if err := db.Permit(ctx, "S1", e.ID, "b3"); !errors.Is(err, ErrCompleted) {
		t.Error(err)
	}
	token(t, db, "t2", mac1, "S1")
	if _, _, err := db.Enrol(ctx, EnrolInput{Unit: "S1", PublicKey: key(2), Token: "t2", Boot: "b3", MACs: []string{mac1}}); !errors.Is(err, ErrCompleted) {
		t.Error("a new key for a completed unit:", err)
	}
	if e, _, err := db.Enrol(ctx, EnrolInput{Unit: "S1", PublicKey: key(1), Boot: "b3"}); err != nil || e.Status != Active {
		t.Error("its own key:", e, err)
	}
	if err := db.Release(ctx, "nobody", "op"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := db.Release(ctx, "S1", "op"); err != nil {
		t.Fatal(err)
	}
	add(t, db, "S1", state("b2", 7, record.JobProvision, record.Succeeded)) // from before the release
	if u, _ := db.Unit(ctx, "S1"); u.Released.IsZero() {
		t.Error("an old success uses up the release")
	}
	e = enrol(t, db, "S1", 3)
	if err := db.Permit(ctx, "S1", e.ID, "b4"); err != nil {
		t.Error(err)
	}
	add(t, db, "S1", state("b4", 1, record.JobProvision, record.Succeeded))
	if err := db.Permit(ctx, "S1", e.ID, "b5"); !errors.Is(err, ErrCompleted) {
		t.Error("the release is not used up:", err)
	}
}

func testSecrets(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	e := enrol(t, db, "S1", 1)
	ask := func(id int64) (uint64, error) {
		var g uint64
		err := db.AddSecret(ctx, "S1", id, func(gen uint64) ([]byte, error) { g = gen; return []byte(fmt.Sprint("sealed ", gen)), nil })
		return g, err
	}
	if err := db.ConfirmSecret(ctx, "S1", e.ID, 1); !errors.Is(err, ErrGeneration) {
		t.Error(err)
	}
	for want := uint64(1); want <= 2; want++ {
		if g, err := ask(e.ID); err != nil || g != want {
			t.Error(g, err)
		}
	}
	no := errors.New("no")
	if err := db.AddSecret(ctx, "S1", e.ID, func(uint64) ([]byte, error) { return nil, no }); !errors.Is(err, no) {
		t.Error(err)
	}
	if err := db.ConfirmSecret(ctx, "S1", e.ID, 1); !errors.Is(err, ErrGeneration) {
		t.Error("an old generation is confirmed:", err)
	}
	for range 2 {
		if err := db.ConfirmSecret(ctx, "S1", e.ID, 2); err != nil {
			t.Error(err)
		}
	}
	if _, err := ask(e.ID); !errors.Is(err, ErrConfirmed) {
		t.Error("given after they were confirmed:", err)
	}
	if err := db.Permit(ctx, "S1", e.ID, "b"); !errors.Is(err, ErrConfirmed) {
		t.Error("its disks may be erased, and it would get no credentials then:", err)
	}
	// The power failed before the unit reported its success, and its recovery device was replaced. It starts again
	// with a new key.
	token(t, db, "t2", mac1, "S1")
	e2, reason, err := db.Enrol(ctx, EnrolInput{Unit: "S1", PublicKey: key(2), Token: "t2", Boot: "b", MACs: []string{mac1}})
	if err != nil || e2.Status != Pending || !strings.Contains(reason, "credentials") {
		t.Fatal(e2, reason, err)
	}
	if err := db.Approve(ctx, "S1", e2.ID, "op", e2.Fingerprint); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(e.ID); !errors.Is(err, ErrNotEnrolled) {
		t.Error("the replaced key:", err)
	}
	if err := db.ConfirmSecret(ctx, "S1", e.ID, 2); !errors.Is(err, ErrNotEnrolled) {
		t.Error("the replaced key:", err)
	}
	if g, err := ask(e2.ID); err != nil || g != 3 {
		t.Error(g, err)
	}
	// What the replaced key had confirmed is set nowhere, because the provisioning was never finished.
	if v, err := db.ReadSecret(ctx, "S1", 0, "op", "10.0.0.5"); err != nil || v.Generation != 3 || !v.Active {
		t.Errorf("newest of the active key: %+v %v", v, err)
	}
	if v, err := db.ReadSecret(ctx, "S1", 2, "op", "10.0.0.5"); err != nil || string(v.Ciphertext) != "sealed 2" || !v.Void || v.Active {
		t.Errorf("by its number: %+v %v", v, err)
	}
	if err := db.ConfirmSecret(ctx, "S1", e2.ID, 3); err != nil {
		t.Error(err)
	}
	add(t, db, "S1", state("b", 1, record.JobProvision, record.Succeeded))
	if _, err := ask(e2.ID); !errors.Is(err, ErrConfirmed) {
		t.Error(err)
	}
	if err := db.Release(ctx, "S1", "op"); err != nil {
		t.Fatal(err)
	}
	if g, err := ask(e2.ID); err != nil || g != 4 {
		t.Error("after the release:", g, err)
	}
	if v, err := db.ReadSecret(ctx, "S1", 4, "op", "r"); err != nil || v.Generation != 4 || !v.Confirmed.IsZero() {
		t.Error(v, err)
	}
	if _, err := db.ReadSecret(ctx, "S1", 99, "op", "r"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	rd, err := db.Readings(ctx, "S1")
	if err != nil || len(rd) != 3 || rd[2].Operator != "op" || rd[2].Remote != "10.0.0.5" || rd[2].Generation != 3 {
		t.Errorf("%+v %v", rd, err)
	}
	for range maxUnconfirmed + 5 {
		if _, err := ask(e2.ID); err != nil {
			t.Fatal(err)
		}
	}
	list, err := db.Secrets(ctx, "S1")
	if err != nil || len(list) != maxUnconfirmed+2 || len(list[0].Ciphertext) != 0 {
		t.Errorf("%d generations, %v", len(list), err)
	}
}

func testFacts(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	enrol(t, db, "S1", 1)
	fact := func(n uint64, name string, v any) record.Event {
		return record.Event{Boot: "b", Seq: n, Kind: record.KindFact, Source: record.Observed, Attrs: map[string]any{"name": name, "value": v}}
	}
	add(t, db, "S1", fact(1, "platform", "WIDGET"), fact(2, "macs", []any{"52-54-00-00-00-02", "bad", mac2}), fact(3, "bmcMacs", []any{mac1}),
		fact(4, "disk", map[string]any{"size": 5}), fact(5, "disk", "gone"), fact(6, "macs2", 5), fact(7, "", 1))
	u, err := db.Unit(ctx, "S1")
	if err != nil || u.Platform != "WIDGET" || !cmp.Equal(u.MACs, []string{mac2}) || !cmp.Equal(u.BMCMACs, []string{mac1}) {
		t.Errorf("%+v %v", u, err)
	}
	f, err := db.Facts(ctx, "S1")
	if err != nil || len(f) != 5 || f[1].Name != "disk" || string(f[1].Value) != `"gone"` {
		t.Errorf("%+v %v", f, err)
	}
}

func testDocuments(t *testing.T, db *DB, _ *clock) {
	ctx := t.Context()
	enrol(t, db, "S1", 1)
	for _, body := range []string{"one", "two!"} {
		if err := db.AddDocument(ctx, "S1", record.Document{Boot: "b", Name: "qa.html", Type: "QA Verification", Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := db.Documents(ctx, "S1")
	if err != nil || len(list) != 1 || list[0].Size != 4 {
		t.Fatalf("%+v %v", list, err)
	}
	if d, err := db.Document(ctx, "S1", list[0].ID); err != nil || string(d.Body) != "two!" {
		t.Error(d, err)
	}
	if _, err := db.Document(ctx, "S2", list[0].ID); !errors.Is(err, ErrNotFound) {
		t.Error("a document of another unit:", err)
	}
}

func testLogins(t *testing.T, db *DB, c *clock) {
	ctx := t.Context()
	if _, err := db.Login(ctx, "admin"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := db.SetLogin(ctx, "admin", []byte("h1")); err != nil {
		t.Fatal(err)
	}
	if h, err := db.Login(ctx, "admin"); err != nil || string(h) != "h1" {
		t.Error(h, err)
	}
	for _, id := range []string{"s1", "s2", "s3"} {
		if err := db.AddSession(ctx, id, "admin", db.now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if op, err := db.Session(ctx, "s1"); err != nil || op != "admin" {
		t.Error(op, err)
	}
	if err := db.EndSession(ctx, "s1"); err != nil {
		t.Error(err)
	}
	if _, err := db.Session(ctx, "s1"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	c.add(2 * time.Hour)
	if _, err := db.Session(ctx, "s2"); !errors.Is(err, ErrNotFound) {
		t.Error("an expired session:", err)
	}
	if err := db.AddSession(ctx, "s4", "admin", db.now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := db.SetLogin(ctx, "admin", []byte("h2")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Session(ctx, "s4"); !errors.Is(err, ErrNotFound) {
		t.Error("a session outlives its password:", err)
	}
	if n, err := db.Logins(ctx); err != nil || n != 1 {
		t.Error(n, err)
	}
}

// testConcurrent: many use one token at once, and one key wins.
func testConcurrent(t *testing.T, db *DB, _ *clock) {
	token(t, db, "tok", mac1, "S1")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range byte(16) {
		wg.Go(func() {
			e, _, err := db.Enrol(context.Background(), EnrolInput{Unit: "S1", PublicKey: key(i), Token: "tok", Boot: "b", MACs: []string{mac1}})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if err == nil && e.Status == Active {
				won++
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d keys won", won)
	}
}
