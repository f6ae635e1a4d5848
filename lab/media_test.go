package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
)

// soak skips what is too much for every change.
func soak(t *testing.T) {
	t.Helper()
	if os.Getenv("GPROV_SOAK") != "1" {
		t.Skip("part of make soak (GPROV_SOAK=1)")
	}
}

// run runs a program and returns what it says.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// emergency copies files to a disk of a unit, all with the prefix of emergency files, into a FAT filesystem.
func emergency(t *testing.T, u *lab.Unit, disk string, files ...string) {
	t.Helper()
	raw := filepath.Join(u.Dir, disk+".raw")
	run(t, "truncate", "-s", "512M", raw)
	run(t, "mkfs.vfat", "-F", "32", "-n", "EMERGENCY", raw)
	for _, f := range files {
		run(t, "mcopy", "-i", raw, f, "::/"+layout.EmergencyPrefix+filepath.Base(f))
	}
	insert(t, u, disk, raw)
}

// insert makes a raw image the content of a disk of a unit.
func insert(t *testing.T, u *lab.Unit, disk, raw string) {
	t.Helper()
	run(t, "qemu-img", "convert", "-O", "qcow2", raw, filepath.Join(u.Dir, disk+".qcow2"))
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
}

func withStick(c *lab.Config) {
	c.Disks = append(c.Disks, lab.Disk{Name: "stick", Bus: lab.USB, Size: 512 << 20})
}

