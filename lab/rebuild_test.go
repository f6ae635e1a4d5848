package lab_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/partition"
	"gprovision/lab"
	"gprovision/model/layout"
)

// switchOff has a running tiny system switch the unit off.
func switchOff(t *testing.T, u *lab.Unit) {
	t.Helper()
	if err := u.Tell(map[string]string{"do": "poweroff"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootPatience)
	defer cancel()
	if err := u.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

// fromStick starts a unit that is off from a recovery stick, and returns what it was before.
func (l *life) fromStick(t *testing.T, u *lab.Unit) (before lab.Config) {
	t.Helper()
	before = u.Config
	u.Disks = append([]lab.Disk{}, u.Disks...)
	startsFirst(&u.Config)
	u.Disks[len(u.Disks)-1].Serial = "STICK"
	l.recoveryStick(t, u)
	start(t, u)
	return before
}

// rawDisk writes what a disk of a unit that is off has to a file.
func rawDisk(t *testing.T, u *lab.Unit, disk, name string) string {
	t.Helper()
	raw := filepath.Join(u.Dir, name)
	run(t, "qemu-img", "convert", "-O", "raw", filepath.Join(u.Dir, disk+".qcow2"), raw)
	return raw
}

// differs returns where two files of the same size differ first outside of a partition, or -1.
func differs(t *testing.T, a, b string, p layout.Partition) int64 {
	t.Helper()
	var files [2]*os.File
	for i, name := range []string{a, b} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	x, y := make([]byte, layout.MiB), make([]byte, layout.MiB)
	for at := int64(0); ; at += layout.MiB { // partitions begin and end there
		if at >= p.Start && at < p.Start+p.Size {
			continue
		}
		n, err := files[0].ReadAt(x, at)
		m, merr := files[1].ReadAt(y, at)
		if !bytes.Equal(x[:n], y[:m]) {
			return at
		}
		if err == io.EOF && merr == io.EOF {
			return -1
		}
		if err != nil || merr != nil {
			t.Fatal(err, merr)
		}
	}
}

// TestStickRebuildsOneDisk has units with one disk whose recovery volume is beyond repair. A recovery stick makes its filesystem anew and
// changes no byte beside its partition. The unit starts without the stick and restores from the new volume, which leaves the data alone.
func TestStickRebuildsOneDisk(t *testing.T) {
	soak(t)
	t.Parallel()
	for _, c := range []struct {
		fw   layout.Firmware
		name string
		disk lab.Disk
		data string // device
	}{
		{layout.UEFI, "one-disk-data", lab.Disk{Name: "main", Bus: lab.NVMe, Size: lab.MainSize, SectorSize: 4096}, "/dev/nvme0n1p4"},
		{layout.BIOS, "one-disk", lab.Disk{Name: "main", Bus: lab.VirtIO, Size: lab.MainSize, BootIndex: 1}, ""},
	} {
		t.Run(string(c.fw), func(t *testing.T) {
			t.Parallel()
			l := needLife(t)
			u, _ := l.wholeLife(t, shaped(c.fw, c.name, c.disk))
			if c.data != "" {
				tell(t, u, map[string]any{"do": "mount", "path": "/run/data", "device": c.data})
				tell(t, u, map[string]any{"do": "write", "path": "/run/data/kept", "text": "by the rebuild"})
				tell(t, u, map[string]any{"do": "unmount", "path": "/run/data"})
			}
			switchOff(t, u)
			before := rawDisk(t, u, "main", "before.raw")
			dev, err := block.OpenImage(before, true, max(c.disk.SectorSize, 512))
			if err != nil {
				t.Fatal(err)
			}
			table, err := partition.Read(dev)
			if err != nil {
				t.Fatal(err)
			}
			volume := table.Partitions[map[layout.Firmware]int{layout.UEFI: 1, layout.BIOS: 0}[c.fw]]
			if volume.Size != recoverySize {
				t.Fatalf("%+v is no recovery volume", volume)
			}
			for _, at := range []int64{0, 128 * layout.MiB} { // the superblock, and the copy of it that a repair takes
				if _, err := dev.WriteAt(bytes.Repeat([]byte{0xff}, 8192), volume.Start+at); err != nil {
					t.Fatal(err)
				}
			}
			if err := dev.Close(); err != nil {
				t.Fatal(err)
			}
			run(t, "qemu-img", "convert", "-O", "qcow2", before, filepath.Join(u.Dir, "main.qcow2"))

			at := len(u.Console())
			alone := l.fromStick(t, u)
			at = pick(t, u, at, "Rebuild recovery")
			at = say(t, u, at, "All data on partition ", "2")
			expect(t, u, bootPatience, lab.All(lab.Msg("step"), lab.Field("job", "rebuild")))
			keys(t, u, "x") // the menu comes before the main system is started
			expect(t, u, jobPatience, lab.Msg("recovery volume rebuilt; the server does not know the unit's new key"))
			shown(t, u, at, "\nMenu")
			u.Cut()
			after := rawDisk(t, u, "main", "after.raw")
			if at := differs(t, before, after, volume); at >= 0 {
				t.Errorf("the MiB at byte %d changed, outside of %+v", at, volume)
			}
			for _, raw := range []string{before, after} {
				if err := os.Remove(raw); err != nil {
					t.Fatal(err)
				}
			}

			u.Config = alone
			start(t, u)
			whole(t, up(t, u), "2")
			again(t, u, "")
			whole(t, up(t, u), "1") // the image of the stick
			seen(t, u, 2, jobState("restore", "succeeded"), "restore: the first, and that from the new volume")
			if c.data != "" {
				tell(t, u, map[string]any{"do": "mount", "path": "/run/data", "device": c.data})
				if got := tell(t, u, map[string]any{"do": "read", "path": "/run/data/kept"}); got != "by the rebuild" {
					t.Errorf("the data partition holds %q", got)
				}
			}
		})
	}
}

// TestStickRebuildsArray has a unit with a mirror whose recovery device was replaced by a blank one and whose first disk is missing too. A
// recovery stick makes the volume anew from the degraded array. With all disks the unit restores from the new volume, over both disks.
func TestStickRebuildsArray(t *testing.T) {
	soak(t)
	t.Parallel()
	l := needLife(t)
	disks := members(lab.VirtIO, 2)
	disks[0].BootIndex = 0
	u, _ := l.wholeLife(t, shaped(layout.UEFI, "raid1", disks...))
	switchOff(t, u)
	recovery := filepath.Join(u.Dir, "recovery.qcow2")
	if err := os.Remove(recovery); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", recovery, "4G")
	all := u.Config
	u.Disks = []lab.Disk{all.Disks[0], all.Disks[2]}
	at := len(u.Console())
	alone := l.fromStick(t, u)
	at = pick(t, u, at, "Rebuild recovery")
	end := say(t, u, at, "It carries nothing.", "2")
	if text := u.Console()[at:end]; !strings.Contains(text, "RECOVERY)") {
		t.Errorf("not the recovery device is to be overwritten: %s", text)
	}
	whole(t, up(t, u), "2")
	seen(t, u, 1, lab.Msg("recovery volume rebuilt; the server does not know the unit's new key"), "rebuild")
	seen(t, u, 1, degraded, "degraded array")
	seen(t, u, 1, jobState("restore", "started"), "restore before the rebuild")

	switchOff(t, u)
	u.Config = alone
	u.Disks = all.Disks
	start(t, u)
	whole(t, up(t, u), "2")
	seen(t, u, 2, degraded, "degraded array: the first disk is out of date")
	again(t, u, "")
	whole(t, up(t, u), "1") // the image of the stick
	seen(t, u, 2, jobState("restore", "succeeded"), "restore from the new volume")
	seen(t, u, 2, degraded, "degraded array after the restore")
}
