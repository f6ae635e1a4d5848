package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/platform"
)

// shape is a platform whose units have other disks than the built-in one's.
type shape struct {
	name   string
	change func(*platform.Variant)
}

// recoverySize is the size of a recovery volume on the main disk.
const recoverySize = 2 * layout.GiB

func shapes() []shape {
	one := func(v *platform.Variant) {
		v.RecoveryMedia.Layout, v.RecoveryMedia.Size = platform.OnMain, recoverySize
	}
	return []shape{
		{"one-disk", one},
		{"one-disk-data", func(v *platform.Variant) {
			one(v)
			v.DataPartition = &platform.DataPartition{Label: "DATA", Mount: "/data", Size: layout.GiB}
		}},
		{"usb", func(*platform.Variant) {}},
		{"small", func(v *platform.Variant) { v.Disksize = smallSize }},
		{"raid0", array(0, 2)}, {"raid1", array(1, 2)}, {"raid5", array(5, 3)}, {"raid6", array(6, 4)}, {"raid10", array(10, 4)},
		{"raid1-data", func(v *platform.Variant) {
			array(1, 2)(v)
			v.DataPartition = &platform.DataPartition{Label: "DATA", Mount: "/data", Size: dataSize}
		}},
	}
}

// memberSize is the size of the disks of an array: small, as all of them are brought into sync.
const memberSize = 1920 << 20

// smallSize is that of a main disk that is erased: each byte of it is written and read several times.
const smallSize = layout.GiB

// smallRecovery is that of the recovery device of such a unit, whose free space is written and read once.
const smallRecovery = 3 * layout.GiB / 2

// dataSize is the size of the members of an array for data.
const dataSize = 256 * layout.MiB

func array(level, disks int) func(*platform.Variant) {
	return func(v *platform.Variant) { v.SwRaidlevel, v.NumDataDisks, v.Disksize = level, disks, memberSize }
}

// platforms is the appliance table of the tests: the built-in one, and the shapes.
func platforms() ([]byte, error) {
	t := *platform.Default()
	plain, _ := t.ByName(lab.PlatformName)
	t.Variants = slices.Clone(t.Variants)
	for _, s := range shapes() {
		v := plain
		v.DevCodeName, v.DmiProdName = s.name, s.name
		s.change(&v)
		t.Variants = append(t.Variants, v)
	}
	return json.Marshal(t)
}

// specifications adds what the manifest says of the shapes.
func specifications(m *manifest.Manifest) {
	for _, s := range shapes() {
		v := platform.Variant{NumDataDisks: 1, Disksize: lab.MainSize}
		s.change(&v)
		specs := manifest.Specs{DevCodeName: s.name, MainDiskConfigs: [][]manifest.Disk{{{Size: v.Disksize, Quantity: v.NumDataDisks}}}}
		if !v.OneDisk() {
			specs.Recovery.Size = lab.RecoverySize
		}
		if s.name == "small" {
			specs.Recovery.Size = smallRecovery
		}
		if s.name == "usb" {
			specs.MainDiskConfigs[0][0].Model = "QEMU HARDDISK" // a disk on USB counts if its model is named
		}
		m.ValidationData = append(m.ValidationData, specs)
	}
}

// shaped is a unit of a shape with the given disks.
func shaped(fw layout.Firmware, name string, disks ...lab.Disk) lab.Config {
	return lab.Config{
		Name: "unit", Firmware: fw, Disks: disks,
		SMBIOS: lab.SMBIOS{Manufacturer: lab.PlatformManufacturer, Product: name, Serial: serial},
	}
}

// wholeLife has a unit of a shape live through its first life, and returns what the restored system says.
func (l *life) wholeLife(t *testing.T, c lab.Config) (*lab.Unit, lab.Event) {
	t.Helper()
	n, p := network(t), product(t, l.tiny)
	l.serve(t, n, p)
	u := newUnit(t, n, c)
	start(t, u)
	took, err := live(u)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(strings.Join(took, ", "))
	e := up(t, u)
	whole(t, e, "2")
	return u, e
}

// TestLifeOneDisk is the whole life of a unit with one disk: ESP, recovery volume, system and data on an NVMe disk with sectors of
// 4096 bytes, through OVMF's own PXE and TFTP. A second restore leaves all but the system alone.
func TestLifeOneDisk(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	c := shaped(layout.UEFI, "one-disk-data", lab.Disk{Name: "main", Bus: lab.NVMe, Size: lab.MainSize, SectorSize: 4096})
	c.NativePXE = true
	u, first := l.wholeLife(t, c)
	if got := first.Text("root"); got != "/dev/nvme0n1p3" {
		t.Errorf("root is %s", got)
	}
	if fstab := first.Text("fstab"); !strings.Contains(fstab, " /data ext4 ") || !strings.Contains(fstab, " /mnt/RECOVERY ext4 ") {
		t.Errorf("fstab: %s", fstab)
	}
	mount := func() {
		tell(t, u, map[string]any{"do": "mount", "path": "/run/data", "device": "/dev/nvme0n1p4"})
	}
	mount()
	tell(t, u, map[string]any{"do": "write", "path": "/run/data/kept", "text": "by restores"})
	tell(t, u, map[string]any{"do": "write", "path": "/lost", "text": "by restores"})
	again(t, u, "/run/data")
	second := up(t, u)
	whole(t, second, "2")
	seen(t, u, 2, jobState("restore", "succeeded"), "restore")
	if first.Text("cmdline") != second.Text("cmdline") || first.Text("fstab") != second.Text("fstab") {
		t.Errorf("the second restore changed the unit:\n%s\n%s", first, second)
	}
	mount()
	if got := tell(t, u, map[string]any{"do": "read", "path": "/run/data/kept"}); got != "by restores" {
		t.Errorf("the data partition holds %q", got)
	}
	if names := tell(t, u, map[string]any{"do": "list", "path": "/"}); slices.Contains(strings.Split(names, "\n"), "lost") {
		t.Error("the second restore left files of the old system")
	}
}

// members are the disks of a unit with an array of n disks.
func members(bus lab.Bus, n int) []lab.Disk {
	disks := []lab.Disk{{Name: "recovery", Bus: bus, Size: lab.RecoverySize, BootIndex: 1}}
	for i := range n {
		disks = append(disks, lab.Disk{Name: fmt.Sprintf("member%d", i), Bus: bus, Size: memberSize})
	}
	return disks
}

// without switches a unit off and takes a disk out, or puts in all of disks if name is empty.
func without(t *testing.T, u *lab.Unit, disks []lab.Disk, name string) {
	t.Helper()
	if err := u.Tell(map[string]string{"do": "poweroff"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootPatience)
	defer cancel()
	if err := u.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	u.Disks = slices.DeleteFunc(slices.Clone(disks), func(d lab.Disk) bool { return d.Name == name })
	start(t, u)
}

var degraded = lab.Msg("the array of the main system lacks a disk: replace it")
