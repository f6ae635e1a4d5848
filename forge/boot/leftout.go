package boot

import (
	"path"
	"slices"
	"strings"
)

// LeftOut is a driver of the root filesystem's kernel that the artifact does not have.
type LeftOut struct {
	// Name is the module's, and Path where it lies below the directory of modules.
	Name string `json:"name"`
	Path string `json:"path"`
	// Drives is "disks", "network ports", or empty: something else, which is said only of modules that were added to the kernel.
	Drives string `json:"drives,omitempty"`
	// Why is one of the Why constants.
	Why string `json:"why"`
}

// Why a driver is left out.
const (
	WhyList     = "list"     // it drives what no unit needs, see docs/formats/boot-artifact.md; Options.Modules takes it
	WhyFirmware = "firmware" // it needs firmware that the root filesystem lacks
	WhyOther    = "other"    // it was added to the kernel and drives neither disks nor wired network ports, as far as can be seen
)

// Where drivers of disks and of wired network ports are, as in the lists of module.go.
var (
	diskPlaces = []string{"drivers/ata/", "drivers/nvme/host/", "drivers/scsi/", "drivers/message/fusion/", "drivers/block/", "drivers/mmc/", "drivers/pci/controller/vmd", "drivers/usb/storage/", "drivers/ufs/"}
	portPlaces = []string{"drivers/net/ethernet/", "drivers/net/usb/", "drivers/net/phy/", "drivers/net/mdio/", "drivers/net/vmxnet3/", "drivers/net/hyperv/", "drivers/net/virtio_net"}
)

// leftOut compares the modules of the root filesystem with those that has knows: it looks at what is in the artifact, not at what was
// meant to be. Drivers without a device that the kernel would ask them for are passed over.
func (m *modules) leftOut(has func(path string) bool) []LeftOut {
	asked := map[string]bool{}
	for _, line := range m.lines["modules.alias"] {
		if w := strings.Fields(line); len(w) == 3 && isHardware(w[1]) {
			asked[normal(w[2])] = true
		}
	}
	var out []LeftOut
	for name, file := range m.files {
		place, why, what := m.place[name], WhyList, drivesOther
		switch {
		case has(path.Join(m.dir, plainName(file)+zstdSuffix)):
			continue
		case place == "":
			if what = m.added[name]; what == drivesOther {
				why = WhyOther
			}
		case !asked[name]:
			continue
		case fits(place, diskPlaces):
			what = drivesDisks
		case fits(place, portPlaces):
			what = drivesPorts
		default:
			continue
		}
		if place != "" && !fits(place, unwanted) && fits(place, firmwareOnly) {
			why = WhyFirmware
		}
		out = append(out, LeftOut{Name: name, Path: file, Drives: string(what), Why: why})
	}
	slices.SortFunc(out, func(a, b LeftOut) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// lacking returns what the kernel has no driver for, neither as a module nor inside, though most units need it.
func (m *modules) lacking() []string {
	inside := map[string]bool{}
	for _, line := range split(m.built) {
		inside[moduleName(line)] = true
	}
	var out []string
	for _, d := range [][2]string{{"ahci", "SATA disks"}, {"nvme", "NVMe disks"}, {"sd_mod", "SATA, SCSI and USB disks"}, {"xhci_hcd", "USB"}, {"usb_storage", "USB disks"}, {"ext4", "the filesystem of units"}} {
		if m.files[d[0]] == "" && !inside[d[0]] {
			out = append(out, d[0]+" ("+d[1]+")")
		}
	}
	return out
}
