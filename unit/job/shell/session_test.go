package shell

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	keys "gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
	"gprovision/unit/volume"
)

// cancel is what a person types who gives up.
const cancel = "\x1b"

// sessionOf runs the shell before a person who types lines, on a machine as change has changed it. It returns the outcome and what was
// printed and logged.
func sessionOf(t *testing.T, r *machinetest.Rig, change func(*job.Env), fault func(call string) error,
	lines ...string) (job.Outcome, string) {
	t.Helper()
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	if change != nil {
		change(&e)
		if e.Volume == nil {
			f.Recovery, f.RecoveryPart = "missing", nil
		}
	}
	r.Fail(func(_ int, call string) error { return fault(call) })
	e.Machine.Panel.Add("console", &keys.Panel{Answer: func(panel.Asked) []panel.Key {
		if len(lines) == 0 || lines[0] == cancel {
			return []panel.Key{panel.KeyCancel}
		}
		var typed []panel.Key
		for _, c := range []byte(lines[0]) {
			typed = append(typed, panel.Key(c))
		}
		lines = lines[1:]
		return append(typed, panel.KeyEnter)
	}})
	var out strings.Builder
	e.Print = func(_, text string) { out.WriteString(text) }
	got := Run(t.Context(), e, f)
	r.Fail(nil)
	if on, err := e.Machine.Mounted(e.Machine.Places.Recovery); on || err != nil {
		t.Errorf("after the shell the recovery volume is mounted: %v", err)
	}
	for _, l := range e.Journal.Records() {
		out.WriteString(l.Text() + "\n")
	}
	return got, out.String()
}

// TestSession: only who has the password gets in; each try is counted on the recovery volume before it is looked at, so that one that
// cannot be counted is none; and the way out is what happens.
func TestSession(t *testing.T) {
	hash, err := sysroot.HashPassword("right")
	if err != nil {
		t.Fatal(err)
	}
	start := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	rec := machinetest.Provision(start, machinetest.Machine(start))
	part := rec.Recovery.Table.Find(layout.Recovery)
	change := func(t *testing.T, r *machinetest.Rig, do func(v *state.Volume) error) {
		t.Helper()
		r.Start(nil)
		m := machinetest.Machine(r)
		disk, err := m.RecoveryDisk(rec)
		if err == nil {
			err = volume.At(m, block.PartitionPath(disk.Path, part.Number)).Change(do)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change(t, start, func(v *state.Volume) error { return v.WriteHash(hash) })
	none := func(string) error { return nil }
	begins := func(with, ends string) func(call string) error {
		return func(call string) error {
			if strings.HasPrefix(call, with) && strings.HasSuffix(call, ends) {
				return syscall.EIO
			}
			return nil
		}
	}
	const opened, shut = "recovery shell opened", "recovery shell is not opened"
	for name, c := range map[string]struct {
		change func(*job.Env)
		fault  func(call string) error
		lines  []string
		want   job.Kind
		tries  int
		say    string
	}{
		"leaves":               {nil, none, []string{"right", "exit"}, job.DecideAgain, 0, opened},
		"reboots":              {nil, none, []string{"right", "unit", "reboot"}, job.RebootNow, 0, "serial number " + machinetest.Serial},
		"powers off":           {nil, none, []string{"right", "poweroff"}, job.PowerOffNow, 0, opened},
		"walks away":           {nil, none, []string{"right", cancel}, job.DecideAgain, 0, opened},
		"a wrong password":     {nil, none, []string{"wrong", cancel}, job.DecideAgain, 1, shut},
		"all tries were wrong": {nil, none, []string{"right", "exit"}, job.DecideAgain, MaxTries, shut},
		"nobody types":         {nil, none, nil, job.DecideAgain, 0, shut},
		"the try cannot be counted": {nil, begins("mount", "writable"), []string{"right", cancel}, job.DecideAgain, 0,
			"the try cannot be counted"},
		"the hash cannot be read": {nil, begins("mount", "read-only"), []string{"right", "exit"}, job.DecideAgain, 0, shut},
		"no recovery volume":      {func(e *job.Env) { e.Volume = nil }, none, []string{"right", "exit"}, job.DecideAgain, 0, shut},
		"support keys that are none": {func(e *job.Env) { e.Machine.Policy.SupportKeys = []string{"x"} }, none, []string{"right"}, job.HoldOn, 0,
			""},
	} {
		t.Run(name, func(t *testing.T) {
			r := start.Clone(t)
			if name == "all tries were wrong" {
				change(t, r, func(v *state.Volume) error { return v.WriteTries(c.tries) })
			}
			got, out := sessionOf(t, r, c.change, c.fault, c.lines...)
			if got.Kind != c.want || (got.Err != nil) != (c.want == job.HoldOn) {
				t.Errorf("it ends with %+v", got)
			}
			if !strings.Contains(out, c.say) || c.say == shut && strings.Contains(out, opened) {
				t.Errorf("said is:\n%s", out)
			}
			if tries, err := state.Open(r.Volume(part.FSUUID)).ReadTries(); err != nil || tries.Failed != c.tries {
				t.Errorf("wrong tries are %+v, %v", tries, err)
			}
		})
	}
}

// TestAddresses: the shell shows the state and the addresses of a port, and says that one is not there.
func TestAddresses(t *testing.T) {
	if all, err := addresses("lo"); err != nil || len(all) == 0 || !strings.Contains(all[0], "loopback") ||
		!slices.Contains(all, "127.0.0.1/8") {
		t.Errorf("lo: %q, %v", all, err)
	}
	if all, err := addresses("none0"); err == nil {
		t.Errorf("a port that is not there: %q", all)
	}
}
