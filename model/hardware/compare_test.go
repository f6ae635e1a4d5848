package hardware

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/platform"
)

// qaDMI answers as a table of strings does.
type qaDMI map[string]string

func (d qaDMI) Keyword(k string) string { return d[k] }
func (d qaDMI) Field(typ, n int, name string) string {
	return d[fmt.Sprintf("%d[%d] %s", typ, n, name)]
}

const qaSpecs = `{"ValidationData": [{
  "DevCodeName": "q",
  "CPUInfo": {"Model": "QEMU Virtual CPU version 2.5+", "Cores": 4, "Sockets": 2},
  "RamMegs": 1983,
  "Recovery": {"Size": 8000000000, "SizeTolerancePct": 1, "Model": "STICK"},
  "MainDiskConfigs": [
    [{"Size": 500000000000, "SizeTolerancePct": 5, "Vendor": "ATA", "Model": "BIG", "Quantity": 2}],
    [{"Size": 300000000000, "SizeTolerancePct": 1}, {"Size": 301000000000, "SizeTolerancePct": 2}]
  ],
  "NumOUINics": 2, "OUINicsSequential": true, "TotalNics": 3,
  "FirmwareVer": {"BIOS": "1.16"},
  "Devices": {"PCI": [{"HumanDescription": "network", "Vendor": "0x1af4", "Device": "0x1041", "Class": "0x0200", "Quantity": 2},
    {"Vendor": "0x10de", "Device": "1", "Class": "0x0300", "Quantity": 0}],
              "USB": [{"Vendor": "0x1d6b", "Device": "0x0002", "Class": "0x0009", "Quantity": 1}]},
  "SerNumRegex": "^S[0-9]+$",
  "DmiMatches": {"_": "comment", "_note": "comment", "system-family": "Q", "17[1] Size": "2 GB"}
}]}`

func newDisk(path string, size int64, bus platform.Bus) Disk {
	return Disk{Candidate: platform.Candidate{Path: path, Size: size, Bus: string(bus)}}
}

// observed is what was found in the machine that qaSpecs speaks of.
func observed() Machine {
	big, stick, other := newDisk("/dev/sda", 500107862016, platform.SATA), newDisk("/dev/sdb", 8000000001, platform.USB),
		newDisk("/dev/sdc", 512110190592, platform.SATA)
	big.Vendor, big.Model, other.Vendor, other.Model = "ATA", "BIG", "ATA", "BIG"
	stick.Vendor, stick.Model, stick.Removable = "Acme", "STICK", true
	return Machine{
		CPU:      manifest.CPU{Model: "QEMU Virtual CPU version 2.5+", Cores: 4, Sockets: 2},
		RamMegs:  1982,
		NICs:     []Port{{"eth0", "56:78:90:00:00:ff"}, {"eth1", "56:78:90:00:01:00"}, {"eth2", "00:11:22:33:44:55"}},
		Disks:    []Disk{big, stick, other},
		PCI:      []Device{{0x8086, 0x29c0, 0x0600}, {0x1af4, 0x1041, 0x0200}, {0x1af4, 0x1041, 0x0200}},
		USB:      []Device{{0x1d6b, 2, 9}},
		DMI:      qaDMI{"bios-version": "1.16", "system-family": "Q", "17[1] Size": "2 GB"},
		Firmware: manifest.Firmware{BIOS: "1.16"},
		Serial:   "S12",
	}
}

// identity is the platform of that machine.
func identity() platform.Identity {
	return platform.Identity{From: "baseboard", Variant: platform.Variant{
		NICInfo:       platform.NICInfo{MACPrefix: []string{"56:78:90"}},
		RecoveryMedia: platform.RecoveryMedia{ValidateRDMethod: platform.ValidateUSB},
	}}
}

func qaSpec(t *testing.T) manifest.Specs {
	t.Helper()
	m, err := manifest.Parse([]byte(qaSpecs))
	if err != nil {
		t.Fatal(err)
	}
	return m.ValidationData[0]
}

// qaBad returns the names of the lines that do not hold.
func qaBad(lines []Line) string {
	var s []string
	for _, l := range lines {
		if l.Wrong() {
			s = append(s, l.Name)
		}
	}
	return strings.Join(s, ", ")
}

