package decide

import (
	"gprovision/model/policy"
	"gprovision/unit/state"
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

// Lost reports whether nothing can be had of the recovery volume any more. That two look like it does not count.
func (s RecoveryState) Lost() bool { return s == RecoveryMissing || s == RecoveryDamaged }

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

// MediumState is what was found of an emergency medium.
type MediumState string

// The states of an emergency medium. Whether its image is good is proven by the job, before anybody is asked.
const (
	NoMedium        MediumState = ""
	MediumOffered   MediumState = "offered"   // it has an image for this unit, and nothing was said about it yet
	MediumConfirmed MediumState = "confirmed" // a restore from it was begun and is to be taken up again
	MediumDone      MediumState = "done"      // the unit was restored from it already, or it was refused in this boot
	MediumUnusable  MediumState = "unusable"  // it has emergency files, and none can be used
)

// Facts is everything that Decide looks at. Gathering it changes nothing.
type Facts struct {
	// EraseAsked: DATA_ERASE on the kernel command line.
	EraseAsked bool
	// ManifestURL is the kernel argument mfgurl.
	ManifestURL string
	// Recovery is what was found of the recovery volume.
	Recovery RecoveryState
	// RecoveryErrors reports whether the kernel has noted errors in the recovery volume's filesystem, and RecoveryRepairs how often in a
	// row it was repaired without a good boot.
	RecoveryErrors  bool
	RecoveryRepairs int
	// RecoveryRepairable reports whether the recovery volume is damaged, it is clear which partition it is, and a repair of its
	// filesystem may help. RecoveryRepairs then counts those of this boot.
	RecoveryRepairable bool
	// TableDamaged reports whether the first copy of a partition table is damaged, on a disk that the unit's record names, the copy at
	// the end of the disk is the recorded table, and no repair was tried in this boot.
	TableDamaged bool
	// Request is the request on the recovery volume, or nil.
	Request *state.Request
	// Main is what was found of the main system.
	Main MainState
	// Recorded reports whether the disk of the main system is the one that the unit's record names.
	Recorded bool
	// Fulfilled is the identifier of the request that the main system's mark names.
	Fulfilled string
	// Repairs is how often in a row the main filesystem was repaired without a good boot.
	Repairs int
	// Medium is what was found of an emergency medium.
	Medium MediumState
	// ShellAsked reports whether frmode=shell is on the kernel command line and the shell was not opened in this boot yet.
	ShellAsked bool
	// Choice is what a person at the machine chose during this pass.
	Choice Choice
	// Attempts is how many boots in a row were handed over and never marked good.
	Attempts int
	// Previous is the image to go back to if the installed one does not start: the file's name, or "" if there is none.
	Previous string
}

// RestoreRequested reports whether a request waits that the main system has not fulfilled.
func (f Facts) RestoreRequested() bool {
	return f.Recovery == RecoveryFound && f.Request != nil && (f.Main != MainMarked || f.Fulfilled != f.Request.ID)
}

// Worn reports whether the installed system had all its boots and none was good.
func (f Facts) Worn(p policy.Policy) bool {
	return f.Recovery == RecoveryFound && p.FailedBoots > 0 && f.Attempts >= p.FailedBoots
}

// Complete reports whether what was found is a unit that a person uses, and not what a provisioning left that was cut off before its own
// restore.
func (f Facts) Complete() bool {
	switch {
	case f.Recovery == RecoveryAmbiguous:
		return true
	case f.Recovery != RecoveryFound:
		return false
	}
	return !f.RestoreRequested() || f.Request.By != state.ByProvisioning || f.Main == MainMarked
}

// wantsMedium reports whether a restore from a medium is due or to be offered. A missing main disk has its own rows.
func wantsMedium(f Facts) bool {
	if f.Main == MainAbsent {
		return false
	}
	switch f.Choice.Kind {
	case ChooseMedium:
		return f.Medium != NoMedium && f.Medium != MediumUnusable
	case NoChoice:
		return f.Medium == MediumOffered || f.Medium == MediumConfirmed
	}
	return false
}

// wantsShell reports whether the recovery shell is asked for and may be opened.
func wantsShell(f Facts, p policy.Policy) bool {
	return p.Shell && (f.ShellAsked || f.Choice.Kind == ChooseShell)
}
