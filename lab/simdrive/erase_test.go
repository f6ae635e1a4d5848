package simdrive

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gprovision/hw/drive"
)

// said is what a drive said of an erase, asked as long as it takes.
type said string

const (
	saidDone    said = "done"
	saidFailed  said = "failed"
	saidRunning said = "running" // for longer than four days
	saidNothing said = "nothing" // no word of it
)

// bench is a drive with its permit.
type bench struct {
	t      *testing.T
	sim    *Drive
	clock  *Clock
	drive  *drive.Drive
	permit drive.Permit
	// during is called each time the drive is asked.
	during func(asked int)
}

func newBench(t *testing.T, c Config, f Faults) *bench {
	t.Helper()
	b := &bench{t: t, clock: &Clock{}}
	b.sim = New(c, f, b.clock)
	b.sim.f.BusyEvery = 0
	defer func() { b.sim.f.BusyEvery = f.BusyEvery }()
	var err error
	if b.drive, err = drive.On(b.sim, nil); err != nil {
		t.Fatal(err)
	}
	id, err := b.drive.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if b.permit, err = drive.NewWholePermit(id); err != nil {
		t.Fatal(err)
	}
	return b
}

// again does something a second time that a busy drive did not take.
func (b *bench) again(f func() error) error {
	err := f()
	if err != nil && b.sim.f.BusyEvery > 0 {
		err = f()
	}
	return err
}

