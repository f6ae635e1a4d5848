package inventory

import (
	"errors"
	"os"
	"testing"
	"testing/fstest"

	"gprovision/hw/block"
	"gprovision/hw/nic"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/unit/machine/machinetest"
)

func TestCollect(t *testing.T) {
	proc, sys := machinetest.Sysfs()
	disks := []block.Disk{{Path: "/dev/sda", Size: 512, Bus: block.USB, Removable: true}}
	m, err := Collect(proc, sys, nil, disks, []nic.Port{{Name: "eth0", MAC: "56:78:90:00:00:ff"}, {Name: "br0", Virtual: true}}, "S12")
	if err != nil {
		t.Fatal(err)
	}
	if m.CPU != (manifest.CPU{Model: "QEMU Virtual CPU version 2.5+", Cores: 4, Sockets: 2}) || m.RamMegs != 1982 || len(m.PCI) != 3 ||
		len(m.USB) != 1 || m.Serial != "S12" || m.Disks[0].Bus != "usb" || !m.Disks[0].Removable || len(m.NICs) != 1 ||
		m.NICs[0].MAC != "56:78:90:00:00:ff" {
		t.Errorf("%+v", m)
	}
	if _, err := Collect(fstest.MapFS{}, fstest.MapFS{}, nil, nil, nil, ""); err == nil {
		t.Error("an empty /proc is fine?")
	}
	if m, err := Collect(os.DirFS("/proc"), os.DirFS("/sys"), nil, nil, nil, ""); err != nil || m.CPU.Cores == 0 || m.RamMegs == 0 {
		t.Errorf("this machine: %+v, %v", m, err)
	}
}

// TestReadBus: what is no device, or cannot be read as one, is left out.
func TestReadBus(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	sys := fstest.MapFS{
		"bus/b/a/vendor": file("0x8086\n"), "bus/b/a/device": file("0x29c0\n"), "bus/b/a/class": file("0x060000\n"),
		"bus/b/no-class/vendor": file("0x8086\n"), "bus/b/no-class/device": file("0x29c0\n"),
		"bus/b/no-number/vendor": file("x\n"), "bus/b/no-number/device": file("0x29c0\n"), "bus/b/no-number/class": file("0x060000\n"),
		"bus/b/interface/bInterfaceClass": file("09\n"),
	}
	got, err := readBus(sys, "bus/b", "vendor", "device", "class", 8)
	if err != nil || len(got) != 1 || got[0] != (hardware.Device{Vendor: 0x8086, Device: 0x29c0, Class: 0x0600}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := readBus(sys, "bus/c", "vendor", "device", "class", 8); got == nil || len(got) > 0 || err != nil {
		t.Errorf("no such bus: %v, %v", got, err)
	}
	if got, err := readBus(sys, "bus/b/a/vendor", "vendor", "device", "class", 8); got != nil || err == nil {
		t.Error("a bus that is no directory")
	}
}

// TestMemory: only a number with its name counts.
func TestMemory(t *testing.T) {
	for text, want := range map[string]int{
		"MemTotal:  2048 kB\nMemAvailable: 1024 kB\n": 1, "MemTotal: 2048 kB\n": -1, "MemAvailable: -5 kB\n": -1, "MemAvailable:\n": -1, "": -1,
	} {
		got, err := Memory(fstest.MapFS{"meminfo": {Data: []byte(text)}}, "MemAvailable")
		if want >= 0 && (err != nil || got != uint64(want)) || want < 0 && err == nil {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if _, err := Memory(fstest.MapFS{}, "MemAvailable"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
