package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/nic"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/platform"
)

// Observed is the hardware of this machine, as the check against the bill of materials sees it.
type Observed struct {
	CPU      manifest.CPU
	RamMegs  uint64       // MemTotal of /proc/meminfo in MiB
	NICs     []nic.Port   // with hardware behind them
	Disks    []block.Disk // the recovery device too
	PCI, USB []Device
	DMI      platform.DMI // nil if nothing is known
	Firmware manifest.Firmware
	Serial   string // serial number of the machine
}

// Device is one device on a bus.
type Device struct {
	Vendor, Device, Class manifest.ID
}

// Line is one line of the check. Every line is shown, also one that holds.
type Line struct {
	Name     string `json:"name"`     // what was looked at
	Found    string `json:"found"`    // what is there
	Expected string `json:"expected"` // what the manifest says
	Rule     string `json:"rule"`     // how the two were compared, or why they were not
	Checked  bool   `json:"checked"`  // whether they were compared
	OK       bool   `json:"ok"`       // whether they were compared and agree
}

// Wrong reports whether the line does not hold.
func (l Line) Wrong() bool { return l.Checked && !l.OK }

// Tally returns how many lines were compared, and how many were not, as a sentence.
func Tally(lines []Line) string {
	checked := 0
	for _, l := range lines {
		if l.Checked {
			checked++
		}
	}
	return fmt.Sprintf("%d checked, %d not checked", checked, len(lines)-checked)
}

// Rules is what the check needs to know beside the specification.
type Rules struct {
	// OUI lists the prefixes of MAC addresses that count as the company's own, in lower case. Without any, all addresses do.
	OUI []string
	// Recovery is the path of the disk that was chosen as recovery device. If it is empty, the specification finds the device.
	Recovery string
	// Named reports whether the platform was not recognised but named, so that the serial number need not match.
	Named bool
}

// Validate compares what was observed with a specification. All comparisons run. What a specification does not name is not
// compared, and its line says so. The main disks must be named. See Judge.
func Validate(spec manifest.Specs, o Observed, r Rules) []Line {
	c := &check{}
	c.cpu(spec.CPUInfo, o.CPU)
	c.nics(spec, o.NICs, r.OUI)
	if spec.RamMegs == 0 {
		c.skip("memory", fmt.Sprintf("%d MiB", o.RamMegs), unspecified)
	} else {
		c.add("memory", fmt.Sprintf("%d MiB", o.RamMegs), fmt.Sprintf("%d MiB", spec.RamMegs), "within 1 %", diff(o.RamMegs, spec.RamMegs)*100 < spec.RamMegs)
	}
	c.firmware(spec.FirmwareVer, o.Firmware)
	c.disks(spec, o.Disks, r.Recovery)
	c.devices("USB device", spec.Devices.USB, o.USB)
	c.devices("PCI device", spec.Devices.PCI, o.PCI)
	c.dmi(spec.DmiMatches, o.DMI)
	c.serial(spec.SerNumRegex, o.Serial, r.Named)
	return c.lines
}

