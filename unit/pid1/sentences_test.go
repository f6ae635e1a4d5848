package pid1

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/page"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job"
	"gprovision/unit/job/restore"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// What docs/ says to whoever stands before a unit, and no other test holds.

// logged returns the texts of the log's records with a message.
func logged(u *unit, message string) (out []string) {
	for _, r := range u.journal.Records() {
		if r.Message == message {
			out = append(out, r.Text())
		}
	}
	return out
}

// lamp is a panel without keys. What it does at a message that stays until it was read stands for the reader.
type lamp func()

func (l lamp) Show(v panel.View) error {
	if v.Problem != nil {
		l()
	}
	return nil
}

// TestMediumWithoutPanel: a unit without any panel that has keys restores from a stick only if its policy says that nobody is asked, and
// never over data that are not its own.
func TestMediumWithoutPanel(t *testing.T) {
	for name, c := range map[string]struct {
		policy  bool
		foreign bool
		out     job.Kind
		release string
	}{
		"asks":                            {false, false, job.DecideAgain, machinetest.Original},
		"need not ask":                    {true, false, job.RebootNow, other},
		"need not ask, but for this disk": {true, true, job.DecideAgain, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			putImage(t, machinetest.Stick(t, r, layout.TypeLinux), layout.EmergencyPrefix)
			if c.foreign {
				r.Replace("vdb", "ANOTHER")
				disks, err := r.Doors().List()
				i := slices.IndexFunc(disks, func(d block.Disk) bool { return d.Name == "vdb" })
				if err == nil {
					err = machinetest.Machine(r).MakeExt4(t.Context(), disks[i].Path, "HOLIDAYS", machine.NewIDs().UUID())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			r.Start(nil)
			u := onRig(t, r)
			u.m.Policy.MediumWithoutConfirmation = c.policy
			ctx, read := context.WithCancel(t.Context())
			defer read()
			if c.out == job.DecideAgain {
				u.m.Panel.Add("lamp", lamp(read))
			}
			f := u.look(ctx)
			out := restore.FromMedium(ctx, u.env(), f)
			if out.Kind != c.out {
				t.Fatalf("%+v", out)
			}
			asked := logged(u, "restore from the emergency medium is not confirmed")
			if (len(asked) == 1) != (c.out == job.DecideAgain) || len(asked) == 1 && !strings.Contains(asked[0], "G252") {
				t.Errorf("logged: %q", asked)
			}
			if written := r.Written(); c.out == job.DecideAgain && len(written) > 0 {
				t.Errorf("nobody said yes, and %q are written to", written)
			}
			u.die(t)
			r.Start(nil)
			next := onRig(t, r)
			next.m.Policy.MediumWithoutConfirmation = c.policy
			f = next.look(t.Context())
			if f.Mark.Release != c.release || c.foreign != (f.Main == decide.MainForeign) {
				t.Errorf("%s of %q, want %q; notes %q", f.Main, f.Mark.Release, c.release, f.Notes)
			}
		})
	}
}

// TestEachFileOfAMedium: of a stick with nothing that can be used the log has every file with its reason.
func TestEachFileOfAMedium(t *testing.T) {
	r := restored(t)
	dir := machinetest.Stick(t, r, layout.TypeLinux)
	putImage(t, dir, layout.EmergencyPrefix) // not signed
	if err := os.WriteFile(filepath.Join(dir, layout.EmergencyPrefix+"nonsense.upd"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Start(nil)
	u := onRig(t, r)
	u.m.Policy.AllowUnsigned = false
	u.m.Panel.Add("reader", script.Reader{Panel: &script.Panel{}})
	u.m.Policy.GraceSeconds = 1
	if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
		t.Errorf("%+v", out)
	}
	notes := strings.Join(logged(u, "note"), "\n")
	for name, code := range map[string]string{"nonsense.upd": "G202", other + ".upd": "G203"} {
		if !regexp.MustCompile(layout.EmergencyPrefix + regexp.QuoteMeta(name) + ": " + code).MatchString(notes) {
			t.Errorf("%s is not told with %s:\n%s", name, code, notes)
		}
	}
	if told := logged(u, "emergency medium refused"); len(told) != 1 || !strings.Contains(told[0], "G251") {
		t.Errorf("told: %q", told)
	}
}

// TestPausesOfThePage: the codes after which a unit soon tries again are those of the page.
func TestPausesOfThePage(t *testing.T) {
	docs := os.DirFS("../../docs")
	var soon []string
	for _, f := range fault.All() {
		if pause(f, 0) == networkRetry {
			soon = append(soon, f.Code)
		}
	}
	last := len(soon) - 1
	says := "where the network is at fault), which is so for " + strings.Join(soon[:last], ", ") + " and " + soon[last]
	if err := page.Says(docs, "decide.md", says); err != nil {
		t.Error(err)
	}
}

// TestVolumeIsLeftAlone: a recovery volume of a newer release, and one that is gone, keep no complete system from starting, and nothing is
// written anywhere: nothing is counted, repaired or rebuilt.
func TestVolumeIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, r *machinetest.Rig)
		want   decide.RecoveryState
		code   string
	}{
		"newer": {func(t *testing.T, r *machinetest.Rig) {
			onVolume(t, r, func(v *state.Volume) error {
				return os.WriteFile(v.Path(state.UnitFile), []byte(`{"version":99,"serial":["another form"]}`), 0o600)
			})
		}, decide.RecoveryNewer, "G216"},
		"gone": {func(_ *testing.T, r *machinetest.Rig) { r.Remove("vda") }, decide.RecoveryMissing, "G211"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			root := "real_root=PARTUUID=" + onRig(t, r).look(t.Context()).MainPart.Partition.UUID // as the boot entry has it
			c.change(t, r)
			r.Start(nil)
			u := onRig(t, r)
			u.args = decide.ParseArgs(root, false)
			if f := u.look(t.Context()); f.Recovery != c.want {
				t.Fatalf("the volume is %s; notes %q", f.Recovery, f.Notes)
			}
			u.m.Panel.Add("reader", script.Reader{Panel: &script.Panel{}})
			u.m.Policy.GraceSeconds = 1
			if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
				t.Errorf("%+v", out)
			}
			u.die(t)
			if written := r.Written(); len(written) > 0 {
				t.Errorf("%q are written to", written)
			}
			b, err := os.ReadFile(u.m.Places.InRun(state.BootFile))
			told, perr := state.ParseBoot(b)
			if errors.Join(err, perr) != nil || told.Attempts != 0 || len(told.Defects) != 1 || !strings.HasPrefix(told.Defects[0], c.code) {
				t.Errorf("the system is told %+v, %v", told, errors.Join(err, perr))
			}
		})
	}
}

