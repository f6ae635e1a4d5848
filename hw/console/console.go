// Package console drives what a person sees and presses at a machine without a graphical system: virtual terminals of the
// screen, serial lines, and the PC speaker.
//
// It opens a terminal, switches it to raw input, turns the bytes that come from it into keys, and beeps. It draws nothing and
// knows nothing of questions.
package console

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Active returns the devices of all consoles that the kernel writes to, in its order, from class/tty/console/active in sysfs:
// "/dev/tty0" is the screen, the last one is what /dev/console is. When that file is missing or empty it is /dev/console
// alone. Consoles that show nothing are left out.
func Active(sys fs.FS) []string {
	b, _ := fs.ReadFile(sys, "class/tty/console/active")
	var out []string
	for _, name := range strings.Fields(string(b)) {
		if name == "ttynull" || strings.ContainsAny(name, "/.") {
			continue
		}
		out = append(out, "/dev/"+name)
	}
	if len(out) == 0 {
		return []string{"/dev/console"}
	}
	return out
}

// IsScreen reports whether a device is a virtual terminal of the screen (/dev/tty0, /dev/tty1 ...) and not a serial line.
func IsScreen(device string) bool {
	n, ok := strings.CutPrefix(device, "/dev/tty")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}

// TTY is an open terminal. Its Write never waits for a serial line whose other end is not there.
type TTY struct {
	*os.File

	mu     sync.Mutex
	cooked *unix.Termios // as it was before Raw
}

// Open opens a terminal for reading and writing. It does not become the controlling terminal, and a serial line's carrier is
// not waited for. The caller closes it.
func Open(device string) (*TTY, error) {
	f, err := os.OpenFile(device, os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	return &TTY{File: f}, nil
}

// Raw makes the terminal give each byte as it comes, without echo, signals or lines (termios(3), cfmakeraw). Output stays as it
// was: a new line still begins at the left. Restore undoes it; twice is fine.
func (t *TTY) Raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cooked != nil {
		return nil
	}
	now, err := t.termios()
	if err != nil {
		return err
	}
	raw := *now
	raw.Iflag &^= unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Iflag |= unix.IGNBRK | unix.IGNPAR // a line without a cable is noisy
	raw.Cflag |= unix.CLOCAL | unix.CREAD
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := t.set(&raw); err != nil {
		return err
	}
	t.cooked = now
	return nil
}

// Size returns how many columns and lines the terminal has. Both are 0 where nobody has said that, as on a serial line.
func (t *TTY) Size() (columns, lines int) {
	err := t.control(func(fd int) error {
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			columns, lines = int(w.Col), int(w.Row)
		}
		return err
	})
	if err != nil {
		return 0, 0
	}
	return columns, lines
}

// Restore makes the terminal what it was before Raw.
func (t *TTY) Restore() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cooked == nil {
		return nil
	}
	if err := t.set(t.cooked); err != nil {
		return err
	}
	t.cooked = nil
	return nil
}

// Close restores the terminal and closes it.
func (t *TTY) Close() error { return errors.Join(t.Restore(), t.File.Close()) }

func (t *TTY) termios() (*unix.Termios, error) {
	var out *unix.Termios
	err := t.control(func(fd int) (err error) {
		out, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read settings of %s: %w", t.Name(), err)
	}
	return out, nil
}

func (t *TTY) set(v *unix.Termios) error {
	if err := t.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, v) }); err != nil {
		return fmt.Errorf("change settings of %s: %w", t.Name(), err)
	}
	return nil
}

func (t *TTY) control(do func(fd int) error) error {
	c, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}
