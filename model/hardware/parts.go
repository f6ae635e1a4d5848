package hardware

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gprovision/model/manifest"
	"gprovision/model/platform"
)

// Health is what a disk says of its own state. What it does not say is nil. Counts are those since it was made.
type Health struct {
	Failing       *bool    // it warns of its end
	Warnings      []string // of what, in words
	Temperature   *int64   // degrees Celsius
	Used          *int64   // percent of its life; may be above 100
	Spare         *int64   // percent of the blocks that replace worn ones
	PowerOn       *int64   // hours
	Starts        *int64
	Reallocated   *int64 // sectors
	Pending       *int64 // sectors
	Uncorrectable *int64 // errors
	LinkErrors    *int64
	Written       *int64 // bytes
}

// Link is a PCI Express device with its link.
type Link struct {
	Address string // such as "0000:01:00.0"
	Device  Device
	Now     Rate // what the link runs at
	Most    Rate // what the device can
}

// Rate is how fast and how wide a link of PCI Express is; 0: not known.
type Rate struct {
	MTs   int // megatransfers a second on each lane
	Lanes int
}

// known reports whether both are.
func (r Rate) known() bool { return r.MTs > 0 && r.Lanes > 0 }

// atLeast reports whether r is neither slower nor narrower.
func (r Rate) atLeast(o Rate) bool { return r.MTs >= o.MTs && r.Lanes >= o.Lanes }

// String returns it as "8 GT/s ×4".
func (r Rate) String() string {
	return fmt.Sprintf("%s GT/s ×%d", strconv.FormatFloat(float64(r.MTs)/1000, 'f', -1, 64), r.Lanes)
}

// Speed is how fast a network port is, in megabits a second; 0: not known.
type Speed struct {
	Name   string // of the port
	Driver string
	Now    int // of its link; 0 without one
	Most   int // what the port can
}

// unsaid adds a line of what is specified and cannot be compared.
func (c *check) unsaid(name, expected, why string) {
	c.lines = append(c.lines, Line{Name: name, Found: "not known", Expected: expected, Rule: why})
}

// unsaidByDisk is why a limit is not checked.
const unsaidByDisk = "the disk does not say"

// limit is one number of a disk's health, in units, with its limit.
type limit struct {
	name, unit string
	found      *int64
	want       *int64
	atLeast    bool
}

func (l limit) text(n int64) string { return strings.TrimSpace(fmt.Sprintf("%d %s", n, l.unit)) }

// limits are all numbers of a disk's health.
func limits(want manifest.DiskHealth, h Health) []limit {
	var gib *int64
	if h.Written != nil {
		gib = new((*h.Written + 1<<30 - 1) >> 30)
	}
	return []limit{
		{"life used", "%", h.Used, want.UsedPctMax, false},
		{"spare left", "%", h.Spare, want.SparePctMin, true},
		{"temperature", "°C", h.Temperature, want.CelsiusMax, false},
		{"hours on", "h", h.PowerOn, want.PowerOnHoursMax, false},
		{"starts", "", h.Starts, want.StartsMax, false},
		{"reallocated sectors", "", h.Reallocated, want.ReallocatedMax, false},
		{"pending sectors", "", h.Pending, want.PendingMax, false},
		{"uncorrectable errors", "", h.Uncorrectable, want.UncorrectableMax, false},
		{"link errors", "", h.LinkErrors, want.LinkErrorsMax, false},
		{"written", "GiB", gib, want.WrittenGiBMax, false},
	}
}

// health compares what disks say of their state with its limits. What has no limit is one line more for each disk.
func (c *check) health(want manifest.DiskHealth, disks []Disk) {
	for _, d := range disks {
		var h Health
		if d.Health != nil {
			h = *d.Health
		}
		name := "health of " + d.Path
		var rest []string
		warning := "none"
		if h.Failing != nil && *h.Failing {
			warning = strings.Join(h.Warnings, "; ")
		}
		switch {
		case want.NotFailing && h.Failing == nil:
			c.unsaid(name+", warning", "none", unsaidByDisk)
		case want.NotFailing:
			c.add(name+", warning", warning, "none", "equal", !*h.Failing)
		case h.Failing != nil:
			rest = append(rest, "warning: "+warning)
		}
		for _, l := range limits(want, h) {
			rule := "at most"
			if l.atLeast {
				rule = "at least"
			}
			switch {
			case l.want == nil && l.found != nil:
				rest = append(rest, l.name+" "+l.text(*l.found))
			case l.want == nil:
			case l.found == nil:
				c.unsaid(name+", "+l.name, rule+" "+l.text(*l.want), unsaidByDisk)
			default:
				c.add(name+", "+l.name, l.text(*l.found), rule+" "+l.text(*l.want), rule,
					!l.atLeast && *l.found <= *l.want || l.atLeast && *l.found >= *l.want)
			}
		}
		if rest != nil {
			c.skip(name, strings.Join(rest, ", "), unspecified)
		}
	}
}

