package survey

import (
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/usb"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// TestRoot: all ways to name the main system.
func TestRoot(t *testing.T) {
	disk := block.Disk{Name: "nvme0n1", Bus: block.NVMe, Model: "SSD 980", Serial: "S1", WWN: "eui.00253",
		Ports: []string{"pci-0000:01:00.0-nvme-1"}}
	p := machine.Found{Disk: disk, Path: "/dev/nvme0n1p2", Partition: layout.Partition{Number: 2, UUID: "abcd-02", Name: "PRIMARY"}}
	probe := func(path string) (filesystem.Info, error) {
		return filesystem.Info{Type: "ext4", Class: filesystem.FS, UUID: "99-88", Label: "PRIMARY"}, nil
	}
	for arg, want := range map[string]bool{
		"PARTUUID=ABCD-02": true, "partuuid=abcd-03": false, "PARTLABEL=PRIMARY": true, "PARTLABEL=primary": false,
		"UUID=99-88": true, "UUID=99": false, "LABEL=PRIMARY": true, "LABEL=RECOVERY": false, "LABEL=": false,
		"ID=nvme-SSD_980_S1-part2": true, "ID=nvme-eui.00253-part2": true, "ID=nvme-SSD_980_S1-part1": false, "ID=nvme-SSD_980_S1": false,
		"PATH=pci-0000:01:00.0-nvme-1-part2": true, "PATH=pci-0000:02:00.0-nvme-1-part2": false, "/dev/nvme0n1p2": false, "DEV=x": false,
	} {
		if got := namesPart(decide.ParseRoot(arg), p, probe); got != want {
			t.Errorf("real_root=%s names the partition: %t, want %t", arg, got, want)
		}
	}
	if l := decide.ParseArgs("real_root=LABEL=PRIMARY", true); l.Root != (decide.Root{}) {
		t.Errorf("a locked artifact takes %+v", l.Root)
	}
}

// TestOtherContent: what is recognised as somebody's data is not repaired like a bad ext4.
func TestOtherContent(t *testing.T) {
	for typ, want := range map[string]decide.MainState{"": decide.MainDamaged, "ext2": decide.MainDamaged, "jbd": decide.MainDamaged,
		"xfs": decide.MainForeign, "luks": decide.MainForeign, "md": decide.MainForeign, "swap": decide.MainForeign} {
		if got := otherContent(filesystem.Info{Type: typ}); got != want {
			t.Errorf("%q: got %s, want %s", typ, got, want)
		}
	}
}

// TestPatience: a request uses the recorded disk at once. If another disk stands in its place, it waits.
func TestPatience(t *testing.T) {
	long := policy.Policy{}.RootWait()
	facts := func(m decide.MainState, recorded bool) decide.Facts {
		return decide.Facts{Recovery: decide.RecoveryFound, Main: m, Request: &state.Request{ID: "0123456789abcdef"}, Recorded: recorded}
	}
	for _, tc := range []struct {
		name string
		f    Findings
		want time.Duration
	}{
		{"own blank disk", Findings{Facts: facts(decide.MainBlank, true)}, 0},
		{"another blank disk", Findings{Facts: facts(decide.MainBlank, false)}, long},
		{"own disk with data", Findings{Facts: facts(decide.MainForeign, true)}, 0},
		{"own disk, half a table", Findings{Facts: facts(decide.MainBegun, true)}, 0},
		{"another disk with data", Findings{Facts: facts(decide.MainForeign, false)}, long},
		{"own partition, other data", Findings{Facts: facts(decide.MainForeign, true), MainFindings: MainFindings{MainPart: &machine.Found{}}},
			0},
		{"no disk", Findings{Facts: facts(decide.MainAbsent, false)}, long},
		{"half-written partition", Findings{Facts: facts(decide.MainDamaged, true)}, 0},
		{"damaged", Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainDamaged}}, 0},
		{"unreadable", Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainDamaged},
			MainFindings: MainFindings{Unreadable: true}}, long},
		{"complete", Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked}}, 0},
		{"complete without a recovery volume", Findings{Facts: decide.Facts{Recovery: decide.RecoveryMissing, Main: decide.MainMarked}},
			recoveryPatience},
	} {
		if got := patience(&tc.f, long); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestShouldLookAgain: a unit waits for as long as there is something to wait for, and does not survey again in a busy loop.
func TestShouldLookAgain(t *testing.T) {
	s, _ := virtual(t)
	long := policy.Policy{}.RootWait()
	waiting := Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainAbsent}, MainFindings: MainFindings{Awaits: true}}
	off := waiting
	off.Choice.Kind = decide.ChoosePowerOff
	slow := off
	slow.Awaits, slow.Main = false, decide.MainAbsent
	whole := Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked}}
	for _, tc := range []struct {
		name   string
		f      Findings
		waited time.Duration
		wait   time.Duration
		more   bool
	}{
		{"a member is missing", waiting, time.Second, memberPatience - time.Second, true},
		{"the time for members is over since the last look", waiting, memberPatience + time.Millisecond, 0, true},
		{"a member is missing, and a person chose", off, time.Second, 0, false},
		{"the main disk is missing, and a person chose", slow, time.Second, 0, false},
		{"the main disk is missing", Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainAbsent}}, time.Second,
			long - time.Second, true},
		{"nothing is missing", whole, time.Second, 0, false},
	} {
		if wait, more := new(Wait).ShouldLookAgain(s, &tc.f, usb.State{}, tc.waited); wait != tc.wait || more != tc.more {
			t.Errorf("%s: got %s, %t, want %s, %t", tc.name, wait, more, tc.wait, tc.more)
		}
	}
}

