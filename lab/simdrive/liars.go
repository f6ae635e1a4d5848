package simdrive

import (
	"time"

	"gprovision/hw/drive"
)

// Liar is a drive that is not what it says, or fails.
type Liar struct {
	Name   string
	Config Config
	Faults Faults
	// Secret reports whether no command of a host can reveal the lie.
	Secret bool
}

// Liars returns drives with each of the faults, for whoever wants to know what his own erase makes of them.
func Liars(seed uint64) []Liar {
	bases := []struct {
		name   string
		config Config
	}{
		{"NVMe", NVMeDisk(seed)}, {"SATA", SATADisk(seed)}, {"SATA flash", SATAFlash(seed)}, {"SCSI", SCSIDisk(seed)},
		{"eMMC", MMCDisk(seed)}, {"old eMMC", OldMMCDisk(seed)},
	}
	var out []Liar
	for _, b := range bases {
		for _, l := range commonLiars() {
			if b.config.Protocol == MMC {
				if l.Faults.BusyEvery > 0 {
					continue // the kernel waits until it is not
				}
				l.Secret = l.Secret || l.Faults.CacheOnly       // nobody can reset it
				l.Faults.SwapAfter = min(l.Faults.SwapAfter, 7) // it needs fewer commands
			}
			out = append(out, Liar{b.name + ": " + l.Name, b.config, l.Faults, l.Secret})
		}
	}
	return append(out, specialLiars(seed)...)
}

// commonLiars are those that a drive of each protocol can be.
func commonLiars() []Liar {
	return []Liar{
		{Name: "accepts and does nothing", Faults: Faults{Nothing: true}},
		{Name: "is done too early", Faults: Faults{TooEarly: true, Slow: 3600}},
		{Name: "leaves a sixteenth", Faults: Faults{KeepStratum: 7}},
		{Name: "leaves the last sector", Faults: Faults{KeepLast: true}},
		{Name: "fails at the end", Faults: Faults{FailAtEnd: true}},
		{Name: "fails the first time", Faults: Faults{FailFirst: 1}},
		{Name: "stalls", Faults: Faults{Stall: true}},
		{Name: "takes a thousand times as long", Faults: Faults{Slow: 1000}},
		{Name: "forgets it across a reset", Faults: Faults{ForgetOnReset: true}},
		{Name: "is done after a reset", Faults: Faults{DoneOnReset: true}},
		{Name: "says that it knows all methods", Faults: Faults{Boasts: true}},
		{Name: "says that it did it some time ago, and does nothing", Faults: Faults{OldCompleted: true, Nothing: true}},
		{Name: "serves old data from its cache", Faults: Faults{OldFromCache: true}},
		{Name: "keeps writes in its cache, and does nothing", Faults: Faults{CacheOnly: true, Nothing: true}},
		{Name: "cannot be read until it is written", Faults: Faults{Unreadable: true}},
		{Name: "is busy now and then", Faults: Faults{BusyEvery: 7}},
		{Name: "is another drive after a while", Faults: Faults{SwapAfter: 12}},
		{Name: "does not reach hidden copies", Faults: Faults{KeepHidden: true, Remapped: 100}, Secret: true},
		{Name: "forgets where the data are and leaves them", Faults: Faults{MapOnly: true}, Secret: true},
	}
}

// only leaves a configuration some methods.
func only(c Config, methods ...drive.Method) Config {
	c.Methods = methods
	return c
}

// locked makes a drive one that encrypts.
func locked(c Config) Config {
	c.Encrypts = true
	return c
}