// links compares the links of PCI Express devices. A link below what its device can, of which nothing is specified, has a line too.
func (c *check) links(want []manifest.BusDevice, have []Link) {
	for _, l := range have {
		i := slices.IndexFunc(want, func(w manifest.BusDevice) bool {
			return l.Device == (Device{w.Vendor, w.Device, w.Class}) && demandsLink(w)
		})
		name := fmt.Sprintf("PCI link of %s (%s:%s)", l.Address, l.Device.Vendor, l.Device.Device)
		if i < 0 {
			if l.Now.known() && l.Most.known() && !l.Now.atLeast(l.Most) {
				c.skip(name, fmt.Sprintf("%s, the device can do %s", l.Now, l.Most), unspecified)
			}
			continue
		}
		least := Rate{max(want[i].LinkMTs, 0), max(want[i].LinkLanes, 0)}
		rule := "at least as fast and as wide"
		if want[i].FullLink {
			if !l.Most.known() {
				c.unsaid(name, "what the device can do", "the device does not say")
				continue
			}
			least = Rate{max(least.MTs, l.Most.MTs), max(least.Lanes, l.Most.Lanes)}
			rule += " as the device can be"
		}
		if !l.Now.known() {
			c.unsaid(name, least.String(), "the device does not say")
			continue
		}
		c.add(name, l.Now.String(), least.String(), rule, l.Now.atLeast(least))
	}
	for _, w := range want {
		if demandsLink(w) && !slices.ContainsFunc(have, func(l Link) bool { return l.Device == (Device{w.Vendor, w.Device, w.Class}) }) {
			c.unsaid(fmt.Sprintf("PCI link of %s:%s", w.Vendor, w.Device), "a link", "there is no such device with a link")
		}
	}
}

func demandsLink(w manifest.BusDevice) bool { return w.FullLink || w.LinkMTs > 0 || w.LinkLanes > 0 }

// ports compares how fast network ports are.
func (c *check) ports(want []manifest.PortSpeed, have []Speed) {
	mbps := func(n int) string { return fmt.Sprintf("%d Mb/s", n) }
	compare := func(name string, found, least int, rule, why string) {
		if found == 0 || least == 0 {
			c.unsaid(name, rule, why)
		} else {
			c.add(name, mbps(found), "at least "+mbps(least), rule, found >= least)
		}
	}
	said := map[string]bool{}
	for _, w := range want {
		n := 0
		for _, p := range have {
			if w.Driver != "" && w.Driver != p.Driver {
				continue
			}
			n++
			said[p.Name] = true
			if w.CanMbps > 0 {
				compare("network port "+p.Name+", what it can do", p.Most, w.CanMbps, "at least", "its driver does not say")
			}
			if w.LinkMbps > 0 {
				compare("network port "+p.Name+", link", p.Now, w.LinkMbps, "at least", "no link, or its driver does not say")
			}
			if w.FullSpeed {
				compare("network port "+p.Name+", link of what it can do", p.Now, p.Most, "as fast as the port can be",
					"no link, or its driver does not say")
			}
		}
		if n == 0 {
			c.add("network ports with driver "+w.Driver, "none", "at least one", "at least", false)
		}
	}
	for _, p := range have {
		if !said[p.Name] && p.Now > 0 {
			c.skip("network port "+p.Name+", link", mbps(p.Now), unspecified)
		}
	}
}

// Module is a memory module.
type Module struct {
	Slot, Type, Part string
	SizeMiB          int64 // 0: not known
	SpeedMTs         int   // what it runs at, or what it can where that is not said; 0: not known
	ECC              bool  // it has bits for error correction beside its data
}

func (m Module) String() string {
	s := fmt.Sprintf("%s %d MiB", m.Slot, m.SizeMiB)
	if m.SpeedMTs > 0 {
		s += fmt.Sprintf(" %d MT/s", m.SpeedMTs)
	}
	for _, x := range []string{m.Type, m.Part} {
		if x != "" {
			s += " " + x
		}
	}
	if m.ECC {
		s += " ECC"
	}
	return s
}

// Modules returns the memory modules that DMI tables tell of: each Memory Device (DSP0134, type 17) that is not empty.
func Modules(dmi platform.DMI) []Module {
	if dmi == nil {
		return nil
	}
	number := func(s, unit string) int {
		n, err := strconv.Atoi(strings.TrimSuffix(s, " "+unit))
		if err != nil {
			return 0
		}
		return n
	}
	var out []Module
	for n := 0; dmi.Field(17, n, "Size") != ""; n++ {
		field := func(name string) string {
			switch s := dmi.Field(17, n, name); s {
			case "Not Specified", "Unknown", "<OUT OF SPEC>", "<BAD INDEX>":
				return ""
			default:
				return strings.TrimSpace(s)
			}
		}
		size := field("Size")
		if size == "No Module Installed" {
			continue
		}
		m := Module{Slot: field("Locator"), Type: field("Type"), Part: field("Part Number"), SizeMiB: mebibytes(size)}
		m.SpeedMTs = number(field("Configured Memory Speed"), "MT/s")
		if m.SpeedMTs == 0 {
			m.SpeedMTs = number(field("Speed"), "MT/s")
		}
		data := number(field("Data Width"), "bits")
		m.ECC = data > 0 && number(field("Total Width"), "bits") > data
		out = append(out, m)
	}
	return out
}

