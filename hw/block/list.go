// Package block lists the disks of a machine, opens them for reading and writing, and tells the kernel about new partition
// tables.
//
// It knows disks, not what is on them (hw/partition, hw/filesystem) nor what they are for (model/layout, model/platform). Nothing
// here needs udev: sysfs says what is there and devtmpfs makes the nodes.
package block

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Bus is how a disk is connected.
type Bus string

// The buses. A SATA disk behind a SAS controller is SCSI, and so is a disk of virtio-scsi.
const (
	VirtIO Bus = "virtio"
	NVMe   Bus = "nvme"
	SATA   Bus = "sata"
	USB    Bus = "usb"
	SCSI   Bus = "scsi"
	MMC    Bus = "mmc"
	Other  Bus = "other"
)

// Disk is one disk as the kernel sees it.
type Disk struct {
	Name               string      `json:"name"`       // in /sys/block, such as nvme0n1
	Path               string      `json:"path"`       // of the node in /dev
	Size               int64       `json:"size"`       // bytes, as BLKGETSIZE64 has it
	SectorSize         int         `json:"sectorSize"` // logical, bytes
	PhysicalSectorSize int         `json:"physicalSectorSize"`
	Bus                Bus         `json:"bus"`
	Model              string      `json:"model,omitempty"`
	Vendor             string      `json:"vendor,omitempty"` // "ATA" for each SATA disk; empty on virtio, NVMe and MMC
	Serial             string      `json:"serial,omitempty"`
	WWN                string      `json:"wwn,omitempty"` // worldwide name as sysfs has it, such as naa.5000c500a1b2c3d4
	Removable          bool        `json:"removable,omitempty"`
	Rotational         bool        `json:"rotational,omitempty"` // as the disk itself says
	ReadOnly           bool        `json:"readOnly,omitempty"`
	Ports              []string    `json:"ports,omitempty"`      // where it is connected, as the names in /dev/disk/by-path
	Partitions         []Partition `json:"partitions,omitempty"` // by number
}

// Partition is one partition as the kernel sees it, which is not always what is written on the disk.
type Partition struct {
	Name   string `json:"name"`   // such as nvme0n1p2
	Path   string `json:"path"`   // of the node in /dev
	Number int    `json:"number"` // from 1
	Start  int64  `json:"start"`  // bytes from the start of the disk
	Size   int64  `json:"size"`   // bytes
}

// sysSector is the unit of sizes and starts in sysfs, whatever the sectors of the disk are.
const sysSector = 512

// List returns the disks of the machine, ordered by name. The file system must be rooted at /sys and be able to read links:
// os.DirFS("/sys"), or a captured tree.
//
// Virtual disks (loop, RAM, device mapper, md), optical and floppy drives, drives without a medium, the boot areas of an MMC,
// and hidden paths of an NVMe disk are left out. Virtual disks whose name starts with one of the names in virtual are listed all
// the same. A disk that disappears meanwhile is left out too.
//
// Sources: /sys/block/X, its link, and Documentation/ABI/{stable,testing}/sysfs-block of the kernel.
func List(sys fs.FS, virtual ...string) ([]Disk, error) {
	names, err := fs.ReadDir(sys, "block")
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var disks []Disk
	for _, n := range names {
		d, ok, err := read(sys, n.Name(), virtual)
		if err != nil {
			return nil, fmt.Errorf("list disk %s: %w", n.Name(), err)
		}
		if ok {
			disks = append(disks, d)
		}
	}
	slices.SortFunc(disks, func(a, b Disk) int { return strings.Compare(a.Name, b.Name) })
	return disks, nil
}

// PartitionPath returns the path of partition n of a disk, by the rule of the kernel: /dev/sda gives /dev/sda1, /dev/nvme0n1
// gives /dev/nvme0n1p1.
func PartitionPath(disk string, n int) string {
	if disk != "" && disk[len(disk)-1] >= '0' && disk[len(disk)-1] <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(n)
}

