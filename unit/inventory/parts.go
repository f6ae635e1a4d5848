package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"gprovision/hw/efi"
	"gprovision/hw/nic"
	"gprovision/hw/pci"
	"gprovision/hw/tpm"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/unit/machine"
)

// readParts reads what /proc and /sys say of links, TPM, Secure Boot and microcode.
func readParts(proc, sys fs.FS, ports []nic.Port, m *hardware.Machine) error {
	for _, p := range ports {
		m.Speeds = append(m.Speeds, hardware.Speed{Name: p.Name, Driver: p.Driver, Now: p.Speed})
	}
	m.TPM = tpm.Version(sys)
	if m.TPM == "" {
		m.TPM = "none"
	}
	on, known := efi.SecureBoot(sys)
	switch {
	case on:
		m.SecureBoot = "on"
	case known:
		m.SecureBoot = "off"
	case efi.Present(sys):
		m.SecureBoot = "unknown"
	default:
		m.SecureBoot = "no UEFI"
	}
	m.Firmware.Microcode = microcode(proc, sys)
	devices, err := pci.List(sys)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if d.Link.Known() || d.Most.Known() {
			m.Links = append(m.Links, hardware.Link{
				Address: d.Address,
				Device:  hardware.Device{Vendor: manifest.ID(d.Vendor), Device: manifest.ID(d.Device), Class: manifest.ID(d.Class >> 8)},
				Now:     hardware.Rate(d.Link), Most: hardware.Rate(d.Most),
			})
		}
	}
	return nil
}

// microcode returns the revision of the first processor's microcode, or "": /sys/devices/system/cpu/cpu0/microcode/version where the
// kernel can load one, else the first "microcode" of /proc/cpuinfo.
func microcode(proc, sys fs.FS) string {
	if b, err := fs.ReadFile(sys, "devices/system/cpu/cpu0/microcode/version"); err == nil {
		return strings.TrimSpace(string(b))
	}
	b, err := fs.ReadFile(proc, "cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, val, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "microcode" {
			return strings.TrimSpace(val)
		}
	}
	return ""
}

// Ask adds what only the parts themselves say: the health of disks, and how fast network ports can be. What takes no such question is left
// out, and so are disks behind USB: cheap ones go astray at a question that they do not know. The error joins all that could not be asked.
func Ask(m *hardware.Machine, b machine.Board) error {
	var errs []error
	keep := func(what string, err error) {
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for i, d := range m.Disks {
		if b.Health == nil || d.Bus == string(platform.USB) {
			continue
		}
		h, err := b.Health(d.Path)
		if err == nil {
			m.Disks[i].Health = new(hardware.Health(h))
		}
		keep("health of "+d.Path, err)
	}
	for i, s := range m.Speeds {
		if b.Fastest == nil {
			break
		}
		most, err := b.Fastest(s.Name)
		if err == nil {
			m.Speeds[i].Most = most
		}
		keep("network port "+s.Name, err)
	}
	return errors.Join(errs...)
}
