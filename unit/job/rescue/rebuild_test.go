package rescue

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/raid"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// oneDisk is a unit with one disk, and its main system as it is found: the table knows no roles.
func oneDisk(t *testing.T, fw layout.Firmware) (*machine.Machine, machine.Found) {
	t.Helper()
	m := &machine.Machine{Firmware: fw, Site: site.Stock(), Serial: "S1"}
	m.Identity.Variant = platform.Variant{DevCodeName: "ONE", NumDataDisks: 1, SwRaidlevel: -1, RecoveryMedia: platform.RecoveryMedia{Layout: platform.OnMain},
		DataPartition: &platform.DataPartition{Label: "DATA", Mount: "/data", Size: layout.GiB}}
	d := block.Disk{Name: "vda", Path: "/dev/vda", Size: 8 * layout.GiB, SectorSize: 512}
	table, err := m.LayMain(d, 2*layout.GiB, machine.NewIDs())
	if err != nil {
		t.Fatal(err)
	}
	system := *table.Find(layout.Primary)
	system.Role = layout.Other
	return m, machine.Found{Disk: d, Table: bare(table), Partition: system, Path: block.PartitionPath(d.Path, system.Number)}
}

// bare is a table as it is read from a disk.
func bare(t layout.Table) layout.Table {
	t.Partitions = slices.Clone(t.Partitions)
	for i := range t.Partitions {
		p := &t.Partitions[i]
		p.Role, p.FSUUID, p.FSLabel = layout.Other, "", ""
	}
	return t
}

// TestOneDisk: the place of the recovery volume on the only disk is taken from the table, if that is in each detail one that provisioning
// makes.
func TestOneDisk(t *testing.T) {
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		m, main := oneDisk(t, fw)
		got, err := OneDisk(m, main)
		if err != nil {
			t.Fatalf("%s: %v", fw, err)
		}
		if !got.On(main.Table) || got.Find(layout.Recovery).Size != 2*layout.GiB || got.Find(layout.Recovery).FSUUID == "" ||
			got.Find(layout.Primary).Number != main.Partition.Number || got.Find(layout.Primary).FSUUID != main.Partition.FSUUID || got.Find(layout.Data) == nil {
			t.Errorf("%s: %+v", fw, got)
		}
		// A unit keeps the names that it was provisioned with. In an MBR there are none.
		if m, main = oneDisk(t, fw); fw == layout.UEFI {
			for i := range main.Table.Partitions {
				main.Table.Partitions[i].Name = strings.NewReplacer("RECOVERY", "ACMEREC", "PRIMARY", "ACMEROOT").Replace(main.Table.Partitions[i].Name)
			}
			got, err := OneDisk(m, main)
			if err != nil {
				t.Fatalf("other names: %v", err)
			}
			if r, p := got.Find(layout.Recovery), got.Find(layout.Primary); r.Name != "ACMEREC" || r.FSLabel != "ACMEREC" || p.Name != "ACMEROOT" {
				t.Errorf("other names: %+v, %+v", r, p)
			}
		}
		for name, change := range map[string]func(*platform.Variant, *machine.Found){
			"another firmware": func(*platform.Variant, *machine.Found) {
				m.Firmware = map[bool]layout.Firmware{true: layout.BIOS, false: layout.UEFI}[fw == layout.UEFI]
			},
			"one partition more": func(_ *platform.Variant, f *machine.Found) {
				f.Table.Partitions = append(f.Table.Partitions, layout.Partition{Number: 9, Size: 1})
			},
			"one less": func(_ *platform.Variant, f *machine.Found) {
				f.Table.Partitions = f.Table.Partitions[:len(f.Table.Partitions)-1]
			},
			"another place":        func(_ *platform.Variant, f *machine.Found) { f.Table.Partitions[1].Start += layout.MiB },
			"another type":         func(_ *platform.Variant, f *machine.Found) { f.Table.Partitions[0].Type = "82" },
			"another name":         func(_ *platform.Variant, f *machine.Found) { f.Table.Partitions[0].Name = "WINDOWS" },
			"a larger disk":        func(_ *platform.Variant, f *machine.Found) { f.Disk.Size *= 2 },
			"no data by the table": func(v *platform.Variant, _ *machine.Found) { v.DataPartition = nil },
			"system elsewhere":     func(_ *platform.Variant, f *machine.Found) { f.Partition.Number-- },
		} {
			m, main = oneDisk(t, fw)
			change(&m.Identity.Variant, &main)
			if got, err := OneDisk(m, main); err == nil {
				t.Errorf("%s, %s: %+v", fw, name, got)
			}
		}
	}
}

