// Package decide chooses what a boot does. It turns facts and a policy into one job, by a table whose first matching
// row wins. It also parses the words of the kernel command line that are such facts.
//
// It is pure: it reads and writes nothing. docs/decide.md is the same table for people.
package decide

import (
	"fmt"
	"slices"

	"gprovision/model/fault"
	"gprovision/model/policy"
)

// Job is what one pass of init does.
type Job string

// The jobs. Hold does no work: the unit shows why it waits, until something changes.
const (
	Provision      Job = "provision"
	Restore        Job = "restore"
	Repair         Job = "repair"          // check and repair the main filesystem
	RepairRecovery Job = "repair-recovery" // the same for the filesystem of the recovery volume
	RepairTable    Job = "repair-table"    // write one of the unit's partition tables again
	Boot           Job = "boot"
	Hold           Job = "hold"
	PowerOff       Job = "power-off"
	Shell          Job = "shell"           // for support, if the policy allows it
	Support        Job = "support"         // write the support bundle to a medium
	Rescue         Job = "rescue"          // restore from an emergency medium
	Rebuild        Job = "rebuild"         // make a lost recovery volume again, from a recovery stick
	Erase          Job = "erase"           // erase all main disks, or show how that ended
	AdoptBoard     Job = "adopt-mainboard" // write the mainboard's serial number into the unit's record
)

// Decision is a job and the reason for it.
type Decision struct {
	Job    Job
	Reason string
	// Fault is what a person reads while the unit holds. It is nil for all other jobs.
	Fault *fault.Fault
	// Back reports whether the job is a restore of Facts.Previous.
	Back bool
}

func (d Decision) String() string { return fmt.Sprintf("%s: %s", d.Job, d.Reason) }

// rule is one row of the table. The first row whose when returns true decides. docs/decide.md has the same rows.
type rule struct {
	when func(Facts, policy.Policy) bool
	then Decision
}

// rules returns the table of Decide.
func rules() []rule { return slices.Concat(personRules(), eraseRules(), otherRules()) }

// personRules are the rows for what a person may always have.
func personRules() []rule {
	return []rule{
		{func(f Facts, p policy.Policy) bool { return f.Choice.Kind == ChoosePowerOff },
			Decision{Job: PowerOff, Reason: "a person at the machine chose to power off"}},
		{wantsShell,
			Decision{Job: Shell, Reason: "the recovery shell is asked for, and the policy has it"}},
		{func(f Facts, p policy.Policy) bool { return f.Choice.Kind == ChooseSupport },
			Decision{Job: Support, Reason: "a person at the machine chose the support bundle"}},
	}
}

