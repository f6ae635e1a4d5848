package restore

import (
	"testing"

	"gprovision/unit/machine"
)

func TestRecoveryWins(t *testing.T) {
	uki := func(n uint64) machine.Artifact { return machine.Artifact{Build: n} }
	mono := func(n uint64) machine.Artifact { return machine.Artifact{Build: n, Monolithic: true} }
	for _, c := range []struct {
		name            string
		fresh, recovery machine.Artifact
		asked, want     bool
	}{
		{"higher", mono(7), mono(8), false, true},
		{"lower", mono(8), mono(7), false, false},
		{"equal", mono(7), mono(7), false, false},
		{"lower, asked for", mono(8), mono(7), true, true},
		{"the release has modules", uki(7), mono(8), false, false},
		{"the release has modules, asked for", uki(7), mono(8), true, false},
		{"the recovery artifact has modules", mono(7), uki(8), false, false},
		{"both have modules", uki(7), uki(8), true, false},
	} {
		if got := recoveryWins(c.fresh, c.recovery, c.asked); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
