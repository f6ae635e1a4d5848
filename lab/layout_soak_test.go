//go:build soak

package lab_test

import (
	"strings"
	"testing"

	"gprovision/lab"
	"gprovision/model/layout"
)

// TestSoakLifeOneDiskBIOS is the whole life of a unit with one disk on BIOS: one boot loader decides what it starts.
func TestSoakLifeOneDiskBIOS(t *testing.T) {
	t.Parallel()
	u, e := needLife(t).wholeLife(t, shaped(layout.BIOS, "one-disk", lab.Disk{Name: "main", Bus: lab.VirtIO, Size: lab.MainSize, BootIndex: 1}))
	if got := e.Text("root"); got != "/dev/vda2" {
		t.Errorf("root is %s", got)
	}
	again(t, u, "")
	whole(t, up(t, u), "2")
	seen(t, u, 2, jobState("restore", "succeeded"), "restore")
}

// TestSoakLifeMirror is the whole life of a unit with a mirror of two SATA disks on BIOS. Without the first disk it starts all the same.
func TestSoakLifeMirror(t *testing.T) {
	t.Parallel()
	u, e := needLife(t).wholeLife(t, shaped(layout.BIOS, "raid1", members(lab.SATA, 2)...))
	if got := e.Text("root"); got != "/dev/md0" {
		t.Errorf("root is %s", got)
	}
	if conf := tell(t, u, map[string]any{"do": "read", "path": "/etc/mdadm/mdadm.conf"}); !strings.Contains(conf, "ARRAY /dev/md0 ") {
		t.Errorf("mdadm.conf is %q", conf)
	}
	seen(t, u, 0, degraded, "degraded array")
	without(t, u, u.Disks, "member0")
	whole(t, up(t, u), "2")
	seen(t, u, 1, degraded, "degraded array")
	seen(t, u, 1, jobState("restore", "started"), "restore")
}

// These are the whole lives of units with arrays of the other levels on UEFI.
func TestSoakLifeStripes(t *testing.T) { arrayLife(t, "raid0", lab.VirtIO, 2, false) }
func TestSoakLifeRAID5(t *testing.T)   { arrayLife(t, "raid5", lab.VirtIO, 3, true) }
func TestSoakLifeRAID6(t *testing.T)   { arrayLife(t, "raid6", lab.SATA, 4, true) }
func TestSoakLifeRAID10(t *testing.T)  { arrayLife(t, "raid10", lab.VirtIO, 4, true) }

// arrayLife is the whole life of a unit with an array. Without a disk one that can do so starts, and does not take an outdated member back; a
// restore makes the array anew over all disks.
func arrayLife(t *testing.T, name string, bus lab.Bus, n int, survives bool) {
	t.Parallel()
	disks := members(bus, n)
	disks[0].BootIndex = 0
	u, e := needLife(t).wholeLife(t, shaped(layout.UEFI, name, disks...))
	if got := e.Text("root"); got != "/dev/md0" {
		t.Errorf("root is %s", got)
	}
	without(t, u, disks, "member0")
	if !survives {
		if e := expect(t, u, bootPatience, lab.Msg("hold")); e.Text("code") != "G221" {
			t.Errorf("the unit holds with %s", e)
		}
		seen(t, u, 1, jobState("restore", "started"), "restore")
		return
	}
	whole(t, up(t, u), "2")
	seen(t, u, 1, degraded, "degraded array")
	tell(t, u, map[string]any{"do": "write", "path": "/newer", "text": "than the first disk"})
	without(t, u, disks, "")
	whole(t, up(t, u), "2")
	seen(t, u, 2, degraded, "degraded array")
	if got := tell(t, u, map[string]any{"do": "read", "path": "/newer"}); got != "than the first disk" {
		t.Errorf("the outdated member was taken back: %q", got)
	}
	again(t, u, "")
	whole(t, up(t, u), "2")
	seen(t, u, 2, jobState("restore", "succeeded"), "restore")
	seen(t, u, 2, degraded, "degraded array after the restore")
}

// These are the whole lives of units whose disks are on other buses. OVMF has no driver for SD cards: such a unit has only its main disk there,
// and the recovery device starts it.
func TestSoakLifeSATA(t *testing.T) { busLife(t, lab.SATA, lab.SATA, lab.PlatformProduct, "/dev/sd") }
func TestSoakLifeSCSI(t *testing.T) { busLife(t, lab.SCSI, lab.SCSI, lab.PlatformProduct, "/dev/sd") }
func TestSoakLifeUSB(t *testing.T)  { busLife(t, lab.USB, lab.USB, "usb", "/dev/sd") }
func TestSoakLifeMMC(t *testing.T) {
	busLife(t, lab.VirtIO, lab.MMC, lab.PlatformProduct, "/dev/mmcblk")
}

// busLife is the whole life of a unit with its recovery device and its main disk on these buses.
func busLife(t *testing.T, recovery, main lab.Bus, product, root string) {
	t.Parallel()
	cfg := config(layout.UEFI, main)
	cfg.SMBIOS.Product = product
	cfg.Disks[0].Bus = recovery
	_, e := needLife(t).wholeLife(t, cfg)
	if got := e.Text("root"); !strings.HasPrefix(got, root) {
		t.Errorf("root is %s", got)
	}
}
