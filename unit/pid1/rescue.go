package pid1

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/job/rescue"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// How long USB disks are waited for: for a medium that was there at the last boot, from init's start; and from when something was seen to be
// connected, for that to be a device, and for a storage device to have a disk. With nothing connected there is no wait.
const (
	usbExpected = 10 * time.Second
	usbPending  = 30 * time.Second
	usbStorage  = 60 * time.Second // Linux waits for the first commands for 20 s each
)

// showFailure is how long a message about a medium stays before the unit goes on.
const showFailure = 8 * time.Second

// media is what init knows of emergency media in this boot.
type media struct {
	// answered says, by the identifier of an image on a medium, why it is left alone in this boot.
	answered map[string]string
	// told are the media about whose unusable files the person was told, by device.
	told map[string]bool
	// pendingSince is how long after the begin of the wait something was on its way in a USB port for the first time; 0: never.
	pendingSince time.Duration
	// silent are the USB ports whose devices were waited for long enough, and silence says that the log has them.
	silent  []string
	silence bool
}

// finder finds media.
func (u *unit) finder(f *Found) rescue.Finder {
	return rescue.Finder{Machine: u.m, Load: u.modules.Filesystem, Dir: u.m.Places.Medium, Prefix: u.prefix(f)}
}

// lookForMedia looks for emergency media among the disks that are not the unit's own.
func (u *unit) lookForMedia(ctx context.Context, f *Found) {
	if u.provisions() {
		return
	}
	own := map[string]bool{}
	for _, p := range []*machine.Found{f.RecoveryPart, f.MainPart} {
		if p != nil {
			own[p.Disk.Name] = true
		}
	}
	for _, d := range f.Planned {
		own[d.Name] = true
	}
	for _, name := range f.members {
		own[name] = true
	}
	// One list for both: a stick that appears while this looks is seen whole or not at all, and then waited for if this boot came from it.
	disks, err := u.m.Disks()
	if err != nil {
		f.note("media: %v", err)
		return
	}
	u.lookForSticks(f, disks, own)
	found, notes := u.finder(f).Find(ctx, disks, own)
	f.Notes = append(f.Notes, notes...)
	f.Media = found
	if f.Recovery == decide.RecoveryFound {
		m, err := f.Volume.ReadMedium()
		if err == nil {
			f.LastMedium = m
		} else if !errors.Is(err, fs.ErrNotExist) {
			f.note("last medium: %v", err)
		}
	}
	u.judgeMedia(f)
}

// judgeMedia sets the facts about media.
func (u *unit) judgeMedia(f *Found) {
	present := map[string]bool{}
	for i, m := range f.Media {
		for _, r := range m.Refused {
			f.note("medium %s: %s: %v", m.Path, r.File, r.Err)
		}
		if len(m.Files) == 0 && f.Medium == decide.NoMedium {
			f.Medium = decide.MediumUnusable
		}
		for _, file := range m.Files {
			present[file.ID] = true
			s := u.stateOf(f, file)
			if f.Offer == nil || s != decide.MediumDone && f.Medium == decide.MediumDone || s == decide.MediumConfirmed {
				f.Medium, f.Offer, f.OfferFile = s, &f.Media[i], file
			}
		}
	}
	for id := range u.media.answered {
		if !present[id] {
			delete(u.media.answered, id) // when it comes back it is a new wish
		}
	}
	f.lastPresent = present[f.LastMedium.ID]
}

func (u *unit) stateOf(f *Found, file rescue.File) decide.MediumState {
	again := f.LastMedium.ID == file.ID && f.LastMedium.Removed
	switch {
	case u.media.answered[file.ID] != "":
		f.note("medium: %s is left alone: %s", file.Base, u.media.answered[file.ID])
		return decide.MediumDone
	case f.RestoreRequested() && f.Request.ID == file.ID:
		return decide.MediumConfirmed
	case !again && (f.LastMedium.ID == file.ID || f.Fulfilled == file.ID):
		f.note("medium: the unit was restored from %s already: remove the medium", file.Base)
		return decide.MediumDone
	}
	return decide.MediumOffered
}

// mediaPatience says how long after init's start a medium may still be hoped for. waited is how long that is ago.
func (u *unit) mediaPatience(f *Found, waited time.Duration) time.Duration {
	if u.provisions() {
		return 0
	}
	var patience time.Duration
	if f.originMissing { // whatever else is offered: the menu is shown for the stick that started the unit
		patience = usbExpected
	}
	if f.Offer != nil {
		return patience
	}
	ports := u.usbState()
	if f.LastMedium.ID != "" && !f.LastMedium.Removed && !f.lastPresent {
		patience = usbExpected
	}
	u.media.silent = nil
	if len(ports.Pending) > 0 {
		if since := u.media.pendingSince; since == 0 || waited < since { // the second: the wait began anew
			u.media.pendingSince = max(waited, 1)
		}
		bound := usbPending
		if ports.Storage {
			bound = usbStorage
		}
		if bound += u.media.pendingSince; waited >= bound {
			u.media.silent = ports.Pending
		}
		patience = max(patience, bound)
	}
	if ports.Settling > 0 {
		patience = max(patience, min(waited+ports.Settling, usbPending))
	}
	return patience
}

