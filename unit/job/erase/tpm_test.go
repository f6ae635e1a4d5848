package erase

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gprovision/hw/tpm"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/job"
	"gprovision/unit/machine/machinetest"
)

// simTPM is a TPM in memory, with the firmware's part of it.
type simTPM struct {
	pass    func(call string) error
	facts   tpm.Facts
	pending bool
	clears  int

	lies    bool  // it says that it was cleared
	mute    error // it answers nothing else
	refuses error // it refuses to be cleared
	noPPI   error // the firmware takes no request
}

func (s *simTPM) Look() (tpm.Facts, error) {
	if err := errors.Join(s.pass("look at TPM"), s.mute); err != nil {
		return tpm.Facts{}, err
	}
	return s.facts, nil
}

func (s *simTPM) wipe() {
	s.clears++
	s.facts = tpm.Facts{Maker: s.facts.Maker, Key: append(slices.Clone(s.facts.Key), byte(s.clears))}
}

func (s *simTPM) Clear() error {
	if err := errors.Join(s.pass("clear TPM"), s.mute, s.refuses); err != nil || s.lies {
		return err
	}
	s.wipe()
	return nil
}

func (s *simTPM) Request() (string, error) {
	if err := errors.Join(s.pass("request"), s.noPPI); err != nil {
		return "", err
	}
	s.pending = true
	return "User required", nil
}

// reboot is what the firmware does at a start.
func (s *simTPM) reboot() {
	s.facts.Resets++
	if s.pending {
		s.pending = false
		s.wipe()
	}
}

// withTPM gives a unit one.
func withTPM(w *world) *simTPM {
	w.tpm = &simTPM{
		pass:  func(call string) error { return machinetest.Pass(w.r, call) },
		facts: tpm.Facts{Maker: "ACME", Key: []byte("seed"), Resets: 7, Persistent: []uint32{0x81000001}},
	}
	return w.tpm
}

// TestTPM: it is in the certificate how it ended, what was not seen is never cleared, and no drive has another outcome for it.
func TestTPM(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*simTPM)
		state  erasure.PartState
		sent   string // the last command
	}{
		"cleared":          {func(*simTPM) {}, erasure.Cleared, "TPM2_Clear"},
		"owned":            {func(s *simTPM) { s.facts.Owner, s.facts.Key = true, nil }, erasure.Cleared, "TPM2_Clear"},
		"password":         {func(s *simTPM) { s.facts.Lockout, s.refuses = true, tpm.ErrPassword }, erasure.Requested, "request"},
		"disabled, no PPI": {func(s *simTPM) { s.refuses, s.noPPI = tpm.Code(0x120), tpm.ErrPresence }, erasure.NotCleared, "request"},
		"liar":             {func(s *simTPM) { s.lies = true }, erasure.Requested, "request"},
		"liar, no PPI":     {func(s *simTPM) { s.facts.Persistent, s.lies, s.noPPI = nil, true, tpm.ErrPresence }, erasure.NotCleared, "request"},
		"no seed, no PPI":  {func(s *simTPM) { s.facts, s.noPPI = tpm.Facts{}, tpm.ErrPresence; s.lies = true }, erasure.NotSeen, "request"},
		"failure mode":     {func(s *simTPM) { s.mute = tpm.Code(0x101) }, erasure.Requested, "request"},
		"failure, no PPI":  {func(s *simTPM) { s.mute, s.noPPI = tpm.Code(0x101), tpm.ErrPresence }, erasure.NotCleared, "request"},
		"object is left":   {func(s *simTPM) { s.facts.Key, s.lies, s.noPPI = nil, true, tpm.ErrPresence }, erasure.NotCleared, "request"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := withTPM(w)
			c.change(s)
			out := w.boot()
			if out.Kind != job.HoldOn || fault.Of(out.Err) != fault.EraseWeaker {
				t.Fatalf("%+v", out)
			}
			got := w.certificate()
			if len(got.Parts) != 1 || got.Outcome != erasure.Weaker {
				t.Fatalf("%+v", got)
			}
			p := got.Parts[0]
			if p.State != c.state || len(p.Commands) == 0 || !strings.HasPrefix(p.Commands[len(p.Commands)-1].Name, c.sent) {
				t.Errorf("%+v", p)
			}
			if shown := strings.Contains(out.Err.Error(), p.Name+" "+string(p.State)); shown == (c.state == erasure.Cleared) {
				t.Errorf("shown: %v", out.Err)
			}
		})
	}
}

// TestNoTPM: a unit without one has no line for it.
func TestNoTPM(t *testing.T) {
	w := newWorld(t)
	w.boot()
	if c := w.certificate(); c.Parts != nil || slices.ContainsFunc(c.NotReached, func(s string) bool { return strings.Contains(s, "TPM") }) {
		t.Errorf("%+v", c)
	}
}

// TestTPMCut cuts the power at each call from the first look at the TPM on. It is cleared in the end, by its own command, or by the
// firmware if it takes none, and that is seen where the erase still goes on after the start that did it.
func TestTPMCut(t *testing.T) {
	base := newWorld(t)
	try := func(refuses error, n int) (w world, calls []string) {
		w = *base
		w.r = base.r.Clone(t)
		w.policy.Erase.Accept = policy.AcceptRestore
		s := withTPM(&w)
		s.refuses = refuses
		out := w.boot(func(_ int, call string) error {
			if calls == nil && call != "look at TPM" {
				return nil
			}
			if calls = append(calls, call); len(calls) == n {
				return fmt.Errorf("%s: %w", call, machinetest.ErrCut)
			}
			return nil
		})
		for boots := 0; out.Kind != job.RebootNow && boots < 4; boots++ {
			s.reboot()
			out = w.boot()
		}
		if out.Kind != job.RebootNow {
			t.Fatalf("cut at call %d, %q: %+v", n, calls, out)
		}
		return w, calls
	}
	each := 1
	if testing.Short() {
		each = 4
	}
	for _, refuses := range []error{nil, tpm.ErrPassword} {
		_, calls := try(refuses, 0)
		asked := slices.Index(calls, "request") + 1
		for n := 1; n <= len(calls); n += each {
			w, _ := try(refuses, n)
			p := w.certificate().Parts
			seen, asking := p[0].State == erasure.Cleared, p[0].State == erasure.Requested
			if len(p) != 1 || !seen && (refuses == nil || !asking) || w.tpm.clears == 0 && !w.tpm.pending || seen && w.tpm.clears == 0 {
				t.Errorf("%v, cut at call %d, %s: %+v", refuses, n, calls[n-1], p)
			}
		}
		if refuses != nil {
			w, _ := try(refuses, asked+1) // it was asked, and that is not written down
			if p := w.certificate().Parts; p[0].State != erasure.Cleared || w.tpm.clears != 1 {
				t.Errorf("the firmware has cleared it: %+v", p)
			}
		}
	}
}
