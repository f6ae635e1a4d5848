package pid1

import (
	"context"
	"errors"
	"time"

	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
)

// SystemInit is the program of the installed system that init hands over to.
const SystemInit = "/usr/lib/systemd/systemd"

// finish acts on an outcome. It returns when the unit shall decide again.
func (u *unit) finish(ctx context.Context, o job.Outcome) {
	err := u.guard("finish", func() error {
		switch o.Kind {
		case job.DecideAgain:
			return nil
		case job.RebootNow:
			u.log.Info("rebooting", journal.ForPerson())
			u.endWatchdog(false)
			u.m.Panel.Message("Restarting")
			u.release(ctx)
			return host.Reboot()
		case job.PowerOffNow:
			u.log.Info("powering off", journal.ForPerson())
			u.m.Panel.Message("Powering off")
			u.endWatchdog(true)
			u.release(ctx)
			return host.PowerOff()
		case job.SwitchRoot:
			u.closeJournal(ctx)
			u.leave(ctx, o.Root)
			err := host.SwitchRoot(o.Root, SystemInit, nil, nil)
			u.enter()
			return fault.Because(fault.SwitchRoot, err)
		}
		u.hold(ctx, o.Err)
		return nil
	})
	if err != nil {
		u.holdSafely(ctx, err)
	}
}

func (u *unit) endWatchdog(off bool) {
	if err := u.dog.end(off); err != nil {
		u.log.Warn("watchdog runs on", "err", err)
	}
}

// holdSafely is hold for a unit in which something has gone wrong already: if showing it goes wrong too, it waits in silence.
func (u *unit) holdSafely(ctx context.Context, err error) {
	if u.guard("hold", func() error { u.hold(ctx, err); return nil }) != nil {
		time.Sleep(Retry)
	}
}

// release flushes what is logged and shown and unmounts everything, in bounded time: the machine goes off.
func (u *unit) release(ctx context.Context) {
	u.flushQueue(ctx)
	u.letGo(ctx)
	u.closeJournal(ctx)
	u.releaseDisplay()
	u.closePanels(ctx)
}

// closePanels has every panel show what was shown last, as far as it does so in time.
func (u *unit) closePanels(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_ = u.m.Panel.Close(ctx) // the machine goes off: nobody could be told
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

// letGo ends the use of the recovery volume and unmounts it and the main system. It has its own time: a server that went away
// must not keep a log open on the volume.
func (u *unit) letGo(ctx context.Context) {
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

func (u *unit) closeJournal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := u.journal.Flush(ctx); err != nil {
		u.log.Warn("log", "err", err)
	}
}

// hold shows why nothing happens, and waits: for a disk that comes or goes, or for a while, then the unit decides again.
func (u *unit) hold(ctx context.Context, err error) {
	f := fault.Of(err)
	if f == nil {
		f = fault.Internal
	}
	if f != u.heldFor {
		u.heldFor, u.holds = f, 0
	}
	wait := pause(f, u.holds)
	u.holds++
	u.log.Error("hold", "code", f.Code, "text", f.Text, "hint", f.Hint, "err", fault.Detail(err), "retry", wait.String(), journal.ForPerson())
	u.person.Held = true
	u.m.Panel.Forget()
	u.m.Panel.Fail(err)
	u.flushQueue(ctx)
	u.letGo(ctx)
	u.settle() // the last changes of the job's own work on the disks are on their way
	u.drain()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-u.changed:
		u.settle()
		u.holds = 0 // something is different: nothing speaks for a longer pause yet
	case <-u.m.Panel.Pressed(): // the message is dismissed
		u.person.Wanted = true
		u.holds = 0
	case <-t.C:
	}
	u.memory.Since, u.memory.Replayed = time.Now(), nil
}

// pause is how long a unit holds for the reason f when it did so n times in a row already: twice as long each time, up to a bound.
// Failures of the network or the server mostly end soon.
func pause(f *fault.Fault, n int) time.Duration {
	first, most := Retry, maxRetry
	switch f {
	case fault.NoNetwork, fault.NoServer, fault.ManifestMissing, fault.Download, fault.DownloadTruncated, fault.EnrolRefused, fault.NotReleased:
		first, most = networkRetry, maxNetworkRetry
	}
	return min(first<<min(n, 16), most)
}

// drain forgets changes that happened before now: the job's own work on the disks.
func (u *unit) drain() {
	select {
	case <-u.changed:
	default:
	}
}

// settle waits until no device has come or gone for a second, so that one event of a new disk does not start a decision while
// its partitions are still appearing. A device that comes and goes all the time does not hold it up for ever.
func (u *unit) settle() {
	end := time.NewTimer(15 * time.Second)
	defer end.Stop()
	for {
		t := time.NewTimer(time.Second)
		select {
		case <-u.changed:
			t.Stop()
		case <-t.C:
			return
		case <-end.C:
			t.Stop()
			return
		}
	}
}

// holdForever is for a unit whose setup failed. What it lacks is not in the machine as it runs: only a new start helps, perhaps with
// another boot artifact, and a person chooses it.
func (u *unit) holdForever(ctx context.Context, err error) {
	for {
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
