package pid1

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// What a person at the machine chooses, on a machine that is not there: a whole pass of init each, and what the next start finds.

// other is an image beside the one that the unit was provisioned with.
const other = imagetest.Prefix + "2026-11-24.0001"

// yes and no are the keys that answer a question with two answers.
func yes() []panel.Key { return []panel.Key{panel.KeyDown, panel.KeyEnter} }
func no() []panel.Key  { return []panel.Key{panel.KeyEnter} }

// choose returns the keys that take the row n of a list, from 0.
func choose(n int) []panel.Key {
	return append(slices.Repeat([]panel.Key{panel.KeyDown}, n), panel.KeyEnter)
}

// withPerson puts a person before the machine, who answers questions by their title.
func withPerson(u *unit, answers map[string][]panel.Key) *script.Panel {
	u.m.Policy.GraceSeconds = 1
	p := &script.Panel{Answer: func(a panel.Asked) []panel.Key { return answers[a.Title] }}
	u.m.Panel.Add("script", p)
	return p
}

func putImage(t *testing.T, dir, prefix string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, prefix+other+".upd"), imagetest.XZ(t, imagetest.System(t, other)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMediumIsAsked: an emergency medium restores the unit after a yes, and once; a no leaves the unit as it is, and it starts.
func TestMediumIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		answer  []panel.Key
		out     job.Kind
		release string
	}{
		"yes": {yes(), job.RebootNow, other},
		"no":  {no(), job.DecideAgain, machinetest.Original},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			putImage(t, machinetest.Stick(t, r, layout.TypeLinux), layout.EmergencyPrefix)
			r.Start(nil)
			u := onRig(t, r)
			p := withPerson(u, map[string][]panel.Key{"Restore from medium": c.answer})
			if out := u.pass(t.Context()); out.Kind != c.out {
				t.Fatalf("%+v; shown %+v", out, p.Last())
			}
			if c.out == job.DecideAgain { // the medium stays in: it is not asked again in this boot
				if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
					t.Errorf("after the no: %+v", out)
				}
			}
			u.die(t)
			r.Start(nil)
			next := onRig(t, r)
			f := next.look(t.Context())
			if f.Mark.Release != c.release || f.Main != decide.MainMarked {
				t.Errorf("%s of %s is installed, want %s; notes %q", f.Main, f.Mark.Release, c.release, f.Notes)
			}
			if d := decide.Decide(f.Facts, next.m.Policy); name == "yes" && d.Job != decide.Boot {
				t.Errorf("the medium was left in: %s", d)
			}
		})
	}
}

// TestMenuChoices: what a person takes in the menu is what is done.
func TestMenuChoices(t *testing.T) {
	for name, c := range map[string]struct {
		row     int
		answers map[string][]panel.Key
		out     job.Kind
		release string
	}{
		"resume":               {0, nil, job.SwitchRoot, machinetest.Original},
		"power off":            {1, map[string][]panel.Key{"Power off": yes()}, job.PowerOffNow, machinetest.Original},
		"restore latest":       {2, map[string][]panel.Key{"Restore latest": yes()}, job.RebootNow, other},
		"restore original":     {3, map[string][]panel.Key{"Restore original": yes()}, job.RebootNow, machinetest.Original},
		"choose the other one": {4, map[string][]panel.Key{"Choose image": choose(0), "Restore 2026-11-24.0001": yes()}, job.RebootNow, other},
		"choose the older one": {4, map[string][]panel.Key{"Choose image": choose(1), "Restore 2026-11-22.0001": yes()}, job.RebootNow,
			machinetest.Original},
		"reset settings":        {6, map[string][]panel.Key{"Reset or erase": choose(0), "Reset settings": yes()}, job.RebootNow, other},
		"reset system":          {6, map[string][]panel.Key{"Reset or erase": choose(1), "Reset system": yes()}, job.RebootNow, other},
		"reset everything":      {6, map[string][]panel.Key{"Reset or erase": choose(2), "Reset everything": yes()}, job.RebootNow, other},
		"a bundle and no stick": {5, nil, job.DecideAgain, machinetest.Original},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			onVolume(t, r, func(v *state.Volume) error { putImage(t, v.Path(state.ImageDir), ""); return nil })
			r.Start(nil)
			u := onRig(t, r)
			answers := map[string][]panel.Key{"Menu": choose(c.row)}
			for title, keys := range c.answers {
				answers[title] = keys
			}
			p := withPerson(u, answers)
			u.person.Wanted = true
			if name == "a bundle and no stick" {
				u.m.Panel.Add("reader", script.Reader{Panel: &script.Panel{}})
			}
			if out := u.pass(t.Context()); out.Kind != c.out {
				t.Fatalf("%+v; shown %+v", out, p.Last())
			}
			u.die(t)
			r.Start(nil)
			if f := onRig(t, r).look(t.Context()); f.Mark.Release != c.release || f.Main != decide.MainMarked || f.RestoreRequested() {
				t.Errorf("%s of %s is installed, want %s, requested %v", f.Main, f.Mark.Release, c.release, f.RestoreRequested())
			}
		})
	}
}

