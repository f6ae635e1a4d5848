package hardware

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gprovision/model/manifest"
	"gprovision/model/platform"
)

// server is a machine whose parts say all that can be asked of them.
func server() Machine {
	m := observed()
	for i := range m.Disks {
		m.Disks[i].Health = &Health{
			Failing: new(false), Temperature: new(int64(38)), Used: new(int64(3)), Spare: new(int64(100)), PowerOn: new(int64(12)),
			Starts: new(int64(9)), Reallocated: new(int64(0)), Pending: new(int64(0)), Uncorrectable: new(int64(0)), LinkErrors: new(int64(1)),
			Written: new(int64(5<<30 - 7)),
		}
	}
	m.Links = []Link{
		{Address: "0000:01:00.0", Device: Device{0x1af4, 0x1041, 0x0200}, Now: Rate{8000, 4}, Most: Rate{8000, 4}},
		{Address: "0000:02:00.0", Device: Device{0x1af4, 0x1041, 0x0200}, Now: Rate{8000, 4}, Most: Rate{8000, 4}},
		{Address: "0000:03:00.0", Device: Device{0x144d, 0xa808, 0x0108}, Now: Rate{8000, 2}, Most: Rate{16000, 4}},
	}
	m.Speeds = []Speed{{"eth0", "igb", 1000, 1000}, {"eth1", "igb", 0, 1000}, {"eth2", "ixgbe", 10000, 10000}}
	m.TPM, m.SecureBoot, m.Firmware.Microcode = "2.0", "on", "0x2006e05"
	m.DMI = memory(qaDMI{}, 0, "DIMM_A1", "8 GB", "2400 MT/s", 72)
	m.DMI = memory(m.DMI.(qaDMI), 2, "DIMM_B1", "16384 MB", "3200 MT/s", 72)
	d := m.DMI.(qaDMI)
	d["17[1] Size"], d["17[1] Locator"] = "No Module Installed", "DIMM_A2"
	d["16[0] Error Correction Type"] = "Multi-bit ECC"
	d["system-family"], d["bios-version"] = "Q", "1.16"
	return m
}

// memory adds a memory device.
func memory(d qaDMI, n int, slot, size, speed string, bits int) qaDMI {
	for k, v := range map[string]string{"Locator": slot, "Size": size, "Configured Memory Speed": speed, "Speed": "3200 MT/s", "Type": "DDR4",
		"Data Width": "64 bits", "Total Width": fmt.Sprintf("%d bits", bits), "Part Number": "HMA81GU7 ", "Manufacturer": "Not Specified"} {
		d[fmt.Sprintf("17[%d] %s", n, k)] = v
	}
	return d
}

const serverSpecs = `{"ValidationData": [{
  "DevCodeName": "q",
  "Recovery": {"Size": 8000000000, "SizeTolerancePct": 1, "Model": "ST*CK"},
  "MainDiskConfigs": [[{"Size": 500000000000, "SizeTolerancePct": 5, "Vendor": "ATA", "Model": "B*", "Quantity": 2}]],
  "FirmwareVer": {"Microcode": "0x2006d00"},
  "Devices": {"PCI": [
    {"Vendor": "0x1af4", "Device": "0x1041", "Class": "0x0200", "Quantity": 2, "FullLink": true},
    {"Vendor": "0x144d", "Device": "0xa808", "Class": "0x0108", "Quantity": 0, "LinkMTs": 8000, "LinkLanes": 2}]},
  "DiskHealth": {"NotFailing": true, "UsedPctMax": 3, "SparePctMin": 100, "CelsiusMax": 38, "PowerOnHoursMax": 12, "StartsMax": 9,
    "ReallocatedMax": 0, "PendingMax": 0, "UncorrectableMax": 0, "LinkErrorsMax": 1, "WrittenGiBMax": 5},
  "Ports": [{"Driver": "igb", "CanMbps": 1000, "LinkMbps": 1000}, {"Driver": "ixgbe", "FullSpeed": true}],
  "MemoryModules": [{"Slot": "DIMM_A1", "SizeMiB": 8192, "SpeedMTs": 2400, "Type": "DDR4", "Part": "HMA81*", "ECC": true},
    {"SizeMiB": 16384, "ECC": true}],
  "MemoryECC": "Multi-bit ECC", "TPM": "2.0", "SecureBoot": "on"
}]}`