// mirror is a plan for a unit with an array on BIOS disks of this size, of whose members those in use and those out of date are there.
func mirror(t *testing.T, use, stale []int) *rebuild {
	t.Helper()
	const size = 8 * layout.GiB
	m := &machine.Machine{Firmware: layout.BIOS, Site: site.Stock(), Serial: "S1"}
	m.Identity.Variant = platform.Variant{DevCodeName: "RAID", NumDataDisks: 2, SwRaidlevel: 1, Disksize: size}
	r := &rebuild{Machine: m, array: raid.Array{UUID: machine.NewIDs().UUID(), Level: 1, Disks: 2}, members: map[string]machine.Found{}}
	r.Device = block.Disk{Name: "vdr", Path: "/dev/vdr", Size: 4 * layout.GiB, SectorSize: 512}
	r.Main = machine.Found{Path: machine.ArrayPath, Partition: layout.Partition{FSUUID: machine.NewIDs().UUID(), FSLabel: "PRIMARY"}}
	add := func(to *[]raid.Part, places []int) {
		for _, place := range places {
			d := block.Disk{Name: "vd" + string(rune('a'+place)), Size: size, SectorSize: 512, Bus: block.VirtIO, Serial: string(rune('A' + place))}
			d.Path = "/dev/" + d.Name
			table, err := m.LayMain(d, 0, machine.NewIDs())
			if err != nil {
				t.Fatal(err)
			}
			table = bare(table)
			p := raid.Part{Member: raid.Member{Place: place}, Path: d.Path + "1", Disk: d.Name}
			r.members[p.Path] = machine.Found{Disk: d, Table: table, Partition: table.Partitions[0], Path: p.Path}
			*to = append(*to, p)
		}
	}
	add(&r.array.Parts, use)
	add(&r.array.Stale, stale)
	return r
}

