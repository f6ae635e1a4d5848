package pid1

import (
	"fmt"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/state"
)

// Job is what one pass of init does.
type Job string

// The jobs. Hold is no work: the unit shows why and waits for something to change.
const (
	Provision      Job = "provision"
	Restore        Job = "restore"
	Repair         Job = "repair"          // check and repair the main filesystem
	RepairRecovery Job = "repair-recovery" // the same for the filesystem of the recovery volume
	RepairTable    Job = "repair-table"    // write a partition table of the unit again
	Boot           Job = "boot"
	Hold           Job = "hold"
	PowerOff       Job = "power-off"
	Shell          Job = "shell"   // for support, where the policy has it
	Support        Job = "support" // write the support bundle to a medium
	Rescue         Job = "rescue"  // restore from an emergency medium
	Rebuild        Job = "rebuild" // make a lost recovery volume anew, from a recovery stick
)

// RecoveryState says what was found of the recovery volume.
type RecoveryState string

// The states of the recovery volume.
const (
	RecoveryMissing   RecoveryState = "missing"   // no partition is the recovery volume of this unit
	RecoveryFound     RecoveryState = "found"     // one is, and it is mounted
	RecoveryAmbiguous RecoveryState = "ambiguous" // two are
	RecoveryDamaged   RecoveryState = "damaged"   // it is there and cannot be read
	RecoveryNewer     RecoveryState = "newer"     // it is there, and its record has a format that only a newer init knows
)

// MainState says what was found of the main system.
type MainState string

// The states of the main system. Only Unmarked and Blank lead to a restore by themselves: both are proven by reading.
const (
	MainAbsent    MainState = "absent"    // no disk that could hold it answers
	MainAmbiguous MainState = "ambiguous" // two partitions carry its identifier, or two disks fit the plan
	MainBlank     MainState = "blank"     // the planned disk is there and carries nothing at all
	MainBegun     MainState = "begun"     // the recorded disk, and on it nothing but what a restore that was cut off leaves
	MainForeign   MainState = "foreign"   // the planned disk is there and carries something that is not of this unit
	MainMarked    MainState = "marked"    // a readable system with its mark
	MainUnmarked  MainState = "unmarked"  // a readable filesystem of this unit without the mark
	MainDamaged   MainState = "damaged"   // the partition of this unit, and its filesystem cannot be trusted or mounted
)

// Facts is everything that Decide looks at. Gathering it changes nothing.
type Facts struct {
	// EraseAsked: DATA_ERASE on the kernel command line.
	EraseAsked bool
	// ManifestURL is the kernel argument mfgurl.
	ManifestURL string
	// Recovery is what was found of the recovery volume.
	Recovery RecoveryState
	// RecoveryErrors says that the kernel has noted errors in the recovery volume's filesystem, and RecoveryRepairs how often in a
	// row it was repaired without a good boot.
	RecoveryErrors  bool
	RecoveryRepairs int
	// RecoveryRepairable says that the recovery volume is damaged, that it is clear which partition it is, and that a repair of its
	// filesystem may help. RecoveryRepairs then counts those of this boot.
	RecoveryRepairable bool
	// TableDamaged says that the first copy of a partition table is damaged, on a disk that the unit's record names, that the copy at
	// the end of the disk is the recorded table, and that no repair was tried in this boot.
	TableDamaged bool
	// Request is the request on the recovery volume, or nil.
	Request *state.Request
	// Main is what was found of the main system.
	Main MainState
	// Recorded says that the disk of the main system is the one that the unit's record names.
	Recorded bool
	// Fulfilled is the identifier of the request that the main system's mark names.
	Fulfilled string
	// Repairs is how often in a row the main filesystem was repaired without a good boot.
	Repairs int
	// Medium is what was found of an emergency medium.
	Medium MediumState
	// ShellAsked says that frmode=shell is on the kernel command line and the shell was not opened in this boot yet.
	ShellAsked bool
	// Choice is what a person at the machine chose during this pass.
	Choice Choice
	// Attempts is how many boots in a row were handed over and never marked good.
	Attempts int
	// Previous is the image to go back to if the installed one does not start: the file's name, or "" if there is none.
	Previous string
}

// Decision is a job and why.
type Decision struct {
	Job    Job
	Reason string
	// Fault is what a person reads while the unit holds; nil for all other jobs.
	Fault *fault.Fault
	// Back says that the job is a restore of Facts.Previous.
	Back bool
}

func (d Decision) String() string { return fmt.Sprintf("%s: %s", d.Job, d.Reason) }

// rule is one row of the table. The first row whose when holds decides. docs/decide.md has the same rows.
type rule struct {
	when func(Facts, policy.Policy) bool
	then Decision
}

// pending says whether a request waits that the main system has not fulfilled.
func pending(f Facts) bool {
	return f.Recovery == RecoveryFound && f.Request != nil && (f.Main != MainMarked || f.Fulfilled != f.Request.ID)
}

// worn says whether the installed system had all its boots and none was good.
func worn(f Facts, p policy.Policy) bool {
	return f.Recovery == RecoveryFound && p.FailedBoots > 0 && f.Attempts >= p.FailedBoots
}

