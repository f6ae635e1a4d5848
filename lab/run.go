package lab

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"gprovision/forge/tool"
)

// run runs a program to its end. pkg is the Debian package that has it.
func run(ctx context.Context, log *slog.Logger, pkg, name string, args ...string) error {
	return tool.Run(ctx, log, tool.Command{Name: name, Package: pkg, Args: args})
}

// program is a program that runs in the background.
type program struct {
	name  string // looked up as tool.Need does
	pkg   string // Debian package that has it
	args  []string
	env   []string
	dir   string
	out   io.Writer  // standard output and standard error; nil: thrown away
	files []*os.File // descriptors 3, 4, ... of the program; the caller closes its own copies
}

// process is a program that was started.
type process struct {
	name string
	pid  int
	done chan struct{} // closed at the end
	err  error         // valid when done is closed
}

// start starts p from the calling thread: the program lives in that thread's network namespace, and the kernel kills it when
// that thread ends. So the caller is locked to its thread, or is on one that stays.
func start(p program) (*process, error) {
	path, err := tool.Need(p.name, p.pkg)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = p.dir, p.out, p.out, p.files
	cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8"), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	r := &process{name: filepath.Base(path), pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		r.err = cmd.Wait()
		close(r.done)
	}()
	return r, nil
}

// kill ends the process and its group at once and waits for the end.
func (p *process) kill() {
	select {
	case <-p.done: // its number may belong to another process by now
	default:
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
	}
}

// interrupt asks the process to end.
func (p *process) interrupt() {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(p.pid, syscall.SIGTERM)
	}
}

// wait waits for the end of the process or of ctx.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s: %w", p.name, context.Cause(ctx))
	}
}

// lastLines returns the last n lines of a text, without control characters.
func lastLines(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r == '\r' || (r < ' ' && r != '\n' && r != '\t') {
			return -1
		}
		return r
	}, text)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
