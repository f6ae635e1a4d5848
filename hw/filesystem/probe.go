package filesystem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// Class is what kind of thing a signature belongs to.
type Class string

// The classes, in the order in which Probe prefers them: what lies under another thing comes before it.
const (
	Member Class = "member"     // of an array, a volume group or a pool
	Crypt  Class = "crypt"      // encrypted
	FS     Class = "filesystem" //
	Swap   Class = "swap"       // swap space, or the image of a suspended system
	Table  Class = "table"      // a partition table
)

// Info is one thing that was recognised by its signature. The content behind the signature was not checked.
type Info struct {
	// Type is one of ext4 (also for ext3), ext2, jbd, vfat, exfat, ntfs, refs, xfs, btrfs, f2fs, squashfs, erofs, cramfs, iso9660,
	// udf, jfs, reiserfs, nilfs2, hfsplus, apfs, gfs2, ocfs2, vmfs, bcachefs; swap, suspend; luks, bitlocker; md, imsm, ddf,
	// lvm, zfs, bcache, drbd; gpt, mbr. Nothing if nothing was recognised.
	Type  string
	Class Class
	// Label is the volume's name, or nothing. It is text from outside, without control characters.
	Label string
	// UUID is in the form that blkid prints: 36 characters in lower case, XXXX-XXXX for FAT and exFAT, 16 hex digits for NTFS.
	UUID string
	// Offset says where the signature is, in bytes.
	Offset int64
}

// edge is how much of each end Blank looks at.
const edge = 1 << 20

// Probe says what is on a disk or a partition of size bytes. If several things are there the one that the others lie in is
// returned (see Class); within a class the first by the order of Info.Type. Type is empty if nothing is recognised. An error means that it
// could not be read.
func Probe(r io.ReaderAt, size int64) (Info, error) {
	all, err := ProbeAll(r, size)
	if err != nil {
		return Info{}, err
	}
	for _, c := range []Class{Member, Crypt, FS, Swap, Table} {
		for _, i := range all {
			if i.Class == c {
				return i, nil
			}
		}
	}
	return Info{}, nil
}

// ProbeAll returns everything that is recognised. A type that has several copies of its signature may be there several
// times.
func ProbeAll(r io.ReaderAt, size int64) ([]Info, error) {
	v := &view{r: r, size: size}
	var out []Info
	for _, p := range probes {
		out = append(out, p(v)...)
		if v.err != nil {
			return nil, fmt.Errorf("probe for filesystems: %w", v.err)
		}
	}
	return out, nil
}

// Blank reports whether a disk is proven to be empty: no known signature anywhere (partition table, filesystem, swap, encryption,
// member of an array), and nothing but zero bytes in the first and in the last MiB. If not, why says what was found. A disk
// that cannot be read is not blank: err says so.
//
// partition.Wipe with 8 MiB at both ends makes a whole disk blank. What is left between the ends does not count: it belongs to
// no table any more.
func Blank(r io.ReaderAt, size int64) (blank bool, why string, err error) {
	if size <= 0 {
		return false, "", fmt.Errorf("look for data: size is %d bytes", size)
	}
	all, err := ProbeAll(r, size)
	if err != nil {
		return false, "", err
	}
	if len(all) > 0 {
		return false, fmt.Sprintf("%s signature at byte %d", all[0].Type, all[0].Offset), nil
	}
	buf := make([]byte, 64<<10)
	for _, part := range [][2]int64{{0, min(edge, size)}, {max(size-edge, 0), size}} {
		for off := part[0]; off < part[1]; {
			b := buf[:min(int64(len(buf)), part[1]-off)]
			if err := readFull(r, b, off); err != nil {
				return false, "", fmt.Errorf("look for data: %w", err)
			}
			if i := notZero(b); i >= 0 {
				return false, fmt.Sprintf("data at byte %d", off+int64(i)), nil
			}
			off += int64(len(b))
		}
	}
	return true, "", nil
}

func notZero(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return -1
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

// view reads pieces of a device and keeps the first error.
type view struct {
	r    io.ReaderAt
	size int64
	err  error
	// The start of the device, where most signatures are.
	head   []byte
	loaded bool
}

const headSize = 132 << 10

// at returns n bytes at off, or nil if they are not all inside the device or cannot be read.
func (v *view) at(off, n int64) []byte {
	if v.err != nil || off < 0 || n > v.size || off > v.size-n {
		return nil
	}
	if !v.loaded {
		v.loaded = true
		v.head = make([]byte, min(headSize, v.size))
		if v.err = readFull(v.r, v.head, 0); v.err != nil {
			return nil
		}
	}
	if off+n <= int64(len(v.head)) {
		return v.head[off : off+n]
	}
	b := make([]byte, n)
	if !v.read(b, off) {
		return nil
	}
	return b
}

// read fills b from off. It reports false if that is not all inside the device or cannot be read.
func (v *view) read(b []byte, off int64) bool {
	if n := int64(len(b)); v.err != nil || off < 0 || n > v.size || off > v.size-n {
		return false
	}
	v.err = readFull(v.r, b, off)
	return v.err == nil
}

// has reports whether magic is at off.
func (v *view) has(off int64, magic string) bool {
	return string(v.at(off, int64(len(magic)))) == magic && magic != ""
}

// clean makes text from outside fit for logs: up to the first NUL, valid UTF-8, no control characters, no spaces around.
func clean(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return cleanText(string(b))
}

func cleanText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}

func utf16Text(b []byte, order binary.ByteOrder) string {
	var u []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := order.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return cleanText(string(utf16.Decode(u)))
}

// uuid writes 16 bytes in the usual order. All zeros are no UUID.
func uuid(b []byte) string {
	if len(b) < 16 || notZero(b[:16]) < 0 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
