package bootimage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Section is a section of a PE file.
type Section struct {
	// Name has at most eight bytes.
	Name string
	// VirtualAddress and VirtualSize say where the section is in memory and how long its content is, bytes.
	VirtualAddress, VirtualSize uint32
	// Offset and RawSize say where it is in the file, bytes. RawSize is rounded up to the file's alignment.
	Offset, RawSize uint32
	// Flags are the section's characteristics.
	Flags uint32
}

// Size is the length of the content that is in the file, bytes.
func (s Section) Size() int64 { return int64(min(s.VirtualSize, s.RawSize)) }

// peFile is the part of a PE32+ header that matters here (Microsoft PE/COFF specification, revision 11: "COFF File Header",
// "Optional Header" with its standard and Windows-specific fields, "Section Table").
type peFile struct {
	coff     int64 // offset of the COFF header
	optional int64 // offset of the optional header
	table    int64 // offset of the section table
	sectionAlign, fileAlign,
	sizeOfImage, sizeOfHeaders uint32
	directories uint32
	sections    []Section
}

const (
	peMachineAMD64 = 0x8664 // "Machine Types"
	pe32Plus       = 0x20b  // the magic number of the optional header
	sectionHeader  = 40     // bytes
	maxPESections  = 96     // "COFF File Header", NumberOfSections
)

var errNotPE = errors.New("not a PE file for x86-64")

func parsePE(r io.ReaderAt, size int64) (*peFile, error) {
	var dos [64]byte
	if err := readAt(r, size, dos[:], 0); err != nil || string(dos[:2]) != "MZ" {
		return nil, errNotPE
	}
	p := &peFile{}
	start := int64(binary.LittleEndian.Uint32(dos[60:]))
	var coff [24]byte
	if err := readAt(r, size, coff[:], start); err != nil || string(coff[:4]) != "PE\x00\x00" {
		return nil, errNotPE
	}
	p.coff = start + 4
	if binary.LittleEndian.Uint16(coff[4:]) != peMachineAMD64 {
		return nil, errNotPE
	}
	count := int(binary.LittleEndian.Uint16(coff[6:]))
	optSize := int64(binary.LittleEndian.Uint16(coff[20:]))
	p.optional = start + 24
	p.table = p.optional + optSize
	var opt [112]byte
	if optSize < int64(len(opt)) || count > maxPESections {
		return nil, errNotPE
	}
	if err := readAt(r, size, opt[:], p.optional); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(opt[:]) != pe32Plus {
		return nil, errNotPE
	}
	p.sectionAlign = binary.LittleEndian.Uint32(opt[32:])
	p.fileAlign = binary.LittleEndian.Uint32(opt[36:])
	p.sizeOfImage = binary.LittleEndian.Uint32(opt[56:])
	p.sizeOfHeaders = binary.LittleEndian.Uint32(opt[60:])
	p.directories = binary.LittleEndian.Uint32(opt[108:])
	table := make([]byte, count*sectionHeader)
	if err := readAt(r, size, table, p.table); err != nil {
		return nil, fmt.Errorf("read section table: %w", err)
	}
	for ; len(table) > 0; table = table[sectionHeader:] {
		s := Section{
			Name:           strings.TrimRight(string(table[:8]), "\x00"),
			VirtualSize:    binary.LittleEndian.Uint32(table[8:]),
			VirtualAddress: binary.LittleEndian.Uint32(table[12:]),
			RawSize:        binary.LittleEndian.Uint32(table[16:]),
			Offset:         binary.LittleEndian.Uint32(table[20:]),
			Flags:          binary.LittleEndian.Uint32(table[36:]),
		}
		if s.RawSize > 0 && int64(s.Offset)+s.Size() > size {
			return nil, fmt.Errorf("section %q ends at %d, the file has %d bytes", s.Name, int64(s.Offset)+s.Size(), size)
		}
		p.sections = append(p.sections, s)
	}
	return p, nil
}