// TestRecordArray: the record has each disk at its place, with the table that it has. A disk that is missing gets a place and a table of
// its own, so that a restore can make the array anew.
func TestRecordArray(t *testing.T) {
	for name, c := range map[string]struct {
		use, stale []int
		want       string // the serial numbers
	}{
		"complete":              {[]int{0, 1}, nil, "A,B"},
		"the first is missing":  {[]int{1}, nil, ",B"},
		"the second is missing": {[]int{0}, nil, "A,"},
		"one is out of date":    {[]int{1}, []int{0}, "A,B"},
		"a spare":               {[]int{0}, []int{raid.Spare}, "A,"},
	} {
		r := mirror(t, c.use, c.stale)
		if err := r.recordArray(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var serials, ids []string
		for _, d := range r.unit.Main {
			serials = append(serials, d.Serial)
			ids = append(ids, d.Table.UUID)
			if p := d.Table.Find(layout.Member); p == nil || d.Size != 8*layout.GiB || d.SectorSize != 512 {
				t.Errorf("%s: %+v", name, d)
			}
		}
		if got := strings.Join(serials, ","); got != c.want || ids[0] == ids[1] {
			t.Errorf("%s: disks %s, tables %v", name, got, ids)
		}
		for _, f := range r.members {
			if i := slices.Index(serials, f.Disk.Serial); i >= 0 && !r.unit.Main[i].Table.On(f.Table) {
				t.Errorf("%s: the record has another table for %s", name, f.Disk.Name)
			}
		}
		a := r.unit.Array
		if a == nil || a.UUID != r.array.UUID || a.Level != 1 || a.FSUUID != r.Main.Partition.FSUUID || r.unit.System().FSUUID != a.FSUUID {
			t.Errorf("%s: array %+v", name, a)
		}
		if err := state.Open(t.TempDir()).WriteUnit(r.unit); err != nil { // it refuses what could not be read
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestArrayDisks: no disk of the array becomes the recovery device, nor one that may be meant to replace a missing one.
func TestArrayDisks(t *testing.T) {
	spare := block.Disk{Name: "vdx", Path: "/dev/vdx", Size: 8 * layout.GiB}
	small := block.Disk{Name: "vdy", Path: "/dev/vdy", Size: 4 * layout.GiB}
	for name, c := range map[string]struct {
		use  []int
		d    block.Disk
		want bool
	}{
		"a member":                             {[]int{0, 1}, block.Disk{Name: "vda", Size: 8 * layout.GiB}, true},
		"a disk like one, nothing missing":     {[]int{0, 1}, spare, false},
		"a disk like one, the other missing":   {[]int{0}, spare, true},
		"another size, the other missing":      {[]int{0}, small, false},
		"the place of the missing one is free": {[]int{0}, block.Disk{Name: "vdb", Size: 8 * layout.GiB}, true},
	} {
		if got := mirror(t, c.use, nil).isMainDisk(c.d); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestRecordData: the array of the data is the one that the main disks have members of beside the main system. Where nothing is left of it,
// or too little, its filesystem gets a new identifier; which of two is meant nobody knows.
func TestRecordData(t *testing.T) {
	const one, two = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	for name, c := range map[string]struct {
		arrays []string // of the members beside the main system, by disk
		other  string   // of a member on a disk that has no member of the main system
		want   string   // the identifier of the array; "": a new one
		fails  bool
	}{
		"nothing is left":        {[]string{"", ""}, "", "", false},
		"one of two is left":     {[]string{one, ""}, "", one, false},
		"on a disk of another's": {[]string{"", ""}, two, "", false},
		"two arrays":             {[]string{one, two}, "", "", true},
		"another's beside ours":  {[]string{"", one}, two, one, false},
	} {
		r := mirror(t, []int{0, 1}, nil)
		r.Log = slog.New(slog.DiscardHandler)
		r.array.Level = 0
		r.parts = slices.Clone(r.array.Parts)
		add := func(disk, id string) {
			if id != "" {
				m := raid.Member{UUID: id, Level: 0, Disks: 2, Active: 2}
				r.parts = append(r.parts, raid.Part{Member: m, Path: "/dev/" + disk + "2", Disk: disk})
			}
		}
		add("vda", c.arrays[0])
		add("vdb", c.arrays[1])
		add("vdx", c.other)
		if err := r.recordData(t.Context()); err != nil || r.unit.DataArray != nil {
			t.Fatalf("%s: a platform without data has %+v, %v", name, r.unit.DataArray, err)
		}
		r.Identity.Variant.DataPartition = &platform.DataPartition{Label: "DATA", Mount: "/data"}
		err := r.recordData(t.Context())
		d := r.unit.DataArray
		if c.fails {
			if err == nil || !strings.Contains(err.Error(), one) || !strings.Contains(err.Error(), two) || d != nil {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
			continue
		}
		if err != nil || d == nil || d.Level != 0 || d.FSLabel != "DATA" || len(d.FSUUID) != len(one) || d.FSUUID == d.UUID {
			t.Fatalf("%s: %+v, %v", name, d, err)
		}
		if c.want == "" && (d.UUID == one || d.UUID == two || len(d.UUID) != len(one)) || c.want != "" && d.UUID != c.want {
			t.Errorf("%s: the array is %s, want %q", name, d.UUID, c.want)
		}
	}
}
