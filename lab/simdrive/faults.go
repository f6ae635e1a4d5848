package simdrive

import (
	"slices"
	"time"

	"gprovision/hw/drive"
)

// Faults are what is wrong with a drive. The zero value is an honest drive without faults.
type Faults struct {
	// Only are the methods that the faults of erasing hit; empty: all.
	Only []drive.Method

	// Nothing: an erase takes its time, is said to be complete, and erases nothing.
	Nothing bool
	// TooEarly: an erase is said to be complete at once, and goes on in secret; a loss of power ends it.
	TooEarly bool
	// KeepStratum, 1 to 16: an erase leaves out that sixteenth of the drive.
	KeepStratum int
	// KeepBlock: an erase leaves out this sector, counted from 1.
	KeepBlock int64
	// KeepLast: an erase leaves out the last sector.
	KeepLast bool
	// FirstOnly: an erase of a whole NVM subsystem reaches the first namespace only.
	FirstOnly bool
	// KeepArea: an erase leaves out what a host protected area hides, also after that was opened.
	KeepArea bool
	// KeepOverlay: an erase leaves out what a device configuration overlay hides.
	KeepOverlay bool
	// KeepHidden: an erase does not reach reallocated sectors and other hidden copies.
	KeepHidden bool
	// MapOnly: an erase forgets where the data are and leaves them. No host can see that.
	MapOnly bool
	// FailAtEnd: an erase fails when all but a twentieth is done.
	FailAtEnd bool
	// FailFirst: so many erases fail in this way, then none does.
	FailFirst int
	// Stall: the progress of an erase stops at the half and does not go on.
	Stall bool
	// ForgetOnReset: an erase in progress is forgotten when the drive is reset or loses power, as if it had never been asked for.
	ForgetOnReset bool
	// DoneOnReset: an erase in progress ends when the drive is reset or loses power, and is said to be complete.
	DoneOnReset bool
	// Unreadable: after an erase sectors cannot be read until they are written.
	Unreadable bool
	// Slow makes an erase take so many times as long; 0: as long as it says.
	Slow int

	// Boasts: the drive says that it knows all methods, and refuses those that Config does not have.
	Boasts bool
	// HidesStatus: a bridge does not pass on what the drive says of its state.
	HidesStatus bool
	// OldCompleted: the drive says that an erase of the very same kind was completed some time ago, and goes on saying it for OldFor after a
	// new one began.
	OldCompleted bool
	// OldFor is how long an old word is said; 0: three seconds.
	OldFor time.Duration
	// WrongEcho: the drive's log says that the last erase had other parameters than it had.
	WrongEcho bool

	// NotPurged: the drive was asked to purge or fail, and does not say afterwards that it purged.
	NotPurged bool
	// NeverVerifies: a sanitize operation that is to end in the media verification state ends without it, as if nobody had asked.
	NeverVerifies bool

	// OldFromCache: after an erase what was read or written before comes from the drive's cache, until it is reset or loses power.
	OldFromCache bool
	// CacheOnly: writes stay in the drive's cache, flushed or not, and are lost when it is reset, erased or loses power.
	CacheOnly bool
	// Remapped is how many sectors were reallocated: as many hidden copies of old data. ATA and SCSI drives say so.
	Remapped int64
	// HidesRemapped: they say that none was.
	HidesRemapped bool
	// BadSectors is how many sectors cannot be written and keep what they have when a host writes.
	BadSectors int

	// Locked: a drive that encrypts was locked by somebody: it is neither read nor erased without his password, until it is reverted.
	Locked bool
	// StaysLocked: a revert by the PSID is said to be good, and the drive is locked as before.
	StaysLocked bool
	// KeepsPassword: a Security Erase leaves the password set.
	KeepsPassword bool
	// Frozen: the security commands are frozen, as firmware leaves them, also after power was lost.
	Frozen bool
	// SanitizeFrozen: the sanitize commands are frozen.
	SanitizeFrozen bool
	// OverlayStays: taking a device configuration overlay away is refused.
	OverlayStays bool
	// AreaStays: opening a host protected area is accepted and does nothing.
	AreaStays bool

	// BusyEvery: each so-manieth command is not taken and answered as if the drive were busy for a moment.
	BusyEvery int
	// SwapAfter: after so many commands the drive answers with the identity of another one.
	SwapAfter int
}

// hit reports whether faults of erasing concern a method.
func (f Faults) hit(m drive.Method) bool { return len(f.Only) == 0 || slices.Contains(f.Only, m) }
