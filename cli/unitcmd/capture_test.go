package unitcmd

import (
	"os"
	"path/filepath"
	"testing"

	"gprovision/model/capture"
)

// TestCapture: what the verb writes is a capture of the machine, to a file and to standard output.
func TestCapture(t *testing.T) {
	f := newFake(t)
	name := filepath.Join(f.root, "sys/class/dmi/id/sys_vendor")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("ACME\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	has := func(b []byte) {
		t.Helper()
		_, entries, err := capture.Parse(b)
		if err != nil || len(entries) != 1 || entries[0].Name != "sys/class/dmi/id/sys_vendor" || string(entries[0].Data) != "ACME\n" {
			t.Errorf("%+v, %v", entries, err)
		}
	}
	if code := f.run("capture"); code != 0 {
		t.Fatalf("exit status %d: %s", code, f.err.String())
	}
	has(f.out.Bytes())
	out := filepath.Join(f.root, "fox.txt")
	if code := f.run("capture", "--out", out); code != 0 {
		t.Fatalf("exit status %d: %s", code, f.err.String())
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	has(b)
}
