// Package pid1 is one boot of a unit: early mounts, facts, the decision, one job as steps, and its outcome. It is the only place
// that may reboot.
//
// Process 1 never ends: a panic is the failure of whatever ran, and an error that nothing else catches ends in a message that
// stays on the screen. A job returns an Outcome; only finish acts on it, after logs are flushed and volumes unmounted.
package pid1

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"gprovision/hw/console"
	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/hw/smbios"
	"gprovision/hw/usb"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/signature"
	"gprovision/model/step"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/job/provision"
	"gprovision/unit/job/restore"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/splash"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/uplink"
	"gprovision/unit/volume"
)

// PlatformsPath is where the appliance table lies inside the initramfs.
const PlatformsPath = "/etc/gprovision/platforms.json"

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
	// connected says that the queue has, or will have, a way to the server.
	connected atomic.Bool
	// memory is what this boot remembers of its earlier passes for a survey, and wait how it waits for what that lacks.
	memory survey.Memory
	wait   survey.Wait
	// volume is the recovery volume that the last survey found, also a damaged one; nil: none.
	volume *volume.Handle
	// asked says that a forced restore of this boot was dealt with.
	asked bool
	// checks counts the hardware checks of this boot.
	checks int
	// dog has the hardware watchdog.
	dog guardian
	// holds counts in a row the holds for the same reason, which is heldFor.
	holds   int
	heldFor *fault.Fault
	// stopNetwork ends the background reporting of a restore.
	stopNetwork func()
	person
	display display
	media   media
	// ports returns what asks USB hubs, when that has started.
	ports func() usb.Doors
	// offered says that the menu was shown because this boot came from a recovery stick.
	offered bool
}

// Run is process 1. It never returns.
func Run(s site.Site, version string) {
	splash.Main(os.Args)
	portsMain(os.Args)
	debug.SetGCPercent(bootGC)
	now := time.Now()
	u := &unit{start: now, memory: survey.Memory{Since: now}, key: state.NewKey(), changed: make(chan struct{}, 1), stopNetwork: func() {}}
	u.journal = journal.New(journal.Options{})
	u.log = u.journal.Logger()
	sys := os.DirFS("/sys")
	u.m = &machine.Machine{Doors: machine.Real(u.log, sys), Log: u.log, Sys: sys, Site: s, Panel: panel.New(), Initramfs: "/", BootID: uuid.NewString(), Firmware: layout.BIOS}
	u.queue = report.NewQueue(u.m.BootID)
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this program is process 1 of a unit and does nothing else")
		os.Exit(2)
	}
	ctx := context.Background()
	if err := u.guard("setup", func() error { return u.setup(ctx, version) }); err != nil {
		_ = u.guard("setup", func() error { u.failed("", err); return nil })
		u.holdForever(ctx, err)
	}
	for {
		u.finish(ctx, u.pass(ctx))
	}
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

