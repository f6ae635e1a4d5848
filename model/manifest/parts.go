package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gprovision/model/source"
)

// DiskHealth limits what disks say of their own state: the main disks and the recovery device, each for itself. A limit that is missing is
// not checked, nor is one that a disk has no word for.
type DiskHealth struct {
	// NotFailing demands that the disk does not warn of its end.
	NotFailing bool `json:",omitempty"`
	// UsedPctMax limits how much of the life that its maker gives it is over, in percent.
	UsedPctMax *int64 `json:",omitempty"`
	// SparePctMin is how many of the blocks that replace worn ones must be left, in percent.
	SparePctMin *int64 `json:",omitempty"`
	// CelsiusMax limits its temperature, in degrees Celsius.
	CelsiusMax *int64 `json:",omitempty"`
	// PowerOnHoursMax limits how many hours it was on.
	PowerOnHoursMax *int64 `json:",omitempty"`
	// StartsMax limits how often it was switched on.
	StartsMax *int64 `json:",omitempty"`
	// ReallocatedMax limits how many sectors were replaced by others.
	ReallocatedMax *int64 `json:",omitempty"`
	// PendingMax limits how many sectors could not be read and wait for a write.
	PendingMax *int64 `json:",omitempty"`
	// UncorrectableMax limits the errors of the medium that could not be corrected.
	UncorrectableMax *int64 `json:",omitempty"`
	// LinkErrorsMax limits the transfers that had a wrong checksum.
	LinkErrorsMax *int64 `json:",omitempty"`
	// WrittenGiBMax limits how much hosts wrote, in GiB.
	WrittenGiBMax *int64 `json:",omitempty"`
}

// PortSpeed says how fast network ports must be, in megabits a second.
type PortSpeed struct {
	Driver    string `json:",omitempty"` // of the ports that are meant, such as "igb"; empty: all
	CanMbps   int    `json:",omitempty"` // each of them can do so much at least; 0: not checked
	LinkMbps  int    `json:",omitempty"` // the link of each that has one runs at so much at least; 0: not checked
	FullSpeed bool   `json:",omitempty"` // the link of each that has one runs as fast as the port can
}

// MemoryModule describes one memory module, or several that are equal.
type MemoryModule struct {
	Slot     string `json:",omitempty"` // dmidecode's Locator; * stands for any characters; empty: any
	SizeMiB  int64  // MiB
	SpeedMTs int    `json:",omitempty"` // megatransfers a second that it runs at, at least; 0: not checked
	Type     string `json:",omitempty"` // dmidecode's Type, such as "DDR4"; empty: any
	Part     string `json:",omitempty"` // part number; * stands for any characters; empty: any
	ECC      bool   `json:",omitempty"` // it has bits for error correction beside its data
	Quantity int    `json:",omitempty"` // 0: 1
}

// Count is how many modules m describes.
func (m MemoryModule) Count() int { return max(m.Quantity, 1) }

// The words that a specification has for error correction, TPM and Secure Boot.
func eccWords() []string    { return []string{"None", "Parity", "Single-bit ECC", "Multi-bit ECC", "CRC"} }
func tpmWords() []string    { return []string{"none", "1.2", "2.0"} }
func secureWords() []string { return []string{"on", "off"} }

// KnownECC reports whether MemoryECC can be s.
func KnownECC(s string) bool { return slices.Contains(eccWords(), s) }

// ParseMicrocode reads a microcode revision as Linux writes it, such as "0x2006e05".
func ParseMicrocode(s string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(s), "0x"), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a microcode revision such as 0x2006e05", s)
	}
	return n, nil
}

// parts finds what no machine can fulfil of the parts beside disks and buses.
func (s Specs) parts(at string, incomplete func(path, text, hint string)) {
	wrong := func(key, text, hint string) { incomplete(source.Under(at, key), text, hint) }
	s.DiskHealth.judge(func(key, text string) { wrong("DiskHealth."+key, text, "") })
	for i, p := range s.Ports {
		if p.CanMbps < 0 || p.LinkMbps < 0 || p.CanMbps == 0 && p.LinkMbps == 0 && !p.FullSpeed {
			wrong(fmt.Sprintf("Ports[%d]", i), "it demands nothing", "write CanMbps or LinkMbps, in megabits a second, or FullSpeed")
		}
	}
	for i, m := range s.MemoryModules {
		if m.SizeMiB <= 0 || m.SpeedMTs < 0 || m.Quantity < 0 || m.Quantity > 1000 {
			wrong(fmt.Sprintf("MemoryModules[%d]", i), "want a size above 0, a speed of 0 or more, and a quantity of 0 to 1000", "")
		}
	}
	for _, w := range []struct {
		key, have string
		words     []string
	}{{"MemoryECC", s.MemoryECC, eccWords()}, {"TPM", s.TPM, tpmWords()}, {"SecureBoot", s.SecureBoot, secureWords()}} {
		if w.have != "" && !slices.Contains(w.words, w.have) {
			wrong(w.key, fmt.Sprintf("%q is not known", w.have), "write one of "+strings.Join(w.words, ", "))
		}
	}
	if _, err := ParseMicrocode(s.FirmwareVer.Microcode); err != nil && s.FirmwareVer.Microcode != "" {
		wrong("FirmwareVer.Microcode", err.Error(), "")
	}
	for i, d := range s.Devices.PCI {
		if d.LinkMTs < 0 || d.LinkMTs > 64_000 || d.LinkLanes < 0 || d.LinkLanes > 32 {
			wrong(fmt.Sprintf("Devices.PCI[%d]", i), "want a link of 0 to 64000 megatransfers a second and of 0 to 32 lanes", "8 GT/s are 8000")
		}
	}
	for i, d := range s.Devices.USB {
		if d.LinkMTs != 0 || d.LinkLanes != 0 || d.FullLink {
			wrong(fmt.Sprintf("Devices.USB[%d]", i), "a USB device has no such link", "remove LinkMTs, LinkLanes and FullLink")
		}
	}
}

// judge finds limits that every disk is within, or none.
func (h DiskHealth) judge(wrong func(key, text string)) {
	for _, l := range []struct {
		key         string
		limit       *int64
		least, most int64
	}{
		{"UsedPctMax", h.UsedPctMax, 0, 254}, {"SparePctMin", h.SparePctMin, 1, 100}, {"CelsiusMax", h.CelsiusMax, 1, 150},
		{"PowerOnHoursMax", h.PowerOnHoursMax, 0, 1 << 40}, {"StartsMax", h.StartsMax, 0, 1 << 40},
		{"ReallocatedMax", h.ReallocatedMax, 0, 1 << 48}, {"PendingMax", h.PendingMax, 0, 1 << 48},
		{"UncorrectableMax", h.UncorrectableMax, 0, 1 << 48}, {"LinkErrorsMax", h.LinkErrorsMax, 0, 1 << 48},
		{"WrittenGiBMax", h.WrittenGiBMax, 0, 1 << 33},
	} {
		if l.limit != nil && (*l.limit < l.least || *l.limit > l.most) {
			wrong(l.key, fmt.Sprintf("%d is no limit: want %d to %d", *l.limit, l.least, l.most))
		}
	}
}
