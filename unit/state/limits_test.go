package state

import (
	"fmt"
	"strings"
	"testing"

	"gprovision/model/erasure"
	"gprovision/model/layout"
)

// TestLimits: each record is taken up to its limits, and refused beyond them.
func TestLimits(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	const id, uuid, other = "0123456789abcdef", "aaaaaaaa-bbbb-4ccc-8ddd-000000000001", "aaaaaaaa-bbbb-4ccc-8ddd-000000000002"
	unit := func(change func(u *Unit)) validator {
		u := sampleUnit()
		change(&u)
		return u
	}
	disk := func(change func(d *Disk)) validator {
		d := Disk{Size: 1 << 30, Table: sampleTable()}
		change(&d)
		return d
	}
	part := func(change func(p *layout.Partition)) validator {
		d := Disk{Table: sampleTable()}
		change(&d.Table.Partitions[1])
		return d
	}
	mbr := func(change func(t *layout.Table)) validator {
		d := sampleUnit().Main[0]
		change(&d.Table)
		return d
	}
	arrays := func(main, data Array) validator {
		return unit(func(u *Unit) {
			u.Main = []Disk{u.Main[0], u.Main[0]}
			u.Array, u.DataArray = &main, &data
		})
	}
	array := func(level, disks int) validator {
		return unit(func(u *Unit) {
			u.Main = make([]Disk, disks)
			u.Array = &Array{Level: level, UUID: uuid, FSUUID: other}
		})
	}
	request := func(change func(r *Request)) validator {
		r := Request{ID: id, Kind: KindRestore}
		change(&r)
		return r
	}
	for name, c := range map[string]struct{ taken, refused []validator }{
		"texts of a unit": {
			[]validator{unit(func(u *Unit) {
				u.Serial, u.Platform, u.ManifestSerial, u.Server, u.BootArgs = x(256), x(256), x(256), x(1024), x(1024)
			}),
				unit(func(u *Unit) { u.Platform = "~ \u00a0ü" }),
				unit(func(u *Unit) { u.Firmware, u.Original, u.ImagePrefix = layout.BIOS, "", x(100) }),
				unit(func(u *Unit) { u.Original = x(201) + ".upd" })},
			[]validator{unit(func(u *Unit) { u.Serial = x(257) }), unit(func(u *Unit) { u.Platform = x(257) }),
				unit(func(u *Unit) { u.ManifestSerial = x(257) }), unit(func(u *Unit) { u.Server = x(1025) }),
				unit(func(u *Unit) { u.BootArgs = x(1025) }), unit(func(u *Unit) { u.ImagePrefix = x(101) }),
				unit(func(u *Unit) { u.Original = x(202) + ".upd" }), unit(func(u *Unit) { u.Platform = "\x1f" }),
				unit(func(u *Unit) { u.Platform = "\x7f" }), unit(func(u *Unit) { u.Platform = "\u0080" }),
				unit(func(u *Unit) { u.Platform = "\u009f" }), unit(func(u *Unit) { u.Platform = "\xff" }),
				unit(func(u *Unit) { u.Platform = "\ufffd" })}},
		"disks of a unit": {
			[]validator{unit(func(u *Unit) { u.Main = make([]Disk, 64) }), unit(func(u *Unit) { u.Main[0].Table = u.Recovery.Table })},
			[]validator{unit(func(u *Unit) { u.Main = make([]Disk, 65) }), unit(func(u *Unit) { u.Recovery.Bus = "\n" }),
				unit(func(u *Unit) { u.Main[0].Bus = "\n" }), unit(func(u *Unit) {
					u.Main[0].Table = sampleTable()
					u.Main[0].Table.Partitions[1].Size++
				})}},
		"arrays": {
			[]validator{array(0, 2), array(1, 2), array(5, 3), array(6, 4), array(10, 2),
				arrays(Array{1, uuid, uuid, x(144)}, Array{1, other, other, ""})},
			[]validator{array(0, 1), array(1, 1), array(5, 2), array(6, 3), array(10, 1), array(4, 8),
				arrays(Array{1, uuid, uuid, ""}, Array{1, uuid, other, ""}), arrays(Array{1, uuid, uuid, ""}, Array{1, other, uuid, ""}),
				arrays(Array{1, uuid, uuid, ""}, Array{7, other, other, ""}), arrays(Array{1, uuid, uuid, x(145)}, Array{1, other, other, ""}),
				arrays(Array{1, "", uuid, ""}, Array{1, other, other, ""}), arrays(Array{1, uuid, "", ""}, Array{1, other, other, ""}),
				unit(func(u *Unit) { u.Main = make([]Disk, 2); u.DataArray = &Array{1, uuid, other, ""} })}},
		"a disk": {
			[]validator{disk(func(d *Disk) { d.Size, d.SectorSize = 0, 0 }), disk(func(d *Disk) { d.SectorSize = 1 << 20 }),
				disk(func(d *Disk) { d.Table = layout.Table{} }),
				disk(func(d *Disk) { d.Bus, d.Model, d.Serial, d.WWN = x(256), x(256), x(256), x(256) })},
			[]validator{disk(func(d *Disk) { d.Size = -1 }), disk(func(d *Disk) { d.SectorSize = -1 }),
				disk(func(d *Disk) { d.SectorSize = 1<<20 + 1 }), disk(func(d *Disk) { d.Table = layout.Table{UUID: uuid} }),
				disk(func(d *Disk) { d.Table = layout.Table{Partitions: make([]layout.Partition, 1)} }),
				disk(func(d *Disk) { d.Model = x(257) }), disk(func(d *Disk) { d.WWN = x(257) }), disk(func(d *Disk) { d.Table.UUID = "x" })}},
		"a partition": {
			[]validator{part(func(p *layout.Partition) { p.Number, p.Start, p.Size = 128, 0, 1 }),
				part(func(p *layout.Partition) { p.Start, p.Size = 1<<62-1, 1 }), part(func(p *layout.Partition) { p.FSUUID = "" }),
				part(func(p *layout.Partition) { p.FSUUID = "12AB-34CD" }),
				part(func(p *layout.Partition) { p.Role, p.Name, p.FSLabel = layout.Role(x(144)), x(144), x(144) })},
			[]validator{part(func(p *layout.Partition) { p.Number = 0 }), part(func(p *layout.Partition) { p.Number = 129 }),
				part(func(p *layout.Partition) { p.Number = 1 }), part(func(p *layout.Partition) { p.Start = -1 }),
				part(func(p *layout.Partition) { p.Size = 0 }), part(func(p *layout.Partition) { p.Start, p.Size = 1<<62, 1 }),
				part(func(p *layout.Partition) { p.UUID = "x" }), part(func(p *layout.Partition) { p.Type = "x" }),
				part(func(p *layout.Partition) { p.FSUUID = "x" }), part(func(p *layout.Partition) { p.Role = layout.Role(x(145)) }),
				part(func(p *layout.Partition) { p.Name = x(145) }), part(func(p *layout.Partition) { p.FSLabel = x(145) })}},
		"an MBR": {
			[]validator{mbr(func(t *layout.Table) {})},
			[]validator{mbr(func(t *layout.Table) { t.UUID = uuid }), mbr(func(t *layout.Table) { t.Partitions[0].UUID = uuid }),
				mbr(func(t *layout.Table) { t.Partitions[0].Type = layout.TypeLinux })}},
		"a request": {
			[]validator{request(func(r *Request) { r.ID = id[:8] }), request(func(r *Request) { r.ID = strings.Repeat(id, 4) }),
				request(func(r *Request) { r.Image = Latest }), request(func(r *Request) { r.Image = Original }),
				request(func(r *Request) { r.Image = "a.upd" }), request(func(r *Request) { r.By = x(256) }),
				request(func(r *Request) { r.Kind = KindRestoreSettings }), request(func(r *Request) { r.Kind = KindRestoreEverything }),
				request(func(r *Request) { r.Kind, r.Whole = KindErase, true })},
			[]validator{request(func(r *Request) { r.ID = id[:7] }), request(func(r *Request) { r.ID = strings.Repeat(id, 4) + "0" }),
				request(func(r *Request) { r.ID = "0123456X" }), request(func(r *Request) { r.Kind = "format" }),
				request(func(r *Request) { r.Kind, r.Image = KindErase, Latest }), request(func(r *Request) { r.Whole = true }),
				request(func(r *Request) { r.Image = "newest" }), request(func(r *Request) { r.By = x(257) })}},
		"counts": {
			[]validator{Counts{}, Counts{BootAttempts: maxCount, Repairs: maxCount, Mends: maxCount}},
			[]validator{Counts{Repairs: maxCount + 1}, Counts{Mends: -1}}},
		"a mark": {
			[]validator{Mark{Release: x(256), Serial: x(256), Request: id}},
			[]validator{Mark{Release: x(257)}, Mark{Serial: x(257)}, Mark{Request: id[:7]}}},
		"a boot": {
			[]validator{Boot{ID: x(128), ServerCA: x(maxUnit / 2), Attempts: maxCount, Defects: make([]string, maxDefects), Job: x(64),
				Reason: x(512), Watchdog: Watchdog{Device: x(64), Identity: x(64)}}},
			[]validator{Boot{ID: x(129)}, Boot{ID: "a b"}, Boot{ServerCA: x(maxUnit/2 + 1)}, Boot{Attempts: maxCount + 1}, Boot{Attempts: -1},
				Boot{Milliseconds: -1}, Boot{Watchdog: Watchdog{Seconds: -1}}, Boot{Job: x(65)}, Boot{Reason: x(513)},
				Boot{Watchdog: Watchdog{Device: x(65)}}, Boot{Watchdog: Watchdog{Identity: x(65)}}}},
		"restore data": {
			[]validator{RestoreData{BootArgs: x(1024), XLog: x(1024)}},
			[]validator{RestoreData{Version: -1}, RestoreData{BootArgs: x(1025)}, RestoreData{XLog: x(1025)}}},
		"an erase": {
			[]validator{Erase{ID: id, By: x(256)}, Erase{ID: id, Outcome: erasure.Unknown, Resolved: true, ResolvedBy: x(64)}},
			[]validator{Erase{}, Erase{ID: id, Outcome: "maybe"}, Erase{ID: id, Resolved: true}, Erase{ID: id, By: x(257)},
				Erase{ID: id, Outcome: erasure.Failed, ResolvedBy: "k"}, Erase{ID: id, Outcome: erasure.Failed, Resolved: true, ResolvedBy: x(65)}}},
		"others": {
			[]validator{hashFile{1, "$1$" + x(247)}, hashFile{1, "$12345678$" + x(8)}, keyFile{Seed: make([]byte, 32)}, Tries{Failed: maxCount},
				Medium{ID: id, Image: "a.upd"}, Boards{Serials: strings.Fields(strings.Repeat("s ", maxBoards))},
				Manifests{Newest: map[string]uint64{x(128): 1}}},
			[]validator{hashFile{1, "$1$" + x(248)}, hashFile{1, "$123456789$" + x(8)}, hashFile{1, "$1$" + x(7)}, keyFile{Seed: make([]byte, 31)},
				keyFile{Seed: make([]byte, 33)}, Tries{Failed: maxCount + 1}, Tries{Failed: -1}, Medium{ID: "x", Image: "a.upd"},
				Medium{ID: id, Image: "a"}, Boards{Serials: strings.Fields(strings.Repeat("s ", maxBoards+1))}, Boards{Serials: []string{""}},
				Boards{Serials: []string{x(257)}}, Manifests{Newest: map[string]uint64{x(129): 1}}, Manifests{Newest: map[string]uint64{"": 1}}}},
	} {
		for i, v := range c.taken {
			if err := v.validate(); err != nil {
				t.Errorf("%s, %d is refused: %v", name, i, err)
			}
		}
		for i, v := range c.refused {
			if v.validate() == nil {
				t.Errorf("%s, %d is taken: %.200s", name, i, fmt.Sprintf("%+v", v))
			}
		}
	}
}

