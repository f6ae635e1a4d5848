// Package smbios reads what the firmware says about the machine: maker, model, serial numbers, processors (SMBIOS, DMTF DSP0134,
// often called DMI).
//
// Values are asked for by the keywords of dmidecode -s, or by type and field name as dmidecode -t prints them, because that is
// how appliance tables name them. They are text that a board's maker typed in: a serial number may well be "To Be Filled By
// O.E.M.". A field that is not there is empty, where dmidecode prints "Not Specified".
package smbios

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/u-root/u-root/pkg/smbios"

	"gprovision/hw/partition"
)

// Info is what the firmware says.
type Info struct {
	// Version of SMBIOS, such as 3.0. Empty if the tables themselves cannot be read.
	Version string
	tables  []table
	// What the kernel has, by keyword, where the tables cannot be read.
	fallback map[string]string
}

// table is one structure.
type table struct {
	typ     int
	data    []byte // with the header of four bytes
	strings []string
}

// Processor is one processor socket.
type Processor struct {
	Socket       string
	Manufacturer string
	Version      string // the model, such as "Intel(R) Xeon(R) CPU D-1521 @ 2.40GHz"
	Populated    bool
	Cores        int // 0 if not said
	Threads      int // 0 if not said
}

// ErrNone is the error of a machine without SMBIOS.
var ErrNone = errors.New("this machine has no SMBIOS")

const maxTables = 4096

// Read reads the tables of the running machine. The file system must be rooted at /sys: firmware/dmi/tables, which only root may
// read. If they are not there, or beyond use, it takes the few values that the kernel shows in class/dmi/id. Tables behind one that is damaged
// are left out.
func Read(sys fs.FS) (Info, error) {
	entry, err := fs.ReadFile(sys, "firmware/dmi/tables/smbios_entry_point")
	if err == nil {
		var data []byte
		if data, err = fs.ReadFile(sys, "firmware/dmi/tables/DMI"); err == nil {
			i, bad := Parse(entry, data)
			if bad == nil {
				return i, nil
			}
			err = bad
		}
	}
	if i, ok := readClass(sys); ok {
		return i, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNone, err)
	}
	return Info{}, fmt.Errorf("read SMBIOS: %w", err)
}

// Parse reads an entry point (DSP0134 section 5.2) and the tables it leads to.
func Parse(entry, data []byte) (Info, error) {
	e32, e64, err := smbios.ParseEntry(whole(entry))
	if err != nil {
		return Info{}, fmt.Errorf("parse SMBIOS entry point: %w", err)
	}
	var i Info
	var major, minor uint8
	switch {
	case e64 != nil:
		major, minor = e64.SMBIOSMajorVersion, e64.SMBIOSMinorVersion
	case e32 != nil:
		major, minor = e32.SMBIOSMajorVersion, e32.SMBIOSMinorVersion
	}
	i.Version = fmt.Sprintf("%d.%d", major, minor)
	for len(data) > 0 && len(i.tables) < maxTables {
		t, rest, err := smbios.ParseTable(data)
		if t == nil {
			if len(i.tables) == 0 {
				return Info{}, fmt.Errorf("parse SMBIOS tables: %w", err)
			}
			break
		}
		data = rest
		if t.Type == smbios.TableTypeEndOfTable {
			break
		}
		if t.Len() < 4 {
			continue
		}
		raw, err := t.MarshalBinary() // the structure, its strings, each with a NUL, and a NUL
		if err != nil {
			return Info{}, fmt.Errorf("parse SMBIOS tables: %w", err)
		}
		one := table{typ: int(t.Type), data: raw[:t.Len()]}
		if text := strings.TrimRight(string(raw[t.Len():]), "\x00"); text != "" {
			one.strings = strings.Split(text, "\x00")
		}
		i.tables = append(i.tables, one)
	}
	return i, nil
}

// whole returns an entry point of 2.x with its last byte. Firmware of the time of version 2.1 says 1Eh of its length, where 1Fh is right
// (DSP0134 section 5.2.1, note on the field Length); the byte that is missing is the revision as BCD, which nobody reads.
func whole(entry []byte) []byte {
	const short = 0x1e
	if len(entry) < short || string(entry[:4]) != "_SM_" || entry[5] != short {
		return entry
	}
	sum := func(b []byte) (s byte) {
		for _, c := range b {
			s += c
		}
		return s
	}
	if sum(entry[:short]) != 0 {
		return entry
	}
	e := append(append([]byte(nil), entry[:short]...), -sum(entry[0x10:short])) // what makes the sum of the second part right
	e[5]++
	e[4] -= 1 + e[short]
	return e
}

