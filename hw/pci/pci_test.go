package pci

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// tree is a server: a network card that runs slower than it can, a disk, a device without PCI Express, and an entry that is no device.
func tree() fstest.MapFS {
	sys := fstest.MapFS{"bus/pci/devices/0000:00:1e.0/uevent": {}}
	put := func(address string, files map[string]string) {
		for name, content := range files {
			sys["bus/pci/devices/"+address+"/"+name] = &fstest.MapFile{Data: []byte(content + "\n")}
		}
	}
	put("0000:01:00.0", map[string]string{
		"vendor": "0x8086", "device": "0x1563", "class": "0x020000", "subsystem_vendor": "0x15d9", "subsystem_device": "0x0001",
		"revision": "0x01", "numa_node": "1", "current_link_speed": "5.0 GT/s PCIe", "current_link_width": "4", "max_link_speed": "8.0 GT/s PCIe",
		"max_link_width": "8",
	})
	sys["bus/pci/devices/0000:01:00.0/driver"] = &fstest.MapFile{Data: []byte("../../../bus/pci/drivers/ixgbe"), Mode: fs.ModeSymlink | 0o777}
	put("0000:02:00.0", map[string]string{
		"vendor": "0x144d", "device": "0xa808", "class": "0x010802", "numa_node": "-1", "current_link_speed": "2.5 GT/s",
		"current_link_width": "1", "max_link_speed": "32.0 GT/s PCIe", "max_link_width": "4",
	})
	put("0000:00:1f.0", map[string]string{
		"vendor": "0x8086", "device": "0x2918", "class": "0x060100", "revision": "0x02", "current_link_speed": "Unknown",
		"current_link_width": "0", "max_link_speed": "Unknown speed", "max_link_width": "255",
	})
	return sys
}

func TestList(t *testing.T) {
	got, err := List(tree())
	want := []Device{
		{Address: "0000:00:1f.0", Class: 0x060100, Vendor: 0x8086, Device: 0x2918, Revision: 2, NUMA: -1},
		{Address: "0000:01:00.0", Class: 0x020000, Vendor: 0x8086, Device: 0x1563, SubVendor: 0x15d9, SubDevice: 1, Revision: 1, Driver: "ixgbe",
			NUMA: 1, Link: Link{5000, 4}, Most: Link{8000, 8}},
		{Address: "0000:02:00.0", Class: 0x010802, Vendor: 0x144d, Device: 0xa808, NUMA: -1, Link: Link{2500, 1}, Most: Link{32000, 4}},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if got, err := List(fstest.MapFS{}); got != nil || err != nil {
		t.Errorf("a machine without PCI: %v %v", got, err)
	}
}

func TestKnown(t *testing.T) {
	for l, want := range map[Link]bool{{2500, 1}: true, {8000, 16}: true, {}: false, {8000, 0}: false, {0, 4}: false} {
		if l.Known() != want {
			t.Errorf("%+v is known: %t", l, l.Known())
		}
	}
}

func FuzzLink(f *testing.F) {
	f.Add("8.0 GT/s PCIe", "4")
	f.Add("NaN GT/s", "-1")
	f.Fuzz(func(t *testing.T, a, b string) {
		if l := (Link{speed(a), lanes(b)}); l.MTs < 0 || l.MTs > 1_000_000 || l.Lanes < 0 || l.Lanes > 254 {
			t.Errorf("%q and %q are %+v", a, b, l)
		}
	})
}