func TestCompare(t *testing.T) {
	tests := []struct {
		name   string
		change func(*manifest.Specs, *Machine, *platform.Identity)
		bad    string
	}{
		{"as specified", func(*manifest.Specs, *Machine, *platform.Identity) {}, ""},
		{"two that fit as recovery device", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			d := m.Disks[1]
			d.Path = "/dev/sdd"
			m.Disks = append(slices.Clone(m.Disks), d)
		}, "recovery device"},
		{"a recovery device on another bus", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.Disks[1].Bus = "sata" },
			"recovery device"},
		{"another stick", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			m.Disks = append(slices.Clone(m.Disks), newDisk("/dev/sdd", 1, platform.USB))
		}, ""},
		{"another disk", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			m.Disks = append(slices.Clone(m.Disks), newDisk("/dev/sdd", 1, platform.SATA))
		}, "main disks"},
		{"a disk less", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.Disks = m.Disks[:2] }, "main disks"},
		{"wrong recovery device", func(s *manifest.Specs, m *Machine, id *platform.Identity) { s.Recovery.Model = "OTHER" }, "recovery device"},
		{"the other alternative, in the order that a first fit gets wrong", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			m.Disks = []Disk{m.Disks[1], newDisk("/dev/sdc", 300000000000, platform.NVMe),
				newDisk("/dev/sda", 306000000000, platform.NVMe)}
		}, ""},
		{"sizes", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			s.MainDiskConfigs[0][0].SizeTolerancePct = 1
		}, "main disks"},
		{"no main disks in the manifest", func(s *manifest.Specs, m *Machine, id *platform.Identity) { s.MainDiskConfigs = nil }, "main disks"},
		{"processor", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.CPU.Model, m.CPU.Sockets = "x", 1 },
			"processor model, processor sockets"},
		{"one field of the processors, which is right", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			s.CPUInfo = manifest.CPU{Cores: 4}
		}, ""},
		{"one field of the processors", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			s.CPUInfo = manifest.CPU{Sockets: 4}
		}, "processor sockets"},
		{"a bus that was not read", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.PCI = nil },
			"PCI device 0x1af4:0x1041 class 0x0200 (network), PCI device 0x10de:0x0001 class 0x0300"},
		{"memory at the edge", func(s *manifest.Specs, m *Machine, id *platform.Identity) { s.RamMegs, m.RamMegs = 1000, 1009 }, ""},
		{"memory", func(s *manifest.Specs, m *Machine, id *platform.Identity) { s.RamMegs, m.RamMegs = 1000, 1010 }, "memory"},
		{"ports", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.NICs = m.NICs[1:] },
			"network ports with own address, prefix 56:78:90, network ports"},
		{"sequence", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.NICs[1].MAC = "56:78:90:00:01:01" },
			"own addresses follow one another"},
		{"device that must not be there", func(s *manifest.Specs, m *Machine, id *platform.Identity) {
			m.PCI = append(m.PCI, Device{0x10de, 1, 0x0300})
		}, "PCI device 0x10de:0x0001 class 0x0300"},
		{"device missing", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.PCI, m.USB = m.PCI[:2], nil },
			"USB device 0x1d6b:0x0002 class 0x0009, PCI device 0x1af4:0x1041 class 0x0200 (network)"},
		{"DMI", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.DMI.(qaDMI)["system-family"] = "R" }, "DMI system-family"},
		{"DMI key", func(s *manifest.Specs, m *Machine, id *platform.Identity) { s.DmiMatches["2[x] y"] = "" }, "DMI 2[x] y"},
		{"no DMI", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.DMI = nil }, "DMI 17[1] Size, DMI system-family"},
		{"firmware", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.Firmware.BIOS = "1.15" }, "firmware BIOS"},
		{"serial", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.Serial = "X1" }, "serial number"},
		{"serial of a named platform", func(s *manifest.Specs, m *Machine, id *platform.Identity) { m.Serial, id.From = "X1", "name" }, ""},
		{"serial with a wrong expression", func(s *manifest.Specs, m *Machine, id *platform.Identity) { s.SerNumRegex, id.From = "(", "name" },
			"serial number"},
		{"everything wrong", func(s *manifest.Specs, m *Machine, id *platform.Identity) { *m = Machine{} },
			"processor model, logical processors, processor sockets, " +
				"network ports with own address, prefix 56:78:90, network ports, " +
				"memory, firmware BIOS, recovery device, main disks, USB device 0x1d6b:0x0002 class 0x0009, " +
				"PCI device 0x1af4:0x1041 class 0x0200 (network), PCI device 0x10de:0x0001 class 0x0300, " +
				"DMI 17[1] Size, DMI system-family, serial number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, m, id := qaSpec(t), observed(), identity()
			tt.change(&s, &m, &id)
			lines := Compare(s, m, id)
			if got := qaBad(lines); got != tt.bad {
				t.Errorf("got %q, want %q", got, tt.bad)
			}
			if err := Judge(lines); (err == nil) != (tt.bad == "") || err != nil && fault.Of(err) != fault.QAMismatch {
				t.Errorf("judged: %v", err)
			}
			for _, l := range lines {
				if l.Name == "" || l.Found == "" || l.Expected == "" || l.Rule == "" {
					t.Errorf("an empty part in %+v", l)
				}
			}
		})
	}
}