// TestBundleOnStick: the support bundle lies on the recovery stick, the unit is as it was, and the menu comes again.
func TestBundleOnStick(t *testing.T) {
	r := restored(t)
	dirs := machinetest.PartitionedStick(t, r,
		layout.Partition{Number: 1, Start: layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeStick, UUID: machine.NewIDs().UUID(),
			Role:   layout.ESP,
			FSUUID: "0000-0001", FSLabel: layout.StickLabel},
		layout.Partition{Number: 2, Start: 200 * layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeData, UUID: machine.NewIDs().UUID(),
			Role:   layout.ESP,
			FSUUID: "0000-0002", FSLabel: layout.BundleLabel})
	r.Start(nil)
	u := onRig(t, r)
	p := withPerson(u, map[string][]panel.Key{"Menu": choose(5)})
	u.person.Wanted = true
	u.m.Panel.Add("reader", script.Reader{Panel: &script.Panel{}})
	if out := u.pass(t.Context()); out.Kind != job.DecideAgain || !u.person.Wanted {
		t.Errorf("%+v, the menu comes again: %t; shown %+v", out, u.person.Wanted, p.Last())
	}
	list, err := os.ReadDir(dirs[1])
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Name(), machinetest.Serial) {
		t.Errorf("on the stick: %v, %v; shown %+v", list, err, p.Last().Problem)
	}
	if slices.ContainsFunc(r.Written(), func(name string) bool { return strings.HasPrefix(name, "vd") }) {
		t.Errorf("written to: %q", r.Written())
	}
}

// TestHoldLetsGo: a unit that holds has nothing mounted, says why, and shows the menu when a person has read that.
func TestHoldLetsGo(t *testing.T) {
	r := provisioned(t, twoDisks)
	onVolume(t, r, func(v *state.Volume) error { return os.Remove(v.Path(state.ImageDir, machinetest.Original+".upd")) })
	r.Start(nil)
	u := onRig(t, r)
	u.m.Policy.GraceSeconds = 1
	p := script.Reader{Panel: &script.Panel{}}
	u.m.Panel.Add("script", p)
	out := u.pass(t.Context())
	if out.Kind != job.HoldOn || fault.Of(out.Err) != fault.NoImage {
		t.Fatalf("%+v", out)
	}
	u.memory.Replayed = map[string]error{"/dev/another": nil}
	before := u.memory.Since
	u.finish(t.Context(), out)
	if p.Last().Problem == nil || !u.person.Held || !u.person.Wanted || !u.memory.Since.After(before) || len(u.memory.Replayed) > 0 {
		t.Errorf("shown %+v, the person %+v, the memory %+v", p.Last(), u.person, u.memory)
	}
	for _, dir := range []string{u.m.Places.Recovery, u.m.Places.Main} {
		if mounted, err := u.m.Mounted(dir); err != nil || mounted {
			t.Errorf("%s stays mounted: %v", dir, err)
		}
	}
	var listed []os.DirEntry
	u.look(t.Context())
	if err := u.volume.View(func(v *state.Volume) (err error) { listed, err = os.ReadDir(v.Path(state.LogDir)); return err }); err != nil {
		t.Errorf("the volume cannot be used after that: %v", err)
	}
	if len(listed) == 0 {
		t.Error("no log is kept of what was tried")
	}
}

