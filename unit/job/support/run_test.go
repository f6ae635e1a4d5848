package support

import (
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel/script"
)

// TestNoBundle: without a recovery stick nothing is written anywhere, the person is told why, and the menu comes again.
func TestNoBundle(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	machinetest.Provision(r, machinetest.Machine(r))
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	screen := script.Reader{Panel: &script.Panel{}}
	e.Machine.Panel.Add("script", screen)
	if out := Run(t.Context(), e, f); out.Kind != job.DecideAgain || !out.Menu {
		t.Errorf("%+v", out)
	}
	if p := screen.Last().Problem; p == nil || p.Code != fault.NoBundle.Code {
		t.Errorf("shown %+v", p)
	}
	if w := r.Written(); len(w) > 0 {
		t.Errorf("written to: %q", w)
	}
}