// TestFetchFails: where no image is good, and the network does not help either, the unit holds with the code of the images, and says both.
func TestFetchFails(t *testing.T) {
	r := provisioned(t, twoDisks)
	onVolume(t, r, func(v *state.Volume) error { return os.Remove(v.Path(state.ImageDir, machinetest.Original+".upd")) })
	r.Start(nil)
	u := onRig(t, r)
	u.m.Policy.NetworkRecovery = "https://127.0.0.1:1/manufData.json"
	out := u.pass(t.Context()) // the machine has no network port
	if out.Kind != job.HoldOn || fault.Of(out.Err) != fault.NoImage || !strings.Contains(out.Err.Error(), "from the network: ") ||
		!strings.Contains(out.Err.Error(), fault.NoNetwork.Code) {
		t.Errorf("%+v", out)
	}
	if slices.ContainsFunc(r.Written(), func(name string) bool { return strings.HasPrefix(name, "vdb") }) {
		t.Errorf("written to are %q", r.Written())
	}
}

// TestStickCountsAnew: a stick that is left in is ignored with a note; a boot that has not seen it has it count anew.
func TestStickCountsAnew(t *testing.T) {
	r := restored(t)
	putImage(t, machinetest.Stick(t, r, layout.TypeLinux), layout.EmergencyPrefix)
	r.Start(nil)
	u := onRig(t, r)
	withPerson(u, map[string][]panel.Key{"Restore from medium": yes()})
	if out := u.pass(t.Context()); out.Kind != job.RebootNow {
		t.Fatalf("%+v", out)
	}
	u.die(t)
	for _, in := range []bool{true, false} {
		if !in {
			r.Remove("sdb")
		}
		r.Start(nil)
		u := onRig(t, r)
		if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
			t.Fatalf("%+v", out)
		}
		noted := slices.ContainsFunc(logged(u, "note"), func(s string) bool { return strings.Contains(s, "remove the medium") })
		if noted != in {
			t.Errorf("the stick is in: %t; notes %q", in, logged(u, "note"))
		}
		u.die(t)
		onVolume(t, r, func(v *state.Volume) error {
			m, err := v.ReadMedium()
			if m.Removed == in || m.Image != other+".upd" {
				t.Errorf("the stick is in: %t; the unit remembers %+v", in, m)
			}
			return err
		})
	}
}

