package lab_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/model/policy"
)

// TestMenuSerial chooses in the menu over the serial line, on BIOS: a restore that is not confirmed does not happen, then an older
// image is restored.
func TestMenuSerial(t *testing.T) {
	soak(t)
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.BIOS, nil)
	start(t, u)
	expect(t, u, bootPatience, lab.Msg("grace time"))
	keys(t, u, "x")
	at := pick(t, u, 0, "Restore original")
	at = say(t, u, at, "All data on the main disk will be lost.", enter) // No is the default
	at = pick(t, u, at, "Restore: choose image")
	at = shown(t, u, at, "Choose image")
	keys(t, u, down+enter) // the newest one is the first
	say(t, u, at, "All data on the main disk will be lost.", "2")
	whole(t, up(t, u), "1")
	seen(t, u, 1, lab.All(lab.Msg("choice"), lab.Field("choice", "restore-image"), lab.Field("image", l.images[0])), "choice")
	seen(t, u, 1, jobState("restore", "succeeded"), "restore")
}

// TestMenuKeyboard switches a unit with a screen off by its keyboard, on UEFI. The serial line shows the same as the screen.
func TestMenuKeyboard(t *testing.T) {
	soak(t)
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
	image, err := p.Release(t.Context(), logger(t), filepath.Join(l.dir, "tiny2.tar"), 3, "0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Manifest([]string{image}, nil); err != nil {
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
	boots, at := len(u.Events.Seen(jobState("boot", "started"))), len(u.Console())
	start(t, u)
	expect(t, u, bootPatience, lab.Msg("grace time"))
	press(t, u, "spc")
	at = shown(t, u, at, "Recovery shell")
	press(t, u, "down", "ret")
	shown(t, u, at, "The unit will be off.")
	press(t, u, "up", "ret")
	expect(t, u, time.Minute, lab.All(lab.Msg("choice"), lab.Field("choice", "power-off")))
	if err := u.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen(t, u, boots, jobState("boot", "started"), "boot")
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
