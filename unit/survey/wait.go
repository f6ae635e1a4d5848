package survey

import (
	"gprovision/hw/usb"
	"gprovision/unit/decide"
	"time"
)

// recoveryPatience is how long a missing recovery volume may hold up a complete main system.
const recoveryPatience = 10 * time.Second

// How long USB disks are waited for: for a medium that was there at the last boot, from init's start; and from when something was seen to
// be
// connected, for that to be a device, and for a storage device to have a disk. With nothing connected there is no wait.
const (
	usbExpected = 10 * time.Second
	usbPending  = 30 * time.Second
	usbStorage  = 60 * time.Second // Linux waits for the first commands for 20 s each
)

// Wait is how a boot waits for what its surveys lack. The zero value has not waited yet.
type Wait struct {
	// pendingSince is how long after the begin of the wait something was on its way in a USB port for the first time; 0: never.
	pendingSince time.Duration
	// Silent are the USB ports whose devices were waited for long enough.
	Silent []string
}

// Hopes reports whether it is worth to survey again, and how long until then if nothing changes. waited is how long the unit has waited,
// ports
// says what is going on in its USB ports.
func (w *Wait) Hopes(s *Survey, f *Findings, ports func() usb.State, waited time.Duration) (wait time.Duration, more bool) {
	if s.Provisions() || f.Choice.Kind == decide.ChoosePowerOff { // nothing that could come is used
		return 0, false
	}
	wait = max(patience(f, s.Eyes.Policy().RootWait()), w.media(f, ports, waited)) - waited
	// Members that are missing: the next survey starts the array without them. It must not come before that is allowed.
	return max(wait, 0), wait > 0 || f.Awaits
}

// patience says how long after init's start more may be hoped for than f has. long is how long a main disk is waited for.
func patience(f *Findings, long time.Duration) time.Duration {
	switch {
	case f.Awaits:
		return min(memberPatience, long)
	case f.Main == decide.MainMarked && f.Recovery == decide.RecoveryFound:
		return 0
	case f.Main == decide.MainMarked, f.RecoveryRepairable && f.RecoveryRepairs == 0: // before a damaged one is repaired another may appear
		return min(recoveryPatience, long)
	case f.FromStick: // a person is there, who can have it looked for again
		return min(recoveryPatience, long)
	case f.Recovery == decide.RecoveryFound && f.RestoreRequested() && f.MainPart == nil && (f.Main == decide.MainBlank ||
		f.Main == decide.MainForeign):
		// Another disk may be in the place of one that is slow to answer.
		if f.Recorded {
			return 0
		}
		return long
	case f.Recovery == decide.RecoveryFound && f.RestoreRequested() && f.Main != decide.MainAbsent:
		return 0
	case f.Recovery == decide.RecoveryFound && (f.Main == decide.MainUnmarked || f.Main == decide.MainDamaged && !f.Unreadable):
		return 0
	}
	return long
}

// media says how long after init's start a medium may still be hoped for.
func (w *Wait) media(f *Findings, ports func() usb.State, waited time.Duration) time.Duration {
	var patience time.Duration
	if f.OriginMissing { // whatever else is offered: the menu is shown for the stick that started the unit
		patience = usbExpected
	}
	if f.Offer != nil {
		return patience
	}
	now := ports()
	if f.LastMedium.ID != "" && !f.LastMedium.Removed && !f.LastPresent {
		patience = usbExpected
	}
	w.Silent = nil
	if len(now.Pending) > 0 {
		if w.pendingSince == 0 || waited < w.pendingSince { // the second: the wait began anew
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
