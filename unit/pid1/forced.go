package pid1

import (
	"context"

	"gprovision/hw/efi"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/survey"
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

// askForced makes a forced restore the person's choice, once in a boot and after a question where the policy wants one. What was
// chosen in the menu after that counts more. A disk that is not of this unit is never overwritten without a question.
func (u *unit) askForced(ctx context.Context, f *survey.Findings) (c decide.Choice, chosen bool) {
	if u.asked || u.provisions() || f.Choice.Kind != decide.NoChoice || f.Recovery != decide.RecoveryFound || f.RestoreRequested() || !u.forced(u.m.Vars) {
		return c, false
	}
	u.asked = true
	if u.m.Policy.ForcedRestore != policy.ForcedRestoreUnattended || f.Main == decide.MainForeign {
		yes, err := u.m.Panel.Confirm(ctx, machine.ForcedEntry, loss(f))
		if err != nil || !yes {
			u.log.Warn("forced restore was chosen in the boot menu and not confirmed", "err", err, journal.ForPerson())
			return c, false
		}
	}
	u.log.Info("forced restore", journal.ForPerson())
	return decide.Choice{Kind: decide.ChooseLatest}, true
}