func readAt(r io.ReaderAt, size int64, b []byte, off int64) error {
	if off < 0 || off > size || int64(len(b)) > size-off {
		return io.ErrUnexpectedEOF
	}
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Part is the content of a section of a unified kernel image that is to be written.
type Part struct {
	Name string // one of the Section names
	Data []byte
}

// The sections of a unified kernel image (UAPI group specification 5).
const (
	SectionLinux   = ".linux"   // the kernel, a bzImage
	SectionInitrd  = ".initrd"  // the initramfs, compressed
	SectionOSRel   = ".osrel"   // an os-release file; BUILD_ID is the build number
	SectionUname   = ".uname"   // the kernel's release, as uname -r has it
	SectionCmdline = ".cmdline" // kernel arguments
)

// Section flags (the same specification, "Section Flags").
const (
	peCode    = 0x00000020
	peData    = 0x00000040
	peExecute = 0x20000000
	peRead    = 0x40000000
)

// pageSize is at least the alignment of added sections in memory: a PE loader may set access rights by the page.
const pageSize = 4096

// WriteUKI writes stub, an EFI stub for x86-64 such as systemd's linuxx64.efi.stub, with the parts added as sections in the
// order given. .linux belongs last: a kernel that unpacks itself in place then overwrites nothing. It is an error if the stub
// has one of the sections already, is signed, or has no room in its header for more sections.
//
// The result has no symbol table: in the midst of the file it would be a gap between sections, over which programs that
// compute the hash for a signature disagree. It has no checksum, which UEFI does not ask for. It depends on nothing but the
// arguments.
func WriteUKI(w io.Writer, stub []byte, parts []Part) error {
	p, err := parsePE(sliceReader(stub), int64(len(stub)))
	if err != nil {
		return fmt.Errorf("parse EFI stub: %w", err)
	}
	head, bodies, err := p.grow(stub, parts)
	if err != nil {
		return fmt.Errorf("add sections to EFI stub: %w", err)
	}
	for _, b := range append([][]byte{head}, bodies...) {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// grow returns the stub with its new header, padded, and then each part, padded.
func (p *peFile) grow(stub []byte, parts []Part) (head []byte, bodies [][]byte, err error) {
	if !powerOfTwo(p.sectionAlign) || !powerOfTwo(p.fileAlign) || p.fileAlign > 1<<16 || p.sectionAlign > 1<<24 {
		return nil, nil, fmt.Errorf("alignments %d and %d", p.sectionAlign, p.fileAlign)
	}
	if err := p.check(stub, parts); err != nil {
		return nil, nil, err
	}
	memory, content := p.end()
	align := int64(max(p.sectionAlign, pageSize))
	file := roundUp(content, int64(p.fileAlign))
	head = make([]byte, file)
	copy(head, stub[:content])
	clear(head[p.coff+8 : p.coff+16]) // symbol table: it lay behind the sections
	data := binary.LittleEndian.Uint32(head[p.optional+8:])
	for i, part := range parts {
		memory = roundUp(memory, align)
		raw := roundUp(int64(len(part.Data)), int64(p.fileAlign))
		if memory+int64(len(part.Data)) > math.MaxInt32 || file+raw > math.MaxInt32 {
			return nil, nil, fmt.Errorf("section %s: more than 2 GiB in all", part.Name)
		}
		h := head[p.table+int64(len(p.sections)+i)*sectionHeader:][:sectionHeader]
		clear(h)
		copy(h, part.Name)
		binary.LittleEndian.PutUint32(h[8:], uint32(len(part.Data)))
		binary.LittleEndian.PutUint32(h[12:], uint32(memory))
		binary.LittleEndian.PutUint32(h[16:], uint32(raw))
		binary.LittleEndian.PutUint32(h[20:], uint32(file))
		flags := uint32(peData | peRead)
		if part.Name == SectionLinux {
			flags = peCode | peExecute | peRead
		}
		binary.LittleEndian.PutUint32(h[36:], flags)
		data += uint32(raw)
		memory += int64(len(part.Data))
		file += raw
		bodies = append(bodies, part.Data, make([]byte, raw-int64(len(part.Data))))
	}
	binary.LittleEndian.PutUint16(head[p.coff+2:], uint16(len(p.sections)+len(parts)))
	binary.LittleEndian.PutUint32(head[p.optional+8:], data)
	binary.LittleEndian.PutUint32(head[p.optional+56:], uint32(roundUp(memory, align)))
	binary.LittleEndian.PutUint32(head[p.optional+64:], 0) // checksum
	return head, bodies, nil
}

// check says why parts cannot be added.
func (p *peFile) check(stub []byte, parts []Part) error {
	seen := map[string]bool{}
	for _, s := range p.sections {
		if strings.HasPrefix(s.Name, "/") {
			return fmt.Errorf("section %q has its name in the symbol table, which is dropped", s.Name)
		}
		seen[s.Name] = true
	}
	if _, file := p.end(); file > int64(len(stub)) || file < p.table+int64(len(p.sections))*sectionHeader {
		return fmt.Errorf("the sections end at %d, the file has %d bytes", file, len(stub))
	}
	for _, part := range parts {
		if part.Name == "" || len(part.Name) > 8 || seen[part.Name] || len(part.Data) == 0 {
			return fmt.Errorf("section %q: twice, empty, or a bad name", part.Name)
		}
		seen[part.Name] = true
	}
	room := p.room(stub)
	if need := p.table + int64(len(p.sections)+len(parts))*sectionHeader; need > room {
		return fmt.Errorf("the header has room for %d bytes, %d are needed", room, need)
	}
	const certificates = 4
	if p.directories > certificates {
		entry := p.optional + 112 + certificates*8
		if entry+8 > p.table || int(entry+8) > len(stub) {
			return errors.New("the optional header is too short for its directories")
		}
		if binary.LittleEndian.Uint64(stub[entry:]) != 0 {
			return errors.New("it is signed")
		}
	}
	return nil
}

// room is where the header must end: at SizeOfHeaders, or where the first section's content starts.
func (p *peFile) room(stub []byte) int64 {
	room := min(int64(p.sizeOfHeaders), int64(len(stub)))
	for _, s := range p.sections {
		if s.RawSize > 0 {
			room = min(room, int64(s.Offset))
		}
	}
	return room
}

// end is the first address behind all sections, in memory and in the file.
func (p *peFile) end() (memory, file int64) {
	memory = int64(p.sizeOfHeaders)
	file = int64(p.sizeOfHeaders)
	for _, s := range p.sections {
		memory = max(memory, int64(s.VirtualAddress)+int64(max(s.VirtualSize, s.RawSize)))
		if s.RawSize > 0 {
			file = max(file, int64(s.Offset)+int64(s.RawSize))
		}
	}
	return memory, file
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

type sliceReader []byte

func (s sliceReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(s)) {
		return 0, io.EOF
	}
	n := copy(p, s[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
