package simdrive

import (
	"errors"
	"testing"

	"gprovision/hw/drive"
)

// TestRevert sets locked drives back by the PSID, after another one was tried: a session that is left open would keep the next from
// beginning.
func TestRevert(t *testing.T) {
	for _, enterprise := range []bool{false, true} {
		c := SCSIDisk(1)
		c.Encrypts, c.PSID, c.Enterprise = true, "0123456789ABCDEF0123456789ABCDEF", enterprise
		b := newBench(t, c, Faults{Locked: true})
		before, known, err := b.drive.Locking()
		if err != nil || !known || !before.Locked || before.Enterprise != enterprise {
			t.Errorf("enterprise %t: before: %+v, %v", enterprise, before, err)
		}
		wait := func() error { return errors.New("it has no answer") }
		wrong := drive.TCGError{}
		if err := b.drive.Revert(b.permit, "another one", wait); !errors.As(err, &wrong) || wrong.Status != 1 {
			t.Errorf("enterprise %t: another PSID: %v", enterprise, err)
		}
		if old, _ := b.sim.Residue(); old == 0 {
			t.Errorf("enterprise %t: another PSID has erased it", enterprise)
		}
		if err := b.drive.Revert(b.permit, drive.PSID(c.PSID), wait); err != nil {
			t.Errorf("enterprise %t: %v", enterprise, err)
		}
		after, _, err := b.drive.Locking()
		if old, _ := b.sim.Residue(); err != nil || after.Locked || after.Enabled != enterprise || old > 0 {
			t.Errorf("enterprise %t: afterwards %d sectors are left, %+v, %v", enterprise, old, after, err)
		}
	}
}
