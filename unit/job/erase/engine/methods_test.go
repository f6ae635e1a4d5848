package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
)

// failing is blocks that lose their power at one of the large writes.
type failing struct {
	Blocks
	sim  *simdrive.Drive
	left *int
}

func (f failing) WriteAt(p []byte, off int64) (int, error) {
	if len(p) > 1<<16 {
		if *f.left--; *f.left == 0 {
			f.sim.PowerCut()
		}
	}
	return f.Blocks.WriteAt(p, off)
}

// TestFull reads every block of drives that are far larger than their samples, by one request at a time and by four, also after a power cut
// in the middle of the marks.
func TestFull(t *testing.T) {
	for _, c := range []simdrive.Config{
		small(simdrive.NVMeDisk(1), 8000), small(simdrive.SATADisk(1), 16_000), small(simdrive.MMCDisk(1), 16_000),
		small(simdrive.SCSIDisk(1), 16_000),
	} {
		for _, cut := range []int{0, 3} {
			g := newRig(t, c, simdrive.Faults{})
			g.target = func(t *Target) { t.Full = true }
			left := cut
			if cut == 0 {
				g.requests = 4
			} else {
				g.blocks = func(b Blocks) Blocks { return failing{b, g.sim, &left} }
			}
			d := g.finish().Drive
			if left > 0 {
				t.Errorf("%s: the power did not go", c.Protocol)
			}
			s := d.Evidence.Samples
			all := s.Random.Changed + s.Random.Constant
			if d.Outcome != erasure.Proved || s.Read != s.Blocks || int64(s.Blocks) != c.Sectors || all != s.Blocks || s.Uninformative != 0 {
				t.Errorf("%s, cut %d: %s %q %+v", c.Protocol, cut, d.Outcome, d.Reasons, s)
			}
			if readable, _ := g.sim.Residue(); readable != 0 {
				t.Errorf("%s, cut %d: %d sectors are left", c.Protocol, cut, readable)
			}
			valid(t, d)
		}
	}
}

// TestProgress fails unless what is told of one method only ever grows up to the end, and the marks of all blocks and the look at them
// move it.
func TestProgress(t *testing.T) {
	for _, c := range []simdrive.Config{
		small(simdrive.NVMeDisk(1), 8000), small(simdrive.SATADisk(1), 16_000), small(simdrive.MMCDisk(1), 16_000),
		small(simdrive.SCSIDisk(1), 16_000),
	} {
		for _, full := range []bool{false, true} {
			g := newRig(t, c, simdrive.Faults{})
			g.target = func(t *Target) { t.Full = full }
			var told []float64
			var marks, looks int
			g.progress = func(part float64) {
				switch {
				case part <= sharedByMarks:
					marks++
				case part > 1-sharedByLook:
					looks++
				}
				if n := len(told); part < 0 || part > 1 || n > 0 && part < told[n-1] {
					t.Errorf("%s, full %t: %g after %g", c.Protocol, full, part, told)
				}
				told = append(told, part)
			}
			if res := g.finish(); len(res.Attempts) != 1 {
				t.Fatalf("%s, full %t: %s", c.Protocol, full, caught(res))
			}
			if full && (marks < 4 || looks < 2 || told[len(told)-1] != 1) {
				t.Errorf("%s: %d times in the marks, %d in the look at them: %g", c.Protocol, marks, looks, told)
			}
		}
	}
}

// TestFullSaysWhatItCannot counts blocks whose marks do not stay, and gives the marks up where they are many.
func TestFullSaysWhatItCannot(t *testing.T) {
	for _, tt := range []struct {
		bad int
		all bool
	}{{5, true}, {2000, false}} {
		c := small(simdrive.SATADisk(1), 16_000)
		g := newRig(t, c, simdrive.Faults{BadSectors: tt.bad})
		g.target = func(t *Target) { t.Full = true }
		e := g.finish().Attempts[0].Evidence
		s := e.Samples
		if (s.Read == 16_000) != tt.all || tt.all && (s.Uninformative != 5 || s.Random.Changed+s.Random.Constant != 16_000-5) {
			t.Errorf("%d bad sectors: %+v", tt.bad, s)
		}
	}
}

