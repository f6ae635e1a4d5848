// Package raid knows the arrays of md, Linux's software RAID: it reads what a member says of its array, reports whether members are
// enough to start it, and has mdadm create, start and stop arrays.
//
// It recognises the members of firmware RAID (Intel's IMSM and SNIA's DDF) so that nobody overwrites them unknowingly, and does
// nothing with them. Reading changes nothing and needs no kernel driver. What is read is checked by its checksum and not trusted
// beyond that.
package raid

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Format is the kind of metadata of a member.
type Format string

// The formats. The numbers are what mdadm calls the versions of md's own.
const (
	V090 Format = "0.90" // at the end
	V10  Format = "1.0"  // at the end
	V11  Format = "1.1"  // at the start
	V12  Format = "1.2"  // 4 KiB behind the start
	IMSM Format = "imsm" // Intel firmware RAID, in the last but one sector
	DDF  Format = "ddf"  // SNIA disk data format, in the last sector
)

// Roles of members that have no place in the array.
const (
	Spare   = -1
	Faulty  = -2
	Journal = -3
)

// Member is what a disk or partition says of the array that it belongs to.
type Member struct {
	Format Format
	// UUID is the array's, 36 characters in the order of the bytes on disk; empty for firmware RAID.
	UUID string
	// Name is the array's, without the host: text from outside, without control characters. Host is empty where it is not named.
	Host, Name string
	// Level is that of md: 0, 1, 4, 5, 6, 10, or negative for what is no RAID.
	Level int
	// Disks is how many places the array has, and Place which one this member has, from 0, or one of the roles above. Active is how
	// many places were taken when the member was written last.
	Disks, Place, Active int
	// Events counts the changes of the array: a member with a smaller number than others was away and is out of date.
	Events uint64
	// Clean reports whether the array was stopped in order.
	Clean bool
}

// Foreign reports whether it is firmware RAID, which this package only recognises.
func (m Member) Foreign() bool { return m.Format == IMSM || m.Format == DDF }

// String describes the member for a person.
func (m Member) String() string {
	if m.Foreign() {
		return fmt.Sprintf("member of a firmware RAID (%s)", m.Format)
	}
	name := m.Name
	if m.Host != "" {
		name = m.Host + ":" + name
	}
	return fmt.Sprintf("member of the RAID %d array %q (%s)", m.Level, name, m.UUID)
}

// ErrNone says that there is no metadata of an array.
var ErrNone = errors.New("no member of an array")

const (
	magic    = 0xa92b4efc // linux/raid/md_p.h
	maxRoles = 1920       // what fits behind the header in 4 KiB
)

var le = binary.LittleEndian

// Read returns what the disk or partition r of size bytes says. ErrNone: nothing that holds. Another error means that it could
// not be read.
func Read(r io.ReaderAt, size int64) (Member, error) {
	for _, f := range []struct {
		format Format
		at     int64
		parse  func(b []byte, sector int64) (Member, bool)
		bytes  int64
	}{
		{V12, 4096, parse1, 4096},
		{V11, 0, parse1, 4096},
		{V10, (size/512 - 16) &^ 7 * 512, parse1, 4096},
		{V090, size&^65535 - 65536, parse090, 4096},
		{IMSM, size/512*512 - 1024, parseIMSM, 512},
		{IMSM, size/4096*4096 - 8192, parseIMSM, 512},
		{DDF, size/512*512 - 512, parseDDF, 512},
		{DDF, size/4096*4096 - 4096, parseDDF, 512},
	} {
		if f.at < 0 || f.at > size-f.bytes {
			continue
		}
		b := make([]byte, f.bytes)
		if n, err := r.ReadAt(b, f.at); n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return Member{}, fmt.Errorf("read array metadata at byte %d: %w", f.at, err)
		}
		if m, ok := f.parse(b, f.at/512); ok {
			m.Format = f.format
			return m, nil
		}
	}
	return Member{}, ErrNone
}

