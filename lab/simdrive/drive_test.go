package simdrive

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/drive"
	"gprovision/model/erasure"
)

// TestDevice reads and writes as O_DIRECT does.
func TestDevice(t *testing.T) {
	clock := &Clock{}
	d := New(NVMeDisk(1), Faults{}, clock)
	dev, sector := d.Device(), 4096
	if dev.Size() != 256<<20 {
		t.Errorf("size %d", dev.Size())
	}
	p := make([]byte, 2*sector)
	for _, off := range []int64{1, -4096, 512} {
		if _, err := dev.ReadAt(p, off); !errors.Is(err, unix.EINVAL) {
			t.Errorf("at %d: %v", off, err)
		}
	}
	if _, err := dev.WriteAt(p[:100], 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("100 bytes: %v", err)
	}
	if n, err := dev.ReadAt(p, dev.Size()-int64(sector)); n != sector || err != io.EOF {
		t.Errorf("over the end: %d, %v", n, err)
	}
	if n, err := dev.ReadAt(p, dev.Size()); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if _, err := dev.WriteAt(p, dev.Size()-int64(sector)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("written over the end: %v", err)
	}
	want := bytes.Repeat([]byte("lab!"), sector/4)
	if _, err := dev.WriteAt(want, int64(sector)); err != nil {
		t.Fatal(err)
	}
	if err := dev.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := dev.ReadAt(p, 0); err != nil || !bytes.Equal(p[sector:], want) || bytes.Equal(p[:sector], make([]byte, sector)) {
		t.Errorf("read %v", err)
	}
	if clock.Now() == 0 {
		t.Error("no time has passed")
	}
	// A write leaves a hidden copy on flash; a discard leaves all.
	before, _ := d.Residue()
	if r, hidden := d.Residue(); r != 1<<16-1 || hidden != 1 {
		t.Errorf("residue %d, %d", r, hidden)
	}
	if err := dev.Discard(0, dev.Size()); err != nil {
		t.Fatal(err)
	}
	if r, hidden := d.Residue(); r != 0 || hidden != before+1 {
		t.Errorf("residue %d, %d after a discard", r, hidden)
	}
	d.Mark()
	if r, hidden := d.Residue(); r != 0 || hidden != before+2 {
		t.Errorf("residue %d, %d after a mark: the sector that was written counts too", r, hidden)
	}
	if err := New(SATADisk(1), Faults{}, clock).Device().Discard(0, 4096); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a disk that rotates: %v", err)
	}
}

