package simdrive

import (
	"errors"
	"maps"
	"slices"
	"time"

	"gprovision/hw/drive"
)

// Protocol is what a drive speaks.
type Protocol string

// The protocols.
const (
	NVMe Protocol = "NVMe"
	ATA  Protocol = "ATA"
	SCSI Protocol = "SCSI"
	MMC  Protocol = "MMC"
)

// Config is what a drive is.
type Config struct {
	Seed                    uint64
	Protocol                Protocol
	Model, Serial, Firmware string
	Number                  drive.Number
	SectorSize              int
	Sectors                 int64 // of the device, or of the first namespace
	// Others are the sectors of further namespaces, NVMe only; the last Unattached of them are not attached to the controller.
	Others     []int64
	Unattached int
	// Area is how many sectors a host protected area hides behind Sectors, ATA only.
	Area int64
	// Overlay is how many sectors a device configuration overlay hides behind those, ATA only.
	Overlay int64
	// Flash: a write goes to another place, and what was there before stays in a hidden copy.
	Flash bool
	// USB: the drive is behind a bridge, which says another vendor; ATA PASS-THROUGH goes through it.
	USB bool
	// Methods are those that the drive knows.
	Methods []drive.Method
	// Times are how long they take; those that are not there take a minute, a cryptographic erase two seconds.
	Times map[drive.Method]time.Duration
	// NoKeep: the drive deallocates although it was asked not to (NDI).
	NoKeep bool
	// Encrypts: the drive encrypts what it stores, and says so by Level 0 Discovery.
	Encrypts bool
	// Enterprise: it does that by the Enterprise SSC, else by Opal.
	Enterprise bool
	// PSID is the number on the label of a drive that encrypts; empty: it cannot be reverted.
	PSID string
	// Verify: the drive has the media verification state, NVMe only.
	Verify bool
	// Purges: the drive knows the demand to purge or fail, NVMe only.
	Purges bool
	// Noise: after a cryptographic erase sectors are read as if by chance, else as zeros.
	Noise bool
	// Health is what the drive says of its state, as far as its protocol has words for it.
	Health drive.Health
}

// NVMeDisk is an honest NVMe disk of 256 MiB that knows all methods.
func NVMeDisk(seed uint64) Config {
	return Config{
		Seed: seed, Protocol: NVMe, Model: "Lab NVMe", Serial: "N0001", Firmware: "1.0", Number: drive.Number{Major: 259},
		SectorSize: 4096, Sectors: 1 << 16, Flash: true, Noise: true,
		Methods: []drive.Method{
			drive.NVMeSanitizeCrypto, drive.NVMeSanitizeBlock, drive.NVMeSanitizeOverwrite, drive.NVMeFormatCrypto, drive.NVMeFormatUser,
		},
	}
}

// SATADisk is an honest rotating SATA disk of 128 MiB that knows all methods but the cryptographic one and block erase.
func SATADisk(seed uint64) Config {
	return Config{
		Seed: seed, Protocol: ATA, Model: "Lab SATA", Serial: "A0001", Firmware: "1.0", Number: drive.Number{Major: 8},
		SectorSize: 512, Sectors: 1 << 18,
		Methods: []drive.Method{drive.ATASanitizeOverwrite, drive.ATASecurityEnhanced, drive.ATASecurityNormal},
	}
}

// SATAFlash is an honest SATA disk without moving parts that knows all methods.
func SATAFlash(seed uint64) Config {
	c := SATADisk(seed)
	c.Model, c.Serial, c.Flash = "Lab SSD", "A0002", true
	c.Methods = []drive.Method{
		drive.ATASanitizeCrypto, drive.ATASanitizeBlock, drive.ATASanitizeOverwrite, drive.ATASecurityEnhanced, drive.ATASecurityNormal,
	}
	return c
}

// SCSIDisk is an honest rotating SAS disk of 128 MiB that knows all methods but block erase.
func SCSIDisk(seed uint64) Config {
	return Config{
		Seed: seed, Protocol: SCSI, Model: "LAB SAS disk", Serial: "S0001", Firmware: "1.0", Number: drive.Number{Major: 8, Minor: 16},
		SectorSize: 512, Sectors: 1 << 18,
		Methods: []drive.Method{drive.SCSISanitizeCrypto, drive.SCSISanitizeOverwrite, drive.SCSIFormatUnit},
	}
}

// MMCDisk is an honest eMMC of 128 MiB that knows its method. Boot areas and RPMB are no part of what is simulated.
func MMCDisk(seed uint64) Config {
	return Config{
		Seed: seed, Protocol: MMC, Model: "LABMMC", Serial: "0x00000001", Firmware: "1.0", Number: drive.Number{Major: 179},
		SectorSize: 512, Sectors: 1 << 18, Flash: true, Methods: []drive.Method{drive.MMCSanitize},
	}
}

// OldMMCDisk is an honest eMMC of 128 MiB that is older than Sanitize and knows Secure Erase.
func OldMMCDisk(seed uint64) Config {
	c := MMCDisk(seed)
	c.Model, c.Serial, c.Methods = "OLDMMC", "0x00000002", []drive.Method{drive.MMCSecureErase}
	return c
}

// ErrNoPower says that a drive has no power.
var ErrNoPower = errors.New("the drive has no power")

// Sent is a command that reached a drive.
type Sent struct {
	At time.Duration
	// Command is the submission queue entry (64 bytes), the command block, or index and argument of an eMMC's command.
	Command []byte
}

