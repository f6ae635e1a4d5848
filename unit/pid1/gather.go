package pid1

import (
	"context"
	"time"

	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/hw/usb"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// surveyor looks at the unit as this pass knows it.
func (u *unit) surveyor() *survey.Survey {
	return &survey.Survey{Eyes: machine.EyesOf(u.m), Args: u.args, Names: u.names, SiteLabel: u.siteLabel, Memory: u.memory}
}

// provisions reports whether this boot provisions the unit, whatever is found.
func (u *unit) provisions() bool { return u.surveyor().Provisions() }

// gather surveys the unit and waits for what is missing: for a main disk that does not answer as long as the policy says, and for a
// recovery volume beside a complete system not so long.
func (u *unit) gather(ctx context.Context) (*survey.Findings, error) {
	for {
		ports := u.usbState() // before the look: what comes during it was on its way here, and is looked for once more
		f := u.look(ctx)
		left, more := u.wait.ShouldLookAgain(u.surveyor(), f, ports, time.Since(u.memory.Since))
		if !more || u.person.Wanted {
			u.warnOfSilentPorts()
			return f, nil
		}
		u.log.Debug("waiting for devices", "recovery", string(f.Recovery), "main", string(f.Main), "left", left.Round(time.Second).String())
		if err := u.await(ctx, left, ports, nil); err != nil {
			return nil, err
		}
	}
}

// look surveys the unit once, after it has replayed the journals that a survey needs replayed.
func (u *unit) look(ctx context.Context) *survey.Findings {
	for {
		f := u.surveyor().Look(ctx)
		if len(f.Replay) == 0 {
			u.adopt(f)
			return f
		}
		for _, part := range f.Replay {
			u.replay(ctx, part)
		}
	}
}

// adopt makes what was found the recovery volume and the names of this pass.
func (u *unit) adopt(f *survey.Findings) {
	u.m.Site.Names = f.Names
	u.m.Serial = machine.EyesOf(u.m).Board()
	if f.Recovery == decide.RecoveryFound && !u.provisions() {
		u.m.Serial = f.Unit.Serial // a unit keeps its own where another mainboard was adopted
	}
	u.volume = nil
	if f.RecoveryPart != nil {
		u.volume = volume.At(u.m, f.RecoveryPart.Path)
	}
	for id := range u.memory.Answered {
		if !f.HasFile(id) {
			delete(u.memory.Answered, id) // when it comes back it is a new wish
		}
	}
}

// replay has the kernel replay the journal of an ext4 filesystem that was not unmounted. What was synced may be in the journal alone, the
// end of a mark too. Each mount replays it, a read-only one as well.
func (u *unit) replay(ctx context.Context, part string) {
	err := step.Run(ctx, []step.Step{{Name: "replay-journal", Run: func(context.Context) error {
		dir := u.m.Places.Main
		if err := u.m.Mount(part, dir, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true}); err != nil {
			return err
		}
		return u.m.Unmount(dir)
	}}}, nil)
	if u.memory.Replayed == nil {
		u.memory.Replayed = map[string]error{}
	}
	u.memory.Replayed[part] = err
	u.log.Info("journal replayed", "partition", part, "err", err)
}

// await waits until a disk came or went, USB ports say something else than before, another part did, a person pressed a key, or the time
// is over. A nil parts is for who waits for disks alone.
func (u *unit) await(ctx context.Context, left time.Duration, before usb.State, parts changes) error {
	t := time.NewTimer(left)
	defer t.Stop()
	ports, stop := u.watchPorts(ctx, before)
	defer stop()
	select {
	case <-u.changed.changes:
	case <-parts:
	case <-ports:
	case <-t.C:
	case <-u.m.Panel.Pressed():
		u.person.Wanted = true
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// changes gets a value when a block device came or went. It holds one: several changes that nobody has looked at are one.
type changes chan struct{}

// arrivals are the changes of block devices, and those of other parts that a hardware check counts.
type arrivals struct {
	changes
	// parts gets a value when a network port, or a device on PCI or USB, came or went.
	parts changes
}

func newArrivals() arrivals { return arrivals{make(changes, 1), make(changes, 1)} }

// note notes a change.
func (c changes) note() {
	select {
	case c <- struct{}{}:
	default:
	}
}

// forget forgets the changes before now.
func (c changes) forget() {
	select {
	case <-c:
	default:
	}
}

// awaitQuiet waits until no device has come or gone for a second. So one event of a new disk does not start a decision while its
// partitions are still appearing. A device that comes and goes all the time does not hold it up for ever.
func (c changes) awaitQuiet() {
	end := time.NewTimer(15 * time.Second)
	defer end.Stop()
	for {
		t := time.NewTimer(time.Second)
		select {
		case <-c:
			t.Stop()
		case <-t.C:
			return
		case <-end.C:
			t.Stop()
			return
		}
	}
}

// forcedRestoreChosen reports whether a person chose Forced Factory Restore in a boot menu and the policy knows such a choice. A locked
// artifact takes no kernel argument, and Secure Boot passes none on: then the firmware's own note counts, of the entry that it started.
func (u *unit) forcedRestoreChosen() bool {
	switch {
	case u.m.Policy.ForcedRestore == policy.ForcedRestoreNever:
		return false
	case u.args.Forced:
		return true
	case u.m.Firmware != layout.UEFI:
		return false
	}
	return startedAs(u.m.Vars, machine.ForcedEntry)
}

// eraseChosen reports whether DATA_ERASE is on the kernel command line, or an erase was chosen in a boot menu where the policy has that
// entry.
func eraseChosen(a decide.Args, m *machine.Machine) bool {
	return a.Erase || m.Firmware == layout.UEFI && machine.EraseArg(m) != "" && startedAs(m.Vars, machine.EraseEntry)
}

// startedAs reports whether the firmware started its entry with a description.
func startedAs(vars *efi.Vars, entry string) bool {
	started, err := vars.Started()
	return err == nil && started == entry
}
