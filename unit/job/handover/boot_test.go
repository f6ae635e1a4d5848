package handover

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/efi"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel/script"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// unit is a complete unit on a machine that is not there.
type unit struct {
	*machinetest.Rig
	t   *testing.T
	rec state.Unit
	m   *machine.Machine
	log bytes.Buffer
	dog jobtest.Watchdog
	// policy and from are those of the next boot: where it comes from is the description of a boot entry.
	policy func(*policy.Policy)
	from   string
	// expired reports whether a watchdog ended the boot before.
	expired bool
	events  *report.Queue
}

func newUnit(t *testing.T, k machinetest.Kind) *unit {
	t.Helper()
	u := &unit{Rig: machinetest.NewUnit(t, k), t: t, from: machine.NormalEntry}
	m := machinetest.Machine(u.Rig)
	u.rec = machinetest.Provision(u.Rig, m)
	machinetest.Complete(u.Rig, m, u.rec)
	return u
}

// clone is the same unit once more.
func (u *unit) clone(t *testing.T) *unit {
	return &unit{Rig: u.Clone(t), t: t, rec: u.rec, from: u.from, policy: u.policy}
}

// switchOn switches the machine on and surveys it.
func (u *unit) switchOn() *survey.Findings {
	u.t.Helper()
	u.Start(nil)
	u.m = machinetest.Machine(u.Rig)
	u.m.Log = slog.New(slog.NewTextHandler(&u.log, nil))
	u.m.Panel.Add("reader", script.Reader{Panel: &script.Panel{}})
	u.log.Reset()
	if u.policy != nil {
		u.policy(&u.m.Policy)
	}
	u.comesFrom(u.from)
	s := &survey.Survey{Eyes: machine.EyesOf(u.m), Names: u.m.Site.Names,
		Memory: survey.Memory{Since: time.Now().Add(-time.Hour)}}
	return s.Look(u.t.Context())
}

// comesFrom makes the firmware say which of its entries it started.
func (u *unit) comesFrom(entry string) {
	u.t.Helper()
	if u.m.Firmware == layout.BIOS {
		if entry == machine.NormalEntry {
			u.m.Cmdline = "quiet real_root=UUID=1"
		}
		return
	}
	entries, err := u.m.Vars.Entries()
	if err != nil {
		u.t.Fatal(err)
	}
	number := []byte{0xee, 0xee} // of an entry that is gone
	for _, e := range entries {
		if e.Description == entry {
			number = []byte{byte(e.Number), byte(e.Number >> 8)}
		}
	}
	if _, err := u.m.Vars.Set("BootCurrent", efi.Global, 6, number); err != nil {
		u.t.Fatal(err)
	}
}

// boot hands over.
func (u *unit) boot(f *survey.Findings) job.Outcome {
	u.t.Helper()
	e := jobtest.Env(u.m)
	e.Survey.Memory.Expired, e.Boot.Reason, e.Watchdog = u.expired, "it is complete", &u.dog
	u.events = e.Queue
	if f.RecoveryPart != nil {
		e.Volume = volume.At(u.m, f.RecoveryPart.Path)
	}
	u.dog.Did = nil
	return Run(u.t.Context(), e, f)
}

// handsOver is boot for a unit that must come to its system.
func (u *unit) handsOver(f *survey.Findings) state.Boot {
	u.t.Helper()
	if out := u.boot(f); out.Kind != job.SwitchRoot || out.Root != u.m.Places.Main {
		u.t.Errorf("it ends with %+v; log:\n%s", out, &u.log)
	}
	b, err := os.ReadFile(u.m.Places.InRun(state.BootFile))
	if err != nil {
		u.t.Error(err)
	}
	told, err := state.ParseBoot(b)
	if err != nil {
		u.t.Error(err)
	}
	return told
}

// volume is the content of the recovery volume, beside all doors.
func (u *unit) volume() *state.Volume {
	return state.Open(u.Volume(u.rec.Recovery.Table.Find(layout.Recovery).FSUUID))
}

