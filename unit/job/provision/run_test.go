package provision

import (
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// TestRunWithoutNetwork: a unit that is to be provisioned again and has no network holds, says why, and is what it was, with its own names.
func TestRunWithoutNetwork(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	machinetest.Provision(r, machinetest.Machine(r))
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	names := e.Machine.Site.Names
	e.Survey.Names = names.Of(naming.Names{RecoveryLabel: "ACMEREC"})
	out := Run(t.Context(), e, f)
	if out.Kind != job.HoldOn || fault.Of(out.Err) != fault.NoNetwork || out.Key != nil || out.Checks != 0 {
		t.Errorf("%+v", out)
	}
	heard := machinetest.Heard(t, e.Queue)
	if last := heard[len(heard)-1]; heard[0].Phase != record.Started || last.Phase != record.Failed || last.Code != fault.NoNetwork.Code {
		t.Errorf("the server hears %+v", heard)
	}
	if w := r.Written(); len(w) > 0 {
		t.Errorf("written to are %s", w)
	}
	if e.Machine.Site.Names != names {
		t.Errorf("the unit's names are %+v", e.Machine.Site.Names)
	}
}

// TestBefore: a provisioning knows that somebody uses the unit, so that a person has to want it, and which manifests the unit has used, so
// that it obeys no older one.
func TestBefore(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	machinetest.Provision(r, machinetest.Machine(r))
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	used := state.Manifests{}.Used("WIDGET", "7")
	if err := state.Open(r.Volume(f.Unit.Recovery.Table.Find(layout.Recovery).FSUUID)).WriteManifests(used); err != nil {
		t.Fatal(err)
	}
	if o := before(e, f); o.HasRecovery || o.Manifests.Check("WIDGET", "6") == nil || o.Manifests.Check("WIDGET", "7") != nil {
		t.Errorf("never restored: %+v", o)
	}
	f.Main, f.Request = decide.MainMarked, nil
	if o := before(e, f); !o.HasRecovery || o.Manifests.Check("WIDGET", "6") == nil {
		t.Errorf("in use: %+v", o)
	}
	bare := &survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryMissing, Main: decide.MainBlank}}
	if o := before(e, bare); o.HasRecovery || o.Manifests.Check("WIDGET", "1") != nil {
		t.Errorf("a bare machine: %+v", o)
	}
}
