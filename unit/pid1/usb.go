package pid1

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gprovision/hw/usb"
	"gprovision/unit/journal"
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

// usbChanged returns a channel that is closed when the USB ports say something else than before, for who waits for them: the kernel sends
// no event when what was connected and no device yet goes away. stop ends the watch.
func (u *unit) usbChanged(ctx context.Context, before usb.State) (changed <-chan struct{}, stop func()) {
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
		u.env().RefuseMedium(ctx, fmt.Errorf("%s: %w", r.File, r.Err))
	}
}
