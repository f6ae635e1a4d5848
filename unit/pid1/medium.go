package pid1

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// media is what init knows of emergency media in this boot.
type media struct {
	// told are the media about whose unusable files the person was told, by device.
	told map[string]bool
	// silence reports whether the log has the USB ports whose devices never answered.
	silence bool
}

// tellOfSilence says once in a boot that what is in USB ports never answered.
func (u *unit) tellOfSilence() {
	if len(u.wait.Silent) > 0 && !u.media.silence {
		u.media.silence = true
		u.log.Warn("USB devices do not answer, and are not waited for any longer", "ports", u.wait.Silent, journal.ForPerson())
	}
}

// usbChanged returns a channel that is closed when the USB ports say something else than they did, for who waits for them: the kernel sends
// no event when what was connected and no device yet goes away. stop ends the watch.
func (u *unit) usbChanged(ctx context.Context) (changed <-chan struct{}, stop func()) {
	before := u.usbState()
	if len(before.Pending) == 0 && before.Settling == 0 {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	differs := make(chan struct{})
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				now := u.usbState()
				if !slices.Equal(now.Pending, before.Pending) || (now.Settling > 0) != (before.Settling > 0) {
					close(differs)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return differs, cancel
}

// tellOfMedia shows once in a boot that a medium cannot be used.
func (u *unit) tellOfMedia(ctx context.Context, f *survey.Findings) {
	for _, m := range f.Media {
		if len(m.Files) > 0 || u.media.told[m.Path] {
			continue
		}
		if u.media.told == nil {
			u.media.told = map[string]bool{}
		}
		u.media.told[m.Path] = true
		r := m.Refused[0]
		u.refuse(ctx, fmt.Errorf("%s: %w", r.File, r.Err))
	}
}

// refuse tells the person why a medium is not used, and lets them read it.
func (u *unit) refuse(ctx context.Context, err error) {
	err = &fault.Occurrence{Fault: fault.MediumUnusable, Cause: err}
	u.log.Warn("emergency medium refused", "code", fault.MediumUnusable.Code, "err", err, journal.ForPerson())
	u.m.Panel.Fail(err)
	u.m.Panel.Pause(ctx, job.ReadingTime)
}

// rescue restores from an emergency medium.
func (u *unit) rescue(ctx context.Context, f *survey.Findings) job.Outcome {
	m, file := *f.Offer, f.OfferFile
	sure := f.Medium == decide.MediumConfirmed || f.Choice.Kind == decide.ChooseMedium || u.m.Policy.MediumWithoutConfirmation &&
		f.Main != decide.MainForeign
	u.log.Info("emergency medium", "device", m.Path, "filesystem", m.Type, "image", file.Name.String(), "stick", m.Stick, "sure", sure,
		journal.ForPerson())
	dir, done, err := u.env().MountMedium(m)
	if err != nil {
		u.answer(file.ID, err.Error())
		u.refuse(ctx, err)
		return job.Outcome{Kind: job.DecideAgain}
	}
	defer done()
	im := file.Image(dir)
	if err := u.env().ProveOnMedium(ctx, im); err != nil {
		u.answer(file.ID, "it cannot be used")
		u.refuse(ctx, fmt.Errorf("%s: %w", file.Base, err))
		return job.Outcome{Kind: job.DecideAgain}
	}
	if !sure {
		if out, ok := u.askMedium(ctx, f, file); !ok {
			return out
		}
	}
	r := state.Request{Version: state.Version, ID: file.ID, Kind: state.KindRestore, Image: file.Name.String(), By: "an emergency medium",
		Time: time.Now().UTC().Truncate(time.Second)}
	out := u.restoreImage(ctx, f, &im, &r, "")
	if out.Kind != job.RebootNow {
		u.answer(file.ID, "the restore from it failed")
		return out
	}
	if err := u.volume.Change(func(v *state.Volume) error {
		return v.WriteMedium(state.Medium{ID: file.ID, Image: file.Name.String()})
	}); err != nil {
		u.log.Warn("medium cannot be noted; the mark names it", "err", err)
	}
	return out
}

// askMedium asks what to do with a good image. ok says that the restore is confirmed; otherwise out is what follows.
func (u *unit) askMedium(ctx context.Context, f *survey.Findings, file medium.File) (out job.Outcome, ok bool) {
	out = job.Outcome{Kind: job.DecideAgain}
	yes, err := u.m.Panel.Confirm(ctx, "Restore from medium", fmt.Sprintf("Restore %s? All data on the main disk will be lost.",
		person.Short(file.Name.String(), f.Names.ImagePrefix)))
	if err != nil || !yes {
		return out, u.notConfirmed(ctx, file, err)
	}
	return out, true
}

// notConfirmed notes that nobody wants the restore, and returns false.
func (u *unit) notConfirmed(ctx context.Context, file medium.File, err error) bool {
	u.answer(file.ID, "the restore was not confirmed")
	why := fault.Newf(fault.MediumNotAsked, "%s", file.Base)
	if err != nil {
		why = &fault.Occurrence{Fault: fault.MediumNotAsked, Cause: err}
	}
	u.log.Warn("restore from the emergency medium is not confirmed", "code", fault.MediumNotAsked.Code, "image", file.Name.String(), "err",
		why, journal.ForPerson())
	u.m.Panel.Fail(why)
	if errors.Is(err, panel.ErrNoInput) {
		u.m.Panel.Pause(ctx, job.ReadingTime)
	}
	return false
}
