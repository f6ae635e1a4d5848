// Package dmi says what the structures of SMBIOS mean (DMTF DSP0134, often called DMI): for each structure the names and values of
// its fields, in the words of dmidecode 3.4, because that is how manifests and appliance tables name them.
//
// A value is what dmidecode prints behind the field's colon, without blanks around it: "Not Specified" for a string that a maker left
// out, "<BAD INDEX>" for one that is not there, "<OUT OF SPEC>" for a number that nobody defined. Where nothing stands there, it is the
// list below, one item a line. A structure that is too short for a field does not have it. Structures of makers' own (128 to 255) are
// bytes and strings, also where dmidecode knows more of them.
//
// Finding the tables is up to hw/smbios.
package dmi

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Structure is one structure of the tables.
type Structure struct {
	// Type is its number.
	Type int
	// Data is the structure with its header of four bytes, without its strings.
	Data []byte
	// Strings are its strings; fields name them from 1.
	Strings []string
	// Version is that of the tables: major version times 256 plus minor version.
	Version int
}

// Field is one field as dmidecode prints it.
type Field struct {
	// Name is what stands before the colon.
	Name string
	// Value is what stands behind it on the same line, often nothing for a list.
	Value string
	// List is what stands below.
	List []string
}

// Text is what a field is compared by.
func (f Field) Text() string {
	if f.Value == "" {
		return strings.Join(f.List, "\n")
	}
	return f.Value
}

// What stands in place of a value.
const (
	NotSpecified = "Not Specified"
	badIndex     = "<BAD INDEX>"
	outOfSpec    = "<OUT OF SPEC>"
	unknown      = "Unknown"
	none         = "None"
)

// absent is the value of a field that is not printed; no text of a structure has a NUL.
const absent = "\x00"

// Fields returns the fields of a structure in the order in which dmidecode prints them. A name may be there more than once; the first
// counts.
func (s Structure) Fields() []Field {
	rows, ok := layouts()[s.Type]
	if !ok {
		rows = unknownLayout()
	}
	var out []Field
	for _, r := range rows {
		switch {
		case r.need != nil:
			if len(s.Data) < r.need(s) {
				return out
			}
		case r.several != nil:
			out = append(out, r.several(s)...)
		default:
			f := Field{Name: r.name, Value: r.value(s)}
			if r.list != nil {
				f.List = r.list(s)
			}
			if f.Value != absent {
				f.Value = strings.TrimSpace(f.Value)
				out = append(out, f)
			}
		}
	}
	return out
}

// Field returns the text of a field, "" if the structure does not have it. The colon may be at the name or not.
func (s Structure) Field(name string) string {
	name = bare(name)
	for _, f := range s.Fields() {
		if f.Name == name {
			return f.Text()
		}
	}
	return ""
}

func bare(name string) string {
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(name), ":"))
}

// Populated reports whether there is a processor in a socket (type 4): bit 6 of its status.
func (s Structure) Populated() bool { return s.u8(0x18)&0x40 != 0 }

// row is a field, or several, or a length without which the structure ends there.
type row struct {
	name    string
	value   func(Structure) string
	list    func(Structure) []string
	several func(Structure) []Field
	names   []string // of several, with %d for a number from 1
	need    func(Structure) int
}

func (s Structure) u8(at int) int {
	if at >= len(s.Data) {
		return 0
	}
	return int(s.Data[at])
}

func (s Structure) u16(at int) int { return int(s.u64(at) & 0xffff) }

func (s Structure) u32(at int) uint32 { return uint32(s.u64(at)) }

func (s Structure) u64(at int) uint64 {
	var b [8]byte
	if at < len(s.Data) {
		copy(b[:], s.Data[at:])
	}
	return binary.LittleEndian.Uint64(b[:])
}

// str returns the string with a number. What is not printable ASCII is a dot.
func (s Structure) str(n int) string {
	switch {
	case n == 0:
		return NotSpecified
	case n > len(s.Strings):
		return badIndex
	}
	return printable(s.Strings[n-1])
}

// Clean returns a string as it is shown: what is not printable ASCII is a dot, without blanks around it, "Not Specified" for an empty one.
func Clean(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return NotSpecified
	}
	return printable(s)
}

func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '.'
		}
	}
	return string(b)
}

// Known reports whether structures of a type can have a field of a name, with or without its colon.
func Known(typ int, name string) bool { return slices.Contains(Names(typ), pattern(bare(name))) }

// Names returns the names of the fields that structures of a type can have, each once. # stands for a number from 1.
func Names(typ int) []string {
	if typ < 0 || typ > 255 {
		return nil
	}
	rows, ok := layouts()[typ]
	if !ok {
		rows = unknownLayout()
	}
	var out []string
	for _, r := range rows {
		for _, n := range append(r.names, r.name) {
			if n = strings.Replace(n, "%d", "#", 1); n != "" && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

// pattern replaces the number in a name such as "Peer Device 2 ...", if it is one that dmidecode writes.
func pattern(name string) string {
	words := strings.Split(name, " ")
	for i, w := range words {
		if n, err := strconv.ParseUint(w, 10, 8); err == nil && n > 0 && strconv.FormatUint(n, 10) == w {
			words[i] = "#"
			return strings.Join(words, " ")
		}
	}
	return name
}

// size writes n times 1024 to the power of unit bytes in the largest unit in which it is not less than one, or, if that leaves a part of at
// least a 1024th, in the one below.
func size(n uint64, unit int) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB", "PB", "EB", "ZB"}
	top := 0
	for i := 1; i < 7; i++ {
		if n>>(10*i) != 0 {
			top = i
		}
	}
	if top > 0 && n>>(10*(top-1))&0x3ff != 0 {
		top--
	}
	return fmt.Sprintf("%d %s", n>>(10*top), units[min(top+unit, len(units)-1)])
}
