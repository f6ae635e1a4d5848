// Package job is what the jobs of a unit have in common: what one gets (Env), and what it returns (Outcome).
//
// Each job is a folder of its own below this one. None knows another, and none acts on its outcome: unit/pid1 does.
package job

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// Kind is what is to happen after a job.
type Kind string

// The kinds of outcome.
const (
	RebootNow   Kind = "reboot"
	PowerOffNow Kind = "power-off"
	SwitchRoot  Kind = "switch-root"
	DecideAgain Kind = "decide-again"
	HoldOn      Kind = "hold"
)

// Outcome is how a job ended.
type Outcome struct {
	Kind Kind
	// Root is the mounted root of the installed system, for SwitchRoot.
	Root string
	// Err is why the unit holds, for HoldOn.
	Err error
	// Menu reports whether the menu is shown to the person before anything else is decided.
	Menu bool
	// Answered is the identifier of an image on a medium that is left alone until the medium is taken out. It is empty if there is none.
	Answered string
	// Why says why Answered is left alone.
	Why string
	// BackFailed reports whether going back to another image did not work.
	BackFailed bool
	// Key is the unit's key that was found and is to be used from now on. It is nil if none was found.
	Key ed25519.PrivateKey
	// Checks is how many hardware checks were begun.
	Checks int
}

// ReadingTime is how long a message that a person shall read stays before the unit goes on.
const ReadingTime = 8 * time.Second

// Hold is the outcome of a unit that holds because of err.
func Hold(err error) Outcome { return Outcome{Kind: HoldOn, Err: err} }

// Env is what a job gets beside what was found: the machine, the recovery volume, and who is told where the job stands. The steps of a
// company get of it what site.Unit has.
type Env struct {
	Machine *machine.Machine
	// Volume is the recovery volume, also a damaged one. It is nil if none was found.
	Volume *volume.Handle
	// Queue holds what the server is to hear.
	Queue *report.Queue
	// Journal is the log of this boot.
	Journal *journal.Journal
	// Survey looks at the unit. It has the kernel arguments and the names of the boot artifact.
	Survey *survey.Survey
	// Key is the unit's key if the job makes a unit, or a recovery volume, anew.
	Key ed25519.PrivateKey
	// Checks is how many hardware checks this boot has made.
	Checks int
	// Boot is the boot that the job is in.
	Boot Boot
	// Watchdog is the hardware watchdog of init.
	Watchdog Watchdog
	// Await waits until a disk, a network port or a device on PCI or USB comes or goes, a person presses a key, or the time is over.
	Await func(ctx context.Context, most time.Duration) error
	// Print writes text to a console that takes keys. An empty name means all of them.
	Print func(console, text string)
	// Background runs do beside everything else, also after the job, until the context of the job ends. A panic in do ends do alone.
	Background func(what string, do func())
}

// Boot is what a job knows of the boot that it is in.
type Boot struct {
	// Start is when init started.
	Start time.Time
	// Reason is why this job was chosen, in words.
	Reason string
}

// Watchdog is the hardware watchdog of init, for the jobs that hand the machine over to its system or put it to sleep. On a machine without
// one nothing is done with it.
type Watchdog interface {
	// WatchBoot stops petting: from now on the unit has the given time to start its system.
	WatchBoot(time.Duration) error
	// Resume goes back to petting after a boot that did not come to its hand-over.
	Resume() error
	// Unfreeze suspends the machine for some seconds with the watchdog stopped, so that the security commands of its drives work
	// (drive.Machine.Unfreeze). A machine whose watchdog cannot be stopped stays awake.
	Unfreeze() error
	// Told returns what the running system is told of a watchdog that is handed over.
	Told(taken bool) state.Watchdog
	// HandOver gives the watchdog to the running system: it runs on if that takes it over, and is stopped otherwise.
	HandOver(taken bool) error
}

// Run runs the steps of a job, those of the Site for the job with this name woven in, and tells panels, log and server of each.
func (e Env) Run(ctx context.Context, j record.Job, name string, steps []step.Step) error {
	m := e.Machine
	u := site.Unit{Log: m.Log, Message: m.Panel.Message, Serial: m.Serial, Platform: m.Identity.Variant, Firmware: m.Firmware,
		Policy: m.Policy, Names: m.Site.Names, Recovery: m.Places.Recovery, Main: m.Places.Main, Run: m.Run}
	return step.Run(ctx, m.Site.Weave(name, u, steps), e.Observer(j))
}

// Began tells panels, log and server that a job begins.
func (e Env) Began(j record.Job) {
	e.Machine.Panel.Show(panel.View{Job: string(j)})
	e.logState(slog.LevelInfo, "state", j, record.Started)
}