// resets is a device whose resets fail as fails says.
type resets struct {
	drive.Device
	fails func() bool
}

func (d resets) Reset() error {
	if d.fails() {
		return unix.EIO
	}
	return d.Device.Reset()
}

// TestMarksGivenUp fails unless places are looked at again when marks were written over them that do not count.
func TestMarksGivenUp(t *testing.T) {
	g := newRig(t, small(simdrive.SATADisk(1), 16_000), simdrive.Faults{Nothing: true})
	g.target = func(t *Target) { t.Full = true }
	n := 0
	g.dev = func(d drive.Device) drive.Device { return resets{d, func() bool { n++; return n == 2 }} }
	if a := g.finish().Attempts[0]; a.Verdict.Outcome != erasure.Failed {
		t.Errorf("%s by %s %q %+v", a.Verdict.Outcome, a.Method, a.Verdict.Reasons, a.Evidence.Samples)
	}
}

// TestFullSeesOldData fails if a drive is proved that keeps all writes to itself: what was there before the marks is there again.
func TestFullSeesOldData(t *testing.T) {
	g := newRig(t, small(simdrive.SCSIDisk(1), 16_000), simdrive.Faults{CacheOnly: true, Nothing: true})
	g.target = func(t *Target) { t.Full = true }
	if d := g.finish().Drive; d.Outcome != erasure.Failed || d.Evidence.Samples.Random.Unchanged == 0 {
		t.Errorf("%s %+v", d.Outcome, d.Evidence.Samples)
	}
}

// TestMediaAreVerified fails unless the certificate says that the media of a drive were looked at that shows them, and of no other.
func TestMediaAreVerified(t *testing.T) {
	for _, verify := range []bool{false, true} {
		c := small(simdrive.NVMeDisk(1), 300)
		c.Verify, c.Noise, c.NoKeep = verify, false, true
		d := newRig(t, c, simdrive.Faults{}).finish().Drive
		remark := slices.Contains(d.Reasons, "unmapped")
		if d.Outcome != erasure.Proved || d.Evidence.MediaVerified != verify || remark == verify {
			t.Errorf("shows its media %t: %s %q, verified %t", verify, d.Outcome, d.Reasons, d.Evidence.MediaVerified)
		}
		valid(t, d)
	}
}

// TestNextMethodIsSeen fails if a method is proved that does nothing, since the one before it has unmapped all blocks.
func TestNextMethodIsSeen(t *testing.T) {
	for _, full := range []bool{false, true} {
		c := smaller(simdrive.NVMeDisk(1))
		c.Verify = true
		g := newRig(t, c, simdrive.Faults{Nothing: true})
		g.target = func(t *Target) { t.Full = full }
		res := g.finish()
		if d := res.Drive; d.Outcome != erasure.Weaker || d.Evidence.Method != erasure.Overwrite {
			t.Errorf("full %t: %s by %s: %s", full, d.Outcome, d.Evidence.Method, caught(res))
		}
	}
}

// TestPurgeIsDemanded fails unless a drive that knows the demand gets it, and no other.
func TestPurgeIsDemanded(t *testing.T) {
	for _, purges := range []bool{false, true} {
		c := small(simdrive.NVMeDisk(1), 300)
		c.Purges = purges
		d := newRig(t, c, simdrive.Faults{}).finish().Drive
		w := d.Evidence.Word.NVMeSanitize
		if d.Outcome != erasure.Proved || w.PurgeRequired != purges || w.After.Purged != purges || (w.Command&(1<<11) != 0) != purges {
			t.Errorf("knows it %t: %s %+v %+v", purges, d.Outcome, w, w.After)
		}
	}
}

// reverted reports whether a drive was told anything by the trusted computing protocol but to say who it is.
func reverted(d *simdrive.Drive) bool {
	return slices.ContainsFunc(d.Sent(), func(s simdrive.Sent) bool { return s.Command[0] == 0x81 || s.Command[0] == 0xb5 })
}