func (u *unit) counts() state.Counts {
	u.t.Helper()
	c, err := u.volume().ReadCounts()
	if err != nil {
		u.t.Error(err)
	}
	return c
}

// root is the content of the main system, beside all doors.
func (u *unit) root() string { return u.Volume(u.rec.System().FSUUID) }

// esp is the content of the ESP of a disk, beside all doors.
func (u *unit) esp(d state.Disk) string { return u.Volume(d.Table.Find(layout.ESP).FSUUID) }

// TestHandsOver: what a boot leaves for the running system, on each kind of unit, and that nothing but the count is written for it.
func TestHandsOver(t *testing.T) {
	for name, k := range map[string]machinetest.Kind{
		"UEFI": {Firmware: layout.UEFI}, "BIOS": {Firmware: layout.BIOS}, "UEFI, mirror": {Firmware: layout.UEFI, Mirror: true},
		"BIOS, one disk": {Firmware: layout.BIOS, OneDisk: true},
	} {
		start := newUnit(t, k)
		for _, keeps := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", keeps the watchdog ", keeps), func(t *testing.T) {
				u := start.clone(t)
				if keeps {
					file := filepath.Join(u.root(), bootOK)
					if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink("/usr/lib/x.service", file)); err != nil {
						t.Fatal(err)
					}
				}
				u.policy = func(p *policy.Policy) { p.ServerCA, p.WatchdogSeconds = "a certificate", 77 }
				system := machinetest.Tree(t, u.root())
				f := u.switchOn()
				before := len(u.Calls())
				u.m.Build.Number = 42
				f.BadOriginal = errors.New("its key is not trusted any more")
				told := u.handsOver(f)
				if told.Attempts != 1 || told.ID != "b1" || told.Job != string(decide.Boot) || told.Reason != "it is complete" ||
					told.Build != 42 || told.ServerCA != "a certificate" || !slices.EqualFunc(told.Defects, []string{"G206: "}, strings.HasPrefix) ||
					told.Watchdog.Running != keeps || told.HandOver.IsZero() {
					t.Errorf("the running system is told %+v", told)
				}
				if want := []string{"watch 1m17s", fmt.Sprint("taken ", keeps)}; !slices.Equal(u.dog.Did, want) {
					t.Errorf("with the watchdog is done %q, want %q", u.dog.Did, want)
				}
				b, err := os.ReadFile(u.m.Places.InRun(state.PolicyFile))
				if want, merr := u.m.Policy.Marshal(); err != nil || merr != nil || !bytes.Equal(b, want) {
					t.Errorf("the policy is handed over as %s, %v, %v", b, err, merr)
				}
				if c := u.counts(); c.BootAttempts != 1 || c.Mends != 0 {
					t.Errorf("counted are %+v", c)
				}
				var mounts []string
				for _, c := range u.Calls()[before:] {
					if strings.HasPrefix(c, "mount") && strings.HasSuffix(c, "writable") {
						mounts = append(mounts, c)
					}
				}
				if len(mounts) != 1 || !strings.Contains(mounts[0], filepath.Base(f.RecoveryPart.Path)+" ") {
					t.Errorf("mounted writable are %q", mounts)
				}
				for dir, want := range map[string]bool{u.m.Places.Main: true, u.m.Places.Recovery: false} {
					if on, err := u.m.Mounted(dir); on != want || err != nil {
						t.Errorf("%s is mounted: %t, %v", dir, on, err)
					}
				}
				if w := u.Written(); len(w) > 0 {
					t.Errorf("opened for writing are %q", w)
				}
				if machinetest.Tree(t, u.root()) != system {
					t.Error("the system is changed")
				}
				next := report.NewQueue("b1") // of the running system
				if err := next.Persist(u.m.Places.InRun(state.RunQueue)); err != nil {
					t.Fatal(err)
				}
				if heard := machinetest.Heard(t, next); len(heard) == 0 || heard[0].Job != record.JobBoot || heard[0].Phase != record.Started {
					t.Errorf("the running system has %+v for the server", heard)
				}
			})
		}
	}
}

