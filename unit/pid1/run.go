// Package pid1 is one boot of a unit: setup, and then again and again a survey, a decision, one job and its outcome. It is the only
// place that may reboot.
//
// Process 1 never ends: a panic is the failure of whatever ran, and an error that nothing else catches ends in a message that
// stays on the screen. A job returns an Outcome; only finish acts on it, after logs are flushed and volumes unmounted.
package pid1

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"gprovision/hw/console"
	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/hw/raid"
	"gprovision/hw/smbios"
	"gprovision/hw/usb"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/handover"
	"gprovision/unit/job/provision"
	"gprovision/unit/job/repair"
	"gprovision/unit/job/rescue"
	"gprovision/unit/job/restore"
	"gprovision/unit/job/shell"
	"gprovision/unit/job/support"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/person"
	"gprovision/unit/report"
	"gprovision/unit/splash"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// Retry is how long a unit that holds waits at first before it decides again by itself.
const Retry = time.Minute

const (
	maxRetry        = time.Hour // the longest such pause
	networkRetry    = 30 * time.Second
	maxNetworkRetry = 5 * time.Minute
)

// beepHertz is how high the speaker's tone is.
const beepHertz = 880

// bootGC is how many percent the heap grows, from 4 MiB, until garbage is collected, before a job is chosen: on the way to a normal
// boot init needs about 20 MiB, and each collection would stop it.
const bootGC = 800

// unit is init while it runs.
type unit struct {
	start   time.Time
	journal *journal.Journal
	log     *slog.Logger
	queue   *report.Queue
	m       *machine.Machine
	args    decide.Args
	modules *host.Modules
	// names are those of the boot artifact, or of the Site where it has none.
	names site.Names
	// siteLabel is the label of recovery volumes that the artifact's names have replaced; empty: none.
	siteLabel string
	// changed gets a value when a block device came or went.
	changed chan struct{}
	// key is the key of the unit that this boot may make, or the one that a provisioning has found.
	key ed25519.PrivateKey
	// memory is what this boot remembers of its earlier passes for a survey, and wait how it waits for what that lacks.
	memory survey.Memory
	wait   survey.Wait
	// volume is the recovery volume that the last survey found, also a damaged one; nil: none.
	volume *volume.Handle
	// checks counts the hardware checks of this boot.
	checks int
	// dog has the hardware watchdog.
	dog guardian
	// holds counts in a row the holds for the same reason, which is heldFor.
	holds   int
	heldFor *fault.Fault
	// endJob ends what the last job goes on with in the background.
	endJob context.CancelFunc
	// person is who stands before the machine, and ttys are the consoles that take their keys.
	person  person.Person
	ttys    []*console.TTY
	display display
	media   media
	// ports returns what asks USB hubs, when that has started.
	ports func() usb.Doors
}

// Run is process 1. It never returns.
func Run(s site.Site, version string) {
	splash.Main(os.Args)
	portsMain(os.Args)
	debug.SetGCPercent(bootGC)
	now := time.Now()
	u := &unit{start: now, key: state.NewKey(), changed: make(chan struct{}, 1), endJob: func() {}}
	u.journal = journal.New(journal.Options{})
	u.log = u.journal.Logger()
	sys := os.DirFS("/sys")
	u.m = &machine.Machine{Doors: machine.Real(u.log, sys, func(fstype string) error { return u.modules.Filesystem(fstype) }), Log: u.log, Sys: sys, Site: s, Panel: panel.New(), Initramfs: "/", BootID: uuid.NewString(), Firmware: layout.BIOS}
	u.person.Machine = u.m
	u.queue = report.NewQueue(u.m.BootID)
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this program is process 1 of a unit and does nothing else")
		os.Exit(2)
	}
	ctx := context.Background()
	if err := u.guard("setup", func() error { return u.setup(ctx, version) }); err != nil {
		_ = u.guard("setup", func() error { u.env().Ended("", err); return nil })
		u.holdForever(ctx, err)
	}
	u.memory.Since = time.Now() // however long the drivers took, their devices have all the time that they are given
	for {
		u.finish(ctx, u.pass(ctx))
	}
}

