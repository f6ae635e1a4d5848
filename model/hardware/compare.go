package hardware

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/platform"
)

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

// Compare holds a machine of a platform against a specification. All comparisons run. What a specification does not name is not compared,
// and its line says so. The main disks must be named. The serial number of a platform that was not recognised but named need not match. See
// Judge.
func Compare(spec manifest.Specs, m Machine, id platform.Identity) []Line {
	c := &check{}
	c.cpu(spec.CPUInfo, m.CPU)
	c.nics(spec, m.NICs, id.Variant.MACPrefixes())
	if spec.RamMegs == 0 {
		c.skip("memory", fmt.Sprintf("%d MiB", m.RamMegs), unspecified)
	} else {
		c.add("memory", fmt.Sprintf("%d MiB", m.RamMegs), fmt.Sprintf("%d MiB", spec.RamMegs), "within 1 %",
			diff(m.RamMegs, spec.RamMegs)*100 < spec.RamMegs)
	}
	c.firmware(spec.FirmwareVer, m.Firmware)
	c.health(spec.DiskHealth, c.disks(spec, m.Disks, id.Variant))
	c.devices("USB device", spec.Devices.USB, m.USB)
	c.devices("PCI device", spec.Devices.PCI, m.PCI)
	c.links(spec.Devices.PCI, m.Links)
	c.ports(spec.Ports, m.Speeds)
	c.modules(spec, m.DMI)
	c.security(spec, m)
	c.dmi(spec.DmiMatches, m.DMI)
	c.serial(spec.SerNumRegex, m.Serial, id.From == "name")
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

// Lacks reports whether a line does not hold that a disk, a network port or a device on a bus which is still to come may make hold.
func Lacks(lines []Line) bool {
	return slices.ContainsFunc(lines, func(l Line) bool {
		kinds := []string{"recovery device", "main disks", "network ports", "own addresses", "USB device", "PCI device"}
		return l.Wrong() && slices.ContainsFunc(kinds, func(kind string) bool { return strings.HasPrefix(l.Name, kind) })
	})
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
	for _, f := range []struct {
		name, found, want string
		given             bool
	}{
		{"processor model", strconv.Quote(have.Model), strconv.Quote(want.Model), want.Model != ""},
		{"logical processors", strconv.Itoa(have.Cores), strconv.Itoa(want.Cores), want.Cores != 0},
		{"processor sockets", strconv.Itoa(have.Sockets), strconv.Itoa(want.Sockets), want.Sockets != 0},
	} {
		if f.given {
			c.add(f.name, f.found, f.want, "equal", f.found == f.want)
		} else {
			c.skip(f.name, f.found, unspecified)
		}
	}
}

func (c *check) nics(spec manifest.Specs, ports []Port, oui []string) {
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
		c.add("own addresses follow one another", strconv.FormatBool(seq), strconv.FormatBool(*spec.OUINicsSequential), "equal",
			seq == *spec.OUINicsSequential)
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
		{"BIOS", want.BIOS, have.BIOS}, {"IPMI", want.IPMI, have.IPMI}, {"FRU", want.FRU, have.FRU}, {"SDR", want.SDR, have.SDR},
		{"ME", want.ME, have.ME},
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
func sameMake(want manifest.Disk, d Disk) bool {
	return platform.Fits(want.Vendor, d.Vendor) && platform.Fits(want.Model, d.Model)
}

// matches reports whether a disk is one that want describes.
func matches(want manifest.Disk, d Disk) bool {
	return sameMake(want, d) && platform.Within(d.Size, want.Size, want.SizeTolerancePct)
}

// Wanted is what a specification says of the recovery device, or nil if it says nothing.
func Wanted(s manifest.Specs) *platform.Want {
	r := s.Recovery
	if r.Size == 0 && r.Vendor == "" && r.Model == "" {
		return nil
	}
	return &platform.Want{Size: r.Size, TolerancePct: r.SizeTolerancePct, Vendor: r.Vendor, Model: r.Model}
}

// recovery compares the recovery device, as a provisioning chooses it, and returns its index, -1 if none was chosen. Where the recovery
// volume is on the main disk there is no device to compare.
func (c *check) recovery(spec manifest.Specs, disks []Disk, v platform.Variant) int {
	if v.OneDisk() {
		return -1
	}
	var all []platform.Candidate
	for _, d := range disks {
		all = append(all, d.Candidate)
	}
	chosen, err := platform.ChooseRecovery(v, Wanted(spec), all)
	i := slices.IndexFunc(disks, func(d Disk) bool { return err == nil && d.Path == chosen.Path })
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
		for _, d := range disks {
			if matches(spec.Recovery, d) && platform.AllowedRecovery(v, d.Candidate) {
				found = append(found, describeDisk(d))
			}
		}
		c.add("recovery device", fmt.Sprintf("%d that fit: %s", len(found), orNone(found)), describeWanted(spec.Recovery), "exactly one fits",
			false)
	}
	return i
}

// disks compares the disks, and returns the main disks and the recovery device.
func (c *check) disks(spec manifest.Specs, disks []Disk, v platform.Variant) []Disk {
	recovery := c.recovery(spec, disks, v)
	named := func(d Disk) bool {
		for _, alt := range spec.MainDiskConfigs {
			for _, w := range alt {
				if (w.Vendor != "" || w.Model != "") && sameMake(w, d) {
					return true
				}
			}
		}
		return false
	}
	var main []Disk
	var found, media []string
	for j, d := range disks {
		switch {
		case j == recovery:
		case (d.Removable || d.Bus == string(platform.USB)) && !named(d):
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
		var places []manifest.Disk
		for _, w := range alt {
			places = append(places, slices.Repeat([]manifest.Disk{w}, w.Count())...)
		}
		ok = ok || len(alt) > 0 && covers(places, main, matches)
	}
	c.add("main disks", fmt.Sprintf("%d: %s", len(found), orNone(found)), strings.Join(orNoneList(alts), "; or "),
		"exactly the disks of one alternative: vendor and model equal, size within its tolerance", ok)
	if recovery >= 0 {
		main = append(main, disks[recovery])
	}
	return main
}

// covers reports whether each part can be assigned to one place, so that all places are taken. Places overlap where tolerances do, so
// this is a matching (by augmenting paths), not a first fit.
func covers[W, P any](places []W, parts []P, fits func(W, P) bool) bool {
	if len(places) != len(parts) {
		return false
	}
	owner := slices.Repeat([]int{-1}, len(places))
	var assign func(d int, tried []bool) bool
	assign = func(d int, tried []bool) bool {
		for p, w := range places {
			if tried[p] || !fits(w, parts[d]) {
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
	for d := range parts {
		if !assign(d, make([]bool, len(places))) {
			return false
		}
	}
	return true
}

// describeDisk returns what is known of a disk, in words.
func describeDisk(d Disk) string {
	s := fmt.Sprintf("%s %d bytes", d.Path, d.Size)
	for _, x := range []string{d.Bus, d.Vendor, d.Model} {
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

// devices compares the devices of a bus that are named, and lists the others. have is nil if the bus could not be read.
func (c *check) devices(kind string, want []manifest.BusDevice, have []Device) {
	var others []string
	for _, d := range count(have, false) {
		if !slices.ContainsFunc(want, func(w manifest.BusDevice) bool { return sameDevice(w, d) }) {
			others = append(others, fmt.Sprintf("%d × %s:%s class %s", d.Quantity, d.Vendor, d.Device, d.Class))
		}
	}
	for _, w := range want {
		name := fmt.Sprintf("%s %s:%s class %s", kind, w.Vendor, w.Device, w.Class)
		if w.HumanDescription != "" {
			name += " (" + w.HumanDescription + ")"
		}
		n, found := uint(0), "not read"
		if have != nil {
			for _, d := range count(have, false) {
				if sameDevice(w, d) {
					n = d.Quantity
				}
			}
			found = strconv.FormatUint(uint64(n), 10)
		}
		c.add(name, found, strconv.FormatUint(uint64(w.Quantity), 10), "equal", have != nil && n == w.Quantity)
	}
	if len(others) > 0 {
		c.skip("other "+kind+"s", strings.Join(others, ", "), unspecified)
	}
}

func sameDevice(a, b manifest.BusDevice) bool {
	return a.Vendor == b.Vendor && a.Device == b.Device && a.Class == b.Class
}

func (c *check) dmi(want map[string]string, have platform.DMI) {
	var keys []string
	for k := range want {
		if !strings.HasPrefix(k, "_") {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if len(keys) == 0 && have != nil {
		c.skip("DMI", "system-product-name "+strconv.Quote(have.Keyword("system-product-name")), unspecified)
	}
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
