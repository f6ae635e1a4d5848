package pid1

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// lostRecovery says whether a partition that does not carry a recovery volume did so once and may do so again: its first superblock is
// lost, and the copy that a repair takes has the label of one: that of the artifact, or of the Site before that. In a GPT the partition has that name too. One that cannot be read at all
// is noted, and is no candidate: nothing is known of it.
func (u *unit) lostRecovery(f *Found, p machine.Found) bool {
	for _, label := range slices.Compact([]string{u.m.Site.Names.Recovery, cmp.Or(u.siteLabel, u.m.Site.Names.Recovery)}) {
		if u.lostWith(f, p, label) {
			return true
		}
	}
	return false
}

func (u *unit) lostWith(f *Found, p machine.Found, label string) bool {
	if p.Table.Kind == layout.GPT && p.Partition.Name != label {
		return false
	}
	lost, err := u.m.LostExt4(p.Path, label)
	if err != nil {
		f.note("recovery: %s cannot be read: %v", p.Path, err)
		return false
	}
	if lost {
		f.note("recovery: the superblock of %s is lost", p.Path)
	}
	return lost
}

// judgeDamaged is for a recovery volume that cannot be read. Its filesystem can be repaired if it is clear which partition it is. One whose
// record is merely newer than this init is not damaged. After a boot that the watchdog ended none is tried: a device that hangs must not
// keep a complete system from starting. Which unit it belongs to is seen after the repair, from its record.
func (u *unit) judgeDamaged(f *Found, damaged []machine.Found) {
	f.Recovery = decide.RecoveryDamaged
	if len(damaged) != 1 {
		f.note("recovery: %d partitions could be the damaged one: none is repaired", len(damaged))
		return
	}
	f.RecoveryPart = &damaged[0]
	switch {
	case f.newer:
		f.Recovery = decide.RecoveryNewer
	case u.dog.fact.Expired:
		f.note("recovery: %s is not repaired in this boot: a watchdog ended the one before", damaged[0].Path)
	default:
		f.RecoveryRepairable = true
	}
}

// adopt takes a damaged recovery volume whose filesystem was repaired as the unit's own, if its record says that it is. It is not
// mounted afterwards.
func (u *unit) adopt(f *Found) error {
	info, _, err := u.m.ProbePartition(f.RecoveryPart.Path)
	if err != nil {
		return err
	}
	err = u.putLostBack(*f.RecoveryPart, info.UUID)
	if err == nil {
		err = u.provesRecovery(*f.RecoveryPart, info.UUID)
	}
	if err == nil {
		err = u.m.Unmount(u.m.Places.Recovery)
	}
	if err != nil {
		return fault.Because(fault.RecoveryDamaged, fmt.Errorf("after the repair of %s: %w", f.RecoveryPart.Path, err))
	}
	f.Recovery, f.Volume = decide.RecoveryFound, state.Open(u.m.Places.Recovery)
	return nil
}

// putLostBack gives the unit's record its name again if the repair has found it without one.
func (u *unit) putLostBack(p machine.Found, fsUUID string) error {
	if err := u.mountVolume(p.Path, false); err != nil {
		return err
	}
	names, err := state.Open(u.m.Places.Recovery).PutLostBack(u.recordFits(p, fsUUID))
	if len(names) > 0 {
		u.log.Warn("files of the recovery volume had lost their names and have them again", "partition", p.Path, "files", names)
	}
	return errors.Join(err, u.m.Unmount(u.m.Places.Recovery))
}
