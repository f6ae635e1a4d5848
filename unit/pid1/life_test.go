package pid1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"gprovision/hw/console"
	"gprovision/hw/host"
	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
	"gprovision/hw/usb"
	"gprovision/hw/watchdog"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/site"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"

	"golang.org/x/sys/unix"
)

// Process 1 of a machine that is not there, from its first line to the end of the machine. Time passes only while everybody waits
// (testing/synctest), so an hour of holding takes no time.

// noModules are the drivers of an artifact that carries none.
func noModules(t *testing.T) *host.Modules {
	t.Helper()
	m, err := host.NewModules(t.TempDir(), "none")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// offRig returns doors to a machine that has no console, no display, no watchdog and no USB, and goes on when it shall end.
func offRig(t *testing.T) doors {
	return doors{
		Proc:        fstest.MapFS{"cmdline": {Data: []byte("quiet\n")}, "uptime": {Data: []byte("1.50 2.00\n")}},
		Prepare:     func() error { return nil },
		Modules:     func(string) (*host.Modules, error) { return noModules(t), nil },
		MountVars:   func(*host.Modules) error { return nil },
		QuietKernel: func() error { return nil },
		Devices: func(ctx context.Context) (<-chan host.Uevent, error) {
			events := make(chan host.Uevent)
			context.AfterFunc(ctx, func() { close(events) })
			return events, nil
		},
		Console:   func(string) (*console.TTY, error) { return nil, os.ErrNotExist },
		EventPort: func(string) (io.WriteCloser, error) { return nil, os.ErrNotExist },
		Watchdog:  func() (timer, error) { return nil, watchdog.ErrNone },
		Hubs: func() usb.Doors {
			none := func() (time.Duration, error) { return 0, os.ErrNotExist }
			return usb.Doors{Connected: func(usb.Address, []int) ([]int, error) { return nil, nil },
				Age: func(usb.Address) (time.Duration, error) { return none() }, DiskAge: func(string) (time.Duration, error) { return none() }}
		},
		Display: func(string) func(context.Context) (io.ReadWriteCloser, string, error) {
			return func(context.Context) (io.ReadWriteCloser, string, error) { return nil, "", os.ErrNotExist }
		},
		Splash:     func(context.Context, string, string, bool) (func() error, error) { return nil, os.ErrNotExist },
		Reboot:     func() error { return errors.New("it does not reboot") },
		PowerOff:   func() error { return errors.New("it does not go off") },
		SwitchRoot: func(string, string) error { return errors.New("there is no init") },
	}
}

// ticker is a watchdog that notes what is done with it. Runs of petting are one note.
type ticker struct {
	mu      sync.Mutex
	did     []string
	expired bool
	err     error // of each call
}

func (w *ticker) note(what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.did) == 0 || what != "pet" || w.did[len(w.did)-1] != what {
		w.did = append(w.did, what)
	}
	return w.err
}

func (w *ticker) Path() string     { return "/dev/watchdog0" }
func (w *ticker) Identity() string { return "a watchdog" }
func (w *ticker) Expired() bool    { return w.expired }
func (w *ticker) SetTimeout(d time.Duration) (time.Duration, error) {
	return d, w.note("wait " + d.String())
}
func (w *ticker) Pet() error   { return w.note("pet") }
func (w *ticker) Leave() error { return w.note("leave") }
func (w *ticker) Stop() error  { return w.note("stop") }

func (w *ticker) notes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.did)
}

// life is one boot of a machine.
type life struct {
	*unit
	t      *testing.T
	rig    *machinetest.Rig
	dog    *ticker
	screen *script.Panel
	// answers are the keys for a question, by its title.
	answers map[string][]panel.Key
	// policy and variant are what its boot artifact carries.
	policy  policy.Policy
	variant platform.Variant
	// artifact are more files of its boot artifact. An empty one is not there.
	artifact map[string]string
	// events is where the kernel tells of devices.
	events chan host.Uevent
	// fails has the ends that do not work.
	fails map[string]bool
	// end is how process 1 ended: "reboot", "power off" or "switch root to" a program.
	end  string
	over chan struct{}
}