// Ended tells log and server how a job ended: well if err is nil, else with that error. Whoever acts on the outcome shows it on the panels.
func (e Env) Ended(j record.Job, err error) {
	if err == nil {
		e.logState(slog.LevelInfo, "state", j, record.Succeeded)
		return
	}
	f := kindOf(err)
	text := f.Text
	if d := fault.Detail(err); d != "" {
		text += ": " + d
	}
	e.logState(slog.LevelInfo, "state", j, record.Failed, "code", f.Code, "text", text, "hint", f.Hint)
}

// ShowFailure logs a failure and shows it on the panels. It is for a failure after which the unit does not hold. Process 1 shows why a unit
// holds.
func (e Env) ShowFailure(msg string, err error, more ...any) {
	about := []any{journal.ForPerson(), "code", kindOf(err).Code, "err", fault.Detail(err)}
	e.Machine.Log.Warn(msg, append(about, more...)...)
	e.Machine.Panel.Fail(err)
}

// kindOf returns the kind of a failure.
func kindOf(err error) *fault.Fault {
	if f := fault.Of(err); f != nil {
		return f
	}
	return fault.Internal
}

// logState logs where a job stands. The server gets it as a state.
func (e Env) logState(level slog.Level, msg string, j record.Job, p record.Phase, more ...any) {
	about := []any{journal.Kind(record.KindState), journal.Job(string(j)), "state", string(p)}
	e.Machine.Log.Log(context.Background(), level, msg, append(about, more...)...)
}

// Observer returns what tells panels, log and server of each step of a job. The error of a step that failed is told by whoever gets it.
func (e Env) Observer(j record.Job) func(step.Event) {
	show := e.Machine.Panel.Observe(string(j))
	last := -1
	return func(ev step.Event) {
		show(ev)
		log, of, at := e.Machine.Log, journal.Job(string(j)), journal.Step(ev.Step.Name)
		elapsed := ev.Elapsed.Round(time.Millisecond).String()
		switch ev.State {
		case step.Started:
			last = -1
			e.logState(slog.LevelInfo, "step", j, record.Step, at, "index", ev.Index+1, "total", ev.Total)
		case step.Moved:
			// When the percentage changes: the panels see more of it.
			percent := panel.Progress{Done: ev.Progress.Done, Total: ev.Progress.Total}.Percent()
			if percent == last || percent < 0 {
				return
			}
			last = percent
			e.logState(slog.LevelDebug, "progress", j, record.Step, at, "percent", percent, "done", ev.Progress.Done, "total", ev.Progress.Total,
				journal.Passing())
		case step.Done:
			log.Info("step done", of, at, "elapsed", elapsed)
		case step.Failed:
			log.Error("step failed", of, at, "elapsed", elapsed)
			var p *step.PanicError
			if errors.As(ev.Err, &p) {
				log.Error("panic", "stack", string(p.Stack))
			}
		}
	}
}

// Count changes the counts on the recovery volume, whose record is rec, and keeps there what the server is to hear if the unit has one.
func (e Env) Count(rec state.Unit, change func(state.Counts) state.Counts) error {
	return e.Volume.Change(func(v *state.Volume) error {
		c, err := v.ReadCounts()
		if errors.Is(err, state.ErrNewer) { // never rewritten
			return err
		}
		if err != nil {
			e.Machine.Log.Warn("counts cannot be read, beginning at zero", "err", err)
			c = state.Counts{}
		}
		e.MakeRoom(v)
		err = v.WriteCounts(change(c))
		if rec.Server != "" {
			err = errors.Join(err, e.Queue.Persist(v.Path(state.QueueDir)), e.Queue.Release())
		}
		return err
	})
}

// enough is the room on the recovery volume that a job needs for what it notes there, in bytes.
const enough = 1 << 20

// MakeRoom removes old logs from a full recovery volume, which is mounted writable. A volume that stays full stops nothing.
func (e Env) MakeRoom(v *state.Volume) {
	removed, err := v.MakeRoom(enough)
	if err != nil {
		e.Machine.Log.Warn("the recovery volume may be full", "err", err)
	}
	if len(removed) > 0 {
		e.Machine.Log.Warn("the recovery volume was full", "removed", removed)
	}
}

// RequestIgnored is what the log says of a damaged request.
const RequestIgnored = "the request on the recovery volume is damaged: it is ignored"

// SetRequestAside keeps a damaged request from being found again at the next boot. bad is why the request cannot be used. It is nil if
// there is no such request. It can only lie on a volume that was found.
func (e Env) SetRequestAside(bad error, found decide.RecoveryState) {
	if bad == nil || found != decide.RecoveryFound {
		return
	}
	if err := e.Volume.Change((*state.Volume).SetRequestAside); err != nil {
		e.Machine.Log.Warn("the damaged request cannot be set aside", "err", err)
	}
}
