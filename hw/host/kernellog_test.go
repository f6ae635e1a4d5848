package host

import (
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// source gives what /dev/kmsg gives, and then that there is no more.
type source struct{ left []any }

func (s *source) Read(b []byte) (int, error) {
	if len(s.left) == 0 {
		return 0, unix.EAGAIN
	}
	next := s.left[0]
	s.left = s.left[1:]
	if err, ok := next.(error); ok {
		return 0, err
	}
	return copy(b, next.(string)), nil
}

func (s *source) Close() error { return io.ErrClosedPipe }

// TestKernelLog: the kernel's own messages are told once each, those of programs are not, and what was lost is said.
func TestKernelLog(t *testing.T) {
	s := &source{left: []any{
		"6,339,5140900,-;NET: Registered PF_INET6 protocol family\n SUBSYSTEM=net\n", unix.EINTR, "30,340,5140901,-;systemd says I/O error",
		"12,341,5140902,-;written by a program", unix.EPIPE, "3,350,6000000,c;ata1: hard resetting link", "nonsense", "x,1;nonsense", "",
	}}
	k := NewKernelLog(s)
	got, lost, err := k.New()
	want := []string{"NET: Registered PF_INET6 protocol family", "ata1: hard resetting link"}
	if !slices.Equal(got, want) || !lost || err != nil {
		t.Errorf("got %q, lost %t, %v", got, lost, err)
	}
	s.left = []any{"0,351,6000001,-;Kernel panic - not quite", unix.EIO, "0,352,6000002,-;later"}
	if got, lost, err = k.New(); len(got) != 1 || lost || !errors.Is(err, unix.EIO) {
		t.Errorf("got %q, lost %t, %v", got, lost, err)
	}
	if got, lost, err = k.New(); len(got) != 1 || got[0] != "later" || lost || err != nil {
		t.Errorf("got %q, lost %t, %v", got, lost, err)
	}
	if err := k.Close(); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// TestOpenKernelLog opens the log of the machine that the test runs on: what was there before is not told, and what a program writes
// to it is not the kernel's.
func TestOpenKernelLog(t *testing.T) {
	k, err := OpenKernelLog()
	if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/dev/kmsg", []byte("<3>a test says so\n"), 0); err != nil {
		t.Logf("nobody may write to it: %v", err)
	}
	got, _, err := k.New()
	if err != nil || slices.ContainsFunc(got, func(m string) bool { return m == "a test says so" }) || len(got) > 100 {
		t.Errorf("got %q, %v", got, err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}
