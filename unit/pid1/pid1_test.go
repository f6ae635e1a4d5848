package pid1

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/unit/machine"
	"gprovision/unit/provision"
	"gprovision/unit/state"
)

func TestParseArgs(t *testing.T) {
	a := ParseArgs(`provision.pxe console=ttyS0 mfgurl=http://10.0.0.1/m.json enrol=abc BOOTIF=01-52-54-00-AA-BB-CC "real_root=PARTUUID=ABCD-01" x="a b"`, false)
	if a.ManifestURL != "http://10.0.0.1/m.json" || a.Token.Reveal() != "abc" || a.BootMAC != "52:54:00:aa:bb:cc" || a.Root != (Root{ByPARTUUID, "ABCD-01"}) || a.Erase {
		t.Errorf("got %+v", a)
	}
	if l := ParseArgs("mfgurl=http://x enrol=t DATA_ERASE=1 KERNEL_OVERRIDE=recovery FACTORY_RESTORE=1 PREFERRED_UPDATE=oldest PROTO_IDENT=x real_root=PARTUUID=a", true); l != (Args{Root: Root{ByPARTUUID, "a"}}) {
		t.Errorf("a locked artifact takes %+v from the command line", l)
	}
	if s := WithoutSecrets("mfgurl=http://me:topsecret@host/m.json?a=b"); s != "mfgurl=http://host/m.json?a=b" {
		t.Errorf("got %q", s)
	}
	if s := WithoutSecrets("a enrol=topsecret b"); strings.Contains(s, "topsecret") || !strings.Contains(s, "a enrol=[secret] b") {
		t.Errorf("got %q", s)
	}
}

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
		if got := parseRoot(arg).names(p, probe); got != want {
			t.Errorf("real_root=%s names the partition: %t, want %t", arg, got, want)
		}
	}
	if l := ParseArgs("real_root=LABEL=PRIMARY", true); l.Root != (Root{}) {
		t.Errorf("a locked artifact takes %+v", l.Root)
	}
}