// TestShellSession: the recovery shell opens to the unit's password, counts a wrong one on the recovery volume, and ends as a person wants.
func TestShellSession(t *testing.T) {
	const prompt, shellPrompt = "password of this unit, or nothing to answer the challenge", "recovery shell"
	typed := func(text string) []panel.Key {
		var keys []panel.Key
		for _, c := range []byte(text) {
			keys = append(keys, panel.Key(c))
		}
		return append(keys, panel.KeyEnter)
	}
	for last, want := range map[string]job.Kind{"exit": job.DecideAgain, "reboot": job.RebootNow, "poweroff": job.PowerOffNow} {
		t.Run(last, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			hash, err := sysroot.HashPassword("correct")
			if err != nil {
				t.Fatal(err)
			}
			onVolume(t, r, func(v *state.Volume) error { return v.WriteHash(hash) })
			volume := onRig(t, r).look(t.Context()).Unit.Recovery.Table.Find(layout.Recovery).FSUUID
			failed := func() int {
				n, err := state.Open(r.Volume(volume)).ReadTries()
				if err != nil {
					t.Error(err)
				}
				return n.Failed
			}
			r.Start(nil)
			u := onRig(t, r)
			u.m.Policy.Shell, u.m.Policy.GraceSeconds = true, 1
			lines := map[string][]string{prompt: {"wrong", "correct"}, shellPrompt: {"facts", "images", last}}
			u.m.Panel.Add("script", &script.Panel{Answer: func(a panel.Asked) []panel.Key {
				if a.Title == "Menu" {
					return choose(6)
				}
				if len(lines[a.Title]) == 0 {
					t.Errorf("asked once more: %q", a.Title)
					return []panel.Key{panel.KeyCancel}
				}
				line := lines[a.Title][0]
				lines[a.Title] = lines[a.Title][1:]
				if line == "correct" {
					if n := failed(); n != 1 {
						t.Errorf("%d wrong passwords are counted", n)
					}
				}
				return typed(line)
			}})
			u.person.Wanted = true
			if out := u.pass(t.Context()); out.Kind != want {
				t.Fatalf("%+v", out)
			}
			if n := failed(); n != 0 {
				t.Errorf("after the right one %d wrong passwords are counted", n)
			}
			opened := slices.ContainsFunc(u.journal.Records(), func(r journal.Record) bool {
				return r.Message == "recovery shell opened" && strings.Contains(r.Text(), "the unit's password")
			})
			if !opened {
				t.Error("the log does not say that the shell was opened, and by what")
			}
			if slices.ContainsFunc(u.journal.Records(), func(r journal.Record) bool { return strings.Contains(r.Text(), "correct") }) {
				t.Error("the password is in the log")
			}
		})
	}
}

// stickWithImage plugs in a recovery stick with an image for the unit.
func stickWithImage(t *testing.T, r *machinetest.Rig) {
	t.Helper()
	putImage(t, machinetest.Stick(t, r, layout.TypeStick), layout.EmergencyPrefix)
}

// TestRebuildIsAsked: a new recovery device is made the unit's after a yes, from the recovery stick, and left alone after a no.
func TestRebuildIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		answer []panel.Key
		want   decide.RecoveryState
	}{
		"yes": {yes(), decide.RecoveryFound},
		"no":  {no(), decide.RecoveryMissing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			r.Replace("vda", "A NEW ONE")
			stickWithImage(t, r)
			r.Start(nil)
			u := onRig(t, r)
			u.key = state.NewKey()
			p := withPerson(u, map[string][]panel.Key{"Menu": choose(6), "Rebuild recovery": c.answer})
			u.person.Wanted = true
			if out := u.pass(t.Context()); out.Kind != job.DecideAgain {
				t.Fatalf("%+v; shown %+v", out, p.Last())
			}
			if u.person.Wanted != (name == "no") {
				t.Errorf("the menu comes again: %t", u.person.Wanted)
			}
			if name == "no" && len(r.Written()) > 0 {
				t.Errorf("after a no %q are written to", r.Written())
			}
			u.die(t)
			r.Start(nil)
			next := onRig(t, r)
			f := next.look(t.Context())
			if f.Recovery != c.want || f.Recovery == decide.RecoveryFound && (f.Main != decide.MainMarked ||
				f.Mark.Release != machinetest.Original) {
				t.Errorf("found %s, and %s of %s; shown %+v; notes %q", f.Recovery, f.Main, f.Mark.Release, p.Last(), f.Notes)
			}
		})
	}
}

