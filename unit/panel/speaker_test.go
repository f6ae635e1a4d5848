package panel_test

import (
	"context"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/unit/panel"
)

// TestSpeaker: each new problem sounds, and one that is only shown again does not.
func TestSpeaker(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	beeps := 0
	b := panel.New()
	b.Add("speaker", panel.Speaker(func(time.Duration) error { beeps++; return nil }))
	heard := func(what string, want int) {
		t.Helper()
		if err := b.Flush(ctx); err != nil || beeps != want {
			t.Errorf("%s: %d beeps, want %d, %v", what, beeps, want, err)
		}
		beeps = 0
	}
	b.Show(panel.View{Job: "restore", Step: "Looking"})
	heard("a step", 0)
	b.Fail(fault.Newf(fault.NoSpace, "want 5, have 3"))
	heard("a problem", 3)
	b.Fail(fault.Newf(fault.NoSpace, "want 5, have 3"))
	heard("the same", 0)
	b.Fail(fault.Newf(fault.NoNetwork, "no port"))
	heard("another", 3)
	b.Message("Restarting")
	heard("a message", 0)
	b.Fail(fault.Newf(fault.NoNetwork, "no port"))
	heard("one that comes back", 3)
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}
