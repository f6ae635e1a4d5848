package erase

import (
	"context"
	"fmt"

	"gprovision/model/erasure"
	"gprovision/unit/job/erase/engine"
	"gprovision/unit/journal"
	"gprovision/unit/person"
	"gprovision/unit/state"
)

// unlock asks for the PSID of a drive that is locked, as long as it is and a person types one, and erases the drive by it. It returns what
// came of it last; at first that is result. The PSID is kept nowhere: whoever takes the erase up after a power cut asks again.
func unlock(ctx context.Context, j *erasing, i int, d *desk, result erasure.Drive) (erasure.Drive, error) {
	m := j.env.Machine
	for result.Evidence.Locked && !d.p.shares() {
		psid, err := person.AskPSID(ctx, m.Panel, fmt.Sprintf("%s (%s %s)", result.Name, result.Model, result.Serial))
		if err != nil || psid == "" {
			return result, err
		}
		m.Log.Info("a person has typed the PSID of a locked drive", "disk", result.Name, "serial", result.Serial, journal.ForPerson())
		if err := j.book.change(func(v *state.Volume) error { return again(v, i) }); err != nil {
			return result, err
		}
		if result, err = j.engine(ctx, i, d, psid); err != nil {
			return result, err
		}
		if result.Evidence.Locked {
			m.Panel.Message("The drive is still locked. Compare the PSID with the label.")
		}
	}
	return result, nil
}

// again has the erase of a drive begin anew, of which it is known what it was before and what was sent to it.
func again(v *state.Volume, i int) error {
	s, err := readState(v, i)
	if err != nil {
		return err
	}
	return writeJSON(v, stateFile(i), engine.State{Announced: s.Announced, Password: s.Password, Commands: s.Commands, Unfrozen: s.Unfrozen})
}
