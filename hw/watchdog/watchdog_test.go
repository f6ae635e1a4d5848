package watchdog

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

func TestFind(t *testing.T) {
	sys := fstest.MapFS{"class/net/eth0": {}}
	if _, err := Find(sys); !errors.Is(err, ErrNone) {
		t.Errorf("without a watchdog: %v", err)
	}
	for _, n := range []string{"watchdog10", "watchdog2", "other"} {
		sys["class/watchdog/"+n] = &fstest.MapFile{Mode: fs.ModeDir}
	}
	if got, err := Find(sys); err != nil || got != "/dev/watchdog2" {
		t.Errorf("got %q, %v", got, err)
	}
	sys["class/watchdog/watchdog2/state"] = &fstest.MapFile{Data: []byte("active\n")}
	if run, ok := Running(sys, "/dev/watchdog2"); !run || !ok {
		t.Errorf("an active watchdog: %t, %t", run, ok)
	}
	if _, ok := Running(sys, "/dev/watchdog3"); ok {
		t.Error("a watchdog that is not there has a state")
	}
}

// device is what a kernel sees.
type device struct {
	written []byte
	closed  bool
}

func (d *device) Write(b []byte) (int, error) {
	d.written = append(d.written, b...)
	return len(b), nil
}
func (d *device) Close() error { d.closed = true; return nil }

func TestTimeout(t *testing.T) {
	d := &device{}
	w := &Timer{dev: d, timeout: func(s int) (int, error) {
		if s > 100 {
			return 0, unix.EINVAL
		}
		return s, nil
	}}
	if got, err := w.SetTimeout(300 * time.Second); err != nil || got != 75*time.Second {
		t.Errorf("got %s, %v, want the largest half that the driver takes", got, err)
	}
	if len(d.written) != 1 || d.written[0] == 'V' {
		t.Errorf("written %q: it is petted once, and not told to stop", d.written)
	}
	w.timeout = func(int) (int, error) { return 0, unix.EINVAL }
	if _, err := w.SetTimeout(time.Second); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a driver that takes no time: %v", err)
	}
}

// TestEnds: only Stop writes the V that lets the driver stop.
func TestEnds(t *testing.T) {
	d := &device{}
	if err := (&Timer{dev: d, magic: true}).Leave(); err != nil || !d.closed || len(d.written) != 0 {
		t.Errorf("left: %+v, %v", d, err)
	}
	d = &device{}
	if err := (&Timer{dev: d, magic: true}).Stop(); err != nil || !d.closed || string(d.written) != "V" {
		t.Errorf("stopped: %+v, %v", d, err)
	}
	d = &device{}
	if err := (&Timer{dev: d}).Stop(); !errors.Is(err, ErrNoStop) || !d.closed {
		t.Errorf("without magic close: %+v, %v", d, err)
	}
}
