package machine_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
)

// at returns the paths of the disks by name.
func at(t *testing.T, m *machine.Machine) map[string]string {
	t.Helper()
	disks, err := m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, d := range disks {
		out[d.Name] = d.Path
	}
	return out
}

// scribble writes to a place on a device.
func scribble(t *testing.T, m *machine.Machine, path string, b []byte, off int64) {
	t.Helper()
	dev, err := m.Open(path, machine.Write)
	if err == nil {
		_, err = dev.WriteAt(b, off)
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func peek(t *testing.T, m *machine.Machine, path string, n int, off int64) []byte {
	t.Helper()
	b := make([]byte, n)
	dev, err := m.Open(path, machine.Read)
	if err == nil {
		_, err = dev.ReadAt(b, off)
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newMain returns a machine whose main disk has a table with a data partition.
func newMain(t *testing.T, fw layout.Firmware) (r *machinetest.Rig, m *machine.Machine, dev string, table layout.Table) {
	t.Helper()
	r = machinetest.NewUnit(t, machinetest.Kind{Firmware: fw, Data: true})
	m = machinetest.Machine(r)
	dev = at(t, m)["vdb"]
	table, err := m.LayMain(block.Disk{Size: machinetest.MainSize, SectorSize: 512}, 0, machine.NewIDs())
	if err == nil {
		err = m.WriteTable(dev, table)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r, m, dev, table
}

// TestTableStays: rewriting a table leaves the partitions to keep alone. Nothing is recognised in the others.
func TestTableStays(t *testing.T) {
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		_, m, dev, table := newMain(t, fw)
		if b := peek(t, m, dev, 2, 0); !bytes.Equal(b, []byte{0xcd, 0x18}) {
			t.Errorf("%s: a disk without a boot loader begins with %x: firmware would hang", fw, b)
		}
		data, system := table.Find(layout.Data), table.Find(layout.Primary)
		part := func(p *layout.Partition) string { return block.PartitionPath(dev, p.Number) }
		for _, p := range []*layout.Partition{data, system} {
			scribble(t, m, part(p), []byte("somebody's"), 4096)
			scribble(t, m, part(p), []byte("somebody's"), p.Size-8192)
		}
		if err := m.WriteTable(dev, table, layout.Data); err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{4096, data.Size - 8192} {
			if got := peek(t, m, part(data), 10, off); string(got) != "somebody's" {
				t.Errorf("%s: what was to be kept is %q at %d", fw, got, off)
			}
		}
		for _, off := range []int64{4096, system.Size - 8192} {
			if got := peek(t, m, part(system), 10, off); !bytes.Equal(got, make([]byte, 10)) {
				t.Errorf("%s: what was to be cleared is %q at %d", fw, got, off)
			}
		}
		if err := m.ClearPartition(part(data)); err != nil {
			t.Fatal(err)
		}
		if got := peek(t, m, part(data), 10, 4096); !bytes.Equal(got, make([]byte, 10)) {
			t.Errorf("%s: a cleared partition holds %q", fw, got)
		}
	}
}

// TestFoundPartitions: the partitions of a machine are those on the accepted disks, with the kernel's device nodes. A
// disk that cannot be read proves nothing.
func TestFoundPartitions(t *testing.T) {
	r, m, dev, table := newMain(t, layout.UEFI)
	names := func(allow func(platform.Variant, platform.Candidate) bool) (out []string) {
		parts, err := m.Partitions(allow)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if p.Disk.Path != dev || !table.On(p.Table) || p.Partition.UUID == "" {
				t.Errorf("found %+v", p)
			}
			out = append(out, filepath.Base(p.Path))
		}
		return out
	}
	if got := names(nil); !slices.Equal(got, []string{"vdb1", "vdb2", "vdb3"}) {
		t.Errorf("found %s", got)
	}
	if got := names(func(platform.Variant, platform.Candidate) bool { return false }); len(got) > 0 {
		t.Errorf("found on disks that may not be looked at: %s", got)
	}
	disks, err := m.Disks() // for a kernel that still knows an older table
	if err != nil {
		t.Fatal(err)
	}
	disks = slices.DeleteFunc(disks, func(d block.Disk) bool { return d.Path != dev })
	disks[0].Partitions[0].Start += layout.MiB
	disks[0].Partitions[1].Size -= layout.MiB
	if parts := m.PartitionsOn(disks, nil); len(parts) != 1 || filepath.Base(parts[0].Path) != "vdb3" {
		t.Errorf("found by an older table: %+v", parts)
	}
	r.Fail(func(_ int, call string) error {
		if strings.HasPrefix(call, "open /dev/vdb ") {
			return syscall.EIO
		}
		return nil
	})
	if got := names(nil); len(got) > 0 {
		t.Errorf("found on a disk that cannot be read: %s", got)
	}
	r.Fail(func(int, string) error { return syscall.EIO })
	if parts, err := m.Partitions(nil); err == nil {
		t.Errorf("disks cannot be listed, and found are %v", parts)
	}
}

// TestTableIsRepaired: if the first copy of a table is damaged, the copy at the end is used to repair it. An
// undamaged table is not written.
func TestTableIsRepaired(t *testing.T) {
	r, m, dev, table := newMain(t, layout.UEFI)
	disk := block.Disk{Path: dev}
	if got, err := m.BackupTable(disk); got != nil || err != nil {
		t.Errorf("a whole table gives %v, %v", got, err)
	}
	r.Start(nil)
	if err := m.RepairTable(dev, table); err != nil || len(writes(r, 0)) > 0 {
		t.Errorf("a whole table is repaired: %v, %s", err, writes(r, 0))
	}
	scribble(t, m, dev, make([]byte, 33*512), 512)
	if got, err := m.BackupTable(disk); err != nil || got == nil || !table.On(*got) {
		t.Errorf("got %v, %v", got, err)
	}
	if only, err := m.OnlyTable(dev, table); !only || err != nil {
		t.Errorf("half of the table is taken for more: %v, %v", only, err)
	}
	if err := m.RepairTable(dev, table); err != nil {
		t.Fatal(err)
	}
	if got, err := m.BackupTable(disk); got != nil || err != nil {
		t.Errorf("after the repair: %v, %v", got, err)
	}
}

// TestWipe: after a wipe the disk is blank, and its partitions are gone.
func TestWipe(t *testing.T) {
	_, m, dev, table := newMain(t, layout.UEFI)
	if blank, why, err := m.BlankDisk(dev); blank || why == "" || err != nil {
		t.Errorf("a disk with a table: blank %t, %q, %v", blank, why, err)
	}
	if err := m.Format(t.Context(), dev, table, []layout.Role{layout.ESP, layout.Primary}); err != nil {
		t.Fatal(err)
	}
	if only, err := m.OnlyTable(dev, table); !only || err != nil { // the content of partitions does not count
		t.Errorf("%v, %v", only, err)
	}
	if err := m.Wipe(dev); err != nil {
		t.Fatal(err)
	}
	if blank, why, err := m.BlankDisk(dev); !blank || err != nil {
		t.Errorf("a wiped disk carries %q, %v", why, err)
	}
	if parts, err := m.Partitions(nil); err != nil || len(parts) > 0 {
		t.Errorf("it has the partitions %v, %v", parts, err)
	}
}

// TestFormat: only the requested filesystems are made, with the identifiers in the table.
func TestFormat(t *testing.T) {
	_, m, dev, table := newMain(t, layout.UEFI)
	if err := m.Format(t.Context(), dev, table, []layout.Role{layout.ESP, layout.Primary}); err != nil {
		t.Fatal(err)
	}
	for role, want := range map[layout.Role]string{layout.ESP: "vfat", layout.Primary: "ext4", layout.Data: ""} {
		p := table.Find(role)
		info, noted, err := m.ProbePartition(block.PartitionPath(dev, p.Number))
		if err != nil || noted || info.Type != want || want != "" && (!strings.EqualFold(info.UUID, p.FSUUID) || info.Label != p.FSLabel) {
			t.Errorf("%s: %+v, noted errors %t, %v", role, info, noted, err)
		}
	}
	system := block.PartitionPath(dev, table.Find(layout.Primary).Number)
	scribble(t, m, system, []byte{3, 0}, 1024+0x3a) // s_state: the kernel has recorded errors
	if _, noted, err := m.ProbePartition(system); !noted || err != nil {
		t.Errorf("noted errors are not seen: %v", err)
	}
}

// TestLostExt4: a filesystem that lost its first superblock is recognised by the backup, if nothing else is there.
func TestLostExt4(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 300*layout.MiB)); err != nil {
		t.Fatal(err)
	}
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New()}
	m.Doors = machine.Real(m.Log, nil, nil)
	lost := func(label string) bool {
		got, err := m.LostExt4(file, label)
		if err != nil {
			t.Error(err)
		}
		return got
	}
	if lost("PRIMARY") {
		t.Error("an empty disk is a lost filesystem")
	}
	if err := m.MakeExt4(t.Context(), file, "PRIMARY", "0f4bd1a3-0000-4000-8000-000000000000"); err != nil {
		machinetest.Skip(t, fmt.Sprintf("mke2fs: %v", err))
	}
	if lost("PRIMARY") {
		t.Error("a sound filesystem is a lost one")
	}
	scribble(t, m, file, make([]byte, 1024), 1024)
	if !lost("PRIMARY") || lost("DATA") {
		t.Errorf("lost: PRIMARY %t, DATA %t", lost("PRIMARY"), lost("DATA"))
	}
	scribble(t, m, file, []byte("XFSB"), 0)
	if lost("PRIMARY") {
		t.Error("another filesystem is a lost one")
	}
}

