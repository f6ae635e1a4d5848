//go:build soak

package lab_test

import (
	"context"
	"slices"
	"testing"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
	"gprovision/model/layout"
)

// TestSoakDisplayRestore restores with the keys of a 631 that loses what it is told now and then, and sees how far it is.
func TestSoakDisplayRestore(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, withDisplay(lcd.Model631))
	u.Display().SetFaults(simulator.Faults{Drop: 7})
	start(t, u)
	ready(t, u, lcd.Model631)
	u.Display().Tap(lcd.KeyLR)
	sees(t, u, "Menu")
	choose(t, u, lcd.KeyLL, lcd.KeyUR, "Restore latest")
	sees(t, u, "►No◄")
	choose(t, u, lcd.KeyLL, lcd.KeyUR, "Yes")
	ctx, cancel := context.WithTimeout(t.Context(), jobPatience)
	defer cancel()
	if _, err := u.Display().Wait(ctx, func(s simulator.Screen) bool {
		l := s.Lines()
		return slices.Contains(l, "Writing release") && s.Contains(" %")
	}); err != nil {
		t.Fatal(err)
	}
	sees(t, u, "Restarting")
	whole(t, up(t, u), "2")
	seen(t, u, 1, jobState("restore", "succeeded"), "restore")
}
