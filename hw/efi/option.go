package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Active is the attribute of a load option that the firmware's boot manager starts by itself (UEFI 2.10 section 3.1.3).
const Active = 1

// The category of a load option: what the boot manager tries by itself, or only on request (UEFI 2.10 section 3.1.3).
const (
	category    = 0x1f00
	categoryApp = 0x0100
)

// LoadOption is the content of a variable BootXXXX (EFI_LOAD_OPTION, UEFI 2.10 section 3.1.3).
type LoadOption struct {
	Attributes  uint32
	Description string
	// Path is the device path of what is started, without its end node.
	Path []Node
	// More is what follows the end of the first device path, as it is: firmware may use it for paths of its own.
	More []byte
	// Optional is passed to what is started, as it is.
	Optional []byte
}

// Node is one node of a device path (UEFI 2.10 section 10.3.1: type, subtype, length with these four bytes).
type Node struct {
	Type, Sub byte
	Data      []byte // without the header of four bytes
}

// HardDrive is a node that names a partition (UEFI 2.10 section 10.3.5.1).
type HardDrive struct {
	Number    uint32   // of the partition, from 1
	Start     uint64   // in logical sectors
	Size      uint64   // in logical sectors
	Signature [16]byte // GUID as on disk, or the signature of an MBR in the first four bytes
	Format    byte     // 1 MBR, 2 GPT
	Kind      byte     // of the signature: 0 none, 1 MBR, 2 GUID
}

// Types and subtypes of nodes (UEFI 2.10 sections 10.3.1 end, 10.3.5.1 hard drive, 10.3.5.4 file path).
const (
	typeMedia = 4
	subHD     = 1
	subFile   = 4
	typeEnd   = 0x7f
	subEnd    = 0xff
)

// ErrSyntax is the error of bytes that are not a load option.
var ErrSyntax = errors.New("not a load option")

// ParseLoadOption reads the data of a variable BootXXXX, without the attributes of the variable. Nodes that are not known are
// kept as they are, so that Encode of the result gives the same bytes.
func ParseLoadOption(b []byte) (LoadOption, error) {
	bad := func(what string) (LoadOption, error) { return LoadOption{}, fmt.Errorf("%w: %s", ErrSyntax, what) }
	if len(b) < 6 {
		return bad("too short")
	}
	le := binary.LittleEndian
	o := LoadOption{Attributes: le.Uint32(b)}
	n := int(le.Uint16(b[4:]))
	b = b[6:]
	var text []uint16
	for {
		if len(b) < 2 {
			return bad("description does not end")
		}
		c := le.Uint16(b)
		b = b[2:]
		if c == 0 {
			break
		}
		text = append(text, c)
	}
	o.Description = string(utf16.Decode(text))
	if n > len(b) {
		return bad("device path does not end")
	}
	path := b[:n]
	if len(b) > n {
		o.Optional = b[n:]
	}
	for {
		if len(path) < 4 {
			return bad("device path has no end node")
		}
		size := int(le.Uint16(path[2:]))
		if size < 4 || size > len(path) {
			return bad("length of a device path node")
		}
		node := Node{Type: path[0], Sub: path[1], Data: path[4:size]}
		path = path[size:]
		if node.Type == typeEnd && node.Sub == subEnd {
			if size != 4 {
				return bad("length of the end node")
			}
			break
		}
		o.Path = append(o.Path, node)
	}
	if len(path) > 0 {
		o.More = path
	}
	return o, nil
}

// Encode returns the data of a variable BootXXXX. The error is of a description with a NUL, or a path that is too long.
func (o LoadOption) Encode() ([]byte, error) {
	if strings.ContainsRune(o.Description, 0) {
		return nil, fmt.Errorf("encode load option: description %q contains a NUL", o.Description)
	}
	le := binary.LittleEndian
	var path []byte
	for _, n := range o.Path {
		if len(n.Data) > 0xffff-4 {
			return nil, fmt.Errorf("encode load option: a node of %d bytes is too long", len(n.Data))
		}
		path = append(path, n.Type, n.Sub)
		path = le.AppendUint16(path, uint16(4+len(n.Data)))
		path = append(path, n.Data...)
	}
	path = append(path, typeEnd, subEnd, 4, 0)
	path = append(path, o.More...)
	if len(path) > 0xffff {
		return nil, fmt.Errorf("encode load option: a device path of %d bytes is too long", len(path))
	}
	b := le.AppendUint32(nil, o.Attributes)
	b = le.AppendUint16(b, uint16(len(path)))
	b = append(b, encodeText(o.Description)...)
	b = append(b, 0, 0)
	b = append(b, path...)
	return append(b, o.Optional...), nil
}

// encodeText is UTF-16, little-endian, without BOM and terminator.
func encodeText(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

func decodeText(b []byte) string {
	var u []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}

// HardDrive returns the last node of the path that names a partition.
func (o LoadOption) HardDrive() (HardDrive, bool) {
	for i := len(o.Path) - 1; i >= 0; i-- {
		if n := o.Path[i]; n.Type == typeMedia && n.Sub == subHD && len(n.Data) == 38 {
			le := binary.LittleEndian
			return HardDrive{
				Number: le.Uint32(n.Data), Start: le.Uint64(n.Data[4:]), Size: le.Uint64(n.Data[12:]),
				Signature: [16]byte(n.Data[20:36]), Format: n.Data[36], Kind: n.Data[37],
			}, true
		}
	}
	return HardDrive{}, false
}

// File returns the path of the file inside of the partition, such as \EFI\BOOT\BOOTX64.EFI, or nothing.
func (o LoadOption) File() string {
	var parts []string
	for _, n := range o.Path {
		if n.Type == typeMedia && n.Sub == subFile {
			parts = append(parts, decodeText(n.Data))
		}
	}
	return strings.Join(parts, `\`)
}

// node encodes a partition.
func (h HardDrive) node() Node {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, h.Number)
	b = le.AppendUint64(b, h.Start)
	b = le.AppendUint64(b, h.Size)
	b = append(b, h.Signature[:]...)
	return Node{Type: typeMedia, Sub: subHD, Data: append(b, h.Format, h.Kind)}
}
