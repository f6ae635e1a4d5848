// Package pid1 is one boot of a unit: setup, and then again and again a survey, a decision, one job and its outcome. It is the only
// place that may reboot.
//
// This file is the whole of it from top to bottom. What it calls is in files of its own: setup.go, gather.go for the survey and its
// waits, outcome.go for the end of a pass. All that only process 1 does to the kernel goes through doors.go.
//
// Process 1 never ends: a panic is the failure of whatever ran, and an error that nothing else catches ends in a message that
// stays on the screen. A job returns an Outcome. Only finish acts on it, after logs are flushed and volumes unmounted.
package pid1

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"gprovision/hw/bmc"
	"gprovision/hw/host"
	"gprovision/hw/usb"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/erase"
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

// bootGC is how many percent the heap grows, from 4 MiB, until garbage is collected, before a job is chosen. On the way to a normal
// boot init needs about 20 MiB, and each collection would stop it.
const bootGC = 800

// unit is init while it runs.
type unit struct {
	start   time.Time
	kernel  doors
	journal *journal.Journal
	log     *slog.Logger
	queue   *report.Queue
	m       *machine.Machine
	args    decide.Args
	modules *host.Modules
	// names are those of the boot artifact, or of the Site where it has none.
	names site.Names
	// siteLabel is the label of recovery volumes that the artifact's names have replaced. It is empty if there is none.
	siteLabel string
	changed   arrivals
	// key is the key of the unit that this boot may make, or the one that a provisioning has found.
	key ed25519.PrivateKey
	// memory is what this boot remembers of its earlier passes for a survey.
	memory survey.Memory
	// wait is how this boot waits for what its surveys lack.
	wait survey.Wait
	// volume is the recovery volume that the last survey found, also a damaged one. It is nil if there is none.
	volume *volume.Handle
	// checks counts the hardware checks of this boot.
	checks int
	dog    guardian
	holds  holds
	// endJob ends what the last job goes on with in the background.
	endJob    context.CancelFunc
	person    person.Person
	terminals terminals
	display   display
	media     media
}

// Run is process 1. It never returns.
func Run(s site.Site, version string) {
	splash.Main(os.Args)
	portsMain(os.Args)
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this program is process 1 of a unit and does nothing else")
		os.Exit(2)
	}
	debug.SetGCPercent(bootGC)
	realUnit(s).boot(context.Background(), version)
}

// realUnit is init of the machine that this process runs on.
func realUnit(s site.Site) *unit {
	j := journal.New(journal.Options{})
	log, sys := j.Logger(), os.DirFS("/sys")
	var u *unit
	m := &machine.Machine{Log: log, Sys: sys, Site: s, Panel: panel.New(), Initramfs: "/", BootID: uuid.NewString(), Firmware: layout.BIOS}
	m.Doors = machine.Real(log, sys, func(fstype string) error { return u.modules.Filesystem(fstype) })
	m.Board.BMC = func(ctx context.Context, expected bool) (*bmc.Controller, error) {
		return machine.FindBMC(ctx, sys, expected, func(names ...string) error { return u.modules.Load(names...) })
	}
	u = newUnit(m, realDoors(log, sys), j)
	return u
}

// newUnit is init of a machine, which logs to j.
func newUnit(m *machine.Machine, kernel doors, j *journal.Journal) *unit {
	u := &unit{start: time.Now(), kernel: kernel, journal: j, log: j.Logger(), queue: report.NewQueue(m.BootID), m: m, key: state.NewKey(),
		changed: newArrivals(), endJob: func() {}}
	u.person.Machine = m
	u.dog.kernel, u.dog.log = &u.kernel, u.log
	job.Feed(u.queue, j)
	return u
}

// boot is all that process 1 does: it sets the machine up once, and then makes one pass after the other. On a unit ctx never ends, and
// boot never returns.
func (u *unit) boot(ctx context.Context, version string) {
	if err := u.guard("setup", func() error { return u.setUp(ctx, version) }); err != nil {
		_ = u.guard("setup", func() error { u.env().Ended("", err); return nil })
		u.holdUntilChosen(ctx, err)
	}
	u.memory.Since = time.Now() // however long the drivers took, their devices have all the time that they are given
	for ctx.Err() == nil {
		u.finish(ctx, u.pass(ctx))
	}
}

