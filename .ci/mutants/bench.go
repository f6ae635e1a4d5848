package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nobody is the user that tests run as where this runs as root.
const nobody = 65534

// bench is a copy of the tree in which code is broken.
type bench struct {
	tmp     string
	tree    string
	workers int
	end     time.Time // when to stop; zero: never
	record  string    // a directory, or ""
}

// newBench copies what git knows or would know.
func newBench(root string, workers int) (*bench, error) {
	tmp, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return nil, err
	}
	b := &bench{tmp: tmp, tree: filepath.Join(tmp, "tree"), workers: workers}
	if err := b.copyTree(root); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) copyTree(root string) error {
	if err := os.Chmod(b.tmp, 0o755); err != nil {
		return err
	}
	list, err := exec.Command("git", "-C", root, "ls-files", "-co", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.Lines(string(list)) {
		name = strings.TrimSpace(name)
		in, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) { // removed and not committed
			continue
		}
		if err != nil {
			return err
		}
		st, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			return err
		}
		to := filepath.Join(b.tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, in, st.Mode().Perm()|0o444)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close() { _ = os.RemoveAll(b.tmp) } // a leftover below the temporary directory is of no matter

// late reports whether the time is up.
func (b *bench) late() bool { return !b.end.IsZero() && !time.Now().Before(b.end) }

// errLate says that the time was up while tests ran: nobody knows what they would have said.
var errLate = errors.New("the time is up")

// build compiles the tests of a package of the tree.
func (b *bench) build(ctx context.Context, pkg string) (bin string, err error) {
	bin = filepath.Join(b.tmp, "bin", strings.ReplaceAll(pkg, "/", "_"))
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-vet=off", "-o", bin, "./"+pkg)
	cmd.Dir = b.tree
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the tests of %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// run runs tests of a package, those that need long left out, and reports whether they pass. What takes longer than limit does not, nor
// what takes more than 4 GiB of memory or of disk: changed code may allocate and write for ever.
func (b *bench) run(ctx context.Context, bin, pkg, pattern string, limit time.Duration, env ...string) (passed bool, err error) {
	dir, err := os.MkdirTemp(b.tmp, "run-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if !b.end.IsZero() {
		limit = min(limit, time.Until(b.end))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	const within = `ulimit -v 4194304 && exec "$0" "$@"` // KiB
	cmd := exec.CommandContext(ctx, "sh", "-c", within, bin, "-test.short", "-test.failfast", "-test.run", pattern)
	cmd.Dir = filepath.Join(b.tree, pkg)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return false, err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = &out
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return false, err
	}
	go func() {
		for tick := time.Tick(200 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick:
				if used(dir) > 4<<30 {
					cancel()
				}
			}
		}
	}()
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left running, if anything
	if strings.Contains(out.String(), "testing: warning: no tests to run") {
		return false, fmt.Errorf("%s has no test %s", pkg, pattern)
	}
	if err != nil && b.late() {
		return false, errLate
	}
	return err == nil, nil
}

// used is how much disk the files in a directory take, bytes. What goes away meanwhile takes nothing.
func used(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if i, err := d.Info(); err == nil {
			bytes += i.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return bytes
}

// edit replaces a file of the tree, and returns what puts the old one back.
func (b *bench) edit(name, text string) (undo func() error, err error) {
	path := filepath.Join(b.tree, name)
	old, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(path, old, 0o644) }, os.WriteFile(path, []byte(text), 0o644)
}

// list returns the tests of a package.
func (b *bench) list(ctx context.Context, bin, pkg string) ([]string, error) {
	cmd := exec.CommandContext(ctx, bin, "-test.list", ".")
	cmd.Dir = filepath.Join(b.tree, pkg)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests of %s: %w", pkg, err)
	}
	var names []string
	for _, w := range strings.Fields(string(out)) {
		if strings.HasPrefix(w, "Test") || strings.HasPrefix(w, "Fuzz") || strings.HasPrefix(w, "Example") {
			names = append(names, w)
		}
	}
	return names, nil
}
