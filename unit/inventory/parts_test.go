package inventory

import (
	"errors"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/drive"
	"gprovision/hw/nic"
	"gprovision/model/hardware"
	"gprovision/model/platform"
	"gprovision/unit/machine"
)

func TestParts(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	const secureBoot = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	sys := fstest.MapFS{
		"class/tpm/tpm0/tpm_version_major": file("2"), secureBoot: {Data: []byte{6, 0, 0, 0, 1}},
		"devices/system/cpu/cpu0/microcode/version": file("0x2006e05"),
		"bus/pci/devices/0000:01:00.0/vendor":       file("0x8086"), "bus/pci/devices/0000:01:00.0/device": file("0x1563"),
		"bus/pci/devices/0000:01:00.0/class":              file("0x020000"),
		"bus/pci/devices/0000:01:00.0/current_link_speed": file("5.0 GT/s PCIe"), "bus/pci/devices/0000:01:00.0/current_link_width": file("4"),
		"bus/pci/devices/0000:01:00.0/max_link_speed": file("8.0 GT/s PCIe"), "bus/pci/devices/0000:01:00.0/max_link_width": file("8"),
		"bus/pci/devices/0000:00:00.0/vendor": file("0x8086"), "bus/pci/devices/0000:00:00.0/device": file("0x29c0"),
		"bus/pci/devices/0000:00:00.0/class": file("0x060000"),
	}
	proc := fstest.MapFS{"cpuinfo": file("processor : 0\nmicrocode : 0x1")}
	var m hardware.Machine
	if err := readParts(proc, sys, []nic.Port{{Name: "eth0", Driver: "ixgbe", Speed: 1000}}, &m); err != nil {
		t.Fatal(err)
	}
	want := hardware.Machine{TPM: "2.0", SecureBoot: "on", Speeds: []hardware.Speed{{Name: "eth0", Driver: "ixgbe", Now: 1000}}}
	want.Firmware.Microcode = "0x2006e05"
	want.Links = []hardware.Link{{Address: "0000:01:00.0", Device: hardware.Device{Vendor: 0x8086, Device: 0x1563, Class: 0x0200},
		Now: hardware.Rate{MTs: 5000, Lanes: 4}, Most: hardware.Rate{MTs: 8000, Lanes: 8}}}
	if d := cmp.Diff(want, m); d != "" {
		t.Error(d)
	}
	for _, tt := range []struct {
		name            string
		change          func(sys fstest.MapFS)
		tpm, secure, uc string
	}{
		{"nothing", func(sys fstest.MapFS) { clear(sys) }, "none", "no UEFI", "0x1"},
		{"an old TPM", func(sys fstest.MapFS) { sys["class/tpm/tpm0/tpm_version_major"] = file("1") }, "1.2", "on", "0x2006e05"},
		{"a TPM of an old kernel", func(sys fstest.MapFS) { sys["class/tpm/tpm0/tpm_version_major"] = file("") }, "unknown", "on", "0x2006e05"},
		{"off", func(sys fstest.MapFS) { sys[secureBoot] = &fstest.MapFile{Data: []byte{6, 0, 0, 0, 0}} }, "2.0", "off", "0x2006e05"},
		{"no variables", func(sys fstest.MapFS) { delete(sys, secureBoot); sys["firmware/efi/systab"] = file("") }, "2.0", "unknown",
			"0x2006e05"},
	} {
		sys := maps.Clone(sys)
		tt.change(sys)
		var m hardware.Machine
		if err := readParts(proc, sys, nil, &m); err != nil || m.TPM != tt.tpm || m.SecureBoot != tt.secure || m.Firmware.Microcode != tt.uc {
			t.Errorf("%s: %+v, %v", tt.name, m, err)
		}
	}
	if got := microcode(fstest.MapFS{}, fstest.MapFS{}); got != "" {
		t.Errorf("microcode of nothing: %q", got)
	}
}

func TestAsk(t *testing.T) {
	disk := func(path string) hardware.Disk { return hardware.Disk{Candidate: platform.Candidate{Path: path}} }
	m := hardware.Machine{Disks: []hardware.Disk{disk("/dev/sda"), disk("/dev/vda"), disk("/dev/sdb"), disk("/dev/sdc")},
		Speeds: []hardware.Speed{{Name: "eth0", Now: 100}, {Name: "eth1"}, {Name: "eth2"}}}
	m.Disks[3].Bus = "usb"
	if err := Ask(&m, machine.Board{}); err != nil || m.Disks[0].Health != nil {
		t.Errorf("without doors: %v", err)
	}
	err := Ask(&m, machine.Board{
		Health: func(path string) (drive.Health, error) {
			switch path {
			case "/dev/sda":
				return drive.Health{Failing: new(true), Warnings: []string{"it is worn"}, Used: new(int64(101))}, nil
			case "/dev/vda":
				return drive.Health{}, errors.ErrUnsupported
			case "/dev/sdc":
				t.Error("a stick is asked")
			}
			return drive.Health{}, fs.ErrPermission
		},
		Fastest: func(name string) (int, error) {
			switch name {
			case "eth0":
				return 1000, nil
			case "eth1":
				return 0, errors.ErrUnsupported
			}
			return 0, fs.ErrNotExist
		},
	})
	if !errors.Is(err, fs.ErrPermission) || !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "vda") ||
		strings.Contains(err.Error(), "eth1") {
		t.Errorf("%v", err)
	}
	h := m.Disks[0].Health
	if h == nil || !*h.Failing || *h.Used != 101 || h.Warnings[0] != "it is worn" || m.Disks[1].Health != nil || m.Disks[2].Health != nil {
		t.Errorf("%+v", m.Disks)
	}
	if m.Speeds[0].Most != 1000 || m.Speeds[1].Most != 0 || m.Speeds[2].Most != 0 {
		t.Errorf("%+v", m.Speeds)
	}
}