// pass surveys the unit, lets a person choose, decides, and does one job.
func (u *unit) pass(ctx context.Context) job.Outcome {
	var out job.Outcome
	err := u.guard("pass", func() error {
		found, err := u.gatherWithPerson(ctx)
		if err != nil {
			return err
		}
		u.showUnusableMedia(ctx, found)
		d := decide.Decide(found.Facts, u.m.Policy)
		for _, n := range found.Notes {
			u.log.Info("note", "text", n)
		}
		u.log.Info("decision", "job", string(d.Job), "reason", d.Reason, "recovery", string(found.Recovery), "main", string(found.Main),
			"attempts", found.Attempts, "elapsed", time.Since(u.start).Round(time.Millisecond).String())
		out = u.runJob(ctx, d, found)
		return nil
	})
	if err != nil {
		return job.Hold(err)
	}
	return out
}

// gatherWithPerson surveys the unit and adds what a person chose, in the menu or in the boot menu.
func (u *unit) gatherWithPerson(ctx context.Context) (*survey.Findings, error) {
	u.memory.Choice = decide.Choice{} // the choice of the pass before is done with
	u.person.BeginGrace(u.provisions())
	found, err := u.gather(ctx)
	if err != nil {
		return nil, err
	}
	choice, shown, err := u.person.AwaitMenu(ctx, found, u.volume, u.provisions())
	if err != nil {
		return nil, err
	}
	if shown { // the machine may have changed meanwhile
		u.memory.Choice = choice
		if found, err = u.gather(ctx); err != nil {
			return nil, err
		}
	}
	choice, taken := u.person.Erase(ctx, found)
	if !taken && !found.EraseUnanswered() && !u.provisions() && u.forcedRestoreChosen() {
		choice, taken = u.person.Forced(ctx, found)
	}
	if taken {
		with := *found
		with.Choice, found = choice, &with
	}
	return found, nil
}

// runJob runs a job and remembers its outcome. That it began is remembered before: a job that ends in a panic counts too.
func (u *unit) runJob(ctx context.Context, d decide.Decision, f *survey.Findings) job.Outcome {
	u.rememberBegin(d, f)
	u.endJob()
	beside, end := context.WithCancel(ctx)
	u.endJob = end
	out := u.callJob(beside, d, f)
	u.rememberOutcome(ctx, out)
	return out
}

// rememberBegin remembers that a job begins.
func (u *unit) rememberBegin(d decide.Decision, f *survey.Findings) {
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
}

// rememberOutcome remembers what the outcome of a job says to later passes of this boot.
func (u *unit) rememberOutcome(ctx context.Context, out job.Outcome) {
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
		u.releaseVolumes(ctx)
	}
}

// callJob calls the job of a decision. A decision for none is one to hold.
func (u *unit) callJob(ctx context.Context, d decide.Decision, f *survey.Findings) job.Outcome {
	if d.Job != decide.Boot && d.Job != decide.PowerOff {
		debug.SetGCPercent(100)
		u.loadPorts(ctx)
	}
	e := u.env()
	e.Boot.Reason = d.Reason
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
	case decide.AdoptBoard:
		return repair.Board(ctx, e, f)
	case decide.Boot:
		u.display.fresh = f.Recovery == decide.RecoveryFound && splash.Fresh(f.Mark, f.Counts)
		return handover.Run(ctx, e, f)
	case decide.PowerOff:
		return job.Outcome{Kind: job.PowerOffNow}
	case decide.Shell:
		return shell.Run(ctx, e, f)
	case decide.Rescue:
		return restore.FromMedium(ctx, e, f)
	case decide.Support:
		return support.Run(ctx, e, f)
	case decide.Rebuild:
		return rescue.Run(ctx, e, f)
	case decide.Erase:
		return erase.Run(ctx, e, f)
	}
	reason := errors.New(d.Reason)
	if len(f.Notes) > 0 {
		reason = fmt.Errorf("%s (%s)", d.Reason, strings.Join(f.Notes, "; "))
	}
	return job.Hold(&fault.Occurrence{Fault: d.Fault, Cause: reason})
}

// env is what a job of this pass gets.
func (u *unit) env() job.Env {
	return job.Env{Machine: u.m, Volume: u.volume, Queue: u.queue, Journal: u.journal, Survey: u.surveyor(), Key: u.key, Checks: u.checks,
		Boot: job.Boot{Start: u.start}, Watchdog: &u.dog,
		Await: func(ctx context.Context, left time.Duration) error {
			return u.await(ctx, left, usb.State{}, u.changed.parts)
		},
		Print: u.terminals.print, Background: u.background}
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
