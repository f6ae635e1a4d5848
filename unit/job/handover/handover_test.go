package handover

import (
	"context"
	"errors"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/step"
)

// TestBlaming: a step of the boot fails in the same way for whoever watches it and whoever ran it.
func TestBlaming(t *testing.T) {
	var seen error
	steps := blaming(fault.SwitchRoot, []step.Step{{Name: "mount", Run: func(context.Context) error { return errors.New("no such device") }}})
	err := step.Run(t.Context(), steps, func(e step.Event) { seen = e.Err })
	if fault.Of(err) != fault.SwitchRoot || fault.Of(seen) != fault.SwitchRoot {
		t.Errorf("ran: %v, watched: %v", err, seen)
	}
}
