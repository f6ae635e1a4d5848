package pid1

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/hw/raid"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/decide"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
)

// setUp brings the machine to the point where it can be surveyed: the artifact is read, drivers are loaded, the platform is known.
func (u *unit) setUp(ctx context.Context, version string) error {
	modules := sync.OnceValues(func() (*host.Modules, error) { return u.kernel.Modules(u.m.Initramfs) })
	u.background("read modules", func() { _, _ = modules() })
	mountErr := u.kernel.Prepare()
	u.background("start the process that asks USB hubs", func() { u.kernel.Hubs() })
	for _, dir := range []string{u.m.Places.Recovery, u.m.Places.Main} {
		mountErr = errors.Join(mountErr, os.MkdirAll(dir, 0o700))
	}
	artifactErr := u.readArtifact()
	cmdline, cmdlineErr := fs.ReadFile(u.kernel.Proc, "cmdline")
	u.m.Cmdline = decide.WithoutSecrets(string(cmdline))
	u.args = decide.ParseArgs(string(cmdline), u.m.Policy.Locked)
	u.attachConsoles()
	if err := errors.Join(mountErr, artifactErr, cmdlineErr); err != nil {
		return err
	}
	if err := u.kernel.QuietKernel(); err != nil {
		u.log.Debug("kernel messages stay on the console", "err", err)
	}
	if efi.Present(u.m.Sys) {
		u.m.Firmware = layout.UEFI
	}
	u.correctClock()
	identified := make(chan error, 1)
	var who identity
	go func() { // it needs no driver
		identified <- u.guard("identify", func() (err error) { who, err = u.identify(); return err })
	}()
	if err := u.loadModules(ctx, modules); err != nil {
		return err
	}
	u.args.Erase = eraseChosen(u.args, u.m)
	u.attachEventPort()
	u.armWatchdog(ctx)
	u.log.Info("init", "version", version, "build", u.m.Build.Number, "kernel", u.m.Build.Kernel, "firmware", string(u.m.Firmware),
		"boot", u.m.BootID, "cmdline", u.m.Cmdline, "uptime", u.uptime())
	err := <-identified
	if fault.Of(err) == fault.PlatformUnknown && who.table != nil && !u.provisions() {
		err = u.identifyByRecord(ctx, who.table, who.dmi, err)
	}
	u.loadRAID()
	u.attachDisplay()
	return err
}

// readArtifact reads what the boot artifact carries: its build, its policy, the names of the product, and the keys that it trusts.
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

// clockYears is for how many years after its build an artifact believes the clock of a machine.
const clockYears = 10

// plausible reports whether a clock may be right, for an artifact that was built at a time: it is not before that, and not long after.
// With a clock from far away every certificate looks expired, and nothing could be set right over the network.
func plausible(clock, build time.Time) bool {
	return !clock.Before(build) && !clock.After(build.AddDate(clockYears, 0, 0))
}

// correctClock sets a clock that cannot be right to the time at which the artifact was built.
func (u *unit) correctClock() {
	now := time.Now()
	if plausible(now, u.m.Build.Time) {
		return
	}
	u.log.Warn("the clock cannot be right, setting it to the artifact's build time", "clock", now, "build", u.m.Build.Time)
	if err := u.m.Board.SetClock(u.m.Build.Time); err != nil {
		u.log.Warn("clock cannot be set", "err", err)
	}
}

// uptime is how long the kernel runs, in seconds, as text. It is empty if the kernel does not say.
func (u *unit) uptime() string {
	b, err := fs.ReadFile(u.kernel.Proc, "uptime")
	if err != nil {
		return ""
	}
	s, _, _ := strings.Cut(string(b), " ")
	return s
}

// attachEventPort sends the log out of a virtual machine that has a port for it.
func (u *unit) attachEventPort() {
	path, ok := journal.FindPort(u.m.Sys, journal.PortName)
	if !ok {
		return
	}
	port, err := u.kernel.EventPort(path)
	if err == nil {
		err = u.journal.Attach("events", journal.EventPort(port))
	}
	if err != nil {
		u.log.Warn("event port cannot be used", "port", path, "err", err)
	}
}

// Where the modules of a kernel are that drive network ports and watchdogs.
const (
	networkDrivers  = "kernel/drivers/net/"
	watchdogDrivers = "kernel/drivers/watchdog/"
)

// loadModules listens for devices, loads the drivers of those that are there, and goes on loading for those that appear.
func (u *unit) loadModules(ctx context.Context, modules func() (*host.Modules, error)) error {
	events, err := u.kernel.Devices(ctx)
	if err != nil {
		return err
	}
	if u.modules, err = modules(); err != nil {
		return err
	}
	u.modules.Withhold(networkDrivers, watchdogDrivers) // a normal boot leaves the network to the system
	forward := make(chan host.Uevent, 1024)
	u.background("load drivers", func() { u.modules.Follow(ctx, u.log, u.m.Sys, forward) })
	u.background("watch devices", func() { u.forwardEvents(events, forward) })
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
		if err := u.kernel.MountVars(u.modules); err != nil {
			u.log.Warn("EFI variables cannot be mounted", "err", err)
		}
	}
	// The system takes the first watchdog. What that did before the boot is known only of the one that was armed. So it must be the same
	// one in each boot.
	if err := u.modules.LoadInOrder(u.m.Sys, watchdogDrivers); err != nil {
		u.log.Debug("driver of a watchdog not loaded", "err", err)
	}
	u.log.Debug("modules loaded", "count", n, "elapsed", time.Since(began).Round(time.Millisecond).String())
	return nil
}

// forwardEvents passes the kernel's events on to whoever loads drivers, and notes that disks or other
// parts changed. While drivers load slowly, events
// may have to be dropped. Then one that says so follows as soon as there is room.
func (u *unit) forwardEvents(events <-chan host.Uevent, forward chan<- host.Uevent) {
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
		u.display.hint(e)
		if e.Subsystem == "block" || e.Action == host.Missed {
			u.changed.note()
		}
		if slices.Contains([]string{"net", "pci", "usb"}, e.Subsystem) || e.Action == host.Missed {
			u.changed.parts.note()
		}
	}
}

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
			u.log.Warn("drivers of the array cannot be loaded", "raidLevel", v.SwRaidlevel, "err", err)
		}
	}
}