// rules returns the table of Decide.
func rules() []rule {
	return []rule{
		{func(f Facts, p policy.Policy) bool { return f.Choice.Kind == ChoosePowerOff },
			Decision{Job: PowerOff, Reason: "a person at the machine chose it"}},
		{wantsShell,
			Decision{Job: Shell, Reason: "the recovery shell is asked for, and the policy has it"}},
		{func(f Facts, p policy.Policy) bool { return f.Choice.Kind == ChooseSupport },
			Decision{Job: Support, Reason: "a person at the machine chose it"}},
		{func(f Facts, p policy.Policy) bool { return f.EraseAsked },
			Decision{Job: Hold, Reason: "a data erase was asked for, and this artifact cannot erase", Fault: fault.Policy}},
		{func(f Facts, p policy.Policy) bool { return p.Provision && f.ManifestURL != "" },
			Decision{Job: Provision, Reason: "the policy allows it and mfgurl is given"}},
		{func(f Facts, p policy.Policy) bool { return f.RecoveryRepairable && f.RecoveryRepairs == 0 },
			Decision{Job: RepairRecovery, Reason: "the recovery volume cannot be read, and its filesystem was not repaired in this boot"}},
		{func(f Facts, p policy.Policy) bool { return f.Choice.Kind == ChooseRebuild && lost(f.Recovery) },
			Decision{Job: Rebuild, Reason: "a person at the machine chose it, and the recovery volume is lost"}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryAmbiguous },
			Decision{Job: Hold, Reason: "two devices look like the recovery volume", Fault: fault.RecoveryAmbiguous}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainAmbiguous },
			Decision{Job: Hold, Reason: "two devices look like the main disk", Fault: fault.MainAmbiguous}},
		{func(f Facts, p policy.Policy) bool { return chosen(f) && f.Recovery == RecoveryDamaged },
			Decision{Job: Hold, Reason: "a person chose a restore and the recovery volume cannot be read", Fault: fault.RecoveryDamaged}},
		{func(f Facts, p policy.Policy) bool { return chosen(f) && f.Recovery == RecoveryNewer },
			Decision{Job: Hold, Reason: "a person chose a restore and the recovery volume is of a newer release", Fault: fault.RecoveryNewer}},
		{func(f Facts, p policy.Policy) bool { return chosen(f) && f.Recovery != RecoveryFound },
			Decision{Job: Hold, Reason: "a person chose a restore and the recovery volume is missing", Fault: fault.NoRecovery}},
		{func(f Facts, p policy.Policy) bool { return chosen(f) && f.Main == MainAbsent },
			Decision{Job: Hold, Reason: "a person chose a restore and the main disk is missing", Fault: fault.MainMissing}},
		{func(f Facts, p policy.Policy) bool { return chosen(f) },
			Decision{Job: Restore, Reason: "a person at the machine chose it"}},
		{func(f Facts, p policy.Policy) bool { return wantsMedium(f) && f.Recovery == RecoveryFound },
			Decision{Job: Rescue, Reason: "an emergency medium has an image for this unit"}},
		{func(f Facts, p policy.Policy) bool {
			return f.Recovery == RecoveryFound && f.RecoveryErrors && f.RecoveryRepairs < p.Repairs()
		},
			Decision{Job: RepairRecovery, Reason: "the kernel has noted errors in the recovery volume"}},
		{func(f Facts, p policy.Policy) bool { return f.Recovery == RecoveryFound && f.TableDamaged },
			Decision{Job: RepairTable, Reason: "a partition table is damaged, and the copy on its disk is as recorded"}},
		{func(f Facts, p policy.Policy) bool { return pending(f) && f.Main == MainAbsent },
			Decision{Job: Hold, Reason: "a restore is requested and the main disk is missing", Fault: fault.MainMissing}},
		{func(f Facts, p policy.Policy) bool { return pending(f) && f.Main == MainForeign && f.Request.Auto },
			Decision{Job: Hold, Reason: "the unit itself wants a restore, and the main disk holds data that is not of this unit", Fault: fault.MainForeign}},
		{func(f Facts, p policy.Policy) bool { return pending(f) && f.Main == MainForeign && !f.Recorded },
			Decision{Job: Hold, Reason: "a restore is requested, and another disk with data is in the place of the main disk", Fault: fault.MainForeign}},
		{func(f Facts, p policy.Policy) bool { return pending(f) },
			Decision{Job: Restore, Reason: "a restore is requested on the recovery volume"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainMarked && worn(f, p) && f.Previous != "" },
			Decision{Job: Restore, Reason: "the installed system was started too often without a good boot, and there is another image", Back: true}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainMarked && worn(f, p) },
			Decision{Job: Boot, Reason: "the installed system was started too often without a good boot, and there is no other image"}},
		{func(f Facts, p policy.Policy) bool { return f.Main == MainMarked },
			Decision{Job: Boot, Reason: "the main system is complete"}},
		{func(f Facts, p policy.Policy) bool { return p.Provision && f.Recovery == RecoveryMissing },
			Decision{Job: Hold, Reason: "the artifact could provision this unit, and mfgurl is missing", Fault: fault.NoManifestURL}},
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

// Decide chooses the job. It is a pure function of its arguments: a table whose first fitting row wins.
func Decide(f Facts, p policy.Policy) Decision {
	for _, r := range rules() {
		if r.when(f, p) {
			return r.then
		}
	}
	return Decision{Job: Hold, Reason: fmt.Sprintf("no rule fits recovery %q and main %q", f.Recovery, f.Main), Fault: fault.Internal}
}
