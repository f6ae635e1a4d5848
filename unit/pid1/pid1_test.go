package pid1

import (
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// TestRoot: each way to name the main system.
func TestRoot(t *testing.T) {
	disk := block.Disk{Name: "nvme0n1", Bus: block.NVMe, Model: "SSD 980", Serial: "S1", WWN: "eui.00253", Ports: []string{"pci-0000:01:00.0-nvme-1"}}
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

// TestOtherContent: what is recognised as somebody's data is not repaired as if it were a bad ext4.
func TestOtherContent(t *testing.T) {
	for typ, want := range map[string]decide.MainState{"": decide.MainDamaged, "ext2": decide.MainDamaged, "jbd": decide.MainDamaged, "xfs": decide.MainForeign, "luks": decide.MainForeign, "md": decide.MainForeign, "swap": decide.MainForeign} {
		if got := otherContent(filesystem.Info{Type: typ}); got != want {
			t.Errorf("%q: got %s, want %s", typ, got, want)
		}
	}
}

// TestPatience: a request takes the recorded disk at once, and waits for it where another one stands in its place.
func TestPatience(t *testing.T) {
	u := &unit{m: &machine.Machine{}}
	long := u.m.Policy.RootWait()
	facts := func(m decide.MainState, recorded bool) decide.Facts {
		return decide.Facts{Recovery: decide.RecoveryFound, Main: m, Request: &state.Request{ID: "0123456789abcdef"}, Recorded: recorded}
	}
	for _, tc := range []struct {
		name string
		f    Found
		want time.Duration
	}{
		{"own blank disk", Found{Facts: facts(decide.MainBlank, true)}, 0},
		{"another blank disk", Found{Facts: facts(decide.MainBlank, false)}, long},
		{"own disk with data", Found{Facts: facts(decide.MainForeign, true)}, 0},
		{"own disk, half a table", Found{Facts: facts(decide.MainBegun, true)}, 0},
		{"another disk with data", Found{Facts: facts(decide.MainForeign, false)}, long},
		{"own partition, other data", Found{Facts: facts(decide.MainForeign, true), MainPart: &machine.Found{}}, 0},
		{"no disk", Found{Facts: facts(decide.MainAbsent, false)}, long},
		{"half-written partition", Found{Facts: facts(decide.MainDamaged, true)}, 0},
		{"damaged", Found{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainDamaged}}, 0},
		{"unreadable", Found{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainDamaged}, Unreadable: true}, long},
		{"complete", Found{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked}}, 0},
		{"complete without a recovery volume", Found{Facts: decide.Facts{Recovery: decide.RecoveryMissing, Main: decide.MainMarked}}, recoveryPatience},
	} {
		if got := u.patience(&tc.f); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestHopes: a unit waits as long as there is something to wait for, and does not look again and again at once.
func TestHopes(t *testing.T) {
	u := &unit{m: &machine.Machine{Sys: fstest.MapFS{}}}
	long := u.m.Policy.RootWait()
	waiting := Found{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainAbsent}, awaits: true}
	off := waiting
	off.Choice.Kind = decide.ChoosePowerOff
	slow := off
	slow.awaits, slow.Main = false, decide.MainAbsent
	whole := Found{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked}}
	for _, tc := range []struct {
		name   string
		f      Found
		waited time.Duration
		wait   time.Duration
		more   bool
	}{
		{"a member is missing", waiting, time.Second, memberPatience - time.Second, true},
		{"the time for members is over since the last look", waiting, memberPatience + time.Millisecond, 0, true},
		{"a member is missing, and a person chose", off, time.Second, 0, false},
		{"the main disk is missing, and a person chose", slow, time.Second, 0, false},
		{"the main disk is missing", Found{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainAbsent}}, time.Second, long - time.Second, true},
		{"nothing is missing", whole, time.Second, 0, false},
	} {
		if wait, more := u.hopes(&tc.f, tc.waited); wait != tc.wait || more != tc.more {
			t.Errorf("%s: got %s, %t, want %s, %t", tc.name, wait, more, tc.wait, tc.more)
		}
	}
}

