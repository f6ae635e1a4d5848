package pid1

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"gprovision/hw/watchdog"
)

// TestUnfreeze: a machine sleeps with its watchdog stopped, which runs again afterwards, and stays awake if that cannot be stopped.
func TestUnfreeze(t *testing.T) {
	for name, c := range map[string]struct {
		armed bool
		stops error
		sleep error
		lost  bool
		did   []string
	}{
		"no watchdog":        {did: []string{"sleep"}},
		"a watchdog":         {armed: true, did: []string{"stop", "sleep", "open", "wait 1m0s"}},
		"it does not sleep":  {armed: true, sleep: errors.ErrUnsupported, did: []string{"stop", "sleep", "open", "wait 1m0s"}},
		"it does not stop":   {armed: true, stops: watchdog.ErrNoStop, did: []string{"stop", "open", "wait 1m0s"}},
		"it is gone by then": {armed: true, lost: true, did: []string{"stop", "sleep", "open"}},
	} {
		t.Run(name, func(t *testing.T) {
			dog := &ticker{}
			k := offRig(t)
			k.Watchdog = func() (timer, error) {
				dog.err = nil
				if dog.note("open"); c.lost {
					return nil, watchdog.ErrNone
				}
				return dog, nil
			}
			k.Unfreeze = func() error { dog.note("sleep"); return c.sleep }
			g := &guardian{kernel: &k, log: slog.New(slog.DiscardHandler)}
			if c.armed {
				g.timer, dog.err = dog, c.stops
			}
			want := cmp.Or(c.stops, c.sleep)
			if err := g.Unfreeze(); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%v, want %v", err, want)
			}
			if got := dog.notes(); !slices.Equal(got, c.did) || g.pet() != (c.armed && !c.lost) {
				t.Errorf("%q is done, there is a watchdog: %t", got, g.pet())
			}
		})
	}
}
