//go:build soak

package lab_test

import (
	"os"
	"testing"

	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/unit/state"
)

// overwrite writes zeros at a byte of the disk.
func (o offline) overwrite(at int64, n int) {
	o.t.Helper()
	f, err := os.OpenFile(o.raw, os.O_WRONLY, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, n), at); err != nil {
		o.t.Fatal(err)
	}
}

// TestSoakDamagedVolumeAndTable has a unit whose recovery volume has lost its superblock and has a damaged request, and whose main disk comes
// late and has lost the first copy of its partition table. All is repaired, nothing is restored. The firmware does not repair the
// table, as OVMF would: it does not see the disk.
func TestSoakDamagedVolumeAndTable(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, func(c *lab.Config) { c.Disks[1].Late = true })
	offlineChange(t, u, "recovery", func(o offline) {
		o.write("/"+state.RequestFile, `{"version": 1, "id": "0123`)
		o.overwrite(o.start+1024, 1024)
	})
	offlineChange(t, u, "main", func(o offline) { o.overwrite(512, 512) })
	start(t, u)
	if e := expect(t, u, bootPatience, lab.Msg("hold")); e.Text("code") != "G221" {
		t.Errorf("the unit holds with %s, want G221", e.Text("code"))
	}
	seen(t, u, 1, jobState("repair", "succeeded"), "repair of the recovery volume")
	if err := u.Plug(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	whole(t, expect(t, u, bootPatience, lab.Msg("tiny system up")), "2")
	seen(t, u, 2, jobState("repair", "succeeded"), "repair of the volume, then of the table")
	seen(t, u, 1, lab.Msg("partition table repaired from the copy at the end of the disk"), "repair of the table")
	seen(t, u, 1, lab.Field("code", "G215"), "damaged request")
	seen(t, u, 0, jobState("restore", "started"), "restore")
	// The next start finds nothing wrong.
	if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
		t.Fatal(err)
	}
	whole(t, up(t, u), "2")
	seen(t, u, 2, jobState("repair", "succeeded"), "repair")
	seen(t, u, 1, lab.Field("code", "G215"), "damaged request")
	seen(t, u, 0, jobState("restore", "started"), "restore")
}
