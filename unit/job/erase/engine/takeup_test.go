package engine

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
)

// TestPasswordIsNotLost cuts the power while a Security Erase goes on: the drive is locked then, the password is stored, and is gone from
// both at the end.
func TestPasswordIsNotLost(t *testing.T) {
	c := smaller(simdrive.SATADisk(1))
	c.Methods = []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
	c.Times = map[drive.Method]time.Duration{drive.ATASecurityEnhanced: time.Hour, drive.ATASecurityNormal: time.Hour}
	g := newRig(t, c, simdrive.Faults{})
	g.sim.CutAt(30 * time.Minute)
	if _, err, lost := g.run(t.Context()); !lost {
		t.Fatalf("the power did not go: %v", err)
	}
	g.sim.PowerOn()
	security := func() drive.Security {
		id, err := g.open().ATA.Identify()
		if err != nil {
			t.Fatal(err)
		}
		return id.Security
	}
	var s State
	if err := json.Unmarshal(g.state, &s); err != nil || len(s.Password) == 0 || !security().Locked {
		t.Fatalf("after the cut: %v, password of %d bytes, %+v", err, len(s.Password), security())
	}
	if res := g.finish(); res.Drive.Outcome != erasure.Proved || res.Drive.Evidence.Method != erasure.ATASecurityEnhanced {
		t.Errorf("%s by %s", res.Drive.Outcome, res.Drive.Evidence.Method)
	}
	s = State{}
	if err := json.Unmarshal(g.state, &s); err != nil || len(s.Password) != 0 || security().Enabled {
		t.Errorf("at the end: %v, password of %d bytes, %+v", err, len(s.Password), security())
	}
}

// TestPasswordOfTheTarget fails unless a Security Erase sets the password that it is given, and no other.
func TestPasswordOfTheTarget(t *testing.T) {
	c := smaller(simdrive.SATADisk(1))
	c.Methods = []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
	g := newRig(t, c, simdrive.Faults{})
	g.target = func(t *Target) { t.Password = []byte("known") }
	set := 0
	g.onStore = func(int) {
		var s State
		if len(g.state) == 0 {
			return
		}
		if err := json.Unmarshal(g.state, &s); err != nil || len(s.Password) > 0 && string(s.Password) != "known" {
			t.Errorf("password %q, %v", s.Password, err)
		}
		if len(s.Password) > 0 {
			set++
		}
	}
	if d := g.finish().Drive; d.Outcome != erasure.Proved || d.Evidence.Method != erasure.ATASecurityEnhanced || set == 0 {
		t.Errorf("%s by %s, set %d times", d.Outcome, d.Evidence.Method, set)
	}
}

// TestPasswordThatStaysIsSaid fails unless a drive that cannot be freed of the password is said to have it, and the state keeps it.
func TestPasswordThatStaysIsSaid(t *testing.T) {
	c := smaller(simdrive.SATADisk(1))
	c.Methods = []drive.Method{drive.ATASecurityNormal}
	g := newRig(t, c, simdrive.Faults{Stall: true})
	res := g.finish()
	var s State
	if err := json.Unmarshal(g.state, &s); err != nil || len(s.Password) == 0 || len(res.Drive.NotReached) == 0 {
		t.Errorf("%v, password of %d bytes, not reached: %q", err, len(s.Password), res.Drive.NotReached)
	}
	if res.Drive.Outcome != erasure.Failed && res.Drive.Outcome != erasure.Unknown {
		t.Errorf("%s", res.Drive.Outcome)
	}
	valid(t, res.Drive)
}

// TestSharedDrive erases a range of a drive that has all methods: none of them is sent, and nothing else is written.
func TestSharedDrive(t *testing.T) {
	for _, c := range []simdrive.Config{smaller(simdrive.NVMeDisk(1)), smaller(simdrive.SATAFlash(1)), smaller(simdrive.SCSIDisk(1))} {
		g := newRig(t, c, simdrive.Faults{})
		size := int64(c.SectorSize)
		g.target = func(t *Target) {
			t.Whole = false
			t.Areas[0].Offset, t.Areas[0].Size = 100*size, func() int64 { return 50 * size }
		}
		res := g.finish()
		if res.Drive.Outcome != erasure.Weaker || res.Drive.Evidence.Method != erasure.Overwrite || !res.Drive.Evidence.Part {
			t.Errorf("%s: %s %q", c.Protocol, res.Drive.Outcome, res.Drive.Reasons)
		}
		if readable, _ := g.sim.Residue(); readable != c.Sectors-50 {
			t.Errorf("%s: %d sectors are as they were, want %d", c.Protocol, readable, c.Sectors-50)
		}
		for _, s := range g.sim.Sent() {
			op, ata := s.Command[0], s.Command[0] == 0x85
			if op == 0x80 || op == 0x84 || op == 0x48 || op == 0x04 || ata && s.Command[14] == 0xb4 && s.Command[4] != 0 ||
				ata && s.Command[14]&0xf0 == 0xf0 {
				t.Errorf("%s: % x was sent", c.Protocol, s.Command)
			}
		}
		valid(t, res.Drive)
	}
}

