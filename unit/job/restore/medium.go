package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/medium"
	"gprovision/unit/panel"
	"gprovision/unit/person"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// FromMedium restores the image of an emergency medium, after a person has said yes where that is wanted. A medium that was dealt with, in
// whatever way, is left alone until it is taken out.
func FromMedium(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	m, on, file := e.Machine, *f.Offer, f.OfferFile
	sure := f.Medium == decide.MediumConfirmed || f.Choice.Kind == decide.ChooseMedium || m.Policy.MediumWithoutConfirmation &&
		f.Main != decide.MainForeign
	m.Log.Info("emergency medium", "device", on.Path, "filesystem", on.Type, "image", file.Name.String(), "stick", on.Stick, "sure", sure,
		journal.ForPerson())
	dir, done, err := e.MountMedium(on)
	if err != nil {
		e.RefuseMedium(ctx, err)
		return again(file, err.Error())
	}
	defer done()
	im := file.Image(dir)
	if err := e.ProveOnMedium(ctx, im); err != nil {
		e.RefuseMedium(ctx, fmt.Errorf("%s: %w", file.Base, err))
		return again(file, "it cannot be used")
	}
	if !sure && !confirmed(ctx, e, f) {
		return again(file, "the restore was not confirmed")
	}
	r := state.Request{Version: state.Version, ID: file.ID, Kind: state.KindRestore, Image: file.Name.String(), By: "an emergency medium",
		Time: time.Now().UTC().Truncate(time.Second)}
	out := run(ctx, e, f, goal{Image: &im, Request: &r})
	if out.Kind != job.RebootNow {
		out.Answered, out.Why = file.ID, "the restore from it failed"
		return out
	}
	if err := e.Volume.Change(func(v *state.Volume) error {
		return v.WriteMedium(state.Medium{ID: file.ID, Image: file.Name.String()})
	}); err != nil {
		m.Log.Warn("medium cannot be noted; the mark names it", "err", err)
	}
	return out
}

// again has the unit decide again, without the image file, and says why.
func again(file medium.File, why string) job.Outcome {
	return job.Outcome{Kind: job.DecideAgain, Answered: file.ID, Why: why}
}

// confirmed asks a person whether the good image of a medium is to be restored.
func confirmed(ctx context.Context, e job.Env, f *survey.Findings) bool {
	m, file := e.Machine, f.OfferFile
	yes, err := m.Panel.Confirm(ctx, "Restore from medium", fmt.Sprintf("Restore %s? All data on the main disk will be lost.",
		person.Short(file.Name.String(), f.Names.ImagePrefix)))
	if err == nil && yes {
		return true
	}
	why := fault.Newf(fault.MediumNotAsked, "%s", file.Base)
	if err != nil {
		why = &fault.Occurrence{Fault: fault.MediumNotAsked, Cause: err}
	}
	e.ShowFailure("restore from the emergency medium is not confirmed", why, "image", file.Name.String())
	if errors.Is(err, panel.ErrNoInput) {
		m.Panel.Pause(ctx, job.ReadingTime)
	}
	return false
}
