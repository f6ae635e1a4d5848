package console

import (
	"strings"
	"testing"
	"testing/fstest"
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
