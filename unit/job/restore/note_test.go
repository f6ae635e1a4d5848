package restore

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/release"
	"gprovision/site"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// TestNotes: before the main disk is changed the recovery volume names the request and the tables that the main disks get, and the mark
// names the request before that goes. So a restore that is cut off is taken up again, and one that is at its end is not.
func TestNotes(t *testing.T) {
	r := machinetest.New(t)
	r.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Serial: "NEW", Size: 8 * layout.GiB})
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Doors: r.Doors(), Site: site.Stock(), Firmware: layout.UEFI, Serial: "S1"}
	m.Identity.Variant.NumDataDisks, m.Identity.Variant.SwRaidlevel = 1, -1
	disks, err := m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	var tables [2]layout.Table // of the disk that was there before, and of the new one
	for i := range tables {
		if tables[i], err = m.LayMain(disks[0], 0, machine.NewIDs()); err != nil {
			t.Fatal(err)
		}
	}
	recovery, err := layout.ForRecovery(layout.UEFI, layout.Device{Size: 2 * layout.GiB, SectorSize: 512}, m.Labels(), machine.NewIDs())
	if err != nil {
		t.Fatal(err)
	}
	v := state.Open(t.TempDir())
	if err := os.MkdirAll(v.Path(state.Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	j := &restoring{Machine: m, env: jobtest.Env(m), disks: []target{{Disk: disks[0], table: tables[1]}}, root: t.TempDir(), goal: goal{
		Volume: v, Unit: state.Unit{Serial: "S1", Platform: "VIRT", Firmware: layout.UEFI, ImagePrefix: imagetest.Prefix,
			Recovery: state.Disk{Size: 2 * layout.GiB, Table: recovery}, Main: []state.Disk{machine.DiskRecord(disks[0], tables[0])}},
	}}
	if err := j.noteRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	q, err := v.ReadRequest()
	if err != nil || !q.Auto || q.Image != state.Latest || q.ID == "" {
		t.Errorf("the request is %+v, %v", q, err)
	}
	u, err := v.ReadUnit()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]state.Disk{machine.DiskRecord(disks[0], tables[1])}, u.Main); diff != "" {
		t.Errorf("the record's main disks:\n%s", diff)
	}

	unmounted := false
	j.Unmount = func(dir string) error { unmounted = dir == j.root; return nil }
	if j.image.Name, err = release.ParseName(imagetest.Prefix+"2026-11-22.0001.upd", imagetest.Prefix); err != nil {
		t.Fatal(err)
	}
	if err := j.setMark(t.Context()); err != nil || !unmounted {
		t.Fatal(unmounted, err)
	}
	s, err := sysroot.Open(j.root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mark, err := s.ReadMark(m.Site.Names.Mark)
	if err != nil || mark.Request != q.ID || mark.Serial != "S1" || mark.Release != j.image.Name.Base() {
		t.Errorf("the mark is %+v, %v", mark, err)
	}
	if err := j.clearRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadRequest(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the request stays: %v", err)
	}
}
