package platform

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gprovision/model/dmi"
	"gprovision/model/fault"
)

// DMI gives the strings of a machine's DMI tables. hw/smbios has it.
type DMI interface {
	// Keyword returns the value of a dmidecode keyword such as "system-serial-number", or "". For "processor-version" it is
	// one line for each processor that is there. What a maker left out is "Not Specified".
	Keyword(keyword string) string
	// Field returns the value of a field, such as "SKU Number", of the n-th structure of a type, from 0, or "".
	Field(typ, n int, name string) string
}

// Identity is a machine that was recognised.
type Identity struct {
	Variant Variant
	// Mfg, Prod and SKU are the strings by which it was recognised.
	Mfg, Prod, SKU string
	// Serial is the serial number, from the keyword that the variant names. See CheckSerial.
	Serial string
	// From says which strings fitted: "baseboard", "system", or "name" when it was not recognised but named.
	From string
}

// Identify finds the platform of a machine: the first variant whose manufacturer and product are exactly those of the
// baseboard, whose expression matches the SKU number, and whose processors are there; if none fits, the same with the strings
// of the system. The error is a fault.PlatformUnknown with the strings of the machine and what the table has.
func Identify(t *Table, dmi DMI) (Identity, error) {
	if i, from := choose(t, dmi); i >= 0 {
		v := t.Variants[i]
		mfg, prod := made(dmi, from)
		return Identity{Variant: v, Mfg: mfg, Prod: prod, SKU: v.sku(dmi), Serial: v.serial(dmi), From: from}, nil
	}
	var known []string
	for _, v := range t.Variants {
		known = append(known, fmt.Sprintf("%s (%q %q %s)", v.DevCodeName, v.DmiMbMfg, v.DmiProdName, v.DmiProdModelRegex))
	}
	return Identity{}, fault.Newf(fault.PlatformUnknown, "baseboard %q %q, system %q %q, SKU %q, processors %q; known: %s",
		dmi.Keyword("baseboard-manufacturer"), dmi.Keyword("baseboard-product-name"), dmi.Keyword("system-manufacturer"), dmi.Keyword("system-product-name"),
		dmi.Field(1, 0, "SKU Number"), processors(dmi), strings.Join(known, ", "))
}

// choose returns the index of the variant that a machine is, and by which strings; -1 if it is none.
func choose(t *Table, dmi DMI) (int, string) {
	for _, from := range sources() {
		for i, v := range t.Variants {
			if v.differs(dmi, from) == "" {
				return i, from
			}
		}
	}
	return -1, ""
}

// sources are whose strings are compared, in their order.
func sources() []string { return []string{"baseboard", "system"} }

// made returns manufacturer and product of the baseboard, or of the system.
func made(dmi DMI, from string) (mfg, prod string) {
	return strings.TrimSpace(dmi.Keyword(from + "-manufacturer")), strings.TrimSpace(dmi.Keyword(from + "-product-name"))
}

// differs returns the first rule by which a machine is not of the variant, or nothing if it is.
func (v Variant) differs(dmi DMI, from string) string {
	mfg, prod := made(dmi, from)
	switch {
	case v.DmiMbMfg != mfg:
		return fmt.Sprintf("the manufacturer of the %s is %q, and DmiMbMfg %q", from, mfg, v.DmiMbMfg)
	case v.DmiProdName != prod:
		return fmt.Sprintf("the product name of the %s is %q, and DmiProdName %q", from, prod, v.DmiProdName)
	}
	re, err := regexp.Compile(v.DmiProdModelRegex)
	typ, field := v.model()
	switch sku := v.sku(dmi); {
	case err != nil:
		return "DmiProdModelRegex is no expression: " + err.Error()
	case !matches(re, sku):
		return fmt.Sprintf("%q (DMI type %d, %s) does not match DmiProdModelRegex %s", sku, typ, field, v.DmiProdModelRegex)
	case !fits(cpus(v.CPU), processors(dmi)):
		return fmt.Sprintf("the processors are %q, and CPU has %q", processors(dmi), cpus(v.CPU))
	}
	return ""
}

// Reason says whether a variant was chosen for a machine, and why.
type Reason struct {
	DevCodeName string `json:"devCodeName"`
	Chosen      bool   `json:"chosen"`
	// Why is the rule by which it was chosen, or those by which it was not.
	Why string `json:"why"`
}

