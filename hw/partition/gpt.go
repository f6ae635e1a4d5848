package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"unicode/utf16"

	"gprovision/model/layout"
)

// The header of a GPT is UEFI 2.10 table 5.5, an entry table 5.6; the offsets below are those of these tables.
const (
	gptMagic     = "EFI PART"
	gptRevision  = 0x00010000
	gptHeader    = 92  // bytes of the header that the CRC covers
	gptEntry     = 128 // bytes of an entry that Write makes
	gptNameUnits = 36
	maxEntryArea = 4 << 20 // of a table that is read
)

// entrySectors is the size of the entry array that Write makes, in sectors of ss bytes.
func entrySectors(ss int64) int64 { return MaxGPT * gptEntry / ss }

// readGPT reads the first copy, and the one at the end of the disk if that does not hold.
func readGPT(d Device) (layout.Table, error) {
	t, err := readGPTAt(d, 1)
	if err == nil {
		return t, nil
	}
	t, err2 := readGPTAt(d, d.Size()/int64(d.SectorSize())-1)
	if err2 == nil {
		return t, nil
	}
	both := fmt.Errorf("GPT at the start: %w; at the end: %w", err, err2)
	if errors.Is(err, ErrDamaged) && errors.Is(err2, ErrDamaged) {
		return layout.Table{}, both
	}
	// One copy could not even be read: this is a disk error, which is not the same as a table that is not there.
	return layout.Table{}, fmt.Errorf("both copies: %w", both)
}

// readGPTAt reads the copy whose header is at sector lba.
func readGPTAt(d Device, lba int64) (layout.Table, error) {
	ss, sectors := int64(d.SectorSize()), d.Size()/int64(d.SectorSize())
	bad := func(what string) (layout.Table, error) {
		return layout.Table{}, fmt.Errorf("%s in GPT header at sector %d: %w", what, lba, ErrDamaged)
	}
	h := make([]byte, ss)
	if err := readFull(d, h, lba*ss); err != nil {
		return layout.Table{}, err
	}
	le := binary.LittleEndian
	size := le.Uint32(h[12:])
	if string(h[:8]) != gptMagic {
		return bad("no signature")
	}
	if size < gptHeader || int64(size) > ss {
		return bad("wrong header size")
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if crc32.ChecksumIEEE(h[:size]) != sum {
		return bad("wrong checksum")
	}
	if le.Uint64(h[24:]) != uint64(lba) {
		return bad("wrong own address")
	}
	firstUsable, lastUsable := le.Uint64(h[40:]), le.Uint64(h[48:])
	if firstUsable > lastUsable || lastUsable >= uint64(sectors) {
		return bad("usable area outside of the disk")
	}
	at, count, each := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	area := uint64(count) * uint64(each)
	if each < gptEntry || each%8 != 0 || area > maxEntryArea || at >= uint64(sectors) || area > (uint64(sectors)-at)*uint64(ss) {
		return bad("impossible entry array")
	}
	entries := make([]byte, area)
	if err := readFull(d, entries, int64(at)*ss); err != nil {
		return layout.Table{}, err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return bad("wrong checksum of the entries")
	}
	t := layout.Table{Kind: layout.GPT, UUID: FormatGUID([16]byte(h[56:72]))}
	for i := range int(count) {
		e := entries[uint64(i)*uint64(each):][:gptEntry]
		typ := [16]byte(e[:16])
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if typ == [16]byte{} || first > last || first < firstUsable || last > lastUsable {
			continue
		}
		t.Partitions = append(t.Partitions, layout.Partition{
			Number: i + 1,
			Start:  int64(first) * ss,
			Size:   int64(last-first+1) * ss,
			Type:   FormatGUID(typ),
			UUID:   FormatGUID([16]byte(e[16:32])),
			Name:   gptName(e[56:gptEntry]),
		})
	}
	return t, nil
}

func gptName(b []byte) string {
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

func writeGPT(d Device, t layout.Table) error {
	ss, sectors := int64(d.SectorSize()), d.Size()/int64(d.SectorSize())
	disk, err := ParseGUID(t.UUID)
	if err != nil {
		return fmt.Errorf("disk identifier: %w", err)
	}
	entries := make([]byte, MaxGPT*gptEntry)
	le := binary.LittleEndian
	for _, p := range t.Partitions {
		e := entries[(p.Number-1)*gptEntry:][:gptEntry]
		typ, err := ParseGUID(p.Type)
		if err != nil {
			return fmt.Errorf("type of partition %d: %w", p.Number, err)
		}
		id, err := ParseGUID(p.UUID)
		if err != nil {
			return fmt.Errorf("identifier of partition %d: %w", p.Number, err)
		}
		if typ == [16]byte{} || id == [16]byte{} {
			return fmt.Errorf("type or identifier of partition %d is zero", p.Number)
		}
		name := utf16.Encode([]rune(p.Name))
		if len(name) > gptNameUnits {
			return fmt.Errorf("name of partition %d has more than %d UTF-16 units", p.Number, gptNameUnits)
		}
		copy(e, typ[:])
		copy(e[16:], id[:])
		le.PutUint64(e[32:], uint64(p.Start/ss))
		le.PutUint64(e[40:], uint64((p.Start+p.Size)/ss-1))
		for i, c := range name {
			le.PutUint16(e[56+2*i:], c)
		}
	}
	n := entrySectors(ss)
	header := func(own, other, at int64) []byte {
		h := make([]byte, ss)
		copy(h, gptMagic)
		le.PutUint32(h[8:], gptRevision)
		le.PutUint32(h[12:], gptHeader)
		le.PutUint64(h[24:], uint64(own))
		le.PutUint64(h[32:], uint64(other))
		le.PutUint64(h[40:], uint64(2+n))
		le.PutUint64(h[48:], uint64(sectors-2-n))
		copy(h[56:], disk[:])
		le.PutUint64(h[72:], uint64(at))
		le.PutUint32(h[80:], MaxGPT)
		le.PutUint32(h[84:], gptEntry)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeader]))
		return h
	}
	first, err := protective(d, sectors, t)
	if err != nil {
		return err
	}
	last := sectors - 1
	for _, w := range []struct {
		at   int64 // sector
		data []byte
		sync bool
	}{
		{last - n, entries, false}, {last, header(last, 1, last-n), true},
		{2, entries, false}, {1, header(1, last, 2), false}, {0, first, true},
	} {
		if _, err := d.WriteAt(w.data, w.at*ss); err != nil {
			return err
		}
		if w.sync {
			if err := d.Sync(); err != nil {
				return err
			}
		}
	}
	return nil
}

