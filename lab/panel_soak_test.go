//go:build soak

package lab_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"gprovision/hw/lcd"
	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/unit/splash"
)

// hand is a person at one of the panels of a unit.
type hand interface {
	// open opens the menu in the grace time.
	open(t *testing.T)
	// choose chooses an option of the question with the title, which is or will be on the panel.
	choose(t *testing.T, title, option string)
	// back gives the question up.
	back(t *testing.T, title string)
	// leave has the running system take the panel.
	leave(t *testing.T)
}

// What the menu has.
const (
	menuResume   = "Resume normal boot"
	menuOff      = "Power off"
	menuLatest   = "Restore latest"
	menuOriginal = "Restore original"
	menuImage    = "Restore: choose image"
)

// menuTest has a person make every choice of the menu on one panel of a unit that has the releases 1 and 2, and 2 runs.
func menuTest(t *testing.T, u *lab.Unit, h hand, older, original string) {
	// together runs the situations in turn: each goes on where the one before ended.
	together := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	chose := func(t *testing.T, choice, image string) {
		t.Helper()
		seen(t, u, 1, lab.All(lab.Msg("choice"), lab.Field("choice", choice), lab.Field("image", image)), choice)
	}
	restored := func(t *testing.T, want int, f func()) {
		t.Helper()
		before := len(u.Events.Seen(jobState("restore", "succeeded")))
		started := len(u.Events.Seen(jobState("restore", "started")))
		f()
		seen(t, u, before+want, jobState("restore", "succeeded"), "restores that were done")
		seen(t, u, started+want, jobState("restore", "started"), "restores that were started")
	}
	again := func(t *testing.T) {
		t.Helper()
		h.leave(t)
		if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
			t.Fatal(err)
		}
		h.open(t)
	}
	together("No and back, then resume", func(t *testing.T) {
		restored(t, 0, func() {
			start(t, u)
			h.open(t)
			h.choose(t, "Menu", menuOriginal)
			h.choose(t, menuOriginal, "No")
			h.choose(t, "Menu", menuOff)
			h.choose(t, menuOff, "No")
			h.choose(t, "Menu", menuLatest)
			h.back(t, menuLatest)
			h.choose(t, "Menu", menuImage)
			h.back(t, "Choose image")
			h.choose(t, "Menu", menuResume)
			whole(t, up(t, u), "2")
		})
		chose(t, "resume", "")
	})
	together("choose image", func(t *testing.T) {
		restored(t, 1, func() {
			again(t)
			part := strings.SplitN(strings.TrimSuffix(older, release.Suffix), ".", 4)[3]
			h.choose(t, "Menu", menuImage)
			h.choose(t, "Choose image", part)
			h.choose(t, "Restore "+part, "Yes")
			whole(t, up(t, u), "1")
		})
		chose(t, "restore-image", older)
	})
	together("restore latest", func(t *testing.T) {
		restored(t, 1, func() {
			again(t)
			h.choose(t, "Menu", menuLatest)
			h.choose(t, menuLatest, "Yes")
			whole(t, up(t, u), "2")
		})
		chose(t, "restore-latest", "")
	})
	together("restore original", func(t *testing.T) {
		restored(t, 1, func() {
			again(t)
			h.choose(t, "Menu", menuOriginal)
			h.choose(t, menuOriginal, "Yes")
			whole(t, up(t, u), original)
		})
		chose(t, "restore-original", "")
	})
	together("power off", func(t *testing.T) {
		boots := len(u.Events.Seen(jobState("boot", "started")))
		again(t)
		h.choose(t, "Menu", menuOff)
		h.choose(t, menuOff, "Yes")
		expect(t, u, time.Minute, lab.All(lab.Msg("choice"), lab.Field("choice", "power-off")))
		if err := u.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen(t, u, boots, jobState("boot", "started"), "boot")
	})
}

// TestSoakMenuDisplay makes every choice with the keys of a display, of both models.
func TestSoakMenuDisplay(t *testing.T) {
	t.Parallel()
	for m, fw := range map[lcd.Model]layout.Firmware{lcd.Model635: layout.UEFI, lcd.Model631: layout.BIOS} {
		t.Run(m.String(), func(t *testing.T) {
			l := needLife(t)
			u := l.fork(t, network(t), fw, withDisplay(m))
			menuTest(t, u, &displayHand{u, m}, l.images[0], "2")
		})
	}
}

// displayHand presses the keys of the unit's display.
type displayHand struct {
	u *lab.Unit
	m lcd.Model
}

// on returns the key of the model that does something.
func (h *displayHand) on(r lcd.Role) lcd.Key {
	for _, k := range h.m.Keys() {
		if k.Role() == r {
			return k
		}
	}
	return 0
}

func (h *displayHand) open(t *testing.T) {
	ready(t, h.u, h.m)
	h.u.Display().Tap(h.on(lcd.Next))
}

func (h *displayHand) choose(t *testing.T, _, option string) {
	choose(t, h.u, h.on(lcd.Next), h.on(lcd.Choose), option[:min(len(option), len("Restore: choose"))]) // the end of a long one is cut
}

