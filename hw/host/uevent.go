package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Uevent is a message of the kernel about a device (Linux lib/kobject_uevent.c).
type Uevent struct {
	// Action is "add", "remove", "change", "move", "online", "offline", "bind", "unbind", or Missed.
	Action string
	// Path is the device's directory below /sys, with a leading slash.
	Path string
	// Subsystem is the class or bus, such as "block" or "usb".
	Subsystem string
	// Env are all variables, such as DEVNAME, DEVTYPE, MODALIAS, SEQNUM.
	Env map[string]string
}

// Missed is the Action of an event that stands for events that were lost: look at everything again.
const Missed = "missed"

// Events listens for the kernel's messages about devices until ctx ends; then the channel is closed. Listen first, look at
// what is there second: so nothing is missed. The receiver must keep up; when it does not, messages are lost and it gets one
// with the action Missed. Messages that do not come from the kernel are ignored.
func Events(ctx context.Context) (<-chan Uevent, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen for devices: %w", err)
	}
	// Many messages come at once when drivers are loaded.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen for devices: %w", err)
	}
	// A timeout lets the reader see the end of ctx.
	tv := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen for devices: %w", err)
	}
	out := make(chan Uevent, 256)
	go func() {
		defer close(out)
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for ctx.Err() == nil {
			e, ok := receive(fd, buf)
			if !ok {
				continue
			}
			select {
			case out <- e:
			case <-ctx.Done():
			}
		}
	}()
	return out, nil
}

func receive(fd int, buf []byte) (Uevent, bool) {
	n, from, err := unix.Recvfrom(fd, buf, 0)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return Uevent{Action: Missed}, true
	case err != nil:
		return Uevent{}, false
	}
	if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
		return Uevent{}, false
	}
	e, err := ParseUevent(buf[:n])
	return e, err == nil
}

// ParseUevent reads one message: "ACTION@PATH", then "NAME=value" strings, each ended by a zero byte.
func ParseUevent(b []byte) (Uevent, error) {
	parts := bytes.Split(bytes.TrimSuffix(b, []byte{0}), []byte{0})
	action, path, ok := strings.Cut(string(parts[0]), "@")
	if !ok || action == "" || action == Missed || !strings.HasPrefix(path, "/") {
		return Uevent{}, fmt.Errorf("parse device message: header %q", parts[0])
	}
	e := Uevent{Action: action, Path: path, Env: map[string]string{}}
	for _, p := range parts[1:] {
		name, value, ok := strings.Cut(string(p), "=")
		if !ok {
			return Uevent{}, fmt.Errorf("parse device message: variable %q", p)
		}
		e.Env[name] = value
	}
	e.Subsystem = e.Env["SUBSYSTEM"]
	return e, nil
}
