package drive

import (
	"errors"
	"fmt"
	"time"
)

// ATA is a drive with the commands of ATA, sent by ATA PASS-THROUGH (16): SATA disks, on a controller or behind a bridge that knows it.
type ATA struct {
	dev    Device
	permit permitter
}

// ErrNoRegisters says that a bridge does not pass on what a drive answers, so that nobody can know it.
var ErrNoRegisters = errors.New("the bridge does not show what the drive answers")

// ErrBridge says that a command is not sent to a drive behind a USB bridge: drives were lost that way.
var ErrBridge = errors.New("security commands are not sent through a USB bridge")

// ATAError is a command that an ATA drive answered with an error.
type ATAError struct {
	Command   byte
	Registers Registers
}

func (e ATAError) Error() string {
	return fmt.Sprintf("ATA command %02Xh: status %02Xh, error %02Xh", e.Command, e.Registers.Status, e.Registers.Error)
}

// The commands (ACS-3 clause 7, each with its command).
const (
	ataDCO              = 0xb1 // DEVICE CONFIGURATION, feature C0h: restore, C2h: identify (ACS-2)
	ataSMART            = 0xb0 // SMART, its features in smart.go
	ataSanitize         = 0xb4
	ataIdentify         = 0xec
	ataSetPassword      = 0xf1
	ataUnlock           = 0xf2
	ataErasePrepare     = 0xf3
	ataEraseUnit        = 0xf4
	ataDisablePassword  = 0xf6
	ataReadNativeMaxExt = 0x27 // ACS-2
	ataReadNativeMax    = 0xf8 // ACS-2
	ataSetMaxExt        = 0x37 // ACS-2
	ataSetMax           = 0xf9 // ACS-2
	ataAccessibleMax    = 0x78 // ACCESSIBLE MAX ADDRESS CONFIGURATION, feature 0000h: get native
	featureDCORestore   = 0xc0
	featureDCOIdentify  = 0xc2
)

// taskfile is the fields of an ATA command.
type taskfile struct {
	command  byte
	features uint16
	count    uint16
	lba      uint64
	device   byte
	ext      bool // a 48-bit command
	dir      Direction
	data     []byte
	timeout  time.Duration
}

// passThrough is ATA PASS-THROUGH (16) (SAT 12.2.2.2). A command without data asks for the registers back (CK_COND).
func (t taskfile) passThrough() SCSICommand {
	const (
		nonData, pioIn, pioOut = 3 << 1, 4 << 1, 5 << 1
		ckCond, fromDevice     = 0x20, 0x08
		blocks, lengthInCount  = 0x04, 0x02
	)
	cdb := make([]byte, 16)
	cdb[0] = opATAPassThrough16
	count := t.count
	switch t.dir {
	case NoData:
		cdb[1], cdb[2] = nonData, ckCond
	case FromDrive:
		cdb[1], cdb[2], count = pioIn, fromDevice|blocks|lengthInCount, uint16(len(t.data)/512)
	case ToDrive:
		cdb[1], cdb[2], count = pioOut, blocks|lengthInCount, uint16(len(t.data)/512)
	}
	cdb[4], cdb[6], cdb[8], cdb[10], cdb[12] = byte(t.features), byte(count), byte(t.lba), byte(t.lba>>8), byte(t.lba>>16)
	if t.ext {
		cdb[1] |= 1
		cdb[3], cdb[5], cdb[7], cdb[9], cdb[11] = byte(t.features>>8), byte(count>>8), byte(t.lba>>24), byte(t.lba>>32), byte(t.lba>>40)
	}
	cdb[13], cdb[14] = t.device, t.command
	return SCSICommand{CDB: cdb, Direction: t.dir, Data: t.data, Timeout: t.timeout}
}

// ask sends a command that changes nothing, as send does.
func (a *ATA) ask(t taskfile) (r Registers, ok bool, err error) {
	err = untilTold(func() error {
		r, ok, err = a.send(t)
		return err
	})
	return r, ok, err
}

// send sends a command. ok is false if the drive completed it, and nobody passed on the registers.
func (a *ATA) send(t taskfile) (r Registers, ok bool, err error) {
	res, err := a.dev.SCSI(t.passThrough())
	if err != nil {
		return r, false, fmt.Errorf("ATA command %02Xh: %w", t.command, err)
	}
	if res.Status == statusGood {
		if t.dir == FromDrive && res.Residual > 0 {
			return r, false, fmt.Errorf("ATA command %02Xh: %d bytes are missing", t.command, res.Residual)
		}
		return r, false, nil
	}
	sense, ok := ParseSense(res.Sense)
	switch {
	case res.Status != statusCheckCondition, !ok:
	case sense.HasATA && sense.ATA.Status&statusFailed != 0:
		return sense.ATA, true, ATAError{Command: t.command, Registers: sense.ATA}
	case sense.HasATA:
		return sense.ATA, true, nil
	case sense.Key == keyNone, sense.Key == keyRecovered:
		return r, false, nil
	}
	return r, false, SenseError{Opcode: opATAPassThrough16, Status: res.Status, Sense: sense}
}