// env is what a job of this pass gets.
func (u *unit) env() job.Env {
	return job.Env{Machine: u.m, Volume: u.volume, Queue: u.queue, Journal: u.journal, Survey: u.surveyor(), Key: u.key, Checks: u.checks,
		Await:      func(ctx context.Context, left time.Duration) error { return u.await(ctx, left, usb.State{}) },
		Background: u.background}
}

// guard turns a panic into an error.
func (u *unit) guard(what string, do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			u.log.Error("panic", "in", what, "value", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = fault.Newf(fault.Internal, "%s: panic: %v", what, v)
		}
	}()
	return do()
}

// background runs do beside everything else. A panic there would end process 1: it is logged, and what do did is missed.
func (u *unit) background(what string, do func()) {
	go func() {
		if err := u.guard(what, func() error { do(); return nil }); err != nil {
			u.log.Error("background work ended", "err", err)
		}
	}()
}

// setup brings the machine to the point where facts can be gathered.
func (u *unit) setup(ctx context.Context, version string) error {
	modules := sync.OnceValues(func() (*host.Modules, error) {
		release, err := host.Release()
		if err != nil {
			return nil, err
		}
		return host.NewModules(u.m.Initramfs, release)
	})
	u.background("read modules", func() { _, _ = modules() })
	mountErr := host.EarlyMounts()
	u.ports = sync.OnceValue(u.startPorts)
	u.background("start who asks USB hubs", func() { u.ports() })
	for _, dir := range []string{u.m.Places.Recovery, u.m.Places.Main} {
		mountErr = errors.Join(mountErr, os.MkdirAll(dir, 0o700))
	}
	artifactErr := u.readArtifact()
	cmdline, cmdlineErr := os.ReadFile("/proc/cmdline")
	u.m.Cmdline = decide.WithoutSecrets(string(cmdline))
	u.args = decide.ParseArgs(string(cmdline), u.m.Policy.Locked)
	u.attachConsoles()
	if err := errors.Join(mountErr, artifactErr, cmdlineErr); err != nil {
		return err
	}
	if err := host.SetConsoleLevel(4); err != nil {
		u.log.Debug("kernel messages stay on the console", "err", err)
	}
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	if efi.Present(u.m.Sys) {
		u.m.Firmware = layout.UEFI
	}
	if now := time.Now(); !plausible(now, u.m.Build.Time) {
		u.log.Warn("the clock cannot be right, setting it to the artifact's build time", "clock", now, "build", u.m.Build.Time)
		if err := u.m.SetClock(u.m.Build.Time); err != nil {
			u.log.Warn("clock cannot be set", "err", err)
		}
	}
	identified := make(chan error, 1)
	var who identity
	go func() { // no driver is needed for it
		identified <- u.guard("identify", func() (err error) { who, err = u.identify(); return err })
	}()
	if err := u.loadModules(ctx, modules); err != nil {
		return err
	}
	u.attachEventPort()
	u.armWatchdog()
	u.log.Info("init", "version", version, "build", u.m.Build.Number, "kernel", u.m.Build.Kernel, "firmware", string(u.m.Firmware),
		"boot", u.m.BootID, "cmdline", u.m.Cmdline, "uptime", uptime())
	err := <-identified
	if fault.Of(err) == fault.PlatformUnknown && who.table != nil && !u.provisions() {
		err = u.identifyByRecord(ctx, who.table, who.dmi, err)
	}
	u.loadRAID()
	u.attachDisplay()
	return err
}

// clockYears is for how many years after its build an artifact believes the clock of a machine.
const clockYears = 10

// plausible reports whether a clock may be right, for an artifact that was built at a time: not before, and not long after that. With a
// clock from far away every certificate looks expired, and nothing could be set right over the network.
func plausible(clock, build time.Time) bool {
	return !clock.Before(build) && !clock.After(build.AddDate(clockYears, 0, 0))
}

func uptime() string {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return ""
	}
	s, _, _ := strings.Cut(string(b), " ")
	return s
}

