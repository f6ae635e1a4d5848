package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/factory"
	"gprovision/factory/store"
	"gprovision/model/record"
	"gprovision/site"
)

// TestServeRestore backs a server up, lets a unit go on, and restores: the unit's key and credentials are what they were, and what the
// server knew last is kept beside.
func TestServeRestore(t *testing.T) {
	dir := t.TempDir()
	data, backup := filepath.Join(dir, "data"), filepath.Join(dir, "backup.db")
	gprov := func(want int, says string, args ...string) {
		t.Helper()
		var out, errOut bytes.Buffer
		c := &Context{Context: t.Context(), Stdout: &out, Stderr: &errOut, Site: site.Stock()}
		if got := run(c, args); got != want || !strings.Contains(out.String()+errOut.String(), says) {
			t.Fatalf("%v: status %d, want %d with %q\n%s%s", args, got, want, says, out.String(), errOut.String())
		}
	}
	open := func() *store.DB {
		t.Helper()
		db, err := store.Open(t.Context(), filepath.Join(data, factory.StoreFile))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	gprov(1, "no such file", "serve", "backup", "--data", data, "--out", backup)
	gprov(0, "ca.pem", "serve", "--data", data, "--init")
	db := open()
	now := time.Now()
	in := store.EnrolInput{Unit: "S1", PublicKey: bytes.Repeat([]byte{1}, 32), Token: "t", Boot: "b", MACs: []string{"52:54:00:00:00:01"}}
	must(db.AddToken(t.Context(), "t", store.Token{MAC: in.MACs[0], Created: now, Expires: now.Add(time.Hour)}))
	e, _, err := db.Enrol(t.Context(), in)
	must(err)
	seal := func(uint64) ([]byte, error) { return []byte("x"), nil }
	must(db.AddSecret(t.Context(), "S1", e.ID, seal))
	gprov(0, backup, "serve", "backup", "--data", data, "--out", backup) // while it is in use
	gprov(1, "", "serve", "backup", "--data", data, "--out", backup)
	must(db.ConfirmSecret(t.Context(), "S1", e.ID, 1))
	_, err = db.AddEvents(t.Context(), "S1", []record.Event{{Boot: "b", Seq: 1, Kind: record.KindState, Source: record.Observed,
		Attrs: record.State{Job: record.JobProvision, Phase: record.Succeeded, Percent: -1}.Attrs()}})
	must(err)

	lock, err := factory.Lock(data)
	must(err)
	gprov(1, "another server", "serve", "restore", "--data", data, "--from", backup)
	must(lock.Close())
	must(db.Close())
	bad := filepath.Join(dir, "bad.db")
	must(os.WriteFile(bad, []byte("this is no database, though it is long enough to look like one"), 0o600))
	gprov(1, "is no backup", "serve", "restore", "--data", data, "--from", bad)
	gprov(1, "ca.pem", "serve", "restore", "--data", dir+"/nothing", "--from", backup)
	db = open()
	if u, err := db.Unit(t.Context(), "S1"); err != nil || !u.Completed() {
		t.Fatal("a restore that was refused changed the database:", u, err)
	}
	must(db.Close())
	gprov(0, "used so far", "serve", "restore", "--data", data, "--from", backup)

	db = open()
	if u, err := db.Unit(t.Context(), "S1"); err != nil || u.Completed() {
		t.Fatal("not the backup:", u, err)
	}
	in.Token, in.Held = "", store.Held{Generation: 1, Provisioned: true}
	if got, _, err := db.Enrol(t.Context(), in); err != nil || got.ID != e.ID || got.Status != store.Active {
		t.Error("the unit does not keep its key:", got, err)
	}
	if err := db.AddSecret(t.Context(), "S1", e.ID, seal); !errors.Is(err, store.ErrConfirmed) {
		t.Error("confirmed credentials are made anew:", err)
	}
	if u, err := db.Unit(t.Context(), "S1"); err != nil || !u.Completed() {
		t.Error("the unit is not complete again:", u, err)
	}
	old, err := filepath.Glob(filepath.Join(data, factory.StoreFile+".before-*"))
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	before, err := store.Open(t.Context(), old[0])
	must(err)
	t.Cleanup(func() { before.Close() })
	if u, err := before.Unit(t.Context(), "S1"); err != nil || !u.Completed() {
		t.Error("what the server knew last is not kept:", u, err)
	}
	// A database that cannot be read any more is replaced as well.
	must(db.Close())
	place := filepath.Join(data, factory.StoreFile)
	must(os.WriteFile(place, []byte("damaged, and longer than a header of a database would ever be: it must be set aside"), 0o600))
	must(os.Rename(old[0], filepath.Join(dir, "before.db")))
	gprov(0, place, "serve", "restore", "--data", data, "--from", backup)
	if _, err := open().Unit(t.Context(), "S1"); err != nil {
		t.Error(err)
	}
}
