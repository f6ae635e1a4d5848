package pid1

import (
	"errors"
	"os"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/state"
)

// TestEraseFacts: what the survey finds of an erase on a recovery volume, and what the unit decides.
func TestEraseFacts(t *testing.T) {
	ask := func(v *state.Volume) error {
		q, err := state.NewRequest(state.KindErase, "", "a person", time.Now())
		return errors.Join(err, v.WriteRequest(q))
	}
	begin := func(v *state.Volume) error {
		return state.WriteErase(v, state.Erase{ID: "0123456789abcdef", Started: time.Now()})
	}
	write := func(file, text string) func(*state.Volume) error {
		return func(v *state.Volume) error { return os.WriteFile(v.Path(file), []byte(text), 0o600) }
	}
	remove := func(v *state.Volume) error { return os.Remove(v.Path(state.KeyFile)) }
	for name, c := range map[string]struct {
		prepare []func(*state.Volume) error
		cmdline string
		locked  bool
		job     decide.Job
		fault   *fault.Fault
	}{
		"nothing":              {job: decide.Boot},
		"requested":            {prepare: []func(*state.Volume) error{ask}, job: decide.Erase},
		"requested, locked":    {prepare: []func(*state.Volume) error{ask}, locked: true, job: decide.Erase},
		"requested, no key":    {prepare: []func(*state.Volume) error{ask, remove}, job: decide.Hold, fault: fault.RecoveryDamaged},
		"no key":               {prepare: []func(*state.Volume) error{remove}, job: decide.Boot},
		"begun":                {prepare: []func(*state.Volume) error{begin}, job: decide.Erase},
		"begun, state damaged": {prepare: []func(*state.Volume) error{write(state.EraseFile, `{"version":1,`)}, job: decide.Erase},
		"begun by a newer init": {prepare: []func(*state.Volume) error{write(state.EraseFile, `{"version":9}`)}, job: decide.Hold,
			fault: fault.RecoveryNewer},
		"on the command line":        {cmdline: "DATA_ERASE=1", job: decide.Hold, fault: fault.EraseNotConfirmed},
		"on the command line, asked": {prepare: []func(*state.Volume) error{ask}, cmdline: "DATA_ERASE=1", job: decide.Erase},
		"on a locked command line":   {cmdline: "DATA_ERASE=1", locked: true, job: decide.Boot},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			onVolume(t, r, func(v *state.Volume) error {
				var err error
				for _, p := range c.prepare {
					err = errors.Join(err, p(v))
				}
				return err
			})
			r.Start(nil)
			u := onRig(t, r)
			u.m.Policy.Locked = c.locked
			u.args = decide.ParseArgs(c.cmdline, c.locked)
			f := u.look(t.Context())
			if d := decide.Decide(f.Facts, u.m.Policy); d.Job != c.job || d.Fault != c.fault {
				t.Errorf("%s with fault %v, want %s with %v; notes %q", d, d.Fault, c.job, c.fault, f.Notes)
			}
		})
	}
}

// TestEraseDamaged: a unit of which nobody knows how its erase has ended starts nothing, and nothing is written.
func TestEraseDamaged(t *testing.T) {
	r := restored(t)
	onVolume(t, r, func(v *state.Volume) error {
		return os.WriteFile(v.Path(state.EraseFile), []byte(`{"version":1,`), 0o600)
	})
	r.Start(nil)
	u := onRig(t, r)
	out := u.pass(t.Context())
	u.die(t)
	if written := r.Written(); out.Kind != job.HoldOn || fault.Of(out.Err) != fault.EraseUnknown || len(written) > 0 {
		t.Errorf("%+v, %q are written to", out, written)
	}
}
