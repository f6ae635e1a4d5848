//go:build soak

package lab_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/partition"
	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/unit/machine"
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

// TestSoakStickRebuildsOneDisk has units with one disk whose recovery volume is beyond repair. A recovery stick makes its filesystem anew and
// changes no byte beside its partition. The unit starts without the stick and restores from the new volume, which leaves the data alone.
func TestSoakStickRebuildsOneDisk(t *testing.T) {
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

// dataMember returns what the data's member on a disk of an array has, with the filesystem on it checked.
func dataMember(t *testing.T, u *lab.Unit, disk string) []byte {
	t.Helper()
	raw := rawDisk(t, u, disk, disk+".raw")
	defer os.Remove(raw)
	dev, err := block.OpenImage(raw, false, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	table, err := partition.Read(dev)
	if err != nil {
		t.Fatal(err)
	}
	p := table.Partitions[len(table.Partitions)-1]
	if p.Size != dataSize {
		t.Fatalf("%+v is no member for data", p)
	}
	if m, err := machine.ReadMember(dev, p); err != nil || m.Name != machine.DataArrayName || m.Disks != 2 {
		t.Errorf("%s has %+v, %v", disk, m, err)
	}
	all := make([]byte, p.Size)
	if _, err := dev.ReadAt(all, p.Start); err != nil {
		t.Fatal(err)
	}
	start := int64(binary.LittleEndian.Uint64(all[4096+128:])) * 512 // data_offset of md's superblock, sectors
	info, err := filesystem.Probe(bytes.NewReader(all[start:]), p.Size-start)
	if err != nil || info.Type != "ext4" || info.Label != "DATA" {
		t.Errorf("%s has %+v, %v", disk, info, err)
	}
	return all
}

// TestSoakStickRebuildsArray has a unit with a mirror for the system and one for data, whose recovery device was replaced by a blank one and
// whose first disk is missing too. A recovery stick makes the volume anew from the degraded array. With all disks the unit restores from the
// new volume, over both disks, and not a byte of the data changes.
func TestSoakStickRebuildsArray(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	mounted := func(fstab string) string { // the line of the data
		for line := range strings.Lines(fstab) {
			if strings.Contains(line, " /data ext4 ") {
				return line
			}
		}
		return ""
	}
	disks := members(lab.VirtIO, 2)
	disks[0].BootIndex = 0
	u, first := l.wholeLife(t, shaped(layout.UEFI, "raid1-data", disks...))
	if conf := tell(t, u, map[string]any{"do": "read", "path": "/etc/mdadm/mdadm.conf"}); !strings.Contains(conf, "ARRAY /dev/md1 ") {
		t.Errorf("mdadm.conf is %q", conf)
	}
	switchOff(t, u)
	data := map[string][]byte{"member0": nil, "member1": nil}
	for name := range data {
		data[name] = dataMember(t, u, name)
	}
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
	last := up(t, u)
	whole(t, last, "1") // the image of the stick
	seen(t, u, 2, jobState("restore", "succeeded"), "restore from the new volume")
	seen(t, u, 2, degraded, "degraded array after the restore")
	if mounted(first.Text("fstab")) == "" || mounted(first.Text("fstab")) != mounted(last.Text("fstab")) {
		t.Errorf("the data were mounted from %q, and are from %q", mounted(first.Text("fstab")), mounted(last.Text("fstab")))
	}
	switchOff(t, u)
	for name, before := range data {
		if !bytes.Equal(dataMember(t, u, name), before) {
			t.Errorf("the data on %s changed", name)
		}
	}
}
