// Package inventory reads what a machine is made of, for the check against a specification (model/hardware): from the running machine, or
// from a capture of one. It opens nothing but files of /proc and /sys, but for Ask, and writes nothing.
package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/nic"
	"gprovision/hw/smbios"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/unit/machine"
)

// Read reads a machine from its /proc and /sys, running or captured, and adds its disks. What a disk says only when it is asked is not
// there, nor is the serial number, which depends on the platform. The error joins all that could not be read.
func Read(proc, sys fs.FS, disks []block.Disk) (hardware.Machine, error) {
	var known platform.DMI
	info, err := smbios.Read(sys)
	if err == nil {
		known = info
	} else if errors.Is(err, smbios.ErrNone) {
		err = nil
	}
	ports, err1 := nic.List(sys)
	m, err2 := Collect(proc, sys, known, disks, ports, "")
	m.Firmware.IPMI = controller(sys)
	return m, errors.Join(err, err1, err2)
}

// controller returns the version of the management controller's firmware as ipmitool prints it, or nothing. The kernel has it where its
// IPMI driver runs (Documentation/ABI/testing/sysfs-devices-platform-ipmi).
func controller(sys fs.FS) string {
	found, err := fs.Glob(sys, "devices/platform/ipmi_bmc*/firmware_revision")
	if err != nil || len(found) == 0 {
		return ""
	}
	b, err := fs.ReadFile(sys, found[0])
	if err != nil {
		return ""
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(b)), ".")
	return fmt.Sprintf("%s.%02s", major, minor)
}

// Collect reads what /proc and /sys say of a machine and adds what is passed in. The error joins all that could not be
// read; what could is returned all the same, and the rest fails its lines.
func Collect(proc, sys fs.FS, dmi platform.DMI, disks []block.Disk, ports []nic.Port, serial string) (hardware.Machine, error) {
	m := hardware.Machine{DMI: dmi, Serial: serial}
	for i, c := range machine.Candidates(disks) {
		m.Disks = append(m.Disks, hardware.Disk{Candidate: c, Removable: disks[i].Removable})
	}
	for _, p := range nic.Real(ports) {
		m.NICs = append(m.NICs, hardware.Port{Name: p.Name, MAC: p.MAC})
	}
	if dmi != nil {
		m.Firmware.BIOS = dmi.Keyword("bios-version")
	}
	var errs []error
	keep := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	m.CPU, err = readCPU(proc, sys)
	keep(err)
	m.RamMegs, err = Memory(proc, "MemTotal")
	keep(err)
	m.PCI, err = readBus(sys, "bus/pci/devices", "vendor", "device", "class", 8)
	keep(err)
	m.USB, err = readBus(sys, "bus/usb/devices", "idVendor", "idProduct", "bDeviceClass", 0)
	keep(err)
	keep(readParts(proc, sys, ports, &m))
	return m, errors.Join(errs...)
}

func readCPU(proc, sys fs.FS) (manifest.CPU, error) {
	b, err := fs.ReadFile(proc, "cpuinfo")
	if err != nil {
		return manifest.CPU{}, fmt.Errorf("read processors: %w", err)
	}
	var c manifest.CPU
	models := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "processor":
			c.Cores++
		case "model name":
			c.Model = strings.TrimSpace(val)
			models[c.Model] = true
		}
	}
	dirs, err := fs.Glob(sys, "devices/system/cpu/cpu[0-9]*")
	if err != nil {
		return c, fmt.Errorf("read processors: %w", err)
	}
	sockets := map[string]bool{}
	for _, d := range dirs {
		id, err := fs.ReadFile(sys, path.Join(d, "topology/physical_package_id"))
		if err != nil {
			id = []byte("0")
		}
		sockets[strings.TrimSpace(string(id))] = true
	}
	c.Sockets = len(sockets)
	if len(models) > 1 {
		c.Model = ""
		return c, errors.New("read processors: they are not all of the same model")
	}
	return c, nil
}

// Memory returns one amount of /proc/meminfo in MiB.
func Memory(proc fs.FS, name string) (uint64, error) {
	b, err := fs.ReadFile(proc, "meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == name+":" {
			kb, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory: %w", err)
			}
			return kb / 1024, nil
		}
	}
	return 0, fmt.Errorf("read memory: /proc/meminfo has no %s", name)
}

// readBus reads the devices of a bus; none if there is no such bus. Entries without a vendor are no devices. shift is dropped from the
// class.
func readBus(sys fs.FS, dir, vendor, device, class string, shift uint) ([]hardware.Device, error) {
	entries, err := fs.ReadDir(sys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return []hardware.Device{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	out := []hardware.Device{}
	for _, e := range entries {
		hex := func(name string) (uint64, bool) {
			b, err := fs.ReadFile(sys, path.Join(dir, e.Name(), name))
			if err != nil {
				return 0, false
			}
			v, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(string(b)), "0x"), 16, 32)
			return v, err == nil
		}
		v, ok1 := hex(vendor)
		d, ok2 := hex(device)
		c, ok3 := hex(class)
		if ok1 && ok2 && ok3 {
			out = append(out, hardware.Device{Vendor: manifest.ID(v), Device: manifest.ID(d), Class: manifest.ID(c >> shift)})
		}
	}
	return out, nil
}
