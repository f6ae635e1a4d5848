package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gprovision/model/dmi"
	"gprovision/model/source"
)

var macPrefix = regexp.MustCompile(`^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){0,5}$`)

// Check reads a table as Parse does, only more strictly, and returns all that is wrong with it in the order of its lines:
// what Parse refuses, what it replaces, keys that are missing, and variants that can never be chosen.
func Check(b []byte) []Problem {
	txt, err := source.Parse(b)
	if err != nil {
		var p Problem
		if errors.As(err, &p) {
			return []Problem{p}
		}
		return []Problem{{Text: err.Error()}}
	}
	ps := txt.Match(Table{})
	if source.Join(ps) != nil {
		return sorted(ps)
	}
	t, refused, err := decode(txt)
	if err != nil {
		return sorted(append(ps, Problem{Line: txt.Line("Version"), Path: "Version", Text: err.Error()}))
	}
	for _, p := range txt.Unknown(Table{}) {
		p.Warning = true // tables of other systems have keys of their own
		ps = append(ps, p)
	}
	ps = append(append(ps, refused...), t.notes...)
	c := checker{txt: txt, ps: ps}
	if len(t.Variants) == 0 {
		c.add("Variants", "there is no variant: no machine would be recognised", "add one for each kind of appliance")
	}
	for i, v := range t.Variants {
		c.variant(fmt.Sprintf("Variants[%d]", i), v)
		for j, w := range t.Variants[:i] {
			if same(v, w) {
				c.add(fmt.Sprintf("Variants[%d]", i), fmt.Sprintf("%s can never be chosen: Variants[%d] (%s) asks for the same DMI strings and processors, and comes first", v.DevCodeName, j, w.DevCodeName),
					"tell them apart with DmiProdModelRegex or CPU, or remove one")
				break
			}
		}
	}
	return sorted(c.ps)
}

type checker struct {
	txt *source.Text
	ps  []Problem
}

func (c *checker) add(path, text, hint string) {
	c.ps = append(c.ps, Problem{Line: c.txt.Line(path), Path: path, Text: text, Hint: hint})
}

func (c *checker) warn(path, text, hint string) {
	c.ps = append(c.ps, Problem{Line: c.txt.Line(path), Path: path, Text: text, Hint: hint, Warning: true})
}

// needed are the keys that each variant has.
func needed() []string {
	return []string{"Familyname", "DevCodeName", "DmiMbMfg", "DmiProdName", "DmiProdModelRegex", "SerNumField", "NICInfo", "NumDataDisks",
		"Disksize", "SwRaidlevel", "RecoveryMedia", "Lcd"}
}

