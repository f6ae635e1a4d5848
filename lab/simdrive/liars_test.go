package simdrive

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/drive"
)

// belief is what somebody comes to who believes a drive, uses its strongest method only and looks no further.
type belief struct {
	said    said
	refused bool // by the drive, or by the permit
	residue bool // sectors of old data that can be read
	hidden  bool // and some that cannot
}

// believe erases a drive in that way.
func believe(t *testing.T, l Liar) belief {
	t.Helper()
	b := newBench(t, l.Config, l.Faults)
	var c drive.Capabilities
	err := b.again(func() (err error) { c, err = b.drive.Capabilities(); return err })
	if err != nil {
		t.Fatal(err)
	}
	out := belief{said: saidNothing}
	if len(c.Methods) == 0 {
		out.refused = true
	} else {
		err = b.again(func() (err error) { out.said, err = b.erase(c.Methods[0]); return err })
		out.refused = err != nil
	}
	if out.said == saidNothing {
		b.clock.Advance(24 * time.Hour)
	}
	readable, hidden := b.sim.Residue()
	out.residue, out.hidden = readable > 0, hidden > 0
	return out
}

// beliefs are what each liar makes one believe. Those that are not here are told as done, and nothing is left: what is wrong with them
// shows in another way, which TestFaults has.
func beliefs() map[string]belief {
	lie := belief{said: saidDone, residue: true}
	old := belief{said: saidNothing, refused: true, residue: true}
	return map[string]belief{
		"accepts and does nothing": lie,
		"is done too early":        lie,
		"leaves a sixteenth":       lie,
		"leaves the last sector":   lie,
		"fails at the end":         {said: saidFailed, residue: true},
		"fails the first time":     {said: saidFailed, residue: true},
		"stalls":                   {said: saidRunning, residue: true},
		"says that it did it some time ago, and does nothing": lie,
		"keeps writes in its cache, and does nothing":         lie,
		"does not reach hidden copies":                        {said: saidDone, hidden: true},
		"forgets where the data are and leaves them":          {said: saidDone, hidden: true},
		"is another drive after a while":                      {said: saidDone},

		"NVMe: erases the first namespace only":                             lie,
		"NVMe: a format does nothing":                                       lie,
		"NVMe: the cryptographic erase does nothing, the others are honest": lie,
		"NVMe: refuses to sanitize":                                         old,
		"SATA: a secure erase does nothing":                                 lie,
		"SATA: a secure erase does nothing and leaves the password set":     lie,
		"SATA: security is frozen":                                          old,
		"SATA: all is frozen":                                               old,
		"SATA: leaves a host protected area":                                lie,
		"SATA: leaves a host protected area that cannot be opened":          lie,
		"SATA: has sectors that cannot be written":                          old,
		"NVMe: is locked":                                                   old,
		"SATA: is locked":                                                   old,
		"SCSI: is locked":                                                   old,
		"NVMe: is locked, and reverted by its PSID":                         old,
		"SATA: is locked, and says that it was reverted":                    old,
		"SCSI: is locked, and a revert does nothing but unlock it":          old,
		"SCSI, Enterprise SSC: is locked, and reverted by its PSID":         old,
		"SCSI, Enterprise SSC: is locked, and says that it was reverted":    old,
		"NVMe: shows its media, and does nothing but unmap them":            lie,
		"SATA: hides sectors by a device configuration overlay":             old,
		"eMMC: fails at the end":                                            {said: saidNothing, refused: true, residue: true, hidden: true},
		"eMMC: fails the first time":                                        {said: saidNothing, refused: true, residue: true, hidden: true},
		"eMMC: stalls":                                                      old,
		"old eMMC: fails at the end":                                        old,
		"old eMMC: fails the first time":                                    old,
		"old eMMC: stalls":                                                  old,
		"old eMMC: says that it knows all methods":                          {said: saidNothing, refused: true, hidden: true},
		"SATA: has reallocated sectors and does not say so":                 {said: saidNothing, refused: true, residue: true, hidden: true},
		"SATA: has reallocated sectors":                                     {said: saidNothing, refused: true, residue: true, hidden: true},
		"USB: hides the status":                                             {said: saidNothing},
		"USB: hides the status, and does nothing":                           {said: saidNothing, residue: true},
		"SCSI: hides its state, and does nothing":                           lie,
		"SCSI: a format does nothing":                                       lie,

		// A rotating disk knows no cryptographic erase and no block erase, a SAS disk no block erase.
		"SATA: says that it knows all methods": old,
	}
}

