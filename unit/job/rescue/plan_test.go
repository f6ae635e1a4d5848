package rescue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// TestPlanRefused: where it is not clear whose the disks are, or nothing of the unit is left, nothing is planned and nothing written; the
// person hears why.
func TestPlanRefused(t *testing.T) {
	two, one := machinetest.Kind{Firmware: layout.UEFI}, machinetest.Kind{Firmware: layout.BIOS, OneDisk: true, Data: true}
	mirror := machinetest.Kind{Firmware: layout.UEFI, Mirror: true}
	system := func(t *testing.T, d *dead, name string) string {
		return filepath.Join(d.Volume(d.was.System().FSUUID), name)
	}
	remove := func(name string) func(*testing.T, *dead, *machine.Machine) {
		return func(t *testing.T, d *dead, _ *machine.Machine) {
			if err := os.Remove(system(t, d, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	unplug := func(names ...string) func(*testing.T, *dead, *machine.Machine) {
		return func(_ *testing.T, d *dead, _ *machine.Machine) {
			for _, name := range names {
				d.Remove(name)
			}
		}
	}
	rebuilt := func(t *testing.T, d *dead, _ *machine.Machine) {
		if _, err := d.rebuild(t); err != nil {
			t.Fatal(err)
		}
		d.Start(nil)
	}
	for name, c := range map[string]struct {
		kind   machinetest.Kind
		change func(t *testing.T, d *dead, m *machine.Machine)
		want   string
	}{
		"no main disk":       {two, unplug("vdb"), "provision it again"},
		"a blank main disk":  {two, func(_ *testing.T, d *dead, _ *machine.Machine) { d.Replace("vdb", "NEW") }, "provision it again"},
		"no mark":            {two, remove("boot.normal"), "mark: "},
		"no password":        {two, remove("etc/shadow"), "password: "},
		"no boot artifact":   {two, remove("boot/norm_boot"), "boot artifact: "},
		"of another unit":    {two, func(_ *testing.T, _ *dead, m *machine.Machine) { m.Serial = "SN-0002" }, "its mark names the unit"},
		"noted errors":       {two, noteErrors, "noted errors"},
		"no recovery device": {two, unplug("vda"), "0 disks could be it"},
		"two recovery devices": {two, func(_ *testing.T, d *dead, _ *machine.Machine) {
			d.AddDisk(block.Disk{Name: "vdz", Bus: block.VirtIO, Size: layout.GiB})
		}, "2 disks could be it"},
		"a recovery device that cannot be written": {two, func(t *testing.T, _ *dead, m *machine.Machine) {
			disks, err := m.Disks()
			if err == nil {
				err = m.SetReadOnly(disks[0].Path, true)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, "is read-only"},
		"other firmware": {two, func(_ *testing.T, _ *dead, m *machine.Machine) { m.Firmware = layout.BIOS }, "not made for bios"},
		"another layout": {one, func(_ *testing.T, _ *dead, m *machine.Machine) {
			m.Identity.Variant.DataPartition = &platform.DataPartition{Label: "DATA", Mount: "/data", Size: 2 * layout.GiB}
		}, "not one that provisioning makes"},
		"a volume that can be read": {one, rebuilt, "can be read"},
		"a volume of a newer program": {one, func(t *testing.T, d *dead, m *machine.Machine) {
			rebuilt(t, d, m)
			u := d.record(t)
			file := filepath.Join(d.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID), state.UnitFile)
			if err := os.WriteFile(file, []byte(`{"version": 99}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}, state.ErrNewer.Error()},
		"no member":     {mirror, unplug("vdb", "vdc"), "provision it again"},
		"another level": {mirror, func(_ *testing.T, _ *dead, m *machine.Machine) { m.Identity.Variant.SwRaidlevel = 10 }, "it has level 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDead(t, c.kind)
			m := d.machine()
			c.change(t, d, m)
			before := len(d.Written())
			_, err := planRebuild(t.Context(), m, sticks)
			if fault.Of(err) != fault.NoRebuild || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if w := d.Written(); len(w) != before {
				t.Errorf("written to are %s", w)
			}
		})
	}
}

// noteErrors makes the main filesystem one in which the kernel has noted errors.
func noteErrors(t *testing.T, d *dead, m *machine.Machine) {
	t.Helper()
	parts, err := m.Partitions(nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(parts, func(p machine.Found) bool { return p.Partition.UUID == d.was.System().UUID })
	dev, err := m.Open(parts[i].Path, machine.Write)
	if err == nil {
		_, err = dev.WriteAt([]byte{3, 0}, 1024+0x3a) // s_state
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestLoss: a person who is asked hears which disk, or which part of it, is lost.
func TestLoss(t *testing.T) {
	for want, kind := range map[string]machinetest.Kind{
		"All data on vda (2.1 GB,  NEW) will be lost. It carries nothing.": {Firmware: layout.UEFI},
		"All data on partition 1 of vdb (8.6 GB,  MAIN) will be lost.":     {Firmware: layout.BIOS, OneDisk: true},
	} {
		plan, err := planRebuild(t.Context(), newDead(t, kind).machine(), sticks)
		if err != nil {
			t.Fatal(err)
		}
		if got := plan.loss(); !strings.HasPrefix(got, want) {
			t.Errorf("a person is asked: %s, want %s", got, want)
		}
	}
}

// TestHalfAMirror: a mirror that lacks a disk has the unit's volume rebuilt all the same. The record has a place for the disk that is
// missing, and no disk of its size becomes the recovery device.
func TestHalfAMirror(t *testing.T) {
	d := newDead(t, machinetest.Kind{Firmware: layout.BIOS, Mirror: true})
	d.Replace("vdc", "A NEW ONE")
	d.Start(nil)
	if _, err := d.rebuild(t); err != nil {
		t.Fatal(err)
	}
	if w := d.Written(); slices.ContainsFunc(w, func(name string) bool { return !strings.HasPrefix(name, "vda") }) {
		t.Errorf("written to are %s", w)
	}
	u := d.record(t)
	if u == nil || len(u.Main) != 2 || u.Main[0].Serial != "MAIN" || u.Main[1].Serial != "" || u.Main[1].Table.Find(layout.Member) == nil {
		t.Errorf("the record is %+v", u)
	}
}

// TestRunRefused: what is another thing than was planned ends the work before anything is lost, and an image that is no good before the
// volume is taken for the unit's.
func TestRunRefused(t *testing.T) {
	for name, c := range map[string]struct {
		kind   machinetest.Kind
		change func(t *testing.T, d *dead, m *machine.Machine)
		want   *fault.Fault
		wrote  bool
	}{
		"an image without room": {machinetest.Kind{Firmware: layout.UEFI}, func(_ *testing.T, d *dead, _ *machine.Machine) {
			d.im.Size = machinetest.RecoverySize
		}, fault.NoRebuild, false},
		"another recovery device": {machinetest.Kind{Firmware: layout.UEFI}, func(_ *testing.T, d *dead, _ *machine.Machine) {
			d.Replace("vda", "ANOTHER")
		}, fault.NoRebuild, false},
		"another table": {machinetest.Kind{Firmware: layout.BIOS, OneDisk: true}, func(t *testing.T, _ *dead, m *machine.Machine) {
			disks, err := m.Disks()
			if err != nil {
				t.Fatal(err)
			}
			table, err := m.LayMain(disks[0], layout.GiB, machine.NewIDs())
			if err == nil {
				err = m.RepairTable(disks[0].Path, table)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, fault.NoRebuild, false},
		"another image on the medium": {machinetest.Kind{Firmware: layout.UEFI}, func(t *testing.T, d *dead, _ *machine.Machine) {
			b, err := os.ReadFile(d.im.Path)
			if err == nil {
				b[len(b)/2] ^= 1
				d.im.Path = filepath.Join(t.TempDir(), filepath.Base(d.im.Path))
				err = os.WriteFile(d.im.Path, b, 0o600)
			}
			if err == nil {
				err = os.WriteFile(d.im.Path+".minisig", []byte("of another image"), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, fault.ImageSignature, true},
		"the image is gone": {machinetest.Kind{Firmware: layout.UEFI}, func(t *testing.T, d *dead, _ *machine.Machine) {
			d.im.Path = filepath.Join(t.TempDir(), filepath.Base(d.im.Path))
		}, fault.NoRebuild, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDead(t, c.kind)
			m := d.machine()
			plan, err := planRebuild(t.Context(), m, sticks)
			if err != nil {
				t.Fatal(err)
			}
			c.change(t, d, m)
			before := len(d.Written())
			err = plan.run(t.Context(), jobtest.Env(plan.Machine), d.im)
			if fault.Of(err) != c.want || err == nil {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if wrote := len(d.Written()) > before; wrote != c.wrote {
				t.Errorf("written to are %s", d.Written())
			}
			for _, dir := range []string{m.Places.Main, m.Places.Recovery} {
				if on, err := m.Mounted(dir); on || err != nil {
					t.Errorf("%s stays mounted: %v", filepath.Base(dir), err)
				}
			}
			if u := d.record(t); u != nil {
				t.Errorf("the volume is taken for the unit's: %+v", u)
			}
		})
	}
}

// TestRunIsEnded: a rebuild that init ends leaves no volume that a boot would take for the unit's.
func TestRunIsEnded(t *testing.T) {
	d := newDead(t, machinetest.Kind{Firmware: layout.BIOS})
	plan, err := planRebuild(t.Context(), d.machine(), sticks)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := plan.run(ctx, jobtest.Env(plan.Machine), d.im); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if u := d.record(t); u != nil {
		t.Errorf("the volume is taken for the unit's: %+v", u)
	}
}
