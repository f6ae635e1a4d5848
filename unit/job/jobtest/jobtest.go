// Package jobtest runs jobs in tests, on a machine that is not there.
package jobtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// Env returns what a job gets on the machine of m where nothing comes or goes, and no recovery volume was found. What m logs goes to its
// journal too from then on.
func Env(m *machine.Machine) job.Env {
	j, q := journal.New(journal.Options{}), report.NewQueue(m.BootID)
	job.Feed(q, j)
	m.Log = slog.New(slog.NewMultiHandler(m.Log.Handler(), j.Handler()))
	return job.Env{Machine: m, Queue: q, Journal: j, Key: state.NewKey(), Boot: job.Boot{Start: time.Now()}, Watchdog: &Watchdog{},
		Survey:     &survey.Survey{Eyes: machine.EyesOf(m), Names: m.Site.Names, Memory: survey.Memory{Since: time.Now().Add(-time.Hour)}},
		Await:      func(context.Context, time.Duration) error { return errors.New("nothing comes any more") },
		Print:      func(string, string) {},
		Background: func(_ string, do func()) { go do() }}
}

// Watchdog is a job.Watchdog that notes what is done with it. The zero value is ready.
type Watchdog struct {
	// Did is what was done, such as "watch 5m0s", "resume" and "taken true".
	Did []string
	// Err is the result of each call.
	Err error
	// OnCall, if not nil, hears of each call.
	OnCall func(what string)
}

func (d *Watchdog) note(what string) error {
	d.Did = append(d.Did, what)
	if d.OnCall != nil {
		d.OnCall(what)
	}
	return d.Err
}

// WatchBoot notes "watch" and the time.
func (d *Watchdog) WatchBoot(t time.Duration) error { return d.note(fmt.Sprint("watch ", t)) }

// Resume notes "resume".
func (d *Watchdog) Resume() error { return d.note("resume") }

// Unfreeze notes "unfreeze".
func (d *Watchdog) Unfreeze() error { return d.note("unfreeze") }

// HandOver notes "taken" and whether it is.
func (d *Watchdog) HandOver(taken bool) error { return d.note(fmt.Sprint("taken ", taken)) }

// Told returns a watchdog with a device and a time.
func (d *Watchdog) Told(taken bool) state.Watchdog {
	return state.Watchdog{Device: "/dev/watchdog0", Running: taken, Seconds: 300}
}

// Look surveys a machine that was just switched on. It returns what was found and what a job gets of that.
func Look(t *testing.T, m *machine.Machine) (job.Env, *survey.Findings) {
	t.Helper()
	e := Env(m)
	f := e.Survey.Look(t.Context())
	if len(f.Replay) > 0 {
		t.Fatalf("journals are to be replayed: %s", f.Replay)
	}
	m.Site.Names = f.Names
	if f.RecoveryPart != nil {
		e.Volume = volume.At(m, f.RecoveryPart.Path)
	}
	return e, f
}

// End ends what a job leaves to process 1: the log and the queue on the recovery volume.
func End(t *testing.T, e job.Env) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := errors.Join(e.Journal.Detach(ctx, "file"), e.Queue.Release()); err != nil {
		t.Error(err)
	}
}