// classFiles are the files of /sys/class/dmi/id (Documentation/ABI/testing/sysfs-firmware-dmi-tables and drivers/firmware/dmi-id.c).
var classFiles = map[string]string{
	"bios-vendor": "bios_vendor", "bios-version": "bios_version", "bios-release-date": "bios_date",
	"system-manufacturer": "sys_vendor", "system-product-name": "product_name", "system-version": "product_version",
	"system-serial-number": "product_serial", "system-uuid": "product_uuid", "system-sku-number": "product_sku", "system-family": "product_family",
	"baseboard-manufacturer": "board_vendor", "baseboard-product-name": "board_name", "baseboard-version": "board_version",
	"baseboard-serial-number": "board_serial", "baseboard-asset-tag": "board_asset_tag",
	"chassis-manufacturer": "chassis_vendor", "chassis-version": "chassis_version", "chassis-serial-number": "chassis_serial", "chassis-asset-tag": "chassis_asset_tag",
}

func readClass(sys fs.FS) (Info, bool) {
	i := Info{fallback: map[string]string{}}
	for k, name := range classFiles {
		if b, err := fs.ReadFile(sys, "class/dmi/id/"+name); err == nil {
			i.fallback[k] = clean(string(b))
		}
	}
	if u := i.fallback["system-uuid"]; u != "" {
		i.fallback["system-uuid"] = strings.ToLower(u)
	}
	return i, len(i.fallback) > 0
}

// field is where a value is in a structure.
type field struct {
	at   int
	kind kind
}

type kind int

const (
	text     kind = iota // a string of the structure
	identity             // a UUID of 16 bytes
	chassis              // an enumeration
)

// keywords of dmidecode -s: type of structure, name of the field.
var keywords = map[string]struct {
	typ  int
	name string
}{
	"bios-vendor": {0, "Vendor"}, "bios-version": {0, "Version"}, "bios-release-date": {0, "Release Date"},
	"system-manufacturer": {1, "Manufacturer"}, "system-product-name": {1, "Product Name"}, "system-version": {1, "Version"},
	"system-serial-number": {1, "Serial Number"}, "system-uuid": {1, "UUID"}, "system-sku-number": {1, "SKU Number"}, "system-family": {1, "Family"},
	"baseboard-manufacturer": {2, "Manufacturer"}, "baseboard-product-name": {2, "Product Name"}, "baseboard-version": {2, "Version"},
	"baseboard-serial-number": {2, "Serial Number"}, "baseboard-asset-tag": {2, "Asset Tag"},
	"chassis-manufacturer": {3, "Manufacturer"}, "chassis-type": {3, "Type"}, "chassis-version": {3, "Version"},
	"chassis-serial-number": {3, "Serial Number"}, "chassis-asset-tag": {3, "Asset Tag"},
	"processor-manufacturer": {4, "Manufacturer"}, "processor-version": {4, "Version"},
}

// fields by type and by the name that dmidecode -t prints (DSP0134 sections 7.1 to 7.5, 7.18).
var fields = map[int]map[string]field{
	0: {"Vendor": {4, text}, "Version": {5, text}, "Release Date": {8, text}},
	1: {"Manufacturer": {4, text}, "Product Name": {5, text}, "Version": {6, text}, "Serial Number": {7, text}, "UUID": {8, identity}, "SKU Number": {0x19, text}, "Family": {0x1a, text}},
	2: {"Manufacturer": {4, text}, "Product Name": {5, text}, "Version": {6, text}, "Serial Number": {7, text}, "Asset Tag": {8, text}, "Location In Chassis": {10, text}},
	3: {"Manufacturer": {4, text}, "Type": {5, chassis}, "Version": {6, text}, "Serial Number": {7, text}, "Asset Tag": {8, text}, "SKU Number": {-1, text}},
	4: {"Socket Designation": {4, text}, "Manufacturer": {7, text}, "Version": {0x10, text}, "Serial Number": {0x20, text}, "Asset Tag": {0x21, text}, "Part Number": {0x22, text}},
	17: {"Locator": {0x10, text}, "Bank Locator": {0x11, text}, "Manufacturer": {0x17, text}, "Serial Number": {0x18, text}, "Asset Tag": {0x19, text},
		"Part Number": {0x1a, text}},
}

// Keyword returns the value of a keyword of dmidecode -s, such as system-serial-number, or nothing if it is not known or not
// there. For processors it is one line for each populated socket, for everything else that of the first structure. UUIDs are in
// lower case.
func (i Info) Keyword(k string) string {
	if i.fallback != nil {
		return i.fallback[k]
	}
	w, ok := keywords[k]
	if !ok {
		return ""
	}
	if w.typ != 4 {
		return i.Field(w.typ, 0, w.name)
	}
	var lines []string
	for _, t := range i.ofType(4) {
		if t.populated() {
			lines = append(lines, i.value(t, fields[4][w.name], w.name))
		}
	}
	return strings.Join(lines, "\n")
}

// KnownKeyword reports whether Keyword knows k, for the check of appliance tables.
func KnownKeyword(k string) bool { _, ok := keywords[k]; return ok }

