package dmi

import (
	"fmt"
	"slices"
	"strings"
)

// Tables are all structures of a machine, in their order.
type Tables []Structure

// Of returns the structures of a type.
func (t Tables) Of(typ int) []Structure {
	return slices.DeleteFunc(slices.Clone(t), func(s Structure) bool { return s.Type != typ })
}

// Field returns the text of a field of the n-th structure of a type, from 0, or "" if there is none.
func (t Tables) Field(typ, n int, name string) string {
	if all := t.Of(typ); n >= 0 && n < len(all) {
		return all[n].Field(name)
	}
	return ""
}

// Keyword returns what dmidecode -s prints for a keyword: of the first structure, but for processors one line for each socket that is
// populated. It is "" if there is no such structure, or it is too short.
func (t Tables) Keyword(name string) string {
	i := slices.IndexFunc(keywords(), func(k keyword) bool { return k.name == name })
	if i < 0 {
		return ""
	}
	k := keywords()[i]
	var out []string
	for _, s := range t.Of(k.typ) {
		if k.typ == processor && !s.Populated() {
			continue
		}
		if len(s.Data) > k.at {
			if v := k.value(s); v != absent {
				out = append(out, strings.TrimSpace(v))
			}
		}
		if k.typ != processor {
			break
		}
	}
	return strings.Join(out, "\n")
}

const processor = 4

// keyword is one of dmidecode -s. A structure has it if it is longer than at.
type keyword struct {
	name  string
	typ   int
	field string // its name where the structure is printed as a whole
	at    int
	value valueOf
}

// Keywords returns all keywords of dmidecode -s, in its order.
func Keywords() []string {
	var out []string
	for _, k := range keywords() {
		out = append(out, k.name)
	}
	return out
}

// KeywordField returns the type and the name of the field that a keyword stands for; ok is false if it is none.
func KeywordField(name string) (typ int, field string, ok bool) {
	for _, k := range keywords() {
		if k.name == name {
			return k.typ, k.field, true
		}
	}
	return 0, "", false
}

func keywords() []keyword {
	str := func(name string, typ int, field string, at int) keyword {
		return keyword{name, typ, field, at, func(s Structure) string { return s.str(s.u8(at)) }}
	}
	return []keyword{
		str("bios-vendor", 0, "Vendor", 4),
		str("bios-version", 0, "Version", 5),
		str("bios-release-date", 0, "Release Date", 8),
		{"bios-revision", 0, "BIOS Revision", 0x15, revision(0x14)},
		{"firmware-revision", 0, "Firmware Revision", 0x17, revision(0x16)},
		str("system-manufacturer", 1, "Manufacturer", 4),
		str("system-product-name", 1, "Product Name", 5),
		str("system-version", 1, "Version", 6),
		str("system-serial-number", 1, "Serial Number", 7),
		{"system-uuid", 1, "UUID", 0x17, systemUUID},
		str("system-sku-number", 1, "SKU Number", 0x19),
		str("system-family", 1, "Family", 0x1a),
		str("baseboard-manufacturer", 2, "Manufacturer", 4),
		str("baseboard-product-name", 2, "Product Name", 5),
		str("baseboard-version", 2, "Version", 6),
		str("baseboard-serial-number", 2, "Serial Number", 7),
		str("baseboard-asset-tag", 2, "Asset Tag", 8),
		str("chassis-manufacturer", 3, "Manufacturer", 4),
		{"chassis-type", 3, "Type", 5, func(s Structure) string { return named("chassis", s.u8(5)&0x7f) }},
		str("chassis-version", 3, "Version", 6),
		str("chassis-serial-number", 3, "Serial Number", 7),
		str("chassis-asset-tag", 3, "Asset Tag", 8),
		{"processor-family", processor, "Family", 6, processorFamily},
		str("processor-manufacturer", processor, "Manufacturer", 7),
		str("processor-version", processor, "Version", 0x10),
		{"processor-frequency", processor, "Current Speed", 0x17, func(s Structure) string {
			return worded(s.u16(0x16), "%d MHz",
				map[int]string{0: unknown})
		}},
	}
}

// Keyword in place of a type stands for the keywords of dmidecode -s.
const Keyword = -1

// Unknown says why a field of a type, or a keyword, cannot be asked for, with names that are near; "" if it can.
func Unknown(typ int, name string) string {
	switch {
	case typ == Keyword && slices.Contains(Keywords(), name), typ != Keyword && Known(typ, name):
		return ""
	case typ == Keyword:
		return fmt.Sprintf("dmidecode has no keyword %q%s", name, like(name, Keywords()))
	}
	return fmt.Sprintf("a structure of type %d has no field %q%s", typ, bare(name), like(bare(name), Names(typ)))
}

// like names those of a list that are nearest to a name.
func like(name string, all []string) string {
	type near struct {
		name string
		far  int
	}
	var found []near
	for _, a := range all {
		short, long := strings.ToLower(name), strings.ToLower(a)
		d := distance(short, long)
		if strings.HasPrefix(long, short) {
			d = 1
		}
		if d <= max(2, len(name)/3) {
			found = append(found, near{a, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return a.far - b.far })
	var out []string
	for _, f := range found[:min(3, len(found))] {
		out = append(out, fmt.Sprintf("%q", f.name))
	}
	if len(out) == 0 {
		return ""
	}
	return "; near it are " + strings.Join(out, ", ")
}

// distance is how many characters must be changed, added or taken out to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			step := before
			if a[i] != b[j] {
				step++
			}
			before = row[j+1]
			row[j+1] = min(step, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}
