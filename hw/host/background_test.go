package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// child is how the test program is called as a process of Background. It enters a directory, says that it is ready and writes a file
// there when another one appears.
const child = "host-test-child"

func childStage() {
	switch os.Args[1] {
	case "ends":
		os.Exit(3)
	case "companion":
		n, err := io.Copy(os.Stdout, os.Stdin)
		if err == nil {
			err = os.WriteFile(os.Args[2], fmt.Append(nil, n), 0o600)
		}
		fail(err)
	case "never":
		time.Sleep(time.Hour)
	}
	err := SetName(child)
	if err == nil {
		err = EnterRoot(os.Args[1])
	}
	if err == nil {
		err = Ready()
	}
	for err == nil {
		if _, e := os.Stat("/go"); e == nil {
			if err = os.WriteFile("/gone", []byte(fmt.Sprint(os.Getppid())), 0o600); err == nil {
				os.Exit(0)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestBackground(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("chroot(2) needs root")
		}
		t.Skip("chroot(2) needs root")
	}
	dir := t.TempDir()
	p, err := Background(t.Context(), []string{child, dir})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid)); err != nil || string(b) != child+"\n" {
		t.Errorf("it is called %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || !st.Success() {
		t.Fatalf("%v, %v", st, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "gone")); err != nil {
		t.Error(err)
	}
	if p, err = Background(t.Context(), []string{child, dir + "/missing"}); err == nil || p != nil {
		t.Errorf("a root that is missing: %v", err)
	}
	if _, err = Background(t.Context(), []string{child, "ends"}); err == nil {
		t.Error("a process that ended is ready")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err = Background(ctx, []string{child, "never"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a process that never gets ready: %v", err)
	}
	// One that goes on is ended.
	if err := os.Remove(filepath.Join(dir, "go")); err != nil {
		t.Fatal(err)
	}
	if p, err = Background(t.Context(), []string{child, dir}); err != nil {
		t.Fatal(err)
	}
	if err := End(p); err != nil {
		t.Error(err)
	}
}

// TestCompanion talks with a process, whose input ends when the connection is closed.
func TestCompanion(t *testing.T) {
	end := filepath.Join(t.TempDir(), "end")
	c, err := Companion([]string{child, "companion", end})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	for _, text := range []string{"first", "later"} {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
	out := c.(*companion).File
	if err := c.(*companion).in.Close(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 { // until the process has ended
		t.Errorf("%q, %v", rest, err)
	}
	if n, err := os.ReadFile(end); err != nil || string(n) != "10" {
		t.Errorf("it read %s bytes, %v", n, err)
	}
}