// live runs a test of one boot of a machine.
func live(t *testing.T, start *machinetest.Rig, test func(t *testing.T, l *life)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := start.Clone(t)
		m := &machine.Machine{Site: site.Stock(), Panel: panel.New(), BootID: "b1"}
		machinetest.Fit(r, m)
		l := &life{t: t, rig: r, dog: &ticker{}, answers: map[string][]panel.Key{}, events: make(chan host.Uevent), fails: map[string]bool{},
			over: make(chan struct{}), policy: policy.Policy{Version: policy.Version, AllowUnsigned: true, GraceSeconds: 1}}
		l.artifact = map[string]string{bootimage.BuildPath: `{"build":7,"kernel":"6.1.0","time":"1999-12-01T00:00:00Z"}`}
		l.variant = m.Identity.Variant
		l.screen = &script.Panel{Answer: func(a panel.Asked) []panel.Key { return l.answers[a.Title] }}
		sys := withDMI(t, m.Sys.(fstest.MapFS))
		sys["bus"] = &fstest.MapFile{Mode: os.ModeDir}
		if m.Firmware == layout.UEFI {
			sys["firmware/efi/fw_platform_size"] = &fstest.MapFile{Data: []byte("64\n")}
		}
		m.Sys, m.Identity, m.Serial, m.Firmware = sys, platform.Identity{}, "", layout.BIOS // which process 1 finds out
		m.Panel.Add("screen", l.screen)
		j := journal.New(journal.Options{})
		m.Log = j.Logger()
		l.unit = newUnit(m, offRig(t), j)
		l.kernel.Watchdog = func() (timer, error) { return l.dog, l.dog.note("open") }
		l.kernel.Devices = func(context.Context) (<-chan host.Uevent, error) { return l.events, nil }
		l.kernel.Reboot = l.ends("reboot")
		l.kernel.PowerOff = l.ends("power off")
		l.kernel.SwitchRoot = func(root, init string) error {
			if root != m.Places.Main {
				t.Errorf("the new root is %s", root)
			}
			return l.ends("switch root to " + init)()
		}
		r.Start(nil)
		test(t, l)
	})
}