// TestNothingIsWritten: what a reader would refuse is not written, and the old file stays.
func TestNothingIsWritten(t *testing.T) {
	v := newVolume(t)
	for name, write := range map[string]func(bad bool) error{
		UnitFile: func(bad bool) error {
			u := sampleUnit()
			if bad {
				u.Serial = ""
			}
			return v.WriteUnit(u)
		},
		CountsFile: func(bad bool) error {
			if bad {
				return v.WriteCounts(Counts{Mends: -1})
			}
			return v.WriteCounts(Counts{})
		},
		KeyFile: func(bad bool) error {
			if bad {
				return v.WriteKeyOf(NewKey()[:63], "S")
			}
			return v.WriteKeyOf(NewKey(), "S")
		},
		RestoreDataFile: func(bad bool) error {
			if bad {
				return v.WriteRestoreData(RestoreData{BootArgs: "init=/bin/sh"})
			}
			return v.WriteRestoreData(RestoreData{BootArgs: "quiet"})
		},
		NetworkFile: func(bad bool) error {
			if bad {
				return v.WriteNetwork(make([]byte, MaxNetwork+1))
			}
			return v.WriteNetwork(make([]byte, MaxNetwork))
		},
	} {
		if err := write(false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		before, err := v.read(name, MaxNetwork)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if write(true) == nil {
			t.Errorf("%s: what is wrong is written", name)
		}
		if after, err := v.read(name, MaxNetwork); err != nil || string(after) != string(before) {
			t.Errorf("%s is another: %v", name, err)
		}
	}
	if _, serial, err := v.ReadKeyOf(); err != nil || serial != "S" {
		t.Errorf("the key is of %q, %v", serial, err)
	}
}