// plausible says whether a clock may be right, for an artifact that was built at a time: not before, and not long after that. With a
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
	b, err := os.ReadFile(policy.Path)
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
	b, err := os.ReadFile(filepath.Join(u.m.Initramfs, naming.Path))
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
	table, err := readPlatforms()
	if err != nil {
		return identity{}, fault.Because(fault.PlatformUnknown, err)
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
func readPlatforms() (*platform.Table, error) {
	b, err := os.ReadFile(PlatformsPath)
	if errors.Is(err, fs.ErrNotExist) {
		return platform.Default(), nil
	}
	if err != nil {
		return nil, err
	}
	return platform.Parse(b)
}

// pass is one run from facts to outcome.
func (u *unit) pass(ctx context.Context) Outcome {
	var out Outcome
	err := u.guard("pass", func() error {
		u.memory.Choice = decide.Choice{} // that of the pass before is done with
		u.invite()
		found, err := u.gather(ctx)
		if err != nil {
			return err
		}
		if asked, err := u.consult(ctx, found); err != nil {
			return err
		} else if asked {
			if found, err = u.gather(ctx); err != nil {
				return err
			}
		}
		facts := found.Facts
		if c, asked := u.askForced(ctx, found); asked {
			facts.Choice = c
		}
		u.tellOfMedia(ctx, found)
		d := decide.Decide(facts, u.m.Policy)
		for _, n := range found.Notes {
			u.log.Info("note", "text", n)
		}
		u.log.Info("decision", "job", string(d.Job), "reason", d.Reason, "recovery", string(found.Recovery), "main", string(found.Main),
			"attempts", found.Attempts, "elapsed", time.Since(u.start).Round(time.Millisecond).String())
		out = u.do(ctx, d, facts.Choice, found)
		return nil
	})
	if err != nil {
		return Outcome{Kind: HoldOn, Err: err}
	}
	return out
}

func (u *unit) do(ctx context.Context, d decide.Decision, chosen decide.Choice, f *survey.Findings) Outcome {
	if d.Job != decide.Boot && d.Job != decide.PowerOff {
		debug.SetGCPercent(100)
		u.loadPorts(ctx)
	}
	switch d.Job {
	case decide.Provision:
		return u.provision(ctx, f)
	case decide.Restore:
		return u.restore(ctx, d, chosen, f)
	case decide.Repair:
		return u.repair(ctx, f)
	case decide.RepairRecovery:
		return u.repairRecovery(ctx, f)
	case decide.RepairTable:
		return u.repairTable(ctx, f)
	case decide.Boot:
		return u.boot(ctx, d, f)
	case decide.PowerOff:
		return Outcome{Kind: PowerOffNow}
	case decide.Shell:
		return u.shell(ctx, f)
	case decide.Rescue:
		return u.rescue(ctx, f)
	case decide.Support:
		return u.support(ctx, f)
	case decide.Rebuild:
		return u.rebuild(ctx, f)
	}
	reason := errors.New(d.Reason)
	if len(f.Notes) > 0 {
		reason = fmt.Errorf("%s (%s)", d.Reason, strings.Join(f.Notes, "; "))
	}
	return Outcome{Kind: HoldOn, Err: &fault.Occurrence{Fault: d.Fault, Cause: reason}}
}

func (u *unit) provision(ctx context.Context, f *survey.Findings) Outcome {
	var used state.Manifests
	if f.Recovery == decide.RecoveryFound {
		err := u.volume.View(func(v *state.Volume) (err error) { used, err = v.ReadManifests(); return err })
		if err != nil {
			u.log.Warn("which manifests were used cannot be read", "err", err)
		}
	}
	u.m.Site.Names = u.names // a unit that is provisioned again is made anew
	u.began(record.JobProvision)
	err := provision.Run(ctx, u.m, provision.Options{
		ManifestURL: u.args.ManifestURL,
		Key:         u.key,
		Keep:        func(k ed25519.PrivateKey) { u.key = k },
		Token:       u.args.Token,
		LogEndpoint: u.args.LogEndpoint,
		KeepLog:     u.args.ContinueLogging,
		Raise: func(ctx context.Context) (func(), error) {
			n, err := uplink.Raise(ctx, u.log, u.m.Sys, u.args.BootMAC, provision.NetworkPatience)
			if err != nil {
				return nil, err
			}
			return n.Close, nil
		},
		HasRecovery: f.Complete(),
		Manifests:   used,
		Connect:     u.toServer,
		QABegins:    func() { u.checks++ },
		QA:          u.qa,
		Proc:        os.DirFS("/proc"),
		Attach:      func(dir string) error { return u.attachVolume(dir, "provision") },
		Observe:     u.observer(record.JobProvision),
	})
	if err != nil {
		u.failed(record.JobProvision, err)
		return Outcome{Kind: HoldOn, Err: err}
	}
	u.succeeded(record.JobProvision)
	return Outcome{Kind: RebootNow}
}

func (u *unit) restore(ctx context.Context, d decide.Decision, chosen decide.Choice, f *survey.Findings) Outcome {
	if !d.Back {
		request := f.Request
		if r, ok, err := requestOf(chosen); err != nil {
			return Outcome{Kind: HoldOn, Err: err}
		} else if ok {
			request = &r
		}
		return u.restoreImage(ctx, f, nil, request, "")
	}
	u.log.Warn("going back to another image", "from", f.Mark.Release, "to", f.Previous, "attempts", f.Attempts, journal.ForPerson())
	out := u.restoreImage(ctx, f, nil, nil, f.Previous)
	if out.Kind == HoldOn { // nothing else was tried: the installed system, if it is there yet, is better than none
		u.memory.BackFailed = true
		u.letGo(ctx)
		out = Outcome{Kind: DecideAgain}
	}
	return out
}

// restoreImage restores an image of a medium for the request, or one of the recovery volume if that is nil. back is the only image
// to take when init goes back to it by itself, else "".
func (u *unit) restoreImage(ctx context.Context, f *survey.Findings, image *image.Image, request *state.Request, back string) Outcome {
	v, err := u.volume.Hold()
	if err != nil {
		return Outcome{Kind: HoldOn, Err: fault.Because(fault.RecoveryDamaged, err)}
	}
	u.makeRoom(v)
	if err := u.attachVolume(u.m.Places.Recovery, "recov"); err != nil {
		u.log.Warn("logs and records cannot be kept on the recovery volume", "err", err)
	}
	if f.BadRequest != nil {
		u.log.Warn(requestIgnored, "code", fault.RequestDamaged.Code, "err", f.BadRequest, journal.ForPerson())
		u.setRequestAside(f)
	}
	if image == nil && request != nil && request != f.Request {
		if err := u.keepRequest(v, *request); err != nil {
			return Outcome{Kind: HoldOn, Err: fault.Because(fault.RecoveryDamaged, err)}
		}
	}
	if back != "" {
		u.giveUp(v, f)
	}
	u.connect(ctx, v, f.Unit)
	u.began(record.JobRestore)
	o := restore.Options{
		Recovery: u.m.Places.Recovery, Volume: v, Unit: f.Unit, Request: request, Image: image, Back: back, Main: f.MainPart, Planned: f.Planned,
		Blank: f.Main == decide.MainBlank && image == nil && !f.RestoreRequested(), Oldest: u.args.Oldest, KeepRecovery: u.args.KeepRecovery,
		Observe: u.observer(record.JobRestore),
	}
	err = restore.Run(ctx, u.m, o)
	if restore.BadImages(err) && image == nil && back == "" && u.m.Policy.NetworkRecovery != "" {
		u.log.Warn("no image on the recovery volume can be restored, one is fetched", "err", err, journal.ForPerson())
		if fetchErr := u.fetchImage(ctx, v, f.Unit); fetchErr == nil {
			err = restore.Run(ctx, u.m, o)
		} else {
			err = fmt.Errorf("%w; from the network: %v", err, fetchErr)
		}
	}
	if err != nil {
		u.failed(record.JobRestore, err)
		return Outcome{Kind: HoldOn, Err: err}
	}
	u.succeeded(record.JobRestore)
	return Outcome{Kind: RebootNow}
}

// repair checks and repairs the main filesystem. It counts before it works, so that a repair that crashes counts too. That a count
// cannot be written is no reason not to try: else a full recovery volume would end in what the policy does after failed repairs.
func (u *unit) repair(ctx context.Context, f *survey.Findings) Outcome {
	u.memory.Repairs++
	u.began(record.JobRepair)
	err := step.Run(ctx, u.m.Site.Weave("repair", []step.Step{
		{Name: "count-repair", Say: "Counting", Run: func(context.Context) error {
			if err := u.countFor(f, state.Counts.Repaired); err != nil {
				u.log.Warn("repair cannot be counted for later boots", "err", err)
			}
			return nil
		}},
		{Name: "check-main", Say: "Repairing disk", Run: func(ctx context.Context) error { return u.check(ctx, f.MainPart.Path, fault.MainDamaged) }},
	}), u.observer(record.JobRepair))
	if err != nil {
		u.failed(record.JobRepair, err)
	} else {
		u.succeeded(record.JobRepair)
	}
	return Outcome{Kind: DecideAgain}
}

// repairRecovery checks and repairs the filesystem of the recovery volume. What it counts it counts afterwards: before, each write
// may make things worse. A repair that crashes counts for this boot alone, and so does one that does not help: there is nothing to
// count on. What a person chose is asked for anew.
func (u *unit) repairRecovery(ctx context.Context, f *survey.Findings) Outcome {
	u.memory.RecoveryRepairs++
	u.wanted = f.Choice.Kind != decide.NoChoice && f.Choice.Kind != decide.ChooseResume
	rec, known := f.Unit, f.Recovery == decide.RecoveryFound
	u.began(record.JobRepair)
	err := step.Run(ctx, u.m.Site.Weave("repair-recovery", []step.Step{
		{Name: "check-recovery", Say: "Repairing recovery", Run: func(ctx context.Context) error {
			return u.check(ctx, f.RecoveryPart.Path, fault.RecoveryDamaged)
		}},
		{Name: "count-repair", Say: "Counting", Run: func(context.Context) error {
			if !known {
				var err error
				if rec, err = u.adopt(*f.RecoveryPart); err != nil {
					return err
				}
			}
			if err := u.count(rec, state.Counts.RecoveryRepaired); err != nil {
				u.log.Warn("repair cannot be counted for later boots", "err", err)
			}
			return nil
		}},
	}), u.observer(record.JobRepair))
	if err != nil {
		u.failed(record.JobRepair, err)
	} else {
		u.succeeded(record.JobRepair)
	}
	return Outcome{Kind: DecideAgain}
}

// countFor changes the counts on the recovery volume of f: one small write. Without a recovery volume there is nothing to count on.
func (u *unit) countFor(f *survey.Findings, change func(state.Counts) state.Counts) error {
	if f.Recovery != decide.RecoveryFound {
		u.log.Warn("no recovery volume to count on")
		return nil
	}
	return u.count(f.Unit, change)
}

// count changes the counts on the recovery volume, whose record is rec.
func (u *unit) count(rec state.Unit, change func(state.Counts) state.Counts) error {
	return u.volume.Change(func(v *state.Volume) error {
		c, err := v.ReadCounts()
		if errors.Is(err, state.ErrNewer) { // never rewritten
			return err
		}
		if err != nil {
			u.log.Warn("counts cannot be read, beginning at zero", "err", err)
			c = state.Counts{}
		}
		u.makeRoom(v)
		err = v.WriteCounts(change(c))
		if rec.Server != "" {
			err = errors.Join(err, u.queue.Persist(v.Path(state.QueueDir)), u.queue.Release())
		}
		return err
	})
}

// enough is the room on the recovery volume that a job needs for what it notes there, in bytes.
const enough = 1 << 20

// makeRoom removes old logs from a full recovery volume, which is mounted writable. A volume that stays full stops nothing.
func (u *unit) makeRoom(v *state.Volume) {
	removed, err := v.MakeRoom(enough)
	if err != nil {
		u.log.Warn("the recovery volume may be full", "err", err)
	}
	if len(removed) > 0 {
		u.log.Warn("the recovery volume was full", "removed", removed)
	}
}

// countBoot counts the attempt: one block that is written to its place on the recovery device, which is not mounted for that. Where
// that cannot be, the counts are written as any file.
func (u *unit) countBoot(f *survey.Findings) (attempts int, err error) {
	change := func(c state.Counts) state.Counts {
		u.display.fresh = splash.Fresh(f.Mark, c)
		c = c.Attempted(u.dog.fact.Expired)
		attempts = c.BootAttempts
		return c
	}
	if f.Recovery != decide.RecoveryFound {
		u.log.Warn("no recovery volume to count on")
		return 0, nil
	}
	err = f.BadCounts
	if err == nil {
		var b []byte
		if b, err = change(f.Counts).Marshal(); err != nil {
			return 0, err
		}
		if err = u.m.WriteBlock(f.RecoveryPart.Path, b, f.CountsPlace); err == nil {
			return attempts, nil
		}
	}
	u.log.Info("counts are written as a file", "why", err)
	return attempts, u.count(f.Unit, change)
}

// boot counts the attempt and hands over to the installed system.
func (u *unit) boot(ctx context.Context, d decide.Decision, f *survey.Findings) Outcome {
	u.noteRemoved(f)
	u.setRequestAside(f)
	told := u.tellDefects(ctx, defects(f))
	u.began(record.JobBoot)
	b := state.Boot{Defects: told, ID: u.m.BootID, Job: string(d.Job), Reason: d.Reason, Build: u.m.Build.Number, ServerCA: u.m.Policy.ServerCA}
	err := step.Run(ctx, u.m.Site.Weave("boot", blaming(fault.SwitchRoot, []step.Step{
		{Name: "watch-boot", Say: "Starting", Run: func(context.Context) error {
			if err := u.dog.watchBoot(u.m.Policy.Watchdog()); err != nil {
				u.log.Warn("watchdog does not wait as long as it should", "err", err)
			}
			return nil
		}},
		{Name: "count-boot", Say: "Starting", Run: func(context.Context) error {
			var err error
			if b.Attempts, err = u.countBoot(f); err != nil {
				u.log.Warn("boot attempt cannot be counted", "err", err)
			}
			return nil
		}},
		{Name: "check-boot", Say: "Starting", Run: func(context.Context) error { u.mend(f); return nil }},
		{Name: "mount-main", Say: "Starting", Run: func(context.Context) error {
			return u.m.Mount(f.MainPart.Path, u.m.Places.Main, "ext4", host.MountOptions{ReadOnly: true})
		}},
		{Name: "tell-system", Say: "Starting", Run: func(context.Context) error { return u.tellSystem(b) }},
	})), u.observer(record.JobBoot))
	if err != nil {
		if err := u.dog.resume(); err != nil {
			u.log.Warn("watchdog does not wait as long as it should", "err", err)
		}
		u.failed(record.JobBoot, err)
		return Outcome{Kind: HoldOn, Err: err}
	}
	u.log.Info("handing over", "elapsed", time.Since(u.start).Round(time.Millisecond).String(), "release", f.Mark.Release, "attempts", b.Attempts, journal.ForPerson())
	return Outcome{Kind: SwitchRoot, Root: u.m.Places.Main}
}

// blaming returns the steps with failures of the kind f, so that whoever watches them is told of the same one as whoever ran them.
func blaming(f *fault.Fault, steps []step.Step) []step.Step {
	for i, s := range steps {
		steps[i].Run = func(ctx context.Context) error {
			if err := s.Run(ctx); err != nil {
				return fault.Because(f, err)
			}
			return nil
		}
	}
	return steps
}

// tellSystem leaves for the running system what it is to know of this boot, and what the server is to hear, in memory.
func (u *unit) tellSystem(b state.Boot) error {
	rules, err := u.m.Policy.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(u.m.Places.InRun(state.BootFile)), 0o755); err != nil {
		return err
	}
	if err := errors.Join(u.queue.Persist(u.m.Places.InRun(state.RunQueue)), u.queue.Release()); err != nil {
		u.log.Warn("the running system does not get the unsent records", "err", err)
	}
	taken, err := u.systemTakesOver()
	if err != nil {
		return err
	}
	b.Watchdog, err = u.dog.handOver(taken)
	if err != nil {
		u.log.Warn("watchdog cannot be handed over", "err", err)
	}
	if dog := b.Watchdog; dog.Device != "" {
		u.log.Info("watchdog handed over", "running", dog.Running, "seconds", dog.Seconds)
	}
	b.HandOver, b.Milliseconds = time.Now().UTC(), time.Since(u.start).Milliseconds()
	text, err := b.Marshal()
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(u.m.Places.InRun(state.PolicyFile), rules, 0o600), os.WriteFile(u.m.Places.InRun(state.BootFile), text, 0o600))
}

// attachVolume begins to keep logs and unsent records on the mounted recovery volume.
func (u *unit) attachVolume(dir, prefix string) error {
	v := state.Open(dir)
	sink, err := journal.File(v.Path(state.LogDir), journal.FileOptions{Prefix: prefix})
	if err == nil {
		if err = u.journal.Attach("file", sink); err != nil {
			if c, ok := sink.(io.Closer); ok { // an open file would keep the volume busy
				err = errors.Join(err, c.Close())
			}
		}
	}
	return errors.Join(err, u.queue.Persist(v.Path(state.QueueDir)))
}