// TestOrder: the watchdog has its time before anything that may hang, such as the first write to the recovery volume, the attempt is
// counted before the main system is touched, and the watchdog is given away last.
func TestOrder(t *testing.T) {
	u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	if err := errors.Join(os.WriteFile(u.volume().Path(state.RequestFile), []byte("{"), 0o600),
		u.volume().WriteMedium(state.Medium{ID: "0123456789abcdef", Image: "gone.upd"})); err != nil {
		t.Fatal(err)
	}
	f := u.switchOn()
	if f.BadRequest == nil || f.LastMedium.ID == "" {
		t.Fatalf("nothing is to be noted: %v, %+v", f.BadRequest, f.LastMedium)
	}
	main, seen, volume := "mount /dev/"+filepath.Base(f.MainPart.Path), false, u.volume()
	watched := false
	u.dog.OnCall = func(what string) {
		watched = watched || strings.HasPrefix(what, "watch")
		switch on, err := u.m.Mounted(u.m.Places.Main); {
		case err != nil:
			t.Error(err)
		case strings.HasPrefix(what, "watch") && (on || u.counts().BootAttempts > 0):
			t.Error("the watchdog gets its time when the boot is on its way")
		case strings.HasPrefix(what, "taken") && !on:
			t.Error("the watchdog is given away before the system is there")
		}
	}
	u.Fail(func(_ int, call string) error {
		if strings.HasSuffix(call, " writable") && !watched {
			t.Errorf("before the watchdog has its time there is: %s", call)
		}
		if strings.HasPrefix(call, main) {
			seen = true
			if c, err := volume.ReadCounts(); err != nil || c.BootAttempts != 1 {
				t.Errorf("the main system is mounted, and the attempt is not counted: %+v, %v", c, err)
			}
		}
		return nil
	})
	u.handsOver(f)
	if !seen {
		t.Error("the main system is not mounted")
	}
	if m, err := volume.ReadMedium(); err != nil || !m.Removed {
		t.Errorf("that the medium is gone is not noted: %+v, %v", m, err)
	}
	if _, err := os.Stat(volume.Path(state.BadRequestFile)); err != nil {
		t.Errorf("the damaged request is not set aside: %v", err)
	}
}

