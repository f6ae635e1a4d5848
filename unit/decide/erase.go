package decide

import (
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/state"
)

// EraseFacts are the facts that concern an erase.
type EraseFacts struct {
	// EraseAsked reports whether DATA_ERASE is on the kernel command line.
	EraseAsked bool
	// Erase is the last erase of the unit, by its recovery volume. It is nil if there was none. One whose state is damaged
	// has no ID, and its outcome is not known.
	Erase *state.Erase
	// EraseNewer reports whether only a newer init knows the format of that state.
	EraseNewer bool
	// NoKey reports whether an erase is to be done and the unit's key cannot be read. Without it nobody would believe the
	// certificate.
	NoKey bool
}

// EraseRequested reports whether there is a request for an erase that was not done yet.
func (f Facts) EraseRequested() bool {
	if f.Recovery != RecoveryFound || f.Request == nil || f.Request.Kind != state.KindErase {
		return false
	}
	return f.Erasing.Erase == nil || !f.Erasing.Erase.Resolved || f.Erasing.Erase.ID != f.Request.ID
}

// EraseUnresolved reports whether an erase was begun and is not at its end, or nobody has resolved its outcome.
func (f Facts) EraseUnresolved() bool {
	return f.Recovery == RecoveryFound && f.Erasing.Erase != nil && !f.Erasing.Erase.Resolved
}

// EraseUnanswered reports whether the kernel command line asks for an erase, and nobody at the machine has chosen anything
// yet. It counts only after a confirmation, which makes it a choice.
func (f Facts) EraseUnanswered() bool {
	return f.Erasing.EraseAsked && f.Choice.Kind == NoChoice && !f.EraseRequested() && !f.EraseUnresolved()
}

// wantsErase reports whether an erase is asked for and confirmed.
func wantsErase(f Facts) bool { return f.Choice.Kind == ChooseErase || f.EraseRequested() }

// eraseRules are the rows about erases. They come before all that writes to a disk or starts a system: nothing is ever
// started from a disk that is half erased. Without a recovery volume there is no erase, because nothing could be taken up
// after a power cut and no certificate kept.
func eraseRules() []rule {
	without := func(s RecoveryState) func(Facts, policy.Policy) bool {
		return func(f Facts, _ policy.Policy) bool { return f.Recovery == s && (wantsErase(f) || f.EraseUnanswered()) }
	}
	with := func(when func(Facts) bool) func(Facts, policy.Policy) bool {
		return func(f Facts, _ policy.Policy) bool { return f.Recovery == RecoveryFound && when(f) }
	}
	wanted := func(when func(Facts) bool) func(Facts, policy.Policy) bool {
		return with(func(f Facts) bool { return wantsErase(f) && when(f) })
	}
	return []rule{
		{with(func(f Facts) bool { return f.Erasing.EraseNewer }),
			Decision{Job: Hold, Reason: "what is known of an erase of this unit was written by a newer release", Fault: fault.RecoveryNewer}},
		{wanted(func(f Facts) bool { return f.Erasing.NoKey }),
			Decision{Job: Hold, Reason: "a data erase is asked for and the unit's key cannot be read", Fault: fault.RecoveryDamaged}},
		{wanted(func(f Facts) bool { return f.Main == MainAbsent }),
			Decision{Job: Hold, Reason: "a data erase is asked for and the main disk is missing", Fault: fault.MainMissing}},
		{wanted(func(f Facts) bool { return f.Main == MainAmbiguous }),
			Decision{Job: Hold, Reason: "a data erase is asked for and two devices look like the main disk", Fault: fault.MainAmbiguous}},
		{wanted(func(Facts) bool { return true }),
			Decision{Job: Erase, Reason: "a data erase is asked for"}},
		{with(Facts.EraseUnresolved),
			Decision{Job: Erase, Reason: "a data erase is not at its end, or nobody has resolved its outcome"}},
		{func(f Facts, p policy.Policy) bool {
			return without(RecoveryDamaged)(f, p) && f.RecoveryRepairable && f.RecoveryRepairs == 0
		},
			Decision{Job: RepairRecovery, Reason: "a data erase is asked for and the recovery volume was not repaired in this boot"}},
		{without(RecoveryDamaged),
			Decision{Job: Hold, Reason: "a data erase is asked for and the recovery volume cannot be read", Fault: fault.RecoveryDamaged}},
		{without(RecoveryNewer),
			Decision{Job: Hold, Reason: "a data erase is asked for and the recovery volume is of a newer release", Fault: fault.RecoveryNewer}},
		{without(RecoveryAmbiguous),
			Decision{Job: Hold, Reason: "a data erase is asked for and two devices look like the recovery volume", Fault: fault.RecoveryAmbiguous}},
		{without(RecoveryMissing),
			Decision{Job: Hold, Reason: "a data erase is asked for and the recovery volume is missing", Fault: fault.NoRecovery}},
		{with(Facts.EraseUnanswered),
			Decision{
				Job: Hold, Reason: "the kernel command line asks for a data erase and nobody has confirmed it", Fault: fault.EraseNotConfirmed,
			}},
	}
}
