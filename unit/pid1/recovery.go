package pid1

import (
	"fmt"

	"gprovision/model/fault"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// adopt takes a damaged recovery volume whose filesystem was repaired as the unit's own, if its record says that it is. It returns that.
func (u *unit) adopt(part machine.Found) (rec state.Unit, err error) {
	info, _, err := u.m.ProbePartition(part.Path)
	if err == nil {
		err = u.putLostBack(part, info.UUID)
	}
	if err == nil {
		err = u.surveyor().Proves(part, info.UUID)
	}
	if err == nil {
		err = u.volume.View(func(v *state.Volume) (err error) { rec, err = v.ReadUnit(); return err })
	}
	if err != nil {
		return rec, fault.Because(fault.RecoveryDamaged, fmt.Errorf("after the repair of %s: %w", part.Path, err))
	}
	return rec, nil
}

// putLostBack gives the unit's record its name again if the repair has found it without one.
func (u *unit) putLostBack(p machine.Found, fsUUID string) error {
	return u.volume.Change(func(v *state.Volume) error {
		names, err := v.PutLostBack(u.surveyor().RecordFits(p, fsUUID))
		if len(names) > 0 {
			u.log.Warn("files of the recovery volume had lost their names and have them again", "partition", p.Path, "files", names)
		}
		return err
	})
}
