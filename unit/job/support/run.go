package support

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/panel"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// Run saves a bundle to a recovery stick and tells the person where. Then the menu comes again.
func Run(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	m := e.Machine
	m.Panel.Show(panel.View{Job: string(decide.Support), Step: "Saving"})
	name, err := save(ctx, e, f)
	if err != nil {
		e.ShowFailure("support bundle cannot be saved", err)
	} else {
		m.Log.Info("support bundle saved", "file", name, journal.ForPerson())
		m.Panel.Message("Saved " + name)
	}
	m.Panel.Pause(ctx, job.ReadingTime)
	return job.Outcome{Kind: job.DecideAgain, Menu: true}
}

// save writes a bundle of what init knows to the first of the recovery sticks, and returns its name.
func save(ctx context.Context, e job.Env, f *survey.Findings) (name string, err error) {
	if len(f.Sticks) == 0 {
		return "", fault.Newf(fault.NoBundle, "no recovery stick is plugged in")
	}
	m, now := e.Machine, time.Now()
	name = Name(m.Serial, now)
	var facts, log, out bytes.Buffer
	survey.Print(&facts, f, m.Policy)
	for _, r := range e.Journal.Records() {
		fmt.Fprintln(&log, r.Text())
	}
	o := Options{Sys: m.Sys, Proc: os.DirFS("/proc"), By: fmt.Sprintf("init, artifact build %d", m.Build.Number), Now: now,
		Files: []File{{"init/facts.txt", facts.Bytes()}, {"init/log.txt", log.Bytes()}}}
	write := func(v *state.Volume) error { o.Volume = v; return Write(ctx, &out, o) }
	if f.Recovery == decide.RecoveryFound {
		err = e.Volume.View(write)
	} else {
		err = write(nil)
	}
	if err == nil {
		err = f.Sticks[0].Save(m, name, out.Bytes())
	}
	if err != nil {
		return "", &fault.Occurrence{Fault: fault.NoBundle, Cause: err}
	}
	return name, nil
}
