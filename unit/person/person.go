// Package person is the person at the machine: the grace time, the menu, and the questions before something is
// destroyed. What the person sees and presses goes through the panels (unit/panel).
//
// It decides nothing. A choice is a value that unit/decide takes into account.
package person

import (
	"context"
	"time"

	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// Person is the person at the machine during one boot.
type Person struct {
	Machine *machine.Machine
	// Held reports whether the unit has held during this boot.
	Held bool
	// Wanted reports whether to show the menu.
	Wanted bool
	// grace is when the grace time ends. It is zero before the grace time begins.
	grace time.Time
	// offered reports whether this boot has shown the menu because it came from a recovery stick.
	offered bool
	// asked reports whether this boot has dealt with its forced restore.
	asked bool
}

// BeginGrace begins the grace time, once in a boot. The grace time is zero if no panel has keys, or if this boot
// provisions.
func (p *Person) BeginGrace(provisions bool) {
	if !p.grace.IsZero() {
		return
	}
	p.grace = time.Now()
	if !p.Machine.Panel.HasKeys() || provisions {
		return
	}
	d := p.Machine.Policy.Grace()
	if s := p.Machine.Identity.Variant.GraceSeconds; s > 0 {
		d = time.Duration(s) * time.Second
	}
	p.grace = p.grace.Add(d)
	p.Machine.Log.Info("grace time", "seconds", int(d/time.Second))
	p.Machine.Panel.Message("Press a key for menu")
}

// AwaitMenu waits for the end of the grace time and shows the menu if a person pressed a key. A key counts during the
// grace time, before it, and while the unit held. AwaitMenu returns the choice and whether the menu was shown. If it
// was, f may be out of date.
func (p *Person) AwaitMenu(ctx context.Context, f *survey.Findings, v *volume.Handle, provisions bool) (c decide.Choice, shown bool,
	err error) {
	p.Wanted = p.Wanted || p.offersMenu(f, provisions)
	select {
	case <-p.Machine.Panel.Pressed(): // including a key pressed while nobody watched the grace time
		p.Wanted = true
	default:
	}
	t := time.NewTimer(time.Until(p.grace))
	defer t.Stop()
	for !p.Wanted {
		select {
		case <-p.Machine.Panel.Pressed():
			p.Wanted = true
			continue
		case <-t.C:
		case <-ctx.Done():
			return c, false, ctx.Err()
		}
		break
	}
	if !p.Wanted {
		return c, false, nil
	}
	p.Wanted = false
	p.Machine.Log.Info("menu")
	c, err = p.Menu(ctx, f, v, provisions)
	if err != nil {
		p.Machine.Log.Warn("menu", "err", err)
	}
	if c.Kind == decide.NoChoice { // opening the menu and choosing nothing means: go on
		c.Kind = decide.ChooseResume
	}
	p.Machine.Log.Info("choice", "choice", string(c.Kind), "image", c.Image, journal.ForPerson())
	return c, true, nil
}

// offersMenu reports whether to show the menu although nobody pressed a key. That happens once, in a boot from a recovery
// stick. It does not happen if it is clear what to do, or if the unit was restored from the stick already.
func (p *Person) offersMenu(f *survey.Findings, provisions bool) bool {
	if p.offered || !f.FromStick || !p.Machine.Panel.HasKeys() || provisions {
		return false
	}
	switch f.Medium {
	case decide.MediumConfirmed:
		return false
	case decide.MediumOffered:
		if p.Machine.Policy.MediumWithoutConfirmation && f.Recovery == decide.RecoveryFound {
			return false
		}
	case decide.MediumDone:
		if f.Recovery == decide.RecoveryFound {
			return false
		}
	}
	p.offered = true
	return true
}

// Forced turns a forced restore into the person's choice, once in a boot. It asks first if the policy wants that. A
// later choice in the menu takes precedence. It always asks before it overwrites a disk that is not this unit's.
func (p *Person) Forced(ctx context.Context, f *survey.Findings) (c decide.Choice, chosen bool) {
	if p.asked || f.Choice.Kind != decide.NoChoice || f.Recovery != decide.RecoveryFound || f.RestoreRequested() {
		return c, false
	}
	p.asked = true
	if p.Machine.Policy.ForcedRestore != policy.ForcedRestoreUnattended || f.Main == decide.MainForeign {
		yes, err := p.Machine.Panel.Confirm(ctx, machine.ForcedEntry, Loss(f))
		if err != nil || !yes {
			p.Machine.Log.Warn("forced restore was chosen in the boot menu and not confirmed", "err", err, journal.ForPerson())
			return c, false
		}
	}
	p.Machine.Log.Info("forced restore", journal.ForPerson())
	return decide.Choice{Kind: decide.ChooseLatest}, true
}
