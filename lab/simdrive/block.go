package simdrive

import (
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"gprovision/hw/drive"
)

// The commands that move blocks, and those that a kernel asks before it does (SBC-4, SPC-5).
const (
	scsiModeSense6    = 0x1a
	scsiStartStop     = 0x1b
	scsiReadCapacity  = 0x25
	scsiRead10        = 0x28
	scsiWrite10       = 0x2a
	scsiSynchronize10 = 0x35
	scsiUnmap         = 0x42
	scsiModeSense10   = 0x5a
	scsiRead16        = 0x88
	scsiWrite16       = 0x8a
	scsiSynchronize16 = 0x91
	scsiServiceIn16   = 0x9e
)

// visible is the drive as far as it can be addressed, which the kernel may not know yet.
func (d *Drive) visible() *Area { return &Area{d, 0, func() int64 { return d.ata.visible }} }

// isTransfer reports whether a command moves blocks, or takes care of some that were moved.
func isTransfer(op byte) bool {
	switch op {
	case scsiRead10, scsiRead16, scsiWrite10, scsiWrite16, scsiSynchronize10, scsiSynchronize16, scsiUnmap:
		return true
	}
	return false
}

// transfer answers a command that moves blocks. It is none of those that Sent has, as whatever is read and written by an Area is none.
func (d *Drive) transfer(c drive.SCSICommand) (answer, error) {
	if d.c.Protocol == SCSI {
		if d.scsi.attention {
			d.scsi.attention = false
			return check(6, 0x29, 0x00), nil
		}
		if a := d.condition(); a.status != 0 {
			return a, nil
		}
	}
	data, length, err := d.move(c)
	var bad answerError
	switch {
	case errors.As(err, &bad):
		return bad.answer, nil
	case !errors.Is(err, unix.EIO):
		return answer{data: data, length: length}, err
	case d.c.Protocol == ATA && d.closed():
		return check(0x0b, 0x00, 0x00), nil // aborted command: what an ATA drive says is no more than that
	case d.closed():
		return check(7, 0x20, 0x02), nil // access denied, no access rights
	case c.Direction == drive.FromDrive:
		return check(3, 0x11, 0x00), nil // unrecovered read error
	}
	return check(3, 0x0c, 0x00), nil // write error
}

// answerError is an answer that ends a command.
type answerError struct{ answer answer }

func (answerError) Error() string { return "the command is refused" }

// move does what a command that moves blocks says, as far as there is room for the data, or there are some. length is how much it says.
func (d *Drive) move(c drive.SCSICommand) (data []byte, length int, err error) {
	a := d.visible()
	if c.CDB[0] == scsiUnmap {
		return nil, len(c.Data), d.unmap(a, c.Data)
	}
	var lba, count uint64
	if c.CDB[0] < 0x80 {
		lba, count = uint64(binary.BigEndian.Uint32(c.CDB[2:])), uint64(binary.BigEndian.Uint16(c.CDB[7:]))
	} else {
		lba, count = binary.BigEndian.Uint64(c.CDB[2:]), uint64(binary.BigEndian.Uint32(c.CDB[10:]))
	}
	if size := uint64(a.size()); lba > size || count > size-lba {
		return nil, 0, answerError{check(5, 0x21, 0x00)} // logical block address out of range
	}
	if c.CDB[1]&0xf8 != 0 { // protection information, or past the cache: neither is offered
		return nil, 0, answerError{illegalField()}
	}
	sector := d.c.SectorSize
	at, length := int64(lba)*int64(sector), int(count)*sector
	whole := min(length, len(c.Data)) / sector * sector
	switch c.CDB[0] {
	case scsiRead10, scsiRead16:
		if c.Direction != drive.FromDrive {
			return nil, length, nil
		}
		data = make([]byte, min(length, (len(c.Data)+sector-1)/sector*sector))
		if len(data) > 0 {
			_, err = a.ReadAt(data, at)
		}
		return data, length, err
	case scsiWrite10, scsiWrite16:
		if c.Direction == drive.ToDrive && whole > 0 {
			_, err = a.WriteAt(c.Data[:whole], at)
		}
		return nil, length, err
	}
	return nil, 0, a.Sync()
}

