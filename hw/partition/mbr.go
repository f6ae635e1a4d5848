package partition

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"gprovision/model/layout"
)

const maxLogical = 60 // partitions of an extended one that Read follows

// isMBR reports whether the first 512 bytes of a disk are a master boot record. The first sector of a filesystem ends in the
// same two bytes.
func isMBR(b []byte) bool {
	if b[mbrSignature] != 0x55 || b[mbrSignature+1] != 0xaa {
		return false
	}
	used := false
	for i := range MaxMBR {
		e := b[mbrEntries+16*i:][:16]
		if e[0]&0x7f != 0 {
			return false
		}
		used = used || e[4] != 0
	}
	if used {
		return true
	}
	for _, fs := range []struct {
		at   int
		name string
	}{{3, "NTFS    "}, {3, "EXFAT   "}, {54, "FAT"}, {82, "FAT32   "}} {
		if string(b[fs.at:fs.at+len(fs.name)]) == fs.name {
			return false
		}
	}
	return true
}

func hasProtective(b []byte) bool {
	for i := range MaxMBR {
		if b[mbrEntries+16*i+4] == typeProtect {
			return true
		}
	}
	return false
}

// isExtended reports whether a partition type holds logical partitions.
func isExtended(t byte) bool { return t == 0x05 || t == 0x0f || t == 0x85 }

func readMBR(d Device, b []byte) (layout.Table, error) {
	ss, sectors := int64(d.SectorSize()), d.Size()/int64(d.SectorSize())
	id := binary.LittleEndian.Uint32(b[mbrDiskID:])
	t := layout.Table{Kind: layout.MBR, UUID: fmt.Sprintf("%08x", id)}
	add := func(number int, e []byte, start, count int64) {
		if count == 0 || start >= sectors {
			return
		}
		t.Partitions = append(t.Partitions, layout.Partition{
			Number: number,
			Start:  start * ss,
			Size:   min(count, sectors-start) * ss,
			Type:   fmt.Sprintf("%02x", e[4]),
			UUID:   fmt.Sprintf("%08x-%02x", id, number), // as the kernel has it: block/partitions/msdos.c
			Active: e[0] == 0x80,
		})
	}
	extended := int64(0)
	for i := range MaxMBR {
		e := b[mbrEntries+16*i:][:16]
		if e[4] == 0 {
			continue
		}
		start, count := mbrRange(e)
		add(i+1, e, start, count)
		if isExtended(e[4]) && extended == 0 {
			extended = start
		}
	}
	// A chain of boot records: in each, one entry is a partition (relative to the record) and one leads to the next record
	// (relative to the extended partition).
	number, seen := 5, map[int64]bool{}
	for at := extended; at > 0 && at < sectors && !seen[at] && number < 5+maxLogical; {
		seen[at] = true
		r := make([]byte, 512)
		if err := readFull(d, r, at*ss); err != nil {
			return layout.Table{}, fmt.Errorf("extended partition: %w", err)
		}
		if r[mbrSignature] != 0x55 || r[mbrSignature+1] != 0xaa {
			break
		}
		next := int64(0)
		for i := range MaxMBR {
			e := r[mbrEntries+16*i:][:16]
			start, count := mbrRange(e)
			switch {
			case e[4] == 0 || count == 0:
			case isExtended(e[4]):
				if next == 0 {
					next = extended + start
				}
			case i < 2:
				add(number, e, at+start, count)
				number++
			}
		}
		at = next
	}
	return t, nil
}

func mbrRange(e []byte) (start, count int64) {
	return int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
}

func writeMBR(d Device, t layout.Table) error {
	ss, sectors := int64(d.SectorSize()), d.Size()/int64(d.SectorSize())
	id, err := strconv.ParseUint(t.UUID, 16, 32)
	if err != nil || len(t.UUID) != 8 {
		return fmt.Errorf("disk signature %q is not 8 hex digits", t.UUID)
	}
	b, err := bootSector(d)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b[mbrDiskID:], uint32(id))
	for _, p := range t.Partitions {
		typ, err := strconv.ParseUint(p.Type, 16, 8)
		if err != nil || typ == 0 || isExtended(byte(typ)) || typ == typeProtect {
			return fmt.Errorf("type %q of partition %d is not supported", p.Type, p.Number)
		}
		start, count := p.Start/ss, p.Size/ss
		if start+count-1 > 0xffffffff {
			return fmt.Errorf("partition %d ends behind what an MBR can hold", p.Number)
		}
		e := b[mbrEntries+16*(p.Number-1):][:16]
		if p.Active {
			e[0] = 0x80
		}
		e[4] = byte(typ)
		putCHS(e[1:4], start)
		putCHS(e[5:8], start+count-1)
		binary.LittleEndian.PutUint32(e[8:], uint32(start))
		binary.LittleEndian.PutUint32(e[12:], uint32(count))
	}
	// Whoever finds a GPT header would not know which table is right.
	for _, lba := range []int64{sectors - 1, 1} {
		h := make([]byte, ss)
		if err := readFull(d, h, lba*ss); err != nil {
			return err
		}
		if string(h[:8]) != gptMagic {
			continue
		}
		if _, err := d.WriteAt(make([]byte, ss), lba*ss); err != nil {
			return err
		}
	}
	if _, err := d.WriteAt(b, 0); err != nil {
		return err
	}
	return d.Sync()
}

// putCHS writes a sector number in the old way, for 255 heads and 63 sectors: old firmware looks at it.
func putCHS(b []byte, lba int64) {
	c, h, s := lba/(255*63), lba/63%255, lba%63+1
	if c > 1023 {
		c, h, s = 1023, 254, 63
	}
	b[0], b[1], b[2] = byte(h), byte(s)|byte(c>>8<<6), byte(c)
}
