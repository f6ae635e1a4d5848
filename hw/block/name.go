package block

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// IDs returns the names that udev gives the disk in /dev/disk/by-id, as far as sysfs tells enough for them: nvme-, virtio-, mmc-,
// usb-, wwn- and, for disks whose model has at most 16 characters, ata- (systemd rules.d/60-persistent-storage.rules).
func (d Disk) IDs() []string {
	var out []string
	add := func(format string, a ...string) {
		var v []any
		for _, s := range a {
			if s == "" {
				return
			}
			v = append(v, udevName(s))
		}
		out = append(out, fmt.Sprintf(format, v...))
	}
	switch d.Bus {
	case NVMe:
		add("nvme-%s_%s", d.Model, d.Serial)
		if strings.HasPrefix(d.WWN, "eui.") {
			add("nvme-%s", d.WWN)
		}
	case VirtIO:
		add("virtio-%s", d.Serial)
	case MMC:
		add("mmc-%s_%s", d.Model, d.Serial)
	case SATA:
		add("ata-%s_%s", d.Model, d.Serial)
	case USB:
		add("usb-%s_%s_%s-0:0", d.Vendor, d.Model, d.Serial)
	}
	if hex, ok := strings.CutPrefix(d.WWN, "naa."); ok {
		add("wwn-0x%s", hex)
		if d.Bus == SCSI {
			add("scsi-3%s", hex)
		}
	}
	return out
}

// PartitionName is the name in by-id and by-path of partition n of the disk with the given name there.
func PartitionName(disk string, n int) string { return fmt.Sprintf("%s-part%d", disk, n) }

// udevName replaces white space and what udev does not let into names by _ (systemd src/shared/device-nodes.c).
func udevName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("#+-.:=@_", r) || r >= 0x80 {
			return r
		}
		return '_'
	}, strings.TrimSpace(s))
}

var (
	pciForm  = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$`)
	scsiForm = regexp.MustCompile(`^[0-9]+(:[0-9]+:[0-9]+:[0-9]+)$`)
	ataForm  = regexp.MustCompile(`^ata[0-9]+$`)
	usbForm  = regexp.MustCompile(`^[0-9]+-([0-9.]+:[0-9]+\.[0-9]+)$`)
)

// ports returns the names that udev gives the disk in /dev/disk/by-path: where it is connected. steps are those of the link in
// /sys/block. Disks behind PCI only (systemd src/udev/udev-builtin-path_id.c).
func ports(sys fs.FS, name string, steps []string) []string {
	pci, at := "", 0
	for i, s := range steps {
		if pciForm.MatchString(s) {
			pci, at = "pci-"+s, i
		}
	}
	if pci == "" {
		return nil
	}
	var ata, usb, scsi string
	for _, s := range steps[at+1:] {
		if ataForm.MatchString(s) {
			ata = text(sys, "class/ata_port/"+s+"/port_no")
		}
		if m := usbForm.FindStringSubmatch(s); m != nil {
			usb = m[1]
		}
		if m := scsiForm.FindStringSubmatch(s); m != nil {
			scsi = m[1]
		}
	}
	switch {
	case strings.HasPrefix(name, "nvme"):
		if n := text(sys, path.Join("block", name, "nsid")); n != "" {
			return []string{pci + "-nvme-" + n}
		}
		return nil
	case ata != "":
		return []string{pci + "-ata-" + ata, pci + "-ata-" + ata + ".0"}
	case usb != "":
		return []string{pci + "-usb-0:" + usb + "-scsi-0" + scsi}
	case scsi != "":
		return []string{pci + "-scsi-0" + scsi} // the host is counted from its port on
	case strings.HasPrefix(name, "vd"):
		return []string{pci, "virtio-" + pci}
	}
	return nil
}