// TestRevert fails unless a locked drive is set back by the number on its label, only by that, and only if a person has typed it.
func TestRevert(t *testing.T) {
	const psid = "0123456789ABCDEF0123456789ABCDEF"
	enterprise := simdrive.SCSIDisk(1)
	enterprise.Enterprise = true
	for _, base := range []simdrive.Config{simdrive.NVMeDisk(1), simdrive.SATAFlash(1), simdrive.SCSIDisk(1), enterprise} {
		base.Encrypts, base.PSID = true, psid
		for _, tt := range []struct {
			name   string
			typed  drive.PSID
			part   bool
			faults simdrive.Faults
			want   erasure.Outcome
			level  erasure.Level
			sent   bool
		}{
			{"nobody typed it", "", false, simdrive.Faults{Locked: true}, erasure.Failed, "", false},
			{"the right one", psid, false, simdrive.Faults{Locked: true}, erasure.Proved, erasure.Purge, true},
			{"another one", drive.PSID(psid[1:] + "0"), false, simdrive.Faults{Locked: true}, erasure.Failed, "", true},
			{"something is to stay", psid, true, simdrive.Faults{Locked: true}, erasure.Failed, "", false},
			{"it stays locked", psid, false, simdrive.Faults{Locked: true, StaysLocked: true}, erasure.Failed, erasure.Clear, true},
		} {
			g := newRig(t, smaller(base), tt.faults)
			g.target = func(t *Target) { t.PSID, t.Whole = tt.typed, !tt.part }
			res := g.finish()
			d := res.Drive
			locked := slices.Contains(d.Reasons, "locked")
			if d.Outcome != tt.want || d.Level != tt.level || reverted(g.sim) != tt.sent || locked != (tt.want == erasure.Failed) {
				t.Errorf("%s, %s: %s %s %q, reverted %t", base.Protocol, tt.name, d.Outcome, d.Level, d.Reasons, reverted(g.sim))
			}
			if readable, _ := g.sim.Residue(); (readable > 0) != (tt.want == erasure.Failed && !tt.faults.StaysLocked) {
				t.Errorf("%s, %s: %d sectors are left", base.Protocol, tt.name, readable)
			}
			for _, c := range d.Commands {
				if strings.Contains(c.Arguments, psid[:8]) {
					t.Errorf("%s: the number is in the certificate: %q", tt.name, c.Arguments)
				}
			}
			valid(t, d)
		}
	}
}

// TestOverlay takes a device configuration overlay away if the plan says so, and counts what it hides else.
func TestOverlay(t *testing.T) {
	for _, tt := range []struct {
		name    string
		restore bool
		faults  simdrive.Faults
		area    int64
		want    erasure.Outcome
		blocks  erasure.Count
		said    bool
	}{
		{"not planned", false, simdrive.Faults{KeepOverlay: true}, 0, erasure.Weaker, 600, true},
		{"planned", true, simdrive.Faults{}, 0, erasure.Proved, 630, false},
		{"planned, behind a host protected area", true, simdrive.Faults{}, 40, erasure.Proved, 670, false},
		{"planned, and left out", true, simdrive.Faults{KeepOverlay: true}, 0, erasure.Proved, 630, false},
		{"planned, and refused", true, simdrive.Faults{OverlayStays: true}, 0, erasure.Weaker, 600, true},
	} {
		c := smaller(simdrive.SATADisk(1))
		c.Area, c.Overlay = tt.area, 30
		g := newRig(t, c, tt.faults)
		g.target = func(t *Target) { t.Restore = tt.restore }
		d := g.finish().Drive
		said := slices.ContainsFunc(d.NotReached, func(s string) bool { return strings.HasPrefix(s, "30 sectors behind") })
		e := d.Evidence
		if d.Outcome != tt.want || e.Samples.Blocks != tt.blocks || said != tt.said || (e.Hidden == 30) != tt.said {
			t.Errorf("%s: %s %q, %q, %d blocks, %d hidden", tt.name, d.Outcome, d.Reasons, d.NotReached, e.Samples.Blocks, e.Hidden)
		}
		if readable, _ := g.sim.Residue(); d.Outcome == erasure.Proved && readable != 0 {
			t.Errorf("%s: %d sectors are left", tt.name, readable)
		}
		valid(t, d)
	}
}