func read(sys fs.FS, name string, virtual []string) (Disk, bool, error) {
	dir := "block/" + name
	link, err := fs.ReadLink(sys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Disk{}, false, nil
	}
	if err != nil {
		return Disk{}, false, err
	}
	steps := strings.Split(path.Clean(link), "/")
	wanted := slices.ContainsFunc(virtual, func(v string) bool { return strings.HasPrefix(name, v) })
	size := number(sys, dir+"/size") * sysSector
	switch {
	case strings.Contains(link, "devices/virtual/block/") && !wanted,
		strings.HasPrefix(name, "sr"), strings.HasPrefix(name, "fd"),
		strings.HasPrefix(name, "mmcblk") && (strings.Contains(name, "boot") || strings.Contains(name, "rpmb")),
		text(sys, dir+"/hidden") == "1",
		size <= 0:
		return Disk{}, false, nil
	}
	d := Disk{
		Name:               name,
		Path:               devPath(name),
		Size:               size,
		SectorSize:         int(number(sys, dir+"/queue/logical_block_size")),
		PhysicalSectorSize: int(number(sys, dir+"/queue/physical_block_size")),
		Bus:                busOf(name, steps),
		Model:              text(sys, dir+"/device/model"),
		WWN:                first(text(sys, dir+"/wwid"), text(sys, dir+"/device/wwid")),
		Removable:          text(sys, dir+"/removable") == "1",
		Rotational:         text(sys, dir+"/queue/rotational") == "1",
		ReadOnly:           text(sys, dir+"/ro") == "1",
		Ports:              ports(sys, name, steps),
	}
	if d.SectorSize == 0 {
		d.SectorSize = 512
	}
	if d.PhysicalSectorSize == 0 {
		d.PhysicalSectorSize = d.SectorSize
	}
	switch d.Bus {
	case VirtIO:
		d.Serial = text(sys, dir+"/serial")
	case MMC:
		d.Model = text(sys, dir+"/device/name")
		d.Serial = text(sys, dir+"/device/serial")
	case NVMe:
		d.Serial = text(sys, dir+"/device/serial")
	default:
		d.Vendor = text(sys, dir+"/device/vendor")
		d.Serial = first(vpd(sys, dir+"/device/vpd_pg80"), usbSerial(sys, steps))
	}
	d.Partitions, err = partitions(sys, dir, name)
	if err != nil {
		return Disk{}, false, err
	}
	return d, true, nil
}

// partitions reads what the kernel knows of the partitions of one disk.
func partitions(sys fs.FS, dir, disk string) ([]Partition, error) {
	entries, err := fs.ReadDir(sys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Partition
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), disk) {
			continue
		}
		p := dir + "/" + e.Name()
		n := number(sys, p+"/partition")
		if n < 1 {
			continue
		}
		out = append(out, Partition{
			Name:   e.Name(),
			Path:   devPath(e.Name()),
			Number: int(n),
			Start:  number(sys, p+"/start") * sysSector,
			Size:   number(sys, p+"/size") * sysSector,
		})
	}
	slices.SortFunc(out, func(a, b Partition) int { return a.Number - b.Number })
	return out, nil
}

// devPath is the node of a name in sysfs, where ! stands for / (cciss!c0d0).
func devPath(name string) string { return "/dev/" + strings.ReplaceAll(name, "!", "/") }

// busOf looks at the steps of the path of a disk's device. USB comes first: a USB disk is a SCSI disk too.
func busOf(name string, steps []string) Bus {
	has := func(prefix string) bool {
		return slices.ContainsFunc(steps, func(s string) bool {
			rest, ok := strings.CutPrefix(s, prefix)
			return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
		})
	}
	switch {
	case has("usb"):
		return USB
	case strings.HasPrefix(name, "nvme"):
		return NVMe
	case strings.HasPrefix(name, "mmcblk"):
		return MMC
	case has("ata"):
		return SATA
	case has("host"):
		return SCSI
	case has("virtio"):
		return VirtIO
	}
	return Other
}

// text returns the first line of a file of sysfs, trimmed, or nothing if it cannot be read: many attributes are optional.
func text(sys fs.FS, name string) string {
	b, err := fs.ReadFile(sys, name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return clean(line)
}

func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.Join(strings.Fields(s), " ")
}

func number(sys fs.FS, name string) int64 {
	n, err := strconv.ParseInt(text(sys, name), 10, 64)
	if err != nil || n < 0 || n > 1<<54 {
		return 0
	}
	return n
}

// vpd returns the serial number of a SCSI disk: page 80h of its vital product data, behind a header of four bytes with the
// length in the last two (SPC-4 section 7.8.15).
func vpd(sys fs.FS, name string) string {
	b, err := fs.ReadFile(sys, name)
	if err != nil || len(b) < 4 {
		return ""
	}
	n := int(b[2])<<8 | int(b[3])
	return clean(string(b[4:min(len(b), 4+n)]))
}

// usbSerial looks for the nearest USB device above the disk.
func usbSerial(sys fs.FS, steps []string) string {
	for len(steps) > 0 && steps[0] == ".." {
		steps = steps[1:]
	}
	for n := len(steps) - 1; n > 0; n-- {
		dir := strings.Join(steps[:n], "/")
		if text(sys, dir+"/idVendor") != "" {
			return text(sys, dir+"/serial")
		}
	}
	return ""
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
