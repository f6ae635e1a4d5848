package pid1

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// TestDefects: what is wrong with a unit that starts is told with its code on log and panels, and to the running system; a healthy one
// has nothing to tell.
func TestDefects(t *testing.T) {
	part := &machine.Found{Path: "/dev/vda2"}
	for name, c := range map[string]struct {
		f    survey.Findings
		want []string // codes
		say  string   // in the log
	}{
		"healthy":          {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}}, nil, ""},
		"recovery newer":   {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryNewer}, Notes: []string{"recovery: version 2"}}, []string{"G216"}, "recovery: version 2"},
		"recovery damaged": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryDamaged}, Notes: []string{"main: x", "recovery: superblock"}}, []string{"G213"}, "recovery: superblock"},
		"recovery missing": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryMissing}}, []string{"G211"}, "starts without it"},
		"errors are left":  {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, RecoveryErrors: true, RecoveryRepairs: 2}, VolumeFindings: survey.VolumeFindings{RecoveryPart: part}}, []string{"G214"}, "repaired 2 times"},
		"bad request":      {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}, VolumeFindings: survey.VolumeFindings{BadRequest: errors.New("no JSON")}}, []string{"G215"}, "no JSON"},
		"original revoked": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}, VolumeFindings: survey.VolumeFindings{BadOriginal: errors.New("by key 17")}}, []string{"G206"}, "by key 17"},
		"degraded":         {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}, MainFindings: survey.MainFindings{Degraded: true, Members: []string{"sdb"}}}, []string{"G225"}, "sdb"},
		"much at once":     {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryMissing}, MainFindings: survey.MainFindings{Degraded: true}}, []string{"G211", "G225"}, "lacks a disk"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			u := testUnit(t, &out)
			keys := &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }}
			u.m.Panel.Add("script", keys)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nobody reads: nothing is waited for
			texts := u.tellDefects(ctx, defects(&c.f))
			if !slices.EqualFunc(texts, c.want, strings.HasPrefix) || texts == nil {
				t.Errorf("told %q, want %q", texts, c.want)
			}
			if _, err := (state.Boot{Defects: texts}).Marshal(); err != nil {
				t.Error(err)
			}
			for _, code := range c.want {
				if !strings.Contains(out.String(), "code="+code) {
					t.Errorf("%s is not logged:\n%s", code, out.String())
				}
			}
			if err := u.m.Panel.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			shown := "" // only the last view is certain to be seen by a panel that is slow
			for _, v := range keys.Views() {
				if v.Problem != nil {
					shown = v.Problem.Code
				}
			}
			if name == "original revoked" {
				if shown != "" {
					t.Errorf("the panel shows %q, and a customer cannot do anything about it", shown)
				}
			} else if len(c.want) > 0 && shown != c.want[len(c.want)-1] {
				t.Errorf("the panel shows %q", shown)
			}
			if !strings.Contains(out.String(), c.say) || (out.Len() > 0) != (len(c.want) > 0) {
				t.Errorf("the log says:\n%s", out.String())
			}
		})
	}
}

// TestDamagedRequest: it leads to no restore, is reported at one boot, and is kept aside.
func TestDamagedRequest(t *testing.T) {
	for name, text := range map[string]string{"cut off": `{"version":1,"id":"0123`, "another kind": `{"version":1,"id":"0123456789abcdef","kind":"erase"}`, "empty": ""} {
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
			if f.BadRequest == nil || fault.Of(&defects(f)[0].Occurrence) != fault.RequestDamaged {
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
			if again.Recovery != decide.RecoveryFound || again.BadRequest != nil || len(defects(again)) > 0 {
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