// tellOfSilence says once in a boot that what is in USB ports never answered.
func (u *unit) tellOfSilence() {
	if len(u.media.silent) > 0 && !u.media.silence {
		u.media.silence = true
		u.log.Warn("USB devices do not answer, and are not waited for any longer", "ports", u.media.silent, journal.ForPerson())
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
func (u *unit) tellOfMedia(ctx context.Context, f *Found) {
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
	u.pause(ctx, showFailure)
}

// pause waits, unless a person presses a key.
func (u *unit) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-u.m.Panel.Pressed():
	case <-ctx.Done():
	}
}

// answer remembers why an image on a medium is left alone until the medium is taken out.
func (u *unit) answer(file rescue.File, why string) {
	if u.media.answered == nil {
		u.media.answered = map[string]string{}
	}
	u.media.answered[file.ID] = why
}

// rescue restores from an emergency medium.
func (u *unit) rescue(ctx context.Context, f *Found) Outcome {
	m, file := *f.Offer, f.OfferFile
	sure := f.Medium == decide.MediumConfirmed || f.Choice.Kind == decide.ChooseMedium || u.m.Policy.MediumWithoutConfirmation && f.Main != decide.MainForeign
	u.log.Info("emergency medium", "device", m.Path, "filesystem", m.Type, "image", file.Name.String(), "stick", m.Stick, "sure", sure, journal.ForPerson())
	dir, done, err := u.finder(f).Mount(m)
	if err != nil {
		u.answer(file, err.Error())
		u.refuse(ctx, err)
		return Outcome{Kind: DecideAgain}
	}
	defer func() {
		if err := done(); err != nil {
			u.log.Warn("medium cannot be unmounted", "err", err)
		}
	}()
	im := file.Image(dir)
	if err := u.prove(ctx, im); err != nil {
		u.answer(file, "it cannot be used")
		u.refuse(ctx, fmt.Errorf("%s: %w", file.Base, err))
		return Outcome{Kind: DecideAgain}
	}
	if !sure {
		if out, ok := u.askMedium(ctx, f, file); !ok {
			return out
		}
	}
	r := state.Request{Version: state.Version, ID: file.ID, Kind: state.KindRestore, Image: file.Name.String(), By: "an emergency medium", Time: time.Now().UTC().Truncate(time.Second)}
	out := u.restoreImage(ctx, f, &im, &r, "")
	if out.Kind != RebootNow {
		u.answer(file, "the restore from it failed")
		return out
	}
	if err := f.Volume.WriteMedium(state.Medium{ID: file.ID, Image: file.Name.String()}); err != nil {
		u.log.Warn("medium cannot be noted; the mark names it", "err", err)
	}
	return out
}

// prove shows that an image on a medium is good.
func (u *unit) prove(ctx context.Context, im image.Image) error {
	u.m.Panel.Show(panel.View{Job: string(decide.Rescue), Step: "Checking image"})
	meter, stop := u.m.Track(ctx, im.Size)
	defer stop()
	return image.Prove(ctx, im, u.m.Policy, u.m.Keys, meter.Set)
}

// askMedium asks what to do with a good image. ok says that the restore is confirmed; otherwise out is what follows.
func (u *unit) askMedium(ctx context.Context, f *Found, file rescue.File) (out Outcome, ok bool) {
	out = Outcome{Kind: DecideAgain}
	yes, err := u.m.Panel.Confirm(ctx, "Restore from medium", fmt.Sprintf("Restore %s? All data on the main disk will be lost.", short(file.Name.String(), u.prefix(f))))
	if err != nil || !yes {
		return out, u.notConfirmed(ctx, file, err)
	}
	return out, true
}

// notConfirmed notes that nobody wants the restore, and returns false.
func (u *unit) notConfirmed(ctx context.Context, file rescue.File, err error) bool {
	u.answer(file, "the restore was not confirmed")
	why := fault.Newf(fault.MediumNotAsked, "%s", file.Base)
	if err != nil {
		why = &fault.Occurrence{Fault: fault.MediumNotAsked, Cause: err}
	}
	u.log.Warn("restore from the emergency medium is not confirmed", "code", fault.MediumNotAsked.Code, "image", file.Name.String(), "err", why, journal.ForPerson())
	u.m.Panel.Fail(why)
	if errors.Is(err, panel.ErrNoInput) {
		u.pause(ctx, showFailure)
	}
	return false
}

// noteRemoved notes that the medium from which the unit was restored last is gone, so that it counts anew when it comes back.
func (u *unit) noteRemoved(f *Found) {
	if f.Recovery != decide.RecoveryFound || f.LastMedium.ID == "" || f.LastMedium.Removed || f.lastPresent {
		return
	}
	m := f.LastMedium
	m.Removed = true
	if err := u.change(f, func(v *state.Volume) error { return v.WriteMedium(m) }); err != nil {
		u.log.Warn("it cannot be noted that the medium was removed", "err", err)
	}
}

// change mounts the recovery volume writable for the time of do. Afterwards it is mounted as it was.
func (u *unit) change(f *Found, do func(*state.Volume) error) error {
	mounted, err := u.m.Mounted(u.m.Places.Recovery)
	if err != nil {
		return err
	}
	if mounted {
		if err := u.m.Unmount(u.m.Places.Recovery); err != nil {
			return err
		}
	}
	if err := u.mountVolume(f.RecoveryPart.Path, false); err != nil {
		return err
	}
	err = errors.Join(do(f.Volume), u.m.Unmount(u.m.Places.Recovery))
	if mounted {
		err = errors.Join(err, u.mountVolume(f.RecoveryPart.Path, true))
	}
	return err
}
