package rescue

import (
	"context"
	"errors"
	"fmt"
	"io"

	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/medium"
	"gprovision/unit/panel"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// Run makes a lost recovery volume anew, after a person has seen which disk is overwritten.
func Run(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	m := e.Machine
	no := func(err error) job.Outcome {
		e.ShowFailure("recovery volume is not rebuilt", err)
		m.Panel.Pause(ctx, job.ReadingTime)
		return job.Outcome{Kind: job.DecideAgain, Menu: true}
	}
	on, file, ok := f.StickImage()
	if !ok {
		return no(fault.Newf(fault.NoRebuild, "no recovery stick has an image for this unit"))
	}
	awaitMembers(ctx, e)
	plan, err := planRebuild(ctx, m, pluggedIn(f))
	if err != nil {
		return no(err)
	}
	dir, done, err := e.MountMedium(on)
	if err != nil {
		return no(&fault.Occurrence{Fault: fault.NoRebuild, Cause: err})
	}
	defer done()
	im := file.Image(dir)
	if err := e.ProveOnMedium(ctx, im); err != nil {
		return no(&fault.Occurrence{Fault: fault.NoRebuild, Cause: fmt.Errorf("%s: %w", file.Base, err)})
	}
	return confirm(ctx, e, plan, file, im)
}

// confirm runs a plan if a person says yes to what it destroys.
func confirm(ctx context.Context, e job.Env, plan *rebuild, file medium.File, im image.Image) job.Outcome {
	d, m := plan.Device, e.Machine
	m.Log.Info("plan", "what", plan.loss(), "disk", d.Name, "model", d.Model, "serial", d.Serial, "bytes", d.Size, "carries", plan.Content,
		"main", plan.Main.Path)
	yes, err := m.Panel.Confirm(ctx, "Rebuild recovery", plan.loss())
	if err != nil || !yes {
		m.Log.Info("rebuild is not confirmed", "err", err, journal.ForPerson())
		return job.Outcome{Kind: job.DecideAgain, Menu: true}
	}
	m.Panel.Show(panel.View{Job: string(decide.Rebuild)})
	if err := plan.run(ctx, e, im); err != nil {
		return job.Hold(err)
	}
	m.Log.Info("recovery volume rebuilt; the server does not know the unit's new key", "disk", d.Name, journal.ForPerson())
	return job.Outcome{Kind: job.DecideAgain, Answered: file.ID, Why: "the recovery volume was rebuilt from it"}
}

// pluggedIn returns the names of the disks that a person has plugged in: they are not the unit's.
func pluggedIn(f *survey.Findings) map[string]bool {
	skip := map[string]bool{}
	for _, m := range f.Media {
		skip[m.Disk.Name] = true
	}
	for _, s := range f.Sticks {
		skip[s.Disk.Name] = true
	}
	return skip
}

// awaitMembers gives members of arrays that are missing the time that they have in a normal boot.
func awaitMembers(ctx context.Context, e job.Env) {
	if !e.Machine.Identity.Variant.HasRAID() {
		return
	}
	for left := e.Survey.MemberTime(); left > 0 && e.Await(ctx, left) == nil; left = e.Survey.MemberTime() {
	}
}

// keepLog writes what was logged in this boot to a file on the recovery volume.
func keepLog(log *journal.Journal, v *state.Volume) error {
	sink, err := journal.File(v.Path(state.LogDir), journal.FileOptions{Prefix: "rebuild"})
	if err != nil {
		return err
	}
	for _, r := range log.Records() {
		if err == nil && !r.Passing {
			err = sink.Write(r)
		}
	}
	if c, ok := sink.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}