// specialLiars are those that need something of one protocol.
func specialLiars(seed uint64) []Liar {
	spaces := NVMeDisk(seed)
	spaces.Others, spaces.Unattached = []int64{1 << 12, 1 << 10}, 1
	area := SATADisk(seed)
	area.Area = 1 << 12
	usb := SATAFlash(seed)
	usb.USB = true
	slow := only(SATADisk(seed), drive.ATASecurityEnhanced, drive.ATASecurityNormal)
	slow.Times = map[drive.Method]time.Duration{drive.ATASecurityEnhanced: 4 * time.Hour, drive.ATASecurityNormal: 4 * time.Hour}
	overlay := only(SATADisk(seed))
	overlay.Overlay = 1 << 12
	purges, verifies := NVMeDisk(seed), NVMeDisk(seed)
	purges.Purges, verifies.Verify = true, true
	reverted := func(c Config) Config {
		c = locked(c)
		c.PSID = "0123456789ABCDEF0123456789ABCDEF"
		return c
	}
	enterprise := reverted(SCSIDisk(seed))
	enterprise.Enterprise = true
	formats := []drive.Method{drive.NVMeFormatCrypto, drive.NVMeFormatUser}
	security := []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
	return []Liar{
		{"NVMe: erases the first namespace only", spaces, Faults{FirstOnly: true}, false},
		{"NVMe: says that its last erase had other parameters", NVMeDisk(seed), Faults{WrongEcho: true}, false},
		{"NVMe: a format does nothing", only(NVMeDisk(seed), formats...), Faults{Nothing: true}, false},
		{"NVMe: the cryptographic erase does nothing, the others are honest", NVMeDisk(seed),
			Faults{Only: []drive.Method{drive.NVMeSanitizeCrypto}, Nothing: true}, false},
		{"NVMe: refuses to sanitize", NVMeDisk(seed), Faults{SanitizeFrozen: true}, false},
		{"SATA: a secure erase does nothing", slow, Faults{Nothing: true}, false},
		{"SATA: a secure erase leaves the password set", slow, Faults{KeepsPassword: true}, false},
		{"SATA: a secure erase does nothing and leaves the password set", slow, Faults{Nothing: true, KeepsPassword: true}, false},
		{"SATA: security is frozen", only(SATADisk(seed), security...), Faults{Frozen: true}, false},
		{"SATA: all is frozen", SATAFlash(seed), Faults{Frozen: true, SanitizeFrozen: true}, false},
		{"SATA: leaves a host protected area", area, Faults{KeepArea: true}, false},
		{"SATA: leaves a host protected area that cannot be opened", area, Faults{KeepArea: true, AreaStays: true}, true},
		{"NVMe: is locked", locked(NVMeDisk(seed)), Faults{Locked: true}, false},
		{"SATA: is locked", locked(SATAFlash(seed)), Faults{Locked: true}, false},
		{"SCSI: is locked", locked(SCSIDisk(seed)), Faults{Locked: true}, false},
		{"NVMe: is locked, and reverted by its PSID", reverted(NVMeDisk(seed)), Faults{Locked: true}, false},
		{"SATA: is locked, and says that it was reverted", reverted(SATAFlash(seed)), Faults{Locked: true, StaysLocked: true}, false},
		{"SCSI: is locked, and a revert does nothing but unlock it", reverted(SCSIDisk(seed)),
			Faults{Locked: true, Nothing: true, Only: []drive.Method{reverts}}, false},
		{"SCSI, Enterprise SSC: is locked, and reverted by its PSID", enterprise, Faults{Locked: true}, false},
		{"SCSI, Enterprise SSC: is locked, and says that it was reverted", enterprise,
			Faults{Locked: true, StaysLocked: true}, false},
		{"NVMe: shows its media, and does nothing but unmap them", verifies, Faults{Nothing: true}, false},
		{"NVMe: says that it can show its media, and never does", verifies, Faults{NeverVerifies: true}, false},
		{"NVMe: does not say that it purged", purges, Faults{NotPurged: true}, false},
		{"SATA: hides sectors by a device configuration overlay", overlay, Faults{}, false},
		{"SATA: has sectors that cannot be written", only(SATADisk(seed)), Faults{BadSectors: 5}, false},
		{"SATA: has reallocated sectors", only(SATADisk(seed)), Faults{Remapped: 100}, false},
		{"SATA: has reallocated sectors and does not say so", only(SATADisk(seed)), Faults{Remapped: 100, HidesRemapped: true}, true},
		{"USB: hides the status", usb, Faults{HidesStatus: true}, false},
		{"USB: hides the status, and does nothing", usb, Faults{HidesStatus: true, Nothing: true}, false},
		{"SCSI: hides its state, and does nothing", SCSIDisk(seed), Faults{HidesStatus: true, Nothing: true}, false},
		// QEMU's scsi-hd is such a drive (version 7.2, looked at in a machine).
		{"SCSI: a format does nothing", only(SCSIDisk(seed), drive.SCSIFormatUnit), Faults{Nothing: true}, false},
	}
}