// Explain says of each variant of a table whether Identify chooses it for a machine, and why.
func Explain(t *Table, dmi DMI) []Reason {
	chosen, by := choose(t, dmi)
	var out []Reason
	for i, v := range t.Variants {
		r := Reason{DevCodeName: v.DevCodeName, Chosen: i == chosen}
		var not []string
		for _, from := range sources() {
			if why := v.differs(dmi, from); why != "" {
				not = append(not, why)
			}
		}
		switch {
		case r.Chosen:
			typ, field := v.model()
			r.Why = fmt.Sprintf("manufacturer and product name of the %s are DmiMbMfg and DmiProdName, and %q (DMI type %d, %s) matches %q", by,
				v.sku(dmi), typ, field, v.DmiProdModelRegex)
			if listed := cpus(v.CPU); len(listed) > 0 {
				r.Why += fmt.Sprintf(", and each processor is among %q", listed)
			}
		case len(not) == len(sources()):
			r.Why = strings.Join(not, "; ")
		case v.differs(dmi, by) == "":
			r.Why = fmt.Sprintf("it fits too, and %s comes first in the table", t.Variants[chosen].DevCodeName)
		default:
			r.Why = fmt.Sprintf("it fits the system, and %s fits the baseboard, which counts first", t.Variants[chosen].DevCodeName)
		}
		out = append(out, r)
	}
	return out
}

// Named returns the identity of a machine whose platform somebody names (the kernel argument PROTO_IDENT): the variant with
// that DevCodeName, and the serial number from DMI. The error is a fault.PlatformUnknown.
func Named(t *Table, code string, dmi DMI) (Identity, error) {
	v, ok := t.ByName(code)
	if !ok {
		return Identity{}, fault.Newf(fault.PlatformUnknown, "the appliance table has no variant %q", code)
	}
	return Identity{Variant: v, Mfg: v.DmiMbMfg, Prod: v.DmiProdName, SKU: v.sku(dmi), Serial: v.serial(dmi), From: "name"}, nil
}

// model is the field of DMI that tells apart models, which DmiProdModelRegex must match.
func (v Variant) model() (typ int, field string) {
	if v.DmiPMOverrideFld != "" {
		return v.DmiPMOverrideTyp, strings.TrimSuffix(v.DmiPMOverrideFld, ":")
	}
	return 1, "SKU Number"
}

func (v Variant) sku(dmi DMI) string {
	typ, field := v.model()
	return strings.TrimSpace(dmi.Field(typ, 0, field))
}

// matches reports whether an expression matches a SKU number. One that a maker left out may be written as dmidecode prints it, or as
// nothing.
func matches(re *regexp.Regexp, sku string) bool {
	return re.MatchString(sku) || sku == dmi.NotSpecified && re.MatchString("")
}

func (v Variant) serial(dmi DMI) string { return strings.TrimSpace(dmi.Keyword(v.SerNumField)) }

func processors(dmi DMI) []string { return cpus(dmi.Keyword("processor-version")) }

// cpus returns the lines of a list of processors that say something, sorted.
func cpus(spec string) []string {
	var out []string
	for line := range strings.Lines(spec) {
		if line = strings.TrimSpace(line); line != "" && line != dmi.NotSpecified {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// fits reports whether every processor that was found is listed. Each listed line covers one of them; more may be listed than
// are there. An empty list fits all.
func fits(listed, found []string) bool {
	if len(listed) == 0 {
		return true
	}
	left := slices.Clone(listed)
	for _, f := range found {
		f = strings.TrimSpace(f)
		if f == "" {
			continue
		}
		i := slices.Index(left, f)
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return true
}

// factsFile is the content of platform_facts.json: one flat object.
type factsFile struct {
	Variant
	Mfg, Prod, SKU, Serial string
}

// Facts returns the content of platform_facts.json, which tells the programs of the running system what they run on. An
// enumeration with a value that is not known is an error.
func Facts(id Identity) ([]byte, error) {
	if err := id.Variant.known(); err != nil {
		return nil, fmt.Errorf("write platform facts: %w", err)
	}
	b, err := json.MarshalIndent(factsFile{id.Variant, id.Mfg, id.Prod, id.SKU, id.Serial}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write platform facts: %w", err)
	}
	return append(b, '\n'), nil
}
