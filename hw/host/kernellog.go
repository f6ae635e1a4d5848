package host

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelLog reads what the kernel writes to its log from when it was opened on. The log stays as it is.
type KernelLog struct{ r io.ReadCloser }

// maxRecord is the largest length of a record of /dev/kmsg, bytes: the kernel's own limit is 2 KiB with all that belongs to one.
const maxRecord = 1 << 14

// OpenKernelLog opens the kernel's log at its end. The caller closes it.
func OpenKernelLog() (*KernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open kernel log: %w", err)
	}
	if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
		return nil, errors.Join(fmt.Errorf("open kernel log: %w", err), unix.Close(fd))
	}
	return NewKernelLog(kmsg(fd)), nil
}

// NewKernelLog returns the log behind r, which behaves as /dev/kmsg does: each Read gives one record, EAGAIN says that there is none at
// this moment, and EPIPE that some were overwritten.
func NewKernelLog(r io.ReadCloser) *KernelLog { return &KernelLog{r} }

// kmsg is an open /dev/kmsg.
type kmsg int

func (k kmsg) Read(b []byte) (int, error) {
	n, err := unix.Read(int(k), b)
	return max(n, 0), err
}

func (k kmsg) Close() error { return unix.Close(int(k)) }

// New returns the text of the records that came since the last call and are the kernel's own: what programs have written to the log is
// left out. lost reports whether the kernel has overwritten some that nobody read.
func (k *KernelLog) New() (messages []string, lost bool, err error) {
	b := make([]byte, maxRecord)
	for {
		n, err := k.r.Read(b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EPIPE):
			lost = true
		case errors.Is(err, unix.EAGAIN), errors.Is(err, io.EOF):
			return messages, lost, nil
		case err != nil:
			return messages, lost, fmt.Errorf("read kernel log: %w", err)
		default:
			if text, ok := parseRecord(string(b[:n])); ok {
				messages = append(messages, text)
			}
		}
	}
}

// Close closes the log.
func (k *KernelLog) Close() error { return k.r.Close() }

// parseRecord returns the text of a record of /dev/kmsg, "PRIORITY,NUMBER,TIME,FLAGS;TEXT" and lines that belong to it, if its facility is
// the kernel's.
func parseRecord(s string) (text string, ok bool) {
	head, rest, ok := strings.Cut(s, ";")
	if !ok {
		return "", false
	}
	first, _, _ := strings.Cut(head, ",")
	priority, err := strconv.ParseUint(first, 10, 32)
	if err != nil || priority>>3 != 0 {
		return "", false
	}
	text, _, _ = strings.Cut(rest, "\n")
	return text, true
}
