// Package smbios finds what the firmware says about the machine: maker, model, serial numbers, processors (SMBIOS, DMTF DSP0134,
// often called DMI). What the structures mean is in model/dmi.
//
// Values are asked for by the keywords of dmidecode -s, or by type and field name as dmidecode -t prints them, because that is
// how appliance tables name them. They are text that a board's maker typed in: a serial number may well be "To Be Filled By
// O.E.M.", and is "Not Specified" where the maker left it out.
package smbios

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/u-root/u-root/pkg/smbios"

	"gprovision/model/dmi"
)

// Info is what the firmware says.
type Info struct {
	// Version of SMBIOS, such as 3.0. Empty if the tables themselves cannot be read.
	Version string
	// Tables are the structures. None if the tables themselves cannot be read.
	Tables dmi.Tables
	// What the kernel has, by keyword, where the tables cannot be read.
	fallback map[string]string
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
	switch int(major)<<8 | int(minor) { // firmware of the time of 2.3 and 2.6 that numbers its drafts
	case 0x21f, 0x221:
		minor = 3
	case 0x233:
		minor = 6
	}
	i.Version = fmt.Sprintf("%d.%d", major, minor)
	for len(data) > 0 && len(i.Tables) < maxTables {
		t, rest, err := smbios.ParseTable(data)
		if t == nil {
			if len(i.Tables) == 0 {
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
		one := dmi.Structure{Type: int(t.Type), Data: raw[:t.Len()], Version: int(major)<<8 | int(minor)}
		if text := strings.TrimRight(string(raw[t.Len():]), "\x00"); text != "" {
			one.Strings = strings.Split(text, "\x00")
		}
		i.Tables = append(i.Tables, one)
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
			i.fallback[k] = dmi.Clean(string(b))
		}
	}
	if u := i.fallback["system-uuid"]; u != "" {
		i.fallback["system-uuid"] = strings.ToLower(u)
	}
	return i, len(i.fallback) > 0
}

// Keyword returns the value of a keyword of dmidecode -s, such as system-serial-number, or nothing if it is not known or not
// there. For processors it is one line for each populated socket, for everything else that of the first structure. UUIDs are in
// lower case.
func (i Info) Keyword(k string) string {
	if i.fallback != nil {
		return i.fallback[k]
	}
	return i.Tables.Keyword(k)
}

// Field returns a field of the n-th structure, from 0, of the given type, by the name that dmidecode -t prints, with or without
// its colon. It is empty if there is no such structure or field.
func (i Info) Field(typ, n int, name string) string {
	if i.fallback == nil || n != 0 {
		return i.Tables.Field(typ, n, name)
	}
	for _, k := range dmi.Keywords() {
		if t, field, ok := dmi.KeywordField(k); ok && t == typ && field == strings.TrimSuffix(strings.TrimSpace(name), ":") {
			return i.fallback[k]
		}
	}
	return ""
}

// Has reports whether there is a structure of a type (DSP0134 section 7).
func (i Info) Has(typ int) bool { return len(i.Tables.Of(typ)) > 0 }