// unmap discards what a parameter list names (SBC-4, UNMAP).
func (d *Drive) unmap(a *Area, list []byte) error {
	if !d.c.Flash {
		return answerError{illegal()}
	}
	for b := list[min(8, len(list)):]; len(b) >= 16; b = b[16:] {
		lba, count := binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:]))
		if size := uint64(a.size()); lba > size || count > size-lba {
			return answerError{check(5, 0x21, 0x00)}
		}
		if err := a.Discard(int64(lba)*int64(d.c.SectorSize), int64(count)*int64(d.c.SectorSize)); err != nil {
			return err
		}
	}
	return nil
}

// asked answers what a kernel asks before it moves blocks. ok is false for any other command.
func (d *Drive) asked(cdb []byte) (a answer, ok bool) {
	last := uint64(d.ata.visible - 1)
	switch cdb[0] {
	case scsiStartStop:
		return good(nil), true
	case scsiReadCapacity:
		b := make([]byte, 8)
		binary.BigEndian.PutUint32(b, uint32(min(last, math.MaxUint32)))
		binary.BigEndian.PutUint32(b[4:], uint32(d.c.SectorSize))
		return good(b), true
	case scsiServiceIn16:
		if cdb[1]&0x1f != 0x10 {
			return illegalField(), true
		}
		b := make([]byte, 32)
		binary.BigEndian.PutUint64(b, last)
		binary.BigEndian.PutUint32(b[8:], uint32(d.c.SectorSize))
		if d.c.Flash {
			b[14] = 0x80 | 0x40 // blocks can be unmapped, and are read as zeros then
		}
		return good(b), true
	case scsiModeSense6, scsiModeSense10:
		return d.modes(cdb), true
	}
	return answer{}, false
}

// modes answers MODE SENSE: there is one page, caching, and the cache is on for writes.
func (d *Drive) modes(cdb []byte) answer {
	if p := cdb[2] & 0x3f; p != 0x08 && p != 0x3f {
		return illegalField()
	}
	page := make([]byte, 20)
	page[0], page[1], page[2] = 0x08, 18, 0x04
	if cdb[0] == scsiModeSense6 {
		return good(append([]byte{byte(3 + len(page)), 0, 0, 0}, page...))
	}
	return good(append([]byte{0, byte(6 + len(page)), 0, 0, 0, 0, 0, 0}, page...))
}

// pages answers those pages of vital product data that a kernel asks for before it moves blocks.
func (d *Drive) pages(page byte) (b []byte, ok bool) {
	switch {
	case page == 0x00:
		b = []byte{0x00, 0x80, 0x83, 0xb1}
		if d.c.Protocol == ATA {
			b = []byte{0x00, 0x80, 0x83, 0x89, 0xb1}
		}
		if d.c.Flash {
			b = append(b[:len(b)-1], 0xb0, 0xb1, 0xb2)
		}
		return b, true
	case page == 0x89 && d.c.Protocol == ATA: // SAT-4, ATA Information
		b = make([]byte, 568)
		pad(b[4:12], "LAB")
		pad(b[12:28], "SAT")
		pad(b[28:32], "1.0")
		b[32], b[52] = 0x34, 0xec // the signature begins with the type of the frame; IDENTIFY DEVICE made the rest
		d.ataIdentify(b[56:])
		return b, true
	case page == 0xb0 && d.c.Flash:
		b = make([]byte, 60)
		binary.BigEndian.PutUint32(b[16:], math.MaxUint32) // of blocks in an UNMAP
		binary.BigEndian.PutUint32(b[20:], 16)             // of ranges
		return b, true
	case page == 0xb2 && d.c.Flash:
		return []byte{0, 0x80 | 1<<2, 2, 0}, true // UNMAP, zeros afterwards, thin provisioning
	}
	return nil, false
}
