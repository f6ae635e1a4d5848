package host

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	out, exit, err := Run(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3")
	if err != nil || exit != 3 || string(out) != "out\nerr\n" {
		t.Fatalf("got %q, %d, %v", out, exit, err)
	}
	if _, _, err := Run(t.Context(), "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	if _, _, err := Run(t.Context(), "/no/such/program"); err == nil {
		t.Fatal("no error for a path that does not exist")
	}
	if _, _, err := Run(t.Context(), "sh", "-c", "kill -9 $$"); !errors.Is(err, ErrKilled) {
		t.Fatalf("got %v, want ErrKilled", err)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err := Run(ctx, "sh", "-c", "sleep 60 & wait")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the end of the context", err)
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Fatalf("took %v: the group was not killed", d)
	}
}

func TestExecInheritsNothing(t *testing.T) {
	t.Setenv("LEAK", "1")
	r, err := Exec(t.Context(), nil, Command{Path: "env", Env: []string{"A=b"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := string(r.Output); strings.Contains(s, "LEAK") || !strings.Contains(s, "A=b\n") {
		t.Fatalf("environment is %q", s)
	}
}

func TestExecKeepsSecrets(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := Command{Path: "sh", Args: []string{"-c", "echo hunter2; exit 1"}, Secret: true, Show: []string{"-c", "echo $PASSWORD"}}
	if _, err := Exec(t.Context(), log, c); err != nil {
		t.Fatal(err)
	}
	c.Path = "/no/such/program"
	if _, err := Exec(t.Context(), log, c); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("error is %v", err)
	}
	if s := b.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "$PASSWORD") || !strings.Contains(s, "level=WARN") {
		t.Fatalf("log is %s", s)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	w := &tail{max: 4}
	for _, s := range []string{"abc", "def", "ghijklmno", "p"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := string(w.bytes()); got != "mnop" {
		t.Fatalf("got %q", got)
	}
}