// TestRecorded: which disk is the one of the unit's record.
func TestRecorded(t *testing.T) {
	own := block.Disk{Bus: "sata", Model: "M", Serial: "S1", Size: 1 << 30}
	other, plain := own, own
	other.Serial, plain.Serial = "S2", ""
	for _, tc := range []struct {
		name    string
		d, r    block.Disk
		nothing bool
		want    bool
	}{
		{"own", own, own, false, true},
		{"another", other, own, true, false},
		{"without a serial number, with data", plain, plain, false, false},
		{"without a serial number, without data", plain, plain, true, true},
	} {
		if got := recorded(tc.d, machine.DiskRecord(tc.r, layout.Table{}), tc.nothing); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

// TestPause: a unit that holds for the same reason waits longer each time, and never for ever.
func TestPause(t *testing.T) {
	for _, f := range []*fault.Fault{fault.MainMissing, fault.NoNetwork} {
		last := time.Duration(0)
		for n := range 40 {
			p := pause(f, n)
			if p < last || p > time.Hour || n == 1 && p <= last {
				t.Fatalf("%s: pause %d is %s after %s", f.Code, n, p, last)
			}
			last = p
		}
	}
}

// TestTakesOver: which systems keep a watchdog that runs.
func TestTakesOver(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, tc := range map[string]struct {
		files fstest.MapFS
		want  bool
	}{
		"nothing":       {fstest.MapFS{}, false},
		"commented out": {fstest.MapFS{"etc/systemd/system.conf": file("[Manager]\n#RuntimeWatchdogSec=30\n")}, false},
		"set":           {fstest.MapFS{"etc/systemd/system.conf": file("[Manager]\nRuntimeWatchdogSec = 30\n")}, true},
		"set and off":   {fstest.MapFS{"etc/systemd/system.conf": file("RuntimeWatchdogSec=30\n"), "etc/systemd/system.conf.d/z.conf": file("RuntimeWatchdogSec=off\n")}, false},
		"hidden":        {fstest.MapFS{"usr/lib/systemd/system.conf.d/w.conf": file("RuntimeWatchdogSec=30\n"), "etc/systemd/system.conf.d/w.conf": file("")}, false},
		"in usr/lib":    {fstest.MapFS{"usr/lib/systemd/system.conf.d/w.conf": file("RuntimeWatchdogSec=1min\n")}, true},
		"boot-ok":       {fstest.MapFS{bootOK: {Mode: fs.ModeSymlink, Data: []byte("/usr/lib/systemd/system/gprov-boot-ok.service")}}, true},
	} {
		if got := takesOver(tc.files); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestRecords: every disk needs a record of its own.
func TestRecords(t *testing.T) {
	a, b := block.Disk{Bus: block.SATA, Serial: "A", Size: 1}, block.Disk{Bus: block.SATA, Serial: "B", Size: 1}
	ra, rb := machine.DiskRecord(a, layout.Table{UUID: "a"}), machine.DiskRecord(b, layout.Table{UUID: "b"})
	got := records([]block.Disk{b, a}, []state.Disk{ra, rb}, false)
	if len(got) != 2 || got[0].Table.UUID != "b" || got[1].Table.UUID != "a" {
		t.Errorf("got %+v, want the records in the order of the disks", got)
	}
	for name, tc := range map[string]struct {
		disks []block.Disk
		main  []state.Disk
	}{
		"no disk": {nil, []state.Disk{ra}}, "one too few": {[]block.Disk{a}, []state.Disk{ra, rb}}, "one too many": {[]block.Disk{a, b}, []state.Disk{ra}},
		"the same one twice": {[]block.Disk{a, a}, []state.Disk{ra, rb}},
	} {
		if got := records(tc.disks, tc.main, false); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestPlausible: which clocks an artifact believes.
func TestPlausible(t *testing.T) {
	build := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for clock, want := range map[time.Time]bool{
		time.Unix(0, 0): false, build.Add(-time.Second): false, build: true, build.AddDate(1, 0, 0): true, build.AddDate(10, 0, 0): true,
		build.AddDate(10, 0, 1): false, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC): false,
	} {
		if got := plausible(clock, build); got != want {
			t.Errorf("%s: %t", clock, got)
		}
	}
}