// shown waits until the console shows a text that it has not shown before, counted from skip on, and returns where it ends.
func shown(t *testing.T, u *lab.Unit, skip int, text string) int {
	t.Helper()
	end := time.Now().Add(bootPatience)
	for {
		s := u.Console()
		if skip <= len(s) {
			if i := strings.Index(s[skip:], text); i >= 0 {
				return skip + i + len(text)
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the console does not show %q", text)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// exFAT makes an emergency medium with exFAT. The kernel of this machine may know no exFAT: a FUSE program writes it.
func exFAT(t *testing.T, u *lab.Unit, disk string, files ...string) {
	t.Helper()
	for program, pkg := range map[string]string{"mkfs.exfat": "exfatprogs", "mount.exfat-fuse": "exfat-fuse", "losetup": "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, program+" is not installed (Debian package "+pkg+")")
		}
	}
	raw, dir := filepath.Join(u.Dir, disk+".raw"), t.TempDir()
	run(t, "truncate", "-s", "512M", raw)
	run(t, "mkfs.exfat", "-L", "EMERGENCY", raw)
	loop := strings.TrimSpace(run(t, "losetup", "-f", "--show", raw))
	defer run(t, "losetup", "-d", loop)
	run(t, "mount.exfat-fuse", loop, dir)
	for _, f := range files {
		run(t, "cp", f, filepath.Join(dir, layout.EmergencyPrefix+filepath.Base(f)))
	}
	run(t, "umount", dir)
	insert(t, u, disk, raw)
}

// TestEmergencyMedium restores the older release from a stick with exFAT after a person confirmed it. The stick stays in: the next
// boot is a normal one.
func TestEmergencyMedium(t *testing.T) {
	soak(t)
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

// startsFirst puts a recovery stick before the disks of a unit.
func startsFirst(c *lab.Config) {
	withStick(c)
	for i := range c.Disks {
		c.Disks[i].BootIndex = i + 2
	}
	c.Disks[len(c.Disks)-1].BootIndex = 1
	c.NetworkIndex = 0
	if c.Firmware == layout.BIOS {
		c.NetworkIndex = len(c.Disks) + 2
	}
}

// recoveryStick makes a recovery stick with the older release.
func (l *life) recoveryStick(t *testing.T, u *lab.Unit) {
	t.Helper()
	raw := filepath.Join(u.Dir, "stick.raw")
	run(t, l.gprov, "stick", "make", "--artifact", l.tiny.Path("norm_boot"), "--image", l.tiny.Path(l.images[0]), "--out", raw)
	insert(t, u, "stick", raw)
}

// pick waits for a menu, types the number of an option and returns where the option ends on the console.
func pick(t *testing.T, u *lab.Unit, skip int, option string) int {
	t.Helper()
	end := shown(t, u, shown(t, u, skip, "\nMenu"), "  "+option)
	before := u.Console()[:end-len(option)]
	line := strings.Fields(strings.TrimLeft(before[strings.LastIndex(before, "\n"):], "\n> "))
	if len(line) != 1 {
		t.Fatalf("no number before %q: %q", option, line)
	}
	if err := u.Type(line[0]); err != nil {
		t.Fatal(err)
	}
	return end
}

// say waits for a text on the console, types an answer and returns where the text ends.
func say(t *testing.T, u *lab.Unit, skip int, text, answer string) int {
	t.Helper()
	end := shown(t, u, skip, text)
	if err := u.Type(answer); err != nil {
		t.Fatal(err)
	}
	return end
}

// TestRecoveryStick starts a unit from a recovery stick: its menu restores the image on it. The stick stays in and goes on being
// started: that is no loop.
func TestRecoveryStick(t *testing.T) {
	t.Parallel()
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		t.Run(string(fw), func(t *testing.T) {
			if fw == layout.BIOS {
				soak(t)
			}
			t.Parallel()
			l := needLife(t)
			u := l.fork(t, network(t), fw, startsFirst)
			l.recoveryStick(t, u)
			start(t, u)
			at := pick(t, u, 0, "Restore from medium")
			say(t, u, at, "All data on the main disk will be lost.", "2")
			whole(t, up(t, u), "1")
			seen(t, u, 1, jobState("restore", "succeeded"), "restore from the stick")
			seen(t, u, 1, lab.Msg("menu"), "menu")
			seen(t, u, 2, func(e lab.Event) bool {
				return strings.HasPrefix(e.Text("text"), "this boot came from the recovery stick")
			}, "boot from the stick")
		})
	}
}

// TestStickRebuilds has a unit whose recovery device is dead: a recovery stick makes it anew on a blank disk, and takes a support
// bundle. The unit restores from the new volume then.
func TestStickRebuilds(t *testing.T) {
	t.Parallel()
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		t.Run(string(fw), func(t *testing.T) {
			soak(t)
			t.Parallel()
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

// bundle switches a unit off and checks the support bundle on its stick.
func bundle(t *testing.T, u *lab.Unit) {
	t.Helper()
	u.Cut()
	raw := filepath.Join(u.Dir, "read.raw")
	run(t, "qemu-img", "convert", "-O", "raw", filepath.Join(u.Dir, "stick.qcow2"), raw)
	info := run(t, "sgdisk", "-i", "4", raw)
	_, first, _ := strings.Cut(info, "First sector: ")
	sector, _, _ := strings.Cut(first, " ")
	to := t.TempDir()
	run(t, "mcopy", "-i", raw+"@@"+sector+"s", "::/support-*.tar.gz", to)
	list, err := filepath.Glob(filepath.Join(to, "support-"+serial+"-*.tar.gz"))
	if err != nil || len(list) != 1 {
		t.Fatalf("bundles on the stick: %v, %v", list, err)
	}
	names := run(t, "tar", "-tzf", list[0])
	for _, want := range []string{"support/index.json", "support/capture.txt", "support/init/log.txt", "support/init/facts.txt"} {
		if !strings.Contains(names, want+"\n") {
			t.Errorf("the bundle has no %s: %s", want, names)
		}
	}
}

// TestRecoveryShell opens the recovery shell over the serial line with the unit's own password. A wrong one is counted, and a power
// cut does not undo that.
func TestRecoveryShell(t *testing.T) {
	soak(t)
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
	if err := u.Type("unit\r"); err != nil {
		t.Fatal(err)
	}
	shown(t, u, at, "serial number "+serial)
	if err := u.Type("exit\r"); err != nil {
		t.Fatal(err)
	}
	expect(t, u, bootPatience, lab.Msg("recovery shell closed"))
	up(t, u)
	if strings.Contains(u.Console(), pass.Reveal()) {
		t.Error("the console shows the password")
	}
}

// TestBadMedium has a stick with a damaged image: the unit says so and boots.
func TestBadMedium(t *testing.T) {
	soak(t)
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
	if !strings.Contains(u.Console(), fmt.Sprintf("*** %s", "G251")) {
		t.Error("the console does not show G251")
	}
}
