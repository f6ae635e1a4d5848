package survey

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

const testArray = "01234567-89ab-cdef-0123-456789abcdef"

// member returns an md superblock of version 1.2 as mdadm writes it (struct mdp_superblock_1 in linux/raid/md_p.h).
// It is for the array testArray, with n places of which active are taken. Place 0xffff is a spare.
func member(level, n, active int, place uint16, events uint64) []byte {
	le, b := binary.LittleEndian, make([]byte, 4096)
	le.PutUint32(b, 0xa92b4efc)
	le.PutUint32(b[4:], 1)
	copy(b[16:], []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef})
	copy(b[32:64], "any:gprov")
	le.PutUint32(b[72:], uint32(level))
	le.PutUint32(b[92:], uint32(n))
	le.PutUint64(b[144:], 8) // its own sector
	le.PutUint64(b[200:], events)
	roles := []uint16{place}
	for i := range uint16(n) {
		if i != place && len(roles) < active+1 && int(i) < active+1 {
			roles = append(roles, i)
		}
	}
	if place < uint16(n) {
		roles = roles[:active]
	}
	le.PutUint32(b[220:], uint32(len(roles)))
	for i, r := range roles {
		le.PutUint16(b[256+2*i:], r)
	}
	if len(roles)%2 != 0 {
		le.PutUint16(b[256+2*len(roles):], 0)
	}
	var sum uint64
	words := b[:256+2*len(roles)]
	for ; len(words) >= 4; words = words[4:] {
		sum += uint64(le.Uint32(words))
	}
	if len(words) == 2 {
		sum += uint64(le.Uint16(words))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	return b
}

// TestDiskWithoutMember: an interrupted restore of an array leaves some of the unit's disks without their members. It
// continues with them.
func TestDiskWithoutMember(t *testing.T) {
	const size = 64 * layout.MiB
	real := &machine.Machine{Doors: machine.Real(slog.New(slog.DiscardHandler), nil, nil)}
	table := func() layout.Table {
		return layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: []layout.Partition{
			{Number: 1, Start: layout.MiB, Size: 32 * layout.MiB, Type: layout.TypeRAID, UUID: machine.NewIDs().UUID(), Role: layout.Member}}}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dev string, own state.Disk)
		want   bool
	}{
		"blank": {func(*testing.T, string, state.Disk) {}, true},
		"a restore was cut off": {func(t *testing.T, dev string, own state.Disk) {
			if err := real.WriteTable(dev, own.Table); err != nil {
				t.Fatal(err)
			}
		}, true},
		"somebody's table": {func(t *testing.T, dev string, _ state.Disk) {
			if err := real.WriteTable(dev, table()); err != nil {
				t.Fatal(err)
			}
		}, false},
		"somebody's data": {func(t *testing.T, dev string, _ state.Disk) { machinetest.Overwrite(t, dev, 512, []byte("data")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			s, m := virtual(t)
			m.Identity.Variant.SwRaidlevel, m.Identity.Variant.NumDataDisks, m.Identity.Variant.Disksize = 1, 2, size
			a, b := machinetest.LoopDisk(t, size), machinetest.LoopDisk(t, size)
			own := state.Disk{Size: size, SectorSize: 512, Bus: string(block.VirtIO), Table: table()}
			c.change(t, b, own)
			m.Sys = machinetest.VirtIO(t, a, b)
			f := &Findings{}
			f.Members, f.Unit.Main = []string{filepath.Base(a)}, []state.Disk{{Size: size}, own}
			if got, err := (mainLook{s, f}).arrayDisks(); (len(got) == 2) != c.want || (err == nil) != c.want {
				t.Errorf("%d disks, %v", len(got), err)
			}
		})
	}
}

