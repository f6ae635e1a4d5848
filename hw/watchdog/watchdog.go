// Package watchdog drives a hardware watchdog: a timer that resets the machine unless somebody pets it in time.
//
// It does not know why the machine should be reset, and pets nothing by itself. Facts: Linux
// Documentation/watchdog/watchdog-api.rst, drivers/watchdog/watchdog_dev.c.
package watchdog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNone says that the machine has no watchdog, or none whose driver is loaded.
var ErrNone = errors.New("no watchdog")

// ErrBusy says that another process has the watchdog: the kernel lets only one open it.
var ErrBusy = errors.New("another process has the watchdog")

// ErrNoStop says that a watchdog cannot be stopped once it runs (nowayout).
var ErrNoStop = errors.New("the watchdog cannot be stopped")

// Find returns the device of the first watchdog, the one that systemd takes too, such as /dev/watchdog0. sys is /sys.
func Find(sys fs.FS) (string, error) {
	list, err := fs.ReadDir(sys, "class/watchdog")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find watchdog: %w", err)
	}
	var numbers []int
	for _, e := range list {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "watchdog")); err == nil && n >= 0 {
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return "", ErrNone
	}
	return fmt.Sprintf("/dev/watchdog%d", slices.Min(numbers)), nil
}

// Timer is an open watchdog, which runs. End its use with Stop or Leave. Its methods may not be called at the same time.
type Timer struct {
	path     string
	identity string
	expired  bool
	magic    bool // the driver stops after a V
	dev      io.WriteCloser
	// timeout sets the time in seconds and returns what the driver made of it.
	timeout func(seconds int) (int, error)
}

// Open opens the watchdog at path, which starts it with the time that its driver has set. The error is ErrBusy if another process
// has it.
func Open(path string) (*Timer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open watchdog: %w", ErrBusy)
	}
	if err != nil {
		return nil, fmt.Errorf("open watchdog: %w", err)
	}
	fd := int(f.Fd())
	t := &Timer{path: path, dev: f, timeout: func(s int) (int, error) {
		if err := unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, s); err != nil {
			return 0, err
		}
		return unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT)
	}}
	if info, err := unix.IoctlGetWatchdogInfo(fd); err == nil {
		id, _, _ := strings.Cut(string(info.Identity[:]), "\x00")
		t.identity = strings.ToValidUTF8(id, "?")
		t.magic = info.Options&unix.WDIOF_MAGICCLOSE != 0
	}
	if status, err := unix.IoctlGetInt(fd, unix.WDIOC_GETBOOTSTATUS); err == nil {
		t.expired = status&unix.WDIOF_CARDRESET != 0
	}
	return t, nil
}

// Path is the device.
func (t *Timer) Path() string { return t.path }

// Identity is what the driver calls the device, such as "i6300ESB timer".
func (t *Timer) Identity() string { return t.identity }

// Expired reports whether this watchdog reset the machine before it started now. Drivers that cannot tell say no.
func (t *Timer) Expired() bool { return t.expired }

// SetTimeout sets how long the watchdog waits, and pets it. A driver that cannot wait so long gets half of it, and again, down to a
// second. The time that the watchdog really waits is returned.
func (t *Timer) SetTimeout(d time.Duration) (time.Duration, error) {
	for s := max(1, int((d+time.Second-1)/time.Second)); ; s /= 2 {
		got, err := t.timeout(s)
		if errors.Is(err, unix.EINVAL) && s > 1 {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("set time of watchdog: %w", err)
		}
		return time.Duration(got) * time.Second, t.Pet()
	}
}

// Pet starts the time anew. Anything but a V, which announces a stop, does.
func (t *Timer) Pet() error {
	if _, err := t.dev.Write([]byte{0}); err != nil {
		return fmt.Errorf("pet watchdog: %w", err)
	}
	return nil
}

// Leave ends the use of a watchdog that runs on: whoever opens it next must pet it in time.
func (t *Timer) Leave() error { return t.dev.Close() }

// Stop stops the watchdog and ends its use. The error is ErrNoStop if the driver has no way to stop it; a kernel that was built or
// told never to stop it (nowayout) says so in its own log only.
func (t *Timer) Stop() error {
	if !t.magic {
		return errors.Join(ErrNoStop, t.dev.Close())
	}
	_, err := t.dev.Write([]byte{'V'})
	if err = errors.Join(err, t.dev.Close()); err != nil {
		return fmt.Errorf("stop watchdog: %w", err)
	}
	return nil
}

// Running reports whether the watchdog at path runs, by its attribute state in sysfs. ok is false if sysfs does not tell.
func Running(sys fs.FS, path string) (running, ok bool) {
	b, err := fs.ReadFile(sys, "class/watchdog/"+strings.TrimPrefix(path, "/dev/")+"/state")
	return strings.TrimSpace(string(b)) == "active", err == nil
}