// TestRebuiltVolume: what is on a volume that was made anew from a stick, beside what the main system has.
func TestRebuiltVolume(t *testing.T) {
	r := restored(t)
	old := onRig(t, r).look(t.Context()).Unit
	r.Replace("vda", "A NEW ONE")
	stickWithImage(t, r)
	r.Start(nil)
	u := onRig(t, r)
	u.key = state.NewKey()
	withPerson(u, map[string][]panel.Key{"Menu": choose(6), "Rebuild recovery": yes()})
	u.person.Wanted = true
	if out := u.pass(t.Context()); out.Kind != job.DecideAgain {
		t.Fatalf("%+v", out)
	}
	u.die(t)
	onVolume(t, r, func(v *state.Volume) error {
		rec, err := v.ReadUnit()
		if err != nil {
			return err
		}
		if rec.Server != "" || rec.Original != other+".upd" || rec.Serial != old.Serial || rec.System().FSUUID != old.System().FSUUID {
			t.Errorf("the record says %+v, the one before said %+v", rec, old)
		}
		if key, err := v.ReadKey(); err != nil || !key.Equal(u.key) {
			t.Errorf("its key is not the new one: %v", err)
		}
		if st, err := os.Stat(r.Volume(rec.Recovery.Table.Find(layout.Recovery).FSUUID)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("not only root sees into it: %v, %v", st, err)
		}
		logs, err := os.ReadDir(v.Path(state.LogDir))
		if err != nil || len(logs) == 0 {
			t.Errorf("it has no log of the rebuild: %v", err)
		}
		if h, err := v.History(); err != nil || len(h.ImageResults) > 0 {
			t.Errorf("its history is %+v, %v", h, err)
		}
		return nil
	})
}

// TestSilentPorts: USB ports whose devices never answer are named once.
func TestSilentPorts(t *testing.T) {
	u := testUnit(t, &bytes.Buffer{})
	u.journal = journal.New(journal.Options{})
	u.log = u.journal.Logger()
	u.warnOfSilentPorts()
	u.wait.Silent = []string{"1-2"}
	u.warnOfSilentPorts()
	u.warnOfSilentPorts()
	told := logged(u, "USB devices do not answer, and are not waited for any longer")
	if len(told) != 1 || !strings.Contains(told[0], "1-2") {
		t.Errorf("told: %q", told)
	}
}