// platforms is an appliance table with one platform, which the machine of hw/smbios/testdata is.
func platforms(t *testing.T, v platform.Variant) string {
	t.Helper()
	v.DmiMbMfg, v.DmiProdName = "BoardCo", "B1"
	if v.SerNumField == "" {
		v.SerNumField = "system-serial-number"
	}
	b, err := (&platform.Table{Version: 1, Variants: []platform.Variant{v}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// withDMI adds the tables of a machine with the serial number SN-0001 to /sys.
func withDMI(t *testing.T, sys fstest.MapFS) fstest.MapFS {
	t.Helper()
	for file, name := range map[string]string{"qemu.entry": "smbios_entry_point", "qemu.dmi": "DMI"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "hw", "smbios", "testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		sys["firmware/dmi/tables/"+name] = &fstest.MapFile{Data: b}
	}
	return sys
}

// ends returns a door through which process 1 ends the machine: nothing of it runs after that.
func (l *life) ends(how string) func() error {
	return func() error {
		if err := machinetest.Pass(l.rig, how); err != nil {
			return err
		}
		if l.fails[strings.Fields(how)[0]] {
			return fmt.Errorf("%s: it does not work", how)
		}
		l.end = how
		runtime.Goexit()
		return nil
	}
}

// begin switches the machine on.
func (l *life) begin() {
	l.t.Helper()
	rules, err := l.policy.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	for name, text := range map[string]string{bootimage.PolicyPath: string(rules), bootimage.PlatformsPath: platforms(l.t, l.variant)} {
		if _, ok := l.artifact[name]; !ok {
			l.artifact[name] = text
		}
	}
	for name, text := range l.artifact {
		name = filepath.Join(l.m.Initramfs, name)
		if text == "" {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			l.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(l.t.Context())
	go func() {
		defer close(l.over)
		l.boot(ctx, "a version")
	}()
	l.t.Cleanup(func() {
		cancel()
		<-l.over
		close(l.events)
		_ = l.unit.dog.stopForPowerOff()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		l.display.fresh = false
		l.releaseDisplay()
		_ = errors.Join(l.m.Panel.Close(ctx), l.journal.Close(ctx), l.queue.Release())
		if l.t.Failed() {
			l.t.Logf("the log:\n%s", strings.Join(l.lines(), "\n"))
		}
	})
}

// lines returns the log.
func (l *life) lines() (out []string) {
	for _, r := range l.journal.Records() {
		if r.Level >= slog.LevelInfo {
			out = append(out, r.Time.Format(time.TimeOnly)+" "+r.Text())
		}
	}
	return out
}

// awaits lets time pass until something is so.
func (l *life) awaits(what string, so func() bool) {
	l.t.Helper()
	for range 5 * 60 * 60 {
		synctest.Wait()
		if so() {
			return
		}
		time.Sleep(time.Second)
	}
	l.t.Fatalf("it never comes to: %s; shown %+v", what, l.screen.Last())
}

// awaitEnd lets time pass until process 1 has ended as it shall.
func (l *life) awaitEnd(how string) {
	l.t.Helper()
	l.awaits("the end", func() bool { return l.end != "" })
	if l.end != how {
		l.t.Errorf("it ends with %q, want %q", l.end, how)
	}
}

// awaitHold lets time pass until the unit holds for the nth time.
func (l *life) awaitHold(n int) {
	l.t.Helper()
	l.awaits(fmt.Sprint("hold ", n), func() bool { return len(logged(l.unit, "hold")) >= n })
	time.Sleep(2 * time.Second) // until nothing comes or goes any more
	synctest.Wait()
}

// plugged tells process 1 that a disk came.
func (l *life) plugged(name string) {
	l.events <- host.Uevent{Action: "add", Subsystem: "block", Path: "/devices/x/block/" + name}
}

// hasLetGo checks that nothing is mounted.
func (l *life) hasLetGo() {
	l.t.Helper()
	for _, dir := range []string{l.m.Places.Recovery, l.m.Places.Main} {
		if on, err := l.m.Mounted(dir); on || err != nil {
			l.t.Errorf("%s stays mounted: %v", dir, err)
		}
	}
}

// attempts returns how many boots the recovery volume counts.
func (l *life) attempts() int {
	l.t.Helper()
	n := 0
	onVolume(l.t, l.rig, func(v *state.Volume) error {
		c, err := v.ReadCounts()
		n = c.BootAttempts
		return err
	})
	return n
}

// complete is a unit whose main system is complete.
func complete(t *testing.T, k machinetest.Kind) *machinetest.Rig {
	t.Helper()
	r := machinetest.NewUnit(t, k)
	m := machinetest.Machine(r)
	machinetest.Complete(r, m, machinetest.Provision(r, m))
	return r
}

// withoutImage is a unit that shall be restored and has no image.
func withoutImage(t *testing.T) *machinetest.Rig {
	t.Helper()
	r := provisioned(t, twoDisks)
	onVolume(t, r, func(v *state.Volume) error { return os.Remove(v.Path(state.ImageDir, machinetest.Original+".upd")) })
	return r
}

const toSystem = "switch root to " + SystemInit

// TestLifeOfABoot: a complete unit comes to its system. The attempt is counted, the log names the machine, and the watchdog waits for the
// boot and is given away after everything else.
func TestLifeOfABoot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind  machinetest.Kind
		taken bool
	}{"UEFI": {twoDisks, true}, "BIOS": {machinetest.Kind{Firmware: layout.BIOS}, false}} {
		start := complete(t, c.kind)
		t.Run(name, func(t *testing.T) {
			live(t, start, func(t *testing.T, l *life) {
				if c.taken {
					l.takesWatchdog()
				}
				var shown []string
				l.kernel.SwitchRoot = func(root, init string) error {
					shown = l.dog.notes()
					return l.ends("switch root to " + init)()
				}
				l.begin()
				l.awaitEnd(toSystem)
				last := map[bool]string{true: "leave", false: "stop"}[c.taken]
				if want := []string{"open", "wait 1m0s", "pet", "wait 5m0s", last}; !slices.Equal(shown, want) || !slices.Equal(l.dog.notes(), want) {
					t.Errorf("with the watchdog is done %q, want %q", shown, want)
				}
				told, err := os.ReadFile(l.m.Places.InRun(state.BootFile))
				if err != nil {
					t.Fatal(err)
				}
				b, err := state.ParseBoot(told)
				if err != nil || b.Reason == "" || b.Build != 7 || b.Attempts != 1 || b.Watchdog.Device != "/dev/watchdog0" ||
					b.Watchdog.Running != c.taken {
					t.Errorf("the system is told %+v, %v", b, err)
				}
				if all := logged(l.unit, "init"); len(all) != 1 || !strings.Contains(all[0], "a version") || !strings.Contains(all[0], "quiet") ||
					!strings.Contains(all[0], "1.50") || !strings.Contains(all[0], string(c.kind.Firmware)) {
					t.Errorf("the log says of itself %q", all)
				}
				if n := l.attempts(); n != 1 {
					t.Errorf("%d attempts are counted", n)
				}
			})
		})
	}
}

// takesWatchdog makes the installed system one that takes the watchdog over.
func (l *life) takesWatchdog() {
	l.t.Helper()
	f := onRig(l.t, l.rig).look(l.t.Context())
	file := filepath.Join(l.rig.Volume(f.Unit.System().FSUUID), "etc/systemd/system.conf")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("RuntimeWatchdogSec=10\n"), 0o600)); err != nil {
		l.t.Fatal(err)
	}
	l.rig.Start(nil)
}

// TestLifeOfARestore: a unit that was provisioned restores itself and reboots: the watchdog has time for that, the screen says it, the log
// is on the recovery volume, and nothing is mounted.
func TestLifeOfARestore(t *testing.T) {
	t.Parallel()
	live(t, provisioned(t, twoDisks), func(t *testing.T, l *life) {
		l.begin()
		l.awaitEnd("reboot")
		if did := l.dog.notes(); !slices.Equal(slices.DeleteFunc(did, func(s string) bool { return s == "pet" }),
			[]string{"open", "wait 1m0s", "wait 10m0s", "leave"}) {
			t.Errorf("with the watchdog is done %q", did)
		}
		if said := l.screen.Last().Message; said != "Restarting" {
			t.Errorf("the screen says %q", said)
		}
		l.hasLetGo()
		onVolume(t, l.rig, func(v *state.Volume) error {
			text, err := readAll(v.Path(state.LogDir))
			if !strings.Contains(text, "step done") {
				t.Errorf("the log on the volume has\n%s", text)
			}
			return err
		})
	})
}

// readAll returns the text of all files of a directory.
func readAll(dir string) (string, error) {
	list, err := os.ReadDir(dir)
	var out strings.Builder
	for _, e := range list {
		b, rerr := os.ReadFile(filepath.Join(dir, e.Name()))
		out.Write(b)
		err = errors.Join(err, rerr)
	}
	return out.String(), err
}

// TestLifePowersOff: who presses a key in the grace time gets the menu, and a unit that is to go off does.
func TestLifePowersOff(t *testing.T) {
	t.Parallel()
	live(t, complete(t, twoDisks), func(t *testing.T, l *life) {
		l.policy.GraceSeconds = 30
		l.answers["Menu"], l.answers["Power off"] = choose(1), yes()
		l.begin()
		l.awaits("the grace time", func() bool { return l.screen.Last().Message == "Press a key for menu" })
		l.screen.Press('x')
		l.awaitEnd("power off")
		if did := l.dog.notes(); did[len(did)-1] != "stop" {
			t.Errorf("with the watchdog is done %q", did)
		}
		l.hasLetGo()
		if n := l.attempts(); n != 0 {
			t.Errorf("%d boots are counted", n)
		}
	})
}

// TestLifeHolds: a unit that cannot go on says why, lets go of its disks, pets its watchdog, and tries again after a minute, then after
// two.
func TestLifeHolds(t *testing.T) {
	t.Parallel()
	live(t, withoutImage(t), func(t *testing.T, l *life) {
		l.begin()
		l.awaitHold(1)
		first := l.heldAt(0)
		l.hasLetGo()
		if p := l.screen.Last().Problem; p == nil || p.Code != fault.NoImage.Code {
			t.Errorf("shown %+v", l.screen.Last())
		}
		l.awaitHold(3)
		second, third := l.heldAt(1), l.heldAt(2)
		if d := second.Sub(first); d < time.Minute || d > 100*time.Second {
			t.Errorf("it tries again after %s", d)
		}
		if d := third.Sub(second); d < 2*time.Minute || d > 160*time.Second {
			t.Errorf("and then after %s", d)
		}
		if did := l.dog.notes(); !slices.Equal(did, []string{"open", "wait 1m0s", "pet"}) {
			t.Errorf("with the watchdog is done %q", did)
		}
	})
}

// heldAt returns when the unit held for the nth time, from 0.
func (l *life) heldAt(n int) (at time.Time) {
	for _, r := range l.journal.Records() {
		if r.Message == "hold" {
			if n--; n < 0 {
				return r.Time
			}
		}
	}
	return at
}

// TestHoldEndsWithADisk: a disk that comes while a unit holds is used at once, and its partitions are waited for.
func TestHoldEndsWithADisk(t *testing.T) {
	t.Parallel()
	live(t, withoutImage(t), func(t *testing.T, l *life) {
		l.answers["Restore from medium"] = yes()
		l.begin()
		l.awaitHold(2)
		held := l.heldAt(1)
		time.Sleep(5 * time.Second)
		putImage(t, machinetest.Stick(t, l.rig, layout.TypeLinux), layout.EmergencyPrefix)
		l.plugged("sdb")
		time.Sleep(500 * time.Millisecond)
		l.plugged("sdb1")
		l.awaitEnd("reboot")
		if d := l.decidedAfter(held); d < 8500*time.Millisecond || d > 20*time.Second {
			t.Errorf("it decides %s after it held", d)
		}
	})
}

// decidedAfter returns how long after a time the unit decided next.
func (l *life) decidedAfter(at time.Time) time.Duration {
	for _, r := range l.journal.Records() {
		if r.Message == "decision" && r.Time.After(at) {
			return r.Time.Sub(at)
		}
	}
	return -1
}

// TestHoldEndsWithAKey: who has read the message and presses a key gets the menu, and the pause is short again.
func TestHoldEndsWithAKey(t *testing.T) {
	t.Parallel()
	live(t, withoutImage(t), func(t *testing.T, l *life) {
		l.begin()
		l.awaitHold(3)
		l.answers["Menu"] = choose(0)
		l.screen.Press('x')
		l.awaitHold(4)
		if all := logged(l.unit, "choice"); len(all) != 1 || !strings.Contains(all[0], "resume") {
			t.Errorf("chosen: %q", all)
		}
		if last := logged(l.unit, "hold")[3]; !strings.Contains(last, "1m0s") {
			t.Errorf("after a key it holds: %s", last)
		}
		l.answers["Menu"], l.answers["Power off"] = choose(1), yes()
		l.screen.Press('x')
		l.awaitEnd("power off")
	})
}

// TestLifeWithAnotherBoard: disks whose record has another serial number hold, until a person adopts the mainboard. Then what was asked for
// goes on, and the unit is the one that it was.
func TestLifeWithAnotherBoard(t *testing.T) {
	t.Parallel()
	r := provisioned(t, twoDisks)
	onVolume(t, r, func(v *state.Volume) error {
		u, err := v.ReadUnit()
		if err != nil {
			return err
		}
		u.Serial = "SN-OLD"
		return v.WriteUnit(u)
	})
	live(t, r, func(t *testing.T, l *life) {
		l.begin()
		l.awaitHold(1)
		if held := logged(l.unit, "hold")[0]; !strings.Contains(held, fault.OtherBoard.Code) {
			t.Fatalf("it holds with %s", held)
		}
		l.answers["Menu"], l.answers["Adopt mainboard"] = choose(5), yes()
		l.screen.Press('x')
		l.awaitEnd("reboot")
		if name := l.m.Serial; name != "SN-OLD" {
			t.Errorf("to the server the unit is %q", name)
		}
	})
}

// TestEndFails: where the machine does not end as it shall, the unit holds and says why, lets go of its disks, and decides again.
func TestEndFails(t *testing.T) {
	t.Parallel()
	for how, c := range map[string]struct {
		start *machinetest.Rig
		code  string
	}{
		"reboot": {provisioned(t, twoDisks), fault.Internal.Code},
		"switch": {complete(t, twoDisks), fault.SwitchRoot.Code},
	} {
		t.Run(how, func(t *testing.T) {
			live(t, c.start, func(t *testing.T, l *life) {
				l.fails[how] = true
				l.begin()
				l.awaitHold(1)
				if text := logged(l.unit, "hold")[0]; !strings.Contains(text, "it does not work") || !strings.Contains(text, c.code) {
					t.Errorf("it holds with %s", text)
				}
				l.hasLetGo()
				l.fails[how] = false
				l.awaitEnd(toSystem)
			})
		})
	}
}

// TestSetupFails: a unit whose artifact lacks what it needs says so as long as it runs, and ends only as a person chooses.
func TestSetupFails(t *testing.T) {
	t.Parallel()
	start := complete(t, twoDisks)
	for name, spoil := range map[string]func(l *life){
		"no policy": func(l *life) { l.artifact[bootimage.PolicyPath] = "" },
		"no events": func(l *life) {
			l.kernel.Devices = func(context.Context) (<-chan host.Uevent, error) { return nil, errors.New("no netlink") }
		},
		"no modules": func(l *life) {
			l.kernel.Modules = func(string) (*host.Modules, error) { return nil, errors.New("no index") }
		},
		"no mounts":      func(l *life) { l.kernel.Prepare = func() error { return errors.New("no /proc") } },
		"no cmdline":     func(l *life) { l.kernel.Proc = fstest.MapFS{} },
		"no buses":       func(l *life) { delete(l.m.Sys.(fstest.MapFS), "bus") },
		"a panic":        func(l *life) { l.kernel.QuietKernel = func() error { panic("odd") } },
		"no platform":    func(l *life) { l.artifact[bootimage.PlatformsPath] = "{" },
		"not a platform": func(l *life) { l.variant.DevCodeName, l.variant.SerNumField = "OTHER", "chassis-sku-number" },
	} {
		t.Run(name, func(t *testing.T) {
			live(t, start, func(t *testing.T, l *life) {
				spoil(l)
				l.begin()
				l.awaitHold(2) // nobody comes
				if len(logged(l.unit, "decision")) > 0 {
					t.Error("it decides something")
				}
				l.answers["Menu"] = choose(0)
				l.screen.Press('x')
				l.awaitEnd("reboot")
			})
		})
	}
}

// TestPanicHolds: a panic ends what ran and nothing else. The unit says so, and decides again.
func TestPanicHolds(t *testing.T) {
	t.Parallel()
	start := complete(t, twoDisks)
	for where, call := range map[string]string{"survey": "list disks", "job": "mount /dev/vdb2 read-only"} {
		t.Run(where, func(t *testing.T) {
			live(t, start, func(t *testing.T, l *life) {
				booting := false
				l.rig.Start(func(_ int, c string) error {
					booting = booting || strings.Contains(strings.Join(logged(l.unit, "decision"), ""), "boot")
					if c == call && (where == "survey" || booting) && call != "" {
						call = ""
						panic("odd")
					}
					return nil
				})
				l.begin()
				l.awaitHold(1)
				if p := l.screen.Last().Problem; p == nil || !strings.Contains(p.Detail, "odd") {
					t.Errorf("shown %+v", p)
				}
				if all := logged(l.unit, "panic"); len(all) != 1 || !strings.Contains(all[0], "life_test.go") {
					t.Errorf("logged %q", all)
				}
				l.awaitEnd(toSystem)
			})
		})
	}
}

// TestHoldPanics: where even the message goes wrong the unit waits in silence, and goes on.
func TestHoldPanics(t *testing.T) {
	t.Parallel()
	live(t, withoutImage(t), func(t *testing.T, l *life) {
		l.m.UnmountAll = func() error { panic("odd") }
		l.begin()
		l.awaits("two more tries", func() bool { return len(logged(l.unit, "decision")) >= 3 })
		if l.end != "" {
			t.Errorf("it ends with %q", l.end)
		}
		for i, held := 0, len(logged(l.unit, "hold")); i < held; i += 2 { // a hold, and one that says what went wrong in it
			if d := l.heldAt(i + 1).Sub(l.heldAt(i)); d > time.Minute {
				t.Errorf("it says so after %s", d)
			}
		}
	})
}

// TestWatchdogOfSetup: without a watchdog, or with one that does not do what it is told, a unit starts all the same. One that ended the
// boot before is told to the system.
func TestWatchdogOfSetup(t *testing.T) {
	t.Parallel()
	start := complete(t, twoDisks)
	for name, c := range map[string]struct {
		change func(l *life)
		opened bool
		log    string // a message that the log has
	}{
		"not wanted": {func(l *life) { l.policy.NoWatchdog = true }, false, "init"},
		"none": {func(l *life) {
			l.kernel.Watchdog = func() (timer, error) { return nil, watchdog.ErrNone }
		}, false, "no watchdog"},
		"in use": {func(l *life) {
			l.kernel.Watchdog = func() (timer, error) { return nil, watchdog.ErrBusy }
		}, false, "watchdog cannot be used"},
		"does not answer":       {func(l *life) { l.dog.err = errors.New("no answer") }, true, "watchdog keeps the time of its driver"},
		"ended the boot before": {func(l *life) { l.dog.expired = true }, true, "watchdog armed"},
	} {
		t.Run(name, func(t *testing.T) {
			live(t, start, func(t *testing.T, l *life) {
				c.change(l)
				if name == "does not answer" {
					l.kernel.Watchdog = func() (timer, error) { return l.dog, nil }
				}
				l.begin()
				l.awaitEnd(toSystem)
				if opened := len(l.dog.notes()) > 0; opened != c.opened {
					t.Errorf("with the watchdog is done %q", l.dog.notes())
				}
				if len(logged(l.unit, c.log)) != 1 {
					t.Errorf("the log does not say %q", c.log)
				}
				b, err := os.ReadFile(l.m.Places.InRun(state.BootFile))
				if err != nil {
					t.Fatal(err)
				}
				if told, err := state.ParseBoot(b); err != nil || told.Watchdog.Expired != l.dog.expired || (told.Watchdog.Device != "") != c.opened {
					t.Errorf("the system is told %+v, %v", told.Watchdog, err)
				}
			})
		})
	}
}

// TestClockIsSet: a clock from before the artifact was built is set to that time, and one that cannot be set keeps no unit from starting.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	start := complete(t, twoDisks)
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails: ", fails), func(t *testing.T) {
			live(t, start, func(t *testing.T, l *life) {
				l.artifact[bootimage.BuildPath] = `{"build":7,"time":"2026-11-22T10:00:00Z"}`
				l.rig.Start(func(_ int, call string) error {
					if fails && call == "set clock" {
						return errors.New("no clock")
					}
					return nil
				})
				var set time.Time
				door := l.m.Board.SetClock
				l.m.Board.SetClock = func(to time.Time) error { set = to; return door(to) }
				l.begin()
				l.awaitEnd(toSystem)
				if !set.Equal(time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)) {
					t.Errorf("the clock is set to %s", set)
				}
				if n := len(logged(l.unit, "clock cannot be set")); (n == 1) != fails {
					t.Errorf("that it cannot be set is logged %d times", n)
				}
			})
		})
	}
}