// back waits for any option: a question's title may have scrolled by. The menu is not what is given up.
func (h *displayHand) back(t *testing.T, title string) {
	selected := "►No◄"
	if title == "Choose image" {
		selected = "►20" // the date of the first one
	}
	sees(t, h.u, selected)
	h.u.Display().Tap(h.on(lcd.Cancel))
}

func (h *displayHand) leave(t *testing.T) {
	tell(t, h.u, map[string]any{"do": "connect", "path": splash.Socket}) // else the display would seem to be ready
}

// TestSoakMenuSerial makes every choice over the serial line, on BIOS.
func TestSoakMenuSerial(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.BIOS, nil)
	h := &consoleHand{u: u, key: func(t *testing.T, k string) {
		keys(t, u, map[string]string{"down": down, "ret": enter, "esc": escape, "spc": "x"}[k])
	}}
	menuTest(t, u, h, l.images[0], "2")
}

// TestSoakMenuKeyboard makes every choice with the keyboard of a unit with a screen, on UEFI. The serial line, on which nothing can be
// typed, shows the same as the screen. The unit's original image is not the latest one.
func TestSoakMenuKeyboard(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n, p := network(t), product(t, l.tiny)
	p.Policy.Panels, p.Policy.GraceSeconds, p.Policy.BootArgs = []string{policy.Keyboard}, 5, "console=tty0 "+p.Policy.BootArgs
	for _, name := range []string{lab.BootFile, lab.ProvisionFile, lab.ManifestFile, lab.ManifestFile + ".minisig"} {
		if err := os.Remove(p.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Artifacts(t.Context(), logger(t), l.debian, l.init, 1); err != nil {
		t.Fatal(err)
	}
	// The artifact of the main disk is that of the release.
	var images []string
	for i := range l.images {
		image, err := p.Release(t.Context(), logger(t), l.tinyRoot(i+1), uint64(i+3), "0", nil)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, image)
	}
	if err := p.Manifest(images, nil); err != nil {
		t.Fatal(err)
	}
	l.serve(t, n, p)
	c := config(layout.UEFI, lab.VirtIO)
	c.Screen = true
	u := newUnit(t, n, c)
	start(t, u)
	if _, err := live(u); err != nil {
		t.Fatal(err)
	}
	up(t, u)
	u.Cut()
	h := &consoleHand{u: u, at: len(u.Console()), key: func(t *testing.T, k string) { press(t, u, k) }}
	menuTest(t, u, h, images[0], "1")
}

// consoleHand presses keys and looks at the serial line.
type consoleHand struct {
	u   *lab.Unit
	at  int // what the line showed up to here is old
	key func(t *testing.T, key string)
}

func (h *consoleHand) open(t *testing.T) {
	expect(t, h.u, bootPatience, lab.Msg("grace time"))
	h.key(t, "spc")
}

func (h *consoleHand) choose(t *testing.T, title, option string) {
	list := shown(t, h.u, h.at, "\n"+title+"\r\n")
	shown(t, h.u, list, "  "+option)
	h.at = list - 1
	for range 20 {
		// The selected option has a mark, in the list and when it moves.
		begin := shown(t, h.u, h.at, "\n> ")
		h.at = shown(t, h.u, begin, "\n") - 1 // a mark may follow
		if _, name, _ := strings.Cut(strings.TrimSpace(h.u.Console()[begin:h.at]), "  "); strings.HasPrefix(name, option) {
			h.key(t, "ret")
			return
		}
		h.key(t, "down")
	}
	t.Fatalf("%q is not to be selected: %q", option, h.u.Console()[list:])
}

func (h *consoleHand) back(t *testing.T, title string) {
	h.at = shown(t, h.u, h.at, "\n"+title+"\r\n")
	h.key(t, "esc")
}

func (*consoleHand) leave(*testing.T) {}

// TestSoakMenuUnanswered opens the menu, wants a restore and goes away: no answer to the confirmation is no, no answer to the menu is to
// go on. Each question is on all panels.
func TestSoakMenuUnanswered(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, withDisplay(lcd.Model635))
	start(t, u)
	ready(t, u, lcd.Model635)
	u.Display().Tap(lcd.KeyUp)
	at := pick(t, u, 0, menuLatest) // typed on the serial line
	at = shown(t, u, at, "All data on the main disk will be lost.")
	sees(t, u, "►No◄")
	began := time.Now()
	shown(t, u, at, "\nMenu")
	sees(t, u, "►"+menuLatest)
	if d := time.Since(began); d < 50*time.Second || d > 2*time.Minute {
		t.Errorf("the confirmation was there for %v", d)
	}
	began = time.Now()
	e := expect(t, u, 7*time.Minute, lab.Msg("choice"))
	if d := time.Since(began); e.Text("choice") != "resume" || d < 4*time.Minute {
		t.Errorf("the menu ended after %v with %s", d, e)
	}
	whole(t, up(t, u), "2")
	seen(t, u, 0, jobState("restore", "started"), "restore")
}

// press presses keys of the unit's keyboard, one after the other.
func press(t *testing.T, u *lab.Unit, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if err := u.Press(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
}
