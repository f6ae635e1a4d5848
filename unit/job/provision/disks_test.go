package provision

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/unit/machine/machinetest"
)

// TestOnlyPlannedDisks: the disks that are not planned cannot be written to by anybody from the plan on, and what is cleared is the main disk.
func TestOnlyPlannedDisks(t *testing.T) {
	r := machinetest.New(t)
	r.AddDisk(block.Disk{Name: "sda", Bus: block.USB, Removable: true, Serial: "SOMEBODY'S", Size: layout.GiB})
	r.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Serial: "RECOVERY", Size: 4 * layout.GiB})
	main := r.AddDisk(block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "MAIN", Size: 8 * layout.GiB})
	r.AddDisk(block.Disk{Name: "vdc", Bus: block.VirtIO, Serial: "DATA", Size: 32 * layout.GiB})
	j, log := testJob(t, policy.Policy{})
	j.Doors = r.Doors()
	j.Identity.Variant = platform.Variant{DevCodeName: "VIRT", NumDataDisks: 1, Disksize: 8 * layout.GiB, SwRaidlevel: -1}
	disks, err := j.Disks()
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range []bool{true, false} { // an earlier plan of this boot may have been another one
		if err := j.SetReadOnly(main, on); err != nil {
			t.Fatal(err)
		}
		if disks, err = j.Disks(); err != nil {
			t.Fatal(err)
		}
		j.plan.Recovery, j.plan.Main, j.plan.Others = disks[1], disks[2:3], []block.Disk{disks[0], disks[3]}
		if err := j.protect(); err != nil {
			t.Fatal(err)
		}
		if disks, err = j.Disks(); err != nil {
			t.Fatal(err)
		}
		var locked []string
		for _, d := range disks {
			if d.ReadOnly {
				locked = append(locked, d.Name)
			}
		}
		if !slices.Equal(locked, []string{"sda", "vdc"}) {
			t.Errorf("read-only are %v, want those that are not planned; log:\n%s", locked, log)
		}
	}
	if err := j.Wipe(disks[3].Path); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a disk that is not planned is written to: %v", err)
	}
	r.Start(nil)
	if err := j.clearMain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.Written(); !slices.Equal(got, []string{"vdb"}) {
		t.Errorf("written to are %v, want the main disk", got)
	}
}

// TestProtectFails: a disk that cannot be protected ends the job before anything is written.
func TestProtectFails(t *testing.T) {
	r := machinetest.New(t)
	r.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Serial: "RECOVERY", Size: 4 * layout.GiB})
	r.AddDisk(block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "SOMEBODY'S", Size: 8 * layout.GiB})
	j, _ := testJob(t, policy.Policy{})
	j.Doors = r.Doors()
	disks, err := j.Disks()
	if err != nil {
		t.Fatal(err)
	}
	j.plan.Recovery, j.plan.Others = disks[0], disks[1:]
	r.Start(func(_ int, call string) error {
		if strings.HasPrefix(call, "read-only true") {
			return syscall.EIO
		}
		return nil
	})
	if err := j.protect(); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}
