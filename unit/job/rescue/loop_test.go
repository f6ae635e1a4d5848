package rescue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/platform"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

func TestMain(m *testing.M) { machinetest.Main(m) }

const loopSerial = "SN-0001"

// loopUnit is a unit with disks of the kernel that the tests run on, for what no machine of machinetest shows: ext4.
func loopUnit() *machine.Machine {
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Site: site.Stock(), Panel: panel.New(), Serial: loopSerial, BootID: "b1"}
	m.Doors = machine.Real(m.Log, nil, nil)
	m.List = func() ([]block.Disk, error) { return block.List(m.Sys) } // which tests set later
	m.Identity.Variant = platform.Variant{DevCodeName: "VIRT"}
	bus := []platform.Bus{platform.Virtio}
	m.Identity.Variant.RecoveryMedia.Bus, m.Identity.Variant.MainDisk.Bus = bus, bus
	return m
}

// onlyDisk makes the only disk of a BIOS unit: an empty recovery volume, a complete main system, and data.
func onlyDisk(t *testing.T, m *machine.Machine) (dev string, table layout.Table) {
	t.Helper()
	const size = layout.GiB
	m.Firmware = layout.BIOS
	m.Identity.Variant.RecoveryMedia.Layout = platform.OnMain
	m.Identity.Variant.NumDataDisks, m.Identity.Variant.SwRaidlevel = 1, -1
	m.Identity.Variant.DataPartition = &platform.DataPartition{Label: "DATA", Mount: "/data", Size: 64 * layout.MiB}
	dev = machinetest.LoopDisk(t, size)
	table, err := m.LayMain(block.Disk{Size: size, SectorSize: 512}, 560*layout.MiB, machine.NewIDs())
	if err == nil {
		err = m.WriteTable(dev, table)
	}
	if err == nil {
		err = m.Format(t.Context(), dev, table, []layout.Role{layout.Recovery, layout.Primary, layout.Data})
	}
	if err != nil {
		t.Fatal(err)
	}
	mark, err := state.Mark{Release: "R", Serial: loopSerial}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"boot.normal": mark, "etc/passwd": []byte("admin:x:1000:1000::/:/bin/sh\n"), "boot/norm_boot": imagetest.BzImage(7, ""),
		"etc/shadow": []byte("admin:$2b$10$abcdefghijklmnopqrstuvabcdefghijklmnopqrstuvabcdefghijk:1::::::\n"),
	}
	if err := m.Mount(part(dev, table, layout.Primary), m.Places.Main, "ext4", host.MountOptions{}); err != nil {
		machinetest.Skip(t, fmt.Sprintf("mount ext4: %v", err))
	}
	for name, b := range files {
		path := filepath.Join(m.Places.Main, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o600)); err != nil {
			t.Error(err)
		}
	}
	if err := m.Unmount(m.Places.Main); err != nil {
		t.Fatal(err)
	}
	return dev, table
}

func part(dev string, t layout.Table, r layout.Role) string {
	return block.PartitionPath(dev, t.Find(r).Number)
}