// otherRules are the rows for a unit of which no erase is asked.
func otherRules() []rule {
	return []rule{
		{func(f Facts, p policy.Policy) bool { return p.Provision && f.ManifestURL != "" },
			Decision{Job: Provision, Reason: "the policy allows it and mfgurl is given"}},
		{func(f Facts, p policy.Policy) bool { return f.RecoveryRepairable && f.RecoveryRepairs == 0 },
			Decision{Job: RepairRecovery, Reason: "the recovery volume cannot be read, and its filesystem was not repaired in this boot"}},
		{func(f Facts, p policy.Policy) bool { return f.Choice.Kind == ChooseRebuild && f.Recovery.Lost() },
			Decision{Job: Rebuild, Reason: "a person at the machine chose a rebuild, and the recovery volume is lost"}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryAmbiguous },
			Decision{Job: Hold, Reason: "two devices look like the recovery volume", Fault: fault.RecoveryAmbiguous}},
		{func(f Facts, p policy.Policy) bool {
			return f.Choice.Kind == ChooseAdopt && f.Recovery == RecoveryOtherBoard
		},
			Decision{Job: AdoptBoard, Reason: "a person at the machine chose to adopt the mainboard"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainAmbiguous },
			Decision{Job: Hold, Reason: "two devices look like the main disk", Fault: fault.MainAmbiguous}},
		{func(f Facts, p policy.Policy) bool { return choseRestore(f) && f.Recovery == RecoveryDamaged },
			Decision{Job: Hold, Reason: "a person chose a restore and the recovery volume cannot be read", Fault: fault.RecoveryDamaged}},
		{func(f Facts, p policy.Policy) bool { return choseRestore(f) && f.Recovery == RecoveryNewer },
			Decision{Job: Hold, Reason: "a person chose a restore and the recovery volume is of a newer release", Fault: fault.RecoveryNewer}},
		{func(f Facts, p policy.Policy) bool { return choseRestore(f) && f.Recovery == RecoveryOtherBoard },
			Decision{Job: Hold, Reason: "a person chose a restore and the disks are of a unit with another mainboard",
				Fault: fault.OtherBoard}},
		{func(f Facts, p policy.Policy) bool { return choseRestore(f) && f.Recovery == RecoveryOtherFirmware },
			Decision{Job: Hold, Reason: "a person chose a restore and the unit is for the other kind of firmware", Fault: fault.OtherFirmware}},
		{func(f Facts, p policy.Policy) bool { return choseRestore(f) && f.Recovery != RecoveryFound },
			Decision{Job: Hold, Reason: "a person chose a restore and the recovery volume is missing", Fault: fault.NoRecovery}},
		{func(f Facts, p policy.Policy) bool { return choseRestore(f) && f.Main == MainAbsent },
			Decision{Job: Hold, Reason: "a person chose a restore and the main disk is missing", Fault: fault.MainMissing}},
		{func(f Facts, p policy.Policy) bool { return choseRestore(f) },
			Decision{Job: Restore, Reason: "a person at the machine chose a restore"}},
		{func(f Facts, p policy.Policy) bool { return wantsMedium(f) && f.Recovery == RecoveryFound },
			Decision{Job: Rescue, Reason: "an emergency medium has an image for this unit"}},
		{func(f Facts, p policy.Policy) bool {
			return f.Recovery == RecoveryFound && f.RecoveryErrors && f.RecoveryRepairs < p.Repairs()
		},
			Decision{Job: RepairRecovery, Reason: "the kernel has noted errors in the recovery volume"}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryFound && f.TableDamaged },
			Decision{Job: RepairTable, Reason: "a partition table is damaged, and the copy on its disk is as recorded"}},
		{func(f Facts, p policy.Policy) bool { return f.RestoreRequested() && f.Main == MainAbsent },
			Decision{Job: Hold, Reason: "a restore is requested and the main disk is missing", Fault: fault.MainMissing}},
		{func(f Facts, p policy.Policy) bool {
			return f.RestoreRequested() && f.Main == MainForeign && f.Request.Auto
		},
			Decision{Job: Hold, Reason: "the unit itself wants a restore, and the main disk holds data that is not of this unit", Fault: fault.MainForeign}},
		{func(f Facts, p policy.Policy) bool {
			return f.RestoreRequested() && f.Main == MainForeign && !f.Recorded
		},
			Decision{Job: Hold, Reason: "a restore is requested, and another disk with data is in the place of the main disk", Fault: fault.MainForeign}},
		{func(f Facts, p policy.Policy) bool { return f.RestoreRequested() },
			Decision{Job: Restore, Reason: "a restore is requested on the recovery volume"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainMarked && f.Worn(p) && f.Previous != "" },
			Decision{Job: Restore, Reason: "the installed system was started too often without a good boot, and there is another image", Back: true}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainMarked && f.Worn(p) },
			Decision{Job: Boot, Reason: "the installed system was started too often without a good boot, and there is no other image"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainMarked },
			Decision{Job: Boot, Reason: "the main system is complete"}},
		{func(f Facts, p policy.Policy) bool { return p.Provision && f.Recovery == RecoveryMissing },
			Decision{Job: Hold, Reason: "the artifact could provision this unit, and mfgurl is missing", Fault: fault.NoManifestURL}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryOtherBoard },
			Decision{Job: Hold, Reason: "the main system is not complete and the disks are of a unit with another mainboard",
				Fault: fault.OtherBoard}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryOtherFirmware },
			Decision{Job: Hold, Reason: "the main system is not complete and the unit is for the other kind of firmware",
				Fault: fault.OtherFirmware}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainAbsent },
			Decision{Job: Hold, Reason: "the main disk is missing", Fault: fault.MainMissing}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainDamaged && f.Repairs < p.Repairs() },
			Decision{Job: Repair, Reason: "the main filesystem is damaged"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainDamaged && !p.RestoreOnDamage },
			Decision{Job: Hold, Reason: "the main filesystem stays damaged, and the policy does not restore by itself", Fault: fault.MainDamaged}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryDamaged },
			Decision{Job: Hold, Reason: "the main system is not complete and the recovery volume cannot be read", Fault: fault.RecoveryDamaged}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryNewer },
			Decision{Job: Hold, Reason: "the main system is not complete and the recovery volume is of a newer release", Fault: fault.RecoveryNewer}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery != RecoveryFound },
			Decision{Job: Hold, Reason: "the main system is not complete and the recovery volume is missing", Fault: fault.NoRecovery}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainUnmarked },
			Decision{Job: Restore, Reason: "the main system has no mark"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainBlank },
			Decision{Job: Restore, Reason: "the main disk is blank"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainDamaged },
			Decision{Job: Restore, Reason: "the main filesystem stays damaged, and the policy restores it"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainForeign || f.Main == MainBegun },
			Decision{Job: Hold, Reason: "the main disk holds data that is not of this unit", Fault: fault.MainForeign}},
	}
}

// Decide chooses the job. It is pure: only its arguments matter, and the first matching row of the table wins.
func Decide(f Facts, p policy.Policy) Decision {
	for _, r := range rules() {
		if r.when(f, p) {
			return r.then
		}
	}
	return Decision{Job: Hold, Reason: fmt.Sprintf("no rule fits recovery %q and main %q", f.Recovery, f.Main), Fault: fault.Internal}
}