func (b *bench) password() drive.Password {
	b.t.Helper()
	p, err := drive.NewPassword([]byte("lab"))
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// pattern is what the tests let drives write.
func pattern() drive.Pattern { return drive.Pattern{Word: 0x11223344, Passes: 1} }

// wayOf is the way of a method.
func wayOf(m drive.Method) drive.Erasure {
	switch m {
	case drive.NVMeSanitizeCrypto, drive.ATASanitizeCrypto, drive.SCSISanitizeCrypto:
		return drive.CryptoErase
	case drive.NVMeSanitizeBlock, drive.ATASanitizeBlock, drive.SCSISanitizeBlock:
		return drive.BlockErase
	}
	return drive.Overwrite
}

// erase runs a method to its end and returns what the drive said of it. The error is one of starting it.
func (b *bench) erase(m drive.Method) (said, error) {
	b.t.Helper()
	waited, err := b.start(m)
	switch {
	case err != nil:
		return saidNothing, err
	case waited:
		return saidDone, nil
	}
	return b.wait(), nil
}

// start starts a method. waited reports whether the command itself waited until the end.
func (b *bench) start(m drive.Method) (waited bool, err error) {
	b.t.Helper()
	d, p := b.drive, b.permit
	switch m {
	case drive.NVMeSanitizeCrypto, drive.NVMeSanitizeBlock, drive.NVMeSanitizeOverwrite:
		return false, d.NVMe.Sanitize(p, drive.SanitizeOptions{Erasure: wayOf(m), Pattern: pattern()})
	case drive.NVMeFormatCrypto, drive.NVMeFormatUser:
		ns, err := d.NVMe.Namespace(1)
		if err == nil {
			err = d.NVMe.Format(p, ns, m == drive.NVMeFormatCrypto, time.Hour)
		}
		return true, err
	case drive.ATASanitizeCrypto, drive.ATASanitizeBlock, drive.ATASanitizeOverwrite:
		return false, d.ATA.Sanitize(p, wayOf(m), pattern())
	case drive.ATASecurityEnhanced, drive.ATASecurityNormal:
		if err := d.ATA.SetPassword(p, b.password()); err != nil {
			return true, err
		}
		return true, d.ATA.SecureErase(p, b.password(), m == drive.ATASecurityEnhanced, 12*time.Hour)
	case drive.SCSIFormatUnit:
		return false, d.SCSI.Format(p)
	case drive.MMCSecureErase:
		return true, d.MMC.SecureErase(p, 100*time.Hour)
	case drive.MMCSanitize:
		err := d.MMC.Erase(p, 100*time.Hour)
		if err == nil {
			err = d.MMC.Sanitize(p, 100*time.Hour)
		}
		return true, err
	}
	return false, d.SCSI.Sanitize(p, wayOf(m), pattern())
}

// wait asks until the drive has done, at most four days.
func (b *bench) wait() said {
	for asked := range 100 {
		if b.during != nil {
			b.during(asked)
		}
		s := b.ask()
		if s != saidRunning {
			return s
		}
		b.clock.Advance(time.Hour)
	}
	return saidRunning
}

// ask asks once.
func (b *bench) ask() said {
	b.t.Helper()
	pick := func(running, failed, done bool) said {
		switch {
		case running:
			return saidRunning
		case failed:
			return saidFailed
		case done:
			return saidDone
		}
		return saidNothing
	}
	switch {
	case b.drive.NVMe != nil:
		var l drive.SanitizeLog
		err := b.again(func() (err error) { l, err = b.drive.NVMe.SanitizeLog(); return err })
		if err != nil {
			b.t.Fatal(err)
		}
		return pick(l.State() == drive.Sanitizing, l.State() == drive.SanitizeFailed, l.State() == drive.Sanitized)
	case b.drive.ATA != nil:
		var s drive.SanitizeStatus
		err := b.again(func() (err error) { s, err = b.drive.ATA.SanitizeStatus(); return err })
		if errors.Is(err, drive.ErrNoRegisters) {
			return saidNothing
		}
		if err != nil {
			b.t.Fatal(err)
		}
		return pick(s.InProgress, s.Failed, s.Completed)
	}
	var o drive.Operation
	err := b.again(func() (err error) { o, err = b.drive.SCSI.Operation(); return err })
	if err != nil {
		b.t.Fatal(err)
	}
	return pick(o.Sanitizing || o.Formatting, o.SanitizeFailed || o.FormatFailed, o.Idle)
}

// configs are one of each kind, by name.
func configs() map[string]Config {
	nvme := NVMeDisk(1)
	nvme.Others, nvme.Unattached = []int64{1 << 12, 1 << 10}, 1
	area := SATADisk(4)
	area.Area = 1 << 10
	usb := SATAFlash(5)
	usb.USB = true
	return map[string]Config{
		"NVMe": NVMeDisk(1), "NVMe with namespaces": nvme, "SATA": SATADisk(2), "SATA flash": SATAFlash(3), "SATA with a hidden area": area,
		"SATA behind USB": usb, "SCSI": SCSIDisk(6), "eMMC": MMCDisk(7), "old eMMC": OldMMCDisk(8),
	}
}

// TestHonest erases each honest drive by each method that it says it has: it says that it is done, and what a method reaches is gone.
func TestHonest(t *testing.T) {
	for name, c := range configs() {
		b := newBench(t, c, Faults{})
		offered, err := b.drive.Capabilities()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(offered.Methods); n == 0 || !c.USB && n != len(c.Methods) || c.USB && n != 3 {
			t.Errorf("%s: it offers %q of %q", name, offered.Methods, c.Methods)
		}
		for _, m := range offered.Methods {
			t.Run(fmt.Sprintf("%s/%s", name, m), func(t *testing.T) {
				b := newBench(t, c, Faults{Remapped: 3})
				if readable, hidden := b.sim.Residue(); readable == 0 || hidden != 3 {
					t.Fatalf("residue before: %d, %d", readable, hidden)
				}
				if s, err := b.erase(m); s != saidDone || err != nil {
					t.Fatalf("it said %s, %v", s, err)
				}
				readable, hidden := b.sim.Residue()
				var wantReadable, wantHidden int64
				switch m {
				case drive.NVMeFormatCrypto, drive.NVMeFormatUser:
					for _, n := range c.Others {
						wantReadable, wantHidden = wantReadable+n, 3
					}
				case drive.ATASecurityNormal, drive.SCSIFormatUnit:
					wantHidden = 3
				}
				if readable != wantReadable || hidden != wantHidden {
					t.Errorf("residue: %d, %d, want %d, %d", readable, hidden, wantReadable, wantHidden)
				}
				if _, err := b.sim.Device().ReadAt(make([]byte, c.SectorSize), 0); err != nil {
					t.Errorf("it cannot be read afterwards: %v", err)
				}
			})
		}
	}
}

// TestRefused fails unless a drive without its permit was asked for nothing but who it is and what it says.
func TestRefused(t *testing.T) {
	// Identify, Get Log Page; INQUIRY, REQUEST SENSE; EXT_CSD.
	harmless := map[byte]bool{0x06: true, 0x02: true, 0x12: true, 0x03: true, 0x08: true}
	for name, c := range configs() {
		for why, spoil := range map[string]func(b *bench){
			"no permit": func(b *bench) { b.permit = drive.Permit{} },
			"another drive's permit": func(b *bench) {
				p, err := drive.NewPermit(drive.Identity{Model: c.Model, Serial: c.Serial + "X", Size: b.sim.Device().Size(), Number: c.Number})
				if err != nil {
					t.Fatal(err)
				}
				b.permit = p
			},
			"in use":         func(b *bench) { b.sim.SetUsers("mounted at /") },
			"not claimed":    func(b *bench) { b.sim.SetClaimed(false) },
			"another number": func(b *bench) { b.sim.c.Number.Minor += 16 },
			"the drive was swapped, and answers as another one from now on": func(b *bench) { b.sim.f.SwapAfter = 1 },
		} {
			for _, m := range c.Methods {
				if c.USB && (m == drive.ATASecurityEnhanced || m == drive.ATASecurityNormal) {
					continue
				}
				b := newBench(t, c, Faults{})
				spoil(b)
				before := len(b.sim.Sent())
				if s, err := b.erase(m); !errors.Is(err, drive.ErrNotPermitted) {
					t.Errorf("%s, %s, %s: %s, %v", name, why, m, s, err)
				}
				for _, sent := range b.sim.Sent()[before:] {
					identify := sent.Command[0] == 0x85 && sent.Command[14] == 0xec
					if !harmless[sent.Command[0]] && !identify {
						t.Errorf("%s, %s, %s: % x reached the drive", name, why, m, sent.Command)
					}
				}
			}
		}
	}
}

// TestUnitAttention sends commands again that a drive did not take since it had a reset to tell of.
func TestUnitAttention(t *testing.T) {
	b := newBench(t, SCSIDisk(1), Faults{})
	for range 2 {
		if err := b.sim.Reset(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.drive.SCSI.Capacity(); err != nil {
			t.Errorf("asked: %v", err)
		}
		if err := b.sim.Reset(); err != nil {
			t.Fatal(err)
		}
		if s, err := b.erase(drive.SCSISanitizeCrypto); s != saidDone || err != nil {
			t.Errorf("it said %s, %v", s, err)
		}
	}
}