// protective returns the first sector with its boot code kept and an entry that covers the disk (UEFI 2.10 table 5.4).
//
// Some BIOSes start no disk without an active entry. On a disk that only a BIOS starts, which has a partition for its boot loader and no ESP,
// that is the protective one. Firmware of EDK II takes no GPT with such an entry (PartitionDxe, Gpt.c), so that a disk which both kinds start
// has an active one of no type and no place behind it, as the disk images of GRUB's own grub-mkrescue have: nothing that reads tables sees it.
func protective(d Device, sectors int64, t layout.Table) ([]byte, error) {
	b, err := bootSector(d)
	if err != nil {
		return nil, err
	}
	e := b[mbrEntries:]
	e[2], e[4] = 2, typeProtect
	e[5], e[6], e[7] = 0xff, 0xff, 0xff
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 0xffffffff)))
	has := func(typ string) bool {
		return slices.ContainsFunc(t.Partitions, func(p layout.Partition) bool { return p.Type == typ })
	}
	switch bios, uefi := has(layout.TypeBIOSBoot), has(layout.TypeESP); {
	case bios && uefi:
		e[16] = active
	case bios:
		e[0] = active
	}
	return b, nil
}

// bootSector returns a first sector with the boot code of the disk's own and no partitions.
func bootSector(d Device) ([]byte, error) {
	b := make([]byte, d.SectorSize())
	if err := readFull(d, b[:KeepBoot], 0); err != nil {
		return nil, err
	}
	b[mbrSignature], b[mbrSignature+1] = 0x55, 0xaa
	return b, nil
}