// destroy sends a command for which a permit is needed.
func (a *ATA) destroy(p Permit, t taskfile) error {
	return a.permit.send(p, func() error {
		_, _, err := a.send(t)
		return err
	})
}

// Identify asks the drive who it is and what it can do.
func (a *ATA) Identify() (Identify, error) {
	b := make([]byte, 512)
	if _, _, err := a.ask(taskfile{command: ataIdentify, dir: FromDrive, data: b}); err != nil {
		return Identify{}, fmt.Errorf("read identity: %w", err)
	}
	return ParseIdentify(b)
}

// sanitizeLBA is the extended LBA of 4F57h above the pattern (ACS-3 7.36.4), and the signatures of the two others (ACS-3 7.36.3, 7.36.2).
const (
	overwriteKey = 0x4f57 << 32
	cryptoKey    = 0x43727970 // "Cryp"
	blockKey     = 0x426b4572 // "BkEr"
)

// Sanitize starts a sanitize operation (ACS-3 7.36) and returns when the drive has accepted it; it goes on in the background, over power
// cuts too. FAILURE MODE stays 0: after a failure only another one is accepted.
func (a *ATA) Sanitize(p Permit, e Erasure, w Pattern) error {
	t, err := sanitizeATA(e, w)
	if err != nil {
		return err
	}
	return a.destroy(p, t)
}

func sanitizeATA(e Erasure, w Pattern) (taskfile, error) {
	t := taskfile{command: ataSanitize, device: 0x40, ext: true, timeout: time.Minute}
	switch e {
	case CryptoErase:
		t.features, t.lba = 0x0011, cryptoKey
	case BlockErase:
		t.features, t.lba = 0x0012, blockKey
	case Overwrite:
		if err := w.check(e); err != nil {
			return taskfile{}, err
		}
		t.features, t.lba, t.count = 0x0014, overwriteKey|uint64(w.Word), uint16(w.Passes)
		if w.Invert {
			t.count |= 1 << 7
		}
	default:
		return taskfile{}, fmt.Errorf("there is no erasure %d", e)
	}
	return t, nil
}

// SanitizeStatus is what an ATA drive says of sanitize operations (ACS-3, SANITIZE STATUS EXT).
type SanitizeStatus struct {
	Completed  bool // the last one completed without error
	InProgress bool
	Frozen     bool // no sanitize operation is accepted until the power goes off and on
	AntiFreeze bool // nor is freezing
	Failed     bool // the last one failed, and only another one is accepted
	Progress   uint16
	Registers  Registers
}

// SanitizeStatus asks for it. The error is ErrNoRegisters where a bridge hides the upper half of a field in which the answer is.
func (a *ATA) SanitizeStatus() (SanitizeStatus, error) {
	r, ok, err := a.ask(taskfile{command: ataSanitize, device: 0x40, ext: true}) // feature 0000h; CLEAR SANITIZE OPERATION FAILED stays 0
	if e := (ATAError{}); errors.As(err, &e) && e.Registers.LBA&0xff == 1 {
		return SanitizeStatus{Failed: true, Registers: r}, nil // reason 01h: sanitize command unsuccessful (ACS-3, SANITIZE DEVICE ERROR REASON)
	}
	switch {
	case err != nil:
		return SanitizeStatus{}, fmt.Errorf("ask for sanitize status: %w", err)
	case !ok || !r.Upper:
		return SanitizeStatus{}, fmt.Errorf("ask for sanitize status: %w", ErrNoRegisters)
	}
	return SanitizeStatus{
		Completed: r.Count&(1<<15) != 0, InProgress: r.Count&(1<<14) != 0, Frozen: r.Count&(1<<13) != 0, AntiFreeze: r.Count&(1<<12) != 0,
		Progress: uint16(r.LBA), Registers: r,
	}, nil
}

// Password is the user password of the security feature set. It shows itself as [secret].
type Password struct{ b [32]byte }

// NewPassword makes a password of 1 to 32 bytes, padded with zeros. Zeros alone are refused: drives take them for none.
func NewPassword(b []byte) (Password, error) {
	var p Password
	if len(b) > len(p.b) {
		return Password{}, fmt.Errorf("a password of %d bytes: want at most %d", len(b), len(p.b))
	}
	copy(p.b[:], b)
	if p == (Password{}) {
		return Password{}, errors.New("an empty password")
	}
	return p, nil
}

// String returns [secret].
func (Password) String() string { return "[secret]" }

// GoString returns [secret].
func (Password) GoString() string { return "[secret]" }

// block is the data of the security commands (ACS-3 7.37 to 7.42): word 0 with the bits given, the password in words 1 to 16. Bit 0 of
// word 0 would say that it is the master password, bit 8 of SECURITY SET PASSWORD that the level is maximum: neither can be asked for.
func (p Password) block(erase byte) []byte {
	b := make([]byte, 512)
	b[0] = erase
	copy(b[2:], p.b[:])
	return b
}