// TestDecide is the table of spec 4 once more, as cases.
func TestDecide(t *testing.T) {
	req := &state.Request{ID: "0123456789abcdef", Kind: state.KindRestore}
	normal := policy.Policy{}
	mfg := policy.Policy{Provision: true}
	damage := policy.Policy{RestoreOnDamage: true}
	tries := policy.Policy{FailedBoots: 3}
	own := &state.Request{ID: "fedcba9876543210", Kind: state.KindRestore, Auto: true}
	const url = "http://server/manufData.json"
	for _, tc := range []struct {
		name  string
		f     Facts
		p     policy.Policy
		job   Job
		fault *fault.Fault
	}{
		{"erase asked", Facts{EraseAsked: true, Main: MainMarked, Recovery: RecoveryFound}, normal, Hold, fault.Policy},
		{"provision", Facts{ManifestURL: url, Recovery: RecoveryMissing, Main: MainBlank}, mfg, Provision, nil},
		{"provision again", Facts{ManifestURL: url, Recovery: RecoveryFound, Main: MainMarked}, mfg, Provision, nil},
		{"mfgurl without the policy", Facts{ManifestURL: url, Recovery: RecoveryFound, Main: MainMarked}, normal, Boot, nil},
		{"provisioning artifact without mfgurl", Facts{Recovery: RecoveryMissing, Main: MainBlank}, mfg, Hold, fault.NoManifestURL},
		{"two recovery volumes", Facts{Recovery: RecoveryAmbiguous, Main: MainMarked}, normal, Hold, fault.RecoveryAmbiguous},
		{"two main disks", Facts{Recovery: RecoveryFound, Main: MainAmbiguous}, normal, Hold, fault.MainAmbiguous},
		{"two main disks and a request", Facts{Recovery: RecoveryFound, Main: MainAmbiguous, Request: req}, normal, Hold, fault.MainAmbiguous},
		{"request, blank disk", Facts{Recovery: RecoveryFound, Main: MainBlank, Request: req}, normal, Restore, nil},
		{"request, complete system", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: req}, normal, Restore, nil},
		{"request, already fulfilled", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: req, Fulfilled: req.ID}, normal, Boot, nil},
		{"request, half-written disk", Facts{Recovery: RecoveryFound, Main: MainDamaged, Request: req}, normal, Restore, nil},
		{"request, data on the recorded disk", Facts{Recovery: RecoveryFound, Main: MainForeign, Request: req, Recorded: true}, normal, Restore, nil},
		{"request, another disk with data", Facts{Recovery: RecoveryFound, Main: MainForeign, Request: req}, normal, Hold, fault.MainForeign},
		{"own request, data on the recorded disk", Facts{Recovery: RecoveryFound, Main: MainForeign, Request: own, Recorded: true}, normal, Hold, fault.MainForeign},
		{"own request, half-written disk", Facts{Recovery: RecoveryFound, Main: MainBegun, Request: own, Recorded: true}, normal, Restore, nil},
		{"own request, half-written filesystem", Facts{Recovery: RecoveryFound, Main: MainDamaged, Request: own, Recorded: true}, normal, Restore, nil},
		{"half-written disk, no request", Facts{Recovery: RecoveryFound, Main: MainBegun, Recorded: true}, normal, Hold, fault.MainForeign},
		{"errors in the recovery volume", Facts{Recovery: RecoveryFound, RecoveryErrors: true, Main: MainMarked}, normal, RepairRecovery, nil},
		{"errors in the recovery volume stay", Facts{Recovery: RecoveryFound, RecoveryErrors: true, RecoveryRepairs: 2, Main: MainMarked}, normal, Boot, nil},
		{"errors in the recovery volume stay, no mark", Facts{Recovery: RecoveryFound, RecoveryErrors: true, RecoveryRepairs: 2, Main: MainUnmarked}, normal, Restore, nil},
		{"recovery cannot be read, not tried", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, Main: MainMarked}, normal, RepairRecovery, nil},
		{"recovery cannot be read, tried", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, RecoveryRepairs: 1, Main: MainMarked}, normal, Boot, nil},
		{"recovery cannot be read, tried, no mark", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, RecoveryRepairs: 1, Main: MainUnmarked}, damage, Hold, fault.RecoveryDamaged},
		{"recovery cannot be read, a rebuild is chosen", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, Main: MainMarked, Choice: Choice{Kind: ChooseRebuild}}, normal, RepairRecovery, nil},
		{"recovery cannot be read, tried, a rebuild is chosen", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, RecoveryRepairs: 1, Main: MainMarked, Choice: Choice{Kind: ChooseRebuild}}, normal, Rebuild, nil},
		{"recovery cannot be read, provisioning", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, ManifestURL: url}, mfg, Provision, nil},
		{"table damaged", Facts{Recovery: RecoveryFound, TableDamaged: true, Main: MainMarked}, normal, RepairTable, nil},
		{"table damaged, and a request", Facts{Recovery: RecoveryFound, TableDamaged: true, Main: MainUnmarked, Request: req}, normal, RepairTable, nil},
		{"table damaged, a restore is chosen", Facts{Recovery: RecoveryFound, TableDamaged: true, Main: MainMarked, Choice: Choice{Kind: ChooseLatest}}, normal, Restore, nil},
		{"boots not good", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 3, Previous: "x"}, tries, Restore, nil},
		{"boots not good, the policy does not count", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 3, Previous: "x"}, normal, Boot, nil},
		{"boots not good, one is left", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 2, Previous: "x"}, tries, Boot, nil},
		{"boots not good, no other image", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 3}, tries, Boot, nil},
		{"boots not good, main damaged", Facts{Recovery: RecoveryFound, Main: MainDamaged, Attempts: 3, Previous: "x"}, tries, Repair, nil},
		{"boots not good, main missing", Facts{Recovery: RecoveryFound, Main: MainAbsent, Attempts: 3, Previous: "x"}, tries, Hold, fault.MainMissing},
		{"request, no disk", Facts{Recovery: RecoveryFound, Main: MainAbsent, Request: req}, normal, Hold, fault.MainMissing},
		{"complete system", Facts{Recovery: RecoveryFound, Main: MainMarked}, normal, Boot, nil},
		{"complete system, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainMarked}, normal, Boot, nil},
		{"complete system, recovery damaged", Facts{Recovery: RecoveryDamaged, Main: MainMarked}, normal, Boot, nil},
		{"no mark", Facts{Recovery: RecoveryFound, Main: MainUnmarked}, normal, Restore, nil},
		{"no mark, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainUnmarked}, normal, Hold, fault.NoRecovery},
		{"complete system, recovery newer", Facts{Recovery: RecoveryNewer, Main: MainMarked}, normal, Boot, nil},
		{"no mark, recovery newer", Facts{Recovery: RecoveryNewer, Main: MainUnmarked}, normal, Hold, fault.RecoveryNewer},
		{"recovery newer, a restore is chosen", Facts{Recovery: RecoveryNewer, Main: MainMarked, Choice: Choice{Kind: ChooseLatest}}, normal, Hold, fault.RecoveryNewer},
		{"recovery newer, a rebuild is chosen", Facts{Recovery: RecoveryNewer, Main: MainMarked, Choice: Choice{Kind: ChooseRebuild}}, normal, Boot, nil},
		{"no mark, recovery damaged", Facts{Recovery: RecoveryDamaged, Main: MainUnmarked}, normal, Hold, fault.RecoveryDamaged},
		{"blank disk", Facts{Recovery: RecoveryFound, Main: MainBlank}, normal, Restore, nil},
		{"foreign disk", Facts{Recovery: RecoveryFound, Main: MainForeign}, normal, Hold, fault.MainForeign},
		{"disk missing", Facts{Recovery: RecoveryFound, Main: MainAbsent}, normal, Hold, fault.MainMissing},
		{"disk missing, policy restores damage", Facts{Recovery: RecoveryFound, Main: MainAbsent}, damage, Hold, fault.MainMissing},
		{"damaged", Facts{Recovery: RecoveryFound, Main: MainDamaged}, normal, Repair, nil},
		{"damaged, repaired once", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 1}, normal, Repair, nil},
		{"damaged, repairs used up", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 2}, normal, Hold, fault.MainDamaged},
		{"damaged, repairs used up, policy restores", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 2}, damage, Restore, nil},
		{"damaged, policy restores, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainDamaged, Repairs: 2}, damage, Hold, fault.NoRecovery},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := Decide(tc.f, tc.p)
			if d.Job != tc.job || d.Fault != tc.fault {
				t.Errorf("got %s with fault %v, want %s with %v", d, d.Fault, tc.job, tc.fault)
			}
		})
	}
}

