package volume_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/volume"
)

// handle returns the recovery volume of a unit on a machine that was just switched on.
func handle(t *testing.T) (*machinetest.Rig, *machine.Machine, *volume.Handle) {
	t.Helper()
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	u := machinetest.Provision(r, machinetest.Machine(r))
	r.Start(nil)
	m := machinetest.Machine(r)
	disk, err := m.RecoveryDisk(u)
	if err != nil {
		t.Fatal(err)
	}
	return r, m, volume.At(m, block.PartitionPath(disk.Path, u.Recovery.Table.Find(layout.Recovery).Number))
}

// mounts returns how the volume was mounted since the machine was switched on.
func mounts(r *machinetest.Rig) (out []string) {
	for _, c := range r.Calls() {
		if mode, ok := strings.CutPrefix(c, "mount /dev/vda2 "); ok {
			out = append(out, mode)
		}
	}
	return out
}

// TestViewAndChange: the volume is mounted while somebody views or changes it, and not a moment longer, whatever the
// result.
func TestViewAndChange(t *testing.T) {
	r, m, h := handle(t)
	enough := errors.New("enough")
	for _, c := range []struct {
		with func(func(*state.Volume) error) error
		mode string
	}{{h.View, "read-only"}, {h.Change, "writable"}} {
		for _, end := range []error{nil, enough} {
			err := c.with(func(v *state.Volume) error {
				if _, err := v.ReadUnit(); err != nil {
					t.Error(err)
				}
				return end
			})
			if !errors.Is(err, end) {
				t.Errorf("%s: %v, want %v", c.mode, err, end)
			}
			if on, err := m.Mounted(m.Places.Recovery); on || err != nil {
				t.Errorf("%s: it stays mounted: %v", c.mode, err)
			}
			if all := mounts(r); all[len(all)-1] != c.mode {
				t.Errorf("it is mounted %s, want %s", all, c.mode)
			}
		}
	}
}

// TestHold: a held volume stays mounted, and views and changes use that mount.
func TestHold(t *testing.T) {
	r, m, h := handle(t)
	for range 2 {
		v, err := h.Hold()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(v.Path("note"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, with := range []func(func(*state.Volume) error) error{h.View, h.Change} {
		if err := with(func(v *state.Volume) error { _, err := os.Stat(v.Path("note")); return err }); err != nil {
			t.Error(err)
		}
	}
	if on, err := m.Mounted(m.Places.Recovery); !on || err != nil {
		t.Errorf("it is held and not mounted: %v", err)
	}
	if got := mounts(r); len(got) != 1 || got[0] != "writable" {
		t.Errorf("it is mounted %s", got)
	}
	if err := m.UnmountAll(); err != nil {
		t.Fatal(err)
	}
	h.Drop()
	if err := h.View(func(v *state.Volume) error { _, err := os.Stat(v.Path("note")); return err }); err != nil {
		t.Error(err)
	}
	if got := mounts(r); len(got) != 2 || got[1] != "read-only" {
		t.Errorf("after it was dropped it is mounted %s", got)
	}
}

// TestNotThere: if the volume cannot be mounted, there is an error, and nobody works on the empty directory.
func TestNotThere(t *testing.T) {
	r, _, h := handle(t)
	r.Fail(func(_ int, call string) error {
		if strings.HasPrefix(call, "mount") {
			return syscall.EIO
		}
		return nil
	})
	do := func(*state.Volume) error { t.Error("somebody works on the directory"); return nil }
	if err := h.View(do); !errors.Is(err, syscall.EIO) {
		t.Errorf("a look: %v", err)
	}
	if err := h.Change(do); !errors.Is(err, syscall.EIO) {
		t.Errorf("a change: %v", err)
	}
	if v, err := h.Hold(); !errors.Is(err, syscall.EIO) || v != nil {
		t.Errorf("held: %v, %v", v, err)
	}
}
