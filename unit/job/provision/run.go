package provision

import (
	"context"
	"crypto/ed25519"
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
	m, args := *e.Machine, e.Survey.Args
	e.Machine = &m
	var used state.Manifests
	if f.Recovery == decide.RecoveryFound {
		err := e.Volume.View(func(v *state.Volume) (err error) { used, err = v.ReadManifests(); return err })
		if err != nil {
			m.Log.Warn("which manifests were used cannot be read", "err", err)
		}
	}
	m.Site.Names = e.Survey.Names
	e.Began(record.JobProvision)
	out := job.Outcome{Kind: job.RebootNow}
	err := provision(ctx, &m, options{
		Args: args,
		Key:  e.Key,
		Keep: func(k ed25519.PrivateKey) { out.Key = k },
		Raise: func(ctx context.Context) (func(), error) {
			n, err := uplink.Raise(ctx, m.Log, m.Sys, args.BootMAC, networkPatience)
			if err != nil {
				return nil, err
			}
			return n.Close, nil
		},
		HasRecovery: f.Complete(),
		Manifests:   used,
		Connect:     e.ToServer,
		QABegins:    func() { out.Checks++ },
		Checks:      e.Checks,
		Proc:        os.DirFS("/proc"),
		Attach:      func(v *state.Volume) error { return e.KeepLog(v, "provision") },
		Observe:     e.Observer(record.JobProvision),
	})
	e.Ended(record.JobProvision, err)
	if err != nil {
		out.Kind, out.Err = job.HoldOn, err
	}
	return out
}