// mebibytes reads a size as dmidecode prints it. What is not known is 0.
func mebibytes(s string) int64 {
	number, unit, _ := strings.Cut(s, " ")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	switch unit {
	case "kB":
		return n >> 10
	case "MB":
		return n
	case "GB":
		return n << 10
	case "TB":
		return n << 20
	}
	return 0
}

// isModule reports whether a module is one that want describes.
func isModule(want manifest.MemoryModule, m Module) bool {
	return platform.Fits(want.Slot, m.Slot) && platform.Fits(want.Part, m.Part) && want.SizeMiB == m.SizeMiB &&
		m.SpeedMTs >= want.SpeedMTs && (want.Type == "" || want.Type == m.Type) && (m.ECC || !want.ECC)
}

func describeModule(w manifest.MemoryModule) string {
	s := Module{Slot: w.Slot, Type: w.Type, Part: w.Part, SizeMiB: w.SizeMiB, ECC: w.ECC}.String()
	if w.SpeedMTs > 0 {
		s += fmt.Sprintf(", at least %d MT/s", w.SpeedMTs)
	}
	return fmt.Sprintf("%d × %s", w.Count(), strings.TrimSpace(s))
}

// modules compares the memory modules, and how errors of the memory are corrected.
func (c *check) modules(spec manifest.Specs, dmi platform.DMI) {
	have := Modules(dmi)
	var found, wanted []string
	for _, m := range have {
		found = append(found, m.String())
	}
	var places []manifest.MemoryModule
	for _, w := range spec.MemoryModules {
		wanted = append(wanted, describeModule(w))
		places = append(places, slices.Repeat([]manifest.MemoryModule{w}, w.Count())...)
	}
	switch {
	case places != nil:
		c.add("memory modules", orNone(found), strings.Join(wanted, " and "), "exactly these: slot, size, speed, type, part, ECC",
			covers(places, have, isModule))
	case have != nil:
		c.skip("memory modules", orNone(found), unspecified)
	}
	ecc := errorCorrection(dmi)
	c.word("memory error correction", ecc, spec.MemoryECC, "the firmware does not say", ecc != "" && ecc != "Unknown")
}

// word compares one word. known reports whether the machine says it.
func (c *check) word(name, found, want, why string, known bool) {
	switch {
	case want != "" && known:
		c.add(name, found, want, "equal", found == want)
	case want != "":
		c.unsaid(name, want, why)
	case known:
		c.skip(name, found, unspecified)
	}
}

// security compares TPM, Secure Boot and microcode.
func (c *check) security(spec manifest.Specs, m Machine) {
	c.word("TPM", m.TPM, spec.TPM, "the kernel does not say", m.TPM != "" && m.TPM != "unknown")
	c.word("Secure Boot", m.SecureBoot, spec.SecureBoot, "the firmware does not say", m.SecureBoot != "" && m.SecureBoot != "unknown")
	want, have := spec.FirmwareVer.Microcode, m.Firmware.Microcode
	found, err := manifest.ParseMicrocode(have)
	switch {
	case want != "" && err != nil:
		c.unsaid("microcode", want, "the kernel does not say")
	case want != "":
		least, err := manifest.ParseMicrocode(want)
		c.add("microcode", have, want, "the same revision or a newer one", err == nil && found >= least)
	case err == nil:
		c.skip("microcode", have, unspecified)
	}
}

// specify writes down what a machine is in the parts beside disks and buses, as far as it says it.
func specify(s *manifest.Specs, m Machine) {
	for i, d := range s.Devices.PCI {
		for _, l := range m.Links {
			if l.Device == (Device{d.Vendor, d.Device, d.Class}) && l.Now.known() {
				if d.LinkMTs == 0 || !l.Now.atLeast(Rate{d.LinkMTs, d.LinkLanes}) {
					d.LinkMTs, d.LinkLanes = l.Now.MTs, l.Now.Lanes
				}
			}
		}
		s.Devices.PCI[i] = d
	}
	for _, x := range Modules(m.DMI) {
		if x.SizeMiB > 0 {
			s.MemoryModules = append(s.MemoryModules, manifest.MemoryModule{
				Slot: x.Slot, SizeMiB: x.SizeMiB, SpeedMTs: x.SpeedMTs, Type: x.Type, Part: x.Part, ECC: x.ECC,
			})
		}
	}
	if ecc := errorCorrection(m.DMI); manifest.KnownECC(ecc) {
		s.MemoryECC = ecc
	}
	if m.TPM != "unknown" {
		s.TPM = m.TPM
	}
	if m.SecureBoot == "on" || m.SecureBoot == "off" {
		s.SecureBoot = m.SecureBoot
	}
}

// errorCorrection is what DMI tables say of the memory (DSP0134, type 16), or "".
func errorCorrection(dmi platform.DMI) string {
	if dmi == nil {
		return ""
	}
	return dmi.Field(16, 0, "Error Correction Type")
}