// outcome is how an operation ended.
type outcome int

const (
	never outcome = iota
	completed
	failed
)

// Drive is one simulated drive. Its methods are those of a drive.Device of hw/drive, of a block device, and of whoever runs the simulation.
type Drive struct {
	c     Config
	f     Faults
	clock *Clock
	m     medium
	mark  int

	sent   []Sent
	off    bool
	cutAt  time.Duration // when the power will go; 0: it will not
	offAt  time.Duration
	users  []string
	free   bool // nobody has claimed it
	kernel int64

	op        *operation
	ended     outcome // of the last erase that was no sanitize operation
	said      outcome // of the last sanitize operation
	echo      uint32  // its Dword 10, NVMe
	passes    int
	untouched bool // nothing was written since the last sanitize
	purged    bool // it was asked to purge, and did
	verifying bool // it is in the media verification state
	canceled  bool // a reset ended that
	faulty    int  // how many erases failed by FailFirst

	cache map[int64][]byte
	bad   map[int64]bool

	locked bool // somebody locked a drive that encrypts
	ata    ataState
	scsi   scsiState
	tcg    tcgState
}

// New makes a drive full of data, which Residue counts as old. It is powered and claimed, and nobody uses it.
func New(c Config, f Faults, clock *Clock) *Drive {
	c.Methods, c.Times = slices.Clone(c.Methods), maps.Clone(c.Times)
	total := c.Sectors + c.Area + c.Overlay
	for _, n := range c.Others {
		total += n
	}
	d := &Drive{c: c, f: f, clock: clock, mark: 1, kernel: c.Sectors, cache: map[int64][]byte{}, bad: map[int64]bool{}}
	r := random(c.Seed)
	d.m = newMedium(total, c.SectorSize, fill{seed: r.next() | 1})
	d.m.hidden[0] = f.Remapped
	for len(d.bad) < min(f.BadSectors, int(c.Sectors)) {
		d.bad[int64(r.next()%uint64(c.Sectors))] = true
	}
	if f.OldCompleted {
		d.said, d.echo, d.untouched = completed, 4, false
	}
	d.ata.visible, d.ata.overlay, d.locked = c.Sectors, c.Overlay, f.Locked
	d.scsi.attention = true
	return d
}

// Mark makes what is on the medium now the old data that Residue counts, and that only.
func (d *Drive) Mark() { d.mark++ }

// Residue returns how many sectors of old data the medium still has: those that a host can read, and hidden copies that none can.
func (d *Drive) Residue() (readable, hidden int64) {
	d.settle()
	return d.m.residue(d.mark)
}

// Sent returns the commands that reached the drive.
func (d *Drive) Sent() []Sent { return d.sent }

// SetUsers says who uses the drive on its machine, as drive.State has it.
func (d *Drive) SetUsers(users ...string) { d.users = users }

// SetClaimed says whether the drive is open exclusively.
func (d *Drive) SetClaimed(claimed bool) { d.free = !claimed }

// State says what the machine knows of the drive.
func (d *Drive) State() (drive.State, error) {
	if d.off {
		return drive.State{}, ErrNoPower
	}
	s := drive.State{Number: d.c.Number, Size: d.kernel * int64(d.c.SectorSize), Claimed: !d.free, Users: d.users, USB: d.c.USB}
	switch d.c.Protocol {
	case NVMe:
		s.NSID = 1
	case MMC:
		s.CID = d.cid()
	}
	return s, nil
}

// Suspend is what a drive notices of a machine that sleeps: it loses its power, and firmware does not freeze it afterwards.
func (d *Drive) Suspend() {
	d.PowerCut()
	d.PowerOn()
	d.ata.thawed = true
}

// Rescan makes the kernel ask the drive for its size again, as after a host protected area was opened.
func (d *Drive) Rescan() { d.kernel = d.ata.visible }

// CutAt makes the power go at a time of the clock, also in the middle of a command; 0: it does not.
func (d *Drive) CutAt(at time.Duration) { d.cutAt = at }

// knows reports whether a drive knows a method.
func (d *Drive) knows(m drive.Method) bool { return slices.Contains(d.c.Methods, m) }

// says reports whether a drive says that it knows a method.
func (d *Drive) says(m drive.Method) bool { return d.f.Boasts || d.knows(m) }

// arrive is where each command begins. busy reports whether it is not taken this time.
func (d *Drive) arrive(command []byte) (busy bool, err error) {
	if err := d.live(time.Millisecond); err != nil {
		return false, err
	}
	d.sent = append(d.sent, Sent{d.clock.Now(), slices.Clone(command)})
	return d.f.BusyEvery > 0 && len(d.sent)%d.f.BusyEvery == 0, nil
}

// live lets the time of a command pass, and says whether the drive still has power then.
func (d *Drive) live(takes time.Duration) error {
	if d.off {
		return ErrNoPower
	}
	if d.cutAt > 0 && d.clock.Now()+takes >= d.cutAt {
		d.clock.Advance(d.cutAt - d.clock.Now())
		d.PowerCut()
		return ErrNoPower
	}
	d.clock.Advance(takes)
	d.settle()
	return nil
}

// identity returns the model and the serial number that the drive says now.
func (d *Drive) identity() (model, serial string) {
	if d.f.SwapAfter > 0 && len(d.sent) > d.f.SwapAfter {
		return d.c.Model, d.c.Serial + "X"
	}
	return d.c.Model, d.c.Serial
}