// TestLookForArray: when the unit's array starts, with which members, and what the findings say. There is no real
// mdadm, so nothing really starts. The system on the array must then count as unreadable, and never as one without a
// mark.
func TestLookForArray(t *testing.T) {
	const full = 0xfffe // not a member: the partition is blank
	for name, c := range map[string]struct {
		level, n, active int
		members          []uint16 // place of the member on each disk
		events           []uint64
		late             bool  // the wait for the others is over
		started          []int // disks whose members are started
		awaits, degraded bool
		main             decide.MainState
	}{
		"mirror":                         {1, 2, 2, []uint16{0, 1}, []uint64{5, 5}, false, []int{0, 1}, false, false, decide.MainDamaged},
		"mirror, one is slow":            {1, 2, 2, []uint16{0}, []uint64{5}, false, nil, true, false, decide.MainAbsent},
		"mirror, one is missing":         {1, 2, 2, []uint16{1}, []uint64{5}, true, []int{0}, false, true, decide.MainDamaged},
		"mirror, one was missing before": {1, 2, 1, []uint16{0}, []uint64{9}, false, []int{0}, false, true, decide.MainDamaged},
		"mirror, one is outdated":        {1, 2, 1, []uint16{0, 1}, []uint64{9, 5}, false, []int{0}, false, true, decide.MainDamaged},
		"mirror with a spare":            {1, 2, 1, []uint16{0, 0xffff}, []uint64{9, 9}, false, []int{0}, false, true, decide.MainDamaged},
		"mirror, a blank disk beside it": {1, 2, 2, []uint16{0, full}, []uint64{5, 0}, true, []int{0}, false, true, decide.MainDamaged},
		"level 5, in another order": {5, 3, 3, []uint16{2, 0, 1}, []uint64{5, 5, 5}, false, []int{0, 1, 2}, false, false,
			decide.MainDamaged},
		"level 5, one is missing":         {5, 3, 3, []uint16{0, 2}, []uint64{5, 5}, true, []int{0, 1}, false, true, decide.MainDamaged},
		"level 5, two are missing":        {5, 3, 3, []uint16{0}, []uint64{5}, true, nil, false, false, decide.MainAbsent},
		"level 0, one is missing":         {0, 2, 2, []uint16{0}, []uint64{5}, true, nil, false, false, decide.MainAbsent},
		"level 10, two of a pair missing": {10, 4, 4, []uint16{0, 1}, []uint64{5, 5}, true, nil, false, false, decide.MainAbsent},
		"level 10, one of each pair":      {10, 4, 4, []uint16{1, 2}, []uint64{5, 5}, true, []int{0, 1}, false, true, decide.MainDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			s, m := virtual(t)
			m.Identity.Variant.SwRaidlevel, m.Identity.Variant.NumDataDisks = c.level, c.n
			if s.Memory.Since = time.Now(); c.late {
				s.Memory.Since = s.Memory.Since.Add(-time.Hour)
			}
			var commands [][]string
			m.Run = func(_ context.Context, path string, args ...string) ([]byte, int, error) {
				commands = append(commands, append([]string{path}, args...))
				return nil, 0, nil
			}
			f := &Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainAbsent}}
			f.Unit.Array = &state.Array{Level: c.level, UUID: testArray}
			f.Unit.Main = make([]state.Disk, c.n)
			var devs, partitions []string
			for i, place := range c.members {
				dev := machinetest.LoopDisk(t, 64*layout.MiB)
				table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: []layout.Partition{
					{Number: 1, Start: layout.MiB, Size: 32 * layout.MiB, Type: layout.TypeLinux, UUID: machine.NewIDs().UUID(), Role: layout.Member}}}
				if err := m.WriteTable(dev, table); err != nil {
					t.Fatal(err)
				}
				part := block.PartitionPath(dev, 1)
				if place != full {
					machinetest.Overwrite(t, part, 4096, member(c.level, c.n, c.active, place, c.events[i]))
				}
				f.Unit.Main[i].Table = table
				devs, partitions = append(devs, dev), append(partitions, part)
			}
			m.Sys = machinetest.VirtIO(t, devs...)
			mainLook{s, f}.lookForArray(t.Context())
			if f.Awaits != c.awaits || f.Degraded != c.degraded || f.Main != c.main {
				t.Errorf("waits %t, degraded %t, main %s; notes %q", f.Awaits, f.Degraded, f.Main, f.Notes)
			}
			var want []string
			for _, i := range c.started {
				want = append(want, partitions[i])
			}
			var got []string
			for _, command := range commands {
				if command[1] != "--assemble" {
					t.Errorf("mdadm is told %q", command)
				}
				for _, a := range command {
					if strings.HasPrefix(a, "/dev/loop") {
						got = append(got, a)
					}
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || len(commands) > 1 {
				t.Errorf("started %q, want %q; notes %q", commands, want, f.Notes)
			}
			if len(f.Members) != len(slices.DeleteFunc(slices.Clone(c.members), func(p uint16) bool { return p == full })) {
				t.Errorf("members %q", f.Members) // each disk with a member is the unit's own, even if the member is outdated
			}
			// No state of an array leads to a restore.
			if d := decide.Decide(f.Facts, m.Policy); d.Job == decide.Restore {
				t.Errorf("%s", d)
			}
		})
	}
}

// TestArrayDisks: a restore uses members and blank disks. It uses no disk with other data in place of a member.
func TestArrayDisks(t *testing.T) {
	for name, c := range map[string]struct {
		other []byte // start of the second disk
		ok    bool
	}{
		"a blank disk":      {nil, true},
		"somebody's data":   {append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 504)...), false},
		"what nobody knows": {bytes.Repeat([]byte{0x5a}, 512), false},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			s, m := virtual(t)
			v := &m.Identity.Variant
			const size = 2 << 30
			v.SwRaidlevel, v.NumDataDisks, v.Disksize, v.MainDisk.Bus = 1, 2, size, []platform.Bus{platform.Virtio}
			a, b := machinetest.LoopDisk(t, size), machinetest.LoopDisk(t, size)
			machinetest.Overwrite(t, b, 0, c.other)
			m.Sys = machinetest.VirtIO(t, a, b)
			f := &Findings{}
			f.Members = []string{strings.TrimPrefix(a, "/dev/")}
			disks, err := (mainLook{s, f}).arrayDisks()
			if (err == nil) != c.ok || c.ok && len(disks) != 2 {
				t.Errorf("%v, %v", disks, err)
			}
		})
	}
}
