package machine_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
)

// TestOpenDrive opens a real disk without commands to erase it: it is claimed, written past the caches, and not opened while it is in use.
func TestOpenDrive(t *testing.T) {
	machinetest.OwnMounts(t)
	const size = 64 * layout.MiB
	path := machinetest.LoopDisk(t, size)
	log := slog.New(slog.DiscardHandler)
	m := &machine.Machine{Doors: machine.Real(log, os.DirFS("/sys"), nil), Log: log, Site: site.Stock(), Panel: panel.New()}
	d, err := machine.OpenDrive(m, path, true)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := d.State(); err != nil || d.Commands != nil || !s.Claimed || len(s.Users) > 0 || s.Size != size {
		t.Errorf("%+v, %v", s, err)
	}
	buf := make([]byte, 12288)
	skip := int(-uintptr(unsafe.Pointer(&buf[0])) & 4095)
	data := buf[skip : skip+4096]
	for i := range data {
		data[i] = byte(i) | 1
	}
	if _, err := d.Blocks.WriteAt(data, layout.MiB); err != nil {
		t.Fatal(err)
	}
	if err := d.Blocks.Sync(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4096)
	if _, err := d.ReadAt(got, layout.MiB); err != nil || !bytes.Equal(got, data) {
		t.Errorf("something else is read through the caches: %v", err)
	}
	if other, err := m.Open(path, machine.Write); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("somebody else opens it: %v, %v", other, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.MakeExt4(t.Context(), path, "ERASE", machine.NewIDs().UUID()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := m.Mount(path, dir, "ext4", host.MountOptions{}); err != nil {
		t.Fatal(err)
	}
	if d, err := machine.OpenDrive(m, path, false); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("it is opened while it is mounted: %v, %v", d, err)
	}
	if err := m.Unmount(dir); err != nil {
		t.Fatal(err)
	}
	d, err = machine.OpenDrive(m, path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
