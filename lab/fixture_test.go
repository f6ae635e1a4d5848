package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/lab"
	"gprovision/model/bootimage"
)

// slots lets three machines run at a time. The tests share two processors, and a machine waits a third of its time.
var slots = make(chan struct{}, 3)

// needLab skips where no virtual unit can run, and waits for one of the slots.
func needLab(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("virtual units take long: not with -short")
	}
	if err := lab.Usable(); err != nil {
		skip(t, err.Error())
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		skip(t, "qemu-system-x86_64 is not installed (Debian package qemu-system-x86)")
	}
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("GPROV_NO_SKIP=1, but: %s", why)
	}
	t.Skip(why)
}

// workDir is a directory that goes when the test passes and stays when it fails, until the test is run again.
func workDir(t *testing.T, need int64) string {
	t.Helper()
	base := tempBase()
	var st unix.Statfs_t
	if err := unix.Statfs(base, &st); err != nil {
		t.Fatal(err)
	}
	name := strings.NewReplacer("/", "_", "*", "_").Replace(t.Name())
	if err := removeLeft(base, name); err != nil {
		t.Error(err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		t.Fatalf("%s has %d MiB free, the test needs %d: set TEMPDIR", base, free>>20, need>>20)
	}
	dir, err := os.MkdirTemp(base, ownDir(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("its files are kept in %s until the test is run again", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func tempBase() string {
	if base := os.Getenv("TEMPDIR"); base != "" {
		return base
	}
	return os.TempDir()
}

// ownDir is the pattern (os.MkdirTemp) of a directory of this process for what has the name.
func ownDir(name string) string { return fmt.Sprintf("gprov-%s-%d-", name, os.Getpid()) }

// removeLeft removes the directories of ownDir for the name whose process is gone: what earlier failures, and tests that were ended, left.
func removeLeft(base, name string) error {
	list, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	left := regexp.MustCompile(`^gprov-` + regexp.QuoteMeta(name) + `-(\d+)-\d+$`)
	for _, e := range list {
		m := left.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if _, err := os.Stat(filepath.Join("/proc", m[1])); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(base, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// TestRemoveLeft: what a process that is gone left for a test goes, and nothing else.
func TestRemoveLeft(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	base, pid := t.TempDir(), gone.Process.Pid
	keep := []string{
		fmt.Sprintf("gprov-TestA-%d-1", os.Getpid()), fmt.Sprintf("gprov-TestA-%d-1", 1), // their processes live
		fmt.Sprintf("gprov-TestAB-%d-1", pid), fmt.Sprintf("gprov-TestA_x-%d-1", pid), // of other tests
		"gprov-TestA", "else",
	}
	for _, name := range append(slices.Clone(keep), fmt.Sprintf("gprov-TestA-%d-123", pid)) {
		if err := os.MkdirAll(filepath.Join(base, name, "unit"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeLeft(base, "TestA"); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	slices.Sort(keep)
	if !slices.Equal(got, keep) {
		t.Errorf("left are %q, want %q", got, keep)
	}
}

// network is a station of the test's own.
func network(t *testing.T) *lab.Network {
	t.Helper()
	n, err := lab.NewNetwork(t.Context(), logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// watched closes u at the end, and shows the ends of its logs if the test failed.
func watched(t *testing.T, u *lab.Unit) *lab.Unit {
	t.Helper()
	t.Cleanup(func() {
		u.Close()
		if t.Failed() {
			t.Logf("last events of unit %s:\n%s\nend of its console:\n%s", u.Name, u.Events.Tail(15), tail(u.Console(), 3000))
		}
	})
	return u
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func newUnit(t *testing.T, n *lab.Network, c lab.Config) *lab.Unit {
	t.Helper()
	u, err := lab.NewUnit(t.Context(), logger(t), n, filepath.Join(workDir(t, 2<<30), c.Name), c)
	if err != nil {
		t.Fatal(err)
	}
	return watched(t, u)
}

func start(t *testing.T, u *lab.Unit, opts ...lab.Option) {
	t.Helper()
	if err := u.Start(t.Context(), opts...); err != nil {
		t.Fatal(err)
	}
}

// expect waits for an event and fails the test if it does not come in time.
func expect(t *testing.T, u *lab.Unit, patience time.Duration, m lab.Match) lab.Event {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("nothing within %v", patience))
	defer cancel()
	e, err := u.Events.Wait(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// debianRoot is the root filesystem of the demo, from the cache if it is there.
var debianRoot = sync.OnceValues(func() (string, error) {
	cache, err := lab.OpenCache("")
	if err != nil {
		return "", err
	}
	return lab.DebianRoot(context.Background(), slog.New(slog.DiscardHandler), cache)
})

// unpackUKI writes kernel and initramfs of a boot artifact into dir, as NAME-vmlinuz and NAME-initrd.
func unpackUKI(t *testing.T, path, dir, name string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	uki, err := bootimage.ParseUKI(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	for part, r := range map[string]io.Reader{"-vmlinuz": uki.Linux(), "-initrd": uki.Initrd()} {
		out, err := os.Create(filepath.Join(dir, name+part))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(out, r)
		if cerr := out.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
	}
}