// TestFetchedArtifact: a recovery artifact that the running system has fetched goes to the recovery device at the next boot that came from
// the main disk, and not before.
func TestFetchedArtifact(t *testing.T) {
	r := provisioned(t, machinetest.Kind{Firmware: layout.BIOS})
	boots(t, r)
	fetched := imagetest.BzImage(9, "fetched")
	loaded := func() (out []string, pending bool) {
		onVolume(t, r, func(v *state.Volume) error {
			p, err := v.ReadPending()
			pending = p.RecoveryArtifact
			dir, lerr := filepath.EvalSymlinks(v.Path())
			err = errors.Join(err, lerr)
			for _, line := range strings.Split(machinetest.Tree(t, dir), "\n") {
				if strings.Contains(line, " /boot/") {
					out = append(out, line)
				}
			}
			return err
		})
		return out, pending
	}
	onVolume(t, r, func(v *state.Volume) error {
		return errors.Join(os.WriteFile(v.Path("norm_boot"), fetched, 0o600), v.WritePending(state.Pending{RecoveryArtifact: true}))
	})
	before, _ := loaded()
	for _, c := range []struct {
		cmdline string
		taken   bool
	}{{"quiet", false}, {"real_root=PARTUUID=x", true}} {
		r.Start(nil)
		u := onRig(t, r)
		u.m.Cmdline = c.cmdline
		if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
			t.Fatalf("%+v", out)
		}
		u.die(t)
		if now, pending := loaded(); pending == c.taken || slices.Equal(now, before) == c.taken || len(now) == 0 {
			t.Errorf("after a boot with %s: still to do %t; the recovery device has\n%s\nand had\n%s", c.cmdline, pending,
				strings.Join(now, "\n"), strings.Join(before, "\n"))
		}
	}
}

// TestMachineID: the identity of the system is the unit's: the same after each restore, and another one on each unit.
func TestMachineID(t *testing.T) {
	id := func(r *machinetest.Rig) string {
		u := onRig(t, r)
		b, err := os.ReadFile(filepath.Join(r.Volume(u.look(t.Context()).Unit.System().FSUUID), "etc/machine-id"))
		if err != nil || !regexp.MustCompile(`^[0-9a-f]{32}\n$`).Match(b) {
			t.Errorf("%q, %v", b, err)
		}
		return string(b)
	}
	r := restored(t)
	first := id(r)
	askedFor(t, r)
	boots(t, r)
	if second := id(r); second != first {
		t.Errorf("after another restore %q, before %q", second, first)
	}
	if other := id(restored(t)); other == first {
		t.Errorf("two units with the same serial number have the machine-id %q", other)
	}
}

// TestShellByArgument: the recovery shell that a kernel argument asks for is there where the policy has it, once in a boot, and has mounted
// nothing when it opens.
func TestShellByArgument(t *testing.T) {
	hash, err := sysroot.HashPassword("correct")
	if err != nil {
		t.Fatal(err)
	}
	for _, allowed := range []bool{true, false} {
		r := restored(t)
		onVolume(t, r, func(v *state.Volume) error { return v.WriteHash(hash) })
		r.Start(nil)
		u := onRig(t, r)
		u.args = decide.ParseArgs("frmode=shell", false)
		u.m.Policy.Shell, u.m.Policy.GraceSeconds = allowed, 1
		lines, opened := []string{"correct", "exit"}, 0
		u.m.Panel.Add("script", &script.Panel{Answer: func(a panel.Asked) []panel.Key {
			if a.Title == "recovery shell" {
				opened++
				for _, dir := range []string{u.m.Places.Recovery, u.m.Places.Main} {
					if mounted, err := u.m.Mounted(dir); err != nil || mounted {
						t.Errorf("the shell opens, and %s is mounted: %v", dir, err)
					}
				}
			}
			if len(lines) == 0 {
				t.Errorf("asked once more: %q", a.Title)
				return []panel.Key{panel.KeyCancel}
			}
			var keys []panel.Key
			for _, c := range []byte(lines[0]) {
				keys = append(keys, panel.Key(c))
			}
			lines = lines[1:]
			return append(keys, panel.KeyEnter)
		}})
		out := u.pass(t.Context())
		if allowed {
			if out.Kind != job.DecideAgain || opened != 1 {
				t.Fatalf("%+v, opened %d times", out, opened)
			}
			out = u.pass(t.Context())
		}
		if out.Kind != job.SwitchRoot || (opened == 1) != allowed {
			t.Errorf("allowed %t: %+v, opened %d times", allowed, out, opened)
		}
	}
}

