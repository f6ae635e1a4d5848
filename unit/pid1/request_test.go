package pid1

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// TestDamagedRequest: it leads to no restore, is reported at one boot, and is kept aside.
func TestDamagedRequest(t *testing.T) {
	for name, text := range map[string]string{"cut off": `{"version":1,"id":"0123`,
		"another kind": `{"version":1,"id":"0123456789abcdef","kind":"dance"}`, "empty": ""} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			u := testUnit(t, &bytes.Buffer{})
			dev, part := recoveryDisk(t, u)
			if err := mountVolume(u, part); err != nil {
				t.Fatal(err)
			}
			err := os.WriteFile(state.Open(u.m.Places.Recovery).Path(state.RequestFile), []byte(text), 0o600)
			if err := errors.Join(err, u.m.Unmount(u.m.Places.Recovery)); err != nil {
				t.Fatal(err)
			}
			u.m.Sys = machinetest.VirtIO(t, dev)
			f := u.look(t.Context())
			if f.BadRequest == nil {
				t.Fatalf("nothing is reported; notes %q", f.Notes)
			}
			if d := decide.Decide(withMain(f, decide.MainMarked), policy.Policy{}); d.Job != decide.Boot {
				t.Errorf("%s, want a normal boot", d)
			}
			u.env().SetRequestAside(f.BadRequest, f.Recovery)
			var b []byte
			err = u.volume.View(func(v *state.Volume) (err error) { b, err = os.ReadFile(v.Path(state.BadRequestFile)); return err })
			if err != nil || string(b) != text {
				t.Errorf("kept is %q, %v", b, err)
			}
			again := u.look(t.Context())
			if again.Recovery != decide.RecoveryFound || again.BadRequest != nil {
				t.Errorf("the next boot finds it again: %q", again.Notes)
			}
		})
	}
}

// withMain returns the facts of f with a main system of that state.
func withMain(f *survey.Findings, m decide.MainState) decide.Facts {
	facts := f.Facts
	facts.Main = m
	return facts
}
