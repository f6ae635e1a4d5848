package state

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// TestForget: what a customer has left is gone, what the unit needs stays.
func TestForget(t *testing.T) {
	for _, preserve := range []bool{false, true} {
		v := Open(t.TempDir())
		if _, err := Forget(v); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{LogDir, QueueDir} {
			if err := os.MkdirAll(v.Path(dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		gone := []string{LogDir + "/x.log", NetworkFile, HistoryFile, QueueDir + "/x", BadRequestFile, MediumFile}
		for _, name := range append([]string{HashFile, KeyFile}, gone...) {
			if err := os.WriteFile(v.Path(name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.WriteRestoreData(RestoreData{Preserve: preserve, BootArgs: "quiet"}); err != nil {
			t.Fatal(err)
		}
		if _, err := Forget(v); err != nil {
			t.Fatal(err)
		}
		for _, name := range gone {
			if _, err := os.Stat(v.Path(name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is there: %v", name, err)
			}
		}
		for _, name := range []string{HashFile, KeyFile} {
			if _, err := os.Stat(v.Path(name)); err != nil {
				t.Error(err)
			}
		}
		if d, err := v.ReadRestoreData(); err != nil || (d.BootArgs != "") != preserve {
			t.Errorf("%+v, %v, preserved %t", d, err, preserve)
		}
	}
}

// TestEraseFiles: they are private, replaced as a whole, and of a bounded size.
func TestEraseFiles(t *testing.T) {
	v := Open(t.TempDir())
	if err := RemoveEraseFile(v, "x"); err != nil {
		t.Errorf("nothing is there: %v", err)
	}
	for _, content := range []string{"one", "two"} {
		if err := WriteEraseFile(v, "x", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadEraseFile(v, "x"); err != nil || string(b) != content {
			t.Errorf("%q, %v", b, err)
		}
	}
	if st, err := os.Stat(v.Path(EraseDir, "x")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := WriteEraseFile(v, "x", make([]byte, MaxEraseFile+1)); err == nil {
		t.Error("a file that could not be read is written")
	}
	for range 2 {
		if err := RemoveEraseFile(v, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEraseFile(v, "x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it was removed: %v", err)
		}
	}
}
