package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Command is a program to start.
type Command struct {
	// Path is the program. Without a slash it is searched in the fixed path of Exec, not in the caller's.
	Path string
	// Args are its arguments, without the program's name.
	Args []string
	// Env are variables, "NAME=value", added to the fixed environment of Exec. This is how a secret reaches a program.
	Env []string
	// Stdin is read to its end; nil: nothing.
	Stdin io.Reader
	// Dir is the working directory; empty: the root directory.
	Dir string
	// Secret keeps arguments and output out of the log and out of errors. With Redact the log has the output.
	Secret bool
	// Show is what the log has in place of Args for a Secret command: the arguments before secrets were put in.
	Show []string
	// Redact are secrets that the program knows. In its output they are replaced by ***, also with white space between their characters, in
	// hexadecimal, and in base64. Who prints a secret in yet another form gives it away.
	Redact []string
}

// Result is what a program that ran to its end left behind.
type Result struct {
	// Output is standard output and standard error, in the order of writing, without the secrets of Redact. Of more than 1 MiB only the
	// end is kept.
	Output []byte
	// Exit is the exit status, 0 to 255.
	Exit int
	// Elapsed is how long the program ran.
	Elapsed time.Duration
}

// ErrKilled says that a signal ended the program.
var ErrKilled = errors.New("ended by a signal")

const (
	searchPath = "/sbin:/usr/sbin:/bin:/usr/bin"
	keepOutput = 1 << 20
)

// Exec runs c and waits for its end. An exit status other than 0 is not an error here: what it means is for the caller to
// say. The error is for a program that cannot be started, that a signal ended (ErrKilled), or whose ctx ended first (ctx's
// error); it is then killed with all that it started, whatever session that is in now. The environment is PATH, LC_ALL=C, HOME=/,
// GPROV_PROGRAM and c.Env, nothing is inherited.
//
// log may be nil. It gets one record per program, at level debug, at level warn when the status is not 0.
func Exec(ctx context.Context, log *slog.Logger, c Command) (Result, error) {
	path, err := find(c.Path)
	if err != nil {
		return Result{}, err
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	mark := newMark()
	cmd.Env = append([]string{"PATH=" + searchPath, "LC_ALL=C", "HOME=/", mark}, c.Env...)
	cmd.Stdin = c.Stdin
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	out := &tail{max: keepOutput}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		killMarked(mark)
		return err
	}
	cmd.WaitDelay = 5 * time.Second

	shown := strings.Join(append([]string{c.Path}, c.shown()...), " ")
	start := time.Now()
	err = cmd.Run()
	r := Result{Output: out.bytes(), Elapsed: time.Since(start)}
	if len(c.Redact) > 0 {
		r.Output = redact(out, c.Redact)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case ctx.Err() != nil:
		err = fmt.Errorf("run %s: %w", shown, ctx.Err())
	case errors.As(err, &exit) && exit.Exited():
		r.Exit, err = exit.ExitCode(), nil
	case errors.As(err, &exit):
		err = fmt.Errorf("run %s: %w: %s", shown, ErrKilled, exit)
	default:
		err = fmt.Errorf("run %s: %w", shown, err)
	}
	c.log(ctx, log, shown, r, err)
	return r, err
}

// Run is Exec without a log, in the shape that drivers take as their runner: combined output, exit status, error.
func Run(ctx context.Context, path string, args ...string) (output []byte, exit int, err error) {
	r, err := Exec(ctx, nil, Command{Path: path, Args: args})
	return r.Output, r.Exit, err
}

// Runner returns Run with a log.
func Runner(log *slog.Logger) func(ctx context.Context, path string, args ...string) (output []byte, exit int, err error) {
	return func(ctx context.Context, path string, args ...string) ([]byte, int, error) {
		r, err := Exec(ctx, log, Command{Path: path, Args: args})
		return r.Output, r.Exit, err
	}
}

func (c Command) shown() []string {
	if c.Secret {
		return c.Show
	}
	return c.Args
}

func (c Command) log(ctx context.Context, log *slog.Logger, shown string, r Result, err error) {
	if log == nil {
		return
	}
	attrs := []slog.Attr{slog.String("command", shown), slog.Int("exit", r.Exit), slog.Duration("elapsed", r.Elapsed)}
	if !c.Secret || len(c.Redact) > 0 {
		attrs = append(attrs, slog.String("output", lastLines(r.Output, 4096)))
	}
	level := slog.LevelDebug
	if err != nil || r.Exit != 0 {
		level = slog.LevelWarn
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	log.LogAttrs(ctx, level, "program ended", attrs...)
}

func find(path string) (string, error) {
	if strings.ContainsRune(path, '/') {
		return path, nil
	}
	for _, dir := range strings.Split(searchPath, ":") {
		p := dir + "/" + path
		if syscall.Access(p, 1 /* X_OK */) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("run %s: %w in %s", path, exec.ErrNotFound, searchPath)
}

func lastLines(b []byte, max int) string {
	if len(b) > max {
		b = b[len(b)-max:]
	}
	return string(bytes.TrimSpace(b))
}

// tail keeps the last max bytes written to it. os/exec writes to it from one goroutine, since both streams are the same.
type tail struct {
	max  int
	b    []byte
	lost bool // something is not kept
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.lost = t.lost || len(t.b) > t.max
	if len(t.b) > 2*t.max {
		t.b = append(t.b[:0], t.bytes()...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	if len(t.b) > t.max {
		return t.b[len(t.b)-t.max:]
	}
	return t.b
}
