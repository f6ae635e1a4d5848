// Package bootloader makes a disk boot on BIOS machines: it puts GRUB's two images into their places on a disk. No program of GRUB runs
// for that. It does not make the images, and does not write the configuration that they read.
//
// boot.img goes into the first 440 bytes of sector 0, beside the partition table, which is not touched. core.img goes behind
// it: into the gap before the first partition (MBR), or into the BIOS boot partition (GPT). That area has two halves: a new
// core.img is written into the half that is not in use, read back, and only then the one sector with boot.img is replaced,
// so that the disk boots after a power cut at any moment.
//
// The reason for GRUB is in docs/adr/0002-bios-boot-loader.md.
package bootloader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"gprovision/model/layout"
)

// Device is a disk.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// SectorSize is that of the disk's logical sectors, bytes.
	SectorSize() int
	// Sync writes back what was written.
	Sync() error
}

// Images are the two parts of GRUB for i386-pc.
type Images struct {
	// Boot is boot.img, 512 bytes.
	Boot []byte
	// Core is core.img, whose first sector loads the others.
	Core []byte
}

// Kinds of errors, for errors.Is.
var (
	// ErrSectors is a disk whose sectors are not of 512 bytes.
	ErrSectors = errors.New("sectors are not of 512 bytes")
	// ErrUnfit is a disk that has no place for GRUB, or images that are not GRUB's.
	ErrUnfit = errors.New("GRUB does not fit")
	// ErrDevice is a disk that cannot be read or written.
	ErrDevice = errors.New("disk error")
	// ErrReadBack is a disk that does not return what was written.
	ErrReadBack = errors.New("other data than was written")
)

// kind makes an error one of a kind. Its text stays.
type kind struct {
	error
	of error
}

// Unwrap returns the error, and what it is.
func (k kind) Unwrap() []error { return []error{k.error, k.of} }

const sector = 512

// Places inside boot.img and inside the first sector of core.img (GRUB 2.06 and 2.12: include/grub/i386/pc/boot.h,
// include/grub/offsets.h, grub-core/boot/i386/pc/boot.S and diskboot.S).
const (
	codeEnd     = 440   // of the boot code in sector 0; what follows is the disk's signature and the table
	kernelAt    = 0x5c  // u64, the first sector of core.img
	driveCheck  = 0x66  // two bytes, a jump over the repair of wrong drive numbers
	blocklistAt = 0x1f4 // u64 first sector, u16 number of sectors, u16 segment to load them to
	loadSegment = 0x820
	maxSectors  = 1 << 15 // what a single blocklist entry may hold, to stay below 640 KiB with all else
)

// nop is the instruction that takes the place of the jump: twice, it lets boot.img repair the drive number of firmware that
// passes one of a floppy disk. GRUB's own installer does the same on hard disks.
const nop = 0x90

// Verify returns nil if the disk d with the table t boots with the images. It reads and compares all of it. A
// disk that lacks no more than an Install gives an error of no kind.
func Verify(d Device, t layout.Table, im Images) error {
	a, err := prepare(d, t, im)
	if err != nil {
		return err
	}
	have, err := readSector(d, 0)
	if err != nil {
		return err
	}
	at := binary.LittleEndian.Uint64(have[kernelAt:])
	if !a.holds(at) {
		return fmt.Errorf("boot loader: sector 0 does not lead to a place of ours, but to sector %d", at)
	}
	if want := mbr(im.Boot, have, at); !bytes.Equal(have, want) {
		return errors.New("boot loader: sector 0 has other boot code")
	}
	return compare(d, at, core(im.Core, at))
}

// Install makes the disk d with the table t boot. t must be what is on the disk. It may be repeated; after an error or a
// power cut the disk boots as before, or as wanted. Only the boot code of sector 0 and the area behind it are written.
//
// An error is ErrSectors, ErrUnfit, ErrDevice or ErrReadBack.
func Install(d Device, t layout.Table, im Images) error {
	a, err := prepare(d, t, im)
	if err != nil {
		return err
	}
	old, err := readSector(d, 0)
	if err != nil {
		return err
	}
	if old[510] != 0x55 || old[511] != 0xaa {
		return kind{errors.New("install boot loader: sector 0 has no partition table"), ErrUnfit}
	}
	at := a.free(binary.LittleEndian.Uint64(old[kernelAt:]))
	if err := write(d, at, core(im.Core, at)); err != nil {
		return kind{fmt.Errorf("install boot loader: write core.img: %w", err), ErrDevice}
	}
	if err := compare(d, at, core(im.Core, at)); err != nil {
		return kind{err, ErrReadBack}
	}
	boot := mbr(im.Boot, old, at)
	if err := write(d, 0, boot); err != nil {
		return kind{fmt.Errorf("install boot loader: write sector 0: %w", err), ErrDevice}
	}
	if err := compare(d, 0, boot); err != nil {
		return kind{err, ErrReadBack}
	}
	return nil
}

