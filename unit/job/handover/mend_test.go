package handover

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// onESP is a file of an ESP, as it lies there.
func onESP(dir, file string) string { return filepath.Join(dir, strings.ReplaceAll(file, `\`, "/")) }

// TestMends: what starts the unit is repaired by a boot, which is counted, and only while that is worth it; a unit with nothing to repair
// costs no write. Whatever becomes of that, the unit starts.
func TestMends(t *testing.T) {
	uefi, mirror := machinetest.Kind{Firmware: layout.UEFI}, machinetest.Kind{Firmware: layout.UEFI, Mirror: true}
	starts := map[machinetest.Kind]*unit{uefi: newUnit(t, uefi), mirror: newUnit(t, mirror)}
	loseFile := func(t *testing.T, u *unit) {
		for _, d := range u.rec.Main {
			if err := os.RemoveAll(filepath.Join(u.esp(d), "EFI")); err != nil {
				t.Fatal(err)
			}
		}
	}
	loseEntries := func(t *testing.T, u *unit) {
		all, err := filepath.Glob(filepath.Join(u.Firmware(), "Boot*"))
		if err != nil || len(all) == 0 {
			t.Fatal(all, err)
		}
		for _, f := range all {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	counted := func(n int) func(t *testing.T, u *unit) {
		return func(t *testing.T, u *unit) {
			if err := u.volume().WriteCounts(state.Counts{Mends: n}); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := func(do ...func(t *testing.T, u *unit)) func(t *testing.T, u *unit) {
		return func(t *testing.T, u *unit) {
			for _, f := range do {
				f(t, u)
			}
		}
	}
	for name, c := range map[string]struct {
		kind    machinetest.Kind
		from    string
		change  func(t *testing.T, u *unit)
		late    func(u *unit, f *survey.Findings) // after the survey
		file    bool                              // the main disks start the system afterwards
		entries bool                              // the firmware does
		mends   int
		say     string
	}{
		"nothing to mend": {uefi, machine.NormalEntry, all(), nil, true, true, 0, ""},
		"the firmware came to the recovery entry, all is right": {uefi, machine.RecoveryEntry, all(), nil, true, true, 1, "are right"},
		"the file is gone":    {uefi, machine.RecoveryEntry, loseFile, nil, true, true, 1, "are right"},
		"the file is changed": {uefi, machine.RecoveryEntry, spoilFile, nil, true, true, 1, "are right"},
		"the entries are gone, and the firmware took the file": {uefi, "none", loseEntries, nil, true, true, 1, ""},
		"both are gone":                  {uefi, "none", all(loseFile, loseEntries), nil, true, true, 1, ""},
		"for the third time":             {uefi, machine.RecoveryEntry, all(loseFile, counted(2)), nil, true, true, 3, ""},
		"for the fourth time":            {uefi, machine.RecoveryEntry, all(loseFile, loseEntries, counted(3)), nil, false, false, 3, ""},
		"it held":                        {uefi, machine.NormalEntry, counted(2), nil, true, true, 0, ""},
		"only an entry is bad":           {uefi, machine.NormalEntry, loseNormal, nil, true, true, 1, ""},
		"an ESP without FAT":             {uefi, machine.RecoveryEntry, loseFAT, nil, true, true, 1, "making it anew"},
		"a mirror":                       {mirror, machine.RecoveryEntry, loseFile, nil, true, true, 1, ""},
		"a mirror, from its second disk": {mirror, machine.NormalEntry + " (disk 2)", all(), nil, true, true, 0, ""},
		"the system has no artifact": {uefi, machine.RecoveryEntry, all(loseFile, func(t *testing.T, u *unit) {
			if err := os.WriteFile(filepath.Join(u.root(), "boot/norm_boot"), []byte("no kernel"), 0o600); err != nil {
				t.Fatal(err)
			}
		}), nil, false, true, 1, "cannot be repaired"},
		"the main disk cannot be mounted for it": {uefi, machine.RecoveryEntry, loseFile, func(u *unit, f *survey.Findings) {
			main, n := "mount /dev/"+filepath.Base(f.MainPart.Path), 0
			u.Fail(func(_ int, call string) error {
				if strings.HasPrefix(call, main) {
					if n++; n == 1 {
						return syscall.EIO
					}
				}
				return nil
			})
		}, false, true, 1, "cannot be repaired"},
		"a provisioning's policy": {uefi, machine.RecoveryEntry, all(loseFile, func(_ *testing.T, u *unit) {
			u.policy = func(p *policy.Policy) { p.Provision = true }
		}), nil, false, true, 0, ""},
		"no record to go by": {uefi, machine.RecoveryEntry, loseFile, func(_ *unit, f *survey.Findings) {
			f.Recovery, f.VolumeFindings = decide.RecoveryMissing, survey.VolumeFindings{}
		}, false, true, 0, ""},
		"it cannot be counted": {uefi, machine.RecoveryEntry, loseFile, func(u *unit, f *survey.Findings) {
			volume := "mount /dev/" + filepath.Base(f.RecoveryPart.Path)
			u.Fail(func(_ int, call string) error {
				if strings.HasPrefix(call, volume) {
					return syscall.EROFS
				}
				return nil
			})
		}, true, true, 0, "repair of what starts the unit cannot be counted"},
	} {
		t.Run(name, func(t *testing.T) {
			u := starts[c.kind].clone(t)
			c.change(t, u)
			u.from = c.from
			f := u.switchOn()
			if f.Main != decide.MainMarked {
				t.Fatalf("the main system is %s: %q", f.Main, f.Notes)
			}
			if c.late != nil {
				c.late(u, f)
			}
			u.handsOver(f)
			u.Fail(nil)
			for i, d := range u.rec.Main {
				b, err := os.ReadFile(onESP(u.esp(d), machine.NormalFile(u.rec)))
				if starts := err == nil && bytes.Equal(b, imagetest.BzImage(7, "")); starts != c.file {
					t.Errorf("disk %d starts the system: %t, %v; log:\n%s", i, starts, err, &u.log)
				}
			}
			if lacked, err := u.m.EnsureEntries(u.m.Vars, u.rec); lacked.Empty() != c.entries || err != nil {
				t.Errorf("the firmware's entries lacked %+v, %v", lacked, err)
			}
			if n := u.counts().Mends; n != c.mends {
				t.Errorf("%d boots in a row have repaired", n)
			}
			if !strings.Contains(u.log.String(), c.say) {
				t.Errorf("the log says:\n%s", &u.log)
			}
			if name == "nothing to mend" && len(u.Written()) > 0 {
				t.Errorf("opened for writing are %q", u.Written())
			}
		})
	}
}

func spoilFile(t *testing.T, u *unit) {
	for _, d := range u.rec.Main {
		if err := os.WriteFile(onESP(u.esp(d), machine.NormalFile(u.rec)), []byte("half of a fi"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// loseFAT overwrites the filesystem of the main disk's ESP.
func loseFAT(t *testing.T, u *unit) {
	t.Helper()
	m := machinetest.Machine(u.Rig)
	disks, err := m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		if d.Name == "vdb" {
			err = m.ClearPartition(d.Partitions[0].Path)
		}
	}
	if err != nil || u.esp(u.rec.Main[0]) != "" {
		t.Fatalf("the ESP is there yet: %v", err)
	}
}

// loseNormal makes the entry of the main system one that starts something else. The firmware says that it came from it.
func loseNormal(t *testing.T, u *unit) {
	t.Helper()
	m := machinetest.Machine(u.Rig)
	other := u.rec
	other.Main = slices.Clone(other.Main)
	other.Main[0].Table.Partitions = slices.Clone(other.Main[0].Table.Partitions)
	for i := range other.Main[0].Table.Partitions {
		other.Main[0].Table.Partitions[i].UUID = machine.NewIDs().UUID()
	}
	if change, err := m.EnsureEntries(m.Vars, other); err != nil || change.Empty() {
		t.Fatal(change, err)
	}
}

// TestMendsMirror: a member of an array that is not there is no reason to leave the others without what starts them.
func TestMendsMirror(t *testing.T) {
	for _, gone := range []string{"vdb", "vdc"} {
		u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI, Mirror: true})
		left := map[string]state.Disk{"vdb": u.rec.Main[1], "vdc": u.rec.Main[0]}[gone]
		if err := os.RemoveAll(filepath.Join(u.esp(left), "EFI")); err != nil {
			t.Fatal(err)
		}
		u.Remove(gone)
		u.from = machine.RecoveryEntry
		f := u.switchOn()
		if f.Main != decide.MainMarked || !f.Degraded {
			t.Fatalf("without %s the main system is %s: %q", gone, f.Main, f.Notes)
		}
		u.handsOver(f)
		b, err := os.ReadFile(onESP(u.esp(left), machine.NormalFile(u.rec)))
		if err != nil || !bytes.Equal(b, imagetest.BzImage(7, "")) {
			t.Errorf("without %s the other disk does not start the system: %v; log:\n%s", gone, err, &u.log)
		}
	}
}

// TestMendsBIOS: on BIOS the boot loader's files are on the main system. They are put back when the unit did not start from there, and
// not looked at when it did. The system is read-only again when it is handed over to.
func TestMendsBIOS(t *testing.T) {
	for _, from := range []string{machine.RecoveryEntry, machine.NormalEntry} {
		u := newUnit(t, machinetest.Kind{Firmware: layout.BIOS})
		if err := os.RemoveAll(filepath.Join(u.root(), "boot/grub")); err != nil {
			t.Fatal(err)
		}
		u.from = from
		f := u.switchOn()
		before := len(u.Calls())
		u.handsOver(f)
		b, err := os.ReadFile(filepath.Join(u.root(), "boot/grub/grub.cfg"))
		if back := err == nil && bytes.Contains(b, []byte("real_root=")); back != (from == machine.RecoveryEntry) {
			t.Errorf("from %s: the configuration is back: %t, %v", from, back, err)
		}
		var modes []string
		for _, c := range u.Calls()[before:] {
			if mode, ok := strings.CutPrefix(c, "mount /dev/"+filepath.Base(f.MainPart.Path)+" "); ok {
				modes = append(modes, mode)
			}
		}
		if last := modes[len(modes)-1]; last != "read-only" {
			t.Errorf("from %s: the system is mounted %q", from, modes)
		}
	}
}

// TestPendingArtifact: a recovery artifact that the running system fetched starts the unit only after the main disk is known to boot: else
// a bad one would take the way back. It is put in place once, and again if that failed.
func TestPendingArtifact(t *testing.T) {
	start := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	fresh, old := imagetest.BzImage(8, "fetched"), imagetest.BzImage(7, "")
	for name, c := range map[string]struct {
		from  string
		fault error
		put   bool
	}{
		"from the main disk":                 {machine.NormalEntry, nil, true},
		"from the recovery device":           {machine.RecoveryEntry, nil, false},
		"the recovery device takes no write": {machine.NormalEntry, syscall.EIO, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := start.clone(t)
			v := u.volume()
			if err := errors.Join(os.WriteFile(v.Path("norm_boot"), fresh, 0o600),
				v.WritePending(state.Pending{RecoveryArtifact: true})); err != nil {
				t.Fatal(err)
			}
			u.from = c.from
			f := u.switchOn()
			u.Fail(func(_ int, call string) error {
				if call == "mount /dev/vda1 writable" {
					return c.fault
				}
				return nil
			})
			u.handsOver(f)
			want := old
			if c.put {
				want = fresh
			}
			if b, err := os.ReadFile(onESP(u.esp(u.rec.Recovery), machine.RemovablePath)); err != nil || !bytes.Equal(b, want) {
				t.Errorf("the recovery device starts another artifact: %v; log:\n%s", err, &u.log)
			}
			if p, err := v.ReadPending(); err != nil || p.RecoveryArtifact == c.put {
				t.Errorf("to be done is %+v, %v", p, err)
			}
		})
	}
}
