package restore

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/partition"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// superblock is one of md, version 1.2, for a place of a mirror of two (struct mdp_superblock_1 of linux/raid/md_p.h), of the array whose
// UUID repeats a byte.
func superblock(id byte, place uint16) []byte {
	le, b := binary.LittleEndian, make([]byte, 4096)
	le.PutUint32(b, 0xa92b4efc)
	le.PutUint32(b[4:], 1)
	for i := 16; i < 32; i++ {
		b[i] = id
	}
	le.PutUint32(b[72:], 1) // level
	le.PutUint32(b[92:], 2) // disks
	le.PutUint64(b[144:], 8)
	le.PutUint32(b[160:], uint32(place)) // own index among the roles
	le.PutUint32(b[220:], 2)
	le.PutUint16(b[258:], 1) // the roles are 0 and 1
	var sum uint64
	for i := 0; i < 260; i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	return b
}

func arrayID(id byte) string {
	h := strings.Repeat(fmt.Sprintf("%02x", id), 16)
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}

// TestDataArray holds what a restore does with the members of the data's array on the disks of a mirror, and that it makes that array
// only where no disk has anything of it.
func TestDataArray(t *testing.T) {
	const own, other = 0x11, 0x22
	const size = 4 * layout.GiB
	scribble := func(d *block.Device, p layout.Partition) error {
		_, err := d.WriteAt([]byte("somebody's data"), p.Start)
		return err
	}
	md := func(id byte, place uint16) func(*block.Device, layout.Partition) error {
		return func(d *block.Device, p layout.Partition) error {
			_, err := d.WriteAt(superblock(id, place), p.Start+4096)
			return err
		}
	}
	blank := func(*block.Device, layout.Partition) error { return nil }
	for name, c := range map[string]struct {
		lost   []bool // the disk has no table
		holds  [2]func(*block.Device, layout.Partition) error
		kept   string
		create bool
	}{
		"after provisioning":                {[]bool{true, true}, [2]func(*block.Device, layout.Partition) error{blank, blank}, "new new", true},
		"cut off before it was made":        {[]bool{false, false}, [2]func(*block.Device, layout.Partition) error{blank, blank}, "new new", true},
		"in use":                            {[]bool{false, false}, [2]func(*block.Device, layout.Partition) error{md(own, 0), md(own, 1)}, "kept kept", false},
		"one disk is new":                   {[]bool{false, true}, [2]func(*block.Device, layout.Partition) error{md(own, 0), blank}, "kept new", false},
		"the tables are lost":               {[]bool{true, true}, [2]func(*block.Device, layout.Partition) error{md(own, 0), md(own, 1)}, "kept kept", false},
		"another array at its place":        {[]bool{false, false}, [2]func(*block.Device, layout.Partition) error{md(other, 0), md(other, 1)}, "kept kept", false},
		"one disk with something else":      {[]bool{false, false}, [2]func(*block.Device, layout.Partition) error{md(own, 0), scribble}, "kept kept", false},
		"one disk with something, one none": {[]bool{false, false}, [2]func(*block.Device, layout.Partition) error{blank, scribble}, "new kept", false},
		"disks of others":                   {[]bool{true, true}, [2]func(*block.Device, layout.Partition) error{md(other, 0), md(other, 1)}, "new new", true},
	} {
		for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
			t.Run(fmt.Sprintf("%s/%s", fw, name), func(t *testing.T) {
				v := platform.Variant{SwRaidlevel: 1, NumDataDisks: 2, DataPartition: &platform.DataPartition{Label: "DATA", Mount: "/data", Size: 64 * layout.MiB}}
				var commands []string
				run := func(_ context.Context, path string, args ...string) ([]byte, int, error) {
					commands = append(commands, path+" "+strings.Join(args, " "))
					return nil, 0, nil
				}
				m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Firmware: fw, Identity: platform.Identity{Variant: v}}
				m.Doors = machine.Real(m.Log, nil, nil)
				m.Run = run
				m.Site.Names.Primary, m.Site.Names.Recovery = "PRIMARY", "RECOVERY"
				j := &restoring{Machine: m, goal: goal{Unit: state.Unit{
					Array:     &state.Array{Level: 1, UUID: arrayID(0x33), FSUUID: arrayID(0x44), FSLabel: "PRIMARY"},
					DataArray: &state.Array{Level: 1, UUID: arrayID(own), FSUUID: arrayID(0x55), FSLabel: "DATA"},
				}}}
				for i, hold := range c.holds {
					path := filepath.Join(t.TempDir(), "disk")
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						t.Fatal(err)
					}
					if err := os.Truncate(path, size); err != nil {
						t.Fatal(err)
					}
					d := block.Disk{Path: path, Size: size, SectorSize: 512}
					table, err := m.LayMain(d, 0, randomIDs(1000*i))
					if err != nil {
						t.Fatal(err)
					}
					j.Unit.Main = append(j.Unit.Main, state.Disk{Table: table})
					j.disks = append(j.disks, target{Disk: d})
					onDisk(t, path, func(dev *block.Device) error {
						if !c.lost[i] {
							if err := partition.Write(dev, table); err != nil {
								return err
							}
						}
						return hold(dev, *table.Find(layout.DataMember))
					})
				}
				var kept []string
				for i := range j.disks {
					if err := j.layOut(i); err != nil {
						t.Fatal(err)
					}
					d := j.disks[i]
					if d.recorded == c.lost[i] || !j.Unit.Main[i].Table.On(d.table) {
						t.Errorf("disk %d: recorded %t, table %+v", i, d.recorded, d.table)
					}
					fresh := j.fresh(d)
					if !slices.Contains(fresh, layout.Member) || slices.Contains(fresh, layout.DataMember) == slices.Contains(d.keep, layout.DataMember) {
						t.Errorf("disk %d: fresh %v, kept %v", i, fresh, d.keep)
					}
					kept = append(kept, map[bool]string{true: "kept", false: "new"}[slices.Contains(d.keep, layout.DataMember)])
				}
				if got := strings.Join(kept, " "); got != c.kept {
					t.Errorf("the members are %s, want %s", got, c.kept)
				}
				if err := j.formatData(t.Context()); err != nil {
					t.Fatal(err)
				}
				all := strings.Join(commands, "\n")
				if created := strings.Contains(all, "--create "+machine.DataArrayPath); created != c.create || created != strings.Contains(all, "mke2fs") {
					t.Errorf("made anew: %t, want %t:\n%s", created, c.create, all)
				}
				if conf := j.arrayConf(); strings.Count(conf, "ARRAY ") != 2 || !strings.Contains(conf, "ARRAY "+machine.DataArrayPath) {
					t.Errorf("mdadm.conf: %s", conf)
				}
			})
		}
	}
}
