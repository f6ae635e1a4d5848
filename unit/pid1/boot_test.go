package pid1

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"

	"github.com/google/go-cmp/cmp"
)

// restored returns a machine whose main system is complete and was never started.
func restored(t *testing.T) *machinetest.Rig {
	t.Helper()
	r := provisioned(t, twoDisks)
	boots(t, r)
	r.Start(nil)
	return r
}

// handsOver runs one boot of a machine that was just switched on, and returns what the running system is told, and the count of attempts
// on the recovery volume.
func handsOver(t *testing.T, r *machinetest.Rig) (out job.Outcome, told state.Boot, attempts int) {
	t.Helper()
	u := onRig(t, r)
	out = u.pass(t.Context())
	u.die(t)
	if out.Kind == job.SwitchRoot {
		if _, err := os.Stat(filepath.Join(out.Root, "etc", "hostname")); err != nil {
			t.Errorf("what is handed over to is not the system: %v", err)
		}
	}
	if b, err := os.ReadFile(u.m.Places.InRun(state.BootFile)); err == nil {
		if told, err = state.ParseBoot(b); err != nil {
			t.Error(err)
		}
	}
	r.Start(nil)
	u = onRig(t, r)
	f := u.look(t.Context())
	return out, told, f.Attempts
}

// TestBootIsCounted: each hand-over is counted on the recovery volume before it, and the running system hears how many there were.
func TestBootIsCounted(t *testing.T) {
	r := restored(t)
	before := ends(t, r)
	for n := 1; n <= 3; n++ {
		out, told, attempts := handsOver(t, r)
		if out.Kind != job.SwitchRoot || told.Attempts != n || attempts != n || told.Job != string(decide.Boot) {
			t.Errorf("boot %d: %+v, told %+v, counted %d", n, out, told, attempts)
		}
	}
	if diff := cmp.Diff(before, ends(t, r)); diff != "" {
		t.Errorf("a boot changes the unit:\n%s", diff)
	}
}

// TestBootWhateverFails cuts a boot at each call and lets each call fail: it changes no system, and what is not needed to start the system
// does not keep it from starting.
func TestBootWhateverFails(t *testing.T) {
	start := restored(t)
	want := ends(t, start)
	counted := start.Clone(t)
	u := onRig(t, counted)
	u.pass(t.Context())
	u.die(t)
	calls := counted.Calls()
	for _, err := range []error{machinetest.ErrCut, syscall.EIO} {
		for _, n := range machinetest.Sampled(calls) {
			r := start.Clone(t)
			r.Start(func(k int, c string) error {
				if k != n {
					return nil
				}
				return fmt.Errorf("call %d, %s: %w", n, c, err)
			})
			u := onRig(t, r)
			out := u.pass(t.Context())
			u.die(t)
			if out.Kind == job.RebootNow || out.Kind == job.PowerOffNow {
				t.Errorf("%v at %s: %+v", err, calls[n-1], out)
			}
			if diff := cmp.Diff(want, ends(t, r)); diff != "" {
				t.Fatalf("%v at %s: %+v; the unit is changed:\n%s", err, calls[n-1], out, diff)
			}
			if out, _, _ := handsOver(t, r); out.Kind != job.SwitchRoot {
				t.Errorf("after %v at %s the next boot ends with %+v", err, calls[n-1], out)
			}
		}
	}
	t.Logf("%d calls", len(calls))
}

// TestBootAfterDamage: a main system whose boot files are gone gets them again from its own disk, and is started.
func TestBootAfterDamage(t *testing.T) {
	r := restored(t)
	u := onRig(t, r)
	f := u.look(t.Context())
	esp := ""
	for _, p := range f.Unit.Main[0].Table.Partitions {
		if p.Role == layout.ESP {
			esp = r.Volume(p.FSUUID)
		}
	}
	if esp == "" {
		t.Fatal("no ESP on the main disk")
	}
	want := machinetest.Tree(t, esp)
	if !strings.Contains(want, "BOOTX64.EFI") {
		t.Fatalf("the ESP of a restored unit holds\n%s", want)
	}
	if err := os.RemoveAll(esp + "/EFI"); err != nil {
		t.Fatal(err)
	}
	r.Start(nil)
	if out, _, _ := handsOver(t, r); out.Kind != job.SwitchRoot {
		t.Errorf("%+v", out)
	}
	if diff := cmp.Diff(want, machinetest.Tree(t, esp)); diff != "" {
		t.Errorf("the ESP is not as it was:\n%s", diff)
	}
}
