//go:build soak

package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/lab/usbredir"
	"gprovision/model/layout"
)

// TestSoakEmergencyMedium restores the older release from a stick with exFAT after a person confirmed it. The stick stays in: the next
// boot is a normal one.
func TestSoakEmergencyMedium(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, withStick)
	exFAT(t, u, "stick", l.tiny.Path(l.images[0]), l.tiny.Path(l.images[0]+".minisig"))
	start(t, u)
	shown(t, u, 0, "Restore from medium")
	if err := u.Type("2"); err != nil { // Yes
		t.Fatal(err)
	}
	whole(t, up(t, u), "1")
	seen(t, u, 1, jobState("restore", "succeeded"), "restore from the stick")
	// The boot after the restore has had the stick in too.
	seen(t, u, 1, lab.All(lab.Msg("decision"), lab.Field("job", "boot")), "normal boot")
	seen(t, u, 1, lab.All(lab.Msg("decision"), lab.Field("job", "rescue")), "decision for the stick")
}

// TestSoakRecoveryStick does the same on BIOS firmware.
func TestSoakRecoveryStick(t *testing.T) {
	t.Parallel()
	recoveryStick(t, layout.BIOS)
}

// TestSoakStickRebuilds has a unit whose recovery device is dead: a recovery stick makes it anew on a blank disk, and takes a support
// bundle. The unit restores from the new volume then.
func TestSoakStickRebuilds(t *testing.T) {
	t.Parallel()
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		t.Run(string(fw), func(t *testing.T) {
			l := needLife(t)
			u := l.fork(t, network(t), fw, startsFirst, "recovery")
			l.recoveryStick(t, u)
			start(t, u)
			at := pick(t, u, 0, "Save support bundle")
			expect(t, u, time.Minute, lab.Msg("support bundle saved"))
			at = pick(t, u, at, "Rebuild recovery")
			say(t, u, at, "It carries nothing.", "2")
			whole(t, up(t, u), "2")
			seen(t, u, 1, lab.All(lab.Msg("decision"), lab.Field("job", "boot"), lab.Field("recovery", "found")), "boot with the new volume")
			at = len(u.Console())
			tell(t, u, map[string]any{"do": "remove", "path": "/boot.normal"})
			if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
				t.Fatal(err)
			}
			at = pick(t, u, at, "Resume normal boot")
			pick(t, u, at, "Resume normal boot") // after the restore
			whole(t, up(t, u), "1")
			seen(t, u, 1, jobState("restore", "succeeded"), "restore from the new volume")
			bundle(t, u)
		})
	}
}

// TestSoakRecoveryShell opens the recovery shell over the serial line with the unit's own password. A wrong one is counted, and a power
// cut does not undo that.
func TestSoakRecoveryShell(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, nil)
	f, err := l.finished[layout.UEFI]()
	if err != nil {
		t.Fatal(err)
	}
	n, p := network(t), product(t, f.product)
	copyDatabase(t, f.product, p)
	c, err := l.serve(t, n, p).ReadCredentials(t.Context(), serial)
	if err != nil {
		t.Fatal(err)
	}
	pass, err := p.Reveal(serial, c.Generation, c.Ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	open := func(at int) int {
		expect(t, u, bootPatience, lab.Msg("init"))
		if err := u.Type(" "); err != nil { // a key before the grace time counts
			t.Fatal(err)
		}
		at = pick(t, u, at, "Recovery shell")
		return shown(t, u, at, "password of this unit")
	}
	start(t, u)
	at := open(0)
	if err := u.Type("not-the-password\r"); err != nil {
		t.Fatal(err)
	}
	at = shown(t, u, at, "password of this unit") // again
	u.Cut()
	start(t, u)
	up(t, u)
	if text := tell(t, u, map[string]any{"do": "read", "path": filepath.Join(recoveryOf(t, u), "state/shell.json")}); !strings.Contains(text, `"failed": 1`) {
		t.Errorf("the wrong password is not counted: %s", text)
	}
	if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
		t.Fatal(err)
	}
	at = open(at)
	if err := u.Type(pass.Reveal() + "\r"); err != nil {
		t.Fatal(err)
	}
	expect(t, u, time.Minute, lab.Msg("recovery shell opened"))
	at = say(t, u, at, "recovery shell: ", "unit\r") // keys that are pressed before it asks do not count
	at = shown(t, u, at, "serial number "+serial)
	say(t, u, at, "recovery shell: ", "exit\r")
	expect(t, u, bootPatience, lab.Msg("recovery shell closed"))
	up(t, u)
	if strings.Contains(u.Console(), pass.Reveal()) {
		t.Error("the console shows the password")
	}
}

// TestSoakBadMedium has a stick with a damaged image: the unit says so and boots.
func TestSoakBadMedium(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, withStick)
	b, err := os.ReadFile(l.tiny.Path(l.images[0]))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	bad := filepath.Join(u.Dir, l.images[0])
	if err := os.WriteFile(bad, b, 0o600); err != nil {
		t.Fatal(err)
	}
	emergency(t, u, "stick", bad, l.tiny.Path(l.images[0]+".minisig"))
	start(t, u)
	whole(t, up(t, u), "2")
	seen(t, u, 1, lab.Msg("emergency medium refused"), "refusal")
	seen(t, u, 0, jobState("restore", "started"), "restore")
	shown(t, u, 0, "*** G251")
}

// TestSoakSlowStick has an emergency medium that is in a port before power-on, so that the port says that something is there, and that answers
// later: nothing at all until then, or no SCSI command. The unit waits for it. One that never answers is told, and the unit boots.
func TestSoakSlowStick(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	for name, c := range map[string]struct {
		stage usbredir.Stage
		after time.Duration // since init's start; 0: never
	}{
		"nothing for 1 s":       {usbredir.Connected, time.Second},
		"no command for 5 s":    {usbredir.Starting, 5 * time.Second},
		"nothing for 20 s":      {usbredir.Connected, 20 * time.Second},
		"nothing, and for ever": {usbredir.Connected, 0},
	} {
		t.Run(name, func(t *testing.T) {
			u := l.fork(t, network(t), layout.UEFI, nil)
			raw := filepath.Join(u.Dir, "slow.raw")
			emergencyImage(t, raw, l.tiny.Path(l.images[0]), l.tiny.Path(l.images[0]+".minisig"))
			f, err := os.OpenFile(raw, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			stick, err := usbredir.NewStick(f, st.Size(), "SLOW")
			if err != nil {
				t.Fatal(err)
			}
			stick.Set(c.stage)
			u.Stick = stick
			start(t, u)
			shown(t, u, 0, "INFO  platform") // the first word of init; its events come later, when its drivers are loaded
			began := time.Now()
			if c.after == 0 {
				whole(t, up(t, u), "2")
				seen(t, u, 1, lab.Msg("USB devices do not answer, and are not waited for any longer"), "word about the stick")
				seen(t, u, 0, lab.All(lab.Msg("decision"), lab.Field("job", "rescue")), "decision for the stick")
				return
			}
			answers := time.AfterFunc(time.Until(began.Add(c.after)), func() { stick.Set(usbredir.Ready) })
			defer answers.Stop()
			shown(t, u, 0, "Restore from medium")
			t.Logf("offered %v after init's start", time.Since(began).Round(time.Second/10))
			seen(t, u, 0, lab.Msg("USB devices do not answer, and are not waited for any longer"), "word about the stick")
		})
	}
}