// Judge returns a fault.QAMismatch that names the lines which do not hold, or nil if all do.
func Judge(lines []Line) error {
	var bad []string
	for _, l := range lines {
		if l.Wrong() {
			bad = append(bad, fmt.Sprintf("%s is %s, want %s", l.Name, l.Found, l.Expected))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fault.Newf(fault.QAMismatch, "%d of %d lines do not match: %s", len(bad), len(lines), strings.Join(bad, "; "))
}

type check struct{ lines []Line }

func (c *check) add(name, found, expected, rule string, ok bool) {
	c.lines = append(c.lines, Line{Name: name, Found: found, Expected: expected, Rule: rule, Checked: true, OK: ok})
}

// skip adds a line in which nothing is compared, and says why.
func (c *check) skip(name, found, why string) {
	c.lines = append(c.lines, Line{Name: name, Found: found, Expected: "anything", Rule: why})
}

// unspecified is why most lines are not checked.
const unspecified = "not specified"

func (c *check) cpu(want, have manifest.CPU) {
	if want == (manifest.CPU{}) {
		c.skip("processor", fmt.Sprintf("%s, %d logical in %d socket(s)", have.Model, have.Cores, have.Sockets), unspecified)
		return
	}
	c.add("processor model", strconv.Quote(have.Model), strconv.Quote(want.Model), "equal", have.Model == want.Model)
	c.add("logical processors", strconv.Itoa(have.Cores), strconv.Itoa(want.Cores), "equal", have.Cores == want.Cores)
	c.add("processor sockets", strconv.Itoa(have.Sockets), strconv.Itoa(want.Sockets), "equal", have.Sockets == want.Sockets)
}

func (c *check) nics(spec manifest.Specs, ports []nic.Port, oui []string) {
	var own, all []string
	for _, p := range ports {
		all = append(all, p.MAC)
		if len(oui) == 0 || slices.ContainsFunc(oui, func(o string) bool { return strings.HasPrefix(p.MAC, o) }) {
			own = append(own, p.MAC)
		}
	}
	slices.Sort(own)
	count := func(name string, want *int, have []string) {
		found := fmt.Sprintf("%d (%s)", len(have), strings.Join(have, " "))
		if want == nil {
			c.skip(name, found, unspecified)
		} else {
			c.add(name, found, strconv.Itoa(*want), "equal", len(have) == *want)
		}
	}
	prefix := "any prefix"
	if len(oui) > 0 {
		prefix = "prefix " + strings.Join(oui, " or ")
	}
	count("network ports with own address, "+prefix, spec.NumOUINics, own)
	if seq := sequential(own); spec.OUINicsSequential == nil {
		c.skip("own addresses follow one another", strconv.FormatBool(seq), unspecified)
	} else {
		c.add("own addresses follow one another", strconv.FormatBool(seq), strconv.FormatBool(*spec.OUINicsSequential), "equal", seq == *spec.OUINicsSequential)
	}
	count("network ports", spec.TotalNics, all)
}

// sequential reports whether each address is the one before plus 1. One address, or none, is.
func sequential(sorted []string) bool {
	var last uint64
	for i, s := range sorted {
		v, err := strconv.ParseUint(strings.ReplaceAll(s, ":", ""), 16, 48)
		if err != nil || i > 0 && v != last+1 {
			return false
		}
		last = v
	}
	return true
}

func (c *check) firmware(want, have manifest.Firmware) {
	for _, f := range []struct{ name, want, have string }{
		{"BIOS", want.BIOS, have.BIOS}, {"IPMI", want.IPMI, have.IPMI}, {"FRU", want.FRU, have.FRU}, {"SDR", want.SDR, have.SDR}, {"ME", want.ME, have.ME},
	} {
		switch {
		case f.want != "":
			c.add("firmware "+f.name, strconv.Quote(f.have), strconv.Quote(f.want), "equal", f.have == f.want)
		case f.have != "":
			c.skip("firmware "+f.name, strconv.Quote(f.have), unspecified)
		}
	}
}

// sameMake reports whether a disk has the vendor and the model of want.
func sameMake(want manifest.Disk, d block.Disk) bool {
	same := func(want, have string) bool {
		return strings.TrimSpace(want) == "" || strings.TrimSpace(want) == strings.TrimSpace(have)
	}
	return same(want.Vendor, d.Vendor) && same(want.Model, d.Model)
}

// matches reports whether a disk is one that want describes.
func matches(want manifest.Disk, d block.Disk) bool {
	return sameMake(want, d) && platform.Within(d.Size, want.Size, want.SizeTolerancePct)
}

func (c *check) disks(spec manifest.Specs, disks []block.Disk, recovery string) {
	i := slices.IndexFunc(disks, func(d block.Disk) bool { return d.Path == recovery && recovery != "" })
	switch {
	case spec.Recovery == (manifest.Disk{}) && i >= 0:
		c.skip("recovery device", describeDisk(disks[i]), unspecified)
	case spec.Recovery == (manifest.Disk{}):
		c.skip("recovery device", "not chosen", unspecified)
	case i >= 0:
		c.add("recovery device", describeDisk(disks[i]), describeWanted(spec.Recovery), "vendor and model equal, size within its tolerance",
			matches(spec.Recovery, disks[i]))
	default:
		var found []string
		for j, d := range disks {
			if matches(spec.Recovery, d) {
				found, i = append(found, describeDisk(d)), j
			}
		}
		c.add("recovery device", fmt.Sprintf("%d that fit: %s", len(found), orNone(found)), describeWanted(spec.Recovery), "exactly one fits",
			len(found) == 1)
		if len(found) != 1 {
			i = -1
		}
	}
	named := func(d block.Disk) bool {
		for _, alt := range spec.MainDiskConfigs {
			for _, w := range alt {
				if (w.Vendor != "" || w.Model != "") && sameMake(w, d) {
					return true
				}
			}
		}
		return false
	}
	var main []block.Disk
	var found, media []string
	for j, d := range disks {
		switch {
		case j == i:
		case (d.Removable || d.Bus == block.USB) && !named(d):
			media = append(media, describeDisk(d))
		default:
			main, found = append(main, d), append(found, describeDisk(d))
		}
	}
	if len(media) > 0 {
		c.skip("other media", strings.Join(media, ", "), "removable and USB media are not counted unless the specification names their model")
	}
	var alts []string
	ok := false
	for _, alt := range spec.MainDiskConfigs {
		var s []string
		for _, w := range alt {
			s = append(s, describeWanted(w))
		}
		alts = append(alts, strings.Join(s, " and "))
		ok = ok || len(alt) > 0 && covers(alt, main)
	}
	c.add("main disks", fmt.Sprintf("%d: %s", len(found), orNone(found)), strings.Join(orNoneList(alts), "; or "), "exactly the disks of one alternative: vendor and model equal, size within its tolerance", ok)
}

// covers reports whether each disk can be assigned to one place of alt, so that all places are taken. Places overlap where
// tolerances do, so this is a matching (by augmenting paths), not a first fit.
func covers(alt []manifest.Disk, disks []block.Disk) bool {
	total := 0
	for _, w := range alt {
		total += w.Count()
	}
	if total != len(disks) {
		return false
	}
	var places []manifest.Disk
	for _, w := range alt {
		places = append(places, slices.Repeat([]manifest.Disk{w}, w.Count())...)
	}
	owner := slices.Repeat([]int{-1}, len(places))
	var assign func(d int, tried []bool) bool
	assign = func(d int, tried []bool) bool {
		for p, w := range places {
			if tried[p] || !matches(w, disks[d]) {
				continue
			}
			tried[p] = true
			if owner[p] < 0 || assign(owner[p], tried) {
				owner[p] = d
				return true
			}
		}
		return false
	}
	for d := range disks {
		if !assign(d, make([]bool, len(places))) {
			return false
		}
	}
	return true
}

// describeDisk returns what is known of a disk, in words.
func describeDisk(d block.Disk) string {
	s := fmt.Sprintf("%s %d bytes", d.Path, d.Size)
	for _, x := range []string{string(d.Bus), d.Vendor, d.Model} {
		if x != "" {
			s += ", " + x
		}
	}
	return s
}

// describeWanted returns what a specification says of a disk, in words.
func describeWanted(d manifest.Disk) string {
	s := fmt.Sprintf("%d × %d bytes ±%d %%", d.Count(), d.Size, d.SizeTolerancePct)
	for _, x := range []string{d.Vendor, d.Model} {
		if x != "" {
			s += ", " + x
		}
	}
	return s
}

func orNone(s []string) string { return strings.Join(orNoneList(s), ", ") }

func orNoneList(s []string) []string {
	if len(s) == 0 {
		return []string{"none"}
	}
	return s
}

func (c *check) devices(kind string, want []manifest.BusDevice, have []Device) {
	for _, w := range want {
		n := 0
		for _, h := range have {
			if h == (Device{w.Vendor, w.Device, w.Class}) {
				n++
			}
		}
		name := fmt.Sprintf("%s %s:%s class %s", kind, w.Vendor, w.Device, w.Class)
		if w.HumanDescription != "" {
			name += " (" + w.HumanDescription + ")"
		}
		c.add(name, strconv.Itoa(n), strconv.FormatUint(uint64(w.Quantity), 10), "equal", uint(n) == w.Quantity)
	}
}

func (c *check) dmi(want map[string]string, have platform.DMI) {
	var keys []string
	for k := range want {
		if !strings.HasPrefix(k, "_") {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		key, err := manifest.ParseDMIKey(k)
		switch {
		case err != nil:
			c.add("DMI "+k, "not read", strconv.Quote(want[k]), err.Error(), false)
			continue
		case have == nil:
			c.add("DMI "+k, "no DMI tables", strconv.Quote(want[k]), "equal", false)
			continue
		}
		found := ""
		if key.Keyword != "" {
			found = have.Keyword(key.Keyword)
		} else {
			found = have.Field(key.Type, key.Index, key.Field)
		}
		c.add("DMI "+k, strconv.Quote(found), strconv.Quote(want[k]), "equal", found == want[k])
	}
}

func (c *check) serial(expr, have string, named bool) {
	if expr == "" {
		c.skip("serial number", strconv.Quote(have), unspecified)
		return
	}
	re, err := regexp.Compile(expr)
	switch {
	case err != nil:
		c.add("serial number", strconv.Quote(have), expr, "the expression is wrong: "+err.Error(), false)
	case named && !re.MatchString(have):
		c.skip("serial number", strconv.Quote(have), "the platform was named, not recognised")
	default:
		c.add("serial number", strconv.Quote(have), expr, "matches the expression", re.MatchString(have))
	}
}

func diff(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// Collect reads what /proc and /sys say of this machine and adds what is passed in. The error joins all that could not be
// read; what could is returned all the same, and the rest fails its lines.
func Collect(proc, sys fs.FS, dmi platform.DMI, disks []block.Disk, ports []nic.Port, serial string) (Observed, error) {
	o := Observed{DMI: dmi, Disks: disks, NICs: ports, Serial: serial}
	if dmi != nil {
		o.Firmware.BIOS = dmi.Keyword("bios-version")
	}
	var errs []error
	keep := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	o.CPU, err = readCPU(proc, sys)
	keep(err)
	o.RamMegs, err = readMemory(proc, "MemTotal")
	keep(err)
	o.PCI, err = readBus(sys, "bus/pci/devices", "vendor", "device", "class", 8)
	keep(err)
	o.USB, err = readBus(sys, "bus/usb/devices", "idVendor", "idProduct", "bDeviceClass", 0)
	keep(err)
	return o, errors.Join(errs...)
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

// readMemory returns one amount of /proc/meminfo in MiB.
func readMemory(proc fs.FS, name string) (uint64, error) {
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

// readBus reads the devices of a bus. Entries without a vendor are no devices. shift is dropped from the class.
func readBus(sys fs.FS, dir, vendor, device, class string, shift uint) ([]Device, error) {
	entries, err := fs.ReadDir(sys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	var out []Device
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
			out = append(out, Device{manifest.ID(v), manifest.ID(d), manifest.ID(c >> shift)})
		}
	}
	return out, nil
}

// Dump returns what was observed as a specification in the schema of the manifest, for its author to start from. recovery
// is the path of the recovery device; if it is empty all disks are listed as main disks, and a note says so.
func Dump(o Observed, code, recovery string, oui []string) ([]byte, error) {
	s := manifest.Specs{DevCodeName: code, CPUInfo: o.CPU, RamMegs: o.RamMegs, FirmwareVer: o.Firmware, TotalNics: new(len(o.NICs))}
	var own []string
	for _, p := range o.NICs {
		if len(oui) == 0 || slices.ContainsFunc(oui, func(x string) bool { return strings.HasPrefix(p.MAC, x) }) {
			own = append(own, p.MAC)
		}
	}
	slices.Sort(own)
	s.NumOUINics, s.OUINicsSequential = new(len(own)), new(sequential(own))
	var main []manifest.Disk
	for _, d := range o.Disks {
		x := manifest.Disk{Size: d.Size, SizeTolerancePct: 1, Vendor: d.Vendor, Model: d.Model, Quantity: 1}
		if d.Path == recovery && recovery != "" {
			x.Quantity = 0
			s.Recovery = x
			continue
		}
		if i := slices.IndexFunc(main, func(m manifest.Disk) bool {
			m.Quantity = 1
			return m == x
		}); i >= 0 {
			main[i].Quantity++
		} else {
			main = append(main, x)
		}
	}
	if main != nil {
		s.MainDiskConfigs = [][]manifest.Disk{main}
	}
	if recovery == "" {
		s.Recovery.Vendor = "(move the entry of the recovery device here from MainDiskConfigs)"
	}
	s.Devices.PCI, s.Devices.USB = count(o.PCI, true), count(o.USB, false)
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the detected hardware: %w", err)
	}
	return append(b, '\n'), nil
}

// count groups equal devices.
func count(devices []Device, pci bool) []manifest.BusDevice {
	var out []manifest.BusDevice
	for _, d := range devices {
		x := manifest.BusDevice{Vendor: d.Vendor, Device: d.Device, Class: d.Class}
		if i := slices.IndexFunc(out, func(o manifest.BusDevice) bool { return d == Device{o.Vendor, o.Device, o.Class} }); i >= 0 {
			out[i].Quantity++
			continue
		}
		x.Quantity = 1
		if pci {
			x.HumanDescription = pciClass(d.Class)
		}
		out = append(out, x)
	}
	return out
}

// pciClass returns the name of a class and subclass (PCI Code and ID Assignment Specification), or "".
func pciClass(c manifest.ID) string {
	switch c {
	case 0x0100:
		return "SCSI controller"
	case 0x0104:
		return "RAID controller"
	case 0x0106:
		return "SATA controller"
	case 0x0107:
		return "SAS controller"
	case 0x0108:
		return "NVMe controller"
	case 0x0200:
		return "Ethernet"
	case 0x0300:
		return "VGA"
	case 0x0403:
		return "audio"
	case 0x0600:
		return "host bridge"
	case 0x0601:
		return "ISA bridge"
	case 0x0604:
		return "PCI bridge"
	case 0x0780:
		return "communication controller"
	case 0x0800:
		return "interrupt controller"
	case 0x0880:
		return "system peripheral"
	case 0x0c03:
		return "USB controller"
	case 0x0c05:
		return "SMBus"
	case 0x1101:
		return "performance counters"
	case 0x1180:
		return "signal processing"
	case 0xff00:
		return "not assigned"
	}
	return ""
}
