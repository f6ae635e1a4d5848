// Package hardware is what a machine is made of, and whether that is what a specification of the manifest says: the hardware check of a
// provisioning as a function of a specification and a machine.
//
// It reads no machine: unit/inventory does, from /proc and /sys or from a capture of them. It does not say which platform a machine is
// (model/platform).
package hardware

import (
	"gprovision/model/manifest"
	"gprovision/model/platform"
)

// Machine is the hardware of a machine, as the check against a specification sees it.
type Machine struct {
	CPU      manifest.CPU
	RamMegs  uint64       // MemTotal of /proc/meminfo in MiB
	NICs     []Port       // with hardware behind them
	Disks    []Disk       // the recovery device too
	PCI, USB []Device     // nil if the bus could not be read
	DMI      platform.DMI // nil if nothing is known
	Firmware manifest.Firmware
	Serial   string // serial number of the machine

	Links      []Link  // of PCI Express devices, as far as they are known
	Speeds     []Speed // of network ports
	TPM        string  // "1.2", "2.0", "none", "unknown"; empty: not looked for
	SecureBoot string  // "on", "off", "no UEFI", "unknown"; empty: not looked for
}

// Device is one device on a bus.
type Device struct {
	Vendor, Device, Class manifest.ID
}

// Disk is a disk that has a medium.
type Disk struct {
	platform.Candidate
	Removable bool    // as the kernel says it
	Health    *Health // nil: it says nothing
}

// Port is a network port.
type Port struct {
	Name string // as the kernel names it, such as "eth0"
	MAC  string // in lower case, with colons
}
