package erase

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/unit/job"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

const psid = "0123456789ABCDEF0123456789ABCDEF"

// lockedDrive makes a unit whose main disk encrypts and was locked by somebody.
func lockedDrive(t *testing.T, f simdrive.Faults) *world {
	t.Helper()
	c := simdrive.NVMeDisk(1)
	c.Encrypts, c.PSID = true, psid
	f.Locked = true
	return simulated(t, c, f)
}

// label has a person read numbers off the label of a drive, one for each question, and then nothing.
func (w *world) label(numbers ...string) (shown *script.Panel, log *bytes.Buffer) {
	s, log := &script.Panel{}, &bytes.Buffer{}
	s.Answer = func(q panel.Asked) (keys []panel.Key) {
		if len(numbers) > 0 {
			for _, k := range []byte(numbers[0]) {
				keys = append(keys, panel.Key(k))
			}
			numbers = numbers[1:]
		}
		return append(keys, panel.KeyEnter)
	}
	w.with = func(e *job.Env, _ *survey.Findings) {
		e.Machine.Panel.Add("somebody", &somebody{Panel: s})
		h := slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})
		e.Machine.Log = slog.New(slog.NewMultiHandler(e.Machine.Log.Handler(), h))
	}
	return s, log
}

// TestLocked: a drive that is locked has failed, unless a person types the number on its label. A wrong number is asked for again.
func TestLocked(t *testing.T) {
	for name, c := range map[string]struct {
		numbers []string
		outcome erasure.Outcome
		fault   *fault.Fault
		reverts int
	}{
		"nothing":                     {nil, erasure.Failed, fault.EraseFailed, 0},
		"its PSID":                    {[]string{psid}, erasure.Proved, nil, 1},
		"too short, another, its own": {[]string{psid[1:], strings.Repeat("X", 32), strings.ToLower(psid)}, erasure.Proved, nil, 2},
		"another one":                 {[]string{strings.Repeat("X", 32)}, erasure.Failed, fault.EraseFailed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := lockedDrive(t, simdrive.Faults{})
			s, log := w.label(c.numbers...)
			out := w.boot()
			if fault.Of(out.Err) != c.fault || (out.Kind == job.RebootNow) != (c.fault == nil) {
				t.Errorf("%+v; shown %+v", out, s.Last())
			}
			d := w.certificate().Drives[0]
			reverts := 0
			for _, sent := range d.Commands {
				if sent.Method == erasure.TCGRevert {
					reverts++
				}
			}
			if d.Outcome != c.outcome || reverts != c.reverts || d.Evidence.Locked != (c.outcome == erasure.Failed) {
				t.Errorf("%s %q, %d reverts, locked: %t", d.Outcome, d.Reasons, reverts, d.Evidence.Locked)
			}
			if readable, _ := w.sims["nvme0n1"].Residue(); readable != 0 && c.fault == nil {
				t.Errorf("%d sectors are left", readable)
			}
			if kept := w.holding(psid); len(kept) > 0 || strings.Contains(log.String(), psid) || log.Len() == 0 {
				t.Errorf("the PSID is in %q, and in the log: %t", kept, strings.Contains(log.String(), psid))
			}
		})
	}
}

// holding returns the files of the recovery volume that have a text.
func (w *world) holding(text string) (names []string) {
	w.t.Helper()
	w.volume(func(v *state.Volume) error {
		root := os.DirFS(v.Path())
		return fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := fs.ReadFile(root, name)
			if bytes.Contains(b, []byte(text)) {
				names = append(names, name)
			}
			return err
		})
	})
	slices.Sort(names)
	return names
}

// TestLockedTakenUp: after a power cut at each call of the erase of a locked drive a person is asked again if it is still locked, and it is
// proved in the end.
func TestLockedTakenUp(t *testing.T) {
	w := lockedDrive(t, simdrive.Faults{})
	var calls []string
	w.label(psid)
	if out := w.boot(func(_ int, call string) error { calls = append(calls, call); return nil }); out.Kind != job.RebootNow {
		t.Fatalf("%+v", out)
	}
	each := max(1, len(calls)/8)
	for n := each; n < len(calls); n += each {
		w := lockedDrive(t, simdrive.Faults{})
		w.label(psid)
		out := w.boot(func(k int, call string) error {
			if k == n {
				return machinetest.ErrCut
			}
			return nil
		})
		for boots := 0; out.Kind != job.RebootNow && boots < 4; boots++ {
			w.label(psid)
			out = w.boot()
		}
		if c := w.certificate(); out.Kind != job.RebootNow || c.Outcome != erasure.Proved {
			t.Errorf("cut at call %d, %s: %+v, %s", n, calls[n-1], out, c.Outcome)
		}
		if readable, _ := w.sims["nvme0n1"].Residue(); readable != 0 {
			t.Errorf("cut at call %d, %s: %d sectors are left", n, calls[n-1], readable)
		}
	}
}
