package handover

import (
	"errors"
	"path/filepath"
	"strings"

	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// maxMends is how many boots in a row may repair what starts the unit. Firmware that undoes each repair, or a file that cannot be
// repaired, must not cost a write to flash memory and half a minute at every boot for ever. A restore begins anew.
const maxMends = 3

// mend repairs what starts the unit, before a complete system is handed over to. The firmware's entries are compared at each boot:
// that is cheap. The files on the main disk are compared only when this boot did not come from there although its system is complete;
// comparing them reads all of them. A recovery artifact that the running system fetched goes to the recovery device when the main disk
// is known to boot. No failure here keeps the unit from starting.
func (b *boot) mend() {
	if b.env.Machine.Policy.Provision || b.f.Recovery != decide.RecoveryFound || b.f.Counts.Mends >= maxMends {
		return // another artifact's policy, no record to go by, or enough
	}
	vars := b.env.Machine.Vars
	fromMain := b.startedFromMain(vars)
	var change efi.Change
	var err, fileErr error
	if b.env.Machine.Firmware == layout.UEFI {
		change, err = b.env.Machine.EnsureEntries(vars, b.f.Unit)
	}
	if !fromMain {
		fileErr = b.mendMain()
	} else if b.f.Pending.RecoveryArtifact {
		fileErr = b.mendRecovery()
	}
	if err = errors.Join(err, fileErr); err != nil {
		b.env.Machine.Log.Warn("what starts the unit cannot be repaired", "err", err)
	} else if !fromMain {
		b.env.Machine.Log.Info("boot files of the main disk are right")
	}
	count := state.Counts.Mended
	if fromMain && change.Empty() && err == nil {
		if b.f.Counts.Mends == 0 {
			return
		}
		count = state.Counts.NotMended
	}
	if err := b.env.Count(b.f.Unit, count); err != nil {
		b.env.Machine.Log.Warn("repair of what starts the unit cannot be counted", "err", err)
	}
}

// startedFromMain reports whether this boot came from the main disk's own boot entry.
func (b *boot) startedFromMain(vars *efi.Vars) bool {
	if b.env.Machine.Firmware == layout.UEFI {
		started, err := vars.Started()
		return err == nil && strings.HasPrefix(started, machine.NormalEntry) // each member of an array has an entry
	}
	return strings.Contains(b.env.Machine.Cmdline, "real_root=")
}

// mendMain makes the main disk boot its own system again.
func (b *boot) mendMain() error {
	// On BIOS the files are on the main system itself.
	if err := b.env.Machine.Mount(b.f.MainPart.Path, b.env.Machine.Places.Main, "ext4",
		host.MountOptions{ReadOnly: b.env.Machine.Firmware == layout.UEFI}); err != nil {
		return err
	}
	artifact := filepath.Join(b.env.Machine.Places.Main, "boot", b.env.Machine.Site.Names.BootFile)
	_, err := machine.ReadArtifact(artifact)
	var disks []string
	if err == nil {
		disks, err = b.mainDisks()
	}
	if err == nil {
		err = b.env.Machine.PutMainArtifact(b.f.Unit, disks, b.env.Machine.Places.Main)
	}
	return errors.Join(err, b.env.Machine.Unmount(b.env.Machine.Places.Main))
}

// mendRecovery makes the recovery device boot the recovery artifact that the running system has put on the recovery volume.
func (b *boot) mendRecovery() error {
	return b.env.Volume.Change(func(v *state.Volume) error {
		if err := b.env.Machine.PutRecoveryArtifact(b.f.Unit, b.env.Machine.Places.Recovery); err != nil {
			return err
		}
		b.env.Machine.Log.Info("the recovery device boots the fetched recovery artifact")
		p := b.f.Pending
		p.RecoveryArtifact = false
		return v.WritePending(p)
	})
}

// mainDisks returns the paths of the disks that start the main system, in the order of the record: "" for one that is not there,
// or whose table is not the recorded one.
func (b *boot) mainDisks() ([]string, error) {
	out := make([]string, len(b.f.Unit.Main))
	if b.f.Unit.Array == nil {
		out[0] = b.f.MainPart.Disk.Path
		return out, nil
	}
	parts, err := b.env.Machine.Partitions(platform.AllowedMain)
	if err != nil {
		return nil, err
	}
	for i, r := range b.f.Unit.Main {
		for _, p := range parts {
			if r.Table.On(p.Table) {
				out[i] = p.Disk.Path
			}
		}
	}
	return out, nil
}
