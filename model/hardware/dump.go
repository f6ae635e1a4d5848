package hardware

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gprovision/model/manifest"
	"gprovision/model/platform"
)

// Dump returns what was observed as a specification in the schema of the manifest, for its author to start from. recovery
// is the path of the recovery device; if it is empty all disks are listed as main disks, and a note says so. On a platform with one disk
// that is a main disk.
func Dump(m Machine, v platform.Variant, recovery string) ([]byte, error) {
	oui := v.MACPrefixes()
	if v.OneDisk() {
		recovery = ""
	}
	s := manifest.Specs{DevCodeName: v.DevCodeName, CPUInfo: m.CPU, RamMegs: m.RamMegs, FirmwareVer: m.Firmware, TotalNics: new(len(m.NICs))}
	var own []string
	for _, p := range m.NICs {
		if len(oui) == 0 || slices.ContainsFunc(oui, func(x string) bool { return strings.HasPrefix(p.MAC, x) }) {
			own = append(own, p.MAC)
		}
	}
	slices.Sort(own)
	s.NumOUINics, s.OUINicsSequential = new(len(own)), new(sequential(own))
	var main []manifest.Disk
	for _, d := range m.Disks {
		x := manifest.Disk{Size: d.Size, SizeTolerancePct: 1, Vendor: d.Vendor, Model: d.Model, Quantity: 1}
		if d.Path == recovery && recovery != "" {
			x.Quantity = 0
			s.Recovery = x
			continue
		}
		if i := slices.IndexFunc(main, func(d manifest.Disk) bool {
			d.Quantity = 1
			return d == x
		}); i >= 0 {
			main[i].Quantity++
		} else {
			main = append(main, x)
		}
	}
	if main != nil {
		s.MainDiskConfigs = [][]manifest.Disk{main}
	}
	if recovery == "" && !v.OneDisk() {
		s.Recovery.Vendor = "(move the entry of the recovery device here from MainDiskConfigs)"
	}
	s.Devices.PCI, s.Devices.USB = count(m.PCI, true), count(m.USB, false)
	specify(&s, m)
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the detected hardware: %w", err)
	}
	return append(b, '\n'), nil
}

// count groups equal devices.
func count(devices []Device, pci bool) []manifest.BusDevice {
	var out []manifest.BusDevice
	for _, d := range devices {
		x := manifest.BusDevice{Vendor: d.Vendor, Device: d.Device, Class: d.Class}
		if i := slices.IndexFunc(out, func(o manifest.BusDevice) bool { return d == Device{o.Vendor, o.Device, o.Class} }); i >= 0 {
			out[i].Quantity++
			continue
		}
		x.Quantity = 1
		if pci {
			x.HumanDescription = pciClass(d.Class)
		}
		out = append(out, x)
	}
	return out
}

// pciClass returns the name of a class and subclass (PCI Code and ID Assignment Specification), or "".
func pciClass(c manifest.ID) string {
	switch c {
	case 0x0100:
		return "SCSI controller"
	case 0x0104:
		return "RAID controller"
	case 0x0106:
		return "SATA controller"
	case 0x0107:
		return "SAS controller"
	case 0x0108:
		return "NVMe controller"
	case 0x0200:
		return "Ethernet"
	case 0x0300:
		return "VGA"
	case 0x0403:
		return "audio"
	case 0x0600:
		return "host bridge"
	case 0x0601:
		return "ISA bridge"
	case 0x0604:
		return "PCI bridge"
	case 0x0780:
		return "communication controller"
	case 0x0800:
		return "interrupt controller"
	case 0x0880:
		return "system peripheral"
	case 0x0c03:
		return "USB controller"
	case 0x0c05:
		return "SMBus"
	case 0x1101:
		return "performance counters"
	case 0x1180:
		return "signal processing"
	case 0xff00:
		return "not assigned"
	}
	return ""
}
