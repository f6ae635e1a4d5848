package erase

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"gprovision/hw/block"
	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
	"gprovision/model/policy"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/survey"
)

// TestFrozen: a machine sleeps once if a drive is frozen and knows no other method. One that cannot sleep leaves it frozen.
func TestFrozen(t *testing.T) {
	for name, c := range map[string]struct {
		frozen bool
		err    error
		did    []string
		method erasure.Method
	}{
		"frozen":            {true, nil, []string{"unfreeze"}, erasure.ATASecurityEnhanced},
		"not frozen":        {false, nil, nil, erasure.ATASecurityEnhanced},
		"it does not sleep": {true, errors.ErrUnsupported, []string{"unfreeze"}, erasure.Overwrite},
	} {
		t.Run(name, func(t *testing.T) {
			config := simdrive.SATADisk(1)
			config.Methods = []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
			w := simulated(t, config, simdrive.Faults{Frozen: c.frozen})
			dog := &jobtest.Watchdog{Err: c.err, OnCall: func(string) {
				if c.err == nil {
					w.sims["sdb"].Suspend()
				}
			}}
			w.with = func(e *job.Env, _ *survey.Findings) { e.Watchdog = dog }
			if out := w.boot(); out.Kind != job.RebootNow {
				t.Errorf("%+v", out)
			}
			d := w.certificate().Drives[0]
			if d.Outcome != erasure.Proved || d.Evidence.Method != c.method || !slices.Equal(dog.Did, c.did) {
				t.Errorf("%s by %s, %q, %q", d.Outcome, d.Evidence.Method, dog.Did, d.NotReached)
			}
		})
	}
}

// TestSleeper: the machine sleeps once for all drives that are frozen, and not while something is done to another one.
func TestSleeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slept, busy := 0, true
		s := newSleeper(3, func() error {
			if slept++; busy {
				t.Error("it sleeps while a drive is erased")
			}
			return errors.ErrUnsupported
		})
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() {
				defer s.leave()
				if err := s.unfreeze(); !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("a frozen drive hears: %v", err)
				}
			})
		}
		synctest.Wait() // both wait for the third
		busy = false
		s.leave()
		wait.Wait()
		if err := s.unfreeze(); slept != 1 || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("it slept %d times: %v", slept, err)
		}
	})
}

// TestOverlay: an overlay goes away if the policy says so, else the certificate counts what it hides.
func TestOverlay(t *testing.T) {
	for word, want := range map[string]erasure.Outcome{policy.DCOKeep: erasure.Weaker, policy.DCORestore: erasure.Proved} {
		t.Run(word, func(t *testing.T) {
			config := simdrive.SATADisk(1)
			config.Overlay = 30
			w := simulated(t, config, simdrive.Faults{KeepOverlay: true})
			w.policy.Erase = policy.Erase{DCO: word, Accept: policy.AcceptRestore}
			if out := w.boot(); out.Kind != job.RebootNow {
				t.Errorf("%+v", out)
			}
			d := w.certificate().Drives[0]
			said := slices.Contains(d.NotReached, "30 sectors behind a device configuration overlay")
			if d.Outcome != want || said != (word == policy.DCOKeep) {
				t.Errorf("%s %q, %q", d.Outcome, d.Reasons, d.NotReached)
			}
			if readable, _ := w.sims["sdb"].Residue(); readable != 0 && word == policy.DCORestore {
				t.Errorf("%d sectors are left", readable)
			}
		})
	}
}

// TestGrown: a disk that has become larger since the plan was made is the same one only where that was planned.
func TestGrown(t *testing.T) {
	was := block.Disk{Name: "sda", Path: "/dev/sda", Bus: block.SATA, Model: "Lab", Serial: "S1", Size: diskSize}
	larger, smaller := was, was
	larger.Size, smaller.Size = 2*diskSize, diskSize/2
	for _, c := range []struct {
		grows bool
		now   block.Disk
		found bool
	}{{true, was, true}, {true, larger, true}, {true, smaller, false}, {false, larger, false}} {
		p, err := planned{Disks: []block.Disk{was}, Grows: c.grows}.again([]block.Disk{c.now})
		if (err == nil) != c.found || c.found && p.disk().Size != c.now.Size {
			t.Errorf("grows %t, %d bytes: %+v, %v", c.grows, c.now.Size, p.disk(), err)
		}
	}
}