// TestReadOnly: a read-only disk refuses writes until it is writable again.
func TestReadOnly(t *testing.T) {
	_, m, dev, table := newMain(t, layout.UEFI)
	for _, on := range []bool{true, false} {
		if err := m.SetReadOnly(dev, on); err != nil {
			t.Fatal(err)
		}
		if err := m.WriteTable(dev, table); errors.Is(err, syscall.EROFS) != on {
			t.Errorf("read-only %t: %v", on, err)
		}
	}
}

// TestNoDevice: if a device cannot be opened, every look at it returns an error and no answer.
func TestNoDevice(t *testing.T) {
	m := machinetest.Machine(machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI}))
	const none = "/dev/none"
	ask := map[string]func() error{
		"ReadTable":      func() error { _, err := m.ReadTable(none); return err },
		"ProbePartition": func() error { _, _, err := m.ProbePartition(none); return err },
		"LostExt4":       func() error { _, err := m.LostExt4(none, "PRIMARY"); return err },
		"BlankDisk":      func() error { _, _, err := m.BlankDisk(none); return err },
		"OnlyTable":      func() error { _, err := m.OnlyTable(none, layout.Table{}); return err },
		"BackupTable":    func() error { _, err := m.BackupTable(block.Disk{Path: none}); return err },
		"Carries":        func() error { _, err := m.Carries(none); return err },
		"Wipe":           func() error { return m.Wipe(none) },
		"WriteTable":     func() error { return m.WriteTable(none, layout.Table{}) },
		"RepairTable":    func() error { return m.RepairTable(none, layout.Table{}) },
		"ClearPartition": func() error { return m.ClearPartition(none) },
		"SetReadOnly":    func() error { return m.SetReadOnly(none, true) },
		"OnESP":          func() error { return m.OnESP(none, machine.RemovablePath, func(string) error { return nil }) },
	}
	real := machine.Real(m.Log, nil, nil)
	for _, how := range []machine.Access{machine.Read, machine.Write, machine.Share, 7} {
		if d, err := real.Open(none, how); err == nil || d != nil {
			t.Errorf("a device that is not there is opened: %v", d)
		}
	}
	without := machine.Real(m.Log, nil, func(string) error { return syscall.ENOSYS })
	if err := without.Mount(none, t.TempDir(), "ext4", host.MountOptions{}); !errors.Is(err, syscall.ENOSYS) {
		t.Errorf("a filesystem without a driver: %v", err)
	}
	for name, do := range ask {
		if err := do(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClearedIsEmpty: clearing a partition destroys what was in its filesystem, even if it is formatted with the same
// identifier afterwards.
func TestClearedIsEmpty(t *testing.T) {
	r, m, dev, table := newMain(t, layout.UEFI)
	for _, role := range []layout.Role{layout.ESP, layout.Primary} {
		p := table.Find(role)
		for again := range 2 {
			if err := m.Format(t.Context(), dev, table, []layout.Role{role}); err != nil {
				t.Fatal(err)
			}
			left, err := os.ReadDir(r.Volume(p.FSUUID))
			if err != nil || len(left) > 0 {
				t.Errorf("%s, made %d times: it holds %v, %v", role, again+1, left, err)
			}
			if err := os.WriteFile(filepath.Join(r.Volume(p.FSUUID), "old"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := m.ClearPartition(block.PartitionPath(dev, p.Number)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