// TestCountInPlace: where the block of the counts is known it is written there and the volume is not mounted; where that fails, or the
// counts are not to be relied on, they are written as a file. A boot that cannot be counted at all starts all the same.
func TestCountInPlace(t *testing.T) {
	start := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	bad := errors.New("damaged")
	for name, c := range map[string]struct {
		bad     error // the counts
		block   error // what writing the block answers
		mount   error
		expired bool
		placed  bool
		file    bool
	}{
		"in place":                       {nil, nil, nil, false, true, false},
		"in place, a watchdog ended one": {nil, nil, nil, true, true, false},
		"no place":                       {nil, syscall.EIO, nil, true, false, true},
		"damaged":                        {bad, nil, nil, false, false, true},
		"nowhere":                        {nil, syscall.EIO, syscall.EROFS, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := start.clone(t)
			if err := u.volume().WriteCounts(state.Counts{BootAttempts: 2, WatchdogResets: 1, Restores: 7}); err != nil {
				t.Fatal(err)
			}
			f := u.switchOn()
			const place = 123 << 12
			f.BadCounts, f.CountsPlace = c.bad, place
			var wrote *state.Counts
			u.m.WriteBlock = func(path string, b []byte, off int64) error {
				if path != f.RecoveryPart.Path || off != place || len(b) != state.CountsSize {
					t.Errorf("%d bytes are written to %s at %d", len(b), path, off)
				}
				if c.block == nil {
					counts, err := state.ParseCounts(b)
					if err != nil {
						t.Error(err)
					}
					wrote = &counts
				}
				return c.block
			}
			before := len(u.Calls())
			volume := "mount /dev/" + filepath.Base(f.RecoveryPart.Path)
			u.Fail(func(_ int, call string) error {
				if strings.HasPrefix(call, volume) {
					return c.mount
				}
				return nil
			})
			u.expired = c.expired
			told := u.handsOver(f)
			if told.Attempts != 3 {
				t.Errorf("the running system is told of %d attempts", told.Attempts)
			}
			mounted := slices.ContainsFunc(u.Calls()[before:], func(call string) bool { return strings.HasPrefix(call, volume) })
			if mounted == c.placed {
				t.Errorf("the volume is mounted: %t", mounted)
			}
			counted := u.counts()
			if (wrote != nil) != c.placed {
				t.Fatalf("written in place: %+v", wrote)
			}
			if wrote != nil {
				counted = *wrote
			}
			want := state.Counts{BootAttempts: 3, WatchdogResets: 1, Restores: 7}
			if c.expired {
				want.WatchdogResets++
			}
			if !c.placed && !c.file {
				want.BootAttempts = 2
				if !strings.Contains(u.log.String(), "cannot be counted") {
					t.Errorf("nobody is told that it is not counted:\n%s", &u.log)
				}
			}
			if counted.BootAttempts != want.BootAttempts || counted.WatchdogResets != want.WatchdogResets || counted.Restores != 7 {
				t.Errorf("counted are %+v, want %+v", counted, want)
			}
		})
	}
}

// TestNoVolume: a unit without a recovery volume starts, and nothing is mounted in its place.
func TestNoVolume(t *testing.T) {
	u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	f := u.switchOn()
	f.Recovery, f.VolumeFindings = decide.RecoveryMissing, survey.VolumeFindings{}
	before := len(u.Calls())
	if told := u.handsOver(f); told.Attempts != 0 {
		t.Errorf("the running system is told of %d attempts that nobody counted", told.Attempts)
	}
	for _, c := range u.Calls()[before:] {
		if strings.HasPrefix(c, "mount") && c != "mount /dev/"+filepath.Base(f.MainPart.Path)+" read-only" {
			t.Errorf("%s", c)
		}
	}
}

// TestHolds: a boot that does not come to its system holds with the reason, and its watchdog is fed again: a person who reads the screen
// must not be cut off by it.
func TestHolds(t *testing.T) {
	u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	f := u.switchOn()
	main := "mount /dev/" + filepath.Base(f.MainPart.Path)
	for _, err := range []error{nil, errors.New("it does not answer")} {
		u.dog.Err = err
		u.Fail(func(_ int, call string) error {
			if strings.HasPrefix(call, main) {
				return syscall.EIO
			}
			return nil
		})
		out := u.boot(f)
		if out.Kind != job.HoldOn || fault.Of(out.Err) != fault.SwitchRoot || !errors.Is(out.Err, syscall.EIO) {
			t.Errorf("it ends with %+v", out)
		}
		if want := []string{"watch 5m0s", "resume"}; !slices.Equal(u.dog.Did, want) {
			t.Errorf("with the watchdog is done %q, want %q", u.dog.Did, want)
		}
		if n := strings.Count(u.log.String(), "watchdog does not wait"); err != nil && n != 2 {
			t.Errorf("that the watchdog does not answer is told %d times", n)
		}
		all := machinetest.Heard(t, u.events)
		if last := all[len(all)-1]; last.Phase != record.Failed || last.Code != fault.SwitchRoot.Code {
			t.Errorf("the server hears %+v", last)
		}
	}
}

// TestDogFails: a watchdog that does not do what it is told keeps no unit from its system.
func TestDogFails(t *testing.T) {
	u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	u.dog.Err = errors.New("it does not answer")
	if told := u.handsOver(u.switchOn()); told.Watchdog.Device != "/dev/watchdog0" {
		t.Errorf("the running system is told %+v", told)
	}
	if !strings.Contains(u.log.String(), "cannot be handed over") {
		t.Errorf("the log says:\n%s", &u.log)
	}
}

