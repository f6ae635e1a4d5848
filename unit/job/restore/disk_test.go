package restore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/partition"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// diskSize is that of the disks in image files.
const diskSize = 4 * layout.GiB

func randomIDs(first int) layout.IDs {
	n := first
	return layout.IDs{UUID: func() string { n++; return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }}
}

// data makes a filesystem at the place of a partition of a disk.
func makeData(t *testing.T, path string, p layout.Partition, uuid string) {
	t.Helper()
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("mke2fs is not installed (Debian package e2fsprogs)")
		}
		t.Skip("mke2fs is not installed (Debian package e2fsprogs)")
	}
	args := []string{"-q", "-F", "-t", "ext4", "-U", uuid, "-E", fmt.Sprintf("offset=%d", p.Start), path, fmt.Sprintf("%dk", p.Size/1024)}
	if out, err := exec.Command(mke2fs, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func onDisk(t *testing.T, path string, do func(*block.Device) error) {
	t.Helper()
	dev, err := block.OpenImage(path, true, 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(dev); err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLayOut holds what a restore leaves alone, on a unit with one disk and on one with two.
func TestLayOut(t *testing.T) {
	const other = "99999999-0000-4000-8000-000000000000"
	scribble := func(at int64) func(*block.Device) error {
		return func(d *block.Device) error {
			_, err := d.WriteAt([]byte("somebody's data"), at)
			return err
		}
	}
	lose := func(d *block.Device) error { // the first copy of a GPT
		_, err := d.WriteAt(make([]byte, 33*512), 512)
		return err
	}
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		parts := layout.Parts{Data: true, DataSize: 64 * layout.MiB}
		labels := layout.Labels{Recovery: "RECOVERY", Primary: "PRIMARY", Data: "DATA"}
		record := func(p layout.Parts) layout.Table {
			table, err := layout.ForMain(fw, layout.Device{Size: diskSize, SectorSize: 512}, labels, p, randomIDs(0))
			if err != nil {
				t.Fatal(err)
			}
			return table
		}
		both := parts
		both.Recovery = layout.GiB
		two, one := record(parts), record(both)
		write := func(table layout.Table) func(*block.Device) error {
			return func(d *block.Device) error { return partition.Write(d, table) }
		}
		grown := one
		grown.Partitions = slices.Clone(one.Partitions)
		grown.Partitions[len(grown.Partitions)-1].Size -= layout.MiB
		for _, c := range []struct {
			name     string
			recorded layout.Table
			disk     []func(*block.Device) error
			data     string // UUID of the filesystem at the place of the data partition
			own      bool   // the disk has the recorded table
			fresh    []layout.Role
			want     *fault.Fault
		}{
			{"one disk after provisioning", one, []func(*block.Device) error{write(one)}, "", true, []layout.Role{layout.Primary, layout.Data}, nil},
			{"one disk", one, []func(*block.Device) error{write(one)}, one.Find(layout.Data).FSUUID, true, []layout.Role{layout.Primary}, nil},
			{"one disk, other data", one, []func(*block.Device) error{write(one)}, other, true, []layout.Role{layout.Primary}, nil},
			{"one disk, half of the table is lost", one, []func(*block.Device) error{write(one), lose}, one.Find(layout.Data).FSUUID, true, []layout.Role{layout.Primary}, nil},
			{"one disk, another table", one, []func(*block.Device) error{write(grown)}, "", false, nil, fault.TableChanged},
			{"one disk, no table", one, nil, "", false, nil, fault.TableChanged},
			{"two disks, a new one", two, nil, "", false, []layout.Role{layout.Primary, layout.ESP, layout.Data}, nil},
			{"two disks", two, []func(*block.Device) error{write(two)}, two.Find(layout.Data).FSUUID, true, []layout.Role{layout.Primary, layout.ESP}, nil},
			{"two disks, unknown data", two, []func(*block.Device) error{write(two), scribble(two.Find(layout.Data).Start)}, "", true, []layout.Role{layout.Primary, layout.ESP}, nil},
			{"two disks, the table is lost", two, nil, two.Find(layout.Data).FSUUID, false, []layout.Role{layout.Primary, layout.ESP}, nil},
			{"two disks, a disk of others", two, nil, other, false, []layout.Role{layout.Primary, layout.ESP, layout.Data}, nil},
		} {
			t.Run(fmt.Sprintf("%s/%s", fw, c.name), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "disk")
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, diskSize); err != nil {
					t.Fatal(err)
				}
				for _, do := range c.disk {
					onDisk(t, path, do)
				}
				if c.data != "" {
					makeData(t, path, *c.recorded.Find(layout.Data), c.data)
				}
				v := platform.Variant{SwRaidlevel: -1, NumDataDisks: 1, DataPartition: &platform.DataPartition{Label: "DATA", Mount: "/data", Size: parts.DataSize}}
				u := state.Unit{Main: []state.Disk{{Table: c.recorded}}}
				if c.recorded.Find(layout.Recovery) != nil {
					u.Recovery, v.RecoveryMedia.Layout = u.Main[0], platform.OnMain
				}
				m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Firmware: fw, Identity: platform.Identity{Variant: v}}
				m.Doors = machine.Real(m.Log, nil, nil)
				m.Site.Names.Primary = "PRIMARY"
				j := &restoring{Machine: m, goal: goal{Unit: u}, disks: []target{{Disk: block.Disk{Path: path, Size: diskSize, SectorSize: 512}}}}
				err := j.layOut(0)
				if fault.Of(err) != c.want || (err == nil) != (c.want == nil) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				if err != nil {
					return
				}
				d := j.disks[0]
				if d.recorded != c.own || !c.recorded.On(d.table) { // a disk of the same size gets the same table
					t.Errorf("recorded %t, table %+v", d.recorded, d.table)
				}
				if d.recorded {
					if err := m.RepairTable(path, d.table); err != nil {
						t.Error(err)
					}
					onDisk(t, path, func(dev *block.Device) error { return partition.Verify(dev, d.table) })
				}
				if got := j.fresh(d); !slices.Equal(got, c.fresh) {
					t.Errorf("made anew are %v, want %v", got, c.fresh)
				}
				if p := d.table.Find(layout.Data); p == nil || p.FSUUID != c.recorded.Find(layout.Data).FSUUID {
					t.Errorf("the data partition becomes %+v", p)
				}
			})
		}
	}
}

