package pid1

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/fstest"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/hw/partition"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/repair"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// mainDisk makes a main disk of the unit with a complete system.
func mainDisk(t *testing.T, u *unit) (dev string, rec state.Disk) {
	t.Helper()
	const size = 1200 * layout.MiB
	dev = machinetest.LoopDisk(t, size)
	table, err := layout.ForMain(layout.UEFI, layout.Device{Size: size, SectorSize: 512}, u.m.Labels(), u.m.Identity.Variant.Parts(0), machine.NewIDs())
	if err == nil {
		err = u.m.WriteTable(dev, table)
	}
	if err == nil {
		err = u.m.Format(t.Context(), dev, table, []layout.Role{layout.Primary})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := u.m.Mount(block.PartitionPath(dev, table.Find(layout.Primary).Number), u.m.Places.Main, "ext4", host.MountOptions{}); err != nil {
		machinetest.Skip(t, fmt.Sprintf("mount ext4: %v", err))
	}
	mark, err := state.Mark{Release: "A.B.C.2026-11-22.0001", Serial: testSerial}.Marshal()
	if err == nil {
		err = os.WriteFile(u.m.Places.Main+"/"+u.m.Site.Names.Mark, mark, 0o600)
	}
	if err := errors.Join(err, u.m.Unmount(u.m.Places.Main)); err != nil {
		t.Fatal(err)
	}
	return dev, state.Disk{Size: size, Bus: "virtio", Table: table}
}

// forgetPartitions makes the kernel forget the partitions of a disk, as after a start with a table that it does not take.
func forgetPartitions(t *testing.T, dev string) {
	t.Helper()
	if err := rereadWithout(dev); err != nil {
		t.Fatal(err)
	}
	if n := len(parts(t, dev)); n > 0 {
		t.Fatalf("the kernel knows %d partitions yet", n)
	}
}

func parts(t *testing.T, dev string) []block.Partition {
	t.Helper()
	disks, err := block.List(machinetest.VirtIO(t, dev))
	if err != nil || len(disks) != 1 {
		t.Fatal(disks, err)
	}
	return disks[0].Partitions
}

// rereadWithout hides the table for a moment: the kernel reads a disk without one.
func rereadWithout(dev string) error {
	d, err := block.Open(dev, true)
	if err != nil {
		return err
	}
	defer d.Close()
	head := make([]byte, 512)
	if _, err := d.ReadAt(head, 0); err != nil {
		return err
	}
	if _, err := d.WriteAt(make([]byte, 512), 0); err != nil {
		return err
	}
	err = d.RereadTable()
	_, again := d.WriteAt(head, 0)
	return errors.Join(err, again, d.Sync())
}

// TestDamagedTable: disks whose first partition table is damaged are used by the copy at their end, and it is written again where the unit's
// record has it. Nothing else on the disk is changed.
func TestDamagedTable(t *testing.T) {
	const header = 512
	for name, c := range map[string]struct {
		damage   []string // main, recovery
		own      bool     // the record has the main disk's table
		atEnd    bool     // the other copy is damaged too
		main     decide.MainState
		job      decide.Job
		repaired bool
	}{
		"main disk":                 {[]string{"main"}, true, false, decide.MainMarked, decide.RepairTable, true},
		"recovery device":           {[]string{"recovery"}, true, false, decide.MainMarked, decide.RepairTable, true},
		"both":                      {[]string{"main", "recovery"}, true, false, decide.MainMarked, decide.RepairTable, true},
		"a table not of the unit":   {[]string{"main"}, false, false, decide.MainAbsent, decide.Hold, false},
		"both copies of the main's": {[]string{"main"}, true, true, decide.MainAbsent, decide.Hold, false},
		"none":                      {nil, true, false, decide.MainMarked, decide.Boot, true},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			var out bytes.Buffer
			u := testUnit(t, &out)
			main, rec := mainDisk(t, u)
			if !c.own {
				rec.Table.UUID, rec.Table.Partitions = machine.NewIDs().UUID(), slices.Clone(rec.Table.Partitions)
				for i := range rec.Table.Partitions {
					rec.Table.Partitions[i].UUID = machine.NewIDs().UUID()
				}
			}
			recovery, _ := recoveryDisk(t, u, rec)
			devs := map[string]string{"main": main, "recovery": recovery}
			for _, d := range c.damage {
				machinetest.Overwrite(t, devs[d], header, make([]byte, 512))
				if c.atEnd {
					machinetest.Overwrite(t, devs[d], 1200*layout.MiB-512, make([]byte, 512))
				}
				forgetPartitions(t, devs[d])
			}
			before := systemOf(t, main, rec)
			u.m.List = func() ([]block.Disk, error) { return block.List(machinetest.VirtIO(t, main, recovery)) } // as the kernel knows them now
			look := func() *survey.Findings { return u.look(t.Context()) }
			f := look()
			d := decide.Decide(f.Facts, u.m.Policy)
			if f.Recovery != decide.RecoveryFound || f.Main != c.main || d.Job != c.job {
				t.Fatalf("recovery %s, main %s, %s; notes %q", f.Recovery, f.Main, d, f.Notes)
			}
			if c.job == decide.RepairTable {
				if o := repair.Table(t.Context(), u.env(), f); o.Kind != job.DecideAgain {
					t.Errorf("%+v", o)
				}
				f = look()
				if d := decide.Decide(f.Facts, u.m.Policy); d.Job != decide.Boot || len(f.Tables) > 0 {
					t.Errorf("after the repair: %s; %+v; log:\n%s", d, f.Tables, out.String())
				}
			}
			for _, r := range []struct {
				dev   string
				table layout.Table
			}{{main, rec.Table}, {recovery, f.Unit.Recovery.Table}} {
				dev, err := u.m.Open(r.dev, machine.Read)
				if err != nil {
					t.Fatal(err)
				}
				if err := partition.Verify(dev, r.table); (err == nil) != c.repaired && r.dev == main {
					t.Errorf("%s: %v", r.dev, err)
				}
				dev.Close()
			}
			if !bytes.Equal(before, systemOf(t, main, rec)) {
				t.Error("what is outside of the tables has changed")
			}
		})
	}
}

// systemOf returns the boot code and the beginning of the main system's filesystem, from the disk.
func systemOf(t *testing.T, dev string, rec state.Disk) []byte {
	t.Helper()
	d, err := block.Open(dev, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b := make([]byte, 440+4*layout.MiB)
	if _, err := d.ReadAt(b[:440], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadAt(b[440:], rec.Table.Find(layout.Primary).Start); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTableTriedOnce: a table that cannot be repaired does not keep the unit from starting, and is a defect.
func TestTableTriedOnce(t *testing.T) {
	u := testUnit(t, &bytes.Buffer{})
	f := &survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked, TableDamaged: true},
		Tables: []survey.BackupTable{{Disk: block.Disk{Path: "/dev/none"}, Table: layout.Table{Kind: layout.GPT, UUID: "a"}, Recorded: true}}}
	if d := decide.Decide(f.Facts, u.m.Policy); d.Job != decide.RepairTable {
		t.Fatalf("%s", d)
	}
	u.m.Sys = fstest.MapFS{}
	u.runJob(t.Context(), decide.Decision{Job: decide.RepairTable}, f)
	if !u.memory.TablesTried {
		t.Error("it would be tried again in this boot")
	}
}
