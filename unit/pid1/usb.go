package pid1

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"gprovision/hw/host"
	"gprovision/hw/usb"
	"gprovision/unit/journal"
	"gprovision/unit/survey"
)

// portsName is the name of the process that asks USB hubs: process 1 must not hang where the kernel holds a hub.
const portsName = "gprov-ports"

// portsMain is that process, if args say so. Then it does not return.
func portsMain(args []string) {
	if len(args) == 0 || args[0] != portsName {
		return
	}
	_ = host.SetName(portsName)
	if err := usb.Answer(os.Stdin, os.Stdout, "/dev"); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// startPorts starts the process and returns how to ask through it. It needs /proc. Without the process, init itself asks the hubs, and may
// hang there.
func startPorts(log *slog.Logger) usb.Doors {
	c, err := host.Companion([]string{portsName})
	if err != nil {
		log.Warn("USB hubs are asked by init itself", "err", err)
		return usb.Machine("/dev")
	}
	return usb.NewAsker(c, "/dev").Doors()
}

// media is what init has said of USB in this boot.
type media struct {
	// shown are the media whose unusable files the person was shown, by device.
	shown map[string]bool
	// silence reports whether the log has the USB ports whose devices never answered.
	silence bool
}

// usbState is what the USB ports say now.
func (u *unit) usbState() usb.State { return usb.Read(u.m.Sys, u.kernel.Hubs()) }

// watchPorts returns a channel that is closed when the USB ports say something else than before. The kernel sends no event when something
// goes away that was connected and no device yet. stop ends the watch.
func (u *unit) watchPorts(ctx context.Context, before usb.State) (changed <-chan struct{}, stop func()) {
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

// warnOfSilentPorts says once in a boot that what is in USB ports never answered.
func (u *unit) warnOfSilentPorts() {
	if len(u.wait.Silent) > 0 && !u.media.silence {
		u.media.silence = true
		u.log.Warn("USB devices do not answer, and are not waited for any longer", "ports", u.wait.Silent, journal.ForPerson())
	}
}

// showUnusableMedia shows once in a boot that a medium cannot be used.
func (u *unit) showUnusableMedia(ctx context.Context, f *survey.Findings) {
	for _, m := range f.Media {
		if len(m.Files) > 0 || u.media.shown[m.Path] {
			continue
		}
		if u.media.shown == nil {
			u.media.shown = map[string]bool{}
		}
		u.media.shown[m.Path] = true
		r := m.Refused[0]
		u.env().RefuseMedium(ctx, fmt.Errorf("%s: %w", r.File, r.Err))
	}
}
