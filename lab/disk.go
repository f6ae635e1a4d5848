package lab

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// Bus is how a disk hangs on a virtual unit.
type Bus string

// The buses.
const (
	VirtIO Bus = "virtio"
	NVMe   Bus = "nvme"
	SATA   Bus = "sata"
	SCSI   Bus = "scsi"
	USB    Bus = "usb"
	MMC    Bus = "mmc" // an SD card in a slot of its own; its size is a power of two
)

// Disk is a disk of a virtual unit. It is a sparse qcow2 file in the unit's directory.
//
// Its write cache is volatile, as that of a real disk is: a power cut (Unit.Cut) may lose what the guest has not flushed, and
// keeps what it has.
type Disk struct {
	// Name identifies the disk in this package and names its file: "recovery", "main".
	Name string `json:"name"`
	Bus  Bus    `json:"bus"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// SectorSize is in bytes. 0: 512. SATA and MMC know only 512.
	SectorSize int `json:"sectorSize,omitempty"`
	// Serial is what the disk says of itself; empty: its name in upper case.
	Serial string `json:"serial,omitempty"`
	// BootIndex is the place in the firmware's order, from 1. 0: none.
	BootIndex int `json:"bootIndex,omitempty"`
	// Late keeps the disk away at power-on, until Unit.Plug. Only for VirtIO, NVMe, SCSI and USB.
	Late bool `json:"late,omitempty"`
	// LogWrites keeps a log of all writes since the last power-on in the file Unit.WriteLog: see ReadWriteLog.
	LogWrites bool `json:"logWrites,omitempty"`
}

// object is a QEMU device or block node: the command line and QMP take the same JSON.
type object map[string]any

func (d Disk) node() string { return "disk-" + d.Name }

// blockNode describes the file behind the disk.
func (d Disk) blockNode(path string) object {
	o := object{"driver": "qcow2", "discard": "unmap", "file": object{"driver": "file", "filename": path, "discard": "unmap"}}
	if d.LogWrites {
		o = object{"driver": "blklogwrites", "discard": "unmap", "file": o, "log": object{"driver": "file", "filename": writeLog(path)}}
	}
	o["node-name"] = d.node()
	return o
}

// writeLog is where the log of the disk's writes is.
func writeLog(path string) string { return path + ".writes" }

// device describes the disk's hardware. place counts the disks on its bus; slot is a free hot-plug port, or "".
func (d Disk) device(place int, slot string) (object, error) {
	o := object{"id": "dev-" + d.Name, "drive": d.node(), "serial": d.Serial}
	if d.SectorSize != 0 && d.SectorSize != 512 {
		o["logical_block_size"], o["physical_block_size"] = d.SectorSize, d.SectorSize
	}
	if d.BootIndex > 0 {
		o["bootindex"] = d.BootIndex
	}
	if slot != "" {
		o["bus"] = slot
	}
	switch d.Bus {
	case VirtIO:
		o["driver"] = "virtio-blk-pci"
		if d.LogWrites {
			o["write-zeroes"] = false // blklogwrites of QEMU before 8.2.1 damages its log with them (commit a9c8ea95)
		}
	case NVMe:
		o["driver"] = "nvme"
	case SATA:
		if d.Late || d.SectorSize > 512 {
			return nil, fmt.Errorf("disk %s: a SATA disk is there at power-on and has sectors of 512 bytes", d.Name)
		}
		o["driver"], o["bus"] = "ide-hd", fmt.Sprintf("ide.%d", place)
	case SCSI:
		o["driver"], o["bus"] = "scsi-hd", "scsi0.0"
	case USB:
		o["driver"], o["bus"], o["removable"] = "usb-storage", "usb0.0", true
	case MMC:
		if d.Late || d.SectorSize > 512 || d.BootIndex > 0 {
			return nil, fmt.Errorf("disk %s: an SD card is there at power-on, has sectors of 512 bytes and no place in the boot order", d.Name)
		}
		return object{"driver": "sd-card", "id": "dev-" + d.Name, "drive": d.node()}, nil // QEMU puts it into the slot that is free
	default:
		return nil, fmt.Errorf("disk %s: unknown bus %q", d.Name, d.Bus)
	}
	return o, nil
}

// onPCI reports whether the disk is a PCI device of its own, which needs a port to be plugged into.
func (d Disk) onPCI() bool { return d.Bus == VirtIO || d.Bus == NVMe }

// makeDisk makes an empty disk, or one whose content is that of base until it is written. base stays unchanged, and must.
func makeDisk(ctx context.Context, log *slog.Logger, path, base string, size int64) error {
	args := []string{"create", "-q", "-f", "qcow2"}
	if base != "" {
		base, err := filepath.Abs(base)
		if err != nil {
			return fmt.Errorf("make disk %s: %w", path, err)
		}
		args = append(args, "-F", "qcow2", "-b", base)
	}
	args = append(args, path)
	if base == "" {
		args = append(args, fmt.Sprint(size))
	}
	if err := run(ctx, log, "qemu-utils", "qemu-img", args...); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	return nil
}

// copyFile copies a small file.
func copyFile(dst, src string) error {
	b, err := os.ReadFile(src)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	if err := os.WriteFile(dst, b, 0o600); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	return nil
}
