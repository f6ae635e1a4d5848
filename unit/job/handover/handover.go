// Package handover starts the installed system: it counts the attempt, repairs what starts the unit, mounts the main system and leaves
// there what it is to know of this boot. The switch of the root itself is unit/pid1's.
package handover

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// boot is one hand-over.
type boot struct {
	env  job.Env
	f    *survey.Findings
	told state.Boot
	// taken reports whether the running system takes the watchdog over.
	taken bool
}

// Run hands over to the installed system, up to the switch of the root.
func Run(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	b := &boot{env: e, f: f, told: state.Boot{Defects: tellDefects(ctx, e, defects(f)), ID: e.Machine.BootID,
		Job: string(decide.Boot), Reason: e.Boot.Reason, Build: e.Machine.Build.Number, ServerCA: e.Machine.Policy.ServerCA}}
	e.Began(record.JobBoot)
	if err := e.Run(ctx, record.JobBoot, "boot", blaming(fault.SwitchRoot, b.steps())); err != nil {
		if err := e.Watchdog.Resume(); err != nil {
			e.Machine.Log.Warn("watchdog does not wait as long as it should", "err", err)
		}
		e.Ended(record.JobBoot, err)
		return job.Hold(err)
	}
	// The last thing: a unit that does not come to its system is still watched over.
	if err := e.Watchdog.HandOver(b.taken); err != nil {
		e.Machine.Log.Warn("watchdog cannot be handed over", "err", err)
	}
	if dog := b.told.Watchdog; dog.Device != "" {
		e.Machine.Log.Info("watchdog handed over", "running", dog.Running, "seconds", dog.Seconds)
	}
	e.Machine.Log.Info("handing over", "elapsed", time.Since(e.Boot.Start).Round(time.Millisecond).String(), "release", f.Mark.Release,
		"attempts", b.told.Attempts, journal.ForPerson())
	return job.Outcome{Kind: job.SwitchRoot, Root: e.Machine.Places.Main}
}

// steps returns the steps of a hand-over. Nothing writes before the watchdog waits for the boot alone: a device that hangs must not keep a
// unit for ever whose init still pets it.
func (b *boot) steps() []step.Step {
	return []step.Step{
		{Name: "watch-boot", Say: "Starting", Run: func(context.Context) error {
			if err := b.env.Watchdog.WatchBoot(b.env.Machine.Policy.Watchdog()); err != nil {
				b.env.Machine.Log.Warn("watchdog does not wait as long as it should", "err", err)
			}
			return nil
		}},
		{Name: "count-boot", Say: "Starting", Run: func(context.Context) error {
			b.noteRemoved()
			b.env.SetRequestAside(b.f.BadRequest, b.f.Recovery)
			if err := b.count(); err != nil {
				b.env.Machine.Log.Warn("boot attempt cannot be counted", "err", err)
			}
			return nil
		}},
		{Name: "check-boot", Say: "Starting", Run: func(context.Context) error { b.mend(); return nil }},
		{Name: "mount-main", Say: "Starting", Run: func(context.Context) error {
			return b.env.Machine.Mount(b.f.MainPart.Path, b.env.Machine.Places.Main, "ext4", host.MountOptions{ReadOnly: true})
		}},
		{Name: "tell-system", Say: "Starting", Run: func(context.Context) error { return b.tellSystem() }},
	}
}

// count counts the attempt: one block that is written to its place on the recovery device, which is not mounted for that. Where that cannot
// be, the counts are written as any file.
func (b *boot) count() error {
	if b.f.Recovery != decide.RecoveryFound {
		b.env.Machine.Log.Warn("no recovery volume to count on")
		return nil
	}
	change := func(c state.Counts) state.Counts {
		c = c.Attempted(b.env.Survey.Memory.Expired)
		b.told.Attempts = c.BootAttempts
		return c
	}
	why := b.f.BadCounts
	if why == nil {
		block, err := change(b.f.Counts).Marshal()
		if err != nil {
			return err
		}
		if why = b.env.Machine.WriteBlock(b.f.RecoveryPart.Path, block, b.f.CountsPlace); why == nil {
			return nil
		}
	}
	b.env.Machine.Log.Info("counts are written as a file", "why", why)
	return b.env.Count(b.f.Unit, change)
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
func (b *boot) tellSystem() error {
	rules, err := b.env.Machine.Policy.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.env.Machine.Places.InRun(state.BootFile)), 0o755); err != nil {
		return err
	}
	if err := errors.Join(b.env.Queue.Persist(b.env.Machine.Places.InRun(state.RunQueue)), b.env.Queue.Release()); err != nil {
		b.env.Machine.Log.Warn("the running system does not get the unsent records", "err", err)
	}
	if b.taken, err = b.systemTakesOver(); err != nil {
		return err
	}
	b.told.Watchdog = b.env.Watchdog.Told(b.taken)
	b.told.HandOver, b.told.Milliseconds = time.Now().UTC(), time.Since(b.env.Boot.Start).Milliseconds()
	text, err := b.told.Marshal()
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(b.env.Machine.Places.InRun(state.PolicyFile), rules, 0o600),
		os.WriteFile(b.env.Machine.Places.InRun(state.BootFile), text, 0o600))
}

// noteRemoved notes that the medium from which the unit was restored last is gone, so that it counts anew when it comes back.
func (b *boot) noteRemoved() {
	if b.f.Recovery != decide.RecoveryFound || b.f.LastMedium.ID == "" || b.f.LastMedium.Removed || b.f.LastPresent {
		return
	}
	m := b.f.LastMedium
	m.Removed = true
	if err := b.env.Volume.Change(func(v *state.Volume) error { return v.WriteMedium(m) }); err != nil {
		b.env.Machine.Log.Warn("it cannot be noted that the medium was removed", "err", err)
	}
}
