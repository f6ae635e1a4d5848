package shell

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"gprovision/model/layout"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// TestInspections: what the recovery shell shows of a unit.
func TestInspections(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	machinetest.Provision(r, machinetest.Machine(r))
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	e.Machine.Log.Info("a record of this boot")
	good, odd := state.Counts{BootAttempts: 3, Repairs: 2, Restores: 7}, f.Names.ImagePrefix+"2026-11-30.0001.upd"
	err := e.Volume.Change(func(v *state.Volume) error {
		return errors.Join(v.WriteCounts(good), os.WriteFile(v.Path(state.ImageDir, odd), []byte("no image"), 0o600),
			os.WriteFile(v.Path(state.ImageDir, "odd.upd"), nil, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	o, system := opened{e, f}, opened{e, f}.system()
	var out bytes.Buffer
	for _, i := range system.Inspections {
		if err := i.Run(t.Context(), &out, nil); err != nil {
			t.Errorf("%s: %v", i.Name, err)
		}
	}
	for _, want := range []string{"recovery volume: found", "main system: blank", "request pending: true", "medium: none",
		"without the shell: restore", "serial number " + machinetest.Serial, "boots since the last good one 3, repairs 2, restores 7",
		"  G205: ", "refused  odd.upd: ",
		"request: restore of image latest", machinetest.Original + " (original)", "a record of this boot"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not shown:\n%s", want, &out)
		}
	}
	disks, err := system.Disks()
	if err != nil {
		t.Fatal(err)
	}
	if i, err := system.Probe(f.RecoveryPart.Path); err != nil || i.Label != e.Machine.Site.Names.Recovery {
		t.Errorf("on %s of %d disks: %+v, %v", f.RecoveryPart.Path, len(disks), i, err)
	}

	if i, err := system.Probe("/dev/none"); err == nil {
		t.Errorf("on a disk that is not there: %+v", i)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sleep(ended, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that is stopped: %v", err)
	}

	f.Recovery = "missing"
	out.Reset()
	err = errors.Join(o.unit(t.Context(), &out, nil), o.images(t.Context(), &out, nil))
	if err == nil || strings.Contains(out.String(), "boots since") || !strings.Contains(out.String(), "the recovery volume is not there") {
		t.Errorf("without a recovery volume: %v\n%s", err, &out)
	}
}
