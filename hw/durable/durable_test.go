package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestWrite: a file has its new content and permissions, a link is replaced and not followed, and nothing is left beside it.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "a"), filepath.Join(t.TempDir(), "other")
	if err := errors.Join(os.WriteFile(other, []byte("of somebody"), 0o600), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".a.new"), []byte("cut off before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
	for name, want := range map[string]string{path: "new", other: "of somebody"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestWriteFails: what was there stays, and the error says which file it is about.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.Mkdir(path, 0o700); err != nil { // no file takes its name
		t.Fatal(err)
	}
	if err := Write(path, []byte("new"), 0o600); err == nil {
		t.Error("a directory is replaced")
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 || !list[0].IsDir() {
		t.Errorf("%v, %v", list, err)
	}
	if err := Write(filepath.Join(dir, "none", "a"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// TestRemoveIn: what is not there is removed already.
func TestRemoveIn(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := WriteIn(root, "a", []byte("x"), Owner{Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := RemoveIn(root, "a"); err != nil {
			t.Error(err)
		}
	}
	if _, err := root.Lstat("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
