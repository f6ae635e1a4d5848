package pid1

import (
	"gprovision/hw/efi"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/machine"
)

// forced reports whether a person chose Forced Factory Restore in a boot menu and the policy knows such a choice. A locked artifact
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
