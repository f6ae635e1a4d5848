package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Actions of syslog(2).
const (
	syslogReadAll    = 3
	syslogSizeBuffer = 10
)

// KernelMessages returns what is in the kernel's buffer of messages, one on each line, as syslog(2) gives it: "<LEVEL>" in front, and
// the time since the start if the kernel writes it. The buffer stays as it is.
func KernelMessages() ([]byte, error) {
	n, err := unix.Klogctl(syslogSizeBuffer, nil)
	if err != nil {
		return nil, fmt.Errorf("read kernel messages: %w", err)
	}
	b := make([]byte, max(n, 1<<16))
	if n, err = unix.Klogctl(syslogReadAll, b); err != nil {
		return nil, fmt.Errorf("read kernel messages: %w", err)
	}
	return b[:n], nil
}
