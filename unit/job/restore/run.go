package restore

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// Run restores an image of the recovery volume: the one that a person chose, that a request names, or that follows from the state of the
// main disk. Where none is good one is fetched, if the policy says from where.
func Run(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	request := f.Request
	if request != nil && request.Kind == state.KindErase { // one that was done and could not be removed
		request = nil
	}
	if kind, image, ok := f.Choice.Asked(); ok {
		r, err := state.NewRequest(kind, image, "a person at the machine", time.Now())
		if err != nil {
			return job.Hold(err)
		}
		request = &r
	}
	return run(ctx, e, f, goal{Request: request})
}

// GoBack restores the image before the installed one, which does not start. Nothing else is tried: where it fails, the installed system, if
// it is there yet, is better than none.
func GoBack(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	e.Machine.Log.Warn("going back to another image", "from", f.Mark.Release, "to", f.Previous, "attempts", f.Attempts, journal.ForPerson())
	out := run(ctx, e, f, goal{Back: f.Previous})
	if out.Kind == job.HoldOn {
		return job.Outcome{Kind: job.DecideAgain, BackFailed: true}
	}
	return out
}

// run is a restore with what surrounds it: the recovery volume is held, keeps the log and the request, and the server hears of it. g has
// what is asked for. A goal without that is what follows from the state of the main disk.
func run(ctx context.Context, e job.Env, f *survey.Findings, g goal) job.Outcome {
	m := e.Machine
	v, err := e.Volume.Hold()
	if err != nil {
		return job.Hold(fault.Because(fault.RecoveryDamaged, err))
	}
	e.MakeRoom(v)
	if err := e.KeepLog(v, "recov"); err != nil {
		m.Log.Warn("logs and records cannot be kept on the recovery volume", "err", err)
	}
	if f.BadRequest != nil {
		m.Log.Warn(job.RequestIgnored, "code", fault.RequestDamaged.Code, "err", f.BadRequest, journal.ForPerson())
		e.SetRequestAside(f.BadRequest, f.Recovery)
	}
	if g.Image == nil && g.Request != nil && g.Request != f.Request {
		if err := keepRequest(e, v, *g.Request); err != nil {
			return job.Hold(fault.Because(fault.RecoveryDamaged, err))
		}
	}
	if g.Back != "" {
		giveUp(e, v, f)
	}
	disconnect := connect(ctx, e, v, f.Unit)
	e.Began(record.JobRestore)
	g.Volume, g.Unit, g.Main, g.Planned = v, f.Unit, f.MainPart, f.Planned
	g.Blank = f.Main == decide.MainBlank && g.Image == nil && g.Request == nil
	err = restore(ctx, e, g)
	if badImages(err) && g.Image == nil && g.Back == "" && m.Policy.NetworkRecovery != "" {
		m.Log.Warn("no image on the recovery volume can be restored, one is fetched", "err", err, journal.ForPerson())
		if fetchErr := fetch(ctx, e, v, f.Unit, disconnect); fetchErr == nil {
			err = restore(ctx, e, g)
		} else {
			err = fmt.Errorf("%w; from the network: %v", err, fetchErr)
		}
	}
	if err != nil {
		e.Ended(record.JobRestore, err)
		return job.Hold(err)
	}
	e.Ended(record.JobRestore, nil)
	return job.Outcome{Kind: job.RebootNow}
}

// keepRequest writes a request to the recovery volume: a restore that is cut off is then taken up again, with the same image.
func keepRequest(e job.Env, v *state.Volume, r state.Request) error {
	err := v.WriteRequest(r)
	if errors.Is(err, syscall.ENOSPC) {
		e.Machine.Log.Warn("the recovery volume is full: a restore that is cut off is not taken up by itself", "err", err)
		return nil
	}
	return err
}

// giveUp notes in the history that the installed image does not start, so that it is not chosen again by itself.
func giveUp(e job.Env, v *state.Volume, f *survey.Findings) {
	damaged, err := v.ChangeHistory(time.Now(), func(h *release.History) {
		h.Boot(f.Mark.Release, false, release.MaxFailures+1, time.Now(), fmt.Sprintf("%d boots were not marked good", f.Attempts))
	})
	if damaged != nil {
		e.Machine.Log.Warn("history cannot be read, beginning a new one", "err", damaged)
	}
	if err != nil {
		e.Machine.Log.Warn("history cannot be written", "err", err)
	}
}
