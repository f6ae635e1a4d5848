package pid1

import (
	"io/fs"
	"log/slog"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
)

// TestChoiceCountsOnce: what was chosen in one pass does not decide the next one.
func TestChoiceCountsOnce(t *testing.T) {
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Sys: fstest.MapFS{"block": {Mode: fs.ModeDir}},
		Firmware: layout.BIOS}
	m.Doors = machine.Real(m.Log, m.Sys, nil)
	u := newUnit(m, offRig(t), journal.New(journal.Options{}))
	u.modules = noModules(t)
	u.memory.Since, u.memory.Choice = time.Now().Add(-time.Hour), decide.Choice{Kind: decide.ChoosePowerOff}
	if out := u.pass(t.Context()); out.Kind != job.HoldOn || fault.Of(out.Err) != fault.MainMissing {
		t.Errorf("got %+v", out)
	}
}