// TestQueueIsTaken: what the running system is to send is not lost in silence where it cannot be left for it, and the unit starts.
func TestQueueIsTaken(t *testing.T) {
	u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	f := u.switchOn()
	dir := u.m.Places.InRun(state.RunQueue)
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	u.handsOver(f)
	if !strings.Contains(u.log.String(), "unsent records") {
		t.Errorf("the log says:\n%s", &u.log)
	}
}

// TestMediumRemoved: a medium that the unit was restored from and that is gone is noted as that, once, so that it counts anew.
func TestMediumRemoved(t *testing.T) {
	start := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	const id = "0123456789abcdef"
	for name, c := range map[string]struct {
		last    state.Medium
		present bool
		fault   error
		want    bool // it is noted as removed
		mounts  int  // the volume is mounted for it
	}{
		"gone":                 {state.Medium{ID: id, Image: "x.upd"}, false, nil, true, 1},
		"there":                {state.Medium{ID: id, Image: "x.upd"}, true, nil, false, 0},
		"gone before":          {state.Medium{ID: id, Image: "x.upd", Removed: true}, false, nil, true, 0},
		"none":                 {state.Medium{}, false, nil, false, 0},
		"it cannot be written": {state.Medium{ID: id, Image: "x.upd"}, false, syscall.EIO, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			u := start.clone(t)
			if c.last.ID != "" {
				if err := u.volume().WriteMedium(c.last); err != nil {
					t.Fatal(err)
				}
			}
			f := u.switchOn()
			f.LastPresent, f.BadCounts = c.present, nil
			u.m.WriteBlock = func(string, []byte, int64) error { return nil }
			before := len(u.Calls())
			volume := "mount /dev/" + filepath.Base(f.RecoveryPart.Path)
			u.Fail(func(_ int, call string) error {
				if strings.HasPrefix(call, volume) {
					return c.fault
				}
				return nil
			})
			u.handsOver(f)
			n := 0
			for _, call := range u.Calls()[before:] {
				if strings.HasPrefix(call, volume) {
					n++
				}
			}
			if m, err := u.volume().ReadMedium(); m.Removed != c.want || m.ID != c.last.ID || n != c.mounts || (err != nil) != (c.last.ID == "") {
				t.Errorf("it is %+v, %v; the volume was mounted %d times", m, err, n)
			}
		})
	}
}

// TestDamagedRequest: a request that cannot be used is set aside by the boot that found it.
func TestDamagedRequest(t *testing.T) {
	u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	if err := os.WriteFile(u.volume().Path(state.RequestFile), []byte(`{"version":1,"id":"0123`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := u.switchOn()
	if f.BadRequest == nil {
		t.Fatalf("it is not found: %q", f.Notes)
	}
	u.handsOver(f)
	if _, err := os.Stat(u.volume().Path(state.BadRequestFile)); err != nil {
		t.Error(err)
	}
	if f := u.switchOn(); f.BadRequest != nil || f.Request != nil {
		t.Errorf("the next boot finds %+v, %v", f.Request, f.BadRequest)
	}
}

// TestHoldsWithItsWatchdog: a unit whose system cannot be told what it is to know holds, and feeds its watchdog itself.
func TestHoldsWithItsWatchdog(t *testing.T) {
	u := newUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	f := u.switchOn()
	if err := os.MkdirAll(u.m.Places.InRun(state.BootFile)+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if out := u.boot(f); out.Kind != job.HoldOn {
		t.Fatalf("it ends with %+v", out)
	}
	if want := []string{"watch 5m0s", "resume"}; !slices.Equal(u.dog.Did, want) {
		t.Errorf("with the watchdog is done %q, want %q", u.dog.Did, want)
	}
}