// TestRepeatable makes the same drive twice, and another one.
func TestRepeatable(t *testing.T) {
	content := func(seed uint64) []byte {
		p := make([]byte, 1<<16)
		if _, err := New(SATADisk(seed), Faults{BadSectors: 3}, &Clock{}).Device().ReadAt(p, 1<<20); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if !bytes.Equal(content(1), content(1)) || bytes.Equal(content(1), content(2)) {
		t.Error("the same seed makes the same drive, another one another")
	}
}

// TestPowerCut takes the power away in the middle of each kind of erase.
func TestPowerCut(t *testing.T) {
	tests := []struct {
		c    Config
		m    drive.Method
		want said // afterwards, without another command
	}{
		{NVMeDisk(1), drive.NVMeSanitizeBlock, saidDone},
		{SATAFlash(1), drive.ATASanitizeBlock, saidDone},
		{SCSIDisk(1), drive.SCSISanitizeOverwrite, saidDone},
		{SCSIDisk(1), drive.SCSIFormatUnit, saidFailed},
		{NVMeDisk(1), drive.NVMeFormatUser, saidNothing},
		{SATADisk(1), drive.ATASecurityNormal, saidNothing},
	}
	for _, tt := range tests {
		t.Run(string(tt.m), func(t *testing.T) {
			tt.c.Times = map[drive.Method]time.Duration{tt.m: 10 * time.Minute}
			b := newBench(t, tt.c, Faults{})
			b.sim.CutAt(b.clock.Now() + 5*time.Minute)
			waited, err := b.start(tt.m)
			if waited != errors.Is(err, ErrNoPower) || !waited && err != nil {
				t.Fatalf("a command that waits ends with the power, another before: %v", err)
			}
			b.clock.Advance(5 * time.Minute)
			if _, err := b.drive.Identity(); !errors.Is(err, ErrNoPower) {
				t.Errorf("asked without power: %v", err)
			}
			if _, err := b.sim.Device().ReadAt(make([]byte, 4096), 0); !errors.Is(err, ErrNoPower) {
				t.Errorf("read without power: %v", err)
			}
			b.clock.Advance(24 * time.Hour)
			b.sim.PowerOn()
			if r, _ := b.sim.Residue(); r == 0 {
				t.Error("it went on without power")
			}
			if b.drive.SCSI != nil && !b.sim.scsi.attention {
				t.Error("it has a loss of power to tell of")
			}
			s := b.wait()
			if s != tt.want {
				t.Errorf("it said %s, want %s", s, tt.want)
			}
			if r, _ := b.sim.Residue(); (r == 0) != (tt.want == saidDone) {
				t.Errorf("residue %d", r)
			}
		})
	}
}

// TestPassword sets one, loses power, and goes on with what was written down.
func TestPassword(t *testing.T) {
	b := newBench(t, SATADisk(1), Faults{})
	a, p, w := b.drive.ATA, b.permit, b.password()
	state := func() drive.Security {
		t.Helper()
		id, err := a.Identify()
		if err != nil {
			t.Fatal(err)
		}
		return id.Security
	}
	if err := a.SetPassword(p, w); err != nil || !state().Enabled || state().Locked {
		t.Fatalf("%v %+v", err, state())
	}
	b.sim.PowerCut()
	b.sim.PowerOn()
	if s := state(); !s.Enabled || !s.Locked {
		t.Errorf("%+v", s)
	}
	if _, err := b.sim.Device().ReadAt(make([]byte, 512), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a locked drive is read: %v", err)
	}
	wrong, err := drive.NewPassword([]byte("wrong"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Unlock(p, wrong); err == nil {
		t.Error("the wrong password")
	}
	if err := a.Unlock(p, w); err != nil {
		t.Fatal(err)
	}
	if err := a.DisablePassword(p, w); err != nil || state().Enabled {
		t.Errorf("%v %+v", err, state())
	}
	for range 5 {
		if err := a.Unlock(p, wrong); err == nil {
			t.Error("the wrong password")
		}
	}
	if !state().Expired {
		t.Error("five wrong ones")
	}
}

// TestPrepared erases only right after SECURITY ERASE PREPARE.
func TestPrepared(t *testing.T) {
	b := newBench(t, SATADisk(1), Faults{})
	if err := b.drive.ATA.SetPassword(b.permit, b.password()); err != nil {
		t.Fatal(err)
	}
	unit := taskfile{command: 0xf4, data: make([]byte, 512), timeout: time.Hour}
	copy(unit.data[2:], "lab")
	command := func(tf taskfile) bool {
		t.Helper()
		r, err := b.sim.ataCommand(tf)
		if err != nil {
			t.Fatal(err)
		}
		return r.status&1 == 0
	}
	prepare, identify := taskfile{command: 0xf3}, taskfile{command: 0xec, data: make([]byte, 512)}
	if command(unit) {
		t.Error("it was not prepared")
	}
	if !command(prepare) || !command(identify) || command(unit) {
		t.Error("another command came between")
	}
	if !command(prepare) || !command(unit) {
		t.Error("it was prepared")
	}
}

// TestHiddenArea opens a host protected area and erases it.
func TestHiddenArea(t *testing.T) {
	c := SATADisk(1)
	c.Area = 1000
	b := newBench(t, c, Faults{})
	a := b.drive.ATA
	id, err := a.Identify()
	if err != nil || !id.HPA || id.Sectors != uint64(c.Sectors) {
		t.Fatalf("%+v %v", id, err)
	}
	native, err := a.NativeSectors(id)
	if err != nil || native != uint64(c.Sectors+c.Area) {
		t.Fatalf("%d %v", native, err)
	}
	if err := a.SetSectors(b.permit, id, native); err != nil {
		t.Fatal(err)
	}
	if err := a.Sanitize(b.permit, drive.Overwrite, pattern()); err != nil {
		t.Errorf("the kernel does not know yet that the drive is larger: %v", err)
	}
	b.wait()
	b.sim.Rescan()
	if n := b.sim.Device().Size(); n != int64(native)*512 {
		t.Errorf("size %d", n)
	}
	if err := a.Sanitize(b.permit, drive.Overwrite, pattern()); !errors.Is(err, drive.ErrNotPermitted) {
		t.Errorf("the drive is larger than the permit says: %v", err)
	}
	p := make([]byte, 512)
	_, err = b.sim.Device().ReadAt(p, int64(native-1)*512)
	if err != nil || !bytes.Equal(p, bytes.Repeat([]byte{0x11, 0x22, 0x33, 0x44}, 128)) {
		t.Errorf("% x %v", p[:8], err)
	}
	b.sim.PowerCut()
	b.sim.PowerOn()
	if n := b.sim.Device().Size(); n != c.Sectors*512 {
		t.Errorf("size %d after a loss of power", n)
	}
}

// TestNamespaces lists them, also those that are not attached, and formats one.
func TestNamespaces(t *testing.T) {
	b := newBench(t, configs()["NVMe with namespaces"], Faults{})
	n := b.drive.NVMe
	active, err := n.Active()
	if err != nil || len(active) != 2 {
		t.Errorf("active: %v %v", active, err)
	}
	all, err := n.Allocated()
	if err != nil || len(all) != 3 {
		t.Fatalf("allocated: %v %v", all, err)
	}
	for i, sectors := range []uint64{1 << 16, 1 << 12, 1 << 10} {
		ns, err := n.Namespace(all[i])
		if err != nil || ns.Blocks != sectors || ns.BlockSize != 4096 {
			t.Errorf("%+v %v", ns, err)
		}
		if err := n.Format(b.permit, ns, true, time.Hour); err != nil {
			t.Error(err)
		}
	}
	if r, _ := b.sim.Residue(); r != 0 {
		t.Errorf("residue %d", r)
	}
	if ns, err := n.Namespace(4); err == nil {
		t.Errorf("%+v", ns)
	}
	// A permit for the one that is open does not reach the others.
	id, err := b.drive.Identity()
	if err != nil {
		t.Fatal(err)
	}
	one, err := drive.NewPermit(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Sanitize(one, drive.SanitizeOptions{Erasure: drive.BlockErase}); !errors.Is(err, drive.ErrNotPermitted) {
		t.Errorf("all namespaces: %v", err)
	}
	for _, nsid := range all {
		ns, err := n.Namespace(nsid)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Format(one, ns, true, time.Hour); errors.Is(err, drive.ErrNotPermitted) != (nsid != 1) || nsid == 1 && err != nil {
			t.Errorf("namespace %d: %v", nsid, err)
		}
	}
	// While it is sanitized it takes nothing else.
	if err := n.Sanitize(b.permit, drive.SanitizeOptions{Erasure: drive.BlockErase}); err != nil {
		t.Fatal(err)
	}
	ns, err := n.Namespace(1)
	if err != nil {
		t.Fatal(err)
	}
	busy := drive.StatusError{}
	if err := n.Format(b.permit, ns, true, time.Hour); !errors.As(err, &busy) || busy.Status&0x7ff != sanitizeInProgress {
		t.Errorf("%v", err)
	}
	if _, err := b.sim.Namespace(2).ReadAt(make([]byte, 4096), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("read meanwhile: %v", err)
	}
}

// TestVerification stays in the media verification state until it is ended, or a reset does that.
func TestVerification(t *testing.T) {
	c := NVMeDisk(1)
	c.Verify, c.Noise = true, true
	for _, reset := range []bool{false, true} {
		b := newBench(t, c, Faults{})
		n := b.drive.NVMe
		if err := n.Sanitize(b.permit, drive.SanitizeOptions{Erasure: drive.CryptoErase, Verify: true}); err != nil {
			t.Fatal(err)
		}
		b.clock.Advance(time.Hour)
		status := func() drive.SanitizeLog {
			t.Helper()
			l, err := n.SanitizeLog()
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		if l := status(); !l.Verifying() || l.Progress != 0xffff || !l.GlobalDataErased() {
			t.Errorf("%+v", l)
		}
		p, zeros := make([]byte, 4096), make([]byte, 4096)
		if _, err := b.sim.Device().ReadAt(p, 0); err != nil || bytes.Equal(p, zeros) {
			t.Errorf("the medium is not seen: %v", err)
		}
		if _, err := b.sim.Device().WriteAt(p, 0); !errors.Is(err, unix.EIO) {
			t.Errorf("written: %v", err)
		}
		busy := drive.StatusError{}
		if err := n.Sanitize(b.permit, drive.SanitizeOptions{Erasure: drive.CryptoErase}); !errors.As(err, &busy) {
			t.Errorf("another one: %v", err)
		}
		end := func() error { return n.EndVerification(b.permit) }
		if reset {
			end = func() error { return b.drive.Reset(b.permit) }
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		if l := status(); l.State() != drive.Sanitized || l.VerificationCanceled() != reset {
			t.Errorf("%+v", l)
		}
		if _, err := b.sim.Device().ReadAt(p, 0); err != nil || !bytes.Equal(p, zeros) {
			t.Errorf("it is not deallocated: %v", err)
		}
	}
	b := newBench(t, NVMeDisk(1), Faults{})
	if err := b.drive.NVMe.Sanitize(b.permit, drive.SanitizeOptions{Erasure: drive.BlockErase, Verify: true}); err == nil {
		t.Error("a drive that does not have the state")
	}
}

// TestFailed leaves a drive in failure mode, out of which only another sanitize operation leads.
func TestFailed(t *testing.T) {
	for _, c := range []Config{NVMeDisk(1), SATAFlash(1), SCSIDisk(1)} {
		t.Run(string(c.Protocol), func(t *testing.T) {
			b := newBench(t, c, Faults{FailFirst: 1})
			m := c.Methods[0]
			if s, err := b.erase(m); s != saidFailed || err != nil {
				t.Fatalf("%s %v", s, err)
			}
			if _, err := b.sim.Device().ReadAt(make([]byte, 4096), 0); !errors.Is(err, unix.EIO) {
				t.Errorf("read: %v", err)
			}
			for _, other := range c.Methods {
				if other == drive.NVMeFormatCrypto || other == drive.ATASecurityNormal || other == drive.SCSIFormatUnit {
					if s, err := b.erase(other); err == nil {
						t.Errorf("%s: %s", other, s)
					}
				}
			}
			if c.Protocol == NVMe && b.drive.NVMe.ExitFailureMode(b.permit) == nil ||
				c.Protocol == SCSI && b.drive.SCSI.ExitFailureMode(b.permit) == nil {
				t.Error("failure mode was left, and AUSE was 0")
			}
			if s, err := b.erase(m); s != saidDone || err != nil {
				t.Errorf("another one: %s %v", s, err)
			}
			if r, _ := b.sim.Residue(); r != 0 {
				t.Errorf("residue %d", r)
			}
		})
	}
}

// TestReallocated asks for sectors that were replaced.
func TestReallocated(t *testing.T) {
	for name, c := range configs() {
		for _, hides := range []bool{false, true} {
			b := newBench(t, c, Faults{Remapped: 7, HidesRemapped: hides})
			want := uint64(7)
			if hides {
				want = 0
			}
			n, known, err := b.drive.Reallocated()
			if err != nil || known != (c.Protocol != NVMe && c.Protocol != MMC) || known && n != want {
				t.Errorf("%s: %d %t %v", name, n, known, err)
			}
		}
	}
}

// TestMethods holds the names of methods against those of certificates.
func TestMethods(t *testing.T) {
	for _, c := range []Config{NVMeDisk(1), SATAFlash(1), SCSIDisk(1), {Methods: []drive.Method{drive.SCSISanitizeBlock}}} {
		for _, m := range c.Methods {
			if erasure.Method(m).Level() == "" {
				t.Errorf("model/erasure knows no method %s", m)
			}
		}
	}
}

// TestLocking asks drives that encrypt, and others.
func TestLocking(t *testing.T) {
	for _, c := range []Config{NVMeDisk(1), SATAFlash(1), SCSIDisk(1)} {
		if l, known, err := newBench(t, c, Faults{}).drive.Locking(); known || err != nil {
			t.Errorf("%s: %+v %v", c.Protocol, l, err)
		}
		c.Encrypts = true
		for _, locked := range []bool{false, true} {
			b := newBench(t, c, Faults{Locked: locked})
			l, known, err := b.drive.Locking()
			if err != nil || !known || !l.Supported || !l.Encrypts || l.Enabled != locked || l.Locked != locked {
				t.Errorf("%s: %+v %t %v", c.Protocol, l, known, err)
			}
			if _, err := b.sim.Device().ReadAt(make([]byte, 4096), 0); errors.Is(err, unix.EIO) != locked {
				t.Errorf("%s: read: %v", c.Protocol, err)
			}
			for _, m := range c.Methods {
				if s, err := b.erase(m); (err != nil) != locked {
					t.Errorf("%s, %s: %s %v", c.Protocol, m, s, err)
				}
			}
		}
	}
}