// TestAnyKeyOpensTheMenu: during the grace time, and also if it was pressed before.
func TestAnyKeyOpensTheMenu(t *testing.T) {
	for _, key := range []panel.Key{panel.KeyUp, panel.KeyDown, panel.KeyEnter, panel.KeyCancel, 'x'} {
		r := restored(t)
		u := onRig(t, r)
		p := withPerson(u, map[string][]panel.Key{"Menu": choose(1), "Power off": yes()})
		p.Press(key)
		if out := u.pass(t.Context()); out.Kind != job.PowerOffNow {
			t.Errorf("key %v: %+v; shown %+v", key, out, p.Last())
		}
	}
}

// TestFilesOfTheVolume: what units have on their recovery volumes is on the page, and who may read the secrets among it.
func TestFilesOfTheVolume(t *testing.T) {
	rows, err := page.Rows(os.DirFS("../../docs"), "formats/recovery-volume.md", "# The recovery volume")
	if err != nil {
		t.Fatal(err)
	}
	stands := strings.NewReplacer("NAME", `[A-Z0-9.-]+`, "PREFIX", "[a-z]+", "yyyymmdd_hhmmss", `\d{8}_\d{6}(_\d+)?`)
	var listed []string
	for _, r := range rows[1:] {
		for _, c := range page.Codes(r[0]) {
			re := stands.Replace(regexp.QuoteMeta(c))
			if strings.HasSuffix(c, "/") {
				re += ".*"
			}
			listed = append(listed, re)
		}
	}
	re := regexp.MustCompile("^/(" + strings.Join(listed, "|") + ")$")
	for name, k := range map[string]machinetest.Kind{"UEFI": twoDisks, "BIOS": {Firmware: layout.BIOS, OneDisk: true, Data: true}} {
		r := provisioned(t, k)
		boots(t, r)
		handsOver(t, r)
		seen := 0
		onVolume(t, r, func(v *state.Volume) error {
			dir, err := filepath.EvalSymlinks(v.Path())
			for line := range strings.Lines(machinetest.Tree(t, dir)) {
				mode, rest, _ := strings.Cut(line, " ")
				file, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
				if strings.HasPrefix(mode, "d") || file == "" {
					continue
				}
				if seen++; !re.MatchString(file) {
					t.Errorf("%s: the page does not have %s", name, file)
				}
				if (file == "/"+state.KeyFile || file == "/"+state.HashFile || strings.HasSuffix(file, ".log")) && mode != "-rw-------" {
					t.Errorf("%s: %s has the mode %s", name, file, mode)
				}
			}
			return err
		})
		if seen < 6 {
			t.Errorf("%s: only %d files are seen", name, seen)
		}
	}
}

