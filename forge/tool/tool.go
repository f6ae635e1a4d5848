// Package tool is the one place where forge starts programs: xz, tar, objcopy, grub-mkimage.
//
// It streams standard input and output, keeps the last lines of standard error for the error message, and ends the whole
// process group when its context ends. It runs no shell and expands nothing. A program that is not there gives an error
// that names the Debian package which has it.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Command is a program to run.
type Command struct {
	// Name is the program: a name looked up in PATH and the sbin directories, or a path with a slash.
	Name string
	// Args are its arguments, without the program's name.
	Args []string
	// Package is the Debian package that has the program, named when it is missing. It may be empty.
	Package string
	// Dir is the working directory; empty: the current one.
	Dir string
	// Env are extra variables, "NAME=value". LC_ALL=C.UTF-8 is always set, so that messages can be understood by code.
	Env []string
	// Stdin is read to its end; nil: nothing. An error of the reader is the error of Run.
	Stdin io.Reader
	// Stdout gets the output while it is written; nil: thrown away.
	Stdout io.Writer
	// Quiet keeps the arguments out of the log and out of errors. Secrets do not belong into arguments all the same.
	Quiet bool
}

// Error is the failure of a program that was started.
type Error struct {
	// Command is the program with its arguments, or the program alone for a Quiet command.
	Command string
	// Exit is the exit status, -1 when a signal ended the program.
	Exit int
	// Stderr holds the last lines that the program wrote to standard error.
	Stderr string
	// Err is the error of os/exec.
	Err error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Command, e.Err)
	if e.Stderr != "" {
		s += ": " + strings.ReplaceAll(e.Stderr, "\n", "; ")
	}
	return s
}

// Unwrap returns the error of os/exec.
func (e *Error) Unwrap() error { return e.Err }

// MissingError says that a program is not installed. Its Hint is a sentence for the user.
type MissingError struct {
	Name    string // of the program
	Package string // Debian package that has it, or empty
}

func (e *MissingError) Error() string {
	if e.Package == "" {
		return fmt.Sprintf("program %s is not installed", e.Name)
	}
	return fmt.Sprintf("program %s is not installed: it is in the Debian package %s", e.Name, e.Package)
}

// Hint says what to do next.
func (e *MissingError) Hint() string {
	if e.Package == "" {
		return fmt.Sprintf("install %s", e.Name)
	}
	return fmt.Sprintf("install it with: apt-get install %s", e.Package)
}

// Need returns the path of the program name, or a *MissingError that names debianPackage. The sbin directories are searched
// too: they are not in every user's PATH.
func Need(name, debianPackage string) (string, error) {
	if strings.ContainsRune(name, '/') {
		if _, err := os.Stat(name); err != nil {
			return "", &MissingError{Name: name, Package: debianPackage}
		}
		return name, nil
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", &MissingError{Name: name, Package: debianPackage}
}

// Run runs c and waits for its end. The error is a *MissingError, ctx's error, that of c.Stdin or c.Stdout, or an *Error.
// When ctx ends, the program's process group gets SIGTERM, and SIGKILL two seconds later.
func Run(ctx context.Context, log *slog.Logger, c Command) error {
	path, err := Need(c.Name, c.Package)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8"), c.Env...)
	cmd.Stdout = c.Stdout
	last := &tail{}
	cmd.Stderr = last
	// No Pdeathsig: it is sent when the starting thread ends, and threads that a goroutine has locked do end. A program whose
	// starter is killed finds its input at the end and its output closed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second

	shown := filepath.Base(path)
	if !c.Quiet && len(c.Args) > 0 {
		shown += " " + strings.Join(c.Args, " ")
	}
	start := time.Now()
	var in *input
	if c.Stdin != nil {
		in = &input{r: c.Stdin}
		cmd.Stdin = in
	}
	err = cmd.Run()
	if log != nil {
		log.Debug("program ended", "command", shown, "seconds", time.Since(start).Seconds(), "error", err)
	}
	if err == nil {
		return nil
	}
	if in != nil && in.err != nil {
		return in.err
	}
	if ctx.Err() != nil {
		// The leader may be gone while others of its group are not.
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		return fmt.Errorf("%s: %w", shown, context.Cause(ctx))
	}
	e := &Error{Command: shown, Exit: -1, Stderr: last.String(), Err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		e.Exit = exit.ExitCode()
	}
	return e
}

// Output runs c and returns what it wrote to standard output, at most 16 MiB. c.Stdout must be nil.
func Output(ctx context.Context, log *slog.Logger, c Command) ([]byte, error) {
	out := &limited{left: 16 << 20}
	c.Stdout = out
	if err := Run(ctx, log, c); err != nil {
		return nil, err
	}
	return out.b.Bytes(), nil
}

// input remembers the error of the reader, which os/exec mixes with the program's own.
type input struct {
	r   io.Reader
	err error
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if err != nil && err != io.EOF {
		i.err = err
	}
	return n, err
}

// tail keeps the last bytes written to it.
type tail struct{ b []byte }

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailBytes {
		t.b = append(t.b[:0], t.b[len(t.b)-tailBytes:]...)
	}
	return n, nil
}

// String returns the last lines, at most eight.
func (t *tail) String() string {
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	if len(lines) > 8 {
		lines = lines[len(lines)-8:]
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r ")
	}
	return strings.Join(lines, "\n")
}

type limited struct {
	b    bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errors.New("output is longer than 16 MiB")
	}
	l.left -= len(p)
	return l.b.Write(p)
}