// TestRecorded: which disk matches the unit's record.
func TestRecorded(t *testing.T) {
	own := block.Disk{Bus: "sata", Model: "M", Serial: "S1", Size: 1 << 30}
	other, plain, moved, bigger, renamed, wwn := own, own, own, own, own, own
	other.Serial, plain.Serial = "S2", ""
	moved.Bus, bigger.Size, renamed.Model, wwn.WWN = "usb", 2<<30, "N", "eui.00253"
	for _, tc := range []struct {
		name    string
		d, r    block.Disk
		nothing bool
		want    bool
	}{
		{"own", own, own, false, true},
		{"another", other, own, true, false},
		{"on another bus", moved, own, true, false},
		{"of another size", bigger, own, true, false},
		{"another model", renamed, own, true, false},
		{"with another name of the world", wwn, own, true, false},
		{"without a serial number, with data", plain, plain, false, false},
		{"without a serial number, without data", plain, plain, true, true},
	} {
		if got := matchesRecord(tc.d, machine.DiskRecord(tc.r, layout.Table{}), tc.nothing); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

// TestRecords: every disk needs a record of its own.
func TestRecords(t *testing.T) {
	a, b := block.Disk{Bus: block.SATA, Serial: "A", Size: 1}, block.Disk{Bus: block.SATA, Serial: "B", Size: 1}
	ra, rb := machine.DiskRecord(a, layout.Table{UUID: "a"}), machine.DiskRecord(b, layout.Table{UUID: "b"})
	got := recordsOf([]block.Disk{b, a}, []state.Disk{ra, rb}, false)
	if len(got) != 2 || got[0].Table.UUID != "b" || got[1].Table.UUID != "a" {
		t.Errorf("got %+v, want the records in the order of the disks", got)
	}
	for name, tc := range map[string]struct {
		disks []block.Disk
		main  []state.Disk
	}{
		"no disk": {nil, []state.Disk{ra}}, "one too few": {[]block.Disk{a}, []state.Disk{ra, rb}}, "one too many": {[]block.Disk{a, b},
			[]state.Disk{ra}},
		"the same one twice": {[]block.Disk{a, a}, []state.Disk{ra, rb}},
	} {
		if got := recordsOf(tc.disks, tc.main, false); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
