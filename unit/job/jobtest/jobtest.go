// Package jobtest runs jobs in tests, on a machine that is not there.
package jobtest

import (
	"testing"
	"time"

	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/report"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// Look surveys a machine that was just switched on, and returns what a job gets on it. Its log goes to a journal from then on.
func Look(t *testing.T, m *machine.Machine) (job.Env, *survey.Findings) {
	t.Helper()
	j := journal.New(journal.Options{})
	m.Log = j.Logger()
	s := &survey.Survey{Eyes: machine.EyesOf(m), Names: m.Site.Names, Memory: survey.Memory{Since: time.Now().Add(-time.Hour)}}
	f := s.Look(t.Context())
	if len(f.Replay) > 0 {
		t.Fatalf("journals are to be replayed: %s", f.Replay)
	}
	m.Site.Names = f.Names
	e := job.Env{Machine: m, Queue: report.NewQueue(m.BootID), Journal: j}
	if f.RecoveryPart != nil {
		e.Volume = volume.At(m, f.RecoveryPart.Path)
	}
	return e, f
}
