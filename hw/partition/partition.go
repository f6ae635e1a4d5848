// Package partition reads and writes partition tables: GPT (UEFI 2.10 chapter 5.3) and MBR (UEFI 2.10 chapter 5.2), with 512
// and 4096 byte sectors.
//
// It turns a table on a disk into a layout.Table and back. It decides nothing about what goes where (model/layout does), and
// it does not tell the kernel (block.Device.RereadTable does).
//
// Read sees what the Linux kernel sees, so that the identifiers it returns are the PARTUUIDs of /dev. Write is repeatable:
// the same table gives the same bytes. All offsets and sizes are bytes; all fields on disk are little-endian.
package partition

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"gprovision/model/layout"
)

// Device is what this package must know of a disk. block.Device is one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Size is the size of the disk in bytes.
	Size() int64
	// SectorSize is the logical sector size in bytes: 512 or 4096.
	SectorSize() int
	// Sync returns when all that was written is on the medium.
	Sync() error
}

// ErrDamaged is the error of a disk that says it has a GPT of which neither copy is valid.
var ErrDamaged = errors.New("partition table is damaged")

// Limits of a table.
const (
	MaxGPT = 128 // partitions that Write puts into a GPT
	MaxMBR = 4   // primary partitions of an MBR
	// KeepBoot is the number of bytes at the start of the disk that Write leaves alone: the boot code of an MBR.
	KeepBoot = 440
)

// Offsets in the first sector (UEFI 2.10 tables 5.1 and 5.2: legacy MBR and its partition record), and the type of a protective
// entry (table 5.4).
const (
	mbrSignature = 510 // offset of 55 aa
	mbrDiskID    = 440
	mbrEntries   = 446
	typeProtect  = 0xee
	active       = 0x80
)

// Read returns the partition table of d. A disk without one gives a Table of Kind None and no error; a disk whose GPT is
// beyond use gives ErrDamaged. The roles of the partitions are layout.Other.
//
// As in the kernel, a GPT counts only if an MBR with a protective entry (type ee) is there; if its first copy is not valid
// the copy at the end of the disk is taken, which the kernel does only with its argument gpt (see Backup); and entries that lie outside the disk are left out, or cut in an MBR.
func Read(d Device) (layout.Table, error) {
	ss := d.SectorSize()
	if ss != 512 && ss != 4096 {
		return layout.Table{}, fmt.Errorf("read partition table: sector size of %d bytes is not supported", ss)
	}
	if d.Size() < int64(ss)*3 {
		return layout.Table{}, nil
	}
	first := make([]byte, 512)
	if err := readFull(d, first, 0); err != nil {
		return layout.Table{}, fmt.Errorf("read partition table: %w", err)
	}
	if !isMBR(first) {
		return layout.Table{}, nil
	}
	if !hasProtective(first) {
		t, err := readMBR(d, first)
		if err != nil {
			return layout.Table{}, fmt.Errorf("read partition table: %w", err)
		}
		return t, nil
	}
	t, err := readGPT(d)
	if err != nil {
		return layout.Table{}, fmt.Errorf("read partition table: %w", err)
	}
	return t, nil
}

// Backup returns the table of the copy at the end of the disk where Read would return that: the first copy of a GPT is not valid. ok is
// false for every other disk. Linux has no partitions for such a disk (block/partitions/efi.c, find_valid_gpt, without force_gpt).
func Backup(d Device) (t layout.Table, ok bool, err error) {
	t, err = Read(d)
	if err != nil || t.Kind != layout.GPT {
		return layout.Table{}, false, err
	}
	if _, err = readGPTAt(d, 1); err == nil {
		return layout.Table{}, false, nil
	}
	if !errors.Is(err, ErrDamaged) { // a sector that cannot be read is a failing disk
		return layout.Table{}, false, fmt.Errorf("read partition table: %w", err)
	}
	return t, true, nil
}

// Write writes t to d in place of what is there, and syncs. The first KeepBoot bytes of the disk are kept. The copy of a GPT
// at the end of the disk is written and synced before the one at the start. Writing an MBR erases both headers of an old GPT.
//
// Every partition must have its Number, Start, Size and Type set, lie on sector boundaries inside the disk and overlap no
// other; for a GPT also UUID, and Name if wanted; for an MBR the table's UUID is the signature.
func Write(d Device, t layout.Table) error {
	if err := check(d, t); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	var err error
	switch t.Kind {
	case layout.GPT:
		err = writeGPT(d, t)
	case layout.MBR:
		err = writeMBR(d, t)
	default:
		err = fmt.Errorf("kind %q is not supported", t.Kind)
	}
	if err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	return nil
}

