package pid1

import (
	"io/fs"
	"log/slog"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
)

// TestChoiceCountsOnce: what was chosen in one pass does not decide the next one.
func TestChoiceCountsOnce(t *testing.T) {
	u := &unit{endJob: func() {}, log: slog.New(slog.DiscardHandler), m: &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Sys: fstest.MapFS{"block": {Mode: fs.ModeDir}}, Firmware: layout.BIOS}}
	u.m.Doors = machine.Real(u.log, u.m.Sys, nil)
	var err error
	if u.modules, err = host.NewModules(t.TempDir(), "none"); err != nil {
		t.Fatal(err)
	}
	u.person.Machine = u.m
	u.memory.Since, u.memory.Choice = time.Now().Add(-time.Hour), decide.Choice{Kind: decide.ChoosePowerOff}
	if out := u.pass(t.Context()); out.Kind != job.HoldOn || fault.Of(out.Err) != fault.MainMissing {
		t.Errorf("got %+v", out)
	}
}