func serverSpec(t *testing.T) manifest.Specs {
	t.Helper()
	m, err := manifest.Parse([]byte(serverSpecs))
	if err != nil {
		t.Fatal(err)
	}
	return m.ValidationData[0]
}

// TestParts changes the machine, or the specification, in one thing: the check names it by its own line, and nothing else.
func TestParts(t *testing.T) {
	health := func(change func(h *Health)) func(*manifest.Specs, *Machine) {
		return func(s *manifest.Specs, m *Machine) { change(m.Disks[0].Health) }
	}
	dmi := func(key, value string) func(*manifest.Specs, *Machine) {
		return func(s *manifest.Specs, m *Machine) { m.DMI.(qaDMI)[key] = value }
	}
	tests := []struct {
		name   string
		change func(s *manifest.Specs, m *Machine)
		bad    string
	}{
		{"as specified", func(s *manifest.Specs, m *Machine) {}, ""},
		{"a disk warns", health(func(h *Health) { h.Failing, h.Warnings = new(true), []string{"it is worn", "it is hot"} }),
			"health of /dev/sda, warning"},
		{"used", health(func(h *Health) { h.Used = new(int64(4)) }), "health of /dev/sda, life used"},
		{"spare", health(func(h *Health) { h.Spare = new(int64(99)) }), "health of /dev/sda, spare left"},
		{"temperature", health(func(h *Health) { h.Temperature = new(int64(39)) }), "health of /dev/sda, temperature"},
		{"hours", health(func(h *Health) { h.PowerOn = new(int64(13)) }), "health of /dev/sda, hours on"},
		{"starts", health(func(h *Health) { h.Starts = new(int64(10)) }), "health of /dev/sda, starts"},
		{"reallocated", health(func(h *Health) { h.Reallocated = new(int64(1)) }), "health of /dev/sda, reallocated sectors"},
		{"pending", health(func(h *Health) { h.Pending = new(int64(1)) }), "health of /dev/sda, pending sectors"},
		{"uncorrectable", health(func(h *Health) { h.Uncorrectable = new(int64(1)) }), "health of /dev/sda, uncorrectable errors"},
		{"link errors", health(func(h *Health) { h.LinkErrors = new(int64(2)) }), "health of /dev/sda, link errors"},
		{"written", health(func(h *Health) { h.Written = new(int64(5<<30 + 1)) }), "health of /dev/sda, written"},
		{"the recovery device", func(s *manifest.Specs, m *Machine) { m.Disks[1].Health.Used = new(int64(50)) }, "health of /dev/sdb, life used"},
		{"another medium does not count", func(s *manifest.Specs, m *Machine) {
			d := newDisk("/dev/sdd", 1, platform.USB)
			d.Health = &Health{Failing: new(true)}
			m.Disks = append(m.Disks, d)
		}, ""},
		{"disks that say nothing", func(s *manifest.Specs, m *Machine) {
			m.Disks[0].Health, m.Disks[1].Health, m.Disks[2].Health = nil, &Health{}, nil
		}, ""},
		{"a slower link", func(s *manifest.Specs, m *Machine) { m.Links[1].Now.MTs = 5000 }, "PCI link of 0000:02:00.0 (0x1af4:0x1041)"},
		{"a narrower link", func(s *manifest.Specs, m *Machine) { m.Links[0].Now.Lanes = 1 }, "PCI link of 0000:01:00.0 (0x1af4:0x1041)"},
		{"slower than specified", func(s *manifest.Specs, m *Machine) { m.Links[2].Now.MTs = 2500 }, "PCI link of 0000:03:00.0 (0x144d:0xa808)"},
		{"narrower than specified", func(s *manifest.Specs, m *Machine) { m.Links[2].Now.Lanes = 1 }, "PCI link of 0000:03:00.0 (0x144d:0xa808)"},
		{"faster than specified", func(s *manifest.Specs, m *Machine) { m.Links[2].Now = Rate{16000, 4} }, ""},
		{"links that are not known", func(s *manifest.Specs, m *Machine) {
			m.Links[0].Now, m.Links[1].Most, m.Links[2].Now = Rate{}, Rate{}, Rate{}
		},
			""},
		{"a port that can do less", func(s *manifest.Specs, m *Machine) { m.Speeds[1].Most = 100 }, "network port eth1, what it can do"},
		{"a slower link of a port", func(s *manifest.Specs, m *Machine) { m.Speeds[0].Now = 100 }, "network port eth0, link"},
		{"a link below what the port can", func(s *manifest.Specs, m *Machine) { m.Speeds[2].Now = 1000 },
			"network port eth2, link of what it can do"},
		{"no port with that driver", func(s *manifest.Specs, m *Machine) { m.Speeds = m.Speeds[:2] }, "network ports with driver ixgbe"},
		{"ports that do not say", func(s *manifest.Specs, m *Machine) { m.Speeds[0].Now, m.Speeds[1].Most, m.Speeds[2].Most = 0, 0, 0 }, ""},
		{"another slot", dmi("17[0] Locator", "DIMM_A2"), "memory modules"},
		{"a smaller module", dmi("17[2] Size", "8 GB"), "memory modules"},
		{"a larger module", dmi("17[2] Size", "32 GB"), "memory modules"},
		{"a slower module", dmi("17[0] Configured Memory Speed", "2133 MT/s"), "memory modules"},
		{"a faster module", dmi("17[0] Configured Memory Speed", "3200 MT/s"), ""},
		{"a speed that is not configured", dmi("17[0] Configured Memory Speed", "Unknown"), ""},
		{"another type", dmi("17[0] Type", "DDR3"), "memory modules"},
		{"another part", dmi("17[0] Part Number", "KVR"), "memory modules"},
		{"a part without number", dmi("17[0] Part Number", "Not Specified"), "memory modules"},
		{"without ECC", dmi("17[0] Total Width", "64 bits"), "memory modules"},
		{"a module more", func(s *manifest.Specs, m *Machine) { memory(m.DMI.(qaDMI), 1, "DIMM_A2", "8 GB", "2400 MT/s", 72) }, "memory modules"},
		{"a module less", dmi("17[2] Size", "No Module Installed"), "memory modules"},
		{"no tables", func(s *manifest.Specs, m *Machine) { m.DMI = nil }, "memory modules"},
		{"other error correction", dmi("16[0] Error Correction Type", "None"), "memory error correction"},
		{"error correction that is not known", dmi("16[0] Error Correction Type", "Unknown"), ""},
		{"another TPM", func(s *manifest.Specs, m *Machine) { m.TPM = "1.2" }, "TPM"},
		{"no TPM", func(s *manifest.Specs, m *Machine) { m.TPM = "none" }, "TPM"},
		{"a TPM where none is wanted", func(s *manifest.Specs, m *Machine) { s.TPM = "none" }, "TPM"},
		{"a TPM that is not known", func(s *manifest.Specs, m *Machine) { m.TPM = "unknown" }, ""},
		{"Secure Boot is off", func(s *manifest.Specs, m *Machine) { m.SecureBoot = "off" }, "Secure Boot"},
		{"BIOS", func(s *manifest.Specs, m *Machine) { m.SecureBoot = "no UEFI" }, "Secure Boot"},
		{"Secure Boot is on where it should not", func(s *manifest.Specs, m *Machine) { s.SecureBoot = "off" }, "Secure Boot"},
		{"older microcode", func(s *manifest.Specs, m *Machine) { m.Firmware.Microcode = "0x2006cff" }, "microcode"},
		{"microcode that is not known", func(s *manifest.Specs, m *Machine) { m.Firmware.Microcode = "" }, ""},
		{"another model of disk", func(s *manifest.Specs, m *Machine) { m.Disks[2].Model = "SMALL" }, "main disks"},
		{"the model of another vendor", func(s *manifest.Specs, m *Machine) { m.Disks[1].Model = "STICKY" }, "recovery device"},
	}
	for _, tt := range tests {
		spec, m := serverSpec(t), server()
		tt.change(&spec, &m)
		lines := Compare(spec, m, identity())
		if tt.bad == "recovery device" { // it is a disk more then
			lines = slices.DeleteFunc(lines, func(l Line) bool { return l.Name == "main disks" })
		}
		if got := qaBad(lines); got != tt.bad && got != tt.bad+", PCI device 0x144d:0xa808 class 0x0108" {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.bad)
		}
	}
}

