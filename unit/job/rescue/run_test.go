package rescue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
)

// plugIn plugs in a recovery stick with the image of d, and returns where its content is.
func (d *dead) plugIn(t *testing.T) string {
	t.Helper()
	dir := machinetest.Stick(t, d.Rig, layout.TypeStick)
	for _, suffix := range []string{"", ".minisig"} {
		b, err := os.ReadFile(d.im.Path + suffix)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, layout.EmergencyPrefix+fresh+".upd"+suffix), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d.Start(nil)
	return dir
}

// TestRun: without a stick, without a plan, with a bad image or against the will of the person nothing is written, and the menu comes
// again. After a yes the volume is the unit's, and the stick has been answered for.
func TestRun(t *testing.T) {
	yes, no := []panel.Key{panel.KeyDown, panel.KeyEnter}, []panel.Key{panel.KeyEnter}
	none := func(*testing.T, *dead, string) {}
	for name, c := range map[string]struct {
		stick  bool
		change func(t *testing.T, d *dead, dir string)
		answer []panel.Key
		says   string // "": nothing is wrong
		done   bool
	}{
		"no stick":  {false, none, yes, "no recovery stick has an image", false},
		"no system": {true, func(_ *testing.T, d *dead, _ string) { d.Remove("vdb") }, yes, "nothing of the unit is left", false},
		"a damaged image": {true, func(t *testing.T, _ *dead, dir string) {
			name := filepath.Join(dir, layout.EmergencyPrefix+fresh+".upd")
			b, err := os.ReadFile(name)
			if err == nil {
				b[len(b)/2] ^= 1
				err = os.WriteFile(name, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, yes, fresh, false},
		"no":  {true, none, no, "", false},
		"yes": {true, none, yes, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDead(t, machinetest.Kind{Firmware: layout.UEFI})
			dir := ""
			if c.stick {
				dir = d.plugIn(t)
			}
			c.change(t, d, dir)
			m := d.machine()
			e, f := jobtest.Look(t, m)
			asked := 0
			p := script.Reader{Panel: &script.Panel{Answer: func(a panel.Asked) []panel.Key {
				asked++
				if a.Title != "Rebuild recovery" || !strings.Contains(a.Text, "vda") {
					t.Errorf("a person is asked %+v", a)
				}
				return c.answer
			}}}
			m.Panel.Add("person", p)
			out := Run(t.Context(), e, f)
			if out.Kind != job.DecideAgain || out.Menu == c.done || out.Err != nil || (out.Answered != "") != c.done {
				t.Errorf("%+v", out)
			}
			i := slices.IndexFunc(p.Views(), func(v panel.View) bool { return v.Problem != nil })
			if (i >= 0) != (c.says != "") {
				t.Errorf("shown is %+v", p.Views())
			}
			told := slices.ContainsFunc(e.Journal.Records(), func(r journal.Record) bool {
				return strings.Contains(r.Text(), "recovery volume is not rebuilt") && strings.Contains(r.Text(), c.says) &&
					strings.Contains(r.Text(), fault.NoRebuild.Code)
			})
			if told != (c.says != "") {
				t.Errorf("told is %t of %q", told, c.says)
			}
			if (asked == 1) != (c.says == "") || len(d.Written()) > 0 != c.done {
				t.Errorf("asked %d times, written to are %s", asked, d.Written())
			}
			if n := d.mountedAt(t, m); n != "" {
				t.Errorf("%s stays mounted", n)
			}
			u := d.record(t)
			if (u != nil) != c.done {
				t.Fatalf("the record is %+v", u)
			}
			if c.done && out.Answered != f.Media[0].Files[0].ID {
				t.Errorf("answered is %q", out.Answered)
			}
		})
	}
}

// mountedAt returns a place of the machine where something is mounted, or "".
func (d *dead) mountedAt(t *testing.T, m *machine.Machine) string {
	t.Helper()
	for _, dir := range []string{m.Places.Main, m.Places.Recovery} {
		if on, err := m.Mounted(dir); on || err != nil {
			return dir
		}
	}
	left, err := os.ReadDir(m.Places.Medium) // a medium that is mounted has a directory of its own there
	if len(left) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		return m.Places.Medium
	}
	return ""
}

// TestKeepsLog: what was logged before the volume was there is on it afterwards, but for what only passes by.
func TestKeepsLog(t *testing.T) {
	d := newDead(t, machinetest.Kind{Firmware: layout.UEFI})
	m := d.machine()
	plan, err := planRebuild(t.Context(), m, sticks)
	if err != nil {
		t.Fatal(err)
	}
	e := jobtest.Env(m)
	m.Log.Info("the first word")
	m.Log.Info("it passes by", journal.Passing())
	if err := plan.run(t.Context(), e, d.im); err != nil {
		t.Fatal(err)
	}
	u := d.record(t)
	files, err := filepath.Glob(filepath.Join(d.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID), state.LogDir, "rebuild*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil || !strings.Contains(string(b), "the first word") || strings.Contains(string(b), "it passes by") {
		t.Errorf("%s, %v", b, err)
	}
}

// TestAwaitsMembers: members of an array that are missing have the time of a normal boot to come; other units wait for nothing.
func TestAwaitsMembers(t *testing.T) {
	for name, c := range map[string]struct {
		kind  machinetest.Kind
		gone  string
		waits bool
	}{
		"a member is missing": {machinetest.Kind{Firmware: layout.BIOS, Mirror: true}, "vdc", true},
		"all are there":       {machinetest.Kind{Firmware: layout.BIOS, Mirror: true}, "", false},
		"no array":            {machinetest.Kind{Firmware: layout.BIOS}, "", false},
	} {
		d := newDead(t, c.kind)
		if c.gone != "" {
			d.Remove(c.gone)
			d.Start(nil)
		}
		e, _ := jobtest.Look(t, d.machine())
		e.Survey.Memory.Since = time.Now()
		waited := 0
		e.Await = func(_ context.Context, left time.Duration) error {
			if left <= 0 {
				t.Errorf("%s: waits for %s", name, left)
			}
			if waited++; waited == 3 {
				return errors.New("nothing comes any more")
			}
			return nil
		}
		awaitMembers(t.Context(), e)
		if want := map[bool]int{true: 3}[c.waits]; waited != want {
			t.Errorf("%s: waited %d times, want %d", name, waited, want)
		}
	}
}