// twin plugs in a disk that looks like another one down to its identifiers, as a copy does.
func twin(t *testing.T, r *machinetest.Rig, d state.Disk) {
	t.Helper()
	kept := map[string]string{}
	for _, p := range d.Table.Partitions {
		if p.Role == layout.ESP { // stays
			continue
		}
		kept[p.FSUUID] = t.TempDir()
		if err := os.CopyFS(kept[p.FSUUID], os.DirFS(r.Volume(p.FSUUID))); err != nil {
			t.Fatal(err)
		}
	}
	path := r.AddDisk(block.Disk{Name: "vdt", Bus: block.VirtIO, Serial: "COPY", Size: d.Size})
	m := machinetest.Machine(r)
	err := m.WriteTable(path, d.Table)
	if err == nil {
		err = m.Format(t.Context(), path, d.Table, []layout.Role{layout.ESP, layout.Recovery, layout.Primary})
	}
	for uuid, dir := range kept {
		err = errors.Join(err, os.CopyFS(r.Volume(uuid), os.DirFS(dir)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestHoldsChangeNothing: where docs/errors.md says of a code that nothing was changed, or erased, no disk is written to.
func TestHoldsChangeNothing(t *testing.T) {
	unmarked := func(r *machinetest.Rig, u state.Unit) {
		if err := os.Remove(filepath.Join(r.Volume(u.System().FSUUID), "boot.normal")); err != nil {
			t.Error(err)
		}
	}
	request := func(t *testing.T, r *machinetest.Rig) {
		onVolume(t, r, func(v *state.Volume) error {
			q, err := state.NewRequest(state.KindRestore, state.Latest, "a person", time.Now())
			return errors.Join(err, v.WriteRequest(q))
		})
	}
	for code, c := range map[string]struct {
		prepare func(t *testing.T, r *machinetest.Rig, u state.Unit)
		init    func(u *unit)
		fault   func(n int, call string) error
	}{
		"G116": {func(_ *testing.T, r *machinetest.Rig, rec state.Unit) { unmarked(r, rec); r.Remove("vda") },
			func(u *unit) { u.m.Policy.Provision = true }, nil},
		"G211": {func(_ *testing.T, r *machinetest.Rig, rec state.Unit) { unmarked(r, rec); r.Remove("vda") }, nil, nil},
		"G212": {func(t *testing.T, r *machinetest.Rig, rec state.Unit) { twin(t, r, rec.Recovery) }, nil, nil},
		"G216": {func(t *testing.T, r *machinetest.Rig, rec state.Unit) {
			unmarked(r, rec)
			onVolume(t, r, func(v *state.Volume) error {
				return os.WriteFile(v.Path(state.UnitFile), []byte(`{"version":99}`), 0o600)
			})
		}, nil, nil},
		"G221": {func(t *testing.T, r *machinetest.Rig, _ state.Unit) { request(t, r); r.Remove("vdb") }, nil, nil},
		"G222": {func(t *testing.T, r *machinetest.Rig, rec state.Unit) { request(t, r); twin(t, r, rec.Main[0]) }, nil, nil},
		"G223": {func(*testing.T, *machinetest.Rig, state.Unit) {}, func(u *unit) { u.memory.Repairs = u.m.Policy.Repairs() },
			func(_ int, call string) error {
				if strings.HasPrefix(call, "mount /dev/vdb2") {
					return syscall.EUCLEAN
				}
				return nil
			}},
		"G224": {func(t *testing.T, r *machinetest.Rig, _ state.Unit) {
			request(t, r)
			r.Replace("vdb", "ANOTHER")
			disks, err := r.Doors().List()
			i := slices.IndexFunc(disks, func(d block.Disk) bool { return d.Name == "vdb" })
			if err == nil {
				err = machinetest.Machine(r).MakeExt4(t.Context(), disks[i].Path, "HOLIDAYS", machine.NewIDs().UUID())
			}
			if err != nil {
				t.Error(err)
			}
		}, nil, nil},
		"G261": {func(*testing.T, *machinetest.Rig, state.Unit) {}, func(u *unit) { u.args = decide.ParseArgs("DATA_ERASE=1", false) }, nil},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			c.prepare(t, r, onRig(t, r).look(t.Context()).Unit)
			r.Start(c.fault)
			u := onRig(t, r)
			if c.init != nil {
				c.init(u)
			}
			out := u.pass(t.Context())
			u.die(t)
			if f := fault.Of(out.Err); out.Kind != job.HoldOn || f == nil || f.Code != code {
				t.Errorf("%+v", out)
			}
			if written := r.Written(); len(written) > 0 {
				t.Errorf("%q are written to", written)
			}
		})
	}
}