// TestDisksThatChanged: what was decided for one disk is not done to another one, nor to one that is not blank any more.
func TestDisksThatChanged(t *testing.T) {
	r := machinetest.New(t)
	main := r.AddDisk(block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "MAIN", Size: 8 * layout.GiB})
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Doors: r.Doors()}
	planned, err := m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	j := &restoring{Machine: m, goal: goal{Planned: planned, Unit: state.Unit{Main: make([]state.Disk, 1)}, Blank: true}}
	check := func(when string, want *fault.Fault) {
		t.Helper()
		if disks, err := j.mainDisks(); fault.Of(err) != want || (want == nil) != (len(disks) == 1) {
			t.Errorf("%s: %v, %v, want %v", when, disks, err, want)
		}
	}
	check("blank", nil)
	dev, err := m.Open(main, machine.Write)
	if err == nil {
		_, err = dev.WriteAt([]byte("somebody's data"), 0)
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	check("no longer blank", fault.MainForeign)
	j.Blank = false
	check("need not be blank", nil)
	for name, other := range map[string]func(d *block.Disk){
		"path": func(d *block.Disk) { d.Path += "x" }, "size": func(d *block.Disk) { d.Size++ }, "model": func(d *block.Disk) { d.Model = "M" },
		"serial": func(d *block.Disk) { d.Serial = "S" }, "WWN": func(d *block.Disk) { d.WWN = "W" },
	} {
		j.Planned = slices.Clone(planned)
		other(&j.Planned[0])
		check("another "+name, fault.MainMissing)
	}
	j.Planned = append(slices.Clone(planned), planned...)
	check("more than the record has", fault.PlanChanged)
	j.Planned = nil
	check("none", fault.MainMissing)
}

func TestInOrder(t *testing.T) {
	disk := func(name, serial string) block.Disk {
		return block.Disk{Name: name, Path: "/dev/" + name, Serial: serial}
	}
	j := &restoring{goal: goal{Unit: state.Unit{Main: []state.Disk{{Serial: "A"}, {Serial: "B"}, {Serial: "C"}}}}}
	for _, c := range []struct {
		name  string
		disks []block.Disk
		want  string
	}{
		{"as recorded", []block.Disk{disk("sda", "A"), disk("sdb", "B"), disk("sdc", "C")}, "sda sdb sdc "},
		{"found in another order", []block.Disk{disk("sda", "C"), disk("sdb", "A"), disk("sdc", "B")}, "sdb sdc sda "},
		{"one replaced", []block.Disk{disk("sda", "C"), disk("sdb", "new"), disk("sdc", "A")}, "sdc sdb sda "},
		{"no serial numbers", []block.Disk{disk("sda", ""), disk("sdb", ""), disk("sdc", "")}, "sda sdb sdc "},
	} {
		got := ""
		for _, d := range j.inOrder(c.disks) {
			got += d.Name + " "
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