// area is where core.img may be, sectors.
type area struct {
	start, half uint64
	both        bool // both halves are large enough
}

// holds reports whether at is a place of ours.
func (a area) holds(at uint64) bool { return at == a.start || a.both && at == a.start+a.half }

// free returns the place that is not in use.
func (a area) free(used uint64) uint64 {
	if a.both && used == a.start {
		return a.start + a.half
	}
	return a.start
}

// prepare checks everything that can be checked without writing.
func prepare(d Device, t layout.Table, im Images) (area, error) {
	if d.SectorSize() != sector {
		return area{}, kind{fmt.Errorf("boot loader: sectors have %d bytes", d.SectorSize()), ErrSectors}
	}
	if err := im.check(); err != nil {
		return area{}, kind{err, ErrUnfit}
	}
	start, end, err := bounds(t)
	if err != nil {
		return area{}, kind{err, ErrUnfit}
	}
	need := uint64(len(im.Core)+sector-1) / sector
	if end < start || need > end-start {
		return area{}, kind{fmt.Errorf("boot loader: core.img needs %d sectors, there are %d", need, int64(end)-int64(start)), ErrUnfit}
	}
	half := (end - start) / 2
	return area{start: start, half: half, both: need <= half}, nil
}

func (im Images) check() error {
	if len(im.Boot) != sector || im.Boot[510] != 0x55 || im.Boot[511] != 0xaa || im.Boot[driveCheck] != 0xeb {
		return errors.New("boot loader: boot.img is not GRUB's for i386-pc")
	}
	if n := len(im.Core); n < 2*sector || n > maxSectors*sector {
		return fmt.Errorf("boot loader: core.img has %d bytes", n)
	}
	if seg := binary.LittleEndian.Uint16(im.Core[blocklistAt+10:]); seg != loadSegment {
		return fmt.Errorf("boot loader: core.img is not GRUB's for i386-pc: it loads to segment %#x", seg)
	}
	return nil
}

// bounds returns the first sector that core.img may have and the first behind them.
func bounds(t layout.Table) (start, end uint64, err error) {
	switch t.Kind {
	case layout.GPT:
		for _, p := range t.Partitions {
			if p.Type == layout.TypeBIOSBoot {
				return uint64(p.Start / sector), uint64((p.Start + p.Size) / sector), nil
			}
		}
		return 0, 0, errors.New("boot loader: the GPT has no BIOS boot partition")
	case layout.MBR:
		end = layout.MiB / sector // all that is sure to be there on a disk without partitions
		for i, p := range t.Partitions {
			if first := uint64(p.Start / sector); i == 0 || first < end {
				end = first
			}
		}
		return 1, end, nil
	default:
		return 0, 0, errors.New("boot loader: the disk has no partition table")
	}
}

// mbr returns sector 0: boot.img that leads to at, and the table of old.
func mbr(boot, old []byte, at uint64) []byte {
	b := append([]byte(nil), boot...)
	binary.LittleEndian.PutUint64(b[kernelAt:], at)
	b[driveCheck], b[driveCheck+1] = nop, nop
	copy(b[codeEnd:], old[codeEnd:sector])
	return b
}

// core returns core.img for the place at: its first sector leads to the others right behind it.
func core(image []byte, at uint64) []byte {
	n := (len(image) + sector - 1) / sector
	b := make([]byte, n*sector)
	copy(b, image)
	binary.LittleEndian.PutUint64(b[blocklistAt:], at+1)
	binary.LittleEndian.PutUint16(b[blocklistAt+8:], uint16(n-1))
	binary.LittleEndian.PutUint16(b[blocklistAt+10:], loadSegment)
	return b
}

func readSector(d Device, at uint64) ([]byte, error) {
	b := make([]byte, sector)
	if _, err := d.ReadAt(b, int64(at)*sector); err != nil {
		return nil, kind{fmt.Errorf("boot loader: read sector %d: %w", at, err), ErrDevice}
	}
	return b, nil
}

func write(d Device, at uint64, b []byte) error {
	if _, err := d.WriteAt(b, int64(at)*sector); err != nil {
		return err
	}
	return d.Sync()
}

func compare(d Device, at uint64, want []byte) error {
	have := make([]byte, len(want))
	if _, err := d.ReadAt(have, int64(at)*sector); err != nil {
		return fmt.Errorf("boot loader: read %d bytes from sector %d: %w", len(want), at, err)
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("boot loader: sectors from %d on have other content", at)
	}
	return nil
}