// security sends a command with a password, not through a USB bridge.
func (a *ATA) security(p Permit, command byte, data []byte, timeout time.Duration) error {
	state, err := a.dev.State()
	if err != nil {
		return err
	}
	if state.USB {
		return ErrBridge
	}
	t := taskfile{command: command, timeout: timeout}
	if data != nil {
		t.dir, t.data = ToDrive, data
	}
	return a.destroy(p, t)
}

// SetPassword sets the user password, level high (ACS-3 7.41). Until it is disabled, or an erase is complete, the drive is locked after
// each loss of power: whoever sets it must have written it down where a power cut does not reach.
func (a *ATA) SetPassword(p Permit, w Password) error {
	return a.security(p, ataSetPassword, w.block(0), 0)
}

// Unlock opens a locked drive with the user password (ACS-3 7.42). A drive counts wrong ones, and refuses after five until the power goes
// off and on.
func (a *ATA) Unlock(p Permit, w Password) error { return a.security(p, ataUnlock, w.block(0), 0) }

// DisablePassword takes the user password away (ACS-3 7.37). The drive must be unlocked.
func (a *ATA) DisablePassword(p Permit, w Password) error {
	return a.security(p, ataDisablePassword, w.block(0), 0)
}

// SecureErase erases by the security feature set (ACS-3 7.38, 7.39): SECURITY ERASE PREPARE, then SECURITY ERASE UNIT with the user
// password that was set. It returns when the drive is done, which takes hours: timeout bounds it. An enhanced erase reaches sectors that
// were reallocated too.
func (a *ATA) SecureErase(p Permit, w Password, enhanced bool, timeout time.Duration) error {
	var mode byte
	if enhanced {
		mode = 1 << 1
	}
	// The drive refuses the second unless it comes right after the first, so the permit is not checked between the two.
	if err := a.security(p, ataErasePrepare, nil, 0); err != nil {
		return err
	}
	_, _, err := a.send(taskfile{command: ataEraseUnit, dir: ToDrive, data: w.block(mode), timeout: timeout})
	return err
}

// NativeSectors returns how many sectors the drive has with those of a host protected area. The drive must know one of the feature sets.
func (a *ATA) NativeSectors(id Identify) (uint64, error) {
	t := taskfile{device: 0x40}
	switch {
	case id.AccessibleMax:
		t.command, t.ext = ataAccessibleMax, true
	case id.HPA && id.LBA48:
		t.command, t.ext = ataReadNativeMaxExt, true
	case id.HPA:
		t.command = ataReadNativeMax
	default:
		return 0, fmt.Errorf("read native size: %w", errors.ErrUnsupported)
	}
	r, ok, err := a.ask(t)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read native size: %w", err)
	case !ok || t.ext && !r.Upper:
		return 0, fmt.Errorf("read native size: %w", ErrNoRegisters)
	case !t.ext:
		r.LBA |= uint64(r.Device&0x0f) << 24
	}
	return r.LBA + 1, nil
}

// SetSectors opens a host protected area, or puts it back, until the power goes off and on (ACS-2, SET MAX ADDRESS and EXT, VOLATILE
// VALUE): there is no way to say that it should last. The kernel learns of the new size when it looks at the drive again.
func (a *ATA) SetSectors(p Permit, id Identify, sectors uint64) error {
	if !id.HPA || sectors == 0 {
		return fmt.Errorf("set size to %d sectors: %w", sectors, errors.ErrUnsupported)
	}
	if err := a.permit(p); err != nil {
		return err
	}
	last := sectors - 1
	read, set := taskfile{command: ataReadNativeMax, device: 0x40}, taskfile{command: ataSetMax, device: 0x40 | byte(last>>24)&0x0f, lba: last}
	if id.LBA48 {
		read, set = taskfile{command: ataReadNativeMaxExt, device: 0x40}, taskfile{command: ataSetMaxExt, device: 0x40, lba: last}
		read.ext, set.ext = true, true
	}
	for _, t := range []taskfile{read, set} { // the drive refuses the second unless the first came right before it
		if _, _, err := a.send(t); err != nil {
			return fmt.Errorf("set size to %d sectors: %w", sectors, err)
		}
	}
	return nil
}

// FactorySectors returns how many sectors the drive was made with, by DEVICE CONFIGURATION IDENTIFY (ACS-2): more than NativeSectors
// where a device configuration overlay hides some. It changes nothing.
func (a *ATA) FactorySectors() (uint64, error) {
	b := make([]byte, 512)
	if _, _, err := a.ask(taskfile{command: ataDCO, features: featureDCOIdentify, dir: FromDrive, data: b}); err != nil {
		return 0, fmt.Errorf("read device configuration: %w", err)
	}
	if err := checkIntegrity(b); err != nil {
		return 0, fmt.Errorf("read device configuration: %w", err)
	}
	return words(b).quad(3) + 1, nil
}

// RestoreConfiguration takes a device configuration overlay away for good, by DEVICE CONFIGURATION RESTORE (ACS-2): the drive has all
// sectors and features again that it was made with. It is refused while a host protected area is closed.
func (a *ATA) RestoreConfiguration(p Permit) error {
	return a.destroy(p, taskfile{command: ataDCO, features: featureDCORestore, device: 0x40})
}