// port keeps what is written to it.
type port struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *port) Close() error { return nil }
func (p *port) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// TestEventPort: the log of a virtual machine that has a port for it leaves through that from its first line on. A port that cannot be
// opened keeps no unit from starting.
func TestEventPort(t *testing.T) {
	t.Parallel()
	start := complete(t, twoDisks)
	for _, opens := range []bool{true, false} {
		t.Run(fmt.Sprint("opens: ", opens), func(t *testing.T) {
			live(t, start, func(t *testing.T, l *life) {
				l.m.Sys.(fstest.MapFS)["class/virtio-ports/vport1p1/name"] = &fstest.MapFile{Data: []byte(journal.PortName + "\n")}
				p := &port{}
				l.kernel.EventPort = func(device string) (io.WriteCloser, error) {
					if device != "/dev/vport1p1" {
						t.Errorf("opened is %s", device)
					}
					if !opens {
						return nil, os.ErrPermission
					}
					return p, nil
				}
				l.begin()
				l.awaitEnd(toSystem)
				for _, message := range []string{"platform", "init", "handing over"} {
					if strings.Contains(p.text.String(), `"`+message+`"`) != opens {
						t.Errorf("through the port comes\n%s", p.text.String())
					}
				}
			})
		})
	}
}

// freeing counts how often it was closed at all.
type freeing struct {
	net.Conn
	once  sync.Once
	freed *atomic.Int32
}

