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

// emergency copies files to a disk of a unit, all with the prefix of emergency files, into a FAT filesystem.
func emergency(t *testing.T, u *lab.Unit, disk string, files ...string) {
	t.Helper()
	raw := filepath.Join(u.Dir, disk+".raw")
	commands := [][]string{{"truncate", "-s", "512M", raw}, {"mkfs.vfat", "-F", "32", "-n", "EMERGENCY", raw}}
	for _, f := range files {
		commands = append(commands, []string{"mcopy", "-i", raw, f, "::/" + layout.EmergencyPrefix + filepath.Base(f)})
	}
	commands = append(commands, []string{"qemu-img", "convert", "-O", "qcow2", raw, filepath.Join(u.Dir, disk+".qcow2")})
	for _, c := range commands {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
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

// TestEmergencyMedium restores the older release from a stick after a person confirmed it. The stick stays in: the next boot is a
// normal one.
func TestEmergencyMedium(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, withStick)
	emergency(t, u, "stick", l.tiny.Path(l.images[0]), l.tiny.Path(l.images[0]+".minisig"))
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

// TestBadMedium has a stick with a damaged image: the unit says so and boots.
func TestBadMedium(t *testing.T) {
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
