package pid1

import (
	"log/slog"
	"testing"

	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
)

// TestAfterFailedSetup: what a person can choose on a unit that could not be set up does something, and silence does not.
func TestAfterFailedSetup(t *testing.T) {
	enter, down, back := panel.KeyEnter, panel.KeyDown, panel.Key('q')
	for name, tc := range map[string]struct {
		wanted bool
		keys   [][]panel.Key // one list for each question
		want   job.Kind
	}{
		"try again":         {true, [][]panel.Key{{enter}}, job.RebootNow},
		"power off":         {true, [][]panel.Key{{down, enter}, {down, enter}}, job.PowerOffNow},
		"power off, and no": {true, [][]panel.Key{{down, enter}, {enter}, {back}}, job.HoldOn},
		"gives up":          {true, [][]panel.Key{{back}}, job.HoldOn},
		"nobody is there":   {false, nil, job.HoldOn},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New()}}
			u.person.Machine = u.m
			u.person.Wanted, u.person.Held = tc.wanted, true
			u.m.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key {
				keys := tc.keys[0]
				tc.keys = tc.keys[1:]
				return keys
			}})
			if got := u.chosenOutcome(t.Context()); got.Kind != tc.want || u.person.Wanted {
				t.Errorf("got %s, want %s", got.Kind, tc.want)
			}
		})
	}
}
