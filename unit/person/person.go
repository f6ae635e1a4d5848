// Package person is the person at the machine: the grace time, the menu, and what is asked before something is destroyed. What they see and
// press goes through the panels (unit/panel).
//
// It decides nothing: what was chosen is a value that unit/decide looks at.
package person

import (
	"context"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
	"time"
)

// Person is the person at the machine during one boot.
type Person struct {
	Machine *machine.Machine
	// Held reports whether the unit has held in this boot.
	Held bool
	// Wanted reports whether the menu is to be shown.
	Wanted bool
	// grace is when the grace time ends; zero before it began.
	grace time.Time
	// offered reports whether the menu was shown because this boot came from a recovery stick.
	offered bool
	// asked reports whether a forced restore of this boot was dealt with.
	asked bool
}

// Invite begins the grace time, once in a boot: it is zero where no panel has keys, and in a boot that provisions.
func (p *Person) Invite(provisions bool) {
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

// Consult waits until the grace time is over and shows the menu if a person pressed a key: in that time, before it, or while the
// unit held. It returns what was chosen, and whether the menu was shown: then what f says may be old.
func (p *Person) Consult(ctx context.Context, f *survey.Findings, v *volume.Handle, provisions bool) (c decide.Choice, shown bool,
	err error) {
	p.Wanted = p.Wanted || p.offers(f, provisions)
	select {
	case <-p.Machine.Panel.Pressed(): // also one pressed while the grace time went by unwatched
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
	if c.Kind == decide.NoChoice { // whoever opened the menu and chose nothing wants what comes by itself
		c.Kind = decide.ChooseResume
	}
	p.Machine.Log.Info("choice", "choice", string(c.Kind), "image", c.Image, journal.ForPerson())
	return c, true, nil
}

// offers reports whether the menu is to be shown although nobody pressed a key: once, in a boot from a recovery stick, unless it is
// clear what is to be done, or the unit was restored from the stick already.
func (p *Person) offers(f *survey.Findings, provisions bool) bool {
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

// Forced makes a forced restore the person's choice, once in a boot and after a question where the policy wants one. What was
// chosen in the menu after that counts more. A disk that is not of this unit is never overwritten without a question.
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
