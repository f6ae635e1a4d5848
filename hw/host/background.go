package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// readyDescriptor is where a process that Background started says that it is ready.
const readyDescriptor = 3

// Background starts this very program once more, as a process that goes on when this one is replaced or ends. args are its
// arguments, args[0] is how it is called. It has no terminal and no open files. Background waits until that process calls Ready; if it
// ends before that, or ctx does, it is killed and the error says so.
func Background(ctx context.Context, args []string) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	defer null.Close()
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	defer ours.Close()
	p, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, theirs}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	said := make(chan error, 1)
	go func() {
		_, err := ours.Read(make([]byte, 1))
		said <- err
	}()
	select {
	case err = <-said:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: it does not get ready: %w", args[0], err), End(p))
	}
	return p, nil
}

// Companion starts this very program once more, as a process that reads what is written to the connection, on its standard input, and whose
// standard output is read from it. args are its arguments, args[0] is how it is called. Its input ends when the connection is closed, this
// process ends or is replaced: it has to end itself then, nobody waits for it.
func Companion(args []string) (io.ReadWriteCloser, error) {
	failed := func(err error) (io.ReadWriteCloser, error) { return nil, fmt.Errorf("start %s: %w", args[0], err) }
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return failed(err)
	}
	defer null.Close()
	in, toIn, err := os.Pipe()
	if err != nil {
		return failed(err)
	}
	defer in.Close()
	fromOut, out, err := os.Pipe()
	if err != nil {
		toIn.Close()
		return failed(err)
	}
	defer out.Close()
	p, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{Dir: "/", Env: []string{}, Files: []*os.File{in, out, null}})
	if err != nil {
		toIn.Close()
		fromOut.Close()
		return failed(err)
	}
	go func() { _, _ = p.Wait() }() // so that none is left of it
	return &companion{fromOut, toIn}, nil
}

type companion struct {
	*os.File // its output
	in       *os.File
}

func (c *companion) Write(b []byte) (int, error) { return c.in.Write(b) }

func (c *companion) Close() error { return errors.Join(c.in.Close(), c.File.Close()) }

// SetName gives this process the name under which other programs, such as pkill, find it: at most 15 bytes (proc_pid_comm(5)). One that
// Background started has none of its own before that. It needs /proc.
func SetName(name string) error {
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
		return fmt.Errorf("name process %s: %w", name, err)
	}
	return nil
}

// Ready tells the process that started this one by Background that it may go on.
func Ready() error {
	f := os.NewFile(readyDescriptor, "ready")
	if f == nil {
		return errors.New("this process was not started by Background")
	}
	_, err := f.Write([]byte{1})
	return errors.Join(err, f.Close())
}

// End kills a process that Background started and waits for its end.
func End(p *os.Process) error {
	err := p.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	_, waited := p.Wait()
	return errors.Join(err, waited)
}

// EnterRoot makes dir the root directory of this process. What is mounted on dir later is seen by it.
func EnterRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter %s: %w", dir, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter %s: %w", dir, err)
	}
	return nil
}