// readArtifact reads what the boot artifact carries: build, policy, keys.
func (u *unit) readArtifact() error {
	var err error
	if u.m.Build, err = machine.ReadBuild(u.m.Initramfs); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(u.m.Initramfs, bootimage.PolicyPath))
	if err != nil {
		return err
	}
	if u.m.Policy, err = policy.Parse(b); err != nil {
		return err
	}
	if err := u.readNames(); err != nil {
		return err
	}
	u.names = u.m.Site.Names
	for _, k := range u.m.Policy.Keys {
		key, err := signature.ParsePublicKey(k)
		if err != nil {
			return fmt.Errorf("key of the policy: %w", err)
		}
		u.m.Keys = append(u.m.Keys, key)
	}
	return nil
}

// readNames reads the product's names. An artifact without them has those of the Site.
func (u *unit) readNames() error {
	b, err := os.ReadFile(filepath.Join(u.m.Initramfs, bootimage.NamesPath))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := naming.Parse(b)
	if err != nil {
		return err
	}
	u.siteLabel = u.m.Site.Names.Recovery
	u.m.Site.Names = u.m.Site.Names.Of(n)
	return nil
}

// attachConsoles shows panels and log on every console that the kernel uses.
func (u *unit) attachConsoles() {
	filter := journal.Filter{Level: slog.LevelInfo}
	if u.args.Verbose {
		filter.Level = slog.LevelDebug
	}
	for _, device := range console.Active(os.DirFS("/sys")) {
		f, err := console.Open(device)
		if err != nil {
			u.log.Debug("console cannot be opened", "device", device, "err", err)
			continue
		}
		u.m.Panel.Add(device, panel.Console(f, panel.ConsoleOptions{Terminal: console.IsScreen(device), Keys: u.keys(f)}))
		if console.IsScreen(device) { // the speaker is reached through it
			u.m.Panel.Add(device+" speaker", panel.Speaker(func(d time.Duration) error { return f.Beep(beepHertz, d) }))
		}
		if err := u.journal.Attach(device, journal.Console(f, filter)); err != nil {
			u.log.Debug("console cannot be used", "device", device, "err", err)
		}
	}
}

func (u *unit) attachEventPort() {
	path, ok := journal.FindPort(u.m.Sys, journal.PortName)
	if !ok {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		err = u.journal.Attach("events", journal.EventPort(f))
	}
	if err != nil {
		u.log.Warn("event port cannot be used", "port", path, "err", err)
	}
}

// loadModules listens for devices, loads the drivers of those that are there, and goes on loading for those that appear.
func (u *unit) loadModules(ctx context.Context, modules func() (*host.Modules, error)) error {
	events, err := host.Events(ctx)
	if err != nil {
		return err
	}
	if u.modules, err = modules(); err != nil {
		return err
	}
	u.modules.Withhold(networkDrivers, watchdogDrivers) // a normal boot leaves the network to the system
	forward := make(chan host.Uevent, 1024)
	u.background("load drivers", func() { u.modules.Follow(ctx, u.log, u.m.Sys, forward) })
	u.background("watch devices", func() { u.watch(events, forward) })
	began := time.Now()
	needed := []string{"ext4"}
	if u.m.Firmware == layout.UEFI {
		needed = append(needed, "vfat")
	}
	var filesystems sync.WaitGroup
	for _, fs := range needed {
		filesystems.Go(func() {
			if err := u.modules.Filesystem(fs); err != nil {
				u.log.Warn("filesystem cannot be loaded", "type", fs, "err", err)
			}
		})
	}
	n, err := u.modules.Coldplug(ctx, u.log, u.m.Sys)
	filesystems.Wait()
	if err != nil {
		return err
	}
	if u.m.Firmware == layout.UEFI {
		if _, err := host.MountEFIVars(u.modules); err != nil {
			u.log.Warn("EFI variables cannot be mounted", "err", err)
		}
	}
	// The system takes the first watchdog, and what it did before the boot is only known of the one that was armed: so it must be the
	// same one in each boot.
	if err := u.modules.LoadInOrder(u.m.Sys, watchdogDrivers); err != nil {
		u.log.Debug("driver of a watchdog not loaded", "err", err)
	}
	u.log.Debug("modules loaded", "count", n, "elapsed", time.Since(began).Round(time.Millisecond).String())
	return nil
}

