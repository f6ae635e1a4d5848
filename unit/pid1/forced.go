package pid1

import (
	"context"
	"errors"
	"time"

	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// forced says that a person chose Forced Factory Restore in a boot menu and that the policy knows such a choice. A locked artifact
// takes no kernel argument, and Secure Boot passes none on: then the firmware's own note counts, of the entry that it started.
func (u *unit) forced(vars *efi.Vars) bool {
	switch {
	case u.m.Policy.ForcedRestore == policy.ForcedRestoreNever:
		return false
	case u.args.Forced:
		return true
	case u.m.Firmware != layout.UEFI:
		return false
	}
	started, err := vars.Started()
	return err == nil && started == machine.ForcedEntry
}

// askForced turns a forced restore, once in a boot and after a question where the policy wants one, into a request on the recovery
// volume. From there on it is a request as any other: a power cut ends in a restore, and its mark ends the request.
func (u *unit) askForced(ctx context.Context, f *Found) {
	if u.asked || f.Recovery != RecoveryFound || pending(f.Facts) || !u.forced(efi.New(efi.DefaultDir)) {
		return
	}
	u.asked = true
	yes, err := u.agreed(ctx)
	if err == nil && yes {
		err = u.request(f, machine.ForcedEntry)
	}
	switch {
	case err != nil:
		u.log.Warn("forced restore does not happen", "err", err, journal.ForPerson())
	case !yes:
		u.log.Info("forced restore was chosen in the boot menu and not confirmed", journal.ForPerson())
	default:
		u.log.Info("forced restore", journal.ForPerson())
	}
}

// request writes a request for a restore of the newest image to the recovery volume.
func (u *unit) request(f *Found, by string) error {
	r, err := state.NewRequest(state.KindRestore, state.Latest, by, time.Now())
	if err != nil {
		return err
	}
	u.forget(f)
	if err := mountVolume(f.RecoveryPart.Path, false); err != nil {
		return err
	}
	if err := errors.Join(f.Volume.WriteRequest(r), host.Unmount(recoveryMount)); err != nil {
		return err
	}
	f.Request = &r
	return nil
}

// errNobody says that a question cannot be answered on this unit.
var errNobody = errors.New("it needs a yes, and no panel has keys; the policy's forcedRestore can allow it without")

func (u *unit) agreed(context.Context) (bool, error) {
	if u.m.Policy.ForcedRestore == policy.ForcedRestoreUnattended {
		return true, nil
	}
	return false, errNobody
}
