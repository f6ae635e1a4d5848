package provision

import (
	"context"
	"os"

	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/uplink"
)

// Run provisions the unit, with the names of the boot artifact: a unit that is provisioned again is made anew.
func Run(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	m := *e.Machine
	e.Machine = &m
	o := before(e, f)
	m.Site.Names = e.Survey.Names
	e.Began(record.JobProvision)
	o.Proc = os.DirFS("/proc")
	o.Raise = func(ctx context.Context) (func(), error) {
		n, err := uplink.Raise(ctx, m.Log, m.Sys, e.Survey.Args.BootMAC, networkPatience)
		if err != nil {
			return nil, err
		}
		return n.Close, nil
	}
	j := &provisioning{Machine: &m, env: e, options: o}
	err := provision(ctx, j)
	e.Ended(record.JobProvision, err)
	out := job.Outcome{Kind: job.RebootNow, Checks: j.env.Checks - e.Checks}
	if !j.env.Key.Equal(e.Key) {
		out.Key = j.env.Key
	}
	if err != nil {
		out.Kind, out.Err = job.HoldOn, err
	}
	return out
}

// before returns what a provisioning must know of the unit as it is: whether somebody uses it, and which manifests it has used.
func before(e job.Env, f *survey.Findings) options {
	o := options{HasRecovery: f.Complete()}
	if f.Recovery != decide.RecoveryFound {
		return o
	}
	err := e.Volume.View(func(v *state.Volume) (err error) { o.Manifests, err = v.ReadManifests(); return err })
	if err != nil {
		e.Machine.Log.Warn("which manifests were used cannot be read", "err", err)
	}
	return o
}
