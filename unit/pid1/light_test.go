package pid1

import (
	"testing"

	"gprovision/hw/bmc/simulator"
	"gprovision/unit/machine/machinetest"
)

// TestHoldLights: while a unit holds its identify light is on, and goes out once it goes on.
func TestHoldLights(t *testing.T) {
	t.Parallel()
	live(t, withoutImage(t), func(t *testing.T, l *life) {
		c := simulator.New()
		machinetest.PutBMC(l.rig, c)
		l.begin()
		l.awaitHold(1)
		l.awaits("the light", c.Light)
		l.answers["Menu"], l.answers["Power off"] = choose(1), yes()
		l.screen.Press('x')
		l.awaitEnd("power off")
		if c.Light() {
			t.Error("the light stays on")
		}
	})
}
