package decide

import (
	"gprovision/model/policy"
	"gprovision/unit/state"
)

// RecoveryState is the state of the recovery volume.
type RecoveryState string

// The states of the recovery volume.
const (
	RecoveryMissing   RecoveryState = "missing"   // no partition is this unit's recovery volume
	RecoveryFound     RecoveryState = "found"     // one partition is, and it can be read
	RecoveryAmbiguous RecoveryState = "ambiguous" // two partitions are
	RecoveryDamaged   RecoveryState = "damaged"   // it exists but cannot be read
	RecoveryNewer     RecoveryState = "newer"     // it exists, but only a newer init knows the format of its record
	// These two are whole, and agree with the main disk, but not with the rest of the machine.
	RecoveryOtherBoard    RecoveryState = "other-board"    // its record names another mainboard
	RecoveryOtherFirmware RecoveryState = "other-firmware" // its record names the other kind of firmware
)

// Lost reports whether the recovery volume can give nothing any more. It is not lost if two partitions look like it.
func (s RecoveryState) Lost() bool { return s == RecoveryMissing || s == RecoveryDamaged }

// Elsewhere reports whether the volume was provisioned in another machine, or for other firmware.
func (s RecoveryState) Elsewhere() bool { return s == RecoveryOtherBoard || s == RecoveryOtherFirmware }

// MainState is the state of the main system.
type MainState string

// The states of the main system. Only Unmarked and Blank lead to a restore by themselves, because reading the disk
// proves them.
const (
	MainAbsent    MainState = "absent"    // no disk that could hold it is there
	MainAmbiguous MainState = "ambiguous" // two partitions have its identifier, or two disks fit the plan
	MainBlank     MainState = "blank"     // the planned disk is there and completely blank
	MainBegun     MainState = "begun"     // the recorded disk, with nothing on it but what a restore that was cut short leaves
	MainForeign   MainState = "foreign"   // the planned disk is there, with something that is not this unit's
	MainMarked    MainState = "marked"    // a readable system with its mark
	MainUnmarked  MainState = "unmarked"  // this unit's readable filesystem, without the mark
	MainDamaged   MainState = "damaged"   // this unit's partition, with a filesystem that cannot be trusted or mounted
)

// MediumState is the state of an emergency medium.
type MediumState string

// The states of an emergency medium. The job itself proves that the image is good, before it asks anybody.
const (
	NoMedium        MediumState = ""
	MediumOffered   MediumState = "offered"   // it has an image for this unit, and nobody has answered yet
	MediumConfirmed MediumState = "confirmed" // a restore from it was begun and must be resumed
	MediumDone      MediumState = "done"      // the unit was restored from it already, or it was refused in this boot
	MediumUnusable  MediumState = "unusable"  // it has emergency files, but none can be used
)

// Facts are everything that Decide looks at. Gathering them changes nothing.
type Facts struct {
	// Erasing is what concerns an erase.
	Erasing EraseFacts
	// ManifestURL is the kernel argument mfgurl.
	ManifestURL string
	// Recovery is the state of the recovery volume.
	Recovery RecoveryState
	// RecoveryErrors reports whether the kernel has recorded errors in the recovery volume's filesystem.
	// RecoveryRepairs is the number of its repairs in a row, with no good boot in between.
	RecoveryErrors  bool
	RecoveryRepairs int
	// RecoveryRepairable reports whether the recovery volume is damaged, only one partition can be it, and a repair
	// of its filesystem may help. RecoveryRepairs then counts the repairs of this boot.
	RecoveryRepairable bool
	// TableDamaged reports whether the first copy of a partition table is damaged and can be restored. The disk must
	// be in the unit's record, the copy at its end must be the recorded table, and this boot must not have tried a
	// repair yet.
	TableDamaged bool
	// Request is the request on the recovery volume, or nil.
	Request *state.Request
	// Main is the state of the main system.
	Main MainState
	// Recorded reports whether the disk of the main system is the one in the unit's record.
	Recorded bool
	// Fulfilled is the request ID in the main system's mark.
	Fulfilled string
	// Repairs is the number of repairs of the main filesystem in a row, with no good boot in between.
	Repairs int
	// Medium is the state of an emergency medium.
	Medium MediumState
	// ShellAsked reports whether frmode=shell is on the kernel command line and this boot has not opened the shell
	// yet.
	ShellAsked bool
	// Choice is what a person at the machine chose in this pass.
	Choice Choice
	// Attempts is the number of boots in a row that were handed over and never marked good.
	Attempts int
	// Previous is the file name of the image to go back to if the installed one does not start. It is empty if there
	// is none.
	Previous string
}

// RestoreRequested reports whether there is a request for a restore that the main system has not fulfilled.
func (f Facts) RestoreRequested() bool {
	return f.Recovery == RecoveryFound && f.Request != nil && f.Request.Kind != state.KindErase &&
		(f.Main != MainMarked || f.Fulfilled != f.Request.ID)
}

// Worn reports whether the installed system has used up its boots without a good one.
func (f Facts) Worn(p policy.Policy) bool {
	return f.Recovery == RecoveryFound && p.FailedBoots > 0 && f.Attempts >= p.FailedBoots
}

// Complete reports whether the unit is one that somebody uses. It is not if a provisioning was cut short before its
// own restore.
func (f Facts) Complete() bool {
	switch {
	case f.Recovery == RecoveryAmbiguous:
		return true
	case f.Recovery != RecoveryFound:
		return false
	}
	return !f.RestoreRequested() || f.Request.By != state.ByProvisioning || f.Main == MainMarked
}

// wantsMedium reports whether to restore from a medium or offer to. A missing main disk has rows of its own.
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

// wantsShell reports whether somebody wants the recovery shell and may have it.
func wantsShell(f Facts, p policy.Policy) bool {
	return p.Shell && (f.ShellAsked || f.Choice.Kind == ChooseShell)
}
