package tool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	var out bytes.Buffer
	if err := Run(ctx, log, Command{Name: "cat", Stdin: strings.NewReader("hello"), Stdout: &out}); err != nil || out.String() != "hello" {
		t.Fatalf("cat gave %q, %v", out.String(), err)
	}
	got, err := Output(ctx, nil, Command{Name: "printenv", Args: []string{"LC_ALL", "X"}, Env: []string{"X=y"}})
	if err != nil || string(got) != "C.UTF-8\ny\n" {
		t.Fatalf("printenv gave %q, %v", got, err)
	}
	err = Run(ctx, log, Command{Name: "sh", Args: []string{"-c", "for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i >&2; done; exit 3"}})
	var e *Error
	if !errors.As(err, &e) || e.Exit != 3 || !strings.HasSuffix(e.Stderr, "line 11") || strings.Contains(e.Stderr, "line 3\n") {
		t.Fatalf("got %#v", err)
	}
	err = Run(ctx, log, Command{Name: "sh", Args: []string{"-c", "exit 1", "hushhush"}, Quiet: true})
	if err == nil || strings.Contains(err.Error(), "hushhush") {
		t.Errorf("quiet command: %v", err)
	}
}

func TestMissing(t *testing.T) {
	err := Run(context.Background(), nil, Command{Name: "no-such-program-here", Package: "some-package"})
	var m *MissingError
	if !errors.As(err, &m) || !strings.Contains(m.Hint(), "apt-get install some-package") {
		t.Fatalf("got %v", err)
	}
	if _, err := Need("/no/such/file", ""); err == nil {
		t.Error("a path that is not there was found")
	}
	if p, err := Need("sh", "dash"); err != nil || !strings.HasSuffix(p, "/sh") {
		t.Errorf("got %q, %v", p, err)
	}
}

func TestCancelEndsTheGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := Run(ctx, nil, Command{Name: "sh", Args: []string{"-c", "sleep 60 & sleep 60"}, Stdout: &bytes.Buffer{}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestReaderAndWriterErrors(t *testing.T) {
	boom := errors.New("boom")
	err := Run(context.Background(), nil, Command{Name: "cat", Stdin: io.MultiReader(strings.NewReader("x"), &bad{boom}), Stdout: io.Discard})
	if !errors.Is(err, boom) {
		t.Errorf("reader: got %v", err)
	}
	err = Run(context.Background(), nil, Command{Name: "cat", Stdin: strings.NewReader("x"), Stdout: &bad{boom}})
	if !errors.Is(err, boom) {
		t.Errorf("writer: got %v", err)
	}
}

type bad struct{ err error }

func (b *bad) Read([]byte) (int, error)  { return 0, b.err }
func (b *bad) Write([]byte) (int, error) { return 0, b.err }
