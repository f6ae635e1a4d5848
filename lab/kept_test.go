package lab_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
)

// keptParts is how many of each part of the fixture stay in the cache. Each is some hundred megabytes.
const keptParts = 2

// contents is the key of all that the fixture is made of: the programs, the root filesystem, the tests, and the day, which is in names and
// certificates. The programs have the commit in them.
func (l *life) contents() (string, error) {
	parts := []string{"fixture 1", time.Now().UTC().Format(time.DateOnly), filepath.Base(l.debian)}
	sources, err := filepath.Glob("*_test.go")
	if err != nil {
		return "", err
	}
	sources = slices.DeleteFunc(sources, func(name string) bool { return strings.HasSuffix(name, "_soak_test.go") }) // they only use it
	for _, name := range []string{"gprov", "init", "gprov-unit", "tiny"} {
		sources = append(sources, filepath.Join(l.dir, name))
	}
	for _, name := range sources {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		parts = append(parts, filepath.Base(name), fmt.Sprintf("%x", sha256.Sum256(b)))
	}
	return lab.Key(parts...), nil
}

// kept returns the directory of a part of the fixture, below l.dir. It is a copy of what a test process of before left in the cache if that
// was made of the same; else make makes it.
func (l *life) kept(ctx context.Context, name, key string, make func(dir string) error) (string, error) {
	cache, err := lab.OpenCache("")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(l.dir, name)
	return dir, cache.Copy(ctx, "fixture-"+name, key, dir, keptParts, func(path string) error {
		return errors.Join(os.MkdirAll(path, 0o755), make(path))
	})
}

// TestCacheCopies: a directory is made once for a key; who gets a copy may change it; the ones that were used last stay, and what another
// process uses stays too.
func TestCacheCopies(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	cache, err := lab.OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	n := 0
	get := func(key string) string {
		t.Helper()
		n++
		at := filepath.Join(to, fmt.Sprint(n))
		err := cache.Copy(t.Context(), "part", key, at, 2, func(path string) error {
			made++
			return errors.Join(os.MkdirAll(path, 0o755), os.WriteFile(filepath.Join(path, "file"), []byte(key), 0o600))
		})
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(at, "file")
	}
	if err := os.WriteFile(get("a"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(get("a")); err != nil || string(b) != "a" || made != 1 {
		t.Errorf("the second copy holds %q (%v), made %d times", b, err, made)
	}
	get("b")
	get("a")
	get("c") // b was not used for the longest time
	for key, want := range map[string]bool{"a": true, "b": false, "c": true} {
		_, err := os.Stat(cache.Path("part", key))
		if got := !errors.Is(err, fs.ErrNotExist); got != want {
			t.Errorf("%s is there: %v, want %v", key, got, want)
		}
	}
	fail := errors.New("not made")
	if err := cache.Copy(t.Context(), "part", "d", filepath.Join(to, "d"), 2, func(string) error { return fail }); !errors.Is(err, fail) {
		t.Errorf("a failure gives %v", err)
	}
	if _, err := os.Stat(cache.Path("part", "d")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was not made is there: %v", err)
	}
}
