package survey

import (
	"time"

	"gprovision/hw/usb"
	"gprovision/unit/decide"
)

// recoveryPatience limits how long a missing recovery volume may hold up a complete main system.
const recoveryPatience = 10 * time.Second

// How long to wait for USB disks. A medium that was there at the last boot, or that started this one, has usbExpected,
// from when the drivers were loaded. A new connection has usbPending to become a device, and a storage device has
// usbStorage to get its disk. Both count from when the port was first seen busy. With nothing connected there is no wait.
const (
	usbExpected = 10 * time.Second
	usbPending  = 30 * time.Second
	usbStorage  = 60 * time.Second // Linux waits 20 s for each of the first commands
)

// Wait is how a boot waits for what its surveys still lack. Its zero value has not waited yet.
type Wait struct {
	// pendingSince is when a USB port first had something on its way, counted from the begin of the wait. It is 0 if
	// none had.
	pendingSince time.Duration
	// Silent are the USB ports whose devices have used up their wait.
	Silent []string
}

// ShouldLookAgain reports whether another survey is worthwhile, and how long to wait for it if nothing changes. waited is how
// long the unit has waited so far. ports is the state of its USB ports before the survey: what came while it looked was
// on its way before, and is worth another survey.
func (w *Wait) ShouldLookAgain(s *Survey, f *Findings, ports usb.State, waited time.Duration) (wait time.Duration, more bool) {
	if s.Provisions() || f.Choice.Kind == decide.ChoosePowerOff { // nothing that might appear would be used
		return 0, false
	}
	wait = max(patience(f, s.Eyes.Policy().RootWait()), w.mediaPatience(f, ports, waited)) - waited
	// The next survey starts the array without its missing members. It must not run before that is allowed.
	return max(wait, 0), wait > 0 || f.Awaits
}

// patience returns how long after the drivers were loaded there is hope for more than f has. long is the wait for a main disk.
func patience(f *Findings, long time.Duration) time.Duration {
	switch {
	case f.Awaits:
		return min(memberPatience, long)
	case f.Main == decide.MainMarked && f.Recovery == decide.RecoveryFound:
		return 0
	case f.Main == decide.MainMarked, f.RecoveryRepairable && f.RecoveryRepairs == 0: // a sound one may still appear
		return min(recoveryPatience, long)
	case f.FromStick: // a person is there and can have it looked for again
		return min(recoveryPatience, long)
	case f.Recovery == decide.RecoveryFound && f.RestoreRequested() && f.MainPart == nil && (f.Main == decide.MainBlank ||
		f.Main == decide.MainForeign):
		// Another disk may have taken the place of one that is slow to answer.
		if f.Recorded {
			return 0
		}
		return long
	case f.Recovery == decide.RecoveryFound && f.RestoreRequested() && f.Main != decide.MainAbsent:
		return 0
	case f.EraseUnresolved() && f.Main != decide.MainAbsent: // the erase itself has a plan of all disks
		return 0
	case f.Recovery == decide.RecoveryFound && (f.Main == decide.MainUnmarked || f.Main == decide.MainDamaged && !f.Unreadable):
		return 0
	}
	return long
}

// mediaPatience returns how long after the drivers were loaded there is hope for a medium.
func (w *Wait) mediaPatience(f *Findings, now usb.State, waited time.Duration) time.Duration {
	var patience time.Duration
	if f.OriginMissing { // no matter what else is on offer: the menu waits for the stick that started the unit
		patience = usbExpected
	}
	if f.Offer != nil {
		return patience
	}
	if f.LastMedium.ID != "" && !f.LastMedium.Removed && !f.LastPresent {
		patience = usbExpected
	}
	w.Silent = nil
	if len(now.Pending) > 0 {
		if w.pendingSince == 0 || waited < w.pendingSince { // the second: the wait has begun again
			w.pendingSince = max(waited, 1)
		}
		bound := usbPending
		if now.Storage {
			bound = usbStorage
		}
		if bound += w.pendingSince; waited >= bound {
			w.Silent = now.Pending
		}
		patience = max(patience, bound)
	}
	if now.Settling > 0 {
		patience = max(patience, min(waited+now.Settling, usbPending))
	}
	return patience
}