// parse1 parses a superblock of version 1 (struct mdp_superblock_1 of linux/raid/md_p.h) that lies at a sector. All numbers are
// little-endian.
func parse1(b []byte, sector int64) (Member, bool) {
	roles := le.Uint32(b[220:])
	if le.Uint32(b) != magic || le.Uint32(b[4:]) != 1 || roles > maxRoles || le.Uint64(b[144:]) != uint64(sector) {
		return Member{}, false
	}
	if le.Uint32(b[216:]) != sum1(b[:256+2*roles]) {
		return Member{}, false
	}
	m := Member{
		UUID: format(b[16:32]), Name: clean(b[32:64]),
		Level: int(int32(le.Uint32(b[72:]))), Disks: int(le.Uint32(b[92:])), Place: Spare,
		Events: le.Uint64(b[200:]), Clean: le.Uint64(b[208:]) == 1<<64-1,
	}
	if host, name, ok := strings.Cut(m.Name, ":"); ok {
		m.Host, m.Name = host, name
	}
	own, taken := le.Uint32(b[160:]), map[int]bool{}
	for i := range roles {
		place := Spare
		switch role := le.Uint16(b[256+2*i:]); role {
		case 0xffff:
		case 0xfffe:
			place = Faulty
		case 0xfffd:
			place = Journal
		default:
			place = int(role)
			taken[place] = place < m.Disks
		}
		if i == own {
			m.Place = place
		}
	}
	for _, yes := range taken {
		if yes {
			m.Active++
		}
	}
	return m, m.sane()
}

// sum1 is the checksum of a superblock of version 1: the sum of its words, the checksum's own left out, with what overflows added
// again (drivers/md/md.c, calc_sb_1_csum).
func sum1(b []byte) uint32 {
	var sum uint64
	for i := 0; i+4 <= len(b); i += 4 {
		if i != 216 {
			sum += uint64(le.Uint32(b[i:]))
		}
	}
	if len(b)%4 == 2 {
		sum += uint64(le.Uint16(b[len(b)-2:]))
	}
	return uint32(sum) + uint32(sum>>32)
}

// parse090 parses a superblock of version 0.90 (mdp_super_t of linux/raid/md_p.h): 1024 words in the byte order of the machine that
// made it.
func parse090(b []byte, _ int64) (Member, bool) {
	var order binary.ByteOrder = le
	if binary.BigEndian.Uint32(b) == magic {
		order = binary.BigEndian
	}
	word := func(i int) uint32 { return order.Uint32(b[4*i:]) }
	if word(0) != magic || word(1) != 0 || word(2) < 90 {
		return Member{}, false
	}
	var sum uint64
	for i := range 1024 {
		if i != 38 {
			sum += uint64(word(i))
		}
	}
	if uint32(sum)+uint32(sum>>32) != word(38) {
		return Member{}, false
	}
	id := make([]byte, 0, 16)
	for _, i := range []int{5, 13, 14, 15} {
		id = binary.BigEndian.AppendUint32(id, word(i))
	}
	low, high := word(39), word(40)
	if order == binary.BigEndian {
		low, high = high, low
	}
	m := Member{
		UUID: format(id), Level: int(int32(word(7))), Disks: int(word(10)), Place: Spare,
		Events: uint64(high)<<32 | uint64(low), Clean: word(33)&1 != 0,
	}
	const thisDisk = 1024 - 32
	switch state := word(thisDisk + 4); {
	case state&1 != 0:
		m.Place = Faulty
	case state&(1<<1|1<<2) == 1<<1|1<<2: // active and in sync
		m.Place = int(int32(word(thisDisk + 3)))
	}
	m.Active = int(min(word(34), word(10))) // active_disks
	return m, m.sane()
}

// parseIMSM recognises Intel's metadata by their signature (struct imsm_super of mdadm's super-intel.c).
func parseIMSM(b []byte, _ int64) (Member, bool) {
	if !bytes.HasPrefix(b, []byte("Intel Raid ISM Cfg Sig. ")) {
		return Member{}, false
	}
	return Member{Name: clean(b[:32]), Place: Spare}, true
}

// parseDDF recognises the anchor header, in either byte order (SNIA Common RAID Disk Data Format 2.0, DDF header).
func parseDDF(b []byte, _ int64) (Member, bool) {
	if m := binary.BigEndian.Uint32(b); m != 0xde11de11 && m != 0x11de11de {
		return Member{}, false
	}
	return Member{Name: clean(b[8:32]), Place: Spare}, true
}

func (m Member) sane() bool {
	return m.UUID != "" && m.Disks > 0 && m.Disks <= maxRoles && m.Place < m.Disks && m.Place >= Journal
}

// format writes 16 bytes as a UUID. All zeros are none.
func format(b []byte) string {
	if bytes.Equal(b, make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// clean makes text from outside fit for logs.
func clean(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), "?")))
}