func (c *freeing) Close() error {
	c.once.Do(func() { c.freed.Add(1) })
	return c.Conn.Close()
}

// TestDisplayIsHandedOver: the display shows the boot, is free when the splash process of the system starts, and is taken back if the
// system does not start.
func TestDisplayIsHandedOver(t *testing.T) {
	t.Parallel()
	start := complete(t, twoDisks)
	for name, fails := range map[string]bool{"starts": false, "does not start": true} {
		t.Run(name, func(t *testing.T) {
			live(t, start, func(t *testing.T, l *life) {
				screen, freed := simulator.New(lcd.Model631), new(atomic.Int32)
				l.variant.Lcd, l.variant.LcdPort = platform.LCD631, "ttyS1"
				l.kernel.Display = func(port string) func(context.Context) (io.ReadWriteCloser, string, error) {
					return func(context.Context) (io.ReadWriteCloser, string, error) {
						ours, theirs := net.Pipe()
						go func() { _ = screen.Serve(theirs) }()
						return &freeing{Conn: ours, freed: freed}, port, nil
					}
				}
				splashes, ended := 0, 0
				l.kernel.Splash = func(_ context.Context, root, port string, _ bool) (func() error, error) {
					splashes++
					if free := int(freed.Load()) == splashes; !free || root != l.m.Places.Main || port != "ttyS1" {
						t.Errorf("the splash of %s starts on %q, and the display is free: %t", root, port, free)
					}
					return func() error { ended++; return errors.New("it ended by itself") }, nil
				}
				l.fails["switch"] = fails
				l.begin()
				if fails {
					l.awaitHold(1)
					l.awaits("the fault on the display", func() bool { return screen.Screen().Contains(fault.SwitchRoot.Code) })
					if ended != 1 {
						t.Errorf("the splash process is ended %d times", ended)
					}
					l.fails["switch"] = false
				}
				l.awaitEnd(toSystem)
				if want := map[bool]int{false: 1, true: 2}[fails]; splashes != want {
					t.Errorf("%d splash processes were started, want %d", splashes, want)
				}
			})
		})
	}
}

