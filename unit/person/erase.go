package person

import (
	"context"

	"gprovision/model/erasure"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/journal"
	"gprovision/unit/survey"
)

// Erase turns an erase that the kernel command line asks for into the person's choice, if the person confirms it. Without a
// recovery volume, or a panel with keys, it asks nothing.
func (p *Person) Erase(ctx context.Context, f *survey.Findings) (c decide.Choice, chosen bool) {
	if f.Recovery != decide.RecoveryFound || !f.EraseUnanswered() || !p.Machine.Panel.HasKeys() {
		return c, false
	}
	c, yes, err := p.confirmErase(ctx, f)
	if err != nil || !yes {
		p.Machine.Log.Warn("a data erase is on the kernel command line and was not confirmed", "err", err, journal.ForPerson())
		return decide.Choice{}, false
	}
	return c, true
}

// ended reports whether an erase of the unit has ended that is not resolved.
func ended(f *survey.Findings) bool {
	return f.EraseUnresolved() && f.Erasing.Erase.ID != "" && f.Erasing.Erase.Outcome != ""
}

// canResolve reports whether the erase has ended so that support can have it go on.
func (p *Person) canResolve(f *survey.Findings) bool {
	o := f.Erasing.Erase.Outcome
	return len(p.Machine.Policy.SupportKeys) > 0 && (o == erasure.Failed || o == erasure.Unknown)
}

// confirmErase asks twice, and says what is lost and what stays.
func (p *Person) confirmErase(ctx context.Context, f *survey.Findings) (c decide.Choice, yes bool, err error) {
	c.Kind = decide.ChooseErase
	c.Whole = p.Machine.Policy.Erase.OneDisk == policy.OneDiskWhole && f.Unit.OneDisk()
	yes, err = p.Machine.Panel.Confirm(ctx, "Erase all data",
		"System, settings and data on all main disks are erased. Nobody can bring them back.")
	if err != nil || !yes {
		return c, false, err
	}
	if c.Whole {
		yes, err = p.Machine.Panel.Confirm(ctx, "Really erase all?",
			"Nothing stays. The unit cannot restore itself afterwards: it must be provisioned again. It may take hours.")
	} else {
		yes, err = p.Machine.Panel.Confirm(ctx, "Really erase?",
			"Images, the unit's key and its admin password stay. It may take hours, then the unit restores itself.")
	}
	return c, yes, err
}