// Verify reads the table of d again and returns an error if it is not want, or if one copy of a GPT is not valid. Roles and
// the identifiers of filesystems are not on the disk and are not compared.
func Verify(d Device, want layout.Table) error {
	if want.Kind == layout.GPT {
		for _, lba := range []int64{1, d.Size()/int64(d.SectorSize()) - 1} {
			if _, err := readGPTAt(d, lba); err != nil {
				return fmt.Errorf("verify partition table: %w", err)
			}
		}
	}
	got, err := Read(d)
	if err != nil {
		return fmt.Errorf("verify partition table: %w", err)
	}
	if got.Kind != want.Kind || got.UUID != want.UUID || len(got.Partitions) != len(want.Partitions) {
		return fmt.Errorf("verify partition table: found %s %s with %d partitions, want %s %s with %d",
			got.Kind, got.UUID, len(got.Partitions), want.Kind, want.UUID, len(want.Partitions))
	}
	for _, w := range want.Partitions {
		w.Role, w.FSUUID, w.FSLabel = layout.Other, "", ""
		found := false
		for _, g := range got.Partitions {
			found = found || g == w
		}
		if !found {
			return fmt.Errorf("verify partition table: partition %d is not as written", w.Number)
		}
	}
	return nil
}

// Wipe overwrites the first head and the last tail bytes of d with zeros and syncs. Both are cut to the size of the disk.
// 8 MiB at each end clear every table and signature that filesystem.Probe knows of a whole disk.
func Wipe(d Device, head, tail int64) error {
	size := d.Size()
	if head < 0 || tail < 0 {
		return fmt.Errorf("wipe: negative length")
	}
	head, tail = min(head, size), min(tail, size)
	if err := zero(d, 0, head); err != nil {
		return fmt.Errorf("wipe start of disk: %w", err)
	}
	if err := zero(d, max(size-tail, head), size); err != nil {
		return fmt.Errorf("wipe end of disk: %w", err)
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	return nil
}

func zero(d Device, from, to int64) error {
	buf := make([]byte, layout.MiB)
	for off := from; off < to; {
		n := min(int64(len(buf)), to-off)
		if _, err := d.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// check refuses a table that cannot be put on d.
func check(d Device, t layout.Table) error {
	ss := int64(d.SectorSize())
	if ss != 512 && ss != 4096 {
		return fmt.Errorf("sector size of %d bytes is not supported", ss)
	}
	most, low, high := MaxMBR, ss, d.Size()/ss*ss
	if t.Kind == layout.GPT {
		low, high = (2+entrySectors(ss))*ss, high-(1+entrySectors(ss))*ss
		most = MaxGPT
	}
	seen := map[int]bool{}
	for i, p := range t.Partitions {
		switch {
		case p.Number < 1 || p.Number > most:
			return fmt.Errorf("partition number %d is not between 1 and %d", p.Number, most)
		case seen[p.Number]:
			return fmt.Errorf("partition number %d is there twice", p.Number)
		case p.Start%ss != 0 || p.Size%ss != 0 || p.Size <= 0:
			return fmt.Errorf("partition %d is not a number of whole sectors", p.Number)
		case p.Start < low || p.Start > high || p.Size > high-p.Start:
			return fmt.Errorf("partition %d (%d+%d) is outside of the usable part of the disk (%d-%d)", p.Number, p.Start, p.Size, low, high)
		}
		seen[p.Number] = true
		for _, q := range t.Partitions[:i] {
			if p.Start < q.Start+q.Size && q.Start < p.Start+p.Size {
				return fmt.Errorf("partitions %d and %d overlap", q.Number, p.Number)
			}
		}
	}
	return nil
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("at byte %d: %w", off, err)
}

// ParseGUID turns the text of a GUID into its 16 bytes on disk, the first three fields byte-swapped (UEFI 2.10 appendix A).
func ParseGUID(s string) ([16]byte, error) {
	var g [16]byte
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, fmt.Errorf("%q is not a GUID", s)
	}
	for i, at := range guidText {
		hi, lo := hexDigit(s[at]), hexDigit(s[at+1])
		if hi < 0 || lo < 0 {
			return g, fmt.Errorf("%q is not a GUID", s)
		}
		g[i] = byte(hi<<4 | lo)
	}
	return g, nil
}

// FormatGUID is the reverse of ParseGUID. The result is in lower case.
func FormatGUID(g [16]byte) string {
	out := []byte("00000000-0000-0000-0000-000000000000")
	const digits = "0123456789abcdef"
	for i, at := range guidText {
		out[at], out[at+1] = digits[g[i]>>4], digits[g[i]&15]
	}
	return string(out)
}

// guidText says where in the text each byte on disk stands.
var guidText = [16]int{6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34}

func hexDigit(c byte) int {
	if c >= 'A' && c <= 'F' {
		c += 'a' - 'A'
	}
	return strings.IndexByte("0123456789abcdef", c)
}