func TestNotSpecified(t *testing.T) {
	s := manifest.Specs{MainDiskConfigs: [][]manifest.Disk{{{Size: 500000000000, SizeTolerancePct: 5, Quantity: 2}}}}
	lines := Compare(s, observed(), platform.Identity{})
	if got := qaBad(lines); got != "" || len(lines) < 8 {
		t.Errorf("%q in %v", got, lines)
	}
	for _, l := range lines { // only the disks were compared
		if compared := l.Name == "main disks"; l.Checked != compared || l.OK != compared {
			t.Errorf("%+v", l)
		}
	}
	if got, want := Tally(lines), fmt.Sprintf("1 checked, %d not checked", len(lines)-1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := Judge(lines); err != nil {
		t.Error(err)
	}
	var names []string
	for _, l := range lines {
		names = append(names, l.Name)
	}
	for _, name := range []string{"processor", "memory", "network ports", "recovery device", "other media", "other PCI devices",
		"other USB devices", "DMI", "firmware BIOS", "serial number"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not among what was not compared: %q", name, names)
		}
	}
	s = qaSpec(t)
	s.CPUInfo = manifest.CPU{Cores: 4}
	for _, l := range Compare(s, observed(), identity()) {
		if other := l.Name == "processor model" || l.Name == "processor sockets" || l.Name == "other PCI devices"; other && l.Checked {
			t.Errorf("%+v", l)
		}
		if l.Name == "other PCI devices" && l.Found != "1 × 0x8086:0x29c0 class 0x0600" {
			t.Errorf("%+v", l)
		}
	}
}

// TestNamedSerial: the serial number of a platform that was named is not compared, and nothing says that it was.
func TestNamedSerial(t *testing.T) {
	id := identity()
	id.From = "name"
	for _, l := range Compare(qaSpec(t), observed(), id) {
		if l.Name == "serial number" && !l.OK {
			t.Errorf("one that fits: %+v", l)
		}
	}
	m := observed()
	m.Serial = "X1"
	for _, l := range Compare(qaSpec(t), m, id) {
		if l.Name == "serial number" && (l.Checked || l.OK) {
			t.Errorf("one that does not: %+v", l)
		}
	}
}

// TestDump checks that a machine passes the specification that was dumped from it.
func TestDump(t *testing.T) {
	machine := observed()
	b, err := Dump(machine, identity().Variant, "/dev/sdb")
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse([]byte(`{"ValidationData":[` + string(b) + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := qaBad(Compare(m.ValidationData[0], machine, identity())); got != "" {
		t.Errorf("does not pass its own dump: %s\n%s", got, b)
	}
	if b, err = Dump(machine, platform.Variant{}, ""); err != nil || !strings.Contains(string(b), "move the entry") {
		t.Errorf("%v\n%s", err, b)
	}
}

// TestPCIClass: the classes of devices that units have are named in a dumped specification, others are not.
func TestPCIClass(t *testing.T) {
	names := map[string]manifest.ID{}
	for c := range manifest.ID(0xffff) {
		name := pciClass(c)
		if name == "" {
			continue
		}
		if other, ok := names[name]; ok {
			t.Errorf("%s and %s are both %q", c, other, name)
		}
		names[name] = c
	}
	if names["NVMe controller"] != 0x0108 || names["Ethernet"] != 0x0200 || names["USB controller"] != 0x0c03 {
		t.Errorf("%v", names) // PCI Code and ID Assignment Specification, 1.2, 1.3 and 1.13
	}
}
