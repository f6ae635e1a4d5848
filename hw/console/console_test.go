package console

import (
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestActive(t *testing.T) {
	for text, want := range map[string]string{
		"tty0 ttyS0\n": "/dev/tty0 /dev/ttyS0", "ttyS1": "/dev/ttyS1", "": "/dev/console", "ttynull\n": "/dev/console", "../x hvc0": "/dev/hvc0",
	} {
		sys := fstest.MapFS{"class/tty/console/active": {Data: []byte(text)}}
		if got := strings.Join(Active(sys), " "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := Active(fstest.MapFS{}); len(got) != 1 || got[0] != "/dev/console" {
		t.Errorf("without sysfs: %q", got)
	}
	for dev, want := range map[string]bool{"/dev/tty0": true, "/dev/tty12": true, "/dev/ttyS0": false, "/dev/tty": false, "/dev/console": false, "/dev/hvc0": false} {
		if IsScreen(dev) != want {
			t.Errorf("IsScreen(%s) is not %v", dev, want)
		}
	}
}

// TestSize: a terminal has the size that somebody has set, and none before.
func TestSize(t *testing.T) {
	tty, err := Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if w, h := tty.Size(); w != 0 || h != 0 {
		t.Errorf("nobody has said that it has %d by %d", w, h)
	}
	err = tty.control(func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: 128, Row: 48}) })
	if w, h := tty.Size(); err != nil || w != 128 || h != 48 {
		t.Errorf("%d by %d, %v", w, h, err)
	}
	null, err := Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if w, h := null.Size(); w != 0 || h != 0 {
		t.Errorf("what is no terminal has %d by %d", w, h)
	}
}

func TestOpen(t *testing.T) {
	f, err := Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := Open("/dev/nosuchconsole"); err == nil {
		t.Error("opened a console that is not there")
	}
}