// TestUnsaid holds that what is specified and not said is not checked, and says what was expected.
func TestUnsaid(t *testing.T) {
	m := server()
	m.Disks[0].Health, m.Links[0].Now, m.Links[1].Most, m.Speeds[0].Now, m.TPM, m.SecureBoot, m.Firmware.Microcode = nil, Rate{}, Rate{}, 0,
		"unknown", "", ""
	m.Links = m.Links[:2]
	want := map[string]string{
		"health of /dev/sda, warning": "none", "health of /dev/sda, life used": "at most 3 %", "health of /dev/sda, spare left": "at least 100 %",
		"health of /dev/sda, temperature": "at most 38 °C", "health of /dev/sda, written": "at most 5 GiB",
		"PCI link of 0000:01:00.0 (0x1af4:0x1041)": "8 GT/s ×4", "PCI link of 0000:02:00.0 (0x1af4:0x1041)": "what the device can do",
		"PCI link of 0x144d:0xa808": "a link", "network port eth0, link": "at least", "TPM": "2.0", "Secure Boot": "on", "microcode": "0x2006d00",
	}
	for _, l := range Compare(serverSpec(t), m, identity()) {
		if expected, ok := want[l.Name]; ok {
			if l.Checked || l.OK || l.Found != "not known" || l.Expected != expected || l.Rule == "" {
				t.Errorf("%+v, want %q", l, expected)
			}
			delete(want, l.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("no line for %v", want)
	}
}

// TestUnspecified holds that a specification which says nothing of parts checks none, and shows what they are.
func TestUnspecified(t *testing.T) {
	spec, m := qaSpec(t), server()
	spec.DmiMatches = nil
	m.Disks[0].Health.Failing, m.Disks[0].Health.Warnings = new(true), []string{"it is worn"}
	want := map[string]string{
		"health of /dev/sda": "warning: it is worn, life used 3 %, spare left 100 %, temperature 38 °C, hours on 12 h, starts 9, " +
			"reallocated sectors 0, pending sectors 0, uncorrectable errors 0, link errors 1, written 5 GiB",
		"PCI link of 0000:03:00.0 (0x144d:0xa808)": "8 GT/s ×2, the device can do 16 GT/s ×4",
		"network port eth0, link":                  "1000 Mb/s", "network port eth2, link": "10000 Mb/s",
		"memory modules":          "DIMM_A1 8192 MiB 2400 MT/s DDR4 HMA81GU7 ECC, DIMM_B1 16384 MiB 3200 MT/s DDR4 HMA81GU7 ECC",
		"memory error correction": "Multi-bit ECC", "TPM": "2.0", "Secure Boot": "on", "microcode": "0x2006e05",
	}
	for _, l := range Compare(spec, m, identity()) {
		if l.Wrong() {
			t.Errorf("%+v", l)
		}
		if found, ok := want[l.Name]; ok {
			if l.Checked || l.Found != found || l.Rule != unspecified {
				t.Errorf("%+v\nwant %q", l, found)
			}
			delete(want, l.Name)
		} else if strings.HasPrefix(l.Name, "PCI link") || strings.HasPrefix(l.Name, "network port eth") {
			t.Errorf("%+v", l)
		}
	}
	if len(want) > 0 {
		t.Errorf("no line for %v", want)
	}
}

// TestKinds holds that disks of each kind are compared like those of SATA, by model with any characters, and by size.
func TestKinds(t *testing.T) {
	for bus, model := range map[platform.Bus]string{
		platform.NVMe: "Samsung SSD 970 EVO 500GB", platform.SCSI: "ST500NM0011", platform.MMC: "DG4064", platform.Virtio: "",
		platform.SATA: "Samsung SSD 860",
	} {
		d := newDisk("/dev/x", 500107862016, bus)
		d.Model = model
		want := manifest.Disk{Size: 500107862016, Model: model}
		if len(model) > 4 {
			want.Model = model[:2] + "*" + model[len(model)-2:]
		}
		spec := manifest.Specs{MainDiskConfigs: [][]manifest.Disk{{want}}}
		one := platform.Identity{Variant: platform.Variant{RecoveryMedia: platform.RecoveryMedia{ValidateRDMethod: platform.ValidateUSB}}}
		if bad := qaBad(Compare(spec, Machine{Disks: []Disk{d}}, one)); bad != "" {
			t.Errorf("%s: %s", bus, bad)
		}
		d.Size -= 4096
		if bad := qaBad(Compare(spec, Machine{Disks: []Disk{d}}, one)); bad != "main disks" {
			t.Errorf("%s, smaller: %q", bus, bad)
		}
		d.Size += 4096
		d.Model = "another"
		if bad := qaBad(Compare(spec, Machine{Disks: []Disk{d}}, one)); bad != "main disks" && model != "" {
			t.Errorf("%s, another model: %q", bus, bad)
		}
	}
}

func TestMebibytes(t *testing.T) {
	for in, want := range map[string]int64{"512 kB": 0, "2048 kB": 2, "8192 MB": 8192, "8 GB": 8192, "1 TB": 1 << 20, "Unknown": 0, "-1 GB": 0,
		"8": 0, "": 0, "99999999999 TB": 0} {
		if got := mebibytes(in); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

// TestDumpParts holds that a machine is what was written down of it, that two links of one device are written down as the lesser of the
// two, and that what the machine does not say is left out.
func TestDumpParts(t *testing.T) {
	m, v := server(), identity().Variant
	v.DevCodeName = "q"
	m.Links[1].Now = Rate{5000, 2}
	for _, change := range []func(){
		func() {},
		func() { m.TPM, m.SecureBoot, m.Firmware.Microcode = "unknown", "no UEFI", "" },
		func() { m.DMI.(qaDMI)["16[0] Error Correction Type"] = "Unknown" },
		func() { m.DMI = nil },
	} {
		change()
		b, err := Dump(m, v, "/dev/sdb")
		if err != nil {
			t.Fatal(err)
		}
		p, err := manifest.Parse(fmt.Appendf(nil, `{"ValidationData": [%s]}`, b))
		if err != nil {
			t.Fatal(err)
		}
		spec := p.ValidationData[0]
		if bad := qaBad(Compare(spec, m, identity())); bad != "" {
			t.Errorf("%s\n%s", bad, b)
		}
		for _, r := range p.Refusals(manifest.Rules{Prefix: "X.", BootFile: "b", Platform: spec.DevCodeName}) {
			if strings.HasPrefix(r.Path, "ValidationData[0].") {
				t.Errorf("%s: %s", r.Path, r.Text)
			}
		}
		if l := spec.Devices.PCI[1]; l.LinkMTs != 5000 || l.LinkLanes != 2 {
			t.Errorf("%+v", spec.Devices.PCI)
		}
		if m.DMI != nil && len(spec.MemoryModules) != 2 {
			t.Errorf("%+v", spec.MemoryModules)
		}
	}
}

// TestLacks holds that only what is still to come is waited for.
func TestLacks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(m *Machine)
		lacks  bool
	}{
		{"all is there", func(m *Machine) {}, false},
		{"a main disk", func(m *Machine) { m.Disks = m.Disks[:2] }, true},
		{"the recovery device", func(m *Machine) { m.Disks[1].Size = 1 << 30 }, true},
		{"a network port", func(m *Machine) { m.NICs = m.NICs[:2] }, true},
		{"a port of its own", func(m *Machine) { m.NICs[0].MAC = "00:11:22:33:44:56" }, true},
		{"a PCI device", func(m *Machine) { m.PCI = m.PCI[:2] }, true},
		{"a USB device", func(m *Machine) { m.USB = nil }, true},
		{"memory", func(m *Machine) { m.RamMegs /= 2 }, false},
		{"firmware", func(m *Machine) { m.Firmware.BIOS = "1.15" }, false},
		{"another serial number", func(m *Machine) { m.Serial = "X" }, false},
	} {
		m := observed()
		tt.change(&m)
		if got := Lacks(Compare(qaSpec(t), m, identity())); got != tt.lacks {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