// TestNothingBeforeItIsTold fails if anything of a drive changes before its state was told, or the state of the erase could be stored.
func TestNothingBeforeItIsTold(t *testing.T) {
	no := errors.New("no")
	for name, spoil := range map[string]func(*Env){
		"told":   func(e *Env) { e.Announce = func(erasure.Drive) error { return no } },
		"stored": func(e *Env) { e.Store = func(State) error { return no } },
	} {
		for _, c := range []simdrive.Config{smaller(simdrive.NVMeDisk(1)), smaller(simdrive.SATADisk(1)), smaller(simdrive.SCSIDisk(1))} {
			c.Area = 0
			g := newRig(t, c, simdrive.Faults{})
			before, _ := g.sim.Residue()
			env := g.env()
			spoil(&env)
			target := Target{
				Known: erasure.Drive{Role: erasure.MainDisk, Name: "disk", BlockSize: uint32(c.SectorSize),
					Evidence: erasure.Evidence{Media: erasure.Flash, Path: erasure.Direct}},
				Drive: g.open(), Permit: g.permit, Areas: g.areas(), Whole: true,
			}
			res, err := Run(context.Background(), env, target, State{})
			after, hidden := g.sim.Residue()
			if !errors.Is(err, no) || res.Drive.Outcome != erasure.Failed || after != before || hidden != 0 {
				t.Errorf("%s, %s: %v, %s, %d of %d sectors are as they were", name, c.Protocol, err, res.Drive.Outcome, after, before)
			}
		}
	}
}

// TestEndedStaysEnded runs an erase again that is over: the drive is not written.
func TestEndedStaysEnded(t *testing.T) {
	g := newRig(t, smaller(simdrive.SATADisk(1)), simdrive.Faults{})
	first := g.finish()
	commands := len(first.Drive.Commands)
	if again := g.finish(); again.Drive.Outcome != erasure.Proved || len(again.Drive.Commands) != commands {
		t.Errorf("%s after %d commands, and %s after %d", first.Drive.Outcome, commands, again.Drive.Outcome, len(again.Drive.Commands))
	}
}

// TestGuard fails unless a disk without commands is overwritten only as long as its guard lets it.
func TestGuard(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		g := newRig(t, smaller(simdrive.SATAFlash(1)), simdrive.Faults{})
		asked := 0
		g.target = func(t *Target) {
			t.Drive, t.Known.Evidence.Path = nil, erasure.Virtual
			t.Guard = func() error {
				if asked++; !allowed {
					return errors.New("it is mounted")
				}
				return nil
			}
		}
		res := g.finish()
		readable, _ := g.sim.Residue()
		if want := map[bool]erasure.Outcome{true: erasure.Weaker, false: erasure.Failed}[allowed]; res.Drive.Outcome != want ||
			(readable == 0) != allowed || asked == 0 {
			t.Errorf("allowed %t: %s, %d sectors are as they were", allowed, res.Drive.Outcome, readable)
		}
		valid(t, res.Drive)
	}
}

// TestSizeThatChanged fails unless places are chosen anew where a hidden area that was open before a power cut does not open again.
func TestSizeThatChanged(t *testing.T) {
	c := smaller(simdrive.SATADisk(1))
	c.Area = 40
	g := newRig(t, c, simdrive.Faults{})
	g.sim.CutAt(30 * time.Second)
	if _, err, lost := g.run(t.Context()); !lost {
		t.Fatalf("the power did not go: %v", err)
	}
	g.sim.PowerOn()
	g.target = func(t *Target) { t.Reopen = nil }
	d := g.finish().Drive
	e := d.Evidence
	gone := e.Samples.Random.Changed + e.Samples.Random.Constant
	if d.Outcome != erasure.Weaker || e.Hidden != 40 || e.Samples.Blocks != 600 || gone != 600 {
		t.Errorf("%s %q: %+v", d.Outcome, d.Reasons, e)
	}
	valid(t, d)
}