// beside returns a checksum of all that is on a disk beside one of its partitions. What is before from is left out.
func beside(t *testing.T, dev string, p layout.Partition, from int64) uint32 {
	t.Helper()
	d, err := block.Open(dev, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	end := p.Start + p.Size
	for _, r := range []*io.SectionReader{io.NewSectionReader(d, from, p.Start-from), io.NewSectionReader(d, end, d.Size()-end)} {
		if _, err := io.Copy(h, r); err != nil {
			t.Fatal(err)
		}
	}
	return h.Sum32()
}

// stickImage makes an image that the unit trusts.
func stickImage(t *testing.T, m *machine.Machine) image.Image {
	t.Helper()
	f := imagetest.New(t)
	m.Keys = []signature.PublicKey{f.Key.Public()}
	const base = imagetest.Prefix + "2026-11-22.0001"
	return f.Put(t, base+".upd", base, imagetest.XZ(t, imagetest.Tar(t, `{"required_space": 4096, "sha256": "x"}`)))
}

// stopBefore makes a rebuild end before a step, as a power cut would.
func stopBefore(m *machine.Machine, name string) error {
	stop := errors.New("stopped")
	extra := site.Extra{Name: "stop", Run: func(context.Context, site.Unit) error { return stop }}
	m.Site.Hooks = []site.Hook{{Job: "rebuild", Step: name, Extra: extra}}
	return stop
}

// TestRebuildOneDisk: on the only disk of a unit the filesystem of the recovery volume is made anew, and not one byte beside its partition
// changes but the boot loader. Cut off on the way, the volume counts as missing and the work is done anew. In the end it is
// the unit's, and its record names the partitions as they are. The ESP of a UEFI unit is for the virtual machines: not each kernel
// that runs this has FAT.
func TestRebuildOneDisk(t *testing.T) {
	machinetest.OwnMounts(t)
	m := loopUnit()
	m.Initramfs = t.TempDir()
	machinetest.WithLoader(t, m)
	dev, table := onlyDisk(t, m)
	im := stickImage(t, m)
	for _, at := range []int64{0, 128 * layout.MiB} { // the superblock, and the copy of it that a repair takes
		machinetest.Overwrite(t, part(dev, table, layout.Recovery), at, bytes.Repeat([]byte{0xff}, 8192))
	}
	m.Sys = machinetest.VirtIO(t, dev)
	before := beside(t, dev, *table.Find(layout.Recovery), layout.MiB) // the boot loader is in the first MiB
	for _, name := range []string{"format-recovery", "credentials", "write-record"} {
		stop := stopBefore(m, name)
		plan, err := planRebuild(t.Context(), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		if loss := plan.loss(); !strings.HasPrefix(loss, "All data on partition 1 of "+filepath.Base(dev)) {
			t.Errorf("a person is asked: %s", loss)
		}
		if err := plan.run(t.Context(), jobtest.Env(m), im); !errors.Is(err, stop) {
			t.Fatalf("before %s: %v", name, err)
		}
		if beside(t, dev, *table.Find(layout.Recovery), layout.MiB) != before {
			t.Fatalf("before %s something changed beside the recovery volume's partition", name)
		}
		if _, f := jobtest.Look(t, m); f.Recovery != decide.RecoveryMissing {
			t.Errorf("before %s the volume is %s; notes %q", name, f.Recovery, f.Notes)
		}
	}
	m.Site.Hooks = nil
	plan, err := planRebuild(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.run(t.Context(), jobtest.Env(m), im); err != nil {
		t.Fatalf("%v", err)
	}
	if beside(t, dev, *table.Find(layout.Recovery), layout.MiB) != before {
		t.Error("something changed beside the recovery volume's partition")
	}
	_, f := jobtest.Look(t, m)
	if f.Recovery != decide.RecoveryFound || f.Main != decide.MainMarked || !f.Recorded || !f.Unit.OneDisk() {
		t.Fatalf("found %s and %s, one disk: %t; notes %q", f.Recovery, f.Main, f.Unit.OneDisk(), f.Notes)
	}
	now, err := m.ReadTable(dev)
	if err != nil || !table.On(now) || !f.Unit.Main[0].Table.On(now) {
		t.Errorf("the table is %+v, recorded %+v; %v", now, f.Unit.Main[0].Table, err)
	}
	for _, r := range []layout.Role{layout.Primary, layout.Data} { // a restore goes by them
		if got, want := f.Unit.Main[0].Table.Find(r), table.Find(r); got == nil || *got != *want {
			t.Errorf("recorded %+v, made %+v", got, want)
		}
	}
	// A volume whose record can be read is not dead, whoever asks.
	if _, err := planRebuild(t.Context(), m, nil); fault.Of(err) != fault.NoRebuild || !strings.Contains(err.Error(), "can be read") {
		t.Errorf("got %v", err)
	}
}

// TestRebuildRefused: where it is not clear that the disk is the unit's, or nothing of the unit is left, nothing is planned.
func TestRebuildRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, m *machine.Machine, dev string, table layout.Table)
		want   string
	}{
		"blank disk": {func(t *testing.T, m *machine.Machine, dev string, _ layout.Table) {
			if err := m.Wipe(dev); err != nil {
				t.Fatal(err)
			}
		}, "provision it again"},
		"no mark": {func(t *testing.T, m *machine.Machine, dev string, table layout.Table) {
			machinetest.Debugfs(t, part(dev, table, layout.Primary), "rm /boot.normal")
		}, "mark: "},
		"of another unit": {func(t *testing.T, m *machine.Machine, _ string, _ layout.Table) { m.Serial = "SN-0002" }, "its mark names the unit"},
		"another layout by the appliance table": {func(t *testing.T, m *machine.Machine, _ string, _ layout.Table) {
			m.Identity.Variant.DataPartition.Size += layout.MiB
		}, "not one that provisioning makes"},
		"written by a newer program": {func(t *testing.T, m *machine.Machine, dev string, table layout.Table) {
			file := filepath.Join(t.TempDir(), "unit.json")
			if err := os.WriteFile(file, []byte(`{"version": 99}`), 0o600); err != nil {
				t.Fatal(err)
			}
			machinetest.Debugfs(t, part(dev, table, layout.Recovery), "mkdir /state", "write "+file+" /state/unit.json")
		}, state.ErrNewer.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			m := loopUnit()
			dev, table := onlyDisk(t, m)
			c.change(t, m, dev, table)
			m.Sys = machinetest.VirtIO(t, dev)
			_, err := planRebuild(t.Context(), m, nil)
			if fault.Of(err) != fault.NoRebuild || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// No disk at all.
	m := loopUnit()
	m.Sys = fstest.MapFS{"block": {Mode: os.ModeDir}}
	m.Identity.Variant.NumDataDisks, m.Identity.Variant.SwRaidlevel = 2, 1
	if _, err := planRebuild(t.Context(), m, nil); fault.Of(err) != fault.NoRebuild {
		t.Errorf("without disks: %v", err)
	}
}

// TestRebuildKeepsLabels: a stick with other names rebuilds a unit all the same, whose main system is known by its mark; and a recovery
// volume that it makes anew has the label of the stick, which the unit keeps from then on.
func TestRebuildKeepsLabels(t *testing.T) {
	machinetest.OwnMounts(t)
	m := loopUnit()
	m.Initramfs = t.TempDir()
	machinetest.WithLoader(t, m)
	m.Site.Names = m.Site.Names.Of(naming.Names{RecoveryLabel: "ACMEREC", PrimaryLabel: "ACMEROOT"})
	dev, table := onlyDisk(t, m)
	m.Site = site.Stock()
	im := stickImage(t, m)
	for _, at := range []int64{0, 128 * layout.MiB} {
		machinetest.Overwrite(t, part(dev, table, layout.Recovery), at, bytes.Repeat([]byte{0xff}, 8192))
	}
	m.Sys = machinetest.VirtIO(t, dev)
	plan, err := planRebuild(t.Context(), m, nil)
	if err == nil {
		err = plan.run(t.Context(), jobtest.Env(m), im)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	m.Site.Names = m.Site.Names.Of(naming.Names{RecoveryLabel: "FOXREC", PrimaryLabel: "FOXROOT"})
	_, f := jobtest.Look(t, m)
	n := m.Site.Names
	if f.Recovery != decide.RecoveryFound || f.Main != decide.MainMarked || n.Recovery != "RECOVERY" || n.Primary != "ACMEROOT" {
		t.Errorf("found %s and %s, names %+v", f.Recovery, f.Main, n)
	}
}
