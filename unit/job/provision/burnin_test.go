package provision

import (
	"slices"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/step"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
)

// TestBurnIn: the burn-in is the last step before the first that clears, its lines stand behind those of the hardware check, and what fails
// it ends the job. Without being asked for it is nothing.
func TestBurnIn(t *testing.T) {
	steps := (&provisioning{}).steps()
	at := func(name string) int {
		return slices.IndexFunc(steps, func(s step.Step) bool { return s.Name == name })
	}
	if at("burn-in") != at("clear-main")-1 || at("burn-in") != at("check-server")+1 {
		t.Errorf("the steps are %v", steps)
	}
	for name, tc := range map[string]struct {
		disks string
		ends  string // what the disk has at its end
		want  *fault.Fault
		lines string
		wrong string
	}{
		"not asked for":              {"", "x", nil, "", ""},
		"read":                       {manifest.BurnRead, "x", nil, "burn-in disk vda", ""},
		"written":                    {manifest.BurnWrite, "\x00", nil, "burn-in disk vda, read back", ""},
		"to be written, and not so ": {manifest.BurnWrite, "x", fault.BurnInFailed, "burn-in disk vda", "burn-in disk vda"},
	} {
		t.Run(name, func(t *testing.T) {
			j, _ := testJob(t, policy.Policy{})
			r := machinetest.New(t)
			path := r.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Size: 20 * layout.MiB})
			machinetest.Overwrite(t, path, 20*layout.MiB-1, []byte(tc.ends))
			_, sys := machinetest.Sysfs()
			j.Doors, j.Panel, j.Sys, j.env.Checks = r.Doors(), panel.New(), sys, 4
			j.plan.BurnIn.Disks = tc.disks
			var err error
			if j.plan.Main, err = j.Disks(); err != nil {
				t.Fatal(err)
			}
			if err := burnIn(t.Context(), j); fault.Of(err) != tc.want || (err == nil) != (tc.want == nil) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			lines := toldLines(t, j.env.Journal, "4")
			if got := wrong(lines); got != tc.wrong {
				t.Errorf("wrong are %q, want %q", got, tc.wrong)
			}
			has := slices.ContainsFunc(lines, func(l hardware.Line) bool { return l.Name == tc.lines })
			if (len(lines) > 0) != (tc.lines != "") || tc.lines != "" && !has {
				t.Errorf("got %+v", lines)
			}
			if writes := len(r.Written()) > 0; writes != (tc.disks == manifest.BurnWrite && tc.want == nil) {
				t.Errorf("%s are written", r.Written())
			}
		})
	}
}

// TestBurnInOfAUnit: a complete unit whose provisioning begins with writing its main disk is refused, with all that it has, and the plan
// says what was to be done.
func TestBurnInOfAUnit(t *testing.T) {
	g := newGoods(t)
	b := complete(t, g, machinetest.Kind{Firmware: layout.UEFI})
	u, _ := b.record(b.machine())
	b.obeys(func(m *manifest.Manifest) {
		m.BurnIn = []manifest.BurnIn{{DevCodeName: "VIRT", ProcessorMinutes: 60, Disks: manifest.BurnWrite}}
	}, "8")
	err := b.provision(nil)
	if fault.Of(err) != fault.BurnInFailed || !strings.Contains(err.Error(), "burn-in disk vdb") || b.destroys || len(b.Written()) > 0 {
		t.Errorf("got %v, written %s", err, b.Written())
	}
	if !b.marked(u) {
		t.Error("the old system is gone")
	}
	for _, want := range []string{"burn-in   all processors compute for 60 minutes",
		"burn-in   the main disks, which must be blank, are written"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, b.log)
		}
	}
}