// TestLooksAgainAfterCut fails if a method that does nothing is proved by what a power cut has done: the drive lost what it had while the
// power was off, so that places of before the cut look erased. The cut comes between two methods, where the first was refused and so has
// changed nothing, or into a method, which the drive forgets.
func TestLooksAgainAfterCut(t *testing.T) {
	nothing := simdrive.Faults{Nothing: true, ForgetOnReset: true}
	boasts := nothing
	boasts.Boasts = true
	between := func(g *rig) {
		g.onStore = func(int) {
			var s State
			if len(g.state) > 0 && json.Unmarshal(g.state, &s) == nil && s.Planned && !s.Stale && !s.Turn.Sent && len(s.Attempts) > 0 {
				g.sim.PowerCut()
			}
		}
	}
	within := func(g *rig) { g.sim.CutAt(30 * time.Minute) }
	for name, c := range map[string]struct {
		config simdrive.Config
		faults simdrive.Faults
		cut    func(*rig)
	}{
		"SATA, between methods": {simdrive.SATADisk(1), boasts, between},
		"SATA, within one":      {simdrive.SATADisk(1), nothing, within},
		"SCSI, within one":      {simdrive.SCSIDisk(1), nothing, within},
		"NVMe, within one":      {simdrive.NVMeDisk(1), nothing, within},
	} {
		c.config = smaller(c.config)
		c.config.Times = map[drive.Method]time.Duration{}
		for _, m := range c.config.Methods {
			c.config.Times[m] = time.Hour
		}
		g := newRig(t, c.config, c.faults)
		c.cut(g)
		if _, err, lost := g.run(t.Context()); !lost {
			t.Fatalf("%s: the power did not go: %v", name, err)
		}
		g.onStore = nil
		g.sim.PowerOn()
		for i := range 1 + len(c.config.Others) {
			a := g.sim.Namespace(1 + i)
			if _, err := a.WriteAt(make([]byte, a.Size()), 0); err != nil {
				t.Fatal(err)
			}
		}
		tried := 0
		for _, a := range g.finish().Attempts {
			if a.Method == erasure.Overwrite || a.Refused != "" {
				continue
			}
			if tried++; a.Verdict.Outcome != erasure.Failed {
				t.Errorf("%s: %s by %s %q %+v", name, a.Verdict.Outcome, a.Method, a.Verdict.Reasons, a.Evidence.Samples)
			}
		}
		if tried == 0 {
			t.Errorf("%s: no method was tried", name)
		}
	}
}

// closed is a drive that does not say how many sectors it has in all, as long as shut.
type closed struct {
	drive.Device
	shut *bool
}

func (d closed) SCSI(c drive.SCSICommand) (drive.SCSIResult, error) {
	switch command := c.CDB[min(14, len(c.CDB)-1)]; {
	case c.CDB[0] != 0x85: // ATA PASS-THROUGH (16)
	case command == 0x27 && *d.shut: // READ NATIVE MAX ADDRESS EXT
		return drive.SCSIResult{}, unix.EIO
	case command == 0xb4 && c.CDB[4] != 0: // SANITIZE DEVICE, and no question of its status
		*d.shut = false
	}
	return d.Device.SCSI(c)
}

// TestAreaOpenedLate fails if a drive is proved of which a part was not looked at: its host protected area could be opened after the first
// method only, and places had been chosen before.
func TestAreaOpenedLate(t *testing.T) {
	c := smaller(simdrive.SATADisk(1))
	c.Area = 40
	g := newRig(t, c, simdrive.Faults{})
	shut := true
	g.dev = func(d drive.Device) drive.Device { return closed{d, &shut} }
	d := g.finish().Drive
	if e := d.Evidence; d.Outcome != erasure.Weaker || e.Samples.Blocks != 600 || e.Hidden != 40 {
		t.Errorf("%s by %s, %d blocks looked at, %d hidden", d.Outcome, e.Method, e.Samples.Blocks, e.Hidden)
	}
}
