package pid1

import (
	"context"
	"errors"
	"fmt"
	"io"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/rescue"
	"gprovision/unit/journal"
	"gprovision/unit/panel"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// rebuild makes a lost recovery volume anew, after a person has seen which disk is overwritten.
func (u *unit) rebuild(ctx context.Context, f *survey.Findings) job.Outcome {
	again := job.Outcome{Kind: job.DecideAgain}
	no := func(err error) job.Outcome {
		u.log.Warn("recovery volume is not rebuilt", "code", fault.NoRebuild.Code, "err", err, journal.ForPerson())
		u.m.Panel.Fail(err)
		u.m.Panel.Pause(ctx, job.ReadingTime)
		u.person.Wanted = true
		return again
	}
	m, file, ok := f.StickImage()
	if !ok {
		return no(fault.Newf(fault.NoRebuild, "no recovery stick has an image for this unit"))
	}
	skip := map[string]bool{}
	for _, m := range f.Media {
		skip[m.Disk.Name] = true
	}
	for _, s := range f.Sticks {
		skip[s.Disk.Name] = true
	}
	u.awaitMembers(ctx)
	plan, err := rescue.PlanRebuild(ctx, u.m, skip)
	if err != nil {
		return no(err)
	}
	dir, done, err := u.surveyor().Finder(f.Names).Mount(m)
	if err != nil {
		return no(&fault.Occurrence{Fault: fault.NoRebuild, Cause: err})
	}
	defer func() {
		if err := done(); err != nil {
			u.log.Warn("medium cannot be unmounted", "err", err)
		}
	}()
	im := file.Image(dir)
	if err := u.prove(ctx, im); err != nil {
		return no(&fault.Occurrence{Fault: fault.NoRebuild, Cause: fmt.Errorf("%s: %w", file.Base, err)})
	}
	d := plan.Device
	u.log.Info("plan", "what", plan.Loss(), "disk", d.Name, "model", d.Model, "serial", d.Serial, "bytes", d.Size, "carries", plan.Content, "main", plan.Main.Path)
	yes, err := u.m.Panel.Confirm(ctx, "Rebuild recovery", plan.Loss())
	if err != nil || !yes {
		u.log.Info("rebuild is not confirmed", "err", err, journal.ForPerson())
		u.person.Wanted = true
		return again
	}
	u.m.Panel.Show(panel.View{Job: string(decide.Rebuild)})
	if err := plan.Run(ctx, im, u.key, u.keepLog, u.env().Observer(record.Job(decide.Rebuild))); err != nil {
		return job.Hold(err)
	}
	u.answer(file, "the recovery volume was rebuilt from it")
	u.log.Info("recovery volume rebuilt; the server does not know the unit's new key", "disk", d.Name, journal.ForPerson())
	return again
}

// keepLog writes what was logged in this boot to a file on the recovery volume.
func (u *unit) keepLog(v *state.Volume) error {
	sink, err := journal.File(v.Path(state.LogDir), journal.FileOptions{Prefix: "rebuild"})
	if err != nil {
		return err
	}
	for _, r := range u.journal.Records() {
		if err == nil && !r.NotFile {
			err = sink.Write(r)
		}
	}
	if c, ok := sink.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}