// TestDisplayAtAConsole: a display on a port that the kernel uses as console is left alone.
func TestDisplayAtAConsole(t *testing.T) {
	u := onRig(t, machinetest.NewUnit(t, twoDisks))
	u.m.Sys = fstest.MapFS{"class/tty/console/active": {Data: []byte("tty0 ttyS1\n")}}
	u.m.Identity.Variant.Lcd, u.m.Identity.Variant.LcdPort = platform.LCD631, "ttyS1"
	u.attachDisplay()
	if u.releaseDisplay() || u.display.lcd.Load() != nil || len(logged(u, "the display's port is a console: the display is not used")) != 1 {
		t.Errorf("it is used: %t", u.display.lcd.Load() != nil)
	}
}

// terminal returns both ends of a pseudoterminal: what a person has, and the device of the console.
func terminal(t *testing.T) (person *os.File, device string) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		machinetest.Skip(t, fmt.Sprintf("pseudoterminal: %v", err))
	}
	t.Cleanup(func() { person.Close() })
	c, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	var inner error
	err = c.Control(func(fd uintptr) {
		if inner = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); inner == nil {
			number, inner = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, inner, person.SetReadDeadline(time.Now().Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	return person, fmt.Sprint("/dev/pts/", number)
}

// TestConsoles: every console shows panels and log. It gives keys where the policy takes them from its kind, and is given to the system as
// it was.
func TestConsoles(t *testing.T) {
	t.Parallel()
	u := onRig(t, machinetest.NewUnit(t, twoDisks))
	u.m.Sys = fstest.MapFS{"class/tty/console/active": {Data: []byte("tty0 ttyS0 ttyS9\n")}}
	u.m.Policy.Panels = []string{policy.Serial}
	screen, screenDevice := terminal(t)
	serial, serialDevice := terminal(t)
	var open []*console.TTY
	u.kernel.Console = func(device string) (*console.TTY, error) {
		name, ok := map[string]string{"/dev/tty0": screenDevice, "/dev/ttyS0": serialDevice}[device]
		if !ok {
			return nil, os.ErrNotExist
		}
		c, err := console.Open(name)
		if err == nil {
			open = append(open, c)
		}
		return c, err
	}
	reads := func(from *os.File, text string) {
		t.Helper()
		var all []byte
		for b := make([]byte, 4096); !strings.Contains(string(all), text); {
			n, err := from.Read(b)
			if all = append(all, b[:n]...); err != nil {
				t.Fatalf("%q never comes: %v; %q", text, err, all)
			}
		}
	}
	raw := func() bool {
		var at *unix.Termios
		c, err := open[1].SyscallConn()
		if err == nil {
			err = c.Control(func(fd uintptr) { at, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
		}
		if err != nil || at == nil {
			t.Fatal(err)
		}
		return at.Lflag&unix.ICANON == 0
	}
	u.log.Warn("a line of before")
	u.attachConsoles()
	if len(open) != 2 || len(u.terminals.all) != 1 || !raw() {
		t.Fatalf("%d consoles are open, %d give keys", len(open), len(u.terminals.all))
	}
	reads(screen, "a line of before")
	reads(serial, "a line of before")
	u.m.Panel.Message("Hello there")
	reads(screen, "Hello there")
	if _, err := serial.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	select {
	case p := <-u.m.Panel.Pressed():
		if p.Panel != "/dev/ttyS0" {
			t.Errorf("pressed is %+v", p)
		}
	case <-time.After(time.Minute):
		t.Error("a key of the serial console is not taken")
	}
	u.terminals.print("/dev/elsewhere", "not here")
	u.terminals.print(serialDevice, "only here")
	reads(serial, "only here")
	u.terminals.print("", "everywhere")
	reads(serial, "everywhere")
	u.leaveScreens(t.Context(), "/root")
	if raw() {
		t.Error("the system gets a console that is raw")
	}
	u.retakeScreens()
	if !raw() {
		t.Error("a console is not taken back")
	}
	u.releaseDisplay()
	for _, c := range open {
		c.File.Close()
	}
	u.consolesGone(t)
}

// consolesGone waits until nothing is shown any more.
func (u *unit) consolesGone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	_ = errors.Join(u.m.Panel.Close(ctx), u.journal.Close(ctx))
}
