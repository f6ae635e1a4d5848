package pid1

import (
	"context"
	"errors"
	"time"

	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
)

// finish acts on an outcome. It returns when the unit shall decide again.
func (u *unit) finish(ctx context.Context, o job.Outcome) {
	err := u.guard("finish", func() error {
		switch o.Kind {
		case job.DecideAgain:
			return nil
		case job.RebootNow:
			u.log.Info("rebooting", journal.ForPerson())
			u.warnOfWatchdog(u.dog.leaveForReboot())
			u.m.Panel.Message("Restarting")
			u.releaseAll(ctx)
			return u.kernel.Reboot()
		case job.PowerOffNow:
			u.log.Info("powering off", journal.ForPerson())
			u.m.Panel.Message("Powering off")
			u.warnOfWatchdog(u.dog.stopForPowerOff())
			u.releaseAll(ctx)
			return u.kernel.PowerOff()
		case job.SwitchRoot:
			u.flushJournal(ctx)
			u.leaveScreens(ctx, o.Root)
			err := u.kernel.SwitchRoot(o.Root, SystemInit)
			u.retakeScreens()
			return fault.Because(fault.SwitchRoot, err)
		}
		u.hold(ctx, o.Err)
		return nil
	})
	if err != nil {
		u.holdSafely(ctx, err)
	}
}

func (u *unit) warnOfWatchdog(err error) {
	if err != nil {
		u.log.Warn("watchdog runs on", "err", err)
	}
}

// releaseAll flushes what is logged and shown and unmounts everything, in bounded time: the machine goes off.
func (u *unit) releaseAll(ctx context.Context) {
	u.flushQueue(ctx)
	u.releaseVolumes(ctx)
	u.flushJournal(ctx)
	u.releaseDisplay()
	u.closePanels(ctx)
}

// flushQueue gives the server some time to take what waits for it.
func (u *unit) flushQueue(ctx context.Context) {
	if !u.queue.Sending() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := u.queue.Flush(ctx); err != nil {
		u.log.Warn("records wait until the server takes them", "err", err)
	}
}

// releaseVolumes ends the use of the recovery volume and unmounts it and the main system. It has its own time: a server that went away
// must not keep a log open on the volume.
func (u *unit) releaseVolumes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	u.endJob()
	err := errors.Join(u.journal.Detach(ctx, "file"), u.queue.Release(), u.m.UnmountAll())
	if u.volume != nil {
		u.volume.Drop()
	}
	if err != nil {
		u.log.Warn("volumes are not released cleanly", "err", err)
	}
}

// flushJournal gives whoever keeps the log some time to write it.
func (u *unit) flushJournal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := u.journal.Flush(ctx); err != nil {
		u.log.Warn("log", "err", err)
	}
}

// closePanels has every panel show the last view, as far as it does so in time.
func (u *unit) closePanels(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_ = u.m.Panel.Close(ctx) // the machine goes off: nobody could be told
}

// Retry is how long a unit that holds waits at first before it decides again by itself.
const Retry = time.Minute

const (
	maxRetry        = time.Hour                 // the longest such pause
	untilSomebody   = 10 * 365 * 24 * time.Hour // no time at all: somebody has to come
	networkRetry    = 30 * time.Second
	maxNetworkRetry = 5 * time.Minute
)

// holds counts the holds in a row for the same reason.
type holds struct {
	reason *fault.Fault
	count  int
}

// next counts one more hold, and returns how long it lasts if nothing changes.
func (h *holds) next(f *fault.Fault) time.Duration {
	if f != h.reason {
		h.reason, h.count = f, 0
	}
	h.count++
	return pause(f, h.count-1)
}

// pause is how long a unit holds for the reason f when it did so n times in a row already: twice as long each time, up to a bound.
// Failures of the network or the server mostly end soon.
func pause(f *fault.Fault, n int) time.Duration {
	first, most := Retry, maxRetry
	switch f {
	case fault.BurnInFailed, fault.OnlyChecked: // what has failed for hours, or was only tried, is not done again by itself
		return untilSomebody
	case fault.NoNetwork, fault.NoServer, fault.ManifestMissing, fault.Download, fault.DownloadTruncated, fault.EnrolRefused, fault.NotReleased:
		first, most = networkRetry, maxNetworkRetry
	}
	return min(first<<min(n, 16), most)
}

// hold shows why nothing happens, and waits for a disk that comes or goes, for a key, or for a while. Then the unit decides again.
func (u *unit) hold(ctx context.Context, err error) {
	f := fault.Of(err)
	if f == nil {
		f = fault.Internal
	}
	wait := u.holds.next(f)
	u.log.Error("hold", "code", f.Code, "err", fault.Detail(err), "retry", until(wait), journal.ForPerson()) // the panels have the rest
	u.person.Held = true
	u.m.Panel.Forget()
	u.m.Panel.Fail(err)
	defer lightUp(ctx, u)()
	u.flushQueue(ctx)
	u.releaseVolumes(ctx)
	u.changed.awaitQuiet() // the last changes of the job's own work on the disks are on their way
	u.changed.forget()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-u.changed.changes:
		u.changed.awaitQuiet()
		u.holds.count = 0 // something is different: nothing speaks for a longer pause yet
	case <-u.m.Panel.Pressed(): // the message is dismissed
		u.person.Wanted = true
		u.holds.count = 0
	case <-t.C:
	case <-ctx.Done():
	}
	u.memory.Since, u.memory.Replayed = time.Now(), nil
}

// until says how long a unit holds if nothing changes.
func until(wait time.Duration) string {
	if wait >= untilSomebody {
		return "when somebody wants it"
	}
	return wait.String()
}

// holdSafely is hold for a unit in which something has gone wrong already. If showing it goes wrong too, the unit waits in silence.
func (u *unit) holdSafely(ctx context.Context, err error) {
	if u.guard("hold", func() error { u.hold(ctx, err); return nil }) != nil {
		time.Sleep(Retry)
	}
}

// holdUntilChosen is for a unit whose setup failed. What it lacks is not in the machine as it runs. Only a new start helps, perhaps with
// another boot artifact, and a person chooses it.
func (u *unit) holdUntilChosen(ctx context.Context, err error) {
	for ctx.Err() == nil {
		u.holdSafely(ctx, err)
		if o := u.chosenOutcome(ctx); o.Kind != job.HoldOn {
			u.finish(ctx, o)
		}
	}
}

// chosenOutcome is what becomes of a unit whose setup failed, after a person who pressed a key has chosen.
func (u *unit) chosenOutcome(ctx context.Context) job.Outcome {
	if !u.person.Wanted {
		return job.Outcome{Kind: job.HoldOn}
	}
	u.person.Wanted = false
	c, err := u.person.Menu(ctx, nil, nil, u.provisions())
	if err != nil {
		u.log.Warn("menu", "err", err)
	}
	u.log.Info("choice", "choice", string(c.Kind), journal.ForPerson())
	switch c.Kind {
	case decide.ChoosePowerOff:
		return job.Outcome{Kind: job.PowerOffNow}
	case decide.ChooseResume:
		return job.Outcome{Kind: job.RebootNow}
	}
	return job.Outcome{Kind: job.HoldOn}
}
