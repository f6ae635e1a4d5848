package provision

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"gprovision/hw/block"
	"gprovision/hw/nic"
	"gprovision/model/fault"
	"gprovision/model/manifest"
)

// qaDMI answers as a table of strings does.
type qaDMI map[string]string

func (d qaDMI) Keyword(k string) string { return d[k] }
func (d qaDMI) Field(typ, n int, name string) string {
	return d[fmt.Sprintf("%d[%d] %s", typ, n, name)]
}

// qaMachine is cut down from what Linux 6.1 shows in a QEMU q35 machine with two sockets of two processors each.
func qaMachine() (proc, sys fstest.MapFS) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	var cpuinfo strings.Builder
	sys = fstest.MapFS{}
	for i := range 4 {
		fmt.Fprintf(&cpuinfo, "processor\t: %d\nvendor_id\t: AuthenticAMD\nmodel name\t: QEMU Virtual CPU version 2.5+\ncache size\t: 512 KB\n\n", i)
		sys[fmt.Sprintf("devices/system/cpu/cpu%d/topology/physical_package_id", i)] = file(fmt.Sprint(i / 2))
	}
	sys["devices/system/cpu/cpufreq/boost"] = file("1")
	sys["devices/system/cpu/cpuidle/current_driver"] = file("none")
	proc = fstest.MapFS{"cpuinfo": file(cpuinfo.String()), "meminfo": file("MemTotal:        2030424 kB\nMemFree:         1817220 kB")}
	for i, d := range [][3]string{{"0x8086", "0x29c0", "0x060000"}, {"0x1af4", "0x1041", "0x020000"}, {"0x1af4", "0x1041", "0x020000"}} {
		dir := fmt.Sprintf("devices/pci0000:00/0000:00:0%d.0", i)
		link := &fstest.MapFile{Mode: os.ModeSymlink | 0o777, Data: []byte("../../../" + dir)}
		sys[fmt.Sprintf("bus/pci/devices/0000:00:0%d.0", i)] = link
		sys[dir+"/vendor"], sys[dir+"/device"], sys[dir+"/class"] = file(d[0]), file(d[1]), file(d[2])
	}
	sys["bus/usb/devices/usb1/idVendor"], sys["bus/usb/devices/usb1/idProduct"], sys["bus/usb/devices/usb1/bDeviceClass"] = file("1d6b"), file("0002"), file("09")
	sys["bus/usb/devices/1-0:1.0/bInterfaceClass"] = file("09")
	return proc, sys
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
  "Devices": {"PCI": [{"HumanDescription": "network", "Vendor": "0x1af4", "Device": "0x1041", "Class": "0x0200", "Quantity": 2}, {"Vendor": "0x10de", "Device": "1", "Class": "0x0300", "Quantity": 0}],
              "USB": [{"Vendor": "0x1d6b", "Device": "0x0002", "Class": "0x0009", "Quantity": 1}]},
  "SerNumRegex": "^S[0-9]+$",
  "DmiMatches": {"_": "comment", "_note": "comment", "system-family": "Q", "17[1] Size": "2 GB"}
}]}`

func qaObserved(t *testing.T) Observed {
	t.Helper()
	proc, sys := qaMachine()
	dmi := qaDMI{"bios-version": "1.16", "system-family": "Q", "17[1] Size": "2 GB"}
	disks := []block.Disk{
		{Path: "/dev/sda", Size: 500107862016, Bus: block.SATA, Vendor: "ATA", Model: "BIG"},
		{Path: "/dev/sdb", Size: 8000000001, Bus: block.USB, Vendor: "Acme", Model: "STICK", Removable: true},
		{Path: "/dev/sdc", Size: 512110190592, Bus: block.SATA, Vendor: "ATA", Model: "BIG"},
	}
	ports := []nic.Port{{Name: "eth0", MAC: "56:78:90:00:00:ff"}, {Name: "eth1", MAC: "56:78:90:00:01:00"}, {Name: "eth2", MAC: "00:11:22:33:44:55"}}
	o, err := Collect(proc, sys, dmi, disks, ports, "S12")
	if err != nil {
		t.Fatal(err)
	}
	return o
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

func TestCollect(t *testing.T) {
	o := qaObserved(t)
	if o.CPU != (manifest.CPU{Model: "QEMU Virtual CPU version 2.5+", Cores: 4, Sockets: 2}) || o.RamMegs != 1982 || len(o.PCI) != 3 || len(o.USB) != 1 || o.Firmware.BIOS != "1.16" {
		t.Errorf("%+v", o)
	}
	if _, err := Collect(fstest.MapFS{}, fstest.MapFS{}, nil, nil, nil, ""); err == nil {
		t.Error("an empty /proc is fine?")
	}
	if o, err := Collect(os.DirFS("/proc"), os.DirFS("/sys"), nil, nil, nil, ""); err != nil || o.CPU.Cores == 0 || o.RamMegs == 0 {
		t.Errorf("this machine: %+v, %v", o, err)
	}
}

func TestValidate(t *testing.T) {
	rules := Rules{OUI: []string{"56:78:90"}, Recovery: "/dev/sdb"}
	tests := []struct {
		name   string
		change func(*manifest.Specs, *Observed, *Rules)
		bad    string
	}{
		{"as specified", func(*manifest.Specs, *Observed, *Rules) {}, ""},
		{"recovery device not chosen yet", func(s *manifest.Specs, o *Observed, r *Rules) { r.Recovery = "" }, ""},
		{"two that fit as recovery device", func(s *manifest.Specs, o *Observed, r *Rules) {
			r.Recovery = ""
			d := o.Disks[1]
			d.Path = "/dev/sdd"
			o.Disks = append(slices.Clone(o.Disks), d)
		}, "recovery device"},
		{"another stick", func(s *manifest.Specs, o *Observed, r *Rules) {
			o.Disks = append(slices.Clone(o.Disks), block.Disk{Path: "/dev/sdd", Size: 1, Bus: block.USB})
		}, ""},
		{"another disk", func(s *manifest.Specs, o *Observed, r *Rules) {
			o.Disks = append(slices.Clone(o.Disks), block.Disk{Path: "/dev/sdd", Size: 1, Bus: block.SATA})
		}, "main disks"},
		{"a disk less", func(s *manifest.Specs, o *Observed, r *Rules) { o.Disks = o.Disks[:2] }, "main disks"},
		{"wrong recovery device", func(s *manifest.Specs, o *Observed, r *Rules) { s.Recovery.Model = "OTHER" }, "recovery device"},
		{"the other alternative, in the order that a first fit gets wrong", func(s *manifest.Specs, o *Observed, r *Rules) {
			o.Disks = []block.Disk{o.Disks[1], {Path: "/dev/sdc", Size: 300000000000, Bus: block.NVMe}, {Path: "/dev/sda", Size: 306000000000, Bus: block.NVMe}}
		}, ""},
		{"sizes", func(s *manifest.Specs, o *Observed, r *Rules) { s.MainDiskConfigs[0][0].SizeTolerancePct = 1 }, "main disks"},
		{"no main disks in the manifest", func(s *manifest.Specs, o *Observed, r *Rules) { s.MainDiskConfigs = nil }, "main disks"},
		{"processor", func(s *manifest.Specs, o *Observed, r *Rules) { o.CPU.Model, o.CPU.Sockets = "x", 1 }, "processor model, processor sockets"},
		{"memory at the edge", func(s *manifest.Specs, o *Observed, r *Rules) { s.RamMegs, o.RamMegs = 1000, 1009 }, ""},
		{"memory", func(s *manifest.Specs, o *Observed, r *Rules) { s.RamMegs, o.RamMegs = 1000, 1010 }, "memory"},
		{"ports", func(s *manifest.Specs, o *Observed, r *Rules) { o.NICs = o.NICs[1:] }, "network ports with own address, prefix 56:78:90, network ports"},
		{"sequence", func(s *manifest.Specs, o *Observed, r *Rules) { o.NICs[1].MAC = "56:78:90:00:01:01" }, "own addresses follow one another"},
		{"device that must not be there", func(s *manifest.Specs, o *Observed, r *Rules) {
			o.PCI = append(o.PCI, Device{0x10de, 1, 0x0300})
		}, "PCI device 0x10de:0x0001 class 0x0300"},
		{"device missing", func(s *manifest.Specs, o *Observed, r *Rules) { o.PCI, o.USB = o.PCI[:2], nil }, "USB device 0x1d6b:0x0002 class 0x0009, PCI device 0x1af4:0x1041 class 0x0200 (network)"},
		{"DMI", func(s *manifest.Specs, o *Observed, r *Rules) { o.DMI.(qaDMI)["system-family"] = "R" }, "DMI system-family"},
		{"DMI key", func(s *manifest.Specs, o *Observed, r *Rules) { s.DmiMatches["2[x] y"] = "" }, "DMI 2[x] y"},
		{"no DMI", func(s *manifest.Specs, o *Observed, r *Rules) { o.DMI = nil }, "DMI 17[1] Size, DMI system-family"},
		{"firmware", func(s *manifest.Specs, o *Observed, r *Rules) { o.Firmware.BIOS = "1.15" }, "firmware BIOS"},
		{"serial", func(s *manifest.Specs, o *Observed, r *Rules) { o.Serial = "X1" }, "serial number"},
		{"serial of a named platform", func(s *manifest.Specs, o *Observed, r *Rules) { o.Serial, r.Named = "X1", true }, ""},
		{"serial with a wrong expression", func(s *manifest.Specs, o *Observed, r *Rules) { s.SerNumRegex, r.Named = "(", true }, "serial number"},
		{"everything wrong", func(s *manifest.Specs, o *Observed, r *Rules) { *o = Observed{} },
			"processor model, logical processors, processor sockets, network ports with own address, prefix 56:78:90, network ports, memory, firmware BIOS, recovery device, main disks, USB device 0x1d6b:0x0002 class 0x0009, PCI device 0x1af4:0x1041 class 0x0200 (network), DMI 17[1] Size, DMI system-family, serial number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, o, r := qaSpec(t), qaObserved(t), rules
			tt.change(&s, &o, &r)
			lines := Validate(s, o, r)
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
	lines := Validate(s, qaObserved(t), Rules{Recovery: "/dev/sdb"})
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
}

// TestNamedSerial: the serial number of a platform that was named is not compared, and nothing says that it was.
func TestNamedSerial(t *testing.T) {
	for _, l := range Validate(qaSpec(t), qaObserved(t), Rules{OUI: []string{"56:78:90"}, Recovery: "/dev/sdb", Named: true}) {
		if l.Name == "serial number" && !l.OK {
			t.Errorf("one that fits: %+v", l)
		}
	}
	o := qaObserved(t)
	o.Serial = "X1"
	for _, l := range Validate(qaSpec(t), o, Rules{OUI: []string{"56:78:90"}, Recovery: "/dev/sdb", Named: true}) {
		if l.Name == "serial number" && (l.Checked || l.OK) {
			t.Errorf("one that does not: %+v", l)
		}
	}
}

// TestDump checks that a machine passes the specification that was dumped from it.
func TestDump(t *testing.T) {
	o := qaObserved(t)
	b, err := Dump(o, "q", "/dev/sdb", []string{"56:78:90"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse([]byte(`{"ValidationData":[` + string(b) + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := qaBad(Validate(m.ValidationData[0], o, Rules{OUI: []string{"56:78:90"}, Recovery: "/dev/sdb"})); got != "" {
		t.Errorf("does not pass its own dump: %s\n%s", got, b)
	}
	if b, err = Dump(o, "q", "", nil); err != nil || !strings.Contains(string(b), "move the entry") {
		t.Errorf("%v\n%s", err, b)
	}
}
