package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestExecEndsFamily: what a program started in a session of its own, with its output still open, ends with it.
func TestExecEndsFamily(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pids")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		const script = `setsid sh -c 'setsid sh -c "echo \$\$ > $0; exec sleep 600" "$0"; sleep 600' "$0" & wait`
		_, err := Exec(ctx, nil, Command{Path: "sh", Args: []string{"-c", script, pipe}})
		ended <- err
	}()
	text, err := os.ReadFile(pipe) // ends when the last child has said its number
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	began := time.Now()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(began); d > 4*time.Second { // WaitDelay is 5 s
		t.Errorf("it took %v until nobody had its output open", d)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 || err != nil {
		t.Errorf("process %d goes on: %d, %v", pid, n, err)
	}
}

func TestHasVariable(t *testing.T) {
	for env, want := range map[string]bool{
		"A=1\x00B=2\x00": true, "B=2\x00": true, "B=2\x00C=\x00": true,
		"": false, "AB=2\x00": false, "B=22\x00": false, "B=\x00": false, "A=B=2\x00": false,
	} {
		if got := hasVariable([]byte(env), "B=2"); got != want {
			t.Errorf("%q: %t", env, got)
		}
	}
}
