package survey

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// TestChangesNothing surveys a machine on which every write fails. No write is tried, and the findings are the same.
func TestChangesNothing(t *testing.T) {
	r := machinetest.New(t)
	s, m := virtual(t)
	m.Doors = r.Doors()
	const size = 2 * layout.GiB
	recovery := r.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Serial: "RECOVERY", Size: size})
	main := r.AddDisk(block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "MAIN", Size: size})
	r.AddDisk(block.Disk{Name: "sda", Bus: block.USB, Removable: true, Size: layout.GiB})
	device := layout.Device{Size: size, SectorSize: 512}
	volume, err := layout.ForRecovery(layout.UEFI, device, m.Labels(), machine.NewIDs())
	if err != nil {
		t.Fatal(err)
	}
	system, err := layout.ForMain(layout.UEFI, device, m.Labels(), m.Identity.Variant.Parts(0), machine.NewIDs())
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return m.WriteTable(recovery, volume) },
		func() error {
			return m.Format(t.Context(), recovery, volume, []layout.Role{layout.ESP, layout.Recovery})
		},
		func() error { return m.WriteTable(main, system) },
		func() error { return m.Format(t.Context(), main, system, []layout.Role{layout.ESP, layout.Primary}) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	part := block.PartitionPath(recovery, volume.Find(layout.Recovery).Number)
	if err := m.Mount(part, m.Places.Recovery, "ext4", host.MountOptions{}); err != nil {
		t.Fatal(err)
	}
	disks, err := m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	rec := state.Unit{Serial: m.Serial, Platform: "VIRT", Firmware: layout.UEFI, Recovery: machine.DiskRecord(disks[0], volume),
		Main: []state.Disk{machine.DiskRecord(disks[1], system)}}
	if err := state.Open(m.Places.Recovery).WriteUnit(rec); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(m.Places.Recovery); err != nil {
		t.Fatal(err)
	}

	r.Start(func(_ int, call string) error {
		word, _, _ := strings.Cut(call, " ")
		if word == "write" || word == "discard" || word == "run" || strings.HasSuffix(call, "writable") || word == "open" &&
			!strings.HasSuffix(call, " 0") {
			t.Errorf("a survey tries to write: %s", call)
			return syscall.EROFS
		}
		return nil
	})
	s.Memory.Since = time.Now().Add(-time.Hour)
	f := s.Look(t.Context())
	if f.Recovery != decide.RecoveryFound || f.Main != decide.MainUnmarked || len(f.Replay) > 0 {
		t.Errorf("found %s and %s, to be replayed %q; notes %q", f.Recovery, f.Main, f.Replay, f.Notes)
	}
	if len(r.Written()) > 0 {
		t.Errorf("opened for writing: %q", r.Written())
	}
	for _, dir := range []string{m.Places.Recovery, m.Places.Main} {
		if mounted, err := m.Mounted(dir); err != nil || mounted {
			t.Errorf("%s is mounted afterwards: %v", dir, err)
		}
	}
}