// Field returns a field of the n-th structure, from 0, of the given type, by the name that dmidecode -t prints, with or without
// its colon. It is empty if there is no such structure or field.
func (i Info) Field(typ, n int, name string) string {
	name = strings.TrimSuffix(strings.TrimSpace(name), ":")
	f, ok := fields[typ][name]
	all := i.ofType(typ)
	if !ok || n < 0 || n >= len(all) {
		if i.fallback != nil && n == 0 {
			for k, w := range keywords {
				if w.typ == typ && w.name == name {
					return i.fallback[k]
				}
			}
		}
		return ""
	}
	return i.value(all[n], f, name)
}

// Processors returns the version string of each processor that is there, in the order of the tables.
func (i Info) Processors() []string {
	var out []string
	for _, p := range i.Sockets() {
		if p.Populated {
			out = append(out, p.Version)
		}
	}
	return out
}

// Sockets returns all processor sockets, in the order of the tables.
func (i Info) Sockets() []Processor {
	var out []Processor
	for _, t := range i.ofType(4) {
		p := Processor{
			Socket:       i.value(t, field{4, text}, ""),
			Manufacturer: i.value(t, field{7, text}, ""),
			Version:      i.value(t, field{0x10, text}, ""),
			Populated:    t.populated(),
			Cores:        t.count(0x23, 0x2a),
			Threads:      t.count(0x25, 0x2e),
		}
		out = append(out, p)
	}
	return out
}

// OEMStrings returns the strings of type 11 (DSP0134 section 7.12).
func (i Info) OEMStrings() []string {
	var out []string
	for _, t := range i.ofType(11) {
		for _, s := range t.strings {
			out = append(out, clean(s))
		}
	}
	return out
}

// Has reports whether there is a structure of a type (DSP0134 section 7).
func (i Info) Has(typ int) bool { return len(i.ofType(typ)) > 0 }

func (i Info) ofType(typ int) []table {
	var out []table
	for _, t := range i.tables {
		if t.typ == typ {
			out = append(out, t)
		}
	}
	return out
}

func (i Info) value(t table, f field, name string) string {
	at := f.at
	if at < 0 { // behind the contained elements of a chassis
		if len(t.data) < 0x15 {
			return ""
		}
		at = 0x15 + int(t.data[0x13])*int(t.data[0x14])
	}
	switch f.kind {
	case identity:
		if len(t.data) < at+16 {
			return ""
		}
		return i.uuid([16]byte(t.data[at : at+16]))
	case chassis:
		if len(t.data) <= at {
			return ""
		}
		return chassisName(t.data[at] & 0x7f)
	}
	if len(t.data) <= at {
		return ""
	}
	n := int(t.data[at])
	if n == 0 || n > len(t.strings) {
		return ""
	}
	return clean(t.strings[n-1])
}

// uuid writes the UUID of the system. The first three fields are little-endian since version 2.6 (DSP0134 section 7.2.1). All
// zeros and all ones mean that there is none.
func (i Info) uuid(b [16]byte) string {
	if b == [16]byte{} || strings.Count(string(b[:]), "\xff") == 16 {
		return ""
	}
	var major, minor int
	if _, err := fmt.Sscanf(i.Version, "%d.%d", &major, &minor); err == nil && (major < 2 || major == 2 && minor < 6) {
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	return partition.FormatGUID(b)
}

// populated reports whether there is a processor in the socket: bit 6 of the status.
func (t table) populated() bool { return len(t.data) > 0x18 && t.data[0x18]&0x40 != 0 }

// count reads a number of cores or threads: one byte, or two at another place if that is ff.
func (t table) count(at, wide int) int {
	if len(t.data) <= at {
		return 0
	}
	if n := t.data[at]; n != 0xff || len(t.data) < wide+2 {
		return int(n)
	}
	return int(binary.LittleEndian.Uint16(t.data[wide:]))
}

func chassisName(n byte) string {
	if int(n) < len(chassisNames) {
		return chassisNames[n]
	}
	return ""
}

// chassisNames are the names of DSP0134 table 17 as dmidecode prints them.
var chassisNames = []string{"", "Other", "Unknown", "Desktop", "Low Profile Desktop", "Pizza Box", "Mini Tower", "Tower", "Portable", "Laptop", "Notebook",
	"Hand Held", "Docking Station", "All In One", "Sub Notebook", "Space-saving", "Lunch Box", "Main Server Chassis", "Expansion Chassis", "Sub Chassis",
	"Bus Expansion Chassis", "Peripheral Chassis", "RAID Chassis", "Rack Mount Chassis", "Sealed-case PC", "Multi-system", "CompactPCI", "AdvancedTCA", "Blade",
	"Blade Enclosing", "Tablet", "Convertible", "Detachable", "IoT Gateway", "Embedded PC", "Mini PC", "Stick PC"}

// clean trims a string and replaces what is not printable, as dmidecode does.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '.'
		}
		return r
	}, strings.TrimSpace(strings.ToValidUTF8(s, ".")))
	return strings.TrimSpace(s)
}
