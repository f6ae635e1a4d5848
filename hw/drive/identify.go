package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// words are the 256 words of an ATA drive, little endian.
type words []byte

func (w words) at(n int) uint16 { return binary.LittleEndian.Uint16(w[2*n:]) }

func (w words) quad(n int) uint64 { return binary.LittleEndian.Uint64(w[2*n:]) }

// text returns a field of characters, two to a word with the first one in the upper byte (ACS-3 3.4, ATA strings).
func (w words) text(first, last int) string {
	var b []byte
	for i := first; i <= last; i++ {
		b = append(b, w[2*i+1], w[2*i])
	}
	return text(b)
}

// Identify is what IDENTIFY DEVICE says of an ATA drive (ACS-3 7.12).
type Identify struct {
	Model, Serial, Firmware string
	Sectors                 uint64 // that can be addressed now
	SectorSize              int    // bytes of a logical sector
	LBA48                   bool   // 48-bit commands
	HPA                     bool   // the host protected area feature set (ACS-2)
	DCO                     bool   // the device configuration overlay feature set (ACS-2)
	AccessibleMax           bool   // what came after both
	Rotation                Rotation
	Security                Security
	Sanitize                []Erasure // strongest first
	WWN                     uint64    // 0 if there is none
	Raw                     []byte    // all 512 bytes
}

// Security is the state of the security feature set (ACS-3 7.12, words 89, 90 and 128).
type Security struct {
	Supported     bool
	Enabled       bool // a user password is set
	Locked        bool
	Frozen        bool // until the power goes off and on
	Expired       bool // too many wrong passwords
	Enhanced      bool // the enhanced erase is known
	Maximum       bool // level maximum: the master password cannot unlock
	EraseTime     time.Duration
	EnhancedTime  time.Duration
	TimesAreFloor bool // one of the two takes at least as long as it says
}

// ParseIdentify reads the data of IDENTIFY DEVICE. It returns an error for those of a packet device, for those whose checksum is wrong,
// and for those without a size.
func ParseIdentify(b []byte) (Identify, error) {
	if len(b) < 512 {
		return Identify{}, fmt.Errorf("IDENTIFY DEVICE data have %d bytes, want 512", len(b))
	}
	b = b[:512]
	if err := checkIntegrity(b); err != nil {
		return Identify{}, fmt.Errorf("IDENTIFY DEVICE: %w", err)
	}
	w := words(b)
	if w.at(0)&(1<<15) != 0 {
		return Identify{}, errors.New("IDENTIFY DEVICE: this is no ATA disk")
	}
	// Words 83 and 84 say that they are valid by 01b in bits 15:14, and 119 too; those of 82 are then valid.
	supported, extended := w.at(83)>>14 == 1, w.at(119)>>14 == 1
	id := Identify{
		Model: w.text(27, 46), Serial: w.text(10, 19), Firmware: w.text(23, 26),
		Sectors: uint64(w.at(60)) | uint64(w.at(61))<<16, SectorSize: 512,
		LBA48: supported && w.at(83)&(1<<10) != 0, HPA: supported && w.at(82)&(1<<10) != 0, DCO: supported && w.at(83)&(1<<11) != 0,
		AccessibleMax: extended && w.at(119)&(1<<8) != 0, Rotation: Rotation(w.at(217)), Raw: b,
	}
	if id.LBA48 && w.quad(100) != 0 {
		id.Sectors = w.quad(100)
	}
	if w.at(106)>>14 == 1 && w.at(106)&(1<<12) != 0 { // logical sectors are longer than 256 words
		id.SectorSize = 2 * int(uint32(w.at(117))|uint32(w.at(118))<<16)
	}
	if id.Sectors == 0 || id.SectorSize < 512 || id.SectorSize > 1<<20 || id.Sectors > 1<<48 {
		return Identify{}, fmt.Errorf("IDENTIFY DEVICE: %d sectors of %d bytes", id.Sectors, id.SectorSize)
	}
	if w.at(84)>>14 == 1 && w.at(84)&(1<<8) != 0 {
		id.WWN = uint64(w.at(108))<<48 | uint64(w.at(109))<<32 | uint64(w.at(110))<<16 | uint64(w.at(111))
	}
	id.Security = parseSecurity(w)
	if s := w.at(59); s&(1<<12) != 0 {
		for e, bit := range []int{13, 15, 14} { // in the order of Erasure
			if s&(1<<bit) != 0 {
				id.Sanitize = append(id.Sanitize, CryptoErase+Erasure(e))
			}
		}
	}
	return id, nil
}

func parseSecurity(w words) Security {
	s := w.at(128)
	bit := func(n int) bool { return s&(1<<n) != 0 }
	out := Security{Supported: bit(0), Enabled: bit(1), Locked: bit(2), Frozen: bit(3), Expired: bit(4), Enhanced: bit(5), Maximum: bit(8)}
	var floor [2]bool
	out.EraseTime, floor[0] = eraseTime(w.at(89))
	out.EnhancedTime, floor[1] = eraseTime(w.at(90))
	out.TimesAreFloor = floor[0] || floor[1]
	return out
}

// eraseTime reads word 89 or 90: twice the minutes, in 15 bits if bit 15 is set and else in 8 (ACS-3 7.12). All ones is that or more; 0
// is not said.
func eraseTime(w uint16) (d time.Duration, floor bool) {
	n, most := w&0xff, uint16(0xff)
	if w&(1<<15) != 0 {
		n, most = w&0x7fff, 0x7fff
	}
	return time.Duration(n) * 2 * time.Minute, n == most
}

// checkIntegrity looks at word 255 (ACS-3 7.12): if its lower byte is A5h the sum of all 512 bytes is 0.
func checkIntegrity(b []byte) error {
	if b[510] != 0xa5 {
		return nil
	}
	var sum byte
	for _, c := range b {
		sum += c
	}
	if sum != 0 {
		return errors.New("the checksum is wrong")
	}
	return nil
}
