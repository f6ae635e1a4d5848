package lab_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
)

// screen is what the serial console has shown since it was begun.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newScreen(t *testing.T, u *lab.Unit) *screen {
	s := &screen{changed: make(chan struct{}, 1)}
	t.Cleanup(u.Watch(s))
	return s
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return len(b), nil
}

// shows waits until the text appears behind all that was waited for before. again is typed each second until then.
func (s *screen) shows(t *testing.T, u *lab.Unit, patience time.Duration, text, again string) {
	t.Helper()
	end, tick := time.NewTimer(patience), time.NewTicker(time.Second)
	defer end.Stop()
	defer tick.Stop()
	for {
		s.mu.Lock()
		at := strings.Index(s.text.String(), text)
		if at >= 0 {
			s.text.Next(at + len(text))
		}
		s.mu.Unlock()
		if at >= 0 {
			return
		}
		select {
		case <-s.changed:
		case <-tick.C:
			keys(t, u, again)
		case <-end.C:
			t.Fatalf("the console does not show %q", text)
		}
	}
}

// answer types a key and returns what the console shows then, until it has been silent for a second.
func (s *screen) answer(t *testing.T, u *lab.Unit, key string) string {
	t.Helper()
	s.mu.Lock()
	s.text.Reset()
	s.mu.Unlock()
	keys(t, u, key)
	silence := time.NewTimer(10 * time.Second)
	defer silence.Stop()
	for {
		select {
		case <-s.changed:
			silence.Reset(time.Second)
			continue
		case <-silence.C:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.text.String()
	}
}

func keys(t *testing.T, u *lab.Unit, text string) {
	t.Helper()
	if err := u.Type(text); err != nil {
		t.Fatal(err)
	}
}

const (
	escape = "\x1b"
	down   = "\x1b[B"
	enter  = "\r"
)

// TestForcedRestore chooses Forced Factory Restore in the boot menu, of OVMF and of GRUB, as a person does on a serial console, and
// says yes. The restore is done once.
func TestForcedRestore(t *testing.T) {
	t.Parallel()
	forcedRestore(t, layout.BIOS)
}

func forcedRestore(t *testing.T, fw layout.Firmware) {
	t.Helper()
	l := needLife(t)
	u := l.fork(t, network(t), fw, nil)
	s := newScreen(t, u)
	if fw == layout.UEFI {
		start(t, u, lab.FirmwareMenu())
		s.shows(t, u, bootPatience, "Boot Manager", escape)
		keys(t, u, down+down+enter)
		s.shows(t, u, time.Minute, "Forced Factory Restore", "")
		for i := 0; !strings.Contains(s.answer(t, u, down), "Forced Factory Restore"); i++ { // drawn again when it is chosen
			if i == 30 {
				t.Fatal("the menu never comes to Forced Factory Restore")
			}
		}
		keys(t, u, enter)
	} else {
		start(t, u)
		s.shows(t, u, bootPatience, "ESC for the boot menu", "")
		keys(t, u, escape)
		s.shows(t, u, time.Minute, "Forced Factory Restore", "")
		keys(t, u, down+enter)
	}
	s.shows(t, u, bootPatience, "data on the main disk", "")
	keys(t, u, "2")
	whole(t, up(t, u), "2")
	seen(t, u, 1, jobState("restore", "succeeded"), "restore")
	seen(t, u, 1, lab.Msg("forced restore"), "forced restore")
}

// TestPulledDisk: either of the two devices starts the unit alone. Without the recovery device the system runs; without the main
// disk the unit says so and changes nothing.
func TestPulledDisk(t *testing.T) {
	t.Parallel()
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		for i, pulled := range []string{"recovery", "main"} {
			t.Run(string(fw)+" without "+pulled, func(t *testing.T) {
				t.Parallel()
				l := needLife(t)
				u := l.fork(t, network(t), fw, func(c *lab.Config) {
					c.Disks = append(c.Disks[:i:i], c.Disks[i+1:]...)
					if fw == layout.BIOS {
						c.Disks[0].BootIndex = 1
					}
				})
				s := newScreen(t, u)
				start(t, u)
				if pulled == "recovery" {
					whole(t, up(t, u), "2")
					return
				}
				if e := expect(t, u, bootPatience, lab.Msg("hold")); e.Text("code") != "G221" {
					t.Errorf("the unit holds with %s, want G221", e.Text("code"))
				}
				s.shows(t, u, time.Minute, "G221", "")
			})
		}
	}
}

// TestBootFilesRepaired destroys what the firmware starts on the main disk. The recovery device starts the unit, which repairs that:
// the next boot comes from the main disk again.
func TestBootFilesRepaired(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, nil)
	start(t, u)
	up(t, u)
	tell(t, u, map[string]any{"do": "patch", "path": "/dev/vdb1", "text": strings.Repeat("damaged!", 64)})
	for _, want := range []bool{false, true} {
		if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
			t.Fatal(err)
		}
		e := expect(t, u, bootPatience, lab.Msg("init"))
		if fromMain := strings.Contains(e.Text("cmdline"), "real_root="); fromMain != want {
			t.Errorf("started from the main disk: %t, want %t", fromMain, want)
		}
		whole(t, up(t, u), "2")
	}
	seen(t, u, 1, lab.Msg("boot files of the main disk are right"), "repair of the boot files")
	seen(t, u, 0, jobState("restore", "started"), "restore")
}
