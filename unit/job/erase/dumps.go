package erase

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"gprovision/hw/efi"
	"gprovision/model/erasure"
	"gprovision/model/layout"
	"gprovision/model/step"
	"gprovision/unit/journal"
)

func dumpsStep(j *erasing) step.Step {
	return step.Step{Name: "clear-dumps", Say: "Clearing dumps", Run: func(context.Context) error { return clearDumps(j) }}
}

// clearDumps removes what crashes of the installed system have left in variables of the firmware: the end of the kernel's log, with what
// the customer's programs did. Nothing else that the unit writes there is a customer's: boot entries stay. Whatever it does, the erase goes
// on.
func clearDumps(j *erasing) error {
	m := j.env.Machine
	if m.Firmware != layout.UEFI {
		return nil
	}
	names, err := m.Vars.Names(efi.CrashDumps)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0 {
		return nil
	}
	part := erasure.Part{Name: "crash dumps of the kernel in variables of the firmware"}
	for _, name := range names {
		err = errors.Join(err, m.Vars.Delete(name, efi.CrashDumps))
	}
	part.Told = err == nil
	part.Commands = []erasure.PartCommand{sent(fmt.Sprintf("delete %d variables", len(names)), err, "good")}
	left, err := m.Vars.Names(efi.CrashDumps)
	found := erasure.FoundGone
	switch {
	case err != nil:
		found = erasure.FoundUnknown
	case len(left) > 0:
		found = erasure.FoundLeft
	}
	part.Seen = []erasure.Sight{{What: "variables", Found: found}}
	part = part.Judged()
	m.Log.Info("crash dumps", "variables", len(names), "state", string(part.State), journal.ForPerson())
	return j.note(func() { j.entry.Dumps = &part })
}
