package restore

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
)

// TestGoBackFails: where the image to go back to is gone, init starts what is installed all the same, which is noted as bad, and destroys
// nothing.
func TestGoBackFails(t *testing.T) {
	r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	if _, err := r.restore(nil); err != nil {
		t.Fatal(err)
	}
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
	f.Previous, f.Attempts = earlier+".upd", 3
	out := GoBack(t.Context(), e, f)
	for _, dir := range []string{state.LogDir, state.QueueDir} {
		if kept, err := os.ReadDir(filepath.Join(e.Machine.Places.Recovery, dir)); err != nil || len(kept) == 0 {
			t.Errorf("%s keeps nothing: %v", dir, err)
		}
	}
	jobtest.End(t, e)
	if !reflect.DeepEqual(out, job.Outcome{Kind: job.DecideAgain, BackFailed: true}) {
		t.Errorf("%+v", out)
	}
	r.onVolume(func(v *state.Volume) error {
		h, err := v.History()
		if h.Check(machinetest.Original) {
			t.Error("nothing says that the installed one does not start")
		}
		return err
	})
	if _, mark := r.system(); mark.Release != machinetest.Original {
		t.Errorf("the mark is %+v", mark)
	}
}

// TestChosenIsTakenUp: what a person chose is asked for on the recovery volume before the main disk is written to, so that a power cut does
// not make another restore of it.
func TestChosenIsTakenUp(t *testing.T) {
	r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	if _, err := r.restore(nil); err != nil {
		t.Fatal(err)
	}
	r.Start(func(_ int, call string) error {
		if strings.HasPrefix(call, "write /dev/vdb") {
			return machinetest.ErrCut
		}
		return nil
	})
	e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
	f.Choice = decide.Choice{Kind: decide.ChooseOriginal}
	if out := Run(t.Context(), e, f); out.Kind != job.HoldOn {
		t.Errorf("%+v", out)
	}
	_, _ = e.Journal.Detach(t.Context(), "file"), e.Queue.Release() // the power is off
	r.Start(nil)
	if _, f = jobtest.Look(t, machinetest.Machine(r.Rig)); f.Request == nil || f.Request.Image != state.Original {
		t.Errorf("asked for is %+v", f.Request)
	}
}

// TestBadMedium: an image of a medium that turns out not to be good is told, changes nothing, and is left alone from then on.
func TestBadMedium(t *testing.T) {
	r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	if _, err := r.restore(nil); err != nil {
		t.Fatal(err)
	}
	m := machinetest.Machine(r.Rig)
	path := r.AddDisk(block.Disk{Name: "sdb", Bus: block.USB, Removable: true, Size: layout.GiB})
	part := layout.Partition{Number: 1, Start: layout.MiB, Size: 200 * layout.MiB, Type: layout.TypeLinux, UUID: machine.NewIDs().UUID(),
		Role: layout.Data, FSUUID: machine.NewIDs().UUID(), FSLabel: "STICK"}
	table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: []layout.Partition{part}}
	err := m.WriteTable(path, table)
	if err == nil {
		err = m.Format(t.Context(), path, table, []layout.Role{layout.Data})
	}
	file := filepath.Join(r.Volume(part.FSUUID), layout.EmergencyPrefix+later+".upd")
	content := imagetest.XZ(t, imagetest.System(t, later))
	if err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
	if f.Medium != decide.MediumOffered {
		t.Fatalf("found %q; notes %q", f.Medium, f.Notes)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	screen := script.Reader{Panel: &script.Panel{}}
	e.Machine.Panel.Add("script", screen)
	out := FromMedium(t.Context(), e, f)
	if !reflect.DeepEqual(out, job.Outcome{Kind: job.DecideAgain, Answered: f.OfferFile.ID, Why: "it cannot be used"}) {
		t.Errorf("%+v", out)
	}
	if err := e.Machine.Panel.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := screen.Last().Problem; p == nil || p.Code != fault.MediumUnusable.Code {
		t.Errorf("shown %+v", p)
	}
	if w := r.Written(); len(w) > 0 {
		t.Errorf("written to are %s", w)
	}
	if left, err := os.ReadDir(e.Machine.Places.Medium); err != nil || len(left) > 0 {
		t.Errorf("mounted stays %v, %v", left, err)
	}
}
