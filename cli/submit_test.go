package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/factory"
	"gprovision/factory/store"
	"gprovision/model/erasure"
	"gprovision/model/erasure/erasuretest"
	"gprovision/site"
)

// TestEraseSubmit: a certificate comes by stick, is brought to the server and holds then. A backup carries log, keys and certificates, and
// a restored server begins another log.
func TestEraseSubmit(t *testing.T) {
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "S1.json")
	gprov := func(want int, says string, args ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		c := &Context{Context: t.Context(), Stdout: &out, Stderr: &errOut, Site: site.Stock()}
		if got := run(c, args); got != want || !strings.Contains(out.String()+errOut.String(), says) {
			t.Fatalf("%v: status %d, want %d with %q\n%s%s", args, got, want, says, out.String(), errOut.String())
		}
		return out.String()
	}
	write := func(name string, b []byte, err error) string {
		t.Helper()
		if err == nil {
			err = os.WriteFile(name, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	certificate := func(name string, c erasure.Certificate) {
		t.Helper()
		b, sig, err := c.Sign(erasuretest.Key(1))
		write(name, b, err)
		write(name+".minisig", sig, nil)
	}
	gprov(0, "ca.pem", "serve", "--data", data, "--init")
	db, err := store.Open(t.Context(), filepath.Join(data, factory.StoreFile))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	in := store.EnrolInput{Unit: "S1", PublicKey: erasuretest.Public(1), Token: "t", Boot: "b", MACs: []string{"52:54:00:00:00:01"}}
	if err := db.AddToken(t.Context(), "t", store.Token{MAC: in.MACs[0], Created: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.Enrol(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	certificate(file, erasuretest.Weaker("S1", 1))
	gprov(0, file+".tlog-proof", "erase", "submit", file, "--data", data)
	backup := filepath.Join(dir, "backup.db")
	gprov(0, backup, "serve", "backup", "--data", data, "--out", backup)
	second := filepath.Join(dir, "second.json")
	certificate(second, erasuretest.Proved("S1", 2))
	gprov(0, "ended the life of unit S1", "erase", "submit", second, "--data", data)
	units := write(filepath.Join(dir, "server.vkey"), []byte(gprov(0, "/units+", "erase", "keys", "units", "--data", data)), nil)
	log := write(filepath.Join(dir, "log.vkey"), []byte(gprov(0, "/log+", "erase", "keys", "log", "--data", data)), nil)
	verify := func(name string, want int, says string) {
		t.Helper()
		gprov(want, says, "erase", "verify", name, "--key", units, "--log-key", log)
	}
	verify(second, 0, "it holds")
	verify(second, 0, "logged as record 1 of 2")
	verify(file, 1, "logged as record 0 of 1")
	third := filepath.Join(dir, "third.json")
	certificate(third, erasuretest.Proved("S1", 3))
	gprov(1, "does not speak for this unit", "erase", "submit", third, "--data", data)
	write(file, []byte("{}"), nil)
	gprov(1, "the certificate does not hold", "erase", "submit", file, "--data", data)
	gprov(1, "no such file", "erase", "submit", file+"x", "--data", data)
	gprov(2, "--server URL or --data", "erase", "submit", second)

	// The restored server has the keys and the first certificate, and forgot the second one. That is brought again, into another log.
	gprov(0, "used so far", "serve", "restore", "--data", data, "--from", backup)
	if again := gprov(0, "/units+", "erase", "keys", "units", "--data", data); again != string(must(os.ReadFile(units))) {
		t.Error("the restored server vouches by another key")
	}
	certificate(file, erasuretest.Weaker("S1", 1))
	gprov(0, "", "erase", "submit", file, "--data", data)
	verify(file, 1, "logged as record 0 of 1")
	gprov(0, "", "erase", "submit", second, "--data", data)
	verify(second, 1, "signed by no log that is known")
	write(log, []byte(gprov(0, "/log+", "erase", "keys", "log", "--data", data)), nil)
	if n := strings.Count(string(must(os.ReadFile(log))), "/log+"); n != 2 {
		t.Errorf("%d logs, want 2", n)
	}
	verify(second, 0, "logged as record 0 of 1")
	verify(file, 1, "logged as record 0 of 1")
}

// TestErasePaste: a certificate comes back from the texts of its codes, and is the same.
func TestErasePaste(t *testing.T) {
	e := newEraseCase(t, certificate())
	file, sig := must(os.ReadFile(e.path("c.json"))), must(os.ReadFile(e.path("c.json.minisig")))
	codes, err := erasure.Codes(file, sig, 700)
	e.write("scanned", []byte(strings.Join(codes, "\n")), err)
	paste := func(want int, says string) {
		t.Helper()
		if code, out, errs := e.run("paste", "scanned", "--out", e.path("back")); code != want || !strings.Contains(out+errs, says) {
			t.Errorf("status %d, want %d with %q\n%s%s", code, want, says, out, errs)
		}
	}
	paste(0, "back.minisig")
	if !bytes.Equal(must(os.ReadFile(e.path("back"))), file) || !bytes.Equal(must(os.ReadFile(e.path("back.minisig"))), sig) {
		t.Error("another certificate came back")
	}
	paste(1, "file already exists")
	code, out, errs := e.run("codes", "c.json")
	if code != 0 || !strings.HasPrefix(out, "1 of ") || !strings.Contains(out, "████ ▄▄▄▄▄ █") {
		t.Errorf("status %d: %s%s", code, out, errs)
	}
	if code, _, errs := e.run("codes", "c.json", "--lines", "10"); code != 1 || !strings.Contains(errs, "hint: use a larger screen") {
		t.Errorf("status %d: %s", code, errs)
	}
	os.Remove(e.path("back"))
	e.write("scanned", []byte(codes[0]), nil)
	paste(1, "hint: the file must have the texts of all codes")
	codes, err = erasure.Codes(bytes.Replace(file, []byte("S1"), []byte("S2"), 1), sig, 700)
	e.write("scanned", []byte(strings.Join(codes, " ")), err)
	paste(1, "the signature does not hold")
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