// Where the modules of a kernel are that drive network ports and watchdogs.
const (
	networkDrivers  = "kernel/drivers/net/"
	watchdogDrivers = "kernel/drivers/watchdog/"
)

// loadPorts loads the drivers of network ports. Many need seconds until their port is there.
func (u *unit) loadPorts(ctx context.Context) {
	u.modules.Withhold(watchdogDrivers)
	if _, err := u.modules.Coldplug(ctx, u.log, u.m.Sys); err != nil {
		u.log.Warn("drivers of network ports cannot be loaded", "err", err)
	}
}

// loadRAID loads what arrays of this platform need.
func (u *unit) loadRAID() {
	if v := u.m.Identity.Variant; v.HasRAID() {
		if err := u.modules.Load(raid.Modules(v.SwRaidlevel)...); err != nil {
			u.m.Log.Warn("drivers of the array cannot be loaded", "level", v.SwRaidlevel, "err", err)
		}
	}
}

// watch passes the kernel's events on to whoever loads drivers, and notes that disks changed. While drivers load slowly events
// may have to be dropped; then one that says so follows as soon as there is room.
func (u *unit) watch(events <-chan host.Uevent, forward chan<- host.Uevent) {
	defer close(forward)
	missed := false
	for e := range events {
		if missed {
			e.Action = host.Missed
		}
		select {
		case forward <- e:
			missed = false
		default:
			missed = true
		}
		u.display.event(e)
		if e.Subsystem == "block" || e.Action == host.Missed {
			select {
			case u.changed <- struct{}{}:
			default:
			}
		}
	}
}

// identity is what there is to recognise a machine by.
type identity struct {
	table *platform.Table
	dmi   platform.DMI
}

// identify finds out which platform this machine is and what its serial number is.
func (u *unit) identify() (identity, error) {
	dmi, err := smbios.Read(u.m.Sys)
	if err != nil {
		return identity{}, fault.Because(fault.PlatformUnknown, err)
	}
	table, err := readPlatforms(u.m.Initramfs)
	if err != nil {
		return identity{}, fault.Because(fault.PlatformUnknown, err)
	}
	for _, p := range table.Notes() {
		u.log.Warn("appliance table", "value", p.Path, "err", p.Text)
	}
	of := identity{table, dmi}
	id, err := platform.Identify(table, dmi)
	if err != nil && u.args.ProtoIdent != "" && u.m.Policy.Provision {
		u.log.Warn("no platform fits, taking the one that the kernel argument names", "platform", u.args.ProtoIdent, "err", err)
		id, err = platform.Named(table, u.args.ProtoIdent, dmi)
	}
	if err != nil {
		return of, fault.Because(fault.PlatformUnknown, err)
	}
	if err := id.CheckSerial(); err != nil {
		return of, err
	}
	if err := record.CheckUnit(id.Serial); err != nil {
		return of, fault.Because(fault.NoSerial, err)
	}
	u.m.Identity, u.m.Serial = id, id.Serial
	u.log.Info("platform", "platform", id.Variant.DevCodeName, "serial", id.Serial, journal.ForPerson())
	return of, nil
}

// readPlatforms returns the artifact's appliance table, or the built-in one if the artifact has none.
func readPlatforms(initramfs string) (*platform.Table, error) {
	b, err := os.ReadFile(filepath.Join(initramfs, bootimage.PlatformsPath))
	if errors.Is(err, fs.ErrNotExist) {
		return platform.Default(), nil
	}
	if err != nil {
		return nil, err
	}
	return platform.Parse(b)
}

// provisions reports whether this boot provisions the unit, whatever is found.
func (u *unit) provisions() bool { return u.surveyor().Provisions() }