// TestLiars fails unless each liar lies as it says, to somebody who believes it.
func TestLiars(t *testing.T) {
	liars, used := Liars(1), map[string]bool{}
	if len(liars) < 60 {
		t.Errorf("%d liars", len(liars))
	}
	seen := map[string]bool{}
	for _, l := range liars {
		if seen[l.Name] {
			t.Errorf("%s is there twice", l.Name)
		}
		seen[l.Name] = true
		_, common, _ := strings.Cut(l.Name, ": ")
		want := belief{said: saidDone}
		for _, name := range []string{common, l.Name} {
			if b, ok := beliefs()[name]; ok {
				want, used[name] = b, true
			}
		}
		if got := believe(t, l); got != want {
			t.Errorf("%s: %+v, want %+v", l.Name, got, want)
		}
		f := l.Faults
		unsaid := f.Remapped == 0 && !want.refused || f.HidesRemapped || f.KeepHidden
		if l.Secret != (want.hidden && unsaid || f.AreaStays || l.Config.Protocol == MMC && f.CacheOnly) {
			t.Errorf("%s: secret %t, %+v", l.Name, l.Secret, want)
		}
	}
	for name := range beliefs() {
		if !used[name] {
			t.Errorf("no liar is called %q", name)
		}
	}
}

// TestFaults shows what is wrong with drives whose word is not.
func TestFaults(t *testing.T) {
	read := func(b *bench, off int64) ([]byte, error) {
		p := make([]byte, b.sim.c.SectorSize)
		_, err := b.sim.Device().ReadAt(p, off)
		return p, err
	}
	mustErase := func(t *testing.T, b *bench, m drive.Method) {
		t.Helper()
		if s, err := b.erase(m); s != saidDone || err != nil {
			t.Fatalf("%s %v", s, err)
		}
	}

	t.Run("old data from a cache", func(t *testing.T) {
		b := newBench(t, SCSIDisk(1), Faults{OldFromCache: true})
		before, err := read(b, 512)
		if err != nil {
			t.Fatal(err)
		}
		mustErase(t, b, drive.SCSISanitizeOverwrite)
		if after, err := read(b, 512); err != nil || string(after) != string(before) {
			t.Errorf("it is not served from the cache: %v", err)
		}
		if err := b.sim.Reset(); err != nil {
			t.Fatal(err)
		}
		if after, err := read(b, 512); err != nil || string(after) == string(before) {
			t.Errorf("it is served after a reset too: %v", err)
		}
	})
	t.Run("writes stay in a cache", func(t *testing.T) {
		b := newBench(t, SCSIDisk(1), Faults{CacheOnly: true})
		before, err := read(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		canary := []byte(strings.Repeat("canary!!", 64))
		if _, err := b.sim.Device().WriteAt(canary, 0); err != nil {
			t.Fatal(err)
		}
		if err := b.sim.Device().Sync(); err != nil {
			t.Fatal(err)
		}
		if p, err := read(b, 0); err != nil || string(p) != string(canary) {
			t.Errorf("it is not in the cache: %v", err)
		}
		if err := b.sim.Reset(); err != nil {
			t.Fatal(err)
		}
		if p, err := read(b, 0); err != nil || string(p) != string(before) {
			t.Errorf("it is on the medium: %v", err)
		}
	})
	t.Run("unreadable", func(t *testing.T) {
		b := newBench(t, NVMeDisk(1), Faults{Unreadable: true})
		mustErase(t, b, drive.NVMeSanitizeBlock)
		if _, err := read(b, 0); !errors.Is(err, unix.EIO) {
			t.Errorf("it is read: %v", err)
		}
		if _, err := b.sim.Device().WriteAt(make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := read(b, 0); err != nil {
			t.Errorf("it was written: %v", err)
		}
	})
	t.Run("bad sectors", func(t *testing.T) {
		c := SATADisk(1)
		c.Sectors = 1 << 12
		b := newBench(t, c, Faults{BadSectors: 5})
		refused := 0
		for off := int64(0); off < b.sim.Device().Size(); off += 512 {
			if _, err := b.sim.Device().WriteAt(make([]byte, 512), off); errors.Is(err, unix.EIO) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if r, _ := b.sim.Residue(); refused != 5 || r != 5 {
			t.Errorf("%d were refused, residue %d", refused, r)
		}
	})
	t.Run("another echo", func(t *testing.T) {
		b := newBench(t, NVMeDisk(1), Faults{WrongEcho: true})
		mustErase(t, b, drive.NVMeSanitizeCrypto)
		if l, err := b.drive.NVMe.SanitizeLog(); err != nil || l.CDW10 == 4 {
			t.Errorf("%+v %v", l, err)
		}
	})
	t.Run("never shows its media", func(t *testing.T) {
		c := NVMeDisk(1)
		c.Verify = true
		b := newBench(t, c, Faults{NeverVerifies: true})
		if err := b.drive.NVMe.Sanitize(b.permit, drive.SanitizeOptions{Erasure: drive.CryptoErase, Verify: true}); err != nil {
			t.Fatal(err)
		}
		b.clock.Advance(time.Hour)
		if l, err := b.drive.NVMe.SanitizeLog(); err != nil || l.Verifying() || l.State() != drive.Sanitized {
			t.Errorf("%+v %v", l, err)
		}
	})
	t.Run("an old word", func(t *testing.T) {
		b := newBench(t, NVMeDisk(1), Faults{OldCompleted: true})
		if s := b.ask(); s != saidDone {
			t.Errorf("before: %s", s)
		}
		if _, err := b.start(drive.NVMeSanitizeCrypto); err != nil {
			t.Fatal(err)
		}
		r, _ := b.sim.Residue()
		if s := b.ask(); s != saidDone || r == 0 {
			t.Errorf("at once: %s, residue %d", s, r)
		}
	})
	t.Run("the password stays", func(t *testing.T) {
		b := newBench(t, SATADisk(1), Faults{KeepsPassword: true})
		mustErase(t, b, drive.ATASecurityNormal)
		if id, err := b.drive.ATA.Identify(); err != nil || !id.Security.Enabled {
			t.Errorf("%+v %v", id.Security, err)
		}
	})
	t.Run("the area stays", func(t *testing.T) {
		c := SATADisk(1)
		c.Area = 100
		b := newBench(t, c, Faults{AreaStays: true})
		id, err := b.drive.ATA.Identify()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.drive.ATA.SetSectors(b.permit, id, uint64(c.Sectors+c.Area)); err != nil {
			t.Fatal(err)
		}
		if id, err := b.drive.ATA.Identify(); err != nil || id.Sectors != uint64(c.Sectors) {
			t.Errorf("%d sectors, %v", id.Sectors, err)
		}
	})
	t.Run("swapped", func(t *testing.T) {
		b := newBench(t, NVMeDisk(1), Faults{SwapAfter: 5})
		for range 5 {
			if _, err := b.drive.Identity(); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := b.erase(drive.NVMeSanitizeCrypto); !errors.Is(err, drive.ErrNotPermitted) {
			t.Errorf("%s %v", s, err)
		}
	})
	t.Run("busy", func(t *testing.T) {
		b := newBench(t, SCSIDisk(1), Faults{BusyEvery: 3})
		refused := 0
		for range 30 {
			busy := drive.SenseError{}
			if _, err := b.drive.SCSI.Capacity(); errors.As(err, &busy) && busy.Status == 8 {
				refused++
			}
		}
		if refused < 5 || refused > 15 {
			t.Errorf("busy %d times of 30", refused)
		}
	})
}

// TestInterrupted resets each of two forgetful drives in the middle.
func TestInterrupted(t *testing.T) {
	for _, c := range []Config{NVMeDisk(1), SATAFlash(1), SCSIDisk(1)} {
		for name, tt := range map[string]struct {
			f       Faults
			want    said
			residue bool
		}{
			"honest":  {Faults{}, saidDone, false},
			"forgets": {Faults{ForgetOnReset: true}, saidNothing, true},
			"done":    {Faults{DoneOnReset: true}, saidDone, true},
			"early":   {Faults{TooEarly: true}, saidDone, true},
		} {
			t.Run(string(c.Protocol)+"/"+name, func(t *testing.T) {
				m := c.Methods[1]
				c.Times = map[drive.Method]time.Duration{m: 10 * time.Minute}
				b := newBench(t, c, tt.f)
				if _, err := b.start(m); err != nil {
					t.Fatal(err)
				}
				b.clock.Advance(time.Minute)
				b.sim.PowerCut()
				b.sim.PowerOn()
				s := b.wait()
				b.clock.Advance(24 * time.Hour)
				if c.Protocol == SCSI { // it keeps no word of an operation: none, and one that ended well, look the same
					tt.want = saidDone
				}
				if r, _ := b.sim.Residue(); s != tt.want || (r > 0) != tt.residue {
					t.Errorf("%s, residue %d", s, r)
				}
			})
		}
	}
}
