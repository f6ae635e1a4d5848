package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
)

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
	emergencyImage(t, raw, files...)
	insert(t, u, disk, raw)
}

// emergencyImage makes the file of such a disk.
func emergencyImage(t *testing.T, raw string, files ...string) {
	t.Helper()
	run(t, "truncate", "-s", "512M", raw)
	run(t, "mkfs.vfat", "-F", "32", "-n", "EMERGENCY", raw)
	for _, f := range files {
		run(t, "mcopy", "-i", raw, f, "::/"+layout.EmergencyPrefix+filepath.Base(f))
	}
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
	recoveryStick(t, layout.UEFI)
}

func recoveryStick(t *testing.T, fw layout.Firmware) {
	t.Helper()
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