// pass is one run from facts to outcome.
func (u *unit) pass(ctx context.Context) job.Outcome {
	var out job.Outcome
	err := u.guard("pass", func() error {
		u.memory.Choice = decide.Choice{} // that of the pass before is done with
		u.person.BeginGrace(u.provisions())
		found, err := u.gather(ctx)
		if err != nil {
			return err
		}
		if c, shown, err := u.person.AwaitMenu(ctx, found, u.volume, u.provisions()); err != nil {
			return err
		} else if shown {
			u.memory.Choice = c
			if found, err = u.gather(ctx); err != nil {
				return err
			}
		}
		if !u.provisions() && u.forced(u.m.Vars) {
			if c, chosen := u.person.Forced(ctx, found); chosen {
				forced := *found
				forced.Choice, found = c, &forced
			}
		}
		u.tellOfMedia(ctx, found)
		d := decide.Decide(found.Facts, u.m.Policy)
		for _, n := range found.Notes {
			u.log.Info("note", "text", n)
		}
		u.log.Info("decision", "job", string(d.Job), "reason", d.Reason, "recovery", string(found.Recovery), "main", string(found.Main),
			"attempts", found.Attempts, "elapsed", time.Since(u.start).Round(time.Millisecond).String())
		out = u.do(ctx, d, found)
		return nil
	})
	if err != nil {
		return job.Hold(err)
	}
	return out
}

// do runs a job. That it began is written down before: one that ends in a panic counts too.
func (u *unit) do(ctx context.Context, d decide.Decision, f *survey.Findings) job.Outcome {
	switch d.Job {
	case decide.Repair:
		u.memory.Repairs++
		delete(u.memory.Replayed, f.MainPart.Path) // a repair replays its journal, or gives it up
	case decide.RepairRecovery:
		u.memory.RecoveryRepairs++
		u.person.Wanted = f.Choice.Kind != decide.NoChoice && f.Choice.Kind != decide.ChooseResume // what was chosen is asked for anew
		delete(u.memory.Replayed, f.RecoveryPart.Path)
	case decide.RepairTable:
		u.memory.TablesTried = true // a disk that does not take it works from the other copy
	case decide.Shell:
		u.memory.ShellDone = true
	}
	u.endJob()
	beside, end := context.WithCancel(ctx)
	u.endJob = end
	out := u.run(beside, d, f)
	u.remember(ctx, out)
	return out
}

// remember writes down what the boot is to remember of the outcome of a job.
func (u *unit) remember(ctx context.Context, out job.Outcome) {
	u.person.Wanted = u.person.Wanted || out.Menu
	if out.Answered != "" {
		if u.memory.Answered == nil {
			u.memory.Answered = map[string]string{}
		}
		u.memory.Answered[out.Answered] = out.Why
	}
	u.checks += out.Checks
	if out.Key != nil {
		u.key = out.Key
	}
	if out.BackFailed {
		u.memory.BackFailed = true
		u.letGo(ctx)
	}
}

func (u *unit) run(ctx context.Context, d decide.Decision, f *survey.Findings) job.Outcome {
	if d.Job != decide.Boot && d.Job != decide.PowerOff {
		debug.SetGCPercent(100)
		u.loadPorts(ctx)
	}
	e := u.env()
	switch d.Job {
	case decide.Provision:
		return provision.Run(ctx, e, f)
	case decide.Restore:
		if d.Back {
			return restore.GoBack(ctx, e, f)
		}
		return restore.Run(ctx, e, f)
	case decide.Repair:
		return repair.Main(ctx, e, f)
	case decide.RepairRecovery:
		return repair.Recovery(ctx, e, f)
	case decide.RepairTable:
		return repair.Table(ctx, e, f)
	case decide.Boot:
		u.display.fresh = f.Recovery == decide.RecoveryFound && splash.Fresh(f.Mark, f.Counts)
		return handover.Run(ctx, e, handover.Options{Reason: d.Reason, Watchdog: &u.dog, Start: u.start}, f)
	case decide.PowerOff:
		return job.Outcome{Kind: job.PowerOffNow}
	case decide.Shell:
		return shell.Run(ctx, e, u.print, f)
	case decide.Rescue:
		return restore.FromMedium(ctx, e, f)
	case decide.Support:
		return support.Run(ctx, e, f)
	case decide.Rebuild:
		return rescue.Run(ctx, e, f)
	}
	reason := errors.New(d.Reason)
	if len(f.Notes) > 0 {
		reason = fmt.Errorf("%s (%s)", d.Reason, strings.Join(f.Notes, "; "))
	}
	return job.Hold(&fault.Occurrence{Fault: d.Fault, Cause: reason})
}