// TestUnusableMedium: a stick whose image is none is told, once, and the unit starts.
func TestUnusableMedium(t *testing.T) {
	r := restored(t)
	dir := machinetest.Stick(t, r, layout.TypeLinux)
	if err := os.WriteFile(filepath.Join(dir, layout.EmergencyPrefix+"nonsense.upd"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Start(nil)
	u := onRig(t, r)
	p := script.Reader{Panel: &script.Panel{}}
	u.m.Panel.Add("reader", p)
	u.m.Policy.GraceSeconds = 1
	if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
		t.Errorf("%+v", out)
	}
	told := 0
	for _, rec := range u.journal.Records() {
		if rec.Message == "emergency medium refused" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("it is told %d times", told)
	}
}

// worn returns a machine whose newer system did not start well three times.
func worn(t *testing.T) *machinetest.Rig {
	t.Helper()
	r := restored(t)
	request, err := state.NewRequest(state.KindRestore, state.Latest, "a person", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	onVolume(t, r, func(v *state.Volume) error {
		putImage(t, v.Path(state.ImageDir), "")
		return v.WriteRequest(request)
	})
	boots(t, r) // the newer one is installed
	onVolume(t, r, func(v *state.Volume) error {
		c, err := v.ReadCounts()
		c.BootAttempts = 3
		return errors.Join(err, v.WriteCounts(c))
	})
	return r
}

// TestGoesBack: a system that did not start well as often as the policy allows makes room for the one before, which is not tried again by
// itself.
func TestGoesBack(t *testing.T) {
	r := worn(t)
	r.Start(nil)
	u := onRig(t, r)
	u.m.Policy.FailedBoots = 3
	if f := u.look(t.Context()); f.Mark.Release != other || f.Previous != machinetest.Original+".upd" {
		t.Fatalf("%s is installed, and %q the one to go back to; notes %q", f.Mark.Release, f.Previous, f.Notes)
	}
	if out := u.pass(t.Context()); out.Kind != job.RebootNow {
		t.Fatalf("%+v", out)
	}
	u.die(t)
	r.Start(nil)
	next := onRig(t, r)
	next.m.Policy.FailedBoots = 3
	f := next.look(t.Context())
	if f.Mark.Release != machinetest.Original || decide.Decide(f.Facts, next.m.Policy).Job != decide.Boot {
		t.Errorf("%s is installed; %s", f.Mark.Release, decide.Decide(f.Facts, next.m.Policy))
	}
	if err := next.volume.View(func(v *state.Volume) error {
		h, err := v.History()
		if h.Check(other) {
			t.Error("nothing says that the newer one does not start")
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestGoesBackInVain: where the image to go back to turns out to be bad, the installed system starts in the same boot, and nothing is
// mounted before that.
func TestGoesBackInVain(t *testing.T) {
	r := worn(t)
	onVolume(t, r, func(v *state.Volume) error {
		return os.WriteFile(v.Path(state.ImageDir, machinetest.Original+".upd"), imagetest.XZ(t, []byte("no archive")), 0o600)
	})
	r.Start(nil)
	u := onRig(t, r)
	u.m.Policy.FailedBoots = 3
	if out := u.pass(t.Context()); out.Kind != job.DecideAgain {
		t.Fatalf("%+v", out)
	}
	for _, dir := range []string{u.m.Places.Recovery, u.m.Places.Main} {
		if mounted, err := u.m.Mounted(dir); err != nil || mounted {
			t.Errorf("%s stays mounted: %v", dir, err)
		}
	}
	if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
		t.Errorf("%+v", out)
	}
	u.die(t)
}

// TestForcedRestore: what a person chose in the boot menu is restored, and asked for on the recovery volume, as if it had been chosen here.
func TestForcedRestore(t *testing.T) {
	r := restored(t)
	onVolume(t, r, func(v *state.Volume) error { putImage(t, v.Path(state.ImageDir), ""); return nil })
	r.Start(nil)
	u := onRig(t, r)
	u.args.Forced, u.m.Policy.ForcedRestore = true, policy.ForcedRestoreUnattended
	if out := u.pass(t.Context()); out.Kind != job.RebootNow {
		t.Fatalf("%+v", out)
	}
	u.die(t)
	r.Start(nil)
	if f := onRig(t, r).look(t.Context()); f.Mark.Release != other || f.Main != decide.MainMarked {
		t.Errorf("%s of %s is installed; notes %q", f.Main, f.Mark.Release, f.Notes)
	}
}

// TestRemembers: what the outcome of a job says of the unit counts in later passes of the boot.
func TestRemembers(t *testing.T) {
	u := onRig(t, machinetest.NewUnit(t, twoDisks))
	own := u.key
	u.rememberOutcome(t.Context(), job.Outcome{})
	if u.person.Wanted || u.memory.Answered != nil || u.memory.BackFailed || !u.key.Equal(own) || u.checks != 0 {
		t.Errorf("of nothing it remembers %+v", u.memory)
	}
	key := state.NewKey()
	u.rememberOutcome(t.Context(), job.Outcome{Menu: true, Answered: "0123", Why: "nobody wants it", Key: key, Checks: 1})
	u.rememberOutcome(t.Context(), job.Outcome{Answered: "4567", Why: "it is bad", BackFailed: true, Checks: 1})
	m := u.memory
	if !u.person.Wanted || m.Answered["0123"] != "nobody wants it" || m.Answered["4567"] != "it is bad" || !m.BackFailed {
		t.Errorf("the menu: %t; it remembers %+v", u.person.Wanted, m)
	}
	if e := u.env(); !e.Key.Equal(key) || e.Checks != 2 {
		t.Errorf("a job gets the key: %t, and %d checks", e.Key.Equal(key), e.Checks)
	}
}