// TestDecideIsTotal walks through all combinations: there is always a decision, no decision destroys without a recovery volume
// and proof, and Hold always has a fault.
func TestDecideIsTotal(t *testing.T) {
	req, own := &state.Request{ID: "0123456789abcdef"}, &state.Request{ID: "0123456789abcdef", Auto: true}
	for _, r := range []RecoveryState{RecoveryMissing, RecoveryFound, RecoveryAmbiguous, RecoveryDamaged, RecoveryNewer} {
		for _, m := range []MainState{MainAbsent, MainAmbiguous, MainBlank, MainBegun, MainForeign, MainMarked, MainUnmarked, MainDamaged} {
			for _, q := range []*state.Request{nil, req, own} {
				for _, p := range []policy.Policy{{}, {Provision: true}, {RestoreOnDamage: true}, {FailedBoots: 2}} {
					for n := range 16 {
						f := Facts{Recovery: r, Main: m, Request: q, Repairs: n % 4, RecoveryRepairs: n % 3, RecoveryErrors: n&1 != 0, Recorded: n&4 != 0, Attempts: n % 4,
							RecoveryRepairable: r == RecoveryDamaged && n&2 != 0, TableDamaged: n == 9}
						if n&8 != 0 {
							f.Previous = "other"
						}
						d := Decide(f, p)
						if d.Fault == fault.Internal {
							t.Errorf("%+v: no rule fits", f)
						}
						if (d.Job == Hold) != (d.Fault != nil) {
							t.Errorf("%+v: %s has fault %v", f, d, d.Fault)
						}
						if d.Job == Restore && (r != RecoveryFound || m == MainAbsent || m == MainAmbiguous) {
							t.Errorf("%+v: %s", f, d)
						}
						if d.Job == Restore && m == MainForeign && (q != req || !f.Recorded) {
							t.Errorf("%+v: %s over data that are not of this unit", f, d)
						}
						if d.Job == Restore && m == MainMarked && q == nil && (p.FailedBoots == 0 || f.Attempts < p.FailedBoots || f.Previous == "" || !d.Back) {
							t.Errorf("%+v: %s over a complete system", f, d)
						}
						if d.Job == Restore && q == nil && (m == MainForeign || m == MainBegun || (m == MainDamaged && !p.RestoreOnDamage)) {
							t.Errorf("%+v: %s although nobody asked", f, d)
						}
					}
				}
			}
		}
	}
}