// TestUnfreeze lets a machine sleep once, if a frozen drive has no other method and somebody allows it.
func TestUnfreeze(t *testing.T) {
	security := []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
	for _, tt := range []struct {
		name    string
		methods []drive.Method
		frozen  bool
		allowed bool
		err     error
		method  erasure.Method
		slept   int
	}{
		{"it is unfrozen", security, true, true, nil, erasure.ATASecurityEnhanced, 1},
		{"nobody allows it", security, true, false, nil, erasure.Overwrite, 0},
		{"it does not sleep", security, true, true, errors.ErrUnsupported, erasure.Overwrite, 1},
		{"it is not frozen", security, false, true, nil, erasure.ATASecurityEnhanced, 0},
		{"it has another method", append(security, drive.ATASanitizeOverwrite), true, true, nil, erasure.ATASanitizeOverwrite, 0},
	} {
		c := smaller(simdrive.SATADisk(1))
		c.Methods = tt.methods
		g := newRig(t, c, simdrive.Faults{Frozen: tt.frozen})
		slept := 0
		g.target = func(t *Target) {
			if tt.allowed {
				t.Unfreeze = func() error {
					if slept++; tt.err == nil {
						g.sim.Suspend()
					}
					return tt.err
				}
			}
		}
		d := g.finish().Drive
		if d.Outcome != erasure.Proved || d.Evidence.Method != tt.method || slept != tt.slept {
			t.Errorf("%s: %s by %s, slept %d times, %q", tt.name, d.Outcome, d.Evidence.Method, slept, d.NotReached)
		}
		if said := len(d.NotReached) > 0; said != (tt.frozen && (tt.slept == 0 || tt.err != nil)) {
			t.Errorf("%s: not reached: %q", tt.name, d.NotReached)
		}
		valid(t, d)
	}
}

// TestBootAreasAreNamed fails unless the certificate of an eMMC says what no method reaches.
func TestBootAreasAreNamed(t *testing.T) {
	d := newRig(t, small(simdrive.MMCDisk(1), 600), simdrive.Faults{}).finish().Drive
	if len(d.NotReached) != 2 || !strings.Contains(d.NotReached[0], "boot areas of 4096 KiB") || !strings.Contains(d.NotReached[1], "replay") {
		t.Errorf("%q", d.NotReached)
	}
	if d.Model != "LABMMC" || d.Serial != "0x00000001" || d.Firmware != "1.0" || d.Evidence.Samples.Reset != erasure.ResetNone {
		t.Errorf("%+v", d)
	}
}

// refusing counts what of blocks fails.
type refusing struct {
	Blocks
	failed *int
}

func (r refusing) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.Blocks.ReadAt(p, off)
	if err != nil {
		*r.failed++
	}
	return n, err
}

func (r refusing) WriteAt(p []byte, off int64) (int, error) {
	n, err := r.Blocks.WriteAt(p, off)
	if err != nil {
		*r.failed++
	}
	return n, err
}

// TestStuck does not touch the blocks of a SCSI drive whose operation does not end: a kernel tries each of them for minutes. One that ends
// later is looked at again.
func TestStuck(t *testing.T) {
	for _, ends := range []bool{false, true} {
		g := newRig(t, smaller(simdrive.SCSIDisk(1)), simdrive.Faults{Stall: true})
		failed := 0
		g.blocks = func(b Blocks) Blocks { return refusing{b, &failed} }
		if ends { // when it is reset
			g.config.Methods = []drive.Method{drive.SCSISanitizeOverwrite}
			g = newRig(t, g.config, simdrive.Faults{Stall: true, DoneOnReset: true})
			g.blocks = func(b Blocks) Blocks { return refusing{b, &failed} }
		}
		res := g.finish()
		if failed > 0 {
			t.Errorf("ends %t: %d reads and writes have failed", ends, failed)
		}
		want := erasure.Failed
		if ends {
			want = erasure.Proved
		}
		if res.Drive.Outcome != want {
			t.Errorf("ends %t: %s, %q, want %s", ends, res.Drive.Outcome, res.Drive.Reasons, want)
		}
	}
}