func (c *checker) variant(path string, v Variant) {
	for _, key := range needed() {
		if p := source.Under(path, key); !c.txt.Has(p) {
			c.add(p, "the key is missing", "see docs/formats/appliance.md")
		}
	}
	at := func(key string) string { return source.Under(path, key) }
	for key, val := range map[string]string{"DevCodeName": v.DevCodeName, "DmiMbMfg": v.DmiMbMfg, "DmiProdName": v.DmiProdName, "SerNumField": v.SerNumField} {
		if c.txt.Has(at(key)) && strings.TrimSpace(val) == "" {
			c.add(at(key), "the value is empty", "")
		}
	}
	if _, err := regexp.Compile(v.DmiProdModelRegex); err != nil {
		c.add(at("DmiProdModelRegex"), "not a regular expression: "+err.Error(), "the syntax is that of Go; .* matches anything")
	}
	c.asked(at, v)
	if c.txt.Has(at("NumDataDisks")) && (v.NumDataDisks < 1 || v.NumDataDisks > 64) {
		c.add(at("NumDataDisks"), fmt.Sprintf("%d main disks, want 1 to 64", v.NumDataDisks), "")
	}
	if v.NumDataDisks > 1 && v.NumDataDisks <= 64 && !v.HasRAID() {
		c.add(at("NumDataDisks"), fmt.Sprintf("%d main disks without RAID: the system can be on one only", v.NumDataDisks), "give SwRaidlevel, or 1 disk")
	}
	if c.txt.Has(at("Disksize")) && v.Disksize <= 0 {
		c.add(at("Disksize"), fmt.Sprintf("%d bytes, want more than 0", v.Disksize), "the size as 'blockdev --getsize64' prints it")
	}
	for key, val := range map[string]int{"DiskSTol": v.DiskSTol, "DiskTTol": v.DiskTTol, "RecoveryMedia.SizeTolerancePct": v.RecoveryMedia.SizeTolerancePct} {
		if val < 0 || val > 100 {
			c.add(at(key), fmt.Sprintf("%d percent, want 0 to 100", val), "")
		}
	}
	if l := []int{-1, 0, 1, 5, 6, 10}; !slices.Contains(l, v.SwRaidlevel) {
		c.add(at("SwRaidlevel"), fmt.Sprintf("RAID level %d is not known", v.SwRaidlevel), "use -1 for none, or 0, 1, 5, 6, 10")
	} else if least := map[int]int{0: 2, 1: 2, 5: 3, 6: 4, 10: 2}[v.SwRaidlevel]; v.NumDataDisks < least && v.NumDataDisks > 0 {
		c.add(at("SwRaidlevel"), fmt.Sprintf("RAID level %d needs %d disks, NumDataDisks is %d", v.SwRaidlevel, least, v.NumDataDisks), "")
	}
	if f := strings.ToLower(v.FakeraidType); f != "" && f != "ddf" && f != "imsm" {
		c.add(at("FakeraidType"), fmt.Sprintf("%q is not known", v.FakeraidType), "use DDF or iMSM")
	}
	if c.txt.Has(at("RecoveryMedia")) && !c.txt.Has(at("RecoveryMedia.FsType")) {
		c.add(at("RecoveryMedia.FsType"), "the key is missing", "use ext4")
	}
	if v.RecoveryMedia.LocateRDMethod == Plan9 || v.RecoveryMedia.ValidateRDMethod == Validate9p {
		c.warn(at("RecoveryMedia"), "a recovery volume over 9p is not supported: units take a disk", "use byLabel")
	}
	if v.RecoveryMedia.Size < 0 {
		c.add(at("RecoveryMedia.Size"), "the size is negative", "")
	}
	for key, list := range map[string][]Bus{"RecoveryMedia.Bus": v.RecoveryMedia.Bus, "MainDisk.Bus": v.MainDisk.Bus} {
		for i, b := range list {
			if !slices.Contains([]Bus{USB, SATA, NVMe, Virtio, SCSI, MMC}, b) {
				c.add(fmt.Sprintf("%s[%d]", at(key), i), fmt.Sprintf("the bus %q is not known", b), "use usb, sata, nvme, virtio, scsi or mmc")
			}
		}
	}
	for i, p := range v.NICInfo.MACPrefix {
		if p != "*" && !macPrefix.MatchString(p) {
			c.add(fmt.Sprintf("%s[%d]", at("NICInfo.MACPrefix"), i), fmt.Sprintf("%q is not the beginning of a MAC address", p), "write two hex digits for each byte, with colons, or *")
		}
	}
	for i := 1; i < len(v.NICInfo.SharedDiagPorts); i++ {
		if v.NICInfo.SharedDiagPorts[i] >= v.NICInfo.SharedDiagPorts[i-1] {
			c.add(at("NICInfo.SharedDiagPorts"), "the ports are not listed highest first", "")
		}
	}
	for key, val := range map[string]string{"BootArgs": v.BootArgs, "Console": v.Console} {
		if len(val) > 1024 || strings.ContainsFunc(val, func(r rune) bool { return r < ' ' || r > '~' }) {
			c.add(at(key), "want at most 1024 printable ASCII characters", "")
		}
	}
	if v.GraceSeconds < 0 || v.GraceSeconds > 3600 {
		c.add(at("GraceSeconds"), fmt.Sprintf("%d seconds, want 0 to 3600", v.GraceSeconds), "")
	}
}

// asked finds keywords and fields of DMI that do not exist.
func (c *checker) asked(at func(string) string, v Variant) {
	if v.SerNumField != "" {
		if why := dmi.Unknown(dmi.Keyword, v.SerNumField); why != "" {
			c.add(at("SerNumField"), why, "such as system-serial-number or baseboard-serial-number; docs/formats/dmi.md has all")
		}
	}
	if v.DmiPMOverrideFld != "" {
		if why := dmi.Unknown(v.DmiPMOverrideTyp, v.DmiPMOverrideFld); why != "" {
			c.add(at("DmiPMOverrideFld"), why, "a field as dmidecode -t prints it; docs/formats/dmi.md has all")
		}
	}
	if (v.DmiPMOverrideTyp != 0) != (v.DmiPMOverrideFld != "") {
		c.add(at("DmiPMOverrideTyp"), "DmiPMOverrideTyp and DmiPMOverrideFld belong together, and one of them is missing", "")
	}
}

// same reports whether a and b fit exactly the same machines, as far as that can be seen from the table.
func same(a, b Variant) bool {
	return a.DmiMbMfg == b.DmiMbMfg && a.DmiProdName == b.DmiProdName && a.DmiProdModelRegex == b.DmiProdModelRegex &&
		a.DmiPMOverrideTyp == b.DmiPMOverrideTyp && a.DmiPMOverrideFld == b.DmiPMOverrideFld &&
		slices.Equal(cpus(a.CPU), cpus(b.CPU))
}

func sorted(ps []Problem) []Problem {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Path, b.Path)
	})
	return ps
}

// known returns an error if an enumeration has a value that is not known.
func (v Variant) known() error {
	b, err := json.Marshal(Table{Variants: []Variant{v}})
	if err != nil {
		return err
	}
	txt, err := source.Parse(b)
	if err != nil {
		return err
	}
	c := v
	return source.Join(c.settle("", txt))
}
