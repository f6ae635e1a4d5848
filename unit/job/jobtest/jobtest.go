// Package jobtest runs jobs in tests, on a machine that is not there.
package jobtest

import (
	"context"
	"errors"
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

// Env returns what a job gets on the machine of m where nothing comes or goes, and no recovery volume was found. The log of m is its
// journal from then on.
func Env(m *machine.Machine) job.Env {
	j := journal.New(journal.Options{})
	m.Log = j.Logger()
	return job.Env{Machine: m, Queue: report.NewQueue(m.BootID), Journal: j, Key: state.NewKey(),
		Survey:     &survey.Survey{Eyes: machine.EyesOf(m), Names: m.Site.Names, Memory: survey.Memory{Since: time.Now().Add(-time.Hour)}},
		Await:      func(context.Context, time.Duration) error { return errors.New("nothing comes any more") },
		Background: func(_ string, do func()) { go do() }}
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
