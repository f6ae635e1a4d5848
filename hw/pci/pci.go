// Package pci lists the devices on the PCI buses of a machine, with what the kernel knows of their links.
//
// It reads /sys and asks no device, loads no driver, and has no names of vendors or devices.
package pci

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// Device is one function of a device.
type Device struct {
	// Address is the kernel's name: domain, bus, device and function, such as "0000:01:00.0".
	Address string
	// Class is class, subclass and programming interface, one byte each (PCI Code and ID Assignment Specification).
	Class                uint32
	Vendor, Device       uint16
	SubVendor, SubDevice uint16 // 0: none
	Revision             uint8
	Driver               string // of the kernel; empty: none
	NUMA                 int    // the node that it is on; -1: the machine has no nodes
	// Link is what its link runs at, and Most what the device can at most. Both are zero for a device without PCI Express, and for one inside
	// of a chip.
	Link, Most Link
}

// Link is a link of PCI Express. Linux writes down what the Link Capabilities and Link Status registers say (drivers/pci/pci-sysfs.c).
type Link struct {
	MTs   int // speed of one lane in megatransfers a second: 2,500, 5,000, 8,000, 16,000, 32,000 or 64,000; 0: not known
	Lanes int // 0: not known
}

// Known reports whether speed and width are.
func (l Link) Known() bool { return l.MTs > 0 && l.Lanes > 0 }

// List returns the devices below /sys/bus/pci/devices, in the order of their addresses. The file system must be rooted at /sys. Entries
// without vendor, device and class are left out. A machine without PCI has none.
func List(sys fs.FS) ([]Device, error) {
	const dir = "bus/pci/devices"
	entries, err := fs.ReadDir(sys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list PCI devices: %w", err)
	}
	var out []Device
	for _, e := range entries {
		at := path.Join(dir, e.Name())
		number := func(name string, bits int) (n uint64, ok bool) {
			n, err := strconv.ParseUint(strings.TrimPrefix(text(sys, path.Join(at, name)), "0x"), 16, bits)
			return n, err == nil
		}
		vendor, ok1 := number("vendor", 16)
		device, ok2 := number("device", 16)
		class, ok3 := number("class", 24)
		if !ok1 || !ok2 || !ok3 {
			continue
		}
		subVendor, _ := number("subsystem_vendor", 16)
		subDevice, _ := number("subsystem_device", 16)
		revision, _ := number("revision", 8)
		d := Device{
			Address: e.Name(), Class: uint32(class), Vendor: uint16(vendor), Device: uint16(device), SubVendor: uint16(subVendor),
			SubDevice: uint16(subDevice), Revision: uint8(revision), NUMA: -1,
			Link: Link{speed(text(sys, path.Join(at, "current_link_speed"))), lanes(text(sys, path.Join(at, "current_link_width")))},
			Most: Link{speed(text(sys, path.Join(at, "max_link_speed"))), lanes(text(sys, path.Join(at, "max_link_width")))},
		}
		if target, err := fs.ReadLink(sys, path.Join(at, "driver")); err == nil {
			d.Driver = path.Base(target)
		}
		if n, err := strconv.Atoi(text(sys, path.Join(at, "numa_node"))); err == nil {
			d.NUMA = n
		}
		out = append(out, d)
	}
	return out, nil
}

// speed reads such as "8.0 GT/s PCIe" or "2.5 GT/s"; "Unknown" is not known.
func speed(s string) int {
	number, unit, _ := strings.Cut(s, " ")
	gts, err := strconv.ParseFloat(number, 64)
	if err != nil || !strings.HasPrefix(unit, "GT/s") || !(gts > 0 && gts < 1000) {
		return 0
	}
	return int(math.Round(gts * 1000))
}

// lanes reads a number of lanes. 255 is how Linux says that it does not know (PCIE_LNK_WIDTH_UNKNOWN).
func lanes(s string) int {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 255 {
		return 0
	}
	return int(n)
}

func text(sys fs.FS, name string) string {
	b, err := fs.ReadFile(sys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