// TestOtherContent: what is recognised as somebody's data is not repaired as if it were a bad ext4.
func TestOtherContent(t *testing.T) {
	for typ, want := range map[string]MainState{"": MainDamaged, "ext2": MainDamaged, "jbd": MainDamaged, "xfs": MainForeign, "luks": MainForeign, "md": MainForeign, "swap": MainForeign} {
		if got := otherContent(filesystem.Info{Type: typ}); got != want {
			t.Errorf("%q: got %s, want %s", typ, got, want)
		}
	}
}

// TestPatience: a request takes the recorded disk at once, and waits for it where another one stands in its place.
func TestPatience(t *testing.T) {
	u := &unit{m: &machine.Machine{}}
	long := u.m.Policy.RootWait()
	facts := func(m MainState, recorded bool) Facts {
		return Facts{Recovery: RecoveryFound, Main: m, Request: &state.Request{ID: "0123456789abcdef"}, Recorded: recorded}
	}
	for _, tc := range []struct {
		name string
		f    Found
		want time.Duration
	}{
		{"own blank disk", Found{Facts: facts(MainBlank, true)}, 0},
		{"another blank disk", Found{Facts: facts(MainBlank, false)}, long},
		{"own disk with data", Found{Facts: facts(MainForeign, true)}, 0},
		{"own disk, half a table", Found{Facts: facts(MainBegun, true)}, 0},
		{"another disk with data", Found{Facts: facts(MainForeign, false)}, long},
		{"own partition, other data", Found{Facts: facts(MainForeign, true), MainPart: &machine.Found{}}, 0},
		{"no disk", Found{Facts: facts(MainAbsent, false)}, long},
		{"half-written partition", Found{Facts: facts(MainDamaged, true)}, 0},
		{"damaged", Found{Facts: Facts{Recovery: RecoveryFound, Main: MainDamaged}}, 0},
		{"unreadable", Found{Facts: Facts{Recovery: RecoveryFound, Main: MainDamaged}, Unreadable: true}, long},
		{"complete", Found{Facts: Facts{Recovery: RecoveryFound, Main: MainMarked}}, 0},
		{"complete without a recovery volume", Found{Facts: Facts{Recovery: RecoveryMissing, Main: MainMarked}}, recoveryPatience},
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
	waiting := Found{Facts: Facts{Recovery: RecoveryFound, Main: MainAbsent}, awaits: true}
	off := waiting
	off.Choice.Kind = ChoosePowerOff
	slow := off
	slow.awaits, slow.Main = false, MainAbsent
	whole := Found{Facts: Facts{Recovery: RecoveryFound, Main: MainMarked}}
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
		{"the main disk is missing", Found{Facts: Facts{Recovery: RecoveryFound, Main: MainAbsent}}, time.Second, long - time.Second, true},
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

// TestGoBack: which image is the previous good one.
func TestGoBack(t *testing.T) {
	name := func(n uint64) release.Name {
		return release.Name{Prefix: "A.B.C.", Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Build: n}
	}
	images := []release.Name{name(4), name(3), name(2), name(1)}
	var h release.History
	now := time.Unix(0, 0)
	if got := goBack(images, h, name(3).Base()); got != name(2).String() {
		t.Errorf("without a history: %q, want the next older one", got)
	}
	if got := goBack(images, h, name(1).Base()); got != "" {
		t.Errorf("from the oldest: %q", got)
	}
	if got := goBack(images, h, "unknown"); got != "" {
		t.Errorf("from an image that is not there: %q", got)
	}
	h.Boot(name(1).Base(), true, 0, now, "")
	h.Boot(name(3).Base(), true, 0, now, "")
	if got := goBack(images, h, name(3).Base()); got != name(1).String() {
		t.Errorf("got %q, want the one that started well", got)
	}
	h.Boot(name(4).Base(), true, 0, now, "")
	if got := goBack(images, h, name(3).Base()); got != name(4).String() {
		t.Errorf("got %q, want the one that was used last", got)
	}
	for _, n := range []uint64{1, 2, 4} {
		h.Boot(name(n).Base(), false, release.MaxFailures+1, now, "")
	}
	if got := goBack(images, h, name(3).Base()); got != "" {
		t.Errorf("got %q, though all failed too often", got)
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

// TestDecideDocs keeps the table of docs/decide.md equal to the one of the code.
func TestDecideDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/decide.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| what was found") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	var want []string
	for _, r := range rules() {
		code := ""
		if r.then.Fault != nil {
			code = r.then.Fault.Code + " "
		}
		want = append(want, "| "+r.then.Reason+" | "+string(r.then.Job)+" | "+code+"|")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("code and docs/decide.md differ:\n%s", diff)
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add(`a=b "c d" real_root=PARTUUID=x`)
	f.Fuzz(func(t *testing.T, s string) {
		ParseArgs(s, false)
		WithoutSecrets(s)
	})
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

// TestComplete: which recovery volumes are those of a unit that a person uses.
func TestComplete(t *testing.T) {
	provisioned, person := &state.Request{ID: "0123456789abcdef", By: provision.RequestedBy}, &state.Request{ID: "0123456789abcdef", By: "root on tty1"}
	for _, tc := range []struct {
		name string
		f    Facts
		want bool
	}{
		{"a bare machine", Facts{Recovery: RecoveryMissing, Main: MainBlank}, false},
		{"half-written: no record", Facts{Recovery: RecoveryMissing, Main: MainForeign}, false},
		{"written, never restored", Facts{Recovery: RecoveryFound, Main: MainBlank, Request: provisioned}, false},
		{"written, its restore cut off", Facts{Recovery: RecoveryFound, Main: MainUnmarked, Request: provisioned}, false},
		{"restored", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: provisioned, Fulfilled: provisioned.ID}, true},
		{"restored from another request", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: provisioned}, true},
		{"a person wants a restore", Facts{Recovery: RecoveryFound, Main: MainDamaged, Request: person}, true},
		{"no request", Facts{Recovery: RecoveryFound, Main: MainMarked}, true},
		{"main disk gone", Facts{Recovery: RecoveryFound, Main: MainAbsent}, true},
		{"two volumes of this unit", Facts{Recovery: RecoveryAmbiguous, Main: MainMarked}, true},
	} {
		if got := complete(tc.f); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
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
