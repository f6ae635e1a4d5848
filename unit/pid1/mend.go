package pid1

import (
	"errors"
	"path/filepath"
	"strings"

	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// maxMends is how many boots in a row may repair what starts the unit. Firmware that undoes each repair, or a file that cannot be
// repaired, must not cost a write to flash memory and half a minute at every boot for ever. A restore begins anew.
const maxMends = 3

// mend repairs what starts the unit, before a complete system is handed over to. The firmware's entries are compared at each boot:
// that is cheap. The files on the main disk are compared only when this boot did not come from there although its system is complete;
// comparing them reads all of them. A recovery artifact that the running system fetched goes to the recovery device when the main disk
// is known to boot. No failure here keeps the unit from starting.
func (u *unit) mend(f *survey.Findings) {
	if u.m.Policy.Provision || f.Recovery != decide.RecoveryFound || f.Counts.Mends >= maxMends {
		return // another artifact's policy, no record to go by, or enough
	}
	vars := u.m.Vars
	fromMain := u.startedFromMain(vars)
	var change efi.Change
	var err, fileErr error
	if u.m.Firmware == layout.UEFI {
		change, err = u.m.EnsureEntries(vars, f.Unit)
	}
	if !fromMain {
		fileErr = u.mendMain(f)
	} else if f.Pending.RecoveryArtifact {
		fileErr = u.mendRecovery(f)
	}
	if err = errors.Join(err, fileErr); err != nil {
		u.log.Warn("what starts the unit cannot be repaired", "err", err)
	} else if !fromMain {
		u.log.Info("boot files of the main disk are right")
	}
	count := state.Counts.Mended
	if fromMain && change.Empty() && err == nil {
		if f.Counts.Mends == 0 {
			return
		}
		count = state.Counts.NotMended
	}
	if err := u.count(f.Unit, count); err != nil {
		u.log.Warn("repair of what starts the unit cannot be counted", "err", err)
	}
}

// startedFromMain says whether this boot came from the main disk's own boot entry.
func (u *unit) startedFromMain(vars *efi.Vars) bool {
	if u.m.Firmware == layout.UEFI {
		started, err := vars.Started()
		return err == nil && strings.HasPrefix(started, machine.NormalEntry) // each member of an array has an entry
	}
	return strings.Contains(u.m.Cmdline, "real_root=")
}

// mendMain makes the main disk boot its own system again.
func (u *unit) mendMain(f *survey.Findings) error {
	// On BIOS the files are on the main system itself.
	if err := u.m.Mount(f.MainPart.Path, u.m.Places.Main, "ext4", host.MountOptions{ReadOnly: u.m.Firmware == layout.UEFI}); err != nil {
		return err
	}
	artifact := filepath.Join(u.m.Places.Main, "boot", u.m.Site.Names.BootFile)
	_, err := machine.ReadArtifact(artifact)
	var disks []string
	if err == nil {
		disks, err = u.mainDisks(f)
	}
	if err == nil {
		err = u.m.PutMainArtifact(f.Unit, disks, u.m.Places.Main)
	}
	return errors.Join(err, u.m.Unmount(u.m.Places.Main))
}

// mendRecovery makes the recovery device boot the recovery artifact that the running system has put on the recovery volume.
func (u *unit) mendRecovery(f *survey.Findings) error {
	return u.volume.Change(func(v *state.Volume) error {
		if err := u.m.PutRecoveryArtifact(f.Unit, u.m.Places.Recovery); err != nil {
			return err
		}
		u.log.Info("the recovery device boots the fetched recovery artifact")
		p := f.Pending
		p.RecoveryArtifact = false
		return v.WritePending(p)
	})
}
