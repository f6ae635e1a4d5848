package host

import (
	"context"
	"errors"
	"fmt"
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
